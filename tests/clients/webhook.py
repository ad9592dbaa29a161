"""A receiver of webhooks as Standard Webhooks has them, by that text alone (no code of ours).

argv = port, file with the secret, file to write to. One JSON object a line for each word whose signature holds and whose time
is near; a word that does not is answered with 401 and written as {"refused": why}.
"""

import base64
import hashlib
import hmac
import http.server
import json
import sys
import time

with open(sys.argv[2], encoding="ascii") as file:
    secret = base64.b64decode(file.read().strip().removeprefix("whsec_"))
out = open(sys.argv[3], "a", buffering=1, encoding="utf-8")


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        number, sent = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        signed = f"{number}.{sent}.".encode() + body
        tag = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        given = self.headers["webhook-signature"].split()
        if not any(hmac.compare_digest(f"v1,{tag}", one) for one in given):
            return self.answer(401, {"refused": "signature"})
        if abs(time.time() - int(sent)) > 300:
            return self.answer(401, {"refused": "time"})
        self.answer(204, {"id": number, **json.loads(body)})

    def answer(self, status, line):
        out.write(json.dumps(line) + "\n")
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
