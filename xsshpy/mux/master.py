"""The master: others share its connection through the control socket (PROTOCOL.mux).

Rules kept here:

* Who connects must be this user or root. A peer says hello within :data:`HELLO_PATIENCE` and
  speaks the protocol, or is hung up on; whatever it sends, the master goes on.
* There are at most :data:`MOST_PEERS` of them, each with one session at most, as with ssh. When
  there are so many, who asks for nothing makes room for who comes.
* A peer that is gone takes its session with it.
* The socket is there as long as the master listens, and removed when it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

from xsshpy.mux.context import MasterContext
from xsshpy.mux.link import Link
from xsshpy.mux.messages import (
    VERSION,
    XSSH_EXTENSION,
    Alive,
    AliveCheck,
    CloseForward,
    Failure,
    Hello,
    MuxProtocolError,
    NewSession,
    NewStdioForward,
    Ok,
    OpenForward,
    PermissionDenied,
    ProxyStarted,
    Request,
    StartProxy,
    StopListening,
    Terminate,
    UnknownRequest,
    count_descriptors,
)
from xsshpy.mux.passenger_forwards import close_forward, open_forward
from xsshpy.mux.passenger_sessions import OPEN_REFUSED, Ride, SessionRide, StdioRide
from xsshpy.mux.proxy import carry_proxy
from xsshpy.mux.sockets import Listener, close_descriptors, identify_peer

MOST_PEERS = 256
"""Most peers at one time; more wait to be let in, where none of these is idle."""

MOST_COMPLAINTS = 100
"""Most lines about peers that break the protocol: nobody fills the log, or a stderr unread."""

HELLO_PATIENCE = 20.0
"""Seconds until a peer has said hello."""

_LEAVING_PATIENCE = 5.0
"""Seconds until the server has closed the channel of a peer that is gone."""

_CLOSING_PATIENCE = 1.0
"""Seconds for the peers to be gone when the master ends, and for each time they are told to."""
_ACCEPT_PAUSE = 1.0
"""Seconds without new peers, after one could not be let in."""
_DENIED = b"Permission denied"


class Master:
    """Listens on a control socket and serves whoever comes. Call :meth:`close` at the end.

    ``terminate`` is called when a peer asks for the end of the connection.
    """

    def __init__(
        self, listener: Listener, context: MasterContext, terminate: Callable[[], None]
    ) -> None:
        self.context = context
        self.is_listening = True
        self.terminate = terminate
        self._listener = listener
        self._peers: dict[_Peer, None] = {}  # in the order in which they came
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._arrivals = 0
        self._complaints = 0
        self._accepting = asyncio.create_task(self._accept())
        if context.soundness is not None:
            self.spawn(context.soundness.begin())

    @property
    def path(self) -> str:
        """Where the socket is."""
        return self._listener.path

    def stop_listening(self) -> None:
        """Let nobody else in, and remove the socket."""
        if self.is_listening:
            self.is_listening = False
            self._accepting.cancel()
            # The loop must not watch what is closed.
            asyncio.get_running_loop().remove_reader(self._listener.socket)
            self._listener.close()
            self._changed.set()

    def resize(self) -> None:
        """Some passenger's terminal has another size."""
        for peer in self._peers:
            if peer.ride is not None:
                peer.ride.resize()

    async def wait_until_idle(self) -> None:
        """Wait until no peer is there."""
        while self._peers:
            await self._wait_for_change()

    async def wait_until_over(self, seconds: float | None) -> None:
        """Wait until nothing was carried for so long, None for ever, or all is after a stop.

        Forwarded connections and windows count as much as peers.
        """
        while True:
            await self.wait_until_unused()
            if not self.is_listening:
                return
            arrivals = self._arrivals
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wait_for_arrival(arrivals), seconds)
            if self._arrivals == arrivals and self.is_listening and self._is_unused():
                self.context.console.debug(1, "ControlPersist timeout expired")
                return

    def lose_server(self) -> None:
        """The server does not answer. The connection is given up unless others still hope."""
        riders = sum(peer.ride is not None for peer in self._peers)
        if riders <= 1 and not self.context.forwarder.open_count:
            self.context.console.notice(
                f"Timeout, server {self.context.settings.hostname} not responding."
            )
            self.stop_listening()
            self.context.session.connection.abort()

    async def close(self) -> None:
        """Hang up on all peers; their sessions end with the connection."""
        self.stop_listening()
        for peer in self._peers:
            peer.hang_up()
        tasks = [*self._tasks, self._accepting]
        await asyncio.wait(tasks, timeout=_CLOSING_PATIENCE)
        # On its way out a session waits for who reads its output, who may never read again.
        for _ in range(2):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CLOSING_PATIENCE)

    def complain(self, text: str) -> None:
        """Say what is wrong with a peer, if that was not said too often."""
        self._complaints += 1
        if self._complaints <= MOST_COMPLAINTS:
            self.context.console.error(text)
        if self._complaints == MOST_COMPLAINTS:
            self.context.console.error("xssh: no more is said about those who break the protocol")

    def spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Run something that must not outlive the master."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget_task)
        return task

    def _forget_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.context.console.debug(1, f"mux: internal error: {task.exception()!r}")

    def _is_unused(self) -> bool:
        return not self._peers and not self.context.forwarder.open_count

    async def wait_until_unused(self) -> None:
        """Wait until there is no peer, no forwarded connection and no window of a passenger's."""
        while True:
            await self.wait_until_idle()
            await self.context.forwarder.wait_until_idle()
            await self.context.x11.wait_until_idle()
            if self._is_unused():
                return

    async def _wait_for_arrival(self, arrivals: int) -> None:
        while self._arrivals == arrivals and self.is_listening:
            await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _accept(self) -> None:
        loop, console = asyncio.get_running_loop(), self.context.console
        while True:
            while len(self._peers) >= MOST_PEERS:
                self._make_room()
                await self._wait_for_change()
            try:
                connection, _ = await loop.sock_accept(self._listener.socket)
            except OSError as error:
                console.error(f"channel_post_mux_listener: accept: {error.strerror}")
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            console.debug(1, "multiplexing control connection")
            if not self._may_enter(connection):
                connection.close()
                continue
            peer = _Peer(self, connection)
            self._peers[peer] = None
            self._arrivals += 1
            self._changed.set()
            self.spawn(self._attend(peer))

    def _make_room(self) -> None:
        """Hang up on the peer that has been idle for the longest time."""
        for peer in self._peers:
            if peer.is_idle:
                peer.hang_up()
                return

    def _may_enter(self, connection: socket.socket) -> bool:
        try:
            peer = identify_peer(connection)
        except OSError as error:
            self.complain(f"channel_post_mux_listener: getpeereid failed: {error.strerror}")
            return False
        if peer is None or peer.uid in (os.getuid(), 0):
            return True
        self.complain(f"multiplex uid mismatch: peer euid {peer.uid} != uid {os.getuid()}")
        return False

    async def _attend(self, peer: _Peer) -> None:
        try:
            await peer.serve()
        finally:
            self._peers.pop(peer, None)
            self._changed.set()


