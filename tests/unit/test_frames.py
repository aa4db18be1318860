"""Blocks and frames of the link: whole, in pieces, plain and deflated; and what is refused."""

from __future__ import annotations

import ast
import inspect
import struct
import tracemalloc
import zlib

import pytest

from tests.support.pictures import line_plot, noise
from xsshpy.remote import frames, pace, payloads
from xsshpy.remote.frames import (
    BLOCK_SIZE,
    LONGEST,
    MAX_BLOCK,
    OF_CLIENT,
    TO_AGENT,
    TO_LOCAL,
    BlockKind,
    Choice,
    Frame,
    FrameKind,
    FrameReader,
    FrameWriter,
    LinkError,
)
from xsshpy.remote.xmessages import NEED_DATA, ByteOrder

SIZES = (1, 3, 5, 7, 4096, 1 << 22)
SLOW, FAST = 1e5, 1e12


def still() -> float:
    return 0.0


def encode(*sent: Frame, rate: float | None = SLOW) -> bytes:
    return b"".join(FrameWriter(still).encode(sent, rate))


def read(
    data: bytes, size: int = 1 << 22, allowed: frozenset[FrameKind] = frozenset(FrameKind)
) -> list[tuple[FrameKind, int, bytes]]:
    """Return the frames, pieces of one stream joined."""
    reader = FrameReader(allowed)
    found: list[tuple[FrameKind, int, bytes]] = []
    for start in range(0, len(data), size):
        reader.receive_data(data[start : start + size])
        while isinstance(frame := reader.next_event(), Frame):
            assert isinstance(frame.payload, bytes)
            last = found[-1] if found else None
            if last and frame.kind is FrameKind.DATA and last[:2] == (frame.kind, frame.client):
                found[-1] = (frame.kind, frame.client, last[2] + frame.payload)
            else:
                found.append((frame.kind, frame.client, frame.payload))
    assert reader.wire_bytes == len(data)
    return found


def told(sent: list[Frame]) -> list[tuple[FrameKind, int, bytes]]:
    return [(frame.kind, frame.client, bytes(frame.payload)) for frame in sent]


def block(data: bytes, kind: int = 0) -> bytes:
    return struct.pack(">BI", kind, len(data)) + data


