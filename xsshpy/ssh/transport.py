"""The byte stream that SSH runs over: a TCP connection, or what a ProxyCommand gives.

Error texts are ssh's own, because programs match on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from xsshpy.console import Console
from xsshpy.errors import ConnectError, UnreachableError
from xsshpy.resolver import Address, resolve
from xsshpy.settings import Settings
from xsshpy.ssh.greeting import greeting
from xsshpy.ssh.pipes import DuplexPipe
from xsshpy.ssh.proxy import close_quietly, end_proxy, open_proxy
from xsshpy.ssh.socket_options import Priorities, parse_priorities, set_priority
from xsshpy.values import dataclass

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


@dataclass
class Transport:
    """Where the connection runs: a socket, or two descriptors; and the process behind it, if any.

    ``address`` and ``port`` are those of the other end of an internet connection. ``time_left``
    are the seconds of ConnectTimeout that remain for what follows; None: no limit. ``greeted``:
    our first line has been sent.
    """

    priorities: Priorities
    socket: socket.socket | None = None
    descriptors: tuple[int, int] | None = None
    process: asyncio.subprocess.Process | None = None
    address: str | None = None
    port: int | None = None
    time_left: float | None = None
    greeted: bool = False

    async def attach(self, factory: Callable[[], _Protocol]) -> _Protocol:
        """Put a protocol on it. Raises ConnectError."""
        if self.socket is not None:
            loop = asyncio.get_running_loop()
            _, protocol = await loop.create_connection(factory, sock=self.socket)
            return protocol
        assert self.descriptors is not None
        descriptors, self.descriptors = self.descriptors, None
        protocol = factory()
        try:
            DuplexPipe(*descriptors, protocol).start()
        except OSError as error:
            raise ConnectError(
                f"xssh: there is no connection on stdin and stdout: {_reason(error)}",
                remedy="ProxyCommand - needs a program that speaks SSH to xssh's stdin and stdout",
            ) from None
        return protocol

    def become_interactive(self, interactive: bool, console: Console) -> None:
        """Set the priority that IPQoS has for this kind of session."""
        if self.socket is not None and self.socket.fileno() >= 0:  # else the server has left
            chosen = self.priorities.interactive if interactive else self.priorities.bulk
            set_priority(self.socket, chosen, console)

    async def close(self) -> None:
        """Close what is open, and reap the ProxyCommand."""
        if self.socket is not None:
            self.socket.close()
        if self.descriptors is not None:
            close_quietly(self.descriptors)
        if self.process is not None:
            await end_proxy(self.process)


async def open_transport(settings: Settings, console: Console) -> Transport:
    """Connect as the settings say. Raises ConnectError."""
    priorities = parse_priorities(" ".join(settings.keywords.get("ipqos", ())))
    if not settings.proxy_command:
        return await _open_tcp(settings, priorities, console)
    proxy = await open_proxy(settings, console)
    transport = Transport(priorities, proxy.socket, proxy.descriptors, proxy.process)
    if proxy.socket is not None:
        proxy.socket.setblocking(False)
        if proxy.socket.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # not connected: whoever reads or writes is told
                transport.address, transport.port = proxy.socket.getpeername()[:2]
    return transport


async def _open_tcp(settings: Settings, priorities: Priorities, console: Console) -> Transport:
    console.debug(2, f'resolving "{settings.hostname}" port {settings.port}')
    addresses = await _resolve(settings)
    host, port = settings.hostname, settings.port
    failure = os.strerror(errno.EHOSTUNREACH)
    number = errno.EHOSTUNREACH
    for attempt in range(max(1, settings.connection_attempts)):
        if attempt:
            await asyncio.sleep(1)
            console.debug(1, "Trying again...")
        for address in addresses:
            console.debug(1, f"Connecting to {host} [{address.numeric}] port {port}.")
            connection = await _make_socket(settings, address, priorities, console)
            if connection is None:
                failure, number = "failure", 0
                continue
            started = asyncio.get_running_loop().time()
            try:
                await _connect(connection, address, settings.connect_timeout)
            except OSError as error:
                failure, number = _reason(error), error.errno or 0
                where = f"address {address.numeric} port {port}"
                console.debug(1, f"connect to {where}: {failure}")
                continue
            console.debug(1, "Connection established.")
            took = asyncio.get_running_loop().time() - started
            return await _greet(connection, address, settings, priorities, console, took)
    raise UnreachableError(
        f"ssh: connect to host {host} port {port}: {failure}",
        remedy=_remedy(number, settings),
    )


async def _greet(
    connection: socket.socket,
    address: Address,
    settings: Settings,
    priorities: Priorities,
    console: Console,
    took: float,
) -> Transport:
    """Send our first line on a connection that took some seconds to make."""
    left = None
    if settings.connect_timeout:
        left = max(0.0, settings.connect_timeout - took)
        console.debug(3, f"timeout: {left * 1000:.0f} ms remain after connect")
    transport = Transport(priorities, connection, address=address.numeric, port=settings.port)
    transport.time_left = left
    try:
        with contextlib.suppress(OSError):  # whoever reads next is told
            line = greeting(settings.version_addendum)
            await asyncio.get_running_loop().sock_sendall(connection, line)
    except BaseException:
        connection.close()
        raise
    transport.greeted = True
    return transport


async def _resolve(settings: Settings) -> list[Address]:
    try:
        return await resolve(settings.hostname, settings.port, settings.address_family)
    except socket.gaierror as error:
        raise ConnectError(
            f"ssh: Could not resolve hostname {settings.hostname}: {error.strerror}",
            remedy=f"check the spelling of {settings.host} and that this machine is online",
        ) from None


async def _make_socket(
    settings: Settings, address: Address, priorities: Priorities, console: Console
) -> socket.socket | None:
    """Make a socket with the settings' priority and source address; None, and said why not."""
    try:
        connection = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
    except OSError as error:
        console.error(f"socket: {error.strerror}")
        return None
    try:
        connection.setblocking(False)
        set_priority(connection, priorities.interactive, console)
        if await _bind(connection, settings, address, console):
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


