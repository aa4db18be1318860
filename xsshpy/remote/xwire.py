"""X11 framing, for both ends of a connection: bytes in, events out.

Two readers cut the streams of one X connection into its messages: ``ClientReader`` what the client
sends, ``ServerReader`` what the server answers. Whoever uses them decides which messages to see;
all the others come as ``Raw`` runs, across message borders, so that an image of many megabytes
passes without being gathered, and a small request costs one look-up in a table.

Rules kept here:

* Nothing is done but framing: no socket, no clock, no environment. Python 3.6 and later, standard
  library only, since the other host runs it too.
* A reader that failed stays failed: the same ``ProtocolError`` comes out of every later call. What
  was read before the failure comes out first, however the bytes were cut.
* A client must not be able to show us other requests than the server sees. Where servers could
  disagree about a length, the stream is refused: a length of 0 before the server confirmed
  BIG-REQUESTS, and a long length below 2 or above the server's own maximum (there are servers that
  multiply it by four in 32 bits).
* At most ``whole`` bytes of one message are held back, and an awaited reply. The setup is bounded
  by its length fields: 524 bytes from a client by our limits, 256 KiB from a server.

Follows the X Window System Protocol, version 11, §1 (formats), §8 (connection setup) and appendix B
(encoding); the Big Requests Extension 2.0; the X Generic Event Extension 1.0.
"""

import struct
from collections import deque
from typing import Callable, Deque, Dict, FrozenSet, Iterable, Optional

from .xmessages import (
    GENERIC_EVENT,
    KEYMAP_NOTIFY,
    NEED_DATA,
    REPLY,
    Authorization,
    ByteOrder,
    ClientEvent,
    Message,
    ProtocolError,
    Raw,
    Request,
    ServerEvent,
    SetupReply,
    SetupRequest,
    SetupStatus,
    pad_length,
    widen_sequence,
)

MAX_AUTHORIZATION = 256
"""Longest authorization name, and longest authorization data, taken from a client (bytes)."""

MAX_AWAITED = 16384
"""Most replies that may be awaited at one time; a client in earnest awaits a handful."""

MAX_REQUEST_UNITS = (1 << 28) - 1
"""Longest request believed in (units of 4 bytes), whatever maximum the server states."""

ALL_OPCODES: FrozenSet[int] = frozenset(range(256))


class _Buffer:
    """Bytes that arrived and were not yet read.

    ``data[position:]`` is there to be read. A reader that needs more than that in one piece calls
    ``hold``; what arrives is then only gathered until there is enough, so that a message that comes
    byte by byte is copied once, not once a byte.
    """

    __slots__ = ("_held", "_wanted", "data", "position")

    def __init__(self) -> None:
        self.data = b""
        self.position = 0
        self._held = bytearray()
        self._wanted = 0

    def add(self, data: bytes) -> None:
        if self._wanted:
            self._held += data
            if len(self._held) < self._wanted:
                return
            data = bytes(self._held)
            self._held = bytearray()
            self._wanted = 0
        elif self.position < len(self.data):
            data = self.data[self.position :] + data
        self.data = data
        self.position = 0

    def available(self) -> int:
        return len(self.data) - self.position

    def take(self, length: int) -> bytes:
        start = self.position
        self.position = start + length
        if start == 0 and length == len(self.data):
            return self.data
        return self.data[start : self.position]

    def hold(self, wanted: int) -> None:
        """Gather ``wanted`` bytes, more than are there, before anything can be read again."""
        self._held = bytearray(self.data[self.position :])
        self._wanted = wanted
        self.data = b""
        self.position = 0


