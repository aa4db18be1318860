"""IPQoS, TCPKeepAlive, BindAddress, BindInterface, AddressFamily and many addresses, beside ssh."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.beside import PROGRAMS, Beside
from tests.support.clients import ClientHome
from tests.support.processes import kill_group
from tests.support.sockets import borrowed_connection
from tests.support.sshd import SshServer, free_port
from tests.support.terminals import Terminal
from tests.support.warmstart import open_process


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.fixture
def login(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> Beside:
    config = "ListenAddress ::1" if has_ipv6() else ""
    server = make_sshd(config=config)
    login = Beside(client_home, server, spawn_in_pty, extra="HostKeyAlias server")
    with client_home.known_hosts.open("a") as file:
        file.write(server.known_hosts_lines("server"))
    return login


def read_options(login: Beside, program: str, *words: str) -> tuple[int, int]:
    """Start a session that waits; return its connection's priority and SO_KEEPALIVE."""
    with open_process(
        login.argv(program, [*words, "server", "echo ready; read line"]),
        env=login.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        try:
            assert client.stdout is not None and b"ready" in client.stdout.readline()
            with borrowed_connection(client.pid, login.server.port) as connection:
                if connection.family == socket.AF_INET6:
                    priority = connection.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
                else:
                    priority = connection.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
                return priority, connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        finally:
            kill_group(client.pid)


INTERACTIVE, BULK = 0x48, 0x20


@pytest.mark.parametrize(
    ("words", "priority"),
    [
        (["-T"], BULK),
        (["-tt"], INTERACTIVE),
        (["-T", "-oIPQoS=ef"], 0xB8),
        (["-T", "-oIPQoS=cs0 le"], 0x04),
        (["-tt", "-oIPQoS=none lowdelay"], 0),
        (["-T", "-oIPQoS=none"], 0),
        (["-T", "-oTCPKeepAlive=no"], BULK),
        (["-T", "-oHostname=::1", "-6"], BULK),
        (["-tt", "-oHostname=::1"], INTERACTIVE),
        (["-T", "-J", "jump"], INTERACTIVE),
    ],
)
def test_ip_qos_and_tcp_keep_alive(login: Beside, words: list[str], priority: int) -> None:
    if "-oHostname=::1" in words and not has_ipv6():
        pytest.skip("no IPv6 here")
    login.home.config.write_text(
        "Host *\n  IPQoS af21 cs1\n"
        + login.home.config.read_text()
        + login.home.config.read_text().replace("Host server", "Host jump")
    )
    expected, found = (read_options(login, program, *words) for program in PROGRAMS)
    assert found == expected
    assert found == (priority, 0 if "-oTCPKeepAlive=no" in words else 1)


def test_ip_qos_with_no_session_is_interactive(login: Beside) -> None:
    for program in PROGRAMS:
        port = free_port()
        words = ["-N", "-oIPQoS=af21 cs1", f"-L{port}:127.0.0.1:{login.server.port}", "server"]
        with open_process(
            login.argv(program, words), env=login.environment(), stdin=subprocess.DEVNULL
        ) as client:
            try:
                wait_for_listener(port)
                with borrowed_connection(client.pid, login.server.port) as connection:
                    tos = connection.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
            finally:
                client.terminate()
        assert tos == INTERACTIVE, program


def wait_for_listener(port: int) -> None:
    from tests.support.processes import wait_until

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    wait_until(answers, what="the forwarded port")


# Where the connection comes from, and which address it goes to


@pytest.mark.parametrize(
    "words",
    [["-b", "127.0.0.9"], ["-oBindAddress=127.0.0.8"], ["-B", "lo"], ["-b", "localhost", "-4"]],
)
def test_bind_address_and_bind_interface(login: Beside, words: list[str]) -> None:
    done = login.both(*words, "server", "set -- $SSH_CLIENT; echo $1")
    wanted = words[1] if words[0] == "-b" and words[1][0] == "1" else words[0].partition("=")[2]
    assert done == (0, f"{wanted or '127.0.0.1'}\n".encode(), "")


@pytest.mark.parametrize(
    "words",
    [
        ["-b", "192.0.2.77"],
        ["-b", "no-such-host.invalid"],
        ["-B", "nosuchdevice"],
        ["-6"],
        ["-oAddressFamily=inet6"],
    ],
)
def test_addresses_that_do_not_fit(login: Beside, words: list[str]) -> None:
    done = login.both(*words, "server", "true")
    assert done.status == 255 and done.stderr.splitlines()[-1].startswith("  try: ")


def debug_lines(text: str, *beginnings: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(beginnings)]


def test_each_address_of_a_host_is_tried(login: Beside, short_directory: Path) -> None:
    """The first two refuse, the last one answers."""
    hosts = short_directory / "hosts"
    hosts.write_text("".join(f"127.0.0.{n} many.example\n" for n in (4, 3, 1)))
    login.variables = {"NSS_WRAPPER_HOSTS": str(hosts)}
    words = ["-v", "-4", "-oHostname=many.example", "-oConnectTimeout=5", "server", "echo hi"]
    lines = []
    for program in PROGRAMS:
        done = login.run(program, *words)
        assert (done.status, done.stdout) == (0, b"hi\n"), done
        beginnings = ("debug1: Connecting", "debug1: connect to", "debug1: Connection est")
        lines.append(debug_lines(done.stderr, *beginnings))
    assert lines[0] == lines[1]
    assert len(lines[1]) == 6


def test_every_address_of_a_host_refuses(login: Beside, short_directory: Path) -> None:
    hosts = short_directory / "hosts"
    hosts.write_text("".join(f"127.0.0.{n} many.example\n" for n in (4, 3)))
    login.variables = {"NSS_WRAPPER_HOSTS": str(hosts)}
    words = ["-v", "-4", "-oHostname=many.example", "-oConnectionAttempts=2", "server", "true"]
    lines = []
    for program in PROGRAMS:
        done = login.run(program, *words)
        assert done.status == 255
        lines.append(
            debug_lines(done.stderr, "debug1: Conn", "debug1: conn", "debug1: Try", "ssh:")
        )
    assert lines[0] == lines[1]
    assert lines[1].count("debug1: Trying again...") == 1
