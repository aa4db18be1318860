"""What one X client and its server get from each other, and what is answered in between."""

from __future__ import annotations

import struct

import pytest

from tests.support import xstreams as x
from tests.support.xtalk import (
    BASE,
    BIG,
    COLORMAP,
    FOCUS,
    NO_OPERATION,
    ROOT,
    STRANGE,
    VISUAL,
    Talk,
    atom_reply,
    atom_request,
    known_facts,
    server_setup,
)
from xsshpy.remote import comparing, learning
from xsshpy.remote import conversation as module
from xsshpy.remote.conversation import Conversation, build_conversation_reader
from xsshpy.remote.facts import PredictionClass
from xsshpy.remote.looks import Subject, Thing
from xsshpy.remote.plain import PlainConversation
from xsshpy.remote.roots import Property
from xsshpy.remote.xmessages import ByteOrder, ProtocolError, SetupRequest

REPLY, ERROR, EXPOSE = 1, 0, 12
LOOKED_AT = Thing(Subject.CHILDREN, ROOT)


@pytest.fixture(params=list(ByteOrder), ids=lambda order: order.name)
def order(request: pytest.FixtureRequest) -> ByteOrder:
    return request.param


@pytest.fixture
def talk(order: ByteOrder) -> Talk:
    return Talk(order)


def known(talk: Talk) -> bytes:
    return atom_request(talk.order, b"KNOWN")


def fresh(talk: Talk) -> bytes:
    return atom_request(talk.order, b"FRESH")


def sync(talk: Talk) -> bytes:
    return x.request(talk.order, FOCUS)


def bell(talk: Talk) -> bytes:
    """A request that may fail, and has no reply: DestroyWindow of somebody's window."""
    return x.request(talk.order, 4, struct.pack(talk.order.value + "I", 5))


def test_a_known_reply_comes_at_once_and_the_servers_own_is_dropped(talk: Talk) -> None:
    assert talk.ask(known(talk)) == [(REPLY, 1)]
    assert talk.last[0].data == atom_reply(talk.order, 1, 77)
    assert talk.serve(atom_reply(talk.order, 1, 77)) == []
    assert not talk.talk.counters.mispredictions
    assert talk.talk.counters.trips == 0


def test_known_replies_wait_behind_unknown_ones(talk: Talk) -> None:
    assert talk.ask(known(talk), fresh(talk), known(talk), known(talk)) == [(REPLY, 1)]
    assert talk.serve(atom_reply(talk.order, 1, 77)) == []
    assert talk.serve(atom_reply(talk.order, 2, 99)) == [(REPLY, 2), (REPLY, 3), (REPLY, 4)]
    assert [each.data[8:12] for each in talk.last][1:] == [atom_reply(talk.order, 3, 77)[8:12]] * 2
    assert talk.talk.counters.trips == 1
    # What the server said once is known from then on.
    assert talk.ask(fresh(talk)) == [(REPLY, 5)]


def test_nothing_is_said_past_a_request_that_may_have_a_reply(talk: Talk) -> None:
    assert talk.ask(x.request(talk.order, STRANGE), known(talk)) == []
    assert talk.serve(atom_reply(talk.order, 2, 77)) == [(REPLY, 2)]
    assert talk.ask(known(talk)) == [(REPLY, 3)]
    # And where it has one:
    assert talk.ask(x.request(talk.order, STRANGE), known(talk)) == []
    assert talk.serve(atom_reply(talk.order, 3, 77), x.reply(talk.order, 4)) == [(REPLY, 4)]
    assert talk.serve(atom_reply(talk.order, 5, 77)) == [(REPLY, 5)]
    assert not talk.talk.counters.mispredictions


def test_a_wrong_answer_ends_its_class_for_everybody(talk: Talk) -> None:
    other = Talk(talk.order, talk.facts)
    assert talk.ask(known(talk)) == [(REPLY, 1)]
    assert talk.serve(atom_reply(talk.order, 1, 78)) == []
    assert talk.talk.counters.mispredictions == {PredictionClass.FACTS: 1}
    assert "misprediction of facts" in talk.talk.notes[0]
    assert other.ask(known(other)) == []
    assert other.serve(atom_reply(talk.order, 1, 78)) == [(REPLY, 1)]


