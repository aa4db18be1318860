"""One run, from the Invocation to the exit status: the story, top to bottom.

Settings come first, from OpenSSH itself. Then three things go on at the same time: asyncssh is
loaded, the connection is made, and the local display is proved. While the login goes on, what comes
after it is loaded. When it is done, the session starts; when it ends, so do the windows it opened,
and the terminal is as it was.
This is the only module that knows the order; nothing imports it but the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
from collections.abc import Callable, Mapping
from socket import socket
from typing import TYPE_CHECKING

from xsshpy.background import (
    Background,
    leave_folder,
    release_streams,
    start_in_background,
)
from xsshpy.commandline import CommandLine, run_local_command
from xsshpy.conclusion import conclude, explain_early_end
from xsshpy.console import Console, LogLevel
from xsshpy.errors import ForwardError
from xsshpy.foreground import Attendance
from xsshpy.loading import resume_collection
from xsshpy.mux.control import read_control
from xsshpy.preliminaries import (
    adopt_settings,
    examine_settings,
    explain_failure,
    find_streams,
    is_passenger_next,
    open_console,
)
from xsshpy.settings import TUNNEL_INTERFACE, Invocation, Settings
from xsshpy.ssh.resolve import resolve_settings
from xsshpy.streams import STDERR, STDIN, STDOUT, Streams
from xsshpy.values import dataclass, replace
from xsshpy.x11_ways import HeldNotices, X11Run, prepare_x11, usable_x11

if TYPE_CHECKING:
    from types import ModuleType

    from xsshpy.mux.master import Master
    from xsshpy.ssh.connect import Session
    from xsshpy.ssh.forward import Forwarder
    from xsshpy.ssh.session import RemoteProcess
    from xsshpy.ssh.session_plan import SessionPlan
    from xsshpy.ssh.transport import Transport

_LATER = (
    "xsshpy.ssh.forward",
    "xsshpy.ssh.forward_spec",
    "xsshpy.ssh.tunnel",
    "xsshpy.plan",
    "xsshpy.ssh.session",
    "xsshpy.ssh.endings",
)
"""What nearly every run needs once it is logged in."""
_FATAL_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A signal ended the run before there was a session; the process ends by it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(
    invocation: Invocation,
    environ: Mapping[str, str],
    settings: Settings | None = None,
    passage: socket | None = None,
    background: Background | None = None,
) -> int:
    """Do what the invocation says, over a connection of its own, and return the exit status.

    ``settings`` are those of the invocation; without them they are read here. With a ``passage``
    the connection is that of a master. ``background`` is the way there for a process that has been
    started to end there. Ends the process by the signal itself where one came before the session,
    as ssh does.
    """
    script = _read_script(invocation)
    task = _Task(invocation, environ, script, settings, background, passage)
    try:
        try:
            return asyncio.run(_run_until_signal(task))
        except _ForkFirst as first:  # the loop and its threads are gone, so a fork is safe
            parting = start_in_background()
            if parting.background is None:
                return parting.status
            task = replace(task, settings=first.settings, background=parting.background)
            return asyncio.run(_run_until_signal(task))
    except Interrupted as interrupted:
        signal.signal(interrupted.number, signal.SIG_DFL)
        os.kill(os.getpid(), interrupted.number)
        return 128 + interrupted.number


class _ForkFirst(Exception):
    """The run is to go to the background in the end, which has to be prepared now."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings


async def _run_until_signal(task: _Task) -> int:
    """Run the story; a fatal signal cancels it, so that everything is put back on the way out."""
    loop = asyncio.get_running_loop()
    story = asyncio.create_task(_tell(task))
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        story.cancel()

    for number in (*_FATAL_SIGNALS, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop, number)
    try:
        return await story
    except asyncio.CancelledError:
        if not received:
            raise
        raise Interrupted(received[0]) from None


async def _tell(task: _Task) -> int:
    console = open_console(task.invocation, task.environ)
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: console.debug(1, f"event loop: {context.get('message')}")
    )
    try:
        return await _tell_story(task, console)
    except _ForkFirst:
        raise
    except Exception as error:
        return explain_failure(console, error, task.invocation)


