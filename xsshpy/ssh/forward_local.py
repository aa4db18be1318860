"""Forwards that listen here: -L and -D. Connections that come in are carried to the server's side.

Each listener has a task that accepts, and each connection one that finds its target (with -D the
client names it, by SOCKS), opens the channel and joins the two.

Follows RFC 4254 §7.2 and OpenSSH's PROTOCOL §2.4 (streamlocal).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import asyncssh

from xsshpy.console import Console
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.failures import describe_open_failure
from xsshpy.ssh.forward_sockets import open_listeners
from xsshpy.ssh.forward_spec import (
    STREAMLOCAL_PORT,
    Endpoint,
    Forward,
    ForwardKind,
    ForwardOptions,
    TcpEndpoint,
    UnixEndpoint,
    decide_bind,
    describe_target,
)
from xsshpy.ssh.forward_table import Carried, ForwardTable, State
from xsshpy.ssh.forward_words import describe_connection, describe_local
from xsshpy.ssh.socks import SocksError, SocksReader, SocksRequest
from xsshpy.ssh.splice import ChannelEnd, ForwardChannel, channel_kind, channel_request
from xsshpy.values import dataclass, field

_READ_SIZE = 4096
_PAUSE = 1.0
"""Seconds without new connections, after there were no descriptors for one."""


@dataclass(eq=False)
class _Listener:
    """One socket that listens here, and its number in ssh's list."""

    forward: Forward
    socket: socket.socket
    number: int
    task: asyncio.Task[None] | None = field(default=None)

    @property
    def listening_port(self) -> int:
        listen = self.forward.listen
        return listen.port if isinstance(listen, TcpEndpoint) else STREAMLOCAL_PORT