async def _bind(
    connection: socket.socket, settings: Settings, address: Address, console: Console
) -> bool:
    """Bind to BindAddress, or to an address of BindInterface; False, and said why not."""
    if not settings.bind_address and not settings.bind_interface:
        return True
    name, source = settings.bind_address, None
    try:
        if not name:
            from xsshpy.ssh.interfaces import interface_addresses

            name = (*interface_addresses(settings.bind_interface, address.family), "")[0]
        if name:
            source = (await resolve(name, 0, address.family, passive=True))[0]
    except socket.gaierror as error:
        console.error(f"getaddrinfo: {name}: {error.strerror}")
        return False
    except OSError as error:
        console.error(f"getifaddrs: {settings.bind_interface}: {_reason(error)}")
        return False
    if source is None:
        console.notice(f"getifaddrs: {settings.bind_interface}: no suitable addresses")
        return False
    try:
        connection.bind(source.address)
    except OSError as error:
        console.error(f"bind {source.numeric}: {_reason(error)}")
        return False
    console.debug(1, f"ssh_create_socket: bound to {source.numeric}")
    return True


async def _connect(connection: socket.socket, address: Address, timeout: int | None) -> None:
    """Connect, within ``timeout`` seconds; close the socket where that fails with OSError."""
    loop = asyncio.get_running_loop()
    try:
        await asyncio.wait_for(loop.sock_connect(connection, address.address), timeout)
    except (TimeoutError, asyncio.TimeoutError) as error:
        connection.close()
        if isinstance(error, OSError) and error.errno:
            raise
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
    except BaseException:
        connection.close()
        raise


def _reason(error: OSError) -> str:
    """The system's own words; asyncio puts its own before them."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _remedy(number: int, settings: Settings) -> str:
    host, port = settings.hostname, settings.port
    if number == errno.ECONNREFUSED:
        return f"see that an SSH server listens on port {port} of {host}, or give its port with -p"
    if number in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"see that {host} is up and that no firewall or missing VPN stands in between"
    if number == 0 and (settings.bind_address or settings.bind_interface):
        return (
            "`ip addr` lists the addresses that -b and BindAddress, -B and BindInterface can name"
        )
    return f"`ssh -v {host}` shows what this machine's own ssh makes of it"
