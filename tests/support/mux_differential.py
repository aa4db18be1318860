"""The lines of the differential table, through shared connections of either program's.

Master and passenger are ssh or xssh each: :data:`COMBINATIONS`. Whatever a case does, it has to do
the same as with ssh for both.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tests.support.clients import ClientHome
from tests.support.differential import (
    PROGRAMS,
    Bench,
    Case,
    Outcome,
    Servers,
    describe_differences,
    split_words,
)
from tests.support.processes import end_popen, run, wait_until
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal
from tests.support.warmstart import WORKER_ACCOUNT, open_process
from tests.support.xvfb import Xvfb

COMBINATIONS = (("ssh", "ssh"), ("ssh", "xssh"), ("xssh", "ssh"), ("xssh", "xssh"))
"""Master and passenger; the first one is the oracle."""

_SETTINGS = """SendEnv LC_* GIVEN* OTHER TERM
ForwardAgent yes
ForwardX11 yes
ForwardX11Trusted yes"""
_FORWARDS = re.compile(r"-[LRD]")


class SharedConnection(NamedTuple):
    """A master, and where it listens."""

    path: str
    process: subprocess.Popen[bytes]


class Masters:
    """Both programs' masters of one server: of the server that was asked for last.

    They have a HOME of their own, an agent, and the display. End them with ``stop()``.
    """

    def __init__(self, directory: Path, xvfb: Xvfb, started: Callable[[int], object]) -> None:
        self._directory = directory
        self._xvfb = xvfb
        self._started = started
        self._server: SshServer | None = None
        self._masters: dict[str, SharedConnection] = {}
        self._baseline: set[int] = set()
        self._agent = self._start_agent()

    def _start_agent(self) -> subprocess.Popen[bytes]:
        path = self._directory / "agent"
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, start_new_session=True
        )
        self._started(agent.pid)
        wait_until(path.exists, what="the agent")
        return agent

    def of(self, server: SshServer) -> dict[str, SharedConnection]:
        """Return the masters of a server, by the program's name."""
        if self._server is not server:
            self._end()
            self._server = server
            home = self._make_home(server)
            for program in PROGRAMS:
                self._open(program, home)
            for master in self._masters.values():
                self._wait_for(master)
            self._baseline = set(server.sessions())
            for pid in self._baseline:
                self._started(pid)
        return self._masters

    def settle(self, server: SshServer) -> None:
        """Wait until the server has no process but those of the masters' connections."""
        wait_until(
            lambda: set(server.sessions()) <= self._baseline, what="the passengers' sessions to end"
        )

    def _make_home(self, server: SshServer) -> ClientHome:
        shutil.rmtree(self._directory / "home", ignore_errors=True)
        home = ClientHome(
            *(self._directory / name for name in ("home", "run", "tmp", WORKER_ACCOUNT))
        )
        home.add(server, extra=_SETTINGS)
        return home

    def _open(self, program: str, home: ClientHome) -> None:
        path = str(self._directory / f"{program}.control")
        argv = [*PROGRAMS[program], *home.arguments, "-M", "-S", path, "-N", "server"]
        agent = str(self._directory / "agent")
        process = open_process(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=home.environment(self._xvfb, XSSH_X11="native", SSH_AUTH_SOCK=agent),
        )
        self._started(process.pid)
        self._masters[program] = SharedConnection(path, process)

    @staticmethod
    def _wait_for(master: SharedConnection) -> None:
        wait_until(
            lambda: Path(master.path).exists() or master.process.poll() is not None,
            what="a master",
        )
        assert Path(master.path).exists(), "the master ended"

    def _end(self) -> None:
        for master in self._masters.values():
            end_popen(master.process)
            Path(master.path).unlink(missing_ok=True)
        self._masters.clear()

    def stop(self) -> None:
        """End all of them."""
        self._end()
        end_popen(self._agent)


class SharedBench(Bench):
    """Where cases run as passengers."""

    def __init__(
        self,
        home: ClientHome,
        servers: Servers,
        spawn: Callable[..., Terminal],
        masters: Masters,
    ) -> None:
        super().__init__(home, servers, spawn)
        self._masters = masters
        self._path = ""

    def compare_all(self, case: Case, xvfb: Xvfb | None, status: int | None) -> None:
        """Run a case in all combinations. AssertionError where one differs from ssh's."""
        outcomes = [self._ride(*names, case, xvfb) for names in COMBINATIONS]
        told = []
        for names, outcome in zip(COMBINATIONS[1:], outcomes[1:], strict=True):
            label = "{} through {}".format(*reversed(names))
            told.append(describe_differences(outcome, outcomes[0], (label, "ssh through ssh")))
        assert not any(told), f"{case.name}: {case.words}\n" + "\n".join(filter(None, told))
        wanted = case.status if status is None else status
        assert outcomes[0].status == wanted, f"all ended with {outcomes[0].status}:\n{outcomes[0]}"

    def _ride(self, master: str, passenger: str, case: Case, xvfb: Xvfb | None) -> Outcome:
        server = self._servers.get(case.server)
        self._path = self._masters.of(server)[master].path
        self.renew_ports()
        outcome = self._run(passenger, case, xvfb)
        self._cancel_forwards(case, server)
        return replace(
            outcome,
            # Of the case before, whose end nobody told: the server may be late to read it.
            requests=[line for line in outcome.requests if "rtype cancel-" not in line],
            stdout=self._without_places(outcome.stdout.decode("latin-1")).encode("latin-1"),
            stderr=self._without_places(outcome.stderr),
        )

    def _without_places(self, text: str) -> str:
        for name, port in self._ports.items():
            text = text.replace(port, f"@{name}@")
        text = re.sub(r"/tmp/ssh-\w+/agent\.\d+", "@agent@", text)
        return text.replace(self._path, "@control@").replace("\r", "")

    def _first_words(self, case: Case) -> list[str]:
        return [*super()._first_words(case), "-S", self._path]

    def _settle(self, server: SshServer) -> None:
        self._masters.settle(server)

    def _cancel_forwards(self, case: Case, server: SshServer) -> None:
        """A master keeps what its passenger asked for."""
        words: Sequence[str] = [self.fill(word, server) for word in split_words(case)]
        if any(_FORWARDS.match(word) for word in words):
            argv = ["ssh", *self._first_words(case), "-O", "cancel", *words]
            run(argv, env=self._home.environment(), cwd=self._home.path)
