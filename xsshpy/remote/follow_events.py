"""Judges requests that ask extensions for events: they are safe where nothing about them is wrong.

Asking causes no event by itself, but for RANDR: who asks after a change that the connection has not
heard of is told at once.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. Servers refuse requests of
some extensions to clients that did not say their version before.

Follows the protocols of XFIXES 5.0 (§7), X Input 2.4 (XISelectEvents), RANDR 1.5 (§7) and the X
Keyboard Extension 1.0 (§16.3).
"""

import struct
from typing import Dict, Set, Tuple

from .facts import ServerFacts
from .judgement import RISKY, SAFE, Handler
from .resources import Resources
from .xmessages import Request

ALL_DEVICES = 0
ALL_MASTERS = 1
XI_QUERY_VERSION = 47


def _bits(*ranges: Tuple[int, int]) -> int:
    """Return a mask with the bits in ranges, from and to, both included."""
    return sum(1 << bit for first, last in ranges for bit in range(first, last + 1))


HIERARCHY = _bits((11, 11))
RAW = _bits((13, 17), (22, 24))
TOGETHER = (_bits((18, 20)), _bits((27, 29)), _bits((30, 32)))
"""Touches, pinches and swipes: three kinds of events each, selected all or none, by one client."""

PLAIN_EVENTS = _bits((1, 26))
GESTURES = _bits((27, 32))
GESTURES_SINCE = (2, 4)

KEYBOARD_EVENTS = 0x0FFF
MAP_NOTIFY = 1 << 1
STATE_NOTIFY = 1 << 2
STATE_DETAILS = 0x3FFF
MAP_PARTS = 0xFF
CORE_KEYBOARD = 0x100

SELECTION_EVENTS = 0x07
SCREEN_EVENTS = 0x3F


class EventFollower:
    """Judges one client's requests for events: ``handlers`` by extension and minor opcode."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self._resources = resources
        self._order = facts.order.value
        self._introduced: Set[bytes] = set()
        self.handlers: Dict[Tuple[bytes, int], Handler] = {
            (b"RANDR", 4): self._select_screens,
            (b"XFIXES", 2): self._select_selection,
            (b"XInputExtension", 46): self._select_input,
            (b"XKEYBOARD", 1): self._select_keyboard,
        }

    def introduce(self, name: bytes, request: Request) -> None:
        """Take note of a client that says which version of an extension it wants."""
        if name == b"XFIXES" and request.size == len(request.data) == 12:
            said = struct.unpack_from(self._order + "I", request.data, 4)[0] >= 2
        elif name == b"XKEYBOARD" and request.size == len(request.data) == 8:
            said = struct.unpack_from(self._order + "HH", request.data, 4) == (1, 0)
        else:
            return
        if said:
            self._introduced.add(name)

    def may_ask(self, name: bytes) -> bool:
        """Tell whether the server answers this client's questions to an extension."""
        return name != b"XKEYBOARD" or name in self._introduced

    def _is_window(self, identifier: int) -> bool:
        return identifier in self._resources.windows or identifier in self._facts.screens

    def _select_screens(self, request: Request) -> bool:
        if request.size != 12 or self._facts.screens_changed:
            return RISKY
        window, events = struct.unpack_from(self._order + "IH", request.data, 4)
        return self._is_window(window) and 0 < events <= SCREEN_EVENTS

    def _select_selection(self, request: Request) -> bool:
        if request.size != 16 or b"XFIXES" not in self._introduced:
            return RISKY
        window, selection, events = struct.unpack_from(self._order + "III", request.data, 4)
        known = self._is_window(window) and self._facts.is_atom(selection)
        return known and not events & ~SELECTION_EVENTS

    def _select_keyboard(self, request: Request) -> bool:
        if b"XKEYBOARD" not in self._introduced or len(request.data) != request.size:
            return RISKY
        if request.size not in (16, 20):
            return RISKY
        device, which, clear, every, parts, wanted = struct.unpack_from(
            self._order + "HHHHHH", request.data, 4
        )
        right = device == CORE_KEYBOARD and not which & ~KEYBOARD_EVENTS and not clear & every
        right = right and not (clear | every) & ~which
        right = right and not parts & ~MAP_PARTS and not wanted & ~parts
        detailed = which & ~(clear | every | MAP_NOTIFY)
        if request.size == 16:
            return right and not detailed
        affected, details = struct.unpack_from(self._order + "HH", request.data, 16)
        right = right and detailed == STATE_NOTIFY
        return right and not affected & ~STATE_DETAILS and not details & ~affected

    def _select_input(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 16:
            return RISKY
        identifier, count = struct.unpack_from(self._order + "IH", data, 4)
        if not count or not self._is_window(identifier):
            return RISKY
        position = 12
        for _ in range(count):
            if position + 4 > len(data):
                return RISKY
            device, units = struct.unpack_from(self._order + "HH", data, position)
            end = position + 4 + 4 * units
            if not 1 <= units <= 2 or end > len(data):
                return RISKY
            words = struct.unpack_from("{}{}I".format(self._order, units), data, position + 4)
            mask = words[0] | (words[1] << 32 if units == 2 else 0)
            if not self._are_good_events(identifier, device, mask):
                return RISKY
            position = end
        return SAFE if position == len(data) else RISKY

    def _are_good_events(self, identifier: int, device: int, mask: int) -> bool:
        """Tell whether these events can be selected on a window for a kind of devices."""
        allowed = PLAIN_EVENTS | (GESTURES if self._has_gestures() else 0)
        if device not in (ALL_DEVICES, ALL_MASTERS) or mask & ~allowed:
            return False
        if mask & HIERARCHY and device != ALL_DEVICES:
            return False
        window = self._resources.windows.get(identifier)
        if window is not None and mask & RAW:
            return False
        alone = window is not None and (window.parent is not None or window.mapped is False)
        for three in TOGETHER:
            if mask & three and (mask & three != three or not alone):
                return False
        return True

    def _has_gestures(self) -> bool:
        """Tell whether the server surely knows gestures."""
        for key, (_, reply) in self._facts.replies.items():
            of_input = self._facts.extensions.get(key[0]) == b"XInputExtension"
            if of_input and key[1] == XI_QUERY_VERSION:
                version: Tuple[int, int] = struct.unpack_from(self._order + "HH", reply, 8)
                return version >= GESTURES_SINCE
        return False
