"""Servers and jump hosts that go silent or leave: given up in time, in ssh's words; people are not.

ssh limits the key exchange by ServerAliveInterval alone; xssh also by ConnectTimeout.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agents import NO_KEYS, OddAgent
from tests.support.asyncserver import AsyncServer, Policy
from tests.support.beside import PROGRAMS, Beside, without_remedy, write_askpass
from tests.support.clients import ClientHome
from tests.support.oddserver import OddServer
from tests.support.processes import Completed, end_popen, run, xssh_command
from tests.support.sshd import KeyRing
from tests.support.terminals import Terminal
from tests.support.xvfb import Xvfb

MSG_SERVICE_ACCEPT, MSG_NEWKEYS, MSG_USERAUTH_FAILURE, MSG_USERAUTH_SUCCESS = 6, 21, 51, 52
ALIVE = "ServerAliveInterval 1\nServerAliveCountMax 1"


@pytest.fixture
def odd_server(key_ring: KeyRing, private_places: Path) -> Iterator[OddServer]:
    server = OddServer(key_ring.host_keys["ed25519"], key_ring.client_key)
    yield server
    server.stop()


@pytest.fixture
def odd(
    odd_server: OddServer, client_home: ClientHome, spawn_in_pty: Callable[..., Terminal]
) -> Beside:
    return Beside(client_home, odd_server, spawn_in_pty)


def run_timed(odd: Beside, program: str, *words: str) -> tuple[float, Completed]:
    started = time.monotonic()
    done = odd.run(program, *words, timeout=20)
    return time.monotonic() - started, done


def assert_given_up(done: Completed, message: str) -> None:
    assert (done.status, done.stdout) == (255, b""), done
    assert without_remedy(done.stderr) == message, done.stderr
    assert done.stderr.splitlines()[-1].startswith("  try: ")


# Silent servers


@pytest.mark.parametrize("packet", [MSG_NEWKEYS, MSG_SERVICE_ACCEPT])
def test_silence_before_the_login_ends_with_the_connect_timeout(odd: Beside, packet: int) -> None:
    assert isinstance(odd.server, OddServer)
    odd.server.silent_from = packet
    took, done = run_timed(odd, "xssh", "-oConnectTimeout=1", "server", "true")
    assert_given_up(done, f"Connection to 127.0.0.1 port {odd.server.port} timed out\n")
    assert 0.9 < took < 8


@pytest.mark.parametrize("packet", [MSG_NEWKEYS, MSG_USERAUTH_FAILURE, MSG_USERAUTH_SUCCESS])
def test_silence_during_the_login_ends_as_with_ssh(odd: Beside, packet: int) -> None:
    assert isinstance(odd.server, OddServer)
    odd.server.silent_from = packet
    odd.server.asks_for_password = packet == MSG_USERAUTH_FAILURE
    words = [f"-o{line.replace(' ', '=')}" for line in ALIVE.splitlines()]
    expected = odd.run("ssh", *words, "server", "true")
    took, done = run_timed(odd, "xssh", *words, "server", "true")
    assert_given_up(done, expected.stderr)
    assert 0.9 < took < 8


@pytest.mark.parametrize("program", ["ssh", "xssh"])
def test_a_jump_host_that_never_answers(odd: Beside, program: str) -> None:
    assert isinstance(odd.server, OddServer)
    odd.server.stalls_jumps = True
    words = ["-J", "server", "-oConnectTimeout=2", "-oStrictHostKeyChecking=no", "127.0.0.9"]
    took, done = run_timed(odd, program, *words, "true")
    assert (done.status, done.stdout) == (255, b"")
    assert "Connection timed out during banner exchange\nConnection to " in done.stderr
    assert 1.9 < took < 12
    if program == "xssh":
        assert "  try: see that 127.0.0.9 can be reached from server; " in done.stderr


# People take their time


IMPATIENT = f"ConnectTimeout 1\n{ALIVE}"
LONG = 2.6
"""More than every limit of IMPATIENT."""


@pytest.fixture
def slow(odd: Beside) -> Beside:
    """A client whose limits are all shorter than its user's answers take."""
    text = odd.home.config.read_text()
    odd.home.config.write_text(text.replace("Host server\n", f"Host server\n{IMPATIENT}\n"))
    return odd


def answer_late(odd: Beside, words: list[str], steps: list[tuple[str, str]]) -> Terminal:
    terminal = odd.converse("xssh", words, [], status=False)
    for question, answer in steps:
        terminal.read_until(question)
        terminal.read_for(LONG)
        terminal.write(answer)
    terminal.wait()
    return terminal


