"""What goes wrong before there is a session: a message that helps, 255, and nothing hangs."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.beside import PROGRAMS, Beside
from tests.support.clients import ClientHome
from tests.support.processes import Completed, run
from tests.support.sshd import SshServer, free_port
from tests.support.terminals import Terminal
from xsshpy.ssh.greeting import REFUSALS

Talk = Callable[[socket.socket], object]
PASSING_PROXY = (
    "python3 -c \"import os,socket,threading; s=socket.create_connection(('%h',%p)); "
    "threading.Thread(target=lambda: [s.sendall(d) for d in iter(lambda: os.read(0,65536),b'')],"
    "daemon=True).start(); [os.write(1,d) for d in iter(lambda: s.recv(65536),b'')]\""
)


class Peer:
    """A listener that does as it likes with whoever connects."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="peer")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(20)
                self._talk(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(25)


@pytest.fixture
def make_peer(private_places: Path) -> Iterator[Callable[[Talk], Peer]]:
    peers: list[Peer] = []

    def make(talk: Talk) -> Peer:
        peers.append(Peer(talk))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


def run_program(program: str, home: ClientHome, *words: str, timeout: float = 30.0) -> Completed:
    argv = [*PROGRAMS[program], *home.arguments, "-x", *words]
    done = run(argv, env=home.environment(), timeout=timeout)
    return done._replace(stderr=done.stderr.replace("\r\n", "\n"))


def assert_helpful(done: Completed, *lines: str) -> None:
    """Want status 255, these lines first, one remedy last, and nothing on stdout."""
    said = done.stderr.splitlines()
    assert (done.status, done.stdout) == (255, b""), done
    assert said[: len(lines)] == list(lines), done.stderr
    assert said[-1].startswith("  try: ") and len(said[-1]) > 20, done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    assert "Task " not in done.stderr and "Unknown child" not in done.stderr


def assert_like_ssh(home: ClientHome, *words: str) -> Completed:
    """Want ssh's status and all its lines first, and a remedy besides."""
    expected = run_program("ssh", home, *words)
    found = run_program("xssh", home, *words)
    assert_helpful(found, *expected.stderr.splitlines())
    return found


# Getting there


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 70])
def test_an_unknown_host(client_home: ClientHome, name: str) -> None:
    done = assert_like_ssh(client_home, name, "true")
    assert done.stderr.startswith(f"ssh: Could not resolve hostname {name}: ")


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_refused_port(client_home: ClientHome, attempts: int) -> None:
    words = ["-p", str(free_port()), f"-oConnectionAttempts={attempts}", "127.0.0.1", "true"]
    started = time.monotonic()
    done = assert_like_ssh(client_home, *words)
    assert "Connection refused" in done.stderr
    assert time.monotonic() - started >= 2 * (attempts - 1)


