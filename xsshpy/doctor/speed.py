"""How far away the server is, and what a first plot will take: by ssh -X, and by the agent.

A plot waits for trips there and back, for its bytes, and for the processor there. The numbers of
trips and bytes are those of TkAgg's window, from ``plt.subplots()`` until the local X server shows
it, counted on a link with ``scripts/bench x11``: they hardly depend on the machine.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence

from xsshpy.values import dataclass


@dataclass(frozen=True)
class Cost:
    """What a first plot waits for: ``trips`` there and back, one after the other, and ``size``
    bytes from the server."""

    trips: int
    size: int


NATIVE = Cost(trips=380, size=1_450_000)
AGENT = Cost(trips=5, size=60_000)
"""Six are counted by --stats; two of them are under way together."""

PLOT_SECONDS = 0.22
"""What matplotlib, Tk and the agent compute for it, on a processor like the one below."""

PACE = 0.0019
"""Seconds that the task of ``remote/python_facts.py`` takes there."""

Arrivals = Sequence[tuple[float, int]]
"""When something of a stream came (seconds of any clock), and how many bytes had come by then."""

_LEAST_PACE, _MOST_PACE = PACE / 10, PACE * 100


@dataclass(frozen=True)
class Distance:
    """The way to a server. ``trip``: seconds there and back. ``rate``: bytes a second from there;
    None where it isn't known. ``pace``: seconds that its Python takes for a certain task."""

    trip: float
    rate: float | None
    pace: float = PACE

    def predict(self, cost: Cost) -> float:
        """Return the seconds until a first plot is on the screen, once all is imported."""
        carried = cost.size / self.rate if self.rate else 0.0
        return cost.trips * self.trip + carried + PLOT_SECONDS * self.pace / PACE


def read_pace(facts: Mapping[str, object]) -> float:
    """Return how long the remote Python took for its task (seconds)."""
    pace = facts.get("pace")
    if not isinstance(pace, (int, float)) or not _LEAST_PACE <= pace <= _MOST_PACE:
        return PACE
    return float(pace)


def estimate_rate(arrivals: Arrivals) -> float | None:
    """Return the rate at which a stream came (bytes a second); None where one can't tell.

    The first half of the time does not count: connections begin slowly.
    """
    if not arrivals:
        return None
    begun, (ended, size) = arrivals[0][0], arrivals[-1]
    middle = bisect.bisect_right([when for when, _ in arrivals], (begun + ended) / 2) - 1
    since, before = arrivals[middle]
    if ended <= since or size <= before:
        return None
    return (size - before) / (ended - since)
