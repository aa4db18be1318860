"""What the payloads of the link's frames hold: built and parsed here, for both ends.

``build_*`` gives a Frame to be sent; it raises ValueError where the caller asks for what may not
be. ``parse_*`` takes a frame that a FrameReader gave, and raises LinkError. Kinds that are not here
have payloads that mean something elsewhere (facts, images) or none at all.

Python 3.6 and later, standard library only: both ends of the link use these.
"""

import json
import struct
from typing import Dict, Optional

from .frames import LONGEST, MAX_COUNT, Frame, FrameKind, LinkError
from .xmessages import ByteOrder

NO_SLOT = 0xFFFF
"""Stands for a connection that is not from the pool."""

MAX_COUNTERS = 256
"""Most counters in one STATS frame."""

_SLOT = struct.Struct(">H")
_OPEN = struct.Struct(">HH")
_ADMITTED = struct.Struct(">HB")
_COUNT = struct.Struct(">I")


class Opening:
    """A client arrived. ``slot`` is the pooled connection it got, None where it needs its own.

    ``session`` is the session whose cookie it showed, 0 with the display's first one. ``setup`` is
    its connection setup, without an authorization. ``order`` is its byte order.
    """

    __slots__ = ("order", "session", "setup", "slot")

    def __init__(self, slot: Optional[int], session: int, order: ByteOrder, setup: bytes) -> None:
        self.slot = slot
        self.session = session
        self.order = order
        self.setup = setup


class PooledSetup:
    """A connection to the X server that is open already; ``setup`` is the server's answer."""

    __slots__ = ("setup", "slot")

    def __init__(self, slot: int, setup: bytes) -> None:
        self.slot = slot
        self.setup = setup


def build_open(client: int, slot: Optional[int], setup: bytes, session: int = 0) -> Frame:
    """Return the frame that announces a client; ``setup`` must hold no authorization."""
    if slot is not None and not 0 <= slot < NO_SLOT:
        raise ValueError("slot is out of range")
    payload = _OPEN.pack(NO_SLOT if slot is None else slot, session) + setup
    frame = Frame(FrameKind.OPEN, client, payload)
    try:
        parse_open(frame)
    except LinkError as error:
        raise ValueError(str(error)) from None
    return frame


def parse_open(frame: Frame) -> Opening:
    """Return what an OPEN frame says. Its setup is checked: what it is goes to an X server."""
    payload = bytes(frame.payload)
    if len(payload) != _OPEN.size + 12:
        raise LinkError("OPEN frame with a setup of an impossible length")
    slot, session = _OPEN.unpack_from(payload)
    setup = payload[_OPEN.size :]
    for order in ByteOrder:
        if setup[:1] == order.mark:
            break
    else:
        raise LinkError("OPEN frame with a setup of no byte order")
    if setup[6:10] != bytes(4):
        raise LinkError("OPEN frame with an authorization")
    return Opening(None if slot == NO_SLOT else slot, session, order, setup)


def build_admit(session: int) -> Frame:
    """Return the frame that asks for a cookie of a session's own."""
    return Frame(FrameKind.ADMIT, 0, _SLOT.pack(session))


def build_dismiss(session: int) -> Frame:
    """Return the frame that ends a session's clients, and its cookie."""
    return Frame(FrameKind.DISMISS, 0, _SLOT.pack(session))


def name_authority(path: str, session: int) -> str:
    """Return where a session's cookie lies, beside the first one."""
    return "{}-{}".format(path, session) if session else path


def parse_session(frame: Frame) -> int:
    """Return the session that an ADMIT or DISMISS frame is about."""
    if len(frame.payload) != _SLOT.size:
        raise LinkError("{} frame with an impossible length".format(frame.kind.name))
    session: int = _SLOT.unpack(frame.payload)[0]
    return session


def build_admitted(session: int, written: bool) -> Frame:
    """Return the frame that says whether a session's cookie lies where its clients look."""
    return Frame(FrameKind.ADMITTED, 0, _ADMITTED.pack(session, written))


def parse_admitted(frame: Frame) -> "tuple[int, bool]":
    """Return the session that an ADMITTED frame is about, and whether it has a cookie."""
    if len(frame.payload) != _ADMITTED.size:
        raise LinkError("ADMITTED frame with an impossible length")
    session, written = _ADMITTED.unpack(frame.payload)
    return session, bool(written)


