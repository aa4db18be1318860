"""A session at the terminal: modes, size, keys, escapes, and the terminal put back at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, Pair
from tests.support.processes import wait_until
from tests.support.terminals import Terminal

Spawn = Callable[..., Terminal]


@pytest.fixture
def quiet_pair(pair: Pair) -> Pair:
    """Return a pair whose shell has a plain prompt and shows neither motd nor last login."""
    (pair.server.home / ".hushlogin").touch()
    (pair.server.home / ".bash_profile").write_text("PS1='$ '; unset PROMPT_COMMAND HISTFILE\n")
    (pair.server.home / ".inputrc").write_text("set enable-bracketed-paste off\n")
    return pair


@contextlib.contextmanager
def session(
    spawn: Spawn, pair: Pair, program: str, *words: str, **options: object
) -> Iterator[Terminal]:
    terminal = spawn(pair.argv(program, words), env=pair.environment, **options)
    try:
        yield terminal
    finally:
        terminal.close()


def answer(terminal: Terminal, command: str) -> str:
    """Type a command at the remote prompt and return its output."""
    terminal.write(f"{command}; echo E''ND\r")
    terminal.read_until(r"E''ND\r\n")
    shown = terminal.read_until(r"END\r\n")[: -len("END\r\n")]
    terminal.read_until(r"\$ $")
    return shown


def see(spawn: Spawn, pair: Pair, program: str, words: list[str]) -> tuple[int, bytes]:
    """Run a program in a terminal without typing; return its status and all it showed."""
    with session(spawn, pair, program, *words) as terminal:
        status = terminal.wait()
        assert terminal.is_restored
        return status, plain(terminal.output)


def plain(shown: bytes) -> bytes:
    """Return what was shown with plain line ends: ssh 9.2 ends its messages with ``\\r\\n``."""
    return shown.replace(b"\r\r\n", b"\r\n")


# --- What the remote side gets ------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["-t", "server", "tty | sed 's/[0-9]*$//'; stty -a; echo $TERM; exit 3"],
        ["server", "tty; echo out; sleep 0.1; echo err >&2; exit 4"],
        ["-T", "server", "tty; exit 5"],
        ["-tt", "server", "printf 'a\\nb\\rc\\n'; stty size"],
        ["-oRequestTTY=yes", "server", "tty | tr -d 0-9"],
        ["-oRequestTTY=force", "server", "tty | tr -d 0-9"],
        ["-qt", "server", "echo quiet"],
        ["-t", "-n", "server", "tty"],
        ["-t", "server", "kill -9 $$"],
    ],
)
def test_same_is_seen_in_a_terminal(
    quiet_pair: Pair, spawn_in_pty: Spawn, words: list[str]
) -> None:
    expected, found = (see(spawn_in_pty, quiet_pair, name, words) for name in PROGRAMS)
    assert found == expected


def test_login_shell_in_a_terminal(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    shown = {}
    for program in PROGRAMS:
        with session(spawn_in_pty, quiet_pair, program, "server") as terminal:
            terminal.read_until(r"\$ $")
            shown[program] = [
                answer(terminal, command)
                for command in ("shopt login_shell", "echo $0 $-", "tty | tr -d 0-9", "echo $TERM")
            ]
            assert terminal.is_raw
            terminal.write("exit 3\r")
            assert terminal.wait() == 3
            assert terminal.is_restored
            shown[program].append(plain(terminal.output).splitlines()[-1].decode())
    assert shown["xssh"] == shown["ssh"]
    assert shown["xssh"][0] == "login_shell    \ton\r\n"


def test_modes_of_the_local_terminal_travel(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    local = "stty erase ^H intr ^X -ixon iutf8 werase undef kill ^K -echoctl onlcr;"
    seen = []
    for program in PROGRAMS:
        argv = quiet_pair.argv(program, ["-t", "server", "stty -a"])
        terminal = spawn_in_pty(
            ["bash", "-c", f'{local} "$@"', "bash", *argv], env=quiet_pair.environment
        )
        assert terminal.wait() == 0
        seen.append(plain(terminal.output))
        terminal.close()
    assert seen[1] == seen[0]
    assert b"erase = ^H" in seen[1]
    assert b"-ixon" in seen[1]


def test_size_travels_and_follows(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    for program in PROGRAMS:
        with session(spawn_in_pty, quiet_pair, program, "server", rows=33, cols=111) as terminal:
            terminal.read_until(r"\$ $")
            assert answer(terminal, "stty size") == "33 111\r\n"
            terminal.write("trap 'stty size; echo R''S' WINCH; echo S''ET\r")
            terminal.read_until("SET")
            terminal.resize(50, 70)
            wait_until(lambda t=terminal: "50 70" in answer(t, "stty size"), what="the new size")
            terminal.write("exit\r")
            terminal.wait()


def test_size_set_while_connecting_is_the_one_that_counts(
    quiet_pair: Pair, spawn_in_pty: Spawn
) -> None:
    quiet_pair.server.suspend()
    with session(spawn_in_pty, quiet_pair, "xssh", "server", rows=24, cols=80) as terminal:
        time.sleep(0.8)
        terminal.resize(40, 99)
        quiet_pair.server.resume()
        terminal.read_until(r"\$ $")
        assert answer(terminal, "stty size") == "40 99\r\n"


def test_unknown_term_travels_as_it_is(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    for program in PROGRAMS:
        terminal = spawn_in_pty(
            quiet_pair.argv(program, ["-t", "server", "echo [$TERM]"]),
            env={**quiet_pair.environment, "TERM": "xterm-kitty"},
        )
        terminal.wait()
        assert terminal.output.startswith(b"[xterm-kitty]\r\n")
        terminal.close()


# --- What is typed ------------------------------------------------------------------------------


def test_every_byte_typed_arrives(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    """All but the tilde after a newline, which begins an escape."""
    typed = bytes(range(256)) * 2 + "\U0001f389".encode()
    command = f"stty raw -echo; echo R''EADY; head -c {len(typed)} | od -An -v -tx1"
    seen = []
    for program in PROGRAMS:
        with session(spawn_in_pty, quiet_pair, program, "-t", "server", command) as terminal:
            terminal.read_until("READY")
            terminal.write(typed)
            assert terminal.wait() == 0
            seen.append(b"".join(terminal.output.partition(b"READY")[2].split()[:-5]))
    assert seen[1] == seen[0]
    assert bytes.fromhex(seen[1][: 2 * len(typed)].decode())[:256] == typed[:256]


@pytest.mark.parametrize("key", ["\x03", "\x1c", "\x1a"])
def test_keys_that_send_signals_go_to_the_remote_terminal(
    quiet_pair: Pair, spawn_in_pty: Spawn, key: str
) -> None:
    command = 'bash -c \'trap "echo got INT; exit 8" INT; trap "echo got QUIT; exit 9" QUIT; '
    command += 'trap "echo got TSTP; exit 10" TSTP; echo R""EADY; while :; do sleep 0.1; done\''
    ends = []
    for program in PROGRAMS:
        with session(spawn_in_pty, quiet_pair, program, "-t", "server", command) as terminal:
            terminal.read_until("READY")
            time.sleep(0.2)
            terminal.write(key)
            # "Quit" is bash's word about its `sleep`, if the key reached that before its end.
            status = terminal.wait()
            shown = plain(terminal.output).replace(b"^C", b"").replace(b"Quit\r\n", b"")
            ends.append((status, shown))
            assert terminal.is_restored
    assert ends[1] == ends[0]
    assert ends[1][0] in (8, 9, 10)


def test_interrupt_without_a_remote_terminal_ends_it(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    ends = []
    for program in PROGRAMS:
        words = ["server", "echo READY; exec cat"]
        with session(spawn_in_pty, quiet_pair, program, *words) as terminal:
            terminal.read_until("READY")
            assert not terminal.is_raw
            terminal.write("\x03")
            ends.append((terminal.wait(), terminal.output))
            assert terminal.is_restored
    assert ends[1] == ends[0]
    quiet_pair.server.wait_until_idle()


def test_reading_the_terminal_in_the_background_stops_it(
    quiet_pair: Pair, spawn_in_pty: Spawn
) -> None:
    """As every program: the shell says so, and the foreground gets its input."""
    script = 'set -m; "$@" & read -r line; sleep 0.5; jobs; fg >/dev/null'
    for program in PROGRAMS:
        argv = quiet_pair.argv(program, ["-T", "server", "echo up; cat; echo end"])
        terminal = spawn_in_pty(["bash", "-c", script, "bash", *argv], env=quiet_pair.environment)
        try:
            terminal.read_until("up\r\n")
            terminal.write("for the shell\nfor the session\n\x04")
            terminal.read_until("Stopped")
            terminal.read_until("for the session\r\nend\r\n")
            assert terminal.wait() == 0
        finally:
            terminal.close()


def test_end_of_input_from_the_keyboard(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    command = "echo READY; cat; echo after; exit 2"
    for words in (["server", command], ["-t", "server", command]):
        ends = []
        for program in PROGRAMS:
            with session(spawn_in_pty, quiet_pair, program, *words) as terminal:
                terminal.read_until("READY")
                terminal.write("one\r")
                terminal.read_until("one.*one")
                terminal.write("\x04")
                ends.append((terminal.wait(), plain(terminal.output)))
        assert ends[1] == ends[0]


# --- Escapes ------------------------------------------------------------------------------------


def test_disconnect_by_escape(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    ends = []
    for program in PROGRAMS:
        with session(spawn_in_pty, quiet_pair, program, "server") as terminal:
            terminal.read_until(r"\$ $")
            terminal.write("\r")
            terminal.read_until(r"\$ $")
            terminal.write("~.")
            ends.append((terminal.wait(), terminal.read_for(0.1).replace("\r\r\n", "\r\n")))
            assert terminal.is_restored
    assert ends[1] == ends[0]
    assert ends[1][0] == 255
    assert "Connection to 127.0.0.1 closed." in ends[1][1]
    quiet_pair.server.wait_until_idle()


def test_escaped_escape_and_help(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    seen = []
    for program in PROGRAMS:
        with session(spawn_in_pty, quiet_pair, program, "server") as terminal:
            terminal.read_until(r"\$ $")
            assert answer(terminal, "cd\r~~/x 2>/dev/null; echo ~~").count("~") >= 1
            terminal.write("\r")
            terminal.read_until(r"\$ $")
            terminal.write("~?")
            text = terminal.read_until("immediately after newline")
            seen.append([line for line in text.splitlines() if " ~." in line or "~~" in line])
            terminal.write("\r")
            terminal.read_until(r"\$ $")
            terminal.write("exit\r")
            assert terminal.wait() == 0 or program == "ssh"
    assert seen[1] == seen[0]


def test_another_escape_character_and_none(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    for program in PROGRAMS:
        with session(spawn_in_pty, quiet_pair, program, "-e", "%", "server") as terminal:
            terminal.read_until(r"\$ $")
            terminal.write("~.\r%.")
            assert terminal.wait() == 255
        with session(spawn_in_pty, quiet_pair, program, "-e", "none", "server") as terminal:
            terminal.read_until(r"\$ $")
            terminal.write("~.\r")
            terminal.read_until(r"\$ $")
            terminal.write("exit 4\r")
            assert terminal.wait() == 4


JOB_CONTROL = """
set -m
stty -a | md5sum
"$@"
echo "stopped $?"
stty -a | md5sum
sleep 0.3
fg >/dev/null
echo "ended $?"
stty -a | md5sum
"""


def test_suspend_and_continue(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    seen = []
    for program in PROGRAMS:
        argv = quiet_pair.argv(program, ["server"])
        terminal = spawn_in_pty(
            ["bash", "-c", JOB_CONTROL, "bash", *argv], env=quiet_pair.environment
        )
        before = terminal.read_until("  -\r\n")
        terminal.read_until(r"\$ $")
        terminal.write("~\x1a")
        shown = terminal.read_until("  -\r\n")
        assert before.strip() in shown
        assert "stopped 148" in shown
        wait_until(lambda t=terminal: t.is_raw, what="raw mode after fg")
        assert "42" in answer(terminal, "echo $((6*7))")
        terminal.write("exit 6\r")
        assert terminal.wait() == 0
        rest = terminal.read_for(0.1)
        assert "ended 6" in rest
        assert before.strip() in rest
        seen.append(shown.partition("stopped")[0].replace("\r", ""))
        terminal.close()
    assert seen[1].split() == seen[0].split()


# --- The terminal is put back -------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_terminal_is_restored_after_a_signal(
    quiet_pair: Pair, spawn_in_pty: Spawn, number: signal.Signals
) -> None:
    ends = []
    for program in PROGRAMS:
        with session(spawn_in_pty, quiet_pair, program, "server") as terminal:
            terminal.read_until(r"\$ $")
            assert terminal.is_raw
            os.kill(terminal.process.pid, number)
            ends.append((terminal.wait(), terminal.read_for(0.1).replace("\r\r\n", "\r\n")))
            assert terminal.is_restored
    assert ends[1] == ends[0]
    quiet_pair.server.wait_until_idle()


def test_terminal_is_restored_after_a_signal_in_the_login(
    quiet_pair: Pair, spawn_in_pty: Spawn
) -> None:
    quiet_pair.server.suspend()
    with session(spawn_in_pty, quiet_pair, "xssh", "server") as terminal:
        time.sleep(0.6)
        terminal.write("\x03")
        assert terminal.wait() == -signal.SIGINT
        assert terminal.is_restored
        assert terminal.output == b"^C"
    quiet_pair.server.resume()


def test_terminal_is_restored_when_the_connection_dies(
    quiet_pair: Pair, spawn_in_pty: Spawn
) -> None:
    ends = []
    for program in PROGRAMS:
        with session(spawn_in_pty, quiet_pair, program, "server") as terminal:
            terminal.read_until(r"\$ $")
            quiet_pair.server.kill_sessions()
            status = terminal.wait()
            shown = terminal.read_for(0.1).splitlines()
            ends.append((status, [line for line in shown if "Connection to" in line]))
            assert terminal.is_restored
    assert ends[1] == ends[0]


FAULT = """
import asyncio, signal

