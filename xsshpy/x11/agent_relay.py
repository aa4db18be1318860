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
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from xsshpy.remote.frames import TO_LOCAL, Frame, FrameKind, LinkError
from xsshpy.remote.link import Link
from xsshpy.remote.looks import Look, parse_looks
from xsshpy.remote.payloads import (
    Opening,
    build_admit,
    build_close,
    build_dismiss,
    build_ping,
    build_pool,
    parse_admitted,
    parse_open,
    parse_stats,
    parse_text,
)
from xsshpy.remote.records import Record, Told, parse_records
from xsshpy.remote.xmessages import Authorization, ProtocolError
from xsshpy.remote.xrequests import FactClass
from xsshpy.values import dataclass, field
from xsshpy.x11.news import WaitingNews, build_record_frames
from xsshpy.x11.rejections import (
    TIMEOUT_EXPIRED,
    TOO_MANY_CLIENTS,
    UNREACHABLE,
    WRONG_AUTHENTICATION,
    Rejection,
    describe_failure,
)
from xsshpy.x11.server_connection import ServerConnection

POOL_SIZE = 4
"""Connections to the X server that are open ahead of clients."""

CLIENT_LIMIT = 512
"""Most clients at one time; X servers themselves take 256 to 2048."""

REFUSED_LIMIT = 64
"""How many more may be there while they are told why they are refused."""

UNCONFIRMED_IN_ALL = 1 << 30
"""Most that may wait for the X server of all clients (bytes)."""

MOMENT = 5.0
"""How far apart the X server's ends of several connections may be seen (seconds)."""

SILENCE = 15.0
"""After how much of it an agent that has clients is asked whether it is there (seconds)."""
ANSWER_TIME = 5.0
"""How long it may take to answer once the server has (seconds)."""
STANDS_STILL = (
    "xssh: X11: the agent on the other host does not answer: windows stand still, and are not "
    "waited for"
)

ENDED_LIMIT = 1024
"""Sessions that are remembered when they have ended, as clients of theirs may be on their way."""

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


async def _no_server() -> None:
    """There is none to be reached."""


@dataclass(frozen=True)
class AgentOptions:
    """How the agent's clients are served.

    ``open_server`` connects to the local X server; it may raise OSError or XsshError. ``real`` is
    what the X server wants to see. ``expired`` says whether new clients come too late. ``report``
    takes a line for the user, ``debug`` one for whoever asked for details, ``learned`` what clients
    asked that was not known beforehand, ``counted`` the counters of a client that is gone;
    ``opened`` is called for each client that comes, ``look`` with what the agent wants to know;
    ``reach`` returns once the SSH server has answered something;
    ``admitted`` takes a session, and whether the agent made it a cookie of its own.
    """

    open_server: Callable[[], Awaitable[socket.socket]]
    real: Authorization | None = field(repr=False)
    report: Callable[[str], None]
    debug: Callable[[str], None]
    expired: Callable[[], bool] = lambda: False
    learned: Callable[[list[Record]], None] = lambda records: None
    opened: Callable[[], None] = lambda: None
    look: Callable[[list[Look]], None] = lambda orders: None
    counted: Callable[[int, dict[str, int]], None] = lambda client, counters: None
    admitted: Callable[[int, bool], None] = lambda session, written: None
    reach: Callable[[], Awaitable[None]] = _no_server


