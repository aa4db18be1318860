"""The byte stream that SSH runs over: a TCP connection or a ProxyCommand's stdio.

Both become one connected socket. Error texts are ssh's own, because programs match on them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from dataclasses import dataclass

from xsshpy.console import Console
from xsshpy.errors import ConnectError
from xsshpy.resolver import Address, resolve
from xsshpy.settings import Settings, expand_proxy_command

_PROXY_GRACE = 2.0
"""Seconds that a ProxyCommand has to end by itself once its connection is closed."""


@dataclass
class Transport:
    """A connected socket, with the numeric address it leads to or the process behind it."""

    socket: socket.socket
    address: str | None = None
    process: asyncio.subprocess.Process | None = None

    async def close(self) -> None:
        """Close the socket and reap the ProxyCommand: SIGHUP as ssh sends it, then SIGKILL."""
        self.socket.close()
        process = self.process
        if process is None or process.returncode is not None:
            return
        for number in (signal.SIGHUP, signal.SIGKILL):
            try:
                # Not send_signal(): it may reap the process, which asyncio's watcher then misses.
                os.kill(process.pid, number)
                await asyncio.wait_for(process.wait(), _PROXY_GRACE)
                return
            except ProcessLookupError:
                return
            except (TimeoutError, asyncio.TimeoutError):
                continue


async def open_transport(settings: Settings, console: Console) -> Transport:
    """Connect as the settings say. Raises ConnectError."""
    if settings.proxy_command:
        return await _start_proxy_command(settings, console)
    return await _open_tcp(settings, console)


async def _start_proxy_command(settings: Settings, console: Console) -> Transport:
    command = expand_proxy_command(settings)
    shell = os.environ.get("SHELL") or "/bin/sh"
    console.debug(1, f"Executing proxy command: exec {command}")
    ours, theirs = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            shell, "-c", f"exec {command}", stdin=theirs.fileno(), stdout=theirs.fileno()
        )
    except OSError as error:
        ours.close()
        raise ConnectError(
            f"xssh: ProxyCommand could not be started: {error.strerror}",
            evidence=(f"  {shell} -c 'exec {command}'",),
            remedy=f"run that command by hand, or see ProxyCommand for {settings.host}",
        ) from None
    finally:
        theirs.close()
    ours.setblocking(False)
    return Transport(ours, process=process)


async def _open_tcp(settings: Settings, console: Console) -> Transport:
    loop = asyncio.get_running_loop()
    addresses = await _resolve(settings)
    deadline = loop.time() + settings.connect_timeout if settings.connect_timeout else None
    failure: OSError = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for attempt in range(max(1, settings.connection_attempts)):
        if attempt:
            await asyncio.sleep(1)
            console.debug(1, "Trying again...")
        for address in addresses:
            console.debug(
                1, f"Connecting to {settings.hostname} [{address.numeric}] port {settings.port}."
            )
            try:
                connected = await _connect_one(settings, address, deadline)
            except OSError as error:
                failure = error
                console.debug(
                    1,
                    f"connect to address {address.numeric} port {settings.port}: {_reason(error)}",
                )
            else:
                return Transport(connected, address.numeric)
    host, port = settings.hostname, settings.port
    raise ConnectError(
        f"ssh: connect to host {host} port {port}: {_reason(failure)}",
        remedy=_remedy(failure, host, port),
    )


async def _resolve(settings: Settings) -> list[Address]:
    try:
        return await resolve(settings.hostname, settings.port, settings.address_family)
    except socket.gaierror as error:
        raise ConnectError(
            f"ssh: Could not resolve hostname {settings.hostname}: {error.strerror}",
            remedy=f"check the spelling of {settings.host} and that this machine is online",
        ) from None


async def _connect_one(
    settings: Settings, address: Address, deadline: float | None
) -> socket.socket:
    loop = asyncio.get_running_loop()
    connection = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
    try:
        connection.setblocking(False)
        if settings.bind_interface:
            _bind_to_interface(connection, settings.bind_interface)
        if settings.bind_address:
            local = await resolve(settings.bind_address, 0, address.family, passive=True)
            connection.bind(local[0].address)
        remaining = None if deadline is None else max(0.0, deadline - loop.time())
        await asyncio.wait_for(loop.sock_connect(connection, address.address), remaining)
    except (TimeoutError, asyncio.TimeoutError) as error:
        connection.close()
        if isinstance(error, OSError) and error.errno:
            raise
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _bind_to_interface(connection: socket.socket, name: str) -> None:
    """Let traffic go by one interface only (-B). Raises OSError where there is none of the name."""
    option = getattr(socket, "SO_BINDTODEVICE", None)
    if option is not None:
        connection.setsockopt(socket.SOL_SOCKET, option, name.encode() + b"\0")
    else:  # macOS: by number, and for each family
        index = socket.if_nametoindex(name)
        level, number = (
            (socket.IPPROTO_IPV6, 125)
            if connection.family == socket.AF_INET6
            else (socket.IPPROTO_IP, 25)
        )
        connection.setsockopt(level, number, index)


def _reason(error: OSError) -> str:
    """The system's own words; asyncio puts its own before them."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _remedy(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.ECONNREFUSED:
        return f"see that an SSH server listens on port {port} of {host}, or give its port with -p"
    if error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"see that {host} is up and that no firewall or missing VPN stands in between"
    return f"`ssh -v {host}` shows what this machine's own ssh makes of it"
