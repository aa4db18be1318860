"""Requests that may fail, though they look harmless: what follows waits for the server."""

from __future__ import annotations

import pytest

from tests.support.xjudged import Judged, ints, own, shorts

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
