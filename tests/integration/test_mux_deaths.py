"""Passengers and masters killed in every state: who is left goes on, and keeps nothing of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration._masters import Harbour, harbour
from tests.integration._pairs import PROGRAMS
from tests.integration._targets import echo, target
from tests.support.masters import open_descriptors
from tests.support.processes import end_popen, send_signal, wait_until
from tests.support.sshd import KeyRing
from tests.support.terminals import Terminal
from tests.support.warmstart import WORKER_ACCOUNT
from xsshpy.mux.messages import (
    PATH_PORT,
    CloseForward,
    Hello,
    NewSession,
    NewStdioForward,
    OpenForward,
    StartProxy,
    encode,
)
from xsshpy.mux.sockets import send_descriptors

KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
HELLO = encode(Hello())
SESSION = encode(NewSession(1, command=b"echo up; exec cat"))
STDIO = encode(NewStdioForward(1, host=b"127.0.0.1", port=9))


class World:
    """A master of xssh's, and what there was before anyone came."""

    def __init__(self, place: Harbour, master: subprocess.Popen[bytes]) -> None:
        self.place = place
        self.master = master
        self._processes = set(place.server.sessions())
        assert place.run("ssh", "server", "true").status == 0
        # What that session had is given back after its passenger has left.
        wait_until(lambda: set(place.server.sessions()) == self._processes, what="its end")
        time.sleep(0.2)
        self._descriptors = open_descriptors(master.pid)

    def has_taken(self, count: int) -> bool:
        """Say whether the master holds so many descriptors more than at first."""
        return open_descriptors(self.master.pid) >= self._descriptors + count

    def hold_server(self, number: int) -> None:
        """Stop what serves the master's connection, or let it go on."""
        for pid in self._processes:
            send_signal(pid, number)

    def require_nothing_left(self) -> None:
        """AssertionError unless all is as it was, and the next passenger is served."""
        sessions = self.place.server.sessions
        wait_until(lambda: set(sessions()) <= self._processes, what="the remote command's end")
        wait_until(
            lambda: open_descriptors(self.master.pid) <= self._descriptors,
            what="the descriptors' end",
        )
        done = self.place.run("ssh", "-oProxyCommand=false", "server", "echo on")
        assert done == (0, b"on\n", "")


@pytest.fixture(scope="module")
def world(key_ring: KeyRing, long_lived_processes: set[int]) -> Iterator[World]:
    with harbour(key_ring) as place:
        made = World(place, place.open_master(program="xssh"))
        long_lived_processes.update([made.master.pid, *place.server.sessions()])
        yield made


# -- passengers --

SAID: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 0),
    "half a hello": (HELLO[:7], 0),
    "a hello": (HELLO, 0),
    "half a message": (HELLO + SESSION[:20], 0),
    "a session without its descriptors": (HELLO + SESSION, 0),
    "a session with one of them": (HELLO + SESSION, 1),
    "a session with two of them": (HELLO + SESSION, 2),
    "a session": (HELLO + SESSION, 3),
    "a session, and half a message": (HELLO + SESSION, 4),
    "a stdio forward with one of its descriptors": (HELLO + STDIO, 1),
    "a stdio forward": (HELLO + STDIO, 2),
    "proxy mode": (HELLO + encode(StartProxy(1)), 0),
    "proxy mode and half a packet": (HELLO + encode(StartProxy(1)) + b"\0\0\0\x20\0Zxx", 0),
    "proxy mode and a session that opens": (
        HELLO
        + encode(StartProxy(1))
        + b"\0\0\0\x19\0Z\0\0\0\x07session\0\0\0\x00\0\1\0\0\0\0\x40\0",
        0,
    ),
}


@pytest.mark.parametrize("state", SAID)
def test_a_passenger_that_is_gone_halfway(world: World, state: str) -> None:
    said, descriptors = SAID[state]
    for number in range(3):
        with world.place.connect() as connection, contextlib.ExitStack() as stack:
            connection.sendall(said)
            for end in os.pipe():
                stack.callback(os.close, end)
            with contextlib.suppress(ConnectionError):
                # What the master refuses it may refuse before the last of them is sent.
                send_descriptors(connection, (end,) * descriptors)
            if number == 1:
                connection.shutdown(socket.SHUT_WR)
            elif number == 2:
                connection.recv(1)
    world.require_nothing_left()


def test_a_forward_that_nobody_waits_for(world: World, short_directory: Path) -> None:
    """It stays, as with ssh, until it is closed."""
    path = os.fsencode(short_directory / "listen")
    place = (1, path, PATH_PORT, b"127.0.0.1", 9)
    with world.place.connect() as connection:
        connection.sendall(HELLO + encode(OpenForward(1, *place)))
    wait_until((short_directory / "listen").exists, what="the forward")
    with world.place.connect() as connection:
        connection.sendall(HELLO + encode(CloseForward(1, *place)))
        connection.recv(4096)
    world.require_nothing_left()
    (short_directory / "listen").unlink(missing_ok=True)


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def _kill(process: subprocess.Popen[bytes], number: int) -> int:
    send_signal(process.pid, number)
    process.communicate(timeout=10)
    return process.returncode


