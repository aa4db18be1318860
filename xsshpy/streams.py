"""The program's own standard streams in a session: with a remote pty or without. Pure."""

from __future__ import annotations

from typing import NamedTuple

from xsshpy.settings import Settings

STDIN, STDOUT, STDERR = 0, 1, 2


class Streams(NamedTuple):
    """How the session meets the user: with a remote pty or without, from which input."""

    pty: bool
    raw: bool
    null_input: bool


def decide_streams(
    settings: Settings, has_program: bool, *, stdin_is_terminal: bool
) -> tuple[Streams, str]:
    """Decide about the pty as ssh does; the second value is a line for the user, or empty."""
    wanted = {"no": False, "false": False, "auto": not has_program}.get(settings.request_tty, True)
    forced = settings.request_tty == "force"
    notice = ""
    if wanted and not forced and (not stdin_is_terminal or settings.stdin_null):
        notice = "Pseudo-terminal will not be allocated because stdin is not a terminal."
        wanted = False
    raw = wanted and stdin_is_terminal and not settings.stdin_null
    return Streams(pty=wanted, raw=raw, null_input=settings.stdin_null), notice
