"""What a master carries for its passengers: their sessions, and their stdin and stdout to a port.

The descriptors are the passenger's own, of its terminal or its pipes. They are closed here only
when no thread of ours can be using them any more: the number may be another file's by then.

As ssh's master does it: what a session's escapes answer goes to the passenger's stderr, and what
the server refuses is said there; a passenger that is gone takes its channel with it.
PROTOCOL.mux §2 and §3.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Protocol

import xsshpy.terminal.escapes as escapes
from xsshpy.console import LogLevel, sanitise
from xsshpy.errors import EXIT_FAILURE, XsshError
from xsshpy.mux.context import MasterContext
from xsshpy.mux.control import LEVEL_VARIABLE
from xsshpy.mux.messages import (
    NO_ESCAPE,
    PATH_PORT,
    ExitMessage,
    Failure,
    NewSession,
    NewStdioForward,
    Reply,
    SessionOpened,
    TtyAllocationFailed,
)
from xsshpy.mux.sockets import close_descriptors
from xsshpy.plan import has_agent
from xsshpy.ssh.connect import Session
from xsshpy.ssh.endings import explain_end
from xsshpy.ssh.environment import BACKEND_VARIABLE, choose_variables, decide_backend
from xsshpy.ssh.forward_spec import Endpoint, TcpEndpoint, UnixEndpoint
from xsshpy.ssh.hostkey_policy import Feature
from xsshpy.ssh.session import (
    PTY_REQUEST,
    ChannelRefusedError,
    RemoteProcess,
    RequestRefusedError,
    start_process,
)
from xsshpy.ssh.session_plan import PtyRequest, SessionPlan
from xsshpy.ssh.stdio_forward import StdioSession, open_stdio_channel
from xsshpy.terminal.streams import InputPump
from xsshpy.terminal.tty import read_modes, read_size
from xsshpy.x11_doors import X11Door
from xsshpy.x11_ways import X11Run, usable_x11

OPEN_REFUSED = b"Session open refused by peer"
SERVER_PATIENCE = 5.0
"""Seconds without a byte from the server after a session was asked for; then it counts as lost."""

_CLOSE_CHECK = 0.05
"""Seconds between two looks at whether a thread still reads a descriptor."""
_EXPLICIT_TTY = ("yes", "true", "force")


class Ride(Protocol):
    """Something that a master carries for a passenger."""

    async def run(self) -> None:
        """Carry it, from its beginning to its end."""

    def leave(self) -> None:
        """The passenger is gone."""

    def resize(self) -> None:
        """A terminal may have another size."""


class _Process(RemoteProcess):
    """A passenger's remote process: how it ends is the passenger's to know."""

    def __init__(
        self,
        context: MasterContext,
        descriptors: list[int],
        number: int,
        post: Callable[[Reply], None],
        level: LogLevel,
    ) -> None:
        super().__init__(
            context.console, stdout=descriptors[1], stderr=descriptors[2], number=number
        )
        self._post = post
        self._is_automatic = context.is_automatic
        self._level = level
        self._has_told = False
        self.is_raw = False
        """Whether the passenger's terminal is raw."""

    def tell_notice(self, text: str) -> None:
        """Tell a passenger that knows of no master what its own connection would have told it."""
        if self._level >= LogLevel.INFO:
            end = "\r\n" if self.is_raw else "\n"
            lines = sanitise(text).replace("\n", end) + end
            self.tell(lines.encode("utf-8", "surrogateescape"))

    def tell_status(self) -> None:
        """Tell a passenger that knows of no master that nothing but windows is left.

        It lets go of its terminal and stdout then, as a run without a master does.
        """
        if self._is_automatic and not self._has_told:
            status = EXIT_FAILURE if self.exit_status is None else self.exit_status
            self._post(ExitMessage(self.number, status))

    def tell_refusal(self, request: str) -> None:
        """Tell the passenger what the server refuses, as its own connection would have told it."""
        where = " on channel 0" if self._is_automatic else ""
        self.tell(f"{request} request failed{where}\r\n".encode())

    def tell_end(self, session: Session) -> None:
        """Tell a passenger that knows of no master why its session has no end of its own."""
        connection = session.connection
        error = self.error or connection.loss
        cut = error is not None or connection.farewell is not None
        if not self._is_automatic or self.exit_status is not None or not cut:
            return
        ending = explain_end(error, connection, session.settings, session.where)
        lines = [text for level, text in ending.logged if level <= self._level]
        if ending.spoken:
            lines.insert(0, ending.spoken)
        for text in lines:
            self.tell(f"{sanitise(text)}\r\n".encode("utf-8", "surrogateescape"))
        self._has_told = True
        self._post(ExitMessage(self.number, EXIT_FAILURE))

    def exit_status_received(self, status: int) -> None:
        """Tell the passenger."""
        super().exit_status_received(status)
        if not self._is_automatic:
            self._post(ExitMessage(self.number, status))

    def pty_refused(self) -> None:
        """Tell the passenger, whose terminal need not be raw."""
        self.tell_refusal(PTY_REQUEST)
        self._post(TtyAllocationFailed(self.number))


