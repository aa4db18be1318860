"""Pictures that change a little: successive PutImage requests as differences.

A program that animates sends the same rectangle again and again, most of it as it was. The
``ImageEncoder`` near the client remembers what went to each rectangle and sends only the spans of
pixels that are new; the ``ImageDecoder`` near the X server remembers the same and puts the request
together again, byte for byte, unused bytes too. What comes out is deflated by the link.

    payload:  mode (1), unit (1: bytes a pixel, 1, 2 or 4), slot (4), size of the request (4), body
    FIRST     body: values, those of the whole request, which is kept in a new slot
    AGAIN     body: spans (4), gaps (2 each), lengths (2 each), values; replaces what the slot had
    LIKE      the same, but the result is kept in a new slot, and the old one stays

Numbers are big-endian. A span is a gap (pixels since the end of the last span that stay as they
are) and a length (pixels that are replaced); gaps, and then lengths, come with all their upper
bytes first. Values come pixel by pixel or, where 0x80 is added to the mode, as planes: the first
bytes of all pixels, then all the second ones.

The new pixels themselves are sent, not what they differ in: where a line moved away, the difference
holds the line once more, the pixels hold background. On plots that is 25-40 % less.

Rules kept here:

* Both ends keep the same slots, by construction: slots are numbered as they come, the one longest
  unused goes first when a budget is exceeded, and the encoder names the slot it means. It alone
  decides; the decoder follows.
* The decoder trusts nothing: every length is checked before memory is taken.
* No socket and no clock. Python 3.6 and later, standard library only.

Follows the X Window System Protocol, version 11, §8 (PutImage); the Big Requests Extension 2.0.
"""

import re
import struct
import zlib
from collections import OrderedDict
from typing import Dict, List, Optional, Pattern, Tuple

from .frames import MAX_PAYLOAD, Buffer, LinkError
from .xmessages import ByteOrder

PUT_IMAGE = 72

BUDGET = 32 << 20
"""How many bytes of requests both ends remember for one client."""

OVERHEAD = 512
"""What a slot costs beside its bytes."""

SMALLEST = 512
"""Shorter requests are not worth a slot (bytes)."""

LARGEST = MAX_PAYLOAD // 2
"""Longer requests pass as they are (bytes)."""

SURE_RATE = 20e6
"""On slower links (bytes a second) finding the differences is always worth its time."""

CHUNK = 2048
"""Step in which equal parts are skipped (bytes)."""

GAP = 32
"""Fewer equal bytes than this do not end a span: two spans would take more than they save."""

WIDE_GAP = 512
"""Used instead where there would be more than one span each ``BYTES_PER_SPAN`` bytes."""

BYTES_PER_SPAN = 128

SAMPLED = 16384
"""How many bytes tell whether planes compress better; shorter values are sent as they are."""

SAMPLE_INTERVAL = 16
"""After so many images to a slot the question is asked anew."""

FIRST, AGAIN, LIKE = 1, 2, 3
PLANES = 0x80

_HEAD = struct.Struct(">BBII")
_COUNT = struct.Struct(">I")
_MOST = 0xFFFF

