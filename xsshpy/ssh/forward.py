"""Port forwarding: all forwards of one connection, and what the ``~`` escapes do with them.

What listens here is in :mod:`forward_local`, what the server listens for in :mod:`forward_remote`;
both number their connections in one table, as ssh does. What ssh says about forwards, and on which
level, is said in its words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.forward_local import LocalForwards
from xsshpy.ssh.forward_remote import PortOpener, RemoteForwards
from xsshpy.ssh.forward_spec import (
    Endpoint,
    Forward,
    ForwardKind,
    TcpEndpoint,
    parse_forward_options,
)
from xsshpy.ssh.forward_table import ForwardTable
from xsshpy.ssh.forward_words import describe_remote
from xsshpy.ssh.session import SessionChannel
from xsshpy.ssh.tunnel import Tunnel, TunnelRequest
from xsshpy.values import dataclass

_REMOTE = (ForwardKind.REMOTE, ForwardKind.REMOTE_DYNAMIC)


@dataclass(eq=False)
class OpenedForward:
    """A forward that is open; ``port`` is the one that the server chose, where it had to."""

    forward: Forward
    port: int = 0


class Forwarder:
    """All forwards of one connection. Call :meth:`close` at the end.

    ``settings`` say how forwards behave (GatewayPorts, ExitOnForwardFailure, PermitRemoteOpen,
    StreamLocalBind…, AddressFamily).
    """

    def __init__(self, connection: ClientConnection, settings: Settings, console: Console) -> None:
        self._connection = connection
        self._console = console
        self._options = parse_forward_options(settings.keywords)
        self._has_session = settings.session_type != "none"
        self._table = ForwardTable()
        family = settings.address_family
        self._local = LocalForwards(connection, self._table, self._options, family, console)
        self._remote = RemoteForwards(connection, self._table, self._options, family, console)
        self._tunnel: Tunnel | None = None
        self._session_number = 0
        self._requests: list[asyncio.Task[bool]] = []
        self._opened: list[OpenedForward] = []
        self._listens = True
        # A channel's window is room at the other end. On a slow way there, many windows' worth
        # would wait here, before what is typed.
        connection.watch_writing(self._table.hold)

    # -- what the story calls --

    async def start(self, forwards: Sequence[Forward], tunnel: TunnelRequest | None = None) -> bool:
        """Listen here and send the requests to the server, without waiting for its answers.

        With a ``tunnel`` its device is opened too. What failed has been said.

        Returns False only where ExitOnForwardFailure ends the run; :meth:`confirm` tells the rest.
        """
        local = [forward for forward in forwards if forward.kind not in _REMOTE]
        opened = []
        for forward in local:
            self._local.announce(forward)
            opened.append(await self._local.open(forward))
            if opened[-1]:
                self._opened.append(OpenedForward(forward))
        if local and not all(opened):
            if self._options.exit_on_failure:
                self._console.fatal("Could not request local forwarding.")
                return False
            if not any(opened):
                self._console.error("Could not request local forwarding.")
        self._listens = all(opened)
        for forward in forwards:
            if forward.kind in _REMOTE:
                self._console.debug(1, describe_remote(forward))
                self._ask(forward, at_start=True)
        if tunnel is not None and not self._open_tunnel(tunnel):
            return False
        if self._has_session:
            self._session_number = self._table.reserve()
        await asyncio.sleep(0)  # the tasks send their requests in this turn of the loop
        return True

    def _open_tunnel(self, request: TunnelRequest) -> bool:
        """Open a tunnel; return whether the run goes on."""
        tunnel = Tunnel(self._connection, self._table, request, self._console)
        words = "Could not request tunnel forwarding."
        if not tunnel.open_device():
            if self._options.exit_on_failure:
                self._console.fatal(words)
                return False
            self._console.error(words)
            return True
        self._tunnel = tunnel
        self._requests.append(asyncio.create_task(tunnel.connect()))
        return True

    @property
    def interface(self) -> str:
        """The name of the tunnel's device here; empty where there is none."""
        return self._tunnel.interface if self._tunnel is not None else ""

    def _ask(self, forward: Forward, *, at_start: bool) -> None:
        self._requests.append(asyncio.create_task(self._request(forward, at_start=at_start)))

    async def _request(self, forward: Forward, *, at_start: bool) -> bool:
        answer = await self._remote.request(forward, at_start=at_start)
        if answer.succeeded and at_start:
            self._opened.append(OpenedForward(forward, answer.port))
        return answer.succeeded

    async def confirm(self) -> bool:
        """Wait for the server's answers; return whether all forwards are open."""
        return all(await asyncio.gather(*self._requests)) and self._listens

    @property
    def open_count(self) -> int:
        """How many connections are being forwarded; ssh waits for them when a session ends.

        As with ssh, those that still speak SOCKS do not count.
        """
        return self._table.open_count

    async def wait_until_idle(self) -> None:
        """Wait until no connection is being forwarded, and no tunnel is there: as ssh does."""
        await self._table.wait_until(lambda: not self.open_count and not self._has_tunnel)

    @property
    def _has_tunnel(self) -> bool:
        return self._tunnel is not None and self._tunnel.is_open

    async def close(self) -> None:
        """Close all listeners and connections at once. Unix sockets stay, as with ssh."""
        for task in self._requests:
            task.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        await self._local.close()
        self._remote.close()
        if self._tunnel is not None:
            self._tunnel.close()
        await self._table.abort()

    # -- what the passengers of a shared connection call --

    def reserve_number(self) -> int:
        """Take a number of ssh's list for another session."""
        return self._table.reserve()

    def release_number(self, number: int) -> None:
        """Give the number back when the session is over."""
        self._table.release(number)

    def find(self, forward: Forward) -> OpenedForward | None:
        """Return the same forward if it is open."""
        for opened in self._opened:
            if opened.forward == forward:
                return opened
        return None

    async def open_shared(self, forward: Forward) -> OpenedForward | None:
        """Open one more, and return it when it is open; None where it can't be."""
        if forward.kind in _REMOTE:
            answer = await self._remote.ask(
                forward, tell_port=lambda line: self._console.debug(1, line)
            )
            succeeded, port = answer.succeeded, answer.port
        else:
            succeeded, port = await self._local.open(forward), 0
        if not succeeded:
            return None
        opened = OpenedForward(forward, port)
        self._opened.append(opened)
        return opened

    def lend_port(self, host: str, port: int, opener: PortOpener) -> bool:
        """Let a passenger take what arrives at a port of the server; False where it is not free."""
        return self._remote.lend(host, port, opener)

    def reclaim_port(self, host: str, port: int) -> None:
        """Let nothing in any more at a port that was lent."""
        self._remote.reclaim(host, port)

    def close_shared(self, opened: OpenedForward) -> bool:
        """End a forward; return whether it was open still. What is being carried stays."""
        self._opened.remove(opened)
        listen = opened.forward.listen
        if opened.port and isinstance(listen, TcpEndpoint):
            listen = TcpEndpoint(listen.host, opened.port)
        return self.cancel(opened.forward.kind, listen)

    # -- what the escapes call --

    async def add(self, forward: Forward) -> bool:
        """Open one more; return whether it listens, or the server was asked to."""
        if forward.kind not in _REMOTE:
            return await self._local.open(forward)
        self._ask(forward, at_start=False)
        return True

    def cancel(self, kind: ForwardKind, listen: Endpoint) -> bool:
        """End what listens there; return whether anything did. What is being carried stays."""
        if kind in _REMOTE:
            return self._remote.cancel(listen)
        return self._local.cancel(kind, listen)

    def stop_listening(self) -> None:
        """Take no more connections here."""
        self._local.stop_all()

    def describe(self) -> str:
        """Return what ``~#`` shows, as ssh writes it to a terminal in raw mode."""
        lines = {carried.number: carried.describe() for carried in self._table.connections()}
        if self._tunnel is not None:
            lines.update(self._tunnel.describe())
        for channel in self._connection._channels.values():
            if isinstance(channel, SessionChannel):
                number = channel.number or self._session_number
                lines[number] = (
                    f"  #{number} client-session (t4 [session] "
                    f"r{channel.remote_number} i0/0 o0/0 e[write]/0 fd 0/1/2 sock -1 cc -1 "
                    "io 0x01/0x00)\r\n"
                )
        heading = "The following connections are open:\r\n"
        return heading + "".join(lines[number] for number in sorted(lines))
