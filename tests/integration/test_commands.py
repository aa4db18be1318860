"""Which program runs where, beside ssh: LocalCommand, RemoteCommand, SessionType, RequestTTY."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration._pairs import PROGRAMS, Pair
from tests.support.clients import ClientHome
from tests.support.sshd import SshServer, free_port
from tests.support.terminals import Terminal

IS_TERMINAL = "test -t 0 && echo terminal || echo none"


def local(command: str) -> list[str]:
    return ["-oPermitLocalCommand=yes", f"-oLocalCommand={command}"]


@pytest.mark.parametrize(
    "words",
    [
        [*local("echo local; echo err >&2; exit 3"), "server", "echo remote; exit 4"],
        [*local("echo %%-%h-%n-%p-%r-%T"), "server", "true"],
        [*local("read line; echo got $line"), "server", "cat"],
        [*local("kill -9 $$"), "server", "echo remote"],
        [*local(""), "server", "echo remote"],
        [*local("none"), "server", "echo remote"],
        ["-oPermitLocalCommand=no", "-oLocalCommand=echo no", "server", "echo remote"],
        ["-oLocalCommand=echo no", "server", "echo remote"],
    ],
    ids=str,
)
def test_local_command(pair: Pair, words: list[str]) -> None:
    """It runs before the remote command; what it returns is of no consequence."""
    done = pair.both(words, stdin=b"one\ntwo\n")
    assert done.status in (0, 4, 255)


def test_local_command_without_a_shell(pair: Pair) -> None:
    environment = {**pair.environment, "SHELL": "/nonexistent"}
    done = pair.both([*local("echo x"), "server", "echo remote"], env=environment)
    assert (done.status, done.stdout) == (0, b"remote\n")
    assert "Couldn't execute /nonexistent -c" in done.stderr


def test_local_command_finds_the_forwards_open(pair: Pair) -> None:
    for program in PROGRAMS:
        port = free_port()
        command = f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && echo open'"
        done = pair.run(program, [*local(command), "-L", f"{port}:127.0.0.1:1", "server", "true"])
        assert done.stdout == b"open\n", program


@pytest.mark.parametrize(
    "words",
    [
        ["-oRemoteCommand=echo configured", "server"],
        ["-oRemoteCommand=echo configured", "server", "echo typed"],
        ["-oRemoteCommand=none", "server", "echo typed"],
        ["-oRemoteCommand=echo %h %n %%", "server"],
        ["-oRemoteCommand=echo x", "-s", "server"],
        ["-oRemoteCommand=upper", "-oSessionType=subsystem", "server"],
        ["-oRemoteCommand=echo x", "-T", "server"],
        ["-oRemoteCommand=read y; echo x", "-tt", "server"],
        ["-oRemoteCommand=echo x; exit 7", "-oSessionType=default", "server"],
        ["-s", "server", "upper"],
        ["-s", "server"],
        ["-s", "server", "none"],
        ["-oSessionType=subsystem", "server", "upper"],
        ["-oSessionType=default", "-s", "server", "upper"],
        ["-s", "-oSessionType=default", "server", "upper"],
        ["-oSessionType=nonsense", "server", "true"],
        ["-W", "127.0.0.1:1", "server", "true"],
        ["-W", "127.0.0.1:1", "-N", "server"],
        ["-n", "server", "cat"],
        ["-oStdinNull=yes", "server", "cat"],
    ],
    ids=str,
)
def test_remote_command_session_type_stdin_null(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, words: list[str]
) -> None:
    server = make_sshd(config="Subsystem upper /usr/bin/tr a-z A-Z")
    client_home.add(server, extra="ForwardX11 no")
    pair = Pair(server, client_home)
    expected = pair.run("ssh", words, stdin=b"input\n")
    found = pair.run("xssh", words, stdin=b"input\n")
    assert (found.status, found.stdout) == (expected.status, expected.stdout)
    said = [line for line in found.stderr.splitlines() if not line.startswith("  try: ")]
    assert said == expected.stderr.replace("\r", "").splitlines()


TTY_WORDS = [
    [],
    ["-oRequestTTY=no"],
    ["-oRequestTTY=auto"],
    ["-oRequestTTY=yes"],
    ["-oRequestTTY=force"],
    ["-T"],
    ["-t"],
    ["-tt"],
    ["-tT"],
    ["-Tt"],
    ["-t", "-oRequestTTY=no"],
    ["-oRequestTTY=force", "-T"],
    ["-nt"],
    ["-tt", "-n"],
]


@pytest.mark.parametrize("words", TTY_WORDS, ids=" ".join)
def test_request_tty_without_a_terminal_here(pair: Pair, words: list[str]) -> None:
    """With a command, and with a shell that reads its commands from stdin."""
    pair.both([*words, "server", IS_TERMINAL])
    if not {"-nt", "-n", "-tt", "-oRequestTTY=force"} & set(words):
        assert pair.both([*words, "server"], stdin=b"exit 5\n").status == 5


@pytest.mark.parametrize("words", TTY_WORDS, ids=" ".join)
def test_request_tty_in_a_terminal(
    pair: Pair, spawn_in_pty: Callable[..., Terminal], words: list[str]
) -> None:
    shown = {}
    for program in PROGRAMS:
        terminal = spawn_in_pty(
            pair.argv(program, [*words, "server", IS_TERMINAL]), env=pair.environment
        )
        status = terminal.wait()
        shown[program] = (status, terminal.output.replace(b"\r", b""), terminal.is_restored)
    assert shown["xssh"] == shown["ssh"]
