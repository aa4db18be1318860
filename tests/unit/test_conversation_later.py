"""What a conversation says as soon as an event, and no reply, has told enough."""

from __future__ import annotations

import struct

import pytest

from tests.support import xstreams as x
from tests.support.xtalk import BASE, FOCUS, ROOT, Talk, atom_reply, atom_request
from xsshpy.remote.facts import PredictionClass
from xsshpy.remote.xmessages import ByteOrder

REPLY, ERROR, MAP_NOTIFY, PROPERTY_NOTIFY = 1, 0, 19, 28
EXPOSURE, STRUCTURE, PROPERTY = 1 << 15, 1 << 17, 1 << 22
ATOM, STRING, NAME = 4, 31, 39
WINDOW = BASE + 1


@pytest.fixture(params=list(ByteOrder), ids=lambda order: order.name)
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(request.param)


def pack(talk: Talk, form: str, *values: int) -> bytes:
    return struct.pack(talk.order.value + form, *values)


def sync(talk: Talk) -> bytes:
    return x.request(talk.order, FOCUS)


def create(talk: Talk, mask: int, window: int = WINDOW, parent: int = ROOT) -> bytes:
    body = pack(talk, "IIhhHHHHIII", window, parent, 0, 0, 9, 9, 0, 0, 0, 1 << 11, mask)
    return x.request(talk.order, 1, body)


def map_window(talk: Talk, window: int = WINDOW) -> bytes:
    return x.request(talk.order, 8, pack(talk, "I", window))


def change(talk: Talk, value: bytes, window: int = WINDOW, mode: int = 0) -> bytes:
    body = pack(talk, "IIIB3xI", window, NAME, STRING, 8, len(value)) + value
    return x.request(talk.order, 18, body, mode)


def get(talk: Talk, window: int = WINDOW, delete: int = 0) -> bytes:
    return x.request(talk.order, 20, pack(talk, "IIIII", window, NAME, 0, 0, 99), delete)


def property_notify(talk: Talk, sequence: int, window: int = WINDOW) -> bytes:
    head = x.event(talk.order, PROPERTY_NOTIFY, sequence, b"\0")
    return head[:4] + pack(talk, "II", window, NAME) + head[12:]


def map_notify(talk: Talk, sequence: int) -> bytes:
    head = x.event(talk.order, MAP_NOTIFY, sequence, b"\0")
    return head[:4] + pack(talk, "II", WINDOW, WINDOW) + head[12:]


def value_of(talk: Talk) -> bytes:
    data = talk.last[0].data
    length = struct.unpack_from(talk.order.value + "I", data, 16)[0]
    return data[32 : 32 + length]


def test_sync_waits_for_the_event_and_no_longer(talk: Talk) -> None:
    assert talk.ask(create(talk, PROPERTY), change(talk, b"a"), sync(talk)) == []
    assert talk.serve(property_notify(talk, 2)) == [(PROPERTY_NOTIFY, 2), (REPLY, 3)]
    assert talk.serve(x.reply(talk.order, 3, pack(talk, "I", 1))) == []
    assert not talk.talk.counters.stale


@pytest.mark.parametrize("number", [1, 2])
def test_another_event_does_not_end_the_wait(talk: Talk, number: int) -> None:
    talk.ask(create(talk, PROPERTY), change(talk, b"a"), sync(talk))
    other = property_notify(talk, number, WINDOW if number == 1 else ROOT)
    assert talk.serve(other) == [(PROPERTY_NOTIFY, number)]
    assert talk.serve(x.reply(talk.order, 3)) == [(REPLY, 3)]


@pytest.mark.parametrize("mask", [STRUCTURE, STRUCTURE | EXPOSURE])
def test_a_window_that_hears_of_nothing_else_is_there_with_its_event(talk: Talk, mask: int) -> None:
    assert talk.ask(create(talk, mask), map_window(talk), sync(talk)) == []
    shown = talk.serve(map_notify(talk, 2))
    assert shown == [(MAP_NOTIFY, 2), *([(REPLY, 3)] if mask == STRUCTURE else [])]


def test_an_event_with_a_later_number_is_as_good(talk: Talk) -> None:
    talk.ask(create(talk, STRUCTURE | EXPOSURE), map_window(talk), sync(talk))
    assert talk.serve(map_notify(talk, 3)) == [(MAP_NOTIFY, 3), (REPLY, 3)]


