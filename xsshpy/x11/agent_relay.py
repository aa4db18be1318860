"""The near end of the agent's link: clients of the other host, and their share of the X server.

What arrives over the link goes to the X server as it is, and the server's words go back; what may
be answered early is the agent's business. Connections are opened ahead of time, so that a client
gets its setup at once.

Rules kept here:

* The other host is not trusted: it gets connections with the rights that forwarded clients have,
  and nothing else. The real cookie never goes there.
* Whatever a client or the X server does ends that client; only a broken link ends them all.
* Every buffer has a limit: a slow X server stops its client, a slow link stops the X server.

Follows the X Window System Protocol, version 11, §8 (connection setup).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from xsshpy.remote.frames import TO_LOCAL, Frame, FrameKind, LinkError
from xsshpy.remote.images import ImageDecoder
from xsshpy.remote.link import CLIENT_CEILING, Buffer, Link, image_budget
from xsshpy.remote.payloads import (
    Opening,
    build_close,
    build_pool,
    parse_open,
    parse_stats,
    parse_text,
)
from xsshpy.remote.records import Record, Told, build_records, parse_records
from xsshpy.remote.xmessages import (
    NO_AUTHORIZATION,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Authorization,
    ByteOrder,
    ProtocolError,
    SetupRequest,
    build_setup_request,
)
from xsshpy.remote.xrequests import FactClass
from xsshpy.values import dataclass, field
from xsshpy.x11.news import WaitingNews
from xsshpy.x11.rejections import (
    TIMEOUT_EXPIRED,
    TOO_MANY_CLIENTS,
    UNREACHABLE,
    WRONG_AUTHENTICATION,
    Rejection,
    describe_failure,
)

POOL_SIZE = 4
"""Connections to the X server that are open ahead of clients."""

CLIENT_LIMIT = 512
REFUSED_LIMIT = 64
"""How many more may be there while they are told why they are refused."""

UNCONFIRMED = 2 * CLIENT_CEILING
UNCONFIRMED_IN_ALL = 1 << 30
"""Most that may wait for the X server of one client, and of all (bytes). An agent of ours sends
half of that before it waits for a credit."""

BUFFER = 1 << 20
"""How much may wait for the X server before its client is told to pause (bytes)."""

CONNECT_TIMEOUT = 30.0
SETUP_LIMIT = 8 + 4 * 0xFFFF
MOMENT = 5.0
"""How far apart the X server's ends of several connections may be seen (seconds)."""

LINGER = 5.0
"""How long the X server may take for the last bytes of a client that is gone (seconds)."""

RECORD_BATCH = 1 << 16
NOTICES = {
    rejection.reason.decode("ascii").strip(): rejection.notice
    for rejection in (WRONG_AUTHENTICATION, TIMEOUT_EXPIRED, TOO_MANY_CLIENTS)
}
"""What the agent tells its clients, and the user is told here."""


class LinkChannel(Protocol):
    """What carries the link: an SSH channel, or another stream that behaves like one."""

    def write(self, data: bytes) -> None:
        """Send bytes; never blocks, and may raise OSError once the channel is closed."""

    def close(self) -> None:
        """Close, once everything was sent."""


@dataclass(frozen=True)
class AgentOptions:
    """How the agent's clients are served.

    ``open_server`` connects to the local X server; it may raise OSError or XsshError. ``real`` is
    what the X server wants to see. ``expired`` says whether new clients come too late. ``report``
    takes a line for the user, ``debug`` one for whoever asked for details, ``learned`` what clients
    asked that was not known beforehand, ``counted`` the counters of a client that is gone;
    ``opened`` is called for each client that comes.
    """

    open_server: Callable[[], Awaitable[socket.socket]]
    real: Authorization | None = field(repr=False)
    report: Callable[[str], None]
    debug: Callable[[str], None]
    expired: Callable[[], bool] = lambda: False
    learned: Callable[[list[Record]], None] = lambda records: None
    opened: Callable[[], None] = lambda: None
    counted: Callable[[int, dict[str, int]], None] = lambda client, counters: None


