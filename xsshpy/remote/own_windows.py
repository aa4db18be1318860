"""What a client's requests alone decide about its windows: properties, and that nothing is below.

A property of a window is what the client made it, until others have a reason to write there: its
window was mapped, is asked to receive a selection, was named in a message to others, or was given
another parent. From then on nothing is said of that window's properties.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. A client can't make this
grow: long values, and those of too many properties, are not kept. A change that may fail makes the
property unknown.

Follows the X Window System Protocol, version 11, §9 (ChangeProperty to SendEvent, QueryTree,
TranslateCoordinates).
"""

import struct
from typing import Dict, Optional, Tuple

from .facts import ServerFacts
from .resources import Resources, Window
from .roots import Property, build_property_answer
from .xmessages import Request, build_reply, pad_length
from .xrequests import INTERN_ATOM

VALUE_LIMIT = 4096
"""Longest value that is kept (bytes)."""

KEPT_LIMIT = 256
"""Most properties of a window that are followed."""

WINDOWS_LIMIT = 64
"""Most windows whose properties are followed."""

Properties = Dict[int, Optional[Property]]
"""By atom; None: it has a value that nobody knows. What is not there is absent."""

MAPPING = frozenset((7, 8, 9, 24))
"""Requests after which others may write to a window that they name: ReparentWindow, MapWindow,
MapSubwindows, ConvertSelection."""

CHANGING = frozenset((1, 4, 5, 18, 19, 114))
"""Requests that make or destroy windows, or change properties."""

MAP_SUBWINDOWS = 9
SEND_EVENT = 25
CLIENT_MESSAGE = 33
STATE = b"_NET_WM_STATE"


