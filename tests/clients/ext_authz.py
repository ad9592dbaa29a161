"""Asks on Envoy's authorization service with the messages that PyPI's `xds-protos` publishes and gRPC's own client:
`ext_authz.py SOCKET QUESTION...`, each question a JSON object with `principal`, `service`, `interface` and for HTTP `method` and `path`.
What comes back is said as one JSON line each. Run by tests/scenarios/protocols.rs."""

import json
import sys

import grpc
from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub

WAIT_SECONDS = 10


def main():
    with grpc.insecure_channel(f"unix:{sys.argv[1]}") as channel:
        proxy = AuthorizationStub(channel)
        for text in sys.argv[2:]:
            try:
                answer = proxy.Check(question(json.loads(text)), timeout=WAIT_SECONDS)
            except grpc.RpcError as error:
                print(json.dumps({"error": error.code().name}), flush=True)
                continue
            overwrites = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
            print(
                json.dumps(
                    {
                        "code": answer.status.code,
                        "reason": answer.status.message,
                        "http": answer.denied_response.status.code,
                        "headers": {
                            option.header.key: option.header.value
                            for option in answer.ok_response.headers
                            if option.append_action == overwrites
                        },
                    }
                ),
                flush=True,
            )


def question(told):
    attributes = AttributeContext(context_extensions={key: told[key] for key in ("service", "interface") if key in told})
    attributes.source.principal = told.get("principal", "")
    attributes.source.address.socket_address.address = "192.0.2.7"
    if "path" in told:
        attributes.request.http.method = told["method"]
        attributes.request.http.path = told["path"]
        # What a proxy sends beside it, and nobody here reads.
        attributes.request.http.headers["user-agent"] = "x" * 4000
        attributes.request.http.protocol = "HTTP/2"
    return CheckRequest(attributes=attributes)


main()
