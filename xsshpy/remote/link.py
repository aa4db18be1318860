"""One end of the link: what is to be sent, in which order and how much of it; what has arrived.

Both ends are the same but for what they may send. Whoever holds a ``Link`` queues frames, writes
what ``take`` gives whenever the channel takes more, hands over what arrives, and asks ``may_read``
before it takes more from a client or from the X server.

Rules kept here:

* Sans-IO; a clock is handed over. Python 3.6 and later, standard library only.
* Frames of one client stay in order. Between clients, those with little to send go first, and the
  others in turn: input is never stuck behind images.
* At most as much is under way as the ``Pace`` of the link allows, in bytes on the wire, and for
  each client as its own allows, in bytes before compression. What waits is bounded by ``may_read``.
* What arrives is acknowledged once it was dealt with.
"""

from collections import OrderedDict, deque
from typing import Callable, Deque, Dict, FrozenSet, Iterator, List, Optional, Union

from .frames import SILENT, Frame, FrameKind, FrameReader, FrameWriter, LinkError
from .pace import CLIENT_FLOOR, Pace
from .payloads import build_ack, build_credit, build_pong, parse_count
from .xmessages import NeedData

Buffer = Union[bytes, memoryview]

READ_AHEAD = 256 * 1024
"""What may wait to be sent for one client before no more is read from it (bytes)."""

QUANTUM = 64 * 1024
"""What one client sends at a time, while others wait (bytes)."""

LITTLE = 4096
"""A client that has no more than this to send goes before the others (bytes)."""

CLIENT_CEILING = 64 << 20
"""What one client may have under way at most, however fast everything seems (bytes)."""

FEW = 32
"""Control frames that are little to send."""

CREDIT_STEP = 64 * 1024
"""What a client's data adds up to before it is confirmed (bytes)."""

FULL_IMAGES = 32 << 20
SPARE_IMAGES = 1 << 20
CLIENTS_WITH_FULL_IMAGES = 8

FRAME_SIZE = 7
"""Bytes of a frame beside its payload."""

CONTROL_LIMIT = 4096
"""Most control frames that may wait; a peer that reads none of them is no peer."""

NOTES_LIMIT = 64
"""So many control frames may wait for notes to be taken: strangers can cause any number of them."""

Encoder = Callable[[int, bytes], Frame]
"""Makes the frame of a client's image, at the moment when it is sent."""


def image_budget(client: int) -> int:
    """Return how many bytes of images both ends remember for a client: the first few have most."""
    return FULL_IMAGES if client <= CLIENTS_WITH_FULL_IMAGES else SPARE_IMAGES


class _Item:
    """Something of one client that is to be sent: ``raw`` bytes of its data, if data it is."""

    __slots__ = ("frame", "image", "raw")

    def __init__(self, frame: Optional[Frame], image: bytes, raw: int) -> None:
        self.frame = frame
        self.image = image
        self.raw = raw


class _Stream:
    """What one client's frames look like from this end."""

    __slots__ = ("consumed", "items", "pace", "queued", "wire")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.items: Deque[_Item] = deque()
        self.queued = 0
        self.pace = Pace(clock, CLIENT_FLOOR, ceiling=CLIENT_CEILING)
        self.consumed = 0
        self.wire = 0.0


