"""Which requests of RENDER are safe."""

from __future__ import annotations

import pytest

from tests.support.xjudged import Judged, ints, own, shorts

PIXMAP, ALPHA, WINDOW, PICTURE, OTHER, SOLID, GLYPHS, MISSING, GC, WINDOW_PICTURE = range(1, 11)
BOX = shorts(0, 0, 20, 10)


@pytest.fixture
def judged() -> Judged:
    made = Judged()
    for opinion in (
        made.pixmap(PIXMAP),
        made.pixmap(ALPHA, 32),
        made.window(WINDOW),
        made.context(GC, PIXMAP),
        made.picture(PICTURE, PIXMAP),
        made.picture(OTHER, ALPHA, 42),
        made.picture(WINDOW_PICTURE, WINDOW),
        made.render(33, ints(own(SOLID), 0, 0)),
        made.render(17, ints(own(GLYPHS), 43)),
    ):
        assert opinion.safe
    made.confirm()
    return made


def composite(source: int, mask: int, target: int, operator: int = 3) -> bytes:
    masked = own(mask) if mask else 0
    return ints(operator, own(source), masked, own(target)) + shorts(*range(8))


def glyphs(
    minor: int, source: int, target: int, form: int, rest: bytes, operator: int = 3
) -> tuple[int, bytes]:
    head = ints(operator, own(source), own(target), form, own(GLYPHS)) + shorts(0, 0)
    return minor, head + rest


def added(size: int, *shapes: tuple[int, int]) -> bytes:
    names = ints(*range(len(shapes)))
    described = b"".join(shorts(width, height, 0, 0, 0, 0) for width, height in shapes)
    return ints(own(GLYPHS), len(shapes)) + names + described + bytes(size)


SAFE = {
    "picture": (4, ints(own(20), own(PIXMAP), 40, 0)),
    "repeating picture": (4, ints(own(20), own(PIXMAP), 40, 1 | 1 << 12, 3, 1)),
    "repeat": (5, ints(own(PICTURE), 1, 1)),
    "clip": (6, ints(own(PICTURE), 0) + BOX * 2),
    "free": (7, ints(own(PICTURE))),
    "composite": (8, composite(OTHER, 0, PICTURE)),
    "composite of a colour": (8, composite(SOLID, OTHER, PICTURE, 13)),
    "free glyphs": (19, ints(own(GLYPHS))),
    "add glyphs": (20, added(12 + 8, (9, 1), (3, 2))[: 12 + 4 + 32 + 20]),
    "text": glyphs(23, SOLID, PICTURE, 0, b"\3\0\0\0" + bytes(4) + b"abc\0"),
    "wide text": glyphs(24, SOLID, PICTURE, 43, b"\3\0\0\0" + bytes(4) + bytes(8)),
    "long text": glyphs(25, SOLID, PICTURE, 43, b"\1\0\0\0" + bytes(4) + bytes(4)),
    "fill": (26, ints(3, own(PICTURE)) + bytes(8) + BOX),
    "cursor": (27, ints(own(20), own(OTHER)) + shorts(19, 9)),
    "colour": (33, ints(own(20), 0, 0)),
}

