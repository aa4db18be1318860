"""Our first line (RFC 4253 §4.2), and what is said where none comes back.

It depends on nothing that the server says, so it is sent as soon as there is a connection, while
asyncssh may still be loading.
"""

from __future__ import annotations

from xsshpy import __version__
from xsshpy.console import LogLevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsshpy.settings import Settings

_LONGEST_VERSION = 245
"""Characters after ``SSH-2.0-``: with that and the line's end there may be 255."""

REFUSALS = {
    "Exceeded MaxStartups": "connect again: too many were logging in at once (MaxStartups there)",
    # From 9.8 on, for PerSourcePenalties too.
    "Not allowed at this time": "wait a minute: that server refuses this address for a while, "
    "after logins that failed or too many at once",
}
"""What sshd says in place of its first line where it drops a connection, and what to do then."""

CLOSED_EARLY = "Connection closed by remote host"
_QUIET = (CLOSED_EARLY, "banner line contains invalid characters", "banner line too long")
"""What ssh has at VERBOSE from 9.5 on, where it was an error before."""


def client_version(addendum: str) -> str:
    """Return what follows ``SSH-2.0-``, which is ASCII."""
    shown = addendum.encode("ascii", "replace").decode()
    return " ".join(filter(None, (f"xssh_{__version__}", shown)))[:_LONGEST_VERSION]


def greeting(addendum: str) -> bytes:
    """Return the whole line."""
    return f"SSH-2.0-{client_version(addendum)}\r\n".encode("ascii")


def early_words(settings: Settings, words: str) -> str:
    """Return the line that says what came before the server's first one; empty if it is quiet."""
    level = LogLevel.parse(settings.log_level)
    if words in _QUIET and settings.release >= (9, 5) and level < LogLevel.VERBOSE:
        return ""
    return f"kex_exchange_identification: {words}\n"
