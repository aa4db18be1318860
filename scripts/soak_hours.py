"""The part ``hours`` of ``scripts/soak``: sessions and plots for hours, with a table of figures.

One master of xssh's takes sessions of ssh's and xssh's, with and without windows, and another one
is made by the runs themselves; some are killed in the middle; others have connections of their own;
one session plots all the time. What masters, the plotting session and the agents hold goes to a
table (CSV). The line that fits a column best, and how sure its slope is, say whether it grows.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.soak_x11 import PLOTS, windows
from tests.support.agenthost import AgentHost
from tests.support.masters import (
    end_automatic_masters,
    find_automatic_masters,
    open_descriptors,
)
from tests.support.processes import end_popen, run, wait_until
from tests.support.sshd import KeyRing
from tests.support.warmstart import open_process

WARM_UP = 0.5
"""Part of the table in which caches are still being filled."""
ALLOWED = {"kB": 1000.0, "descriptors": 1.0, "threads": 1.0, "tasks": 2.0, "objects": 2000.0}
"""Growth over the whole of a run that is no leak, by the unit."""
PERIOD = 60.0
AUTOMATIC = ("-Y", "--share", "1h")
PLOT = """
import matplotlib
matplotlib.use("TkAgg")
import matplotlib.pyplot as plt
plt.plot([3, 1, 2])
plt.show(block=False)
plt.pause(0.05)
plt.close("all")
print("drawn")
"""
INSPECTION = """
import signal as _signal
def _tell(*_):
    import asyncio, gc, os
    loop = asyncio.events._get_running_loop()
    tasks = len(asyncio.all_tasks(loop)) if loop else 0
    gc.collect()
    with open({path!r} + ".new", "w") as file:
        file.write(f"{{tasks}} {{len(gc.get_objects())}}")
    os.replace({path!r} + ".new", {path!r})
_signal.signal(_signal.SIGUSR2, _tell)
"""
"""What a process of xssh's gets beforehand, so that SIGUSR2 makes it count tasks and objects."""


@dataclass(frozen=True)
class Line:
    """A straight line through a series: growth in an hour, and its standard error."""

    slope: float
    error: float


def fit(hours: Sequence[float], values: Sequence[float]) -> Line:
    """Lay a line through points by least squares; ValueError for fewer than three."""
    count = len(hours)
    if count < 3:
        raise ValueError("a line needs three points")
    middle, mean = sum(hours) / count, sum(values) / count
    spread = sum((hour - middle) ** 2 for hour in hours)
    pairs = list(zip(hours, values, strict=True))
    slope = sum((hour - middle) * (value - mean) for hour, value in pairs) / spread
    off = sum((value - mean - slope * (hour - middle)) ** 2 for hour, value in pairs)
    return Line(slope, (off / (count - 2) / spread) ** 0.5)


