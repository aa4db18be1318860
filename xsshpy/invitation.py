"""The doctor's command for a run that failed: what was typed, as far as it decides about the way.

Pure, and loads nothing of the doctor.
"""

from __future__ import annotations

import shlex

from xsshpy.settings import Invocation

_OF_THE_WAY = "46BCFIJPXYbcilmopx"
"""ssh's options that say where to, how, as whom, and whether X11 comes along."""

_MOST_OPTIONS = 400
"""Characters of options that are worth repeating; a longer command is named without them."""


def doctor_command(invocation: Invocation) -> str:
    """Return the command that looks at the way to this host, quoted for a POSIX shell."""
    words: list[str] = []
    for letter, value in invocation.ssh_options:
        if letter in _OF_THE_WAY:
            words += [f"-{letter}"] if value is None else [f"-{letter}", value]
    if invocation.x11 is not None:
        words += ["--x11", invocation.x11]
    options = shlex.join(words)
    if len(options) > _MOST_OPTIONS:
        options = ""
    return " ".join(filter(None, ("xssh --doctor", options, shlex.quote(invocation.destination))))


def invite(invocation: Invocation) -> str:
    """Return the words that end a message about a failure."""
    return f"{doctor_command(invocation)} looks at the whole way"
