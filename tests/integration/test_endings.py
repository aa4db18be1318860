"""What is said when a connection ends in the middle of things: ssh's words, and where they go."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest
from asyncssh.constants import MSG_DISCONNECT
from asyncssh.packet import String, UInt32

from tests.support.beside import PROGRAMS, Beside, without_remedy
from tests.support.clients import ClientHome
from tests.support.oddserver import OddServer
from tests.support.sshd import KeyRing, SshServer
from tests.support.terminals import Terminal
from tests.support.tools import openssh_release

RESET = struct.pack("ii", 1, 0)


class Meddler:
    """A go-between that passes everything on until ``act`` is called, then does one thing."""

    def __init__(self, server: SshServer) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._deed = ""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept, name="meddler")]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((self._server.host, self._server.port))
            self._pairs.append((client, server))
            for pair, meddle in ((client, server), False), ((server, client), True):
                thread = threading.Thread(target=self._pump, args=(*pair, meddle), name="pump")
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, meddle: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if meddle and self._deed.isdecimal():
                    place, self._deed = int(self._deed), ""
                    spoilt = bytearray(data)
                    spoilt[place] ^= 1
                    data = bytes(spoilt)
                sink.sendall(data)

    def act(self, deed: str) -> None:
        """``reset``, ``hang up``, or the place of the next byte from the server to be changed."""
        self._deed = deed
        client = self._pairs[-1][0]
        if deed == "hang up":
            client.shutdown(socket.SHUT_RDWR)
        elif deed == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            # The other thread waits in recv(): closing is not enough to send it.
            self._reset(client)

    def _reset(self, client: socket.socket) -> None:
        # connect() to "no address" dissolves a connection: with linger 0 by a reset.
        with contextlib.suppress(OSError):
            import ctypes

            nowhere = struct.pack("H14x", socket.AF_UNSPEC)
            ctypes.CDLL(None).connect(client.fileno(), nowhere, len(nowhere))

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            for each in pair:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def meddler(sshd: SshServer) -> Iterator[Meddler]:
    meddler = Meddler(sshd)
    yield meddler
    meddler.stop()


@pytest.fixture
def login(
    sshd: SshServer, client_home: ClientHome, spawn_in_pty: Callable[..., Terminal]
) -> Beside:
    login = Beside(client_home, sshd, spawn_in_pty, extra="HostKeyAlias known")
    client_home.known_hosts.write_text(sshd.known_hosts_lines("known"))
    return login


def end_session(login: Beside, meddler: Meddler, program: str, words: list[str], deed: str) -> str:
    """Start a session, let the go-between do its deed, and return what was said then."""
    seen = login.converse(
        program, [*words, "-p", str(meddler.port), "server", "echo ready; read x; echo y"], [],
        status=False,
    )  # fmt: skip
    seen.read_until("ready")
    seen.read_for(0.3)
    meddler.act(deed)
    if deed.isdecimal():
        seen.write("x\n")
    assert seen.wait(10) == 255
    said = seen.output.decode().replace("\r", "").partition("ready\n")[2]
    masked = re.sub(r"port \d+", "port N", re.sub(r"length \d+", "length N", said))
    return re.sub(r"^x\n", "", masked)


CLOSED = "Connection to 127.0.0.1 closed by remote host.\n"
FATAL = "ssh_dispatch_run_fatal: Connection to 127.0.0.1 port N: "
READ_FAILURE = "Read from remote host 127.0.0.1: Connection reset by peer\n"
if openssh_release() < (9, 8):
    READ_FAILURE = ""
WRONG = f"{FATAL}message authentication code incorrect\n"


@pytest.mark.parametrize(
    ("words", "deed", "expected"),
    [
        (["-T"], "hang up", CLOSED),
        (["-tt"], "hang up", f"{CLOSED}Connection to 127.0.0.1 closed.\n"),
        (["-T", "-q"], "hang up", CLOSED),
        (["-tt", "-q"], "hang up", CLOSED),
        (["-T"], "reset", "client_loop: send disconnect: Broken pipe\n"),
        (["-T", "-q"], "reset", ""),
        (["-T", "-oCiphers=aes128-gcm@openssh.com"], "9", WRONG),
        (["-T", "-oCiphers=aes128-gcm@openssh.com", "-oLogLevel=ERROR"], "9", ""),
        (["-T", "-oCiphers=chacha20-poly1305@openssh.com"], "9", WRONG),
        (
            ["-T", "-oCiphers=aes128-ctr", "-oMACs=hmac-sha2-256-etm@openssh.com"],
            "9",
            f"Corrupted MAC on input.\n{WRONG}",
        ),
        (
            ["-T", "-oCiphers=aes128-gcm@openssh.com"],
            "0",
            f"Bad packet length N.\n{FATAL}Connection corrupted\n",
        ),
    ],
)
def test_a_session_that_is_cut_off(
    login: Beside, meddler: Meddler, words: list[str], deed: str, expected: str
) -> None:
    said = [end_session(login, meddler, program, words, deed) for program in PROGRAMS]
    assert said == [READ_FAILURE * (deed == "reset") + expected] * 2


def test_an_end_is_said_on_stderr_and_logged_in_the_log(
    login: Beside, meddler: Meddler, short_directory: Path
) -> None:
    for program in PROGRAMS:
        log = short_directory / program
        assert end_session(login, meddler, program, ["-T", "-E", str(log)], "hang up") == CLOSED
        assert log.read_text() == ""
        said = end_session(login, meddler, program, ["-T", "-E", str(log)], "reset")
        assert said == READ_FAILURE
        assert "client_loop: send disconnect: Broken pipe" in log.read_text()


# Farewells, and signatures that are wrong


@pytest.fixture
def odd_server(key_ring: KeyRing, private_places: Path) -> Iterator[OddServer]:
    server = OddServer(key_ring.host_keys["ed25519"], key_ring.client_key)
    yield server
    server.stop()


@pytest.mark.parametrize("code", [2, 11])
def test_a_server_that_says_goodbye_in_a_session(
    odd_server: OddServer,
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    code: int,
) -> None:
    async def leave(connection: asyncssh.SSHServerConnection, log: list[str]) -> None:
        # The client closes: had the server closed already, what a client still sends would be
        # answered by a reset, which takes the words away before they are read.
        words = (UInt32(code), String("the owner wants to go home"), String(""))
        connection.send_packet(MSG_DISCONNECT, *words)
        await connection.wait_closed()

    odd_server.on_session = leave
    odd = Beside(client_home, odd_server, spawn_in_pty)
    for words in ([], ["-q"], ["-oLogLevel=FATAL"]):
        expected, found = (odd.run(p, *words, "server", "true") for p in PROGRAMS)
        assert (found.status, without_remedy(found.stderr)) == (255, expected.stderr)


def test_a_host_key_that_signs_nothing(
    key_ring: KeyRing,
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    private_places: Path,
) -> None:
    """The key is the right one, the signature is not: somebody else holds the other end."""
    server = OddServer(key_ring.host_keys["ed25519"], key_ring.client_key)
    try:
        server.forges_signatures = True
        odd = Beside(client_home, server, spawn_in_pty)
        expected, found = (odd.run(program, "server", "true") for program in PROGRAMS)
        assert expected.stderr.endswith(": incorrect signature\n")
        assert (found.status, without_remedy(found.stderr)) == (255, expected.stderr)
    finally:
        server.stop()


GREETING = b"SSH-2.0-odd\r\n"


def length(number: int) -> bytes:
    return number.to_bytes(4, "big")


@pytest.mark.parametrize("level", ["INFO", "ERROR", "QUIET"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("leaves at once", b""),
        ("leaves after its greeting", GREETING),
        ("is no SSH server", b"HTTP/1.1 400 Bad Request\r\nx\0y\r\n"),
        ("sends nonsense", GREETING + b"\xff" * 64),
        ("sends too long a packet", GREETING + length(1 << 24) + bytes(60)),
        ("disconnects", GREETING + length(20) + b"\x04\x01" + length(2) + length(3) + b"bye"
         + length(0) + bytes(3)),
    ],
)  # fmt: skip
def test_a_handshake_that_fails_at_each_level(
    client_home: ClientHome, kind: str, said: bytes, level: str
) -> None:
    from tests.integration.test_connection_faults import Peer, run_program

    def talk(connection: socket.socket) -> None:
        connection.sendall(said)
        if kind.startswith("leaves"):
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    peer = Peer(talk)
    try:
        words = ["-p", str(peer.port), f"-oLogLevel={level}", "127.0.0.1", "true"]
        expected, found = (run_program(program, client_home, *words) for program in PROGRAMS)
    finally:
        peer.close()
    assert (found.status, without_remedy(found.stderr)) == (255, expected.stderr)