def test_nobody_answers_the_call(client_home: ClientHome) -> None:
    """A listener whose queue is full: the kernel drops the calls, as a firewall does."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        time.sleep(0.2)
        port = listener.getsockname()[1]
        words = ["-p", str(port), "-oConnectTimeout=1", "127.0.0.1", "true"]
        done = assert_like_ssh(client_home, *words)
    assert f"ssh: connect to host 127.0.0.1 port {port}: Connection timed out" in done.stderr


# What is no SSH server


def wait_for_end(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def answer(data: bytes, *, times: int = 1, stay: bool = True) -> Talk:
    def talk(connection: socket.socket) -> None:
        for _ in range(times):
            connection.sendall(data)
        if stay:
            wait_for_end(connection)
        else:
            connection.shutdown(socket.SHUT_WR)
            wait_for_end(connection)

    return talk


def hang_up(connection: socket.socket) -> None:
    """Take what comes and leave: the other side sees an orderly end."""
    connection.shutdown(socket.SHUT_WR)
    wait_for_end(connection)


HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>"
NO_SERVERS: dict[str, Talk] = {
    "says nothing": wait_for_end,
    "web server": answer(HTTP, stay=False),
    "web server that stays": answer(HTTP),
    "binary": answer(bytes(range(256)) * 10),
    "endless line": answer(b"x" * 65536, times=1000),
    "endless lines": answer(b"xy\r\n" * 16384, times=1000),
    "hangs up": hang_up,
    "SSH-1": answer(b"SSH-1.5-old\r\n"),
}


@pytest.mark.parametrize("kind", sorted(NO_SERVERS))
def test_what_is_no_ssh_server(
    client_home: ClientHome, make_peer: Callable[[Talk], Peer], kind: str
) -> None:
    peer = make_peer(NO_SERVERS[kind])
    words = ["-p", str(peer.port), "-oConnectTimeout=2", "127.0.0.1", "true"]
    expected = run_program("ssh", client_home, *words).stderr.splitlines()
    found = run_program("xssh", client_home, *words)
    if kind == "SSH-1":
        expected = expected[:1]  # then ssh says "could not read protocol version"
    assert_helpful(found, *expected)
    if kind.startswith("web"):
        assert "it began with: HTTP/1.1 400 Bad Request\n" in found.stderr


@pytest.mark.parametrize("said", REFUSALS)
def test_a_server_that_drops_the_connection(
    client_home: ClientHome, make_peer: Callable[[Talk], Peer], said: str
) -> None:
    """PerSourcePenalties, MaxStartups: it is an SSH server, and the port is the right one."""
    peer = make_peer(answer(f"{said}\r\n".encode(), stay=False))
    found = run_program("xssh", client_home, "-p", str(peer.port), "127.0.0.1", "true")
    assert_helpful(found)
    assert f"it began with: {said}\n  try: {REFUSALS[said]}" in found.stderr
    done = run_program("xssh", client_home, "--doctor", "-p", str(peer.port), "127.0.0.1")
    text = " ".join(done.stdout.decode().split())
    assert f"broken port the server says: {said} try: {REFUSALS[said]}" in text


def test_a_reset_before_the_first_word(
    client_home: ClientHome, make_peer: Callable[[Talk], Peer]
) -> None:
    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    peer = make_peer(reset)
    done = run_program("xssh", client_home, "-p", str(peer.port), "127.0.0.1", "true")
    assert_helpful(done)
    assert re.search(r"Connection (reset|closed) by|reset by peer", done.stderr)


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (answer(b"SSH-2.0-x\r\n"), "Connection to 127.0.0.1 port {port} timed out"),
        (answer(b"SSH-2.0-\xff\xfe\r\n"), "127.0.0.1 port {port}"),
        (answer(b"SSH-2.0-x\r\n" + b"\xff" * 1000), "127.0.0.1 port {port}"),
        (answer(b"SSH-2.0-x\r\n\0\0\0\x0c\x04" + b"A" * 1000), "127.0.0.1 port {port}"),
        (answer(b"SSH-2.0-x\r\n", stay=False), "Connection closed by 127.0.0.1 port {port}"),
        (answer(b"\x1b[2J\x1b]0;owned\x07\r\n", stay=False), "Connection closed by"),
    ],
)
def test_a_server_that_stops_halfway(
    client_home: ClientHome, make_peer: Callable[[Talk], Peer], talk: Talk, said: str
) -> None:
    """ssh 9.2 waits for ever in the first of these: its ConnectTimeout ends with the banner."""
    peer = make_peer(talk)
    started = time.monotonic()
    words = ["-p", str(peer.port), "-oConnectTimeout=1", "127.0.0.1", "true"]
    done = run_program("xssh", client_home, *words)
    assert time.monotonic() - started < 8
    assert_helpful(done)
    assert said.format(port=peer.port) in done.stderr
    assert "\x1b" not in done.stderr


# Agreeing on algorithms


@pytest.fixture
def narrow(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> Beside:
    """A server that can do one thing of each kind."""
    config = "Ciphers aes256-ctr\nKexAlgorithms curve25519-sha256\nMACs hmac-sha2-256"
    server = make_sshd(config=config, host_key_types=("ed25519",))
    return Beside(client_home, server, spawn_in_pty)


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("Ciphers=aes128-ctr", "cipher"),
        ("KexAlgorithms=ecdh-sha2-nistp256", "key exchange method"),
        ("MACs=hmac-sha2-512", "MAC"),
        ("HostKeyAlgorithms=ecdsa-sha2-nistp256", "host key type"),
    ],
)
def test_nothing_in_common(narrow: Beside, option: str, kind: str) -> None:
    done = narrow.both(f"-o{option}", "server", "true")
    where = f"Unable to negotiate with 127.0.0.1 port {narrow.server.port}"
    assert done.stderr.startswith(f"{where}: no matching {kind} found. Their offer: ")
    assert_helpful(done)


def test_an_algorithm_that_only_ssh_can_do(narrow: Beside) -> None:
    option = "-oKexAlgorithms=sntrup761x25519-sha512@openssh.com"
    done = narrow.run("xssh", option, "server", "true")
    assert_helpful(done)
    assert done.stderr.startswith("xssh: KexAlgorithms: none of sntrup761x25519-sha512@openssh.com")


def test_a_misspelt_algorithm_is_told_in_sshs_words(narrow: Beside) -> None:
    assert "Bad SSH2 cipher spec" in narrow.both("-oCiphers=3des,foo", "server", "true").stderr


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_each_kind_of_host_key(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    kind: str,
) -> None:
    """PubkeyAcceptedAlgorithms is about the user's keys, not about the host's."""
    login = Beside(client_home, make_sshd(host_key_types=(kind,)), spawn_in_pty)
    words = ["-oPubkeyAcceptedAlgorithms=ssh-ed25519", "server", "echo hi"]
    assert login.both(*words) == (0, b"hi\n", "")


# Jump hosts and ProxyCommand


@pytest.fixture
def login(
    sshd: SshServer, client_home: ClientHome, spawn_in_pty: Callable[..., Terminal]
) -> Beside:
    return Beside(client_home, sshd, spawn_in_pty)


@pytest.mark.parametrize("command", ["false", "/nonexistent/proxy", "echo hi", "sleep 30"])
def test_a_proxy_command_that_fails(login: Beside, command: str) -> None:
    """Which of ssh's words it is depends on who is faster: one's first write or the other's end."""
    words = ["-oConnectTimeout=1", f"-oProxyCommand={command}", "server", "true"]
    for program in ("ssh", "xssh"):
        done = login.run(program, *words)
        assert done.status == 255
        assert "UNKNOWN port 65535" in done.stderr
    assert_helpful(done)
    assert done.stderr.splitlines()[-1].startswith("  try: run the ProxyCommand for server by hand")
    if command.startswith("sleep"):
        assert "Connection timed out during banner exchange\n" in done.stderr
    if command.startswith("/"):
        assert "/nonexistent/proxy: not found\n" in done.stderr


