"""Measure xssh beside ssh: same server, same moment, turn by turn.

Absolute times differ between machines; ratios of two medians from one run hardly do. Parts:

start        a cold ``host true`` without X11 (-x), with it (-Y) and over a link of 100 ms there and
             back, in seconds; the processor time of the client; and where the time goes, by the
             lines that both say with -v; then the same through a live master: see ``bench_shared``
trips        round trips from the connection to the first byte of output; the least of the turns
throughput   random bytes through stdin, and through stdout, in MB/s from the first to the last:
             near (loopback) and far (a link of 100 ms there and back)
x11          plots and X programs over simulated distances: see ``bench_x11``
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.bench_shared import (  # noqa: E402
    CLIENTS,
    Comparison,
    Figure,
    SharedStarts,
    measure_plots,
)
from scripts.bench_x11 import Measure, X11Bench, describe, export  # noqa: E402
from tests.support.clients import ClientHome  # noqa: E402
from tests.support.link import Link, count_round_trips  # noqa: E402
from tests.support.sshd import KeyRing, ServerOptions, SshServer  # noqa: E402
from tests.support.xvfb import Xvfb  # noqa: E402

MEGABYTE = 1_000_000
NEAR_MEGABYTES = 300
FAR_MEGABYTES = 100
FAR_DELAY = 0.05
"""Seconds one way."""
LEAST_FOR_RATIO = 0.005
TRIPS_DELAY = 0.03
STAGES = (
    ("until it connects", "debug1: Connecting to "),
    ("until it speaks SSH", "debug1: Local version string "),
    ("key exchange", "debug1: SSH2_MSG_NEWKEYS received"),
    ("login", "Authenticated to "),
    ("session", "debug1: Exit status "),
)
"""Parts of a start, and the line that ends each of them. Before the first: the interpreter, the
command line and the configuration; before the second: what was not loaded while it connected."""
PARTS = ("start", "trips", "throughput", "x11")


class Bench:
    """A server, a client's HOME, and how often to measure."""

    def __init__(self, directory: Path, runs: int) -> None:
        directory.mkdir()
        self.directory = directory
        self.runs = runs
        options = ServerOptions(config="LogLevel INFO\n", is_hurried=False)
        self.display = Xvfb(directory / "xvfb")
        try:
            keys = KeyRing.generate(directory / "keys")
            self.server = SshServer(directory / "server", keys, options)
        except BaseException:
            self.display.stop()
            raise
        places = [directory / name for name in ("run", "tmp")]
        for place in places:
            place.mkdir(mode=0o700)
        self.client = ClientHome(directory / "client", *places)
        self.client.add(self.server)
        binaries = str(Path(sys.executable).parent)
        path = os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)])
        self.environment = self.client.environment(self.display, PATH=path)
        self.links: list[Link] = []

    def stop(self) -> None:
        """End the server, the links and the display."""
        for link in self.links:
            link.stop()
        self.server.stop()
        self.display.stop()

    def time_command(
        self, client: str, command: str, source: str, sink: str, option: str = "-x"
    ) -> float:
        """Run a command on the server, stdin and stdout being files; return the seconds taken."""
        argv = [client, *self.client.arguments, option, "server", command]
        with open(source, "rb") as stdin, open(sink, "wb") as stdout:
            started = time.perf_counter()
            subprocess.run(
                argv, stdin=stdin, stdout=stdout, env=self.environment, check=True, timeout=300
            )
            return time.perf_counter() - started

    def compare(
        self,
        part: str,
        unit: str,
        measure: Callable[[str], float],
        runs: int,
        middle: Callable[[list[float]], float] = statistics.median,
    ) -> Comparison:
        """Measure both clients turn by turn, first one first, then the other.

        The turn before the first only warms up the caches.
        """
        measured: dict[str, list[float]] = {client: [] for client in CLIENTS}
        for turn in range(runs + 1):
            for client in CLIENTS if turn % 2 else reversed(CLIENTS):
                value = measure(client)
                if turn > 0:
                    measured[client].append(value)
        ssh, xssh = (middle(measured[client]) for client in CLIENTS)
        return Comparison(part, unit, runs, ssh, xssh, xssh / ssh)

    def start(self) -> list[Comparison]:
        """Return how long a cold start takes."""

        def without_x11(client: str) -> float:
            return self.time_command(client, "true", os.devnull, os.devnull)

        def with_x11(client: str) -> float:
            return self.time_command(client, "true", os.devnull, os.devnull, "-Y")

        link = self.connect("distant", FAR_DELAY)

        def distant(client: str) -> float:
            return self._time_start([client, *self.client.arguments, "-x", "distant", "true"])[0]

        def processor(client: str) -> float:
            return self._time_start([client, *self.client.arguments, "-x", "server", "true"])[1]

        found = [
            self.compare("start", "s", without_x11, self.runs),
            self.compare("start -Y", "s", with_x11, self.runs),
            self.compare("start, 100 ms", "s", distant, self.runs),
            self.compare("processor", "s", processor, self.runs),
            *self._stages(),
        ]
        counted = self.connect("counted", TRIPS_DELAY)
        shared = SharedStarts(self.client.arguments, self.environment, self.runs)
        found += shared.measure("server", "distant", "counted", counted)
        for each in (link, counted):
            self.links.remove(each)
            each.stop()
        return found

    def _time_start(self, argv: list[str]) -> tuple[float, float]:
        """Return the seconds that a client took, on the clock and of the processor."""
        started = time.perf_counter()
        client = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=self.environment)
        _, status, usage = os.wait4(client.pid, 0)
        seconds = time.perf_counter() - started
        client.returncode = os.waitstatus_to_exitcode(status)
        assert client.returncode == 0, argv
        return seconds, usage.ru_utime + usage.ru_stime

    def _stages(self) -> list[Comparison]:
        """Return where the time of a start goes."""
        measured: dict[str, list[list[float]]] = {client: [] for client in CLIENTS}
        for turn in range(self.runs + 1):
            for client in CLIENTS if turn % 2 else reversed(CLIENTS):
                times = self._time_stages(client)
                if turn > 0:
                    measured[client].append(times)
        found = []
        for number, name in enumerate([*(name for name, _ in STAGES), "exit"]):
            ssh, xssh = (
                statistics.median(times[number] for times in measured[client]) for client in CLIENTS
            )
            ratio = xssh / max(ssh, 0.0001)
            found.append(Comparison(f"  {name}", "s", self.runs, ssh, xssh, ratio))
        return found

    def _time_stages(self, client: str) -> list[float]:
        """Return the seconds that each stage of one start took, and those after the last."""
        argv = [client, *self.client.arguments, "-x", "-v", "server", "true"]
        marks = [time.perf_counter()]
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                stage = len(marks) - 1
                if stage < len(STAGES) and line.startswith(STAGES[stage][1]):
                    marks.append(time.perf_counter())
        marks.append(time.perf_counter())
        assert len(marks) == len(STAGES) + 2 and process.returncode == 0, (client, marks)
        return [after - before for before, after in itertools.pairwise(marks)]

    def connect(self, name: str, delay: float) -> Link:
        """Return a link to the server, which is called ``name`` at its end."""
        link = Link((self.server.host, self.server.port), delay=delay)
        self.links.append(link)
        extra = f"Port {link.port}\nHostKeyAlias {self.server.known_hosts_name}"
        self.client.add(self.server, name, extra=extra, known=False)
        return link

    def trips(self) -> list[Comparison]:
        """Return how many round trips a start takes."""
        link = self.connect("counted", TRIPS_DELAY)

        def count(client: str, *words: str) -> float:
            argv = [client, *self.client.arguments, *words]
            return count_round_trips(argv, self.environment, link)

        cases = {
            "trips, command": ("-x", "counted", "echo x; cat"),
            "trips, shell": ("-x", "-tt", "counted"),
            "trips, -X": ("-X", "counted", "echo x; cat"),
            "trips, -Y": ("-Y", "counted", "echo x; cat"),
        }
        runs = max(2, self.runs // 4)
        return [
            self.compare(name, "", lambda client, w=words: count(client, *w), runs, min)  # type: ignore[misc]
            for name, words in cases.items()
        ]

    def throughput(self) -> list[Comparison]:
        """Return how fast a stream is, up and down, near and far."""
        self.connect("far", FAR_DELAY)
        return [
            *self._throughput_of("server", "near", NEAR_MEGABYTES),
            *self._throughput_of("far", "far", FAR_MEGABYTES),
        ]

    def _throughput_of(self, server: str, name: str, megabytes: int) -> list[Comparison]:
        payload = self.directory / "payload"
        payload.write_bytes(os.urandom(megabytes * MEGABYTE))
        received = self.directory / "received"

        def up(client: str) -> float:
            seconds = self._time_up(
                [client, *self.client.arguments, "-x", server], payload, received
            )
            return self._checked(payload, received) / seconds

        def down(client: str) -> float:
            seconds = self._time_down(
                [client, *self.client.arguments, "-x", server], payload, received
            )
            return self._checked(payload, received) / seconds

        runs = max(3, self.runs // 4)
        return [
            self.compare(f"up, {name}", "MB/s", up, runs),
            self.compare(f"down, {name}", "MB/s", down, runs),
        ]

    def _time_up(self, argv: list[str], payload: Path, received: Path) -> float:
        """Return the seconds from the first byte of input to the end of the remote command."""
        reader, writer = os.pipe()
        with subprocess.Popen(
            [*argv, f"echo go; cat > {received}; echo end"],
            stdin=reader,
            stdout=subprocess.PIPE,
            env=self.environment,
        ) as client:
            os.close(reader)
            assert client.stdout is not None
            line = client.stdout.readline()
            started = time.perf_counter()
            with payload.open("rb") as file:
                subprocess.run(["cat"], stdin=file, stdout=writer, check=True, timeout=300)
            os.close(writer)
            line += client.stdout.readline()
            seconds = time.perf_counter() - started
        assert line == b"go\nend\n", line
        return seconds

    def _time_down(self, argv: list[str], payload: Path, received: Path) -> float:
        """Return the seconds from the first byte of output to the last."""
        with subprocess.Popen(
            [*argv, f"echo go; cat {payload}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=self.environment,
        ) as client:
            assert client.stdout is not None
            line = client.stdout.read(3)
            started = time.perf_counter()
            with received.open("wb") as file:
                subprocess.run(["cat"], stdin=client.stdout, stdout=file, check=True, timeout=300)
            seconds = time.perf_counter() - started
        assert line == b"go\n", line
        return seconds

    @staticmethod
    def _checked(payload: Path, received: Path) -> float:
        """Return the megabytes that came through, all of them as they were sent."""
        assert payload.read_bytes() == received.read_bytes(), "what came is not what was sent"
        return payload.stat().st_size / MEGABYTE


def parse_arguments() -> argparse.Namespace:
    """Return the parts, the number of runs, and where the JSON goes."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure xssh beside ssh.")
    parser.add_argument("part", nargs="*", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--runs", type=int, default=15, help="turns of each client (default 15)")
    parser.add_argument("--quick", action="store_true", help="x11: two links, once each")
    parser.add_argument("--json", metavar="FILE", help="also write the results there (- is stdout)")
    arguments = parser.parse_args()
    unknown = set(arguments.part) - set(PARTS)
    if unknown or arguments.runs < 1:
        parser.error(f"no such part: {', '.join(unknown)}" if unknown else "--runs is less than 1")
    return arguments


def measure_clients(parts: list[str], directory: Path, runs: int) -> list[Comparison]:
    """Measure everything but X11."""
    if not parts:
        return []
    bench = Bench(directory, runs)
    try:
        return [found for part in parts for found in getattr(bench, part)()]
    finally:
        bench.stop()


def main() -> int:
    """Measure, and print a line for each comparison."""
    arguments = parse_arguments()
    parts = arguments.part or list(PARTS)
    measures: list[Measure] = []
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="xssh-bench-") as directory:
        plain = [part for part in parts if part != "x11"]
        comparisons = measure_clients(plain, Path(directory) / "plain", arguments.runs)
        if {"x11", "start"} & {*parts}:
            bench = X11Bench(Path(directory) / "x11", arguments.runs, arguments.quick)
            try:
                if "start" in parts:
                    figures = measure_plots(bench, max(1, arguments.runs // 3))
                if "x11" in parts:
                    measures = bench.measure()
            finally:
                bench.stop()
    sink = sys.stderr if arguments.json == "-" else sys.stdout
    for found in comparisons:
        line = (
            f"{found.part:27} ssh {found.ssh:8.3f} {found.unit:4}  xssh {found.xssh:8.3f} "
            f"{found.unit:4}  "
        )
        # Of what takes next to no time there is no ratio.
        line += f"ratio {found.ratio:5.2f}  " if found.ssh >= LEAST_FOR_RATIO else " " * 13
        line += f"({found.runs} turns)"
        print(line, file=sink)
    for each in figures:
        unit = f"{each.unit:4}"
        line = f"{each.part:27} xssh {each.xssh:8.3f} {unit}  asked: at most {each.most:g}"
        print(f"{line}  ({each.runs} turns)", file=sink)
    if measures:
        print(describe(measures), file=sink)
    if arguments.json:
        rows = [*map(asdict, comparisons), *map(asdict, figures), *export(measures)]
        text = json.dumps(rows, indent=2) + "\n"
        if arguments.json == "-":
            sys.stdout.write(text)
        else:
            Path(arguments.json).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
