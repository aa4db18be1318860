"""Forwards that the server listens for: -R, and -R as a SOCKS proxy.

For what connects there the server opens channels, and we connect to the target. The server may only
use what was asked for: a channel for a forward that nobody requested is refused, and a remote SOCKS
client reaches what PermitRemoteOpen allows.

Follows RFC 4254 §7 and OpenSSH's PROTOCOL §2.4 (streamlocal).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

import asyncssh
from asyncssh.constants import MSG_REQUEST_SUCCESS
from asyncssh.packet import PacketDecodeError, SSHPacket, String, UInt32

from xsshpy.console import Console
from xsshpy.ssh.connection import ClientConnection, OpenedChannel
from xsshpy.ssh.forward_sockets import TargetError, connect_target
from xsshpy.ssh.forward_spec import (
    Endpoint,
    Forward,
    ForwardOptions,
    TcpEndpoint,
    UnixEndpoint,
    describe_target,
    remote_bind,
)
from xsshpy.ssh.forward_table import Carried, ForwardTable, State
from xsshpy.ssh.forward_words import describe_answer
from xsshpy.ssh.socks import SocksError, SocksReader, SocksRequest
from xsshpy.ssh.splice import ChannelEnd, ForwardChannel
from xsshpy.values import dataclass, replace

_RemoteKey = tuple[str, int] | str
PortOpener = Callable[[str, int, str], OpenedChannel]
"""Answers a channel for one who connected: gets host and port listened on, and who it was."""


@dataclass(frozen=True)
class RemoteAnswer:
    """What the server said; ``port`` is the one it chose, 0 where it had no choice."""

    succeeded: bool
    port: int = 0


class RemoteForwards:
    """What the server listens for on behalf of one connection: its ForwardedOpens."""

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
        self._asked: dict[_RemoteKey, Forward] = {}
        self._lent: dict[_RemoteKey, PortOpener] = {}
        self._told_fatal = False
        connection.forwarded = self

    def close(self) -> None:
        """Let nothing in any more."""
        self._asked.clear()

    def cancel(self, listen: Endpoint) -> bool:
        """Tell the server to listen there no more; return whether it was asked to listen.

        As with ssh, the bind address has to be written as it was.
        """
        key = _remote_key(listen)
        forward = self._asked.get(key)
        if forward is None or forward.listen != listen:
            return False
        del self._asked[key]
        if isinstance(listen, UnixEndpoint):
            name = b"cancel-streamlocal-forward@openssh.com"
            arguments = [String(os.fsencode(listen.path))]
        else:
            name = b"cancel-tcpip-forward"
            arguments = [String(remote_bind(listen.host)), UInt32(listen.port)]
        self._connection._send_global_request(name, *arguments, want_reply=False)
        return True

    async def request(self, forward: Forward, *, at_start: bool = True) -> RemoteAnswer:
        """Ask the server to listen; return whether it does. What failed has been said.

        ``at_start`` says that ExitOnForwardFailure is about it.
        """
        answer = await self.ask(forward, tell_port=self._console.notice)
        if not answer.succeeded and not self._connection.is_closed():
            self._tell_refused(forward, is_fatal=at_start and self._options.exit_on_failure)
        return answer

    async def ask(self, forward: Forward, *, tell_port: Callable[[str], None]) -> RemoteAnswer:
        """Ask the server to listen. ``tell_port`` gets a line about the port that it chose."""
        key = _remote_key(forward.listen)
        listen, connection = forward.listen, self._connection
        is_any_port = isinstance(listen, TcpEndpoint) and listen.port == 0
        if not is_any_port:
            self._asked.setdefault(key, forward)
        if isinstance(listen, UnixEndpoint):
            name, arguments = b"streamlocal-forward@openssh.com", [os.fsencode(listen.path)]
            reply = await connection._make_global_request(name, String(arguments[0]))
        else:
            host = String(remote_bind(listen.host))
            reply = await connection._make_global_request(
                b"tcpip-forward", host, UInt32(listen.port)
            )
        if connection.is_closed():
            return RemoteAnswer(False)
        kind, packet = reply
        succeeded, port = kind == MSG_REQUEST_SUCCESS, 0
        self._console.debug(1, describe_answer(forward, succeeded=succeeded))
        if succeeded and is_any_port:
            port = self._note_port(forward, packet, tell_port)
            succeeded = port > 0
        if not succeeded and self._asked.get(key) is forward:
            del self._asked[key]
        return RemoteAnswer(succeeded, port)

    def _note_port(
        self, forward: Forward, packet: SSHPacket, tell_port: Callable[[str], None]
    ) -> int:
        """Take the port that the server chose, and tell; 0 if it makes no sense."""
        assert isinstance(forward.listen, TcpEndpoint)
        host, target_port = describe_target(forward.target)
        try:
            port = packet.get_uint32()
        except PacketDecodeError:
            port = 0  # it said yes, and named none
        if not 0 < port <= 65535:
            self._console.error(
                f"Invalid allocated port {port} for remote forward to {host}:{target_port}"
            )
            return 0
        tell_port(f"Allocated port {port} for remote forward to {host}:{target_port}")
        listen = TcpEndpoint(forward.listen.host, port)
        self._asked[_remote_key(listen)] = replace(forward, listen=listen)
        return port

    def _tell_refused(self, forward: Forward, *, is_fatal: bool) -> None:
        listen = forward.listen
        where = f"path {listen.path}" if isinstance(listen, UnixEndpoint) else f"port {listen.port}"
        words = f"remote port forwarding failed for listen {where}"
        if is_fatal:
            if not self._told_fatal:  # ssh is gone by the second one
                self._console.fatal(f"Error: {words}")
            self._told_fatal = True
        else:
            self._console.notice(f"Warning: {words}")

    def lend(self, host: str, port: int, opener: PortOpener) -> bool:
        """Let someone else take what arrives at a port; False where that is ours."""
        key = (host.lower(), port)
        if key in self._asked or (port and key in self._lent):
            return False
        self._lent[key] = opener
        return True

    def reclaim(self, host: str, port: int) -> None:
        """Let nothing in any more that arrives at a port that was lent."""
        self._lent.pop((host.lower(), port), None)

    def open_port(self, host: str, port: int, originator: str) -> OpenedChannel:
        """Somebody connected to a port of the server."""
        lent = self._lent.get((host.lower(), port))
        if lent is not None:
            return lent(host, port, originator)
        channel = ForwardChannel(self._connection)
        unknown = f"listen_port {port}"
        return channel, self._answer(channel, (host.lower(), port), originator, unknown)

    def open_path(self, path: str) -> OpenedChannel:
        """Somebody connected to a unix socket of the server."""
        channel = ForwardChannel(self._connection)
        return channel, self._answer(channel, path, "forwarded-streamlocal", f"path {path[:100]}")

    async def _answer(
        self, channel: ForwardChannel, key: _RemoteKey, originator: str, unknown: str
    ) -> ChannelEnd:
        """Connect a channel that the server opens. Raises ChannelOpenError where it must not."""
        # This runs in a task of its own: after the request whose answer was read before.
        forward = self._asked.get(key)
        if forward is None:
            self._console.error(f"WARNING: Server requests forwarding for unknown {unknown}")
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed"
            )
        if not self._table.make_room():
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
        carried.spawn(_join(carried, opened))

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
        carried.spawn(self._connect_request(carried, request))

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


async def _join(carried: Carried, opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        await carried.splice.join(opened)


def _remote_key(listen: Endpoint) -> _RemoteKey:
    if isinstance(listen, UnixEndpoint):
        return listen.path
    return remote_bind(listen.host).lower(), listen.port
