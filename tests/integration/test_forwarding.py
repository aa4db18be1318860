"""Port forwarding, beside ssh: -L, -R, -D, and -R as a SOCKS proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import stat
import struct
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import Byte, String, UInt32

from tests.integration._pairs import PROGRAMS, Pair, describe_difference, plain
from tests.integration._targets import (
    PATIENCE,
    Place,
    dial,
    digest,
    echo,
    fill,
    mirror,
    read_all,
    resident_memory,
    target,
)
from tests.support.asyncserver import AsyncServer, Policy
from tests.support.beside import alike
from tests.support.clients import ClientHome
from tests.support.oddserver import OddServer
from tests.support.processes import Completed, wait_until
from tests.support.sessions import Session, started
from tests.support.sshd import KeyRing, SshServer, free_port
from tests.support.terminals import Terminal
from xsshpy.console import Console
from xsshpy.settings import Invocation
from xsshpy.ssh.connect import connect
from xsshpy.ssh.forward import Forwarder
from xsshpy.ssh.forward_spec import parse_forwards
from xsshpy.ssh.proxied import ChannelProxy
from xsshpy.ssh.resolve import resolve_settings

both_programs = pytest.mark.parametrize("program", PROGRAMS)
MEGABYTE = 1 << 20


@contextmanager
def running(pair: Pair, program: str, *words: str) -> Iterator[Session]:
    """Run ssh or xssh in the background; what follows the options is ``server``."""
    argv = pair.argv(program, [*words, "server"])
    with started(argv, pair.environment, pair.home.path) as session:
        yield session


def lines(text: str) -> list[str]:
    return text.replace("\r", "").splitlines()


# --- Carried ------------------------------------------------------------------------------------


def exchange(place: Place, data: bytes) -> bytes:
    """Send everything, end our direction, and read the answer, which comes only then."""
    with dial(place) as caller:
        caller.sendall(data)
        caller.shutdown(socket.SHUT_WR)
        return read_all(caller)


@both_programs
def test_every_kind_of_socket_on_both_sides(
    pair: Pair, program: str, short_directory: Path
) -> None:
    """Both ways, TCP and unix, whole and in order, with a half-close in between."""
    data = os.urandom(300_000)
    with target(mirror) as by_port, target(mirror, short_directory / "target") as by_path:
        places: list[Place] = []
        words = ["-N"]
        for option in ("-L", "-R"):
            for aim in (by_port, by_path):
                port, path = free_port(), short_directory / f"{option}{len(places)}"
                places += [port, path]
                words += [option, f"{port}:{aim.address}", option, f"{path}:{aim.address}"]
        with running(pair, program, *words) as session:
            for place in places:
                assert exchange(place, data) == data[::-1], place
            assert by_port.wait_for(4) == by_path.wait_for(4) == [digest(data)] * 4
            assert session.stderr == ""
            session.signal(signal.SIGTERM)
            session.wait()


def directions(pair: Pair, aim: str) -> dict[str, tuple[Place, list[str]]]:
    """Return a port and the words for each direction."""
    ports = {option: free_port() for option in ("-L", "-R")}
    return {option: (port, [option, f"{port}:{aim}"]) for option, port in ports.items()}


@pytest.mark.parametrize("option", ["-L", "-R"])
@both_programs
def test_target_that_ends_its_direction_first(pair: Pair, program: str, option: str) -> None:
    """The other direction stays open, for as long as it likes."""

    def say_and_listen(connection: socket.socket) -> bytes:
        connection.sendall(b"first")
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)

    with target(say_and_listen) as server:
        place, words = directions(pair, server.address)[option]
        with running(pair, program, "-N", *words), dial(place) as caller:
            assert read_all(caller) == b"first"
            time.sleep(0.2)
            caller.sendall(b"later" * 1000)
            caller.close()
            assert server.wait_for() == [b"later" * 1000]


@pytest.mark.parametrize("option", ["-L", "-R"])
@both_programs
def test_resets(pair: Pair, program: str, option: str) -> None:
    """Whoever breaks off takes the other side along."""

    def break_off(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    def wait_for_end(connection: socket.socket) -> bytes:
        connection.sendall(b"hello")
        with contextlib.suppress(ConnectionResetError):
            return read_all(connection)
        return b""

    def answer_and_break_off(connection: socket.socket) -> None:
        connection.sendall(connection.recv(9))
        connection.recv(9)
        break_off(connection)

    with target(wait_for_end) as server, target(answer_and_break_off) as rude:
        place, words = directions(pair, server.address)[option]
        other, more = directions(pair, rude.address)[option]
        with running(pair, program, "-N", *words, *more):
            with dial(place) as caller:
                assert caller.recv(9) == b"hello"
                break_off(caller)
            assert server.wait_for() == [b""]
            with dial(other) as caller:
                caller.sendall(b"x")
                assert caller.recv(9) == b"x"
                caller.sendall(b"y")
                with contextlib.suppress(ConnectionResetError):
                    assert caller.recv(9) == b""


@pytest.mark.parametrize("option", ["-L", "-R"])
@pytest.mark.parametrize("slow", ["caller", "target"])
def test_slow_reader(pair: Pair, option: str, slow: str) -> None:
    """Who does not read holds the sender back, and nothing is lost when it reads on."""
    go_on = threading.Event()

    def flood(connection: socket.socket) -> int:
        sent = fill(connection)
        connection.shutdown(socket.SHUT_WR)
        return sent

    def sleep_and_count(connection: socket.socket) -> int:
        go_on.wait(PATIENCE)
        return len(read_all(connection))

    with target(flood if slow == "caller" else sleep_and_count) as server:
        place, words = directions(pair, server.address)[option]
        with running(pair, "xssh", "-N", *words) as session, dial(place) as caller:
            before = resident_memory(session.process.pid)
            if slow == "caller":
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                wait_until(lambda: server.seen, timeout=PATIENCE, what="a full pipe")
                sent = server.seen[0]
            else:
                sent = fill(caller)
                caller.shutdown(socket.SHUT_WR)
            grown = resident_memory(session.process.pid) - before
            assert isinstance(sent, int)
            assert MEGABYTE < sent < 40 * MEGABYTE
            assert grown < 40 * MEGABYTE
            if slow == "caller":
                assert len(read_all(caller)) == sent
            else:
                go_on.set()
                assert server.wait_for() == [sent]


@pytest.mark.parametrize("option", ["-L", "-R"])
def test_many_at_once(pair: Pair, option: str) -> None:
    with target(echo) as server:
        place, words = directions(pair, server.address)[option]
        with running(pair, "xssh", "-N", *words) as session:
            with contextlib.ExitStack() as stack:
                callers = [stack.enter_context(dial(place)) for _ in range(150)]
                for number, caller in enumerate(callers):
                    caller.sendall(b"%03d" % number)
                for number, caller in enumerate(callers):
                    assert caller.recv(9) == b"%03d" % number
            server.wait_for(150)
            descriptors = f"/proc/{session.process.pid}/fd"
            if os.path.isdir(descriptors):
                wait_until(lambda: len(os.listdir(descriptors)) < 30, what="closed descriptors")
            assert exchange(place, b"still") == b"still"
            assert session.stderr == ""


def test_more_connections_than_descriptors(pair: Pair) -> None:
    """They wait for their turn; nothing else runs out of descriptors."""
    with target(echo) as server:
        place, words = directions(pair, server.address)["-L"]
        argv = pair.argv("xssh", ["-N", *words, "server"])
        limited = ["bash", "-c", 'ulimit -n 80; exec "$@"', "bash", *argv]
        with started(limited, pair.environment, pair.home.path) as session:
            with contextlib.ExitStack() as stack:
                callers = [stack.enter_context(dial(place)) for _ in range(100)]
                for caller in callers:
                    caller.sendall(b"x")
                assert callers[0].recv(9) == b"x"
                assert callers[20].recv(9) == b"x"
                for caller in callers[:70]:
                    caller.close()
                assert callers[99].recv(9) == b"x"
            assert session.runs
            assert session.stderr == ""


# --- What goes wrong, in ssh's words ------------------------------------------------------------


def messages_of(pair: Pair, program: str, words: list[str], act: Callable[[], None]) -> list[str]:
    """Return what one of the two says until the remote command ends."""
    argv = pair.argv(program, [*words, "server", "echo ready; sleep 1"])
    with started(argv, pair.environment, pair.home.path) as session:
        session.wait_for_output("ready")
        act()
        return lines(session.wait().stderr)


def test_refused_targets(pair: Pair) -> None:
    """Every caller is hung up on; channels have the numbers that ssh would give them."""
    aims = ["127.0.0.1:1", "/nonexistent", "nohost.invalid:1"]
    forwards = [(option, aim, free_port()) for option in ("-L", "-R") for aim in aims]
    words = [word for option, aim, port in forwards for word in (option, f"{port}:{aim}")]

    def call_twice() -> None:
        for _, _, port in forwards * 2:
            with dial(port) as caller, contextlib.suppress(ConnectionResetError):
                assert caller.recv(9) == b""

    said = {program: messages_of(pair, program, words, call_twice) for program in PROGRAMS}
    assert said["xssh"] == said["ssh"]
    assert len(said["ssh"]) == 2 * len(forwards)


def test_listeners_that_fail(pair: Pair, short_directory: Path) -> None:
    """With ExitOnForwardFailure both end with the same words and the same status."""
    path = short_directory / "there"
    path.touch()
    with target(echo) as busy:
        port = busy.place
        local = ["-L", f"nohost.invalid:{free_port()}:a:1"]
        local += ["-L", f"203.0.113.7:{free_port()}:a:1", "-L", f"{path}:a:1"]
        for words in (
            [*local, "-D", f"127.0.0.1:{port}", "-R", f"127.0.0.1:{port}:a:1"],
            ["-L", "/nonexistent/x:a:1"],
            ["-L", f"{free_port()}:a:1", "-L", f"127.0.0.1:{port}:a:1"],
            ["-R", f"127.0.0.1:{port}:a:1", "-R", f"127.0.0.1:{port}:b:1"],
            ["-R", "/nonexistent/x:a:1"],
        ):
            done = pair.both(["-N", "-oExitOnForwardFailure=yes", *words, "server"])
            assert done.status == 255
            assert done.stderr


def test_listeners_that_fail_do_not_end_a_session(pair: Pair) -> None:
    with target(echo) as busy:
        failing = f"127.0.0.1:{busy.place}:a:1"
        one = ["-L", failing, "-R", failing, "-R", "/nonexistent/x:a:1"]
        two = ["-L", failing, "-L", f"{free_port()}:a:1"]
        for words in (one, two):
            done = pair.both([*words, "server", "echo out; exit 3"])
            assert (done.status, done.stdout) == (3, b"out\n")
            assert "cannot listen" in done.stderr
    assert pair.both(["-q", *one, "server", "exit 3"]).stderr == ""


@both_programs
def test_port_that_the_server_chooses(pair: Pair, program: str, short_directory: Path) -> None:
    path = short_directory / "target"
    with target(mirror) as by_port, target(mirror, path) as by_path:
        words = ["-R", f"0:{by_port.address}", "-R", f"0:{by_path.address}", "-R", "0"]
        with running(pair, program, "-N", *words) as session:
            session.wait_for_message("to socks:0")
            said = lines(session.stderr)
            pattern = r"Allocated port (\d+) for remote forward to "
            assert [re.sub(pattern, "", line) for line in said] == [
                by_port.address,
                f"{path}:-2",
                "socks:0",
            ]
            for line in said[:2]:
                match = re.match(pattern, line)
                assert match is not None
                assert exchange(int(match[1]), b"abc") == b"cba"
        # A target says what it has seen after its answer.
        assert len(by_port.wait_for()) == len(by_path.wait_for()) == 1


# --- Where it listens ---------------------------------------------------------------------------


def listening(ports: list[int]) -> dict[int, set[str]]:
    """Return the addresses on which someone listens, as the kernel prints them."""
    found: dict[int, set[str]] = {port: set() for port in ports}
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}") as table:
            for line in table.readlines()[1:]:
                fields = line.split()
                host, port = fields[1].split(":")
                if fields[3] == "0A" and int(port, 16) in found:
                    found[int(port, 16)].add(host)
    return found


BINDS = ["", ":", "*:", "localhost:", "127.0.0.1:", "[::1]:", "0.0.0.0:"]


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="no /proc/net here")
@pytest.mark.parametrize("extra", [[], ["-g"], ["-4"]], ids=str)
def test_bind_addresses(make_sshd: Callable[..., SshServer], pair: Pair, extra: list[str]) -> None:
    """Here and on the server, on exactly the addresses that ssh would listen on."""
    server = make_sshd(config="GatewayPorts clientspecified")
    pair.home.add(server, alias="open")
    ports = [free_port() for _ in range(2 * len(BINDS))]
    words = ["-oForwardX11=no", "-N", *extra]
    for number, port in enumerate(ports):
        words += [("-L", "-R")[number % 2], f"{BINDS[number // 2]}{port}:a:1"]
    found = {}
    for program in PROGRAMS:
        argv = pair.argv(program, [*words, "open"])
        with started(argv, pair.environment, pair.home.path):
            # They are opened in order, those on the server last.
            wait_until(lambda: listening(ports)[ports[-1]], what="the last listener")
            found[program] = listening(ports)
        wait_until(lambda: not any(listening(ports).values()), what="no listener")
    assert found["xssh"] == found["ssh"]


@both_programs
def test_unix_listener(pair: Pair, program: str, short_directory: Path) -> None:
    """Private unless the mask says otherwise; in the way only with leave; left behind."""
    place, unlink = short_directory / "listener", "-oStreamLocalBindUnlink=yes"
    place.touch()
    with target(mirror) as server:
        forward = f"{place}:{server.address}"
        for words, mode in (([], 0o600), (["-oStreamLocalBindMask=0117"], 0o660)):
            with running(pair, program, "-N", unlink, *words, "-L", forward) as session:
                assert exchange(place, b"ab") == b"ba"
                assert stat.S_IMODE(place.stat().st_mode) == mode
                session.signal(signal.SIGTERM)
                session.wait()
            assert place.is_socket()


# --- SOCKS --------------------------------------------------------------------------------------

REPLY_4 = bytes([0, 90, 0, 0, 0, 0, 0, 0])
REPLY_5 = bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])


def socks_requests(port: int) -> list[tuple[bytes, bytes]]:
    """Return requests of every version for the same target, and the replies."""
    number = port.to_bytes(2, "big")
    return [
        (b"\4\1" + number + b"\x7f\0\0\1me\0", REPLY_4),
        (b"\4\1" + number + b"\0\0\0\1me\0localhost\0", REPLY_4),
        (b"\5\1\0\5\1\0\1\x7f\0\0\1" + number, b"\5\0" + REPLY_5),
        (b"\5\3\1\0\2\5\1\0\3\x09localhost" + number, b"\5\0" + REPLY_5),
        (b"\5\1\0\5\1\0\3\x09127.0.0.1" + number, b"\5\0" + REPLY_5),
    ]


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


def try_socks(place: int, data: bytes) -> bytes:
    """Return all that a proxy says to this until it ends."""
    with dial(place) as caller, contextlib.suppress(ConnectionError):
        caller.sendall(data)
        return read_all(caller)
    return b""


@both_programs
def test_socks(pair: Pair, program: str) -> None:
    """As -D here and as -R on the server; the reply is ssh's, byte for byte."""
    here, there = free_port(), free_port()
    with target(echo) as server:
        assert isinstance(server.place, int)
        requests = socks_requests(server.place)
        with running(pair, program, "-N", "-D", f"{here}", "-R", f"{there}") as session:
            for place in (here, there):
                for request, reply in requests:
                    with dial(place) as caller:
                        # The target's first data come along with the request, cut anywhere.
                        caller.sendall(request[:7])
                        caller.sendall(request[7:] + b"early")
                        assert read_exactly(caller, len(reply) + 5) == reply + b"early"
                        caller.sendall(b"later")
                        caller.shutdown(socket.SHUT_WR)
                        assert read_all(caller) == b"later"
            assert session.stderr == ""


