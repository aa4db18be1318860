"""The line fails at every stage of a session, in every way: ssh's words and status, and no trace.

A row is a stage, told by how many things the server had sent by then, and what happens to the next.
ssh goes through the same beside xssh.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.support.agenthost import AgentHost
from tests.support.beside import PROGRAMS, without_remedy
from tests.support.clients import ClientHome
from tests.support.faults import CIPHER, Fault, FaultyLine, Harm
from tests.support.processes import Completed, run
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal
from tests.support.tools import openssh_release

CONFIG = f"Ciphers {CIPHER}\nMaxStartups 100\nLoginGraceTime 8"
ALIVE = ("-oServerAliveInterval=1", "-oServerAliveCountMax=1", "-oConnectTimeout=2")
COMMAND = "echo out; sleep 0.1; echo err >&2; exit 3"
WHOLE = (3, b"out\n", "err\n")
STAGES = {
    "first line": 0,
    "key exchange": 1,
    "server's key": 2,
    "first sealed packet": 4,
    "service": 5,
    "methods": 6,
    "key accepted": 7,
    "logged in": 8,
    "host keys": 9,
    "channel opened": 12,
    "window": 13,
    "command taken": 14,
    "output": 15,
    "stderr": 16,
}
OF_CLIENT = {"first line": 0, "key exchange": 1, "our key": 2, "service": 4, "login": 6, "open": 8}
PATIENCE = 10.0
"""Seconds after which a client hangs: all limits that are set are far below."""


class Outcome(NamedTuple):
    """How a run ended, the port's number aside."""

    status: int
    stdout: bytes
    stderr: str


class Faulty:
    """Runs of either program over lines with a fault."""

    def __init__(self, home: ClientHome, line: FaultyLine) -> None:
        self.home = home
        self.line = line

    def argv(self, program: str, port: int, words: Sequence[str]) -> list[str]:
        return [*PROGRAMS[program], *self.home.arguments, f"-p{port}", *ALIVE, *words]

    def run(self, program: str, fault: Fault) -> Outcome:
        port = self.line.open(fault)
        argv = self.argv(program, port, ["-x", "server", COMMAND])
        done = run(argv, env=self.home.environment(), timeout=PATIENCE)
        return Outcome(done.status, done.stdout, done.stderr.replace(str(port), "PORT"))

    def both(self, fault: Fault) -> tuple[Outcome, Outcome]:
        return self.run("ssh", fault.later(_more_packets(fault))), self.run("xssh", fault)


def _more_packets(fault: Fault) -> int:
    """From 9.5 on ssh asks for a second SSH_MSG_EXT_INFO, once it has named its user."""
    return int(openssh_release() >= (9, 5) and fault.at > STAGES["service"])


@pytest.fixture
def faulty(make_sshd: Callable[..., SshServer], client_home: ClientHome) -> Iterator[Faulty]:
    server = make_sshd(config=CONFIG)
    client_home.add(server, extra="HostKeyAlias faulty")
    known = client_home.known_hosts
    known.write_text(known.read_text().replace(f"[127.0.0.1]:{server.port}", "faulty"))
    line = FaultyLine((server.host, server.port))
    yield Faulty(client_home, line)
    line.stop()


def find_faults(expected: Outcome, found: Outcome) -> list[str]:
    """Return what is wrong with an ending, beside ssh's."""
    said = without_remedy(found.stderr)
    wanted = expected.stderr.replace("\r", "")
    wrong = [] if (found.status, said) == (expected.status, wanted) else [f"ssh: {expected}"]
    # Output that had come before the fault may be shown; ssh drops what it has not shown by then.
    if not WHOLE[1].startswith(found.stdout) or len(found.stdout) < len(expected.stdout):
        wrong.append("output")
    if re.search("Traceback|internal error|Task ", found.stderr):
        wrong.append("internal error")
    return [f"{found}: {', '.join(wrong)}"] if wrong else []


@pytest.mark.parametrize("harm", [Harm.FIN, Harm.RST, Harm.HALF, Harm.FLIP, Harm.STALL])
def test_the_server_is_cut_off(faulty: Faulty, harm: Harm) -> None:
    stages = list(STAGES.items())
    if harm in (Harm.RST, Harm.HALF):
        stages = stages[::2]  # like FIN, as far as the stage matters
    with ThreadPoolExecutor(12 if harm is Harm.STALL else 4) as pool:
        ends = list(pool.map(lambda stage: faulty.both(Fault(harm, stage[1])), stages))
    wrong = {
        name: found
        for (name, _), (expected, given) in zip(stages, ends, strict=True)
        if (found := find_faults(expected, given))
    }
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