class AgentRelay:
    """All X clients of one agent. Feed it what the channel brings; call ``aclose`` at the end."""

    def __init__(self, options: AgentOptions, channel: LinkChannel) -> None:
        self._options = options
        self._channel = channel
        self._link = Link(time.monotonic, time.process_time, TO_LOCAL)
        self._clients: dict[int, _ServerConnection] = {}
        self._pool: dict[int, _ServerConnection] = {}
        self._next_slot = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._full = False
        self._closed = False
        self._unconfirmed = 0
        self._news = WaitingNews()
        self._cut_off: float | None = None
        self._left = asyncio.Event()

    @property
    def open_clients(self) -> int:
        """How many clients are here."""
        return len(self._clients)

    @property
    def has_lost_clients(self) -> bool:
        """Whether an X server that is found gone now took clients along."""
        lately = self._cut_off is not None and time.monotonic() - self._cut_off < MOMENT
        return lately or bool(self._clients)

    @property
    def bytes_on_wire(self) -> tuple[int, int]:
        """What the link took so far, to the other host and from there (bytes)."""
        return self._link.writer.wire_bytes, self._link.reader.wire_bytes

    # -- what the owner calls --

    def start(self) -> None:
        """Begin to open connections ahead of clients; again, for another X server."""
        for _ in range(POOL_SIZE):
            self._spawn(self._open_ahead())

    def tell(self, records: list[Record], *, news: bool = False) -> None:
        """Send facts to the agent; ``news`` where they replace what it knew."""
        if news:
            self._news.add(records)
        else:
            self._queue_news()
            self._queue_records(FrameKind.PRIME, records)
        self._flush()

    def _queue_records(self, kind: FrameKind, records: list[Record]) -> None:
        batch: list[Record] = []
        size = 0
        for record in records:
            batch.append(record)
            size += len(record.key) + len(record.value)
            if size > RECORD_BATCH:
                self._link.queue_control(Frame(kind, 0, build_records(batch)))
                batch, size = [], 0
        self._link.queue_control(Frame(kind, 0, build_records(batch)))

    def forget(self, kind: FactClass) -> None:
        """Tell the agent that all facts of a class are stale."""
        self._news.forget(kind)
        self._flush()

    def _queue_news(self) -> None:
        """Queue what is new; while the channel is full, later news replace earlier ones."""
        stale, records = self._news.take()
        if stale:
            payload = bytes(kind.value for kind in stale)
            self._link.queue_control(Frame(FrameKind.FORGET, 0, payload))
        if records:
            self._queue_records(FrameKind.PROPERTY, records)

    def lose_server(self) -> None:
        """Tell the agent that the X server is no more, and all that was known of it."""
        self._news.clear()
        self.tell([Record(Told.SETUP, 0, b"", b"")])

    def stop(self) -> None:
        """Ask the agent for the counters of all clients that are here, and to end."""
        self._link.queue_control(Frame(FrameKind.STOP))
        self._flush()

    def expire(self) -> None:
        """Let no more clients in."""
        self._link.queue_control(Frame(FrameKind.EXPIRED))
        self._flush()

    async def wait_until_idle(self) -> None:
        """Wait until the last client is gone."""
        while self._clients and not self._closed:
            self._left.clear()
            await self._left.wait()

    async def aclose(self) -> None:
        """Close all connections to the X server, and wait until they are gone."""
        self._closed = True
        self._left.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        connections = [*self._clients.values(), *self._pool.values()]
        self._clients.clear()
        self._pool.clear()
        for connection in connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection in connections))

    # -- what the channel calls --

    def data_received(self, data: bytes) -> None:
        """Take bytes from the other host. A broken link closes the channel."""
        if self._closed:
            return
        try:
            for frame in self._link.receive_data(data):
                self._take_frame(frame)
            self._flush()
        except (LinkError, ProtocolError) as error:
            self._options.report(f"xssh: X11: the agent broke the protocol: {error}")
            self.connection_lost()
            self._channel.close()

    def pause_writing(self) -> None:
        """The channel is full."""
        self._full = True

    def resume_writing(self) -> None:
        """There is room in the channel again."""
        self._full = False
        self._flush()

    def connection_lost(self) -> None:
        """The channel is gone, and all clients with it."""
        self._closed = True
        for connection in [*self._clients.values(), *self._pool.values()]:
            connection.close()
        self._left.set()

    # -- frames --

    def _take_frame(self, frame: Frame) -> None:
        kind, connection = frame.kind, self._clients.get(frame.client)
        if kind is FrameKind.OPEN:
            self._take_open(frame)
        elif kind is FrameKind.DATA and connection is not None:
            connection.send(bytes(frame.payload))
        elif kind is FrameKind.IMAGE:
            if connection is not None and not connection.is_closed:
                connection.send(connection.decode_image(frame.payload))
        elif kind is FrameKind.EOF and connection is not None:
            connection.send_eof()
        elif kind is FrameKind.CLOSE and connection is not None:
            self._end_client(connection)
        elif kind is FrameKind.SEEN:
            self._options.learned(parse_records(bytes(frame.payload)))
        elif kind is FrameKind.NOTE and parse_text(frame) in NOTICES:
            self._options.report(NOTICES[parse_text(frame)])
        elif kind is FrameKind.NOTE:
            self._options.debug(f"X11 client {frame.client}: {parse_text(frame)}")
        elif kind is FrameKind.STATS:
            self._options.counted(frame.client, parse_stats(frame))

    def _take_open(self, frame: Frame) -> None:
        opening = parse_open(frame)
        if frame.client in self._clients:
            raise LinkError("a client's number is used twice")
        if len(self._clients) >= CLIENT_LIMIT + REFUSED_LIMIT:
            raise LinkError("far too many clients")
        self._link.open_stream(frame.client)
        if opening.slot is not None:
            connection = self._pool.pop(opening.slot, None)
            if connection is None:
                raise LinkError("a connection is used twice")
            self._spawn(self._open_ahead())
        else:
            connection = _ServerConnection(self)
        connection.attach(frame.client)
        self._clients[frame.client] = connection
        if self._options.expired():
            self._refuse(connection, TIMEOUT_EXPIRED)
        elif len(self._clients) > CLIENT_LIMIT:
            self._refuse(connection, TOO_MANY_CLIENTS)
        elif connection.is_closed:  # offered, and lost since
            self._send_close(connection)
        elif opening.slot is None:
            self._spawn(self._open_for(connection, opening))
        self._options.opened()

    def _refuse(self, connection: _ServerConnection, rejection: Rejection) -> None:
        self._options.report(rejection.notice)
        self._send_close(connection, rejection.reason.decode("ascii"))
        connection.close()

    def _end_client(self, connection: _ServerConnection) -> None:
        """The agent says that a client is gone."""
        client = connection.client
        assert client is not None
        del self._clients[client]
        # What waits to be sent is dropped, and with it the CLOSE that may be at its end.
        told = connection.close_sent and self._link.is_drained(client)
        self._link.close_stream(client)
        if not told:
            self._link.queue_control(build_close(client))
        connection.detach()
        connection.close()
        self._left.set()

    def _send_close(self, connection: _ServerConnection, reason: str = "") -> None:
        if not connection.close_sent:
            connection.close_sent = True
            assert connection.client is not None
            self._link.queue(build_close(connection.client, reason))

    # -- connections --

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open_ahead(self) -> None:
        """Open one connection and offer it."""
        connection = _ServerConnection(self)
        try:
            await connection.open()
            setup = await connection.shake_hands()
        except Exception as error:  # whatever the opener did: clients then get one of their own
            self._options.debug(f"no connection ahead: {describe_failure(error)}")
            connection.close()
            return
        slot, self._next_slot = self._next_slot, (self._next_slot + 1) % 0xFFFF
        self._pool[slot] = connection
        connection.slot = slot
        self._link.queue_control(build_pool(slot, setup))
        self._flush()

    async def _open_for(self, connection: _ServerConnection, opening: Opening) -> None:
        """Open a connection for a client that found none in the pool."""
        try:
            await connection.open()
        except Exception as error:  # the client must get its answer, whatever the opener did
            self._options.report(
                f"xssh: X11 connection failed: local X server: {describe_failure(error)}"
            )
            self._send_close(connection, UNREACHABLE.decode("ascii"))
            connection.close()
            self._flush()
            return
        connection.begin(opening.order)

    def _lost(self, connection: _ServerConnection) -> None:
        """The X server closed a connection."""
        # One that was offered stays known: the agent may give it to a client yet.
        if connection.client is None:
            return
        if self._clients.get(connection.client) is connection and not self._closed:
            self._cut_off = time.monotonic()
            self._send_close(connection)
            self._flush()

    def _take_on(self, size: int) -> None:
        """Count what waits for the X server. Raises LinkError where it is more than can be."""
        self._unconfirmed += size
        if self._unconfirmed > UNCONFIRMED_IN_ALL:
            raise LinkError("more is sent than was confirmed")

    def _send(self, connection: _ServerConnection, data: bytes) -> None:
        """Send what the X server said to a client."""
        client = connection.client
        if client is None or connection.close_sent or self._closed:
            return
        self._link.queue(Frame(FrameKind.DATA, client, data))
        self._flush()

    def _flush(self) -> None:
        """Write what the link may have, and let X servers speak for whose clients there is room."""
        if not self._full and not self._closed:
            try:
                self._queue_news()
                pieces = self._link.take()
                if pieces:  # one write: the channel makes packets of each
                    self._channel.write(b"".join(pieces))
            except OSError:  # closed by the other host; connection_lost is on its way
                return
        for connection in self._clients.values():
            if connection.client is not None:
                connection.let_flow(self._link.may_read(connection.client))


