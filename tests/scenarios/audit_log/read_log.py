"""Reads the audit log as an auditor would: hashlib and python3-cryptography, none of our code.

Arguments: the cloud's address and port, a root certificate in PEM, a file with an API key; then, if there was an earlier
reading, its size and root (hex). Prints size and root of the newest checkpoint, the smallest index that is kept, and the
entries under the checkpoint (null: pruned), as JSON.
"""
import base64
import hashlib
import json
import socket
import ssl
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

host, port, root_certificate, key_file, *earlier = sys.argv[1:]
api_key = open(key_file).read().strip()
# The cloud has a SPIFFE ID in place of a DNS name.
tls = ssl.create_default_context(cafile=root_certificate)
tls.check_hostname = False


def ask(path):
    with tls.wrap_socket(socket.create_connection((host, int(port)), timeout=10)) as stream:
        stream.sendall(
            f"GET /api/v1/audit/log/{path} HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {api_key}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
    head, body = answer.split(b"\r\n\r\n", 1)
    return int(head.split()[1]), head.lower(), body


def good(path):
    status, head, body = ask(path)
    assert status == 200, (path, status, body)
    return head, body


def tree(leaves):
    """RFC 6962, section 2.1, as it is written there."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree(leaves[:split]) + tree(leaves[split:])).digest()


def path_of(level, index, width):
    groups = f"{index % 1000:03}"
    while index >= 1000:
        index //= 1000
        groups = f"x{index % 1000:03}/{groups}"
    return f"tile/{level}/{groups}" + (f".p/{width}" if width < 256 else "")


_, body = good("key")
key = json.loads(body)
origin, key_id, public = key["verifier"].split("+", 2)
public = base64.b64decode(public)
assert origin == key["origin"] and public[0] == 1 and len(public) == 33, key
identity = hashlib.sha256(origin.encode() + b"\n" + public).digest()[:4]
assert identity.hex() == key_id, key

head, body = good("checkpoint")
assert b"content-type: text/plain; charset=utf-8" in head, head
text, signatures = body.decode().split("\n\n")
mark, name, signature = signatures.split("\n")[0].split(" ")
signature = base64.b64decode(signature)
assert (mark, name, signature[:4]) == ("\u2014", origin, identity), signatures
Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[4:], (text + "\n").encode())
first, size, root = text.split("\n")
size, root = int(size), base64.b64decode(root)
assert first == origin

_, body = good("retention")
minimum = json.loads(body)["minimum_index"]
assert minimum % 256 == 0 and minimum <= size, minimum

entries, leaves = [], []
for tile in range((size + 255) // 256):
    width = min(256, size - tile * 256)
    if tile * 256 < minimum:
        status, _, body = ask(path_of("entries", tile, width))
        assert status == 410 and json.loads(body)["code"] == "entries_pruned", (tile, status, body)
        entries += [None] * width
    else:
        head, bundle = good(path_of("entries", tile, width))
        assert b"content-type: application/octet-stream" in head and b"immutable" in head, head
        while bundle:
            length = int.from_bytes(bundle[:2], "big")
            entries.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
    _, hashes = good(path_of(0, tile, width))
    leaves += [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
assert leaves[minimum:] == [hashlib.sha256(b"\0" + entry).digest() for entry in entries[minimum:]]
assert len(leaves) == len(entries) == size and tree(leaves) == root
full = size // 256
if full:
    _, above = good(path_of(1, 0, min(full, 256)))
    assert above == b"".join(tree(leaves[at * 256 : at * 256 + 256]) for at in range(full))
if earlier:
    before = int(earlier[0])
    assert before <= size and tree(leaves[:before]).hex() == earlier[1], "the log went back"
# Far enough ahead: this reading is an event itself.
ahead = size // 256 + 2
for beyond in (path_of(0, ahead, 1), path_of("entries", ahead, 1), "tile/0/0"):
    assert ask(beyond)[0] == 404, beyond
shown = [entry and entry.hex() for entry in entries]
print(json.dumps({"size": size, "root": root.hex(), "minimum": minimum, "entries": shown}))
