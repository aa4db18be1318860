"""How much may be under way at one time: so much that the link is never idle, and little more.

What waits in a queue on the way delays everything behind it: a user would see what was drawn two
seconds ago. So the sender keeps the queue short by itself. It measures how fast bytes are confirmed
and how quickly the first ones were, and has at most

    delivery rate x (shortest round trip + HEADROOM)

under way. The headroom keeps a small queue standing where there is enough to send; therefore what
is confirmed always comes at the rate that the link has now, more where it grew, less where it fell,
and no probing for more is needed.

Rules kept here, those of BBR in its simplest form (draft-cheng-iccrg-delivery-rate-estimation,
draft-cardwell-iccrg-bbr-congestion-control):

* A sample of the rate spans at least one round trip, from the sending of a piece to its
  confirmation; so confirmations may come in batches.
* Samples from times when there was too little to send count only where they raise the rate.
* The shortest round trip is forgotten after ``RTT_LIFETIME``; where it was not seen again by then,
  less is sent for one round trip, so that the queue empties and it can be seen.

No clock of its own: it is handed one. Python 3.6 and later, standard library only.
"""

from collections import deque
from typing import Callable, Deque, Optional, Tuple

LINK_FLOOR = 64 * 1024
"""Least that may be under way on a link (bytes)."""

CLIENT_FLOOR = 4 * 1024 * 1024
"""Least that may be under way for one client, before compression (bytes): an image of a window."""

CEILING = 1 << 28
"""Most that may be under way at one time (bytes), lest a wrong measurement fill the memory."""

HEADROOM = 0.2
"""Queue that is allowed to stand (seconds)."""

RATE_LIFETIME = 0.5
"""How long a sample of the rate counts, beside one round trip (seconds)."""

RTT_LIFETIME = 10.0
"""How long the shortest round trip is believed in (seconds)."""

LONGEST_QUEUE = 2.0
"""Longest queue that is believed in (seconds): what took longer stood still, as in a sleep."""

DRAINED = 0.5
"""Part of what fills the link that is under way while the round trip is measured."""

IDLE = 0.002
"""A sender that let nothing be under way for so long had nothing to send (seconds)."""

MERGED_TIME = 0.001
MERGED_SIZE = 16384
"""What leaves within so many seconds, up to so many bytes, counts as one piece: bounded memory."""


class _Sent:
    """One piece under way, and what was known when it left."""

    __slots__ = (
        "app_limited",
        "confirmed",
        "confirmed_at",
        "end",
        "first_at",
        "measured",
        "sent_at",
        "size",
    )

    def __init__(
        self,
        size: int,
        end: int,
        sent_at: float,
        confirmed: int,
        confirmed_at: float,
        first_at: float,
    ) -> None:
        self.size = size
        self.end = end  # of all bytes sent, where this piece ends
        self.sent_at = sent_at
        self.confirmed = confirmed
        self.confirmed_at = confirmed_at
        self.first_at = first_at  # when the piece left that was confirmed last
        self.app_limited = False
        self.measured = True  # its round trip is still to be taken