_UNITS = (1, 2, 4)
_EQUAL = {unit: re.compile(b"\\0{%d,}" % (GAP // unit)) for unit in _UNITS}
_WIDELY_EQUAL = {unit: re.compile(b"\\0{%d,}" % (WIDE_GAP // unit)) for unit in _UNITS}

Span = Tuple[int, int]
"""Where new pixels begin and end, in bytes."""


class _Slots:
    """What both ends remember: requests by number, the longest unused first."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._used = 0
        self._next = 0
        self._requests: "OrderedDict[int, bytes]" = OrderedDict()

    def find(self, slot: int) -> Optional[bytes]:
        return self._requests.get(slot)

    def touch(self, slot: int) -> None:
        self._requests.move_to_end(slot)

    def replace(self, slot: int, request: bytes) -> None:
        """Keep another request of the same length."""
        self._requests[slot] = request
        self._requests.move_to_end(slot)

    def add(self, request: bytes) -> Tuple[int, List[int]]:
        """Keep a request in a new slot; return its number and the slots that were given up."""
        slot = self._next
        self._next += 1
        self._requests[slot] = request
        self._used += len(request) + OVERHEAD
        lost: List[int] = []
        while self._used > self._budget and len(self._requests) > 1:
            number, old = self._requests.popitem(last=False)
            self._used -= len(old) + OVERHEAD
            lost.append(number)
        return slot, lost


class _Known:
    """What the encoder knows of a slot beside its request."""

    __slots__ = ("asked", "key", "planes", "shape")

    def __init__(self, key: bytes, shape: bytes) -> None:
        self.key = key
        self.shape = shape
        self.planes = False
        self.asked = 0


class ImageChoice:
    """Decides for one client whether finding differences is the quicker way, as was measured.

    Plots that change a little are quick to compare, and little is left of them; with others the
    link may carry them sooner than they are compared. While images pass as they are, some are
    compared now and then to learn whether that has changed, for a sixteenth of the time at most.
    """

    PROBED = 4 << 20
    INTERVAL = 16

    def __init__(self) -> None:
        self.cost = 4e-9
        """Measured seconds to find the differences, a byte."""
        self.ratio = 0.2
        """Measured size of the differences, as a part of the image."""
        self._passed = 0.0

    def decide(self, size: int, rate: Optional[float], otherwise: float) -> bool:
        """Tell whether to compare the next ``size`` bytes.

        ``rate`` is the link's (bytes a second), None while nobody knows; ``otherwise`` the seconds
        a byte takes that is not compared.
        """
        if rate is None or rate < SURE_RATE:
            return True
        # Putting the image together again takes about a quarter as long.
        if 1.25 * self.cost + self.ratio * otherwise < otherwise:
            self._passed = 0.0
            return True
        interval = self.INTERVAL * self.PROBED * self.cost / otherwise
        self._passed += size
        if self._passed < interval:
            return False
        if self._passed > interval + self.PROBED:
            self._passed = 0.0
        return True

    def learn(self, size: int, payload: bytes, seconds: float) -> None:
        """An image of ``size`` bytes became this payload within ``seconds``."""
        if payload[0] & ~PLANES == FIRST:
            return  # nothing was compared
        weight = min(0.25, size / self.PROBED)
        self.cost += weight * (seconds / size - self.cost)
        self.ratio += weight * (len(payload) / size - self.ratio)


class ImageEncoder:
    """Turns PutImage requests into payloads of IMAGE frames. ``order`` is the client's byte order.

    ``budget`` bytes of requests are remembered; the decoder must be given the same.
    """

    def __init__(self, order: ByteOrder, budget: int = BUDGET) -> None:
        self._order = order
        self._largest = min(LARGEST, budget // 2)
        self._slots = _Slots(budget)
        self._known: Dict[int, _Known] = {}
        self._by_key: Dict[bytes, int] = {}
        self._by_shape: Dict[bytes, int] = {}

    def encode(self, request: bytes) -> Optional[bytes]:
        """Return the payload for one whole request; None where it is to pass as it is, as DATA.

        Frames with payloads must reach the decoder in the order in which they were made.
        """
        size = len(request)
        if not SMALLEST <= size <= self._largest or request[0] != PUT_IMAGE or size % 4:
            return None
        start = 4 if request[2:4] != b"\0\0" else 8
        # Drawable, width, height, position, left pad, depth; not the graphics context.
        shape = request[:2] + struct.pack(">I", size) + request[start + 8 : start + 18]
        key = shape + request[start : start + 4]
        unit = find_unit(request, start, self._order)
        slot = self._by_key.get(key)
        if slot is not None:
            return self._encode_again(AGAIN, slot, request, unit)
        slot = self._by_shape.get(shape)
        if slot is None:
            payload = self._encode_first(request, unit)
        else:
            payload = self._encode_again(LIKE, slot, request, unit)
        self._remember(request, key, shape)
        return payload

    def _remember(self, request: bytes, key: bytes, shape: bytes) -> None:
        slot, lost = self._slots.add(request)
        self._known[slot] = _Known(key, shape)
        self._by_key[key] = self._by_shape[shape] = slot
        for number in lost:
            known = self._known.pop(number)
            for index, name in ((self._by_key, known.key), (self._by_shape, known.shape)):
                if index.get(name) == number:
                    del index[name]

    def _encode_first(self, request: bytes, unit: int) -> bytes:
        if unit > 1 and prefers_planes(request, unit):
            mode, values = FIRST | PLANES, split_planes(request, unit)
        else:
            mode, values = FIRST, request
        return _HEAD.pack(mode, unit, 0, len(request)) + values

    def _encode_again(self, mode: int, slot: int, request: bytes, unit: int) -> bytes:
        old = self._slots.find(slot)
        assert old is not None
        spans = find_spans(old, request, unit)
        if mode == AGAIN:
            self._slots.replace(slot, request)
        else:
            self._slots.touch(slot)
        view = memoryview(request)
        values = [view[begin:end] for begin, end in spans]
        count, table = build_table(spans, unit)
        if unit > 1 and self._wants_planes(slot, values, unit):
            mode |= PLANES
            values = [memoryview(split_planes(b"".join(values), unit))]
        head = _HEAD.pack(mode, unit, slot, len(request)) + _COUNT.pack(count) + table
        return b"".join([memoryview(head), *values])

    def _wants_planes(self, slot: int, values: List[memoryview], unit: int) -> bool:
        known = self._known[slot]
        size = sum(map(len, values))
        if size < 2 * SAMPLED:
            return False
        if known.asked <= 0:
            known.asked = SAMPLE_INTERVAL
            known.planes = prefers_planes(b"".join(values), unit)
        known.asked -= 1
        return known.planes


class ImageDecoder:
    """Makes requests of payloads again. ``budget`` must be the encoder's."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._largest = min(LARGEST, budget // 2)
        self._slots = _Slots(budget)
        self._failure: Optional[LinkError] = None

    def decode(self, payload: Buffer) -> bytes:
        """Return the request as the client sent it. Raises LinkError, and then always again."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._decode(memoryview(payload))
        except LinkError as failure:
            self._failure = failure
            self._slots = _Slots(0)
            raise

    def _decode(self, payload: memoryview) -> bytes:
        if len(payload) < _HEAD.size:
            raise LinkError("image is too short")
        mode, unit, slot, size = _HEAD.unpack_from(payload)
        planes, mode = bool(mode & PLANES), mode & ~PLANES
        if mode not in (FIRST, AGAIN, LIKE) or unit not in _UNITS:
            raise LinkError("image of an unknown mode")
        if not SMALLEST <= size <= self._largest or size % 4:
            raise LinkError("image with an impossible size")
        body = payload[_HEAD.size :]
        if mode == FIRST:
            if len(body) != size:
                raise LinkError("image is not as long as it says")
            request = join_planes(body, unit) if planes else bytes(body)
        else:
            old = self._slots.find(slot)
            if old is None or len(old) != size:
                raise LinkError("image differs from one that is not there")
            request = apply_spans(old, body, unit, planes)
        if request[0] != PUT_IMAGE:
            raise LinkError("image is no PutImage")
        if mode == AGAIN:
            self._slots.replace(slot, request)
            return request
        if mode == LIKE:
            self._slots.touch(slot)
        self._slots.add(request)
        return request


def find_unit(request: bytes, start: int, order: ByteOrder) -> int:
    """Return how many bytes a pixel takes, 2 or 4; 1 where it is something else, or not clear.

    ``start`` is the length of the request's header. A wrong answer costs bandwidth only.
    """
    if request[1] != 2:  # ZPixmap
        return 1
    width, height = struct.unpack_from(order.value + "HH", request, start + 8)
    if not width or not height:
        return 1
    pixel = (len(request) - start - 20) // height // width
    return pixel if pixel in (2, 4) else 1


def find_spans(old: bytes, new: bytes, unit: int) -> List[Span]:
    """Return where ``new`` differs, in whole pixels, in order; both have the same length.

    Rows or not does not matter: equal chunks are skipped, and only what is left is searched.
    """
    if old == new:
        return []
    spans = _search(old, new, unit, _EQUAL[unit], len(new) // BYTES_PER_SPAN)
    return spans or _search(old, new, unit, _WIDELY_EQUAL[unit], len(new))


def _search(old: bytes, new: bytes, unit: int, equal: Pattern[bytes], most: int) -> List[Span]:
    """Return the spans; none where there are more than ``most``."""
    spans: List[Span] = []
    for begin, end in _changed_chunks(old, new):
        changed = _mark_pixels(old[begin:end], new[begin:end], unit)
        position = 0
        for match in equal.finditer(changed):
            start, stop = match.span()
            if start > position:
                spans.append((begin + position * unit, begin + start * unit))
            position = stop
        if position < len(changed):
            spans.append((begin + position * unit, end))
        if len(spans) > most:
            return []
    return spans


def _mark_pixels(old: bytes, new: bytes, unit: int) -> bytes:
    """Return a byte for each pixel, 0 where it is the same in both."""
    length = len(new)
    difference = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
    if unit > 1:
        # All bytes of a pixel into its first one; big integers are the quickest way there is.
        difference |= difference >> 8
    if unit > 2:
        difference |= difference >> 16
    return difference.to_bytes(length, "little")[::unit]


def _changed_chunks(old: bytes, new: bytes) -> List[Span]:
    """Return where runs of chunks that differ begin and end."""
    runs: List[Span] = []
    begun = -1
    for position in range(0, len(new), CHUNK):
        if old[position : position + CHUNK] != new[position : position + CHUNK]:
            if begun < 0:
                begun = position
        elif begun >= 0:
            runs.append((begun, position))
            begun = -1
    if begun >= 0:
        runs.append((begun, len(new)))
    return runs


def build_table(spans: List[Span], unit: int) -> Tuple[int, bytes]:
    """Return how many spans there are on the wire, and their gaps and lengths.

    What is too long for 16 bits becomes several, without a length or without a gap.
    """
    gaps: List[int] = []
    lengths: List[int] = []
    last = 0
    for begin, end in spans:
        gap, length = (begin - last) // unit, (end - begin) // unit
        last = end
        while gap > _MOST:
            gaps.append(_MOST)
            lengths.append(0)
            gap -= _MOST
        while length > _MOST:
            gaps.append(gap)
            lengths.append(_MOST)
            gap = 0
            length -= _MOST
        gaps.append(gap)
        lengths.append(length)
    count = len(gaps)
    form = ">%dH" % count
    return count, b"".join(
        split_planes(struct.pack(form, *numbers), 2) for numbers in (gaps, lengths)
    )


def apply_spans(old: bytes, body: memoryview, unit: int, planes: bool) -> bytes:
    """Return ``old`` with the spans of ``body`` put in. Raises LinkError where they don't fit."""
    if len(body) < _COUNT.size:
        raise LinkError("image is too short")
    count = _COUNT.unpack_from(body)[0]
    start = _COUNT.size + 4 * count
    if len(body) < start or count > len(old) // BYTES_PER_SPAN * 2 + 16:
        raise LinkError("image with an impossible number of spans")
    form = ">%dH" % count
    middle = _COUNT.size + 2 * count
    gaps = struct.unpack(form, join_planes(body[_COUNT.size : middle], 2))
    lengths = struct.unpack(form, join_planes(body[middle:start], 2))
    values = body[start:]
    total = sum(lengths) * unit
    if total != len(values):
        raise LinkError("image is not as long as its spans")
    if sum(gaps) * unit + total > len(old):
        raise LinkError("image with spans beyond its end")
    if planes:
        values = memoryview(join_planes(values, unit))
    kept = memoryview(old)
    pieces: List[Buffer] = []
    position = taken = 0
    for gap, length in zip(gaps, lengths):
        begin = position + gap * unit
        if gap:
            pieces.append(kept[position:begin])
        size = length * unit
        if size:
            pieces.append(values[taken : taken + size])
            taken += size
        position = begin + size
    pieces.append(kept[position:])
    return b"".join(pieces)


def prefers_planes(values: bytes, unit: int) -> bool:
    """Tell from a sample whether values compress better as planes: photographs do, plots don't."""
    if len(values) < 2 * SAMPLED:
        return False
    middle = len(values) // 2
    middle -= middle % unit
    sample = values[middle : middle + SAMPLED]
    plain = len(zlib.compress(sample, 1))
    # A plot's plain rows would profit from more than the sample shows.
    return len(zlib.compress(split_planes(sample, unit), 1)) < plain * 0.9


def split_planes(values: Buffer, unit: int) -> bytes:
    """Return the first bytes of all pixels, then all the second ones, and so on."""
    return b"".join(values[place::unit] for place in range(unit))


def join_planes(planes: Buffer, unit: int) -> bytes:
    """Return what ``split_planes`` was given. The length must be a multiple of ``unit``."""
    count = len(planes) // unit
    values = bytearray(len(planes))
    for place in range(unit):
        values[place::unit] = planes[place * count : (place + 1) * count]
    return bytes(values)
