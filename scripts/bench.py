"""Measure xssh beside ssh: same server, same moment, turn by turn.

Absolute times differ between machines; ratios of two medians from one run hardly do. Parts:

start        a cold ``host true`` without X11 (-x), with it (-Y) and over a link of 100 ms there and
             back, in seconds; the processor time of the client; and where the time goes, by the
             lines that both say with -v; then the same through a live master: see ``bench_shared``
trips        round trips from the connection to the first byte of output; the least of the turns
throughput   random bytes through stdin, and through stdout, in MB/s from the first to the last:
             near (loopback) and far (a link of 100 ms there and back); text over a slow link
x11          plots and X programs over simulated distances: see ``bench_x11``
render       measures nothing: writes tables, charts and the README's figures from what was kept
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.bench_render import KEPT, render  # noqa: E402
from scripts.bench_results import (  # noqa: E402
    Results,
    Row,
    describe,
    describe_machine,
    describe_versions,
    load,
)
from scripts.bench_shared import CLIENTS, SharedStarts, measure_plots  # noqa: E402
from scripts.bench_x11 import FAILURES, X11Bench, say  # noqa: E402
from tests.support.clients import ClientHome  # noqa: E402
from tests.support.link import Link, count_round_trips  # noqa: E402
from tests.support.sshd import KeyRing, ServerOptions, SshServer  # noqa: E402
from tests.support.xvfb import Xvfb  # noqa: E402

MEGABYTE = 1_000_000
NEAR_MEGABYTES = 300
FAR_MEGABYTES = 100
FAR_DELAY = 0.05
"""Seconds one way."""
SLOW_RATE = 2.5e6
TEXT_MEGABYTES = 8
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
WORKING = ROOT / "build" / "bench.json"
MINUTES = 33.0
RUNS = 9
FINAL_RUNS = 7
ARGV = {
    "ssh": ["ssh"],
    "ssh -C": ["ssh", "-C"],
    "xssh": ["xssh"],
    "xssh -C": ["xssh", "-C"],
}


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
        row: Row,
        measure: Callable[[str], float],
        runs: int,
        clients: tuple[str, ...] = CLIENTS,
    ) -> Row:
        """Measure the clients turn by turn, first one first, then the other; return the row, full.

        The turn before the first only warms up the caches.
        """
        say(f"{row.part}: {row.name}, {row.link}: {runs} turns of {', '.join(clients)}")
        row.samples = {client: [] for client in clients}
        for turn in range(runs + 1):
            for client in clients if turn % 2 else reversed(clients):
                value = measure(client)
                if turn > 0:
                    row.samples[client].append(value)
        return row

    def start(self) -> list[Row]:
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
            self.compare(Row("start", "loopback", "cold", "s"), without_x11, self.runs),
            self.compare(Row("start", "loopback", "cold, -Y", "s"), with_x11, self.runs),
            self.compare(Row("start", "100 ms", "cold", "s"), distant, self.runs),
            self.compare(Row("start", "loopback", "cold, processor", "s"), processor, self.runs),
            *self._stages(),
        ]
        counted = self.connect("counted", TRIPS_DELAY)
        shared = SharedStarts(self.client.arguments, self.environment, self.runs)
        say(f"start: through live masters: {self.runs} turns")
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

    def _stages(self) -> list[Row]:
        """Return where the time of a start goes."""
        say(f"start: its stages: {self.runs} turns")
        measured: dict[str, list[list[float]]] = {client: [] for client in CLIENTS}
        for turn in range(self.runs + 1):
            for client in CLIENTS if turn % 2 else reversed(CLIENTS):
                times = self._time_stages(client)
                if turn > 0:
                    measured[client].append(times)
        return [
            Row(
                "start",
                "loopback",
                f"stage: {name}",
                "s",
                {client: [times[number] for times in measured[client]] for client in CLIENTS},
            )
            for number, name in enumerate([*(name for name, _ in STAGES), "exit"])
        ]

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

    def connect(self, name: str, delay: float, rate: float | None = None) -> Link:
        """Return a link to the server, which is called ``name`` at its end."""
        link = Link((self.server.host, self.server.port), delay=delay, rate=rate)
        self.links.append(link)
        extra = f"Port {link.port}\nHostKeyAlias {self.server.known_hosts_name}"
        self.client.add(self.server, name, extra=extra, known=False)
        return link

    def trips(self) -> list[Row]:
        """Return how many round trips a start takes."""
        link = self.connect("counted", TRIPS_DELAY)

        def counter(words: tuple[str, ...]) -> Callable[[str], float]:
            return lambda client: count_round_trips(
                [client, *self.client.arguments, *words], self.environment, link
            )

        cases = {
            "command": ("-x", "counted", "echo x; cat"),
            "shell": ("-x", "-tt", "counted"),
            "command, -X": ("-X", "counted", "echo x; cat"),
            "command, -Y": ("-Y", "counted", "echo x; cat"),
        }
        runs = max(2, self.runs // 3)
        return [
            self.compare(Row("trips", "counted", name, "", middle="least"), counter(words), runs)
            for name, words in cases.items()
        ]

    def throughput(self) -> list[Row]:
        """Return how fast a stream is, up and down, near and far."""
        self.connect("far", FAR_DELAY)
        self.connect("slow", FAR_DELAY, SLOW_RATE)
        bytes_near, bytes_far = (
            os.urandom(megabytes * MEGABYTE) for megabytes in (NEAR_MEGABYTES, FAR_MEGABYTES)
        )
        words = b" ".join(b"%d" % (number * number % 9973) for number in range(1_600_000))
        text = words[: TEXT_MEGABYTES * MEGABYTE]
        return [
            *self._throughput_of("server", "loopback", "random bytes", bytes_near, CLIENTS),
            *self._throughput_of("far", "100 ms", "random bytes", bytes_far, CLIENTS),
            *self._throughput_of("slow", "100 ms, 20 Mbit/s", "text", text, tuple(ARGV)),
        ]

    def _throughput_of(
        self, server: str, link: str, name: str, content: bytes, clients: tuple[str, ...]
    ) -> list[Row]:
        payload = self.directory / "payload"
        payload.write_bytes(content)
        received = self.directory / "received"

        def measure(way: Callable[[list[str], Path, Path], float]) -> Callable[[str], float]:
            def time_stream(client: str) -> float:
                argv = [*ARGV[client], *self.client.arguments, "-x", server]
                seconds = way(argv, payload, received)
                return self._checked(payload, received) / seconds

            return time_stream

        runs = max(1, self.runs // 3)
        ways = {"to the server": self._time_up, "from the server": self._time_down}
        return [
            self.compare(
                Row("throughput", link, f"{name} {direction}", "MB/s"), measure(way), runs, clients
            )
            for direction, way in ways.items()
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
    parser.add_argument("part", nargs="*", help=f"{', '.join(PARTS)}, all (default), or render")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"turns (default {RUNS})")
    parser.add_argument("--quick", action="store_true", help="two turns; x11: two links, once each")
    parser.add_argument("--peers", action="store_true", help="install nxagent and xpra by apt")
    parser.add_argument("--json", metavar="FILE", type=Path, default=WORKING, help="the results")
    parser.add_argument("--resume", action="store_true", help="leave out the parts in that file")
    parser.add_argument("--keep", action="store_true", help=f"then into {KEPT.name}, and render")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="what begins later is not")
    arguments = parser.parse_args()
    arguments.render = arguments.part == ["render"]
    parts = PARTS if arguments.part in ([], ["all"]) else arguments.part
    unknown = set(parts) - set(PARTS)
    if not arguments.render and (unknown or arguments.runs < 1):
        parser.error(f"no such part: {', '.join(unknown)}" if unknown else "--runs is less than 1")
    arguments.part = [part for part in PARTS if part in parts]
    if arguments.quick:
        arguments.runs = min(arguments.runs, 2)
    return arguments


def measure_part(
    part: str, arguments: argparse.Namespace, directory: Path, deadline: float
) -> tuple[list[Row], list[str]]:
    """Return a part's rows, and what was left out."""
    rows: list[Row] = []
    left_out: list[str] = []
    if part != "x11":
        bench = Bench(directory / "plain", arguments.runs)
        try:
            measure: Mapping[str, Callable[[], list[Row]]] = {
                "start": bench.start,
                "trips": bench.trips,
                "throughput": bench.throughput,
            }
            rows += measure[part]()
        finally:
            bench.stop()
    if part in ("x11", "start"):
        plots = X11Bench(directory / "x11", arguments.runs, arguments.quick, deadline)
        try:
            if part == "x11":
                plots.measure()
                rows += plots.rows.values()
            else:
                say("start: plots through a live master")
                rows += measure_plots(plots, max(1, arguments.runs // 3))
        finally:
            left_out += plots.left_out
            plots.stop()
    return rows, left_out


def begin(arguments: argparse.Namespace) -> Results:
    """Return what is there already, else an empty file's content."""
    if arguments.resume and arguments.json.exists():
        return load(arguments.json)
    return Results(
        " ".join(["scripts/bench", *sys.argv[1:]]),
        not arguments.quick and arguments.runs >= FINAL_RUNS,
        describe_machine(),
        describe_versions(),
    )


def main() -> int:
    """Measure, and print a line for each comparison."""
    arguments = parse_arguments()
    if arguments.render:
        render(load(KEPT))
        return 0
    results = begin(arguments)
    deadline = time.monotonic() + 60 * arguments.minutes
    failed = []
    for number, part in enumerate(arguments.part, 1):
        if arguments.resume and part in results.finished:
            say(f"{part}: measured before")
            continue
        say(f"part {number} of {len(arguments.part)}: {part}")
        begun = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="xssh-bench-") as directory:
                rows, left_out = measure_part(part, arguments, Path(directory), deadline)
        except FAILURES as error:
            say(f"{part} failed: {error}")
            failed.append(part)
            continue
        results.replace(part, rows, left_out)
        results.finished[part] = round(time.monotonic() - begun)
        results.save(arguments.json)
        print(describe(rows), flush=True)
    say(f"the results are in {arguments.json}")
    missing = [part for part in PARTS if part not in results.finished]
    if arguments.keep and missing:
        say(f"not kept: {', '.join(missing)} not measured yet; go on with --resume --keep")
    elif arguments.keep:
        results.save(KEPT)
        render(results)
    return 1 if failed or (arguments.keep and missing) else 0


if __name__ == "__main__":
    sys.exit(main())
