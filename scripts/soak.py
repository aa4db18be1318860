"""Load shared connections as no test has the time to, and say what the master holds meanwhile.

volume    random bytes each way through each of four sessions at once, compared by their hash:
          through the remote command, through proxy mode, and through a port (-W)
crowd     20 sessions at once, each with its own bytes and its own status, round after round
blocked   four passengers whose output nobody reads
sessions  many sessions with windows, by themselves and through one master
plots     one session that draws for a long time (soak_x11.py)
hours     sessions and plots through one master, with a table of what grows (soak_hours.py); only
          where it is asked for

Each of the first three runs through a master of ssh's and one of xssh's, with both programs as
passengers. The status is 1 where a byte, a status or a descriptor is not as it should be.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import soak_hours, soak_x11  # noqa: E402
from tests.integration._masters import Harbour, harbour  # noqa: E402
from tests.integration._targets import echo, target  # noqa: E402
from tests.support.masters import open_descriptors  # noqa: E402
from tests.support.processes import adopt_orphans, end_popen  # noqa: E402
from tests.support.sshd import KeyRing  # noqa: E402
from tests.support.warmstart import stop_starters  # noqa: E402

MEGABYTE = 1_000_000
AT_ONCE = 4
CROWD = 20
ROUNDS = 25
PROGRAMS = ("ssh", "xssh")
PIECE = 1 << 18
BLOCKED_SECONDS = 5.0
PARTS = ("volume", "crowd", "blocked", "sessions", "plots")
HOURS = "hours"


class Watch:
    """What a master holds: memory now and at most, descriptors."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.descriptors = open_descriptors(pid)
        self.memory = self._read("VmRSS")

    def _read(self, name: str) -> int:
        """Return a line of its status (kB)."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition(f"{name}:")[2].split()[0])

    def describe(self) -> str:
        """Return memory and descriptors beside those at first."""
        most, now = self._read("VmHWM"), self._read("VmRSS")
        return (
            f"master: {self.memory / 1000:.0f} MB at first, {most / 1000:.0f} at most, "
            f"{now / 1000:.0f} now; {self.descriptors} descriptors at first, "
            f"{open_descriptors(self.pid)} now"
        )

    def keeps_descriptors(self) -> bool:
        """Say whether it has more than at first, when a little time has passed."""
        deadline = time.monotonic() + 10
        while open_descriptors(self.pid) > self.descriptors:
            if time.monotonic() > deadline:
                return True
            time.sleep(0.05)
        return False


def make_data(seed: int, size: int) -> Iterator[bytes]:
    """Yield as many bytes that nobody can guess, the same for the same seed."""
    block = hashlib.shake_256(b"%d" % seed).digest(PIECE)
    left = size
    while left > 0:
        yield block[:left]
        left -= len(block)
        block = block[977:] + block[:977]


def ride(place: Harbour, program: str, words: list[str], seed: int, size: int) -> str:
    """Send bytes through a passenger and take them back; return what is wrong, or nothing."""
    passenger = place.start(program, *words, stderr=subprocess.DEVNULL)
    assert passenger.stdin is not None and passenger.stdout is not None
    stdin, sent = passenger.stdin, hashlib.sha256()

    def feed() -> None:
        try:
            for piece in make_data(seed, size):
                sent.update(piece)
                stdin.write(piece)
            stdin.close()
        except OSError as error:
            print(f"  {program}: its input ended early: {error}")

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    came, count = hashlib.sha256(), 0
    while piece := os.read(passenger.stdout.fileno(), PIECE):
        came.update(piece)
        count += len(piece)
    status = passenger.wait(60)
    feeder.join(60)
    passenger.stdout.close()
    if status != 0:
        return f"{program}: status {status}"
    if came.digest() != sent.digest():
        return f"{program}: {count} of {size} bytes came, or others"
    return ""


def run_volume(place: Harbour, options: argparse.Namespace) -> list[str]:
    """Part ``volume``."""
    size, wrong = options.megabytes * MEGABYTE, []
    with target(echo) as server:
        ways = {
            "sessions": ["server", "cat"],
            "proxy mode": ["-O", "proxy", "server", "cat"],
            "a port (-W)": ["-W", server.address, "server"],
        }
        for way, words in ways.items():
            began = time.monotonic()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                told = pool.map(
                    lambda n, words=words: ride(place, PROGRAMS[n % 2], words, n, size),
                    range(AT_ONCE),
                )
                wrong += [f"{way}: {text}" for text in told if text]
            took = time.monotonic() - began
            total = 2 * AT_ONCE * options.megabytes
            print(f"  {way}: {total} MB in {took:.1f} s, {total / took:.0f} MB/s")
    return wrong


def run_crowd(place: Harbour, options: argparse.Namespace) -> list[str]:
    """Part ``crowd``."""
    wrong: list[str] = []

    def visit(number: int) -> None:
        word = f"{number} {os.urandom(4).hex()}"
        done = place.run(
            PROGRAMS[number % 2],
            "server",
            f"cat; echo {number} >&2; exit {number % 200}",
            stdin=word.encode(),
            timeout=120,
        )
        if done != (number % 200, word.encode(), f"{number}\n"):
            wrong.append(f"session {number}: {done}")

    began = time.monotonic()
    with ThreadPoolExecutor(CROWD) as pool:
        list(pool.map(visit, range(options.sessions)))
    took = time.monotonic() - began
    print(f"  {options.sessions} sessions, {CROWD} at once, in {took:.1f} s")
    return wrong


def run_blocked(place: Harbour, options: argparse.Namespace) -> list[str]:
    """Part ``blocked``."""
    passengers = [
        place.start(PROGRAMS[number % 2], "server", "cat /dev/zero") for number in range(AT_ONCE)
    ]
    time.sleep(BLOCKED_SECONDS)
    done = place.run("ssh", "server", "echo on")
    for passenger in passengers:
        end_popen(passenger)
    return [] if done == (0, b"on\n", "") else [f"nobody else is served: {done}"]


RUNS: dict[str, Callable[[Harbour, argparse.Namespace], list[str]]] = {
    "volume": run_volume,
    "crowd": run_crowd,
    "blocked": run_blocked,
}


@contextmanager
def shared_connection(program: str, keys: KeyRing) -> Iterator[tuple[Harbour, Watch]]:
    """Open a master of a program's."""
    with harbour(keys, config="LogLevel INFO\n") as place:
        pid = place.open_master(program=program).pid
        for each in PROGRAMS:
            assert place.run(each, "server", "true").status == 0
        yield place, Watch(pid)


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join([*PARTS, HOURS])}")
    parser.add_argument("--megabytes", type=int, default=100, help="each way, of each session")
    parser.add_argument(
        "--sessions", type=int, default=CROWD * ROUNDS, help="in the crowd, and with windows"
    )
    parser.add_argument("--seconds", type=float, default=60, help="of plots")
    parser.add_argument("--minutes", type=float, default=120, help="of the part hours")
    parser.add_argument("--at-once", type=int, default=2, help="sessions, in the part hours")
    parser.add_argument("--record", type=Path, default=Path("soak.csv"), help="its table")
    options = parser.parse_args()
    unknown = set(options.parts) - {*PARTS, HOURS}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    adopt_orphans()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        keys = KeyRing.generate(Path(directory) / "keys")
        for program in PROGRAMS:
            for part in [each for each in options.parts or PARTS if each in RUNS]:
                print(f"{part}, through a master of {program}'s:", flush=True)
                with shared_connection(program, keys) as (place, watch):
                    found = RUNS[part](place, options)
                    if watch.keeps_descriptors():
                        found.append("descriptors are left")
                    print(f"  {watch.describe()}", flush=True)
                wrong += [f"{part}, {program}'s master: {text}" for text in found]
        for part in [each for each in options.parts or PARTS if each in soak_x11.RUNS]:
            print(f"{part}:", flush=True)
            wrong += [f"{part}: {text}" for text in soak_x11.RUNS[part](keys, options)]
        if HOURS in options.parts:
            print(f"{HOURS}:", flush=True)
            wrong += [f"{HOURS}: {text}" for text in soak_hours.run_hours(keys, options)]
    stop_starters()
    for text in wrong:
        print(f"WRONG: {text}")
    print("all as it should be" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
