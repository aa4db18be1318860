"""Accounts that may do less: forced commands see what was typed; restricted shells are entered."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.integration._pairs import PROGRAMS
from tests.support.clients import ClientHome
from tests.support.processes import run
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal
from tests.support.tools import require_tool
from tests.support.xvfb import Xvfb

SHOW = r"printf '%s|' \"${SSH_ORIGINAL_COMMAND-unset}\" \"$DISPLAY\" \"${MPLBACKEND-none}\""


@pytest.fixture
def forced(make_sshd: Callable[..., SshServer]) -> SshServer:
    server = make_sshd(key_options=f'command="{SHOW}"')
    (server.home / ".Xauthority").touch()  # xauth says so where it makes it
    return server


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-tt"],
        ["backup", "now"],
        ["rsync --server -a . /x"],
        ["a  'b' \"c\" $D `e`; f\n\\g"],
        ["-tt", "vi x"],
        ["--", "-x"],
    ],
)
def test_a_forced_command_sees_what_was_typed(
    forced: SshServer, client_home: ClientHome, xvfb: Xvfb, words: list[str]
) -> None:
    client_home.add(forced)
    options, command = (words[:1], words[1:]) if words[:1] == ["-tt"] else ([], words)
    results = []
    for program in ("ssh", "xssh"):
        argv = [*PROGRAMS[program], *client_home.arguments, "-Y", *options, "server", *command]
        done = run(argv, env=client_home.environment(xvfb))
        assert done.status == 0, done
        results.append(re.sub(rb"localhost:\d+", b"localhost:N", done.stdout))
    assert results[1] == results[0]
    typed = " ".join(command[1:] if command[:1] == ["--"] else command)
    said, display, backend, rest = results[1].decode().split("|")
    assert said.replace("\r", "") == (typed or "unset")
    assert display.startswith("localhost:") and (backend, rest) == ("none", "")


def test_a_forced_command_of_sshd_config(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, xvfb: Xvfb
) -> None:
    """sshd tells nobody of this one; it runs, at least."""
    client_home.add(make_sshd(config="ForceCommand echo forced"))
    argv = [*PROGRAMS["xssh"], *client_home.arguments, "-Y", "server", "typed"]
    done = run(argv, env=client_home.environment(xvfb))
    assert (done.status, done.stdout) == (0, b"forced\n")


@pytest.mark.parametrize("program", ["ssh", "xssh"])
def test_a_restricted_shell_can_be_entered(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    xvfb: Xvfb,
    spawn_in_pty: Callable[..., Terminal],
    program: str,
) -> None:
    client_home.add(make_sshd(shell=require_tool("rbash")))
    argv = [*PROGRAMS[program], *client_home.arguments, "-Y", "server"]
    terminal = spawn_in_pty(argv, env=client_home.environment(xvfb))
    terminal.read_until(r"[$#] ")
    terminal.write("echo d=$DISPLAY b=$MPLBACKEND.; cd /; echo s=$?.\r")
    shown = terminal.read_until(r"s=\d+\.")
    assert "d=localhost:" in shown
    assert ("b=TkAgg." in shown) is (program == "xssh")
    assert "restricted" in shown and "s=1." in shown
    terminal.write("exit 4\r")
    assert terminal.wait() == 4


def test_commands_run_in_a_restricted_shell(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, xvfb: Xvfb
) -> None:
    client_home.add(make_sshd(shell=require_tool("rbash")))
    argv = [*PROGRAMS["xssh"], *client_home.arguments, "-Y", "server", "echo $MPLBACKEND; cd /"]
    done = run(argv, env=client_home.environment(xvfb))
    assert (done.status, done.stdout) == (1, b"TkAgg\n")
    assert "restricted" in done.stderr
