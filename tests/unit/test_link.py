"""The link's two ends back to back: what was queued arrives, in order, fairly, within bounds."""

from __future__ import annotations

import random

import pytest

from xsshpy.remote import link as module
from xsshpy.remote.frames import TO_AGENT, TO_LOCAL, Frame, FrameKind, FrameReader, LinkError
from xsshpy.remote.link import CONTROL_LIMIT, LITTLE, READ_AHEAD, Link


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Ends:
    """Two ends with a line of a fixed delay (seconds) and rate (bytes a second) between them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.near = Link(self.clock, self.clock, TO_AGENT, lambda n, d: Frame(FrameKind.DATA, n, d))
        self.far = Link(self.clock, self.clock, TO_LOCAL)

    def move(self, cut: random.Random | None = None) -> list[Frame]:
        """Carry what there is both ways, and confirm what arrives."""
        got: list[Frame] = []
        for source, sink in ((self.near, self.far), (self.far, self.near)):
            data = b"".join(bytes(piece) for piece in source.take())
            while data:
                size = cut.randint(1, 3000) if cut else len(data)
                for frame in sink.receive_data(data[:size]):
                    got.append(Frame(frame.kind, frame.client, bytes(frame.payload)))
                    if frame.kind is FrameKind.DATA:
                        sink.consumed(frame.client, len(frame.payload))
                data = data[size:]
        self.clock.now += 0.01
        return got


@pytest.mark.parametrize("seed", range(5))
def test_all_that_was_queued_arrives_in_order(seed: int) -> None:
    dice, ends = random.Random(seed), Ends()
    sent: dict[int, bytes] = {n: b"" for n in range(1, 6)}
    got: dict[int, bytes] = {n: b"" for n in range(1, 6)}
    for number in sent:
        ends.near.open_stream(number)
        ends.far.open_stream(number)
    for _ in range(60):
        number = dice.randint(1, 5)
        if ends.near.may_read(number):
            data = dice.randbytes(dice.choice((1, 40, 5000, 200_000)))
            sent[number] += data
            if dice.random() < 0.3:
                ends.near.queue_image(number, data)
            else:
                ends.near.queue(Frame(FrameKind.DATA, number, data))
        for frame in ends.move(dice):
            got[frame.client] += frame.payload
    while not all(ends.near.is_drained(number) for number in sent):
        for frame in ends.move(dice):
            got[frame.client] += frame.payload
    assert got == sent
    assert sum(map(len, sent.values())) > 500_000


def test_a_small_writer_is_not_stuck_behind_a_large_one() -> None:
    ends = Ends()
    for number in (1, 2):
        ends.near.open_stream(number)
        ends.far.open_stream(number)
    noise = random.Random(1).randbytes(1 << 20)
    ends.near.queue(Frame(FrameKind.DATA, 1, noise))
    ends.near.take()
    ends.near.queue(Frame(FrameKind.DATA, 2, b"key"))
    ends.near.queue_control(Frame(FrameKind.NOTE, 0, b"note"))
    ends.near.pace.confirmed(ends.near.pace.in_flight)  # the line is free again
    ends.near.take()
    assert ends.near.is_drained(2)
    assert not ends.near.is_drained(1)


def test_a_client_that_queues_too_much_is_read_no_more() -> None:
    ends = Ends()
    ends.near.open_stream(1)
    assert ends.near.may_read(1)
    ends.near.queue(Frame(FrameKind.DATA, 1, bytes(READ_AHEAD)))
    assert not ends.near.may_read(1)
    assert not ends.near.may_read(2)


def test_no_more_is_under_way_than_the_pace_allows() -> None:
    ends = Ends()
    ends.near.open_stream(1)
    ends.near.queue(Frame(FrameKind.DATA, 1, random.Random(2).randbytes(1 << 20)))
    size = sum(len(piece) for piece in ends.near.take())
    assert size <= 3 * 65536
    assert ends.near.take() == []


def test_control_frames_have_a_bound() -> None:
    ends = Ends()
    for _ in range(CONTROL_LIMIT):
        ends.near.queue_control(Frame(FrameKind.NOTE, 0, b""))
    with pytest.raises(LinkError):
        ends.near.queue_control(Frame(FrameKind.NOTE, 0, b""))


def test_what_waits_for_a_client_that_is_gone_is_not_sent() -> None:
    ends = Ends()
    ends.near.open_stream(1)
    ends.near.queue(Frame(FrameKind.DATA, 1, b"late"))
    ends.near.close_stream(1)
    assert ends.near.is_drained(1)
    assert ends.move() == []


def test_an_image_that_is_no_difference_leaves_in_shares() -> None:
    ends = Ends()
    for number in (1, 2):
        ends.near.open_stream(number)
    ends.near.queue_image(1, random.Random(3).randbytes(1 << 20))
    assert sum(len(piece) for piece in ends.near.take()) <= 3 * 65536


def test_more_confirmed_than_sent_ends_the_link() -> None:
    ends = Ends()
    ends.far.open_stream(1)
    ends.near.open_stream(1)
    ends.far.consumed(1, 1 << 20)
    with pytest.raises(LinkError):
        ends.move()


def test_a_few_small_requests_are_little_and_an_image_is_not() -> None:
    ends = Ends()
    ends.near.open_stream(1)
    assert ends.near.has_little
    ends.near.queue(Frame(FrameKind.DATA, 1, bytes(4000)))
    assert ends.near.has_little
    ends.near.queue_image(1, bytes(100))
    assert not ends.near.has_little
    ends.move()
    assert ends.near.has_little
    for _ in range(40):
        ends.near.queue_control(Frame(FrameKind.PING, 0, b""))
    assert not ends.near.has_little


def test_notes_are_lost_rather_than_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOTES_LIMIT", 1)
    ends = Ends()
    for text in (b"first", b"second"):
        ends.far.queue_note(Frame(FrameKind.NOTE, 0, text))
    taken = b"".join(bytes(piece) for piece in ends.far.take())
    assert b"first" in taken
    assert b"second" not in taken


def test_what_is_known_of_the_rate() -> None:
    ends = Ends()
    assert ends.near.rate is None
    assert 0 < ends.near.byte_time < 1e-5
    assert ends.near.wire_bytes(1) == 0
    ends.near.open_stream(1)
    ends.far.open_stream(1)
    ends.near.queue(Frame(FrameKind.DATA, 1, bytes(5000)))
    ends.move()
    assert 0 < ends.near.wire_bytes(1) < 6000


def test_a_ping_is_answered() -> None:
    ends = Ends()
    ends.near.queue_control(Frame(FrameKind.PING, 0, b"12345678"))
    for frame in ends.far.receive_data(b"".join(map(bytes, ends.near.take()))):
        raise AssertionError(frame)
    reader = FrameReader(TO_AGENT)
    reader.receive_data(b"".join(map(bytes, ends.far.take())))
    pong = reader.next_event()
    assert isinstance(pong, Frame)
    assert (pong.kind, bytes(pong.payload)) == (FrameKind.PONG, b"12345678")


def test_a_credit_of_a_client_that_is_gone_is_no_matter() -> None:
    ends = Ends()
    ends.far.queue_control(Frame(FrameKind.CREDIT, 9, (5).to_bytes(4, "big")))
    assert ends.move() == []


def test_a_client_whose_pace_is_full_does_not_hold_up_the_others() -> None:
    ends = Ends()
    for number in (1, 2):
        ends.near.open_stream(number)
        ends.near.queue(Frame(FrameKind.DATA, number, b"x" * 5 * LITTLE))
    pace = ends.near._streams[1].pace
    pace.sent(int(pace.allowed))
    taken = b"".join(bytes(piece) for piece in ends.near.take())
    assert {frame.client for frame in ends.far.receive_data(taken)} == {2}


def test_the_first_clients_have_most_room_for_images() -> None:
    assert module.image_budget(1) > module.image_budget(module.CLIENTS_WITH_FULL_IMAGES + 1)


def test_nothing_sent_is_nothing_under_way() -> None:
    pace = Ends().near.pace
    before = pace.in_flight
    pace.sent(0)
    assert pace.in_flight == before