def bad_socks_requests() -> list[bytes]:
    return [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\4\2\0\1\x7f\0\0\1me\0",
        b"\4\1\0\1\x7f\0\0\1" + b"u" * 1100,
        b"\5\1\2",
        b"\5\1\0\5\2\0\1\x7f\0\0\1\0\1",
        b"\5\1\0\5\1\0\2\x7f\0\0\1\0\1",
        b"\5\1\0\5\1\0\1\x7f\0\0\1\0\1",  # refused: nobody listens there
    ]


def test_socks_that_is_not_served(pair: Pair) -> None:
    """Both hang up, saying no more than ssh does."""
    answers = {}
    for program in PROGRAMS:
        here, there = free_port(), free_port()
        with running(pair, program, "-N", "-D", f"{here}", "-R", f"{there}") as session:
            answers[program] = [
                try_socks(place, data) for place in (here, there) for data in bad_socks_requests()
            ]
            answers[program] += [line.encode() for line in lines(session.stderr)]
    assert answers["xssh"] == answers["ssh"]
    assert b"connect_to 127.0.0.1 port 1: failed." in answers["ssh"]


def count_sockets(pid: int) -> int:
    """Return how many sockets a process has; 0 where there is no /proc."""
    count, directory = 0, f"/proc/{pid}/fd"
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        with contextlib.suppress(OSError):  # closed meanwhile
            count += os.readlink(f"{directory}/{name}").startswith("socket:")
    return count


