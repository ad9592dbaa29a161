"""A Modbus/TCP server and clients with PyPI's `pymodbus`, which was written elsewhere, and raw frames beside it:
`modbus.py serve HOST PORT [quiet]`, `modbus.py ask HOST PORT`, `modbus.py many HOST PORT COUNT`. What comes of the questions is said as JSON lines.
Run by tests/scenarios/protocols.rs and tests/bench/gateway."""

import asyncio
import json
import socket
import struct
import sys
import time

from pymodbus.client import ModbusTcpClient
from pymodbus.server import StartAsyncTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

REGISTERS = 1000
WAIT_SECONDS = 5


def serve(host, port):
    registers = SimData(0, count=REGISTERS, values=7, datatype=DataType.REGISTERS)
    device = SimDevice(1, simdata=[registers])
    asyncio.run(StartAsyncTcpServer(device, address=(host, port), trace_packet=None if sys.argv[4:] == ["quiet"] else heard))


def heard(sending, data):
    """Says every frame that came, in hex."""
    if not sending and data:
        print("received", data.hex(), flush=True)
    return data


def said(answer):
    """What the answer is: values, or the code of an exception."""
    if answer.isError():
        return {"exception": answer.exception_code}
    return {"values": answer.registers}


def ask(host, port):
    client = ModbusTcpClient(host, port=port, timeout=WAIT_SECONDS, retries=0)
    if not client.connect():
        raise SystemExit("cannot connect")
    questions = {
        "read": lambda: client.read_holding_registers(0, count=3),
        "read_past": lambda: client.read_holding_registers(195, count=10),
        "write_span": lambda: client.write_registers(48, [1, 2, 3, 4]),
        "read_span": lambda: client.read_holding_registers(48, count=4),
        "write_past": lambda: client.write_registers(95, [9] * 10),
        "read_unchanged": lambda: client.read_holding_registers(95, count=5),
        "read_and_write": lambda: client.readwrite_registers(
            read_address=0, read_count=1, write_address=500, values=[1]
        ),
        "mask": lambda: client.mask_write_register(address=0),
        "other_unit": lambda: client.read_holding_registers(0, count=1, device_id=2),
        "identify": lambda: client.read_device_information(),
        "read_after_all": lambda: client.read_holding_registers(1, count=1),
    }
    # One connection for all: what is denied does not end it.
    say(**{name: said(question()) for name, question in questions.items()})
    client.close()
    say(pipelined=pipelined(host, port), closed_on=[garbage(host, port, bytes_) for bytes_ in GARBAGE])


def frame(number, pdu, unit=1):
    return struct.pack(">HHHB", number, 0, len(pdu) + 1, unit) + pdu


# Another protocol, a protocol identifier, a length, a function code, a number of bytes that cannot be.
GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    struct.pack(">HHHB", 1, 9, 6, 1) + b"\x03\x00\x00\x00\x01",
    struct.pack(">HHHB", 1, 0, 999, 1),
    frame(1, b"\x83\x01"),
    frame(1, b"\x10\x00\x00\x00\x02\x03\x00\x01\x00"),
]


def pipelined(host, port):
    """Many requests before any answer is read, every third of them denied."""
    numbers = list(range(1, 61))
    with socket.create_connection((host, port), WAIT_SECONDS) as stream:
        stream.sendall(b"".join(frame(n, b"\x03" + struct.pack(">HH", 900 if n % 3 == 0 else n, 1)) for n in numbers))
        stream.settimeout(WAIT_SECONDS)
        answers, received = {}, b""
        while len(answers) < len(numbers):
            received += stream.recv(4096)
            while len(received) >= 6:
                length = 6 + struct.unpack(">H", received[4:6])[0]
                if len(received) < length:
                    break
                answers[struct.unpack(">H", received[:2])[0]] = received[7]
                received = received[length:]
    return all(answers[n] == (0x83 if n % 3 == 0 else 3) for n in numbers)


def garbage(host, port, bytes_):
    """Whether the connection is closed at once, without an answer."""
    with socket.create_connection((host, port), WAIT_SECONDS) as stream:
        stream.settimeout(WAIT_SECONDS)
        stream.sendall(bytes_)
        try:
            return stream.recv(100) == b""
        except ConnectionResetError:
            return True


def many(host, port, count):
    """One request after the other on one connection: requests per second, and percentiles in microseconds."""
    times, request = [], frame(1, b"\x03\x00\x00\x00\x0a")
    with socket.create_connection((host, port), WAIT_SECONDS) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        for _ in range(count):
            asked = time.perf_counter()
            stream.sendall(request)
            answer = b""
            while len(answer) < 29:
                answer += stream.recv(100)
            times.append(time.perf_counter() - asked)
        took = time.perf_counter() - begun
    times.sort()
    micros = lambda share: round(times[int(len(times) * share)] * 1e6)
    say(per_second=round(count / took), p50_us=micros(0.5), p99_us=micros(0.99))


def say(**what):
    print(json.dumps(what), flush=True)


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]))
elif sys.argv[1] == "ask":
    ask(sys.argv[2], int(sys.argv[3]))
else:
    many(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
