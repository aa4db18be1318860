"""The session in front of the user: terminal and standard streams tied to the remote process.

Raw mode, window size, escapes and signals as ssh(1) has them. Whatever happens, the terminal is
as it was when :meth:`Attendance.attend` returns or raises.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING

from xsshpy.background import leave_shell
from xsshpy.commandline import CommandLine
from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.streams import STDIN, Streams
from xsshpy.terminal import escapes
from xsshpy.terminal.streams import InputPump
from xsshpy.terminal.tty import RawTerminal, read_size, suspend

if TYPE_CHECKING:
    from xsshpy.ssh.connection import ClientConnection
    from xsshpy.ssh.forward import Forwarder
    from xsshpy.ssh.session import RemoteProcess

_END_OF_INPUT = b"\x04"
"""What ends a remote shell whose user has gone: ^D, as typed."""
_FLUSH_PATIENCE = 1.0
"""Seconds that ~& waits for a terminal that takes no output; then that output is lost."""
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


class Attendance:
    """One remote process attended to at the terminal."""

    def __init__(
        self,
        process: RemoteProcess,
        connection: ClientConnection,
        settings: Settings,
        console: Console,
        streams: Streams,
        forwarder: Forwarder,
        command_line: CommandLine,
        *,
        resized: Callable[[], None] = lambda: None,
    ) -> None:
        self._process = process
        self._connection = connection
        self._forwarder = forwarder
        self._command_line = command_line
        self._console = console
        self._streams = streams
        self._terminal = RawTerminal(STDIN)
        self._loop = asyncio.get_running_loop()
        escape = escapes.parse_escape_char(settings.escape_char) if streams.pty else None
        self._escape = escape
        self._parser = escapes.EscapeParser(escape)
        self._pump: InputPump | None = None
        self._waiting_events: deque[escapes.Event] = deque()
        self._pause: asyncio.Task[None] | None = None
        self._break_off: Callable[[], object] = lambda: None
        self._resized = resized
        self._null = os.open(os.devnull, os.O_RDONLY) if streams.null_input else -1
        self.disconnected = False
        self.killed = 0

    async def attend(
        self,
        start: Callable[[Callable[[], None]], Awaitable[None]],
        linger: Callable[[], Awaitable[None]],
    ) -> None:
        """Return when the process has ended and ``linger`` is done, or the user broke off.

        ``start`` starts the process. It calls what it is given as soon as the process is asked
        for: from then on the terminal is the process's, before there is output of it, and input
        is on its way behind the request. ``linger`` waits for what outlives the process: its
        windows and forwarded connections. After ``~&`` it returns in a child process.
        """
        try:
            work = asyncio.create_task(self._work(start, linger))
            self._break_off = work.cancel
            try:
                await work
            except asyncio.CancelledError:
                if not self.disconnected:
                    raise
                self._process.end()
        finally:
            if self._pause is not None:
                self._pause.cancel()
            self._leave_raw_mode()
            self._release_signals()
            if self._null >= 0:
                os.close(self._null)

    def _begin(self) -> None:
        self._handle_signals()
        self._enter_raw_mode()
        self._pump = self._input_pump()
        self._process.pump_input(self._pump)

    async def _work(
        self,
        start: Callable[[Callable[[], None]], Awaitable[None]],
        linger: Callable[[], Awaitable[None]],
    ) -> None:
        await start(self._begin)
        await self._process.closed.wait()
        await self._process.drain()
        # No process is left to take keys: Ctrl-C must end the wait for its windows, as in ssh.
        self._leave_raw_mode()
        await linger()

    def _enter_raw_mode(self) -> None:
        if self._streams.raw and self._terminal.enter():
            self._console.raw = True

    def _leave_raw_mode(self) -> None:
        self._terminal.leave()
        self._console.raw = False

    def _input_pump(self) -> InputPump:
        descriptor = self._null if self._streams.null_input else STDIN
        return InputPump(descriptor, self._take_input, self._process.write_eof)

    def _take_input(self, data: bytes) -> None:
        if self._escape is None:
            self._process.write(data)
            return
        self._waiting_events.extend(self._parser.feed(data))
        self._carry_on()

    def _carry_on(self) -> None:
        """Do what was typed, up to an escape that takes its time."""
        while self._waiting_events and self._pause is None:
            self._carry_out(self._waiting_events.popleft())

    def _carry_out(self, event: escapes.Event) -> None:
        assert self._escape is not None
        console, echo = self._console, escapes.echo_text(event, self._escape)
        if isinstance(event, escapes.Data):
            self._process.write(event.data)
        elif isinstance(event, escapes.Disconnect):
            self.end()  # ssh ends before its own "~." is shown
        elif isinstance(event, escapes.Help):
            hidden = () if self._command_line.is_enabled else (escapes.CommandLine,)
            console.show(escapes.help_text(self._escape, hidden))
        elif isinstance(event, escapes.SendBreak):
            console.show(echo)
            self._process.send_break()
        elif isinstance(event, escapes.ListForwardings):
            console.show(echo + self._forwarder.describe())
        elif isinstance(event, escapes.Rekey):
            self._connection.rekey()
        elif isinstance(event, escapes.Suspend):
            console.show(echo)
            self._suspend()
        elif isinstance(event, escapes.Background):
            self._take_time(self._go_to_background())
        elif isinstance(event, escapes.CommandLine):
            self._open_command_line()
        elif isinstance(event, (escapes.MoreVerbose, escapes.LessVerbose)):
            self._change_verbosity(event)

    def _take_time(self, work: Coroutine[None, None, None]) -> None:
        """Do something while nothing else that was typed is done."""
        assert self._pump is not None
        self._pump.hold(True)
        self._pause = asyncio.create_task(work)
        self._pause.add_done_callback(self._end_pause)

    def _end_pause(self, _: asyncio.Task[None]) -> None:
        self._pause = None
        if self._pump is not None:
            self._pump.hold(False)
        self._carry_on()

    def _open_command_line(self) -> None:
        if self._command_line.is_enabled:
            self._take_time(self._use_command_line())
        else:
            self._console.show(escapes.COMMAND_LINE_DISABLED)

    async def _use_command_line(self) -> None:
        """Give the terminal to the question; what the remote side says comes after it."""
        self._process.hold_output(True)
        self._leave_raw_mode()
        try:
            await self._command_line.ask_and_obey()
        finally:
            # Raw first: what was held may be put out at once.
            if not self._process.closed.is_set() and not self.disconnected:
                self._enter_raw_mode()
            self._process.hold_output(False)

    async def _go_to_background(self) -> None:
        self._leave_raw_mode()
        self._forwarder.stop_listening()
        assert self._escape is not None
        self._console.show(escapes.echo_text(escapes.Background(), self._escape))
        await self._process.flush(_FLUSH_PATIENCE)
        left = self._loop.create_future()
        self._loop.call_soon(self._leave_shell, left)
        await left

    def _leave_shell(self, left: asyncio.Future[None]) -> None:
        assert self._pump is not None
        self._pump.stop()
        try:
            self._process.fork_with(leave_shell)
        except OSError as error:
            self._console.error(f"fork: {error.strerror}")
        self._process.write(_END_OF_INPUT)
        self._process.write_eof()
        left.set_result(None)

    def _change_verbosity(self, event: escapes.MoreVerbose | escapes.LessVerbose) -> None:
        assert self._escape is not None
        if not self._console.is_on_stderr:
            self._console.show(escapes.syslog_text(event, self._escape))
            return
        louder = isinstance(event, escapes.MoreVerbose)
        self._console.change_level(1 if louder else -1)
        name = self._console.level.shown_name
        self._console.show(escapes.log_level_text(event, self._escape, name))

    def _suspend(self) -> None:
        self._console.raw = False
        suspend(self._terminal)
        self._continue()

    def _continue(self) -> None:
        """Take the terminal again after a stop; its size may have changed meanwhile."""
        self._terminal.reenter()
        self._console.raw = self._terminal.active
        self._resize()

    def _resize(self) -> None:
        if self._streams.pty:
            self._process.change_size(read_size(STDIN))
        self._resized()

    def end(self) -> None:
        """End the session and the connection, as ``~.`` does; nothing is said."""
        self.disconnected = True
        self._break_off()

    def _end_by_signal(self, number: int) -> None:
        if number == signal.SIGINT and self._pause is not None:
            self._pause.cancel()  # it ends the question, not the session
            return
        self.killed = number
        self._console.verbose(f"Killed by signal {number}.")
        self.end()

    def _handle_signals(self) -> None:
        for number in _ENDING_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._end_by_signal, number)
        self._loop.add_signal_handler(signal.SIGWINCH, self._resize)
        if self._streams.raw:
            self._loop.add_signal_handler(signal.SIGCONT, self._continue)

    def _release_signals(self) -> None:
        for number in (*_ENDING_SIGNALS, signal.SIGWINCH, signal.SIGCONT):
            self._loop.remove_signal_handler(number)