def test_socks_client_that_leaves_early(pair: Pair) -> None:
    """One that says half a request and goes, or says nothing, keeps nothing open."""
    here, there = free_port(), free_port()
    with (
        target(echo) as server,
        running(pair, "xssh", "-N", "-D", f"{here}", "-R", f"{there}") as session,
    ):
        assert isinstance(server.place, int)
        pid = session.process.pid
        for place in (here, there):
            dial(place).close()
            # Sockets only: while it starts it opens other things, after it listens.
            before = count_sockets(pid)
            for data in (b"", b"\5", b"\5\1\0\5\1"):
                with dial(place) as caller:
                    caller.sendall(data)
            if before:
                wait_until(lambda: count_sockets(pid) <= before, what="closed sockets")  # noqa: B023
            request, reply = socks_requests(server.place)[2]
            with dial(place) as caller:
                caller.sendall(request)
                assert read_exactly(caller, len(reply)) == reply
        assert session.stderr == ""


@both_programs
def test_permit_remote_open(pair: Pair, program: str) -> None:
    """Whoever is on the server reaches what was allowed, by the name that was allowed."""
    port = free_port()
    with target(echo) as allowed, target(echo) as denied:
        assert isinstance(allowed.place, int)
        assert isinstance(denied.place, int)
        permit = f"-oPermitRemoteOpen=127.0.0.1:{allowed.place}"
        with running(pair, program, "-N", permit, "-R", f"{port}"):
            request, reply = socks_requests(allowed.place)[2]
            with dial(port) as caller:
                caller.sendall(request)
                assert read_exactly(caller, len(reply)) == reply
            for data in (socks_requests(allowed.place)[3][0], socks_requests(denied.place)[2][0]):
                assert try_socks(port, data) in (b"", b"\5\0")
        assert not denied.seen


