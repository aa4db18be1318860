"""What drawing is safe, and what is known of what is drawn on."""

from __future__ import annotations

import struct

import pytest

from tests.support.xjudged import Judged, ints, own, shorts
from tests.support.xtalk import ROOT
from xsshpy.remote import window_answers

PIXMAP, BITMAP, GC, BIT_GC, QUIET_GC, FONT, WINDOW, MISSING, INPUT = range(1, 10)
FOREGROUND, EXPOSURES, TILE, STIPPLE, FONT_VALUE, CLIP_MASK = (
    1 << 2,
    1 << 16,
    1 << 10,
    1 << 11,
    1 << 14,
    1 << 19,
)


@pytest.fixture
def judged() -> Judged:
    made = Judged()
    for opinion in (
        made.pixmap(PIXMAP),
        made.pixmap(BITMAP, 1),
        made.context(GC, PIXMAP),
        made.context(BIT_GC, BITMAP),
        made.context(QUIET_GC, PIXMAP, (EXPOSURES, 0)),
        made.font(FONT),
        made.window(WINDOW),
    ):
        assert opinion.safe
    made.window(INPUT, kind=2)
    made.confirm()
    return made


def on(drawable: int, context: int) -> bytes:
    return ints(own(drawable), own(context))


BOX = shorts(0, 0, 20, 10)
TEXT = on(PIXMAP, GC) + shorts(0, 0)

SAFE = {
    "points": (64, on(PIXMAP, GC) + shorts(1, 2), 1),
    "points on a window": (64, on(WINDOW, GC) + shorts(1, 2), 0),
    "line": (65, on(PIXMAP, GC) + shorts(1, 2, 3, 4), 0),
    "segments": (66, on(PIXMAP, GC) + shorts(1, 2, 3, 4), 0),
    "arcs": (68, on(PIXMAP, GC) + shorts(1, 2, 3, 4, 5, 6), 0),
    "polygon": (69, on(PIXMAP, GC) + b"\2\1\0\0" + shorts(1, 2), 0),
    "rectangles": (70, on(PIXMAP, GC) + BOX * 2, 0),
    "copy": (62, ints(own(PIXMAP)) + on(PIXMAP, QUIET_GC) + shorts(0, 0, 1, 1, 5, 5), 0),
    "image": (72, on(PIXMAP, GC) + shorts(2, 1, 0, 0) + b"\0\x18\0\0" + bytes(8), 2),
    "bitmap": (72, on(BITMAP, BIT_GC) + shorts(2, 1, 0, 0) + b"\0\1\0\0" + bytes(4), 1),
    "font": (45, ints(own(20)) + shorts(5, 0) + b"fixed", 0),
    "no font": (46, ints(own(FONT)), 0),
    "pixmap for a window": (53, ints(own(20), own(WINDOW)) + shorts(3, 3), 32),
    "context for a root": (55, ints(own(20), ROOT, 0), 0),
    "context with a tile": (55, ints(own(20), own(PIXMAP), TILE, own(PIXMAP)), 0),
    "stipple": (56, ints(own(GC), STIPPLE, own(BITMAP)), 0),
    "font of a context": (56, ints(own(GC), FONT_VALUE, own(FONT)), 0),
    "no clip mask": (56, ints(own(GC), CLIP_MASK, 0), 0),
    "clip mask": (56, ints(own(GC), CLIP_MASK, own(BITMAP)), 0),
    "function": (56, ints(own(GC), 1, 15), 0),
    "copied context": (57, ints(own(GC), own(QUIET_GC), EXPOSURES | CLIP_MASK | FOREGROUND), 0),
    "copied onto itself": (57, ints(own(GC), own(GC), EXPOSURES), 0),
    "clip rectangles": (59, ints(own(GC), 0) + BOX * 2, 0),
    "one sorted rectangle": (59, ints(own(GC), 0) + BOX, 3),
    "free context": (60, ints(own(GC)), 0),
    "free pixmap": (54, ints(own(PIXMAP)), 0),
}

