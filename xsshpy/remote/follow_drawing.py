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

REFERENCES = frozenset(("tile", "stipple", "font", "clip_mask"))
"""Components that name another resource."""

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


CREATE_GLYPH_CURSOR = 94
CURSOR_FONT = b"cursor"
CURSOR_GLYPHS = 154
"""How many glyphs the cursor font has (appendix B)."""

AREA_LIMIT = 1 << 24
"""Pixels of the largest pixmap that a server surely has the memory for."""


class DrawingFollower:
    """Judges requests that draw, or make what is drawn with: ``handlers`` by opcode."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self._resources = resources
        self._order = facts.order.value
        self._ints = struct.Struct(self._order + "II")
        self._three = struct.Struct(self._order + "III")
        self._box = struct.Struct(self._order + "hhHH")
        self._image = struct.Struct(self._order + "HHhhBB")
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
            78: self._create_colormap,
            79: self._free_colormap,
            80: self._claim,
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
        if not self._resources.claim(identifier) or len(data) != 12 + length + pad_length(length):
            return RISKY
        self._resources.fonts[identifier] = name
        return name in self._facts.fonts

    def _close_font(self, request: Request) -> bool:
        return take_away(self._resources, self._resources.fonts, self._order, request)

    def _create_cursor(self, request: Request) -> bool:
        """Follow the making of a cursor; safe where it is one of the cursor font."""
        if request.size != 32:
            return RISKY
        identifier, source, mask_font = self._three.unpack_from(request.data, 4)
        if request.opcode != CREATE_GLYPH_CURSOR:
            self._resources.claim_unfollowed(identifier, self._resources.cursors)
            return RISKY
        if not self._resources.claim(identifier):
            return RISKY
        glyphs = struct.unpack_from(self._order + "HH", request.data, 16)
        fonts = self._resources.fonts
        known = fonts.get(source) == fonts.get(mask_font) == CURSOR_FONT
        if known and max(glyphs) < CURSOR_GLYPHS and CURSOR_FONT in self._facts.fonts:
            self._resources.cursors[identifier] = True
            return SAFE
        return RISKY

    def _claim(self, request: Request) -> bool:
        """Take note of an id that is given to something which nobody follows."""
        if len(request.data) >= 8:
            self._resources.claim(self._ints.unpack_from(request.data + bytes(4), 4)[0])
        return RISKY

    def _create_colormap(self, request: Request) -> bool:
        if request.size != 16:
            self._claim(request)
            return RISKY
        identifier, window_id, visual = self._three.unpack_from(request.data, 4)
        window = self._resources.windows.get(window_id)
        root = window_id if window is None else window.root
        known = visual in self._facts.visuals and len(self._facts.screens) == 1
        right = self._resources.claim(identifier) and known and root in self._facts.screens
        if not right or request.data[1]:  # with cells allocated, or for who knows what
            return RISKY
        self._resources.colormaps[identifier] = (root, visual)
        return SAFE

    def _free_colormap(self, request: Request) -> bool:
        take_away(self._resources, self._resources.colormaps, self._order, request)
        return RISKY

    def _free_cursor(self, request: Request) -> bool:
        return take_away(self._resources, self._resources.cursors, self._order, request)

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
        if request.size != 16:
            return RISKY
        identifier, drawable_id = self._ints.unpack_from(data, 4)
        width, height = struct.unpack_from(self._order + "HH", data, 12)
        drawable = self._drawable(drawable_id)
        if not self._resources.claim(identifier) or drawable is None:
            return RISKY
        right = width and height and max(width, height) <= 32767 and width * height <= AREA_LIMIT
        if not right or data[1] not in self._facts.screens[drawable.root].depths:
            return RISKY
        pixmap = Pixmap(identifier, drawable.root, data[1], width, height)
        pixmap.since = drawable.since
        self._resources.pixmaps[identifier] = pixmap
        return SAFE

    def _free_pixmap(self, request: Request) -> bool:
        return take_away(self._resources, self._resources.pixmaps, self._order, request)

    def _create_gc(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or request.size < 16:
            return RISKY
        identifier, drawable_id, mask = self._three.unpack_from(data, 4)
        drawable = self._drawable(drawable_id)
        values = read_values(self._order, data, 16, mask, GC_VALUES)
        if not self._resources.claim(identifier) or drawable is None or values is None:
            return RISKY
        if isinstance(drawable, Window) and drawable.kind == INPUT_ONLY:
            return RISKY
        context = GraphicsContext(drawable.root, drawable.depth)
        context.since = drawable.since
        if not self._has_right_numbers(values):
            return RISKY
        self._resources.contexts[identifier] = context
        return self._set_components(context, values, request)

    def _set_components(
        self, context: GraphicsContext, values: Dict[str, int], request: Request
    ) -> bool:
        """Take over components; safe where what they refer to is surely there and suits."""
        context.values.update(values)
        if "clip_mask" in values:
            context.clipped = False
        if all(self._suits(context, name, values[name]) for name in values.keys() & REFERENCES):
            return SAFE
        context.since = request.sequence
        return RISKY

    def _has_right_numbers(self, values: Dict[str, int]) -> bool:
        for name, value in values.items():
            if name in PLAIN_GC_VALUES or name in REFERENCES:
                continue
            if name not in SMALL_GC_VALUES or value >= SMALL_GC_VALUES[name]:
                return False
        return True

    def _suits(self, context: GraphicsContext, name: str, value: int) -> bool:
        if name == "font":
            return self._resources.fonts.get(value, b"") in self._facts.fonts
        if name == "clip_mask" and value == 0:
            return True
        pixmap = self._resources.pixmaps.get(value)
        depth = context.depth if name == "tile" else 1
        return pixmap is not None and pixmap.depth == depth and pixmap.root == context.root

    def _change_gc(self, request: Request) -> bool:
        data = request.data
        if len(data) < 12:
            return RISKY
        identifier, mask = self._ints.unpack_from(data, 4)
        context = self._resources.contexts.get(identifier)
        if context is None:
            return RISKY
        values = read_values(self._order, data, 12, mask, GC_VALUES)
        if values is None or not self._has_right_numbers(values):
            del self._resources.contexts[identifier]
            return RISKY
        return self._set_components(context, values, request)

    def _copy_gc(self, request: Request) -> bool:
        if request.size != 16:
            return RISKY
        source_id, target_id, mask = self._three.unpack_from(request.data, 4)
        source = self._resources.contexts.get(source_id)
        target = self._resources.contexts.get(target_id)
        alike = source is not None and target is not None and source.depth == target.depth
        if source is None or target is None or not alike or mask >> 23:
            self._resources.contexts.pop(target_id, None)
            return RISKY
        if source.root != target.root:
            self._resources.contexts.pop(target_id, None)
            return RISKY
        if source is target:
            return SAFE
        for bit, name in enumerate(GC_VALUES):
            if mask >> bit & 1:
                target.values.pop(name, None)
                if name in source.values:
                    target.values[name] = source.values[name]
        if mask >> GC_VALUES.index("clip_mask") & 1:
            target.clipped = source.clipped
        target.since = max(target.since, source.since)
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
        return take_away(self._resources, self._resources.contexts, self._order, request)

    # -- drawing --

    def _target(self, request: Request, drawable_at: int = 4) -> Optional[Drawable]:
        """Return the drawable that a request draws on, where its graphics context suits it."""
        data = request.data
        if len(data) < drawable_at + 8:
            return None
        drawable_id, context_id = self._ints.unpack_from(data, drawable_at)
        drawable = self._resources.drawable(drawable_id)
        if drawable is None:
            return None
        touch(drawable)
        context = self._resources.contexts.get(context_id)
        if context is None or context.depth != drawable.depth or context.root != drawable.root:
            return None
        return drawable

    def _draw(self, request: Request) -> bool:
        unit = {66: 8, 67: 8, 68: 12, 71: 12}.get(request.opcode, 4)
        start = 16 if request.opcode == 69 else 12
        right = request.size >= start and (request.size - start) % unit == 0
        if request.opcode in (64, 65):
            right = right and request.data[1] <= 1
        elif request.opcode == 69:
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
            x, y, width, height = self._box.unpack_from(data, 12)
            covers = x <= 0 and y <= 0 and x + width >= drawable.width
            if covers and y + height >= drawable.height and context.paints_plain:
                drawable.colour = context.values.get("foreground", 0)
                drawable.epoch = self._resources.epoch
                drawable.since = max(drawable.since, context.since)
        return SAFE

    def _copy_area(self, request: Request) -> bool:
        return self._copy(request, 28)

    def _copy_plane(self, request: Request) -> bool:
        self._copy(request, 32)
        return RISKY

    def _copy(self, request: Request, size: int) -> bool:
        if request.size != size:
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
        width, height, _, _, left_pad, depth = self._image.unpack_from(data, start + 8)
        size = self._facts.image_size(data[1], depth, width, height)
        if size is None or left_pad or depth != target.depth:
            return RISKY
        return bool(request.size == start + 20 + size + pad_length(size))