def fault(number, frame):
    for task in asyncio.all_tasks(asyncio._get_running_loop()):
        if type(task._fut_waiter).__name__ == "Future" and task.get_coro().__name__ == "_work":
            task._fut_waiter.set_exception(RuntimeError("a fault for the test"))

signal.signal(signal.SIGUSR1, fault)
"""


def test_terminal_is_restored_after_a_crash(
    quiet_pair: Pair, spawn_in_pty: Spawn, short_directory: Path
) -> None:
    """A fault while the terminal is raw: the modes come back, and a word is said."""
    (short_directory / "sitecustomize.py").write_text(FAULT)
    environment = {**quiet_pair.environment, "PYTHONPATH": str(short_directory)}
    terminal = spawn_in_pty(quiet_pair.argv("xssh", ["server"]), env=environment)
    terminal.read_until(r"\$ $")
    assert terminal.is_raw
    os.kill(terminal.process.pid, signal.SIGUSR1)
    time.sleep(0.2)
    terminal.write("x")
    assert terminal.wait() == 255
    assert terminal.is_restored
    shown = terminal.output.decode()
    assert "xssh: internal error: RuntimeError: a fault for the test" in shown
    assert "Traceback" not in shown
    terminal.close()
    quiet_pair.server.wait_until_idle()


def test_hangup_of_the_terminal_ends_it(quiet_pair: Pair, spawn_in_pty: Spawn) -> None:
    terminal = spawn_in_pty(quiet_pair.argv("xssh", ["server"]), env=quiet_pair.environment)
    terminal.read_until(r"\$ $")
    os.close(terminal.slave)
    os.close(terminal.master)
    try:
        assert terminal.process.wait(10) in (255, -signal.SIGHUP)
        quiet_pair.server.wait_until_idle()
    finally:
        terminal.master, terminal.slave = os.openpty()


# --- A terminal on one side only ----------------------------------------------------------------


def test_forced_terminal_without_a_local_one(quiet_pair: Pair) -> None:
    for words, stdin in (
        (["-tt", "server", "tty | tr -d 0-9; stty size; exit 3"], b""),
        (["-tt", "server", "read -r x; echo got $x"], b"typed\n"),
    ):
        done = quiet_pair.both(words, stdin=stdin)
        assert b"\r\n" in done.stdout


def test_stdout_elsewhere_while_stdin_is_a_terminal(
    quiet_pair: Pair, spawn_in_pty: Spawn, short_directory: Path
) -> None:
    contents = []
    for program in PROGRAMS:
        target = short_directory / program
        argv = quiet_pair.argv(program, ["-t", "server", "tty | tr -d 0-9; echo err >&2"])
        terminal = spawn_in_pty(
            ["bash", "-c", f'"$@" >{target}; echo "status $?"', "bash", *argv],
            env=quiet_pair.environment,
        )
        terminal.wait()
        contents.append((target.read_bytes(), plain(terminal.output)))
        terminal.close()
    assert contents[1] == contents[0]


def test_session_in_the_background_is_stopped_by_no_terminal(
    quiet_pair: Pair, spawn_in_pty: Spawn
) -> None:
    """`xssh -n host cmd &` in a shell with job control runs on beside it."""
    script = 'set -m; stty tostop; "$@" >"$0.out" 2>&1 & wait $!; echo "status $?"; cat "$0.out"'
    ends = []
    for program in PROGRAMS:
        name = str(quiet_pair.home.path / program)
        argv = quiet_pair.argv(program, ["-n", "server", "echo out; sleep 0.2; exit 3"])
        terminal = spawn_in_pty(["bash", "-c", script, name, *argv], env=quiet_pair.environment)
        terminal.wait()
        ends.append(terminal.output)
        terminal.close()
    assert ends[1] == ends[0]
    assert b"status 3" in ends[1]
