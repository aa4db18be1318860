"""The link between the agent and the local relay: blocks on the wire, frames in the blocks.

One SSH channel carries any number of X clients. What passes are frames: a kind, a client, a
payload. Frames travel in blocks, each plain or deflated, and may cross from one block into the
next. ``FrameWriter`` makes blocks of frames, ``FrameReader`` frames of bytes, however they are cut.

    block:  kind (1), length (4) of what follows, at most 1 MiB
    frame:  kind (1), client (2; 0 is the link itself), length (4) of the payload, at most 16 MiB

Numbers are big-endian. A deflated block continues one raw deflate stream a direction and ends with
a sync flush, so that everything in it can be read at once.

Rules kept here:

* No socket and no clock: whoever makes a FrameWriter hands it one. Python 3.6 and later, standard
  library only, since the other host runs it too.
* The peer is not trusted: kinds belong to a direction, each has a longest payload, and a block
  is inflated step by step, so that a small one cannot become a large one in memory.
* A reader that failed stays failed: the same ``LinkError`` comes out of every later call.
* A DATA frame is a piece of a stream: it may come out in several, never gathered.
"""

import struct
import zlib
from collections import deque
from enum import IntEnum
from typing import Callable, Deque, Dict, FrozenSet, Iterable, List, Optional, Sequence, Union

from .xmessages import NEED_DATA, NeedData

MAX_BLOCK = 1 << 20
"""Longest block, in bytes on the wire behind its header."""

MAX_PAYLOAD = 1 << 24
"""Longest payload of any frame (bytes)."""

BLOCK_SIZE = 1 << 18
"""How much of the frames one block takes (bytes before compression)."""

STEP = 1 << 16
"""How much is inflated at a time (bytes)."""

SMALLEST_DEFLATED = 64
"""Shorter blocks go plain: deflate has nothing to win there (bytes)."""

LEVEL = 4
"""zlib's level: on plots 10-30 % smaller than 1, for a third more time; 6 brings little more."""

ASSUMED_RATE = 10e6
"""Rate of a link that was not measured yet (bytes a second)."""

MAX_CLIENT = 0xFFFF
MAX_COUNT = 0xFFFFFFFF

ACK_STEP = 8192
"""Blocks that hold nothing but acknowledgements are acknowledged by so many bytes at once."""

_BLOCK = struct.Struct(">BI")
_FRAME = struct.Struct(">BHI")

Buffer = Union[bytes, memoryview]


class LinkError(Exception):
    """The peer does not speak this protocol. The text names the fault, never the bytes."""


class BlockKind(IntEnum):
    """How the frames in a block are written."""

    PLAIN = 0
    DEFLATED = 1


class FrameKind(IntEnum):
    """What a frame is for. Below 16: to the local side; below 32: to the agent; else both ways."""

    OPEN = 1
    IMAGE = 2
    EOF = 3
    SEEN = 4
    NOTE = 5
    STATS = 6
    LOOK = 7
    ADMITTED = 8
    PRIME = 16
    POOL = 17
    PROPERTY = 18
    FORGET = 19
    EXPIRED = 20
    STOP = 22
    ADMIT = 23
    DISMISS = 24
    DATA = 32
    CLOSE = 33
    CREDIT = 34
    ACK = 35
    PING = 36
    PONG = 37


TO_LOCAL: FrozenSet[FrameKind] = frozenset(k for k in FrameKind if k < 16 or k >= 32)
"""What the agent may send."""

TO_AGENT: FrozenSet[FrameKind] = frozenset(k for k in FrameKind if k >= 16)
"""What the local side may send."""

LONGEST: Dict[FrameKind, int] = {
    FrameKind.OPEN: 4 + 1024,
    FrameKind.IMAGE: MAX_PAYLOAD,
    FrameKind.EOF: 0,
    FrameKind.SEEN: 1 << 18,
    FrameKind.NOTE: 4096,
    FrameKind.STATS: 1 << 16,
    FrameKind.LOOK: 1 << 13,
    FrameKind.ADMITTED: 3,
    FrameKind.PRIME: MAX_PAYLOAD,
    FrameKind.POOL: 2 + 8 + (0xFFFF << 2),
    FrameKind.PROPERTY: 1 << 22,
    FrameKind.FORGET: 1024,
    FrameKind.EXPIRED: 0,
    FrameKind.STOP: 1024,
    FrameKind.ADMIT: 2,
    FrameKind.DISMISS: 2,
    FrameKind.DATA: MAX_PAYLOAD,
    FrameKind.CLOSE: 1024,
    FrameKind.CREDIT: 4,
    FrameKind.ACK: 4,
    FrameKind.PING: 64,
    FrameKind.PONG: 64,
}
"""Longest payload of each kind (bytes)."""

