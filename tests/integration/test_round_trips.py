"""How often a start waits for the other side of the world: xssh held against this machine's ssh."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS
from tests.support.agents import Agent
from tests.support.clients import ClientHome
from tests.support.link import Link, count_round_trips
from tests.support.processes import end_popen, wait_until
from tests.support.sshd import KeyRing, SshServer
from tests.support.warmstart import open_process
from tests.support.xvfb import Xvfb

DELAY = 0.02
PATIENCE = 30.0
TRIES = 4

MakeLink = Callable[[str, int], Link]


@pytest.fixture
def make_link(private_places: Path) -> Iterator[MakeLink]:
    links: list[Link] = []

    def make(host: str, port: int) -> Link:
        links.append(Link((host, port), delay=DELAY))
        return links[-1]

    yield make
    for link in links:
        link.stop()


class Distance:
    """ssh and xssh in one HOME, far from the server that it calls ``far``."""

    def __init__(self, server: SshServer, home: ClientHome, link: Link) -> None:
        self.home, self.link = home, link
        extra = f"Port {link.port}\nHostKeyAlias {server.known_hosts_name}"
        home.add(server, "far", extra=extra)
        self.environment = home.environment()

    def least(
        self, program: str, words: Sequence[str], enough: float = 0, *, is_shared: bool = False
    ) -> float:
        """Return the least of a few counts: what disturbs only makes them larger."""
        argv = [*PROGRAMS[program], *self.home.arguments, *words]
        counts: list[float] = []
        while len(counts) < TRIES and (not counts or min(counts) > enough):
            counts.append(count_round_trips(argv, self.environment, self.link, is_shared=is_shared))
        return min(counts)

    def compare(self, words: Sequence[str]) -> tuple[float, float]:
        """Return the trips of ssh and of xssh; xssh is tried again while it has more.

        On a busy machine ssh's may be more than it needs.
        """
        ssh = count_round_trips(
            [*PROGRAMS["ssh"], *self.home.arguments, *words], self.environment, self.link
        )
        return ssh, self.least("xssh", words, enough=ssh)


@pytest.fixture
def far(sshd: SshServer, client_home: ClientHome, make_link: MakeLink) -> Distance:
    return Distance(sshd, client_home, make_link(sshd.host, sshd.port))


@pytest.mark.parametrize(
    "words",
    [
        ["-x", "far", "echo x; cat"],
        ["-x", "-tt", "far", "echo x; cat"],
        ["-x", "-tt", "far"],
        ["-x", "-tt", "-oSendEnv=LANG", "-oSetEnv=A=1", "far", "echo x; cat"],
    ],
    ids=["command", "terminal", "shell", "variables"],
)
def test_a_start_takes_a_round_trip_less_than_with_ssh(far: Distance, words: list[str]) -> None:
    ssh, xssh = far.compare(words)
    assert xssh <= ssh - 1


@pytest.mark.parametrize("way", ["native", "agent"])
@pytest.mark.parametrize(
    "words",
    [
        ["-X", "far", "echo x; cat"],
        ["-Y", "far", "echo x; cat"],
        ["-Y", "-tt", "far"],
    ],
    ids=["untrusted", "trusted", "shell"],
)
def test_with_x11_a_start_takes_no_more_round_trips_than_with_ssh(
    far: Distance, xvfb: Xvfb, words: list[str], way: str
) -> None:
    """xssh waits for the display, granted or made, before it sends the command."""
    far.environment = far.home.environment(xvfb, XSSH_X11=way)
    ssh, xssh = far.compare(words)
    assert xssh <= ssh


@pytest.mark.parametrize("option", ["--backend=none", "rsync --server"])
def test_a_command_that_depends_on_nothing_is_not_held_up_by_x11(
    far: Distance, xvfb: Xvfb, option: str
) -> None:
    far.environment = far.home.environment(xvfb, XSSH_X11="native")
    command = "echo x; cat"
    if not option.startswith("-"):
        script = far.home.path / "rsync"
        script.write_text(f"#!/bin/sh\n{command}\n")
        script.chmod(0o755)
        command, option = f"{script} --server", "-Y"
    ssh = far.least("ssh", ["-Y", "far", command])
    assert far.least("xssh", ["-Y", option, "far", command], enough=ssh - 1) == ssh - 1


def test_a_key_from_an_agent_costs_no_more_round_trips(
    far: Distance, key_ring: KeyRing, short_directory: Path
) -> None:
    with Agent(short_directory / "agent") as agent:
        agent.add(key_ring.client_key)
        words = ["-x", f"-oIdentityAgent={agent.path}", "-oIdentitiesOnly=no"]
        ssh, xssh = far.compare([*words, "-oIdentityFile=none", "far", "echo x; cat"])
        assert xssh <= ssh - 1


def test_a_jump_costs_as_many_round_trips_as_with_ssh(
    far: Distance, make_sshd: Callable[..., SshServer]
) -> None:
    far.home.add(make_sshd(), "behind", extra="ProxyJump far")
    ssh, xssh = far.compare(["-x", "behind", "echo x; cat"])
    assert xssh <= ssh


# The link itself


class Echo:
    """A server for one connection that greets and then says every line again."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rwb") as file:
            file.write(b"hello\n")
            file.flush()
            for line in file:
                file.write(line)
                file.flush()

    def stop(self) -> None:
        self._thread.join(10)
        self._listener.close()


def connect(link: Link) -> socket.socket:
    client = socket.create_connection((link.host, link.port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.stop()


def test_the_link_counts_what_was_waited_for(echo: Echo, make_link: MakeLink) -> None:
    link = make_link("127.0.0.1", echo.port)
    with connect(link) as client, client.makefile("rwb", buffering=0) as file:
        file.write(b"early\n")
        assert (file.readline(), file.readline()) == (b"hello\n", b"early\n")
        assert link.round_trips == 1
        for count in range(2, 5):
            file.write(b"one\n")
            file.write(b"flight\n")
            assert (file.readline(), file.readline()) == (b"one\n", b"flight\n")
            assert link.round_trips == count
        client.shutdown(socket.SHUT_WR)
        assert file.readline() == b""


def test_the_link_carries_everything_in_order(echo: Echo, make_link: MakeLink) -> None:
    link = make_link("127.0.0.1", echo.port)
    text = b"".join(b"%d\n" % number for number in range(20_000))
    with connect(link) as client:

        def send() -> None:
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        with client.makefile("rb") as file:
            assert file.read() == b"hello\n" + text
        sender.join()


@pytest.mark.parametrize(
    "words", [["-x", "far", "echo x; cat"], ["-x", "-tt", "far"]], ids=["command", "shell"]
)
def test_a_session_through_a_master_takes_as_many_round_trips_as_ssh_s(
    far: Distance, short_directory: Path, words: list[str]
) -> None:
    trips = {}
    for master in ("ssh", "xssh"):
        socket = short_directory / master
        process = open_process(
            [*PROGRAMS[master], *far.home.arguments, "-x", "-S", str(socket), "-MN", "far"],
            env=far.environment,
            stdin=subprocess.DEVNULL,
        )
        try:
            wait_until(socket.exists, what="the master")
            for passenger in ("ssh", "xssh"):
                trips[passenger, master] = far.least(
                    passenger, ["-S", str(socket), *words], enough=2, is_shared=True
                )
        finally:
            end_popen(process)
    assert trips == dict.fromkeys(trips, 2)  # one for the channel, one for the command