class ClientReader:
    """What one X client sends: its setup, then its requests.

    ``inspected`` are the major opcodes whose requests come as ``Request``; ``whole`` is how many
    bytes of each of them are gathered at least (8 to 4,194,304). Call ``receive_data``, then
    ``next_event`` until it returns ``NEED_DATA``.
    """

    def __init__(self, inspected: Iterable[int] = ALL_OPCODES, whole: int = 65536) -> None:
        if not 8 <= whole <= 4194304:
            raise ValueError("whole must lie between 8 and 4194304")
        self.order: Optional[ByteOrder] = None
        self.sequence = 0
        self._inspected = bytearray(256)
        for opcode in inspected:
            self._inspected[opcode] = 1
        self._whole = whole
        self._buffer = _Buffer()
        self._left = 0  # bytes of a request whose beginning was read
        self._in_setup = True
        self._maximum = 0  # longest long request, in units; 0: BIG-REQUESTS is not enabled
        self._failure: Optional[ProtocolError] = None
        self._length = struct.Struct("=H")
        self._long_length = struct.Struct("=I")

    def inspect(self, opcode: int) -> None:
        """From the next request on, give those of this major opcode as ``Request``."""
        self._inspected[opcode] = 1

    def enable_big_requests(self, maximum: int) -> None:
        """The server confirmed BIG-REQUESTS, and takes requests of ``maximum`` units of 4 bytes."""
        self._maximum = min(maximum, MAX_REQUEST_UNITS)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client. Raises what an earlier call raised."""
        if self._failure is not None:
            raise self._failure
        self._buffer.add(data)

    def next_event(self) -> ClientEvent:
        """Return what comes next, or ``NEED_DATA``. Raises ProtocolError, and then always again."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._next_setup() if self._in_setup else self._next_request()
        except ProtocolError as failure:
            self._failure = failure
            self._buffer = _Buffer()
            raise

    def _next_setup(self) -> ClientEvent:
        buffer = self._buffer
        if not buffer.available():
            return NEED_DATA
        if self.order is None:
            self._choose_order(buffer.data[buffer.position : buffer.position + 1])
        assert self.order is not None
        if buffer.available() < 12:
            buffer.hold(12)
            return NEED_DATA
        major, minor, name_length, data_length = struct.unpack_from(
            self.order.value + "HHHH", buffer.data, buffer.position + 2
        )
        if name_length > MAX_AUTHORIZATION or data_length > MAX_AUTHORIZATION:
            raise ProtocolError("authorization in the connection setup is too long")
        data_start = 12 + name_length + pad_length(name_length)
        size = data_start + data_length + pad_length(data_length)
        if buffer.available() < size:
            buffer.hold(size)
            return NEED_DATA
        data = buffer.take(size)
        self._in_setup = False
        return SetupRequest(
            self.order,
            major,
            minor,
            Authorization(data[12 : 12 + name_length], data[data_start : data_start + data_length]),
        )

    def _choose_order(self, mark: bytes) -> None:
        for order in ByteOrder:
            if mark == order.mark:
                self.order = order
                self._length = struct.Struct(order.value + "H")
                self._long_length = struct.Struct(order.value + "I")
                return
        raise ProtocolError("connection setup begins with no byte order")

    def _next_request(self) -> ClientEvent:
        """Run over what nobody wants to see; stop at what somebody does, or at the end."""
        buffer = self._buffer
        data, start, end = buffer.data, buffer.position, len(buffer.data)
        inspected, unpack_length = self._inspected, self._length.unpack_from
        position = start + self._left
        sequence = self.sequence
        while position + 4 <= end:
            size = unpack_length(data, position + 2)[0] << 2
            if not size or inspected[data[position]]:
                break
            sequence += 1
            position += size
        self.sequence = sequence
        if position >= end:
            self._left = position - end
            return Raw(buffer.take(end - start)) if end > start else NEED_DATA
        self._left = 0
        if position > start:
            return Raw(buffer.take(position - start))
        if end - position >= 4:
            size = unpack_length(data, position + 2)[0] << 2
            if size and position + size <= end and size <= self._whole:  # the usual case
                self.sequence += 1
                buffer.position = position + size
                taken = data[position : position + size]
                return Request(data[position], self.sequence, size, 4, taken)
        return self._single_request()

    def _single_request(self) -> ClientEvent:
        """Read the next request: one that is wanted, or has a long length, or is torn."""
        buffer = self._buffer
        available = buffer.available()
        if available < 4:
            buffer.hold(4)
            return NEED_DATA
        position, header_size = buffer.position, 4
        size = self._length.unpack_from(buffer.data, position + 2)[0] << 2
        if not size:
            if not self._maximum:
                raise ProtocolError("request of length 0 without BIG-REQUESTS")
            if available < 8:
                buffer.hold(8)
                return NEED_DATA
            header_size = 8
            units = self._long_length.unpack_from(buffer.data, position + 4)[0]
            if not 2 <= units <= self._maximum:
                raise ProtocolError("request with an impossible long length")
            size = units << 2
        opcode = buffer.data[position]
        wanted = bool(self._inspected[opcode])
        if wanted and available < min(size, self._whole):
            buffer.hold(min(size, self._whole))
            return NEED_DATA
        taken = buffer.take(min(size, available))
        self._left = size - len(taken)
        self.sequence += 1
        if wanted:
            return Request(opcode, self.sequence, size, header_size, taken)
        return Raw(taken)