class SessionRide:
    """One session of a passenger."""

    def __init__(
        self,
        context: MasterContext,
        request: NewSession,
        descriptors: list[int],
        post: Callable[[Reply], None],
        lost: Callable[[], None],
    ) -> None:
        self._context = context
        self._request = request
        self._descriptors = descriptors
        self._post = post
        self._lost = lost
        self._number = context.forwarder.reserve_number()
        level = _passengers_level(request)
        self._process = _Process(context, descriptors, self._number, post, level)
        self._pump: InputPump | None = None
        escape = request.escape if request.want_tty and request.escape < NO_ESCAPE else None
        self._escape = escape if escape is not None and escape <= 255 else None
        self._parser = escapes.EscapeParser(self._escape, shared=True)
        self._has_left = False
        self._door: X11Door | None = None
        self._letting_go: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Open the session, and carry it to its end."""
        try:
            await self._run()
        finally:
            self._context.forwarder.release_number(self._number)
            self._context.x11.leave(self._process.tell_notice)
            self._close_door()
            await self._let_go()

    async def _run(self) -> None:
        context, process = self._context, self._process
        forwarding = await self._find_x11() if self._request.want_x11 else None
        if self._has_left:  # its descriptors are closed
            return
        plan = plan_passenger(context, self._request, self._terminal, forwarding)
        watching = asyncio.create_task(self._watch_server())
        try:
            grants = await start_process(context.session.connection, plan, process, self._begin)
        except ChannelRefusedError as error:
            context.console.notice(error.message)
            self._post(Failure(self._request.request_id, OPEN_REFUSED))
            return
        except RequestRefusedError as error:
            if error.request == PTY_REQUEST:
                process.pty_refused()
            else:
                process.tell_refusal(error.request)
            return
        except XsshError as error:  # the connection is over, and the master will say so
            context.console.debug(1, f"mux: session {self._number}: {error.message}")
            process.tell_end(context.session)
            return
        finally:
            watching.cancel()
        if forwarding is not None:
            refusal = forwarding.explain_refusal(grants, context.session, context.settings)
            if refusal and context.is_automatic:
                process.tell_notice(refusal)
            elif refusal:
                # Not this passenger's, nor ssh's.
                refusal = refusal.replace(" on channel 0", "", 1)
                process.tell(f"{sanitise(refusal)}\r\n".encode("utf-8", "surrogateescape"))
        await process.closed.wait()
        process.tell_end(context.session)
        if context.is_automatic:
            await self._wait_for_windows()

    async def _wait_for_windows(self) -> None:
        """Wait for them as a run alone does, with a terminal and a stdout that are let go of."""
        process, pump = self._process, self._pump
        if pump is not None:
            pump.stop()
        await process.finish_stdout()
        process.is_raw = False
        if self._door is not None:
            descriptors, self._descriptors = self._descriptors[:2], self._descriptors[2:]
            await _close_when_free(descriptors, lambda: pump is not None and pump.is_reading)
            process.tell_status()
            await self._door.wait_until_idle()
        else:
            process.tell_status()

    async def _watch_server(self) -> None:
        """Let the passenger connect by itself where the server is gone, as after a sleep."""
        connection = self._context.session.connection
        heard = connection.volume.received
        await asyncio.sleep(SERVER_PATIENCE)
        if connection.volume.received == heard:
            self._post(Failure(self._request.request_id, OPEN_REFUSED))
            self._has_left = True
            self._lost()

    async def _find_x11(self) -> X11Run | X11Door | None:
        context = self._context
        if not context.is_automatic:
            return await usable_x11(await context.x11.get(), context.session, context.console)
        tell = self._process.tell_notice
        found = await context.x11.enter(tell)
        usable = await usable_x11(found, context.session, context.console)
        context.x11.settle(tell)
        if usable is not None:
            self._door = X11Door(usable, tell)
        return self._door

    def _close_door(self) -> None:
        if self._door is not None:
            self._door.close()

    @property
    def _terminal(self) -> int:
        """The passenger's terminal, or else its stdin.

        xssh keeps the keyboard where it shares by itself, and has a pipe for stdin.
        """
        candidates = self._descriptors if self._context.is_automatic else []
        return next(filter(os.isatty, candidates), self._descriptors[0])

    def _begin(self) -> None:
        """The process is asked for: from now on the passenger's terminal is its own."""
        if self._has_left:
            self._process.end()
            return
        self._post(SessionOpened(self._request.request_id, self._number))
        self._pump = InputPump(self._descriptors[0], self._take_input, self._process.write_eof)
        self._process.pump_input(self._pump)
        self._process.is_raw = self._request.want_tty and os.isatty(self._terminal)

    def leave(self) -> None:
        """The passenger is gone: end the process, and let its output go by."""
        self._has_left = True
        self._process.discard_output()
        self._process.end()
        self._close_door()
        # The server may take its time, and others wait for the last who has its pipes.
        self._letting_go = asyncio.create_task(self._let_go())

    async def _let_go(self) -> None:
        pump = self._pump
        if pump is not None:
            pump.stop()
        await self._process.drain()
        await _close_when_free(self._descriptors, lambda: pump is not None and pump.is_reading)

    def resize(self) -> None:
        """Tell the server the terminal's size."""
        if self._request.want_tty and self._descriptors and os.isatty(self._terminal):
            self._process.change_size(read_size(self._terminal))

    def _take_input(self, data: bytes) -> None:
        if self._escape is None:
            self._process.write(data)
            return
        for event in self._parser.feed(data):
            self._carry_out(event, self._escape)

    def _carry_out(self, event: escapes.Event, escape: int) -> None:
        process = self._process
        if isinstance(event, escapes.Data):
            process.write(event.data)
        elif isinstance(event, escapes.Disconnect):
            process.end()
            self._close_door()
        elif isinstance(event, escapes.Help):
            self._show(escapes.help_text(escape, shared=True))
        elif isinstance(event, escapes.SendBreak):
            self._show(escapes.echo_text(event, escape))
            process.send_break()
        elif isinstance(event, escapes.ListForwardings):
            listed = self._context.forwarder.describe()
            self._show(escapes.echo_text(event, escape) + listed)
        elif isinstance(event, escapes.Rekey):
            self._context.session.connection.rekey()
        else:
            self._show(escapes.unavailable_text(event, escape))

    def _show(self, text: str) -> None:
        self._process.tell(text.encode("utf-8", "surrogateescape"))