# --- The end ------------------------------------------------------------------------------------


@both_programs
def test_session_waits_for_forwarded_connections(pair: Pair, program: str) -> None:
    with target(echo) as server:
        place, words = directions(pair, server.address)["-L"]
        argv = pair.argv(program, [*words, "server", "echo ready; sleep 0.3; exit 4"])
        with started(argv, pair.environment, pair.home.path) as session:
            session.wait_for_output("ready")
            with dial(place) as caller:
                caller.sendall(b"x")
                assert caller.recv(9) == b"x"
                time.sleep(1)
                assert session.runs
                caller.sendall(b"y")
                assert caller.recv(9) == b"y"
            assert session.wait().status == 4


@pytest.mark.parametrize("option", ["-L", "-R"])
def test_connection_that_is_lost(pair: Pair, option: str) -> None:
    """Both ends of what was carried are closed, and both programs say the same."""
    ends = {}
    for program in PROGRAMS:
        with target(lambda connection: read_all(connection)) as server:
            place, words = directions(pair, server.address)[option]
            with running(pair, program, "-N", *words) as session, dial(place) as caller:
                caller.sendall(b"x")
                pair.server.wait_for_log("forwarded-tcpip|direct-tcpip")
                time.sleep(0.2)
                pair.server.kill_sessions()
                with contextlib.suppress(ConnectionResetError):
                    assert caller.recv(9) == b""
                done = session.wait()
            assert server.wait_for() == [b"x"]
            ends[program] = plain(Completed(done.status, b"", done.stderr))
    assert ends["xssh"] == ends["ssh"], describe_difference(ends["xssh"], ends["ssh"])


