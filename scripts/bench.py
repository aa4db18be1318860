"""Measure xssh beside ssh: same server, same moment, turn by turn.

Absolute times differ between machines; ratios of two medians from one run hardly do. Parts:

start        a cold ``host true`` without X11 (-x) and with it (-Y), in seconds
trips        round trips from the connection to the first byte of output; the least of the turns
throughput   random bytes through stdin, and through stdout, in MB/s from the first to the last:
             near (loopback) and far (a link of 100 ms there and back)
x11          plots and X programs over simulated distances: see ``bench_x11``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.bench_x11 import X11Bench, describe, export  # noqa: E402
from tests.support.clients import ClientHome  # noqa: E402
from tests.support.link import Link, count_round_trips  # noqa: E402
from tests.support.sshd import KeyRing, ServerOptions, SshServer  # noqa: E402
from tests.support.xvfb import Xvfb  # noqa: E402

MEGABYTE = 1_000_000
NEAR_MEGABYTES = 300
FAR_MEGABYTES = 100
FAR_DELAY = 0.05
"""Seconds one way."""
TRIPS_DELAY = 0.03
CLIENTS = ("ssh", "xssh")
PARTS = ("start", "trips", "throughput", "x11")


@dataclass(frozen=True)
class Comparison:
    """Medians of both clients for one thing (trips: the least), and xssh's divided by ssh's."""

    part: str
    unit: str
    runs: int
    ssh: float
    xssh: float
    ratio: float


class Bench:
    """A server, a client's HOME, and how often to measure."""

    def __init__(self, directory: Path, runs: int) -> None:
        directory.mkdir()
        self.directory = directory
        self.runs = runs
        options = ServerOptions(config="LogLevel INFO\n")
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

        return [
            self.compare("start", "s", without_x11, self.runs),
            self.compare("start -Y", "s", with_x11, self.runs),
        ]

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
    measures = []
    with tempfile.TemporaryDirectory(prefix="xssh-bench-") as directory:
        plain = [part for part in parts if part != "x11"]
        comparisons = measure_clients(plain, Path(directory) / "plain", arguments.runs)
        if "x11" in parts:
            bench = X11Bench(Path(directory) / "x11", arguments.runs, arguments.quick)
            try:
                measures = bench.measure()
            finally:
                bench.stop()
    sink = sys.stderr if arguments.json == "-" else sys.stdout
    for found in comparisons:
        line = (
            f"{found.part:16} ssh {found.ssh:8.3f} {found.unit:4}  xssh {found.xssh:8.3f} "
            f"{found.unit:4}  ratio {found.ratio:5.2f}  ({found.runs} turns)"
        )
        print(line, file=sink)
    if measures:
        print(describe(measures), file=sink)
    if arguments.json:
        rows = [*(asdict(found) for found in comparisons), *export(measures)]
        text = json.dumps(rows, indent=2) + "\n"
        if arguments.json == "-":
            sys.stdout.write(text)
        else:
            Path(arguments.json).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