class _Peer:
    """One connection on the control socket."""

    def __init__(self, master: Master, connection: socket.socket) -> None:
        self._master = master
        self._context = master.context
        self._link = Link(connection)
        self.ride: Ride | None = None
        self.is_idle = True  # it has no session, and waits for no answer
        self._riding: asyncio.Task[None] | None = None

    def hang_up(self) -> None:
        """Let the peer go."""
        self._link.break_off()

    async def serve(self) -> None:
        """Do what the peer asks for, until it goes or its session is over."""
        try:
            await self._read()
        except MuxProtocolError as error:
            self._master.complain(f"mux_master_read_cb: {error}")
        finally:
            await self._leave()
            await self._link.close()

    async def _leave(self) -> None:
        """End what was carried for the peer, unless it is over."""
        riding = self._riding
        if riding is None or self.ride is None or riding.done():
            return
        self._context.console.debug(2, "mux: a passenger is gone, and its session with it")
        self.ride.leave()
        # What it may still write to nobody can take as long as it likes, but counts no more.
        await asyncio.wait({riding}, timeout=_LEAVING_PATIENCE)

    async def _read(self) -> None:
        link, console = self._link, self._context.console
        link.post(Hello(extensions=XSSH_EXTENSION))
        try:
            hello = await asyncio.wait_for(link.read_request(), HELLO_PATIENCE)
        except (TimeoutError, asyncio.TimeoutError):
            raise MuxProtocolError("no hello came") from None
        if hello is None:
            return
        if not isinstance(hello, Hello):
            raise MuxProtocolError("expected MUX_MSG_HELLO(0x00000001), received something else")
        if hello.version != VERSION:
            raise MuxProtocolError(
                f"unsupported multiplexing protocol version {hello.version} (expected {VERSION})"
            )
        while (request := await link.read_request()) is not None:
            console.debug(3, f"mux: {type(request).__name__}")
            self.is_idle = False
            if isinstance(request, StartProxy):
                link.post(ProxyStarted(request.request_id))
                await carry_proxy(self._context, link)
                return
            await self._answer(request)
            self.is_idle = self._riding is None

    async def _answer(self, request: Request) -> None:
        post = self._link.post
        if isinstance(request, Hello):
            raise MuxProtocolError("HELLO received twice")
        if isinstance(request, AliveCheck):
            post(Alive(request.request_id, os.getpid()))
        elif isinstance(request, (NewSession, NewStdioForward)):
            await self._take_aboard(request)
        elif isinstance(request, OpenForward):
            post(await open_forward(self._context, request))
        elif isinstance(request, CloseForward):
            post(close_forward(self._context, request))
        elif isinstance(request, StopListening):
            await self._stop_listening(request)
        elif isinstance(request, Terminate):
            await self._terminate(request)
        elif isinstance(request, UnknownRequest):
            self._master.complain(f"unsupported mux message 0x{request.kind:08x}")
            post(Failure(request.request_id, b"unsupported request"))

    async def _take_aboard(self, request: NewSession | NewStdioForward) -> None:
        """Begin a session, or a stdio forward, with the descriptors that follow."""
        try:
            descriptors = await self._link.receive_descriptors(count_descriptors(request))
        except MuxProtocolError as error:
            self._link.post(Failure(request.request_id, str(error).encode()))
            raise
        if self._riding is not None:
            close_descriptors(descriptors)
            self._link.post(Failure(request.request_id, b"Multiple sessions not supported"))
            return
        fault = await self._context.find_fault()
        if fault:
            close_descriptors(descriptors)
            self._context.console.debug(1, f"mux: nobody else gets in: {fault}")
            self._master.stop_listening()
            self._link.post(Failure(request.request_id, OPEN_REFUSED))
            return
        if isinstance(request, NewSession):
            question = f"Allow shared connection to {self._host}? "
        else:
            host = os.fsdecode(request.host)
            question = f"Allow forward to {host}:{request.port}? "
        if not await self._context.permits(question):
            close_descriptors(descriptors)
            self._link.post(PermissionDenied(request.request_id, _DENIED))
            return
        self.ride = (
            SessionRide(
                self._context, request, descriptors, self._link.post, self._master.lose_server
            )
            if isinstance(request, NewSession)
            else StdioRide(self._context, request, descriptors, self._link.post)
        )
        self._riding = self._master.spawn(self.ride.run())
        self._riding.add_done_callback(self._arrive)

    def _arrive(self, _: asyncio.Task[None]) -> None:
        """The session is over: so is the peer's connection, once it was told everything."""
        self._master.spawn(self._link.finish())

    @property
    def _host(self) -> str:
        return self._context.settings.hostname

    async def _stop_listening(self, request: StopListening) -> None:
        question = f"Disable further multiplexing on shared connection to {self._host}? "
        if not await self._context.permits(question):
            self._link.post(PermissionDenied(request.request_id, _DENIED))
            return
        self._master.stop_listening()
        self._link.post(Ok(request.request_id))

    async def _terminate(self, request: Terminate) -> None:
        if not await self._context.permits(f"Terminate shared connection to {self._host}? "):
            self._link.post(PermissionDenied(request.request_id, _DENIED))
            return
        self._link.post(Ok(request.request_id))
        await self._link.flush()
        self._master.terminate()
