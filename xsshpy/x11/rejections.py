"""Why X clients are turned away, in words: for the user here, and for the client there.

OpenSSH's words where it has them. What comes from the X server is shown printable, in one line.
"""

from __future__ import annotations

import asyncio

from xsshpy.errors import XsshError
from xsshpy.remote.xmessages import SetupReply
from xsshpy.values import dataclass


@dataclass(frozen=True)
class Rejection:
    """Why a client is turned away: ``notice`` for the user here, ``reason`` for the client."""

    notice: str
    reason: bytes


WRONG_AUTHENTICATION = Rejection(
    "X11 connection rejected because of wrong authentication.",
    b"xssh: X11 connection rejected because of wrong authentication\n",
)
TIMEOUT_EXPIRED = Rejection(
    "Rejected X11 connection after ForwardX11Timeout expired",
    b"xssh: X11 connection rejected after ForwardX11Timeout expired\n",
)
TOO_MANY_CLIENTS = Rejection(
    "xssh: X11 connection rejected: too many are open",
    b"xssh: X11 connection rejected: too many are open\n",
)
SETUP_TOO_LATE = Rejection(
    "xssh: X11 connection rejected: the client did not say who it is in time",
    b"xssh: X11 connection rejected: setup took too long\n",
)
UNREACHABLE = b"xssh: the local X server cannot be reached\n"


def describe_failure(error: BaseException) -> str:
    """Return in one line why the X server could not be reached."""
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "Connection timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, XsshError):
        # The line that this becomes part of says already who speaks, and of what.
        return error.message.partition("\n")[0].removeprefix("xssh: X11: ")
    return str(error).partition("\n")[0] or type(error).__name__


def describe_reason(reply: SetupReply) -> str:
    """Return in one printable line why the X server does not want a client."""
    text = reply.reason.decode("ascii", "replace")
    shown = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return shown or "connection refused"
