"""Which way X11 is carried in one run: by the agent, by the server's own x11 channels, or not.

``auto`` takes the agent, and the native way where the agent cannot run. Neither is wanted where
another program speaks over the command's stdio: its command must arrive byte for byte. Nor is the
agent where the server runs a command of its own whatever it is asked for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING

from xsshpy.console import Console, LogLevel
from xsshpy.errors import DisplayError, UsageError
from xsshpy.settings import Invocation, Settings
from xsshpy.values import dataclass, field

if TYPE_CHECKING:
    from xsshpy.ssh.connect import Session
    from xsshpy.ssh.session_plan import Grants, StartAgent, X11Request
    from xsshpy.x11.agent import AgentError, AgentForwarding
    from xsshpy.x11.local import LocalDisplay
    from xsshpy.x11.native import NativeForwarding
    from xsshpy.x11.wish import X11Wish

STDERR = 2
_EVIDENCE_LINES = 3


class Way(Enum):
    """What --x11 and XSSH_X11 say."""

    AUTO = "auto"
    AGENT = "agent"
    NATIVE = "native"
    OFF = "off"


def choose_way(invocation: Invocation, environ: Mapping[str, str]) -> Way:
    """Return the way that was asked for. Raises UsageError for one that there is not."""
    word = invocation.x11 or environ.get("XSSH_X11") or Way.AUTO.value
    try:
        return Way(word.lower())
    except ValueError:
        ways = ", ".join(way.value for way in Way)
        raise UsageError(
            f"xssh: XSSH_X11: {word!r} is no way to carry X11", remedy=f"one of {ways}"
        ) from None


@dataclass
class X11Run:
    """X11 in one run, from the proof of the display to its end.

    ``native`` and ``agent`` are the ways that may be taken; ``failure`` says why the agent was not.
    ``more`` gives the words that say how to find out more.
    All sessions of one connection have their windows through the same agent.
    """

    local: LocalDisplay
    native: NativeForwarding | None
    agent: AgentForwarding | None
    environ: Mapping[str, str]
    console: Console
    more: Callable[[], str]
    failure: AgentError | None = None
    _has_started: bool = False
    _is_closed: bool = False
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def wait_until_idle(self) -> None:
        """Wait until the last X client is gone; ssh does not end before its windows do."""
        for way in (self.agent, self.native):
            if way is not None:
                await way.wait_until_idle()

    async def close(self) -> None:
        """End all clients and the proof; revoke what was granted."""
        if self._is_closed:
            return
        self._is_closed = True
        for way in (self.agent, self.native):
            if way is not None:
                await way.close()
        await self.local.close()

    def x11_request(self) -> X11Request | None:
        """Return what is asked of the server for the native way."""
        if self.native is None:
            return None
        from xsshpy.ssh.session_plan import X11Request
        from xsshpy.x11.authority import COOKIE_PROTOCOL

        return X11Request(COOKIE_PROTOCOL, self.native.cookie, self.local.screen)

    def agent_starter(self, session: Session, settings: Settings) -> StartAgent | None:
        """Return what starts the agent; None where it is not to be tried."""
        agent = self.agent
        if agent is None:
            return None
        if session.login.is_command_forced():
            self.console.debug(1, "X11: not by the agent: the server runs a command of its own")
            return None
        from xsshpy.x11.remembered import name_account, recall

        account = name_account(settings.user, settings.hostname, settings.port)
        known = recall(account, self.environ)
        if known is False and self.native is not None:
            self.console.debug(1, "X11: not by the agent: it could not run on this host of late")
            return None

        async def start() -> Mapping[str, str] | None:
            async with self._turn:  # another session may be starting it
                return await self._start_agent(session, account, known=bool(known))

        return start

    async def _start_agent(
        self, session: Session, account: str, *, known: bool
    ) -> Mapping[str, str] | None:
        """Return the variables of the agent's display, which is started unless it is there."""
        from xsshpy.ssh.agent_channel import needs_brief_command, open_agent_channel
        from xsshpy.x11.agent import AgentError
        from xsshpy.x11.remembered import remember

        agent = self.agent
        if agent is None or self.failure is not None:
            return None
        if agent.display is not None:
            return agent.display.variables
        if self._has_started:  # and ended since: one agent is started once
            await agent.close()
            agent = self.agent = _open_agent(self.local, self.environ, self.console)
        self._has_started = True
        try:
            display = await agent.start(
                lambda command, receiver: open_agent_channel(
                    session.connection,
                    command,
                    receiver,
                    session.login.is_command_forced,
                ),
                known=known,
                brief=needs_brief_command(session.connection),
            )
        except AgentError as error:
            self.failure = error
            if error.lasting:
                remember(account, False, self.environ)
            self._tell_failure(error)
            return None
        remember(account, True, self.environ)
        self.console.debug(1, f"X11: by the agent, as display {display.name}")
        return display.variables

    def explain_failure(self) -> str:
        """Return why there is no display where the agent alone was to make it; else nothing."""
        if self.failure is None or self.native is not None:
            return ""
        reason = self.failure.reason
        return (
            f"xssh: X11: not by the agent: {reason}; "
            "try: --x11 native, or a Python for the remote host"
        )

    def _tell_failure(self, error: AgentError) -> None:
        """Say at -v why the native way is taken; without it, say it always."""
        line = self.explain_failure()
        if line:
            self.local.report(line)
        else:
            self.console.debug(1, f"X11: not by the agent: {error.reason}")
        for words in error.evidence[-_EVIDENCE_LINES:]:
            self.console.debug(1, f"  {words}")

    async def tell_statistics(self, *, asked: bool) -> None:
        """Say what the clients did, where it was asked for; at -v what was answered wrongly."""
        if self.agent is None:
            return
        from xsshpy.x11.statistics import count_mispredictions, describe_clients

        if asked or self.console.shows(LogLevel.DEBUG1):
            await self.agent.count_open_clients()
        wrong = sum(count_mispredictions(counters) for _, counters in self.agent.counts)
        if self.agent.counts:
            self.console.debug(1, f"X11: {wrong} mispredictions")
        if asked:
            self.console.notice(describe_clients(self.agent.counts, self.agent.bytes_on_wire))

    def tell_refusal(self, grants: Grants, session: Session, settings: Settings) -> None:
        """Say why there is no display, where both ways failed."""
        line = self.explain_refusal(grants, session, settings)
        if line:
            self.console.notice(line)

    def explain_refusal(self, grants: Grants, session: Session, settings: Settings) -> str:
        """Return why there is no display, where both ways failed; empty where there is one."""
        if grants.has_display or self.native is None:
            return ""
        from xsshpy.x11.refusal import explain_refused_request

        line = explain_refused_request(session.login.remote_messages, settings.host, self.more())
        if self.failure is not None:
            line += f" (nor by xssh's agent: {self.failure.reason})"
        return line


