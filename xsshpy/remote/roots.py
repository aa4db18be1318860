"""What is known of the root windows: attributes and properties that everybody sees and may change.

The side next to the server tells of every change. What a client of ours changes is not known from
its request until news of it come.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. A client can't make this
grow: whoever changes too many properties ends the knowledge of that root window's.

Follows the X Window System Protocol, version 11, §9 (GetWindowAttributes, GetProperty).
"""

import struct
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from .xmessages import build_reply

PROPERTIES_KEPT = 1024
"""Most properties of a root window that are kept, and most that clients may be changing."""

CARD32 = 0xFFFFFFFF

PROPERTY_CHANGE = 1 << 22
"""The events that whoever watches the root windows selects: they stay selected."""


class Property(NamedTuple):
    """The value of a window's property; ``kind`` is its type's atom, ``unit`` 8, 16 or 32 bits."""

    kind: int
    unit: int
    data: bytes


class RootWindows:
    """The root windows of one server, for clients of the byte order ``order`` (of ``struct``)."""

    def __init__(self, order: str) -> None:
        self._order = order
        self.attributes: Dict[int, bytes] = {}
        """GetWindowAttributes' reply by root window, as long as nobody selects other events."""
        self._properties: Dict[int, Optional[Dict[int, Optional[Property]]]] = {}
        self._changing: Dict[Tuple[int, int], int] = {}

    # -- attributes --

    def select(self, root: int, before: int, after: int) -> None:
        """A client selects other events on a root window; all clients can see that.

        What it selects no more may still be selected by others.
        """
        known = self.attributes.get(root)
        if known is None:
            return
        selected = struct.unpack_from(self._order + "I", known, 32)[0]
        if before & ~after & ~PROPERTY_CHANGE:
            del self.attributes[root]
        elif after & ~selected:
            mask = struct.pack(self._order + "I", selected | after)
            self.attributes[root] = b"".join((known[:32], mask, known[36:]))

    def answer_attributes(self, root: int, own_mask: int, installed: int) -> Optional[bytes]:
        """Return the reply to GetWindowAttributes of a root window; None where it's not known."""
        known = self.attributes.get(root)
        if known is None:
            return None
        selected = struct.unpack_from(self._order + "I", known, 32)[0]
        masks = struct.pack(self._order + "II", selected | own_mask, own_mask)
        return b"".join((known[:25], bytes((installed,)), known[26:32], masks, known[40:]))

    # -- properties --

    def tell(self, root: int, atom: int, told: Optional[Property]) -> None:
        """Take over news of a property; None: it has a value that nobody told."""
        watched = self._properties.setdefault(root, {})
        if watched is None:
            return
        if atom not in watched and len(watched) >= PROPERTIES_KEPT:
            self._properties[root] = None
        else:
            watched[atom] = None if (root, atom) in self._changing else told

    def tell_absent(self, root: int, atom: int) -> None:
        """Take over news of a property that is not there; so the root window is watched."""
        watched = self._properties.setdefault(root, {})
        if watched is not None and (root, atom) not in self._changing:
            watched.pop(atom, None)

    def begin_change(self, root: int, atom: int) -> bool:
        """A client is changing a property: until the server did that, news may be older.

        Return whether the end of the change matters.
        """
        if self._properties.get(root) is None:
            return False
        if len(self._changing) >= PROPERTIES_KEPT:
            self._properties[root] = None
            return False
        self._changing[root, atom] = self._changing.get((root, atom), 0) + 1
        self.tell(root, atom, None)
        return True

    def end_change(self, root: int, atom: int) -> None:
        """The server has carried out a change that began; the next news are right."""
        count = self._changing.pop((root, atom), 0)
        if count > 1:
            self._changing[root, atom] = count - 1

    def names(self, root: int) -> List[int]:
        """Return the atoms of the properties that are known to be there."""
        return list(self._properties.get(root) or ())

    def answer_property(self, request: bytes, is_atom: Callable[[int], bool]) -> Optional[bytes]:
        """Return the reply to a GetProperty of a watched root window; None where it's not known."""
        if len(request) != 24 or request[1]:  # a read that deletes
            return None
        root, atom, kind = struct.unpack_from(self._order + "III", request, 4)
        watched = self._properties.get(root)
        if watched is None or not is_atom(atom) or not (kind == 0 or is_atom(kind)):
            return None
        if atom not in watched:
            return build_reply(self._order, 0, bytes(24))
        found = watched[atom]
        return None if found is None else build_property_answer(self._order, request, found)


def build_property_answer(order: str, request: bytes, found: Property) -> Optional[bytes]:
    """Return the reply to a GetProperty that deletes nothing; None where servers may differ."""
    kind, offset, length = struct.unpack_from(order + "III", request, 12)
    pack, size = order + "III12x", len(found.data)
    if kind not in (0, found.kind):
        if found.unit != 8:  # servers tell the length in units, the protocol in bytes
            return None
        return build_reply(order, found.unit, struct.pack(pack, found.kind, size, 0))
    if offset * 4 > size or (length * 4 - (length * 4 & CARD32) and length * 4 & CARD32 < size):
        return None  # an error, or where servers count in 32 bits
    value = found.data[offset * 4 : (offset + length) * 4]
    left = size - offset * 4 - len(value)
    head = struct.pack(pack, found.kind, left, len(value) * 8 // found.unit)
    return build_reply(order, found.unit, head, value)