RISKY = {
    "points on nothing": (64, on(MISSING, GC) + shorts(1, 2), 0),
    "points by nothing": (64, on(PIXMAP, MISSING) + shorts(1, 2), 0),
    "points of another depth": (64, on(PIXMAP, BIT_GC) + shorts(1, 2), 0),
    "points on the root": (64, ints(ROOT, own(GC)) + shorts(1, 2), 0),
    "odd mode": (65, on(PIXMAP, GC) + shorts(1, 2), 2),
    "half a segment": (66, on(PIXMAP, GC) + shorts(1, 2), 0),
    "odd polygon": (69, on(PIXMAP, GC) + b"\3\0\0\0" + shorts(1, 2), 0),
    "short polygon": (69, on(PIXMAP, GC), 0),
    "half a rectangle": (70, on(PIXMAP, GC) + BOX[:4], 0),
    "nothing": (70, ints(own(PIXMAP)), 0),
    "copy with exposures": (62, ints(own(PIXMAP)) + on(PIXMAP, GC) + shorts(0, 0, 1, 1, 5, 5), 0),
    "copy of another depth": (
        62,
        ints(own(BITMAP)) + on(PIXMAP, QUIET_GC) + shorts(0, 0, 1, 1, 5, 5),
        0,
    ),
    "copy of nothing": (62, ints(own(MISSING)) + on(PIXMAP, QUIET_GC) + shorts(*range(6)), 0),
    "short copy": (62, ints(own(PIXMAP)) + on(PIXMAP, QUIET_GC), 0),
    "plane": (
        63,
        ints(own(PIXMAP)) + on(PIXMAP, QUIET_GC) + shorts(0, 0, 1, 1, 5, 5) + ints(1),
        0,
    ),
    "short image": (72, on(PIXMAP, GC) + shorts(2, 1, 0, 0) + b"\0\x18\0\0" + bytes(4), 2),
    "no image": (72, on(PIXMAP, GC), 2),
    "image on nothing": (72, on(MISSING, GC) + shorts(2, 1, 0, 0) + b"\0\x18\0\0" + bytes(8), 2),
    "image with a pad": (72, on(PIXMAP, GC) + shorts(2, 1, 0, 0) + b"\1\x18\0\0" + bytes(8), 2),
    "image of another layout": (
        72,
        on(PIXMAP, GC) + shorts(2, 1, 0, 0) + b"\0\x18\0\0" + bytes(8),
        3,
    ),
    "text items": (74, TEXT + b"\1\0a\0", 0),
    "text without a font": (76, TEXT + b"a", 1),
    "text on nothing": (76, on(MISSING, GC) + shorts(0, 0) + b"a", 1),
    "unknown font": (45, ints(own(20)) + shorts(5, 0) + b"other", 0),
    "font with a wrong length": (45, ints(own(20)) + shorts(50, 0) + b"fixed", 0),
    "font without a name": (45, ints(own(20)), 0),
    "font with a used id": (45, ints(own(PIXMAP)) + shorts(5, 0) + b"fixed", 0),
    "no font twice": (46, ints(own(MISSING)), 0),
    "long end of a font": (46, ints(own(FONT), 0), 0),
    "pixmap of no size": (53, ints(own(20), ROOT) + shorts(0, 3), 24),
    "pixmap of all memory": (53, ints(own(20), ROOT) + shorts(32767, 32767), 24),
    "pixmap of an odd depth": (53, ints(own(20), ROOT) + shorts(3, 3), 7),
    "pixmap for nothing": (53, ints(own(20), own(MISSING)) + shorts(3, 3), 24),
    "short pixmap": (53, ints(own(20), ROOT), 24),
    "foreign pixmap": (53, ints(0x123, ROOT) + shorts(3, 3), 24),
    "context for nothing": (55, ints(own(20), own(MISSING), 0), 0),
    "context for an input window": (55, ints(own(20), own(INPUT), 0), 0),
    "context with a wrong value": (55, ints(own(20), own(PIXMAP), 1, 16), 0),
    "context with a strange value": (55, ints(own(20), own(PIXMAP), 1 << 21, 1), 0),
    "context with too little": (55, ints(own(20), own(PIXMAP), 1), 0),
    "short context": (55, ints(own(20), own(PIXMAP)), 0),
    "context with another's tile": (55, ints(own(20), own(PIXMAP), TILE, own(BITMAP)), 0),
    "wrong function": (56, ints(own(GC), 1, 16), 0),
    "bits without a name": (56, ints(own(GC), 1 << 23, 1), 0),
    "no context": (56, ints(own(MISSING), 0), 0),
    "short change": (56, ints(own(GC)), 0),
    "font that is none": (56, ints(own(GC), FONT_VALUE, own(PIXMAP)), 0),
    "deep clip mask": (56, ints(own(GC), CLIP_MASK, own(PIXMAP)), 0),
    "copied to another depth": (57, ints(own(GC), own(BIT_GC), 1), 0),
    "copied from nothing": (57, ints(own(MISSING), own(GC), 1), 0),
    "copied bits without a name": (57, ints(own(QUIET_GC), own(GC), 1 << 23), 0),
    "short copied context": (57, ints(own(GC), own(QUIET_GC)), 0),
    "rectangles that claim an order": (59, ints(own(GC), 0) + BOX * 2, 3),
    "half a clip rectangle": (59, ints(own(GC), 0) + BOX[:4], 0),
    "clip rectangles of nothing": (59, ints(own(MISSING), 0), 0),
    "short clip rectangles": (59, ints(own(GC)), 0),
    "colormap": (78, ints(own(20), ROOT, 0), 0),
    "pixmap cursor": (93, ints(own(20), own(BITMAP), 0) + bytes(16), 0),
    "short pixmap cursor": (93, b"", 0),
    "short copied colormap": (80, b"", 0),
    "no cursor": (95, ints(own(MISSING)), 0),
}