class HeldNotices:
    """Lines about X11 wait for the login: they must not stand between its questions, nor after
    them where there is no session in the end.
    """

    def __init__(self, console: Console) -> None:
        self._show: Callable[[str], None] = console.notice
        self._held: list[str] | None = []

    def take(self, line: str) -> None:
        """Show a line, or keep it."""
        if self._held is None:
            self._show(line)
        else:
            self._held.append(line)

    def release(self, show: Callable[[str], None] | None = None) -> None:
        """Show what was kept, and what comes from now on; ``show`` takes it from the console."""
        held, self._held = self._held or [], None
        self._show = show or self._show
        for line in held:
            self._show(line)


async def usable_x11(x11: X11Run | None, session: Session, console: Console) -> X11Run | None:
    """Return X11 as far as it may be used on this connection, and let the server open channels."""
    from xsshpy.ssh.hostkey_policy import Feature

    if x11 is None or Feature.X11 in session.disabled or not await x11.local.is_wanted():
        return None
    facts = await x11.local.describe()
    console.debug(1, f"local X server: {facts or 'not proved yet'}")
    if x11.native is not None:
        session.connection.accept_x11 = x11.native.accept
        console.debug(1, "Requesting X11 forwarding with authentication spoofing.")
    return x11


def opens_no_session(invocation: Invocation, settings: Settings) -> bool:
    """Return whether nothing is run: -N, -W, SessionType none."""
    return settings.session_type == "none" or invocation.value_of("W") is not None


