"""Conversations under any bytes and any cuts: only ProtocolError comes out, and nothing differs."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import xstreams as x
from tests.support.xrandom import RandomClient
from tests.support.xtalk import BASE, BIG, STRANGE, Talk, atom_reply, atom_request, known_facts
from xsshpy.remote.records import apply_record, parse_records
from xsshpy.remote.xmessages import ByteOrder, ProtocolError
from xsshpy.x11.agent_start import NoiseError, Stage, StageReader
from xsshpy.x11.questions import ServerNames, build_request, parse_questions, recognise

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
orders = st.sampled_from(ByteOrder)
PERMISSION = 24
"""Bytes of the requests that a trace begins with, to be allowed long ones."""

NAMES = ServerNames(1, 2, {"RENDER": 139, "RANDR": 140})


def trace(order: ByteOrder) -> tuple[bytes, bytes]:
    """Return what a client says and what its server answers to all of it."""
    requests = [
        x.query(order, b"BIG-REQUESTS"),
        x.request(order, BIG),
        atom_request(order, b"KNOWN"),
        atom_request(order, b"FRESH"),
        x.query(order, b"MIT-SHM"),
        x.long_request(order, 127, bytes(64)),
        x.request(order, STRANGE),
        x.request(order, 53, struct.pack(order.value + "IIHH", BASE + 1, 0x100, 5, 5), 24),
        x.request(order, 43),
    ]
    answers = [
        x.present(order, 1, BIG),
        x.reply(order, 2, struct.pack(order.value + "I", 1 << 20)),
        atom_reply(order, 3, 77),
        x.event(order, 12, 3),
        atom_reply(order, 4, 99),
        x.present(order, 5),
        x.keymap_notify(),
        x.error(order, 7, STRANGE),
        x.generic_event(order, 8, b"g" * 24),
        x.reply(order, 9, struct.pack(order.value + "I", 1)),
    ]
    return b"".join(requests), b"".join(answers)


@pytest.mark.parametrize("order", list(ByteOrder))
def test_cut_anywhere_all_comes_out_the_same(order: ByteOrder) -> None:
    said, answered = trace(order)

    def run(first: int, second: int) -> tuple[bytes, bytes]:
        talk = Talk(order).talk
        # No client sends a long request before it may.
        for part in (said[:PERMISSION], said[PERMISSION:first], said[max(first, PERMISSION) :]):
            talk.receive_from_client(part)
        for part in (answered[:second], answered[second:]):
            talk.receive_from_server(part)
        assert not talk.counters.mispredictions
        return b"".join(piece.data for piece in talk.take_for_server()), talk.take_for_client()

    whole = run(0, 0)
    assert whole[0] == said
    assert len(whole[1]) == len(answered)
    for cut in range(len(said)):
        assert run(cut, 0) == whole
    for cut in range(len(answered)):
        assert run(0, cut) == whole


@QUICK
@given(orders, st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=12))
def test_garbage_is_a_protocol_error(order: ByteOrder, said: list[tuple[bool, bytes]]) -> None:
    talk = Talk(order).talk
    with contextlib.suppress(ProtocolError):
        for from_client, data in said:
            (talk.receive_from_client if from_client else talk.receive_from_server)(data)


@QUICK
@given(st.integers(0, 1 << 30), st.lists(st.tuples(st.integers(0, 99), st.binary(max_size=9))))
def test_broken_requests_are_judged_too(seed: int, broken: list[tuple[int, bytes]]) -> None:
    talk = Talk(ByteOrder.LITTLE)
    places = dict(broken)
    for index, made in enumerate(RandomClient(seed, talk.facts, BASE).requests(60)):
        fill = places.get(index, b"")
        data = made[:4] + fill[: len(made) - 4] + made[4 + len(fill) :]
        length = max(1, (len(data) + 3) // 4)
        data = data[:2] + struct.pack("<H", length) + data[4:].ljust(length * 4 - 4, b"\0")
        talk.talk.receive_from_client(data)
    for opcode in range(256):
        for minor in (0, 1, 4, 22, 47):
            talk.talk.receive_from_client(x.request(ByteOrder.LITTLE, opcode, b"", minor))
            talk.talk.receive_from_client(x.request(ByteOrder.LITTLE, opcode, b"1234", minor))


@QUICK
@given(st.binary(max_size=300))
def test_facts_from_anywhere(data: bytes) -> None:
    facts = known_facts(ByteOrder.LITTLE)
    for head in (b"", b"\0", b"\1\0\0\4\0\0\0\x2c", b"\3\x08\0\x0c\0\0\0\4\0\0\1\0"):
        with contextlib.suppress(ProtocolError):
            for record in parse_records(head + data):
                recognise(record, NAMES)
                apply_record(facts, record)


@QUICK
@given(st.lists(st.binary(max_size=80), max_size=8), st.integers(1, 40))
def test_stages_between_any_noise(noise: list[bytes], size: int) -> None:
    text = (
        b"\n".join(noise)
        + b"\nxssh-agent n0 hello python=3.9\n"
        + b"\nxssh-agent n0 ready a=b\nrest"
    )
    reader = StageReader("n0")
    found = []
    for part in x.pieces(text, size):
        if reader.is_ready:
            break
        found += reader.receive_data(part)
    assert [line.stage for line in found if line.stage is not Stage.OLD][-2:] == [
        Stage.HELLO,
        Stage.READY,
    ]
    assert b"rest".startswith(reader.rest)


def test_noise_without_end_is_given_up() -> None:
    reader = StageReader("n0")
    with pytest.raises(NoiseError):
        for _ in range(1000):
            reader.receive_data(b"x" * 1000)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@QUICK
@given(st.dictionaries(st.sampled_from(["core", "font", "RENDER", "x", "\ud800"]), json_values))
def test_lists_of_questions_from_anywhere(listed: dict[str, object]) -> None:
    text = json.dumps({"format": 1, "questions": listed})
    with contextlib.suppress(ValueError):
        for question in parse_questions(text):
            build_request(question, NAMES)


def test_a_question_too_short_for_its_names_is_none() -> None:
    text = json.dumps(
        {"format": 1, "questions": {"core": ["0e000100", 5, None], "RENDER": ["001d0100"]}}
    )
    assert parse_questions(text) == []
