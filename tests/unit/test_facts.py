"""What is known of the X server for all clients: what is kept, for how long, and how it travels."""

from __future__ import annotations

import struct

import pytest

from tests.support import xstreams as x
from tests.support.xjudged import LITTLE, facts, ints, shorts
from tests.support.xtalk import (
    COLORMAP,
    RENDER,
    ROOT,
    VISUAL,
    atom_reply,
    atom_request,
    server_setup,
)
from xsshpy.remote import facts as module
from xsshpy.remote import roots as roots_module
from xsshpy.remote.counters import Counters
from xsshpy.remote.facts import PredictionClass, ServerFacts
from xsshpy.remote.looks import FOCUS, Frame, Subject, Thing, build_frames
from xsshpy.remote.records import Record, Told, apply_record, build_records, parse_records
from xsshpy.remote.roots import Property
from xsshpy.remote.xmessages import ProtocolError
from xsshpy.remote.xrequests import FactClass, Replies, core_replies, extension_replies

ATOM = 23


@pytest.fixture
def known() -> ServerFacts:
    return facts()


def test_an_atom_is_absent_until_somebody_makes_it(known: ServerFacts) -> None:
    only = bytearray(atom_request(LITTLE, b"FRESH"))
    only[1] = 1
    known.learn(bytes(only), FactClass.ABSENT, atom_reply(LITTLE, 0, 0))
    assert known.find_atom(bytes(only)) is not None
    assert known.find_atom(atom_request(LITTLE, b"FRESH")) is None
    assert known.find_atom(bytes(only)) is None
    only[1] = 2  # an error, the server's to make
    assert known.find_atom(bytes(only)) is None


@pytest.mark.parametrize("limit", ["KNOWN_LIMIT", "KNOWN_BYTES"])
def test_there_is_room_for_so_many_facts(
    limit: str, known: ServerFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, limit, 0)
    known.learn(atom_request(LITTLE, b"MORE"), FactClass.FOREVER, atom_reply(LITTLE, 0, 99))
    assert known.find_atom(atom_request(LITTLE, b"MORE")) is None
    assert not known.is_atom(99)


def test_facts_of_a_class_are_forgotten_together(known: ServerFacts) -> None:
    keyboard = x.request(LITTLE, 119)
    known.learn(keyboard, FactClass.KEYBOARD, x.reply(LITTLE, 0))
    before = known.generation
    known.forget(FactClass.KEYBOARD)
    assert keyboard not in known.replies
    assert known.generation == before + 1
    assert known.find_atom(atom_request(LITTLE, b"KNOWN")) is not None


def test_fonts_go_with_the_font_path(known: ServerFacts) -> None:
    assert known.learn_font(b"fixed", x.reply(LITTLE, 0, b"", bytes(32)))
    assert not known.learn_font(b"short", x.reply(LITTLE, 0))
    known.forget_fonts()
    assert not known.fonts


def test_picture_formats_are_read_from_the_answer(known: ServerFacts) -> None:
    form = ints(77) + bytes((1, 24)) + bytes(22)
    reply = x.reply(LITTLE, 0, ints(5), form)  # says five and has one
    known.learn(x.request(LITTLE, RENDER, b"", 1), FactClass.FOREVER, reply)
    assert known.picture_formats[77] == 24


def test_colours_are_arithmetic(known: ServerFacts) -> None:
    wished = x.request(LITTLE, 84, ints(COLORMAP) + shorts(0xFFFF, 0x8000, 0x00FF, 0))
    answer = known.answer_colour(wished)
    assert answer is not None
    assert struct.unpack_from("<HHHxxI", answer, 8) == (0xFFFF, 0x8080, 0, 0xFF8000)
    asked = x.request(LITTLE, 91, ints(COLORMAP, 0xFF8000))
    answer = known.answer_colours(asked)
    assert answer is not None
    assert struct.unpack_from("<HHH", answer, 32) == (0xFFFF, 0x8080, 0)
    assert known.answer_colours(x.request(LITTLE, 91, ints(COLORMAP, 1 << 24))) is None
    assert known.answer_colours(x.request(LITTLE, 91, ints(0x999, 0))) is None
    assert known.answer_colours(b"") is None
    assert known.answer_colour(wished + bytes(4)) is None
    assert known.answer_colour(x.request(LITTLE, 84, ints(0x999) + shorts(0, 0, 0, 0))) is None


# Root windows -----------------------------------------------------------------------------------


def test_a_property_that_changes_is_unknown_until_the_server_is_past_it(
    known: ServerFacts,
) -> None:
    roots = known.roots
    assert not roots.begin_change(ROOT, ATOM)  # nobody told anything of this root window
    roots.tell(ROOT, ATOM, Property(31, 8, b"old"))
    read = x.request(LITTLE, 20, ints(ROOT, ATOM, 0, 0, 9))

    def told() -> bytes | None:
        answer = roots.answer_property(read, known.is_atom)
        return None if answer is None else answer[32:]

    assert told() == b"old\0"
    assert roots.begin_change(ROOT, ATOM)
    assert roots.begin_change(ROOT, ATOM)
    roots.end_change(ROOT, ATOM)
    roots.tell(ROOT, ATOM, Property(31, 8, b"late"))
    roots.tell_absent(ROOT, ATOM)
    assert told() is None
    roots.end_change(ROOT, ATOM)
    roots.tell(ROOT, ATOM, Property(31, 8, b"new"))
    assert told() == b"new\0"
    roots.tell_absent(ROOT, ATOM)
    assert told() == b""


