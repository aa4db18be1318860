"""What all passengers of one master share: the connection, what was settled about it, its display.

Pure data, and the display, which is looked for when the first session asks for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from xsshpy.console import Console
from xsshpy.mux.soundness import Soundness
from xsshpy.settings import Invocation, Settings
from xsshpy.ssh.connect import Session
from xsshpy.ssh.forward import Forwarder
from xsshpy.values import dataclass
from xsshpy.x11_ways import X11Run

FindX11 = Callable[[Callable[[str], None]], Awaitable[X11Run | None]]
"""Finds the display; what there is to be said of it goes to whom it is given."""

Tell = Callable[[str], None]

MOST_HELD = 64
"""Most lines that wait for somebody to come whom they concern; later ones are lost."""


class SharedX11:
    """X11 for every session of a connection: one display, proved once, one agent.

    ``first`` is what the master's own session has, if it has one. What is said of the display goes
    to ``report``; in an automatic master (:meth:`enter`) to the sessions that wait for it, and
    later to all that have it.
    """

    def __init__(
        self, first: asyncio.Task[X11Run | None] | None, find: FindX11, report: Tell
    ) -> None:
        self._first = first
        self._find = find
        self._report = report
        self._found: X11Run | None = None
        self._turn = asyncio.Lock()
        self._held: list[str] = []
        self._notes: list[str] = []
        self._waiting: set[Tell] = set()
        self._inside: set[Tell] = set()

    async def get(self) -> X11Run | None:
        """Return the ways to carry X11; None where there is no display, or X11 is off."""
        async with self._turn:
            if self._found is not None:
                return self._found
            own = await asyncio.shield(self._first) if self._first is not None else None
            if own is not None:
                return own
            self._found = await self._find(self._report)
            return self._found

    async def enter(self, tell: Tell) -> X11Run | None:
        """The same for a session that hears what is said of the display, until it leaves.

        Where no display was found, or it did not work, it is looked for again: who comes later may
        have one. Call :meth:`settle` once it is known whether the display works.
        """
        self._waiting.add(tell)
        async with self._turn:
            if self._found is not None and not self._found.local.is_refused:
                for line in self._notes:
                    tell(line)
                return self._found
            first, self._first = self._first, None
            if first is not None:
                self._found = await asyncio.shield(first)
                self._notes = list(self._held)
                if self._found is not None or self._held:
                    return self._found
            if self._found is not None:
                found, self._found = self._found, None
                await found.close()
            self._notes = []
            self._found = await self._find(self._note)
            return self._found

    def _note(self, line: str) -> None:
        """Say what each run with this display has to say, as far as it is known at once."""
        if self._turn.locked() and self._found is None:
            self._notes.append(line)
        self.say(line)

    def settle(self, tell: Tell) -> None:
        """All that concerns a session's start has been said."""
        if tell in self._waiting:
            held, self._held = self._held, []
            for line in held:
                tell(line)
            self._waiting.discard(tell)
            self._inside.add(tell)

    def leave(self, tell: Tell) -> None:
        """A session has ended."""
        self._waiting.discard(tell)
        self._inside.discard(tell)

    def say(self, line: str) -> None:
        """Say something of the display to all whom it concerns, or to the first who comes."""
        concerned = self._waiting or self._inside
        if not concerned and len(self._held) < MOST_HELD:
            self._held.append(line)
        for tell in list(concerned):
            tell(line)

    async def wait_until_idle(self) -> None:
        """Wait until the last X client of the passengers is gone."""
        if self._found is not None:
            await self._found.wait_until_idle()

    async def close(self) -> None:
        """End all clients of the passengers."""
        found, self._found = self._found, None
        if found is not None:
            await found.close()


@dataclass(frozen=True)
class MasterContext:
    """What a passenger's session needs; ``asks``: the user is asked before anything is done.

    ``soundness`` is there where the user did not ask for the master.
    """

    session: Session
    invocation: Invocation
    settings: Settings
    console: Console
    forwarder: Forwarder
    x11: SharedX11
    asks: bool = False
    soundness: Soundness | None = None

    @property
    def is_automatic(self) -> bool:
        """Whether the user did not ask for a master."""
        return self.soundness is not None

    async def find_fault(self) -> str:
        """Say why the connection should carry no more sessions; nothing where it may."""
        return "" if self.soundness is None else await self.soundness.find_fault()

    async def permits(self, question: str) -> bool:
        """Ask the user, where ControlMaster says so."""
        return not self.asks or await self.console.ask_permission(question)
