"""S3-style storage for tests: keeps objects in a folder, and takes a request only if botocore comes to its signature.

Usage: s3_storage.py FOLDER PORT; prints the port. Of an object whose name holds 99999 it loses the last byte.
"""

import base64
import hashlib
import os
import sys
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY, SECRET, REGION = "EDGEWARDKEY", "secret-of-the-plant", "eu-central-1"


class Fixed(botocore.auth.S3SigV4QueryAuth):
    """Signs as of the time that the request names."""

    def signature_for(self, method, url, headers, query):
        signed = {name: headers[name] for name in query["X-Amz-SignedHeaders"].split(";") if name != "host"}
        request = AWSRequest(method=method, url=url, headers=signed)
        request.context["timestamp"] = query["X-Amz-Date"]
        self._expires = int(query["X-Amz-Expires"])
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        return self.signature(self.string_to_sign(request, canonical), request)


class Storage(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refusal(self):
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        given = query.pop("X-Amz-Signature", "")
        if query.get("X-Amz-Credential", "").split("/")[0] != KEY:
            return "InvalidAccessKeyId"
        made = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        now = datetime.now(timezone.utc)
        if not made - timedelta(minutes=15) < now < made + timedelta(seconds=int(query["X-Amz-Expires"])):
            return "RequestTimeTooSkewed"
        url = f"http://{self.headers['Host']}{parts.path}"
        auth = Fixed(Credentials(KEY, SECRET), "s3", REGION)
        names = {name.lower(): value for name, value in self.headers.items()}
        wanted = auth.signature_for(self.command, url, names, query)
        return None if wanted == given else "SignatureDoesNotMatch"

    def where(self):
        name = unquote(urlsplit(self.path).path).lstrip("/")
        path = os.path.normpath(os.path.join(FOLDER, name))
        assert path.startswith(FOLDER + os.sep), path
        return path

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        refused = self.refusal()
        if refused:
            return self.answer(403, f"<Error><Code>{refused}</Code></Error>".encode())
        sum_ = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if self.headers.get("x-amz-checksum-sha256") != sum_:
            return self.answer(400, b"<Error><Code>BadDigest</Code></Error>")
        path = self.where()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(body[:-1] if "99999" in path else body)
        return self.answer(200)

    def do_GET(self):
        refused = self.refusal()
        if refused:
            return self.answer(403, f"<Error><Code>{refused}</Code></Error>".encode())
        try:
            with open(self.where(), "rb") as file:
                return self.answer(200, file.read())
        except FileNotFoundError:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


FOLDER = os.path.realpath(sys.argv[1])
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Storage)
print(server.server_address[1], flush=True)
server.serve_forever()
