"""X clients of the other host, carried to the local X server.

Each client comes through a channel of its own, with a cookie that is worth nothing here. It is
checked, the real one takes its place, and from then on bytes pass both ways, apart from the
extensions that cannot work over a distance (see ``remote.xextensions``).

Rules kept here:

* The real cookie never goes to the other host, nor the fake one to the X server; neither is logged.
* A rejection is X's own: a Failed reply in the client's byte order whose reason names xssh, so that
  the client prints it. What went wrong is reported here too, in OpenSSH's words where it has them.
* Every wait has an end (the client's setup, the X server's socket, the last bytes), and every
  buffer a limit: a slow side stops the other one.
* Whatever a client or the server does ends that client at most; nothing is raised to the caller.

An X server closes a connection as a whole, so its end of file ends the client. A client's end of
file is passed on, and the server may still answer.

Follows the X Window System Protocol, version 11, §8; RFC 4254 §6.3.2.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import Enum
from typing import Protocol

from xsshpy.remote.xextensions import HIDDEN_EXTENSIONS, ExtensionFilter, build_client_reader
from xsshpy.remote.xmessages import (
    NO_AUTHORIZATION,
    Authorization,
    NeedData,
    ProtocolError,
    SetupReply,
    SetupRequest,
    SetupStatus,
    build_setup_failed,
    build_setup_request,
)
from xsshpy.values import dataclass, field
from xsshpy.x11.rejections import (
    SETUP_TOO_LATE,
    TIMEOUT_EXPIRED,
    TOO_MANY_CLIENTS,
    UNREACHABLE,
    WRONG_AUTHENTICATION,
    Rejection,
    describe_failure,
    describe_reason,
)

SETUP_TIMEOUT = 30.0
"""How long a client may take for its setup, and the X server to take a connection (seconds)."""

LINGER = 5.0
"""How long the X server may take for the last bytes of a client that is gone (seconds)."""

BUFFER = 256 * 1024
"""How much may wait for the X server before the client is told to pause (bytes)."""

SETUP_GRACE = 2.0
"""How long the end of a session waits for clients that have not said who they are (seconds).

A client's channel is open a round trip before its first bytes arrive."""

MAX_CLIENTS = 512
"""Most clients at one time; X servers themselves take 256 to 2048."""

WAITING_ROOM = 32
"""How many more are heard, so that they can be told why they are turned away."""


class ClientChannel(Protocol):
    """What one X client came through: an SSH channel, or another stream that behaves like one.

    ``write`` never blocks, and may raise OSError once the channel is closed. ``close`` sends what
    was written before.
    """

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def write_eof(self) -> None:
        """Say that nothing more will be sent."""

    def close(self) -> None:
        """Close, once everything was sent."""

    def pause_reading(self) -> None:
        """Deliver nothing until ``resume_reading``."""

    def resume_reading(self) -> None:
        """Deliver again; may do so before it returns."""


@dataclass(frozen=True)
class RelayOptions:
    """How X clients are carried.

    ``open_server`` connects to the local X server; it may raise OSError or XsshError. ``fake`` is
    what clients must show. ``real`` is what the X server wants to see, None where it wants nothing.
    ``expired`` says whether new clients come too late. ``report`` takes one line for the user.
    ``others`` are cookies of sessions that share the connection, each with what takes the lines
    about that session's clients. Times are in seconds.
    """

    open_server: Callable[[], Awaitable[socket.socket]]
    fake: Authorization = field(repr=False)
    real: Authorization | None = field(repr=False)
    report: Callable[[str], None]
    expired: Callable[[], bool] = lambda: False
    others: Mapping[bytes, Callable[[str], None]] = field(default_factory=dict, repr=False)
    hidden: frozenset[bytes] = HIDDEN_EXTENSIONS
    setup_timeout: float = SETUP_TIMEOUT
    setup_grace: float = SETUP_GRACE
    linger: float = LINGER
    max_clients: int = MAX_CLIENTS


