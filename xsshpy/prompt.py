"""One question on the controlling terminal, as readpassphrase(3) asks it.

The question and the answer use the terminal itself, never stdin or stdout. The terminal's echo
comes back however the question ends: an answer, a cancelled task, a signal that ends or stops the
process. After a stop the question is shown again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import sys
import termios
import threading
from collections.abc import Iterator

from xsshpy.ttyguard import Modes, SignalGuard, TerminalErrors, get_modes, restore_modes, set_modes

ANSWER_LIMIT = 1023
"""Bytes of an answer that are kept; the rest of the line is read and dropped."""

_LOCAL = 3
_CHARACTERS = 6


def open_terminal(path: str) -> int:
    """Open the terminal ``path`` for a question and return its descriptor. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    # To the line's start: it covers what was typed too early and echoed there.
    with contextlib.suppress(OSError):
        os.write(fd, b"\r")
    return fd


async def ask_on_terminal(fd: int, question: bytes, *, echo: bool) -> bytes | None:
    """Ask ``question`` on the terminal ``fd`` and return the line typed, without its end.

    What was typed before is dropped; at the end of input (^D) the answer is what was typed until
    then, possibly nothing. None means that the terminal is gone or can't be read. Cancelling is
    safe at any time. In the background the process is stopped until it is in the foreground, as
    ssh is.
    """
    terminal = _Questioned(fd, question, echo=echo)
    guard = SignalGuard(terminal.put_back, terminal.ask_again)
    try:
        # The guard comes second: in the background, asking stops the process until it is called
        # to the foreground, and SIGCONT must not ask a second time then.
        with guard.hold_off():
            if not terminal.ask():
                return None
            guard.install()
        return await _read_line_in_thread(fd)
    finally:
        terminal.put_back()
        guard.remove()


class _Questioned:
    """The terminal's modes while a question stands on it."""

    def __init__(self, fd: int, question: bytes, *, echo: bool) -> None:
        self._fd = fd
        self._question = question
        self._echo = echo
        self._saved: Modes | None = None
        self._ours: Modes | None = None

    def ask(self) -> bool:
        """Set the modes and show the question; return False if there is no terminal."""
        try:
            saved = get_modes(self._fd)
            ours = _question_modes(saved, echo=self._echo)
            self._saved, self._ours = saved, ours
            set_modes(self._fd, termios.TCSAFLUSH, ours)
            self._ours = get_modes(self._fd)
        except TerminalErrors:
            self._saved = None
            return False
        self._write(self._question)
        return True

    def ask_again(self) -> None:
        # After SIGSTOP nothing was put back: the modes found now may be the shell's or ours, so
        # the ones of before stay the ones to go back to.
        before = self._saved
        self.ask()
        self._saved = before or self._saved

    def put_back(self) -> None:
        saved, ours = self._saved, self._ours
        if saved is None or ours is None:
            return
        self._saved = None
        if not self._echo:
            self._write(b"\n")
        restore_modes(self._fd, saved, ours, termios.TCSAFLUSH)

    def _write(self, data: bytes) -> None:
        # A terminal that takes no output (^S) loses the rest; the read still works.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._fd, data) :]


def _question_modes(modes: Modes, *, echo: bool) -> Modes:
    changed = list(modes)
    flags, characters = changed[_LOCAL], changed[_CHARACTERS]
    assert isinstance(flags, int) and isinstance(characters, list)
    if not echo:
        changed[_LOCAL] = flags & ~(termios.ECHO | termios.ECHONL)
    if sys.platform == "darwin":
        # VSTATUS: ^T would print a status line into the question.
        characters = list(characters)
        characters[18] = b"\xff"
        changed[_CHARACTERS] = characters
    return changed


async def _read_line_in_thread(fd: int) -> bytes | None:
    # A thread, since the event loops of some systems can't watch /dev/tty.
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes | None] = loop.create_future()

    def settle(answer: bytes | None) -> None:
        if not answered.done():
            answered.set_result(answer)

    with _pipe() as (wake, waker):

        def work() -> None:
            answer = _read_line(fd, wake)
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, answer)

        thread = threading.Thread(target=work, name="terminal prompt", daemon=True)
        thread.start()
        try:
            return await answered
        finally:
            os.write(waker, b"x")
            thread.join()


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    readable, writable = os.pipe()
    try:
        yield readable, writable
    finally:
        os.close(readable)
        os.close(writable)


def _read_line(fd: int, wake: int) -> bytes | None:
    # Signals belong to the main thread, which Python's handlers need awake. Those two must work
    # here: they stop a background process that reads.
    working = {signal.SIGTTIN, signal.SIGTTOU}
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - working)
    line = bytearray()
    # kqueue and poll can't watch /dev/tty on macOS.
    chosen = selectors.SelectSelector if sys.platform == "darwin" else selectors.PollSelector
    with chosen() as selector:
        selector.register(fd, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            if wake in {key.fd for key, _ in selector.select()}:
                return None
            try:
                byte = os.read(fd, 1)
            except BlockingIOError:
                continue
            except OSError:
                return None
            if byte == b"":
                return bytes(line) if _is_alive(fd) else None
            if byte in (b"\n", b"\r"):
                return bytes(line)
            if len(line) < ANSWER_LIMIT:
                line += byte


def _is_alive(fd: int) -> bool:
    try:
        get_modes(fd)
    except TerminalErrors:
        return False
    return True
