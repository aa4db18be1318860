"""From settings to a logged-in connection: transport, jump hosts, host key, login.

asyncssh is given explicit options and reads no configuration of its own: OpenSSH has read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import asyncssh

from xsshpy.console import Console, LogLevel
from xsshpy.errors import ConnectError
from xsshpy.settings import Invocation, Settings
from xsshpy.ssh.auth import Login
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.failures import (
    HandshakeTimeoutError,
    explain_failure,
    explain_refused_jump,
    explain_silent_jump,
)
from xsshpy.ssh.hostbased import load_host_keys
from xsshpy.ssh.hostkey_evidence import gather_evidence
from xsshpy.ssh.hostkey_policy import Feature
from xsshpy.ssh.kerberos import prepare_kerberos
from xsshpy.ssh.keyfiles import describe_identities
from xsshpy.ssh.options import connection_options, weak_exchange_words
from xsshpy.ssh.packet_log import PacketLog, Peer
from xsshpy.ssh.resolve import resolve_settings
from xsshpy.ssh.transport import Transport, open_transport
from xsshpy.ssh.verifier import HostKeyVerifier, host_names
from xsshpy.values import dataclass

HANDSHAKE_DEADLINE = 120
"""Seconds for banner and key exchange where ConnectTimeout sets no other limit."""
CLOSE_DEADLINE = 1.0
"""Seconds that a server has to take leave."""
MOST_JUMPS = 16
_LOGIN_CHECK = 0.25
"""Seconds between two looks at whether the server has gone silent during the login."""


@dataclass
class Session:
    """A logged-in connection, with the jump hosts and the process that carry it."""

    connection: ClientConnection
    login: Login
    settings: Settings
    console: Console
    verifier: HostKeyVerifier
    transport: Transport | None
    carrier: Session | None

    @property
    def disabled(self) -> frozenset[Feature]:
        """What must not be used, because the host's key is not to be trusted."""
        return self.verifier.disabled

    @property
    def where(self) -> str:
        """The other end as ssh names it in its messages."""
        transport = self.transport
        if transport is None or not transport.address:
            return "UNKNOWN port 65535"
        return f"{transport.address} port {transport.port}"

    def become_interactive(self, interactive: bool) -> None:
        """Give what is sent the priority that IPQoS has for this kind of session."""
        if self.transport is not None:
            self.transport.become_interactive(interactive, self.console)

    async def close(self) -> None:
        """Say goodbye, and close everything below; bounded."""
        await self.verifier.updater.finish()
        self.connection.close()
        try:
            await asyncio.wait_for(self.connection.wait_closed(), CLOSE_DEADLINE)
        except (TimeoutError, asyncio.TimeoutError):
            self.connection.abort()
        if self.transport is not None:
            await self.transport.close()
        if self.carrier is not None:
            await self.carrier.close()


async def connect(
    settings: Settings,
    invocation: Invocation,
    console: Console,
    environ: Mapping[str, str],
    depth: int = 0,
    opening: Awaitable[Transport] | None = None,
) -> Session:
    """Connect and log in, through jump hosts where the settings name them.

    ``opening`` is the way to the host where that was begun before. Raises ConnectError,
    HostKeyError, AuthenticationError or SettingsError; everything opened on the way has been closed
    by then.
    """
    carrier = transport = None
    try:
        if settings.proxy_jump:
            carrier = await _connect_jump(settings, invocation, console, environ, depth)
        else:
            transport = await (opening or open_transport(settings, console))
        connection, login, verifier = await _handshake(
            settings,
            console,
            transport,
            carrier,
            environ,
            wants_x11=_may_want_x11(invocation, depth),
            may_ask=depth == 0 and _may_ask_meanwhile(invocation, settings),
        )
    except BaseException:
        if transport is not None:
            await transport.close()
        if carrier is not None:
            await carrier.close()
        raise
    return Session(connection, login, settings, console, verifier, transport, carrier)


async def _connect_jump(
    settings: Settings,
    invocation: Invocation,
    console: Console,
    environ: Mapping[str, str],
    depth: int,
) -> Session:
    """Log in to the last jump host, itself reached through those before it, as ssh -J does."""
    if depth >= MOST_JUMPS:
        raise ConnectError(
            f"xssh: more than {MOST_JUMPS} jump hosts",
            remedy="look for a ProxyJump in ssh_config that names its own host",
        )
    *before, last = settings.proxy_jump
    options = [(letter, value) for letter, value in invocation.ssh_options if letter in "Fv46q"]
    if before:
        options.append(("J", ",".join(before)))
    jump = Invocation(destination=_jump_destination(last), ssh_options=tuple(options))
    jump_settings = await resolve_settings(jump, environ, console)
    console.debug(1, f"Setting implicit jump host {last}")
    return await connect(jump_settings, jump, console, environ, depth + 1)


def _jump_destination(text: str) -> str:
    """``[user@]host[:port]`` as ProxyJump has it, in the form that ssh takes as a destination."""
    return text if text.startswith("ssh://") else f"ssh://{text}"


def _may_want_x11(invocation: Invocation, depth: int) -> bool:
    """Tell whether X11 is to be forwarded over this connection, as far as is known by now."""
    return depth == 0 and invocation.last_of("XYx") != "x"