def plan_passenger(
    context: MasterContext, request: NewSession, stdin: int, forwarding: X11Run | X11Door | None
) -> SessionPlan:
    """Return what to ask of the server: the master's settings, the passenger's wishes."""
    settings, session = context.settings, context.session
    environ = _read_variables(request.variables)
    variables = choose_variables(settings.send_env, settings.set_env, environ)
    may_forward = Feature.AGENT not in session.disabled and has_agent(settings.forward_agent)
    pty = None
    if request.want_tty:
        required = settings.request_tty in _EXPLICIT_TTY
        size, modes = read_size(stdin), read_modes(stdin)
        pty = PtyRequest(os.fsdecode(request.term), size, modes, required=required)
    chosen = environ.get(BACKEND_VARIABLE) or context.invocation.backend
    return SessionPlan(
        command=os.fsdecode(request.command),
        subsystem=request.subsystem,
        variables=variables,
        pty=pty,
        x11=forwarding.x11_request() if forwarding is not None else None,
        forward_agent=settings.forward_agent if request.want_agent and may_forward else "",
        backend=decide_backend(variables, chosen),
        is_forced=session.login.is_command_forced,
        start_agent=forwarding.agent_starter(session, settings) if forwarding else None,
    )


def _read_variables(words: tuple[bytes, ...]) -> Mapping[str, str]:
    pairs = (os.fsdecode(word).partition("=") for word in words)
    return {
        name: value for name, equals, value in pairs if name and equals and name != LEVEL_VARIABLE
    }


def _passengers_level(request: NewSession) -> LogLevel:
    """How much is said to the passenger of what the server did."""
    said = f"{LEVEL_VARIABLE}=".encode()
    for word in request.variables:
        if word.startswith(said):
            with contextlib.suppress(ValueError):
                return LogLevel.parse(os.fsdecode(word[len(said) :]))
    return LogLevel.INFO


class StdioRide:
    """A passenger's stdin and stdout, tied to a port as seen from the server."""

    def __init__(
        self,
        context: MasterContext,
        request: NewStdioForward,
        descriptors: list[int],
        post: Callable[[Reply], None],
    ) -> None:
        self._context = context
        self._request = request
        self._descriptors = descriptors
        self._post = post
        self._session = StdioSession(context.console, *descriptors)

    async def run(self) -> None:
        """Open the channel, and carry it to its end."""
        number = self._context.forwarder.reserve_number()
        try:
            await self._run(number)
        finally:
            self._session.stop()
            self._context.forwarder.release_number(number)
            await self._session.drain()
            await _close_when_free(self._descriptors, lambda: self._session.is_reading)

    async def _run(self, number: int) -> None:
        request, context = self._request, self._context
        host = os.fsdecode(request.host)
        target: Endpoint = TcpEndpoint(host, request.port)
        if request.port == PATH_PORT:
            target = UnixEndpoint(host)
        failure = await open_stdio_channel(context.session.connection, target, self._session)
        if failure is not None:
            context.console.notice(f"channel {number}: open failed: {failure}")
            self._post(Failure(request.request_id, OPEN_REFUSED))
            return
        self._post(SessionOpened(request.request_id, number))
        await self._session.closed.wait()

    def leave(self) -> None:
        """The passenger is gone."""
        self._session.end()

    def resize(self) -> None:
        """There is no terminal at the other end."""


async def _close_when_free(descriptors: list[int], is_used: Callable[[], bool]) -> None:
    while is_used():  # noqa: ASYNC110  (a thread that waits for input tells nobody when it ends)
        await asyncio.sleep(_CLOSE_CHECK)
    close_descriptors(descriptors)