def test_what_waits_for_an_error_is_withdrawn_with_it(talk: Talk) -> None:
    destroy = x.request(talk.order, 4, pack(talk, "I", 5))
    known = atom_request(talk.order, b"KNOWN")
    assert talk.ask(destroy, known, sync(talk)) == []
    assert talk.serve(x.error(talk.order, 1, 4, 3)) == [(ERROR, 1)]
    assert talk.serve(atom_reply(talk.order, 2, 77)) == [(REPLY, 2)]
    assert talk.serve(x.reply(talk.order, 3)) == [(REPLY, 3)]
    assert talk.ask(known) == [(REPLY, 4)]


def test_nothing_later_of_a_class_that_is_switched_off(talk: Talk) -> None:
    talk.ask(create(talk, PROPERTY), change(talk, b"a"), sync(talk))
    talk.facts.switched_off.add(PredictionClass.SYNC)
    assert talk.serve(property_notify(talk, 2)) == [(PROPERTY_NOTIFY, 2)]


def test_a_property_of_an_own_window_is_what_was_written(talk: Talk) -> None:
    talk.ask(create(talk, PROPERTY), change(talk, b"first"), change(talk, b"second"))
    assert talk.ask(get(talk)) == [(REPLY, 4)]
    assert value_of(talk) == b"second"
    assert talk.serve(property_notify(talk, 2), property_notify(talk, 3)) != []
    assert talk.ask(get(talk)) == [(REPLY, 5)]


@pytest.mark.parametrize("number", [3, 4])
def test_a_property_that_others_wrote_is_theirs(talk: Talk, number: int) -> None:
    talk.ask(create(talk, PROPERTY), change(talk, b"a"), sync(talk))
    talk.serve(property_notify(talk, 2), x.reply(talk.order, 3), property_notify(talk, number))
    assert talk.ask(get(talk)) == []


def test_what_others_wrote_before_is_overwritten(talk: Talk) -> None:
    talk.ask(create(talk, PROPERTY), sync(talk), change(talk, b"a"))
    talk.serve(property_notify(talk, 2))
    assert talk.ask(get(talk)) == [(REPLY, 4)]


@pytest.mark.parametrize("how", ["unwatched", "mode", "delete", "deleted", "long", "other"])
def test_a_property_may_be_unknown(talk: Talk, how: str) -> None:
    talk.ask(create(talk, 0 if how == "unwatched" else PROPERTY), map_window(talk))
    talk.ask(change(talk, b"a" * (2000 if how == "long" else 1)))
    if how == "mode":
        talk.ask(change(talk, b"a", mode=2))
    if how == "delete":
        talk.ask(get(talk, delete=1))
    if how == "deleted":
        talk.ask(x.request(talk.order, 19, pack(talk, "II", WINDOW, NAME)))
    if how == "other":
        attributes = pack(talk, "III", WINDOW, 1 << 11, STRUCTURE)
        talk.ask(x.request(talk.order, 2, attributes), x.request(talk.order, 2, attributes))
    assert talk.ask(get(talk)) == []


def test_a_failed_change_leaves_nothing_known(talk: Talk) -> None:
    talk.ask(create(talk, PROPERTY), change(talk, b"a"))
    assert talk.serve(x.error(talk.order, 2, 18, 11)) == [(ERROR, 2)]
    assert talk.ask(get(talk)) == []


def test_the_focus_stays_where_what_goes_was_never_shown(talk: Talk) -> None:
    destroy = x.request(talk.order, 4, pack(talk, "I", WINDOW))
    talk.ask(create(talk, PROPERTY), destroy, change(talk, b"a"))
    assert talk.facts.focus is not None
    talk.ask(create(talk, PROPERTY, WINDOW + 1), map_window(talk, WINDOW + 1))
    talk.ask(x.request(talk.order, 4, pack(talk, "I", WINDOW + 1)))
    assert talk.facts.focus is None


@pytest.mark.parametrize("beside", [True, False])
def test_a_window_is_put_below_one_beside_it(talk: Talk, beside: bool) -> None:
    parent, first, second = WINDOW, WINDOW + 1, WINDOW + 2
    talk.ask(
        create(talk, 0),
        create(talk, 0, first, parent),
        create(talk, 0, second, parent if beside else first),
    )
    body = pack(talk, "IHxxII", second, 0x60, first, 1)
    geometry = x.request(talk.order, 14, pack(talk, "I", second))
    asked = talk.ask(x.request(talk.order, 12, body), geometry)
    assert asked == ([(REPLY, 5)] if beside else [])


