"""A live master among peers that send anything: it goes on, keeps nothing, and serves the next."""

from __future__ import annotations

import array
import contextlib
import os
import random
import resource
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.integration._masters import Harbour, harbour
from tests.integration._targets import resident_memory
from tests.support.masters import open_descriptors
from tests.support.processes import wait_until
from tests.support.sshd import KeyRing
from xsshpy.mux.master import MOST_COMPLAINTS, MOST_PEERS
from xsshpy.mux.messages import (
    AliveCheck,
    CloseForward,
    FrameReader,
    Hello,
    NewSession,
    NewStdioForward,
    OpenForward,
    StartProxy,
    StopListening,
    Terminate,
    encode,
)

HELLO = encode(Hello())
REQUESTS = [
    encode(NewSession(1, want_tty=True, term=b"xterm", command=b"x", variables=(b"A=b",))),
    encode(NewSession(1, subsystem=True, command=b"sftp")),
    encode(NewSession(1, want_agent=True, escape=126, command=b"cat")),
    encode(OpenForward(2, 2, b"", 0, b"127.0.0.1", 9)),
    encode(OpenForward(2, 1, b"/nowhere/at/all", 0xFFFFFFFE, b"127.0.0.1", 9)),
    encode(CloseForward(3, 2, b"", 0, b"127.0.0.1", 9)),
    encode(NewStdioForward(4, host=b"127.0.0.1", port=9)),
    encode(AliveCheck(5)),
    encode(StartProxy(5)),
    struct.pack(">IBB", 25, 0, 90) + b"\0\0\0\7session" + bytes(12),
    struct.pack(">IBB", 12, 0, 94) + bytes(10),
    struct.pack(">IBB", 30, 0, 80) + b"\0\0\0\rtcpip-forward\1" + bytes(10),
]
LENGTHS = (0, 1, 3, 4, 0x40000, 0x40001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
STRANGERS = 4000
MOST_GROWTH = 24 << 20
"""Bytes that the master may hold more than before, whatever came."""


class Port:
    """A master of xssh's, and what it held before anyone came."""

    def __init__(self, place: Harbour) -> None:
        self.place = place
        self.log = place.folder / "log"
        self.pid = place.open_master("-E", str(self.log), program="xssh").pid
        self.serve_one()
        self.descriptors = open_descriptors(self.pid)
        self.memory = resident_memory(self.pid)

    def serve_one(self) -> None:
        """AssertionError unless a passenger is served."""
        done = self.place.run("ssh", "-oProxyCommand=false", "server", "echo on")
        assert done == (0, b"on\n", "")

    def require_as_before(self) -> None:
        """AssertionError where something is left of who came."""
        self.serve_one()
        # A port that was asked for of the server may be there for good, as with ssh.
        wait_until(lambda: open_descriptors(self.pid) <= self.descriptors + 2, what="descriptors")
        assert resident_memory(self.pid) - self.memory < MOST_GROWTH


@pytest.fixture(scope="module")
def port(key_ring: KeyRing, long_lived_processes: set[int]) -> Iterator[Port]:
    with harbour(key_ring) as place:
        made = Port(place)
        long_lived_processes.update([made.pid, *place.server.sessions()])
        yield made


def _pass(connection: socket.socket, count: int) -> None:
    """Send descriptors in one message, all of them with one byte."""
    rights = array.array("i", [0] * count)
    connection.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def test_strangers_by_the_thousand(port: Port) -> None:
    """Good messages with some bytes changed, cut anywhere, with descriptors anywhere."""
    chance = random.Random(11)
    for _ in range(STRANGERS):
        data = bytearray(HELLO + b"".join(chance.choices(REQUESTS, k=chance.randrange(1, 5))))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if any(encode(request)[4:8] in data for request in (Terminate(1), StopListening(1))):
            continue
        with port.place.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(data[: chance.randrange(len(data) + 1)])
            if chance.random() < 0.3:
                _pass(connection, chance.choice((1, 1, 2, 3, 100)))
                connection.sendall(data[: chance.randrange(9)])
    port.require_as_before()
    # One can fill neither the log nor a stderr that nobody reads.
    complaints = ("mux_master_read_cb: ", "unsupported mux message ")
    said = [line for line in port.log.read_text().splitlines() if line.startswith(complaints)]
    assert len(said) == MOST_COMPLAINTS


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("before", [b"", HELLO], ids=["first", "after hello"])
def test_any_announced_length(port: Port, before: bytes, length: int) -> None:
    """Nothing is held for what is only announced; what can be no message ends the talk."""
    with port.place.connect() as connection:
        connection.sendall(before + struct.pack(">I", length))
        if length in (0, 1, 3) or length > 0x40000:
            with contextlib.suppress(ConnectionError):
                connection.sendall(bytes(length if length < 4 else 4))
                while connection.recv(4096):
                    pass
    port.require_as_before()


def test_floods_of_descriptors(port: Port) -> None:
    session = encode(NewSession(1, command=b"echo never"))
    for before in (b"", HELLO, HELLO[:6], HELLO + session, HELLO + session[:10]):
        for count in (2, 4, 250):
            with port.place.connect() as connection, contextlib.suppress(ConnectionError):
                connection.sendall(before)
                for _ in range(20):
                    _pass(connection, count)
    port.require_as_before()


def test_questions_without_end_of_one_who_takes_no_answer(port: Port) -> None:
    questions = encode(AliveCheck(1)) * 10_000
    with port.place.connect() as connection:
        connection.sendall(HELLO)
        connection.settimeout(0.5)
        sent = 0
        # It stops when the master has hung up, or reads no more.
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < 64 << 20:
                connection.sendall(questions)
                sent += len(questions)
        assert sent < 64 << 20
    port.require_as_before()


@pytest.mark.parametrize("said", [b"", HELLO[:5], HELLO, HELLO + b"\0\0\0\x09\x10"])
def test_peers_that_say_no_more(port: Port, said: bytes) -> None:
    """There is room for who has something to say, however many sit there."""
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_PEERS + 30):
            connection = stack.enter_context(port.place.connect())
            with contextlib.suppress(ConnectionError):
                connection.sendall(said)
        port.serve_one()
        assert open_descriptors(port.pid) <= port.descriptors + MOST_PEERS + 2
    port.require_as_before()


def test_who_is_aboard_is_not_put_ashore(port: Port) -> None:
    aboard = port.place.start("ssh", "server", "cat")
    proxied = port.place.start("ssh", "-O", "proxy", "server", "cat")
    for each in (aboard, proxied):
        assert each.stdin is not None and each.stdout is not None
        each.stdin.write(b"a\n")
        each.stdin.flush()
        assert each.stdout.readline() == b"a\n"
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_PEERS + 30):
            stack.enter_context(port.place.connect())
        port.serve_one()
        for each in (aboard, proxied):
            assert each.communicate(b"b\n")[0] == b"b\n"
    port.require_as_before()


def test_answers_are_whole_whatever_else_goes_on(port: Port) -> None:
    with port.place.connect() as connection:
        connection.sendall(HELLO + b"".join(encode(AliveCheck(n)) for n in range(500)))
        reader, seen = FrameReader(), 0
        while seen < 501:
            reader.receive_data(connection.recv(4096))
            while reader.next_frame() is not None:
                seen += 1
    port.require_as_before()
    assert os.path.exists(port.place.path)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > MOST_PEERS
