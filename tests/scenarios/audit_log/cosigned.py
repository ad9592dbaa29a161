"""Checks a cosigned checkpoint as a reader would: hashlib and python3-cryptography, none of our code.

Arguments: a cloud's address and port, a root certificate in PEM, the path of the checkpoint, a file with an API key (or -),
the log's key and the witness's as signed notes write keys. Prints size, root and the time of the cosignature as JSON.
"""
import base64
import hashlib
import json
import socket
import ssl
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

host, port, root_certificate, path, key_file, log_key, witness_key = sys.argv[1:]
# The cloud has a SPIFFE ID in place of a DNS name.
tls = ssl.create_default_context(cafile=root_certificate)
tls.check_hostname = False
bearer = "" if key_file == "-" else f"Authorization: Bearer {open(key_file).read().strip()}\r\n"
with tls.wrap_socket(socket.create_connection((host, int(port)), timeout=10)) as stream:
    stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{bearer}Connection: close\r\n\r\n".encode())
    answer = b"".join(iter(lambda: stream.recv(65536), b""))
head, body = answer.split(b"\r\n\r\n", 1)
assert int(head.split()[1]) == 200, answer


def opened(vkey, kind):
    name, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key)
    assert key[0] == kind and len(key) == 33, vkey
    identity = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    assert identity.hex() == key_id, vkey
    return name, identity, Ed25519PublicKey.from_public_bytes(key[1:])


def lines_of(name, identity):
    for line in lines.split("\n")[:-1]:
        mark, signer, signature = line.split(" ")
        signature = base64.b64decode(signature)
        assert mark == "\u2014"
        if (signer, signature[:4]) == (name, identity):
            yield signature[4:]


text, lines = body.decode().split("\n\n")
text += "\n"
name, identity, key = opened(log_key, 1)
(signature,) = lines_of(name, identity)
key.verify(signature, text.encode())
origin, size, root, end = text.split("\n")
assert origin == name and end == "", text
name, identity, key = opened(witness_key, 4)
(signature,) = lines_of(name, identity)
time = int.from_bytes(signature[:8], "big")
key.verify(signature[8:], f"cosignature/v1\ntime {time}\n{text}".encode())
print(json.dumps({"size": int(size), "root": base64.b64decode(root).hex(), "time": time}))
