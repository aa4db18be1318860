"""Forwards beside ssh: who may listen and connect where, and SOCKS clients of every sort."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, Pair
from tests.integration._targets import PATIENCE, dial, echo, mirror, read_all, target
from tests.support.clients import ClientHome
from tests.support.processes import wait_until
from tests.support.sessions import Session, started
from tests.support.sshd import SshServer, free_port

both_programs = pytest.mark.parametrize("program", PROGRAMS)
GRANTED = b"\5\0" + b"\5\0\0\1" + bytes(6)


@contextmanager
def running(pair: Pair, program: str, *words: str) -> Iterator[Session]:
    argv = pair.argv(program, [*words, "server"])
    with started(argv, pair.environment, pair.home.path) as session:
        yield session


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here")


@contextmanager
def target_on_ipv6() -> Iterator[int]:
    """Echo one connection at a time on ::1; yield the port."""
    import threading

    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    echo(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE)


def say(place: int, *pieces: bytes, pause: float = 0.0) -> socket.socket:
    caller = dial(place)
    caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        caller.sendall(piece)
        time.sleep(pause)
    return caller


def take(caller: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := caller.recv(size - len(data))):
        data += piece
    return data


# --- SOCKS --------------------------------------------------------------------------------------


@needs_ipv6
@both_programs
def test_socks_with_ipv6(pair: Pair, program: str) -> None:
    """By address and by name, as -D here and as -R there; and plain forwards to [::1]."""
    here, there, plain = free_port(), free_port(), free_port()
    with target_on_ipv6() as port:
        words = ["-D", f"{here}", "-R", f"{there}", "-L", f"{plain}:[::1]:{port}"]
        number = port.to_bytes(2, "big")
        address = socket.inet_pton(socket.AF_INET6, "::1")
        with running(pair, program, "-N", *words):
            for place in (here, there):
                for kind in (b"\4" + address, b"\3\x03::1"):
                    with say(place, b"\5\1\0\5\1\0" + kind + number + b"x") as caller:
                        assert take(caller, len(GRANTED) + 1) == GRANTED + b"x"
            with say(plain, b"y") as caller:
                assert take(caller, 1) == b"y"


@both_programs
def test_socks_client_that_is_slow(pair: Pair, program: str) -> None:
    """One byte at a time, and nobody else waits for those that say nothing."""
    here, there = free_port(), free_port()
    with (
        target(echo) as server,
        running(pair, program, "-N", "-D", f"{here}", "-R", f"{there}"),
    ):
        assert isinstance(server.place, int)
        number = server.place.to_bytes(2, "big")
        request = b"\5\1\0\5\1\0\3\x09127.0.0.1" + number
        for place in (here, there):
            with contextlib.ExitStack() as stack:
                for silent in (b"", b"\5", b"\4\1", request[:-1]) * 5:
                    stack.enter_context(say(place, silent))
                pieces = [request[index : index + 1] for index in range(len(request))]
                caller = stack.enter_context(say(place, *pieces, pause=0.005))
                assert take(caller, len(GRANTED)) == GRANTED
                caller.sendall(b"z")
                assert take(caller, 1) == b"z"


@pytest.mark.parametrize("direction", ["-D", "-R"])
def test_socks_clients_that_say_nothing_keep_nobody_out(pair: Pair, direction: str) -> None:
    """Where there is no room for more, the one that was silent for longest is hung up on."""
    port = free_port()
    argv = pair.argv("xssh", ["-N", direction, f"{port}", "server"])
    limited = ["bash", "-c", 'ulimit -n 80; exec "$@"', "bash", *argv]
    with target(echo) as server, started(limited, pair.environment, pair.home.path) as session:
        assert isinstance(server.place, int)
        request = b"\5\1\0\5\1\0\1\x7f\0\0\1" + server.place.to_bytes(2, "big") + b"x"
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(say(port, b"\5\1\0")) for _ in range(50)]
            assert take(silent[-1], 2) == b"\5\0"
            served = stack.enter_context(say(port, request))
            assert take(served, len(GRANTED) + 1) == GRANTED + b"x"
            with contextlib.suppress(ConnectionResetError):
                assert read_all(silent[0]) in (b"", b"\5\0")
            silent[-1].sendall(request[3:])
            assert take(silent[-1], len(GRANTED) - 2 + 1) == GRANTED[2:] + b"x"
            served.sendall(b"y")
            assert take(served, 1) == b"y"
        assert session.runs
        assert session.stderr == ""


HOSTILE = [
    b"\0" * 300,
    b"\5\0",
    b"\5\1\0\5\1\0\3\0\0\x09",
    b"\5\1\0\5\1\0\3\x04a\0bc\0\x09",
    b"\5\1\0\5\1\0\3\x02\xff\xfe\0\x09",
    b"\5\1\0\5\1\1\1\x7f\0\0\1\0\x09",
    b"\5\1\0\5\3\0\1\x7f\0\0\1\0\x09",
    b"\4\1\0\x09\0\0\0\1" + b"u" * 3000 + b"\0host\0",
    b"\4\1\0\x09\0\0\0\1u\0" + b"h" * 3000 + b"\0",
    b"\5\1\0\5\1\0\1\x7f\0\0\1\0\0",
]


def test_socks_clients_that_are_hostile(pair: Pair) -> None:
    """They get nothing that grants their wish, and everyone else is still served."""
    here, there = free_port(), free_port()
    with (
        target(echo) as server,
        running(pair, "xssh", "-N", "-D", f"{here}", "-R", f"{there}") as session,
    ):
        assert isinstance(server.place, int)
        good = b"\5\1\0\5\1\0\1\x7f\0\0\1" + server.place.to_bytes(2, "big") + b"x"
        for place in (here, there):
            for bad in HOSTILE:
                with say(place, bad) as caller, contextlib.suppress(OSError):
                    caller.shutdown(socket.SHUT_WR)
                    answer = read_all(caller)
                    assert GRANTED[2:] not in answer and b"\0\x5a" not in answer, bad
                with say(place, good) as caller:
                    assert take(caller, len(GRANTED) + 1) == GRANTED + b"x"
        assert session.runs


# --- Who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("permit", ["any", "none", "*:PORT", "127.0.0.1:*", "localhost:PORT"])
def test_permit_remote_open_values(pair: Pair, permit: str) -> None:
    """Both let the same clients of -R through."""
    with target(echo) as server:
        assert isinstance(server.place, int)
        number = server.place.to_bytes(2, "big")
        word = f"-oPermitRemoteOpen={permit.replace('PORT', str(server.place))}"
        found = {}
        for program in PROGRAMS:
            port = free_port()
            with running(pair, program, "-N", word, "-R", f"{port}") as session:
                found[program] = []
                for kind in (b"\1\x7f\0\0\1", b"\3\x09127.0.0.1", b"\3\x09localhost"):
                    request = b"\5\1\0\5\1\0" + kind + number + b"x"
                    with say(port, request) as caller, contextlib.suppress(ConnectionError):
                        found[program].append(take(caller, len(GRANTED) + 1)[2:])
                assert session.runs
    assert found["xssh"] == found["ssh"]


def bound(ports: list[int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {port: set() for port in ports}
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}") as table:
            for line in table.readlines()[1:]:
                host, port = line.split()[1].split(":")
                if line.split()[3] == "0A" and int(port, 16) in found:
                    found[int(port, 16)].add(host)
    return found


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="no /proc/net here")
@pytest.mark.parametrize("ports_of", ["no", "yes"])
def test_gateway_ports_of_the_server(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, ports_of: str
) -> None:
    """The server decides where it listens; both find their forwards again."""
    server = make_sshd(config=f"GatewayPorts {ports_of}")
    client_home.add(server, extra="ForwardX11 no")
    pair = Pair(server, client_home)
    binds = ["", ":", "*:", "localhost:", "127.0.0.1:", "0.0.0.0:"]
    found = {}
    with target(mirror) as aim:
        for program in PROGRAMS:
            ports = [free_port() for _ in binds]
            words = ["-N"]
            for bind, port in zip(binds, ports, strict=True):
                words += ["-R", f"{bind}{port}:{aim.address}"]
            with running(pair, program, *words) as session:
                wait_until(lambda: bound(ports)[ports[-1]], what="the last one")  # noqa: B023
                answers = []
                for port in ports:
                    with say(port, b"ab") as caller:
                        caller.shutdown(socket.SHUT_WR)
                        answers.append(read_all(caller))
                places = bound(ports)
                found[program] = [places[port] for port in ports], answers, session.stderr
    assert found["xssh"] == found["ssh"]
    assert found["ssh"][1] == [b"ba"] * len(binds)


def test_clear_all_forwardings(pair: Pair) -> None:
    """Nothing of the configuration or the command line is left, and it says nothing."""
    for program in PROGRAMS:
        port, other = free_port(), free_port()
        words = ["-oClearAllForwardings=yes", "-L", f"{port}:a:1", "-D", f"{other}"]
        argv = pair.argv(program, [*words, "-R", "0:a:1", "server", "echo ready; sleep 1"])
        with started(argv, pair.environment, pair.home.path) as session:
            session.wait_for_output("ready")
            assert not any(bound([port, other]).values())
            assert session.stderr == ""


@both_programs
def test_unix_listener_of_the_server(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, program: str, tmp_path: Path
) -> None:
    """In its place only where the server unlinks; what failed is said, or ends the run."""
    server = make_sshd(config="StreamLocalBindUnlink yes")
    client_home.add(server, alias="unlinks", extra="ForwardX11 no")
    plain = make_sshd()
    client_home.add(plain, extra="ForwardX11 no")
    pair = Pair(plain, client_home)
    place = server.directory / "s"
    place.touch()
    refused = pair.run(program, ["-R", f"{place}:a:1", "server", "echo on"])
    assert refused.stdout == b"on\n"
    assert f"Warning: remote port forwarding failed for listen path {place}" in refused.stderr
    strict = ["-oExitOnForwardFailure=yes", "-R", f"{place}:a:1", "server", "echo on"]
    refused = pair.run(program, strict)
    assert (refused.status, refused.stdout) == (255, b"")
    with target(mirror) as aim:
        argv = pair.argv(program, ["-N", "-R", f"{place}:{aim.address}", "unlinks"])
        with started(argv, pair.environment, pair.home.path):
            wait_until(place.is_socket, what="the socket")
            with dial(place) as caller:
                caller.sendall(b"ab")
                caller.shutdown(socket.SHUT_WR)
                assert read_all(caller) == b"ba"


@pytest.mark.parametrize("option", ["-L", "-R", "-D"])
@both_programs
def test_exit_on_forward_failure_before_anything_runs(
    pair: Pair, program: str, option: str, tmp_path: Path
) -> None:
    """The command must not have run: it may rely on the forward."""
    mark = tmp_path / "mark"
    with target(echo) as busy:
        aim = "" if option == "-D" else ":a:1"
        words = ["-oExitOnForwardFailure=yes", option, f"127.0.0.1:{busy.place}{aim}"]
        done = pair.run(program, [*words, "server", f"touch {mark}"])
    assert done.status == 255
    pair.server.wait_until_idle()
    assert not mark.exists()
