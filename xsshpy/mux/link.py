"""The master's end of one connection on the control socket: frames in, frames out, descriptors.

Rules kept here:

* Nothing is read beyond the end of a frame, so that descriptors are never lost with bytes that
  came before them, and proxy mode finds its bytes where it looks.
* A frame that has begun has to end, and descriptors that were announced have to come, within
  :data:`PATIENCE`. What waits to be sent is at most :data:`MOST_WAITING`, and a peer that takes
  nothing is given up. In proxy mode there may wait more, and for as long as the peer is there:
  it is a whole ssh, which its user may have stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from xsshpy.mux.messages import (
    FrameReader,
    MuxProtocolError,
    Reply,
    Request,
    decode_request,
    encode,
)
from xsshpy.mux.sockets import close_descriptors, receive

PATIENCE = 20.0
"""Seconds for the rest of a frame, for its descriptors, and for a peer to take what is sent."""

MOST_WAITING = 1 << 20
"""Bytes that may wait for a peer."""

_READ_SIZE = 64 << 10


class Link:
    """One connection on the control socket, which is closed with it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._waiting = bytearray()
        self._writing: asyncio.Task[None] | None = None
        self._is_broken = False
        self.most_waiting = MOST_WAITING
        self.patience: float | None = PATIENCE

    async def read_request(self) -> Request | None:
        """Return the next request; None where the peer is gone.

        Raises MuxProtocolError for what is none, or does not end in time.
        """
        frame = await self.read_frame()
        return None if frame is None else decode_request(frame)

    async def read_frame(self) -> bytes | None:
        """Return the next frame without its length; None where the peer is gone."""
        if not await self._read_some():
            return None
        try:
            return await asyncio.wait_for(self._read_rest(), self.patience)
        except (TimeoutError, asyncio.TimeoutError):
            raise MuxProtocolError("a message has no end") from None

    async def _read_rest(self) -> bytes | None:
        while (frame := self._reader.next_frame()) is None:
            if not await self._read_some():
                return None
        return frame

    async def _read_some(self) -> bool:
        size = min(self._reader.missing(), _READ_SIZE)
        try:
            data = await self._loop.sock_recv(self.socket, size)
        except OSError:
            return False
        self._reader.receive_data(data)
        return bool(data)

    async def receive_descriptors(self, count: int) -> list[int]:
        """Return the descriptors that follow a request, with one byte each.

        Raises MuxProtocolError where they don't come; none stays open then.
        """
        received: list[int] = []
        try:
            await asyncio.wait_for(self._receive_into(received, count), PATIENCE)
        except BaseException as error:
            close_descriptors(received)
            if isinstance(error, (OSError, TimeoutError, asyncio.TimeoutError)):
                raise MuxProtocolError("did not receive file descriptors") from None
            raise
        return received

    async def _receive_into(self, received: list[int], count: int) -> None:
        while len(received) < count:
            try:
                data, descriptors = receive(self.socket, 1, 1)
            except BlockingIOError:
                await self._wait_readable()
                continue
            received += descriptors
            if not data or not descriptors:
                raise OSError("no descriptor came")

    async def _wait_readable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_reader(self.socket, tell)
        try:
            await ready
        finally:
            self._loop.remove_reader(self.socket)

    def post(self, message: Reply) -> None:
        """Send a message; returns at once."""
        self.post_bytes(encode(message))

    def post_bytes(self, data: bytes) -> None:
        """Send bytes, in proxy mode; returns at once."""
        if self._is_broken:
            return
        self._waiting += data
        if len(self._waiting) > self.most_waiting:
            self.break_off()
        elif self._writing is None:
            self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting and not self._is_broken:
                data, self._waiting = bytes(self._waiting), bytearray()
                await asyncio.wait_for(self._loop.sock_sendall(self.socket, data), self.patience)
        except (OSError, asyncio.TimeoutError):
            self.break_off()
        finally:
            self._writing = None

    def break_off(self) -> None:
        """Let the peer see the end; whoever reads here sees it too."""
        self._is_broken = True
        self._waiting.clear()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    async def flush(self) -> None:
        """Wait until the peer has taken what waits, or will not."""
        writing = self._writing
        if writing is not None:
            await asyncio.wait({writing}, timeout=PATIENCE)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def finish(self) -> None:
        """Send what waits, then let the peer see the end."""
        await self.flush()
        self.break_off()

    async def close(self) -> None:
        """Send what waits, as long as the peer takes it, and close."""
        await self.flush()
        self._is_broken = True
        self.socket.close()
