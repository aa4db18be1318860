"""A line of some length between a client and a server: a TCP proxy on loopback that delays.

It counts the round trips that a client needs, and stands for distance where throughput is measured.

How round trips are counted. Time alone does not tell: a busy machine is slow without being far
away. So each piece of data has a depth, as in Lamport's clocks: one more than the depth of all that
its sender had been given before it sent it. The client's connect is what begins, at depth 1; what
the server says on its own arrives at the client at depth 2, what the client says before it has
heard anything arrives at the server at depth 1. What the client waited for makes its next piece
deeper, what it sends without waiting doesn't. The output of a command arrives at an even depth,
and half of that is the number of round trips since the connection was there.

The depth can come out too large, never too small: when an end is so slow that the other's answer to
the first half of a flight is there before it has sent the second half. Against that stands the
delay: only an end that takes two delays longer with something that it does not wait for is
mistaken. Who wants an exact number takes the least of a few runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.support.processes import end_popen
from tests.support.warmstart import open_process

UNDER_WAY = 64 << 20
"""Bytes that may be on the line in each direction: more than any window that SSH opens."""

_PIECE = 1 << 18
_JOIN_SECONDS = 10.0
_FIRST_BYTE_SECONDS = 30.0
_REST = 5.0
"""Delays after which who has said nothing has nothing to say."""


@dataclass
class _Piece:
    """Something on its way: it arrives at ``due``, by the loop's clock. No data: the end."""

    due: float
    depth: int
    data: bytes


