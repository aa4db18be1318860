"""Properties of one client's own windows whose changes it hears of, mapped or not.

The events are what is known here; ``own_windows`` needs none, as it knows only what the client
alone decides, until others have a reason to write there.

A client that selects PropertyNotify on a window of its own hears of every change, and so does the
conversation that its events pass through. What it wrote is what it reads, then, and what nobody
wrote is not there, until an event tells that somebody else wrote: a window manager, mostly.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. Long values, and more
properties than clients in earnest have, are not kept.

Follows the X Window System Protocol, version 11, §9 (ChangeProperty, GetProperty), §10
(PropertyNotify).
"""

import struct
from typing import Callable, List, Optional, Tuple

from .facts import ServerFacts
from .looks import Subject, Thing
from .resources import PROPERTY_MASK, OwnProperty, Resources, Window
from .roots import Property, build_property_answer
from .surroundings import Surroundings
from .xmessages import Request, build_reply, pad_length
from .xrequests import INTERN_ATOM

Excuse = Callable[[], bool]

LONGEST_VALUE = 1024
"""Longest value that is kept (bytes)."""

MOST_KEPT = 64
"""Most properties of one window that are kept, and most changes under way of one of them."""

MOST_WRITTEN = 512
"""Most properties of one window that are told apart from those that are not there."""

LOOKED_AT = (b"_NET_WM_STATE", b"WM_STATE", b"_NET_FRAME_EXTENTS", b"_NET_WM_DESKTOP")
"""What window managers write and toolkits read, as soon as they hear of it."""


class OwnProperties:
    """The properties of one client's windows; they lie with the windows in ``resources``."""

    def __init__(
        self, facts: ServerFacts, resources: Resources, surroundings: Surroundings
    ) -> None:
        self._facts = facts
        self._surroundings = surroundings
        self._looked_at = [_build_query(facts.order.value, name) for name in LOOKED_AT]
        self._resources = resources
        self._order = facts.order.value
        self._ints = struct.Struct(self._order + "III")

    def change(self, request: Request, good: bool) -> None:
        """Take note of a ChangeProperty; ``good`` where it surely replaces the value."""
        if len(request.data) < 24:
            return
        identifier, atom, kind = self._ints.unpack_from(request.data, 4)
        window = self._resources.windows.get(identifier)
        if window is None:
            return
        self._note(window, atom, False)
        self._change(window, atom, request.sequence)
        data = request.data
        whole = len(data) == request.size <= 24 + LONGEST_VALUE
        if not (good and whole and window.event_mask & PROPERTY_MASK):
            window.properties.pop(atom, None)
            return
        kept = window.properties.get(atom)
        if kept is None:
            if len(window.properties) >= MOST_KEPT:
                return
            kept = window.properties[atom] = OwnProperty()
            self._resources.annotated[window.identifier] = window
        if len(kept.changes) >= MOST_KEPT:
            del window.properties[atom]
            return
        size = struct.unpack_from(self._order + "I", data, 20)[0] * data[16] // 8
        kept.value = Property(kind, data[16], data[24 : 24 + size])
        kept.changes.append(request.sequence)

    def forget(self, sequence: int, window_id: int, atom: Optional[int] = None) -> None:
        """The client changes a property, or any, otherwise than by writing it."""
        window = self._resources.windows.get(window_id)
        if window is None:
            return
        if atom is None:
            window.properties.clear()
            window.written = None
            for looked_at in self._find_looked_at():
                self._change(window, looked_at, sequence)
        else:
            self._change(window, atom, sequence)
            window.properties.pop(atom, None)
            self._note(window, atom, False)

    def drop(self, window_id: int) -> None:
        """A window is no more: nobody is to look at its properties."""
        for atom in self._find_looked_at():
            self._surroundings.forget_property(window_id, atom)

    def take_event(self, sequence: int, window_id: int, atom: int) -> bool:
        """Take note of a PropertyNotify; tell whether it is of a change that is known here."""
        window = self._resources.windows.get(window_id)
        if window is None:
            return False
        kept = window.properties.get(atom)
        if kept is not None and kept.changes and kept.changes[0] == sequence:
            kept.changes.popleft()
            return True
        self._note(window, atom, True)
        if window.event_mask & PROPERTY_MASK and atom in self._find_looked_at():
            self._facts.looks.renew(Thing(Subject.PROPERTY, window_id, atom))
        if kept is not None and (not kept.changes or kept.changes[0] < sequence):
            kept.overwritten = True
            del window.properties[atom]
        return atom in window.properties

    def _find_looked_at(self) -> List[int]:
        """Return the atoms of the properties that the other end is asked to look at."""
        found = (self._facts.find_atom(query) for query in self._looked_at)
        return [self._ints.unpack_from(each[1] + bytes(4), 8)[0] for each in found if each]

    def _change(self, window: Window, atom: int, sequence: int) -> None:
        """Take note that the client is changing a property."""
        if window.event_mask & PROPERTY_MASK and atom in self._find_looked_at():
            self._surroundings.touch(Thing(Subject.PROPERTY, window.identifier, atom), sequence)

    @staticmethod
    def _note(window: Window, atom: int, by_others: bool) -> None:
        """Take note that a property of a window may be there."""
        if window.written is None:
            return
        if len(window.written) >= MOST_WRITTEN:
            window.written = None
        else:
            window.written[atom] = by_others or window.written.get(atom, False)

    def answer(self, request: Request) -> Optional[Tuple[bytes, Excuse]]:
        """Return the reply to a GetProperty of an own window; None where it is not known.

        With it comes what tells later whether others were heard to write the property meanwhile.
        """
        data = request.data
        if len(data) != 24 or data[1]:
            return None
        identifier, atom, kind = self._ints.unpack_from(data, 4)
        window = self._resources.windows.get(identifier)
        if window is None or not (kind == 0 or self._facts.is_atom(kind)):
            return None
        kept = window.properties.get(atom)
        if kept is not None:
            mine, value = kept, build_property_answer(self._order, data, kept.value)
            return None if value is None else (value, lambda: mine.overwritten)
        seen = self._answer_seen(window, atom, data)
        if seen is not None:
            return seen
        written = window.written
        if written is None or atom in written or not self._facts.is_atom(atom):
            return None
        others = written
        return build_reply(self._order, 0, bytes(24)), lambda: others.get(atom, False)

    def _answer_seen(
        self, window: Window, atom: int, data: bytes
    ) -> Optional[Tuple[bytes, Excuse]]:
        """The same of a property that others wrote, and that the other end has looked at."""
        if not window.event_mask & PROPERTY_MASK or atom not in self._find_looked_at():
            return None
        looks, thing = self._facts.looks, Thing(Subject.PROPERTY, window.identifier, atom)
        seen, number = looks.find(thing), looks.number(thing)
        if seen is None:
            return None
        kind, _, count = self._ints.unpack_from(seen, 8)
        value: Optional[bytes] = build_reply(self._order, 0, bytes(24))
        if kind:
            size = count * seen[1] // 8
            found = Property(kind, seen[1], seen[32 : 32 + size])
            value = build_property_answer(self._order, data, found)
        return None if value is None else (value, lambda: looks.number(thing) != number)


def _build_query(order: str, name: bytes) -> bytes:
    """Return the InternAtom that asks for a name, as it is kept."""
    units = 2 + (len(name) + 3) // 4
    head = struct.pack(order + "BBHHxx", INTERN_ATOM, 0, units, len(name))
    return head + name + bytes(pad_length(len(name)))