RISKY = {
    "picture of another depth": (4, ints(own(20), own(PIXMAP), 42, 0)),
    "picture of nothing": (4, ints(own(20), own(MISSING), 40, 0)),
    "picture with a used id": (4, ints(own(PICTURE), own(PIXMAP), 40, 0)),
    "picture with a wrong value": (4, ints(own(20), own(PIXMAP), 40, 1, 4)),
    "picture with an alpha map": (4, ints(own(20), own(PIXMAP), 40, 2, 0)),
    "picture with too little": (4, ints(own(20), own(PIXMAP), 40, 1)),
    "picture with too much": (4, ints(own(20), own(PIXMAP), 40, 1, 1, 1)),
    "short picture": (4, ints(own(20), own(PIXMAP))),
    "change of nothing": (5, ints(own(MISSING), 0)),
    "short change": (5, ints(own(PICTURE))),
    "clip of a colour": (6, ints(own(SOLID), 0)),
    "half a clip": (6, ints(own(PICTURE), 0) + BOX[:4]),
    "clip of nobody": (6, b""),
    "free nothing": (7, ints(own(MISSING))),
    "composite by nothing": (8, composite(MISSING, 0, PICTURE)),
    "composite on nothing": (8, composite(OTHER, 0, MISSING)),
    "composite on a colour": (8, composite(OTHER, 0, SOLID)),
    "composite by an odd operator": (8, composite(OTHER, 0, PICTURE, 14)),
    "composite with a mask of nothing": (8, composite(OTHER, MISSING, PICTURE)),
    "short composite": (8, composite(OTHER, 0, PICTURE)[:-4]),
    "triangles": (11, ints(3, own(SOLID), own(PICTURE), 0, 0)),
    "glyphs of an odd depth": (17, ints(own(20), 44)),
    "glyphs of an unknown format": (17, ints(own(20), 99)),
    "short glyphs": (17, ints(own(20))),
    "reference to glyphs": (18, ints(own(20), own(GLYPHS))),
    "glyphs to nothing": (20, ints(own(MISSING), 0)),
    "glyphs cut short": (20, added(4, (9, 1), (3, 2))),
    "glyphs without shapes": (20, ints(own(GLYPHS), 100)),
    "nothing added": (20, ints(own(GLYPHS))),
    "text on nothing": glyphs(23, SOLID, MISSING, 0, b""),
    "text by nothing": glyphs(23, MISSING, PICTURE, 0, b""),
    "text by an odd operator": glyphs(23, SOLID, PICTURE, 0, b"", 14),
    "text in an unknown format": glyphs(23, SOLID, PICTURE, 99, b""),
    "text with other glyphs": glyphs(23, SOLID, PICTURE, 0, b"\xff" + bytes(11)),
    "text cut short": glyphs(23, SOLID, PICTURE, 0, b"\x09" + bytes(11)),
    "text without a place": (23, ints(3, own(SOLID), own(PICTURE))),
    "fill of nothing": (26, ints(3, own(MISSING)) + bytes(8)),
    "half a fill": (26, ints(3, own(PICTURE)) + bytes(8) + BOX[:4]),
    "cursor with a point outside": (27, ints(own(20), own(OTHER)) + shorts(20, 0)),
    "cursor below": (27, ints(own(20), own(OTHER)) + shorts(0, 10)),
    "cursor without alpha": (27, ints(own(20), own(PICTURE)) + shorts(0, 0)),
    "cursor of a window": (27, ints(own(20), own(WINDOW_PICTURE)) + shorts(0, 0)),
    "short cursor": (27, ints(own(20), own(OTHER))),
    "cursor with a used id": (27, ints(own(PIXMAP), own(OTHER)) + shorts(0, 0)),
    "short colour": (33, ints(own(20))),
    "colour with a used id": (33, ints(own(PIXMAP), 0, 0)),
    "gradient": (34, ints(own(20), 0, 0, 0, 0, 0)),
    "what nobody judges": (32, ints(own(PICTURE))),
}


@pytest.mark.parametrize("what", SAFE)
def test_safe(what: str, judged: Judged) -> None:
    assert judged.render(*SAFE[what]).safe
    assert judged.is_synced()


@pytest.mark.parametrize("what", RISKY)
def test_risky(what: str, judged: Judged) -> None:
    assert not judged.render(*RISKY[what]).safe
    assert not judged.is_synced()


def test_a_picture_outlives_its_pixmap_but_draws_where_nobody_knows(judged: Judged) -> None:
    fill = 26, ints(3, own(PICTURE)) + bytes(8) + BOX
    assert judged.render(*fill).safe
    assert judged.ask(54, ints(own(PIXMAP))).safe
    assert not judged.render(*fill).safe
    assert not judged.render(8, composite(PICTURE, 0, OTHER)).safe


@pytest.mark.parametrize(
    ("request_", "known"),
    [
        ((26, ints(3, own(PICTURE)) + bytes(8) + BOX), False),
        ((26, ints(3, own(MISSING)) + bytes(8) + BOX), False),  # who knows on what
        ((11, ints(3, own(SOLID), own(PICTURE), 0, 0)), False),
        ((21, ints(own(GLYPHS))), False),
        ((26, ints(3, own(OTHER)) + bytes(8) + BOX), True),
        ((22, ints(own(GLYPHS), 1)), True),
    ],
)
def test_drawing_ends_the_one_colour(
    request_: tuple[int, bytes], known: bool, judged: Judged
) -> None:
    assert judged.ask(70, ints(own(PIXMAP), own(GC)) + BOX).safe
    judged.render(*request_)
    judged.confirm()
    image = ints(own(PIXMAP)) + shorts(0, 0, 20, 10) + ints(-1)
    assert (judged.ask(73, image, 2).answer is not None) is known


def test_a_given_id_is_given_once(judged: Judged) -> None:
    judged.render(34, ints(own(20), 0, 0, 0, 0, 0))
    assert not judged.pixmap(20).safe


def test_whoever_watches_drawing_sees_events_of_it(judged: Judged) -> None:
    judged.resources.is_watched = True
    assert not judged.render(26, ints(3, own(PICTURE)) + bytes(8) + BOX).safe


@pytest.mark.parametrize(("body", "given"), [(b"", False), (ints(own(77)) + bytes(24), True)])
def test_an_id_is_given_by_requests_that_have_one(body: bytes, given: bool, judged: Judged) -> None:
    assert not judged.render(34, body).safe
    assert (own(77) in judged.resources.unfollowed) is given
