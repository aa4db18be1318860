"""Requests that may fail, though they look harmless: what follows waits for the server."""

from __future__ import annotations

import pytest

from tests.support import xstreams as x
from tests.support.xjudged import LITTLE, Judged, ints, own, shorts
from tests.support.xtalk import COLORMAP, RENDER, ROOT
from xsshpy.remote.roots import Property
from xsshpy.remote.xmessages import Request
from xsshpy.remote.xrequests import FactClass

BELL, CLEAR_AREA, FILL = 104, 61, 70
INPUT_ONLY = 2


def may_fail(judged: Judged, opcode: int, body: bytes = b"", minor: int = 0) -> bool:
    """Send a request; tell whether an answer after it waits until it can't have failed."""
    judged.confirm()
    judged.ask(opcode, body, minor)
    opinion = judged.ask(14, ints(own(9)))
    assert opinion.answer is not None
    return opinion.after != 0


@pytest.fixture
def judged() -> Judged:
    made = Judged()
    made.pixmap(9)
    return made


@pytest.mark.parametrize(
    ("percent", "fails"), [(0, False), (100, False), (156, False), (101, True), (155, True)]
)
def test_a_bell_may_be_too_loud(judged: Judged, percent: int, fails: bool) -> None:
    assert may_fail(judged, BELL, b"", percent) is fails


@pytest.mark.parametrize(
    ("kind", "exposes", "fails"),
    [(1, 0, False), (1, 1, False), (1, 2, True), (INPUT_ONLY, 0, True)],
)
def test_what_has_no_picture_is_not_cleared(
    judged: Judged, kind: int, exposes: int, fails: bool
) -> None:
    judged.window(1, kind=kind)
    assert may_fail(judged, CLEAR_AREA, ints(own(1), 0, 0), exposes) is fails


def test_drawing_needs_something_to_draw_on(judged: Judged) -> None:
    judged.window(1)
    judged.window(2, kind=INPUT_ONLY)
    judged.pixmap(3, depth=1)
    judged.context(4, 9)
    assert not may_fail(judged, FILL, ints(own(1), own(4)) + shorts(0, 0, 5, 5))
    assert may_fail(judged, FILL, ints(own(2), own(4)) + shorts(0, 0, 5, 5))
    assert may_fail(judged, FILL, ints(own(3), own(4)) + shorts(0, 0, 5, 5))


SHAPE, XFIXES = 141, 142


@pytest.mark.parametrize(
    ("opcode", "minor", "body", "fails"),
    [
        (SHAPE, 1, ints(0, own(1), 0, 0), False),
        (SHAPE, 1, ints(0, own(2), 0, 0), True),
        (XFIXES, 23, ints(own(3)), False),
        (XFIXES, 23, ints(0x123), True),
    ],
)
def test_extension_requests_about_what_may_not_be_there(
    opcode: int, minor: int, body: bytes, fails: bool, judged: Judged
) -> None:
    judged.facts.extensions.update({SHAPE: b"SHAPE", XFIXES: b"XFIXES"})
    judged.window(1)
    assert may_fail(judged, opcode, body, minor) is fails


def test_a_picture_of_a_window_that_is_gone(judged: Judged) -> None:
    judged.window(1)
    judged.picture(2, 1)
    free = ints(own(2), 0, 0)
    assert not may_fail(judged, RENDER, free, 6)
    judged.ask(4, ints(own(1)))
    assert may_fail(judged, RENDER, free, 6)


# Requests for events --------------------------------------------------------------------------

INPUT, SELECT, RAW_MOTION, HIERARCHY, GESTURE = 143, 46, 1 << 17, 1 << 11, 7 << 27


def select(window: int, *masks: tuple[int, int], cut: int = 0) -> bytes:
    parts = b"".join(shorts(device, 1) + ints(mask) for device, mask in masks)
    body = ints(window) + shorts(len(masks), 0) + parts
    return body[: len(body) - cut] if cut else body


