"""One run, from the Invocation to the exit status: the story, top to bottom.

Settings come first, from OpenSSH itself. Then three things go on at the same time: asyncssh is
loaded, the connection is made, and the local display is proved. When the login is done, the
session starts; when it ends, so do the windows it opened, and the terminal is as it was.
This is the only module that knows the order; nothing imports it but the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import re
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xsshpy.console import Console, LogLevel
from xsshpy.errors import EXIT_FAILURE, DisplayError, SettingsError, XsshError
from xsshpy.foreground import (
    STDERR,
    STDIN,
    STDOUT,
    Attendance,
    Streams,
    chosen_command,
    decide_streams,
)
from xsshpy.settings import Invocation, Settings
from xsshpy.ssh.resolve import resolve_settings
from xsshpy.terminal.tty import read_modes, read_size, sanitise_standard_descriptors
from xsshpy.unsupported import find_unsupported

if TYPE_CHECKING:
    from xsshpy.ssh.connect import Session
    from xsshpy.ssh.session import RemoteProcess, SessionPlan
    from xsshpy.x11.native import NativeForwarding

COOKIE_NAME = b"MIT-MAGIC-COOKIE-1"

_FATAL_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A signal ended the run before there was a session; the process ends by it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(invocation: Invocation, environ: Mapping[str, str]) -> int:
    """Do what the invocation says and return the exit status.

    Ends the process by the signal itself where one came before the session, as ssh does.
    """
    sanitise_standard_descriptors()
    script = _read_script(invocation)
    try:
        return asyncio.run(_run_until_signal(invocation, environ, script))
    except Interrupted as interrupted:
        signal.signal(interrupted.number, signal.SIG_DFL)
        os.kill(os.getpid(), interrupted.number)
        return 128 + interrupted.number


async def _run_until_signal(
    invocation: Invocation, environ: Mapping[str, str], script: bytes | None
) -> int:
    """Run the story; a fatal signal cancels it, so that everything is put back on the way out."""
    loop = asyncio.get_running_loop()
    story = asyncio.create_task(_tell(invocation, environ, script))
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


async def _tell(invocation: Invocation, environ: Mapping[str, str], script: bytes | None) -> int:
    console = Console(environ=environ)
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: console.debug(1, f"event loop: {context.get('message')}")
    )
    try:
        return await _tell_story(invocation, environ, console, script)
    except XsshError as error:
        console.report(error)
        return EXIT_FAILURE
    except Exception as error:
        console.debug(1, traceback.format_exc())
        console.fatal(
            f"xssh: internal error: {type(error).__name__}: {error}\n"
            "  try: the same with -v, and report what it prints"
        )
        return EXIT_FAILURE


async def _tell_story(
    invocation: Invocation, environ: Mapping[str, str], console: Console, script: bytes | None
) -> int:
    loop = asyncio.get_running_loop()
    loading = loop.run_in_executor(None, importlib.import_module, "xsshpy.ssh.connect")
    settings = await _settle_settings(invocation, environ, console)
    async with contextlib.AsyncExitStack() as stack:
        x11 = asyncio.create_task(_prepare_x11(invocation, settings, environ, console))
        stack.push_async_callback(_close_x11, x11)
        await loading
        from xsshpy.ssh.connect import connect

        session = await connect(settings, invocation, console, environ)
        stack.push_async_callback(session.close)
        await _run_local_command(settings, console)
        return await _run_session(
            _Run(invocation, settings, console, environ, session), await x11, script
        )


@dataclass(frozen=True)
class _Run:
    """What the later part of the story needs to know."""

    invocation: Invocation
    settings: Settings
    console: Console
    environ: Mapping[str, str]
    session: Session


def _read_script(invocation: Invocation) -> bytes | None:
    """Read the script before there is an event loop: a FIFO may keep us waiting, until Ctrl-C."""
    if invocation.script is None:
        return None
    from xsshpy.ssh.script import read_script

    return read_script(invocation.script)


def _early_level(invocation: Invocation) -> LogLevel:
    """Return the level until the configuration is read: what -q and -v say."""
    if invocation.last_of("qv") == "q":
        return LogLevel.QUIET
    loudness = min(3, invocation.count("v"))
    return LogLevel(LogLevel.VERBOSE + loudness) if loudness else LogLevel.INFO


async def _settle_settings(
    invocation: Invocation, environ: Mapping[str, str], console: Console
) -> Settings:
    """Read the configuration, and set up the console as it says."""
    console.level = _early_level(invocation)
    settings = await resolve_settings(invocation, environ, console)
    console.level = LogLevel.parse(settings.log_level)
    console.batch_mode = settings.batch_mode
    if invocation.command and settings.remote_command:
        raise SettingsError("Cannot execute command-line and remote command.")
    for line in find_unsupported(settings.keywords):
        console.notice(line)
    return settings


async def _prepare_x11(
    invocation: Invocation, settings: Settings, environ: Mapping[str, str], console: Console
) -> NativeForwarding | None:
    """Find the display and begin to prove it. None where X11 is off, having said why."""
    from xsshpy.x11.wish import read_x11_wish

    wish = await read_x11_wish(invocation, settings)
    if not wish.forward:
        console.debug(1, "X11 forwarding is off: -x or ForwardX11 no")
        return None
    from xsshpy.ssh.environment import is_protocol_command
    from xsshpy.x11.native import NativeForwarding, X11Policy

    command = chosen_command(invocation, settings)
    if not wish.explicit and is_protocol_command(command):
        console.debug(1, "X11 forwarding is off: another program speaks over this command")
        return None
    policy = X11Policy(wish.trusted, wish.explicit, settings.forward_x11_timeout)
    try:
        return await NativeForwarding.prepare(environ, policy, console.notice)
    except DisplayError as error:
        console.notice(error.summary())
        return None


async def _close_x11(x11: asyncio.Task[NativeForwarding | None]) -> None:
    x11.cancel()
    forwarding = (await asyncio.gather(x11, return_exceptions=True))[0]
    if forwarding is not None and not isinstance(forwarding, BaseException):
        await forwarding.close()


async def _run_local_command(settings: Settings, console: Console) -> None:
    """Run LocalCommand, as PermitLocalCommand allows, once the login is done (ssh_config(5))."""
    if settings.local_command:
        shell = os.environ.get("SHELL") or "/bin/sh"
        try:
            process = await asyncio.create_subprocess_exec(shell, "-c", settings.local_command)
        except OSError as error:
            reason = error.strerror or error
            console.error(f'Couldn\'t execute {shell} -c "{settings.local_command}": {reason}')
            return
        await process.wait()


async def _run_session(run: _Run, x11: NativeForwarding | None, script: bytes | None) -> int:
    from xsshpy.ssh.session import RemoteProcess, start_process

    settings, console = run.settings, run.console
    forwarding = await _usable_x11(run, x11)
    command = chosen_command(run.invocation, settings)
    streams, notice = decide_streams(
        settings, "script" if script is not None else command, stdin_is_terminal=os.isatty(STDIN)
    )
    if notice:
        console.notice(notice)
    process = RemoteProcess(console, stdout=STDOUT, stderr=STDERR)
    plan = _plan_session(run, command, streams, forwarding, script)
    grants = await start_process(run.session.connection, plan, process)
    if forwarding is not None:
        _tell_x11(run, grants.x11)
    if script is not None:
        process.write(_script_preamble(run, script, plan, granted=grants.x11))
    attendance = Attendance(process, settings, console, streams)
    await attendance.attend(forwarding.wait_until_idle if forwarding else _no_windows)
    return _conclude(run, process, attendance, streams)


async def _no_windows() -> None:
    """Without X11 nothing outlives the remote process."""


async def _usable_x11(run: _Run, x11: NativeForwarding | None) -> NativeForwarding | None:
    from xsshpy.ssh.hostkey_policy import Feature

    if x11 is None or Feature.X11 in run.session.disabled or not await x11.is_wanted():
        return None
    facts = await x11.describe()
    run.console.debug(1, f"local X server: {facts or 'not proved yet'}")
    run.session.connection.accept_x11 = x11.accept
    run.console.debug(1, "Requesting X11 forwarding with authentication spoofing.")
    return x11


def _plan_session(
    run: _Run,
    command: str,
    streams: Streams,
    forwarding: NativeForwarding | None,
    script: bytes | None,
) -> SessionPlan:
    from xsshpy.ssh.environment import choose_variables, decide_backend
    from xsshpy.ssh.hostkey_policy import Feature
    from xsshpy.ssh.script import loader_command, raw_modes
    from xsshpy.ssh.session import PtyRequest, SessionPlan, X11Request

    settings, environ = run.settings, run.environ
    variables = choose_variables(settings.send_env, settings.set_env, environ)
    pty = None
    if streams.pty:
        modes = read_modes(STDIN)
        if script is not None:
            modes = raw_modes(modes)
        pty = PtyRequest(environ.get("TERM", ""), read_size(STDIN), modes)
    x11 = None
    if forwarding is not None:
        x11 = X11Request(COOKIE_NAME, forwarding.cookie, forwarding.screen)
    agent = "" if Feature.AGENT in run.session.disabled else settings.forward_agent
    return SessionPlan(
        command=command if script is None else loader_command(run.invocation.python),
        variables=variables,
        pty=pty,
        x11=x11,
        forward_agent=agent,
        backend=decide_backend(variables, run.invocation.backend),
        settles_environment=script is not None,
        is_forced=run.session.login.is_command_forced,
    )


def _script_preamble(run: _Run, script: bytes, plan: SessionPlan, *, granted: bool) -> bytes:
    from xsshpy.ssh.environment import BACKEND_VARIABLE
    from xsshpy.ssh.script import encode_script

    assert run.invocation.script is not None
    variables = {}
    if granted and plan.backend is not None:
        variables[BACKEND_VARIABLE] = plan.backend
    modes = read_modes(STDIN) if plan.pty is not None else None
    return encode_script(
        run.invocation.script, script, run.invocation.script_arguments, variables, modes
    )


def _tell_x11(run: _Run, granted: bool) -> None:
    """Say why the server refused X11, where it did: its own words if it gave any."""
    if granted:
        run.console.debug(1, "X11 forwarding request accepted")
        return
    said = [text for text in run.session.login.remote_messages if _is_about_x11(text)]
    reason = said[-1].strip() if said else "the server does not allow it (X11Forwarding no?)"
    run.console.notice(
        f"X11 forwarding request failed on channel 0: {reason}; "
        f"try: {_x11_remedy(reason, run.settings.host)}"
    )


def _is_about_x11(text: str) -> bool:
    # Not sshd's list of a key's options, which names x11-forwarding too.
    return (
        re.search(r"(?i)\bx11 forwarding\b|forward x11|\bxauth\b|\bx11 display\b", text) is not None
    )


def _x11_remedy(reason: str, host: str) -> str:
    if "xauth" in reason:
        return f"install xauth on {host} (apt install xauth, dnf install xorg-x11-xauth)"
    if "key options" in reason:
        return f"take no-X11-forwarding or restrict off this key in authorized_keys on {host}"
    return f"`X11Forwarding yes` in sshd_config on {host}, or -x if no window is needed"


def _conclude(run: _Run, process: RemoteProcess, attendance: Attendance, streams: Streams) -> int:
    """Say how it ended where ssh does, and return the exit status."""
    name, console = run.settings.hostname, run.console
    if process.error is not None and "keepalive" in str(process.error):
        console.error(f"Timeout, server {name} not responding.")
        return EXIT_FAILURE
    if process.error is not None and not attendance.disconnected:
        console.notice(f"Connection to {name} closed by remote host.")
    if streams.pty and not attendance.killed:
        console.notice(f"Connection to {name} closed.")
    if attendance.disconnected or process.exit_status is None:
        return EXIT_FAILURE
    return process.exit_status