@pytest.mark.parametrize("command", ["echo up; cat; echo on", "echo up; exec cat /dev/zero"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_passenger_killed_in_its_session(world: World, program: str, command: str) -> None:
    for number in KILLS:
        passenger = world.place.start(program, "server", command)
        assert _first_line(passenger) == b"up\n"
        # The command may be quicker than the passenger, who has yet to say what signals do.
        assert _kill(passenger, number) in (-number, 255)
        world.require_nothing_left()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_passenger_killed_in_its_terminal(
    world: World, program: str, spawn_in_pty: Callable[..., Terminal]
) -> None:
    for number in KILLS:
        argv = world.place.argv(program, ["-t", "server", "echo up; cat"])
        terminal = spawn_in_pty(argv, env=world.place.home.environment())
        terminal.read_until("up")
        wait_until(lambda: terminal.is_raw, what="raw mode")  # noqa: B023  (at once)
        send_signal(terminal.process.pid, number)
        assert terminal.wait() == (-number if number == signal.SIGKILL else 255)
        assert terminal.is_restored or number == signal.SIGKILL
        world.require_nothing_left()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_passenger_killed_while_its_session_opens(world: World, program: str) -> None:
    for number in KILLS:
        world.hold_server(signal.SIGSTOP)
        try:
            passenger = world.place.start(program, "server", "echo up; cat")
            wait_until(lambda: world.has_taken(4), what="the descriptors")
            send_signal(passenger.pid, number)
            passenger.wait(10)
        finally:
            world.hold_server(signal.SIGCONT)
        passenger.communicate(timeout=10)
        world.require_nothing_left()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_passenger_killed_in_its_forward(world: World, program: str) -> None:
    with target(echo) as server:
        for number in KILLS:
            for words in (
                ["-W", server.address, "server"],
                ["-O", "proxy", "server", "cat"],
            ):
                passenger = world.place.start(program, *words)
                assert passenger.stdin is not None
                passenger.stdin.write(b"up\n")
                passenger.stdin.flush()
                assert _first_line(passenger) == b"up\n"
                _kill(passenger, number)
        world.require_nothing_left()


@pytest.mark.parametrize(
    "words", [["server", "echo aboard"], ["-O", "forward", "-L", "@:a:1", "server"]]
)
def test_a_passenger_killed_while_the_user_is_asked(
    key_ring: KeyRing, private_places: Path, session_directory: Path, words: list[str]
) -> None:
    with harbour(key_ring, session_directory / WORKER_ACCOUNT) as place:
        asked, askpass = place.folder / "asked", place.folder / "askpass"
        askpass.write_text(
            f'#!/bin/sh\necho "$1" >> {asked}; n=$(grep -c "" {asked})\n'
            f"until [ -e {place.folder}/answer$n ]; do sleep 0.02; done; echo yes\n"
        )
        askpass.chmod(0o755)
        variables = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
        master = place.open_master("-M", program="xssh", **variables)
        for turn, (number, program) in enumerate(
            ((signal.SIGKILL, "ssh"), (signal.SIGTERM, "xssh")), 1
        ):
            path = f"{place.folder}/listen{turn}"
            passenger = place.start(program, *(word.replace("@", path) for word in words))
            wait_until(
                lambda turn=turn: asked.exists() and len(asked.read_text().splitlines()) == turn,
                what="the question",
            )
            send_signal(passenger.pid, number)
            passenger.wait(10)
            (place.folder / f"answer{turn}").touch()
            passenger.communicate(timeout=10)
        (place.folder / "answer3").touch()
        done = place.run("ssh", "-oProxyCommand=false", "server", "echo on")
        assert done == (0, b"on\n", "")
        assert master.poll() is None


# -- masters --


def _outcome(passenger: subprocess.Popen[bytes]) -> tuple[int, bytes, str]:
    out, err = passenger.communicate(timeout=20)
    said = _without_our_words(err.decode().replace("\r\n", "\n"))
    return passenger.returncode, out, said


def _without_our_words(text: str) -> str:
    return text.replace("xssh: the connection that this session shared has ended\n", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("master", PROGRAMS)
def test_a_master_killed_under_its_passengers(
    key_ring: KeyRing,
    private_places: Path,
    session_directory: Path,
    spawn_in_pty: Callable[..., Terminal],
    master: str,
    number: int,
) -> None:
    """In each state both passengers end as ssh does; a terminal is as it was."""
    with harbour(key_ring, session_directory / WORKER_ACCOUNT) as place, target(echo) as server:
        process = place.open_master(program=master)
        before = place.server.sessions()
        words = {
            "in its session": ["server", "cat"],
            "in a stdio forward": ["-W", server.address, "server"],
            "in proxy mode": ["-O", "proxy", "server", "cat"],
        }
        aboard = {
            (state, program): place.start(program, *each)
            for state, each in words.items()
            for program in PROGRAMS
        }
        for passenger in aboard.values():
            assert passenger.stdin is not None
            passenger.stdin.write(b"up\n")
            passenger.stdin.flush()
            assert _first_line(passenger) == b"up\n"
        terminals = [
            spawn_in_pty(
                place.argv(program, ["-t", "server", "echo up; cat"]), env=place.home.environment()
            )
            for program in PROGRAMS
        ]
        for terminal in terminals:
            terminal.read_until("up")
            wait_until(lambda: terminal.is_raw, what="raw mode")  # noqa: B023  (at once)
        held = open_descriptors(process.pid)
        for pid in before:
            send_signal(pid, signal.SIGSTOP)
        for program in PROGRAMS:
            aboard["while it opens", program] = place.start(program, "server", "echo own")
        wait_until(lambda: open_descriptors(process.pid) >= held + 8, what="the descriptors")
        send_signal(process.pid, number)
        shown = []
        for terminal in terminals:
            assert terminal.wait() == 255 and terminal.is_restored
            shown.append(_without_our_words(terminal.output.decode().replace("\r", "")))
        assert shown[0] == shown[1]
        ended = {key: _outcome(passenger) for key, passenger in aboard.items()}
        for pid in before:
            send_signal(pid, signal.SIGCONT)
        for state in dict.fromkeys(state for state, _ in aboard):
            assert ended[state, "xssh"] == ended[state, "ssh"], state
        assert ended["in its session", "xssh"] == (255, b"", "")
        process.wait(10)
        end_popen(process)