class Series:
    """The table: a line a minute, to a file at once, and judged at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, float]] = []

    def add(self, row: dict[str, float]) -> None:
        """Add a line; every one has the same columns."""
        with self._path.open("a" if self._rows else "w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if not self._rows:
                writer.writeheader()
            writer.writerow(row)
        self._rows.append(row)

    def judge(self) -> list[str]:
        """Say how each column went on after the warm-up; return those that grew."""
        rows = self._rows[int(len(self._rows) * WARM_UP) :]
        if len(rows) < 3:
            return []
        hours = [row["seconds"] / 3600 for row in rows]
        lasted, wrong = hours[-1] - hours[0], []
        for name in [each for each in rows[0] if " " in each]:
            values = [row[name] for row in rows]
            line = fit(hours, values)
            text = (
                f"{name}: {values[0]:.0f} to {values[-1]:.0f}, at most {max(values):.0f}; "
                f"{line.slope:+.1f} ± {line.error:.1f} an hour"
            )
            print(f"  {text}", flush=True)
            sure = line.slope - 2 * line.error
            if sure > 0 and line.slope * lasted > ALLOWED[name.split()[-1]]:
                wrong.append(f"grew: {text}")
        return wrong


class Watched:
    """A process that is looked at: what it holds, by the name of a column."""

    def __init__(self, name: str, pid: int, told: Path | None = None) -> None:
        self._name = name
        self._pid = pid
        self._told = told

    def look(self) -> dict[str, float]:
        """Return what it holds now; OSError once it is gone."""
        text = Path(f"/proc/{self._pid}/status").read_text()
        found: dict[str, float] = {
            f"{self._name} kB": int(text.partition("VmRSS:")[2].split()[0]),
            f"{self._name} descriptors": open_descriptors(self._pid),
            f"{self._name} threads": int(text.partition("Threads:")[2].split()[0]),
        }
        if self._told is not None:
            self._told.unlink(missing_ok=True)
            os.kill(self._pid, signal.SIGUSR2)
            wait_until(self._told.exists, timeout=60, what="counts of a process")
            tasks, objects = self._told.read_text().split()
            found |= {f"{self._name} tasks": int(tasks), f"{self._name} objects": int(objects)}
        return found


class Visits:
    """Sessions of all kinds, one after the other in each of several threads, until the end."""

    def __init__(self, host: AgentHost, path: str, plot: Path) -> None:
        self.sessions = 0
        self.plots = 0
        self.wrong: list[str] = []
        self.stopped = threading.Event()
        self._host = host
        self._path = path
        self._plot = plot
        self._lock = threading.Lock()
        self._kinds = [
            self._window, self._bytes, self._ssh, self._shared, self._alone, self._killed_shared,
            self._window, self._draw, self._killed, self._status, self._shared, self._ssh,
        ]  # fmt: skip

    def begin_sharing(self) -> None:
        """Have xssh make a master by itself, with an agent."""
        self._shared()

    def go_on(self) -> None:
        """Make visits until ``stopped``; what is wrong is kept, and told at once."""
        for kind in itertools.cycle(self._kinds):
            if self.stopped.is_set():
                return
            try:
                kind()
            except AssertionError as error:
                if not self.stopped.is_set():
                    with self._lock:
                        self.wrong.append(f"{kind.__name__}: {str(error)[:2000]}")
                    print(f"  WRONG {self.wrong[-1]}", flush=True)
            with self._lock:
                self.sessions += 1
                self.plots += kind == self._draw
            self.stopped.wait(0.1)

    def _window(self) -> None:
        done = self._host.run("xdpyinfo >&2 && echo seen", "-Y", "-S", self._path, timeout=300)
        assert (done.status, done.stdout) == (0, b"seen\n"), done

    def _draw(self) -> None:
        words = f"/usr/bin/python3 {self._plot}"
        done = self._host.run(words, "-Y", "-S", self._path, timeout=300)
        assert (done.status, done.stdout) == (0, b"drawn\n"), done

    def _bytes(self) -> None:
        data = os.urandom(300_000)
        done = self._host.run("cat", "-S", self._path, stdin=data, timeout=300)
        assert (done.status, done.stdout == data) == (0, True), done.status

    def _status(self) -> None:
        done = self._host.run("echo word >&2; exit 7", "-tt", "-S", self._path, timeout=300)
        assert done.status == 7, done

    def _alone(self) -> None:
        done = self._host.run("xdpyinfo >&2 && echo seen", "-Y", "-S", "none", timeout=300)
        assert (done.status, done.stdout) == (0, b"seen\n"), done

    def _ssh(self) -> None:
        argv = ["ssh", *self._host.home.arguments, "-S", self._path, "server", "cat; exit 3"]
        done = run(argv, stdin=b"word", env=self._host.environment, timeout=300)
        assert (done.status, done.stdout) == (3, b"word"), done

    def _shared(self) -> None:
        done = self._host.run("xdpyinfo >&2 && echo seen", *AUTOMATIC, timeout=300)
        assert (done.status, done.stdout) == (0, b"seen\n"), done

    def _killed(self) -> None:
        self._kill("-Y", "-S", self._path, "server", "timeout 20 xclock")

    def _killed_shared(self) -> None:
        self._kill(*AUTOMATIC, "server", "xclock")

    def _kill(self, *words: str) -> None:
        argv = self._host.argv(words)
        passenger = open_process(argv, env=self._host.environment)
        try:
            time.sleep(1.5)
        finally:
            os.kill(passenger.pid, signal.SIGKILL)
            end_popen(passenger)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    before = {
        each: signal.signal(each, lambda *_: stop.set()) for each in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def run_hours(keys: KeyRing, options: argparse.Namespace) -> list[str]:
    """Part ``hours``: until the minutes are over, or SIGTERM or Ctrl-C."""
    series, began = Series(options.record), time.monotonic()
    with windows(keys) as host:
        plots, plot = host.server.home / "plots.py", host.server.home / "plot.py"
        plots.write_text(PLOTS.replace("plt.pause(0.02)", "plt.pause(0.5)"))
        plot.write_text(PLOT)
        path, visits = f"{host.home.runtime}/m", Visits(host, f"{host.home.runtime}/m", plot)
        told = [host.home.path / name for name in ("told-master", "told-plots")]
        before = [INSPECTION.format(path=str(each)) for each in told]
        drawing = f"/usr/bin/python3 {plots} {options.minutes * 60}"
        with (
            _stopped_by_signals(visits.stopped),
            host.start("sleep 1000000", "-Y", "-M", "-S", path, before=before[0]) as master,
        ):
            wait_until(lambda: bool(host.agents()), timeout=60, what="the master's agent")
            agents = host.agents()
            with host.start(drawing, "-Y", "-S", "none", before=before[1]) as session:
                wait_until(lambda: len(host.agents()) == 2, timeout=60, what="its agent")
                [other] = set(host.agents()) - set(agents)
                visits.begin_sharing()
                [third] = set(host.agents()) - {*agents, other}
                [shared] = find_automatic_masters(host.home.runtime).values()
                watched = [
                    Watched("master", master.process.pid, told[0]),
                    Watched("master's agent", agents[0]),
                    Watched("plots", session.process.pid, told[1]),
                    Watched("plots' agent", other),
                    Watched("own master", shared),
                    Watched("own master's agent", third),
                ]
                threads = [threading.Thread(target=visits.go_on) for _ in range(options.at_once)]
                for thread in threads:
                    thread.start()
                try:
                    while not visits.stopped.wait(PERIOD):
                        drawn = int((session.stdout.splitlines() or ["0"])[-1].split()[-1])
                        row: dict[str, float] = {
                            "seconds": round(time.monotonic() - began),
                            "sessions": visits.sessions,
                            "plots": visits.plots + drawn,
                        }
                        for each in watched:
                            row |= each.look()
                        series.add(row)
                        if time.monotonic() - began > options.minutes * 60 - PERIOD:
                            visits.stopped.set()
                finally:
                    visits.stopped.set()
                    for thread in threads:
                        thread.join()
                    end_automatic_masters(host.home.runtime)
    hours = (time.monotonic() - began) / 3600
    print(f"  {visits.sessions} sessions in {hours:.2f} hours; series in {options.record}")
    return visits.wrong + series.judge()