def is_spoken_over(invocation: Invocation, settings: Settings) -> bool:
    """Return whether another program speaks over the command's stdio, as rsync and sftp do."""
    from xsshpy.ssh.environment import is_protocol_command

    command = invocation.command or settings.remote_command
    return is_protocol_command(command) or settings.session_type == "subsystem"


async def prepare_x11(
    invocation: Invocation,
    settings: Settings,
    environ: Mapping[str, str],
    console: Console,
    report: Callable[[str], None],
) -> X11Run | None:
    """Find the display and begin to prove it. None where X11 is off, having reported why."""
    from xsshpy.x11.wish import read_x11_wish

    if opens_no_session(invocation, settings):
        return None
    way = choose_way(invocation, environ)
    wish = await read_x11_wish(invocation, settings)
    if not wish.forward or way is Way.OFF:
        console.debug(1, "X11 forwarding is off: -x, ForwardX11 no or --x11 off")
        return None
    spoken_over = is_spoken_over(invocation, settings)
    if spoken_over and not wish.explicit:
        console.debug(1, "X11 forwarding is off: another program speaks over this command")
        return None
    way = way if not spoken_over else Way.NATIVE
    return await _prepare_ways(way, wish, settings, environ, console, report, invocation)


async def prepare_shared_x11(
    invocation: Invocation,
    settings: Settings,
    environ: Mapping[str, str],
    console: Console,
    report: Callable[[str], None],
    *,
    is_asked_for: bool,
) -> X11Run | None:
    """The same for the sessions of a shared connection's passengers, who say that they want it.

    ``is_asked_for``: whoever wants it wants to hear, too, that there is no DISPLAY.
    """
    from xsshpy.x11.wish import read_x11_wish

    way = choose_way(invocation, environ)
    wish = await read_x11_wish(invocation, settings)
    if not wish.forward or way is Way.OFF:
        console.debug(1, "X11 forwarding is off: -x, ForwardX11 no or --x11 off")
        return None
    return await _prepare_ways(
        way, wish, settings, environ, console, report, invocation, speaks=is_asked_for
    )


async def _prepare_ways(
    way: Way,
    wish: X11Wish,
    settings: Settings,
    environ: Mapping[str, str],
    console: Console,
    report: Callable[[str], None],
    invocation: Invocation,
    *,
    speaks: bool = False,
) -> X11Run | None:
    from xsshpy.x11.local import LocalDisplay, X11Policy

    def more() -> str:
        from xsshpy.invitation import invite  # nobody needs it who has a display

        return invite(invocation)

    policy = X11Policy(wish.trusted, wish.explicit, settings.forward_x11_timeout, more)
    try:
        local = await LocalDisplay.prepare(environ, policy, report)
    except DisplayError as error:
        if speaks or wish.explicit or environ.get("DISPLAY") or os.isatty(STDERR):
            report(f"{error.summary()}; {more()}")
        else:  # cron, CI: nobody asked for X11 or reads this, and programs take stderr for failure
            console.debug(1, error.summary())
        return None
    return _open_ways(way, local, environ, console, more)


def _open_ways(
    way: Way,
    local: LocalDisplay,
    environ: Mapping[str, str],
    console: Console,
    more: Callable[[], str],
) -> X11Run:
    native = agent = None
    if way is not Way.AGENT:
        from xsshpy.x11.native import NativeForwarding

        native = NativeForwarding(local)
    if way is not Way.NATIVE:
        agent = _open_agent(local, environ, console)
    return X11Run(local, native, agent, environ, console, more)


def _open_agent(
    local: LocalDisplay, environ: Mapping[str, str], console: Console
) -> AgentForwarding:
    from xsshpy.x11.agent import AgentForwarding

    return AgentForwarding(local, environ, lambda line: console.debug(1, line))
