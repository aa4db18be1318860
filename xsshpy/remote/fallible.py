"""Which requests without a reply may fail, as far as one client's own resources tell.

An error names the request that it is for by its sequence number, and programs that expect errors
(Tk's error handlers, GDK's error traps) look at nothing else. Once a later request was answered,
libraries take that number for a wrap, and the error would have to be numbered anew: a program that
expected it would die of it. So nothing is answered early while one that may fail is under way.

What cannot fail but may cause an event is no obstacle: an event's number tells a program nothing.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. A request is judged before
its effect on the resources is followed. What is not known here may fail.

Follows the X Window System Protocol, version 11, §9 (the errors of each request).
"""

import struct

from .facts import ServerFacts
from .resources import INPUT_OUTPUT, Resources
from .xmessages import Request
from .xrequests import FIRST_EXTENSION_OPCODE

CREATE_WINDOW = 1
CHANGE_WINDOW_ATTRIBUTES = 2
REPARENT_WINDOW = 7
CONFIGURE_WINDOW = 12
CHANGE_PROPERTY = 18
SET_SELECTION_OWNER = 22
SEND_EVENT = 25
GRAB_BUTTON = 28
SET_INPUT_FOCUS = 42
CREATE_GC = 55
CLEAR_AREA = 61
CREATE_COLORMAP = 78
BELL = 104

LOUDEST = 100
"""Bell's percentage, and its least below zero."""

SIBLING = 1 << 5
"""ConfigureWindow's mask bit for a sibling, which must be one."""

MATCHED_ATTRIBUTES = 1 << 0 | 1 << 2 | 1 << 11 | 1 << 13
"""Window attributes that must match something, or that one client alone may have."""

REVERT_TO_PARENT = 2
POINTER_EVENTS = 0x7FFC
MODIFIERS = 0xFF
ANY_MODIFIER = 0x8000
EVENT_MASK = 1 << 11
EXCLUSIVE_EVENTS = 1 << 2 | 1 << 18 | 1 << 20 | 0xFE000000
"""Button presses and redirection, which one client alone can select; and what is no event."""

ONLY_TRUSTED = b"XTEST"
"""An extension that the X server shows to trusted clients alone."""

OF_WINDOW = frozenset((4, 5, 8, 9, 10, 11, 12, 13, 18, 19, 61))
"""Requests that cannot fail for a window that is there."""

OF_CONTEXT = frozenset((56, 57, 58, 59, 60))
FREEING = frozenset((46, 54, 79, 95))
"""Requests that cannot fail for what the client made, once for each."""

DRAWING = frozenset((64, 65, 66, 67, 68, 69, 70, 71, 72, 74, 75, 76, 77))
COPYING = frozenset((62, 63))
HARMLESS = frozenset((27, 32, 36, 37, 127))
"""Requests that never fail, or only for values that no library lets pass."""

OF_ITSELF = frozenset(
    [(b"XKEYBOARD", 1), (b"XKEYBOARD", 5)]
    + [(b"XFIXES", minor) for minor in range(5, 15)]
    + [(b"SYNC", minor) for minor in (2, 3, 4, 6, 8, 9, 11, 14, 15, 16)]
)
"""Extension requests about what the client made itself, or about no resource at all."""

OF_EXTENSION_WINDOW = frozenset(
    [(b"RANDR", 4), (b"XFIXES", 2), (b"XInputExtension", 46), (b"MIT-SCREEN-SAVER", 2)]
)
"""Extension requests that only fail where the window behind their head is not there."""

SHAPES = frozenset((1, 2, 3))
OF_PICTURES = frozenset((6, 7, 8, 10, 11, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28, 30, 31))
"""RENDER's requests about what only this client can have made, and libraries have checked."""