OF_CLIENT: FrozenSet[FrameKind] = frozenset(
    (
        FrameKind.OPEN,
        FrameKind.IMAGE,
        FrameKind.EOF,
        FrameKind.DATA,
        FrameKind.CLOSE,
        FrameKind.CREDIT,
        FrameKind.STATS,
    )
)
"""Kinds that concern one client, and must name it."""

OF_LINK: FrozenSet[FrameKind] = frozenset(FrameKind) - OF_CLIENT - {FrameKind.SEEN, FrameKind.NOTE}
"""Kinds that concern the link, where the client's number is 0. SEEN and NOTE go with any."""

SILENT: FrozenSet[FrameKind] = frozenset((FrameKind.ACK,))
"""Kinds that call for no acknowledgement, lest two ends acknowledge each other for ever."""

_KINDS: Dict[int, FrameKind] = {int(kind): kind for kind in FrameKind}


class Frame:
    """One frame. ``payload`` is bytes, or to be sent also a memoryview of bytes."""

    __slots__ = ("client", "kind", "payload")

    def __init__(self, kind: FrameKind, client: int = 0, payload: Buffer = b"") -> None:
        self.kind = kind
        self.client = client
        self.payload = payload

    def __repr__(self) -> str:
        return "Frame({}, client={}, {} bytes)".format(
            self.kind.name, self.client, len(self.payload)
        )


FrameEvent = Union[Frame, NeedData]


def find_fault(kind: FrameKind, client: int, length: int) -> Optional[str]:
    """Return why no such frame may be sent, whoever sends it; None where it may."""
    if length > LONGEST[kind]:
        return "{} frame is too long".format(kind.name)
    if client == 0 and kind in OF_CLIENT:
        return "{} frame names no client".format(kind.name)
    if client != 0 and kind in OF_LINK:
        return "{} frame names a client".format(kind.name)
    return None


class Choice:
    """Decides for each block whether deflating it is the quicker way, from what was measured.

    Both ways cost time: bytes on the link, and work here and (about a quarter as much) there. While
    plain is the quicker one, a block is deflated now and then to learn whether that has changed;
    the slower the link, the oftener, so that it costs about a sixteenth of the link's time.
    """

    SMALL = 4096  # shorter blocks say little about speed: what they cost is the call
    SMALL_RATE = 30e6
    INTERVAL = 16
    SLOWEST = 1e6
    FASTEST = 2e9

    def __init__(self) -> None:
        self.speed = 250e6
        """Measured speed of compression (bytes a second, before it)."""
        self.ratio = 0.1
        """Measured size after compression, as a part of the size before."""
        self._plain = 0.0  # plain bytes since the last deflated block

    def decide(self, size: int, link_rate: Optional[float]) -> BlockKind:
        """Return the kind for the next ``size`` bytes; ``link_rate`` in bytes a second."""
        if size < SMALLEST_DEFLATED:
            return BlockKind.PLAIN
        rate = self._plan(link_rate)
        if size < self.SMALL:
            return BlockKind.DEFLATED if rate < self.SMALL_RATE else BlockKind.PLAIN
        if 1.25 / self.speed + self.ratio / rate < 1 / rate:
            return BlockKind.DEFLATED
        self._plain += size
        if self._plain > BLOCK_SIZE * self.INTERVAL * rate / self.speed:
            return BlockKind.DEFLATED
        return BlockKind.PLAIN

    def byte_time(self, link_rate: Optional[float]) -> float:
        """Return the seconds that a byte of large blocks takes, in the quicker way."""
        rate = self._plan(link_rate)
        return min(1 / rate, 1.25 / self.speed + self.ratio / rate)

    @staticmethod
    def _plan(link_rate: Optional[float]) -> float:
        return ASSUMED_RATE if link_rate is None else max(link_rate, 1.0)

    def learn(self, size: int, deflated: int, seconds: float) -> None:
        """A block of ``size`` bytes became ``deflated`` bytes within ``seconds``."""
        if size < self.SMALL:
            return
        self._plain = 0.0
        weight = min(0.5, size / 65536)
        # One block says little on a busy machine.
        slowest = max(self.SLOWEST, self.speed / 4)
        speed = min(self.FASTEST, max(slowest, size / max(seconds, 1e-9)))
        # Time is what adds up, so the mean is one of seconds a byte.
        self.speed = 1 / ((1 - weight) / self.speed + weight / speed)
        self.ratio += weight * (deflated / size - self.ratio)


