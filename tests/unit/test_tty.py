"""Raw mode, sizes, modes and job control, on real ptys and with ssh beside them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.pty_child import PtyChild
from xsshpy.terminal.tty import RawTerminal, TerminalSize, encode_modes, read_modes, read_size

INPUT, OUTPUT, LOCAL, CHARACTERS = 0, 1, 3, 6
RAW_OFF_INPUT = (
    termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL
    | termios.IXON | termios.IXANY | termios.IXOFF
)  # fmt: skip
RAW_OFF_LOCAL = (
    termios.ISIG | termios.ICANON | termios.ECHO | termios.ECHOE
    | termios.ECHOK | termios.ECHONL | termios.IEXTEN
)  # fmt: skip


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    try:
        yield master, slave
    finally:
        for fd in (master, slave):
            with contextlib.suppress(OSError):
                os.close(fd)


def is_raw(modes: list) -> bool:
    return (
        not modes[INPUT] & RAW_OFF_INPUT
        and bool(modes[INPUT] & termios.IGNPAR)
        and not modes[LOCAL] & RAW_OFF_LOCAL
        and not modes[OUTPUT] & termios.OPOST
        and modes[CHARACTERS][termios.VMIN] in (1, b"\x01")
        and modes[CHARACTERS][termios.VTIME] in (0, b"\x00")
    )


def test_size() -> None:
    with terminal() as (_, slave):
        assert read_size(slave) == TerminalSize()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 1056, 800))
        assert read_size(slave) == TerminalSize(132, 50, 1056, 800)


def test_what_is_no_terminal_has_neither_size_nor_modes() -> None:
    with open(os.devnull) as null:
        assert read_size(null.fileno()) == TerminalSize(0, 0, 0, 0)
        assert read_modes(null.fileno()) == {}
        with RawTerminal(null.fileno()) as raw:
            assert not raw.active
    assert read_modes(9999) == {}


def test_modes_follow_the_terminal() -> None:
    with terminal() as (_, slave):
        modes = termios.tcgetattr(slave)
        modes[LOCAL] &= ~termios.ECHO
        modes[LOCAL] |= termios.NOFLSH
        modes[INPUT] |= termios.IXOFF | 0x4000
        modes[4] = modes[5] = termios.B115200
        modes[CHARACTERS][termios.VINTR] = b"\x07"
        modes[CHARACTERS][termios.VQUIT] = b"\x00" if sys.platform == "linux" else b"\xff"
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        encoded = read_modes(slave)
    assert {op: encoded[op] for op in (1, 2, 40, 42, 53, 57, 128, 129)} == {
        1: 7, 2: 255, 40: 1, 42: 1, 53: 0, 57: 1, 128: 115200, 129: 115200,
    }  # fmt: skip


def test_unknown_speed_counts_as_9600() -> None:
    with terminal() as (_, slave):
        modes = termios.tcgetattr(slave)
    modes[4] = modes[5] = 0o7777
    assert encode_modes(modes)[128] == encode_modes(modes)[129] == 9600


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh to compare with")
def test_modes_are_those_that_ssh_sends(tmp_path: Path) -> None:
    import asyncssh

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    seen: dict[int, int] = {}

    async def handle(process) -> None:
        seen.update(process.channel.get_terminal_modes())
        process.exit(0)

    async def run(slave: int) -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.create_server(
            Server, "127.0.0.1", 0, server_host_keys=[key], process_factory=handle
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            ssh = await asyncio.create_subprocess_exec(
                *("ssh", "-F", "/dev/null", "-tt", "-p", str(port)),
                *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
                *("-o", "LogLevel=ERROR", "x@127.0.0.1", "true"),
                stdin=slave,
                stdout=subprocess.DEVNULL,
                env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": "dumb"},
                start_new_session=True,
            )
            assert await asyncio.wait_for(ssh.wait(), 30) == 0

    with terminal() as (_, slave):
        modes = termios.tcgetattr(slave)
        modes[INPUT] |= termios.IXANY
        modes[CHARACTERS][termios.VSTART] = b"\x05"
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        expected = read_modes(slave)
        asyncio.run(run(slave))
    seen.pop(0, None)
    assert expected == seen


def test_raw_mode_and_back() -> None:
    with terminal() as (_, slave):
        before = termios.tcgetattr(slave)
        raw = RawTerminal(slave)
        assert not raw.active
        with raw:
            assert raw.active
            assert is_raw(termios.tcgetattr(slave))
            assert raw.enter()
        assert termios.tcgetattr(slave) == before
        raw.leave()
        assert raw.enter() and is_raw(termios.tcgetattr(slave))
        raw.leave()
        raw.leave()
        raw.reenter()
        assert termios.tcgetattr(slave) == before


def test_restored_after_an_exception() -> None:
    with terminal() as (_, slave):
        before = termios.tcgetattr(slave)
        with pytest.raises(ZeroDivisionError), RawTerminal(slave):
            assert is_raw(termios.tcgetattr(slave))
            raise ZeroDivisionError
        assert termios.tcgetattr(slave) == before


def test_reenter_after_somebody_changed_the_modes() -> None:
    with terminal() as (_, slave):
        before = termios.tcgetattr(slave)
        with RawTerminal(slave) as raw:
            changed = termios.tcgetattr(slave)
            changed[LOCAL] = before[LOCAL] & ~termios.ECHOK
            termios.tcsetattr(slave, termios.TCSANOW, changed)
            raw.reenter()
            assert is_raw(termios.tcgetattr(slave))
        assert termios.tcgetattr(slave) == before


def test_a_terminal_that_is_gone_is_no_error() -> None:
    with terminal() as (master, slave):
        with RawTerminal(slave):
            os.close(master)
        raw = RawTerminal(slave)
        assert not raw.enter()
        raw.leave()


def test_a_descriptor_that_is_closed_is_no_error() -> None:
    with terminal() as (_, slave), RawTerminal(slave):
        os.close(slave)


def test_signals_are_given_back() -> None:
    held = (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT)
    before = [signal.getsignal(signum) for signum in held]
    with terminal() as (_, slave):
        with RawTerminal(slave):
            assert [signal.getsignal(signum) for signum in held] != before
        assert [signal.getsignal(signum) for signum in held] == before


CHILD = """
import os, signal, sys, time
from xsshpy.terminal.tty import RawTerminal, suspend
raw = RawTerminal(0)
raw.enter()
print("raw", raw.active, flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_restored_when_a_signal_kills(tmp_path: Path, signum: signal.Signals) -> None:
    code = CHILD + "time.sleep(60)"
    with PtyChild(code, home=tmp_path, std_on_tty=True) as child:
        before = child.modes()
        assert child.line() == "raw True"
        assert is_raw(child.modes())
        os.kill(child.process.pid, signum)
        assert child.process.wait(20) == -signum
        assert child.modes() == before


@pytest.mark.parametrize(
    ("end", "status"),
    [("sys.exit(3)", 3), ("raise KeyError('x')", 1), ("os.kill(os.getpid(), signal.SIGINT)", -2)],
)
def test_restored_however_the_interpreter_ends(tmp_path: Path, end: str, status: int) -> None:
    with PtyChild(CHILD + end, home=tmp_path, std_on_tty=True) as child:
        before = child.modes()
        assert child.finish()[0] == status
        assert child.modes() == before


def test_own_handler_for_sigterm_stays(tmp_path: Path) -> None:
    code = "import signal; signal.signal(15, lambda *_: print('mine', flush=True))\n" + CHILD
    with PtyChild(code + "os.kill(os.getpid(), 15)", home=tmp_path, std_on_tty=True) as child:
        assert child.finish() == (0, "raw True\nmine\n", "")


SUSPENDING = CHILD + "suspend(raw); print('back', raw.active, flush=True)\n"


def test_suspend_gives_the_terminal_back_and_takes_it_again(tmp_path: Path) -> None:
    code = SUSPENDING + "sys.stdin.readline()"
    with PtyChild(code, home=tmp_path, job=True) as child:
        before = child.modes()
        assert child.line() == "raw True"
        assert child.line() == "stopped SIGTSTP echo"
        child.order("fg")
        assert child.line() == "back True"
        assert is_raw(child.modes())
        child.type(b"\n")
        assert child.line() == "ended 0 echo"
        assert child.modes() == before


def test_continued_in_the_background_stops_again(tmp_path: Path) -> None:
    code = SUSPENDING + "sys.stdin.readline(); print('line', raw.active, flush=True)"
    with PtyChild(code, home=tmp_path, job=True) as child:
        before = child.modes()
        assert child.line() == "raw True"
        assert child.line() == "stopped SIGTSTP echo"
        child.order("bg")
        assert child.line() == "stopped SIGTTOU echo"
        assert child.modes() == before
        child.order("fg")
        assert child.line() == "back True"
        assert is_raw(child.modes())
        child.type(b"\n")
        assert child.line() == "line True"
        assert child.line() == "ended 0 echo"
        assert child.modes() == before


def test_started_in_the_background_stops_until_it_is_in_front(tmp_path: Path) -> None:
    code = CHILD + "sys.stdin.readline(); raw.leave(); print('left', flush=True)"
    with PtyChild(code, home=tmp_path, job=True, start="bg") as child:
        before = child.modes()
        assert child.line() == "stopped SIGTTOU echo"
        assert child.modes() == before
        child.order("fg")
        assert child.line() == "raw True"
        assert is_raw(child.modes())
        child.type(b"\n")
        assert child.line() == "left"
        assert child.line() == "ended 0 echo"
        assert child.modes() == before


def test_where_nothing_can_stop_it_the_terminal_is_left_alone(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n" + CHILD
    with PtyChild(code, home=tmp_path, job=True, start="bg") as child:
        before = child.modes()
        assert child.line() == "raw False"
        assert child.line() == "ended 0 echo"
        assert child.modes() == before


LEAVING_LATE = (
    CHILD
    + """
os.kill(os.getpid(), signal.SIGSTOP)
raw.leave()
print("left", flush=True)
"""
)


def test_left_in_the_background_what_is_still_raw_is_put_back(tmp_path: Path) -> None:
    with PtyChild(LEAVING_LATE, home=tmp_path, job=True) as child:
        before = child.modes()
        assert child.line() == "raw True"
        assert child.line() == "stopped SIGSTOP noecho"
        child.order("bg-as-is")
        assert child.line() == "left"
        assert child.line() == "ended 0 echo"
        assert child.modes() == before


def test_left_in_the_background_what_the_shell_set_stays(tmp_path: Path) -> None:
    with PtyChild(LEAVING_LATE, home=tmp_path, job=True) as child:
        shells = child.modes()
        shells[LOCAL] &= ~termios.ECHOK
        assert child.line() == "raw True"
        assert child.line() == "stopped SIGSTOP noecho"
        termios.tcsetattr(child.slave, termios.TCSANOW, shells)
        child.order("bg-as-is")
        assert child.line() == "left"
        assert child.line() == "ended 0 echo"
        assert child.modes() == shells


@pytest.mark.parametrize("signum", [signal.SIGTSTP, signal.SIGSTOP])
def test_stopped_from_outside_becomes_raw_again(tmp_path: Path, signum: signal.Signals) -> None:
    code = CHILD + f"os.kill(os.getpid(), {int(signum)}); time.sleep(0.01)\n"
    code += "print(raw.active, flush=True); sys.stdin.readline()"
    with PtyChild(code, home=tmp_path, job=True) as child:
        assert child.line() == "raw True"
        # Nobody can catch SIGSTOP: the shell finds the terminal raw, as with ssh.
        echo = "echo" if signum == signal.SIGTSTP else "noecho"
        assert child.line() == f"stopped {signum.name} {echo}"
        child.order("fg")
        assert child.line() == "True"
        assert is_raw(child.modes())
        child.type(b"\n")
        assert child.line() == "ended 0 echo"


def test_suspend_where_nobody_could_continue_returns(tmp_path: Path) -> None:
    # A session leader's group is an orphaned one.
    with PtyChild(SUSPENDING, home=tmp_path, std_on_tty=True) as child:
        assert child.finish() == (0, "raw True\nback True\n", "")


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1", "0 2", "1 2", "0 1 2", ""])
def test_closed_standard_descriptors_are_opened(tmp_path: Path, closed: str) -> None:
    report = tmp_path / "report"
    code = f"""
import os
kept = [os.fstat(fd).st_ino for fd in range(3)]
closed = [int(fd) for fd in "{closed}".split()]
for fd in closed:
    os.close(fd)
from xsshpy.streams import sanitise_standard_descriptors
sanitise_standard_descriptors()
null = os.stat(os.devnull).st_ino
for fd in range(3):
    assert os.get_inheritable(fd), fd
    assert os.fstat(fd).st_ino == (null if fd in closed else kept[fd]), fd
    os.write(1, b""), os.read(0, 0)
with open({str(report)!r}, "w") as file:
    file.write(str(file.fileno()))
"""
    with open(tmp_path / "other", "w+b") as other:
        subprocess.run(
            [sys.executable, "-c", code],
            stdin=other,
            stdout=other,
            check=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(tmp_path)},
        )
    assert report.read_text() == "3"
