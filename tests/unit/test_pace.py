"""The bound on what is under way, on simulated links: full, and with a short queue."""

from __future__ import annotations

import heapq

import pytest

from xsshpy.remote.pace import HEADROOM, LINK_FLOOR, RTT_LIFETIME, Pace

MEGABIT = 125_000


class Link:
    """A queue that empties at ``rate`` bytes a second, and a way of ``delay`` seconds each way."""

    def __init__(self, rate: float, round_trip: float, batch: int = 0, wait: float = 0.0) -> None:
        self.now = 0.0
        self.rate = rate
        self.delay = round_trip / 2
        self.pace = Pace(lambda: self.now)
        self.batch = batch  # the receiver confirms this many bytes at once
        self.wait = wait  # or what came within this time
        self._free_at = 0.0
        self._confirmable = 0
        self._tick: float | None = None
        self._events: list[tuple[float, int, str, int]] = []
        self._number = 0
        self._passing = 0
        self.queue_times: list[tuple[float, float]] = []
        self.arrivals: list[tuple[float, int]] = []

    def _at(self, time: float, what: str, size: int) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, what, size))

    def send(self, size: int) -> None:
        """Hand a piece to the link; it passes in segments, as it would on a network."""
        self.pace.sent(size)
        while size:
            segment = min(size, max(1448, int(self.rate * 0.001)))
            size -= segment
            start = max(self._free_at, self.now)
            self.queue_times.append((self.now, start - self.now))
            self._free_at = start + segment / self.rate
            self._at(self._free_at + self.delay, "arrive", segment)
            self._passing += 1

    def _confirm(self) -> None:
        if self._confirmable:
            self._at(self.now + self.delay, "confirm", self._confirmable)
            self._confirmable = 0

    def _step(self) -> None:
        self.now, _, what, size = heapq.heappop(self._events)
        if what == "arrive":
            self._passing -= 1
            self.arrivals.append((self.now, size))
            self._confirmable += size
            if self.wait:
                if self._tick is None:
                    self._tick = self.now + self.wait
                    self._at(self._tick, "tick", 0)
            elif self._confirmable > self.batch or not self._passing:
                self._confirm()
        elif what == "tick":
            self._tick = None
            self._confirm()
        elif what == "confirm":
            self.pace.confirmed(size)

    def run(self, seconds: float, piece: int = 16384) -> None:
        """Send as much as is allowed for so long."""
        end = self.now + seconds
        self.fill(piece)
        while self._events and self._events[0][0] <= end:
            self._step()
            self.fill(piece)
        self.now = end

    def rest(self, seconds: float) -> None:
        """Send nothing for so long."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self._step()
        self.now = end

    def fill(self, piece: int) -> None:
        while self.pace.allowed >= 4096:
            self.send(min(piece, self.pace.allowed))

    def throughput(self, since: float) -> float:
        return sum(size for time, size in self.arrivals if time >= since) / (self.now - since)

    def longest_queue(self, since: float, until: float = 1e9) -> float:
        return max(wait for time, wait in self.queue_times if since <= time <= until)


LINKS = {
    "20 Mbit/s, 100 ms": (20 * MEGABIT, 0.1),
    "5 Mbit/s, 150 ms": (5 * MEGABIT, 0.15),
    "1 Gbit/s, 10 ms": (1000 * MEGABIT, 0.01),
    "50 Mbit/s, 600 ms": (50 * MEGABIT, 0.6),
    "loopback": (500e6, 0.0001),
}


@pytest.mark.parametrize("acks", ["each", "64 KiB", "20 ms"])
@pytest.mark.parametrize("name", LINKS)
def test_link_is_full_and_its_queue_short(name, acks):
    rate, round_trip = LINKS[name]
    link = Link(
        rate,
        round_trip,
        batch=65536 // 2 if acks == "64 KiB" else 0,
        wait=0.02 if acks == "20 ms" else 0.0,
    )
    seconds = 1.0 if rate > 100e6 else 16 * round_trip + 3
    link.run(seconds, 16384 if rate < 100e6 else 131072)
    start = seconds * 2 / 3
    assert link.throughput(start) >= 0.9 * rate
    slack = 0.02 + (0.05 if acks != "each" else 0.0)
    assert link.longest_queue(start) <= HEADROOM + slack
    assert link.pace.rate == pytest.approx(rate, rel=0.1)
    if acks == "each":
        assert link.pace.rtt == pytest.approx(round_trip, rel=0.1, abs=0.002)


def test_a_line_that_stood_still_is_full_right_after():
    link = Link(20 * MEGABIT, 0.1)
    link.run(15)
    link.fill(16384)
    # A laptop sleeps, or the network is away: all that is under way comes later.
    link._events = [(time + 300, number, what, size) for time, number, what, size in link._events]
    link._free_at += 300
    link.rest(300)
    link.run(10)
    start = link.now
    link.run(10)
    assert link.throughput(start) >= 0.9 * 20 * MEGABIT


@pytest.mark.parametrize("name", LINKS)
def test_start_doubles_with_every_round_trip(name):
    rate, round_trip = LINKS[name]
    link = Link(rate, round_trip)
    doublings = 1
    size = LINK_FLOOR
    while size < rate * round_trip:
        size *= 2
        doublings += 1
    started = round_trip * (doublings + 2) + 0.1
    link.run(started + 0.5, 16384 if rate < 100e6 else 131072)
    assert link.throughput(started) >= 0.85 * rate


@pytest.mark.parametrize("new", [5 * MEGABIT, 2 * MEGABIT])
def test_slower_link_is_noticed(new):
    link = Link(20 * MEGABIT, 0.1)
    link.run(4)
    link.rate = new
    link.run(5)
    standing = 20 * MEGABIT * 0.3 / new  # what was under way has to pass first
    settled = 4 + standing + 1.0
    assert link.longest_queue(settled) <= HEADROOM + 0.1
    assert link.throughput(settled) >= 0.9 * new
    assert link.pace.rate == pytest.approx(new, rel=0.1)


def test_faster_link_is_used():
    link = Link(5 * MEGABIT, 0.1)
    link.run(4)
    link.rate = 40 * MEGABIT
    link.run(3)
    assert link.throughput(5.5) >= 0.9 * 40 * MEGABIT


def test_round_trip_is_found_again_though_the_queue_never_empties():
    link = Link(20 * MEGABIT, 0.1)
    link.run(3)
    for _ in range(570):
        link.run(0.1)
        assert link.pace.rate is not None and link.pace.rate >= 0.95 * 20 * MEGABIT
    assert link.pace.rtt == pytest.approx(0.1, rel=0.05)
    assert link.longest_queue(50) <= HEADROOM + 0.06  # the burst after the queue was empty
    assert link.throughput(5) >= 0.95 * 20 * MEGABIT


def test_longer_way_is_noticed():
    link = Link(20 * MEGABIT, 0.05)
    link.run(3)
    link.delay = 0.2
    link.run(3 * RTT_LIFETIME)
    assert link.pace.rtt == pytest.approx(0.4, rel=0.1)
    assert link.throughput(2.5 * RTT_LIFETIME) >= 0.9 * 20 * MEGABIT


def test_little_to_send_does_not_lower_the_rate():
    link = Link(20 * MEGABIT, 0.1)
    link.run(3)
    before = link.pace.rate
    assert before is not None
    for _ in range(200):
        link.rest(0.1)
        link.send(200)
    link.rest(0.5)
    assert link.pace.rate == before
    assert link.pace.in_flight == 0
    link.run(1.0)
    assert link.throughput(link.now - 0.8) >= 0.9 * 20 * MEGABIT


def test_first_piece_after_a_rest_does_not_lower_the_rate():
    link = Link(20 * MEGABIT, 0.1)
    link.run(3)
    link.rest(3)
    link.send(200)
    for _ in range(100):
        link.run(0.01)
        assert link.pace.rate is not None and link.pace.rate >= 0.9 * 20 * MEGABIT


def test_large_pieces_are_not_taken_for_a_long_way():
    link = Link(5 * MEGABIT, 0.1)
    for _ in range(5):
        link.send(65536)
        link.rest(1.0)
    assert link.pace.rtt == pytest.approx(0.1, rel=0.1)


def test_before_anything_is_known_the_floor_is_allowed():
    now = [0.0]
    pace = Pace(lambda: now[0], floor=1000)
    assert (pace.window, pace.allowed, pace.rate, pace.rtt) == (1000, 1000, None, None)
    pace.sent(1500)
    assert (pace.in_flight, pace.allowed) == (1500, 0)
    now[0] = 0.1
    pace.confirmed(1500)
    assert pace.rate == pytest.approx(15000)
    assert pace.rtt == pytest.approx(0.1)
    assert pace.window == 15000 * 3 // 10


def test_rate_of_a_sender_with_little_to_send_is_not_the_links():
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.link_rate is None
    for _ in range(3):
        pace.sent(100)
        now[0] += 0.0002
        pace.confirmed(100)
    assert pace.rate is not None and pace.rate < 1e6
    assert pace.link_rate == pytest.approx(LINK_FLOOR / 0.0002)


def test_pieces_that_nobody_confirms_at_once_do_not_lengthen_the_way():
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.sent(16, measured=False)
    now[0] = 5.0
    pace.sent(100)
    now[0] = 5.1
    pace.confirmed(116)
    assert pace.rtt == pytest.approx(0.1)


@pytest.mark.parametrize("size", [0, -1, 101])
def test_more_confirmed_than_sent_is_refused(size):
    pace = Pace(lambda: 0.0)
    pace.sent(100)
    with pytest.raises(ValueError, match="more confirmed than sent"):
        pace.confirmed(size)
    assert pace.in_flight == 100


def test_many_small_pieces_take_little_memory():
    pace = Pace(lambda: 1.0)
    for _ in range(10_000):
        pace.sent(16)
    assert len(pace._pieces) <= 10_000 * 16 // 16384 + 1
    pace.confirmed(160_000)
    assert not pace._pieces and pace.in_flight == 0
