"""Follows one X client's requests that have no reply, and judges which of them are *safe*.

A safe request cannot fail, and cannot cause an event for this client: after it, an answer to XSync
tells nothing that isn't known here. The judgement is from what the client itself did; whatever is
not surely safe is risky, and a risky request's effect is only taken over where it can't mislead.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. Requests come whole, unless
they are longer than the reader gathers; those are risky.

Follows the X Window System Protocol, version 11, §9.
"""

import struct
from typing import Callable, Dict, Optional, Tuple, TypeVar

from .facts import ServerFacts
from .resources import (
    CROSSING_MASKS,
    EXPOSURE_MASK,
    GC_VALUES,
    INPUT_ONLY,
    INPUT_OUTPUT,
    PROPERTY_MASK,
    RESIZE_REDIRECT_MASK,
    STRUCTURE_MASK,
    SUBSTRUCTURE_MASK,
    SUBSTRUCTURE_REDIRECT_MASK,
    VISIBILITY_MASK,
    WINDOW_VALUES,
    Drawable,
    GraphicsContext,
    Pixmap,
    Resources,
    Window,
)
from .xmessages import Request, pad_length
from .xrequests import FIRST_EXTENSION_OPCODE

SAFE = True
RISKY = False

NORTH_WEST = 1
PLAIN_GC_VALUES = frozenset(
    (
        "plane_mask",
        "foreground",
        "background",
        "line_width",
        "tile_x",
        "tile_y",
        "clip_x",
        "clip_y",
        "dash_offset",
    )
)
"""Components of a graphics context that take any value."""

SMALL_GC_VALUES = {
    "function": 16,
    "line_style": 3,
    "cap_style": 4,
    "join_style": 3,
    "fill_style": 4,
    "fill_rule": 2,
    "subwindow_mode": 2,
    "graphics_exposures": 2,
    "arc_mode": 2,
}
"""Components that take values below a limit."""

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

Handler = Callable[[Request], bool]
T = TypeVar("T")


