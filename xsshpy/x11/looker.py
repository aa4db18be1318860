"""Looks at windows for the agent: a root window's children, frames, properties, the focus.

What is seen is told with the number of the order to look, and again as often as it changes, for a
while: what nobody orders anew is told no more. Looking asks and selects what any client with the
same rights may.

Rules kept here: the orders come from the other host: there is a limit to them, and to what is
watched. Nothing is told that changed while it was looked at. Where the X server does not tell of
changes (to clients that it doesn't trust), nothing but the focus is seen.

Follows the X Window System Protocol, version 11, §9 and §10; the Nonrectangular Window Shape
Extension 1.1.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Collection

from xsshpy.remote.looks import (
    DEEPEST,
    MOST_LOOKS,
    Frame,
    Look,
    Subject,
    Thing,
    build_frames,
)
from xsshpy.remote.records import Record, Told

STRUCTURE_NOTIFY = 1 << 17
SUBSTRUCTURE_NOTIFY = 1 << 19
PROPERTY_CHANGE = 1 << 22

CREATE_NOTIFY, DESTROY_NOTIFY, REPARENT_NOTIFY = 16, 17, 21
OF_WINDOWS = range(16, 27)
CHANGES_CHILDREN = frozenset((CREATE_NOTIFY, DESTROY_NOTIFY, REPARENT_NOTIFY, 22, 26))
PROPERTY_NOTIFY = 28

TOLD_AGAIN = 32
"""How often something is told without a new order to look."""

MOST_WATCHED = 512
"""Most windows that are watched."""

MOST_CHILDREN = 64
"""Most windows in a frame, and 64 times as many in a root window."""

LONGEST_PROPERTY = 1024
"""Longest property that is told (bytes)."""

Ask = Callable[[bytes], Awaitable["bytes | None"]]


class _Order:
    """What is to be looked at, and what was told of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.told: tuple[int, bytes] | None = None
        self.times = 0