class Link:
    """One end of the link. ``allowed`` are the kinds that the other end may send.

    ``clock`` gives seconds that pass, ``cpu_clock`` those that this process works: what compression
    costs must not be taken for more where the machine is busy with something else.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        cpu_clock: Callable[[], float],
        allowed: FrozenSet[FrameKind],
        encode_image: Optional[Encoder] = None,
    ) -> None:
        self._clock = clock
        self.pace = Pace(clock)
        self.writer = FrameWriter(cpu_clock)
        self.reader = FrameReader(allowed)
        self._encode_image = encode_image
        self._control: Deque[Frame] = deque()
        self._owed: "OrderedDict[int, None]" = OrderedDict()  # clients with a credit to be sent
        self._streams: Dict[int, _Stream] = {}
        self._turn: "OrderedDict[int, None]" = OrderedDict()

    # -- sending --

    def open_stream(self, client: int) -> None:
        """Begin with a client's frames."""
        self._streams[client] = _Stream(self._clock)

    def close_stream(self, client: int) -> None:
        """Forget a client; what still waits of its frames is not sent."""
        self._streams.pop(client, None)
        self._turn.pop(client, None)
        self._owed.pop(client, None)

    def queue_control(self, frame: Frame) -> None:
        """Queue a frame that goes before all data. Raises LinkError where too many wait."""
        if len(self._control) >= CONTROL_LIMIT:
            raise LinkError("the other end reads nothing")
        self._control.append(frame)

    def queue_note(self, frame: Frame) -> None:
        """Queue a control frame that may as well be lost: while many wait, it is."""
        if len(self._control) < NOTES_LIMIT:
            self._control.append(frame)

    def queue(self, frame: Frame) -> None:
        """Queue a frame of one client behind those that it has already."""
        raw = len(frame.payload) if frame.kind is FrameKind.DATA else 0
        self._queue_item(frame.client, _Item(frame, b"", raw))

    def queue_image(self, client: int, request: bytes) -> None:
        """Queue a whole PutImage of one client."""
        self._queue_item(client, _Item(None, request, len(request)))

    def _queue_item(self, client: int, item: _Item) -> None:
        stream = self._streams[client]
        stream.items.append(item)
        stream.queued += item.raw
        self._turn[client] = None

    def may_read(self, client: int) -> bool:
        """Tell whether more may be read of what this client is to send."""
        stream = self._streams.get(client)
        if stream is None:
            return False
        return stream.queued < READ_AHEAD and stream.pace.allowed > stream.queued

    @property
    def rate(self) -> Optional[float]:
        """Rate of the link to plan with (bytes a second); None while nobody knows."""
        return self.pace.link_rate

    @property
    def byte_time(self) -> float:
        """How long a byte takes to be sent, deflated where that is quicker (seconds)."""
        return self.writer.choice.byte_time(self.pace.link_rate)

    def is_drained(self, client: int) -> bool:
        """Tell whether nothing of this client waits to be sent."""
        stream = self._streams.get(client)
        return stream is None or not stream.items

    @property
    def has_little(self) -> bool:
        """Tell whether no more than a few small requests wait to be sent."""
        if len(self._control) > FEW:
            return False
        return not self._turn or sum(self._streams[one].queued for one in self._turn) <= LITTLE

    def take(self) -> List[Buffer]:
        """Return what is to be written now, in order; nothing where the link has had its share."""
        written: List[Buffer] = []
        while True:
            frames = self._pay()
            while self._control:
                frames.append(self._control.popleft())
            if self.pace.allowed > 0:
                self._choose(frames)
            if not frames:
                return written
            before = self.writer.wire_bytes
            written.extend(self.writer.encode(frames, self.pace.link_rate))
            taken = self.writer.wire_bytes - before
            self.pace.sent(taken, measured=any(each.kind not in SILENT for each in frames))
            self._share(frames, taken)

    def _pay(self) -> List[Frame]:
        """Return the credits that are due: they add up while nothing can be sent."""
        frames = []
        for client in self._owed:
            stream = self._streams[client]
            frames.append(build_credit(client, stream.consumed))
            stream.consumed = 0
        self._owed.clear()
        return frames

    def _share(self, frames: List[Frame], taken: int) -> None:
        """Put the bytes on the wire down to the clients whose frames they carry."""
        total = sum(len(frame.payload) + FRAME_SIZE for frame in frames)
        for frame in frames:
            stream = self._streams.get(frame.client)
            if stream is not None:
                stream.wire += taken * (len(frame.payload) + FRAME_SIZE) / total

    def wire_bytes(self, client: int) -> int:
        """Return what a client's frames took on the wire so far, compressed."""
        stream = self._streams.get(client)
        return 0 if stream is None else int(stream.wire)

    def _choose(self, frames: List[Frame]) -> None:
        """Add frames of clients: all that have little to send, then a share of the next."""
        for client in [one for one in self._turn if self._streams[one].queued <= LITTLE]:
            self._give(client, frames, LITTLE)
        for client in list(self._turn):
            if self._give(client, frames, QUANTUM):
                return

    def _give(self, client: int, frames: List[Frame], share: int) -> int:
        """Add frames of one client worth up to ``share`` bytes; return how many bytes they are."""
        stream = self._streams[client]
        given = 0
        while stream.items and given < share:
            item = stream.items[0]
            if item.raw and stream.pace.allowed <= 0:
                break
            frame, raw = self._take_item(client, stream, share - given)
            frames.append(frame)
            given += raw
        if stream.items:
            self._turn.move_to_end(client)
        else:
            del self._turn[client]
        return given

    def _take_item(self, client: int, stream: _Stream, share: int) -> "tuple[Frame, int]":
        item = stream.items[0]
        if item.frame is None:
            assert self._encode_image is not None
            item.frame = self._encode_image(client, item.image)
            item.image = b""
        if item.frame.kind is FrameKind.DATA and item.raw > share:
            payload = memoryview(item.frame.payload)
            frame = Frame(FrameKind.DATA, client, payload[:share])
            item.frame = Frame(FrameKind.DATA, client, payload[share:])
            item.raw -= share
            stream.queued -= share
            stream.pace.sent(share)
            return frame, share
        stream.items.popleft()
        stream.queued -= item.raw
        stream.pace.sent(item.raw)
        return item.frame, item.raw

    # -- receiving --

    def receive_data(self, data: bytes) -> Iterator[Frame]:
        """Take bytes from the channel, give the frames in them, to be iterated to the end.

        Raises LinkError; the link is then of no use any more.
        """
        self.reader.receive_data(data)
        while True:
            frame = self.reader.next_event()
            if isinstance(frame, NeedData):
                break
            if not self._take_own(frame):
                yield frame
        size = self.reader.take_ack()
        if size:
            self.queue_control(build_ack(size))

    def _take_own(self, frame: Frame) -> bool:
        """Deal with what concerns the link itself; return whether it did."""
        try:
            if frame.kind is FrameKind.ACK:
                self.pace.confirmed(parse_count(frame))
            elif frame.kind is FrameKind.CREDIT:
                stream = self._streams.get(frame.client)
                if stream is not None:
                    stream.pace.confirmed(parse_count(frame))
            elif frame.kind is FrameKind.PING:
                self.queue_control(build_pong(frame))
            else:
                return frame.kind is FrameKind.PONG
        except ValueError as error:
            raise LinkError(str(error)) from None
        return True

    def consumed(self, client: int, size: int) -> None:
        """Confirm that ``size`` bytes of a client's data were passed on."""
        stream = self._streams.get(client)
        if stream is None:
            return
        stream.consumed += size
        if stream.consumed >= CREDIT_STEP:
            self._owed[client] = None