class _End:
    """One end of a connection: what it has been told, and what is on the way to it."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.depth = 0
        self.coming: deque[_Piece] = deque()
        self.under_way = 0
        self.free_at = 0.0
        self.is_watched = False
        self.has_ended = False


class _Line:
    """One connection through the link."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
        self._link = link
        self._loop = loop
        self.client = _End(client)
        self.server = _End(socket.socket())
        self._is_closed = False
        self._is_stalled = False
        self._watch(self.client)
        loop.call_later(link.delay, self._connect)

    def _connect(self) -> None:
        """Let the client's connect arrive."""
        if self._is_closed:
            return
        try:
            self.server.socket.connect(self._link.target)
        except OSError:
            self.close()
            return
        self.server.depth = 1
        self._watch(self.server)

    def _other(self, end: _End) -> _End:
        return self.server if end is self.client else self.client

    def stall(self) -> None:
        """Let nothing more arrive at either end, and neither of them know."""
        self._is_stalled = True
        for end in (self.client, self.server):
            self._unwatch(end)
            self._loop.remove_writer(end.socket)

    def _watch(self, end: _End) -> None:
        if self._is_stalled:
            return
        end.socket.setblocking(False)
        end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(end.socket, self._receive, end)
        end.is_watched = True

    def _unwatch(self, end: _End) -> None:
        self._loop.remove_reader(end.socket)
        end.is_watched = False

    def _receive(self, end: _End) -> None:
        """Put what an end has sent on its way to the other."""
        other = self._other(end)
        while end.is_watched:
            try:
                data = end.socket.recv(_PIECE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._send(other, data, end.depth + 1)
            end.has_ended = not data
            if end.has_ended or other.under_way >= UNDER_WAY:
                self._unwatch(end)

    def _send(self, end: _End, data: bytes, depth: int) -> None:
        now = self._loop.time()
        taken = len(data) / self._link.rate if self._link.rate else 0.0
        end.free_at = max(end.free_at, now) + taken
        end.coming.append(_Piece(end.free_at + self._link.delay, depth, data))
        end.under_way += len(data)
        if len(end.coming) == 1:
            self._loop.call_at(end.coming[0].due, self._deliver, end)

    def _deliver(self, end: _End) -> None:
        """Hand over what has arrived by now."""
        if self._is_closed or self._is_stalled:
            return
        self._loop.remove_writer(end.socket)
        while end.coming and not self._is_closed:
            piece = end.coming[0]
            if piece.due > self._loop.time():
                self._loop.call_at(piece.due, self._deliver, end)
                return
            # What it sent until now, it sent without knowing what it is given now.
            self._receive(end)
            end.depth = max(end.depth, piece.depth)
            if not self._hand_over(end, piece):
                return

    def _hand_over(self, end: _End, piece: _Piece) -> bool:
        """Hand over one piece; False where that has to wait for the receiver."""
        try:
            sent = end.socket.send(piece.data) if piece.data else 0
        except BlockingIOError:
            self._loop.add_writer(end.socket, self._deliver, end)
            return False
        except OSError:  # it is gone, and so is the line
            self.close()
            return False
        if not piece.data:
            with contextlib.suppress(OSError):
                end.socket.shutdown(socket.SHUT_WR)
        if end is self.client:
            self._link.carried_to_client += sent
        else:
            self._link.carried_to_server += sent
        piece.data = piece.data[sent:]
        if not piece.data:
            end.coming.popleft()
        self._make_room(end, sent)
        return True

    def _make_room(self, end: _End, size: int) -> None:
        end.under_way -= size
        source = self._other(end)
        if end.under_way < UNDER_WAY and not source.is_watched and not source.has_ended:
            self._watch(source)
        if self.client.has_ended and self.server.has_ended and not end.coming and not source.coming:
            self.close()

    def close(self) -> None:
        """Drop the connection."""
        if self._is_closed:
            return
        self._is_closed = True
        for end in (self.client, self.server):
            self._unwatch(end)
            self._loop.remove_writer(end.socket)
            end.socket.close()


class Link:
    """A line to a server, to be connected to at ``host`` and ``port``; ends with ``stop()``.

    ``delay``: seconds one way. ``rate``: bytes a second each way, None for as many as go.
    """

    host = "127.0.0.1"

    def __init__(
        self, target: tuple[str, int], *, delay: float = 0.03, rate: float | None = None
    ) -> None:
        self.target = target
        self.delay = delay
        self.rate = rate
        self.carried_to_client = 0
        """Bytes that all connections' clients were given so far."""
        self.carried_to_server = 0
        """Bytes that the server was given."""
        self._lines: list[_Line] = []
        self._listener = socket.create_server((self.host, 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._loop.add_reader(self._listener, self._accept)
        self._thread = threading.Thread(target=self._loop.run_forever, name="link")
        self._thread.start()

    @property
    def round_trips(self) -> float:
        """Round trips from the newest connection to what its client was given last."""
        return self._lines[-1].client.depth / 2 if self._lines else 0.0

    @property
    def round_trips_of_all(self) -> list[float]:
        """The same of every connection that there was, oldest first."""
        return [line.client.depth / 2 for line in self._lines]

    def wait_for_rest(self) -> float:
        """Wait until nothing is said; return the round trips of the newest connection by then."""
        before, now = -1.0, self.round_trips
        while now > before:
            time.sleep(_REST * self.delay)
            before, now = now, self.round_trips
        return now

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self._lines.append(_Line(self, self._loop, client))

    def stall(self) -> None:
        """Lose the network under the connections there are; new ones go through."""
        for line in self._lines:
            self._loop.call_soon_threadsafe(line.stall)

    def stop(self) -> None:
        """Drop all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._close)
        self._thread.join(_JOIN_SECONDS)
        self._loop.close()

    def _close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for line in self._lines:
            line.close()
        self._loop.stop()


def count_round_trips(
    argv: Sequence[str], environment: Mapping[str, str], link: Link, *, is_shared: bool = False
) -> float:
    """Start a client that connects through the link; return the trips until it prints a byte.

    With ``is_shared`` it goes through the newest connection, which is a master's.
    It is ended then, and must not have anything more to do: its command had better wait for input.
    """
    before = link.wait_for_rest() if is_shared else 0.0
    process: subprocess.Popen[bytes] = open_process(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
    )
    killer = threading.Timer(_FIRST_BYTE_SECONDS, process.kill)
    killer.start()
    try:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.read(1)
        trips = link.round_trips - before
        assert first, process.stderr.read()
        return trips
    finally:
        killer.cancel()
        killer.join()
        end_popen(process)
