"""Windows over connections that xssh shares by itself: whose they are, and who waits for them.

Everything is looked at in a run with a connection of its own, in the one that makes the shared
connection, and in one that finds it. There must be no difference.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.clients import ClientHome
from tests.support.masters import end_automatic_masters, find_automatic_masters
from tests.support.processes import Completed, run_xssh, xssh_command
from tests.support.sessions import started_xssh
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal
from tests.support.windows import Screen
from tests.support.xvfb import Xvfb, pack_authority_entry

ways = pytest.mark.parametrize("way", ["agent", "native"])


class Windowed:
    """A server, a home and an X server; nothing is said of sharing but in XSSH_SHARE."""

    def __init__(self, server: SshServer, home: ClientHome, xvfb: Xvfb) -> None:
        self.server = server
        self.home = home
        (server.home / ".Xauthority").touch(mode=0o600)
        home.add(server)
        self.environment = home.environment(xvfb, XSSH_SHARE="", CI="")

    def argv(self, *words: str) -> list[str]:
        return [*self.home.arguments, "server", *words]

    def environment_of(self, time_of: str, **more: str) -> dict[str, str]:
        return {**self.environment, "XSSH_SHARE": "no" if time_of == "alone" else "", **more}

    def run(self, command: str, time_of: str, *options: str, **more: str) -> Completed:
        argv = [*self.home.arguments, *options, "server", command]
        return run_xssh(argv, env=self.environment_of(time_of, **more))

    @property
    def masters(self) -> list[int]:
        return list(find_automatic_masters(self.home.runtime).values())


@pytest.fixture
def windowed(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, xvfb: Xvfb
) -> Iterator[Windowed]:
    yield Windowed(make_sshd(), client_home, xvfb)
    end_automatic_masters(client_home.runtime)


@pytest.fixture
def screen(xvfb: Xvfb) -> Iterator[Screen]:
    with Screen.of(xvfb) as opened:
        yield opened


WINDOW = "xterm -T {} -e cat </dev/null >/dev/null 2>&1 & sleep 0.3; echo away; exit 5"
"""The command is through as soon as its window is there."""


@ways
@pytest.mark.parametrize("number", [0, signal.SIGTERM, signal.SIGKILL])
def test_each_run_has_windows_of_its_own(
    windowed: Windowed, screen: Screen, way: str, number: int
) -> None:
    """A run stays until they are closed, and takes them along; others and their windows go on."""
    environment = windowed.environment_of("shared", XSSH_X11=way)
    directory = windowed.home.path
    with started_xssh(windowed.argv(WINDOW.format("one")), environment, directory) as one:
        one.wait_for_output("away")
        first = screen.find_window("one")
        with started_xssh(windowed.argv(WINDOW.format("two")), environment, directory) as two:
            two.wait_for_output("away")
            second = screen.find_window("two")
            assert len(windowed.masters) == 1
            with pytest.raises(AssertionError, match="still runs"):
                two.wait(0.3)
            if number:
                two.signal(number)
            else:
                screen.close_window(second)
            done = two.wait(10)
            screen.wait_until_gone(second)
        expected = {0: 5, signal.SIGTERM: 255, signal.SIGKILL: -signal.SIGKILL}[number]
        assert (done.status, done.stdout, done.stderr) == (expected, b"away\n", "")
        assert screen.exists(first) and one.runs
        screen.close_window(first)
        assert one.wait(10) == (5, b"away\n", "")


NOTICED: list[tuple[str, list[str], dict[str, str]]] = [
    ("echo [$DISPLAY]", [], {"DISPLAY": "127.0.0.1:987"}),
    ("echo [$DISPLAY]", ["-q"], {"DISPLAY": "127.0.0.1:987"}),
    ("echo [$DISPLAY]", [], {"DISPLAY": "nonsense"}),
    ("echo [$DISPLAY]", ["-Y"], {"DISPLAY": ""}),
    ("echo [$DISPLAY]", [], {"DISPLAY": ""}),
    ("XAUTHORITY=wrong xdpyinfo >/dev/null 2>&1; echo $?", [], {}),
    ("XAUTHORITY=wrong xdpyinfo >/dev/null 2>&1; echo $?", [], {"XSSH_X11": "native"}),
    ("xdpyinfo | grep -c vendor; echo $MPLBACKEND", [], {}),
]


@pytest.mark.parametrize("command, options, more", NOTICED)
def test_what_is_amiss_is_said_where_it_was_typed(
    windowed: Windowed, command: str, options: list[str], more: dict[str, str]
) -> None:
    host = socket.gethostname().encode()
    wrong = b"".join(
        pack_authority_entry(256, host, b"%d" % number, b"MIT-MAGIC-COOKIE-1", bytes(16))
        for number in range(10, 60)
    )
    (windowed.server.home / "wrong").write_bytes(wrong)
    alone = windowed.run(command, "alone", *options, **more)
    assert not windowed.masters
    for _ in ("cold", "warm", "warm"):
        assert windowed.run(command, "shared", *options, **more) == alone
        assert len(windowed.masters) == 1


def test_a_terminal_hears_that_there_is_no_display(
    windowed: Windowed, spawn_in_pty: Callable[..., Terminal]
) -> None:
    shown = []
    for time_of in ("alone", "cold", "warm"):
        env = {**windowed.environment_of(time_of), "DISPLAY": ""}
        argv = [*xssh_command(), *windowed.argv("echo over")]
        terminal = spawn_in_pty(argv, env=env)
        shown.append(terminal.read_until("over\r\n"))
        assert terminal.wait(10) == 0
    assert "DISPLAY" in str(shown[0])
    assert shown[0] == shown[1] == shown[2]


def test_untrusted_windows_have_a_connection_of_their_own(windowed: Windowed) -> None:
    for options in (["-X", "-o", "ForwardX11Trusted=no"], ["-o", "ForwardX11Trusted=no"]):
        assert windowed.run("true", "shared", *options).status == 0
        assert not windowed.masters
    assert windowed.run("true", "shared", "-X").status == 0
    assert windowed.run("true", "shared", "-Y").status == 0
    assert len(windowed.masters) == 2
