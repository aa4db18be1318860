"""Follows what one X client does to windows, and judges whether it is safe (see ``follow``).

Where a window manager or another client may have a hand in it, a window is unsettled: nothing is
said of it, and nothing done to it is safe.

Rules kept here: sans-IO; Python 3.6 and later, standard library only.

Follows the X Window System Protocol, version 11, §9 (CreateWindow to ChangeProperty).
"""

import struct
from typing import Dict, Optional

from .facts import ServerFacts
from .judgement import RISKY, SAFE, Handler, read_values
from .resources import (
    CROSSING_MASKS,
    EXPOSURE_MASK,
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
ALL_EVENTS = 0x01FFFFFF


class WindowFollower:
    """Judges requests about windows: ``handlers`` by opcode."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self._resources = resources
        self.root_masks: Dict[int, int] = {}
        """The events that this client selected on root windows."""
        self._order = facts.order.value
        self._ints = struct.Struct(self._order + "II")
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
            18: self._change_property,
            61: self._clear_area,
        }

    def _create_window(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 32:
            return RISKY
        identifier, parent_id = self._ints.unpack_from(data, 4)
        x, y, width, height, border, kind, visual, mask = struct.unpack_from(
            self._order + "hhHHHHII", data, 12
        )
        values = read_values(self._order, data, 32, mask, WINDOW_VALUES)
        screen = self._facts.screens.get(parent_id)
        parent = self._resources.windows.get(parent_id)
        if values is None or not self._resources.is_free(identifier):
            return RISKY
        if parent is not None:
            root, depth, own_visual, own_kind = (
                parent.root,
                parent.depth,
                parent.visual,
                parent.kind,
            )
        elif screen is not None:
            root, depth, own_visual, own_kind = (
                screen.root,
                screen.depth,
                screen.visual,
                INPUT_OUTPUT,
            )
        else:
            return RISKY
        kind = kind or own_kind
        plain = data[1] in (0, depth) and visual in (0, own_visual)
        plain = plain and kind == own_kind == INPUT_OUTPUT
        if kind == INPUT_ONLY:
            depth = 0
        window = Window(identifier, root, parent, data[1] or depth, visual or own_visual, kind)
        window.x, window.y, window.width, window.height, window.border = x, y, width, height, border
        window.attributes = values
        self._resources.add_window(window)
        noticed = parent is not None and parent.event_mask & SUBSTRUCTURE_MASK
        noticed = noticed or self.root_masks.get(parent_id, 0) & SUBSTRUCTURE_MASK
        window.settled = bool(
            width and height and plain and self._are_safe_attributes(values)
        ) and (parent is None or parent.settled)
        return window.settled and not noticed

    def _are_safe_attributes(self, values: Dict[str, int]) -> bool:
        for name, value in values.items():
            if name in PLAIN_WINDOW_VALUES:
                continue
            if name in SMALL_WINDOW_VALUES and value < SMALL_WINDOW_VALUES[name]:
                continue
            if name == "event_mask" and not value & (EXCLUSIVE_MASKS | ~ALL_EVENTS):
                continue
            if name == "cursor" and (not value or value in self._resources.cursors):
                continue
            if name == "colormap" and value in self._facts.colormaps:
                continue
            if name in ("background_pixmap", "border_pixmap") and value <= 1:
                continue
            return False
        return True

    def _change_window_attributes(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 12:
            return RISKY
        identifier, mask = self._ints.unpack_from(data, 4)
        values = read_values(self._order, data, 12, mask, WINDOW_VALUES)
        if values is None:
            return RISKY
        if identifier in self._facts.screens:
            only_events = list(values) == ["event_mask"]
            if "event_mask" in values:
                self.root_masks[identifier] = values["event_mask"]
                self._facts.select_on_root(identifier, values["event_mask"])
            return only_events and not values["event_mask"] & (EXCLUSIVE_MASKS | ~ALL_EVENTS)
        window = self._resources.windows.get(identifier)
        if window is None:
            return RISKY
        recoloured = "colormap" in values and window.event_mask & 1 << 23
        window.attributes.update(values)
        return bool(self._are_safe_attributes(values) and not recoloured)

    def _destroy_window(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is not None:
            self._resources.remove_window(window)
        return RISKY

    def _destroy_subwindows(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is not None:
            for child in list(window.children):
                self._resources.remove_window(child)
        return RISKY

    def _reparent_window(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is None or len(request.data) != 16:
            return RISKY
        parent_id, x, y = struct.unpack_from(self._order + "Ihh", request.data, 8)
        parent = self._resources.windows.get(parent_id)
        if parent is None or parent in window.descendants() or window.mapped is not False:
            window.settled, window.mapped = False, None
        self._resources.move_window(window, None if parent in window.descendants() else parent)
        window.x, window.y = x, y
        return RISKY

    def _map_window(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is not None:
            self._map(window)
            if not self._may_tell(window):
                return SAFE
        return RISKY

    def _may_tell(self, window: Window) -> bool:
        """Tell whether mapping or unmapping a window may cause an event for this client."""
        parent = window.parent
        if parent is None or window.event_mask & STRUCTURE_MASK:
            return True
        if parent.event_mask & SUBSTRUCTURE_MASK:
            return True
        if not parent.may_be_shown:
            return False
        noticed = EXPOSURE_MASK | VISIBILITY_MASK | CROSSING_MASKS
        family = parent.descendants()
        while parent.parent is not None:
            parent = parent.parent
            family.append(parent)
        return any(each.event_mask & noticed for each in family)

    def _map(self, window: Window) -> None:
        """Follow a MapWindow: of a top-level a window manager may make what it likes."""
        alone = window.parent is not None or window.attribute("override_redirect")
        if alone or self._facts.managed is False:
            if window.mapped is False:
                window.mapped = True
        else:
            window.mapped, window.settled = None, False

    def _map_subwindows(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is not None:
            for child in window.children:
                self._map(child)
        return RISKY

    def _unmap_window(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is not None and window.mapped is not None:
            window.mapped = False
        return RISKY

    def _unmap_subwindows(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is not None:
            for child in window.children:
                if child.mapped is not None:
                    child.mapped = False
        return RISKY

    def _configure_window(self, request: Request) -> bool:
        window = self._window_of(request)
        data = request.data
        if window is None or len(data) < 12:
            return RISKY
        mask = struct.unpack_from(self._order + "H", data, 8)[0]
        names = ("x", "y", "width", "height", "border", "sibling", "stack_mode")
        values = read_values(self._order, data, 12, mask, names)
        if values is None:
            return RISKY
        resized = False
        for name, value in values.items():
            if name in ("x", "y"):
                setattr(window, name, (value & 0xFFFF ^ 0x8000) - 0x8000)
            elif name in ("width", "height", "border"):
                resized = resized or name != "border"
                setattr(window, name, value & 0xFFFF)
        if resized:
            if not (window.width and window.height):
                window.settled = False
            for child in window.children:
                if child.attribute("win_gravity", NORTH_WEST) != NORTH_WEST:
                    child.settled = False
                if child.attribute("win_gravity", NORTH_WEST) == 0:
                    child.mapped = None
        if window.parent is None and values.keys() & {"sibling", "stack_mode"}:
            return RISKY
        moved = window.event_mask & STRUCTURE_MASK or window.parent is None
        moved = moved or (
            window.parent is not None and window.parent.event_mask & SUBSTRUCTURE_MASK
        )
        return not (moved or window.may_be_shown or values.keys() & {"sibling"}) and window.settled

    def _window_of(self, request: Request) -> Optional[Window]:
        if len(request.data) < 8:
            return None
        return self._resources.windows.get(self._ints.unpack_from(request.data + b"\0" * 4, 4)[0])

    def _change_property(self, request: Request) -> bool:
        data = request.data
        if len(data) < 24:
            return RISKY
        identifier, atom = self._ints.unpack_from(data, 4)
        if identifier in self._facts.screens:
            self._facts.unsettle_property(identifier, atom)
            return RISKY
        window = self._resources.windows.get(identifier)
        unit, count = data[16], struct.unpack_from(self._order + "I", data, 20)[0]
        if window is None or unit not in (8, 16, 32) or data[1]:
            return RISKY
        size = count * unit // 8
        right = request.size == 24 + size + pad_length(size)
        kind = struct.unpack_from(self._order + "I", data, 12)[0]
        right = right and self._facts.is_atom(atom) and self._facts.is_atom(kind)
        # Mode 0, Replace, never mismatches what is there.
        return bool(right and not window.event_mask & PROPERTY_MASK)

    def _clear_area(self, request: Request) -> bool:
        window = self._window_of(request)
        return window is not None and window.kind == INPUT_OUTPUT and not request.data[1]
