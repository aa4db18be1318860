"""A Python program with a terminal of its own, and a shell with just enough job control."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0

LOCAL = 3

# Runs argv[2:] as a job in the foreground of the terminal, says how it fares on stdout, and does
# what it is told on the descriptor argv[1]: "fg", "bg" or "end"; "bg-as-is" leaves the terminal's
# modes to the test.
SHELL = """
import os, signal, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
tty = os.open(os.ttyname(0), os.O_RDWR)
own = termios.tcgetattr(tty)
orders = os.fdopen(int(sys.argv[1]))
gate, opened = os.pipe()
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    os.read(gate, 1)
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[2], sys.argv[2:])
os.setpgid(pid, pid)
place = orders.readline().strip()
if place == "fg":
    os.tcsetpgrp(tty, pid)
os.write(opened, b"x")
while True:
    _, status = os.waitpid(pid, os.WUNTRACED | os.WCONTINUED)
    if os.WIFCONTINUED(status):
        continue
    flags = termios.tcgetattr(tty)[3]
    echo = "echo" if flags & termios.ECHO and flags & termios.ICANON else "noecho"
    if not os.WIFSTOPPED(status):
        print("ended", os.waitstatus_to_exitcode(status), echo, flush=True)
        break
    print("stopped", signal.Signals(os.WSTOPSIG(status)).name, echo, flush=True)
    os.tcsetpgrp(tty, os.getpgrp())
    order = orders.readline().strip()
    if order != "bg-as-is":
        termios.tcsetattr(tty, termios.TCSADRAIN, own)
    if order == "fg":
        os.tcsetpgrp(tty, pid)
    if order in ("fg", "bg", "bg-as-is"):
        os.killpg(pid, signal.SIGCONT)
    else:
        os.killpg(pid, signal.SIGKILL)
"""


class PtyChild:
    """A process whose controlling terminal is a new pty; the test holds both ends of it."""

    def __init__(
        self,
        code: str,
        *arguments: str,
        home: Path,
        env: dict[str, str] | None = None,
        std_on_tty: bool = False,
        job: bool = False,
        argv: list[str] | None = None,
        start: str = "fg",
    ) -> None:
        self.master, self.slave = pty.openpty()
        self.output = bytearray()
        self._orders = -1
        command = argv or [sys.executable, "-c", code, *arguments]
        passed: tuple[int, ...] = ()
        if job:
            readable, self._orders = os.pipe()
            passed = (readable,)
            command = [sys.executable, "-c", SHELL, str(readable), *command]
        name = os.ttyname(self.slave)
        self.process = subprocess.Popen(
            command,
            stdin=self.slave if std_on_tty or job else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "PYTHONPATH": str(ROOT),
                "LC_ALL": "C.UTF-8",
                **(env or {}),
            },
            start_new_session=True,
            preexec_fn=lambda: os.close(_take_terminal(name)),
            pass_fds=passed,
        )
        for fd in passed:
            os.close(fd)
        if job:
            self.order(start)

    def __enter__(self) -> PtyChild:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        for fd in (self.master, self.slave, self._orders):
            if fd >= 0:
                os.close(fd)

    def order(self, word: str) -> None:
        os.write(self._orders, word.encode() + b"\n")

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def read_terminal(self, marker: bytes) -> bytes:
        """Read what the terminal shows, up to ``marker`` that was not read before."""
        deadline = time.monotonic() + PATIENCE
        while marker not in self.output:
            if not select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {marker!r} in {bytes(self.output)!r}: {self.rest()}")
            self.output += os.read(self.master, 4096)
        end = self.output.index(marker) + len(marker)
        seen = bytes(self.output[:end])
        del self.output[:end]
        return seen

    def rest_of_terminal(self) -> bytes:
        while select.select([self.master], [], [], 0.05)[0]:
            self.output += os.read(self.master, 4096)
        return bytes(self.output)

    def line(self) -> str:
        """Return the next line of stdout."""
        fd = self.process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([fd], [], [], PATIENCE)[0]:
                raise AssertionError(f"only {line!r} on stdout")
            byte = os.read(fd, 1)
            if not byte:
                raise AssertionError(f"stdout ended after {line!r}: {self.rest()}")
            line += byte
        return line.decode().rstrip("\n")

    def rest(self) -> tuple[bytes, bytes]:
        self.process.kill()
        return self.process.communicate(timeout=PATIENCE)

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.decode(), err.decode()

    def modes(self) -> list:
        return termios.tcgetattr(self.slave)

    def echoes(self) -> bool:
        return bool(self.modes()[LOCAL] & termios.ECHO)

    def wait_for_echo(self, wanted: bool) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.echoes() != wanted:
            assert time.monotonic() < deadline, f"echo never became {wanted}"
            time.sleep(0.01)


def _take_terminal(name: str) -> int:
    fd = os.open(name, os.O_RDWR)
    if sys.platform == "darwin":
        fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
    for signum in (signal.SIGTTOU, signal.SIGTTIN, signal.SIGTSTP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)
    return fd