def test_an_error_instead_of_what_was_said_reaches_nobody(talk: Talk) -> None:
    assert talk.ask(known(talk)) == [(REPLY, 1)]
    assert talk.serve(x.error(talk.order, 1, 16)) == []
    assert talk.talk.counters.mispredictions == {PredictionClass.FACTS: 1}
    assert talk.ask(known(talk)) == []
    assert talk.serve(atom_reply(talk.order, 2, 77)) == [(REPLY, 2)]


def test_an_error_ends_a_wait(talk: Talk) -> None:
    assert talk.ask(fresh(talk), known(talk)) == []
    assert talk.serve(x.error(talk.order, 1, 16)) == [(ERROR, 1), (REPLY, 2)]


def test_the_focus_may_move_without_blame(talk: Talk) -> None:
    assert talk.ask(sync(talk)) == [(REPLY, 1)]
    moved = x.reply(talk.order, 1, struct.pack(talk.order.value + "I", 9))
    assert talk.serve(moved) == []
    assert talk.talk.counters.stale == 1
    assert not talk.talk.counters.mispredictions
    assert talk.ask(sync(talk)) == [(REPLY, 2)]
    assert talk.last[0].data[8:12] == moved[8:12]


def test_the_focus_is_not_what_it_was_before_the_client_moved_it(talk: Talk) -> None:
    move = x.request(talk.order, 42, struct.pack(talk.order.value + "II", ROOT, 0), 1)
    talk.ask(sync(talk), move, fresh(talk))
    talk.serve(x.reply(talk.order, 1), atom_reply(talk.order, 3, 5))
    assert talk.ask(sync(talk)) == []
    talk.serve(x.reply(talk.order, 4))
    assert talk.ask(sync(talk)) == [(REPLY, 5)]


def test_sync_waits_for_what_may_fail(talk: Talk) -> None:
    assert talk.ask(bell(talk), sync(talk)) == []
    assert talk.serve(x.error(talk.order, 1, 4)) == [(ERROR, 1)]
    assert talk.serve(x.reply(talk.order, 2)) == [(REPLY, 2)]
    assert talk.ask(sync(talk)) == [(REPLY, 3)]


def test_an_error_after_an_early_sync_ends_early_syncs(talk: Talk) -> None:
    pixmap = x.request(
        talk.order, 53, struct.pack(talk.order.value + "IIHH", BASE + 1, ROOT, 5, 5), 24
    )
    assert talk.ask(pixmap, sync(talk)) == [(REPLY, 2)]
    # The server has no memory; its error is told all the same, with a number that libraries take.
    assert talk.serve(x.error(talk.order, 1, 53, 11)) == [(ERROR, 2)]
    assert talk.talk.counters.mispredictions == {PredictionClass.SYNC: 1}
    assert talk.serve(x.reply(talk.order, 2)) == []
    assert talk.ask(sync(talk)) == []


def test_events_never_go_back_in_number(talk: Talk) -> None:
    assert talk.ask(known(talk), known(talk)) == [(REPLY, 1), (REPLY, 2)]
    assert talk.serve(x.event(talk.order, EXPOSE, 0)) == [(EXPOSE, 2)]
    keys = x.keymap_notify()
    talk.serve(keys)
    assert talk.last[0].data == keys
    long = x.generic_event(talk.order, 1, b"e" * 40)
    assert talk.serve(long) == [(35, 2)]
    assert talk.last[0].data[4:] == long[4:]


def test_numbers_wrap_and_go_on(talk: Talk) -> None:
    nothing = x.request(talk.order, NO_OPERATION)
    sequence = 0
    for count in (65_530, 4, 1, 1, 3, 65_000, 70_001):
        assert talk.ask(nothing * count) == []
        assert talk.ask(fresh(talk)) == []
        sequence += count + 1
        assert talk.serve(atom_reply(talk.order, sequence, 5)) == [(REPLY, talk.reader.sequence)]
        assert talk.reader.sequence & 0xFFFF == sequence & 0xFFFF
        early = talk.ask(known(talk))
        sequence += 1
        assert [number & 0xFFFF for _, number in early] == [sequence & 0xFFFF]
        talk.facts.replies.pop(fresh(talk))
        raised = talk.serve(x.event(talk.order, EXPOSE, sequence - 1))
        assert [number & 0xFFFF for _, number in raised] == [sequence & 0xFFFF]
        talk.serve(atom_reply(talk.order, sequence, 77))
    assert sequence > 200_000
    assert talk.talk.counters.requests == sequence
    assert not talk.talk.counters.mispredictions


