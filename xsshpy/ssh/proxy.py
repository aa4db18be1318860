"""ProxyCommand: a program that carries the connection, or makes it and hands it over.

It is started as ssh starts it: ``exec`` and the command, by the user's shell, with a pipe for each
direction and the user's own stderr. ``-`` is ssh's own stdin and stdout; with ProxyUseFdpass the
command sends a connected descriptor back over its stdout and ends (ssh_config(5)).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence

from xsshpy.console import Console
from xsshpy.errors import ConnectError
from xsshpy.settings import Settings, expand_proxy_command
from xsshpy.ssh.greeting import CLOSED_EARLY, early_words
from xsshpy.values import dataclass

_GRACE = 2.0
"""Seconds that a ProxyCommand has to end by itself once its connection is closed."""
_OWN_STREAMS = "-"


@dataclass
class Proxy:
    """What carries the connection: one socket, or a descriptor for each direction."""

    socket: socket.socket | None = None
    descriptors: tuple[int, int] | None = None
    process: asyncio.subprocess.Process | None = None


async def open_proxy(settings: Settings, console: Console) -> Proxy:
    """Start the ProxyCommand. Raises ConnectError, or SettingsError for an unknown token."""
    fdpass = settings.keywords.get("proxyusefdpass") == ("yes",)
    if settings.proxy_command == _OWN_STREAMS:
        return _use_own_streams(fdpass=fdpass)
    command = f"exec {expand_proxy_command(settings)}"
    if fdpass:
        return await _receive_connection(settings, command, console)
    return await _start(settings, command, console)


def _use_own_streams(*, fdpass: bool) -> Proxy:
    """Take stdin and stdout for the connection: whoever started xssh speaks SSH there."""
    if fdpass:
        raise ConnectError("ProxyCommand=- and ProxyUseFDPass are incompatible")
    return Proxy(descriptors=(os.dup(0), os.dup(1)))


async def _start(settings: Settings, command: str, console: Console) -> Proxy:
    console.debug(1, f"Executing proxy command: {command}")
    (their_input, our_output), (our_input, their_output) = os.pipe(), os.pipe()
    try:
        process = await _run_shell(settings, command, their_input, their_output)
    except BaseException:
        os.close(our_input)
        os.close(our_output)
        raise
    finally:
        os.close(their_input)
        os.close(their_output)
    return Proxy(descriptors=(our_input, our_output), process=process)


async def _receive_connection(settings: Settings, command: str, console: Console) -> Proxy:
    console.debug(1, f"Executing proxy dialer command: {command}")
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            number = theirs.fileno()
            process = await _run_shell(settings, command, number, number)
        try:
            ours.setblocking(False)
            received = await _receive_descriptor(ours)
            if isinstance(received, str):
                raise ConnectError(
                    f"mm_receive_fd: {received}\nproxy dialer did not pass back a connection",
                    remedy=f"run the ProxyCommand for {settings.host} by hand, or "
                    "ProxyUseFdpass no if it carries the connection itself",
                )
            await process.wait()
        except BaseException:
            await end_proxy(process)
            raise
    return _hold(received)


def _hold(descriptor: int) -> Proxy:
    """Take over a descriptor that was sent: a socket as a rule, but anything can be sent."""
    try:
        received = socket.socket(fileno=descriptor)
    except OSError:
        return Proxy(descriptors=(descriptor, os.dup(descriptor)))
    if received.type == socket.SOCK_STREAM:
        return Proxy(socket=received)
    return Proxy(descriptors=(received.detach(), os.dup(descriptor)))


async def _receive_descriptor(channel: socket.socket) -> int | str:
    """Wait for a descriptor (SCM_RIGHTS, unix(7)); return it, or why there is none."""
    loop = asyncio.get_running_loop()
    number = channel.fileno()
    came: asyncio.Future[int | str] = loop.create_future()

    def receive() -> None:
        try:
            answer = _read_descriptor(channel)
        except BlockingIOError:
            return
        except OSError as error:
            answer = f"recvmsg: {error.strerror}"
        loop.remove_reader(number)
        if not came.done():
            came.set_result(answer)
        elif isinstance(answer, int):
            os.close(answer)

    loop.add_reader(number, receive)
    try:
        return await came
    finally:
        loop.remove_reader(number)


def _read_descriptor(channel: socket.socket) -> int | str:
    size = array.array("i").itemsize
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(size), flags)
    if not data:
        return "recvmsg: expected received 1 got 0"
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(content) >= size:
            descriptors = array.array("i", content[: len(content) // size * size])
            close_quietly(descriptors[1:])
            os.set_inheritable(descriptors[0], False)
            return descriptors[0]
    return "no message header"


async def _run_shell(
    settings: Settings, command: str, stdin: int, stdout: int
) -> asyncio.subprocess.Process:
    shell = os.environ.get("SHELL") or "/bin/sh"
    try:
        return await asyncio.create_subprocess_exec(
            shell, "-c", command, stdin=stdin, stdout=stdout
        )
    except OSError as error:
        early = early_words(settings, CLOSED_EARLY)
        raise ConnectError(
            f"{shell}: {error.strerror}\n{early}Connection closed by UNKNOWN port 65535",
            evidence=(f"xssh: the ProxyCommand for {settings.host} needs a shell",),
            remedy="set SHELL to a shell that exists",
        ) from None


async def end_proxy(process: asyncio.subprocess.Process) -> None:
    """Reap a ProxyCommand: SIGHUP as ssh sends it, then SIGKILL."""
    if process.returncode is not None:
        return
    for number in (signal.SIGHUP, signal.SIGKILL):
        try:
            # Not send_signal(): it may reap the process, which asyncio's watcher then misses.
            os.kill(process.pid, number)
            await asyncio.wait_for(process.wait(), _GRACE)
            return
        except ProcessLookupError:
            return
        except (TimeoutError, asyncio.TimeoutError):
            continue


def close_quietly(descriptors: Sequence[int]) -> None:
    """Close descriptors, open or not."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