def test_too_many_properties_end_the_knowledge(
    known: ServerFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roots_module, "PROPERTIES_KEPT", 2)
    for atom in (1, 2, 3):
        known.roots.tell(ROOT, atom, Property(31, 8, b"x"))
    assert known.roots.names(ROOT) == []
    known.roots.tell(ROOT, 1, Property(31, 8, b"x"))
    assert not known.roots.begin_change(ROOT, 1)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((0, 0, 1), b"0123"),
        ((31, 1, 9), b"4567"),
        ((31, 2, 1), b""),
        ((31, 3, 1), None),  # an error
        ((999, 0, 1), None),  # no atom that is known
        ((4, 0, 1), b""),  # another type: its length is told alone
    ],
)
def test_parts_of_a_property(
    asked: tuple[int, ...], expected: bytes | None, known: ServerFacts
) -> None:
    known.roots.tell(ROOT, ATOM, Property(31, 8, b"01234567"))
    request = x.request(LITTLE, 20, ints(ROOT, ATOM, *asked))
    answer = known.roots.answer_property(request, known.is_atom)
    assert (None if answer is None else answer[32:]) == expected
    deleting = request[:1] + b"\1" + request[2:]
    assert known.roots.answer_property(deleting, known.is_atom) is None


# How facts travel -------------------------------------------------------------------------------


PROPERTY_KEY = struct.pack(">III", ROOT, 300, 31)
GOOD = [
    Record(Told.REPLY, FactClass.FOREVER.value, x.request(LITTLE, 119), x.reply(LITTLE, 0)),
    Record(Told.FONT, 0, b"new", x.reply(LITTLE, 0, b"", bytes(28))),
    Record(Told.ROOT_ATTRIBUTES, 0, struct.pack(">I", ROOT), bytes(44)),
    Record(Told.ROOT_ATTRIBUTES, 0, struct.pack(">I", 9), bytes(44)),
    Record(Told.PROPERTY, 8, PROPERTY_KEY, b"value"),
    Record(Told.ABSENT_PROPERTY, 0, PROPERTY_KEY, b""),
    Record(Told.UNKNOWN_PROPERTY, 0, PROPERTY_KEY, b""),
    Record(Told.FOCUS, 0, b"", bytes(32)),
    Record(Told.MANAGED, 1, b"", b""),
    Record(Told.SETUP, 0, b"", b""),
]
BAD = [
    Record(Told.REPLY, FactClass.FOREVER.value, b"", bytes(32)),
    Record(Told.REPLY, FactClass.FOREVER.value, bytes(4), bytes(31)),
    Record(Told.REPLY, 99, bytes(4), bytes(32)),
    Record(Told.FONT, 0, b"new", bytes(59)),
    Record(Told.ROOT_ATTRIBUTES, 0, struct.pack(">I", ROOT), bytes(43)),
    Record(Told.ROOT_ATTRIBUTES, 0, b"", bytes(44)),
    Record(Told.PROPERTY, 8, struct.pack(">III", 9, 1, 1), b""),
    Record(Told.PROPERTY, 16, PROPERTY_KEY, b"odd"),
    Record(Told.PROPERTY, 7, PROPERTY_KEY, b""),
    Record(Told.FOCUS, 0, b"", bytes(31)),
]


def test_records_arrive_as_they_were_sent(known: ServerFacts) -> None:
    assert parse_records(build_records(GOOD)) == GOOD
    for record in GOOD:
        apply_record(known, record)
    assert known.managed is True
    apply_record(known, Record(Told.MANAGED, 0, b"", b""))
    assert known.managed is True  # where one was, windows are no more what clients made them
    assert known.focus == bytes(32)
    assert known.is_atom(300)
    assert b"new" in known.fonts


@pytest.mark.parametrize("record", BAD)
def test_malformed_facts_are_a_protocol_error(record: Record, known: ServerFacts) -> None:
    with pytest.raises(ProtocolError):
        apply_record(known, record)


@pytest.mark.parametrize(
    "data", [b"\0", build_records(GOOD[:1])[:-1], b"\xff" + bytes(7), b"\0\0\0\0\x7f\0\0\0"]
)
def test_records_cut_short(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_records(data)


# Which requests have replies ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "replies"),
    [
        (1, Replies.NONE),
        (43, Replies.ONE),
        (50, Replies.MANY),
        (127, Replies.NONE),
        (0, Replies.UNKNOWN),
        (120, Replies.UNKNOWN),
    ],
)
def test_core_requests(opcode: int, replies: Replies) -> None:
    assert core_replies(opcode) is replies


