"""To the background: -f when the login is done, ``~&`` in the middle of a session (ssh(1)).

A process with an event loop and threads should not fork. So with -f the fork comes first: the child
does the whole run, with the terminal for its questions, and the parent waits until the child says
that it has logged in and started what was asked for. Then the parent ends with status 0, as ssh
does; a child that fails before that point gives the parent its own status.

``~&`` can't be foreseen. There the event loop itself goes on in a child (:func:`leave_shell`), at a
moment when no thread is at work: who calls it starts new ones.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Iterable
from typing import NamedTuple

_READY = b"1"
_KEY_PATIENCE = 0.3
"""Seconds for a child to end by a key's signal."""
_STANDARD = 2
_PASSED_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class Background:
    """The way to the background for a process whose parent waits."""

    def __init__(self, writer: int) -> None:
        self._writer = writer

    def leave(self, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        """Leave the terminal's session, so that its end is not ours, and let the parent go.

        The standard streams named are let go of: whoever reads from them sees their end.
        """
        os.setsid()
        close_inherited()
        release_streams([number for number, wanted in enumerate((stdin, stdout, stderr)) if wanted])
        with contextlib.suppress(BrokenPipeError):  # the parent was killed meanwhile
            os.write(self._writer, _READY)
        os.close(self._writer)

    def stay(self) -> None:
        """Stay in front of the terminal after all, and end when the waiting parent is killed."""
        # Who only prepares the way does without.
        import asyncio

        with contextlib.suppress(OSError, NotImplementedError):  # where such an end can't be seen
            asyncio.get_running_loop().add_reader(self._writer, self._end)

    def _end(self) -> None:
        import asyncio

        asyncio.get_running_loop().remove_reader(self._writer)
        os.kill(os.getpid(), signal.SIGTERM)


def close_inherited() -> None:
    """Close what was open when this program was started, but the standard streams.

    Such as a lock's file, or a pipe at whose end somebody waits. Whatever Python opens is closed
    in the programs that it starts, and so can be told from that.
    """
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            if int(name) > _STANDARD and os.get_inheritable(int(name)):
                os.close(int(name))


def release_streams(descriptors: Iterable[int]) -> None:
    """Put /dev/null in the place of standard streams, so that nobody waits for their end."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def leave_folder(paths: Iterable[str]) -> None:
    """Stand in nobody's way who removes or unmounts the folder in which the run began.

    ``paths`` are those that may be opened yet: as long as one of them is relative, we stay. The
    words that ssh_config(5) has in place of an agent's path are none.
    """
    if all(os.path.isabs(path) or path in ("", "yes", "none", "SSH_AUTH_SOCK") for path in paths):
        os.chdir("/")


class Parting(NamedTuple):
    """What :func:`start_in_background` came to.

    In the child ``background`` is its way there. In the parent it is None: ``is_ready`` tells
    whether the child is in the background; ``status`` is the parent's.
    """

    background: Background | None = None
    is_ready: bool = False
    status: int = 0


def start_in_background() -> Parting:
    """Fork. The parent gets here only once the child is in the background or has ended.

    Until then it passes on the signals that are to end it.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        return Parting(Background(writer))
    os.close(writer)
    kept = {
        number: signal.signal(number, lambda number, _: _pass_on(number, child))
        for number in _PASSED_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        is_ready = os.read(reader, 1) == _READY
        if is_ready:
            return Parting(is_ready=True)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(reader)
        for number, handler in kept.items():
            signal.signal(number, handler)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # end as the child did, so that a shell sees the same
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return Parting(status=code)


def _pass_on(number: int, child: int) -> None:
    """Pass a signal on. Of a key it comes to both, and a second one would come too soon."""
    if number in (signal.SIGINT, signal.SIGQUIT):
        time.sleep(_KEY_PATIENCE)
    os.kill(child, number)


def leave_shell() -> None:
    """Go on in a child process; the parent ends with status 0, which gives the shell its prompt.

    To be called by a callback of the running event loop, not within a task. Raises OSError where
    there can be no child; then nothing has changed.
    """
    # Whoever is only to start a process that goes there does without it.
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    if os.fork() > 0:
        os._exit(0)  # nothing is put back or flushed here: all of it is the child's now
    # Python forgets in a child that a loop runs, and which descriptor its signals wake.
    asyncio._set_running_loop(loop)
    parts = vars(loop)
    parts["_selector"] = _same_selector(parts["_selector"])
    signal.set_wakeup_fd(parts["_csock"].fileno())
    loop.set_default_executor(ThreadPoolExecutor())


def _same_selector(inherited: selectors.BaseSelector) -> selectors.BaseSelector:
    """Return a selector that waits for the same: kqueue's stays with the parent."""
    ours = selectors.DefaultSelector()
    for key in list(inherited.get_map().values()):
        ours.register(key.fileobj, key.events, key.data)
    inherited.close()
    return ours
