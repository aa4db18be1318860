"""The session in front of the user: terminal and standard streams tied to the remote process.

Raw mode, window size, escapes and signals as ssh(1) has them. Whatever happens, the terminal is
as it was when :func:`attend` returns or raises.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.terminal import escapes
from xsshpy.terminal.streams import InputPump
from xsshpy.terminal.tty import RawTerminal, read_size, suspend

if TYPE_CHECKING:
    from xsshpy.ssh.connection import ClientConnection
    from xsshpy.ssh.session import RemoteProcess

STDIN, STDOUT, STDERR = 0, 1, 2
SUPPORTED_ESCAPES = (
    escapes.Disconnect,
    escapes.Suspend,
    escapes.Help,
    escapes.ListForwardings,
    escapes.Rekey,
    escapes.SendBreak,
    escapes.MoreVerbose,
    escapes.LessVerbose,
)
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Streams:
    """How the session meets the user: with a remote pty or without, from which input."""

    pty: bool
    raw: bool
    null_input: bool


def decide_streams(
    settings: Settings, has_program: bool, *, stdin_is_terminal: bool
) -> tuple[Streams, str]:
    """Decide about the pty as ssh does; the second value is a line for the user, or empty."""
    wanted = {"no": False, "false": False, "auto": not has_program}.get(settings.request_tty, True)
    forced = settings.request_tty == "force"
    notice = ""
    if wanted and not forced and (not stdin_is_terminal or settings.stdin_null):
        notice = "Pseudo-terminal will not be allocated because stdin is not a terminal."
        wanted = False
    raw = wanted and stdin_is_terminal and not settings.stdin_null
    return Streams(pty=wanted, raw=raw, null_input=settings.stdin_null), notice


class Attendance:
    """One remote process attended to at the terminal."""

    def __init__(
        self,
        process: RemoteProcess,
        connection: ClientConnection,
        settings: Settings,
        console: Console,
        streams: Streams,
    ) -> None:
        self._process = process
        self._connection = connection
        self._describe_forwards: Callable[[], str] = lambda: ""
        self._settings = settings
        self._console = console
        self._streams = streams
        self._terminal = RawTerminal(STDIN)
        self._loop = asyncio.get_running_loop()
        escape = escapes.parse_escape_char(settings.escape_char) if streams.pty else None
        self._escape = escape
        self._parser = escapes.EscapeParser(escape)
        self._break_off: Callable[[], object] = lambda: None
        self._null = os.open(os.devnull, os.O_RDONLY) if streams.null_input else -1
        self.disconnected = False
        self.killed = 0

    async def attend(
        self, linger: Callable[[], Awaitable[None]], describe_forwards: Callable[[], str]
    ) -> None:
        """Return when the process has ended and ``linger`` is done, or the user broke off.

        ``linger`` waits for what outlives the process: its windows and forwarded connections,
        which ``describe_forwards`` lists for the ~# escape.
        """
        self._describe_forwards = describe_forwards
        self._handle_signals()
        try:
            if self._streams.raw and self._terminal.enter():
                self._console.raw = True
            self._process.pump_input(self._input_pump())
            waiting = asyncio.create_task(self._wait(linger))
            self._break_off = waiting.cancel
            try:
                await waiting
            except asyncio.CancelledError:
                if not self.disconnected:
                    raise
                self._process.end()
        finally:
            self._leave_raw_mode()
            self._release_signals()
            if self._null >= 0:
                os.close(self._null)

    async def _wait(self, linger: Callable[[], Awaitable[None]]) -> None:
        await self._process.closed.wait()
        await self._process.drain()
        # No process is left to take keys: Ctrl-C must end the wait for its windows, as in ssh.
        self._leave_raw_mode()
        await linger()

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
        for event in self._parser.feed(data):
            self._carry_out(event)

    def _carry_out(self, event: escapes.Event) -> None:
        assert self._escape is not None
        if isinstance(event, escapes.Data):
            self._process.write(event.data)
        elif isinstance(event, escapes.Disconnect):
            self._end()  # ssh ends before its own "~." is shown
        elif isinstance(event, escapes.Help):
            self._console.show(escapes.help_text(self._escape, SUPPORTED_ESCAPES))
        elif isinstance(event, escapes.SendBreak):
            self._console.show(escapes.echo_text(event, self._escape))
            self._process.send_break()
        elif isinstance(event, escapes.ListForwardings):
            self._console.show(escapes.echo_text(event, self._escape) + self._describe_forwards())
        elif isinstance(event, escapes.Rekey):
            self._connection.rekey()
        elif isinstance(event, escapes.Suspend):
            self._console.show(escapes.echo_text(event, self._escape))
            self._suspend()
        elif isinstance(event, (escapes.MoreVerbose, escapes.LessVerbose)):
            self._change_verbosity(event)
        else:
            self._console.show(escapes.unavailable_text(event, self._escape))

    def _change_verbosity(self, event: escapes.MoreVerbose | escapes.LessVerbose) -> None:
        assert self._escape is not None
        louder = isinstance(event, escapes.MoreVerbose)
        self._console.change_level(1 if louder else -1)
        name = self._console.level.name
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
        self._process.change_size(read_size(STDIN))

    def _end(self) -> None:
        self.disconnected = True
        self._break_off()

    def _end_by_signal(self, number: int) -> None:
        self.killed = number
        self._console.verbose(f"Killed by signal {number}.")
        self._end()

    def _handle_signals(self) -> None:
        for number in _ENDING_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._end_by_signal, number)
        if self._streams.pty:
            self._loop.add_signal_handler(signal.SIGWINCH, self._resize)
        if self._streams.raw:
            self._loop.add_signal_handler(signal.SIGCONT, self._continue)

    def _release_signals(self) -> None:
        for number in (*_ENDING_SIGNALS, signal.SIGWINCH, signal.SIGCONT):
            self._loop.remove_signal_handler(number)