@pytest.mark.parametrize(
    ("name", "minor", "replies"),
    [
        (b"XTEST", 0, Replies.ONE),
        (b"XTEST", 2, Replies.NONE),
        (b"XTEST", 99, Replies.UNKNOWN),
        (b"STRANGE", 0, Replies.UNKNOWN),
        (None, 0, Replies.UNKNOWN),
    ],
)
def test_extension_requests(name: bytes | None, minor: int, replies: Replies) -> None:
    assert extension_replies(name, minor) is replies


# What is not kept, or not known ---------------------------------------------------------------


def test_a_setup_without_a_range_of_ids() -> None:
    with pytest.raises(ProtocolError):
        module.parse_resource_range(bytes(39), LITTLE)


def test_the_input_is_not_learned_while_it_may_change(known: ServerFacts) -> None:
    pointer = x.request(LITTLE, 38, ints(ROOT))
    known.input_changing = 1
    known.learn(pointer, FactClass.INPUT, x.reply(LITTLE, 0))
    assert (pointer in known.replies, known.input_known) == (False, False)
    known.input_changing = 0
    known.learn(pointer, FactClass.INPUT, x.reply(LITTLE, 0))
    assert (pointer in known.replies, known.input_known) == (True, True)


@pytest.mark.parametrize(
    ("limit", "taken", "learned"), [(99, 77, False), (99, 78, True), (0, 78, False)]
)
def test_a_selection_that_a_client_here_took_is_not_known(
    limit: int, taken: int, learned: bool, known: ServerFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = x.request(LITTLE, 23, ints(77))
    known.learn(owner, FactClass.SELECTIONS, x.reply(LITTLE, 0))
    monkeypatch.setattr(module, "ATOM_LIMIT", limit)
    known.disown_selection(taken)
    assert (owner in known.replies) is learned
    known.learn(owner, FactClass.SELECTIONS, x.reply(LITTLE, 0))
    assert (owner in known.replies) is learned


def test_there_is_room_for_so_many_atoms(
    known: ServerFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATOM_LIMIT", len(known.atoms))
    known.add_atom(999)
    assert not known.is_atom(999)


def test_colours_of_uneven_masks_are_the_servers(known: ServerFacts) -> None:
    assert known.is_true_colour(COLORMAP)
    assert not known.is_true_colour(0x999)
    known.visuals[VISUAL] = known.visuals[VISUAL]._replace(bits_per_colour=6)
    assert not known.is_true_colour(COLORMAP)


def test_too_many_changes_end_the_knowledge(
    known: ServerFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roots_module, "PROPERTIES_KEPT", 1)
    known.roots.tell(ROOT, ATOM, Property(31, 8, b"x"))
    assert known.roots.begin_change(ROOT, ATOM)
    assert not known.roots.begin_change(ROOT, 24)
    assert known.roots.names(ROOT) == []


def test_the_length_of_another_type_is_told_in_bytes_alone(known: ServerFacts) -> None:
    known.roots.tell(ROOT, ATOM, Property(6, 32, bytes(8)))
    request = x.request(LITTLE, 20, ints(ROOT, ATOM, 31, 0, 9))
    assert known.roots.answer_property(request, known.is_atom) is None


@pytest.mark.parametrize("known_before", [True, False])
def test_the_focus_that_was_looked_at_is_the_focus(known: ServerFacts, known_before: bool) -> None:
    known.focus = bytes(32) if known_before else None
    known.looks.renew(FOCUS)
    number = known.looks.number(FOCUS)
    key = struct.pack(">III", FOCUS.window, FOCUS.detail, number)
    seen = b"\1\0\7\7" + bytes(28)
    apply_record(known, Record(Told.SEEN, FOCUS.subject.value, key, seen))
    assert known.looks.find(FOCUS) == b"\1" + bytes(31)
    assert known.focus == (bytes(32) if known_before else b"\1" + bytes(31))


def test_a_frame_that_was_looked_at_is_kept_as_it_came(known: ServerFacts) -> None:
    thing = Thing(Subject.FRAME, 9)
    known.looks.renew(thing)
    whole = build_frames([Frame(1, *(b"\1\0\7\7" + bytes(28),) * 3)])
    key = struct.pack(">III", 9, 0, known.looks.number(thing))
    apply_record(known, Record(Told.SEEN, Subject.FRAME.value, key, whole))
    assert known.looks.find(thing) == whole


def test_counters_by_name() -> None:
    counters = Counters()
    counters.mispredictions[PredictionClass.ABSENT] = 2
    counters.waited_for[20] = 3
    described = counters.describe()
    assert described["mispredicted_absent_atoms"] == 2
    assert described["waited_20"] == 3
    assert described["requests"] == 0


@pytest.mark.parametrize("size", [39, 60])
def test_a_setup_that_does_not_add_up(size: int) -> None:
    with pytest.raises(ProtocolError):
        module.parse_server_setup(server_setup(LITTLE)[:size], LITTLE)