async def _tell_story(task: _Task, console: Console) -> int:
    loop = asyncio.get_running_loop()
    loading = loop.run_in_executor(None, importlib.import_module, "xsshpy.ssh.connect")
    settings = await _settle_settings(task, console)
    async with contextlib.AsyncExitStack() as stack:
        notices = HeldNotices(console)
        x11 = asyncio.create_task(
            prepare_x11(task.invocation, settings, task.environ, console, notices.take)
        )
        stack.push_async_callback(_close_x11, x11)
        session = await _log_in(task, settings, console, loading)
        stack.push_async_callback(session.close)
        resume_collection()
        forwarder = await _open_forwards(stack, settings, session)
        run = _Run(task, settings, console, session, forwarder, loop.time())
        run = _open_master(stack, run, x11)
        await _run_local_command(run)
        console.debug(1, "Entering interactive session.")
        target = task.invocation.value_of("W")
        if run.is_for_passengers:
            await asyncio.wait({x11})
            notices.release(run.hearers)
            return await _wait_without_session(run)
        if target is not None:
            return await _run_stdio_forward(run, target)
        if settings.session_type == "none":
            return await _wait_without_session(run)
        forwarding = await x11
        notices.release()
        return await _run_session(run, forwarding)


async def _log_in(
    task: _Task, settings: Settings, console: Console, loading: asyncio.Future[ModuleType]
) -> Session:
    """Connect while asyncssh is loaded, log in while the rest is; a master has done both."""
    if task.passage is not None:
        await loading
        from xsshpy.ssh.passing import use_connection_of

        return await use_connection_of(task.passage, settings, console, task.environ)
    opening = None
    if not settings.proxy_jump:
        from xsshpy.ssh.transport import open_transport

        opening = asyncio.create_task(open_transport(settings, console))
    try:
        await loading
    except BaseException:
        if opening is not None:
            await _abandon(opening)
        raise
    from xsshpy.ssh.connect import connect

    loop = asyncio.get_running_loop()
    later = loop.run_in_executor(None, _load_later)
    session = await connect(settings, task.invocation, console, task.environ, opening=opening)
    later.add_done_callback(lambda done: done.exception())  # who needs it meets it again
    return session


def _load_later() -> None:
    for name in _LATER:
        importlib.import_module(name)


async def _abandon(opening: asyncio.Task[Transport]) -> None:
    opening.cancel()
    opened = (await asyncio.gather(opening, return_exceptions=True))[0]
    if not isinstance(opened, BaseException):
        await opened.close()


@dataclass(frozen=True)
class _Task:
    """What was asked for.

    ``settings`` are None until they are read; the way to the ``background`` is there where the run
    is to go there.
    """

    invocation: Invocation
    environ: Mapping[str, str]
    script: bytes | None
    settings: Settings | None = None
    background: Background | None = None
    passage: socket | None = None


@dataclass(frozen=True)
class _Run:
    """What the later part of the story needs to know."""

    task: _Task
    settings: Settings
    console: Console
    session: Session
    forwarder: Forwarder
    started: float
    master: Master | None = None

    @property
    def persist(self) -> int | None:
        """How long a master stays in the background when nobody uses it (seconds); 0: for ever.

        None where the connection ends with what it was made for.
        """
        if self.master is None or self.task.background is None:
            return None
        return read_control(self.settings.keywords).persist

    @property
    def hearers(self) -> Callable[[str], None] | None:
        """Who hears what is said of the display: the passengers, where nobody asked for a master.

        None: whoever reads the console.
        """
        context = self.master.context if self.master is not None else None
        return context.x11.say if context is not None and context.is_automatic else None

    @property
    def is_for_passengers(self) -> bool:
        """Whether this process only holds the connection, and another one has the session."""
        return self.persist is not None and is_passenger_next(self.task.invocation, self.settings)


def _read_script(invocation: Invocation) -> bytes | None:
    """Read the script before there is an event loop: a FIFO may keep us waiting, until Ctrl-C."""
    if invocation.script is None:
        return None
    from xsshpy.ssh.script import read_script

    return read_script(invocation.script)


