"""-f: ask what there is to ask, log in, then go to the background (ssh(1)).

A process with an event loop and threads must not fork. So the fork comes first: the child does the
whole run, with the terminal for its questions, and the parent waits until the child says that it
has logged in and started what was asked for. Then the parent ends with status 0, as ssh does; a
child that fails before that point gives the parent its own status.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_READY = b"1"


def start_in_background() -> tuple[bool, Callable[[], None], int]:
    """Fork. Returns (whether this is the child, what the child calls when ready, parent's status).

    The parent gets here only once the child is in the background or has ended.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        return True, lambda: _detach(writer), 0
    os.close(writer)
    try:
        ready = os.read(reader, 1) == _READY
    finally:
        os.close(reader)
    if ready:
        return False, lambda: None, 0
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # end as the child did, so that a shell sees the same
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return False, lambda: None, code


def _detach(writer: int) -> None:
    """Leave the terminal's session, so that its end is not ours, and let the parent go."""
    os.setsid()
    os.write(writer, _READY)
    os.close(writer)
