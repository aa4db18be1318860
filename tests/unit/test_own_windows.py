"""What a client's own windows have written on them, until others may write there."""

from __future__ import annotations

import struct

import pytest

from tests.support import xstreams as x
from tests.support.xjudged import LITTLE, Judged, facts, ints, own
from tests.support.xtalk import ROOT, atom_reply, atom_request
from xsshpy.remote import own_windows, properties
from xsshpy.remote.looks import Subject, Thing
from xsshpy.remote.xmessages import Request
from xsshpy.remote.xrequests import FactClass

STRING, NAME, OTHER, STATE = 31, 39, 40, 300
PROPERTY_EVENTS = 1 << 22


def make(managed: bool = False, watched: bool = False) -> Judged:
    """Return a client with a window that is not mapped, and facts that know _NET_WM_STATE."""
    known = facts()
    known.managed = managed
    state = atom_request(LITTLE, b"_NET_WM_STATE")
    known.learn(state, FactClass.FOREVER, atom_reply(LITTLE, 0, STATE))
    judged = Judged(known)
    judged.window(1, values=(1 << 11, PROPERTY_EVENTS) if watched else (0,))
    judged.confirm()
    return judged


def change(judged: Judged, atom: int = NAME, value: bytes = b"text", window: int = 1) -> None:
    body = ints(own(window), atom, STRING) + b"\x08\0\0\0" + ints(len(value)) + value
    judged.ask(18, body)


def read(judged: Judged, atom: int = NAME, delete: int = 0, window: int = 1) -> bytes | None:
    """Return a property's value as it is answered early; None where it is not."""
    answer = judged.ask(20, ints(own(window), atom, 0, 0, 99), delete).answer
    return None if answer is None else answer[32:]


def notify(judged: Judged, atom: int) -> None:
    event = struct.pack("<BBHII", 28, 0, 0, own(1), atom) + bytes(20)
    judged.predictor.take_event(judged.sequence, 28, event)


def message(kind: int = STATE, code: int = 33, about: int = 1) -> bytes:
    """Return a SendEvent's body: to the root window, about a window."""
    return ints(ROOT, 0) + struct.pack("<BBHIIIIIII", code, 32, 0, own(about), kind, *(0,) * 5)


def test_what_was_written_is_read() -> None:
    judged = make()
    assert read(judged) == b""
    change(judged)
    assert read(judged) == b"text"
    assert read(judged, delete=1) is None
    assert read(judged) is None
    assert read(judged, OTHER, delete=1) is None
    assert read(judged, OTHER) == b""


@pytest.mark.parametrize("opcode", [7, 8, 9, 24])
def test_after_these_others_may_write(opcode: int) -> None:
    judged = make()
    judged.ask(opcode, ints(own(1), 0, 0, 0, 0))
    assert read(judged) is None


@pytest.mark.parametrize(
    ("managed", "body", "left"),
    [
        (False, message(), [b"text", b""]),
        (True, message(), [b"text", None]),
        (True, message(NAME), [None, None]),
        (True, message(code=34), [None, None]),
        (True, ints(own(9)) + message()[4:], [None, None]),
        (True, message(about=2), [b"text", b""]),
        (True, message()[:20], [None, None]),
    ],
)
def test_who_hears_of_a_window_may_write_there(
    managed: bool, body: bytes, left: list[bytes | None]
) -> None:
    judged = make(managed)
    change(judged)
    judged.ask(25, body)
    assert [read(judged), read(judged, STATE)] == left


def test_a_message_of_a_state_that_nobody_named() -> None:
    judged = make(managed=True)
    judged.facts.replies.pop(atom_request(LITTLE, b"_NET_WM_STATE"))
    judged.ask(25, message())
    assert read(judged) is None


def test_no_more_properties_are_followed_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_windows, "KEPT_LIMIT", 1)
    judged = make()
    change(judged)
    change(judged)
    assert read(judged) == b"text"
    change(judged, OTHER)
    assert read(judged) is None
    # An event counts like a change.
    judged = make()
    change(judged)
    notify(judged, OTHER)
    assert read(judged) is None


def test_no_more_windows_are_followed_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_windows, "WINDOWS_LIMIT", 1)
    judged = make()
    judged.window(2)
    judged.confirm()
    assert [read(judged, window=number) for number in (1, 2)] == [b"", None]
    judged.ask(4, ints(own(1)))
    judged.window(3)
    judged.confirm()
    assert read(judged, window=3) == b""