def test_a_proxy_command_that_works_and_ends(login: Beside) -> None:
    done = login.both(f"-oProxyCommand={PASSING_PROXY}", "server", "echo hi")
    assert done == (0, b"hi\n", "")


def test_a_proxy_command_says_why_on_stderr(login: Beside) -> None:
    words = ["-oProxyCommand=sh -c 'echo cannot go >&2; sleep 0.3'", "server", "true"]
    done = login.both(*words)
    assert done.stderr.startswith("cannot go\n")


@pytest.mark.parametrize("jump", ["server", "server,server"])
def test_a_jump_host_that_works(login: Beside, jump: str) -> None:
    assert login.both(f"-J{jump}", "server", "echo hi") == (0, b"hi\n", "")


def test_a_jump_host_that_cannot_reach_the_host(login: Beside) -> None:
    port = free_port()
    words = ["-J", "server", "-p", str(port), "127.0.0.1", "true"]
    expected, found = (login.run(program, *words) for program in ("ssh", "xssh"))
    line = "channel 0: open failed: connect failed: Connection refused"
    assert expected.stderr.splitlines()[0] == line
    assert_helpful(found, line)
    assert f"server did not connect to 127.0.0.1 port {port}" in found.stderr


def test_a_jump_host_that_forbids_it(
    login: Beside, make_sshd: Callable[..., SshServer], client_home: ClientHome
) -> None:
    client_home.add(make_sshd(config="AllowTcpForwarding no"), "closed")
    expected, found = (login.run(p, "-Jclosed", "server", "true") for p in ("ssh", "xssh"))
    assert_helpful(found, expected.stderr.splitlines()[0])
    assert "administratively prohibited" in found.stderr
    assert "AllowTcpForwarding yes" in found.stderr


@pytest.mark.parametrize("jump", ["127.0.0.1:{port}", "no-such-host.invalid", "nobody@server"])
def test_a_jump_host_that_is_out_of_reach(login: Beside, jump: str) -> None:
    words = ["-oBatchMode=yes", f"-J{jump.format(port=free_port())}", "server", "true"]
    expected, found = (login.run(program, *words) for program in ("ssh", "xssh"))
    assert_helpful(found, expected.stderr.splitlines()[0])


# In the middle of it


@pytest.mark.parametrize("terminal", [False, True])
def test_a_server_that_dies(login: Beside, sshd: SshServer, terminal: bool) -> None:
    words = ["-tt"] if terminal else []
    seen = login.converse("xssh", [*words, "server", "echo started; sleep 60"], [], status=False)
    seen.read_until("started")
    sshd.kill_sessions()
    assert seen.wait() == 255
    assert seen.is_restored
    assert b"closed by remote host." in seen.output


def test_a_server_that_hangs(login: Beside, sshd: SshServer) -> None:
    words = ["-tt", "-oServerAliveInterval=1", "-oServerAliveCountMax=1"]
    seen = login.converse("xssh", [*words, "server", "echo started; sleep 60"], [], status=False)
    seen.read_until("started")
    sshd.suspend()
    try:
        assert seen.wait(10) == 255
    finally:
        sshd.resume()
    assert seen.is_restored
    assert b"not responding." in seen.output
    assert b"Timeout, server " in seen.output
    sshd.kill_sessions()


@pytest.mark.parametrize("after", [10, 100, 1000, 1600])
def test_a_connection_that_breaks_in_the_key_exchange(
    login: Beside, sshd: SshServer, make_peer: Callable[[Talk], Peer], after: int
) -> None:
    """A go-between passes on so many bytes of the server's and then hangs up."""

    def relay(connection: socket.socket) -> None:
        with socket.create_connection((sshd.host, sshd.port)) as server:
            pump = threading.Thread(target=copy, args=(connection, server))
            pump.start()
            rest = after
            while rest and (data := server.recv(rest)):
                connection.sendall(data)
                rest -= len(data)
            connection.shutdown(socket.SHUT_RDWR)
            server.shutdown(socket.SHUT_RDWR)
            pump.join()

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    peer = make_peer(relay)
    words = ["-p", str(peer.port), "-oStrictHostKeyChecking=no", "server", "true"]
    done = login.run("xssh", "-oUserKnownHostsFile=/dev/null", *words)
    assert_helpful(done)
    assert re.search(f"Connection (closed|reset) by 127.0.0.1 port {peer.port}", done.stderr)
