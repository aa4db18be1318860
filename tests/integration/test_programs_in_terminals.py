"""xssh as a job of an interactive shell, and inside tmux, beside ssh."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.processes import find_descendants, wait_until, xssh_command
from tests.support.programs import write_program
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal
from tests.support.tools import require_tool
from tests.support.xvfb import Xvfb

Spawn = Callable[..., Terminal]
PROGRAMS = ("ssh", "xssh")


@pytest.fixture
def server(sshd: SshServer, client_home: ClientHome) -> SshServer:
    """Return a server with a plain prompt, known as ``server``; both programs can be called s."""
    (sshd.home / ".hushlogin").touch()
    (sshd.home / ".Xauthority").touch(mode=0o600)
    (sshd.home / ".bash_profile").write_text("PS1='far$ '; unset PROMPT_COMMAND HISTFILE\n")
    (sshd.home / ".inputrc").write_text("set enable-bracketed-paste off\n")
    (client_home.path / "inputrc").write_text("set enable-bracketed-paste off\n")
    client_home.add(sshd, extra="ForwardX11Trusted yes")
    for program in PROGRAMS:
        argv = ["ssh"] if program == "ssh" else xssh_command()
        write_program(client_home.path / program / "s", [*argv, *client_home.arguments])
    return sshd


def environment(home: ClientHome, program: str, xvfb: Xvfb | None) -> dict[str, str]:
    plain = home.environment(xvfb, PS1="near$ ", HISTFILE="", INPUTRC=str(home.path / "inputrc"))
    return {**plain, "PATH": f"{home.path}/{program}:{plain['PATH']}"}


# --- Jobs ---------------------------------------------------------------------------------------

Step = tuple[str, str]
"""What is typed, and a regular expression for what comes then, up to the next prompt."""

UNTIL_STOPPED = "until jobs %1 | grep -q Stopped; do sleep 0.1; done"
RAW = "(until the terminal is raw)"
JOBS: dict[str, Sequence[Step]] = {
    "in the background": [
        ("s -n server 'echo out; exit 3' >o &", r"\[1\] \d+.*near\$ "),
        ("wait %1; echo status=$?", r"status=3\r\n.*near\$ "),
        ("cat o", r"\nout\r\n.*near\$ "),
    ],
    "in the background, reading the terminal": [
        ("s server 'echo up; cat; echo end' &", r"\[1\] \d+.*up\r\n"),
        (f"{UNTIL_STOPPED}; echo stop''ped", "stop''ped\r\n"),
        ("true", r"\nstopped\r\n.*near\$ .*near\$ "),  # it is what the job stops for
        ("fg", "cat; echo end'\r\n"),
        ("hello", "hello\r\nhello\r\n"),
        ("\x04", r"end\r\nnear\$ "),
        ("echo status=$?", r"status=0\r\nnear\$ "),
    ],
    "in the background, writing to the terminal": [
        ("stty tostop", r"near\$ "),
        ("s -n server 'echo out; exit 5' &", r"\[1\] \d+.*near\$ "),
        (
            "until jobs %1 | grep -q Stopped; do sleep 0.1; done; echo stop''ped",
            "stopped.*near\\$ ",
        ),
        ("fg; echo status=$?", r"out\r\nstatus=5\r\nnear\$ "),
        ("stty -tostop", r"near\$ "),
    ],
    "in the background with a remote terminal": [
        ("s -t server cat &", r"\[1\] \d+.*near\$ "),
        (f"{UNTIL_STOPPED}; echo stop''ped", r"stopped\r\n.*near\$ "),
        ("fg", r"cat\r\n"),
        (RAW, ""),
        ("hello", "hello\r\nhello\r\n"),
        ("\x04", r"closed\.\r\r?\nnear\$ "),
    ],
    "stopped with ^Z": [
        ("s server 'echo up; cat'", "\nup\r\n"),
        ("\x1a", r"Stopped.*near\$ "),
        ("stty -a | grep -o ' icanon'", r" icanon\r\nnear\$ "),
        ("fg", "cat'\r\n"),
        ("one", "one\r\none\r\n"),
        ("\x1a", r"Stopped.*near\$ "),
        ("fg", "cat'\r\n"),
        ("two", "two\r\ntwo\r\n"),
        ("\x04", r"near\$ "),
        ("echo status=$?", r"status=0\r\nnear\$ "),
    ],
    "stopped by an escape": [
        ("s server", r"far\$ "),
        ("", r"far\$ "),
        ("~\x1a", r"Stopped.*near\$ "),
        ("stty -a | grep -o ' icanon'", r" icanon\r\nnear\$ "),
        ("fg", r"s server\r\n"),
        (RAW, ""),
        ("", r"far\$ "),
        ("echo on''ly", r"only\r\nfar\$ "),
        ("exit 6", r"closed\.\r\r?\nnear\$ "),
        ("echo status=$?", r"status=6\r\nnear\$ "),
    ],
    "interrupted": [
        ("s server 'echo up; exec cat'", "\nup\r\n"),
        ("\x03", r"near\$ "),
        ("echo status=$?", r"status=\d+\r\nnear\$ "),
        ("s -t server 'trap \"echo caught; exit 4\" INT; echo up; cat'", "\nup\r\n"),
        ("\x03", r"caught\r\n.*near\$ "),
        ("echo status=$?", r"status=4\r\nnear\$ "),
    ],
    "several, one after the other in front": [
        ("s -n server 'cat; exit 1' >o1 & s -n server 'exit 2' & wait", r"near\$ "),
        ("s -f server true; echo status=$?", r"status=0\r\nnear\$ "),
        ("echo x | s server cat | cat", r"\nx\r\nnear\$ "),
        ("s server 'cat' <<<y && s server tty; echo status=$?", "status=1\r\nnear\\$ "),
    ],
}


def converse(terminal: Terminal, steps: Sequence[Step]) -> list[str]:
    """Take the steps; return the lines that were shown, sorted, without prompts and echo.

    The shell's word that a job stopped comes sooner or later, before the echo or after it; that
    one ended may not come at all.
    """
    shown = ""
    for typed, expected in steps:
        if typed is RAW:
            wait_until(lambda: terminal.is_raw, what="raw mode")
            continue
        terminal.write(typed + ("" if typed[-1:] in ("\x04", "\x1a", "\x03") else "\r"))
        shown += terminal.read_until(expected, timeout=20)
    shown = re.sub(r"\[(\d)\] \d+", r"[\1] PID", shown)
    shown = re.sub(r"\[\d\][-+ ] +(Exit|Done)[^\n]*", "", shown)
    lines = (re.sub(r"^(near\$ |far\$ )+", "", line.strip("\r")) for line in shown.split("\n"))
    return sorted(line for line in lines if line not in ("", *(typed for typed, _ in steps)))


@pytest.mark.parametrize("name", JOBS)
def test_a_job(
    server: SshServer, client_home: ClientHome, spawn_in_pty: Spawn, xvfb: Xvfb, name: str
) -> None:
    shown = []
    for program, display in (("ssh", None), ("xssh", xvfb)):
        terminal = spawn_in_pty(
            ["bash", "--norc", "--noprofile", "-i"],
            env=environment(client_home, program, display),
            cwd=client_home.path,
        )
        terminal.read_until(r"near\$ ")
        shown.append(converse(terminal, JOBS[name]))
        terminal.write("exit\r")
        terminal.wait()
        assert terminal.is_restored
        terminal.close()
        server.wait_until_idle()
    assert shown[1] == shown[0]


# --- tmux ---------------------------------------------------------------------------------------


class Tmux:
    """A tmux server of its own with one window."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.socket = str(directory / "tmux")
        self._environ = environ

    def __call__(self, *words: str) -> str:
        argv = ["tmux", "-f", os.devnull, "-S", self.socket, *words]
        done = subprocess.run(
            argv, env=self._environ, capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout

    def type(self, text: str) -> None:
        self("send-keys", "-t", "w", text, "Enter")

    def wait_for(self, pattern: str) -> str:
        found = ""

        def look() -> bool:
            nonlocal found
            found = self("capture-pane", "-p", "-t", "w")
            return re.search(pattern, found, re.S) is not None

        try:
            wait_until(look, timeout=20, what=pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}: {found!r}") from None
        return found


@pytest.fixture
def make_tmux(client_home: ClientHome, short_directory: Path) -> Iterator[Callable[..., Tmux]]:
    """Start tmux: ``make_tmux(environ, command, cols, rows)``."""
    require_tool("tmux")
    servers: list[Tmux] = []

    def make(environ: dict[str, str], command: str) -> Tmux:
        directory = short_directory / f"t{len(servers)}"
        directory.mkdir()
        tmux = Tmux(directory, environ)
        servers.append(tmux)
        tmux("new-session", "-d", "-x", "80", "-y", "24", "-s", "w", command)
        return tmux

    yield make
    for tmux in servers:
        tmux("kill-server")


def test_inside_tmux(
    server: SshServer,
    client_home: ClientHome,
    make_tmux: Callable[..., Tmux],
    spawn_in_pty: Spawn,
    xvfb: Xvfb,
) -> None:
    """The size follows the window's; a detached session goes on; a killed window leaves nothing."""
    before = {process.pid for process in find_descendants(os.getpid())}
    shown = []
    for program, display in (("ssh", None), ("xssh", xvfb)):
        environ = environment(client_home, program, display)
        tmux = make_tmux(environ, "s server")
        tmux.wait_for(r"far\$\n")
        tmux.type("stty size; echo $TERM")
        first = tmux.wait_for(r"\d\d \d\d\n.*far\$\n\n")
        tmux("resize-window", "-t", "w", "-x", "100", "-y", "30")
        tmux.type("clear; stty size")
        tmux.wait_for(r"30 100\nfar\$\n")
        attached = spawn_in_pty(
            ["tmux", "-f", os.devnull, "-S", tmux.socket, "attach"], env=environ, rows=20, cols=70
        )
        attached.read_until("30 100")
        attached.write("echo at''tached\r")
        attached.read_until("attached\r\n|attached\x1b")
        tmux("detach-client", "-s", "w")
        assert attached.wait() == 0
        tmux.type("clear; echo still th''ere")
        shown.append((first, tmux.wait_for(r"still there\n.*far\$\n")))
        tmux("kill-window", "-t", "w")
        server.wait_until_idle()
    assert shown[1] == shown[0]
    left = {process.pid for process in find_descendants(os.getpid())} - before
    wait_until(
        lambda: not left & {process.pid for process in find_descendants(os.getpid())},
        what="the end of all that was started",
    )
