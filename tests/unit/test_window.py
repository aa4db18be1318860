"""How large the receive window gets: with servers near and far, quick and slow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsshpy.ssh.window import FIRST_WINDOW, LARGEST_WINDOW, ReceiveWindow

PACKET = 32 << 10


def receive(round_trip: float, rate: float, amount: int, *, learned: float | None = None) -> int:
    """Let a server send ``amount`` bytes at ``rate`` as far as the window lets it."""
    window = ReceiveWindow(round_trip if learned is None else learned)
    now, left, sent_until = 0.0, window.size, 0.0
    allowed = [(0.0, window.size)]  # when the server learns of it, how much it may send
    for _ in range(amount // PACKET):
        while allowed[0][1] < PACKET:
            (_, rest), (when, more) = allowed[0], allowed[1]
            allowed[:2] = [(when, rest + more)]
        when, rest = allowed[0]
        allowed[0] = when, rest - PACKET
        sent_until = max(sent_until, when) + PACKET / rate
        now = sent_until + round_trip / 2
        left -= PACKET
        assert left >= 0
        window.take(PACKET, now)
        renewal = window.renewal(left)
        if renewal:
            left += renewal
            allowed.append((now + round_trip / 2, renewal))
    return window.size


@pytest.mark.parametrize(
    ("round_trip", "rate", "size"),
    [
        (0.0005, 300e6, FIRST_WINDOW),
        (0.001, 1000e6, FIRST_WINDOW),
        (0.1, 1e6, FIRST_WINDOW),
        (0.1, 10e6, FIRST_WINDOW),
        (0.1, 30e6, 4 << 20),
        (0.1, 1000e6, LARGEST_WINDOW),
        (0.02, 300e6, 8 << 20),
    ],
)
def test_the_window_is_as_large_as_the_distance_asks_for(
    round_trip: float, rate: float, size: int
) -> None:
    assert receive(round_trip, rate, 200_000_000) == size


def test_a_distance_that_was_taken_for_longer_costs_one_doubling_or_two() -> None:
    assert receive(0.001, 300e6, 200_000_000, learned=0.01) <= 4 * FIRST_WINDOW


@given(
    st.floats(0, 1),
    st.lists(st.tuples(st.integers(1, PACKET), st.floats(0, 1)), max_size=300),
)
def test_the_window_is_never_overdrawn(round_trip: float, pieces: list[tuple[int, float]]) -> None:
    window, now, left = ReceiveWindow(round_trip), 0.0, FIRST_WINDOW
    for count, pause in pieces:
        now += pause
        left -= count
        window.take(count, now)
        renewal = window.renewal(left)
        assert renewal >= 0
        left += renewal
        assert 0 < left <= window.size <= LARGEST_WINDOW