class OwnWindows:
    """Follows the properties of one client's windows, and answers what is asked of these."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self._resources = resources
        self._order = facts.order.value
        self._properties: Dict[int, Properties] = {}
        units = 2 + (len(STATE) + 3) // 4
        self._intern_state = b"".join(
            (
                struct.pack(self._order + "BBHHxx", INTERN_ATOM, 0, units, len(STATE)),
                STATE,
                bytes(pad_length(len(STATE))),
            )
        )

    def create(self, window: int) -> None:
        """A window is new, and has no properties."""
        self._properties.pop(window, None)
        if len(self._properties) >= WINDOWS_LIMIT:
            for gone in [each for each in self._properties if each not in self._resources.windows]:
                del self._properties[gone]
        if len(self._properties) < WINDOWS_LIMIT and window in self._resources.windows:
            self._properties[window] = {}

    def fail(self, opcode: int) -> None:
        """A request failed: what it was to change is not sure."""
        if opcode in CHANGING:
            self._properties.clear()

    def expose(self, request: Request) -> None:
        """Take note of a request (``MAPPING``) after which others may write to a window."""
        if not self._properties:
            return
        if request.opcode == MAP_SUBWINDOWS or len(request.data) < 8:
            self._properties.clear()
        else:
            window = struct.unpack_from(self._order + "I", request.data, 4)[0]
            self._properties.pop(window, None)

    def tell_others(self, request: Request) -> None:
        """Take note of a SendEvent: others may write to the windows that it names.

        To the root window go messages to the window manager; it is alone in acting on them. One
        about the state of a window that isn't mapped may make it change that state.
        """
        if not self._properties:
            return
        if request.size != len(request.data) or request.size != 44:
            self._properties.clear()
            return
        words = struct.unpack_from(self._order + "11I", request.data)
        if words[1] in self._facts.screens and self._facts.managed is False:
            return
        about_state = words[5] == self._state_atom() and request.data[12] & 0x7F == CLIENT_MESSAGE
        for word in words[3:]:
            known = self._properties.get(word)
            if known is not None and about_state and words[1] in self._facts.screens:
                known[words[5]] = None
            else:
                self._properties.pop(word, None)

    def _state_atom(self) -> Optional[int]:
        found = self._facts.find_atom(self._intern_state)
        return None if found is None else struct.unpack_from(self._order + "I", found[1], 8)[0]

    def change(self, request: Request) -> None:
        """Follow a ChangeProperty."""
        if len(request.data) < 24:
            return
        window, atom, kind = struct.unpack_from(self._order + "III", request.data, 4)
        if not self._resources.is_own(window):
            self._properties.clear()  # others may learn here which windows there are
            return
        known = self._properties.get(window)
        if known is None:
            return
        if atom not in known and len(known) >= KEPT_LIMIT:
            del self._properties[window]
            return
        unit, count = request.data[16], struct.unpack_from(self._order + "I", request.data, 20)[0]
        size = count * unit // 8
        known[atom] = None
        right = request.data[1] == 0 and unit in (8, 16, 32)  # it replaces what is there
        right = right and self._facts.is_atom(atom) and self._facts.is_atom(kind)
        right = right and request.size == len(request.data) == 24 + size + pad_length(size)
        if right and size <= VALUE_LIMIT:
            known[atom] = Property(kind, unit, request.data[24 : 24 + size])

    def delete(self, request: Request) -> None:
        """Follow a DeleteProperty."""
        if request.size != 12:
            return
        window, atom = struct.unpack_from(self._order + "II", request.data, 4)
        known = self._properties.get(window)
        if known is not None and self._facts.is_atom(atom):
            known.pop(atom, None)

    def forget(self, window: int, atom: int) -> None:
        """Somebody else wrote a property, as the client was told."""
        known = self._properties.get(window)
        if known is None:
            return
        if atom not in known and len(known) >= KEPT_LIMIT:
            del self._properties[window]
        else:
            known[atom] = None

    def rotate(self, request: Request) -> None:
        """Follow a RotateProperties: it is too rare to be looked at."""
        if len(request.data) >= 8:
            window = struct.unpack_from(self._order + "I", request.data, 4)[0]
            self._properties.pop(window, None)

    def answer_property(self, request: Request, confirmed: int) -> Optional[bytes]:
        """Return the reply to a GetProperty; None where it is not known."""
        data = request.data
        if len(data) != 24 or request.size != 24:
            return None
        window, atom = struct.unpack_from(self._order + "II", data, 4)
        known, made = self._properties.get(window), self._resources.windows.get(window)
        if known is None or made is None or made.since > confirmed:
            return None
        if data[1]:  # it goes if it was read to its end
            if atom in known:
                known[atom] = None
            return None
        kind = struct.unpack_from(self._order + "I", data, 12)[0]
        if not self._facts.is_atom(atom) or not (kind == 0 or self._facts.is_atom(kind)):
            return None
        if atom not in known:
            return build_reply(self._order, 0, bytes(24))
        found = known[atom]
        return None if found is None else build_property_answer(self._order, data, found)

    # -- what is below a window --

    def _alone(self, request: Request, size: int, confirmed: int) -> Optional[Window]:
        """Return the window that a request names, where it surely has none below it."""
        if request.size != size or len(request.data) != size:
            return None
        window = self._resources.windows.get(
            struct.unpack_from(self._order + "I", request.data, 4)[0]
        )
        if window is None or window.children or window.adopts or window.since > confirmed:
            return None
        return window

    def answer_tree(self, request: Request, confirmed: int) -> Optional[bytes]:
        """Return the reply to a QueryTree of a window that nobody has taken into another one."""
        window = self._alone(request, 8, confirmed)
        if window is None or not window.settled or window.mapped is None:
            return None
        parent = window.root if window.parent is None else window.parent.identifier
        head = struct.pack(self._order + "IIH14x", window.root, parent, 0)
        return build_reply(self._order, 0, head)

    def answer_translation(self, request: Request, confirmed: int) -> Optional[bytes]:
        """Return the reply to a TranslateCoordinates from a window to itself."""
        window = self._alone(request, 16, confirmed)
        if window is None or not self._is_to_itself(request.data):
            return None
        place: Tuple[int, int] = struct.unpack_from(self._order + "hh", request.data, 12)
        return build_reply(self._order, 1, struct.pack(self._order + "Ihh16x", 0, *place))

    def _is_to_itself(self, data: bytes) -> bool:
        return data[4:8] == data[8:12]