class Looker:
    """Looks over one connection: ``send`` a request, ``ask`` one that has a reply."""

    def __init__(
        self, send: Callable[[bytes], object], ask: Ask, tell: Callable[[list[Record]], None]
    ) -> None:
        self._send = send
        self._ask = ask
        self._tell = tell
        self._roots: Collection[int] = ()
        self._shape: tuple[int, int] | None = None
        self._orders: dict[Thing, _Order] = {}
        self._due: dict[Thing, None] = {}
        self._watched: set[int] = set()
        self._around: dict[int, int] = {}
        """By window in or around a frame, the window that is framed."""
        self._chains: dict[int, list[int]] = {}
        """By window that is framed, the windows around it, from the inner to the outer."""
        self._looking: asyncio.Task[None] | None = None

    def begin(self, roots: Collection[int], shape: tuple[int, int] | None) -> None:
        """The server tells of changes below ``roots``; ``shape`` are SHAPE's opcode and event."""
        self._roots, self._shape = roots, shape

    def look(self, orders: list[Look]) -> None:
        """Follow orders."""
        for order in orders:
            if order.thing in self._orders:
                self._orders[order.thing].number = order.number
                self._orders[order.thing].times = 0
            elif len(self._orders) < MOST_LOOKS:
                self._orders[order.thing] = _Order(order.number)
            self._mark(order.thing)

    def close(self) -> asyncio.Task[None] | None:
        """Look no more; return what is to be waited for."""
        if self._looking is not None:
            self._looking.cancel()
        return self._looking

    # -- changes --

    def take_event(self, code: int, data: bytes) -> None:
        """Take note of an event: what it is about is looked at again."""
        if code not in OF_WINDOWS and code != PROPERTY_NOTIFY:
            if self._shape is not None and code == self._shape[1]:
                self._mark_frame(struct.unpack_from("<I", data, 4)[0])
            return
        heard, subject = struct.unpack_from("<II", data, 4)
        if code == PROPERTY_NOTIFY:
            self._mark(Thing(Subject.PROPERTY, heard, subject))
            return
        if heard in self._roots and code in CHANGES_CHILDREN:
            self._mark(Thing(Subject.CHILDREN, heard))
        self._mark_frame(heard)
        self._mark_frame(subject)
        if code == DESTROY_NOTIFY:
            self._forget(subject)

    def _mark(self, thing: Thing) -> None:
        if thing in self._orders:
            self._due[thing] = None
            if self._looking is None or self._looking.done():
                self._looking = asyncio.ensure_future(self._look_at_all())

    def _mark_frame(self, window: int) -> None:
        self._mark(Thing(Subject.FRAME, self._around.get(window, window)))

    def _forget(self, window: int) -> None:
        """A window is no more: its id may be another one's soon."""
        self._watched.discard(window)
        self._around.pop(window, None)
        if self._chains.pop(window, None) is not None:
            self._around = {each: own for each, own in self._around.items() if own != window}
        for thing in [each for each in self._orders if each.window == window]:
            del self._orders[thing]

    # -- looking --

    async def _look_at_all(self) -> None:
        """Look until nothing has changed meanwhile."""
        while self._due:
            due, self._due = list(self._due), {}
            await asyncio.gather(*(self._look_at(thing) for thing in due))

    async def _look_at(self, thing: Thing) -> None:
        order = self._orders.get(thing)
        if order is None:
            return
        number = order.number
        seen = await self._see(thing)
        if thing in self._due or self._orders.get(thing) is not order:
            return  # it has changed, or is to be looked at later than this
        if order.told == (number, seen):
            return
        order.told = (number, seen)
        order.times += 1
        if order.times > TOLD_AGAIN:
            seen = b""
            del self._orders[thing]
        key = struct.pack(">III", thing.window, thing.detail, number)
        self._tell([Record(Told.SEEN, thing.subject.value, key, seen)])

    async def _see(self, thing: Thing) -> bytes:
        """Return what there is to tell; nothing where it can't be known."""
        if thing.subject is Subject.FOCUS:
            return await self._ask(struct.pack("<BBH", 43, 0, 1)) or b""
        if thing.subject is Subject.CHILDREN:
            reply = await self._ask_tree(thing.window) if thing.window in self._roots else None
            known = reply is not None and len(reply) <= 32 + 4 * MOST_CHILDREN * 64
            return reply if reply is not None and known else b""
        if not self._roots or not self._watch(thing.window, STRUCTURE_NOTIFY | PROPERTY_CHANGE):
            return b""
        if thing.subject is Subject.PROPERTY:
            return await self._see_property(thing)
        return await self._see_frames(thing.window)

    def _watch(self, window: int, events: int) -> bool:
        """Hear of what happens to a window; return whether there is room for it."""
        if window in self._roots:
            return False
        if window not in self._watched:
            if len(self._watched) >= MOST_WATCHED:
                return False
            self._watched.add(window)
            self._send(struct.pack("<BBHIII", 2, 0, 4, window, 1 << 11, events))
        return True

    async def _see_property(self, thing: Thing) -> bytes:
        units = LONGEST_PROPERTY // 4
        reply = await self._ask(
            struct.pack("<BBHIIIII", 20, 0, 6, thing.window, thing.detail, 0, 0, units)
        )
        if reply is None:  # it was gone when it was to be watched: nobody tells of its end
            self._forget(thing.window)
            return b""
        return b"" if any(reply[12:16]) else reply

    async def _see_frames(self, window: int) -> bytes:
        """Return the windows around one, from the inner to the outer."""
        chain = self._chains.get(window, [])
        frames = await self._see_chain(window, chain) if chain else None
        if frames is None:
            chain = await self._find_chain(window)
            frames = await self._see_chain(window, chain)
        if frames is None or not all(
            self._watch_shapes(frame.identifier, frame.tree, window) for frame in frames
        ):
            self._chains.pop(window, None)
            return b""
        self._chains[window] = chain
        if window not in self._watched:  # it went meanwhile
            self._forget(window)
            return b""
        return build_frames(frames)

    async def _find_chain(self, window: int) -> list[int]:
        """Return the windows around one, and begin to watch them."""
        chain: list[int] = []
        inner, tree = window, await self._ask_tree(window)
        while tree is not None:
            around = _parent(tree)
            if around in self._roots:
                return chain
            events = STRUCTURE_NOTIFY | SUBSTRUCTURE_NOTIFY
            if len(chain) == DEEPEST or not around or not self._watch(around, events):
                break
            self._around[around] = window
            chain.append(around)
            inner, tree = around, await self._ask_tree(around)
        if tree is None:
            self._forget(inner)
        return []

    async def _see_chain(self, window: int, chain: list[int]) -> list[Frame] | None:
        """Return what there is to tell of the windows around one; None where they are others."""
        trees = asyncio.gather(*(self._ask_tree(each) for each in (window, *chain)))
        places = asyncio.gather(
            *(self._ask(struct.pack("<BBHI", 14, 0, 2, each)) for each in chain)
        )
        translations = asyncio.gather(
            *(self._ask(struct.pack("<BBHII4x", 40, 0, 4, window, each)) for each in chain)
        )
        (tree, *others), found, translated = await trees, await places, await translations
        frames = []
        for around, *seen in zip(chain, others, found, translated, strict=True):
            above, place, moved = seen
            if tree is None or above is None or place is None or moved is None:
                return None
            if _parent(tree) != around:
                return None
            frames.append(Frame(around, _without_number(place), _without_number(moved), above))
            tree = above
        return frames if tree is not None and _parent(tree) in self._roots else None

    def _watch_shapes(self, frame: int, tree: bytes, framed: int) -> bool:
        """Hear of other shapes of the windows in a frame; return whether there is room for all."""
        children = struct.unpack_from(f"<{(len(tree) - 32) // 4}I", tree, 32)
        if len(children) > MOST_CHILDREN or len(self._around) > MOST_WATCHED:
            return False
        for window in (frame, *children):
            if self._shape is not None and (window == frame or window not in self._around):
                self._send(struct.pack("<BBHIBxxx", self._shape[0], 6, 3, window, 1))
            if window != framed:
                self._around[window] = framed
        return True

    async def _ask_tree(self, window: int) -> bytes | None:
        reply = await self._ask(struct.pack("<BBHI", 15, 0, 2, window))
        return None if reply is None else _without_number(reply)


def _parent(tree: bytes) -> int:
    """Return the parent that QueryTree's reply tells."""
    parent: int = struct.unpack_from("<I", tree, 12)[0]
    return parent


def _without_number(reply: bytes) -> bytes:
    return reply[:2] + b"\0\0" + reply[4:]
