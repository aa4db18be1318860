"""X11 messages as bytes, and readers run over them whole or in pieces."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator

from xsshpy.remote.xmessages import (
    Authorization,
    ByteOrder,
    NeedData,
    ProtocolError,
    SetupRequest,
    build_setup_request,
)
from xsshpy.remote.xwire import ClientReader, ServerReader

COOKIE = Authorization(b"MIT-MAGIC-COOKIE-1", bytes(range(16)))
NO_OPERATION = 127
QUERY_EXTENSION = 98
LIST_EXTENSIONS = 99


def setup(order: ByteOrder, cookie: Authorization = COOKIE) -> bytes:
    return build_setup_request(SetupRequest(order, 11, 0, cookie))


def setup_success(order: ByteOrder, extra: int = 8) -> bytes:
    return struct.pack(order.value + "BxHHH", 1, 11, 0, extra) + bytes(extra * 4)


def request(order: ByteOrder, opcode: int, body: bytes = b"", minor: int = 0) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(order.value + "BBH", opcode, minor, 1 + len(body) // 4) + body


def long_request(order: ByteOrder, opcode: int, body: bytes = b"", minor: int = 0) -> bytes:
    body += bytes(-len(body) % 4)
    head = struct.pack(order.value + "BBHI", opcode, minor, 0, 2 + len(body) // 4)
    return head + body


def query_body(order: ByteOrder, name: bytes) -> bytes:
    return struct.pack(order.value + "Hxx", len(name)) + name


def query(order: ByteOrder, name: bytes) -> bytes:
    return request(order, QUERY_EXTENSION, query_body(order, name))


def reply(
    order: ByteOrder, sequence: int, body: bytes = b"", extra: bytes = b"", one: int = 0
) -> bytes:
    head = struct.pack(order.value + "BBHI", 1, one, sequence & 0xFFFF, len(extra) // 4)
    return head + body + bytes(24 - len(body)) + extra


def present(order: ByteOrder, sequence: int, opcode: int = 140) -> bytes:
    return reply(order, sequence, bytes((1, opcode, 70, 130)))


def absent(order: ByteOrder, sequence: int) -> bytes:
    return reply(order, sequence)


def names_reply(order: ByteOrder, sequence: int, names: Iterable[bytes]) -> bytes:
    listed = list(names)
    text = b"".join(bytes((len(name),)) + name for name in listed)
    return reply(order, sequence, b"", text + bytes(-len(text) % 4), one=len(listed))


def error(order: ByteOrder, sequence: int, opcode: int, code: int = 1) -> bytes:
    return struct.pack(order.value + "BBHIHB21x", 0, code, sequence & 0xFFFF, 0, 0, opcode)


def event(order: ByteOrder, code: int, sequence: int, fill: bytes = b"\x55") -> bytes:
    return struct.pack(order.value + "BBH", code, 0, sequence & 0xFFFF) + fill * 28


def keymap_notify(fill: bytes = b"\xff") -> bytes:
    return bytes((11,)) + fill * 31


def generic_event(order: ByteOrder, sequence: int, extra: bytes, sent: bool = False) -> bytes:
    code = 35 | (0x80 if sent else 0)
    return (
        struct.pack(order.value + "BBHI24x", code, 130, sequence & 0xFFFF, len(extra) // 4) + extra
    )


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut data at these places (any integers)."""
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def read_all(
    reader: ClientReader | ServerReader, parts: Iterable[bytes]
) -> tuple[list[object], str | None]:
    """Feed the parts; return the events and the text of the failure that ended it."""
    events: list[object] = []
    try:
        for part in parts:
            reader.receive_data(part)
            while True:
                found = reader.next_event()
                if isinstance(found, NeedData):
                    break
                events.append(found)
    except ProtocolError as failure:
        return events, str(failure)
    return events, None