def test_server_that_opens_what_nobody_asked_for(pair: Pair, key_ring: KeyRing) -> None:
    """It is refused, with ssh's warning; the session goes on."""
    server = OddServer(key_ring.host_keys["ed25519"], key_ring.client_key)

    async def open_channels(connection: object, log: list[str]) -> None:

        assert isinstance(connection, asyncssh.SSHServerConnection)
        for host, port in (("localhost", 4242), ("localhost", 4243), ("", 4242)):
            channel = connection.create_tcp_channel()
            try:
                await channel.accept(asyncssh.SSHTCPSession, host, port, "127.0.0.1", 1)
                log.append("opened")
            except asyncssh.ChannelOpenError as error:
                log.append(f"refused {error.code} {error.reason}")

    server.on_session = open_channels
    pair.home.config.write_text(
        server.config_text("odd", known_hosts=pair.home.known_hosts, extra="ForwardX11 no")
    )
    pair.home.known_hosts.write_text(server.known_hosts_lines())
    try:
        expected = pair.both(["-R", "4241:a:1", "odd", "x"])
        assert server.log == 6 * ["refused 1 open failed"]
        assert "Warning: remote port forwarding failed for listen port 4241" in expected.stderr
        assert "Server requests forwarding for unknown listen_port 4243" in expected.stderr
        with target(echo) as aim:
            # What this server refused it must not use either, though ssh lets it.
            done = pair.run("xssh", ["-R", f"4242:{aim.address}", "odd", "x"])
            assert done.stderr == expected.stderr.replace("4241", "4242")
            assert not aim.seen
        assert server.log == 9 * ["refused 1 open failed"]
    finally:
        server.stop()