class Follower:
    """Judges the void requests of one client, and keeps its ``resources``."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self.resources = resources
        self.root_masks: Dict[int, int] = {}
        """The events that this client selected on root windows."""
        self._order = facts.order.value
        self._ints = struct.Struct(self._order + "II")
        self.core: Dict[int, Handler] = {
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
            36: self._nothing,
            37: self._nothing,
            45: self._open_font,
            46: self._close_font,
            53: self._create_pixmap,
            54: self._free_pixmap,
            55: self._create_gc,
            56: self._change_gc,
            57: self._copy_gc,
            59: self._set_clip_rectangles,
            60: self._free_gc,
            61: self._clear_area,
            62: self._copy_area,
            63: self._copy_plane,
            64: self._draw,
            65: self._draw,
            66: self._draw,
            67: self._draw,
            68: self._draw,
            69: self._draw,
            70: self._fill_rectangles,
            71: self._draw,
            72: self._put_image,
            74: self._draw_text,
            75: self._draw_text,
            76: self._draw_text,
            77: self._draw_text,
            93: self._create_cursor,
            94: self._create_cursor,
            95: self._free_cursor,
        }

    def distrust(self, opcode: int) -> None:
        """Forget what may be wrong, since a request with this opcode failed."""
        if opcode in (1, 2, 4, 5, 7, 8, 9, 10, 11, 12):
            self.resources.windows.clear()
        elif opcode in (53, 54):
            self.resources.pixmaps.clear()
        elif opcode in (55, 56, 57, 59, 60):
            self.resources.contexts.clear()
        elif opcode in (45, 46):
            self.resources.fonts.clear()
        elif opcode >= FIRST_EXTENSION_OPCODE:
            self.resources.pictures.clear()
            self.resources.glyph_sets.clear()

    # -- windows --

    def _create_window(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 32:
            return RISKY
        identifier, parent_id = self._ints.unpack_from(data, 4)
        x, y, width, height, border, kind, visual, mask = struct.unpack_from(
            self._order + "hhHHHHII", data, 12
        )
        values = self.read_values(data, 32, mask, WINDOW_VALUES)
        screen = self._facts.screens.get(parent_id)
        parent = self.resources.windows.get(parent_id)
        if values is None or not self.resources.is_free(identifier):
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
        self.resources.add_window(window)
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
            if name == "cursor" and (not value or value in self.resources.cursors):
                continue
            if name == "colormap" and value in self._facts.colormaps:
                continue
            if name in ("background_pixmap", "border_pixmap") and value <= 1:
                continue
            return False
        return True

    def read_values(
        self, data: bytes, start: int, mask: int, names: Tuple[str, ...]
    ) -> Optional[Dict[str, int]]:
        """Return a value list by name; None where the request is not as long as its mask says."""
        if mask >> len(names):
            return None
        chosen = [name for bit, name in enumerate(names) if mask >> bit & 1]
        if len(data) != start + 4 * len(chosen):
            return None
        found = struct.unpack_from("{}{}I".format(self._order, len(chosen)), data, start)
        return dict(zip(chosen, found))

    def _change_window_attributes(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 12:
            return RISKY
        identifier, mask = self._ints.unpack_from(data, 4)
        values = self.read_values(data, 12, mask, WINDOW_VALUES)
        if values is None:
            return RISKY
        if identifier in self._facts.screens:
            only_events = list(values) == ["event_mask"]
            if "event_mask" in values:
                self.root_masks[identifier] = values["event_mask"]
                self._facts.select_on_root(identifier, values["event_mask"])
            return only_events and not values["event_mask"] & (EXCLUSIVE_MASKS | ~ALL_EVENTS)
        window = self.resources.windows.get(identifier)
        if window is None:
            return RISKY
        recoloured = "colormap" in values and window.event_mask & 1 << 23
        window.attributes.update(values)
        return bool(self._are_safe_attributes(values) and not recoloured)

    def _destroy_window(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is not None:
            self.resources.remove_window(window)
        return RISKY

    def _destroy_subwindows(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is not None:
            for child in list(window.children):
                self.resources.remove_window(child)
        return RISKY

    def _reparent_window(self, request: Request) -> bool:
        window = self._window_of(request)
        if window is None or len(request.data) != 16:
            return RISKY
        parent_id, x, y = struct.unpack_from(self._order + "Ihh", request.data, 8)
        parent = self.resources.windows.get(parent_id)
        if parent is None or parent in window.descendants() or window.mapped is not False:
            window.settled, window.mapped = False, None
        self.resources.move_window(window, None if parent in window.descendants() else parent)
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
        values = self.read_values(data, 12, mask, names)
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
        return self.resources.windows.get(self._ints.unpack_from(request.data + b"\0" * 4, 4)[0])

    def _change_property(self, request: Request) -> bool:
        data = request.data
        if len(data) < 24:
            return RISKY
        identifier, atom = self._ints.unpack_from(data, 4)
        if identifier in self._facts.screens:
            self._facts.unsettle_property(identifier, atom)
            return RISKY
        window = self.resources.windows.get(identifier)
        unit, count = data[16], struct.unpack_from(self._order + "I", data, 20)[0]
        if window is None or unit not in (8, 16, 32) or data[1]:
            return RISKY
        size = count * unit // 8
        right = request.size == 24 + size + pad_length(size)
        kind = struct.unpack_from(self._order + "I", data, 12)[0]
        right = right and self._facts.is_atom(atom) and self._facts.is_atom(kind)
        # Mode 0, Replace, never mismatches what is there.
        return bool(right and not window.event_mask & PROPERTY_MASK)

    def _nothing(self, request: Request) -> bool:
        return SAFE

    # -- fonts, cursors --

    def _open_font(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 12:
            return RISKY
        identifier = self._ints.unpack_from(data, 4)[0]
        length = struct.unpack_from(self._order + "H", data, 8)[0]
        name = data[12 : 12 + length]
        if not self.resources.is_free(identifier) or len(data) != 12 + length + pad_length(length):
            return RISKY
        self.resources.fonts[identifier] = name
        return name in self._facts.fonts

    def _close_font(self, request: Request) -> bool:
        return self.free(self.resources.fonts, request)

    def free(self, kept: Dict[int, T], request: Request) -> bool:
        """Take a resource away; safe where it was one of ``kept``."""
        if len(request.data) != 8 or request.size != 8:
            return RISKY
        identifier = struct.unpack_from(self._order + "I", request.data, 4)[0]
        return kept.pop(identifier, None) is not None

    def _create_cursor(self, request: Request) -> bool:
        if len(request.data) != 32:
            return RISKY
        identifier, source = self._ints.unpack_from(request.data, 4)
        if not self.resources.is_free(identifier):
            return RISKY
        if request.opcode == 94:
            mask_font = struct.unpack_from(self._order + "I", request.data, 12)[0]
            glyphs = struct.unpack_from(self._order + "HH", request.data, 16)
            known = source in self.resources.fonts and mask_font in self.resources.fonts
            known = known and self.resources.fonts[source] == b"cursor" and max(glyphs) < 154
            known = known and b"cursor" in self._facts.fonts
        else:
            known = False
        if known:
            self.resources.cursors[identifier] = True
        return known

    def _free_cursor(self, request: Request) -> bool:
        return self.free(self.resources.cursors, request)

    # -- pixmaps, graphics contexts --

    def _drawable(self, identifier: int) -> Optional[Drawable]:
        """Return one of the client's drawables, or a root window."""
        found = self.resources.drawable(identifier)
        if found is None and identifier in self._facts.screens:
            screen = self._facts.screens[identifier]
            return Drawable(identifier, screen.root, screen.depth, 0, 0)
        return found

    def _create_pixmap(self, request: Request) -> bool:
        data = request.data
        if len(data) != 16:
            return RISKY
        identifier, drawable_id = self._ints.unpack_from(data, 4)
        width, height = struct.unpack_from(self._order + "HH", data, 12)
        drawable = self._drawable(drawable_id)
        right = width and height and max(width, height) <= 32767 and data[1] in self._facts.formats
        if drawable is None or not right or not self.resources.is_free(identifier):
            return RISKY
        self.resources.pixmaps[identifier] = Pixmap(
            identifier, drawable.root, data[1], width, height
        )
        return SAFE

    def _free_pixmap(self, request: Request) -> bool:
        return self.free(self.resources.pixmaps, request)

    def _create_gc(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 16:
            return RISKY
        identifier, drawable_id = self._ints.unpack_from(data, 4)
        drawable = self._drawable(drawable_id)
        values = self.read_values(
            data, 16, struct.unpack_from(self._order + "I", data, 12)[0], GC_VALUES
        )
        if drawable is None or values is None or not self.resources.is_free(identifier):
            return RISKY
        if isinstance(drawable, Window) and drawable.kind == INPUT_ONLY:
            return RISKY
        context = GraphicsContext(drawable.depth)
        context.values = values
        if not self._are_safe_components(values, context.depth):
            return RISKY
        self.resources.contexts[identifier] = context
        return SAFE

    def _are_safe_components(self, values: Dict[str, int], depth: int) -> bool:
        for name, value in values.items():
            if name in PLAIN_GC_VALUES:
                continue
            if name in SMALL_GC_VALUES and value < SMALL_GC_VALUES[name]:
                continue
            if name == "font" and self.resources.fonts.get(value, b"") in self._facts.fonts:
                continue
            if name == "clip_mask" and value == 0:
                continue
            if name in ("tile", "stipple", "clip_mask"):
                pixmap = self.resources.pixmaps.get(value)
                if pixmap is not None and pixmap.depth == (depth if name == "tile" else 1):
                    continue
            return False
        return True

    def _change_gc(self, request: Request) -> bool:
        data = request.data
        if len(data) < 12:
            return RISKY
        identifier, mask = self._ints.unpack_from(data, 4)
        context = self.resources.contexts.get(identifier)
        values = self.read_values(data, 12, mask, GC_VALUES)
        if context is None:
            return RISKY
        if values is None or not self._are_safe_components(values, context.depth):
            del self.resources.contexts[identifier]
            return RISKY
        context.values.update(values)
        if "clip_mask" in values:
            context.clipped = False
        return SAFE

    def _copy_gc(self, request: Request) -> bool:
        if len(request.data) != 16:
            return RISKY
        source_id, target_id, mask = struct.unpack_from(self._order + "III", request.data, 4)
        source = self.resources.contexts.get(source_id)
        target = self.resources.contexts.get(target_id)
        if source is None or target is None or source.depth != target.depth or mask >> 23:
            self.resources.contexts.pop(target_id, None)
            return RISKY
        for bit, name in enumerate(GC_VALUES):
            if mask >> bit & 1:
                target.values.pop(name, None)
                if name in source.values:
                    target.values[name] = source.values[name]
        if mask >> GC_VALUES.index("clip_mask") & 1:
            target.clipped = source.clipped
        return SAFE

    def _set_clip_rectangles(self, request: Request) -> bool:
        data = request.data
        if len(data) < 12:
            return RISKY
        context = self.resources.contexts.get(struct.unpack_from(self._order + "I", data, 4)[0])
        if context is None:
            return RISKY
        context.clipped = True
        count, odd = divmod(request.size - 12, 8)
        # Rectangles that are not in the order that is claimed are an error; one always is.
        return bool(not odd and (count <= 1 or data[1] == 0) and data[1] <= 3)

    def _free_gc(self, request: Request) -> bool:
        return self.free(self.resources.contexts, request)

    # -- drawing --

    def touch(self, drawable: Drawable) -> None:
        """Take note that something is drawn on a drawable."""
        if isinstance(drawable, Pixmap):
            drawable.colour = None

    def _target(self, request: Request, drawable_at: int = 4) -> Optional[Drawable]:
        """Return the drawable that a request draws on, where its graphics context suits it."""
        data = request.data
        if len(data) < drawable_at + 8:
            return None
        drawable_id, context_id = self._ints.unpack_from(data, drawable_at)
        drawable = self.resources.drawable(drawable_id)
        context = self.resources.contexts.get(context_id)
        if drawable is None:
            return None
        self.touch(drawable)
        if context is None or context.depth != drawable.depth:
            return None
        if isinstance(drawable, Window) and drawable.kind == INPUT_ONLY:
            return None
        return drawable

    def _draw(self, request: Request) -> bool:
        unit = {66: 8, 67: 8, 68: 12, 71: 12}.get(request.opcode, 4)
        start = 16 if request.opcode == 69 else 12
        right = request.size >= start and (request.size - start) % unit == 0
        if request.opcode in (64, 65):
            right = right and request.data[1] <= 1
        if request.opcode == 69:
            right = right and len(request.data) >= 16
            right = right and request.data[12] <= 2 and request.data[13] <= 1
        return self._target(request) is not None and right

    def _draw_text(self, request: Request) -> bool:
        target = self._target(request)
        if target is None or request.opcode in (74, 75) or len(request.data) < 16:
            return RISKY
        context = self.resources.contexts[self._ints.unpack_from(request.data, 4)[1]]
        font = self.resources.fonts.get(context.values.get("font", 0), b"")
        length = request.data[1] * (2 if request.opcode == 77 else 1)
        return font in self._facts.fonts and request.size == 16 + length + pad_length(length)

    def _fill_rectangles(self, request: Request) -> bool:
        data = request.data
        drawable = self._target(request)
        if drawable is None or (request.size - 12) % 8:
            return RISKY
        if isinstance(drawable, Pixmap) and request.size == 20 == len(data):
            context = self.resources.contexts[self._ints.unpack_from(data, 4)[1]]
            x, y, width, height = struct.unpack_from(self._order + "hhHH", data, 12)
            covers = x <= 0 and y <= 0 and x + width >= drawable.width
            if covers and y + height >= drawable.height and context.paints_plain:
                drawable.colour = context.values.get("foreground", 0)
                drawable.epoch = self.resources.epoch
        return SAFE

    def _clear_area(self, request: Request) -> bool:
        window = self._window_of(request)
        return window is not None and window.kind == INPUT_OUTPUT and not request.data[1]

    def _copy_area(self, request: Request) -> bool:
        return self._copy(request, 28)

    def _copy_plane(self, request: Request) -> bool:
        self._copy(request, 32)
        return RISKY

    def _copy(self, request: Request, size: int) -> bool:
        if len(request.data) != size:
            self.resources.epoch += 1
            return RISKY
        source = self.resources.drawable(self._ints.unpack_from(request.data, 4)[0])
        target = self._target(request, 8)
        if source is None or target is None or source.depth != target.depth:
            return RISKY
        if source.root != target.root:
            return RISKY
        return not self.resources.contexts[self._ints.unpack_from(request.data, 8)[1]].exposes

    def _put_image(self, request: Request) -> bool:
        data, start = request.data, request.header_size
        if len(data) < start + 20:
            return RISKY
        target = self._target(request, start)
        if target is None:
            return RISKY
        width, height, _, _, left_pad, depth = struct.unpack_from(
            self._order + "HHhhBB", data, start + 8
        )
        size = self._facts.image_size(data[1], depth, width, height)
        if size is None or left_pad or depth != target.depth:
            return RISKY
        return bool(request.size == start + 20 + size + pad_length(size))
