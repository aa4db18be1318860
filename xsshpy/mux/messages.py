"""The messages of OpenSSH's multiplexing protocol, both ways (PROTOCOL.mux, version 4).

    frame:    length (4) of what follows, kind (4), fields
    field:    number or flag (4), or string: length (4), bytes

Rules kept here:

* No socket, loop or clock: bytes in, messages out.
* The peer is not trusted. A frame is at most :data:`MAX_FRAME` long, of a list only the first
  :data:`MAX_VARIABLES` entries are taken, and whatever breaks a rule is one
  :class:`MuxProtocolError`, whose text names the fault, never the bytes.
* Read as ssh reads: any number but zero is a true flag, a string may end in one NUL and has no
  other, and what follows a message's last field in its frame is passed over.

Descriptors do not travel in frames: one byte each follows the frames of :class:`NewSession` and
:class:`NewStdioForward` (:func:`count_descriptors`).
"""

from __future__ import annotations

from xsshpy.values import IntEnum, dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

VERSION = 4
"""The only version there is of the protocol."""

MAX_FRAME = 256 * 1024
"""Longest frame (bytes after its length), as ssh has it."""

MAX_VARIABLES = 4096
"""Most variables that are taken of what a session asks for, as with ssh."""

NO_ESCAPE = 0xFFFFFFFF
"""Stands for no escape character."""

XSSH_EXTENSION = (b"xssh", b"1")
"""What a master of xssh's adds to its hello: X11 through it is its own business."""

PATH_PORT = 0xFFFFFFFE
"""A port that says: the host beside it is the path of a Unix socket."""

_SIZE = 4
_MAX_NUMBER = 0xFFFFFFFF


class MuxProtocolError(Exception):
    """The peer does not speak this protocol. The text names the fault, never the bytes."""


class Kind(IntEnum):
    """The numbers of the messages. Those of proxy mode are in OpenSSH's source only."""

    HELLO = 0x00000001
    NEW_SESSION = 0x10000002
    ALIVE_CHECK = 0x10000004
    TERMINATE = 0x10000005
    OPEN_FORWARD = 0x10000006
    CLOSE_FORWARD = 0x10000007
    NEW_STDIO_FORWARD = 0x10000008
    STOP_LISTENING = 0x10000009
    PROXY = 0x1000000F
    OK = 0x80000001
    PERMISSION_DENIED = 0x80000002
    FAILURE = 0x80000003
    EXIT_MESSAGE = 0x80000004
    ALIVE = 0x80000005
    SESSION_OPENED = 0x80000006
    REMOTE_PORT = 0x80000007
    TTY_ALLOCATION_FAILED = 0x80000008
    PROXY_STARTED = 0x8000000F


class MuxForwardKind(IntEnum):
    """What :class:`OpenForward` and :class:`CloseForward` are about."""

    LOCAL = 1
    REMOTE = 2
    DYNAMIC = 3


@dataclass(frozen=True)
class Hello:
    """The first message of each side. ``extensions`` are names and values in turn."""

    version: int = VERSION
    extensions: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class NewSession:
    """A session for the three standard streams, which follow as descriptors.

    ``escape`` is a character's code or :data:`NO_ESCAPE`; ``variables`` are ``NAME=value``.
    """

    request_id: int
    reserved: bytes = b""
    want_tty: bool = False
    want_x11: bool = False
    want_agent: bool = False
    subsystem: bool = False
    escape: int = NO_ESCAPE
    term: bytes = b""
    command: bytes = b""
    variables: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class AliveCheck:
    """Are you there, and which process are you?"""

    request_id: int


@dataclass(frozen=True)
class Terminate:
    """End the connection and everything in it."""

    request_id: int


@dataclass(frozen=True)
class OpenForward:
    """Open a forward. ``kind`` is a MuxForwardKind, or what the peer made of it.

    An empty ``listen_host`` is the default, ``*`` is every address. A port may be
    :data:`PATH_PORT`.
    """

    request_id: int
    kind: int
    listen_host: bytes
    listen_port: int
    connect_host: bytes
    connect_port: int


@dataclass(frozen=True)
class CloseForward:
    """Close a forward that is described as when it was opened."""

    request_id: int
    kind: int
    listen_host: bytes
    listen_port: int
    connect_host: bytes
    connect_port: int


@dataclass(frozen=True)
class NewStdioForward:
    """Tie stdin and stdout, which follow as descriptors, to a port as seen from the server."""

    request_id: int
    reserved: bytes = b""
    host: bytes = b""
    port: int = 0


