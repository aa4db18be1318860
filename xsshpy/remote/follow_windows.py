"""Follows what one X client does to windows, and judges whether it is safe (see ``follow``).

Where a window manager or another client may have a hand in it, a window is unsettled: nothing is
said of it. What a request does that may fail holds from when the server is past it.

Rules kept here: sans-IO; Python 3.6 and later, standard library only.

Follows the X Window System Protocol, version 11, §9 (CreateWindow to ChangeProperty).
"""

import struct
from typing import Dict, Iterable, Optional, Tuple

from .facts import ServerFacts
from .judgement import RISKY, SAFE, Handler, read_values
from .resources import (
    BUTTON_MASK,
    COLORMAP_MASK,
    CROSSING_MASKS,
    DEPTH_LIMIT,
    EXPOSURE_MASK,
    FAMILY_LIMIT,
    INPUT_ONLY,
    INPUT_OUTPUT,
    PROPERTY_MASK,
    RESIZE_REDIRECT_MASK,
    STRUCTURE_MASK,
    SUBSTRUCTURE_MASK,
    SUBSTRUCTURE_REDIRECT_MASK,
    VISIBILITY_MASK,
    WINDOW_VALUES,
    Resources,
    Window,
)
from .xmessages import Request, pad_length

NORTH_WEST = 1
UNMAP = 0
PLAIN_WINDOW_VALUES = frozenset(
    ("background_pixel", "border_pixel", "backing_planes", "backing_pixel")
)
SMALL_WINDOW_VALUES = {
    "bit_gravity": 11,
    "win_gravity": 11,
    "backing_store": 3,
    "override_redirect": 2,
    "save_under": 2,
    "do_not_propagate": 0x2000,
}
EXCLUSIVE_MASKS = RESIZE_REDIRECT_MASK | SUBSTRUCTURE_REDIRECT_MASK
"""Events that one client alone can select on a window, and that change what requests do. So it is
with button presses, where another client knows the window."""

ALL_EVENTS = 0x01FFFFFF
NOTICED = EXPOSURE_MASK | VISIBILITY_MASK | CROSSING_MASKS
WALK_BASE = 1 << 18
WALK_SHARE = 16
"""How many windows inside others may be looked at, and how many more for each request, before a
client's windows are followed no more: with tens of thousands in one, each request costs that."""

PLACES = ("x", "y", "width", "height", "border", "sibling", "stack_mode")