@pytest.mark.parametrize("harm", [Harm.FIN, Harm.FLIP, Harm.STALL])
def test_the_client_is_cut_off(faulty: Faulty, harm: Harm) -> None:
    """What the server makes of it is its own: it may say so, or leave."""
    faults = [Fault(harm, at, from_client=True) for at in OF_CLIENT.values()]
    with ThreadPoolExecutor(6) as pool:
        for name, found in zip(OF_CLIENT, pool.map(lambda f: faulty.run("xssh", f), faults),
                               strict=True):  # fmt: skip
            assert (found.status, found.stdout) == (255, b""), (name, found)
            assert found.stderr.splitlines()[-1].startswith("  try: "), (name, found)
            assert "Traceback" not in found.stderr, (name, found)


def test_a_slow_line_is_only_slow(faulty: Faulty) -> None:
    faults = [Fault(Harm.SLOW, at) for at in list(STAGES.values())[::3]]
    faults += [Fault(Harm.SLOW, at, from_client=True) for at in list(OF_CLIENT.values())[::3]]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda fault: faulty.run("xssh", fault), faults)) == {Outcome(*WHOLE)}


TERMINAL_STAGES = {"channel opened": 12, "terminal": 13, "shell": 14, "output": 16}


@pytest.mark.parametrize("harm", [Harm.FIN, Harm.FLIP, Harm.STALL])
def test_the_terminal_is_put_back(
    faulty: Faulty, spawn_in_pty: Callable[..., Terminal], harm: Harm
) -> None:
    started = []
    for at in TERMINAL_STAGES.values():
        port = faulty.line.open(Fault(harm, at))
        argv = faulty.argv("xssh", port, ["-x", "-tt", "server", "echo out; exec cat"])
        started.append(spawn_in_pty(argv, env=faulty.home.environment()))
    for name, terminal in zip(TERMINAL_STAGES, started, strict=True):
        assert terminal.wait(PATIENCE) == 255, name
        assert terminal.is_restored, name


# X11: the agent's start, and a client at work

DRAW = (
    "xdpyinfo >/dev/null && echo drawn && for i in 1 2 3 4; do "
    "xprop -root -f XSSH_TEST 8s -set XSSH_TEST $i; done; xprop -root -remove XSSH_TEST; echo done"
)


@pytest.fixture
def drawn(host: AgentHost) -> Iterator[tuple[AgentHost, FaultyLine]]:
    line = FaultyLine((host.server.host, host.server.port))
    yield host, line
    line.stop()


def run_drawing(host: AgentHost, line: FaultyLine, fault: Fault) -> tuple[Completed, int, float]:
    port = line.open(fault)
    options = [f"-p{port}", *ALIVE, f"-c{CIPHER}", "-oStrictHostKeyChecking=no"]
    argv = host.argv(["-Y", *options, "-oUserKnownHostsFile=/dev/null", "server", DRAW])
    started = time.monotonic()
    done = run(argv, env=host.environment, timeout=2 * PATIENCE)
    return done, line.units[port][1], time.monotonic() - started


@pytest.mark.parametrize("harm", [Harm.FIN, Harm.RST, Harm.FLIP, Harm.STALL])
def test_a_line_with_windows_is_cut_off(drawn: tuple[AgentHost, FaultyLine], harm: Harm) -> None:
    """Whatever the agent was about: an end in ssh's words, and nothing is left on the server."""
    host, line = drawn
    done, units, _ = run_drawing(host, line, Fault())
    assert (done.status, done.stdout) == (0, b"drawn\ndone\n"), done
    assert "X11: by the agent" in done.stderr
    # Two harms at each place: one that ends the line, and one that leaves it open.
    first = harm in (Harm.RST, Harm.STALL)
    places = sorted({9 + (units - 12) * part // 8 for part in range(first, 9, 2)})
    with ThreadPoolExecutor(4) as pool:
        ends = pool.map(lambda at: run_drawing(host, line, Fault(harm, at)), places)
        for at, (done, _, took) in zip(places, ends, strict=True):
            assert done.status in (255, 0 if b"done" in done.stdout else 255), (at, done)
            assert b"drawn\ndone\n".startswith(done.stdout), (at, done)
            assert not re.search("Traceback|internal error|Task ", done.stderr), (at, done)
            assert took < PATIENCE, at
    done, _, _ = run_drawing(host, line, Fault())
    assert "X11: by the agent" in done.stderr, "a broken line says nothing about the host"
