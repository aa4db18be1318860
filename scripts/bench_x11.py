"""X11 over distance: ssh -X and ssh -XC beside xssh, through the same simulated link, in one run.

How it is measured. The distance is ``tests.support.link``, a relay in user space that delays and
has a rate; on loopback there is none. A time ends when the local X server shows what was drawn, not
when the application believes it. Bytes are those that the link carried, SSH's own included. A key
is pressed on the local X server while the plot animates, and its answer is a colour of a later
frame. Round trips are xssh's own count (``--stats``), for ssh the longest chain of messages on the
link. Each client has connected before, but in what is called the first connection.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts import bench_peers
from scripts.bench_results import Row
from tests.support.clients import ClientHome
from tests.support.link import Link
from tests.support.plotting import (
    COLOURS,
    PROGRAM,
    DrivenPlot,
    Watcher,
    parse_statistics,
    plot_environment,
)
from tests.support.processes import run, xssh_command
from tests.support.sshd import KeyRing, ServerOptions, SshServer
from tests.support.tools import find_tool
from tests.support.xvfb import Xvfb

PATIENCE = 150.0
SYSTEM_PYTHON = "/usr/bin/python3"
X11PERF = ("-noop", "-putimage500", "-getimage500", "-rect500", "-ftext")
XTERM = (
    f"exec xterm -xrm '*color1: #{COLOURS[0]:06x}' -e "
    "sh -c \"printf '\\033[41m%2000s' ' '; read line\""
)


FAILURES = (AssertionError, OSError, RuntimeError, ValueError, subprocess.SubprocessError)
"""What one thing that can't be measured raises; the others are measured all the same."""


@dataclass(frozen=True)
class Way:
    """One client: its name in the table, and what comes before the host. ``display`` is one that
    is there already: a peer's."""

    name: str
    argv: tuple[str, ...]
    display: str = ""

    @property
    def is_ours(self) -> bool:
        return self.name == "xssh"


LOCAL = Way("local", ("sh", "-c"))
"""The same programs straight on the display: nobody who carries them is quicker."""
SSH = Way("ssh -X", ("ssh", "-X"))
SSH_COMPRESSED = Way("ssh -XC", ("ssh", "-XC"))
XSSH = Way("xssh", (*xssh_command(), "-X"))

LIGHT_TOOLKITS = ("QtAgg, Qt 6", "xterm")
"""What is measured of other toolkits at the second distance."""


@dataclass(frozen=True)
class Distance:
    """A link: its name, seconds one way, bytes a second each way. ``is_near``: none at all."""

    name: str
    delay: float = 0.0
    rate: float | None = None

    @property
    def is_near(self) -> bool:
        return not self.delay


FAR = Distance("100 ms, 20 Mbit/s", 0.05, 2.5e6)
FARTHER = Distance("150 ms, 5 Mbit/s", 0.075, 0.625e6)
NEAR = Distance("loopback")


class Toolkits:
    """Programs of several toolkits: their commands on the other host, and which of them run."""

    def __init__(self, directory: Path) -> None:
        here, packages = shlex.quote(sys.executable), Path(_find_packages())
        self.commands = {
            "QtAgg, Qt 6": f"MPLBACKEND=QtAgg QT_API=PySide6 {here} plot.py now column",
            "QtAgg, Qt 5": f"MPLBACKEND=QtAgg QT_API=PyQt5 {here} plot.py now column",
            "GTK3Agg": f"MPLBACKEND=GTK3Agg PYTHONPATH={shlex.quote(str(packages))} "
            f"{SYSTEM_PYTHON} plot.py now column",
            "xterm": XTERM,
        }
        needs = {
            "QtAgg, Qt 6": (sys.executable, "import PySide6.QtWidgets"),
            "QtAgg, Qt 5": (sys.executable, "import PyQt5.QtWidgets"),
            "GTK3Agg": (
                SYSTEM_PYTHON,
                f"import sys; sys.path.append({str(packages)!r}); "
                "import numpy, matplotlib.backends.backend_gtk3agg",
            ),
        }
        for name, (python, code) in needs.items():
            environment = {**plot_environment(directory), "PATH": "/usr/bin:/bin"}
            if run([python, "-c", code], env=environment, timeout=PATIENCE).status:
                say(f"{name} does not run here: left out")
                del self.commands[name]
        if find_tool("xterm") is None:
            del self.commands["xterm"]