@dataclass(frozen=True)
class StopListening:
    """Take no more passengers and remove the socket."""

    request_id: int


@dataclass(frozen=True)
class StartProxy:
    """From the answer on, this connection carries SSH's connection protocol itself."""

    request_id: int


@dataclass(frozen=True)
class UnknownRequest:
    """A request of a kind that nobody knows: answered with a failure."""

    request_id: int
    kind: int


@dataclass(frozen=True)
class Ok:
    """It is done."""

    request_id: int


@dataclass(frozen=True)
class PermissionDenied:
    """The user refused it."""

    request_id: int
    reason: bytes


@dataclass(frozen=True)
class Failure:
    """It could not be done."""

    request_id: int
    reason: bytes


@dataclass(frozen=True)
class ExitMessage:
    """The remote program ended with this status."""

    session: int
    status: int


@dataclass(frozen=True)
class Alive:
    """I am this process."""

    request_id: int
    pid: int


@dataclass(frozen=True)
class SessionOpened:
    """The session, or the stdio forward, has begun; this is its number."""

    request_id: int
    session: int


@dataclass(frozen=True)
class RemotePort:
    """The server chose this port to listen on."""

    request_id: int
    port: int


@dataclass(frozen=True)
class TtyAllocationFailed:
    """The session goes on without a pseudo-terminal."""

    session: int


@dataclass(frozen=True)
class ProxyStarted:
    """What follows on this connection is no message of this protocol any more."""

    request_id: int


@dataclass(frozen=True)
class UnknownReply:
    """A message of a kind that no master sends."""

    kind: int


Request: TypeAlias = (
    Hello
    | NewSession
    | AliveCheck
    | Terminate
    | OpenForward
    | CloseForward
    | NewStdioForward
    | StopListening
    | StartProxy
    | UnknownRequest
)
"""What a master may be sent."""

Reply: TypeAlias = (
    Hello
    | Ok
    | PermissionDenied
    | Failure
    | ExitMessage
    | Alive
    | SessionOpened
    | RemotePort
    | TtyAllocationFailed
    | ProxyStarted
    | UnknownReply
)
"""What a passenger may be sent."""

# The fields of each: n number, f flag, s string, b a string that nobody looks at, * strings to the
# end, + pairs of a string and one that nobody looks at, to the end.
_REQUESTS: dict[int, tuple[Callable[..., Request], str]] = {
    Kind.HELLO: (Hello, "n+"),
    Kind.NEW_SESSION: (NewSession, "nbffffnss*"),
    Kind.ALIVE_CHECK: (AliveCheck, "n"),
    Kind.TERMINATE: (Terminate, "n"),
    Kind.OPEN_FORWARD: (OpenForward, "nnsnsn"),
    Kind.CLOSE_FORWARD: (CloseForward, "nnsnsn"),
    Kind.NEW_STDIO_FORWARD: (NewStdioForward, "nbsn"),
    Kind.STOP_LISTENING: (StopListening, "n"),
    Kind.PROXY: (StartProxy, "n"),
}
_REPLIES: dict[int, tuple[Callable[..., Reply], str]] = {
    Kind.HELLO: (Hello, "n+"),
    Kind.OK: (Ok, "n"),
    Kind.PERMISSION_DENIED: (PermissionDenied, "ns"),
    Kind.FAILURE: (Failure, "ns"),
    Kind.EXIT_MESSAGE: (ExitMessage, "nn"),
    Kind.ALIVE: (Alive, "nn"),
    Kind.SESSION_OPENED: (SessionOpened, "nn"),
    Kind.REMOTE_PORT: (RemotePort, "nn"),
    Kind.TTY_ALLOCATION_FAILED: (TtyAllocationFailed, "n"),
    Kind.PROXY_STARTED: (ProxyStarted, "n"),
}
_KINDS: dict[object, tuple[int, str]] = {
    message: (kind, fields)
    for table in (_REQUESTS, _REPLIES)
    for kind, (message, fields) in table.items()
}


def count_descriptors(message: Request) -> int:
    """Return how many descriptors follow a request, with one byte each."""
    if isinstance(message, NewSession):
        return 3
    return 2 if isinstance(message, NewStdioForward) else 0


