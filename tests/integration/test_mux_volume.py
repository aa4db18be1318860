"""Much data through a master of xssh's, and passengers that take none: what it holds for them."""

from __future__ import annotations

import os
import select
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration._masters import Harbour, harbour
from tests.integration._pairs import PROGRAMS
from tests.integration._targets import digest, resident_memory
from tests.support.processes import end_popen
from tests.support.sshd import KeyRing

MEGABYTE = 1 << 20
BLOCK = 1 << 18
BLOCKS = 160
MOST_UNDER_WAY = 24 * MEGABYTE
"""Bytes of one stream that may be anywhere between the two programs."""

MOST_HELD = 12 * MEGABYTE
"""Bytes of memory that one stream may cost the master."""

QUIET = 0.5
"""Seconds without a byte, after which a stream counts as blocked. Too few make no test fail."""


@pytest.fixture(scope="module")
def place(key_ring: KeyRing, long_lived_processes: set[int]) -> Iterator[Harbour]:
    with harbour(key_ring) as opened:
        master = opened.open_master(program="xssh")
        assert opened.run("ssh", "server", "true").status == 0
        long_lived_processes.update([master.pid, *opened.server.sessions()])
        yield opened


def _master_of(place: Harbour) -> int:
    done = place.run("ssh", "-O", "check", "server")
    return int(done.stderr.partition("pid=")[2].rstrip(")\n"))


@pytest.mark.parametrize("way", ["session", "proxy"])
def test_ten_megabytes_each_way_of_four_at_once(place: Harbour, way: str) -> None:
    """``scripts/soak`` has ten times as much."""
    data = [os.urandom(10 * MEGABYTE) for _ in range(4)]
    options = [] if way == "session" else ["-O", "proxy"]

    def ride(number: int) -> tuple[int, str]:
        program = ("ssh", "xssh")[number % 2]
        words = [*options, "server", f"cat; exit {number}"]
        done = place.run(program, *words, stdin=data[number], timeout=60)
        return done.status, digest(done.stdout)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ride, range(4)))
    assert found == [(number, digest(data[number])) for number in range(4)]


def _count_until_quiet(stream: int) -> int:
    """Return the last of the numbered lines, when no more have come for a while."""
    said = b""
    while select.select([stream], [], [], QUIET)[0]:
        piece = os.read(stream, BLOCK)
        if not piece:
            break
        said = said[-20:] + piece
    lines = said.rpartition(b"\n")[0].splitlines()
    return int(lines[-1]) if lines else 0


def test_a_stdout_that_nobody_reads_costs_little(place: Harbour) -> None:
    """The server waits; nothing is lost."""
    pid = _master_of(place)
    before = resident_memory(pid)
    command = f"for i in $(seq {BLOCKS}); do head -c {BLOCK} /dev/zero; echo $i >&2; done"
    passengers = [place.start(program, "server", command) for program in (*PROGRAMS, *PROGRAMS)]
    for passenger in passengers:
        assert passenger.stderr is not None
        assert _count_until_quiet(passenger.stderr.fileno()) * BLOCK < MOST_UNDER_WAY
    held = resident_memory(pid) - before
    assert held < len(passengers) * MOST_HELD
    assert place.run("ssh", "server", "echo on").stdout == b"on\n"
    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(_count_bytes, passengers[:2]))
    assert taken == [BLOCKS * BLOCK] * 2
    for passenger in passengers:
        end_popen(passenger)


def _count_bytes(passenger: subprocess.Popen[bytes]) -> int:
    assert passenger.stdout is not None and passenger.stderr is not None
    drain = threading.Thread(target=passenger.stderr.read, daemon=True)
    drain.start()
    count = 0
    while piece := passenger.stdout.read1(MEGABYTE):  # type: ignore[attr-defined]
        count += len(piece)
    assert passenger.wait(20) == 0
    drain.join(20)
    return count


def test_input_that_nobody_reads_stays_where_it_is(place: Harbour) -> None:
    pid = _master_of(place)
    before = resident_memory(pid)
    for program in PROGRAMS:
        passenger = place.start(program, "server", "until [ -e stop ]; do sleep 0.05; done")
        assert passenger.stdin is not None
        stream = passenger.stdin.fileno()
        os.set_blocking(stream, False)
        sent = 0
        while sent < MOST_UNDER_WAY and select.select([], [stream], [], QUIET)[1]:
            sent += os.write(stream, b"x" * BLOCK)
        assert 0 < sent < MOST_UNDER_WAY
        assert resident_memory(pid) - before < MOST_HELD
        (place.server.home / "stop").touch()
        assert passenger.wait(20) == 0
        (place.server.home / "stop").unlink()
        end_popen(passenger)
