"""What the doctor says of times: its arithmetic, beside what was measured on links."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from xsshpy.doctor.probes import python_command, read_object
from xsshpy.doctor.speed import (
    AGENT,
    NATIVE,
    PACE,
    PLOT_SECONDS,
    Arrivals,
    Cost,
    Distance,
    estimate_rate,
    read_pace,
)

NONCE = "0123456789abcdef"
MEGABIT = 1e6 / 8


@pytest.mark.parametrize(
    ("cost", "trip", "rate", "measured"),
    [
        (AGENT, 0.0005, None, 0.22),
        (AGENT, 0.05, None, 0.43),
        (AGENT, 0.1, 20 * MEGABIT, 0.77),
        (AGENT, 0.15, None, 0.93),
        (AGENT, 0.15, 5 * MEGABIT, 1.07),
        (NATIVE, 0.05, None, 20.2),
        (NATIVE, 0.1, 20 * MEGABIT, 39.6),
        (NATIVE, 0.15, None, 58.2),
        (NATIVE, 0.15, 5 * MEGABIT, 61.1),
    ],
)
def test_what_is_predicted_is_near_to_what_was_measured(
    cost: Cost, trip: float, rate: float | None, measured: float
) -> None:
    assert Distance(trip, rate).predict(cost) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("distance", "cost", "seconds"),
    [
        (Distance(0.0, None), Cost(400, 10**6), PLOT_SECONDS),
        (Distance(0.1, None), Cost(5, 0), 0.5 + PLOT_SECONDS),
        (Distance(0.0, 1e6), Cost(5, 2 * 10**6), 2.0 + PLOT_SECONDS),
        (Distance(0.0, None, 10 * PACE), Cost(0, 0), 10 * PLOT_SECONDS),
        (Distance(0.2, 5e5, 2 * PACE), Cost(10, 10**6), 4.0 + 2 * PLOT_SECONDS),
    ],
)
def test_trips_bytes_and_the_processor_there_add_up(
    distance: Distance, cost: Cost, seconds: float
) -> None:
    assert distance.predict(cost) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("arrivals", "rate"),
    [
        ([], None),
        ([(1.0, 500)], None),
        ([(1.0, 500), (1.0, 900)], None),
        ([(0.0, 100), (1.0, 100)], None),
        ([(0.0, 1000), (1.0, 2000), (2.0, 3000), (3.0, 4000), (4.0, 5000)], 1000),
        ([(0.0, 10), (1.0, 20), (2.0, 40), (3.0, 540), (4.0, 1040)], 500),  # a slow beginning
        ([(0.0, 100), (0.001, 500), (1.0, 600), (1.001, 1000)], 500 / 1.0),  # in two bursts
    ],
)
def test_the_rate_of_a_stream(arrivals: Arrivals, rate: float | None) -> None:
    assert estimate_rate(arrivals) == (None if rate is None else pytest.approx(rate, rel=0.01))


@pytest.mark.parametrize("nonsense", [None, "fast", -1.0, 0, 1e9, 1e-9, float("nan"), [], {}])
def test_a_pace_that_makes_no_sense_is_left_out(nonsense: object) -> None:
    assert read_pace({"pace": nonsense}) == PACE
    assert read_pace({}) == PACE


def test_a_python_says_its_pace() -> None:
    command = python_command(sys.executable, "python_facts", NONCE)
    done = subprocess.run(command, shell=True, capture_output=True, timeout=60, check=True)
    facts = read_object(done.stdout, NONCE)
    assert facts is not None, done.stderr
    assert isinstance(facts["pace"], float), json.dumps(facts)
    assert 0 < facts["pace"] < 0.2
    assert read_pace(facts) == facts["pace"]