class FrameWriter:
    """Makes blocks of frames. ``clock`` gives seconds and measures the compression.

    Seconds of the process (``time.process_time``) are best: others on the machine don't disturb.
    """

    def __init__(self, clock: Callable[[], float], level: int = LEVEL) -> None:
        self.choice = Choice()
        self.wire_bytes = 0
        """What the blocks take on the wire, with their headers, so far."""
        self._clock = clock
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)

    def encode(self, frames: Iterable[Frame], link_rate: Optional[float] = None) -> List[Buffer]:
        """Return what is to be written, in order: blocks, in pieces that share the payloads' bytes.

        ``link_rate`` is the rate of the link in bytes a second, None while nobody knows. Raises
        ValueError where a frame may not be sent at all; nothing of the call is then written.
        """
        pieces: List[Buffer] = []
        for frame in frames:
            size = len(frame.payload)
            fault = find_fault(frame.kind, frame.client, size)
            if fault is not None or not 0 <= frame.client <= MAX_CLIENT:
                raise ValueError(fault or "client's number is out of range")
            pieces.append(_FRAME.pack(frame.kind, frame.client, size))
            if size:
                pieces.append(frame.payload)
        written: List[Buffer] = []
        block: List[Buffer] = []
        room = BLOCK_SIZE
        for piece in pieces:
            while len(piece) > room:
                view = memoryview(piece)
                block.append(view[:room])
                self._write_block(block, BLOCK_SIZE, link_rate, written)
                piece, block, room = view[room:], [], BLOCK_SIZE
            block.append(piece)
            room -= len(piece)
        if block:
            self._write_block(block, BLOCK_SIZE - room, link_rate, written)
        return written

    def _write_block(
        self,
        pieces: Sequence[Buffer],
        size: int,
        link_rate: Optional[float],
        written: List[Buffer],
    ) -> None:
        if self.choice.decide(size, link_rate) is BlockKind.PLAIN:
            written.append(_BLOCK.pack(BlockKind.PLAIN, size))
            written.extend(pieces)
            self.wire_bytes += _BLOCK.size + size
            return
        is_measured = size >= Choice.SMALL  # a process's clock costs more than a small block
        started = self._clock() if is_measured else 0.0
        compress = self._deflate.compress
        parts = [compress(piece) for piece in pieces]
        parts.append(self._deflate.flush(zlib.Z_SYNC_FLUSH))
        length = sum(map(len, parts))
        if is_measured:
            self.choice.learn(size, length, self._clock() - started)
        parts.insert(0, _BLOCK.pack(BlockKind.DEFLATED, length))
        written.append(b"".join(parts))
        self.wire_bytes += _BLOCK.size + length


