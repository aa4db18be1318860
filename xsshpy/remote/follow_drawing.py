"""Follows what one X client draws with and on, and judges whether it is safe (see ``follow``).

Fonts, cursors, pixmaps and graphics contexts are the client's alone; drawing with right arguments
on what is its own cannot fail, and causes no event unless the graphics context asks for exposures.

Rules kept here: sans-IO; Python 3.6 and later, standard library only.

Follows the X Window System Protocol, version 11, §9 (OpenFont to ImageText16, CreateCursor).
"""

import struct
from typing import Dict, Optional

from .facts import ServerFacts
from .judgement import RISKY, SAFE, Handler, read_values, take_away
from .resources import (
    GC_VALUES,
    INPUT_ONLY,
    Drawable,
    GraphicsContext,
    Pixmap,
    Resources,
    Window,
    touch,
)
from .xmessages import Request, pad_length

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


class DrawingFollower:
    """Judges requests that draw, or make what is drawn with: ``handlers`` by opcode."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self._resources = resources
        self._order = facts.order.value
        self._ints = struct.Struct(self._order + "II")
        self.handlers: Dict[int, Handler] = {
            45: self._open_font,
            46: self._close_font,
            53: self._create_pixmap,
            54: self._free_pixmap,
            55: self._create_gc,
            56: self._change_gc,
            57: self._copy_gc,
            59: self._set_clip_rectangles,
            60: self._free_gc,
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

    # -- fonts, cursors --

    def _open_font(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 12:
            return RISKY
        identifier = self._ints.unpack_from(data, 4)[0]
        length = struct.unpack_from(self._order + "H", data, 8)[0]
        name = data[12 : 12 + length]
        if not self._resources.is_free(identifier) or len(data) != 12 + length + pad_length(length):
            return RISKY
        self._resources.fonts[identifier] = name
        return name in self._facts.fonts

    def _close_font(self, request: Request) -> bool:
        return take_away(self._resources.fonts, self._order, request)

    def _create_cursor(self, request: Request) -> bool:
        if len(request.data) != 32:
            return RISKY
        identifier, source = self._ints.unpack_from(request.data, 4)
        if not self._resources.is_free(identifier):
            return RISKY
        if request.opcode == 94:
            mask_font = struct.unpack_from(self._order + "I", request.data, 12)[0]
            glyphs = struct.unpack_from(self._order + "HH", request.data, 16)
            known = source in self._resources.fonts and mask_font in self._resources.fonts
            known = known and self._resources.fonts[source] == b"cursor" and max(glyphs) < 154
            known = known and b"cursor" in self._facts.fonts
        else:
            known = False
        if known:
            self._resources.cursors[identifier] = True
        return known

    def _free_cursor(self, request: Request) -> bool:
        return take_away(self._resources.cursors, self._order, request)

    # -- pixmaps, graphics contexts --

    def _drawable(self, identifier: int) -> Optional[Drawable]:
        """Return one of the client's drawables, or a root window."""
        found = self._resources.drawable(identifier)
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
        if drawable is None or not right or not self._resources.is_free(identifier):
            return RISKY
        self._resources.pixmaps[identifier] = Pixmap(
            identifier, drawable.root, data[1], width, height
        )
        return SAFE

    def _free_pixmap(self, request: Request) -> bool:
        return take_away(self._resources.pixmaps, self._order, request)

    def _create_gc(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 16:
            return RISKY
        identifier, drawable_id = self._ints.unpack_from(data, 4)
        drawable = self._drawable(drawable_id)
        values = read_values(
            self._order, data, 16, struct.unpack_from(self._order + "I", data, 12)[0], GC_VALUES
        )
        if drawable is None or values is None or not self._resources.is_free(identifier):
            return RISKY
        if isinstance(drawable, Window) and drawable.kind == INPUT_ONLY:
            return RISKY
        context = GraphicsContext(drawable.depth)
        context.values = values
        if not self._are_safe_components(values, context.depth):
            return RISKY
        self._resources.contexts[identifier] = context
        return SAFE

    def _are_safe_components(self, values: Dict[str, int], depth: int) -> bool:
        for name, value in values.items():
            if name in PLAIN_GC_VALUES:
                continue
            if name in SMALL_GC_VALUES and value < SMALL_GC_VALUES[name]:
                continue
            if name == "font" and self._resources.fonts.get(value, b"") in self._facts.fonts:
                continue
            if name == "clip_mask" and value == 0:
                continue
            if name in ("tile", "stipple", "clip_mask"):
                pixmap = self._resources.pixmaps.get(value)
                if pixmap is not None and pixmap.depth == (depth if name == "tile" else 1):
                    continue
            return False
        return True

    def _change_gc(self, request: Request) -> bool:
        data = request.data
        if len(data) < 12:
            return RISKY
        identifier, mask = self._ints.unpack_from(data, 4)
        context = self._resources.contexts.get(identifier)
        values = read_values(self._order, data, 12, mask, GC_VALUES)
        if context is None:
            return RISKY
        if values is None or not self._are_safe_components(values, context.depth):
            del self._resources.contexts[identifier]
            return RISKY
        context.values.update(values)
        if "clip_mask" in values:
            context.clipped = False
        return SAFE

    def _copy_gc(self, request: Request) -> bool:
        if len(request.data) != 16:
            return RISKY
        source_id, target_id, mask = struct.unpack_from(self._order + "III", request.data, 4)
        source = self._resources.contexts.get(source_id)
        target = self._resources.contexts.get(target_id)
        if source is None or target is None or source.depth != target.depth or mask >> 23:
            self._resources.contexts.pop(target_id, None)
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
        context = self._resources.contexts.get(struct.unpack_from(self._order + "I", data, 4)[0])
        if context is None:
            return RISKY
        context.clipped = True
        count, odd = divmod(request.size - 12, 8)
        # Rectangles that are not in the order that is claimed are an error; one always is.
        return bool(not odd and (count <= 1 or data[1] == 0) and data[1] <= 3)

    def _free_gc(self, request: Request) -> bool:
        return take_away(self._resources.contexts, self._order, request)

    # -- drawing --

    def _target(self, request: Request, drawable_at: int = 4) -> Optional[Drawable]:
        """Return the drawable that a request draws on, where its graphics context suits it."""
        data = request.data
        if len(data) < drawable_at + 8:
            return None
        drawable_id, context_id = self._ints.unpack_from(data, drawable_at)
        drawable = self._resources.drawable(drawable_id)
        context = self._resources.contexts.get(context_id)
        if drawable is None:
            return None
        touch(drawable)
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
        context = self._resources.contexts[self._ints.unpack_from(request.data, 4)[1]]
        font = self._resources.fonts.get(context.values.get("font", 0), b"")
        length = request.data[1] * (2 if request.opcode == 77 else 1)
        return font in self._facts.fonts and request.size == 16 + length + pad_length(length)

    def _fill_rectangles(self, request: Request) -> bool:
        data = request.data
        drawable = self._target(request)
        if drawable is None or (request.size - 12) % 8:
            return RISKY
        if isinstance(drawable, Pixmap) and request.size == 20 == len(data):
            context = self._resources.contexts[self._ints.unpack_from(data, 4)[1]]
            x, y, width, height = struct.unpack_from(self._order + "hhHH", data, 12)
            covers = x <= 0 and y <= 0 and x + width >= drawable.width
            if covers and y + height >= drawable.height and context.paints_plain:
                drawable.colour = context.values.get("foreground", 0)
                drawable.epoch = self._resources.epoch
        return SAFE

    def _copy_area(self, request: Request) -> bool:
        return self._copy(request, 28)

    def _copy_plane(self, request: Request) -> bool:
        self._copy(request, 32)
        return RISKY

    def _copy(self, request: Request, size: int) -> bool:
        if len(request.data) != size:
            self._resources.epoch += 1
            return RISKY
        source = self._resources.drawable(self._ints.unpack_from(request.data, 4)[0])
        target = self._target(request, 8)
        if source is None or target is None or source.depth != target.depth:
            return RISKY
        if source.root != target.root:
            return RISKY
        return not self._resources.contexts[self._ints.unpack_from(request.data, 8)[1]].exposes

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