class _ServerConnection(asyncio.Protocol):
    """One connection to the local X server, in the pool or a client's own."""

    def __init__(self, relay: AgentRelay) -> None:
        self._relay = relay
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
        self.client: int | None = None
        self.slot: int | None = None
        self.close_sent = False

    @property
    def is_closed(self) -> bool:
        """Whether the connection is gone, or going."""
        return self._closing

    async def open(self) -> None:
        """Connect."""
        timeout = CONNECT_TIMEOUT
        opened = await asyncio.wait_for(self._relay._options.open_server(), timeout)
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
        real = self._relay._options.real or NO_AUTHORIZATION
        setup = SetupRequest(order, PROTOCOL_MAJOR, PROTOCOL_MINOR, real)
        self._transport.write(build_setup_request(setup))

    def attach(self, client: int) -> None:
        """Belong to a client from now on."""
        self.client = client
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
        self._relay._take_on(len(data))
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
                self._relay._link.consumed(self.client, self._uncredited)
            self._settle()

    def _settle(self) -> None:
        self._relay._unconfirmed -= self._uncredited
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
        asyncio.get_running_loop().call_later(LINGER, self._transport.abort)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await self._closed.wait()

    # -- what the transport calls --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(BUFFER)
        if self._closing:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._greeted is not None:
            self._answer += data
            self._read_answer(self._greeted)
        else:
            self._relay._send(self, data)

    def _read_answer(self, greeted: asyncio.Future[bytes]) -> None:
        answer = bytes(self._answer)
        if len(answer) < 8 or greeted.done():
            return
        size = 8 + 4 * struct.unpack_from("<H", answer, 6)[0]
        if answer[0] != 1:
            greeted.set_exception(ConnectionRefusedError("the X server refuses"))
        elif len(answer) == size:
            greeted.set_result(answer)
        elif len(answer) > size:
            greeted.set_exception(ProtocolError("the X server says more than its setup"))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_exception(ConnectionResetError("the X server closed the connection"))
        self._closing = True
        self._closed.set()
        self._settle()
        self._relay._lost(self)

    def pause_writing(self) -> None:
        self._write_full = True

    def resume_writing(self) -> None:
        self._write_full = False
        self._credit()
        self._relay._flush()
