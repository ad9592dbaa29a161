"""A collector of OTLP logs over HTTP, by the published messages (PyPI opentelemetry-proto).

argv = port, file to write to. One JSON object a line for each log record. Every third request is answered with 503 before
anything is taken, and records whose event name is edgeward.token.revoked are rejected by partial success.
"""

import http.server
import json
import sys

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service

out = open(sys.argv[2], "a", buffering=1)
count = 0


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global count
        count += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/logs" or self.headers["content-type"] != "application/x-protobuf":
            return self.answer(404, b"")
        if count % 3 == 0:
            return self.answer(503, b"", retry=True)
        request = service.ExportLogsServiceRequest()
        request.ParseFromString(body)
        answer = service.ExportLogsServiceResponse()
        for resource in request.resource_logs:
            of_resource = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    if record.event_name == "edgeward.token.revoked":
                        answer.partial_success.rejected_log_records += 1
                        answer.partial_success.error_message = "not wanted here"
                        continue
                    attributes = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in record.attributes}
                    out.write(json.dumps({
                        "resource": of_resource, "scope": scope.scope.name, "name": record.event_name,
                        "time": record.time_unix_nano, "observed": record.observed_time_unix_nano,
                        "severity": record.severity_number, "text": record.severity_text,
                        "body": record.body.string_value, "attributes": attributes,
                    }) + "\n")
        self.answer(200, answer.SerializeToString())

    def answer(self, status, body, retry=False):
        self.send_response(status)
        if retry:
            self.send_header("retry-after", "1")
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector).serve_forever()
