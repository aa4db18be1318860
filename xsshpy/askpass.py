"""Questions asked by another program: SSH_ASKPASS (ssh(1), section ENVIRONMENT).

The program gets the question as its only argument and prints the answer. Unlike ssh's, it gets
no stdin: the session's input is not for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Mapping

from xsshpy.pipes import read_limited
from xsshpy.prompt import ANSWER_LIMIT
from xsshpy.values import dataclass

_KILL_AFTER = 2.0
"""Seconds between asking the program to end and ending it."""


@dataclass(frozen=True)
class AskpassPolicy:
    """What the environment says about askpass: is it allowed, and does it come before the tty."""

    allowed: bool
    preferred: bool


def decide_askpass(environ: Mapping[str, str]) -> AskpassPolicy:
    """Return what DISPLAY, WAYLAND_DISPLAY and SSH_ASKPASS_REQUIRE say. Pure."""
    allowed = bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    require = environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    if require == "force":
        return AskpassPolicy(allowed=True, preferred=True)
    if require == "never":
        return AskpassPolicy(allowed=False, preferred=False)
    return AskpassPolicy(allowed=allowed, preferred=allowed and require == "prefer")


def find_askpass(environ: Mapping[str, str]) -> str:
    """Return SSH_ASKPASS, or the program that systems install for it; it need not exist."""
    named = environ.get("SSH_ASKPASS")
    if named is not None:
        return named
    for path in _DEFAULTS:
        if os.access(path, os.X_OK):
            return path
    return _DEFAULTS[0]


_DEFAULTS = (
    "/usr/bin/ssh-askpass",
    "/usr/libexec/openssh/ssh-askpass",
    "/usr/libexec/ssh-askpass",
    "/usr/X11R6/bin/ssh-askpass",
)


async def run_askpass(
    program: str, question: str, environ: Mapping[str, str], *, hint: str = ""
) -> bytes | None:
    """Run ``program`` with ``question`` and return its answer, without what follows its first line.

    ``hint`` says what kind of question it is, in SSH_ASKPASS_PROMPT: ``confirm`` for yes or no.
    None means that the user refused: an exit status other than 0. A cancelled call ends the
    program. Raises OSError where the program can't be started.
    """
    variables = dict(environ)
    if hint:
        variables["SSH_ASKPASS_PROMPT"] = hint
    readable, writable = os.pipe()
    try:
        try:
            process = await _start(program, question, variables, writable)
        finally:
            os.close(writable)
        try:
            answer = await read_limited(readable, ANSWER_LIMIT)
        except BaseException:
            await _end(process)
            raise
    finally:
        os.close(readable)
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        await _end(process)
        raise
    if status != 0:
        return None
    return answer.replace(b"\r", b"\n").split(b"\n", 1)[0]


async def _start(
    program: str, question: str, variables: dict[str, str], stdout: int
) -> asyncio.subprocess.Process:
    if not program:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    argv = [program, question]
    try:
        return await _spawn(argv, variables, stdout)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # A script without "#!": execvp(3) hands it to the shell.
    found = shutil.which(program, path=variables.get("PATH")) or program
    return await _spawn(["/bin/sh", found, question], variables, stdout)


async def _spawn(
    argv: list[str], variables: dict[str, str], stdout: int
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=stdout, env=variables
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    _signal(process, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _KILL_AFTER)
    except (asyncio.TimeoutError, asyncio.CancelledError):
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    # Not Process.kill(): it may reap the process, which asyncio's watcher then misses aloud.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
