"""Orders to look at what others decide, and what of the seen still counts."""

from __future__ import annotations

import struct

import pytest

from tests.support.xjudged import Judged, ints, own
from tests.support.xtalk import ROOT
from xsshpy.remote.looks import (
    FOCUS,
    MOST_LOOKS,
    UNUSED_LOOKS,
    Frame,
    Look,
    Looks,
    Subject,
    Thing,
    build_frames,
    pack_looks,
    parse_frames,
    parse_looks,
)
from xsshpy.remote.records import Record, Told, apply_record
from xsshpy.remote.xmessages import ProtocolError

CHILDREN = Thing(Subject.CHILDREN, ROOT)
REPLY = b"\1" + bytes(31)
FRAME = 0x12345


def take(looks: Looks, thing: Thing = CHILDREN) -> int:
    """Return the number of the order to look at something."""
    return {look.thing: look.number for look in looks.take_wanted()}[thing]


def test_only_the_latest_look_counts() -> None:
    looks = Looks()
    looks.renew(CHILDREN)
    first = take(looks)
    looks.renew(CHILDREN)
    second = take(looks)
    assert not looks.tell(CHILDREN, first, REPLY)
    assert looks.find(CHILDREN) is None
    assert looks.tell(CHILDREN, second, REPLY)
    assert looks.find(CHILDREN) == REPLY
    looks.spoil(CHILDREN)
    assert looks.find(CHILDREN) is None


def test_nothing_is_seen_while_two_clients_change_it() -> None:
    looks = Looks()
    looks.renew(CHILDREN)
    early = take(looks)
    looks.begin(CHILDREN)
    looks.begin(CHILDREN)
    assert not looks.tell(CHILDREN, early, REPLY)
    assert not looks.wanted
    looks.end(CHILDREN)
    assert not looks.wanted
    looks.end(CHILDREN)
    assert looks.tell(CHILDREN, take(looks), REPLY)


def test_what_nobody_asks_about_is_looked_at_no_more() -> None:
    looks = Looks()
    for number in range(2 * UNUSED_LOOKS):
        looks.renew(CHILDREN)
        assert bool(looks.take_wanted()) is (number < UNUSED_LOOKS)
    assert looks.find(CHILDREN) is None  # somebody asks
    assert looks.take_wanted()


def test_no_more_is_kept_than_there_is_room_for() -> None:
    looks = Looks()
    for number in range(2 * MOST_LOOKS):
        looks.renew(Thing(Subject.FRAME, number))
    assert len(looks.take_wanted()) == MOST_LOOKS
    looks.renew(CHILDREN)
    looks.begin(CHILDREN)
    looks.end(CHILDREN)
    assert not looks.wanted
    assert looks.find(CHILDREN) is None


def test_orders_and_frames_travel() -> None:
    orders = [Look(CHILDREN, 7), Look(FOCUS, 8), Look(Thing(Subject.PROPERTY, 3, 4), 0xFFFFFFFF)]
    assert parse_looks(pack_looks(orders)) == orders
    frames = [Frame(each, REPLY, REPLY, REPLY + bytes(4 * each)) for each in (1, 2)]
    assert parse_frames(build_frames(frames)) == frames


@pytest.mark.parametrize("cut", [1, 12, 14])
def test_orders_that_are_no_orders(cut: int) -> None:
    with pytest.raises(ProtocolError):
        parse_looks(pack_looks([Look(CHILDREN, 7)] * 2)[:cut])
    with pytest.raises(ProtocolError):
        parse_looks(b"\x77" + bytes(12))


@pytest.mark.parametrize("cut", [1, 40, 71, 72, 103])
def test_frames_that_are_none(cut: int) -> None:
    whole = build_frames([Frame(1, REPLY, REPLY, REPLY)])
    assert len(whole) == 104
    with pytest.raises(ProtocolError):
        parse_frames(whole[:cut])
    with pytest.raises(ProtocolError):
        parse_frames(whole * 9)


