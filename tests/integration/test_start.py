"""What a start loads: each way through the program has a limit, and modules that it must not meet.

Counts are of modules beyond those of a bare interpreter. A limit that is reached is a reason to
look at what was added (``python -X importtime -m xsshpy …``), not to raise it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.processes import end_popen, wait_until
from tests.support.sshd import SshServer
from tests.support.tools import require_tool
from tests.support.xvfb import Xvfb

SPY = """\
import atexit, os, sys
bare = set(sys.modules)
def tell():
    with open(os.environ["LOADED"], "w") as file:
        file.write("\\n".join(sorted(set(sys.modules) - bare)))
execve = os.execve
def exec_told(*arguments):
    tell()
    execve(*arguments)
os.execve = exec_told
from xsshpy.__main__ import main
import xsshpy.loading as loading
# It is registered after the program's own end, and so runs before it.
register = loading.atexit.register
class Registry:
    def __getattr__(self, name): return getattr(atexit, name)
    def register(self, function):
        register(function)
        register(tell)
loading.atexit = Registry()
main()
"""

NOTHING_SLOW = frozenset(
    {"asyncio", "ssl", "asyncssh", "cryptography", "Xlib", "click", "dataclasses"}
)
"""What no answer without a connection of its own may load."""
NOTHING_BIG = NOTHING_SLOW | {
    *("collections", "contextlib", "enum", "fnmatch", "functools", "hashlib", "re", "signal"),
    *("selectors", "socket", "subprocess", "threading", "types", "typing", "warnings"),
}
"""What a passenger with a command may not load either: half a dozen of these take longer than it
has altogether."""
NEVER = frozenset(
    {
        "click",
        "cryptography.x509",
        "email",
        "importlib.metadata",
        "importlib.resources",
        "json",
        "ssl",
        "Xlib",
    }
)
"""What no connection may load: python-xlib belongs to the child that proves the display."""


OTHER_PYTHONS = 0 if sys.version_info[:2] == (3, 11) else 25
"""By how much the standard library differs from that of Python 3.11, where it was counted."""


class Loader:
    """Runs xssh and tells what it loaded."""

    def __init__(self, home: ClientHome, directory: Path, display: Xvfb | None = None) -> None:
        self.home = home
        self.record = directory / "loaded"
        self.environment = home.environment(display, LOADED=str(self.record))
        self.environment["PYTHONPATH"] = str(Path(__file__).parents[2])

    def load(self, *words: str, status: int = 0, stdin: int = subprocess.DEVNULL) -> set[str]:
        """Return the modules that were there at the end."""
        done = subprocess.run(
            [sys.executable, "-c", SPY, *words],
            env=self.environment,
            stdin=stdin,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        return set(self.record.read_text().split("\n"))


@pytest.fixture
def loader(client_home: ClientHome, short_directory: Path) -> Loader:
    return Loader(client_home, short_directory)


def check(loaded: set[str], most: tuple[int, int], forbidden: frozenset[str]) -> None:
    """Compare with the limits: of modules from the standard library, and of all others."""
    assert not loaded & forbidden
    system = {name for name in loaded if name.partition(".")[0] in sys.stdlib_module_names}
    others = loaded - system - {"bcrypt.__about__"}  # 4.0 had it
    assert len(others) <= most[1], sorted(others)
    assert len(system) <= most[0] + OTHER_PYTHONS, sorted(system)


@pytest.mark.parametrize(
    ("words", "status", "most", "allowed"),
    [
        (["-V"], 0, (19, 10), ()),
        (["-Q", "cipher"], 0, (2, 10), ()),
        (["-G", "host"], 0, (2, 10), ()),
        (["--version"], 0, (2, 10), ()),
        (["--completion", "bash"], 0, (38, 14), ()),
        (["--man"], 0, (60, 13), ()),
        (["-p"], 255, (2, 10), ()),
        ([], 255, (2, 10), ()),
        (["--help"], 0, (62, 25), ("click",)),
        (["--bad", "host"], 255, (56, 24), ("click",)),
    ],
)
def test_answers_without_a_connection(
    words: list[str], status: int, most: tuple[int, int], allowed: Sequence[str], loader: Loader
) -> None:
    check(loader.load(*words, status=status), most, NOTHING_SLOW - set(allowed))


@pytest.mark.parametrize(
    ("words", "most"),
    [
        (["-x", "server", "true"], (146, 220)),
        (["-x", "--stats", "--x11=off", "server", "true"], (146, 220)),
    ],
)
def test_a_connection_without_x11(
    words: list[str], most: tuple[int, int], sshd: SshServer, loader: Loader
) -> None:
    loader.home.add(sshd)
    check(loader.load(*loader.home.arguments, *words), most, NEVER)


@pytest.mark.parametrize(("way", "most"), [("native", (152, 233)), ("agent", (162, 254))])
def test_a_connection_with_x11(
    way: str,
    most: tuple[int, int],
    sshd: SshServer,
    client_home: ClientHome,
    short_directory: Path,
    xvfb: Xvfb,
) -> None:
    client_home.add(sshd)
    loader = Loader(client_home, short_directory, xvfb)
    words = [*client_home.arguments, "-Y", f"--x11={way}", "server", 'test -n "$DISPLAY"']
    check(loader.load(*words), most, NEVER - {"json", "importlib.resources"})


@pytest.fixture(params=["ssh", "xssh"])
def shared(
    request: pytest.FixtureRequest, sshd: SshServer, loader: Loader, short_directory: Path
) -> Iterator[Loader]:
    """The loader, with a master for what it runs."""
    socket = short_directory / "m"
    loader.home.add(sshd, extra=f"ControlPath {socket}\nSendEnv LANG LC_*")
    ssh = [require_tool("ssh")] if request.param == "ssh" else [sys.executable, "-m", "xsshpy"]
    master = subprocess.Popen(
        [*ssh, *loader.home.arguments, "-MN", "server"],
        env=loader.environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(socket.exists, what="the master's socket")
        yield loader
    finally:
        end_popen(master)


def test_a_passenger_loads_next_to_nothing(shared: Loader) -> None:
    words = [*shared.home.arguments, "server"]
    check(shared.load(*words, "true"), (5, 27), NOTHING_BIG)
    check(shared.load(*shared.home.arguments, "-O", "check", "server"), (5, 27), NOTHING_BIG)
    shared.environment["DISPLAY"] = ":99"
    check(shared.load(*words, "true"), (5, 30), NOTHING_BIG)
    keyboard, terminal = os.openpty()
    try:
        loaded = shared.load("-tt", *words, "true", stdin=terminal)
    finally:
        os.close(keyboard)
        os.close(terminal)
    check(loaded, (25, 33), NOTHING_SLOW)


def test_a_passenger_that_finds_its_connection_loads_little_more(
    sshd: SshServer, loader: Loader
) -> None:
    loader.home.add(sshd)
    words = [*loader.home.arguments, "--share=yes", "-x"]
    program = [sys.executable, "-m", "xsshpy", *words]
    subprocess.run([*program, "server", "true"], env=loader.environment, check=True, timeout=60)
    try:
        check(loader.load(*words, "server", "true"), (7, 27), NOTHING_BIG)
    finally:
        subprocess.run([*program, "-O", "exit", "server"], env=loader.environment, check=True)
        folder = loader.home.runtime / "xssh"
        wait_until(lambda: not any(folder.iterdir()), what="the master's end")
        folder.rmdir()
