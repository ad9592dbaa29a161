"""Reads an EAR as a third party would: PyJWT and OpenSSL (python3-jwt, python3-cryptography), none of our code.

Arguments: the cloud's address and port, and a root certificate in PEM. Standard input: the token. Prints its claims.
"""
import json
import socket
import ssl
import sys

import jwt

host, port, root = sys.argv[1:]
token = sys.stdin.read().strip()

# The cloud has a SPIFFE ID in place of a DNS name.
tls = ssl.create_default_context(cafile=root)
tls.check_hostname = False
tls.minimum_version = ssl.TLSVersion.TLSv1_3
with tls.wrap_socket(socket.create_connection((host, int(port)), timeout=10)) as stream:
    request = f"GET /api/v1/results/keys HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    stream.sendall(request.encode())
    answer = b"".join(iter(lambda: stream.recv(65536), b""))
head, body = answer.split(b"\r\n\r\n", 1)
assert head.startswith(b"HTTP/1.1 200 "), head
keys = jwt.PyJWKSet.from_dict(json.loads(body)).keys

kid = jwt.get_unverified_header(token)["kid"]
key = next(key.key for key in keys if key.key_id == kid)
claims = jwt.decode(token, key, algorithms=["ES256"], options={"require": ["exp", "iat", "sub"]})

header, payload, signature = token.split(".")
other = payload[:-2] + ("AA" if payload[-2:] != "AA" else "BB")
for forged in (f"{header}.{other}.{signature}", f"{header}.{payload}.{signature[:-4]}AAAA"):
    try:
        jwt.decode(forged, key, algorithms=["ES256"])
    except jwt.InvalidSignatureError:
        continue
    sys.exit("a forged token was accepted")

# AR4SI, 2.3.2: 2 to 31 affirm.
assert claims["eat_profile"] == "tag:ietf.org,2026:rats/ear#04", claims
node = claims["submods"]["node"]
assert node["ear_status"] == "affirming", node
assert all(2 <= claim <= 31 for claim in node["ear_trustworthiness_vector"].values()), node
print(json.dumps(claims))
