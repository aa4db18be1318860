"""The program's own standard streams: that they are there, and with a remote pty or without."""

from __future__ import annotations

import os

from xsshpy.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xsshpy.settings import Settings

STDIN, STDOUT, STDERR = 0, 1, 2


@dataclass(frozen=True)
class Streams:
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


def sanitise_standard_descriptors() -> None:
    """Open /dev/null on those of the descriptors 0, 1 and 2 that are closed.

    Otherwise the next file or socket would become this program's stdin or stderr. Raises OSError
    where /dev/null can't be opened.
    """
    null = os.open(os.devnull, os.O_RDWR)
    if null <= 2:
        os.set_inheritable(null, True)
    for fd in range(null + 1, 3):
        try:
            os.fstat(fd)
        except OSError:
            os.dup2(null, fd)
    if null > 2:
        os.close(null)
