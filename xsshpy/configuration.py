"""The configuration of one run, read by ``ssh -G`` before there is an event loop.

A session through a master that is there already needs no loop, and would wait for its import. Who
reads configurations later, for jump hosts, does so in the loop: ``xsshpy.ssh_g.read_settings``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from io import FileIO

from xsshpy import ssh_g
from xsshpy.openssh import find_openssh, openssh_environment
from xsshpy.settings import (
    Invocation,
    Settings,
    alias_of,
    check_invocation,
    parse_settings,
)

_READ_SIZE = 1 << 16
_PYTHON_IGNORES = [signal.SIGPIPE, signal.SIGXFSZ]
"""A program that is started is to have their default effect."""


def read_settings_now(
    invocation: Invocation, environ: Mapping[str, str]
) -> tuple[Settings, tuple[str, ...]]:
    """Let OpenSSH resolve the configuration; return it and the lines that OpenSSH said besides.

    Raises SettingsError with OpenSSH's own message where it refuses, and FileNotFoundError where
    there is no ``ssh``.
    """
    check_invocation(invocation)
    try:
        status, out, err = run_ssh_g_now(ssh_g.ssh_g_arguments(invocation))
        said = ssh_g.require_success(status, err)
        if ssh_g.needs_hash(out):
            out += ssh_g.hash_line(run_ssh_g_now(ssh_g.hash_arguments(invocation))[1])
    except TimeoutError:
        raise ssh_g.slow_configuration(invocation) from None
    return parse_settings(out, alias_of(invocation.destination), environ), said


def run_ssh_g_now(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run ``ssh -G …`` and return exit status, stdout and stderr.

    Raises FileNotFoundError without ssh, and TimeoutError after the deadline.
    """
    path = find_openssh(os.environ)
    if path is None:
        raise FileNotFoundError("ssh")
    with contextlib.ExitStack() as stack:
        out, out_writer = _open_pipe(stack)
        err, err_writer = _open_pipe(stack)
        child = os.posix_spawn(
            path,
            [path, "-G", *arguments],
            openssh_environment(path, os.environ),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out_writer.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, err_writer.fileno(), 2),
            ],
            setsigdef=_PYTHON_IGNORES,
        )
        out_writer.close()
        err_writer.close()
        is_read = False
        try:
            deadline = time.monotonic() + ssh_g.SSH_CONFIG_DEADLINE
            texts = _read_all((out.fileno(), err.fileno()), deadline)
            is_read = True
        finally:
            if not is_read:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code, texts[0].decode(errors="surrogateescape"), texts[1].decode(errors="replace")


def _open_pipe(stack: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    reader, writer = os.pipe()
    return (
        stack.enter_context(FileIO(reader, "r")),
        stack.enter_context(FileIO(writer, "w")),
    )


def _read_all(descriptors: tuple[int, ...], deadline: float) -> list[bytes]:
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