def raw(kind: int, client: int, payload: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BHI", kind, client, len(payload) if length is None else length) + payload


def one_of_each() -> list[Frame]:
    return [
        Frame(kind, 7 if kind in OF_CLIENT else 0, bytes(min(LONGEST[kind], 300)))
        for kind in FrameKind
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rate", [SLOW, FAST, None])
def test_frames_come_out_as_they_went_in(size, rate):
    sent = one_of_each()
    assert read(encode(*sent, rate=rate), size) == told(sent)


@pytest.mark.parametrize("rate", [SLOW, FAST])
@pytest.mark.parametrize("size", [5, 4099, 1 << 22])
def test_large_frames_cross_blocks(rate, size):
    many = 3 if size > 5 else 1
    sent = [
        Frame(FrameKind.PRIME, 0, noise(200_000 * many)),
        Frame(FrameKind.DATA, 2, memoryview(line_plot(0, 640, 120 * many))),
        Frame(FrameKind.DATA, 3, noise(100_000)),
        Frame(FrameKind.PING, 0, b"end"),
    ]
    data = encode(*sent, rate=rate)
    assert read(data, size) == told(sent)


def test_streams_go_on_from_call_to_call():
    writer, reader = FrameWriter(still), FrameReader(TO_LOCAL)
    text = noise(3000)
    sizes = []
    for turn in range(20):
        data = b"".join(writer.encode([Frame(FrameKind.DATA, 1, text)], SLOW))
        sizes.append(len(data))
        reader.receive_data(data)
        frame = reader.next_event()
        assert isinstance(frame, Frame) and frame.payload == text, turn
    assert max(sizes[1:]) < 100 < sizes[0]
    assert writer.wire_bytes == reader.wire_bytes == sum(sizes)


def test_payloads_are_not_copied_where_they_go_plain():
    payload = noise(3 * BLOCK_SIZE)
    writer = FrameWriter(still)
    tracemalloc.start()
    try:
        pieces = writer.encode([Frame(FrameKind.DATA, 1, payload)], FAST)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used < 20_000
    assert sum(map(len, pieces)) < len(payload) + 100


@pytest.mark.parametrize("rate", [SLOW, FAST])
def test_nothing_is_gathered_of_a_stream(rate):
    data = encode(Frame(FrameKind.DATA, 1, bytes(8 << 20)), rate=rate)
    reader = FrameReader(TO_LOCAL)
    total = 0
    tracemalloc.start()
    try:
        for start in range(0, len(data), 30_000):
            reader.receive_data(data[start : start + 30_000])
            while isinstance(frame := reader.next_event(), Frame):
                total += len(frame.payload)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 8 << 20
    assert used < 500_000


def test_small_block_does_not_become_a_large_one():
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(raw(FrameKind.DATA, 1, b"", 1 << 24) + bytes(1 << 24))
    bomb += deflate.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 20_000
    reader = FrameReader(TO_LOCAL)
    tracemalloc.start()
    try:
        reader.receive_data(block(bomb, 1))
        total = 0
        with pytest.raises(LinkError, match="inflates to more"):
            while isinstance(frame := reader.next_event(), Frame):
                total += len(frame.payload)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total <= BLOCK_SIZE
    assert used < 500_000


def test_frame_that_comes_byte_by_byte_takes_no_more_than_its_size():
    data = block(raw(FrameKind.PRIME, 0, bytes(40_000)))
    reader = FrameReader(TO_AGENT)
    tracemalloc.start()
    try:
        for place in range(len(data) - 1):
            reader.receive_data(data[place : place + 1])
            assert not isinstance(reader.next_event(), Frame)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used < 200_000


def test_empty_pieces_of_a_stream_are_not_told():
    assert read(block(raw(FrameKind.DATA, 1, b"") * 3 + raw(FrameKind.PING, 0, b"x"))) == [
        (FrameKind.PING, 0, b"x")
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\2" + bytes(4), "unknown kind"),
        (b"\0" + bytes(4), "impossible length"),
        (struct.pack(">BI", 0, MAX_BLOCK + 1), "impossible length"),
        (block(b"\7\7\7\7", 1), "cannot be inflated"),
        (block(zlib.compress(b"", 1)[2:-4], 1), "stream ends"),
        (block(raw(0, 0, b"")), "unknown kind"),
        (block(raw(255, 0, b"")), "unknown kind"),
        (block(raw(FrameKind.ACK, 1, bytes(4))), "names a client"),
        (block(raw(FrameKind.DATA, 0, bytes(4))), "names no client"),
        (block(raw(FrameKind.EOF, 1, b"x")), "too long"),
        (block(raw(FrameKind.IMAGE, 1, b"", (1 << 24) + 1)), "too long"),
        (block(raw(FrameKind.OPEN, 1, b"", 0xFFFFFFFF)), "too long"),
        (block(raw(FrameKind.PRIME, 0, b"")), "wrong way"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_reader_refuses_and_stays_failed(data, words, size):
    good = block(raw(FrameKind.PING, 0, b"ok"))
    data = good + data + good
    reader = FrameReader(TO_LOCAL)
    found = []
    with pytest.raises(LinkError, match=words):
        for start in range(0, len(data), size):
            reader.receive_data(data[start : start + size])
            while isinstance(frame := reader.next_event(), Frame):
                found.append(frame.payload)
    assert found == [b"ok"]
    for _ in range(2):
        with pytest.raises(LinkError, match=words):
            reader.receive_data(good)
        with pytest.raises(LinkError, match=words):
            reader.next_event()


def test_every_kind_goes_its_own_way():
    assert set(FrameKind) == TO_LOCAL | TO_AGENT
    assert {FrameKind.PRIME, FrameKind.POOL}.isdisjoint(TO_LOCAL)
    assert {FrameKind.OPEN, FrameKind.IMAGE, FrameKind.STATS}.isdisjoint(TO_AGENT)
    assert set(LONGEST) == set(FrameKind)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FrameKind.DATA, 0, b"x"),
        Frame(FrameKind.ACK, 1, bytes(4)),
        Frame(FrameKind.PING, 0, bytes(65)),
        Frame(FrameKind.DATA, 65536, b"x"),
        Frame(FrameKind.DATA, -1, b"x"),
    ],
)
def test_writer_refuses_what_the_reader_would(frame):
    writer = FrameWriter(still)
    with pytest.raises(ValueError):
        writer.encode([Frame(FrameKind.PING, 0, b"x"), frame])
    assert writer.wire_bytes == 0


def test_acknowledgements_are_not_acknowledged_for_ever():
    near, far = FrameReader(TO_LOCAL), FrameReader(TO_AGENT)
    writers = (FrameWriter(still), FrameWriter(still))
    near.receive_data(b"".join(writers[0].encode([Frame(FrameKind.PING, 0, b"x")])))
    near.next_event()
    passed = 0
    reader, writer = near, writers[1]
    while size := reader.take_ack():
        data = b"".join(writer.encode([payloads.build_ack(size)]))
        passed += 1
        assert passed < 3
        reader = far if reader is near else near
        writer = writers[0] if writer is writers[1] else writers[1]
        reader.receive_data(data)
        frame = reader.next_event()
        assert isinstance(frame, Frame) and payloads.parse_count(frame) == size
    assert passed == 1


def test_many_acknowledgements_are_acknowledged_together():
    reader, writer = FrameReader(TO_LOCAL), FrameWriter(still)
    told = 0
    for _ in range(2000):
        reader.receive_data(b"".join(writer.encode([payloads.build_ack(5)])))
        assert isinstance(reader.next_event(), Frame)
        told += reader.take_ack()
    assert 0 <= writer.wire_bytes - told < frames.ACK_STEP


# -- plain or deflated --


class Busy:
    """A clock that runs with the work done: ``speed`` bytes a second of compression."""

    def __init__(self, speed: float, size: int) -> None:
        self.now = 0.0
        self.calls = 0
        self.step = size / speed

    def __call__(self) -> float:
        self.calls += 1
        if self.calls % 2 == 0:
            self.now += self.step
        return self.now


def share_deflated(data: bytes, speed: float, rate: float, turns: int = 100) -> float:
    writer = FrameWriter(Busy(speed, BLOCK_SIZE))
    frame = Frame(FrameKind.DATA, 1, data[: BLOCK_SIZE - 7])
    wire = [b"".join(writer.encode([frame], rate)) for _ in range(turns)]
    kinds = [part[0] for part in wire[turns // 4 :]]
    return kinds.count(BlockKind.DEFLATED) / len(kinds)


@pytest.mark.parametrize(
    ("speed", "rate", "deflated"),
    [(300e6, 600e3, True), (300e6, 100e6, True), (300e6, 1e9, False), (30e6, 60e6, False)],
)
def test_plots_are_deflated_where_the_link_is_the_slower_one(speed, rate, deflated):
    share = share_deflated(line_plot(0), speed, rate)
    assert share == 1.0 if deflated else share <= 0.05


@pytest.mark.parametrize("rate", [2.5e6, 100e6, 1e9])
def test_what_cannot_be_deflated_goes_plain(rate):
    data = noise(BLOCK_SIZE)
    share = share_deflated(data, 50e6, rate)
    assert share <= max(0.05, 50e6 / rate / 16)


def test_change_of_what_is_sent_is_noticed():
    writer = FrameWriter(Busy(50e6, BLOCK_SIZE))
    for _ in range(50):
        writer.encode([Frame(FrameKind.DATA, 1, noise(BLOCK_SIZE - 7))], 2.5e6)
    before = writer.wire_bytes
    for _ in range(50):
        writer.encode([Frame(FrameKind.DATA, 1, line_plot(0)[: BLOCK_SIZE - 7])], 2.5e6)
    assert writer.wire_bytes - before < 0.2 * 50 * BLOCK_SIZE


def test_one_slow_moment_is_not_believed():
    choice = Choice()
    choice.learn(200_000, 20_000, 0.002)
    choice.learn(200_000, 20_000, 1.0)
    assert choice.decide(200_000, 5e6) is BlockKind.DEFLATED


def test_tiny_blocks_go_plain():
    assert encode(payloads.build_ack(5), rate=SLOW)[0] == BlockKind.PLAIN
    assert encode(Frame(FrameKind.DATA, 1, bytes(200)), rate=SLOW)[0] == BlockKind.DEFLATED
    assert encode(Frame(FrameKind.DATA, 1, bytes(200)), rate=FAST)[0] == BlockKind.PLAIN


# -- payloads --

SETUP = {order: order.mark + bytes(11) for order in ByteOrder}


@pytest.mark.parametrize("order", list(ByteOrder))
@pytest.mark.parametrize("slot", [None, 0, 65534])
def test_opening(order, slot):
    opening = payloads.parse_open(payloads.build_open(3, slot, SETUP[order]))
    assert (opening.slot, opening.order, opening.setup) == (slot, order, SETUP[order])


@pytest.mark.parametrize(
    "setup",
    [b"", b"l" + bytes(10), b"l" + bytes(12), b"x" + bytes(11), b"l" + bytes(5) + b"\1" + bytes(5)],
)
def test_opening_without_a_bare_setup(setup):
    with pytest.raises(ValueError):
        payloads.build_open(3, 1, setup)
    with pytest.raises(LinkError):
        payloads.parse_open(Frame(FrameKind.OPEN, 3, b"\0\1" + setup))


def test_pooled_setup():
    for mark in "<>":
        setup = struct.pack(mark + "BxHHH", 1, 11, 0, 2) + bytes(8)
        pooled = payloads.parse_pool(payloads.build_pool(9, setup))
        assert (pooled.slot, pooled.setup) == (9, setup)
        for broken in (setup[:-1], setup + b"x", b"\0" + setup[1:], b""):
            with pytest.raises(LinkError):
                payloads.parse_pool(Frame(FrameKind.POOL, 0, b"\0\1" + broken))
    with pytest.raises(LinkError):
        payloads.parse_pool(Frame(FrameKind.POOL, 0, b"\xff\xff" + setup))


def test_slots_in_range():
    for slot in (-1, 65535):
        with pytest.raises(ValueError):
            payloads.build_pool(slot, b"")
        with pytest.raises(ValueError):
            payloads.build_open(1, slot, SETUP[ByteOrder.BIG])


def test_counts():
    assert payloads.parse_count(payloads.build_credit(3, 1)) == 1
    assert payloads.parse_count(payloads.build_ack(0xFFFFFFFF)) == 0xFFFFFFFF
    for count in (0, -1, 1 << 32):
        with pytest.raises(ValueError):
            payloads.build_ack(count)
    for broken in (b"", bytes(3), bytes(4)):
        with pytest.raises(LinkError):
            payloads.parse_count(Frame(FrameKind.ACK, 0, broken))


def test_text_moves_no_terminal():
    assert payloads.parse_text(payloads.build_note("déjà vu")) == "déjà vu"
    assert (
        payloads.parse_text(Frame(FrameKind.NOTE, 0, b"a\x1b[2Jb\n\xff\xc2\x9b"))
        == "a?[2Jb?\ufffd?"
    )
    long = payloads.build_close(1, "é" * 1000)
    assert payloads.parse_text(long) == "é" * 512
    assert payloads.parse_text(payloads.build_close(1)) == ""


def test_counters():
    counters = {"requests": 5, "waited": 0, "raw_bytes": (1 << 64) - 1}
    assert payloads.parse_stats(payloads.build_stats(4, counters)) == counters


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"a":-1}',
        b'{"a":1.5}',
        b'{"a":true}',
        b'{"a b":1}',
        b'{"a":18446744073709551616}',
        b"[" * 60_000,
        b"{" + b",".join(b'"a%d":1' % number for number in range(300)) + b"}",
    ],
)
def test_counters_that_are_none(broken):
    with pytest.raises(LinkError):
        payloads.parse_stats(Frame(FrameKind.STATS, 1, broken))