# Of windows whose changes the client hears of ----------------------------------------------------


def test_no_more_values_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = make(managed=True, watched=True)
    judged.ask(8, ints(own(1)))
    monkeypatch.setattr(properties, "MOST_KEPT", 1)
    change(judged)
    assert read(judged) == b"text"
    change(judged, OTHER)
    assert read(judged, OTHER) is None
    change(judged)  # a second change before the first one's event
    assert read(judged) is None


def test_no_more_names_are_told_apart_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = make(managed=True, watched=True)
    judged.ask(8, ints(own(1)))
    assert read(judged, OTHER) == b""
    monkeypatch.setattr(properties, "MOST_WRITTEN", 0)
    change(judged)
    assert read(judged, OTHER) is None


@pytest.mark.parametrize(
    ("seen", "value"),
    [
        (x.reply(LITTLE, 0, ints(4, 0, 1), ints(77), one=32), ints(77)),
        (x.reply(LITTLE, 0), b""),
    ],
)
def test_what_a_window_manager_wrote_is_looked_at(seen: bytes, value: bytes) -> None:
    judged = make(managed=True, watched=True)
    judged.ask(8, ints(own(1)))
    thing, looks = Thing(Subject.PROPERTY, own(1), STATE), judged.facts.looks
    notify(judged, STATE)
    assert read(judged, STATE) is None  # not seen yet
    assert thing in [each.thing for each in looks.take_wanted()]
    assert looks.tell(thing, looks.number(thing), seen)
    opinion = judged.ask(20, ints(own(1), STATE, 0, 0, 99))
    assert opinion.answer is not None
    assert opinion.answer[32:] == value
    assert opinion.excuse is not None
    assert not opinion.excuse()
    notify(judged, STATE)
    assert opinion.excuse()


def test_what_the_client_itself_changes_is_not_looked_at_before_the_server_is_past_it() -> None:
    judged = make(managed=True, watched=True)
    judged.ask(8, ints(own(1)))
    notify(judged, STATE)
    judged.facts.looks.take_wanted()
    body = ints(own(1), STATE, STRING) + b"\x08\0\0\0" + ints(2000) + bytes(2000)
    judged.ask(18, body)
    thing = Thing(Subject.PROPERTY, own(1), STATE)
    assert thing not in judged.facts.looks.wanted
    judged.confirm()
    assert thing in judged.facts.looks.wanted


def test_a_request_that_is_not_here_in_whole_is_nothing_to_go_by() -> None:
    judged = make()
    data = x.request(LITTLE, 20, ints(own(1), NAME, 0, 0, 99))
    assert judged.predictor.consider(Request(20, 9, 99, 4, data)).answer is None


def test_what_was_seen_of_a_window_ends_with_it() -> None:
    """Nothing adds up, and a window with the same id is another window."""

    def meet(judged: Judged, number: int) -> None:
        """Others write a property of a window, and the client reads it."""
        event = struct.pack("<BBHII", 28, 0, 0, own(number), STATE) + bytes(20)
        judged.predictor.take_event(judged.sequence, 28, event)
        looks = judged.facts.looks
        written = x.reply(LITTLE, 0, ints(STRING, 0, 4), b"seen", 8)
        for thing, look in looks.take_wanted():
            assert looks.tell(thing, look, written)
        assert read(judged, STATE, window=number) == b"seen"

    judged = make(watched=True)
    looks = judged.facts.looks
    before = set(looks._numbers)
    for number in range(2, 300):
        judged.window(number, values=(1 << 11, PROPERTY_EVENTS))
        judged.confirm()
        meet(judged, number)
        judged.ask(4, ints(own(number)))
        judged.confirm()
    assert set(looks._numbers) == before
    judged.window(2, values=(1 << 11, PROPERTY_EVENTS))
    judged.confirm()
    assert read(judged, STATE, window=2) == b""
    for _ in range(300):
        judged = Judged(judged.facts)
        judged.window(1, values=(1 << 11, PROPERTY_EVENTS))
        judged.confirm()
        assert read(judged, STATE) == b""
        meet(judged, 1)
        change(judged, STATE)  # and is gone before the server has done it
        judged.predictor.close()
    assert set(looks._numbers) == before
    assert not looks._changing
