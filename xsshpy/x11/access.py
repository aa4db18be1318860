"""Trusted or untrusted: which cookie the remote side's windows are shown with, and for how long.

Pure: a decision from facts, with the lines to tell the user as data. The words and the rules are
those of ssh(1) -X and -Y and of ssh_config(5) ForwardX11Trusted and ForwardX11Timeout:

- Trusted clients come with the user's own cookie, for as long as the session lasts.
- Untrusted ones come with a cookie from the SECURITY extension, and after ForwardX11Timeout no new
  one is let in (0: no limit).
- A server that can't make untrusted cookies: who asked for -X gets no X11, as giving more than was
  asked for would be wrong; where -X was nobody's explicit wish, xssh goes on as trusted and says
  so.
"""

from __future__ import annotations

from xsshpy.errors import DisplayError
from xsshpy.values import dataclass, field
from xsshpy.x11.authority import AuthorityEntry
from xsshpy.x11.verify import Verdict


@dataclass(frozen=True)
class Access:
    """X11 goes ahead.

    ``cookie`` is the MIT-MAGIC-COOKIE-1 to show to the local server, None for a server that was
    opened without one. New clients are refused ``expires_after`` seconds after the start, never if
    None. ``lines`` are for the user.
    """

    trusted: bool
    cookie: bytes | None = field(repr=False)
    expires_after: int | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """X11 stays off and the session goes on; ``error`` says why and what to do."""

    error: DisplayError

    @property
    def lines(self) -> tuple[str, ...]:
        """The line for the user."""
        return (self.error.summary(),)


def decide_access(
    verdict: Verdict,
    cookie: AuthorityEntry | None,
    *,
    forward_x11_trusted: bool,
    explicit: bool,
    timeout: int,
) -> Access | Refusal:
    """Decide how the remote side's clients reach the local server.

    ``cookie`` is the one the display was proved with. ``explicit``: the user asked for X11 (-X, or
    ForwardX11 yes), it isn't xssh's own default. ``timeout`` is ForwardX11Timeout in seconds.
    """
    if not verdict.works:
        return Refusal(verdict.as_error())
    own = cookie.data if cookie is not None else None
    if forward_x11_trusted:
        return Access(trusted=True, cookie=own)
    if verdict.untrusted is not None:
        return Access(
            trusted=False,
            cookie=verdict.untrusted.data,
            expires_after=timeout if timeout > 0 else None,
        )
    reason = verdict.untrusted_reason or _missing_reason(verdict)
    if explicit:
        return Refusal(
            DisplayError(
                f"xssh: X11: untrusted forwarding is not possible: {reason}",
                remedy="-Y instead of -X, if you trust the remote host with your whole display",
            )
        )
    line = f"xssh: X11: forwarding as trusted (like -Y), as {reason}; -x turns X11 off"
    return Access(trusted=True, cookie=own, lines=(line,))


def _missing_reason(verdict: Verdict) -> str:
    if not verdict.has_security:
        return "the X server has no SECURITY extension"
    return "no untrusted cookie was made"
