"""Channels that another process speaks on: SSH's connection protocol, passed through.

A proxy client (PROTOCOL.mux §9) sends and gets packets of channels as if it had the connection for
itself. Its channel numbers are its own; on the way to the server they become ours, and back.

Rules kept here:

- It reaches its own channels only: what names another one is dropped.
- Of the requests that are not about a channel it can make those for ports to listen on; others are
  refused. X11 and agent channels of the server's cannot be told apart, and are not its own.
- When it is gone its channels are closed and its ports given back.

Follows RFC 4254 §4 and §5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import asyncssh
from asyncssh.channel import SSHChannel, SSHTCPChannel
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
)
from asyncssh.logging import SSHLogger
from asyncssh.packet import Byte, PacketDecodeError, SSHPacket, SSHPacketHandler, String, UInt32

if TYPE_CHECKING:
    from xsshpy.ssh.connection import ClientConnection, OpenedChannel
    from xsshpy.ssh.forward import Forwarder

MOST_CHANNELS = 1000
"""Most channels of one proxy client."""

_MOST_REQUESTS = 100
_LARGEST_PACKET = 256 << 10
_LISTEN = b"tcpip-forward"
_CANCEL = b"cancel-tcpip-forward"


class ProxyError(Exception):
    """The proxy client does not speak the protocol."""


class ProxiedChannel(SSHPacketHandler):
    """Stands in the connection's table for one channel of a proxy client."""

    _recv_state = "proxied"  # whoever looks for channels of his own sees that this is none

    def __init__(self, proxy: ChannelProxy, theirs: int) -> None:
        self._proxy: ChannelProxy | None = proxy
        self._connection = proxy.connection
        self.theirs = theirs
        self.ours = -1
        self.remote = -1
        self.close_sent = False
        self._close_received = False

    @property
    def logger(self) -> SSHLogger:
        """The connection's."""
        return self._connection.logger

    def register(self) -> int:
        """Take a number of the connection's; raises asyncssh.ChannelOpenError at its end."""
        self.ours = self._connection.add_channel(cast("SSHChannel[bytes]", self))
        return self.ours

    def process_open_confirmation(
        self, send_chan: int, send_window: int, send_pktsize: int, packet: SSHPacket
    ) -> None:
        """The server opened the channel."""
        self.remote = send_chan
        if self._proxy is None:
            self.send_close()
            return
        self._proxy.note_remote(self)
        numbers = UInt32(self.theirs) + UInt32(send_chan) + UInt32(send_window)
        rest = packet.get_remaining_payload()
        self._proxy.pass_down(MSG_CHANNEL_OPEN_CONFIRMATION, numbers + UInt32(send_pktsize) + rest)

    def process_open_failure(self, code: int, reason: str, lang: str) -> None:
        """The server did not open it."""
        proxy = self._proxy
        self._remove()
        if proxy is not None:
            words = UInt32(code) + String(reason) + String(lang)
            proxy.pass_down(MSG_CHANNEL_OPEN_FAILURE, UInt32(self.theirs) + words)

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:
        """Pass on what the server sends."""
        rest = packet.get_remaining_payload()
        if self._proxy is not None:
            self._proxy.pass_down(pkttype, UInt32(self.theirs) + rest)
        if pkttype == MSG_CHANNEL_CLOSE:
            self._close_received = True
            if self._proxy is None:
                self.send_close()
            self._remove_if_closed()
        return True

    def process_connection_close(self, exc: Exception | None) -> None:
        """The connection is over."""
        proxy = self._proxy
        self._remove()
        if proxy is not None:
            proxy.lose()

    def close(self) -> None:
        """The connection is about to be closed, which says enough."""

    def send_close(self) -> None:
        """Close our direction, once."""
        if not self.close_sent and self.remote >= 0:
            self.close_sent = True
            self._connection.send_packet(MSG_CHANNEL_CLOSE, UInt32(self.remote))
        self._remove_if_closed()

    def note_close_sent(self) -> None:
        """The client closed its direction."""
        self.close_sent = True
        self._remove_if_closed()

    def forsake(self) -> None:
        """The client is gone: close, as soon as there is something to be closed."""
        self._proxy = None
        self.send_close()

    def _remove_if_closed(self) -> None:
        if self.close_sent and self._close_received:
            self._remove()

    def _remove(self) -> None:
        if self.ours >= 0:
            self._connection.remove_channel(self.ours)
            self.ours = -1
        if self._proxy is not None:
            self._proxy.forget(self)
            self._proxy = None


