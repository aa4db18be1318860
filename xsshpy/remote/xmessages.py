"""The messages of an X11 connection as values, and the few that are built here.

Python 3.6 and later, standard library only: both ends of a connection use these.

Follows the X Window System Protocol, version 11, §1 (formats), §8 (connection setup), appendix B.
"""

import struct
from enum import Enum
from typing import Optional, Union

PROTOCOL_MAJOR = 11
PROTOCOL_MINOR = 0

QUERY_EXTENSION = 98
LIST_EXTENSIONS = 99

ERROR = 0
REPLY = 1
KEYMAP_NOTIFY = 11
GENERIC_EVENT = 35


class ProtocolError(Exception):
    """The peer does not speak X11, or not as it may. The text names the fault, never the bytes."""


class ByteOrder(Enum):
    """Byte order of one connection; the client chooses it with its first byte."""

    BIG = ">"
    LITTLE = "<"

    @property
    def mark(self) -> bytes:
        """The first byte of a client of this order: ``B`` or ``l``."""
        return b"B" if self is ByteOrder.BIG else b"l"


class SetupStatus(Enum):
    """First byte of the server's answer to the connection setup."""

    FAILED = 0
    SUCCESS = 1
    AUTHENTICATE = 2


class NeedData:
    """Nothing more can be said until more bytes arrive. Its only instance is ``NEED_DATA``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NEED_DATA"


NEED_DATA = NeedData()


class Authorization:
    """A name such as ``MIT-MAGIC-COOKIE-1`` and its data, which is a secret and never shown."""

    __slots__ = ("data", "name")

    def __init__(self, name: bytes, data: bytes) -> None:
        self.name = name
        self.data = data

    def __repr__(self) -> str:
        return "Authorization(name={!r})".format(self.name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Authorization):
            return NotImplemented
        return self.name == other.name and self.data == other.data

    def __hash__(self) -> int:
        return hash((self.name, self.data))


NO_AUTHORIZATION = Authorization(b"", b"")


class SetupRequest:
    """A client's connection setup: byte order, protocol version, authorization."""

    __slots__ = ("authorization", "major", "minor", "order")

    def __init__(
        self, order: ByteOrder, major: int, minor: int, authorization: Authorization
    ) -> None:
        self.order = order
        self.major = major
        self.minor = minor
        self.authorization = authorization

    def __repr__(self) -> str:
        return "SetupRequest({}, {}.{}, {!r})".format(
            self.order.name, self.major, self.minor, self.authorization
        )


class SetupReply:
    """The server's answer to the setup, whole. ``reason`` is empty where the answer is yes."""

    __slots__ = ("data", "reason", "status")

    def __init__(self, status: SetupStatus, reason: bytes, data: bytes) -> None:
        self.status = status
        self.reason = reason
        self.data = data

    def __repr__(self) -> str:
        return "SetupReply({}, {} bytes)".format(self.status.name, len(self.data))


class Raw:
    """Bytes that nobody asked to see, to be passed on; they may begin and end within a message."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __repr__(self) -> str:
        return "Raw({} bytes)".format(len(self.data))


class Request:
    """One request that was asked for.

    ``sequence`` counts from 1 and does not wrap. ``size`` is the length on the wire and
    ``header_size`` 4 or, with a long length, 8 bytes. ``data`` are its first bytes as on the wire,
    at least ``min(size, whole)`` of them; what is missing follows as ``Raw``.
    """

    __slots__ = ("data", "header_size", "opcode", "sequence", "size")

    def __init__(
        self, opcode: int, sequence: int, size: int, header_size: int, data: bytes
    ) -> None:
        self.opcode = opcode
        self.sequence = sequence
        self.size = size
        self.header_size = header_size
        self.data = data

    @property
    def body(self) -> bytes:
        """What of ``data`` follows the header."""
        return self.data[self.header_size :]

    def __repr__(self) -> str:
        return "Request(opcode={}, sequence={}, size={})".format(
            self.opcode, self.sequence, self.size
        )


class Message:
    """One reply, error or event that was asked for.

    ``code`` is the first byte (0 error, 1 reply, else event; the top bit marks a sent event).
    ``sequence`` does not wrap; for a message without a number it is that of the one before.
    ``purpose`` is what ``expect`` was told, None for a message that nobody awaited. ``size`` and
    ``data`` as in ``Request``.
    """

    __slots__ = ("code", "data", "purpose", "sequence", "size")

    def __init__(
        self, code: int, sequence: int, size: int, data: bytes, purpose: Optional[object]
    ) -> None:
        self.code = code
        self.sequence = sequence
        self.size = size
        self.data = data
        self.purpose = purpose

    def __repr__(self) -> str:
        return "Message(code={}, sequence={}, size={})".format(self.code, self.sequence, self.size)


ClientEvent = Union[SetupRequest, Request, Raw, NeedData]
ServerEvent = Union[SetupReply, Message, Raw, NeedData]


def pad_length(length: int) -> int:
    """Return how many bytes fill ``length`` up to a multiple of four."""
    return -length % 4


def widen_sequence(last: int, low: int) -> int:
    """Return the smallest sequence number not below ``last`` whose lower 16 bits are ``low``.

    Right while the server says anything at all every 65,536 requests; otherwise too small by a
    multiple of that, never too large.
    """
    return last + ((low - last) & 0xFFFF)


def build_setup_request(setup: SetupRequest) -> bytes:
    """Return a connection setup as a client sends it."""
    name, data = setup.authorization.name, setup.authorization.data
    head = struct.pack(
        setup.order.value + "cxHHHHxx",
        setup.order.mark,
        setup.major,
        setup.minor,
        len(name),
        len(data),
    )
    return head + name + bytes(pad_length(len(name))) + data + bytes(pad_length(len(data)))


def build_reply(order: str, detail: int, rest: bytes, value: bytes = b"") -> bytes:
    """Return a reply without its number: ``rest`` are the 24 bytes behind the length."""
    units = (len(value) + 3) // 4
    head = struct.pack(order + "BBHI", REPLY, detail, 0, units)
    return b"".join((head, rest, value, bytes(units * 4 - len(value))))


def build_setup_failed(order: ByteOrder, reason: bytes) -> bytes:
    """Return a server's refusal of a connection. A reason is cut at 255 bytes."""
    reason = reason[:255]
    padded = reason + bytes(pad_length(len(reason)))
    head = struct.pack(
        order.value + "BBHHH",
        SetupStatus.FAILED.value,
        len(reason),
        PROTOCOL_MAJOR,
        PROTOCOL_MINOR,
        len(padded) // 4,
    )
    return head + padded