class FrameReader:
    """Makes frames of the bytes that arrive. ``allowed`` are the kinds that the peer may send.

    Call ``receive_data``, then ``next_event`` until it returns ``NEED_DATA``; both raise LinkError,
    and then always again. What was read before the failure comes out first. Bytes are held only
    until ``next_event`` was called often enough, but for one unfinished frame, which is no DATA.
    """

    def __init__(self, allowed: FrozenSet[FrameKind]) -> None:
        self.wire_bytes = 0
        """What was read of the blocks so far, with their headers."""
        self._allowed = allowed
        self._failure: Optional[LinkError] = None
        self._chunks: Deque[memoryview] = deque()  # from the wire
        self._header = b""  # of a block, as far as it came
        self._left = 0  # bytes of the block that are to come
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._deflated = False
        self._tail: Buffer = b""  # to be inflated
        self._inflating = False  # zlib may hold more output
        self._room = 0  # what the block may still inflate to
        self._plain = memoryview(b"")  # bytes of frames
        self._head = b""  # of a frame, as far as it came
        self._frame: Optional[Frame] = None
        self._wanted = 0  # bytes of the payload that are to come
        self._gathered = bytearray()
        self._acknowledged = 0
        self._ack_due = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the wire."""
        if self._failure is not None:
            raise self._failure
        if data:
            self._chunks.append(memoryview(data))

    def next_event(self) -> FrameEvent:
        """Return the next frame, a piece of a DATA frame as one of its own, or ``NEED_DATA``."""
        if self._failure is not None:
            raise self._failure
        try:
            while True:
                if not self._plain and not self._read_block():
                    return NEED_DATA
                frame = self._read_frame()
                if frame is not None:
                    if frame.kind not in SILENT:
                        self._ack_due = True
                    return frame
        except LinkError as failure:
            self._fail(failure)
            raise

    def take_ack(self) -> int:
        """Return how many bytes are to be acknowledged now, 0 for none; they count as sent then.

        To be asked when all that arrived was dealt with. What holds nothing but acknowledgements is
        not acknowledged until it has added up.
        """
        size = self.wire_bytes - self._acknowledged
        if not self._ack_due and size < ACK_STEP:
            return 0
        self._ack_due = False
        self._acknowledged = self.wire_bytes
        return min(size, MAX_COUNT)

    def _fail(self, failure: LinkError) -> None:
        self._failure = failure
        self._chunks.clear()
        self._tail = b""
        self._plain = memoryview(b"")
        self._gathered = bytearray()
        self._frame = None

    def _read_block(self) -> bool:
        """Read on from the wire until there are bytes of frames; False: more has to arrive."""
        while True:
            if self._inflating:
                if self._inflate_step():
                    return True
                continue
            if not self._chunks:
                return False
            chunk = self._chunks[0]
            if not self._left:
                self._read_header(chunk)
                continue
            part = chunk[: self._left]
            self._consume(len(part))
            self._left -= len(part)
            if self._deflated:
                self._tail, self._inflating = part, True
                continue
            self._plain = part
            return True

    def _consume(self, size: int) -> None:
        chunk = self._chunks[0]
        self.wire_bytes += size
        if size == len(chunk):
            self._chunks.popleft()
        else:
            self._chunks[0] = chunk[size:]

    def _read_header(self, chunk: memoryview) -> None:
        """Read a block's header, or as much as there is of it."""
        part = bytes(chunk[: _BLOCK.size - len(self._header)])
        self._consume(len(part))
        self._header += part
        if len(self._header) < _BLOCK.size:
            return
        kind, length = _BLOCK.unpack(self._header)
        self._header = b""
        if kind not in (BlockKind.PLAIN, BlockKind.DEFLATED):
            raise LinkError("block of an unknown kind")
        if not 0 < length <= MAX_BLOCK:
            raise LinkError("block with an impossible length")
        self._deflated = kind == BlockKind.DEFLATED
        self._left = length
        self._room = BLOCK_SIZE

    def _inflate_step(self) -> bool:
        """Inflate a little; False: nothing came out, and all that was there is used up."""
        most = min(STEP, self._room) or 1
        try:
            data = self._inflate.decompress(self._tail, most)
        except zlib.error:
            raise LinkError("block cannot be inflated") from None
        if len(data) > self._room:
            raise LinkError("block inflates to more than a block holds")
        self._room -= len(data)
        if self._inflate.eof:
            raise LinkError("the deflate stream ends")
        self._tail = self._inflate.unconsumed_tail
        # With nothing left to read, zlib can still hold output where it filled all it was given.
        self._inflating = bool(self._tail) or len(data) >= most
        self._plain = memoryview(data)
        return bool(data)

    def _read_frame(self) -> Optional[Frame]:
        """Use up what is there until a frame is whole, or the piece of a DATA frame."""
        plain = self._plain
        if self._frame is None:
            part = plain[: _FRAME.size - len(self._head)]
            self._plain = plain = plain[len(part) :]
            self._head += bytes(part)
            if len(self._head) < _FRAME.size:
                return None
            self._frame = self._begin_frame()
            self._head = b""
        frame = self._frame
        piece = plain[: self._wanted]
        self._plain = plain[len(piece) :]
        self._wanted -= len(piece)
        if frame.kind is FrameKind.DATA:
            if not self._wanted:
                self._frame = None
            # An empty one says nothing.
            return Frame(frame.kind, frame.client, bytes(piece)) if piece else None
        if self._wanted:
            self._gathered += piece
            return None
        if self._gathered:
            self._gathered += piece
            frame.payload = bytes(self._gathered)
            self._gathered = bytearray()
        else:
            frame.payload = bytes(piece)
        self._frame = None
        return frame

    def _begin_frame(self) -> Frame:
        code, client, length = _FRAME.unpack(self._head)
        kind = _KINDS.get(code)
        if kind is None:
            raise LinkError("frame of an unknown kind")
        if kind not in self._allowed:
            raise LinkError("{} frame goes the wrong way".format(kind.name))
        fault = find_fault(kind, client, length)
        if fault is not None:
            raise LinkError(fault)
        self._wanted = length
        return Frame(kind, client)
