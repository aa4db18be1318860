"""Our first line (RFC 4253 §4.2). It depends on nothing that the server says, so it is sent as soon
as there is a connection, while asyncssh may still be loading."""

from __future__ import annotations

from xsshpy import __version__

_LONGEST_VERSION = 245
"""Characters after ``SSH-2.0-``: with that and the line's end there may be 255."""


def client_version(addendum: str) -> str:
    """Return what follows ``SSH-2.0-``, which is ASCII."""
    shown = addendum.encode("ascii", "replace").decode()
    return " ".join(filter(None, (f"xssh_{__version__}", shown)))[:_LONGEST_VERSION]


def greeting(addendum: str) -> bytes:
    """Return the whole line."""
    return f"SSH-2.0-{client_version(addendum)}\r\n".encode("ascii")
