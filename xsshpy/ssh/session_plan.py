"""What to ask of the server for one session, and which words start the program. Pure.

The command goes out byte for byte as it was typed wherever that is possible: words are put before
it only for what the remote program must have and the server did not accept by itself.

Follows RFC 4254 §6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from xsshpy.ssh.environment import (
    BACKEND_VARIABLE,
    is_protocol_command,
    login_shell_command,
    wrap_command,
)
from xsshpy.terminal.tty import TerminalSize
from xsshpy.values import dataclass, field


@dataclass(frozen=True)
class PtyRequest:
    """A pseudo-terminal for the remote process; ``modes`` are RFC 4254 §8 opcodes.

    ``required``: it was asked for by name (-t, RequestTTY), and without it there is no session.
    """

    term: str
    size: TerminalSize
    modes: Mapping[int, int]
    required: bool = False


@dataclass(frozen=True)
class X11Request:
    """The fake cookie that stands for the local display on the remote host, and the screen."""

    name: bytes
    cookie: bytes = field(repr=False)
    screen: int = 0


StartAgent = Callable[[], Awaitable[Mapping[str, str] | None]]
"""Starts the X11 agent beside the session; gives the variables of its display, or None."""


@dataclass(frozen=True)
class SessionPlan:
    """What to ask of the server. An empty command is a login shell.

    ``backend`` is MPLBACKEND's value where a display is granted; ``settles_environment`` says
    that the command sets it by itself (a script's loader does). ``is_forced`` tells whether the
    server runs a command of its own instead, which is shown the one that is sent. ``start_agent``
    makes a display by the agent; ``x11`` is then asked for only where it gives none.
    """

    command: str = ""
    subsystem: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    pty: PtyRequest | None = None
    x11: X11Request | None = None
    forward_agent: str = ""
    backend: str | None = None
    settles_environment: bool = False
    is_forced: Callable[[], bool] = lambda: False
    start_agent: StartAgent | None = None


@dataclass(frozen=True)
class Grants:
    """What the server said yes to; ``display`` are the variables of a display of the agent's."""

    x11: bool
    backend_accepted: bool
    display: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_display(self) -> bool:
        """Whether the remote process has a display, either way."""
        return self.x11 or bool(self.display)


def depends_on_grants(plan: SessionPlan) -> bool:
    """Tell whether the command can be sent only when it is known if a display is granted."""
    granted, refused = (decide_program(plan, Grants(x11, False)) for x11 in (True, False))
    return plan.x11 is not None and granted != refused


def decide_program(plan: SessionPlan, grants: Grants) -> tuple[bytes, str]:
    """Return the final request and its argument, byte for byte as typed wherever possible.

    Words are put before the command only where a display was granted, the server did not accept
    the variable by itself, and no other program speaks a protocol over this command.
    """
    if plan.subsystem:
        return b"subsystem", plan.command
    variables = dict(grants.display)
    if grants.has_display and plan.backend is not None and not grants.backend_accepted:
        variables[BACKEND_VARIABLE] = plan.backend
    alone = (
        plan.settles_environment
        or is_protocol_command(plan.command)
        or (bool(variables) and plan.is_forced())
    )
    if alone or not variables:
        return (b"exec", plan.command) if plan.command else (b"shell", "")
    if plan.command:
        return b"exec", wrap_command(plan.command, variables)
    return b"exec", login_shell_command(variables)
