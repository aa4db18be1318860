"""One X client of the other host, carried to the local X server.

It comes through a channel of its own, with a cookie that is worth nothing here. That is checked,
the real one takes its place, and from then on bytes pass both ways, apart from the extensions that
cannot work over a distance (see ``remote.xextensions``).

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


class Reception(Protocol):
    """What a client has in common with the others of its connection."""

    options: RelayOptions

    def admit(self, client: RelayedClient) -> bool:
        """Let a client say who it is; False where it is not even heard."""

    def decide_rejection(self, setup: SetupRequest) -> Rejection | None:
        """Return why a client must not come in, or None."""

    def find_cookie(self, shown: bytes) -> bytes | None:
        """Return the cookie that a client shows, of those that let it in."""

    def report(self, rejection: Rejection, report: Callable[[str], None] | None = None) -> None:
        """Tell the user that a client was turned away."""

    def forget(self, client: RelayedClient) -> None:
        """A client is gone, and its socket with it."""


class _State(Enum):
    """Where a client stands."""

    SETUP = "setup"
    CONNECTING = "connecting"
    RELAYING = "relaying"
    CLOSED = "closed"


class RelayedClient:
    """One X client: the callbacks of its channel. None of them raises."""

    def __init__(self, relay: Reception) -> None:
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
        if not self._relay.admit(self):
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
        self._relay.report(rejection, self._report)
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
            self._relay.forget(self)

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