class X11Bench:
    """A server, a display, and what was measured so far. ``quick``: less of it, in three minutes.

    ``deadline`` (``time.monotonic``): what has not begun by then is left out.
    """

    def __init__(
        self, directory: Path, runs: int, quick: bool, deadline: float = float("inf")
    ) -> None:
        directory.mkdir()
        self.directory = directory
        self.quick = quick
        self.runs = 1 if quick else max(1, min(runs // 2, 4))
        self.deadline = deadline
        self.rows: dict[tuple[str, str], Row] = {}
        self.left_out: list[str] = []
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.display = Xvfb(directory / "xvfb")
            stack.callback(self.display.stop)
            self.watcher = Watcher(self.display)
            stack.callback(self.watcher.close)
            cache = directory / "matplotlib"
            cache.mkdir()
            self.settings = {**plot_environment(cache), "MPLBACKEND": "TkAgg"}
            self.server = SshServer(
                directory / "server",
                KeyRing.generate(directory / "keys"),
                ServerOptions(
                    config="LogLevel INFO\n", environment=self.settings, is_hurried=False
                ),
            )
            stack.callback(self.server.stop)
            self._stack = stack.pop_all()
        (self.server.home / "plot.py").write_text(PROGRAM)
        (self.server.home / ".Xauthority").touch(mode=0o600)
        self.python = shlex.quote(sys.executable)
        run(
            [sys.executable, "-c", "import matplotlib.font_manager"], env=self.settings, timeout=100
        )
        self._cache = cache
        places = [directory / name for name in ("run", "tmp")]
        for place in places:
            place.mkdir(mode=0o700)
        self.client = ClientHome(directory / "client", *places)

    def stop(self) -> None:
        """End the server and the display."""
        self._stack.close()

    def measure(self) -> list[Row]:
        """Measure everything; what matters least comes last."""
        self.toolkits = Toolkits(self._cache)
        for distance in (FAR, NEAR) if self.quick else (FAR, NEAR, FARTHER):
            with self.at(distance) as link:
                Place(self, distance, link).measure()
        return list(self.rows.values())

    @contextlib.contextmanager
    def at(self, distance: Distance) -> Iterator[Link | None]:
        """Name the server ``far`` in the client's config, behind a link where it is far."""
        link = None
        extra = "HostKeyAlias far\nForwardX11Trusted yes\n"
        if not distance.is_near:
            target = (self.server.host, self.server.port)
            link = Link(target, delay=distance.delay, rate=distance.rate)
            extra += f"Port {link.port}\n"
        try:
            self.client.config.write_text("")
            self.client.add(self.server, "far", extra=extra, known=False)
            self.client.known_hosts.write_text(self.server.known_hosts_lines("far"))
            yield link
        finally:
            if link is not None:
                link.stop()


class Place:
    """What is measured at one distance."""

    def __init__(self, bench: X11Bench, distance: Distance, link: Link | None) -> None:
        self.bench = bench
        self.distance = distance
        self.link = link
        self.watcher = bench.watcher

    def measure(self) -> None:
        """Measure everything here, ssh and xssh in turn."""
        quick, near = self.bench.quick, self.distance.is_near
        ways = (SSH, XSSH) if quick else (SSH, SSH_COMPRESSED, XSSH)
        if near:
            ways = (LOCAL, *ways)
        runs = min(2, self.bench.runs) if self.distance is FARTHER else self.bench.runs
        for turn in range(runs):
            for way in ways if turn % 2 else ways[::-1]:
                if way.is_ours or near or turn == 0:
                    self._try(way, "TkAgg", self._plot)
            self._try(XSSH, "TkAgg, first connection", self._plot_first)
        if self.distance is FAR:
            self._measure_peers()
        self._try(XSSH, "TkAgg, round trips", self._count_trips)
        if near:
            for turn in range(min(2, self.bench.runs)):
                for way in ways[:: 1 if turn % 2 else -1]:
                    self._try(way, "x11perf", self._x11perf)
        for name, command in self.bench.toolkits.commands.items():
            if self.distance is FARTHER and name not in LIGHT_TOOLKITS:
                continue
            for way in ways:
                for _ in range(self.bench.runs if way.is_ours or near else 1):
                    self._try(way, name, self._toolkit(name, command))

    def _measure_peers(self) -> None:
        """Measure the others that are installed, each on a display of its own."""
        ssh = ["ssh", *self.bench.client.arguments]
        environment = self.bench.client.environment(self.bench.display)
        for name in bench_peers.installed():
            if time.monotonic() > self.bench.deadline:
                self._leave_out(f"{name}: the time was up")
                continue
            say(f"{self.distance.name}: {name} is started")
            try:
                with bench_peers.PEERS[name](ssh, "far", environment) as display:
                    way = Way(name, ("ssh", "-x"), display)
                    for _ in range(self.bench.runs):
                        self._try(way, "TkAgg", self._plot)
            except FAILURES as error:
                self._leave_out(f"{name}: {error}")

    def _leave_out(self, why: str) -> None:
        why = " ".join(why.split())[:300]
        say(f"    left out: {why}")
        self.bench.left_out.append(f"{self.distance.name}: {why}")

    def _try(self, way: Way, what: str, measure: Callable[[Way], None]) -> None:
        if time.monotonic() > self.bench.deadline:
            self._leave_out(f"{what}, {way.name}: the time was up")
            return
        say(f"{self.distance.name}: {what}: {way.name}")
        try:
            measure(way)
        except FAILURES as error:
            self._leave_out(f"{what}, {way.name}: {error}")
        with contextlib.suppress(AssertionError):
            self.watcher.wait_until_gone(60)

    def _note(self, way: Way, name: str, unit: str, figure: float) -> None:
        key = (self.distance.name, name)
        middle = "least" if name.endswith("round trips") else "median"
        row = self.bench.rows.setdefault(key, Row("x11", *key, unit, middle=middle))
        row.samples.setdefault(way.name, []).append(figure)
        say(f"    {name}: {figure:.4g} {unit}")

    def _argv(self, way: Way, command: str, *options: str) -> list[str]:
        if way is LOCAL:
            return [*way.argv, command]
        if way.display:
            command = f"DISPLAY={way.display} {command}"
        return [*way.argv, *self.bench.client.arguments, *options, "far", command]

    def _start(
        self, way: Way, command: str, *options: str, cache: Path | None = None
    ) -> DrivenPlot:
        environment = self._environment(way)
        if cache is not None:
            environment["XDG_CACHE_HOME"] = str(cache)
        directory = self.bench.server.home if way is LOCAL else self.bench.client.path
        return DrivenPlot(self._argv(way, command, *options), environment, directory)

    def _environment(self, way: Way) -> dict[str, str]:
        environment = self.bench.client.environment(self.bench.display)
        return {**environment, **self.bench.settings} if way is LOCAL else environment

    # -- matplotlib's TkAgg --

    def _plot(self, way: Way) -> None:
        with self._start(way, f"{self.bench.python} plot.py wait square") as plot:
            plot.hear("ready")
            before = self.link.round_trips if self.link else 0
            plot.tell("go")
            begun = plot.hear("begun")
            drawn = self.watcher.wait_for_mark(0, PATIENCE, plot)
            if self.link is not None and not way.is_ours and not way.display:
                self._note(way, "TkAgg: round trips", "", round(self.link.round_trips - before))
            self._note(way, "TkAgg: window drawn", "s", drawn - begun)
            plot.hear("shown")
            self._redraw(way, plot)
            self._press_keys(way, plot)
            plot.leave()

    def _redraw(self, way: Way, plot: DrivenPlot) -> None:
        slow = way in (SSH, SSH_COMPRESSED) and not self.distance.is_near
        count = 5 if slow else 60
        plot.tell("redraw", 2)  # whoever adapts to the link has seen it before, as in any session
        plot.hear("done")
        self.watcher.wait_for_mark(9, PATIENCE, plot)
        time.sleep(0.5)
        plot.tell("animate")
        self.watcher.wait_for_mark(0, PATIENCE, plot)
        plot.tell("stop")
        plot.hear("done")
        time.sleep(1.0)
        carried = self.link.carried_to_client if self.link else 0
        plot.tell("redraw", count)
        begun = plot.hear("begun")
        done = self.watcher.wait_for_mark(9, PATIENCE, plot)
        plot.hear("done")
        self._note(way, "TkAgg: redraws", "1/s", count / (done - begun))
        if self.link is not None:
            time.sleep(0.5)
            carried = self.link.carried_to_client - carried
            self._note(way, "TkAgg: a redraw's bytes", "kB", carried / count / 1e3)

    def _press_keys(self, way: Way, plot: DrivenPlot) -> None:
        self.watcher.enter()
        plot.tell("events", 0.3 + 4 * self.distance.delay)
        plot.hear("done")
        plot.tell("animate")
        plot.hear("begun")
        self.watcher.wait_for_mark(0, PATIENCE, plot)
        took = []
        slow = way in (SSH, SSH_COMPRESSED) and not self.distance.is_near
        for index in range(1, 2 if slow else 6):
            time.sleep(2.0 if index == 1 else 0.4)
            pressed = self.watcher.press_key()
            took.append(self.watcher.wait_for_mark(index, PATIENCE, plot) - pressed)
        plot.tell("stop")
        self._note(way, "TkAgg: key to redraw, animated", "s", statistics.median(took))

    def _plot_first(self, way: Way) -> None:
        cache = self.bench.directory / f"cache-{time.monotonic_ns()}"
        command = f"{self.bench.python} plot.py now square"
        with self._start(way, command, cache=cache) as plot:
            begun = plot.hear("begun")
            drawn = self.watcher.wait_for_mark(0, PATIENCE, plot)
            self._note(way, "TkAgg: window drawn, first connection", "s", drawn - begun)
            plot.leave()

    def _count_trips(self, way: Way) -> None:
        with self._start(way, f"{self.bench.python} plot.py wait square", "--stats") as plot:
            plot.hear("ready")
            plot.tell("go")
            plot.hear("shown")
            self.watcher.wait_for_mark(0, PATIENCE, plot)
            clients = parse_statistics(plot.leave())
            self._note(way, "TkAgg: round trips", "", sum(each["trips"] for each in clients))

    # -- others --

    def _toolkit(self, name: str, command: str) -> Callable[[Way], None]:
        def measure(way: Way) -> None:
            with self._start(way, f'echo "begun $(date +%s.%N)"; {command}') as plot:
                begun = plot.hear("begun")
                drawn = self.watcher.wait_for_mark(0, PATIENCE, plot)
                self._note(way, f"{name}: start to drawn", "s", drawn - begun)

        return measure

    def _x11perf(self, way: Way) -> None:
        for test in X11PERF:
            argv = self._argv(way, f"x11perf -repeat 2 -time 1 {test}")
            environment = self._environment(way)
            done = run(argv, env=environment, timeout=PATIENCE)
            found = re.findall(r"\( *([\d.]+)/sec\)", done.stdout.decode())
            assert found, f"x11perf {test} says {done.stderr[-500:]}"
            self._note(way, f"x11perf {test}", "1/s", float(found[-1]))


_BEGUN = time.monotonic()


def say(text: str) -> None:
    """Report progress, with the minutes since the beginning."""
    minutes, seconds = divmod(int(time.monotonic() - _BEGUN), 60)
    print(f"{minutes:2}:{seconds:02}  {text}", file=sys.stderr, flush=True)


def _find_packages() -> str:
    """Return where this environment's packages are."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None and found.origin is not None
    return str(Path(found.origin).parent.parent)