def test_an_error_after_a_long_silence_finds_its_request(talk: Talk) -> None:
    talk.ask(x.request(talk.order, NO_OPERATION) * 70_000, fresh(talk))
    assert len(talk.serve(x.error(talk.order, 70_001, 16))) == 1
    assert len(talk.ask(known(talk))) == 1


def test_many_replies_to_one_request(talk: Talk) -> None:
    names = x.request(talk.order, 50, struct.pack(talk.order.value + "HH", 9, 1) + b"*")
    assert talk.ask(names, known(talk)) == []
    font = x.reply(talk.order, 1, b"", bytes(40), one=3)
    assert talk.serve(font, font) == [(REPLY, 1), (REPLY, 1)]
    last = x.reply(talk.order, 1, b"", bytes(28), one=0)
    assert talk.serve(last) == [(REPLY, 1), (REPLY, 2)]


def test_long_requests_after_an_early_permission(talk: Talk) -> None:
    long = x.long_request(talk.order, NO_OPERATION, bytes(400_000))
    assert talk.ask(x.query(talk.order, b"BIG-REQUESTS"), x.request(talk.order, BIG)) == [
        (REPLY, 1),
        (REPLY, 2),
    ]
    assert talk.ask(long, known(talk)) == [(REPLY, 4)]


@pytest.mark.parametrize("real", [0, 1])
def test_hidden_extensions_are_absent_at_once(talk: Talk, real: int) -> None:
    assert talk.ask(x.query(talk.order, b"MIT-SHM")) == [(REPLY, 1)]
    assert not talk.last[0].data[8]
    answer = x.present(talk.order, 1) if real else x.absent(talk.order, 1)
    assert talk.serve(answer) == []
    assert not talk.talk.counters.mispredictions


def test_listed_extensions_leave_the_hidden_ones_out(talk: Talk) -> None:
    listed = x.request(talk.order, x.LIST_EXTENSIONS)
    assert talk.ask(listed) == []
    names = [b"DRI3", b"GLX", b"MIT-SHM"]
    assert talk.serve(x.names_reply(talk.order, 1, names)) == [(REPLY, 1)]
    assert talk.last[0].data == x.names_reply(talk.order, 1, [b"GLX"])
    assert talk.ask(listed) == [(REPLY, 2)]
    assert talk.last[0].data == x.names_reply(talk.order, 2, [b"GLX"])
    assert talk.serve(x.names_reply(talk.order, 2, names)) == []
    assert not talk.talk.counters.mispredictions