def build_pool(slot: int, setup: bytes) -> Frame:
    """Return the frame that offers an open connection to the X server."""
    if not 0 <= slot < NO_SLOT:
        raise ValueError("slot is out of range")
    return Frame(FrameKind.POOL, 0, _SLOT.pack(slot) + setup)


def parse_pool(frame: Frame) -> PooledSetup:
    """Return what a POOL frame says; the server's answer in it is a yes, and as long as it says."""
    payload = bytes(frame.payload)
    if len(payload) < _SLOT.size + 8:
        raise LinkError("POOL frame is too short")
    slot: int = _SLOT.unpack_from(payload)[0]
    setup = payload[_SLOT.size :]
    lengths = [struct.unpack_from(order.value + "H", setup, 6)[0] * 4 for order in ByteOrder]
    if slot == NO_SLOT or setup[0] != 1 or len(setup) - 8 not in lengths:
        raise LinkError("POOL frame without a setup")
    return PooledSetup(slot, setup)


def build_credit(client: int, count: int) -> Frame:
    """Return the frame that says: ``count`` more raw bytes of this client were used up."""
    return Frame(FrameKind.CREDIT, client, _pack_count(count))


def build_ack(count: int) -> Frame:
    """Return the frame that says: ``count`` more bytes of blocks were read."""
    return Frame(FrameKind.ACK, 0, _pack_count(count))


def parse_count(frame: Frame) -> int:
    """Return the number of bytes that a CREDIT or ACK frame tells; at least 1."""
    if len(frame.payload) != _COUNT.size:
        raise LinkError("{} frame with an impossible length".format(frame.kind.name))
    count: int = _COUNT.unpack(frame.payload)[0]
    if not count:
        raise LinkError("{} frame for nothing".format(frame.kind.name))
    return count


def build_close(client: int, reason: str = "") -> Frame:
    """Return the frame that ends a client; without a reason it or its server closed."""
    return Frame(FrameKind.CLOSE, client, _cut_text(reason, FrameKind.CLOSE))


def build_note(text: str, client: int = 0) -> Frame:
    """Return a frame with a line for whoever asked for details; a long one is cut."""
    return Frame(FrameKind.NOTE, client, _cut_text(text, FrameKind.NOTE))


def parse_text(frame: Frame) -> str:
    """Return the text of a NOTE, CLOSE or STOP frame, with nothing in it that moves a terminal."""
    text = bytes(frame.payload).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def build_stats(client: int, counters: Dict[str, int]) -> Frame:
    """Return the frame with a client's counters."""
    text = json.dumps(counters, sort_keys=True, separators=(",", ":"))
    return Frame(FrameKind.STATS, client, text.encode("ascii"))


def parse_stats(frame: Frame) -> Dict[str, int]:
    """Return the counters of a STATS frame: names are identifiers, values not negative."""
    try:
        counters = json.loads(bytes(frame.payload).decode("ascii"))
    except (ValueError, RecursionError):
        raise LinkError("STATS frame cannot be read") from None
    if not isinstance(counters, dict) or len(counters) > MAX_COUNTERS:
        raise LinkError("STATS frame holds no counters")
    for name, value in counters.items():
        if not name.isidentifier() or type(value) is not int or not 0 <= value < 1 << 64:
            raise LinkError("STATS frame with an impossible counter")
    return counters


def build_ping(data: bytes) -> Frame:
    """Return the frame that asks the other end for a sign of life; ``data`` comes back."""
    return Frame(FrameKind.PING, 0, data)


def build_pong(ping: Frame) -> Frame:
    """Return the answer to a PING."""
    return Frame(FrameKind.PONG, 0, ping.payload)


def _pack_count(count: int) -> bytes:
    if not 0 < count <= MAX_COUNT:
        raise ValueError("count is out of range")
    return _COUNT.pack(count)


def _cut_text(text: str, kind: FrameKind) -> bytes:
    """Return UTF-8 that fits; a character is not torn."""
    cut = text.encode("utf-8", "replace")[: LONGEST[kind]]
    return cut.decode("utf-8", "ignore").encode("utf-8")
