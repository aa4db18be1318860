"""SSH servers that let everyone in and then misbehave: silent, cut off, or asking for too much."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.channel import SSHServerChannel

from tests.support.asyncserver import AsyncServer, Policy

Hook = Callable[[asyncssh.SSHServerConnection, list[str]], Awaitable[object]]


AGENT_QUESTION = 0x7F
"""No client asks an agent this (draft-miller-ssh-agent §5.1): it can only come from here."""


class _AgentSession(asyncssh.SSHUNIXSession[bytes]):
    def __init__(self) -> None:
        self.answered = asyncio.Event()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.answered.set()


async def open_agent_channel(connection: asyncssh.SSHServerConnection, log: list[str]) -> None:
    """Open a channel to the client's agent, asked for or not, and ask it something."""
    channel = connection.create_agent_channel()
    try:
        session = await channel.open(_AgentSession)
    except asyncssh.ChannelOpenError:
        log.append("agent: refused")
        return
    log.append("agent: opened")
    channel.write(bytes([0, 0, 0, 1, AGENT_QUESTION]))
    assert isinstance(session, _AgentSession)
    await asyncio.wait_for(session.answered.wait(), 10)
    channel.close()


class _CuttingChannel(SSHServerChannel[bytes]):
    """Aborts the connection at one request."""

    def _cut_at(self, name: str) -> bool:
        connection = self.get_connection()
        assert isinstance(connection, _OddConnection)
        if connection.server.cut_at == name:
            connection.abort()
            return True
        return False

    def _process_pty_req_request(self, packet: Any) -> Any:
        return self._cut_at("pty-req") or super()._process_pty_req_request(packet)

    def _process_x11_req_request(self, packet: Any) -> Any:
        return self._cut_at("x11-req") or super()._process_x11_req_request(packet)

    def _process_exec_request(self, packet: Any) -> Any:
        return self._cut_at("exec") or super()._process_exec_request(packet)

    def _process_shell_request(self, packet: Any) -> Any:
        return self._cut_at("shell") or super()._process_shell_request(packet)


class _Forger:
    """A host key whose signatures are of another text."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)

    def sign(self, data: bytes) -> bytes:
        signature: bytes = self._key.sign(data + b"!")
        return signature


class _OddConnection(asyncssh.SSHServerConnection):
    def __init__(self, loop: asyncio.AbstractEventLoop, options: Any, server: OddServer) -> None:
        super().__init__(loop, options)
        self.server = server
        self._is_silent = False

    def get_server_host_key(self) -> Any:
        """Return the host key, or one that looks like it and signs something else."""
        key = super().get_server_host_key()
        return _Forger(key) if self.server.forges_signatures and key else key

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Send nothing any more from the packet on that the server is silent from."""
        self._is_silent = self._is_silent or pkttype == self.server.silent_from
        if self._is_silent:
            return
        for payload in self.server.said_before.get(pkttype, ()):
            super().send_packet(payload[0], payload[1:])
        if pkttype in self.server.said_instead:
            args = (self.server.said_instead[pkttype],)
        super().send_packet(pkttype, *args, handler=handler)
        if pkttype in self.server.raw_after and self._transport is not None:
            self._transport.write(self.server.raw_after[pkttype])

    def _process_tcpip_forward_global_request(self, packet: Any) -> None:
        if self.server.granted_port is None:
            super()._process_tcpip_forward_global_request(packet)
        else:
            self._report_global_response(self.server.granted_port or True)

    def create_server_channel(self, *args: Any, **options: Any) -> SSHServerChannel[bytes]:
        channel = super().create_server_channel(*args, **options)
        channel.__class__ = _CuttingChannel
        return channel


class _Welcome(asyncssh.SSHServer):
    def __init__(self, server: OddServer) -> None:
        self._server = server
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        return self._server.asks_for_password

    def password_auth_supported(self) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return False

    def validate_password(self, username: str, password: str) -> bool:
        return True

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Any:
        return self._carry()

    async def _carry(self) -> Any:
        """As a jump host: never answer, or let it through."""
        server, connection = self._server, self._connection
        assert connection is not None
        if server.stalls_jumps:
            await asyncio.sleep(60)
        if server.on_jump is not None:
            await server.on_jump(connection, server.log)
        return await connection.forward_connection(server.host, server.port)


class OddServer(AsyncServer):
    """A server whose misbehaviour is set by its fields; none until then.

    ``silent_from``: the number of the packet that it does not send, nor any after it.
    ``said_before``: payloads to send before the packets of a number, ``said_instead``: what these
    packets hold instead, ``raw_after``: bytes that follow them outside of any packet.
    ``cut_at``: the channel request at which it drops the connection. ``on_session`` and
    ``on_jump``: what it does before it answers a command or a jump. ``stalls_jumps``: a jump is
    never answered. ``forges_signatures``: its host key signs the wrong thing. ``granted_port``:
    what follows the yes to whoever asks it to listen on a port.
    """

    def __init__(self, host_key: Path, client_key: Path, **algorithms: list[str]) -> None:
        self._algorithms = algorithms
        self.silent_from = 0
        self.said_before: dict[int, list[bytes]] = {}
        self.said_instead: dict[int, bytes] = {}
        self.raw_after: dict[int, bytes] = {}
        self.cut_at = ""
        self.asks_for_password = False
        self.stalls_jumps = False
        self.forges_signatures = False
        self.granted_port: bytes | None = None
        self.on_session: Hook | None = None
        self.on_jump: Hook | None = None
        super().__init__(Policy(), host_key, client_key)

    async def _serve_odd(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if self.on_session is not None:
            connection = process.channel.get_connection()
            assert isinstance(connection, asyncssh.SSHServerConnection)
            await self.on_session(connection, self.log)
        process.exit(0)

    async def _listen(self) -> asyncio.Server:
        options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: _Welcome(self),
            server_host_keys=[str(self._host_key)],
            process_factory=self._serve_odd,
            encoding=None,
            gss_host=None,
            **self._algorithms,
        )

        def accept() -> _OddConnection:
            connection = _OddConnection(self._loop, options, self)
            self._connections.add(connection)
            return connection

        return await self._loop.create_server(accept, self.host, 0)
