"""Fixtures for every test: real servers, a private HOME, and a check that nothing is left behind.

The parts are in tests/support. A missing tool skips a test with a reason, and fails it in CI.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agentfixtures import agent_server, host, make_host  # noqa: F401
from tests.support.clients import SHARING, ClientHome
from tests.support.doctors import doctor, visit  # noqa: F401
from tests.support.leaks import LeakCheck, remember_children
from tests.support.masters import end_automatic_masters
from tests.support.processes import adopt_orphans
from tests.support.sshd import TEST_RUNTIME_VARIABLE, KeyRing, ServerOptions, SshServer
from tests.support.terminals import Terminal
from tests.support.tools import find_nss_wrapper, require_tool, skip_or_fail
from tests.support.warmstart import WORKER_ACCOUNT, stop_starters
from tests.support.xvfb import Xvfb

PRIVATE_VARIABLES = ("SSH_AUTH_SOCK", "SSH_ASKPASS", "DISPLAY", "XAUTHORITY", "MPLBACKEND")


def pytest_configure(config: pytest.Config) -> None:
    """Own every orphan from the start, so that no leak can hide.

    Signals that were ignored when this run was started (nohup, a background job of a script) would
    be ignored by every program that a test starts.
    """
    adopt_orphans()
    remember_children()
    # Each session with windows starts a python3: this one itself and no script that looks for it.
    interpreters = os.path.dirname(os.path.realpath(sys.executable))
    if os.path.exists(os.path.join(interpreters, "python3")):
        os.environ["PATH"] = os.pathsep.join((interpreters, os.environ.get("PATH", os.defpath)))
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """In one of several workers: load a share of all tests before the others' are looked for.

    Each needs every file, and pytest takes long to read one; what one worker has read, the others
    find compiled. All would otherwise read the same file at the same time.
    """
    given = getattr(session.config, "workerinput", None)
    if given is None or sys.dont_write_bytecode:
        return
    root = session.config.rootpath
    paths = [
        path for place in session.config.args for path in sorted(Path(place).rglob("test_*.py"))
    ]
    own = int(given["workerid"].removeprefix("gw"))
    for path in paths[own :: given["workercount"]]:
        # What can't be loaded is told where it is collected; so is a file that skips itself.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(
                ".".join(path.resolve().relative_to(root).with_suffix("").parts)
            )


def pytest_collection_finish() -> None:
    """Let the collector of garbage look at what tests make, not at what pytest knows of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def long_lived_processes() -> set[int]:
    """Pids that outlive a test on purpose; a session fixture adds what it starts."""
    return set()


def pytest_unconfigure() -> None:
    """End what outlived every test."""
    stop_starters()


@pytest.fixture(scope="session")
def session_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for what all tests of this worker share."""
    return tmp_path_factory.mktemp("session")


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory with a short path: a unix socket's is at most 107 bytes long (103 on macOS)."""
    root = "/tmp" if os.path.isdir("/tmp") else None
    path = Path(tempfile.mkdtemp(prefix="xt-", dir=root))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def private_places(
    session_directory: Path,
    short_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    long_lived_processes: set[int],
) -> Iterator[Path]:
    """Give the test, and what it starts, a HOME, TMPDIR and XDG_RUNTIME_DIR of its own.

    Afterwards TMPDIR and XDG_RUNTIME_DIR must be empty, and no process, descriptor or thread
    may be left.
    """
    home, temporary, runtime = (short_directory / name for name in ("home", "tmp", "run"))
    for path in (home, temporary, runtime):
        path.mkdir(mode=0o700)
    for name in [*PRIVATE_VARIABLES, *(name for name in os.environ if name.startswith("XSSH_"))]:
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv(TEST_RUNTIME_VARIABLE, str(runtime))
    monkeypatch.setenv("XSSH_SHARE", SHARING)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    check = LeakCheck([temporary, runtime], long_lived_processes)
    yield short_directory
    if SHARING != "no":
        end_automatic_masters(runtime)
    leaks = check.find_leaks()
    if leaks:
        pytest.fail("the test left something behind:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture(scope="session")
def xvfb(session_directory: Path, long_lived_processes: set[int]) -> Iterator[Xvfb]:
    """One X server for all tests of this worker; it survives its last client."""
    require_tool("Xvfb")
    server = Xvfb(session_directory / "xvfb")
    long_lived_processes.add(server.process.pid)
    yield server
    server.stop()


@pytest.fixture
def make_xvfb(short_directory: Path, private_places: Path) -> Iterator[Callable[..., Xvfb]]:
    """Start X servers of a special kind: ``make_xvfb(access="none", reset=True, …)``."""
    require_tool("Xvfb")
    servers: list[Xvfb] = []

    def make(**options: object) -> Xvfb:
        directory = short_directory / f"xvfb{len(servers)}"
        servers.append(Xvfb(directory, **options))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def key_ring(session_directory: Path) -> KeyRing:
    """Host keys and a client key, made once."""
    require_tool("ssh-keygen")
    return KeyRing.generate(session_directory / "keys")


@pytest.fixture
def make_sshd(
    short_directory: Path, key_ring: KeyRing, private_places: Path
) -> Iterator[Callable[..., SshServer]]:
    """Start SSH servers: ``make_sshd(shell="/bin/zsh", x11=False, config="…")``.

    The arguments are the fields of ``tests.support.sshd.ServerOptions``; a shell may be given by
    its name.
    """
    require_tool("sshd")
    if find_nss_wrapper() is None:
        skip_or_fail("libnss_wrapper is not installed (Debian: apt install libnss-wrapper)")
    servers: list[SshServer] = []

    def make(**options: object) -> SshServer:
        shell = str(options.get("shell", "bash"))
        options["shell"] = shell if shell.startswith("/") else require_tool(shell)
        directory = short_directory / f"sshd{len(servers)}"
        server = SshServer(directory, key_ring, ServerOptions(**options))  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def sshd(make_sshd: Callable[..., SshServer]) -> SshServer:
    """Return a plain server: bash, X11Forwarding on, no AcceptEnv, a key lets in."""
    return make_sshd()


@pytest.fixture
def client_home(private_places: Path, session_directory: Path) -> ClientHome:
    """Return this test's HOME, the one that $HOME names; no server is in its config yet."""
    home, run, temporary = (private_places / name for name in ("home", "run", "tmp"))
    return ClientHome(home, run, temporary, session_directory / WORKER_ACCOUNT)


@pytest.fixture
def client_environment(client_home: ClientHome) -> dict[str, str]:
    """Return a minimal environment without display or agent."""
    return client_home.environment()


@pytest.fixture
def spawn_in_pty(private_places: Path) -> Iterator[Callable[..., Terminal]]:
    """Start programs in a terminal: ``spawn_in_pty(argv, env=…, rows=24, cols=80)``."""
    terminals: list[Terminal] = []

    def spawn(argv: list[str], **options: object) -> Terminal:
        terminals.append(Terminal(argv, **options))  # type: ignore[arg-type]
        return terminals[-1]

    yield spawn
    for terminal in terminals:
        terminal.close()