def test_the_question_about_the_host_key_may_take_longer(slow: Beside) -> None:
    slow.home.known_hosts.write_text("")
    words = ["-oStrictHostKeyChecking=ask", "server", "true"]
    terminal = answer_late(slow, words, [(r"fingerprint\]\)\? ", "yes\n")])
    assert terminal.process.returncode == 0, terminal.output


def test_the_password_may_take_longer(slow: Beside) -> None:
    assert isinstance(slow.server, OddServer)
    slow.server.asks_for_password = True
    slow.forget_keys()
    terminal = answer_late(slow, ["server", "true"], [("password: ", "x\n")])
    assert terminal.process.returncode == 0, terminal.output


def test_an_askpass_program_may_take_longer(slow: Beside, short_directory: Path) -> None:
    assert isinstance(slow.server, OddServer)
    slow.server.asks_for_password = True
    slow.forget_keys()
    askpass, _ = write_askpass(short_directory, ["x"])
    askpass.write_text(askpass.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\nsleep {LONG}\n"))
    slow.variables = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    took, done = run_timed(slow, "xssh", "server", "true")
    assert done.status == 0, done
    assert took > LONG


@pytest.mark.parametrize(
    "program",
    ["ssh", "xssh"],
)
def test_an_agent_that_asks_its_user_may_take_longer(
    client_home: ClientHome,
    key_ring: KeyRing,
    spawn_in_pty: Callable[..., Terminal],
    short_directory: Path,
    program: str,
) -> None:
    """A key that wants to be confirmed or touched: the agent answers when its user has."""
    policy = Policy(keys=(Path(f"{key_ring.client_key}.pub"),))
    server = AsyncServer(policy, key_ring.host_keys["ed25519"], key_ring.client_key)
    login = Beside(client_home, server, spawn_in_pty, extra=IMPATIENT)
    agent = OddAgent(short_directory / "agent", say_slowly_that_there_is_no_key)
    try:
        login.variables = {"SSH_AUTH_SOCK": agent.path}
        took, done = run_timed(login, program, "server", "hi")
        assert (done.status, done.stdout) == (7, b"hi\n"), done
        assert took > LONG
    finally:
        agent.stop()
        server.stop()


def say_slowly_that_there_is_no_key(kind: int) -> bytes:
    time.sleep(LONG)
    return NO_KEYS


# Left while the session starts


@pytest.mark.parametrize(
    ("cut_at", "words"),
    [
        ("pty-req", ["-tt", "server", "true"]),
        ("exec", ["server", "true"]),
        ("exec", ["-tt", "server", "true"]),
        ("shell", ["-T", "server"]),
        ("shell", ["-tt", "server"]),
    ],
)
def test_a_connection_that_ends_while_the_session_starts(
    odd: Beside, cut_at: str, words: list[str]
) -> None:
    assert isinstance(odd.server, OddServer)
    odd.server.cut_at = cut_at
    done = odd.run("xssh", *words)
    assert_cut(done, "-tt" in words)


def assert_cut(done: Completed, terminal: bool) -> None:
    """Want ssh's words; where its own next write fails first, it says that instead."""
    broken = "client_loop: send disconnect: Broken pipe\n"
    closed = "Connection to 127.0.0.1 closed.\n" if terminal else ""
    said = f"Connection to 127.0.0.1 closed by remote host.\n{closed}"
    assert_given_up(done, broken if broken in done.stderr else said)


@pytest.mark.parametrize("words", [["-X"], ["-Y", "-tt"], ["-Y"]])
def test_a_connection_that_ends_at_the_request_for_x11(
    odd: Beside, xvfb: Xvfb, words: list[str]
) -> None:
    assert isinstance(odd.server, OddServer)
    odd.server.cut_at = "x11-req"
    argv = [*PROGRAMS["xssh"], *odd.home.arguments, *words, "server", "true"]
    done = run(argv, env=odd.home.environment(xvfb))
    assert_cut(done, "-tt" in words)


@pytest.mark.parametrize("option", ["--setup", "--doctor"])
def test_a_visit_ends_by_the_signal_that_ends_it(client_home: ClientHome, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = [option, "-F/dev/null", f"-p{silent.getsockname()[1]}", "127.0.0.1"]
        visit = subprocess.Popen(
            [*xssh_command(), *words],
            env=client_home.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            silent.settimeout(30)
            # The doctor's first check waits for the server's greeting; the login sends its own.
            with contextlib.ExitStack() as stack:
                ends: list[socket.socket] = [silent]
                while (speaking := select.select(ends, [], [], 30)[0]) == [silent]:
                    ends.append(stack.enter_context(silent.accept()[0]))
                assert speaking[-1].recv(4) == b"SSH-"
                visit.send_signal(signal.SIGTERM)
                _, said = visit.communicate(timeout=20)
        finally:
            end_popen(visit)
    assert (visit.returncode, said) == (-signal.SIGTERM, b"")