@pytest.mark.parametrize(
    "record",
    [
        Record(Told.SEEN, 1, bytes(11), REPLY),
        Record(Told.SEEN, 9, bytes(12), REPLY),
        Record(Told.SEEN, 1, bytes(12), b"\1"),
        Record(Told.SEEN, 2, bytes(12), REPLY * 2),
    ],
)
def test_what_was_seen_is_checked(record: Record) -> None:
    with pytest.raises(ProtocolError):
        apply_record(Judged().facts, record)


class Framed(Judged):
    """A client with a window that is in a frame, which was looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.facts.managed = True
        self.window(1, values=(1 << 11, 1 << 17 | 1 << 22))
        self.ask(8, ints(own(1)))
        event = struct.pack("<BBHIIIhhB11x", 21, 0, 0, own(1), own(1), FRAME, 0, 0, 0)
        self.predictor.take_event(self.sequence, 21, event)
        self.confirm()
        self.look()

    def look(self) -> None:
        """See what is to be looked at."""
        frames = build_frames([Frame(FRAME, REPLY, REPLY, REPLY)])
        for thing, number in self.facts.looks.take_wanted():
            self.facts.looks.tell(
                thing, number, frames if thing.subject is Subject.FRAME else REPLY
            )

    def known(self) -> list[bool]:
        """Tell whether QueryTree of root and frame, the frame's place, and ours are known."""
        asked = (15, ints(ROOT)), (15, ints(FRAME)), (14, ints(FRAME)), (40, ints(own(1), FRAME, 0))
        return [self.ask(opcode, body).answer is not None for opcode, body in asked]


def test_what_was_looked_at_is_known() -> None:
    framed = Framed()
    assert framed.known() == [True] * 4
    # Somewhere else in the window another child of the frame may be.
    assert framed.ask(40, ints(own(1), FRAME, 1)).answer is None
    assert framed.ask(40, ints(own(2), FRAME, 0)).answer is None


ROOT_ONLY, FRAME_ONLY, BOTH = [False, True, True, True], [True, False, False, False], [False] * 4


@pytest.mark.parametrize(
    ("opcode", "body", "left"),
    [
        (1, ints(own(7), ROOT, 0, 0, 0, 0, 0), ROOT_ONLY),
        (1, ints(own(7), FRAME, 0, 0, 0, 0, 0), BOTH),
        (1, ints(own(7), own(1), 0, 0, 0, 0, 0), [True] * 4),
        (4, ints(own(1)), BOTH),
        (5, ints(ROOT), ROOT_ONLY),
        (7, ints(own(1), ROOT, 0), BOTH),
        (7, ints(FRAME, own(1), 0), BOTH),
        (8, ints(own(1)), FRAME_ONLY),
        (8, ints(FRAME), BOTH),
        (10, ints(own(1)), FRAME_ONLY),
        (12, ints(own(1), 4, 50), FRAME_ONLY),
        (12, ints(own(1), 0x40, 0), BOTH),
        (12, ints(FRAME, 4, 50), BOTH),
        (13, ints(ROOT), ROOT_ONLY),
        (113, ints(FRAME), BOTH),
        (200, ints(0), BOTH),
    ],
)
def test_requests_that_may_matter(opcode: int, body: bytes, left: list[bool]) -> None:
    framed = Framed()
    framed.ask(opcode, body)
    known = framed.known()
    assert known == left
    # What was looked at before the server is past the request counts for nothing.
    framed.look()
    assert framed.known() == left
    framed.confirm()
    framed.look()
    if opcode not in (4, 7):
        assert framed.known() == [True] * 4


def test_a_client_with_too_many_changes_is_told_nothing() -> None:
    framed = Framed()
    for number in range(MOST_LOOKS + 10):
        framed.predictor._surroundings.touch(Thing(Subject.PROPERTY, number, 39), 9999)
    assert framed.known() == [False] * 4
    framed.predictor.close()


def test_a_client_that_leaves_ends_its_changes() -> None:
    framed, other = Framed(), Judged()
    other.facts.looks.renew(CHILDREN)
    framed.window(9)
    assert framed.facts.looks._changing
    framed.predictor.close()
    assert not framed.facts.looks._changing