def configure_notify(talk: Talk, sequence: int, x_place: int, window: int = WINDOW) -> bytes:
    head = x.event(talk.order, 22, sequence, b"\0")
    return head[:4] + pack(talk, "IIIhhHHH", window, window, 0, x_place, 0, 9, 9, 0) + head[26:]


def geometry_reply(talk: Talk, sequence: int, x_place: int) -> bytes:
    return x.reply(talk.order, sequence, pack(talk, "IhhHHH", ROOT, x_place, 0, 9, 9, 0), one=24)


def geometry(talk: Talk) -> bytes:
    return x.request(talk.order, 14, pack(talk, "I", WINDOW))


@pytest.mark.parametrize("mask", [0, STRUCTURE])
def test_the_place_of_a_mapped_window_is_known_to_a_client_that_watches_it(
    talk: Talk, mask: int
) -> None:
    assert talk.ask(create(talk, mask), map_window(talk), geometry(talk)) == (
        [(REPLY, 3)] if mask else []
    )
    talk.serve(geometry_reply(talk, 3, 0))
    assert not talk.talk.counters.mispredictions


@pytest.mark.parametrize("told", [True, False])
def test_a_window_that_others_move_meanwhile_was_there_before(talk: Talk, told: bool) -> None:
    assert talk.ask(create(talk, STRUCTURE), map_window(talk), geometry(talk)) == [(REPLY, 3)]
    if told:
        talk.serve(configure_notify(talk, 2, 7))
    assert talk.serve(geometry_reply(talk, 3, 7)) == []
    counters = talk.talk.counters
    assert counters.stale == int(told)
    assert counters.mispredictions == ({} if told else {PredictionClass.WINDOWS: 1})
    assert talk.ask(geometry(talk)) == []


def test_a_window_that_stays_is_where_it_was(talk: Talk) -> None:
    talk.ask(create(talk, STRUCTURE), map_window(talk))
    talk.serve(configure_notify(talk, 2, 0))
    assert talk.ask(geometry(talk)) == [(REPLY, 3)]


def test_children_that_move_with_a_mapped_window_are_unknown(talk: Talk) -> None:
    talk.ask(create(talk, STRUCTURE), map_window(talk))
    body = pack(talk, "IIhhHHHHIII", WINDOW + 1, WINDOW, 0, 0, 9, 9, 0, 0, 0, 1 << 5, 9)
    asked = x.request(talk.order, 14, pack(talk, "I", WINDOW + 1))
    assert talk.ask(x.request(talk.order, 1, body), asked) == []


def test_a_client_that_has_all_its_answers_waits_for_nothing(talk: Talk) -> None:
    conversation, known = talk.talk, atom_request(talk.order, b"KNOWN")
    talk.ask(known, create(talk, PROPERTY), sync(talk))
    assert not conversation.brings_news()
    talk.ask(map_window(talk))  # an event may come of it
    assert conversation.brings_news()
    talk.ask(known)
    assert not conversation.brings_news()
    talk.ask(sync(talk))
    assert conversation.brings_news()
    assert conversation.brings_news()


@pytest.mark.parametrize("mask", [PROPERTY, 0])
def test_what_nobody_wrote_is_not_there(talk: Talk, mask: int) -> None:
    talk.facts.managed = True
    talk.ask(create(talk, mask), map_window(talk))
    assert talk.ask(get(talk)) == ([(REPLY, 3)] if mask else [])
    if mask:
        assert talk.last[0].data == x.reply(talk.order, 3)
        assert talk.serve(x.reply(talk.order, 3), property_notify(talk, 3)) != []
        assert talk.ask(get(talk)) == []


@pytest.mark.parametrize("wrote", [True, False])
@pytest.mark.parametrize("told", [True, False])
def test_what_others_write_meanwhile_was_not_there_before(
    talk: Talk, told: bool, wrote: bool
) -> None:
    made = [create(talk, PROPERTY), *([change(talk, b"a")] if wrote else [])]
    number = len(made)
    talk.ask(*made)
    talk.serve(*([property_notify(talk, 2)] if wrote else []))
    assert talk.ask(get(talk)) == [(REPLY, number + 1)]
    if told:
        talk.serve(property_notify(talk, number))
    value = pack(talk, "III", STRING, 0, 2)
    talk.serve(x.reply(talk.order, number + 1, value, b"xx\0\0", one=8))
    counters = talk.talk.counters
    assert counters.stale == int(told)
    assert counters.mispredictions == ({} if told else {PredictionClass.PROPERTIES: 1})