class FallibleRequests:
    """Judges the void requests of one client. ``facts`` and ``resources`` are those of its
    predictor."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self._resources = resources
        self._ints = struct.Struct(facts.order.value + "III")
        self._short = struct.Struct(facts.order.value + "H")

    def may_fail(self, request: Request) -> bool:
        """Tell whether a request may be refused by the server."""
        opcode = request.opcode
        if opcode in HARMLESS:
            return False
        first, second, third = self._ints.unpack_from(request.data[:16] + bytes(12), 4)
        if opcode == BELL:
            return LOUDEST < request.data[1] < 256 - LOUDEST
        if opcode >= FIRST_EXTENSION_OPCODE:
            return self._extension_may_fail(request, first, second)
        if opcode in OF_WINDOW:
            missing = first not in self._resources.windows
            if opcode == CHANGE_PROPERTY and self._is_trusted:
                missing = missing and first not in self._facts.screens
            return missing or self._is_odd(request)
        if opcode in FREEING:
            return not self._resources.is_own(first)
        if opcode in OF_CONTEXT:
            return first not in self._resources.contexts
        if opcode in DRAWING:
            return not self._may_draw(first, second)
        if opcode in COPYING:
            return not (self._is_drawable(first) and self._may_draw(second, third))
        if opcode == GRAB_BUTTON:
            return not self._may_grab(request)
        if opcode == SET_INPUT_FOCUS:
            window = self._resources.windows.get(first)
            return not (window and window.is_shown()) or request.data[1] > REVERT_TO_PARENT
        return self._other_may_fail(opcode, first, second, third)

    def _other_may_fail(self, opcode: int, first: int, second: int, third: int) -> bool:
        windows, screens = self._resources.windows, self._facts.screens
        if opcode in (CREATE_WINDOW, CREATE_COLORMAP):
            return second not in windows and second not in screens
        if opcode == CREATE_GC:
            return not self._is_drawable(second) and second not in screens
        if opcode == SET_SELECTION_OWNER:
            return bool(first) and first not in windows
        if opcode == SEND_EVENT:
            return first not in windows and first not in screens
        if opcode == CHANGE_WINDOW_ATTRIBUTES:
            return self._attributes_may_fail(first, second, third)
        if opcode == REPARENT_WINDOW:
            return first not in windows or not (second in screens or self._is_apart(second, first))
        return True

    def _may_grab(self, request: Request) -> bool:
        """Tell whether a GrabButton surely works: nobody else can have grabbed it there."""
        data = request.data
        window = self._resources.windows.get(self._ints.unpack_from(data[:16] + bytes(12), 4)[0])
        if window is None or len(data) != 24 or request.size != 24:
            return False
        if window.parent is None and window.mapped is not False:
            return False  # window managers grab there
        events, modes, confined, cursor = struct.unpack_from(
            self._facts.order.value + "HHII", data, 8
        )
        modifiers = self._short.unpack_from(data, 22)[0]
        right = data[1] <= 1 and not events & ~POINTER_EVENTS and not modes & ~0x0101
        right = right and not confined and (not cursor or cursor in self._resources.cursors)
        return right and (modifiers == ANY_MODIFIER or not modifiers & ~MODIFIERS)

    def _attributes_may_fail(self, identifier: int, mask: int, value: int) -> bool:
        """Tell whether a ChangeWindowAttributes may be refused; ``value`` is its first one."""
        windows = self._resources.windows
        if mask == EVENT_MASK and not value & EXCLUSIVE_EVENTS:
            return identifier not in windows and identifier not in self._facts.screens
        return identifier not in windows or bool(mask & MATCHED_ATTRIBUTES)

    def _is_apart(self, parent: int, identifier: int) -> bool:
        """Tell whether a window that is to be another's parent is not below it."""
        window = self._resources.windows.get(parent)
        apart = window is not None
        while window is not None:
            apart = apart and window.identifier != identifier
            window = window.parent
        return apart

    @property
    def _is_trusted(self) -> bool:
        return ONLY_TRUSTED in self._facts.extensions.values()

    def _is_odd(self, request: Request) -> bool:
        """Tell whether a request fails though its window is there."""
        if request.opcode == CHANGE_PROPERTY:
            mode, unit = request.data[1], request.data[16] if len(request.data) > 16 else 0
            return mode != 0 or unit not in (8, 16, 32)
        if request.opcode == CLEAR_AREA:
            identifier = self._ints.unpack_from(request.data + bytes(12), 4)[0]
            return request.data[1] > 1 or not self._is_drawable(identifier)
        if request.opcode == CONFIGURE_WINDOW:
            return not self._has_good_sibling(request)
        return False

    def _has_good_sibling(self, request: Request) -> bool:
        if len(request.data) != request.size or request.size < 12:
            return False
        window, windows = (
            self._ints.unpack_from(request.data + bytes(4), 4)[0],
            self._resources.windows,
        )
        mask: int = self._short.unpack_from(request.data, 8)[0]
        if not mask & SIBLING:
            return True
        place = 12 + 4 * bin(mask & (SIBLING - 1)).count("1")
        if request.size < place + 4:
            return False
        sibling = self._ints.unpack_from(request.data + bytes(12), place)[0]
        known = sibling in windows and sibling != window
        return known and windows[sibling].parent is windows[window].parent

    def _is_drawable(self, identifier: int) -> bool:
        window = self._resources.windows.get(identifier)
        if window is not None:
            return window.kind == INPUT_OUTPUT
        return identifier in self._resources.pixmaps

    def _may_draw(self, drawable: int, context: int) -> bool:
        known, chosen = self._resources.drawable(drawable), self._resources.contexts.get(context)
        if known is None or chosen is None or not self._is_drawable(drawable):
            return False
        return known.depth == chosen.depth

    def _extension_may_fail(self, request: Request, first: int, second: int) -> bool:
        name = self._facts.extensions.get(request.opcode, b"")
        request_of = (name, request.data[1])
        if name == b"SHAPE" and request.data[1] in SHAPES:
            return second not in self._resources.windows
        if name == b"RENDER" and request.data[1] in OF_PICTURES:
            if first in self._resources.pictures and not self._resources.find_picture(first):
                return True  # its window is gone
            return not (self._resources.is_own(first) or self._resources.is_own(second))
        if request_of == (b"XFIXES", 23):
            return not self._resources.is_own(first)
        if request_of in OF_EXTENSION_WINDOW:
            return first not in self._resources.windows and first not in self._facts.screens
        return request_of not in OF_ITSELF