class LocalForwards:
    """What listens here for one connection."""

    def __init__(
        self,
        connection: ClientConnection,
        table: ForwardTable,
        options: ForwardOptions,
        family: socket.AddressFamily,
        console: Console,
    ) -> None:
        self._connection = connection
        self._table = table
        self._options = options
        self._family = family
        self._console = console
        self._listeners: list[_Listener] = []

    async def open(self, forward: Forward) -> bool:
        """Listen; return whether that worked. What failed has been said."""
        sockets = await open_listeners(forward.listen, self._options, self._family, self._console)
        for opened in sockets:
            listener = _Listener(forward, opened, self._table.reserve())
            self._listeners.append(listener)
            listener.task = asyncio.get_running_loop().create_task(self._accept(listener))
        return bool(sockets)

    def announce(self, forward: Forward) -> None:
        """Say at -v that we are about to listen."""
        gateway_ports = self._options.gateway_ports
        self._console.debug(1, describe_local(forward, gateway_ports=gateway_ports))

    def cancel(self, kind: ForwardKind, listen: Endpoint) -> bool:
        """Listen there no more; return whether anyone did. What is being carried stays.

        As with ssh, a unix socket is found whatever it leads to, a port only under its kind and
        the address that it was bound to.
        """
        found = [listener for listener in self._listeners if self._is_meant(listener, kind, listen)]
        for listener in found:
            self._stop(listener)
        return bool(found)

    def _is_meant(self, listener: _Listener, kind: ForwardKind, listen: Endpoint) -> bool:
        ours = listener.forward.listen
        if isinstance(ours, UnixEndpoint) or isinstance(listen, UnixEndpoint):
            return ours == listen
        if (ours.port, listener.forward.kind) != (listen.port, kind):
            return False
        gateway_ports = self._options.gateway_ports
        bound, _ = decide_bind(ours.host, gateway_ports=gateway_ports)
        meant, _ = decide_bind(listen.host, gateway_ports=gateway_ports)
        return bound == meant

    def stop_all(self) -> None:
        """Take no more connections. Unix sockets stay, as with ssh."""
        for listener in [*self._listeners]:
            self._stop(listener)

    async def close(self) -> None:
        """Take no more connections; return when nothing is left of the listeners."""
        tasks = [listener.task for listener in self._listeners if listener.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.stop_all()

    def _stop(self, listener: _Listener) -> None:
        self._listeners.remove(listener)
        self._table.release(listener.number)
        if listener.task is not None:
            listener.task.cancel()
        asyncio.get_running_loop().remove_reader(listener.socket)
        listener.socket.close()

    async def _accept(self, listener: _Listener) -> None:
        loop = asyncio.get_running_loop()
        host, port = describe_target(listener.forward.target)
        while True:
            await self._table.wait_for_room()
            try:
                opened, address = await loop.sock_accept(listener.socket)
            except OSError as error:
                if error.errno != errno.ECONNABORTED:
                    self._console.error(f"accept: {error.strerror}")
                    await asyncio.sleep(_PAUSE)
                continue
            self._console.debug(
                1,
                f"Connection to port {listener.listening_port} forwarding to {host} "
                f"port {port} requested.",
            )
            carried = self._admit(listener, opened)
            origin = _origin(opened, address)
            carried.spawn(self._serve(listener, carried, opened, origin))

    def _admit(self, listener: _Listener, opened: socket.socket) -> Carried:
        target = listener.forward.target
        if opened.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # it may be gone already
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target is None:
            return self._table.admit("dynamic-tcpip", State.NEGOTIATING, "dynamic-tcpip")
        kind = channel_kind(target)
        return self._table.admit(kind, State.OPENING, kind)

    async def _serve(
        self,
        listener: _Listener,
        carried: Carried,
        opened: socket.socket,
        origin: tuple[str, int],
    ) -> None:
        """Carry one connection: find its target, open the channel, join the two."""
        carried.opened = opened
        target = listener.forward.target
        granted = rest = b""
        try:
            if target is None:
                request, rest = await _read_socks(opened)
                target, granted = TcpEndpoint(request.host, request.port), request.granted
                self._table.change(carried, State.OPENING)
            carried.name = describe_connection(listener.listening_port, target, origin, opened)
            if not await self._open_channel(carried, target, origin):
                return
            self._table.change(carried, State.OPEN)
            if granted:
                await asyncio.get_running_loop().sock_sendall(opened, granted)
            if rest:
                carried.splice.socket_data(rest)
            carried.opened = None
            await carried.splice.join(opened)
        except (SocksError, OSError) as error:
            self._console.debug(1, f"channel {carried.number}: {error}")
        finally:
            if carried.opened is not None:
                carried.opened = None
                opened.close()
                carried.splice.give_up()

    async def _open_channel(
        self, carried: Carried, target: Endpoint, origin: tuple[str, int]
    ) -> bool:
        kind, arguments = channel_request(target, origin)
        try:
            channel = ForwardChannel(self._connection)
            await channel.open(kind, arguments, ChannelEnd(carried.splice))
        except asyncssh.ChannelOpenError as error:
            if self._connection._transport is not None:
                self._console.notice(
                    f"channel {carried.number}: open failed: {describe_open_failure(error)}"
                )
            return False
        return True


async def _read_socks(opened: socket.socket) -> tuple[SocksRequest, bytes]:
    """Read a SOCKS request from a socket; return it with what came after it.

    Raises SocksError or OSError. As with ssh, a client may take its time.
    """
    loop = asyncio.get_running_loop()
    reader = SocksReader()
    while True:
        data = await loop.sock_recv(opened, _READ_SIZE)
        if not data:
            raise SocksError("closed before the request was complete")
        try:
            request = reader.receive_data(data)
        finally:
            # Also to a client that is to be hung up on.
            await loop.sock_sendall(opened, reader.take_replies())
        if request is not None:
            return request, reader.take_rest()


def _origin(opened: socket.socket, address: object) -> tuple[str, int]:
    """Return who connected, as it is told to the server."""
    if opened.family == socket.AF_UNIX or not isinstance(address, tuple):
        return "", 0
    return str(address[0]), int(address[1])