class _ArrivingChannel(ProxiedChannel):
    """A channel that the server opens for a port that a proxy client listens on."""

    def __init__(self, proxy: ChannelProxy, host: str, port: int, originator: str) -> None:
        super().__init__(proxy, -1)
        self._place = String(host) + UInt32(port) + String(originator) + UInt32(0)

    def process_open(
        self, send_chan: int, send_window: int, send_pktsize: int, session: object
    ) -> None:
        """Ask the client."""
        self.remote = send_chan
        if self._proxy is not None:
            self._proxy.await_answer(self)
            numbers = UInt32(send_chan) + UInt32(send_window) + UInt32(send_pktsize)
            kind = String(b"forwarded-tcpip")
            self._proxy.pass_down(MSG_CHANNEL_OPEN, kind + numbers + self._place)


class ChannelProxy:
    """One proxy client. ``send`` takes packets for it; ``ended`` is called with the connection."""

    def __init__(
        self,
        connection: ClientConnection,
        forwarder: Forwarder,
        send: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> None:
        self.connection = connection
        self._forwarder = forwarder
        self._send = send
        self._ended = ended
        self._channels: set[ProxiedChannel] = set()
        self._by_remote: dict[int, ProxiedChannel] = {}
        self._unanswered: dict[int, ProxiedChannel] = {}
        self._ports: set[tuple[str, int]] = set()
        self._requests: asyncio.Queue[tuple[bytes, bool, bytes]] = asyncio.Queue(_MOST_REQUESTS)
        self._requesting = asyncio.create_task(self._make_requests())

    # -- from the client --

    def receive(self, packet: bytes) -> None:
        """Take a packet: padding length, type, payload. Raises ProxyError."""
        if len(packet) < 2:
            raise ProxyError("short message")
        kind, payload = packet[1], SSHPacket(packet[2:])
        try:
            self._take(kind, payload, packet[2:])
        except PacketDecodeError:
            raise ProxyError(f"malformed packet of type {kind}") from None
        except asyncssh.ChannelOpenError:
            raise ProxyError("the connection is over") from None

    def _take(self, kind: int, packet: SSHPacket, payload: bytes) -> None:
        if kind == MSG_GLOBAL_REQUEST:
            name, wants_reply = packet.get_string(), packet.get_boolean()
            try:
                self._requests.put_nowait((name, wants_reply, packet.get_remaining_payload()))
            except asyncio.QueueFull:
                raise ProxyError("too many requests") from None
        elif kind == MSG_CHANNEL_OPEN:
            self._open(packet)
        elif kind in (MSG_CHANNEL_OPEN_CONFIRMATION, MSG_CHANNEL_OPEN_FAILURE):
            self._answer(kind, packet, payload)
        elif MSG_CHANNEL_WINDOW_ADJUST <= kind <= MSG_CHANNEL_FAILURE:
            channel = self._by_remote.get(packet.get_uint32())
            if channel is None or channel.close_sent:
                return
            self.connection.send_packet(kind, payload)
            if kind == MSG_CHANNEL_CLOSE:
                channel.note_close_sent()
        elif kind not in (MSG_REQUEST_SUCCESS, MSG_REQUEST_FAILURE):
            raise ProxyError(f"unexpected packet of type {kind}")

    def _open(self, packet: SSHPacket) -> None:
        if len(self._channels) >= MOST_CHANNELS:
            raise ProxyError("too many channels")
        kind, theirs = packet.get_string(), packet.get_uint32()
        rest = packet.get_remaining_payload()
        self._allow_packets(SSHPacket(rest))
        channel = ProxiedChannel(self, theirs)
        self._channels.add(channel)
        self.connection.send_packet(
            MSG_CHANNEL_OPEN, String(kind), UInt32(channel.register()), rest
        )

    def _allow_packets(self, packet: SSHPacket) -> None:
        """Let the server send packets as large as the client takes them."""
        packet.get_uint32()
        self.connection._update_recv_pktlen(min(packet.get_uint32(), _LARGEST_PACKET))

    def _answer(self, kind: int, packet: SSHPacket, payload: bytes) -> None:
        """Take the answer to a channel that the server opens."""
        channel = self._unanswered.pop(packet.get_uint32(), None)
        if channel is None:
            return
        if kind == MSG_CHANNEL_OPEN_FAILURE:
            self._channels.discard(channel)
            self.connection.send_packet(kind, payload)
            return
        channel.theirs = packet.get_uint32()
        rest = packet.get_remaining_payload()
        self._allow_packets(SSHPacket(rest))
        self.note_remote(channel)
        ours = channel.register()
        self.connection.send_packet(kind, UInt32(channel.remote), UInt32(ours), rest)

    async def _make_requests(self) -> None:
        """Make requests one after the other, so that their answers come in order."""
        while True:
            name, wants_reply, arguments = await self._requests.get()
            kind, rest = await self._request(name, arguments)
            if wants_reply:
                self.pass_down(kind, rest)

    async def _request(self, name: bytes, arguments: bytes) -> tuple[int, bytes]:
        try:
            packet = SSHPacket(arguments)
            host, port = packet.get_string().decode("utf-8", "replace"), packet.get_uint32()
        except PacketDecodeError:
            return MSG_REQUEST_FAILURE, b""
        if name == _CANCEL and (host, port) in self._ports:
            self._release(host, port)
            return MSG_REQUEST_SUCCESS, b""
        if name != _LISTEN or not self._forwarder.lend_port(host, port, self._accept):
            return MSG_REQUEST_FAILURE, b""
        try:
            kind, answer = await self.connection._make_global_request(name, arguments)
        except asyncio.CancelledError:  # the client is gone, and the server may say yes yet
            self._release(host, port)
            raise
        rest = answer.get_remaining_payload()
        if port == 0 or kind != MSG_REQUEST_SUCCESS:
            self._forwarder.reclaim_port(host, port)
        if kind == MSG_REQUEST_SUCCESS:
            try:
                chosen = port or SSHPacket(rest).get_uint32()
            except PacketDecodeError:  # it said yes, and named none
                return MSG_REQUEST_FAILURE, b""
            if port or self._forwarder.lend_port(host, chosen, self._accept):
                self._ports.add((host, chosen))
        return kind, rest

    def _release(self, host: str, port: int) -> None:
        self._ports.discard((host, port))
        self._forwarder.reclaim_port(host, port)
        if not self.connection.is_closed():
            self.connection._send_global_request(_CANCEL, String(host), UInt32(port))

    # -- from the server --

    def _accept(self, host: str, port: int, originator: str) -> OpenedChannel:
        channel = _ArrivingChannel(self, host, port, originator)
        self._channels.add(channel)
        nobody: asyncio.Future[asyncssh.SSHTCPSession[bytes]] = asyncio.Future()
        return cast("SSHTCPChannel[bytes]", channel), nobody

    def await_answer(self, channel: ProxiedChannel) -> None:
        """The client is asked about a channel of the server's."""
        self._unanswered[channel.remote] = channel

    def note_remote(self, channel: ProxiedChannel) -> None:
        """The channel has a number at the server."""
        self._by_remote[channel.remote] = channel

    def forget(self, channel: ProxiedChannel) -> None:
        """The channel is closed."""
        self._channels.discard(channel)
        self._by_remote.pop(channel.remote, None)

    def pass_down(self, kind: int, payload: bytes) -> None:
        """Send a packet to the client; one without a payload gets one, for ssh takes none."""
        if not payload:
            payload = UInt32(0)
        self._send(String(Byte(0) + Byte(kind) + payload))

    def lose(self) -> None:
        """The connection is over."""
        self._ended()

    # -- the end --

    def close(self) -> None:
        """The client is gone: close its channels, and give its ports back."""
        self._requesting.cancel()
        if self.connection.is_closed():
            return
        for host, port in [*self._ports]:
            self._release(host, port)
        for remote in self._unanswered:
            self.connection.send_channel_open_failure(
                remote, asyncssh.OPEN_CONNECT_FAILED, "the client is gone", ""
            )
        self._unanswered.clear()
        for channel in [*self._channels]:
            if channel.ours >= 0:
                channel.forsake()
        self._channels.clear()
        self._by_remote.clear()