def _may_ask_meanwhile(invocation: Invocation, settings: Settings) -> bool:
    """Tell whether a question after the login would disturb no program (UpdateHostKeys ask)."""
    has_program = invocation.command or settings.remote_command or invocation.script is not None
    return not (
        has_program
        or settings.request_tty in ("no", "false")
        or invocation.value_of("W") is not None
        or LogLevel.parse(settings.log_level) < LogLevel.INFO
    )


async def _handshake(
    settings: Settings,
    console: Console,
    transport: Transport | None,
    carrier: Session | None,
    environ: Mapping[str, str],
    *,
    wants_x11: bool,
    may_ask: bool,
) -> tuple[ClientConnection, Login, HostKeyVerifier]:
    loop = asyncio.get_running_loop()
    if console.shows(LogLevel.DEBUG1):
        await _tell_identities(settings, console)
    address = transport.address if transport is not None else None
    names = host_names(settings, address)
    evidence = await gather_evidence(settings, console, environ, names)
    verifier = HostKeyVerifier(
        settings, console, evidence, names, wants_x11=wants_x11, may_ask=may_ask
    )
    login = Login(settings, console, lambda feature: feature not in verifier.disabled)
    options = connection_options(settings, login, evidence.algorithms)
    options.waiter = loop.create_future()
    kerberos = await prepare_kerberos(settings, console)

    def factory() -> ClientConnection:
        made = ClientConnection(loop, options, verifier, login.step_succeeded)
        made.warn = console.error
        made.before_login = lambda: _warn_of_weak_keys(settings, console, made)
        made.greeted = transport is not None and transport.greeted
        made.host_bound_signatures = settings.login.host_bound_signatures
        made.limit_keys(settings.rekey_bytes, settings.rekey_seconds)
        made.tell(_packet_log(settings, console, made, address))
        made.host_key_pairs = load_host_keys(settings, console)
        if kerberos is not None:
            made.use_kerberos(kerberos)
        return made

    connection = await _attach(settings, factory, transport, carrier)
    connection.set_extra_info(host=settings.hostname, port=settings.port)
    try:
        left = _time_left(settings, transport)
        await _await_login(settings, console, connection, options.waiter, left)
        await verifier.settle_update(connection)
    except BaseException as error:
        connection.cancel_question()
        verifier.updater.cancel()
        connection.abort()
        port = transport.port if transport is not None else None
        raise explain_failure(error, settings, connection, address, port) from None
    return connection, login, verifier


def _time_left(settings: Settings, transport: Transport | None) -> float:
    """Return how long the server may take from here to the login's beginning (seconds)."""
    left = transport.time_left if transport is not None else None
    return float(settings.connect_timeout or HANDSHAKE_DEADLINE) if left is None else left


def _warn_of_weak_keys(settings: Settings, console: Console, connection: ClientConnection) -> None:
    for line in weak_exchange_words(settings, *connection.exchange):
        console.log(LogLevel.INFO, line)


async def _tell_identities(settings: Settings, console: Console) -> None:
    """Say which key files there are, as ssh -v does before anything is sent."""
    loop = asyncio.get_running_loop()
    silent = Console(LogLevel.QUIET)  # what is wrong with them is said when they are used
    for line in await loop.run_in_executor(None, describe_identities, settings, silent):
        console.debug(1, line)


def _packet_log(
    settings: Settings, console: Console, connection: ClientConnection, address: str | None
) -> PacketLog:
    return PacketLog(
        console.log,
        Peer(settings.hostname, settings.port, settings.user, address),
        lambda: connection.volume,
        rekey_limit=settings.rekey_bytes,
        sends_environment=bool(settings.send_env),
    )


async def _attach(
    settings: Settings,
    factory: Callable[[], ClientConnection],
    transport: Transport | None,
    carrier: Session | None,
) -> ClientConnection:
    """Put an SSH connection on the socket, or on a channel of the jump host's connection."""
    if transport is not None:
        return await transport.attach(factory)
    assert carrier is not None
    opening = carrier.connection.create_connection(
        cast("Callable[[], asyncssh.SSHTCPSession[bytes]]", factory),  # it acts as one
        settings.hostname,
        settings.port,
    )
    try:
        limit = settings.connect_timeout or HANDSHAKE_DEADLINE
        _, session = await asyncio.wait_for(opening, limit)
    except (TimeoutError, asyncio.TimeoutError):
        raise explain_silent_jump(settings, carrier.settings) from None
    except asyncssh.ChannelOpenError as error:
        raise explain_refused_jump(error, settings, carrier.settings) from None
    assert isinstance(session, ClientConnection)
    return session


async def _await_login(
    settings: Settings,
    console: Console,
    connection: ClientConnection,
    waiter: asyncio.Future[None],
    left: float,
) -> None:
    """Wait for the login; a server that goes silent on the way is given up, a user never.

    Up to the first step of authentication there are ``left`` seconds, and all the way, where
    ServerAliveInterval is set, there is the deadline of a silent server.
    """
    loop = asyncio.get_running_loop()
    silence = settings.server_alive_interval * settings.server_alive_count_max
    while not waiter.done():
        started = loop.time()
        asked = console.is_asking
        await asyncio.wait({waiter}, timeout=_LOGIN_CHECK)
        if asked or console.is_asking:
            continue
        if not connection.authenticating:
            left -= loop.time() - started
        if left <= 0 or (silence and connection.idle >= silence):
            raise HandshakeTimeoutError
    await waiter