class X11Relay:
    """All X clients of one session. Call ``aclose`` at its end."""

    def __init__(self, options: RelayOptions) -> None:
        self.options = options
        self._clients: set[RelayedClient] = set()
        self._closed = False
        self._said_full = False
        self._watchers: set[asyncio.Event] = set()

    @property
    def open_clients(self) -> int:
        """How many clients are here, those not yet set up and those that are ending included."""
        return len(self._clients)

    def build_client(self) -> RelayedClient:
        """Return the session of one channel that the server is about to open."""
        return RelayedClient(self)

    def decide_rejection(self, setup: SetupRequest) -> Rejection | None:
        """Return why a client must not come in, or None."""
        if self.options.expired():
            return TIMEOUT_EXPIRED
        fake, shown = self.options.fake, setup.authorization
        right_name = hmac.compare_digest(fake.name, shown.name)
        if not right_name or self.find_cookie(shown.data) is None:
            return WRONG_AUTHENTICATION
        if len(self._clients) > self.options.max_clients:
            return TOO_MANY_CLIENTS
        return None

    def find_cookie(self, shown: bytes) -> bytes | None:
        """Return the cookie that a client shows, of those that let it in."""
        found = None
        for cookie in (self.options.fake.data, *self.options.others):
            if hmac.compare_digest(cookie, shown):
                found = cookie
        return found

    async def wait_for_session(self, cookie: bytes) -> None:
        """Wait until the last client that showed this cookie is gone."""
        waited = False
        while True:
            if any(client.cookie == cookie for client in self._clients):
                await self._wait_for_leaver()
            elif waited or not any(client.in_setup for client in self._clients):
                return
            else:
                waited = True
                await asyncio.sleep(self.options.setup_grace)

    def close_session(self, cookie: bytes) -> None:
        """Close all clients that showed this cookie."""
        for client in [each for each in self._clients if each.cookie == cookie]:
            client.close()

    async def wait_until_idle(self) -> None:
        """Wait until the last client is gone.

        Those that say nothing do not count: they have ``setup_grace`` to do so, and are closed.
        """
        while self._clients:
            if self._has_let_in():
                await self._wait_for_leaver()
            elif not (await self._became_empty(self.options.setup_grace) or self._has_let_in()):
                break
        for client in list(self._clients):
            client.close()

    async def aclose(self) -> None:
        """Close all clients, and wait until their sockets and tasks are gone."""
        self._closed = True
        for client in list(self._clients):
            client.close()
        if not await self._became_empty(self.options.linger):
            for client in list(self._clients):
                client.abort()
            await self._became_empty(self.options.linger)

    def _has_let_in(self) -> bool:
        return any(not client.in_setup for client in self._clients)

    async def _became_empty(self, timeout: float) -> bool:
        """Wait until no client is left; return False where that takes longer than ``timeout``."""
        try:
            await asyncio.wait_for(self._wait_until_empty(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    async def _wait_for_leaver(self) -> None:
        left = asyncio.Event()
        self._watchers.add(left)
        try:
            await left.wait()
        finally:
            self._watchers.discard(left)

    async def _wait_until_empty(self) -> None:
        while self._clients:
            await self._wait_for_leaver()

    def _admit(self, client: RelayedClient) -> bool:
        """Let a client say who it is, unless so many do that the other host means no good."""
        if self._closed:
            return False
        if len(self._clients) >= self.options.max_clients + WAITING_ROOM:
            self._report(TOO_MANY_CLIENTS)
            return False
        self._clients.add(client)
        return True

    def _forget(self, client: RelayedClient) -> None:
        self._clients.discard(client)
        for watcher in self._watchers:
            watcher.set()
        if len(self._clients) < self.options.max_clients:
            self._said_full = False

    def _report(self, rejection: Rejection, report: Callable[[str], None] | None = None) -> None:
        """Tell the user, of too many clients once as long as there are too many."""
        if rejection is TOO_MANY_CLIENTS:
            if self._said_full:
                return
            self._said_full = True
        (report or self.options.report)(rejection.notice)


class _State(Enum):
    """Where a client stands."""

    SETUP = "setup"
    CONNECTING = "connecting"
    RELAYING = "relaying"
    CLOSED = "closed"


class RelayedClient:
    """One X client: the callbacks of its channel. None of them raises."""

    def __init__(self, relay: X11Relay) -> None:
        self._relay = relay
        self._options = relay.options
        self._state = _State.SETUP
        self._channel: ClientChannel | None = None
        self._server: asyncio.Transport | None = None
        self._reader = build_client_reader()
        self._filter: ExtensionFilter | None = None
        self._setup_reply: SetupReply | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._channel_full = False
        self._server_full = False
        self._client_ended = False
        self._report = relay.options.report
        self.cookie = b""
        """What it showed, once that let it in."""

    @property
    def in_setup(self) -> bool:
        """Whether it has not yet said who it is."""
        return self._state is _State.SETUP

    # -- what the channel calls --

    def attach(self, channel: ClientChannel) -> None:
        """Take the channel, which is open from now on."""
        self._channel = channel
        if not self._relay._admit(self):
            self._finish()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._options.setup_timeout, self._refuse, SETUP_TOO_LATE)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._state is _State.SETUP:
            self._read_setup(data)
        elif self._state is _State.CONNECTING:
            self._reader.receive_data(data)
        elif self._state is _State.RELAYING:
            self._send_to_server(data)

    def eof_received(self) -> bool:
        """Take the client's end of file. Return True: the server may still answer."""
        self._client_ended = True
        if self._state is _State.SETUP:
            self._finish()
        elif self._state is _State.RELAYING:
            assert self._server is not None
            self._server.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the channel."""
        self._channel = None
        self._finish()

    def pause_writing(self) -> None:
        """Stop taking bytes from the X server: the channel is full."""
        self._channel_full = True
        if self._server is not None:
            self._server.pause_reading()

    def resume_writing(self) -> None:
        """Take bytes from the X server again."""
        self._channel_full = False
        if self._server is not None and self._state is _State.RELAYING:
            self._server.resume_reading()

    # -- the beginning --

    def _read_setup(self, data: bytes) -> None:
        try:
            self._reader.receive_data(data)
            setup = self._reader.next_event()
        except ProtocolError:
            self._refuse(WRONG_AUTHENTICATION)
            return
        if isinstance(setup, NeedData):
            return
        assert isinstance(setup, SetupRequest)
        rejection = self._relay.decide_rejection(setup)
        self.cookie = self._relay.find_cookie(setup.authorization.data) or b""
        self._report = self._options.others.get(self.cookie, self._options.report)
        if rejection is not None:
            self._refuse(rejection)
            return
        self._stop_timer()
        self._state = _State.CONNECTING
        assert self._channel is not None
        self._channel.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect(setup))
        self._connecting.add_done_callback(self._connected)

    async def _connect(self, setup: SetupRequest) -> None:
        """Connect to the X server and hand over what the client said so far."""
        try:
            server = await self._open_server()
        except Exception as error:  # the client must get its answer, whatever the opener did
            notice = f"xssh: X11 connection failed: local X server: {describe_failure(error)}"
            self._refuse(Rejection(notice, UNREACHABLE))
            return
        self._server = server
        if self._state is _State.CLOSED:  # in the same turn of the loop as the connection came
            server.abort()
            return
        self._state = _State.RELAYING
        server.set_write_buffer_limits(BUFFER)
        if self._channel_full:
            server.pause_reading()
        self._filter = ExtensionFilter(self._reader, self._options.hidden)
        real = self._options.real or NO_AUTHORIZATION
        server.write(build_setup_request(SetupRequest(setup.order, setup.major, setup.minor, real)))
        self._send_to_server(b"")
        if self._client_ended and self._state is _State.RELAYING:
            server.write_eof()
        self._let_channel_flow()

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        self._forget_if_gone()

    async def _open_server(self) -> asyncio.Transport:
        timeout = self._options.setup_timeout
        opened = await asyncio.wait_for(self._options.open_server(), timeout)
        try:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: _ServerSide(self), sock=opened)
        except BaseException:
            opened.close()
            raise
        return transport

    def _refuse(self, rejection: Rejection) -> None:
        """Turn a client away that was not yet let in."""
        if self._state is _State.CLOSED:
            return
        if self._reader.order is not None:
            self._write_to_channel(build_setup_failed(self._reader.order, rejection.reason))
        self._relay._report(rejection, self._report)
        self._finish()

    # -- the middle --

    def _send_to_server(self, data: bytes) -> None:
        assert self._filter is not None
        assert self._server is not None
        failure, ready = _collect(self._filter.pass_to_server(data))
        if ready:
            self._server.write(ready)
        if failure is not None:
            self._break_off(f"the client broke the protocol: {failure}")

    def _send_to_client(self, data: bytes) -> None:
        if self._state is not _State.RELAYING or self._filter is None:
            return
        failure, ready = _collect(self._filter.pass_to_client(data))
        if ready:
            self._write_to_channel(ready)
        if failure is not None:
            self._break_off(f"the local X server broke the protocol: {failure}")
        elif self._setup_reply is None and self._filter.setup is not None:
            self._setup_reply = self._filter.setup
            if self._setup_reply.status is not SetupStatus.SUCCESS:
                self._break_off(f"the local X server said: {describe_reason(self._setup_reply)}")

    def _write_to_channel(self, data: bytes) -> None:
        if self._channel is not None:
            try:
                self._channel.write(data)
            except OSError:  # closed by the other host; connection_lost is on its way
                self._finish()

    def _let_channel_flow(self) -> None:
        if self._channel is not None and not self._server_full:
            self._channel.resume_reading()

    def _server_paused(self) -> None:
        self._server_full = True
        if self._channel is not None:
            self._channel.pause_reading()

    def _server_resumed(self) -> None:
        self._server_full = False
        if self._state is _State.RELAYING:
            self._let_channel_flow()

    # -- the end --

    def close(self) -> None:
        """End this client; what the X server has not yet taken is sent within ``linger``."""
        self._finish()

    def abort(self) -> None:
        """End this client at once."""
        self._finish()
        if self._server is not None:
            self._server.abort()

    def _break_off(self, why: str) -> None:
        if self._state is not _State.CLOSED:
            self._report(f"xssh: X11 connection closed: {why}")
            self._finish()

    def _finish(self) -> None:
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._stop_timer()
        if self._connecting is not None and self._connecting is not asyncio.current_task():
            self._connecting.cancel()
        if self._channel is not None:
            channel, self._channel = self._channel, None
            try:
                channel.write_eof()
                channel.close()
            except OSError:  # closed already: so much the better
                pass
        if self._server is not None:
            self._server.close()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._options.linger, self._server.abort)
        self._forget_if_gone()

    def _forget_if_gone(self) -> None:
        if self._state is _State.CLOSED and self._server is None and self._connecting is None:
            self._relay._forget(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _server_lost(self) -> None:
        self._server = None
        self._finish()
        self._stop_timer()
        self._forget_if_gone()


class _ServerSide(asyncio.Protocol):
    """The X server's socket, for one client."""

    def __init__(self, client: RelayedClient) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client._send_to_client(data)

    def eof_received(self) -> bool:
        self._client._finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._client._server_lost()

    def pause_writing(self) -> None:
        self._client._server_paused()

    def resume_writing(self) -> None:
        self._client._server_resumed()


def _collect(pieces: Iterator[bytes]) -> tuple[ProtocolError | None, bytes]:
    """Return what a filter gave, in one piece, and the failure that ended it."""
    ready: list[bytes] = []
    failure = None
    try:
        for piece in pieces:
            ready.append(piece)
    except ProtocolError as error:
        failure = error
    return failure, b"".join(ready)
