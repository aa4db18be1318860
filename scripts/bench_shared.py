"""Starts through a live connection: xssh through its master, ssh through its own, a cold ssh.

Measured turn by turn in one run, near and over a link of 100 ms there and back. Round trips are
counted, from the session's request to its first byte of output. A plot's time is from the end of
its imports until the local X server shows it; each is the first of its master's, then the second.
Memory is the most that the process itself had resident (VmHWM), in millions of bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scripts.bench_results import Row
from scripts.bench_x11 import FAR, XSSH, X11Bench
from tests.support.link import Link, count_round_trips
from tests.support.plotting import DrivenPlot
from tests.support.processes import end_popen, wait_until

CLIENTS = ("ssh", "xssh")
COUNTS = 4
PLOT_PATIENCE = 60.0


@contextlib.contextmanager
def open_master(
    argv: Sequence[str], host: str, environment: Mapping[str, str]
) -> Iterator[tuple[list[str], int]]:
    """Have a client be a master; yield the argv of its passengers, and its process id."""
    folder = tempfile.mkdtemp(prefix="bm-", dir="/tmp")
    sharing = [*argv, "-S", f"{folder}/m"]
    master = subprocess.Popen(
        [*sharing, "-MN", host],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(Path(folder, "m").exists, what="the master")
        yield sharing, master.pid
    finally:
        end_popen(master)
        shutil.rmtree(folder, ignore_errors=True)


def read_peak(pid: int) -> float:
    """Return the most memory that a process had resident, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("no VmHWM: is this Linux?")


class SharedStarts:
    """``arguments`` are what both clients need to know of the hosts."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], runs: int) -> None:
        self.arguments = [*arguments, "-x"]
        self.environment = dict(environment)
        self.runs = runs

    def measure(self, near: str, far: str, counted: str, link: Link) -> list[Row]:
        """Return all of it, for hosts of these names; ``link`` is what leads to ``counted``."""
        found = [*self._compare(near, "loopback", memory=True), *self._compare(far, "100 ms")]
        trips = {client: self._count(client, counted, link) for client in CLIENTS}
        return [*found, Row("start", "counted", "trips, through a master", "", trips, "least")]

    def _count(self, client: str, host: str, link: Link) -> list[float]:
        """Return the round trips of sessions; the link's newest connection is the master's."""
        with open_master([client, *self.arguments], host, self.environment) as (passenger, _):
            argv = [*passenger, host, "echo x; cat"]
            return [
                count_round_trips(argv, self.environment, link, is_shared=True)
                for _ in range(COUNTS)
            ]

    @contextlib.contextmanager
    def _masters(self, host: str) -> Iterator[tuple[dict[str, list[str]], dict[str, int]]]:
        with contextlib.ExitStack() as stack:
            opened = {
                client: stack.enter_context(
                    open_master([client, *self.arguments], host, self.environment)
                )
                for client in CLIENTS
            }
            yield (
                {client: argv for client, (argv, _) in opened.items()},
                {client: pid for client, (_, pid) in opened.items()},
            )

    def _compare(self, host: str, link: str, *, memory: bool = False) -> Iterator[Row]:
        with self._masters(host) as (passengers, masters):
            by_itself = ["xssh", *self.arguments, "--share=20s"]
            cases = {
                "cold ssh": ["ssh", *self.arguments],
                **passengers,
                "xssh --share": by_itself,
            }
            wall: dict[str, list[float]] = {case: [] for case in cases}
            processor: dict[str, list[float]] = {case: [] for case in cases}
            orders = itertools.cycle((list(cases), list(cases)[::-1]))
            for turn, order in zip(range(self.runs + 1), orders, strict=False):
                for case in order:
                    seconds, used = self._time([*cases[case], host, "true"])
                    if turn > 0:  # the turn before the first only warms up the caches
                        wall[case].append(seconds)
                        processor[case].append(used)
            yield Row("start", link, "through a master", "s", wall)
            yield Row("start", link, "through a master, processor", "s", processor)
            if memory:
                for case, argv in (("passenger", passengers), ("master", {})):
                    peaks = {
                        client: [
                            self._peak([*argv[client], host])
                            if argv
                            else read_peak(masters[client])
                        ]
                        for client in CLIENTS
                    }
                    yield Row("start", link, f"memory, {case}", "MB", peaks, "most")

    def _time(self, argv: list[str]) -> tuple[float, float]:
        """Return the seconds that a client took, on the clock and of the processor."""
        started = time.perf_counter()
        client = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=self.environment)
        _, status, usage = os.wait4(client.pid, 0)
        seconds = time.perf_counter() - started
        client.returncode = os.waitstatus_to_exitcode(status)
        assert client.returncode == 0, argv
        return seconds, usage.ru_utime + usage.ru_stime

    def _peak(self, argv: list[str]) -> float:
        """Return the memory of a passenger whose session is open."""
        client = subprocess.Popen(
            [*argv, "echo x; cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        try:
            assert client.stdout is not None and client.stdout.read(1) == b"x"
            return read_peak(client.pid)
        finally:
            end_popen(client)


def measure_plots(bench: X11Bench, runs: int) -> list[Row]:
    """Return how long plots take through a live master at 100 ms, and what memory they need."""
    drawn: tuple[list[float], list[float]] = ([], [])
    memory: tuple[list[float], list[float]] = ([], [])
    environment = bench.client.environment(bench.display)
    command = f"{bench.python} plot.py wait square"
    with bench.at(FAR):
        for _ in range(runs):
            argv = [*XSSH.argv, *bench.client.arguments]
            with open_master(argv, "far", environment) as (passenger, master):
                for times in drawn:
                    with DrivenPlot(
                        [*passenger, "far", command], environment, bench.client.path
                    ) as plot:
                        plot.hear("ready")
                        plot.tell("go")
                        begun = plot.hear("begun")
                        times.append(bench.watcher.wait_for_mark(0, PLOT_PATIENCE, plot) - begun)
                        memory[1].append(read_peak(plot.process.pid))
                        plot.leave()
                    if times is drawn[0]:
                        memory[0].append(read_peak(master))
                    bench.watcher.wait_until_gone(PLOT_PATIENCE)
    rows = {
        ("first plot, through a master", "s", "median"): drawn[0],
        ("second plot, through a master", "s", "median"): drawn[1],
        ("memory, master after a plot", "MB", "most"): memory[0],
        ("memory, its passenger", "MB", "most"): memory[1],
    }
    return [
        Row("start", "100 ms", name, unit, {"xssh": samples}, middle)
        for (name, unit, middle), samples in rows.items()
    ]
