"""Port forwarding: -L, -R, -D, and -R as a SOCKS proxy, with TCP and unix sockets on both sides.

Connections that come in here are carried to the server's side through channels that we open; for
those that come in there, the server opens channels, and we connect to the target. The server may
only use what was asked for: a channel for a forward that nobody requested is refused, and a remote
SOCKS client reaches what PermitRemoteOpen allows.

What ssh says about forwards, and on which level, is said here in its words.

Follows RFC 4254 §7 and OpenSSH's PROTOCOL §2.4 (streamlocal).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass

import asyncssh
from asyncssh.constants import MSG_REQUEST_SUCCESS
from asyncssh.packet import SSHPacket, String, UInt32

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.forward_sockets import TargetError, connect_target, open_listeners
from xsshpy.ssh.forward_spec import (
    STREAMLOCAL_PORT,
    Endpoint,
    Forward,
    ForwardKind,
    TcpEndpoint,
    UnixEndpoint,
    parse_forward_options,
    remote_bind,
)
from xsshpy.ssh.forward_table import Carried, ForwardTable, State
from xsshpy.ssh.forward_words import (
    describe_answer,
    describe_connection,
    describe_local,
    describe_remote,
    describe_target,
)
from xsshpy.ssh.session import SessionChannel
from xsshpy.ssh.socks import SocksError, SocksReader, SocksRequest
from xsshpy.ssh.splice import ChannelEnd, ForwardChannel, channel_kind, channel_request
from xsshpy.ssh.stdio_forward import describe_open_failure, run_stdio_forward

__all__ = ["Forwarder", "run_stdio_forward"]

_READ_SIZE = 4096
_CONGESTED = 1 << 20
"""Bytes that may wait for the SSH connection itself before local sockets are read no more."""
_PAUSE = 1.0
"""Seconds without new connections, after there were no descriptors for one."""
_REMOTE = (ForwardKind.REMOTE, ForwardKind.REMOTE_DYNAMIC)
_RemoteKey = tuple[str, int] | str


@dataclass(frozen=True)
class _Listener:
    """One socket that listens here."""

    forward: Forward
    socket: socket.socket

    @property
    def listening_port(self) -> int:
        listen = self.forward.listen
        return listen.port if isinstance(listen, TcpEndpoint) else STREAMLOCAL_PORT


class Forwarder:
    """All forwards of one connection. Call :meth:`close` at the end.

    ``settings`` say how forwards behave (GatewayPorts, ExitOnForwardFailure, PermitRemoteOpen,
    StreamLocalBind…, AddressFamily).
    """

    def __init__(self, connection: ClientConnection, settings: Settings, console: Console) -> None:
        self._connection = connection
        self._console = console
        self._options = parse_forward_options(settings.keywords)
        self._family = settings.address_family
        self._has_session = settings.session_type != "none"
        self._table = ForwardTable()
        self._listeners: list[_Listener] = []
        self._remote: dict[_RemoteKey, Forward] = {}
        self._session_number = 0
        self._requests: list[asyncio.Task[bool]] = []
        self._listens = True
        self._told_fatal = False
        self._tasks: set[asyncio.Task[None]] = set()
        # asyncssh looks these up by name. Its own know no words, and come too late: a connection
        # may follow in the same packet as the answer that allowed it.
        handlers: dict[str, object] = vars(connection)
        handlers["_process_forwarded_tcpip_open"] = self._process_tcp_open
        handlers["_process_forwarded_streamlocal_at_openssh_dot_com_open"] = self._process_path_open

        self._watch_congestion()

    def _watch_congestion(self) -> None:
        """Read no more from local sockets while the SSH connection itself takes no more.

        A channel's window is room at the other end. On a slow way there, many windows' worth
        would wait here, before what is typed.
        """
        connection = self._connection
        pause, resume = connection.pause_writing, connection.resume_writing
        if connection._transport is not None:
            connection._transport.set_write_buffer_limits(_CONGESTED)

        def hold() -> None:
            pause()
            self._table.hold(True)

        def go_on() -> None:
            resume()
            self._table.hold(False)

        vars(connection).update(pause_writing=hold, resume_writing=go_on)

    # -- what the story calls --

    async def open_all(self, forwards: Sequence[Forward]) -> bool:
        """Listen here, and ask the server to listen; return whether all of it worked.

        What failed has been said. With ExitOnForwardFailure False means: end the run.
        """
        return await self.start(forwards) and await self.confirm()

    async def start(self, forwards: Sequence[Forward]) -> bool:
        """Listen here and send the requests to the server, without waiting for its answers.

        Returns False only where ExitOnForwardFailure ends the run; :meth:`confirm` tells the rest.
        """
        local = [forward for forward in forwards if forward.kind not in _REMOTE]
        opened = [await self._listen(forward) for forward in local]
        if local and not all(opened):
            if self._options.exit_on_failure:
                self._console.fatal("Could not request local forwarding.")
                return False
            if not any(opened):
                self._console.error("Could not request local forwarding.")
        self._listens = all(opened)
        for forward in forwards:
            if forward.kind in _REMOTE:
                self._requests.append(asyncio.create_task(self._request(forward)))
        if self._has_session:
            self._session_number = self._table.reserve()
        await asyncio.sleep(0)  # the tasks send their requests in this turn of the loop
        return True

    async def confirm(self) -> bool:
        """Wait for the server's answers; return whether all forwards are open."""
        return all(await asyncio.gather(*self._requests)) and self._listens

    @property
    def open_count(self) -> int:
        """How many connections are being forwarded; ssh waits for them when a session ends.

        As with ssh, those that still speak SOCKS do not count.
        """
        return self._table.open_count

    async def wait_until_idle(self) -> None:
        """Wait until no connection is being forwarded."""
        await self._table.wait_until_idle()

    def describe(self) -> str:
        """Return what ``~#`` shows, as ssh writes it to a terminal in raw mode."""
        lines = {carried.number: carried.describe() for carried in self._table.connections()}
        for channel in self._connection._channels.values():
            if isinstance(channel, SessionChannel):
                lines[self._session_number] = (
                    f"  #{self._session_number} client-session (t4 [session] "
                    f"r{channel._send_chan} i0/0 o0/0 e[write]/0 fd 0/1/2 sock -1 cc -1 "
                    "io 0x01/0x00)\r\n"
                )
        heading = "The following connections are open:\r\n"
        return heading + "".join(lines[number] for number in sorted(lines))

    async def close(self) -> None:
        """Close all listeners and connections at once. Unix sockets stay, as with ssh."""
        tasks = [*self._tasks, *self._requests]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.socket.close()
        self._listeners.clear()
        self._remote.clear()
        await self._table.abort()

    # -- connections that come in here --

    async def _listen(self, forward: Forward) -> bool:
        console = self._console
        console.debug(1, describe_local(forward, gateway_ports=self._options.gateway_ports))
        sockets = await open_listeners(forward.listen, self._options, self._family, console)
        for opened in sockets:
            self._table.reserve()
            listener = _Listener(forward, opened)
            self._listeners.append(listener)
            self._spawn(self._accept(listener))
        return bool(sockets)

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
            carried = self._admit_local(listener, opened)
            origin = _origin(opened, address)
            self._spawn(self._serve(listener, carried, opened, origin), carried)

    def _admit_local(self, listener: _Listener, opened: socket.socket) -> Carried:
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

    # -- connections that come in on the server's side --

    async def _request(self, forward: Forward) -> bool:
        """Ask the server to listen; return whether it does."""
        console = self._console
        console.debug(1, describe_remote(forward))
        key = _remote_key(forward.listen)
        listen, connection = forward.listen, self._connection
        is_any_port = isinstance(listen, TcpEndpoint) and listen.port == 0
        if not is_any_port:
            self._remote.setdefault(key, forward)
        if isinstance(listen, UnixEndpoint):
            name, arguments = b"streamlocal-forward@openssh.com", [os.fsencode(listen.path)]
            answer = await connection._make_global_request(name, String(arguments[0]))
        else:
            host = String(remote_bind(listen.host))
            answer = await connection._make_global_request(
                b"tcpip-forward", host, UInt32(listen.port)
            )
        if connection.is_closed():
            return False
        kind, packet = answer
        succeeded = kind == MSG_REQUEST_SUCCESS
        console.debug(1, describe_answer(forward, succeeded=succeeded))
        if succeeded and is_any_port:
            succeeded = self._note_port(forward, packet)
        if not succeeded:
            if self._remote.get(key) is forward:
                del self._remote[key]
            self._tell_refused(forward)
        return succeeded

    def _note_port(self, forward: Forward, packet: SSHPacket) -> bool:
        """Take the port that the server chose, and tell the user."""
        assert isinstance(forward.listen, TcpEndpoint)
        host, target_port = describe_target(forward.target)
        port = packet.get_uint32()
        if not 0 < port <= 65535:
            self._console.error(
                f"Invalid allocated port {port} for remote forward to {host}:{target_port}"
            )
            return False
        self._console.notice(f"Allocated port {port} for remote forward to {host}:{target_port}")
        self._remote[_remote_key(TcpEndpoint(forward.listen.host, port))] = forward
        return True

    def _tell_refused(self, forward: Forward) -> None:
        listen = forward.listen
        where = f"path {listen.path}" if isinstance(listen, UnixEndpoint) else f"port {listen.port}"
        words = f"remote port forwarding failed for listen {where}"
        if self._options.exit_on_failure:
            if not self._told_fatal:  # ssh is gone by the second one
                self._console.fatal(f"Error: {words}")
            self._told_fatal = True
        else:
            self._console.notice(f"Warning: {words}")

    def _process_tcp_open(
        self, packet: SSHPacket
    ) -> tuple[ForwardChannel, Awaitable[asyncssh.SSHTCPSession[bytes]]]:
        host = packet.get_string().decode("utf-8", "replace")
        port = packet.get_uint32()
        originator = packet.get_string().decode("utf-8", "replace")
        packet.get_uint32()
        packet.check_end()
        channel = ForwardChannel(self._connection)
        unknown = f"listen_port {port}"
        return channel, self._answer(channel, (host.lower(), port), originator, unknown)

    def _process_path_open(
        self, packet: SSHPacket
    ) -> tuple[ForwardChannel, Awaitable[asyncssh.SSHTCPSession[bytes]]]:
        path = os.fsdecode(packet.get_string())
        packet.get_string()  # reserved
        packet.check_end()
        channel = ForwardChannel(self._connection)
        return channel, self._answer(channel, path, "forwarded-streamlocal", f"path {path[:100]}")

    async def _answer(
        self, channel: ForwardChannel, key: _RemoteKey, originator: str, unknown: str
    ) -> ChannelEnd:
        """Connect a channel that the server opens. Raises ChannelOpenError where it must not."""
        # This runs in a task of its own: after the request whose answer was read before.
        forward = self._remote.get(key)
        if forward is None:
            self._console.error(f"WARNING: Server requests forwarding for unknown {unknown}")
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed"
            )
        if self._table.is_full:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many are open")
        if forward.target is None:
            return self._admit_socks(originator)
        kind = "forwarded-tcpip" if isinstance(key, tuple) else "forwarded-streamlocal@openssh.com"
        carried = self._table.admit(kind, State.CONNECTING, originator, opened=self._join_target)
        try:
            carried.opened = await connect_target(forward.target, self._family, self._console)
        except TargetError as error:
            carried.splice.give_up()
            raise asyncssh.ChannelOpenError(error.code, error.text) from None
        except BaseException:
            carried.splice.give_up()
            raise
        if channel.is_gone:
            carried.opened.close()
            carried.splice.give_up()
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "too late")
        self._table.change(carried, State.OPEN)
        return ChannelEnd(carried.splice)

    def _join_target(self, carried: Carried) -> None:
        opened, carried.opened = carried.opened, None
        assert opened is not None
        self._spawn(_join(carried, opened), carried)

    # -- SOCKS through a channel --

    def _admit_socks(self, originator: str) -> ChannelEnd:
        reader = SocksReader()

        def read(carried: Carried, data: bytes) -> None:
            self._read_request(carried, reader, data)

        state = State.REMOTE_NEGOTIATING
        carried = self._table.admit("forwarded-tcpip", state, originator, reader=read)
        return ChannelEnd(carried.splice)

    def _read_request(self, carried: Carried, reader: SocksReader, data: bytes) -> None:
        splice = carried.splice
        try:
            request = reader.receive_data(data)
        except SocksError as error:
            self._console.debug(1, f"channel {carried.number}: {error}")
            splice.socket_data(reader.take_replies())
            splice.give_up()
            return
        splice.socket_data(reader.take_replies())
        if request is None:
            return
        splice.stop_reader(reader.take_rest())
        if not self._options.permits(request.host, request.port):
            self._console.debug(
                1, f"requested forward not permitted: {request.host} port {request.port}"
            )
            splice.give_up()
            return
        self._table.change(carried, State.REMOTE_CONNECTING)
        self._spawn(self._connect_request(carried, request), carried)

    async def _connect_request(self, carried: Carried, request: SocksRequest) -> None:
        splice = carried.splice
        target = TcpEndpoint(request.host, request.port)
        try:
            opened = await connect_target(target, self._family, self._console)
        except TargetError:
            splice.give_up()
            return
        except BaseException:
            splice.give_up()
            raise
        splice.socket_data(request.granted)
        self._table.change(carried, State.OPEN)
        await _join(carried, opened)

    # -- tasks --

    def _spawn(self, work: Coroutine[None, None, None], carried: Carried | None = None) -> None:
        """Run a task that ends with its connection, or with all of this."""
        task = asyncio.get_running_loop().create_task(work)
        tasks = self._tasks if carried is None else carried.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _join(carried: Carried, opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        await carried.splice.join(opened)


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


def _remote_key(listen: Endpoint) -> _RemoteKey:
    if isinstance(listen, UnixEndpoint):
        return listen.path
    return remote_bind(listen.host).lower(), listen.port