@pytest.mark.parametrize(
    ("body", "safe"),
    [
        (select(own(1), (1, 1 << 2)), True),
        (select(own(1), (1, 1 << 2), (0, HIERARCHY)), True),
        (select(own(1), (1, HIERARCHY)), False),
        (select(own(1), (1, RAW_MOTION)), False),
        (select(ROOT, (1, RAW_MOTION)), True),
        (select(own(1), (1, GESTURE)), False),
        (select(own(1), (2, 1 << 2)), False),
        (select(own(1), (1, 1 << 2), (1, 1 << 2), cut=8), False),
        (select(own(1), (1, 1 << 2), cut=4), False),
        (select(own(1)), False),
    ],
)
def test_events_of_the_input_devices(body: bytes, safe: bool, judged: Judged) -> None:
    judged.facts.extensions[INPUT] = b"XInputExtension"
    judged.window(1)
    judged.confirm()
    assert judged.ask(INPUT, body, SELECT).safe is safe


@pytest.mark.parametrize(("version", "safe"), [(None, False), (3, False), (4, True)])
def test_gestures_are_known_to_newer_servers(
    version: int | None, safe: bool, judged: Judged
) -> None:
    judged.facts.extensions[INPUT] = b"XInputExtension"
    if version is not None:
        query = x.request(LITTLE, INPUT, shorts(2, version), 47)
        judged.facts.learn(query, FactClass.FOREVER, x.reply(LITTLE, 0, shorts(2, version)))
    judged.window(1)
    judged.confirm()
    assert judged.ask(INPUT, select(own(1), (1, GESTURE)), SELECT).safe is safe


# What is left to the server ---------------------------------------------------------------------


def test_after_these_drawing_may_cause_events(judged: Judged) -> None:
    judged.facts.extensions[XFIXES] = b"XFIXES"
    assert not judged.resources.is_watched
    judged.ask(XFIXES, ints(own(1), 1), 3)
    assert judged.resources.is_watched


@pytest.mark.parametrize("opcode", [85, 91, 98])
def test_a_question_that_is_not_here_in_whole_has_no_early_answer(
    opcode: int, judged: Judged
) -> None:
    data = x.request(LITTLE, opcode, ints(COLORMAP, 0))
    assert judged.predictor.consider(Request(opcode, 1, 1 << 20, 4, data)).answer is None


def test_a_named_colour_of_a_screen_is_a_fact(judged: Judged) -> None:
    named = ints(COLORMAP) + shorts(3, 0) + b"red"
    for colormap, key in ((COLORMAP, True), (0x999, False)):
        opinion = judged.ask(85, ints(colormap) + named[4:])
        assert (opinion.key is not None) is key


def test_a_long_length_is_read_as_a_short_one(judged: Judged) -> None:
    data = x.long_request(LITTLE, 14, ints(own(9)))
    opinion = judged.predictor.consider(Request(14, 1, len(data), 8, data))
    assert opinion.answer == judged.ask(14, ints(own(9))).answer
    assert opinion.answer is not None


@pytest.mark.parametrize("opcode", [49, 98])
def test_a_question_without_its_text_is_no_fact(opcode: int, judged: Judged) -> None:
    assert judged.ask(opcode).key is None


def test_the_font_path_ends_what_is_known_of_fonts(judged: Judged) -> None:
    assert judged.facts.fonts
    judged.ask(51, ints(0))
    assert not judged.facts.fonts


@pytest.mark.parametrize(("opcode", "body"), [(19, b""), (19, ints(ROOT))])
def test_a_short_change_of_a_property_changes_none(
    opcode: int, body: bytes, judged: Judged
) -> None:
    judged.facts.roots.tell(ROOT, 39, Property(31, 8, b"x"))
    judged.ask(opcode, body)
    judged.ask(19, ints(own(1), 39))
    assert judged.facts.roots.names(ROOT) == [39]


def test_a_change_of_what_nobody_told_of_the_root_is_no_matter(judged: Judged) -> None:
    judged.ask(19, ints(ROOT, 39))
    assert judged.facts.roots.names(ROOT) == []


def test_a_pixmap_that_may_not_be_there_is_unknown_until_it_is(judged: Judged) -> None:
    judged.resources.pixmaps[own(9)].since = 2
    asked = judged.ask(14, ints(own(9)))
    assert (asked.answer, asked.safe) == (None, True)
    judged.confirm()
    judged.ask(14, ints(own(9)))
    judged.confirm()
    assert judged.geometry(9) is not None
