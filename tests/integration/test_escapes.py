"""The ~ escapes in a terminal, beside ssh: what is shown, and what is done."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, Pair
from tests.integration._targets import dial, echo, target
from tests.support.beside import alike
from tests.support.processes import wait_until
from tests.support.sshd import free_port
from tests.support.terminals import Terminal

Spawn = Callable[..., Terminal]
both_programs = pytest.mark.parametrize("program", PROGRAMS)
COMMAND_LINE = "-oEnableEscapeCommandline=yes"
IN_A_SHELL = ["sh", "-c", '"$@"; echo "status $?"; read line; echo "line $line"', "sh"]


def begin(pair: Pair, spawn: Spawn, program: str, *words: str) -> Terminal:
    """Start a session whose remote end gives back each line twice."""
    argv = pair.argv(program, ["-tt", *words, "server", "echo ready; cat"])
    terminal = spawn(argv, env=pair.environment)
    terminal.read_until("ready\r\n")
    wait_until(lambda: terminal.is_raw, what="raw mode")
    return terminal


def shown(terminal: Terminal) -> str:
    """Return all that was shown, with plain line ends: ssh 9.2 writes some as ``\\r\\r\\n``."""
    return terminal.output.decode(errors="replace").replace("\r", "")


def wait_for(terminal: Terminal, pattern: str) -> None:
    """Wait until something was shown, at whatever time."""
    wait_until(lambda: (terminal.read_for(0.01), re.search(pattern, shown(terminal)))[1])


def end(terminal: Terminal, mark: str = "~") -> None:
    """End the session, by the escape or, where there is none, by a signal."""
    terminal.write(f"\r{mark}.")
    terminal.read_for(0.05)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.wait() in (255, -signal.SIGTERM)
    assert terminal.is_restored


# --- What is shown ------------------------------------------------------------------------------

TYPED = [
    "~?~?",
    "~B~#",
    "a~?",
    "~~?",
    "~~~~",
    "~x~?",
    "~",
    "~?",
    "~b~c~r",
    "~v~v~V~V~V~V~V~V~V~V~v~v~v~v~v~v~v~v~v",
    "~V~V~V~V",
]


@pytest.mark.parametrize(
    "words",
    [[], ["-e", "%"], ["-e", "^A"], ["-e", "none"], [COMMAND_LINE], ["-E", "/dev/null"], ["-q"]],
    ids=" ".join,
)
def test_escape_char_and_what_is_shown(pair: Pair, spawn_in_pty: Spawn, words: list[str]) -> None:
    """Byte for byte, but for doubled carriage returns and descriptors."""
    mark = {"%": "%", "^A": "\x01"}.get(words[-1] if words else "", "~")
    found = {}
    for program in PROGRAMS:
        terminal = begin(pair, spawn_in_pty, program, *words)
        terminal.write("\r")
        terminal.read_until("\r\n\r\n")
        for number, typed in enumerate([*TYPED, "~C"] if words != [COMMAND_LINE] else TYPED):
            terminal.write(f"{typed}\rEND{number}\r".replace("~", mark))
            terminal.read_until(f"END{number}\r\n.*END{number}\r\n")
        found[program] = shown(terminal)
        end(terminal, mark)
    found = {program: alike(text) for program, text in found.items()}
    for general in (r"fd \S+ sock \S+", r"io \S+", r"i\d/\d+ o\d/\d+ e\[write\]/\d+"):
        found = {program: re.sub(general, "", text) for program, text in found.items()}
    # What is said to developers differs.
    lines = {program: text.splitlines() for program, text in found.items()}
    plain = {name: [line for line in each if "debug" not in line] for name, each in lines.items()}
    assert plain["xssh"] == plain["ssh"]


@both_programs
def test_escapes_in_every_cut(pair: Pair, spawn_in_pty: Spawn, program: str) -> None:
    """An escape typed slowly is one too."""
    terminal = begin(pair, spawn_in_pty, program)
    for piece in ("\r", "~", "?"):
        terminal.write(piece)
        time.sleep(0.05)
    terminal.read_until("Supported escape sequences")
    terminal.write("~")
    time.sleep(0.05)
    terminal.write(".")
    assert terminal.wait() == 255


@both_programs
def test_nested(pair: Pair, spawn_in_pty: Spawn, program: str) -> None:
    """``~~.`` ends the inner one of two."""
    inner = " ".join(
        f"'{word}'" for word in ["ssh", *pair.home.arguments, "-tt", "server", "echo ready; cat"]
    )
    argv = pair.argv(program, ["-tt", "server", f"HOME={pair.home.path} {inner}; echo outer; cat"])
    terminal = spawn_in_pty(argv, env=pair.environment)
    terminal.read_until("ready\r\n")
    terminal.write("\r")
    terminal.read_until("\r\n\r\n")
    terminal.write("~~.")
    terminal.read_until("outer\r\n")
    end(terminal)


# --- ~C -----------------------------------------------------------------------------------------

LINES = [
    "",
    "-",
    "h",
    "-h",
    "  ?",
    "Help",
    "x",
    "-M",
    "!true",
    "-L",
    "-L PORT",
    "-L 0:a:1",
    "-L PORT:a:0",
    "-L PORT:a:nonsense",
    "-L 1:2:3:4:5",
    "-L [PORT:a:1",
    "-L PORT:a:1",
    "-L PORT:a:1",
    "-KD PORT",
    "-KL *:PORT",
    "-KL PORT",
    "KLPORT",
    "-L PORT:/a/path",
    "-KL localhost:PORT",
    "-L 127.0.0.1:PORT:a:1",
    "-KL PORT",
    "-KL 127.0.0.1:PORT",
    "L*:PORT:a:1",
    "-KL :PORT",
    "-L nohost.invalid:PORT:a:1",
    "-L /nonexistent/a:/b",
    "-L${NOTHING}PORT:a:1",
    "-L${LANG}:PORT:a:1",
    "-D",
    "-D PORT",
    "-KL PORT",
    "-KDPORT",
    "-D a:PORT:b",
    "-D localhost:PORT",
    "KD PORT",
    "-R",
    "-R PORT:a",
    "-R PORT:a:0",
    "-R PORT:a:1",
    "-KR localhost:PORT",
    "-KR PORT",
    "-KR PORT",
    "-R [::1]:PORT:a:1",
    "-KR ::1:PORT",
    "-KR [::1]:PORT",
    "-R PORT",
    "-KR PORT",
    "-R 0",
    "-KR 0",
    "-KL 0",
    "KD x:y:z",
    "K",
    "-KR /never/was",
]
TELLS_MORE = re.compile(r"^(Allocated port|Warning: remote port).*\n", re.MULTILINE)


def command(terminal: Terminal, line: str) -> str:
    """Type a command line, and return what it answered."""
    terminal.write("~C")
    terminal.read_until("ssh> ")
    assert terminal.echo
    terminal.write(line + "\r")
    terminal.read_until("\n")
    wait_until(lambda: terminal.is_raw, what="raw mode")
    return terminal.read_for(0.02)


@pytest.mark.parametrize("permitted", ["no", "yes"])
def test_enable_escape_commandline(pair: Pair, spawn_in_pty: Spawn, permitted: str) -> None:
    """Each line is answered as ssh does, and the session goes on afterwards."""
    found = {}
    for program in PROGRAMS:
        port = str(free_port())
        words = [COMMAND_LINE, f"-oPermitLocalCommand={permitted}"]
        terminal = begin(pair, spawn_in_pty, program, *words)
        terminal.write("\r")
        terminal.read_until("\r\n\r\n")
        for line in LINES:
            command(terminal, line.replace("PORT", port))
        terminal.write("still there\r")
        terminal.read_until("there.*there\r\n")
        text = TELLS_MORE.sub("", shown(terminal).replace(port, "PORT"))
        found[program] = text.splitlines()
        end(terminal)
    assert found["xssh"] == found["ssh"]
    assert "Forwarding port." in found["ssh"]


@both_programs
def test_command_line_forwards(pair: Pair, spawn_in_pty: Spawn, program: str) -> None:
    """What is opened carries, and what is cancelled takes no more, but keeps what it has."""
    terminal = begin(pair, spawn_in_pty, program, COMMAND_LINE)
    terminal.write("\r")
    with target(echo) as server:
        for option in ("-L", "-R", "-D"):
            port = free_port()
            aim = "" if option == "-D" else f":{server.address}"
            assert "Forwarding port." in command(terminal, f"{option} {port}{aim}")
            with dial(port) as caller:
                caller.sendall(b"\5\1\0")
                assert caller.recv(9) == (b"\5\0" if option == "-D" else b"\5\1\0")
                assert "Canceled forwarding." in command(terminal, f"K{option[1:]} {port}")
                wait_until(lambda: not listens(port), what="no listener")  # noqa: B023
                if option != "-D":
                    caller.sendall(b"on")
                    assert caller.recv(9) == b"on"
    end(terminal)


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_command_line_tells_what_the_server_refused(pair: Pair, spawn_in_pty: Spawn) -> None:
    """ssh says nothing then."""
    terminal = begin(pair, spawn_in_pty, "xssh", COMMAND_LINE)
    terminal.write("\r")
    with target(echo) as busy:
        command(terminal, f"-R 127.0.0.1:{busy.place}:a:1")
        wait_for(terminal, f"Warning: remote port forwarding failed for listen port {busy.place}\n")
    command(terminal, "-R 0:a:1")
    wait_for(terminal, r"Allocated port \d+ for remote forward to a:1\n")
    end(terminal)


@both_programs
def test_command_line_runs_a_local_command(
    pair: Pair, spawn_in_pty: Spawn, program: str, tmp_path: Path
) -> None:
    """It is waited for. What it prints is lost with ssh, whose stdout is elsewhere by then."""
    terminal = begin(pair, spawn_in_pty, program, COMMAND_LINE, "-oPermitLocalCommand=yes")
    terminal.write("\r")
    mark = tmp_path / "mark"
    said = command(terminal, f"!sleep 0.2; touch {mark}; echo said")
    assert mark.exists()
    assert ("said" in said) == (program == "xssh")
    end(terminal)


@both_programs
def test_command_line_is_left(pair: Pair, spawn_in_pty: Spawn, program: str) -> None:
    """By Ctrl-C and Ctrl-D, and what the remote side says meanwhile comes after it."""
    argv = pair.argv(
        program, ["-tt", COMMAND_LINE, "server", "echo ready; sleep 0.5; echo out; cat"]
    )
    terminal = spawn_in_pty(argv, env=pair.environment)
    terminal.read_until("ready\r\n")
    terminal.write("\r~C")
    terminal.read_until("ssh> ")
    assert "out" not in terminal.read_for(0.8)
    terminal.write("\x03")
    terminal.read_until("out\r\n")
    wait_until(lambda: terminal.is_raw, what="raw mode")
    terminal.write("~C")
    terminal.read_until("ssh> ")
    terminal.write("\x04")
    wait_until(lambda: terminal.is_raw, what="raw mode")
    terminal.write("on\r")
    terminal.read_until("on\r\n.*on\r\n")
    end(terminal)


# --- ~& -----------------------------------------------------------------------------------------


@both_programs
def test_background(pair: Pair, spawn_in_pty: Spawn, program: str) -> None:
    """The shell goes on with status 0; forwarded connections do too, and new ones are refused."""
    with target(echo) as server:
        port = free_port()
        words = ["-tt", "-L", f"{port}:{server.address}", "server", "echo ready; cat; echo end"]
        argv = [*IN_A_SHELL, *pair.argv(program, words)]
        terminal = spawn_in_pty(argv, env=pair.environment)
        terminal.read_until("ready\r\n")
        wait_until(lambda: terminal.is_raw, what="raw mode")
        with dial(port) as caller:
            caller.sendall(b"x")
            assert caller.recv(9) == b"x"
            terminal.write("one\r~&two\r")
            seen = terminal.read_until("(?=.*status 0)(?=.*backgrounded)(?=.*one.*one)(?=.*end\r)")
            assert "two" not in seen
            assert terminal.is_restored
            assert not listens(port)
            caller.sendall(b"y" * 100_000)
            got = 0
            while got < 100_000:
                got += len(caller.recv(1 << 16))
        terminal.read_until("Connection to 127.0.0.1 closed.")
        terminal.write("three\r")
        terminal.read_until("line three\r\n")
        assert terminal.wait() == 0
        pair.server.wait_until_idle()
    assert "~& [backgrounded]\n" in shown(terminal)


@both_programs
def test_background_when_the_terminal_goes(pair: Pair, spawn_in_pty: Spawn, program: str) -> None:
    """Without a shell in between, the end of the session's leader ends it as well."""
    terminal = begin(pair, spawn_in_pty, program)
    terminal.write("\r~&")
    assert terminal.wait() == 0
    assert terminal.is_restored
    pair.server.wait_until_idle()
