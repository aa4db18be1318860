"""How much may be under way to us on a channel (RFC 4254 §5.2): as little as keeps it busy.

A server can send one window in each round trip, so a distant one needs a large window. A near one
doesn't, and OpenSSH's spends its time moving its own buffers where the window is large. So the
window begins like ssh's and doubles when most of it arrives within one round trip.
No I/O here, and no clock.
"""

from __future__ import annotations

from xsshpy.values import dataclass

FIRST_WINDOW = 2 << 20
"""Bytes. ssh's window never changes from this."""
LARGEST_WINDOW = 16 << 20
"""Bytes. At 100 ms 160 MB a second; as much is kept here while nobody takes the output."""
_SHARE_OF_RENEWAL = 8
"""The window is renewed when one part of so many is used: what is used stands still meanwhile."""
_BUSY = 0.75
"""The share of the window that a trip has to take before the window grows."""


@dataclass
class ReceiveWindow:
    """The size of one channel's window. ``round_trip``: seconds, rather too long than too short."""

    round_trip: float
    size: int = FIRST_WINDOW
    _since: float = 0.0
    _taken: int = 0

    def take(self, count: int, now: float) -> None:
        """Note that ``count`` bytes were passed on at ``now`` (seconds, any clock)."""
        elapsed = now - self._since
        if elapsed >= self.round_trip:
            per_trip = self._taken * self.round_trip / elapsed if elapsed else 0.0
            if per_trip > _BUSY * self.size:
                self.size = min(LARGEST_WINDOW, 2 * self.size)
            self._since, self._taken = now, 0
        self._taken += count

    def renewal(self, left: int) -> int:
        """Return how many bytes more to allow when ``left`` are still allowed; mostly none."""
        used = self.size - left
        return used if used >= self.size // _SHARE_OF_RENEWAL else 0
