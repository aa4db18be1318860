"""A host whose X clients come through the agent: a server that several tests share, and xssh to it.

Every run is at -v, so that it says which way X11 took and how many early answers were wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients import ClientHome
from tests.support.link import Link
from tests.support.processes import run, wait_until, xssh_command
from tests.support.sessions import Session, started
from tests.support.sshd import SshServer
from tests.support.xvfb import Xvfb

TRUST = {"trusted": ["-Y"], "untrusted": ["-X", "-o", "ForwardX11Trusted=no"]}
_DEBUG = re.compile(r"^debug\d: |^  ", re.MULTILINE)


@dataclass(frozen=True)
class Told:
    """How a run ended and what it said: ``details`` at -v, ``stderr`` without."""

    status: int | None
    stdout: bytes
    stderr: str
    details: str

    @property
    def went_by_agent(self) -> bool:
        """Whether the agent carried X11."""
        return "X11: by the agent, as display localhost:" in self.details

    @property
    def reason(self) -> str:
        """Why the agent did not carry it; empty where it did or was never to."""
        found = re.search(r"X11: not by the agent: (.*)", self.details + self.stderr)
        return found[1] if found else ""

    @property
    def mispredictions(self) -> int | None:
        """How many early answers were wrong; None where there were no clients."""
        found = re.search(r"X11: (\d+) mispredictions", self.details)
        return int(found[1]) if found else None

    def require_flawless(self) -> None:
        """AssertionError unless clients came by the agent, and every early answer was right."""
        assert self.went_by_agent, self
        wrong = re.findall(r"misprediction of .*|broke the protocol.*", self.details)
        assert (self.mispredictions, wrong) == (0, [])


def tell(status: int | None, stdout: bytes, stderr: str) -> Told:
    """Put what was said at -v apart from the rest."""
    lines = stderr.replace("\r\n", "\n").splitlines(keepends=True)
    quiet = [line for line in lines if not _DEBUG.match(line) and not _is_summary(line)]
    return Told(status, stdout, "".join(quiet), stderr)


def _is_summary(line: str) -> bool:
    starts = ("OpenSSH_", "Authenticated to ", "Transferred: ", "Bytes per second: ", "xssh ")
    return line.startswith(starts)


class AgentHost:
    """A server, a HOME that knows it as ``server``, and a display."""

    def __init__(self, server: SshServer, home: ClientHome, xvfb: Xvfb) -> None:
        self.server = server
        self.home = home
        self.xvfb = xvfb
        self.name = "server"
        """What the host is called here."""
        self.environment = home.environment(xvfb)
        (server.home / ".Xauthority").touch(mode=0o600)
        home.add(server)

    def argv(self, words: Sequence[str], before: str = "") -> list[str]:
        """Return the argv of xssh with these options, host and command."""
        return [*xssh_command(before), *self.home.arguments, "-v", *words]

    def run(
        self,
        command: str,
        *options: str,
        env: Mapping[str, str] | None = None,
        before: str = "",
        stdin: bytes | int | None = b"",
        timeout: float = 60.0,
    ) -> Told:
        """Run a command on the host."""
        words = [*options, self.name, *([command] if command else [])]
        environment = {**self.environment, **(env or {})}
        done = run(self.argv(words, before), env=environment, stdin=stdin, timeout=timeout)
        return tell(done.status, done.stdout, done.stderr)

    def start(
        self,
        command: str,
        *options: str,
        env: Mapping[str, str] | None = None,
        before: str = "",
    ) -> AbstractContextManager[Session]:
        """Start a command on the host, to be waited for with ``wait``."""
        argv = self.argv([*options, self.name, command], before)
        return started(argv, {**self.environment, **(env or {})}, self.home.path)

    @staticmethod
    def wait(session: Session, timeout: float = 30.0) -> Told:
        """Wait for the end of a started command."""
        done = session.wait(timeout)
        return tell(done.status, done.stdout, done.stderr)

    @contextmanager
    def distance(self, delay: float, **options: float) -> Iterator[list[str]]:
        """Put a line before the host, with this delay one way; yields options that take it."""
        link = Link((self.server.host, self.server.port), delay=delay, **options)
        try:
            yield ["-o", f"Port={link.port}", "-o", f"HostKeyAlias={self.server.known_hosts_name}"]
        finally:
            link.stop()

    def agents(self) -> list[int]:
        """Return the pids of the agents that run on the host."""
        return [pid for pid in self.server.sessions() if _is_agent(pid)]

    def traces(self) -> list[str]:
        """Return the files that agents have on the host now."""
        places = (self.temporary,)
        return [str(found) for place in places for found in place.glob("xssh-agent-*")]

    @property
    def temporary(self) -> Path:
        """The TMPDIR of sessions on the host."""
        return Path(self.server.options.environment["TMPDIR"])

    def wait_until_clean(self, timeout: float = 10.0) -> None:
        """Wait until no session, agent or file of an agent is left on the host."""
        self.server.wait_until_idle(timeout)
        wait_until(lambda: not self.traces(), timeout=timeout, what=f"an end of {self.traces()}")


def _is_agent(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return b"-E" in words[:3] and any(b"exec(zlib" in word for word in words)


def write_executable(path: Path, text: str) -> Path:
    """Write a program; return its path."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def patch_candidates(*candidates: str | os.PathLike[str]) -> str:
    """Return code for ``before``: only these are looked for on the host."""
    names = tuple(os.fspath(each) for each in candidates)
    return f"import xsshpy.x11.agent_start as _s; _s.CANDIDATES = {names!r}\n"


def patch_deadlines(hello: float = 1.0, ready: float = 1.0) -> str:
    """Return code for ``before``: how long the stages may take (seconds)."""
    return (
        "import xsshpy.x11.agent as _a; "
        f"_a.HELLO_DEADLINE = _a.FIRST_HELLO_DEADLINE = {hello}; _a.READY_DEADLINE = {ready}\n"
    )
