"""Follows one X client's RENDER requests that have no reply, and judges which of them are safe.

As in ``follow``: a safe request cannot fail and cannot cause an event. Text and anti-aliased
drawing of all toolkits come this way.

Rules kept here: sans-IO; Python 3.6 and later, standard library only.

Follows the X Rendering Extension 0.11.
"""

import struct
from typing import Dict, Mapping, Optional

from .facts import ServerFacts
from .judgement import RISKY, SAFE, Handler, take_away
from .resources import Drawable, Picture, Pixmap, Resources, touch
from .xmessages import Request

SMALL_PICTURE_VALUES = {0: 4, 7: 2, 8: 2, 9: 2, 10: 2, 12: 2}
"""Components of a picture, by the bit of the value mask, that take values below a limit: repeat,
graphics exposures, subwindow mode, poly edge, poly mode, component alpha."""

GLYPH_DEPTHS = frozenset((1, 8, 32))
LAST_PLAIN_OPERATOR = 13
OTHER_GLYPHS = 255

HARMLESS = frozenset((0, 1, 2, 3, 22, 28, 29, 30))
"""Requests that are not judged and draw on nothing."""


class RenderFollower:
    """Judges RENDER's requests: ``handlers`` by minor opcode. Pictures lie in the resources."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self._resources = resources
        self._order = facts.order.value
        self._makes: Dict[int, Mapping[int, object]] = {
            18: resources.glyph_sets,
            31: resources.cursors,
            **dict.fromkeys((34, 35, 36), resources.pictures),
        }
        """Requests that give an id to what is not followed: glyph sets, cursors and gradients."""
        self.handlers: Dict[int, Handler] = {
            4: self._create_picture,
            5: self._change_picture,
            6: self._set_clip_rectangles,
            7: self._free_picture,
            8: self._composite,
            10: self._draw_shapes,
            11: self._draw_shapes,
            12: self._draw_shapes,
            13: self._draw_shapes,
            17: self._create_glyph_set,
            19: self._free_glyph_set,
            20: self._add_glyphs,
            23: self._composite_glyphs,
            24: self._composite_glyphs,
            25: self._composite_glyphs,
            26: self._fill_rectangles,
            27: self._create_cursor,
            33: self._create_solid_fill,
            **dict.fromkeys(self._makes, self._claim),
        }

    def pass_unjudged(self, minor: int) -> None:
        """Take note of a request that nobody judges: it may draw on anything."""
        if minor not in HARMLESS:
            self._resources.epoch += 1

    def _claim(self, request: Request) -> bool:
        if len(request.data) >= 8:
            identifier = struct.unpack_from(self._order + "I", request.data, 4)[0]
            self._resources.claim_unfollowed(identifier, self._makes[request.data[1]])
        return RISKY

    # -- pictures --

    def _create_picture(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or len(data) < 20:
            return RISKY
        identifier, drawable_id, format_id, mask = struct.unpack_from(self._order + "IIII", data, 4)
        drawable = self._resources.drawable(drawable_id)
        if not self._resources.claim(identifier) or drawable is None:
            return RISKY
        if self._facts.picture_formats.get(format_id) != drawable.depth:
            return RISKY
        if not self._are_small(data, 20, mask):
            return RISKY
        self._resources.pictures[identifier] = Picture(drawable)
        return SAFE

    def _are_small(self, data: bytes, start: int, mask: int) -> bool:
        """Tell whether a value list is as long as its mask says and has only harmless values."""
        position = start
        for bit in range(32):
            if not mask >> bit & 1:
                continue
            if bit not in SMALL_PICTURE_VALUES or position + 4 > len(data):
                return False
            value = struct.unpack_from(self._order + "I", data, position)[0]
            if value >= SMALL_PICTURE_VALUES[bit]:
                return False
            position += 4
        return position == len(data)

    def _change_picture(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or len(data) < 12:
            return RISKY
        identifier, mask = struct.unpack_from(self._order + "II", data, 4)
        known = self._resources.find_picture(identifier) is not None
        return known and self._are_small(data, 12, mask)

    def _set_clip_rectangles(self, request: Request) -> bool:
        picture = self._picture_at(request, 4)
        right = request.size >= 12 and (request.size - 12) % 8 == 0
        return right and picture is not None and picture.drawable is not None

    def _free_picture(self, request: Request) -> bool:
        there = self._picture_at(request, 4) is not None
        freed = take_away(self._resources, self._resources.pictures, self._order, request)
        return there and freed

    def _create_solid_fill(self, request: Request) -> bool:
        if len(request.data) != 16:
            return RISKY
        identifier = struct.unpack_from(self._order + "I", request.data, 4)[0]
        if not self._resources.claim(identifier):
            return RISKY
        self._resources.pictures[identifier] = Picture(None)
        return SAFE

    def _picture_at(self, request: Request, position: int) -> Optional[Picture]:
        if len(request.data) < position + 4:
            return None
        identifier = struct.unpack_from(self._order + "I", request.data, position)[0]
        return self._resources.find_picture(identifier)

    # -- drawing --

    def _draws_on(self, request: Request, position: int) -> Optional[Drawable]:
        """Take note of drawing on a picture; return what it lies on if it can be drawn on."""
        picture = self._picture_at(request, position)
        drawable = picture.drawable if picture is not None else None
        if drawable is None:
            self._resources.epoch += 1
            return None
        touch(drawable)
        # A picture outlives its pixmap, but not its window.
        if self._resources.drawable(drawable.identifier) is not drawable:
            return None
        return drawable

    def _is_source(self, request: Request, position: int, target: Drawable) -> bool:
        picture = self._picture_at(request, position)
        if picture is None:
            return False
        drawable = picture.drawable
        if drawable is None:
            return True
        there = self._resources.drawable(drawable.identifier) is drawable
        return there and drawable.root == target.root

    def _composite(self, request: Request) -> bool:
        target = self._draws_on(request, 16)
        data = request.data
        if target is None or request.size != 36 or data[4] > LAST_PLAIN_OPERATOR:
            return RISKY
        masked = any(data[12:16])
        source = self._is_source(request, 8, target)
        return source and (not masked or self._is_source(request, 12, target))

    def _draw_shapes(self, request: Request) -> bool:
        self._draws_on(request, 12)
        return RISKY

    def _fill_rectangles(self, request: Request) -> bool:
        target = self._draws_on(request, 8)
        right = request.size >= 20 and (request.size - 20) % 8 == 0
        return target is not None and right and request.data[4] <= LAST_PLAIN_OPERATOR

    # -- glyphs --

    def _create_glyph_set(self, request: Request) -> bool:
        if len(request.data) != 12:
            return RISKY
        identifier, format_id = struct.unpack_from(self._order + "II", request.data, 4)
        depth = self._facts.picture_formats.get(format_id)
        if not self._resources.claim(identifier) or depth not in GLYPH_DEPTHS:
            return RISKY
        self._resources.glyph_sets[identifier] = depth
        return SAFE

    def _free_glyph_set(self, request: Request) -> bool:
        return take_away(self._resources, self._resources.glyph_sets, self._order, request)

    def _add_glyphs(self, request: Request) -> bool:
        data = request.data
        if len(data) != request.size or len(data) < 12:
            return RISKY
        identifier, count = struct.unpack_from(self._order + "II", data, 4)
        depth = self._resources.glyph_sets.get(identifier)
        images = 12 + 16 * count
        if depth not in GLYPH_DEPTHS or images > len(data):
            return RISKY
        size = 0
        for position in range(12 + 4 * count, images, 12):
            width, height = struct.unpack_from(self._order + "HH", data, position)
            size += (width * depth + 31) // 32 * 4 * height
        return bool(images + size == len(data))

    def _composite_glyphs(self, request: Request) -> bool:
        target = self._draws_on(request, 12)
        data = request.data
        if target is None or len(data) != request.size or len(data) < 28:
            return RISKY
        format_id, glyphs = struct.unpack_from(self._order + "II", data, 16)
        known = glyphs in self._resources.glyph_sets and self._is_source(request, 8, target)
        if not known or data[4] > LAST_PLAIN_OPERATOR:
            return RISKY
        if format_id and format_id not in self._facts.picture_formats:
            return RISKY
        unit = {23: 1, 24: 2, 25: 4}[data[1]]
        position = 28
        while position + 8 <= len(data) and data[position] != OTHER_GLYPHS:
            position += 8 + (data[position] * unit + 3 & ~3)
        return position == len(data)

    def _create_cursor(self, request: Request) -> bool:
        if len(request.data) != 16:
            return RISKY
        identifier, _, x, y = struct.unpack_from(self._order + "IIHH", request.data, 4)
        picture = self._picture_at(request, 8)
        pixmap = picture.drawable if picture is not None else None
        claimed = self._resources.claim(identifier)
        if not claimed or not isinstance(pixmap, Pixmap) or pixmap.depth != 32:
            return RISKY
        if x >= pixmap.width or y >= pixmap.height:
            return RISKY
        self._resources.cursors[identifier] = True
        return SAFE
