"""Why a connection failed, in ssh's words: what asyncssh raises becomes an error for the user."""

from __future__ import annotations

import re
from collections.abc import Sequence

import asyncssh
from asyncssh.packet import PacketDecodeError

from xsshpy.console import inline
from xsshpy.errors import AuthenticationError, ConnectError, XsshError
from xsshpy.settings import Settings
from xsshpy.ssh.auth import methods_to_try
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.endings import breach_words
from xsshpy.ssh.greeting import CLOSED_EARLY, REFUSALS, early_words


class HandshakeTimeoutError(Exception):
    """The server did not finish the key exchange in time."""


def explain_silent_jump(settings: Settings, jump: Settings) -> ConnectError:
    """Say that the jump host did not answer in time whether it reached the server."""
    return ConnectError(
        "Connection timed out during banner exchange\n"
        f"Connection to {settings.hostname} port {settings.port} timed out",
        remedy=f"see that {settings.hostname} can be reached from {jump.host}",
    )


def explain_failure(
    error: BaseException,
    settings: Settings,
    connection: ClientConnection,
    address: str | None,
    port: int | None = None,
) -> BaseException:
    """Turn what asyncssh raised into ssh's words; the port is the settings' unless given."""
    if connection.failure is not None:
        return connection.failure
    if isinstance(error, XsshError) or not isinstance(error, Exception):
        return error
    where = f"{address or 'UNKNOWN'} port {(port or settings.port) if address else 65535}"
    doctor = f"`ssh -v {settings.host}` shows what this machine's own ssh makes of it"
    if connection.farewell is not None:
        code, reason = connection.farewell
        return ConnectError(
            f"Received disconnect from {where}:{code}: {reason}\nDisconnected from {where}",
            informative=1,
            remedy=_disconnect_remedy(reason, settings, connection.offered_methods),
        )
    if isinstance(error, asyncssh.PermissionDenied):
        methods = ",".join(connection.offered_methods)
        return AuthenticationError(
            f"{settings.user}@{settings.hostname}: Permission denied ({methods}).",
            remedy=_login_remedy(settings, connection.offered_methods),
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        words = _negotiation_words(inline(str(error)), where)
        return ConnectError(words, remedy=doctor, informative=1)
    if not connection.get_extra_info("server_version"):
        return _explain_no_banner(error, settings, connection, where)
    if isinstance(error, HandshakeTimeoutError):
        return ConnectError(
            f"xssh: the key exchange came to a halt\nConnection to {where} timed out",
            informative=1,
            remedy=_server_remedy(settings),
        )
    if isinstance(error, (asyncssh.ConnectionLost, OSError)):
        was_reset = isinstance(error, ConnectionResetError) and bool(address)
        message = f"Connection {'reset' if was_reset else 'closed'} by {where}"
        return ConnectError(message, remedy=_server_remedy(settings), informative=1)
    if isinstance(error, (PacketDecodeError, UnicodeError)):
        words = f"ssh_dispatch_run_fatal: Connection to {where}: invalid format"
        return ConnectError(words, remedy=doctor, informative=1)
    if isinstance(error, asyncssh.DisconnectError):
        lines = breach_words(error, connection, where)
        return ConnectError("\n".join(lines), remedy=doctor, informative=len(lines))
    return ConnectError(
        f"xssh: the connection to {where} failed: {inline(str(error))}", remedy=doctor
    )


_BANNER_WORDS = {
    "Banner line too long": "banner line too long",
    "Version too long": "banner line too long",
    "Too many banner lines": "No SSH version received in first 1024 lines from server",
}


def _explain_no_banner(
    error: Exception, settings: Settings, connection: ClientConnection, where: str
) -> ConnectError:
    """Say what came in place of an SSH server's first line."""
    if isinstance(error, HandshakeTimeoutError):
        message = f"Connection timed out during banner exchange\nConnection to {where} timed out"
    elif isinstance(error, asyncssh.DisconnectError) and not isinstance(
        error, asyncssh.ConnectionLost
    ):
        words = early_words(settings, _BANNER_WORDS.get(error.reason, inline(error.reason)))
        if error.reason == "Unsupported SSH version":
            words = "Protocol major versions differ: 2 vs. 1\n"
        message = f"{words}banner exchange: Connection to {where}: invalid format"
    elif isinstance(error, ConnectionResetError) and not settings.proxy_command:
        message = (
            "kex_exchange_identification: read: Connection reset by peer\n"
            f"Connection reset by {where}"
        )
    else:
        message = f"{early_words(settings, CLOSED_EARLY)}Connection closed by {where}"
    evidence: tuple[str, ...] = ()
    said = connection.first_words.split(b"\n")[0].decode("utf-8", "replace").strip()
    if said:
        evidence = (f"xssh: it began with: {said[:_SHOWN_WORDS]}",)
    remedy = _server_remedy(settings)
    if said and not settings.proxy_command:
        other = f"see that {settings.hostname} port {settings.port} is an SSH server"
        remedy = REFUSALS.get(said, other)
    return ConnectError(message, evidence=evidence, remedy=remedy, informative=1)


def describe_open_failure(error: asyncssh.ChannelOpenError) -> str:
    """Return why the server opened no channel, in ssh's words and the server's."""
    return f"{_OPEN_FAILURES.get(error.code, 'unknown reason')}: {inline(error.reason)}"


def explain_refused_jump(
    error: asyncssh.ChannelOpenError, settings: Settings, jump: Settings
) -> ConnectError:
    """Say why a jump host did not pass the connection on."""
    remedy = f"see that {settings.hostname} can be reached from {jump.host}"
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        remedy = f"`AllowTcpForwarding yes` in sshd_config on {jump.host}, or another jump host"
    return ConnectError(
        f"channel 0: open failed: {describe_open_failure(error)}",
        evidence=(
            f"xssh: {jump.host} did not connect to {settings.hostname} port {settings.port}",
        ),
        remedy=remedy,
    )


_OPEN_FAILURES = {
    asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED: "administratively prohibited",
    asyncssh.OPEN_CONNECT_FAILED: "connect failed",
    asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE: "unknown channel type",
    asyncssh.OPEN_RESOURCE_SHORTAGE: "resource shortage",
}
_SHOWN_WORDS = 78


def _server_remedy(settings: Settings) -> str:
    if settings.proxy_command:
        return f"run the ProxyCommand for {settings.host} by hand and see what it says"
    return f"look at the log of the SSH server on {settings.hostname}"


_KINDS = {
    "key exchange": "key exchange method",
    "host key": "host key type",
    "encryption": "cipher",
    "MAC": "MAC",
    "compression": "compression method",
}


def _negotiation_words(text: str, where: str) -> str:
    if text == "Key exchange hash mismatch":
        return f"ssh_dispatch_run_fatal: Connection to {where}: incorrect signature"
    match = re.match(r"No matching (.*?) algorithm found, sent .* and received (.*)", text)
    if match is None:
        return f"Unable to negotiate with {where}: {text}"
    kind = _KINDS.get(match.group(1), match.group(1))
    return (
        f"Unable to negotiate with {where}: no matching {kind} found. Their offer: {match.group(2)}"
    )


def _login_remedy(settings: Settings, methods: Sequence[str]) -> str:
    if settings.batch_mode and "password" in methods:
        return "log in without BatchMode, or set up a key with ssh-copy-id"
    usable = set(methods) & set(methods_to_try(settings))
    if "publickey" in methods and not usable & {"password", "keyboard-interactive"}:
        return f"check with `ssh -v {settings.host}` which keys are offered, or give one with -i"
    return "check the user name and the password"


def _disconnect_remedy(reason: str, settings: Settings, methods: Sequence[str]) -> str:
    if "Too many authentication failures" in reason and "publickey" in methods:
        return f"-o IdentitiesOnly=yes with -i and the right key for {settings.host}"
    return _server_remedy(settings)