@pytest.mark.parametrize("what", SAFE)
def test_safe(what: str, judged: Judged) -> None:
    opinion = judged.ask(*SAFE[what])
    assert opinion.safe
    assert judged.is_synced()


@pytest.mark.parametrize("what", RISKY)
def test_risky(what: str, judged: Judged) -> None:
    opinion = judged.ask(*RISKY[what])
    assert not opinion.safe
    assert not judged.is_synced()
    judged.confirm()
    assert judged.is_synced()


def image(judged: Judged, number: int, width: int = 20, height: int = 10) -> bytes | None:
    """Return a GetImage of the upper left corner as it would be told now."""
    return judged.ask(73, ints(own(number)) + shorts(0, 0, width, height) + ints(-1), 2).answer


def fill(judged: Judged, context: int = GC, box: bytes = BOX) -> None:
    assert judged.ask(70, on(PIXMAP, context) + box).safe


def test_a_filled_pixmap_has_one_colour(judged: Judged) -> None:
    assert image(judged, PIXMAP) is None
    judged.ask(56, ints(own(GC), FOREGROUND, 0xFF123456))
    fill(judged)
    answer = image(judged, PIXMAP, 2, 2)
    assert answer is not None
    assert answer[32:] == struct.pack("<I", 0x123456) * 4
    assert image(judged, PIXMAP, 21, 1) is None  # beyond the edge: an error


@pytest.mark.parametrize(
    "how",
    ["part", "clip rectangles", "clip mask", "function", "plane mask", "stipple style", "two"],
)
def test_other_fillings_leave_the_colour_unknown(how: str, judged: Judged) -> None:
    changes = {
        "clip rectangles": (59, ints(own(GC), 0) + BOX),
        "clip mask": (56, ints(own(GC), CLIP_MASK, own(BITMAP))),
        "function": (56, ints(own(GC), 1, 6)),
        "plane mask": (56, ints(own(GC), 2, 0xFF)),
        "stipple style": (56, ints(own(GC), 1 << 8, 1)),
    }
    fill(judged)
    assert image(judged, PIXMAP) is not None
    if how in changes:
        judged.ask(*changes[how])
    fill(judged, box={"part": shorts(0, 0, 19, 10), "two": BOX * 2}.get(how, BOX))
    judged.confirm()
    assert image(judged, PIXMAP) is None


@pytest.mark.parametrize("opcode", [64, 65, 66, 67, 68, 71, 72, 76])
def test_drawing_ends_the_one_colour(opcode: int, judged: Judged) -> None:
    fill(judged)
    judged.ask(opcode, on(PIXMAP, GC) + bytes(12))
    judged.confirm()
    assert image(judged, PIXMAP) is None


def test_what_nobody_knows_may_draw_on_anything(judged: Judged) -> None:
    fill(judged)
    judged.ask(200)
    judged.confirm()
    assert image(judged, PIXMAP) is None


