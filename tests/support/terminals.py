"""A program in a pseudo-terminal: what a person at the keyboard sees and types."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Mapping, Sequence

from tests.support.processes import end_popen
from tests.support.warmstart import open_process


class Terminal:
    """A program that runs in a terminal of its own; ends with ``close()``.

    ``output`` is everything it wrote so far, escape sequences and ``\\r\\n`` included.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        rows: int = 24,
        cols: int = 80,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self.output = b""
        self._read_position = 0
        self._ended = False
        self.master, slave = pty.openpty()
        # Kept open so that settings can be read after the program is gone, as a shell would.
        self.slave = slave
        self.resize(rows, cols)
        os.set_blocking(self.master, False)
        self.initial_attributes = termios.tcgetattr(slave)
        try:
            self.process = open_process(
                argv, terminal=slave, env=None if env is None else dict(env), cwd=cwd
            )
        except BaseException:
            os.close(slave)
            os.close(self.master)
            raise

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0.0, timeout))
        if not ready:
            return False
        try:
            piece = os.read(self.master, 65536)
        except (BlockingIOError, OSError):
            return False
        self.output += piece
        return bool(piece)

    def read_until(self, pattern: str | bytes, timeout: float = 10.0) -> str:
        """Read until a regular expression matches what was not yet taken; return up to its end.

        AssertionError when that does not come within ``timeout`` seconds, or when the program
        ends before.
        """
        expression = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.S)
        deadline = time.monotonic() + timeout
        while True:
            match = expression.search(self.output, self._read_position)
            if match:
                taken = self.output[self._read_position : match.end()]
                self._read_position = match.end()
                return taken.decode(errors="replace")
            ended = self.process.poll() is not None
            if self._read(min(0.2, deadline - time.monotonic())):
                continue
            if ended or time.monotonic() > deadline:
                why = f"the program ended ({self.process.returncode})" if ended else "time is up"
                raise AssertionError(
                    f"{why}: no {pattern!r} in {self.output[self._read_position :]!r}"
                )

    def read_for(self, seconds: float) -> str:
        """Read for a while; return what was not yet taken."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._read(deadline - time.monotonic())
        taken = self.output[self._read_position :]
        self._read_position = len(self.output)
        return taken.decode(errors="replace")

    def write(self, data: str | bytes) -> None:
        """Type something."""
        rest = data.encode() if isinstance(data, str) else data
        deadline = time.monotonic() + 10
        while rest:
            _, ready, _ = select.select([], [self.master], [], 0.1)
            self._read(0)
            if ready:
                with contextlib.suppress(BlockingIOError):
                    rest = rest[os.write(self.master, rest) :]
            if rest and time.monotonic() > deadline:
                raise AssertionError(f"the program does not read its terminal: {len(rest)} left")

    def resize(self, rows: int, cols: int) -> None:
        """Change the window's size; the kernel sends SIGWINCH."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    @property
    def attributes(self) -> list[object]:
        """The terminal's settings now, as ``termios.tcgetattr`` gives them."""
        return list(termios.tcgetattr(self.slave))

    @property
    def echo(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    @property
    def is_raw(self) -> bool:
        """Whether the terminal hands over each key as it is: no lines, no signals."""
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ISIG)

    @property
    def is_restored(self) -> bool:
        """Whether the settings are those from before the program started."""
        return self.attributes == list(self.initial_attributes)

    def wait(self, timeout: float = 15.0) -> int:
        """Wait for the end, reading on; return the status (negative: a signal)."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            self._read(0.05)
            if time.monotonic() > deadline:
                raise AssertionError(f"still runs after {timeout:g} s: {self.output[-2000:]!r}")
        while self._read(0.02):
            pass
        return int(self.process.returncode)

    def close(self) -> None:
        """End the program, if it still runs, and the terminal."""
        if self._ended:
            return
        self._ended = True
        end_popen(self.process)
        os.close(self.slave)
        os.close(self.master)