# --- Many at once, and a distant server ---------------------------------------------------------


def test_server_that_stalls_holds_everyone_back(pair: Pair) -> None:
    """What waits for the connection itself is bounded, however many want to send."""
    with target(lambda connection: len(read_all(connection))) as server:
        place, words = directions(pair, server.address)["-L"]
        with running(pair, "xssh", "-N", *words) as session, contextlib.ExitStack() as stack:
            callers = [stack.enter_context(dial(place)) for _ in range(12)]
            for caller in callers:
                caller.sendall(b"x")
            pair.server.wait_for_log("(?s)" + "direct-tcpip.*" * len(callers))
            time.sleep(0.3)
            before = resident_memory(session.process.pid)
            pair.server.suspend()
            try:
                sent = [fill(caller, 0.1) for caller in callers]
                assert resident_memory(session.process.pid) - before < 16 * MEGABYTE
            finally:
                pair.server.resume()
            for caller in callers:
                caller.shutdown(socket.SHUT_WR)
            ends = server.wait_for(len(callers))
            assert sorted(map(str, ends)) == sorted(str(size + 1) for size in sent)


class EagerOwner(asyncssh.SSHServer):
    """Says yes to a remote forward, and a connection to it comes in the same packet."""

    def __init__(self, log: list[str]) -> None:
        self._log = log
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        return False

    def server_requested(self, listen_host: str, listen_port: int) -> asyncssh.SSHListener:
        assert self._connection is not None
        cork = self._connection.get_extra_info("socket")
        cork.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, cork.setsockopt, socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        loop.call_later(0.02, self._begin, listen_host)
        return EagerListener()

    def _begin(self, host: str) -> None:
        assert self._connection is not None
        self._connection.create_task(self._open(host))

    async def _open(self, host: str) -> None:
        assert self._connection is not None
        channel = self._connection.create_tcp_channel()
        try:
            await channel.accept(asyncssh.SSHTCPSession, host, EagerListener.port, "127.0.0.1", 1)
            self._log.append("opened")
            channel.write(b"hello")
            channel.write_eof()
        except asyncssh.ChannelOpenError as error:
            self._log.append(f"refused {error.reason}")