AnswerTest = Callable[[bytes, int], bool]
"""Tells from the first 32 bytes of a reply, and its size, whether it can be the awaited one."""


class _Expectation:
    """One awaited reply."""

    __slots__ = ("fits", "purpose", "sequence", "settled")

    def __init__(self, sequence: int, fits: AnswerTest, purpose: object) -> None:
        self.sequence = sequence
        self.fits = fits
        self.purpose = purpose
        self.settled = False


class _Awaited:
    """The replies that are awaited, by the lower 16 bits of their numbers."""

    __slots__ = ("_by_number", "_in_order")

    def __init__(self) -> None:
        self._by_number: Dict[int, Deque[_Expectation]] = {}
        self._in_order: Deque[_Expectation] = deque()

    def __bool__(self) -> bool:
        return bool(self._by_number)

    def add(self, expectation: _Expectation) -> None:
        if len(self._in_order) >= MAX_AWAITED:
            raise ProtocolError("too many unanswered requests")
        self._in_order.append(expectation)
        self._by_number.setdefault(expectation.sequence & 0xFFFF, deque()).append(expectation)

    def find(self, number: int) -> Optional[_Expectation]:
        """Return the oldest one with these lower 16 bits."""
        found = self._by_number.get(number)
        return found[0] if found else None

    def settle(self, expectation: _Expectation) -> None:
        """Await this one, the oldest with its number, no longer."""
        expectation.settled = True
        number = expectation.sequence & 0xFFFF
        found = self._by_number[number]
        found.popleft()
        if not found:
            del self._by_number[number]

    def forget_before(self, sequence: int) -> None:
        """Await nothing below ``sequence``: the server is past it."""
        waiting = self._in_order
        while waiting and (waiting[0].settled or waiting[0].sequence < sequence):
            expectation = waiting.popleft()
            if not expectation.settled:
                self.settle(expectation)


