"""A local socket and an SSH channel, joined: what comes in at one end goes out at the other.

Rules kept here:

- Each end has a half-close of its own: the end of one direction is passed on after the last of its
  data, and the other direction stays open, for as long as it likes.
- A slow end stops the other one. What waits is bounded: in the socket's buffer by :data:`BUFFER`,
  in the channel's by the window that the other side gave, on the way here by ours.
- An end that is gone takes the other one with it, once what it sent before has been delivered.

Follows RFC 4254 §5.2, §5.3 and §7.2.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

import asyncssh
from asyncssh.channel import SSHForwardChannel, SSHTCPChannel
from asyncssh.misc import MaybeAwait
from asyncssh.packet import String, UInt32

from xsshpy.ssh.bulk import BulkChannel
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.forward_spec import Endpoint, UnixEndpoint
from xsshpy.ssh.session import PACKET_SIZE
from xsshpy.ssh.window import FIRST_WINDOW

BUFFER = 256 << 10
"""Bytes that may wait for a local socket before the channel is told to pause."""


class ForwardChannel(BulkChannel, SSHTCPChannel[bytes]):
    """A channel for one forwarded connection, of any of the kinds that there are."""

    def __init__(self, connection: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(connection, loop, None, "strict", FIRST_WINDOW, PACKET_SIZE)

    async def open(
        self, kind: bytes, arguments: tuple[bytes, ...], session: asyncssh.SSHTCPSession[bytes]
    ) -> None:
        """Ask the server to connect. Raises asyncssh.ChannelOpenError where it can't, or won't.

        Not to be wrapped in a task of its own: a channel that is closed the moment it was opened
        would be gone before its session is there.
        """
        await self._open_forward(lambda: session, kind, *arguments)

    async def _finish_open_request(
        self,
        result: MaybeAwait[asyncssh.SSHTCPSession[bytes]],  # type: ignore[override]
    ) -> None:
        # Unlike asyncssh's own, nothing is read before the session wants it.
        await super(SSHForwardChannel, self)._finish_open_request(result)

    @property
    def is_gone(self) -> bool:
        """Whether the channel is closed for good, or its connection."""
        return self._conn is None

    @property
    def remote_number(self) -> int | None:
        """The number that the other side gave to this channel."""
        return self._send_chan

    @property
    def unsent(self) -> int:
        """Bytes that wait for the other side's window."""
        return self.get_write_buffer_size()


def channel_kind(target: Endpoint) -> str:
    """Return the type of a channel that leads to ``target`` (RFC 4254 §7.2, PROTOCOL §2.4)."""
    is_path = isinstance(target, UnixEndpoint)
    return "direct-streamlocal@openssh.com" if is_path else "direct-tcpip"


def channel_request(target: Endpoint, origin: tuple[str, int]) -> tuple[bytes, tuple[bytes, ...]]:
    """Return type and arguments of such a channel; ``origin`` is who wants it."""
    if isinstance(target, UnixEndpoint):
        place: tuple[bytes, ...] = (String(os.fsencode(target.path)),)
    else:
        host = (target.host or "").encode("utf-8", "surrogateescape")
        place = (String(host), UInt32(target.port))
    return channel_kind(target).encode(), (*place, String(origin[0]), UInt32(origin[1]))


class ChannelEnd(asyncssh.SSHTCPSession[bytes]):
    """What asyncssh calls, for the channel of a splice."""

    def __init__(self, splice: Splice) -> None:
        self._splice = splice

    def connection_made(self, chan: SSHTCPChannel[bytes]) -> None:
        """Take the channel."""
        assert isinstance(chan, ForwardChannel)
        self._splice.channel_opened(chan)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take data from the other side."""
        self._splice.channel_data(data)

    def eof_received(self) -> bool:
        """Take the end of it."""
        self._splice.channel_ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed, or the whole connection with it."""
        self._splice.channel_lost()

    def pause_writing(self) -> None:
        """The channel's window is full."""
        self._splice.hold_socket("window", True)

    def resume_writing(self) -> None:
        """There is room again."""
        self._splice.hold_socket("window", False)


class _SocketEnd(asyncio.Protocol):
    """What the event loop calls, for the socket of a splice."""

    def __init__(self, splice: Splice) -> None:
        self._splice = splice

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._splice.socket_opened(transport)

    def data_received(self, data: bytes) -> None:
        self._splice.socket_data(data)

    def eof_received(self) -> bool:
        return self._splice.socket_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._splice.socket_lost()

    def pause_writing(self) -> None:
        self._splice.socket_full(True)

    def resume_writing(self) -> None:
        self._splice.socket_full(False)