def test_a_context_has_what_was_copied(judged: Judged) -> None:
    """Exposures and all: a copy with it causes an event from then on."""
    copy = 62, ints(own(PIXMAP)) + on(PIXMAP, QUIET_GC) + shorts(0, 0, 1, 1, 5, 5)
    assert judged.ask(*copy).safe
    assert judged.ask(57, ints(own(GC), own(QUIET_GC), FOREGROUND)).safe
    assert judged.ask(*copy).safe
    assert judged.ask(57, ints(own(GC), own(QUIET_GC), EXPOSURES)).safe
    assert not judged.ask(*copy).safe


def test_clipping_is_copied_too(judged: Judged) -> None:
    judged.ask(59, ints(own(QUIET_GC), 0) + BOX)
    judged.ask(57, ints(own(QUIET_GC), own(GC), CLIP_MASK))
    fill(judged)
    assert image(judged, PIXMAP) is None
    judged.ask(56, ints(own(GC), CLIP_MASK, 0))
    fill(judged)
    assert image(judged, PIXMAP) is not None


def test_text_is_safe_with_a_known_font(judged: Judged) -> None:
    judged.ask(56, ints(own(GC), FONT_VALUE, own(FONT)))
    assert judged.ask(76, TEXT + b"ab", 2).safe
    assert judged.ask(77, TEXT + b"abcd", 2).safe
    assert not judged.ask(76, TEXT + b"ab", 9).safe


def test_cursors_of_the_cursor_font(judged: Judged) -> None:
    def glyph(number: int, font: int, glyph: int) -> bool:
        return judged.ask(
            94, ints(own(number), own(font), own(font)) + shorts(glyph, 0, *[0] * 6)
        ).safe

    assert not glyph(20, FONT, 0)
    assert judged.font(21, b"cursor").safe
    assert glyph(22, 21, 153)
    assert not glyph(23, 21, 154)
    assert not glyph(22, 21, 1)  # the id is in use
    assert judged.window(24, values=(1 << 14, own(22))).safe
    assert not judged.window(25, values=(1 << 14, own(23))).safe
    assert judged.ask(95, ints(own(22))).safe


def test_an_error_ends_what_relied_on_requests_of_its_kind(judged: Judged) -> None:
    fill(judged)
    error = struct.pack("<BBHIHB21x", 0, 11, judged.sequence, own(PIXMAP), 0, 53)
    judged.predictor.fail(error)
    assert judged.ask(14, ints(own(PIXMAP))).answer is None
    assert not judged.ask(70, on(PIXMAP, GC) + BOX).safe


def test_ids_are_free_again_once_they_were_freed(judged: Judged) -> None:
    assert judged.ask(54, ints(own(PIXMAP))).safe
    assert judged.pixmap(PIXMAP, 32).safe
    assert not judged.pixmap(PIXMAP).safe


@pytest.mark.parametrize("opcode", [57, 62])
def test_screens_are_worlds_apart(opcode: int, judged: Judged) -> None:
    judged.resources.contexts[own(GC)].root = 0x999
    judged.resources.pixmaps[own(BITMAP)].root = 0x999
    judged.resources.pixmaps[own(BITMAP)].depth = 24
    if opcode == 57:
        assert not judged.ask(57, ints(own(GC), own(QUIET_GC), EXPOSURES)).safe
        assert own(QUIET_GC) not in judged.resources.contexts
    else:
        body = ints(own(BITMAP)) + on(PIXMAP, QUIET_GC) + shorts(0, 0, 1, 1, 5, 5)
        assert not judged.ask(62, body).safe


def test_what_a_context_was_given_is_copied_with_it(judged: Judged) -> None:
    assert judged.ask(56, ints(own(GC), FOREGROUND, 7)).safe
    assert judged.ask(57, ints(own(GC), own(QUIET_GC), FOREGROUND)).safe
    fill(judged, QUIET_GC)
    answer = image(judged, PIXMAP)
    assert answer is not None
    assert answer[32:] == ints(7) * 200


@pytest.mark.parametrize("limit", ["layout", "size"])
def test_an_image_that_is_too_large_or_odd_is_the_servers(
    limit: str, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(judged)
    if limit == "layout":
        del judged.facts.formats[24]
    else:
        monkeypatch.setattr(window_answers, "IMAGE_LIMIT", 799)
    assert image(judged, PIXMAP) is None