class ServerReader:
    """What the X server sends to one client: its answer to the setup, then replies, errors, events.

    With ``inspect_all`` every message comes as ``Message``, at least ``whole`` bytes of it (32 to
    262,144) in one piece; otherwise only the answers that ``expect`` announced, always whole.
    """

    def __init__(self, order: ByteOrder, inspect_all: bool = False, whole: int = 65536) -> None:
        if not 32 <= whole <= 262144:
            raise ValueError("whole must lie between 32 and 262144")
        self.sequence = 0
        self._inspect_all = inspect_all
        self._whole = whole
        self._buffer = _Buffer()
        self._left = 0
        self._setup: Optional[SetupStatus] = None
        self._awaited = _Awaited()
        self._failure: Optional[ProtocolError] = None
        self._short = struct.Struct(order.value + "H")
        self._long = struct.Struct(order.value + "I")

    def expect(self, sequence: int, fits: AnswerTest, purpose: object) -> None:
        """Ask for the reply to a request, to be called before the server can have answered.

        The server's numbers have 16 bits, so the reply to a request 65,536 earlier has the same
        one; ``fits`` tells them apart. A reply that does not fit passes as if nobody awaited it,
        and so does an error. ``purpose`` comes back in the Message. Raises ProtocolError where too
        many are awaited.
        """
        self._awaited.add(_Expectation(sequence, fits, purpose))

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the server. Raises what an earlier call raised."""
        if self._failure is not None:
            raise self._failure
        self._buffer.add(data)

    def next_event(self) -> ServerEvent:
        """Return what comes next, or ``NEED_DATA``. Raises ProtocolError, and then always again."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._next_setup() if self._setup is None else self._next_message()
        except ProtocolError as failure:
            self._failure = failure
            self._buffer = _Buffer()
            raise

    def _next_setup(self) -> ServerEvent:
        buffer = self._buffer
        if not buffer.available():
            return NEED_DATA
        try:
            status = SetupStatus(buffer.data[buffer.position])
        except ValueError:
            raise ProtocolError("answer to the connection setup has no known status") from None
        if buffer.available() < 8:
            buffer.hold(8)
            return NEED_DATA
        length = self._short.unpack_from(buffer.data, buffer.position + 6)[0] << 2
        if buffer.available() < 8 + length:
            buffer.hold(8 + length)
            return NEED_DATA
        data = buffer.take(8 + length)
        reason = b""
        if status is SetupStatus.FAILED:
            reason = data[8 : 8 + data[1]]
        elif status is SetupStatus.AUTHENTICATE:
            reason = data[8:].rstrip(b"\0")
        self._setup = status
        return SetupReply(status, reason, data)

    def _next_message(self) -> ServerEvent:
        if self._setup is not SetupStatus.SUCCESS:
            if self._buffer.available():
                raise ProtocolError("the server goes on after it refused the connection")
            return NEED_DATA
        buffer = self._buffer
        data, start, end = buffer.data, buffer.position, len(buffer.data)
        unpack_short = self._short.unpack_from
        position = start + self._left
        sequence, wanted = self.sequence, self._inspect_all
        while not wanted and position + 32 <= end:
            code = data[position]
            size = 32
            if code & 0x7F != KEYMAP_NOTIFY:
                low = unpack_short(data, position + 2)[0]
                sequence += (low - sequence) & 0xFFFF
                if code == REPLY or code & 0x7F == GENERIC_EVENT:
                    size += self._long.unpack_from(data, position + 4)[0] << 2
                if code == REPLY and self._awaited:
                    wanted = self._find_awaited(position, size, sequence) is not None
            if not wanted:
                position += size
        self.sequence = sequence
        if position >= end:
            self._left = position - end
            return Raw(buffer.take(end - start)) if end > start else NEED_DATA
        self._left = 0
        if position > start:
            return Raw(buffer.take(position - start))
        return self._single_message()

    def _find_awaited(self, position: int, size: int, sequence: int) -> Optional[_Expectation]:
        """Return the expectation that the reply at ``position`` meets; ``sequence`` is its number.

        Where the server was silent for 65,536 requests that number is only a lower bound.
        """
        self._awaited.forget_before(sequence)
        found = self._awaited.find(sequence & 0xFFFF)
        if found is None or not found.fits(self._buffer.data[position : position + 32], size):
            return None
        return found

    def _single_message(self) -> ServerEvent:
        """Read the next message: one that is wanted, or is torn."""
        buffer = self._buffer
        available = buffer.available()
        if available < 32:
            buffer.hold(32)
            return NEED_DATA
        data, position = buffer.data, buffer.position
        code = data[position]
        size = 32
        if code == REPLY or code & 0x7F == GENERIC_EVENT:
            size += self._long.unpack_from(data, position + 4)[0] << 2
        sequence = self.sequence
        if code & 0x7F != KEYMAP_NOTIFY:
            sequence = widen_sequence(sequence, self._short.unpack_from(data, position + 2)[0])
        expectation = None
        if code == REPLY:
            expectation = self._find_awaited(position, size, sequence)
        gathered = size if expectation is not None else min(size, self._whole)
        if available < gathered:
            buffer.hold(gathered)
            return NEED_DATA
        purpose: Optional[object] = None
        if expectation is not None:
            sequence, purpose = expectation.sequence, expectation.purpose
            self._awaited.settle(expectation)
        self.sequence = sequence
        taken = buffer.take(min(size, available))
        self._left = size - len(taken)
        return Message(code, sequence, size, taken, purpose)
