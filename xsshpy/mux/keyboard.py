"""The user's terminal stays in a passenger's hands: what is typed goes to the master by a pipe.

A master belongs to no job of the user's shell. Reading the terminal, it would take what is typed
for others while its passenger is stopped, or in the shell's background. So where xssh shares by
itself the passenger reads, stopped by the same signals as without a master, and ``~^Z`` is its
own. All other escapes pass, for they are the master's.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

_READ_SIZE = 1 << 12
_STOP = 0x1A
_STANDARD = 2
_LINE_ENDS = b"\r\n"
_COMMANDS = b".&#?BRCvV"
"""What other escapes there are: after one of them another may follow at once."""


class Keyboard:
    """What is typed at a terminal, on its way into a pipe.

    ``reader`` is the end for the master. ``escape`` is the escape character's code, None where
    there are none.
    """

    def __init__(self, terminal: int, escape: int | None) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._source = _open_unshared(terminal)
        self._escape = escape
        self._suspend: Callable[[str], object] = str
        self._waiting = b""
        self._has_ended = False
        self._after_newline = True
        self._is_escaped = False

    def begin(self, suspend: Callable[[str], object]) -> None:
        """The master has its end, so close it here. ``suspend`` is what ^Z after an escape does."""
        self._close_reader()
        self._suspend = suspend

    @property
    def wanted(self) -> tuple[int, int] | None:
        """What to poll for next: a descriptor and poll(2)'s events; None where all is over."""
        if self._waiting:
            return self._writer, select.POLLOUT
        return None if self._has_ended else (self._source, select.POLLIN)

    def advance(self) -> None:
        """Read, or write, what was polled for."""
        if not self._waiting:
            self._read()
        self._write()
        if self._has_ended and not self._waiting:
            self._close_writer()

    def close(self) -> None:
        """Let go of the terminal, and of the pipe."""
        self._close_reader()
        self._close_writer()
        self._waiting, self._has_ended = b"", True
        if self._source > _STANDARD:
            os.close(self._source)
            self._source = -1

    def _close_reader(self) -> None:
        reader, self.reader = self.reader, -1
        if reader >= 0:
            os.close(reader)

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, -1
        if writer >= 0:
            os.close(writer)

    def _write(self) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._writer, self._waiting) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more
            self._waiting, self._has_ended = b"", True

    def _read(self) -> None:
        try:
            data = os.read(self._source, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # a terminal that went away: the end of input
            data = b""
        self._has_ended = not data
        if self._escape is None:
            self._waiting = data
        else:
            self._pass_without_stops(data, self._escape)

    def _pass_without_stops(self, data: bytes, escape: int) -> None:
        """Pass it on, and stop where that was typed, once the master has what came before."""
        for code in data:
            if self._is_escaped:
                self._is_escaped = False
                if code == _STOP:
                    self._write()
                    from xsshpy.terminal.escapes import Suspend, echo_text

                    self._suspend(echo_text(Suspend(), escape))
                    continue
                self._waiting += bytes([escape, code])
                if code in _COMMANDS:
                    continue
            elif self._after_newline and code == escape:
                self._is_escaped = True
                continue
            else:
                self._waiting += bytes([code])
            self._after_newline = code in _LINE_ENDS


def _open_unshared(terminal: int) -> int:
    """Return the same terminal with flags of its own, so that reading it never waits.

    Another job may take what was there first. Where the system can't, it is the same descriptor.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{terminal}", flags)
    except OSError:
        return terminal