class Pace:
    """Bounds what is under way in one direction. ``clock`` gives seconds that never run back."""

    def __init__(
        self,
        clock: Callable[[], float],
        floor: int = LINK_FLOOR,
        headroom: float = HEADROOM,
        ceiling: int = CEILING,
    ) -> None:
        self.rate: Optional[float] = None
        """Estimated rate of the link in bytes a second, None before anything was confirmed."""
        self.rtt: Optional[float] = None
        """Shortest round trip of late in seconds, None before anything was confirmed."""
        self._clock = clock
        self._floor = floor
        self._ceiling = ceiling
        self._headroom = headroom
        self._sent = 0
        self._confirmed = 0
        self._confirmed_at = 0.0
        self._first_at = 0.0
        self._pieces: Deque[_Sent] = deque()
        self._filled_to = 0  # what was under way when something was sent last
        self._limited_until = 0  # what was sent up to here left while there was too little to send
        self._samples: Deque[Tuple[float, float]] = deque()  # time, rate: falling rates
        self._growing = True
        self._full_rate = 0.0
        self._flat_rounds = 0
        self._round_end = 0
        self._rtt_at = 0.0
        self._filled = False  # the link was full once: the rate is not only that of the sender
        self._drain_until: Optional[float] = None
        self._drain_shortest: Optional[float] = None

    @property
    def in_flight(self) -> int:
        """How much was sent and not yet confirmed (bytes)."""
        return self._sent - self._confirmed

    @property
    def window(self) -> int:
        """How much may be under way at one time (bytes)."""
        if self.rate is None or self.rtt is None:
            return self._floor
        if self._drain_until is not None:
            return max(self._floor // 4, int(self.rate * self.rtt * DRAINED))
        span = self.rtt + self._headroom
        if self._growing:
            span = max(span, 2 * self.rtt)
        return min(self._ceiling, max(self._floor, int(self.rate * span)))

    @property
    def link_rate(self) -> Optional[float]:
        """Rate to plan with (bytes a second), None before anything was confirmed.

        While there was never enough to send, the rate is only that of the sender; links with a
        short round trip are then taken for fast ones.
        """
        if self.rate is None or self.rtt is None or self._filled:
            return self.rate
        return max(self.rate, LINK_FLOOR / self.rtt)

    @property
    def allowed(self) -> int:
        """How much more may be sent now (bytes)."""
        return max(0, self.window - self.in_flight)

    def sent(self, size: int, measured: bool = True) -> None:
        """``size`` bytes were written. ``measured`` is False where nobody confirms them at once."""
        if size <= 0:
            return
        now = self._clock()
        if not self.in_flight:
            if now - self._confirmed_at > IDLE:
                self._limited_until = self._sent
            self._first_at = self._confirmed_at = now
        self._sent += size
        self._filled_to = self.in_flight
        if self._pieces:
            last = self._pieces[-1]
            together = now - last.sent_at < MERGED_TIME and last.confirmed == self._confirmed
            if together and last.measured == measured and last.size + size <= MERGED_SIZE:
                last.end = self._sent
                last.size += size
                return
        piece = _Sent(size, self._sent, now, self._confirmed, self._confirmed_at, self._first_at)
        piece.app_limited = self._confirmed <= self._limited_until
        piece.measured = measured
        self._pieces.append(piece)

    def confirmed(self, size: int) -> None:
        """The other end read ``size`` more bytes. Raises ValueError where so many were not sent."""
        if not 0 < size <= self.in_flight:
            raise ValueError("more confirmed than sent")
        now = self._clock()
        if self._filled_to < self.window * 3 // 4:
            self._limited_until = self._sent
        self._confirmed += size
        self._confirmed_at = now
        last: Optional[_Sent] = None
        shortest: Optional[float] = None
        pieces = self._pieces
        while pieces:
            piece = pieces[0]
            begun = piece.end > self._confirmed
            if begun and last is not None and last.end == self._confirmed:
                break
            if piece.measured:
                # The first byte's: what the piece itself takes on the way is not round trip.
                piece.measured = False
                shortest = now - piece.sent_at
            if begun:
                break
            last = pieces.popleft()
        if shortest is not None:
            self._learn_rtt(now, shortest)
        if last is not None:
            last.app_limited = last.app_limited or self._limited_until == self._sent
            self._first_at = last.sent_at
            self._learn_rate(now, last)

    def _learn_rtt(self, now: float, sample: float) -> None:
        sample = max(sample, 1e-6)
        if self.rtt is not None and sample > self.rtt + max(self._headroom, self.rtt / 2):
            self._growing = False  # a queue stands: the link is full
        if self._drain_until is not None:
            shortest = self._drain_shortest
            self._drain_shortest = sample if shortest is None else min(shortest, sample)
            if now >= self._drain_until:
                self.rtt = self._drain_shortest
                self._rtt_at = now
                self._drain_until = None
                self._limited_until = self._sent  # these left slowly on purpose
        elif self.rtt is None or sample <= self.rtt * 1.05:
            self.rtt = sample if self.rtt is None else min(self.rtt, sample)
            self._rtt_at = now
        elif now - self._rtt_at > RTT_LIFETIME:
            # Pieces that left before now still see the queue: it takes their round trip to empty.
            # One that was cut for a while is no longer full after it.
            self._drain_until = now + min(sample, self.rtt + LONGEST_QUEUE) + self.rtt
            self._drain_shortest = None

    def _learn_rate(self, now: float, piece: _Sent) -> None:
        span = max(now - piece.confirmed_at, piece.sent_at - piece.first_at)
        if span <= 0 or self._drain_until is not None:
            return
        sample = (self._confirmed - piece.confirmed) / span
        self._filled = self._filled or not piece.app_limited
        if piece.app_limited and self.rate is not None and sample <= self.rate:
            return
        samples = self._samples
        lifetime = RATE_LIFETIME + (self.rtt or 0.0)
        while samples and samples[-1][1] <= sample:
            samples.pop()
        samples.append((now, sample))
        while samples[0][0] < now - lifetime:
            samples.popleft()
        self.rate = samples[0][1]
        if self._growing and piece.confirmed >= self._round_end:
            self._end_round()

    def _end_round(self) -> None:
        """A round trip is over: grow no further where three of them brought less than a quarter."""
        assert self.rate is not None
        self._round_end = self._sent
        if self.rate >= self._full_rate * 1.25:
            self._full_rate = self.rate
            self._flat_rounds = 0
            return
        self._flat_rounds += 1
        self._growing = self._flat_rounds < 3