class AgentRelay:
    """All X clients of one agent. Feed it what the channel brings; call ``aclose`` at the end."""

    def __init__(self, options: AgentOptions, channel: LinkChannel) -> None:
        self._options = options
        self._channel = channel
        self._link = Link(time.monotonic, time.process_time, TO_LOCAL)
        self._clients: dict[int, ServerConnection] = {}
        self._pool: dict[int, ServerConnection] = {}
        self._opening: set[ServerConnection] = set()  # that are to be offered
        self._next_slot = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._full = False
        self._closed = False
        self._unconfirmed = 0
        self._news = WaitingNews()
        self._cut_off: float | None = None
        self._watchers: set[asyncio.Event] = set()
        self._heard = time.monotonic()
        self._stands_still = False
        self._is_watched = False
        self._ended_sessions: dict[int, None] = {}
        self.reports: dict[int, Callable[[str], None]] = {}
        """Takes lines about a session's clients; without one ``report`` takes them."""

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
    def serves_clients(self) -> bool:
        """Whether the X server still has a client's connection."""
        return any(not connection.is_closed for connection in self._clients.values())

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
        self.flush()

    def _queue_records(self, kind: FrameKind, records: list[Record]) -> None:
        for frame in build_record_frames(kind, records):
            self._link.queue_control(frame)

    def forget(self, kind: FactClass) -> None:
        """Tell the agent that all facts of a class are stale."""
        self._news.forget(kind)
        self.flush()

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
        self.flush()

    def expire(self) -> None:
        """Let no more clients in."""
        self._link.queue_control(Frame(FrameKind.EXPIRED))
        self.flush()

    def admit(self, session: int) -> None:
        """Have the agent make a session a cookie of its own; ``admitted`` tells that it is there.

        Raises LinkError.
        """
        self._ended_sessions.pop(session, None)
        self._link.queue_control(build_admit(session))
        self.flush()

    def dismiss(self, session: int) -> None:
        """End a session's clients; no more of them get in. Raises LinkError."""
        self.reports.pop(session, None)
        self._ended_sessions[session] = None
        if len(self._ended_sessions) > ENDED_LIMIT:  # what was on its way then is here by now
            del self._ended_sessions[next(iter(self._ended_sessions))]
        if not self._closed:
            self._link.queue_control(build_dismiss(session))
            self.flush()

    def has_clients(self, session: int | None) -> bool:
        """Tell whether clients are here: a session's, or with None anyone's."""
        if self._closed or self._stands_still:
            return False
        return any(session in (None, each.session) for each in self._clients.values())

    async def wait_until_idle(self, session: int | None = None) -> None:
        """Wait until the last client is gone, or the last one of a session."""
        left = asyncio.Event()
        self._watchers.add(left)
        try:
            while self.has_clients(session):
                left.clear()
                await left.wait()
        finally:
            self._watchers.discard(left)

    def _tell_watchers(self) -> None:
        for each in self._watchers:
            each.set()

    async def aclose(self) -> None:
        """Close all connections to the X server, and wait until they are gone."""
        self._closed = True
        self._tell_watchers()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        connections = [*self._clients.values(), *self._pool.values(), *self._opening]
        self._clients.clear()
        self._pool.clear()
        self._opening.clear()
        for connection in connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection in connections))

    # -- what the channel calls --

    def data_received(self, data: bytes) -> None:
        """Take bytes from the other host. A broken link closes the channel."""
        if self._closed:
            return
        self._heard = time.monotonic()
        self._stands_still = False
        try:
            for frame in self._link.receive_data(data):
                self._take_frame(frame)
            self.flush()
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
        self.flush()

    def connection_lost(self) -> None:
        """The channel is gone, and all clients with it."""
        self._closed = True
        for connection in [*self._clients.values(), *self._pool.values()]:
            connection.close()
        self._tell_watchers()

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
        else:
            self._take_message(frame)

    def _take_message(self, frame: Frame) -> None:
        """Take what the agent says of itself and of its clients."""
        kind = frame.kind
        if kind is FrameKind.SEEN:
            self._options.learned(parse_records(bytes(frame.payload)))
        elif kind is FrameKind.NOTE and parse_text(frame) in NOTICES:
            self._options.report(NOTICES[parse_text(frame)])
        elif kind is FrameKind.NOTE:
            self._options.debug(f"X11 client {frame.client}: {parse_text(frame)}")
        elif kind is FrameKind.LOOK:
            self._options.look(parse_looks(bytes(frame.payload)))
        elif kind is FrameKind.STATS:
            self._options.counted(frame.client, parse_stats(frame))
        elif kind is FrameKind.ADMITTED:
            self._options.admitted(*parse_admitted(frame))

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
            connection = ServerConnection(self)
        connection.attach(frame.client, opening.session)
        self._clients[frame.client] = connection
        if opening.session in self._ended_sessions:  # while it was on its way
            self._send_close(connection)
            connection.close()
        elif self._options.expired():
            self._refuse(connection, TIMEOUT_EXPIRED)
        elif len(self._clients) > CLIENT_LIMIT:
            self._refuse(connection, TOO_MANY_CLIENTS)
        elif connection.is_closed:  # offered, and lost since
            self._send_close(connection)
        elif opening.slot is None:
            self._spawn(self._open_for(connection, opening))
        self._options.opened()
        if not self._is_watched:
            self._is_watched = True
            self._spawn(self._watch_agent())

    async def _watch_agent(self) -> None:
        """Notice an agent that stands still under its windows; one on a slow line may be slow."""
        has_said = False
        while self._clients:
            await asyncio.sleep(SILENCE)
            asked = time.monotonic()
            if asked - self._heard < SILENCE or self._stands_still or self._closed:
                continue
            self._link.queue_control(build_ping(b""))
            self.flush()
            await self._options.reach()
            await asyncio.sleep(ANSWER_TIME)
            if self._heard < asked and self._clients:
                if not has_said:
                    self._options.report(STANDS_STILL)
                has_said = self._stands_still = True
                self._tell_watchers()
        self._is_watched = False

    def _refuse(self, connection: ServerConnection, rejection: Rejection) -> None:
        self._report_of(connection)(rejection.notice)
        self._send_close(connection, rejection.reason.decode("ascii"))
        connection.close()

    def _report_of(self, connection: ServerConnection) -> Callable[[str], None]:
        return self.reports.get(connection.session, self._options.report)

    def _end_client(self, connection: ServerConnection) -> None:
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
        self._tell_watchers()

    def _send_close(self, connection: ServerConnection, reason: str = "") -> None:
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
        """Open one connection and offer it; if this is cancelled, ``aclose`` closes it."""
        connection = ServerConnection(self)
        self._opening.add(connection)
        try:
            await connection.open()
            setup = await connection.shake_hands()
        except Exception as error:  # whatever the opener did: clients then get one of their own
            self._options.debug(f"no connection ahead: {describe_failure(error)}")
            self._opening.discard(connection)
            connection.close()
            return
        self._opening.discard(connection)
        slot, self._next_slot = self._next_slot, (self._next_slot + 1) % 0xFFFF
        self._pool[slot] = connection
        connection.slot = slot
        self._link.queue_control(build_pool(slot, setup))
        self.flush()

    async def _open_for(self, connection: ServerConnection, opening: Opening) -> None:
        """Open a connection for a client that found none in the pool."""
        try:
            await connection.open()
        except Exception as error:  # the client must get its answer, whatever the opener did
            self._report_of(connection)(
                f"xssh: X11 connection failed: local X server: {describe_failure(error)}"
            )
            self._send_close(connection, UNREACHABLE.decode("ascii"))
            connection.close()
            self.flush()
            return
        connection.begin(opening.order)

    def lose(self, connection: ServerConnection) -> None:
        """The X server closed a connection."""
        # One that was offered stays known: the agent may give it to a client yet.
        if connection.client is None:
            return
        if self._clients.get(connection.client) is connection and not self._closed:
            self._cut_off = time.monotonic()
            self._send_close(connection)
            self.flush()

    @property
    def real(self) -> Authorization | None:
        """What the X server wants to see."""
        return self._options.real

    async def open_server(self) -> socket.socket:
        """Connect to the X server. Raises OSError and XsshError."""
        return await self._options.open_server()

    def consumed(self, client: int, size: int) -> None:
        """Tell the agent that the X server took so much of a client's."""
        self._link.consumed(client, size)

    def release(self, size: int) -> None:
        """So much less waits for the X server."""
        self._unconfirmed -= size

    def take_on(self, size: int) -> None:
        """Count what waits for the X server. Raises LinkError where it is more than can be."""
        self._unconfirmed += size
        if self._unconfirmed > UNCONFIRMED_IN_ALL:
            raise LinkError("more is sent than was confirmed")

    def pass_on(self, connection: ServerConnection, data: bytes) -> None:
        """Send what the X server said to a client."""
        client = connection.client
        if client is None or connection.close_sent or self._closed:
            return
        self._link.queue(Frame(FrameKind.DATA, client, data))
        self.flush()

    def flush(self) -> None:
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
