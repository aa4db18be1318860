"""The configuration of one run, read by ``ssh -G`` before there is an event loop.

A session through a master that is there already needs no loop, and would wait for its import. Who
reads configurations later, for jump hosts, does so in the loop: ``xsshpy.ssh_g.read_settings``.

``ssh -G`` is started first of all, so that it runs while the modules are loaded that need its
answer.
"""

from __future__ import annotations

import os
import select
import time

from xsshpy import ssh_g
from xsshpy.openssh import find_openssh, openssh_environment
from xsshpy.settings import alias_of, check_invocation, parse_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence

    from xsshpy.settings import Invocation, Settings
else:
    import _signal as signal  # without the names, which take 5 ms

_READ_SIZE = 1 << 16
_PYTHON_IGNORES = [signal.SIGPIPE, signal.SIGXFSZ]
"""A program that is started is to have their default effect."""


class Reading:
    """The settings of a run, being read since this was made. Who does not finish it closes it."""

    def __init__(self, invocation: Invocation, environ: Mapping[str, str]) -> None:
        self._invocation = invocation
        self._environ = environ
        self._question: Question | None = None
        self._failure: Exception | None = None
        try:
            check_invocation(invocation)
            self._question = Question(ssh_g.ssh_g_arguments(invocation))
        except Exception as error:  # told when there is somebody to tell it: finish()
            self._failure = error

    def finish(self) -> tuple[Settings, tuple[str, ...]]:
        """Return the configuration as OpenSSH resolved it, and the lines that it said besides.

        Raises SettingsError with OpenSSH's own message where it refuses, and FileNotFoundError
        where there is no ``ssh``.
        """
        if self._question is None:
            raise self._failure or FileNotFoundError("ssh")
        invocation = self._invocation
        try:
            status, out, err = self._question.answer()
            said = ssh_g.require_success(status, err)
            if ssh_g.needs_hash(out):
                out += ssh_g.hash_line(Question(ssh_g.hash_arguments(invocation)).answer()[1])
        except TimeoutError:
            raise ssh_g.slow_configuration(invocation) from None
        return parse_settings(out, alias_of(invocation.destination), self._environ), said

    def close(self) -> None:
        """Give it up, if it is not finished."""
        if self._question is not None:
            self._question.close()


class Question:
    """One ``ssh -G …``, running. Raises FileNotFoundError without ssh."""

    def __init__(self, arguments: Sequence[str]) -> None:
        path = find_openssh(os.environ)
        if path is None:
            raise FileNotFoundError("ssh")
        self._deadline = time.monotonic() + ssh_g.SSH_CONFIG_DEADLINE
        self._child = 0
        self._readers: list[int] = []
        writers: list[int] = []
        try:
            for ends in (os.pipe(), os.pipe()):
                self._readers.append(ends[0])
                writers.append(ends[1])
            self._child = os.posix_spawn(
                path,
                [path, "-G", *arguments],
                openssh_environment(path, os.environ),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, writers[0], 1),
                    (os.POSIX_SPAWN_DUP2, writers[1], 2),
                ],
                setsigdef=_PYTHON_IGNORES,
            )
        except BaseException:
            self.close()
            raise
        finally:
            for writer in writers:
                os.close(writer)

    def answer(self) -> tuple[int, str, str]:
        """Return exit status, stdout and stderr. Raises TimeoutError after the deadline."""
        try:
            out, err = _read_all(self._readers, self._deadline)
            child, self._child = self._child, 0
            _, status = os.waitpid(child, 0)
        finally:
            self.close()
        code = os.waitstatus_to_exitcode(status)
        return code, out.decode(errors="surrogateescape"), err.decode(errors="replace")

    def close(self) -> None:
        """End it, if it runs."""
        child, self._child = self._child, 0
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        while self._readers:
            os.close(self._readers.pop())


def _read_all(descriptors: list[int], deadline: float) -> list[bytes]:
    """Read them all to their ends. Raises TimeoutError."""
    found = {descriptor: bytearray() for descriptor in descriptors}
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    waiting = set(descriptors)
    while waiting:
        left = deadline - time.monotonic()
        ready = poller.poll(max(left, 0) * 1000)
        if not ready and left <= 0:
            raise TimeoutError
        for descriptor, _ in ready:
            piece = os.read(descriptor, _READ_SIZE)
            found[descriptor] += piece
            if not piece:
                poller.unregister(descriptor)
                waiting.remove(descriptor)
    return [bytes(found[descriptor]) for descriptor in descriptors]
