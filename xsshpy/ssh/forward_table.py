"""What is being forwarded now: a number, a state and a name for each connection, as ssh has them.

ssh numbers listening sockets, sessions and connections alike, each with the lowest number that is
free, and its messages name them: ``channel 2: open failed: …``. ``~#`` shows the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable, Coroutine
from enum import Enum

from xsshpy.console import sanitise
from xsshpy.ssh.splice import Splice
from xsshpy.values import dataclass, field

MOST_CONNECTIONS = 4096
"""Most forwarded connections at one time, where so many files may be open."""
_SPARE_DESCRIPTORS = 48
_NAME_LIMIT = 300


class State(Enum):
    """Where a connection stands; the values are ssh's channel types, which ``~#`` shows."""

    OPENING = 3
    OPEN = 4
    CONNECTING = 12
    NEGOTIATING = 13
    REMOTE_NEGOTIATING = 21
    REMOTE_CONNECTING = 22


_NEGOTIATES = (State.NEGOTIATING, State.REMOTE_NEGOTIATING)
_KEEPS_RUNNING = (State.OPENING, State.OPEN, State.REMOTE_CONNECTING)


@dataclass(eq=False)
class Carried:
    """One connection that is being forwarded."""

    number: int
    kind: str
    name: str
    state: State
    splice: Splice
    opened: socket.socket | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a task that ends with the connection."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def describe(self) -> str:
        """Return the line of ``~#``."""
        splice = self.splice
        channel, transport = splice.channel, splice.transport
        descriptor = -1
        if transport is not None:
            descriptor = transport.get_extra_info("socket").fileno()
        elif self.opened is not None:
            descriptor = self.opened.fileno()
        remote = channel.remote_number if channel is not None else None
        known = "nr0" if remote is None else f"r{remote}"
        unsent = channel.unsent if channel is not None else 0
        waiting = transport.get_write_buffer_size() if transport is not None else 0
        inward, outward = _half(splice.socket_eof, unsent), _half(splice.channel_eof, waiting)
        wanted = (descriptor >= 0 and splice.wants_data) + 2 * (waiting > 0)
        return (
            f"  #{self.number} {sanitise(self.name, _NAME_LIMIT)} (t{self.state.value} "
            f"[{self.kind}] {known} i{inward}/{unsent} o{outward}/{waiting} e[closed]/0 "
            f"fd {descriptor}/{descriptor}/-1 sock {descriptor} cc -1 io 0x{wanted:02x}/0x00)\r\n"
        )


def _half(ended: bool, waiting: int) -> int:
    """Return ssh's number for one direction: open, draining, or closed."""
    return 0 if not ended else 1 if waiting else 3


class ForwardTable:
    """All connections of one run, and the numbers that are taken."""

    def __init__(self) -> None:
        self._connections: dict[int, Carried] = {}
        self._reserved: set[int] = set()
        self._changed = asyncio.Event()
        self._limit = _decide_limit()
        self.held = False

    @property
    def open_count(self) -> int:
        """How many connections keep a session from ending, as ssh counts them."""
        return sum(carried.state in _KEEPS_RUNNING for carried in self._connections.values())

    @property
    def is_full(self) -> bool:
        """Whether there may be no more connections."""
        return len(self._connections) >= self._limit

    def connections(self) -> list[Carried]:
        """Return what there is now, by number."""
        return [self._connections[number] for number in sorted(self._connections)]

    def reserve(self) -> int:
        """Take a number for something else than a connection."""
        number = self._lowest()
        self._reserved.add(number)
        return number

    def release(self, number: int) -> None:
        """Give a number back that was taken for something else than a connection."""
        self._reserved.discard(number)

    def admit(
        self,
        kind: str,
        state: State,
        name: str,
        *,
        opened: Callable[[Carried], None] = lambda _: None,
        reader: Callable[[Carried, bytes], None] | None = None,
    ) -> Carried:
        """Add a connection; it leaves the table by itself when both its ends are closed."""
        number = self._lowest()
        holder: list[Carried] = []

        def read(data: bytes) -> None:
            assert reader is not None
            reader(holder[0], data)

        splice = Splice(
            lambda: self._forget(holder[0]),
            opened=lambda: opened(holder[0]),
            reader=read if reader is not None else None,
        )
        carried = Carried(number, kind, name, state, splice)
        holder.append(carried)
        self._connections[number] = carried
        splice.hold_socket("connection", self.held)
        return carried

    def change(self, carried: Carried, state: State) -> None:
        """Note where a connection stands now."""
        carried.state = state
        self._changed.set()

    def tell_change(self) -> None:
        """Let those who wait for the end look again."""
        self._changed.set()

    def hold(self, held: bool) -> None:
        """Let no local socket be read, or let all."""
        self.held = held
        for carried in self._connections.values():
            carried.splice.hold_socket("connection", held)

    async def wait_for_room(self) -> None:
        """Wait until there may be another connection."""
        while self.is_full:
            if self.make_room():
                await asyncio.sleep(0)  # then its socket is closed
            else:
                await self._wait_for_change()

    def make_room(self) -> bool:
        """Let another connection in; return whether it may.

        Where there are too many, the SOCKS client that has not said for longest where it wants to
        go is hung up on: anybody on the machine can connect, and must not keep others out.
        """
        if not self.is_full:
            return True
        for carried in self._connections.values():
            if carried.state in _NEGOTIATES:
                self._forget(carried)
                for task in carried.tasks:
                    task.cancel()
                carried.splice.give_up()
                return True
        return False

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so that depends on the connections."""
        while not condition():
            await self._wait_for_change()

    async def abort(self) -> None:
        """Close everything at once; when this returns no socket is left, and no task."""
        tasks: list[asyncio.Task[None]] = []
        for carried in self.connections():
            tasks.extend(carried.tasks)
            carried.splice.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for carried in self.connections():
            carried.splice.abort()
        # The loop closes an aborted socket in its next turn.
        for _ in range(3):
            await asyncio.sleep(0)
        # Their channels may still wait for the server's last word, which nobody waits for here.
        self._connections.clear()
        self._changed.set()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _forget(self, carried: Carried) -> None:
        if self._connections.get(carried.number) is carried:
            del self._connections[carried.number]
        self._changed.set()

    def _lowest(self) -> int:
        number = 0
        while number in self._reserved or number in self._connections:
            number += 1
        return number


def _decide_limit() -> int:
    """Leave some descriptors to everything else."""
    with contextlib.suppress(OSError, ValueError):
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            return max(1, min(MOST_CONNECTIONS, soft - _SPARE_DESCRIPTORS))
    return MOST_CONNECTIONS
