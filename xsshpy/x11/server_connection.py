"""One connection to the local X server: open ahead in the pool, or a client's own.

Rules kept here: a slow X server stops its client, never the others; what a client sent before the
connection was there waits in order; a connection that ends is given a moment for its last bytes.

Follows the X Window System Protocol, version 11, §8 (connection setup).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Protocol

from xsshpy.remote.frames import LinkError
from xsshpy.remote.images import ImageDecoder
from xsshpy.remote.link import CLIENT_CEILING, Buffer, image_budget
from xsshpy.remote.xmessages import (
    NO_AUTHORIZATION,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Authorization,
    ByteOrder,
    SetupRequest,
    build_setup_request,
)

UNCONFIRMED = 2 * CLIENT_CEILING
"""Most that may wait for the X server of one client (bytes). An agent of ours sends half of that
before it waits for a credit."""

BUFFER = 1 << 20
"""How much may wait for the X server before its client is told to pause (bytes)."""

CONNECT_TIMEOUT = 30.0
"""How long the X server may take to let a connection in, and to answer its setup (seconds)."""
EVENT_SIZE = 32
LINGER = 5.0
"""How long the X server may take for the last bytes of a client that is gone (seconds)."""


class ConnectionOwner(Protocol):
    """Whose connections they are."""

    @property
    def real(self) -> Authorization | None:
        """What the X server wants to see."""

    async def open_server(self) -> socket.socket:
        """Connect to the X server. Raises OSError and XsshError."""

    def take_on(self, size: int) -> None:
        """So much more waits for the X server. Raises LinkError where it is too much."""

    def release(self, size: int) -> None:
        """So much less waits for the X server."""

    def consumed(self, client: int, size: int) -> None:
        """The X server took so much of a client's."""

    def pass_on(self, connection: ServerConnection, data: bytes) -> None:
        """Take what the X server said."""

    def lose(self, connection: ServerConnection) -> None:
        """Take note that the connection is gone."""

    def flush(self) -> None:
        """Write what may be written now."""


class ServerConnection(asyncio.Protocol):
    """One connection to the local X server, in the pool or a client's own."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._answer = bytearray()
        self._greeted: asyncio.Future[bytes] | None = None
        self._images: ImageDecoder | None = None
        self._early: list[bytes] = []
        self._ended = False
        self._flows = True
        self._write_full = False
        self._uncredited = 0
        self._closed = asyncio.Event()
        self._closing = False
        self._linger: asyncio.TimerHandle | None = None
        self.client: int | None = None
        self.slot: int | None = None
        self.session = 0
        self.close_sent = False

    @property
    def is_closed(self) -> bool:
        """Whether the connection is gone, or going."""
        return self._closing

    async def open(self) -> None:
        """Connect."""
        timeout = CONNECT_TIMEOUT
        opened = await asyncio.wait_for(self._owner.open_server(), timeout)
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self, sock=opened)
        except BaseException:
            opened.close()
            raise

    async def shake_hands(self) -> bytes:
        """Set up a connection that has no client yet; return the server's answer, a yes."""
        self._greeted = asyncio.get_running_loop().create_future()
        self._write_setup(ByteOrder.LITTLE)
        try:
            return await asyncio.wait_for(self._greeted, CONNECT_TIMEOUT)
        finally:
            self._greeted = None

    def begin(self, order: ByteOrder) -> None:
        """Set up a connection for its client, and send what that said meanwhile."""
        self._write_setup(order)
        assert self._transport is not None
        early, self._early = self._early, []
        for data in early:
            self._transport.write(data)
        self._credit()
        if self._ended:
            self.send_eof()

    def _write_setup(self, order: ByteOrder) -> None:
        assert self._transport is not None
        real = self._owner.real or NO_AUTHORIZATION
        setup = SetupRequest(order, PROTOCOL_MAJOR, PROTOCOL_MINOR, real)
        self._transport.write(build_setup_request(setup))

    def attach(self, client: int, session: int) -> None:
        """Belong to a client from now on, and to the session whose it is."""
        self.client = client
        self.session = session
        self.slot = None

    def detach(self) -> None:
        """Belong to nobody: the client's number may soon be another's."""
        self.client = None
        self.close_sent = True

    def decode_image(self, payload: Buffer) -> bytes:
        """Return the request that an IMAGE frame stands for. Raises LinkError."""
        assert self.client is not None
        if self._images is None:
            self._images = ImageDecoder(image_budget(self.client))
        return self._images.decode(payload)

    def send(self, data: bytes) -> None:
        """Send a client's bytes to the X server. Raises LinkError where far too much waits."""
        if self._closing or self._ended:
            return
        self._uncredited += len(data)
        self._owner.take_on(len(data))
        if self._uncredited > UNCONFIRMED:
            raise LinkError("more is sent than was confirmed")
        if self._transport is None:
            self._early.append(data)
            return
        self._transport.write(data)
        self._credit()

    def _credit(self) -> None:
        if self._uncredited and not self._write_full:
            if self.client is not None:
                self._owner.consumed(self.client, self._uncredited)
            self._settle()

    def _settle(self) -> None:
        self._owner.release(self._uncredited)
        self._uncredited = 0

    def send_eof(self) -> None:
        """The client sends nothing more."""
        self._ended = True
        if self._transport is not None and not self._closing:
            self._transport.write_eof()

    def let_flow(self, flows: bool) -> None:
        """Take bytes from the X server, or leave them there."""
        if flows is self._flows or self._transport is None or self._closing:
            return
        self._flows = flows
        if flows:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def close(self) -> None:
        """Close; what the X server has not yet taken is sent within ``LINGER``."""
        if self._closing:
            return
        self._closing = True
        if self._transport is None:
            self._early.clear()
            self._settle()
            self._closed.set()
            return
        self._transport.close()
        loop = asyncio.get_running_loop()
        self._linger = loop.call_later(LINGER, self._transport.abort)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await self._closed.wait()

    # -- what the transport calls --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(BUFFER)
        if self._closing:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what the X server said."""
        if self._greeted is not None:
            self._answer += data
            self._read_answer(self._greeted)
        else:
            self._owner.pass_on(self, data)

    def _read_answer(self, greeted: asyncio.Future[bytes]) -> None:
        answer = bytes(self._answer)
        if len(answer) < 8 or greeted.done():
            return
        size = 8 + 4 * struct.unpack_from("<H", answer, 6)[0]
        if answer[0] != 1:
            greeted.set_exception(ConnectionRefusedError("the X server refuses"))
        elif len(answer) >= size and (len(answer) - size) % EVENT_SIZE == 0:
            # Behind it may be events for every client, as of a new key map: nobody's yet.
            greeted.set_result(answer[:size])

    def eof_received(self) -> bool:
        """The X server says nothing more: it closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_exception(ConnectionResetError("the X server closed the connection"))
        self._closing = True
        if self._linger is not None:
            self._linger.cancel()
        self._closed.set()
        self._settle()
        self._owner.lose(self)

    def pause_writing(self) -> None:
        """The X server takes no more for now."""
        self._write_full = True

    def resume_writing(self) -> None:
        """It does again."""
        self._write_full = False
        self._credit()
        self._owner.flush()
