"""Properties of one client's own windows, as far as the client itself decides and watches them.

A client that selects PropertyNotify on a window of its own hears of every change, and so does the
conversation that its events pass through. What it wrote is what it reads, then, until an event
tells that somebody else wrote. Where a window manager is, it writes as it likes, and nothing is
said.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. Long values, and more
properties than clients in earnest have, are not kept.

Follows the X Window System Protocol, version 11, §9 (ChangeProperty, GetProperty), §10
(PropertyNotify).
"""

import struct
from typing import Optional

from .facts import ServerFacts
from .resources import PROPERTY_MASK, OwnProperty, Resources, Window
from .roots import Property, build_property_answer
from .xmessages import Request

LONGEST_VALUE = 1024
"""Longest value that is kept (bytes)."""

MOST_KEPT = 64
"""Most properties of one window that are kept, and most changes under way of one of them."""


class OwnProperties:
    """The properties of one client's windows; they lie with the windows in ``resources``."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
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
        if len(kept.changes) >= MOST_KEPT:
            del window.properties[atom]
            return
        size = struct.unpack_from(self._order + "I", data, 20)[0] * data[16] // 8
        kept.value = Property(kind, data[16], data[24 : 24 + size])
        kept.changes.append(request.sequence)

    def forget(self, window_id: int, atom: Optional[int] = None) -> None:
        """The client changes a property, or any, otherwise than by writing it."""
        window = self._resources.windows.get(window_id)
        if window is None:
            return
        if atom is None:
            window.properties.clear()
        else:
            window.properties.pop(atom, None)

    def take_event(self, sequence: int, window_id: int, atom: int) -> None:
        """Take note of a PropertyNotify: somebody else's, unless it has the number of a change."""
        window = self._resources.windows.get(window_id)
        kept = None if window is None else window.properties.get(atom)
        if window is None or kept is None:
            return
        if kept.changes and kept.changes[0] == sequence:
            kept.changes.popleft()
        elif not kept.changes or kept.changes[0] < sequence:
            del window.properties[atom]

    def answer(self, request: Request) -> Optional[bytes]:
        """Return the reply to a GetProperty of an own window; None where it is not known."""
        data = request.data
        if len(data) != 24 or data[1] or self._facts.managed is not False:
            return None
        identifier, atom, kind = self._ints.unpack_from(data, 4)
        window: Optional[Window] = self._resources.windows.get(identifier)
        kept = None if window is None else window.properties.get(atom)
        if kept is None or not (kind == 0 or self._facts.is_atom(kind)):
            return None
        return build_property_answer(self._order, data, kept.value)