def test_ping_comes_back():
    assert payloads.build_pong(payloads.build_ping(b"12345678")).payload == b"12345678"


@pytest.mark.parametrize("module", [frames, pace, payloads])
def test_the_other_host_may_have_python_3_6(module):
    tree = ast.parse(inspect.getsource(module), feature_version=(3, 6))
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else name.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
        if not getattr(node, "level", 0)
    }
    assert imported <= {"struct", "zlib", "json", "enum", "typing", "collections"}


def test_what_a_byte_costs() -> None:
    choice = Choice()
    assert choice.byte_time(1e3) == pytest.approx(1.25 / choice.speed + choice.ratio / 1e3)
    assert choice.byte_time(1e12) == pytest.approx(1e-12)


def test_short_blocks_teach_nothing() -> None:
    choice = Choice()
    before = choice.speed, choice.ratio
    choice.learn(Choice.SMALL - 1, 5, 1.0)
    assert (choice.speed, choice.ratio) == before
    choice.learn(Choice.SMALL, 5, 1.0)
    assert (choice.speed, choice.ratio) != before


def test_nothing_to_send_is_no_block() -> None:
    assert FrameWriter(lambda: 0.0).encode([]) == []


def test_no_bytes_are_no_block() -> None:
    reader = FrameReader(TO_AGENT)
    reader.receive_data(b"")
    assert reader.next_event() is NEED_DATA