async def _settle_settings(task: _Task, console: Console) -> Settings:
    """Return the settings, read here where there was no ssh to read them, and set up the console.

    Raises _ForkFirst where the run is to end in the background and is not on its way there.
    """
    settings = task.settings
    if settings is None:
        settings = await resolve_settings(task.invocation, task.environ, console)
        adopt_settings(console, settings)
        examine_settings(task.invocation, settings, console)
    else:
        adopt_settings(console, settings)
    if settings.fork_after_authentication and task.background is None:
        raise _ForkFirst(settings)
    return settings


async def _close_x11(x11: asyncio.Task[X11Run | None]) -> None:
    x11.cancel()
    opened = (await asyncio.gather(x11, return_exceptions=True))[0]
    if opened is not None and not isinstance(opened, BaseException):
        await opened.close()


async def _open_forwards(
    stack: contextlib.AsyncExitStack, settings: Settings, session: Session
) -> Forwarder:
    """Open the ports and sockets that are to be forwarded; their end is the run's."""
    from xsshpy.ssh.forward import Forwarder
    from xsshpy.ssh.forward_spec import parse_forwards
    from xsshpy.ssh.hostkey_policy import Feature
    from xsshpy.ssh.tunnel import parse_tunnel

    forwarder = Forwarder(session.connection, settings, session.console)
    stack.push_async_callback(forwarder.close)
    if Feature.PORTS not in session.disabled and not await forwarder.start(
        parse_forwards(settings.keywords),
        parse_tunnel(settings.keywords) if Feature.TUNNEL not in session.disabled else None,
    ):
        raise ForwardError("")
    return forwarder


def _open_master(
    stack: contextlib.AsyncExitStack, run: _Run, x11: asyncio.Task[X11Run | None]
) -> _Run:
    """Let others share the connection, where the configuration says so."""
    task, settings = run.task, run.settings
    if task.passage is not None or not read_control(settings.keywords).makes_master:
        return run
    from xsshpy.mux.opening import open_master

    master = open_master(stack, task.invocation, task.environ, run.session, run.forwarder, x11)
    if master is None and not settings.fork_after_authentication:
        if task.background is not None:
            task.background.stay()
        return replace(run, task=replace(task, background=None))
    return replace(run, master=master)


async def _run_local_command(run: _Run) -> None:
    """Run LocalCommand, where PermitLocalCommand allows it, when what listens here is there."""
    interface = run.forwarder.interface or "NONE"
    command = run.settings.local_command.replace(TUNNEL_INTERFACE, interface)
    await run_local_command(command, run.console)


async def _confirm_forwards(run: _Run) -> None:
    """Wait for the server's answers, where the run depends on them."""
    if run.settings.exit_on_forward_failure and not await run.forwarder.confirm():
        raise ForwardError("")


async def _run_stdio_forward(run: _Run, target: str) -> int:
    """-W: no session, only stdin and stdout tied to a port as seen from the server."""
    from xsshpy.ssh.forward_spec import parse_stdio_forward
    from xsshpy.ssh.stdio_forward import run_stdio_forward

    endpoint = parse_stdio_forward(target, run.task.environ)
    connection = run.session.connection
    return await run_stdio_forward(connection, endpoint, run.console, STDIN, STDOUT)


async def _wait_without_session(run: _Run) -> int:
    """-N: nothing but forwards, until the connection ends or a signal comes."""
    from xsshpy.ssh.session import RemoteProcess

    process = RemoteProcess(run.console, stdout=STDOUT, stderr=STDERR)
    ending = asyncio.create_task(process.end_with(run.session.connection))
    streams = Streams(pty=False, raw=False, null_input=True)
    attendance = _attendance(run, process, streams)
    await _confirm_forwards(run)
    _detach(run, has_session=False)
    watching = asyncio.create_task(_end_with_master(run, attendance))
    try:
        await attendance.attend(_begin_at_once, _nothing)
    finally:
        watching.cancel()
        ending.cancel()
    if attendance.killed == signal.SIGTERM:
        return 0  # as ssh: with -N that is how it is ended on purpose
    return conclude(run.session, process, attendance, streams, run.started)


async def _end_with_master(run: _Run, attendance: Attendance) -> None:
    """End when nobody uses the master any more that all of it is for."""
    if run.master is not None:
        await run.master.wait_until_over(run.persist or None)
        attendance.end()