class EagerListener(asyncssh.SSHListener):
    port = 4242

    def get_port(self) -> int:
        return self.port

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


class EagerServer(AsyncServer):
    async def _listen(self) -> asyncio.Server:
        options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: EagerOwner(self.log),
            server_host_keys=[str(self._host_key)],
            gss_host=None,
        )
        loop = asyncio.get_running_loop()

        def accept() -> asyncssh.SSHServerConnection:
            connection = asyncssh.SSHServerConnection(loop, options)
            self._connections.add(connection)
            return connection

        return await loop.create_server(accept, self.host, 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="needs TCP_CORK (Linux)")
@pytest.mark.parametrize("port", [0, EagerListener.port])
def test_connection_in_the_same_packet_as_the_answer(
    key_ring: KeyRing, client_home: ClientHome, port: int
) -> None:
    """The connection is let in, though the answer was not yet acted upon."""
    server = EagerServer(Policy(), key_ring.host_keys["ed25519"], key_ring.client_key)
    try:
        client_home.config.write_text(
            server.config_text("eager", known_hosts=client_home.known_hosts)
        )
        client_home.known_hosts.write_text(server.known_hosts_lines())
        with target(read_all) as aim:
            words = ["-x", "-N", "-R", f"{port}:{aim.address}", "eager"]
            argv = [*PROGRAMS["xssh"], *client_home.arguments, *words]
            with started(argv, client_home.environment(), client_home.path):
                assert aim.wait_for() == [b"hello"], server.log
        assert server.log == ["opened"]
    finally:
        server.stop()


def test_what_the_escape_shows(pair: Pair, spawn_in_pty: Callable[..., Terminal]) -> None:
    """``~#`` lists what ssh lists, but for descriptors and what they wait for."""
    shown = {}
    with target(echo) as server:
        for program in PROGRAMS:
            ports = {option: free_port() for option in ("-L", "-D", "-R")}
            words = ["-L", f"{ports['-L']}:{server.address}", "-D", f"{ports['-D']}"]
            words += ["-R", f"{ports['-R']}:{server.address}"]
            argv = pair.argv(program, ["-tt", *words, "server", "echo ready; cat"])
            terminal = spawn_in_pty(argv, env=pair.environment)
            terminal.read_until("ready")
            with contextlib.ExitStack() as stack:
                for option in ("-L", "-D", "-R"):
                    caller = stack.enter_context(dial(ports[option]))
                    caller.sendall(b"\5\1\0")
                    assert caller.recv(9) == (b"\5\0" if option == "-D" else b"\5\1\0")
                time.sleep(0.2)
                terminal.write("\r~#")
                text = terminal.read_until(r"127\.0\.0\.1 \(t4.*\n")
            terminal.write("~.")
            terminal.wait()
            listed = [alike(line) for line in text.splitlines() if re.match("  #|The foll", line)]
            for pattern, general in (
                (r"port \d+", "port N"),
                (r"(fd|sock) [-\d/]+", r"\1 N"),
                (r" io \S+", ""),
                (r"(client-session .*) i\d/\d+ (.*) e\[write\]/\d+", r"\1 \2"),
            ):
                listed = [re.sub(pattern, general, line) for line in listed]
            shown[program] = listed
    assert shown["xssh"] == shown["ssh"]
    assert len(shown["ssh"]) == 5


