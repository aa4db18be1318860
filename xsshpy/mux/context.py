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

FindX11 = Callable[[], Awaitable[X11Run | None]]


class SharedX11:
    """X11 for every session of a connection: one display, proved once, one agent.

    ``first`` is what the master's own session has, if it has one.
    """

    def __init__(self, first: asyncio.Task[X11Run | None] | None, find: FindX11) -> None:
        self._first = first
        self._find = find
        self._found: X11Run | None = None
        self._turn = asyncio.Lock()

    async def get(self) -> X11Run | None:
        """Return the ways to carry X11; None where there is no display, or X11 is off."""
        async with self._turn:
            if self._found is not None:
                return self._found
            own = await asyncio.shield(self._first) if self._first is not None else None
            if own is not None:
                return own
            self._found = await self._find()
            return self._found

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
