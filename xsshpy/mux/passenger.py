"""The passenger's wait: its terminal, its signals, and what the master says until the session ends.

The master drives the session on the descriptors that it was passed; the escapes are its work too.
The passenger makes the terminal raw, tells the master of a new size, and takes the exit status.
As ssh's: HUP, INT, QUIT and TERM end it with status 255, and the end of the connection ends it in
any case. Whatever happens, terminal and descriptors are as they were. PROTOCOL.mux §2, §3.
"""

from __future__ import annotations

import os
import select

from xsshpy.errors import EXIT_FAILURE, SessionError
from xsshpy.mux.messages import ExitMessage, TtyAllocationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    from xsshpy.console import Console
    from xsshpy.mux.conversation import Conversation
    from xsshpy.mux.keyboard import Keyboard
    from xsshpy.mux.messages import Reply
    from xsshpy.terminal.tty import RawTerminal
else:
    import _signal as signal  # without the names, which take 4 ms

_STREAMS = (0, 1, 2)
_ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class KeptFlags:
    """Keeps the standard streams' blocking flags: a master that is killed leaves them changed.

    The flags belong to the open file, which the shell and other programs share.
    """

    def __init__(self) -> None:
        self._blocking = {number for number in _STREAMS if _is_blocking(number)}

    def restore(self) -> None:
        """Put them back."""
        for number in self._blocking:
            try:
                os.set_blocking(number, True)
            except OSError:
                pass

    def leave_to_child(self) -> None:
        """They are for a child process to put back: the session goes on there."""
        self._blocking = set()


def _is_blocking(descriptor: int) -> bool:
    try:
        return os.get_blocking(descriptor)
    except OSError:
        return False


class Signals:
    """Signals as they come to a passenger whose session is open: a context manager.

    ``killed`` is the signal that ends it, or 0. A new size of the window is the master's to know.
    ``when_continued`` is called after a stop.
    """

    when_continued: Callable[[], None] | None = None

    def __init__(self, master_pid: int) -> None:
        self._master_pid = master_pid
        self.killed = 0
        self.wakeup, self._writer = os.pipe()
        for descriptor in (self.wakeup, self._writer):
            os.set_blocking(descriptor, False)

    def __enter__(self) -> Signals:
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _ENDING_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._end)
        signal.signal(signal.SIGWINCH, self._pass_on)
        signal.signal(signal.SIGCONT, self._continue)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.wakeup)
        os.close(self._writer)

    def _end(self, number: int, _: FrameType | None) -> None:
        self.killed = number

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        if self._master_pid > 1:
            try:
                os.kill(self._master_pid, number)
            except (OSError, OverflowError):  # it is gone, or no process can have this number
                pass

    def _continue(self, number: int, _: FrameType | None) -> None:
        if self.when_continued is not None:
            self.when_continued()
            self._pass_on(signal.SIGWINCH, None)

    def drain(self) -> None:
        """Forget that signals came; what they did is done."""
        try:
            os.read(self.wakeup, 4096)
        except BlockingIOError:
            pass


def listen_until_end(
    conversation: Conversation, signals: Signals, keyboard: Keyboard | None = None
) -> Iterator[Reply]:
    """Yield what the master says until it hangs up or a signal has come.

    Meanwhile what is typed is passed on. Raises MuxProtocolError.
    """
    poller = select.poll()
    poller.register(conversation.socket, select.POLLIN)
    poller.register(signals.wakeup, select.POLLIN)
    while not signals.killed:
        if keyboard is None or (wanted := keyboard.wanted) is None:
            poller.poll()
        else:
            poller.register(*wanted)
            ready = poller.poll()
            poller.unregister(wanted[0])
            if wanted[0] in dict(ready) and len(ready) == 1:
                keyboard.advance()
                continue
        signals.drain()
        replies = conversation.read_available()
        if replies is None:
            return
        yield from replies


class Passenger:
    """One session in the master's hands. ``session`` is its number there.

    ``terminal``: the one that is to be raw, if there is one. ``let_go``: when the master tells the
    status nothing but windows is left, and terminal and stdout are others'; it is called before.
    """

    def __init__(
        self,
        conversation: Conversation,
        console: Console,
        session: int,
        terminal: RawTerminal | None,
        *,
        let_go: Callable[[], None] | None = None,
    ) -> None:
        self._conversation = conversation
        self._console = console
        self._session = session
        self._terminal = terminal
        self._before_let_go = let_go
        self._status: int | None = None
        self._keyboard: Keyboard | None = None
        self.is_without_terminal = False
        """The server gave none."""

    @property
    def has_status(self) -> bool:
        """Whether the master said how the session ended."""
        return self._status is not None

    def wait(self, signals: Signals, keyboard: Keyboard | None = None) -> int:
        """Return the exit status, when the master hangs up or a signal has come.

        Raises MuxProtocolError and SessionError for what no master says.
        """
        self._keyboard = keyboard
        for reply in listen_until_end(self._conversation, signals, keyboard):
            self._take(reply)
        return self._conclude(signals.killed)

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, TtyAllocationFailed):
            self._require_session("tty alloc fail", reply.session)
            self.is_without_terminal = True
            self._leave_raw_mode()
        elif isinstance(reply, ExitMessage):
            self._require_session("exit", reply.session)
            if self._status is not None:
                raise SessionError("mux_client_request_session: exitval sent twice")
            self._status = reply.status & 0xFF
            if self._before_let_go is not None:
                self._before_let_go()
                self._let_go()
        else:
            name = type(reply).__name__
            raise SessionError(f"mux_client_request_session: master returned error: {name}")

    def _let_go(self) -> None:
        """Take no more keys: Ctrl-C must end the wait for the windows. Who reads sees the end."""
        self._leave_raw_mode()
        if self._keyboard is not None:
            self._keyboard.close()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 1)
        os.close(null)

    def _require_session(self, what: str, theirs: int) -> None:
        if theirs != self._session:
            raise SessionError(
                f"mux_client_request_session: {what} on unknown session: "
                f"my id {self._session} theirs {theirs}"
            )

    def suspend(self, said: str) -> None:
        """Stop, with the terminal as it was, until the shell lets it go on."""
        from xsshpy.terminal.tty import suspend

        if self._terminal is not None:
            self._console.show(said)
            self._console.raw = False
            suspend(self._terminal)
            self._console.raw = self._terminal.active

    def resume(self) -> None:
        """Take the terminal again after a stop."""
        if self._terminal is not None:
            self._terminal.reenter()
            self._console.raw = self._terminal.active

    def enter_raw_mode(self) -> None:
        """Hand the keys over as they are typed."""
        if self._terminal is not None:
            self._console.raw = self._terminal.enter()

    def _leave_raw_mode(self) -> None:
        if self._terminal is not None:
            self._terminal.leave()
            self._console.raw = False

    def close(self) -> None:
        """Put the terminal back."""
        self._leave_raw_mode()

    def _conclude(self, killed: int) -> int:
        self._conversation.close()
        self._leave_raw_mode()
        if killed:
            self._console.debug(2, f"Exiting on signal: {signal.strsignal(killed)}")
            return EXIT_FAILURE
        if self._status is None:
            self._console.debug(2, "Control master terminated unexpectedly")
            return EXIT_FAILURE
        self._console.debug(2, f"Received exit status from master {self._status}")
        return self._status
