"""How a connection that carried a session came to its end, in ssh's words.

ssh has two kinds: what went wrong is logged, by level, where messages go; that the other side left
is said on stderr whatever the level (clientloop.c, quit_message).
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncssh
from asyncssh.misc import MACError

from xsshpy.console import LogLevel
from xsshpy.settings import Settings
from xsshpy.ssh.connection import ClientConnection


@dataclass(frozen=True)
class Ending:
    """What to say. ``spoken`` goes to stderr at every level, ``logged`` by level."""

    spoken: str = ""
    logged: tuple[tuple[LogLevel, str], ...] = ()


def explain_end(
    error: Exception | None, connection: ClientConnection, settings: Settings, where: str
) -> Ending:
    """Say why a connection ended under a session. ``where`` is ``ADDRESS port NUMBER``."""
    name = settings.hostname
    if "keepalive" in str(error):
        return _logged((LogLevel.INFO, f"Timeout, server {name} not responding."))
    if connection.farewell is not None:
        code, reason = connection.farewell
        return _logged(
            (LogLevel.ERROR, f"Received disconnect from {where}:{code}: {reason}"),
            (LogLevel.FATAL, f"Disconnected from {where}"),
        )
    if isinstance(error, MACError):
        return _corrupted(connection, where)
    if isinstance(error, asyncssh.ProtocolError) and "packet size" in error.reason:
        return _logged(
            (LogLevel.INFO, f"Bad packet length {connection.packet_length}."),
            (LogLevel.FATAL, _fatal(where, "Connection corrupted")),
        )
    if connection.failure is not None:  # another host key in the middle of it
        return _logged((LogLevel.FATAL, connection.failure.render()))
    if isinstance(error, asyncssh.DisconnectError) and not isinstance(
        error, asyncssh.ConnectionLost
    ):
        return _logged((LogLevel.FATAL, _fatal(where, error.reason)))
    if isinstance(error, OSError):
        return _logged((LogLevel.FATAL, "client_loop: send disconnect: Broken pipe"))
    return Ending(spoken=f"Connection to {name} closed by remote host.")


def _logged(*lines: tuple[LogLevel, str]) -> Ending:
    return Ending(logged=lines)


def _fatal(where: str, reason: str) -> str:
    return f"ssh_dispatch_run_fatal: Connection to {where}: {reason}"


def _corrupted(connection: ClientConnection, where: str) -> Ending:
    """A wrong MAC. Ciphers that authenticate by themselves have none to call corrupted."""
    line = (LogLevel.FATAL, _fatal(where, "message authentication code incorrect"))
    cipher = str(connection.get_extra_info("recv_cipher"))
    if "gcm" in cipher or "poly1305" in cipher:
        return _logged(line)
    return _logged((LogLevel.INFO, "Corrupted MAC on input."), line)