class Splice:
    """One forwarded connection. The channel comes first, the socket when it is ready.

    ``opened`` is called when the channel is there, ``gone`` once, when both ends are closed. With
    a ``reader`` what comes through the channel goes there first, until :meth:`stop_reader`.
    """

    def __init__(
        self,
        gone: Callable[[], None],
        *,
        opened: Callable[[], None] = lambda: None,
        reader: Callable[[bytes], None] | None = None,
    ) -> None:
        self.channel: ForwardChannel | None = None
        self.transport: asyncio.Transport | None = None
        self.channel_eof = False
        self.socket_eof = False
        self._gone = gone
        self._opened = opened
        self._reader = reader
        self._early: list[bytes] = []
        self._holds: set[str] = set()
        self._awaits_socket = True
        self._channel_was_lost = False

    # -- the channel --

    def channel_opened(self, channel: ForwardChannel) -> None:
        """Take the channel; nothing is read from it until there is someone to take it."""
        self.channel = channel
        if self._reader is None:
            channel.pause_reading()
        else:
            channel.resume_reading()
        self._opened()

    def stop_reader(self, rest: bytes) -> None:
        """Let the socket have what comes from now on, ``rest`` first."""
        self._reader = None
        if rest:
            self._early.append(rest)
        if self.channel is not None:
            self.channel.pause_reading()

    def channel_data(self, data: bytes) -> None:
        """Pass data on; what comes before there is a socket is kept, at most one window."""
        if self.transport is not None:
            self.transport.write(data)
        elif self._reader is not None:
            self._reader(data)
        elif self._awaits_socket:
            self._early.append(data)

    def channel_ended(self) -> None:
        """Pass the end on, after the data."""
        self.channel_eof = True
        if self._reader is not None:
            self.give_up()
        elif self.transport is not None:
            self._end_socket()

    def channel_lost(self) -> None:
        """Close the socket, once it took what came before."""
        self.channel = None
        self._channel_was_lost = True
        if self.transport is not None:
            self.transport.close()
        elif self._reader is not None:
            self.give_up()
        elif not self._awaits_socket:
            self._gone()

    # -- the socket --

    async def join(self, opened: socket.socket) -> None:
        """Join the socket to the channel. The socket belongs to the splice from now on."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _SocketEnd(self), sock=opened)
        except BaseException:
            opened.close()
            self.give_up()
            raise

    def give_up(self) -> None:
        """There will be no socket: close the channel at once."""
        if not self._awaits_socket:
            return
        self._awaits_socket = False
        self._reader = None
        self._early.clear()
        if self.channel is not None:
            self.channel.abort()
        else:
            self._gone()

    def socket_opened(self, transport: asyncio.Transport) -> None:
        """Begin to carry."""
        self._awaits_socket = False
        self.transport = transport
        transport.set_write_buffer_limits(BUFFER)
        early, self._early = self._early, []
        transport.writelines(early)
        if self.channel_eof:
            self._end_socket()
        if self._channel_was_lost:
            transport.close()
        self._hold_or_read()
        if self.channel is not None:
            self.channel.resume_reading()

    def socket_data(self, data: bytes) -> None:
        """Pass data on."""
        if self.channel is not None and not self.channel.is_closing():
            self.channel.write(data)

    def socket_ended(self) -> bool:
        """Pass the end on. Return whether the other direction stays open."""
        self.socket_eof = True
        if self.channel is not None and not self.channel.is_closing():
            self.channel.write_eof()
        if self.channel_eof:
            self._close()
        return not self.channel_eof

    def socket_lost(self) -> None:
        """Close the channel, once what came before has been sent."""
        self.transport = None
        if self.channel is not None:
            self.channel.close()
        else:
            self._gone()
        self._awaits_socket = False

    def socket_full(self, full: bool) -> None:
        """Stop the channel while the socket takes no more."""
        if self.channel is None:
            return
        if full:
            self.channel.pause_reading()
        else:
            self.channel.resume_reading()

    def hold_socket(self, reason: str, held: bool) -> None:
        """Read nothing from the socket while there is any reason not to."""
        if held:
            self._holds.add(reason)
        else:
            self._holds.discard(reason)
        self._hold_or_read()

    # -- both --

    @property
    def wants_data(self) -> bool:
        """Whether data from the socket would be read now."""
        return not self.socket_eof and not self._holds

    def abort(self) -> None:
        """Close both ends at once; what has not been delivered is lost."""
        self._early.clear()
        if self.transport is not None:
            self.transport.abort()
        if self.channel is not None:
            self.channel.abort()

    def _hold_or_read(self) -> None:
        if self.transport is None or self.socket_eof:
            return
        if self._holds:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _end_socket(self) -> None:
        assert self.transport is not None
        if self.socket_eof:
            self._close()
        elif not self.transport.is_closing():
            self.transport.write_eof()

    def _close(self) -> None:
        if self.channel is not None:
            self.channel.close()
        if self.transport is not None:
            self.transport.close()