class WindowFollower:
    """Judges requests about windows: ``handlers`` by opcode."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self._resources = resources
        self._managed = facts.managed
        self._walked = 0
        self.root_masks: Dict[int, int] = {}
        """The events that this client selected on root windows."""
        self._order = facts.order.value
        self._ints = struct.Struct(self._order + "II")
        self._place = struct.Struct(self._order + "hhHHHHII")
        self.handlers: Dict[int, Handler] = {
            1: self._create_window,
            2: self._change_window_attributes,
            4: self._destroy_window,
            5: self._destroy_subwindows,
            7: self._reparent_window,
            8: self._map_window,
            9: self._map_subwindows,
            10: self._unmap_window,
            11: self._unmap_subwindows,
            12: self._configure_window,
            61: self._clear_area,
        }

    def look_for_manager(self) -> None:
        """Take note of a window manager that came: it takes over what is mapped."""
        if self._facts.managed is self._managed:
            return
        self._managed = self._facts.managed
        if self._managed is not False:
            for window in self._resources.windows.values():
                if window.parent is None and window.mapped is not False:
                    window.unsettle()

    def take_event(self, code: int, window_id: int, parent_id: int) -> None:
        """Take note of what happened to a window: 17 DestroyNotify, 21 ReparentNotify."""
        window = self._resources.windows.get(window_id)
        if window is None:
            return
        if code == 17:
            self._resources.remove_window(window)
        elif parent_id not in self._resources.windows and parent_id not in self._facts.screens:
            self._resources.move_window(window, None)
            window.unsettle()
            window.moved = True

    def take_place(self, event: bytes) -> None:
        """Take note of a ConfigureNotify: somebody else may have moved or resized a window."""
        told, window_id, _, *place = struct.unpack_from(self._order + "IIIhhHHH", event, 4)
        window = self._resources.windows.get(window_id)
        if window is None or told != window_id or window.parent is not None:
            return
        if place != [window.x, window.y, window.width, window.height, window.border]:
            window.settled = False
            window.moved = True

    def _is_managed(self, window: Window) -> bool:
        """Tell whether a window manager may act for the server on what is done to a window."""
        outermost = window.parent is None and not window.attribute("override_redirect")
        return outermost and self._facts.managed is not False

    # -- making --

    def _create_window(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 32:
            return RISKY
        identifier, parent_id = self._ints.unpack_from(data, 4)
        x, y, width, height, border, kind, visual, mask = self._place.unpack_from(data, 12)
        values = read_values(self._order, data, 32, mask, WINDOW_VALUES)
        if not self._resources.claim(identifier) or values is None:
            return RISKY
        window = self._build_window(identifier, parent_id, data[1], kind, visual)
        if window is None:
            return RISKY
        window.x, window.y, window.width, window.height, window.border = x, y, width, height, border
        parent = window.parent
        alike = self._is_like_above(window, data[1], visual, values)
        if not values.get("colormap"):
            values["colormap"] = self._inherit_colormap(window)
        window.attributes = values
        right = width and height and kind <= INPUT_ONLY and window.kind == INPUT_OUTPUT
        right = right and alike
        right = right and (parent is None or parent.kind == INPUT_OUTPUT)
        right = right and self._are_safe_attributes(window, values)
        window.since = 0 if parent is None else parent.since
        if not right:
            window.since = request.sequence
        self._pull(window)
        if values.get("event_mask", 0) & PROPERTY_MASK:
            window.written = {}
        self._resources.add_window(window)
        noticed = parent is not None and parent.event_mask & SUBSTRUCTURE_MASK
        noticed = noticed or self.root_masks.get(parent_id, 0) & SUBSTRUCTURE_MASK
        return bool(right and not noticed)

    def _build_window(
        self, identifier: int, parent_id: int, depth: int, kind: int, visual: int
    ) -> Optional[Window]:
        """Return a window as it is if it can be made; None where its parent is not known."""
        parent = self._resources.windows.get(parent_id)
        screen = self._facts.screens.get(parent_id)
        if parent is not None and parent.level < DEPTH_LIMIT:
            kind = kind or parent.kind
            depth = 0 if kind == INPUT_ONLY else depth or parent.depth
            return Window(identifier, parent.root, parent, depth, visual or parent.visual, kind)
        if screen is not None:
            kind = kind or INPUT_OUTPUT
            depth = 0 if kind == INPUT_ONLY else depth or screen.depth
            return Window(identifier, screen.root, None, depth, visual or screen.visual, kind)
        return None

    def _is_like_above(
        self, window: Window, depth: int, visual: int, values: Dict[str, int]
    ) -> bool:
        """Tell whether a window's depth and visual are those of the window above.

        Others are as good where the window gets a border and a colormap of its own.
        """
        above = self._above(window)
        if depth in (0, above[0]) and visual in (0, above[1]):
            return True
        known = self._facts.visuals.get(visual)
        given = "border_pixel" in values and values.get("colormap")
        return bool(given and known is not None and known.depth == depth)

    def _above(self, window: Window) -> Tuple[int, int]:
        """Return depth and visual of the window above."""
        parent, screen = window.parent, self._facts.screens[window.root]
        return (screen.depth, screen.visual) if parent is None else (parent.depth, parent.visual)

    def _inherit_colormap(self, window: Window) -> int:
        if window.kind == INPUT_ONLY:
            return 0
        parent = window.parent
        if parent is None:
            return self._facts.screens[window.root].colormap
        return parent.attribute("colormap")

    def _are_safe_attributes(self, window: Window, values: Dict[str, int]) -> bool:
        """Tell whether attributes are surely right for a window, and change nothing at once."""
        for name, value in values.items():
            if name in PLAIN_WINDOW_VALUES:
                continue
            if name in SMALL_WINDOW_VALUES and value < SMALL_WINDOW_VALUES[name]:
                continue
            if name == "event_mask" and not value & (EXCLUSIVE_MASKS | ~ALL_EVENTS):
                continue
            if name == "cursor" and (not value or value in self._resources.cursors):
                continue
            if name == "colormap" and self._suits(window, value):
                continue
            if name == "background_pixmap" and value == 0:
                continue
            if name == "border_pixmap" and value == 0 and self._is_as_deep(window):
                continue
            return False
        return True

    def _is_as_deep(self, window: Window) -> bool:
        """Tell whether a window is as deep as the one above."""
        return window.depth == self._above(window)[0]

    def _suits(self, window: Window, colormap: int) -> bool:
        own = self._resources.colormaps.get(colormap)
        if own is not None:
            return own == (window.root, window.visual)
        screen = self._facts.colormaps.get(colormap)
        known = screen is not None and screen.root == window.root
        return bool(known and screen is not None and screen.visual == window.visual)

    def _change_window_attributes(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 12:
            return RISKY
        identifier, mask = self._ints.unpack_from(data, 4)
        values = read_values(self._order, data, 12, mask, WINDOW_VALUES)
        if identifier in self._facts.screens:
            return values is not None and self._select_on_root(identifier, values)
        window = self._resources.windows.get(identifier)
        if window is None or values is None:
            return RISKY
        safe = window.kind == INPUT_OUTPUT and self._are_safe_attributes(window, values)
        if values.get("event_mask", 0) & BUTTON_MASK and window.parent is None:
            safe = safe and window.mapped is False
        before = window.event_mask
        if values.get("colormap") == 0:
            values["colormap"] = self._inherit_colormap(window)
        window.attributes.update(values)
        if not safe:
            window.since = request.sequence
        if not values.get("event_mask", PROPERTY_MASK) & PROPERTY_MASK:
            window.properties.clear()
            window.written = None
        if window.parent is None and not window.event_mask & STRUCTURE_MASK:
            window.settled = window.settled and window.mapped is False
        self._pull(window)
        recoloured = "colormap" in values and (before | window.event_mask) & COLORMAP_MASK
        return bool(safe and not recoloured)

    @staticmethod
    def _pull(window: Window) -> None:
        """Unsettle a window that moves when the one above is resized, which others may do."""
        pulled = window.attribute("win_gravity", NORTH_WEST) != NORTH_WEST
        above = window.parent
        if pulled and above is not None:
            shown = above.parent is None and above.mapped is not False
            window.settled = window.settled and above.settled and not shown

    def _select_on_root(self, root: int, values: Dict[str, int]) -> bool:
        mask = values.get("event_mask")
        if mask is None:
            return RISKY
        self._facts.roots.select(root, self.root_masks.get(root, 0), mask)
        self.root_masks[root] = mask
        return len(values) == 1 and not mask & (EXCLUSIVE_MASKS | BUTTON_MASK | ~ALL_EVENTS)

    # -- taking away, moving --

    def _destroy_window(self, request: Request) -> bool:
        window = self._window_of(request, 8)
        if window is not None:
            self._resources.remove_window(window)
        return RISKY

    def _destroy_subwindows(self, request: Request) -> bool:
        window = self._window_of(request, 8)
        if window is not None:
            for child in list(window.children.values()):
                self._resources.remove_window(child)
        return RISKY

    def _reparent_window(self, request: Request) -> bool:
        window = self._window_of(request, 16)
        if request.size != 16:
            return RISKY
        parent_id, x, y = struct.unpack_from(self._order + "Ihh", request.data, 8)
        parent = self._resources.windows.get(parent_id)
        if window is None:
            if parent is not None:
                parent.adopts = True
            return RISKY
        if parent is None or window.is_above(parent) or not window.sink(parent.level + 1):
            self._resources.move_window(window, None)
            window.unsettle()
        else:
            self._resources.move_window(window, parent)
            window.x, window.y = x, y
            self._pull(window)
        window.since = request.sequence
        return RISKY

    # -- mapping --

    def _map_window(self, request: Request) -> bool:
        window = self._window_of(request, 8)
        if window is None:
            return RISKY
        self._map(window)
        return not self._may_tell(window)

    def _may_tell(self, window: Window) -> bool:
        """Tell whether mapping or unmapping a window may cause an event for this client."""
        parent = window.parent
        if parent is None or window.event_mask & STRUCTURE_MASK:
            return True
        if parent.event_mask & SUBSTRUCTURE_MASK:
            return True
        if not parent.may_be_shown:
            return False
        family = parent.family(FAMILY_LIMIT)
        if family is None or self._resources.sees_crossings:
            return True
        while parent.parent is not None:
            parent = parent.parent
            family.append(parent)
        noticed = self.root_masks.get(window.root, 0) & NOTICED
        return bool(noticed or any(each.event_mask & NOTICED for each in family))

    def _map(self, window: Window) -> None:
        """Follow a MapWindow: of a top-level a window manager may make what it likes.

        Where there is none, it may be moved and resized all the same, as by xdotool; then the
        client is told, if it wants to be.
        """
        managed = self._is_managed(window)
        if managed:
            window.unsettle()
        elif window.parent is None and not window.event_mask & STRUCTURE_MASK:
            window.settled = False
        if window.mapped is False:
            window.mapped = True
        for child in self._walk(window):
            self._pull(child)
        if managed:
            return
        if window.parent is None and self._facts.managed is not False:
            window.plain = False  # a window manager may want to hear of it all the same

    def _map_subwindows(self, request: Request) -> bool:
        window = self._window_of(request, 8)
        if window is not None:
            for child in self._walk(window):
                self._map(child)
        return RISKY

    def _unmap_window(self, request: Request) -> bool:
        window = self._window_of(request, 8)
        if window is not None and window.mapped is not None:
            window.mapped = False
        return RISKY

    def _unmap_subwindows(self, request: Request) -> bool:
        window = self._window_of(request, 8)
        if window is not None:
            for child in self._walk(window):
                if child.mapped is not None:
                    child.mapped = False
        return RISKY

    # -- geometry --

    def _configure_window(self, request: Request) -> bool:
        window = self._window_of(request)
        data = request.data
        if window is None or len(data) < 12:
            return RISKY
        mask = struct.unpack_from(self._order + "H", data, 8)[0]
        values = read_values(self._order, data, 12, mask, PLACES)
        if values is None:
            return RISKY
        if self._is_managed(window):
            window.settled = False
        self._place_window(window, values)
        resized = values.keys() & {"width", "height"}
        right = window.width and window.height and window.kind == INPUT_OUTPUT
        right = right and values.get("stack_mode", 0) & 0xFF <= 4
        right = right and ("sibling" not in values or self._is_beside(window, values))
        if not right:
            window.since = request.sequence
        pulled = bool(resized) and self._pull_children(window)
        parent = window.parent
        noticed = parent is None or pulled or window.event_mask & STRUCTURE_MASK
        noticed = noticed or (parent is not None and parent.event_mask & SUBSTRUCTURE_MASK)
        return bool(right and not noticed and not window.may_be_shown)

    def _is_beside(self, window: Window, values: Dict[str, int]) -> bool:
        """Tell whether a window can be put above or below the one that is named."""
        other = self._resources.windows.get(values["sibling"])
        if other is None or other is window or "stack_mode" not in values:
            return False
        return other.parent is not None and other.parent is window.parent

    def _place_window(self, window: Window, values: Dict[str, int]) -> None:
        for name, value in values.items():
            if name in ("x", "y"):
                setattr(window, name, (value & 0xFFFF ^ 0x8000) - 0x8000)
            elif name in ("width", "height", "border"):
                setattr(window, name, value & 0xFFFF)

    def _pull_children(self, window: Window) -> bool:
        """Follow a change of size; return whether children move with it."""
        pulled = False
        for child in self._walk(window):
            gravity = child.attribute("win_gravity", NORTH_WEST)
            if gravity != NORTH_WEST:
                pulled, child.settled = True, False
                if gravity == UNMAP:
                    child.mapped = None
        return pulled

    def _walk(self, window: Window) -> Iterable[Window]:
        """Return the windows right below one, and count them."""
        self._walked += len(window.children)
        return window.children.values()

    def _window_of(self, request: Request, size: int = 0) -> Optional[Window]:
        """Return the window that a request names, where it is as long as it must be."""
        data = request.data
        if len(data) < 8 or (size and request.size != size):
            return None
        if self._walked > WALK_BASE + WALK_SHARE * request.sequence:
            self._resources.give_up_windows()
            return None
        identifier: int = struct.unpack_from(self._order + "I", data, 4)[0]
        return self._resources.windows.get(identifier)

    # -- the rest --

    def selected(self, window_id: int) -> int:
        """Return the events that the client selected on a window of its own, or a root window."""
        window = self._resources.windows.get(window_id)
        return self.root_masks.get(window_id, 0) if window is None else window.event_mask

    def is_good_change(self, request: Request) -> bool:
        """Tell whether a ChangeProperty surely replaces the value.

        On a root window it does so for clients that the X server trusts.
        """
        data = request.data
        if len(data) < 24:
            return False
        identifier, atom = self._ints.unpack_from(data, 4)
        unit, count = data[16], struct.unpack_from(self._order + "I", data, 20)[0]
        known = identifier in self._resources.windows or identifier in self._facts.screens
        if not known or unit not in (8, 16, 32) or data[1]:
            return False
        size = count * unit // 8
        right = request.size == 24 + size + pad_length(size)
        kind = struct.unpack_from(self._order + "I", data, 12)[0]
        # Mode 0, Replace, never mismatches what is there.
        return bool(right and self._facts.is_atom(atom) and self._facts.is_atom(kind))

    def _clear_area(self, request: Request) -> bool:
        window = self._window_of(request, 16)
        if window is None or window.kind != INPUT_OUTPUT:
            return RISKY
        return SAFE if request.data[1] == 0 else RISKY