def test_close_leaves_nothing(pair: Pair) -> None:
    """Whatever a connection was about to do, its sockets and tasks are gone at once."""
    here, there, local, remote = (free_port() for _ in range(4))

    async def use(address: str) -> None:
        words = [("F", str(pair.home.config)), ("N", None), ("D", str(here)), ("R", str(there))]
        words += [("L", f"{local}:{address}"), ("R", f"{remote}:{address}")]
        invocation = Invocation(destination="server", ssh_options=tuple(words))
        console = Console(environ=pair.environment)
        settings = await resolve_settings(invocation, pair.environment, console)
        before = asyncio.all_tasks()
        session = await connect(settings, invocation, console, pair.environment)
        forwarder = Forwarder(session.connection, settings, console)
        assert await forwarder.start(parse_forwards(settings.keywords))
        assert await forwarder.confirm()
        loop = asyncio.get_running_loop()
        callers = []
        for place in (here, there, local, remote):
            for said in (b"", b"\5\1\0"):
                caller = await loop.run_in_executor(None, dial, place)
                await loop.run_in_executor(None, caller.sendall, said)
                callers.append(caller)
        for caller in callers[5::2]:
            assert await loop.run_in_executor(None, caller.recv, 9) == b"\5\1\0"
        assert forwarder.open_count == 4
        assert forwarder.describe().count("\r\n") == 9
        await forwarder.close()
        assert (forwarder.open_count, forwarder.describe().count("127.0.0.1")) == (0, 0)
        for caller in callers:
            with contextlib.suppress(ConnectionResetError):
                assert await loop.run_in_executor(None, caller.recv, 9) in (b"", b"\5\0")
            caller.close()
        await session.close()
        await asyncio.sleep(0)
        await loop.shutdown_default_executor()
        assert asyncio.all_tasks() <= before

    with target(echo) as server, warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        asyncio.run(use(server.address))


@contextlib.asynccontextmanager
async def connected(pair: Pair, *words: tuple[str, str | None]) -> AsyncIterator[Forwarder]:
    """A connection with nothing but what is forwarded."""
    options = (("F", str(pair.home.config)), ("N", None), *words)
    invocation = Invocation(destination="server", ssh_options=options)
    console = Console(environ=pair.environment)
    settings = await resolve_settings(invocation, pair.environment, console)
    session = await connect(settings, invocation, console, pair.environment)
    forwarder = Forwarder(session.connection, settings, console)
    try:
        yield forwarder
    finally:
        await forwarder.close()
        await session.close()


def asking_to_listen(port: int) -> bytes:
    """A proxy client's request for a port: padding, type, payload."""
    return b"\0" + Byte(80) + String(b"tcpip-forward") + b"\1" + String(b"") + UInt32(port)


def test_a_proxy_client_that_does_not_wait_for_its_port_leaves_none(pair: Pair) -> None:
    port = free_port()

    async def use() -> None:
        async with connected(pair) as forwarder:
            connection = forwarder._connection
            proxy = ChannelProxy(connection, forwarder, lambda _: None, lambda: None)
            proxy.receive(asking_to_listen(port))
            while not connection._global_request_waiters:
                await asyncio.sleep(0)
            proxy.close()
            await connection._make_global_request(b"anything@to.wait.for")
            assert forwarder.lend_port("", port, lambda *_: pytest.fail("nobody listens"))
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), PATIENCE)

    asyncio.run(use())


def test_a_proxy_clients_port_that_the_server_does_not_name_is_refused(
    client_home: ClientHome, key_ring: KeyRing
) -> None:
    server = OddServer(key_ring.host_keys["ed25519"], key_ring.client_key)
    server.granted_port = b"\0\0"
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def use() -> None:
        async with connected(Pair(server, client_home)) as forwarder:
            proxy = ChannelProxy(forwarder._connection, forwarder, answers.put_nowait, lambda: None)
            for _ in range(2):
                proxy.receive(asking_to_listen(0))
                assert (await asyncio.wait_for(answers.get(), 10))[5] == 82
            proxy.close()

    try:
        client_home.add(server)  # type: ignore[arg-type]
        asyncio.run(use())
    finally:
        server.stop()
