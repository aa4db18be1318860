"""Keeps a terminal from being left in modes that its user can't type in.

The prompts and the raw terminal both change a terminal for a while. Both have to put it back
when a signal ends or stops the program, and neither may touch it while another program has it,
or be stopped for trying (SIGTTOU).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import termios
import threading
from collections.abc import Callable, Iterator
from types import FrameType

Modes = list[int | list[bytes | int]]
"""A terminal's modes, as termios.tcgetattr returns them."""

TerminalErrors = (termios.error, OSError)

ENDING_SIGNALS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGALRM)


def get_modes(fd: int) -> Modes:
    """Return the modes of the terminal ``fd``. Raises termios.error."""
    return termios.tcgetattr(fd)


def set_modes(fd: int, when: int, modes: Modes) -> None:
    """Change the modes of the terminal ``fd``, whatever signals arrive. Raises termios.error."""
    while True:
        try:
            termios.tcsetattr(fd, when, modes)
            return
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                raise


def is_in_foreground(fd: int) -> bool:
    """Say whether this process may change the terminal ``fd`` without being stopped.

    A terminal that is not the controlling one knows no background.
    """
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True


def wait_for_foreground(fd: int) -> None:
    """Stop, as any program that changes the terminal ``fd`` from the background (SIGTTOU).

    Returns once a shell has brought the job to the foreground, and at once where nobody stops it:
    the signal is ignored, or no shell could continue the process group.
    """
    while not is_in_foreground(fd):
        try:
            termios.tcdrain(fd)  # it counts as a change and changes nothing
            return
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                return


def restore_modes(fd: int, saved: Modes, ours: Modes, when: int = termios.TCSADRAIN) -> bool:
    """Give the terminal ``fd`` its modes ``saved`` back; return False where that is impossible.

    In the background the shell has set the modes it wants, so they are changed only if they still
    are ``ours``. Never raises and never stops the process.
    """
    try:
        if not is_in_foreground(fd) and get_modes(fd) != ours:
            return True
        with _blocked({signal.SIGTTOU}):
            set_modes(fd, when, saved)
    except TerminalErrors:
        return False
    return True


@contextlib.contextmanager
def _blocked(signals: set[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SignalGuard:
    """Calls ``leave`` before a signal ends or stops the process, and ``resume`` once it goes on.

    Only signals that would have their default effect are taken: whoever handles or ignores one
    has a way out of his own. The signal then has that effect, so the parent process sees it.
    Both functions run in the main thread, between two bytecodes, and may be called repeatedly.
    """

    def __init__(self, leave: Callable[[], None], resume: Callable[[], None]) -> None:
        self._leave = leave
        self._resume = resume
        self._held: list[signal.Signals] = []
        self._stopped = False

    @contextlib.contextmanager
    def hold_off(self) -> Iterator[None]:
        """Let no signal take effect in this block: for changes that must not be cut in two."""
        with _blocked({*ENDING_SIGNALS, signal.SIGTSTP}):
            yield

    def install(self) -> None:
        """Take the signals. Does nothing outside the main thread, where Python forbids it."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in ENDING_SIGNALS:
            self._hold(signum, self._end)
        self._hold(signal.SIGTSTP, self._stop)
        self._hold(signal.SIGCONT, self._continue)

    def remove(self) -> None:
        """Put the default effects back, but for signals that somebody took over meanwhile."""
        if threading.current_thread() is not threading.main_thread():
            return
        ours = (self._end, self._stop, self._continue)
        for signum in self._held:
            if signal.getsignal(signum) in ours:
                signal.signal(signum, signal.SIG_DFL)
        self._held.clear()

    def _hold(
        self, signum: signal.Signals, handler: Callable[[int, FrameType | None], None]
    ) -> None:
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, handler)
            self._held.append(signum)

    def _end(self, signum: int, frame: FrameType | None) -> None:
        self._leave()
        signal.signal(signum, signal.SIG_DFL)
        signal.raise_signal(signum)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self._leave()
        self._stopped = True
        signal.signal(signum, signal.SIG_DFL)
        signal.raise_signal(signum)
        # The process was stopped here, and SIGCONT's handler may have run already.
        signal.signal(signum, self._stop)
        if self._stopped:
            self._continue(signum, frame)

    def _continue(self, signum: int, frame: FrameType | None) -> None:
        self._stopped = False
        self._resume()
