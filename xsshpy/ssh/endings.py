"""How a connection that carried a session came to its end, in ssh's words.

ssh has two kinds: what went wrong is logged, by level, where messages go; that the other side left
is said on stderr whatever the level (clientloop.c, quit_message).
"""

from __future__ import annotations

import os

import asyncssh
from asyncssh.misc import MACError

from xsshpy.console import LogLevel, inline
from xsshpy.settings import Settings
from xsshpy.ssh.connection import ClientConnection
from xsshpy.values import dataclass


@dataclass(frozen=True)
class Ending:
    """What to say. ``spoken`` goes to stderr at every level, ``logged`` after it, by level."""

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
            (LogLevel.INFO, f"Disconnected from {where}"),
        )
    if connection.failure is not None:  # another host key in the middle of it
        return _logged((LogLevel.FATAL, connection.failure.render()))
    if isinstance(error, asyncssh.DisconnectError) and not isinstance(
        error, asyncssh.ConnectionLost
    ):
        lines = breach_words(error, connection, where)
        return _logged(*((LogLevel.INFO, line) for line in lines))
    if isinstance(error, OSError):
        logged = ((LogLevel.FATAL, "client_loop: send disconnect: Broken pipe"),)
        return Ending(_read_failure(error, settings), logged)
    return Ending(spoken=f"Connection to {name} closed by remote host.")


def _read_failure(error: OSError, settings: Settings) -> str:
    """Return why nothing can be read any more, which ssh forgot to say up to 9.7."""
    if settings.release < (9, 8) or not error.errno:
        return ""
    return f"Read from remote host {settings.hostname}: {os.strerror(error.errno)}"


def _logged(*lines: tuple[LogLevel, str]) -> Ending:
    return Ending(logged=lines)


def breach_words(
    error: asyncssh.DisconnectError, connection: ClientConnection, where: str
) -> list[str]:
    """Say how the server broke the protocol: packets that are corrupted, or make no sense."""
    reason, lines = inline(error.reason), []
    cipher = str(connection.get_extra_info("recv_cipher") or "")
    mac = str(connection.get_extra_info("recv_mac") or "")
    has_own_mac = "gcm" in cipher or "poly1305" in cipher
    if isinstance(error, MACError):
        reason = "message authentication code incorrect"
        if not has_own_mac:
            lines = ["Corrupted MAC on input."]
    elif reason == "Max packet size exceeded":
        lines = [f"Bad packet length {connection.packet_length}."]
        # Where the length is not known to be good before the packet is read, ssh blames the MAC.
        known = has_own_mac or "-etm@" in mac
        reason = "Connection corrupted" if known else "message authentication code incorrect"
    return [*lines, f"ssh_dispatch_run_fatal: Connection to {where}: {reason}"]