async def _run_session(run: _Run, x11: X11Run | None) -> int:
    from xsshpy.plan import script_preamble
    from xsshpy.ssh.session import ConnectionEndedError, RemoteProcess, start_process

    invocation, script = run.task.invocation, run.task.script
    settings, console, session = run.settings, run.console, run.session
    streams, _ = find_streams(invocation, settings)
    forwarding = await usable_x11(x11, session, console)
    plan = _plan(run, streams, forwarding)
    session.become_interactive(streams.pty or forwarding is not None)
    process = RemoteProcess(console, stdout=STDOUT, stderr=STDERR)
    await _confirm_forwards(run)  # before the command runs: it may rely on them
    attendance = _attendance(run, process, streams)

    async def start(begin: Callable[[], None]) -> None:
        # The preamble of a script, which tells what was granted, comes before the script's input.
        asked = begin if script is None else lambda: None
        try:
            grants = await start_process(session.connection, plan, process, asked)
        except ConnectionEndedError as error:
            raise explain_early_end(session, error, streams.pty) from None
        if forwarding is not None:
            forwarding.tell_refusal(grants, session, settings)
        if script is not None:
            process.write(script_preamble(invocation, script, plan, grants))
            begin()
        _detach(run, has_session=True)

    async def linger() -> None:
        # As with ssh: who reads our stdout sees its end when the remote command is through.
        release_streams([STDOUT])
        if forwarding is not None:
            await forwarding.wait_until_idle()
        await run.forwarder.wait_until_idle()
        if run.master is not None and run.persist is not None:
            release_streams([STDIN, STDERR] if _silence(run) else [STDIN])
            await run.master.wait_until_over(run.persist or None)
        elif run.master is not None:
            await run.master.wait_until_unused()

    await attendance.attend(start, linger)
    if forwarding is not None:
        await forwarding.tell_statistics(asked=invocation.stats)
    return conclude(run.session, process, attendance, streams, run.started)


def _plan(run: _Run, streams: Streams, forwarding: X11Run | None) -> SessionPlan:
    from xsshpy.plan import plan_session

    session, settings = run.session, run.settings
    return plan_session(
        run.task.invocation,
        settings,
        run.task.environ,
        streams,
        forwarding.x11_request() if forwarding is not None else None,
        forwarding.agent_starter(session, settings) if forwarding is not None else None,
        disabled=session.disabled,
        is_forced=session.login.is_command_forced,
    )


def _attendance(run: _Run, process: RemoteProcess, streams: Streams) -> Attendance:
    settings, console, forwarder = run.settings, run.console, run.forwarder
    command_line = CommandLine(settings, console, forwarder, run.task.environ)
    connection, master = run.session.connection, run.master
    attendance = Attendance(
        process,
        connection,
        settings,
        console,
        streams,
        forwarder,
        command_line,
        resized=master.resize if master is not None else lambda: None,
    )
    if master is not None:
        master.terminate = attendance.end
    return attendance


def _detach(run: _Run, *, has_session: bool) -> None:
    """Go to the background, where -f says so. From then on only the session writes here."""
    background, console = run.task.background, run.console
    if background is None:
        return
    console.debug(1, "forking to background")
    quiet = _silence(run)
    background.leave(
        stdin=not has_session or run.settings.stdin_null,
        stdout=not has_session,
        stderr=not has_session and quiet,
    )
    if read_control(run.settings.keywords).is_automatic:
        settings = run.settings
        leave_folder(
            (*settings.user_known_hosts_files, settings.forward_agent, settings.identity_agent)
        )


def _silence(run: _Run) -> bool:
    """Say no more on stderr, where all that follows is in the background; tell whether that is so.

    As ssh does it: with -v it may still be seen. Who asked for no master need not wait for its end.
    """
    console = run.console
    is_automatic = read_control(run.settings.keywords).is_automatic
    quiet = console.level < LogLevel.DEBUG1 or not console.is_on_stderr or is_automatic
    if quiet:
        console.silence()
    return quiet


async def _begin_at_once(begin: Callable[[], None]) -> None:
    """Without a session there is no process to start."""
    begin()


async def _nothing() -> None:
    """Without a session nothing outlives it."""
