"""Why a connection failed, in ssh's words: what asyncssh raises becomes an error for the user."""

from __future__ import annotations

import re
from collections.abc import Sequence

import asyncssh

from xsshpy.errors import AuthenticationError, ConnectError, XsshError
from xsshpy.settings import Settings
from xsshpy.ssh.connection import ClientConnection


class HandshakeTimeoutError(Exception):
    """The server did not finish the key exchange in time."""


def explain_failure(
    error: BaseException,
    settings: Settings,
    connection: ClientConnection,
    address: str | None,
) -> BaseException:
    """Turn what asyncssh raised into ssh's words."""
    if connection.failure is not None:
        return connection.failure
    if isinstance(error, XsshError) or not isinstance(error, Exception):
        return error
    where = f"{address or 'UNKNOWN'} port {settings.port if address else 65535}"
    doctor = f"`ssh -v {settings.host}` shows what this machine's own ssh makes of it"
    if connection.farewell is not None:
        code, reason = connection.farewell
        return ConnectError(
            f"Received disconnect from {where}:{code}: {reason}\nDisconnected from {where}",
            remedy=_disconnect_remedy(reason, settings, connection.offered_methods),
        )
    if isinstance(error, asyncssh.PermissionDenied):
        methods = ",".join(connection.offered_methods)
        return AuthenticationError(
            f"{settings.user}@{settings.hostname}: Permission denied ({methods}).",
            remedy=_login_remedy(settings, connection.offered_methods),
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return ConnectError(_negotiation_words(str(error), where), remedy=doctor)
    if isinstance(error, HandshakeTimeoutError):
        return ConnectError(
            f"Connection timed out during banner exchange\nConnection to {where} timed out",
            remedy=f"see that {settings.hostname} port {settings.port} is an SSH server",
        )
    has_banner = bool(connection.get_extra_info("server_version"))
    if isinstance(error, (asyncssh.ConnectionLost, ConnectionError, OSError)):
        stage = "kex_exchange_identification: " if not has_banner else ""
        return ConnectError(
            f"{stage}Connection closed by remote host\nConnection closed by {where}"
            if stage
            else f"Connection closed by {where}",
            remedy=f"look at the log of the SSH server on {settings.hostname}; {doctor}",
        )
    if isinstance(error, asyncssh.DisconnectError):
        reason = str(error.reason)
        if not has_banner:
            return ConnectError(
                f"kex_exchange_identification: {reason}\nConnection to {where} failed",
                remedy=f"see that {settings.hostname} port {settings.port} is an SSH server",
            )
    return ConnectError(f"xssh: the connection to {where} failed: {error}", remedy=doctor)


_KINDS = {
    "key exchange": "key exchange method",
    "host key": "host key type",
    "encryption": "cipher",
    "MAC": "MAC",
    "compression": "compression method",
}


def _negotiation_words(text: str, where: str) -> str:
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
    if "publickey" in methods and "password" not in methods:
        return f"check with `ssh -v {settings.host}` which keys are offered, or give one with -i"
    return "check the user name and the password"


def _disconnect_remedy(reason: str, settings: Settings, methods: Sequence[str]) -> str:
    if "Too many authentication failures" in reason and "publickey" in methods:
        return f"-o IdentitiesOnly=yes with -i and the right key for {settings.host}"
    return f"look at the log of the SSH server on {settings.hostname}"