def encode(message: Request | Reply) -> bytes:
    """Return the frame of a message, its length in front.

    Raises MuxProtocolError for one that is too long or whose numbers do not fit.
    """
    kind, fields = _KINDS[type(message)]
    parts = [_pack(kind)]
    names = vars(type(message))["__match_args__"]
    for code, name in zip(fields, names, strict=True):
        value = getattr(message, name)
        for item in value if code in "*+" else (value,):
            parts.append(_encode_field(item))
    body = b"".join(parts)
    if len(body) > MAX_FRAME:
        raise MuxProtocolError(f"a message of {len(body)} bytes is too long")
    return _pack(len(body)) + body


def _encode_field(value: int | bytes) -> bytes:
    if isinstance(value, int):
        if not 0 <= value <= _MAX_NUMBER:
            raise MuxProtocolError("a number is out of range")
        return _pack(value)
    return _pack(len(value)) + value


def _pack(number: int) -> bytes:
    return number.to_bytes(_SIZE, "big")


def _unpack(data: bytes | bytearray, at: int = 0) -> int:
    return int.from_bytes(data[at : at + _SIZE], "big")


def decode_request(frame: bytes) -> Request:
    """Return what a passenger sent. ``frame`` is without its length. Raises MuxProtocolError."""
    fields = _Fields(frame)
    kind = fields.number()
    if kind not in _REQUESTS:
        return UnknownRequest(fields.number(), kind)
    message, codes = _REQUESTS[kind]
    return message(*fields.take(codes))


def decode_reply(frame: bytes) -> Reply:
    """Return what a master sent. ``frame`` is without its length. Raises MuxProtocolError."""
    fields = _Fields(frame)
    kind = fields.number()
    if kind not in _REPLIES:
        return UnknownReply(kind)
    message, codes = _REPLIES[kind]
    return message(*fields.take(codes))


class _Fields:
    """Takes the fields of one frame, in order."""

    def __init__(self, frame: bytes) -> None:
        self._frame = frame
        self._at = 0

    def take(self, codes: str) -> list[object]:
        return [self._field(code) for code in codes]

    def _field(self, code: str) -> object:
        if code == "n":
            return self.number()
        if code == "f":
            return self.number() != 0
        if code == "b":
            return self._opaque()
        if code == "s":
            return self.string()
        return self._strings() if code == "*" else self._pairs()

    def number(self) -> int:
        end = self._at + _SIZE
        if end > len(self._frame):
            raise MuxProtocolError("a message is too short")
        value = _unpack(self._frame, self._at)
        self._at = end
        return value

    def string(self) -> bytes:
        text = self._opaque().removesuffix(b"\0")
        if b"\0" in text:
            raise MuxProtocolError("a string has a NUL in it")
        return text

    def _opaque(self) -> bytes:
        length = self.number()
        end = self._at + length
        if end > len(self._frame):
            raise MuxProtocolError("a string is longer than its message")
        text = self._frame[self._at : end]
        self._at = end
        return text

    def _strings(self) -> tuple[bytes, ...]:
        found: list[bytes] = []
        while self._at < len(self._frame) and len(found) < MAX_VARIABLES:
            found.append(self.string())
        return tuple(found)

    def _pairs(self) -> tuple[bytes, ...]:
        found: list[bytes] = []
        while self._at < len(self._frame) and len(found) < MAX_VARIABLES:
            found += (self.string(), self._opaque())
        return tuple(found)


class FrameReader:
    """Cuts what arrives into frames. One that failed stays failed.

    Between frames there may be single bytes that descriptors came with, and in proxy mode
    something else altogether: who reads no more than :meth:`missing` says leaves them alone.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> None:
        """Take more bytes. Who feeds it reads all frames before it reads on."""
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the next frame without its length, or None until more has arrived.

        Raises MuxProtocolError for one that is longer than the limit.
        """
        if len(self._buffer) < _SIZE:
            return None
        length = _unpack(self._buffer)
        if length > self._limit:
            raise MuxProtocolError(f"a message of {length} bytes is too long")
        end = _SIZE + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_SIZE:end])
        del self._buffer[:end]
        return frame

    def missing(self) -> int:
        """Return how many bytes the next frame lacks, as far as is known by now.

        Raises MuxProtocolError as :meth:`next_frame` does.
        """
        if len(self._buffer) < _SIZE:
            return _SIZE - len(self._buffer)
        length = _unpack(self._buffer)
        if length > self._limit:
            raise MuxProtocolError(f"a message of {length} bytes is too long")
        return max(0, _SIZE + length - len(self._buffer))
