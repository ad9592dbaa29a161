"""A gRPC service without generated code, and a client of it: raw messages, as bytes.

grpc_echo.py serve ADDRESS          Say answers with who calls; Chat answers each message; Stop says that it was called
grpc_echo.py say ADDRESS METHOD     one call; prints the answer, or the status's name
grpc_echo.py chat ADDRESS           a message every 100 ms until the stream breaks; prints each answer as it comes
"""

import sys
import time
from concurrent import futures

import grpc


def caller(context):
    fields = dict(context.invocation_metadata())
    return fields.get("x-edgeward-spiffe-id", "nobody").encode()


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method in ("/test.Echo/Say", "/test.Echo/Stop"):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: caller(context) + b" " + request)
        if details.method == "/test.Echo/Chat":
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: (b"again " + r for r in requests))
        return None


def serve(address):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), handlers=(Echo(),))
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


def say(address, method):
    with grpc.insecure_channel(address) as channel:
        try:
            print(channel.unary_unary(f"/test.Echo/{method}")(b"hello", timeout=5).decode())
        except grpc.RpcError as error:
            print(error.code().name)


def chat(address):
    def messages():
        for number in range(600):
            yield str(number).encode()
            time.sleep(0.1)

    with grpc.insecure_channel(address) as channel:
        try:
            for answer in channel.stream_stream("/test.Echo/Chat")(messages()):
                print(answer.decode(), flush=True)
            print("ended", flush=True)
        except grpc.RpcError as error:
            print("broken", error.code().name, flush=True)


if __name__ == "__main__":
    {"serve": serve, "say": say, "chat": chat}[sys.argv[1]](*sys.argv[2:])