@pytest.mark.parametrize("piece", [1 << 20, 1000])
def test_nothing_comes_between_the_parts_of_a_long_reply(talk: Talk, piece: int) -> None:
    image = x.request(talk.order, 73, bytes(16), 2)
    talk.ask(image, known(talk))
    long = x.reply(talk.order, 1, b"", b"i" * 300_000)
    got = b""
    for part in x.pieces(long, piece):
        talk.talk.receive_from_server(part)
        talk.talk.receive_from_client(known(talk))
        got += talk.talk.take_for_client()
    assert got.startswith(long)
    assert len(got) == len(long) + 32 * (1 + -(-len(long) // piece))


def filled_pixmap(talk: Talk, size: int) -> bytes:
    o = talk.order.value
    made = x.request(talk.order, 53, struct.pack(o + "IIHH", BASE + 1, ROOT, size, size), 24)
    context = struct.pack(o + "IIII", BASE + 2, BASE + 1, 4, 0x123456)
    box = struct.pack(o + "IIhhHH", BASE + 1, BASE + 2, 0, 0, size, size)
    return made + x.request(talk.order, 55, context) + x.request(talk.order, 70, box)


@pytest.mark.parametrize("wrong", ["", "head", "end"])
def test_a_long_early_answer_is_compared_to_its_end(talk: Talk, wrong: str) -> None:
    o = talk.order.value
    size = struct.pack(o + "IhhHHI", BASE + 1, 0, 0, 200, 200, 0xFFFFFFFF)
    assert talk.ask(filled_pixmap(talk, 200), x.request(talk.order, 73, size, 2)) == [(REPLY, 4)]
    pixels = struct.pack(o + "I", 0x123456) * 40_000
    assert talk.last[0].data[32:] == pixels
    real = bytearray(x.reply(talk.order, 4, b"", pixels, one=24))
    if wrong:
        real[8 if wrong == "head" else -1] ^= 1
    for part in x.pieces(bytes(real), 7000):
        assert talk.serve(part) == []
    assert talk.talk.counters.mispredictions == ({PredictionClass.PIXMAPS: 1} if wrong else {})
    assert talk.ask(known(talk)) == [(REPLY, 5)]


def test_early_answers_have_a_bound(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWERS_LIMIT", 100)
    assert len(talk.ask(known(talk) * 5)) == 3
    assert len(talk.serve(*(atom_reply(talk.order, n, 77) for n in range(1, 5)))) == 1


def test_a_client_that_asks_too_much_is_left_waiting(talk: Talk) -> None:
    assert talk.talk.may_read
    talk.ask(fresh(talk) * module.PENDING_FULL)
    assert not talk.talk.may_read
    talk.serve(atom_reply(talk.order, 1, 5))
    assert talk.talk.may_read


def test_nothing_coherent_while_the_server_is_grabbed(talk: Talk) -> None:
    o = talk.order.value
    talk.facts.roots.tell(ROOT, 23, Property(31, 8, b"abc"))
    read = x.request(talk.order, 20, struct.pack(o + "IIIII", ROOT, 23, 0, 0, 99))
    assert talk.ask(read) == [(REPLY, 1)]
    assert talk.last[0].data[32:35] == b"abc"
    talk.serve(talk.last[0].data)
    assert talk.ask(x.request(talk.order, 36), read) == []
    assert talk.serve(x.reply(talk.order, 3)) == [(REPLY, 3)]
    assert talk.ask(sync(talk)) == []
    talk.serve(x.reply(talk.order, 4))
    assert talk.ask(x.request(talk.order, 37), read) == [(REPLY, 6)]


@pytest.mark.parametrize("how", ["change", "delete", "rotate", "read"])
def test_a_property_that_a_client_changes_is_unknown_until_news(talk: Talk, how: str) -> None:
    o = talk.order.value
    old, new = Property(31, 8, b"old"), Property(31, 8, b"new")
    talk.facts.roots.tell(ROOT, 23, old)
    read = x.request(talk.order, 20, struct.pack(o + "IIIII", ROOT, 23, 0, 0, 99))
    change = {
        "change": x.request(
            talk.order, 18, struct.pack(o + "IIIBxxxI", ROOT, 23, 31, 8, 3) + b"new"
        ),
        "delete": x.request(talk.order, 19, struct.pack(o + "II", ROOT, 23)),
        "rotate": x.request(talk.order, 114, struct.pack(o + "IHhI", ROOT, 1, 0, 23)),
        "read": x.request(talk.order, 20, struct.pack(o + "IIIII", ROOT, 23, 0, 0, 99), 1),
    }[how]
    talk.ask(change, read)
    assert not talk.last
    talk.facts.roots.tell(ROOT, 23, old)  # news from before the change
    talk.ask(read)
    assert not talk.last
    talk.serve(*[x.reply(talk.order, n) for n in ((1, 2, 3) if how == "read" else (2, 3))])
    talk.facts.roots.tell(ROOT, 23, new)
    assert talk.ask(read) == [(REPLY, 4)]
    assert talk.last[0].data[32:35] == b"new"


def test_a_change_of_the_keyboard_forgets_older_answers(talk: Talk) -> None:
    mapping = x.request(talk.order, 119)
    talk.ask(mapping)
    talk.serve(x.event(talk.order, 34, 0))
    assert talk.serve(x.reply(talk.order, 1)) == [(REPLY, 1)]  # asked before the change
    assert talk.ask(mapping) == []
    talk.serve(x.reply(talk.order, 2))
    assert talk.ask(mapping) == [(REPLY, 3)]
    change = x.request(talk.order, 118, bytes(8), 1)
    talk.ask(change)
    talk.serve(x.reply(talk.order, 3), x.reply(talk.order, 4))
    assert talk.ask(mapping) == []


def test_trips_are_counted_by_generations(talk: Talk) -> None:
    names = [atom_request(talk.order, b"N%d" % n) for n in range(6)]
    talk.ask(*names[:3])
    talk.serve(*(atom_reply(talk.order, n, 100 + n) for n in (1, 2, 3)))
    assert talk.talk.counters.trips == 1
    talk.ask(*names[3:])
    talk.serve(*(atom_reply(talk.order, n, 100 + n) for n in (4, 5, 6)))
    assert talk.talk.counters.trips == 2
    assert talk.talk.counters.waited_for == {16: 6}


def test_images_are_pieces_of_their_own(talk: Talk) -> None:
    o = talk.order.value
    head = struct.pack(o + "IIHHhhBBxx", BASE + 1, BASE + 2, 10, 10, 0, 0, 0, 24)
    image = x.request(talk.order, 72, head + bytes(400), 2)
    talk.talk.receive_from_client(known(talk) + image + known(talk))
    pieces = talk.talk.take_for_server()
    assert [piece.is_image for piece in pieces] == [False, True, False]
    assert pieces[1].data == image


def test_a_reply_that_nobody_asked_for_ends_the_conversation(talk: Talk) -> None:
    with pytest.raises(ProtocolError):
        talk.serve(x.reply(talk.order, 3))


def test_a_refused_client_gets_the_refusal(order: ByteOrder) -> None:
    reader = build_conversation_reader()
    reader.receive_data(x.setup(order))
    assert isinstance(reader.next_event(), SetupRequest)
    talk = module.Conversation(reader, known_facts(order))
    refusal = struct.pack(order.value + "BBHHH", 0, 4, 11, 0, 1) + b"away"
    talk.receive_from_server(refusal)
    assert talk.take_for_client() == refusal
    assert not talk.may_read


def test_the_other_byte_order_is_only_filtered() -> None:
    reader = build_conversation_reader()
    reader.receive_data(x.setup(ByteOrder.BIG))
    assert isinstance(reader.next_event(), SetupRequest)
    plain = PlainConversation(reader)
    plain.receive_from_server(server_setup(ByteOrder.BIG))
    plain.take_for_client()
    plain.receive_from_client(x.query(ByteOrder.BIG, b"MIT-SHM"))
    assert plain.take_for_client() == b""
    plain.receive_from_server(x.present(ByteOrder.BIG, 1))
    assert plain.take_for_client()[8] == 0


# The edges --------------------------------------------------------------------------------------


def test_what_comes_before_the_servers_setup_waits(order: ByteOrder) -> None:
    reader = build_conversation_reader()
    reader.receive_data(x.setup(order))
    reader.next_event()
    talk = Conversation(reader, known_facts(order))
    talk.receive_from_client(atom_request(order, b"KNOWN"))
    assert not talk.take_for_server()
    talk.close()
    talk.receive_from_server(server_setup(order))
    assert len(talk.take_for_server()) == 1
    assert talk.take_for_client() == server_setup(order) + atom_reply(order, 1, 77)


def test_unanswered_requests_have_a_bound(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_LIMIT", 2)
    talk.ask(fresh(talk), fresh(talk))
    with pytest.raises(ProtocolError):
        talk.ask(fresh(talk))


def test_a_reply_to_another_request_than_the_next_ends_the_conversation(talk: Talk) -> None:
    talk.ask(fresh(talk), fresh(talk))
    with pytest.raises(ProtocolError):
        talk.serve(atom_reply(talk.order, 2, 99))


def test_what_a_client_selected_on_the_root_window_goes_with_it(talk: Talk) -> None:
    roots = talk.facts.roots
    roots.attributes[ROOT] = x.reply(talk.order, 0, b"", bytes(12))
    select = struct.pack(talk.order.value + "III", ROOT, 1 << 11, 1 << 17)
    talk.ask(x.request(talk.order, 2, select))
    assert ROOT in roots.attributes
    talk.talk.close()
    assert ROOT not in roots.attributes  # others may have selected the same


def test_what_is_to_be_looked_at_is_taken_once(talk: Talk) -> None:
    talk.facts.looks.renew(LOOKED_AT)
    assert [look.thing for look in talk.talk.take_looks()] == [LOOKED_AT]
    assert talk.talk.take_looks() == []


def test_surroundings_that_others_change_meanwhile_are_all_looked_at_anew(talk: Talk) -> None:
    looks = talk.facts.looks
    looks.renew(LOOKED_AT)
    told = x.reply(talk.order, 0, struct.pack(talk.order.value + "IIH", ROOT, 0, 0))
    looks.tell(LOOKED_AT, looks.number(LOOKED_AT), told)
    tree = x.request(talk.order, 15, struct.pack(talk.order.value + "I", ROOT))
    assert talk.ask(tree) == [(REPLY, 1)]
    looks.take_wanted()
    other = struct.pack(talk.order.value + "IIH", ROOT, 0, 1)
    assert talk.serve(x.reply(talk.order, 1, other, bytes(4))) == []
    assert talk.talk.counters.stale == 1
    assert not talk.talk.counters.mispredictions
    assert LOOKED_AT in looks.wanted


def test_so_many_wrong_answers_are_described(talk: Talk) -> None:
    comparison = talk.talk._comparison
    for _ in range(comparing._NOTES + 5):
        comparison.switch_off(PredictionClass.FACTS, "why")
    assert len(comparison.notes) == comparing._NOTES
    assert talk.talk.counters.mispredictions == {PredictionClass.FACTS: comparing._NOTES + 5}


@pytest.mark.parametrize("how", ["learned", "again", "full", "other", "font"])
def test_what_the_server_had_to_be_asked_is_told(
    how: str, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, o = talk.talk._learner.learned, talk.order.value
    if how == "full":
        monkeypatch.setattr(learning, "LEARNED_LIMIT", 0)
    if how == "font":
        name = struct.pack(o + "IHxx", BASE + 1, 5) + b"fixed"
        talk.ask(x.request(talk.order, 45, name))
        talk.ask(x.request(talk.order, 47, struct.pack(o + "I", BASE + 1)))
        talk.serve(x.reply(talk.order, 2, b"", bytes(28)))
        assert b"fixed" in talk.facts.fonts
        assert [each.key for each in learned] == [b"fixed"]
        return
    if how == "other":  # attributes of a window tell whether its colormap is installed
        talk.ask(x.request(talk.order, 3, struct.pack(o + "I", 5)))
        body = struct.pack(o + "IHBBIIBBBBI", VISUAL, 1, 0, 0, 0, 0, 0, 1, 0, 0, COLORMAP)
        talk.serve(x.reply(talk.order, 1, body[:24], body[24:] + bytes(12 - len(body[24:]))))
        assert COLORMAP in talk.facts.installed
        return
    only = bytearray(atom_request(talk.order, b"FRESH"))
    only[1] = 1
    talk.ask(bytes(only), bytes(only))
    talk.serve(atom_reply(talk.order, 1, 0), atom_reply(talk.order, 2, 0))
    assert bytes(only) not in talk.facts.replies
    assert len(learned) == (0 if how == "full" else 2)


def test_in_the_other_byte_order_everything_may_be_waited_for(order: ByteOrder) -> None:
    reader = build_conversation_reader()
    reader.receive_data(x.setup(order))
    reader.next_event()
    plain = PlainConversation(reader)
    assert plain.brings_news()
    assert plain.take_looks() == []
    request = atom_request(order, b"KNOWN")
    plain.receive_from_client(request)
    assert b"".join(piece.data for piece in plain.take_for_server()).endswith(request)
    assert plain.take_for_server() == []
