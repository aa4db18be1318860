"""What is known of a client's windows, which requests are safe, and who may interfere."""

from __future__ import annotations

import struct

import pytest

from tests.support import xstreams as x
from tests.support.xjudged import LITTLE, Judged, facts, ints, own, shorts
from tests.support.xtalk import COLORMAP, ROOT, VISUAL
from xsshpy.remote import conclusions, follow_windows
from xsshpy.remote import resources as resources_module
from xsshpy.remote.looks import Frame, Subject, Thing, build_frames

TOP, CHILD, INNER, OTHER, INPUT, MISSING = range(1, 7)
GRAVITY, EVENTS, OVERRIDE, COLORMAP_VALUE, CURSOR = 1 << 5, 1 << 11, 1 << 9, 1 << 13, 1 << 14
STRUCTURE, SUBSTRUCTURE, REDIRECT, BUTTON, EXPOSURE = 1 << 17, 1 << 19, 1 << 20, 1 << 2, 1 << 15
PLACE = (3, 4, 20, 10, 1)
CENTRE = 5


@pytest.fixture
def judged() -> Judged:
    return family(Judged())


def family(made: Judged) -> Judged:
    made.window(TOP)
    made.window(CHILD, own(TOP))
    made.window(INNER, own(CHILD))
    made.window(OTHER, own(TOP))
    made.window(INPUT, own(TOP), kind=2)
    made.confirm()
    return made


def managed() -> Judged:
    known = facts()
    known.managed = True
    return family(Judged(known))


def attributes(judged: Judged, number: int) -> bytes | None:
    judged.facts.installed[COLORMAP] = 1
    return judged.ask(3, ints(own(number))).answer


def configure(number: int, mask: int, *values: int) -> tuple[int, bytes]:
    return 12, ints(own(number)) + shorts(mask, 0) + ints(*values)


SAFE = {
    "top-level": (1, ints(own(20), ROOT) + shorts(0, 0, 5, 5, 0, 1) + ints(0, 0)),
    "child with a size": (1, ints(own(20), own(TOP)) + shorts(0, 0, 5, 5, 0, 0) + ints(0, 0)),
    "child with colours": (
        1,
        ints(own(20), own(TOP)) + shorts(0, 0, 5, 5, 0, 1) + ints(VISUAL, 1 << 1 | 1 << 3, 7, 8),
    ),
    "colormap": (
        1,
        ints(own(20), own(TOP)) + shorts(0, 0, 5, 5, 0, 1) + ints(0, COLORMAP_VALUE, COLORMAP),
    ),
    "no pixmaps": (2, ints(own(CHILD), 1 << 0 | 1 << 2, 0, 0)),
    "events": (2, ints(own(CHILD), EVENTS, EXPOSURE)),
    "no cursor": (2, ints(own(CHILD), CURSOR, 0)),
    "gravity": (2, ints(own(CHILD), GRAVITY, 10)),
    "events of the root": (2, ints(ROOT, EVENTS, 1 << 22)),
    "buttons before it is mapped": (2, ints(own(TOP), EVENTS, BUTTON)),
    "child is mapped in what is not": (8, ints(own(CHILD))),
    "child is placed": configure(CHILD, 1 | 2 | 4 | 8 | 16, 1, 2, 3, 4, 0),
    "child is raised": configure(CHILD, 64, 0),
    "child is put below another": configure(CHILD, 32 | 64, own(OTHER), 1),
    "clear": (61, ints(own(CHILD)) + shorts(0, 0, 0, 0)),
    "property": (18, ints(own(CHILD), 39, 31) + b"\x08\0\0\0" + ints(4) + b"text"),
}

RISKY = {
    "window of no size": (1, ints(own(20), ROOT) + shorts(0, 0, 0, 5, 0, 1) + ints(0, 0)),
    "window in nothing": (1, ints(own(20), own(MISSING)) + shorts(0, 0, 5, 5, 0, 1) + ints(0, 0)),
    "window in an input window": (
        1,
        ints(own(20), own(INPUT)) + shorts(0, 0, 5, 5, 0, 1) + ints(0, 0),
    ),
    "input window": (1, ints(own(20), own(TOP)) + shorts(0, 0, 5, 5, 0, 2) + ints(0, 0)),
    "window of an odd kind": (1, ints(own(20), own(TOP)) + shorts(0, 0, 5, 5, 0, 3) + ints(0, 0)),
    "window of another visual": (
        1,
        ints(own(20), own(TOP)) + shorts(0, 0, 5, 5, 0, 1) + ints(VISUAL + 1, 0),
    ),
    "window of another depth": (
        1,
        ints(own(20), own(TOP)) + shorts(0, 0, 5, 5, 0, 1) + ints(0, 0),
        32,
    ),
    "short window": (1, ints(own(20), ROOT)),
    "window with too little": (1, ints(own(20), ROOT) + shorts(0, 0, 5, 5, 0, 1) + ints(0, 2)),
    "window with a used id": (1, ints(own(TOP), ROOT) + shorts(0, 0, 5, 5, 0, 1) + ints(0, 0)),
    "foreign window": (1, ints(0x123, ROOT) + shorts(0, 0, 5, 5, 0, 1) + ints(0, 0)),
    "unknown colormap": (2, ints(own(CHILD), COLORMAP_VALUE, 0x77)),
    "pixmap": (2, ints(own(CHILD), 1, 0x77)),
    "unknown cursor": (2, ints(own(CHILD), CURSOR, own(20))),
    "gravity that is none": (2, ints(own(CHILD), GRAVITY, 11)),
    "redirection": (2, ints(own(CHILD), EVENTS, REDIRECT)),
    "events that are none": (2, ints(own(CHILD), EVENTS, 1 << 25)),
    "redirection of the root": (2, ints(ROOT, EVENTS, REDIRECT)),
    "cursor of the root": (2, ints(ROOT, CURSOR, 0)),
    "values of the root cut short": (2, ints(ROOT, EVENTS)),
    "attributes of nothing": (2, ints(own(MISSING), 0)),
    "short attributes": (2, ints(own(CHILD))),
    "attributes of an input window": (2, ints(own(INPUT), EVENTS, EXPOSURE)),
    "destroyed": (4, ints(own(CHILD))),
    "destroyed below": (5, ints(own(TOP))),
    "reparented": (7, ints(own(CHILD), own(OTHER)) + shorts(1, 2)),
    "reparented into nothing": (7, ints(own(CHILD), own(MISSING)) + shorts(1, 2)),
    "short reparenting": (7, ints(own(CHILD))),
    "top-level mapped": (8, ints(own(TOP))),
    "nothing mapped": (8, ints(own(MISSING))),
    "all mapped": (9, ints(own(TOP))),
    "unmapped": (10, ints(own(CHILD))),
    "all unmapped": (11, ints(own(TOP))),
    "child of no size": configure(CHILD, 4, 0),
    "sibling of another": configure(INNER, 32 | 64, own(OTHER), 0),
    "sibling of itself": configure(CHILD, 32 | 64, own(CHILD), 0),
    "sibling without a side": configure(CHILD, 32, own(OTHER)),
    "odd stacking": configure(CHILD, 64, 5),
    "input window placed": configure(INPUT, 1, 0),
    "top-level placed": configure(TOP, 1, 0),
    "nothing placed": configure(MISSING, 1, 0),
    "place cut short": configure(CHILD, 1),
    "clear with exposures": (61, ints(own(CHILD)) + shorts(0, 0, 0, 0), 1),
    "clear of an input window": (61, ints(own(INPUT)) + shorts(0, 0, 0, 0)),
    "appended property": (18, ints(own(CHILD), 39, 31) + b"\x08\0\0\0" + ints(4) + b"text", 2),
    "property of an odd unit": (18, ints(own(CHILD), 39, 31) + b"\x09\0\0\0" + ints(4) + b"text"),
    "property of no atom": (18, ints(own(CHILD), 999, 31) + b"\x08\0\0\0" + ints(4) + b"text"),
    "property cut short": (18, ints(own(CHILD), 39, 31) + b"\x08\0\0\0" + ints(40) + b"text"),
    "short property": (18, ints(own(CHILD), 39)),
}


@pytest.mark.parametrize("what", SAFE)
def test_safe(what: str, judged: Judged) -> None:
    assert judged.ask(*SAFE[what]).safe


@pytest.mark.parametrize("what", RISKY)
def test_risky(what: str, judged: Judged) -> None:
    assert not judged.ask(*RISKY[what]).safe
    assert not judged.is_synced()


def test_a_window_is_where_its_client_put_it(judged: Judged) -> None:
    assert judged.geometry(CHILD) == PLACE
    judged.ask(*configure(CHILD, 1 | 2 | 4 | 8 | 16, -7, 8, 90, 80, 2))
    judged.confirm()
    assert judged.geometry(CHILD) == (-7, 8, 90, 80, 2)
    assert judged.geometry(MISSING) is None


def test_a_window_that_may_not_be_there_is_unknown_until_it_is(judged: Judged) -> None:
    judged.window(20, own(TOP), values=(CURSOR, own(30)))
    assert judged.geometry(20) is None
    judged.confirm()
    assert judged.geometry(20) == PLACE


# Others have a hand in it -----------------------------------------------------------------------


def test_a_mapped_top_level_may_be_moved_by_anybody(judged: Judged) -> None:
    assert judged.geometry(TOP) == PLACE
    judged.ask(8, ints(own(TOP)))
    judged.confirm()
    assert judged.geometry(TOP) is None
    assert judged.geometry(CHILD) == PLACE
    # No manager is there: mapped is what it is.
    answer = attributes(judged, CHILD)
    assert answer is not None and answer[26] == 0


def test_a_window_managers_top_level_is_unknown(judged: Judged) -> None:
    judged = managed()
    assert judged.geometry(TOP) == PLACE
    judged.ask(8, ints(own(TOP)))
    judged.confirm()
    assert judged.geometry(TOP) is None
    assert attributes(judged, TOP) is None
    assert judged.geometry(CHILD) == PLACE
    assert attributes(judged, CHILD) is not None  # not mapped, whatever is above
    judged.ask(8, ints(own(CHILD)))
    judged.confirm()
    assert attributes(judged, CHILD) is None


def test_a_window_manager_may_move_what_is_not_mapped_too() -> None:
    judged = managed()
    judged.ask(*configure(TOP, 1, 5))
    judged.confirm()
    assert judged.geometry(TOP) is None


def test_a_window_manager_that_comes_takes_what_is_mapped(judged: Judged) -> None:
    judged.ask(8, ints(own(TOP)))
    judged.window(20, ROOT)
    judged.confirm()
    judged.facts.managed = True
    judged.predictor.follower.windows.look_for_manager()
    judged.predictor.follower.windows.look_for_manager()
    assert attributes(judged, TOP) is None
    assert judged.geometry(20) == PLACE


def test_override_redirect_is_no_business_of_a_window_manager() -> None:
    judged = managed()
    judged.window(20, values=(OVERRIDE, 1))
    judged.ask(8, ints(own(20)))
    judged.ask(8, ints(own(CHILD)))
    judged.confirm()
    assert judged.resources.windows[own(20)].mapped is True


@pytest.mark.parametrize("when", ["before", "after", "made", "reparented"])
def test_a_child_with_a_gravity_moves_with_what_others_resize(when: str, judged: Judged) -> None:
    number = CHILD
    if when == "before":
        judged.ask(2, ints(own(CHILD), GRAVITY, CENTRE))
    judged.ask(8, ints(own(TOP)))
    if when == "after":
        judged.ask(2, ints(own(CHILD), GRAVITY, CENTRE))
    elif when == "made":
        number = 20
        judged.window(number, own(TOP), values=(GRAVITY, CENTRE))
    elif when == "reparented":
        number = 21
        judged.window(20)
        judged.window(number, own(20), values=(GRAVITY, CENTRE))
        judged.ask(7, ints(own(number), own(TOP)) + shorts(0, 0))
    judged.confirm()
    assert judged.geometry(number) is None
    assert judged.geometry(OTHER) == PLACE


@pytest.mark.parametrize(("gravity", "known"), [(1, True), (CENTRE, False), (0, False)])
def test_children_are_pulled_by_their_own_client_too(
    gravity: int, known: bool, judged: Judged
) -> None:
    judged.ask(2, ints(own(INNER), GRAVITY, gravity))
    assert judged.ask(*configure(CHILD, 4, 30)).safe is known
    judged.confirm()
    assert (judged.geometry(INNER) == PLACE) is known
    mapped = judged.resources.windows[own(INNER)].mapped
    assert mapped is (None if gravity == 0 else False)


@pytest.mark.parametrize("code", [17, 21])
def test_news_of_what_others_did(code: int, judged: Judged) -> None:
    def tell(window: int, parent: int) -> None:
        event = struct.pack("<BBHIII", code, 0, 0, own(TOP), window, parent) + bytes(16)
        judged.predictor.take_event(judged.sequence, code, event)

    tell(own(MISSING), ROOT)
    tell(own(CHILD), 0x999)
    assert judged.geometry(CHILD) is None
    assert (own(INNER) in judged.resources.windows) is (code == 21)
    assert judged.geometry(OTHER) == PLACE
    tell(own(OTHER), ROOT)
    assert (judged.geometry(OTHER) is None) is (code == 17)


def test_reparenting_moves(judged: Judged) -> None:
    judged.ask(7, ints(own(INNER), own(OTHER)) + shorts(6, 7))
    judged.confirm()
    assert judged.geometry(INNER) == (6, 7, *PLACE[2:])
    judged.ask(7, ints(own(OTHER), own(INNER)) + shorts(6, 7))  # an error: it lies in it
    judged.confirm()
    assert judged.geometry(OTHER) is None


def test_what_is_destroyed_is_gone_with_all_in_it(judged: Judged) -> None:
    judged.ask(5, ints(own(CHILD)))
    judged.confirm()
    assert judged.geometry(INNER) is None
    assert judged.geometry(CHILD) == PLACE
    judged.ask(4, ints(own(TOP)))
    judged.confirm()
    assert not judged.resources.windows


# What is seen of mapping ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "mask", "told"),
    [
        (CHILD, STRUCTURE, True),
        (TOP, SUBSTRUCTURE, True),
        (CHILD, EXPOSURE, True),
        (INNER, EXPOSURE, False),  # is not mapped, but below
        (TOP, EXPOSURE, True),
        (CHILD, 1 << 22, False),
    ],
)
def test_mapping_tells_those_who_asked(who: int, mask: int, told: bool, judged: Judged) -> None:
    judged.ask(8, ints(own(TOP)))
    judged.confirm()
    judged.ask(2, ints(own(who), EVENTS, mask))
    safe = judged.ask(8, ints(own(CHILD))).safe
    assert safe is not told or who == INNER


def test_mapping_tells_who_watches_crossings_by_another_way(judged: Judged) -> None:
    judged.ask(8, ints(own(TOP)))
    judged.resources.sees_crossings = True
    assert not judged.ask(8, ints(own(CHILD))).safe


def test_making_tells_who_watches_the_children(judged: Judged) -> None:
    assert judged.window(20, own(TOP)).safe
    judged.ask(2, ints(own(TOP), EVENTS, SUBSTRUCTURE))
    assert not judged.window(21, own(TOP)).safe
    judged.ask(2, ints(ROOT, EVENTS, SUBSTRUCTURE))
    assert not judged.window(22).safe


def test_buttons_of_a_mapped_top_level_may_be_anothers(judged: Judged) -> None:
    judged.ask(8, ints(own(TOP)))
    assert not judged.ask(2, ints(own(TOP), EVENTS, BUTTON)).safe


def test_a_new_colormap_is_told_to_who_asked(judged: Judged) -> None:
    judged.ask(2, ints(own(CHILD), EVENTS, 1 << 23))
    assert not judged.ask(2, ints(own(CHILD), COLORMAP_VALUE, COLORMAP)).safe


# Attributes -------------------------------------------------------------------------------------


def test_attributes_are_what_the_client_gave(judged: Judged) -> None:
    judged.ask(2, ints(own(CHILD), EVENTS | 1 << 6, 2, EXPOSURE))
    judged.confirm()
    answer = attributes(judged, CHILD)
    assert answer is not None
    assert answer[1] == 2  # backing store
    assert answer[26] == 0  # not mapped
    assert struct.unpack_from("<I", answer, 28)[0] == COLORMAP
    assert struct.unpack_from("<II", answer, 32) == (EXPOSURE, EXPOSURE)
    judged.ask(8, ints(own(CHILD)))
    judged.confirm()
    answer = attributes(judged, CHILD)
    assert answer is not None and answer[26] == 1  # mapped, in what is not


def test_the_root_windows_attributes_hold_until_somebody_selects_others(judged: Judged) -> None:
    known = x.reply(LITTLE, 0, ints(VISUAL) + shorts(1) + bytes(2), bytes(12))
    known = known[:32] + ints(1 << 22 | 1 << 4) + ints(0) + known[40:]
    judged.facts.roots.attributes[ROOT] = known
    judged.facts.installed[COLORMAP] = 1
    assert judged.ask(2, ints(ROOT, EVENTS, 1 << 22)).safe
    answer = judged.ask(3, ints(ROOT)).answer
    assert answer is not None
    assert struct.unpack_from("<I", answer, 36)[0] == 1 << 22
    assert not judged.ask(3, ints(ROOT, 0)).safe
    judged.ask(2, ints(ROOT, EVENTS, 1 << 22 | STRUCTURE))
    answer = judged.ask(3, ints(ROOT)).answer
    assert answer is not None
    selected = 1 << 22 | 1 << 4 | STRUCTURE
    assert struct.unpack_from("<II", answer, 32) == (selected, 1 << 22 | STRUCTURE)
    judged.ask(2, ints(ROOT, EVENTS, 0))
    assert judged.ask(3, ints(ROOT)).answer is None  # others may have selected it as well


def test_many_windows_are_forgotten_one_by_one(judged: Judged) -> None:
    """One in another, deeper than is followed: the deepest are unknown, nothing is wrong."""
    for number in range(100, 200):
        judged.window(number, own(number - 1) if number > 100 else ROOT)
    judged.confirm()
    assert judged.geometry(120) == PLACE
    assert judged.geometry(199) is None
    judged.ask(4, ints(own(100)))
    judged.confirm()
    assert judged.geometry(120) is None


def test_a_colormap_of_its_own_suits_a_window_of_its_visual(judged: Judged) -> None:
    judged.ask(78, ints(own(30), ROOT, VISUAL))
    judged.ask(78, ints(own(31), ROOT, VISUAL + 1))
    judged.confirm()
    for number, suits in ((30, True), (31, False)):
        assert judged.ask(2, ints(own(CHILD), COLORMAP_VALUE, own(number))).safe is suits


def test_mapping_deep_down_is_noticed_above(judged: Judged) -> None:
    judged.ask(8, ints(own(TOP)))
    judged.ask(8, ints(own(CHILD)))
    judged.confirm()
    assert judged.ask(8, ints(own(INNER))).safe
    judged.ask(10, ints(own(INNER)))
    judged.ask(2, ints(own(TOP), EVENTS, 1 << 4))
    judged.confirm()
    assert not judged.ask(8, ints(own(INNER))).safe


def test_a_large_family_is_not_looked_through(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged.ask(8, ints(own(TOP)))
    judged.confirm()
    assert judged.ask(8, ints(own(CHILD))).safe
    judged.ask(10, ints(own(CHILD)))
    judged.confirm()
    monkeypatch.setattr(follow_windows, "FAMILY_LIMIT", 1)
    assert not judged.ask(8, ints(own(CHILD))).safe


def test_what_nobody_knows_to_be_mapped_stays_so_when_all_is_unmapped(judged: Judged) -> None:
    judged.resources.windows[own(CHILD)].mapped = None
    judged.resources.windows[own(OTHER)].mapped = True
    judged.ask(11, ints(own(TOP)))
    assert judged.resources.windows[own(CHILD)].mapped is None
    assert judged.resources.windows[own(OTHER)].mapped is False


def test_a_window_manager_that_is_found_not_to_be_there_takes_nothing() -> None:
    known = facts()
    known.managed = None
    judged = family(Judged(known))
    place = judged.geometry(TOP)
    known.managed = False
    assert judged.geometry(TOP) == place == PLACE


def test_attributes_that_the_server_refuses_are_not_told(judged: Judged) -> None:
    assert attributes(judged, CHILD) is not None
    judged.ask(2, ints(own(CHILD), GRAVITY, 300))
    judged.confirm()
    assert attributes(judged, CHILD) is None


@pytest.mark.parametrize("how", ["watched", "noticed", "crowded", "", "seen"])
def test_the_event_of_a_mapping_is_its_last_where_no_other_can_come(
    how: str, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged.ask(2, ints(own(TOP), EVENTS, STRUCTURE))
    if how == "noticed":
        judged.ask(2, ints(ROOT, EVENTS, SUBSTRUCTURE))
    judged.confirm()
    judged.resources.is_watched = how == "watched"
    judged.resources.sees_crossings = how == "seen"
    if how == "crowded":
        monkeypatch.setattr(conclusions, "FAMILY_LIMIT", 1)
    judged.ask(8, ints(own(TOP)))
    event = struct.pack("<BBHII", 19, 0, 0, own(TOP), own(TOP)) + bytes(20)
    judged.predictor.take_event(judged.sequence, 19, event)
    assert (judged.predictor.confirmed == judged.sequence) is (how == "")


def test_ids_that_are_taken_are_not_given_twice(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources, kind = judged.resources, {}
    resources.claim_unfollowed(own(50), kind)
    resources.claim_unfollowed(own(TOP), kind)
    assert resources.unfollowed == {own(50): kind}
    monkeypatch.setattr(resources_module, "RESOURCE_LIMIT", 0)
    assert not resources.claim(own(51))


def test_a_frame_that_is_destroyed_is_looked_for_no_more(judged: Judged) -> None:
    frame, looks = Thing(Subject.FRAME, own(TOP)), judged.facts.looks
    event = struct.pack("<BBHIIIhhB11x", 21, 0, 0, own(TOP), own(TOP), 0x12345, 0, 0, 0)
    judged.predictor.take_event(judged.sequence, 21, event)
    number = looks.number(frame)
    moved = struct.pack("<BBHIIIhhHHH6x", 22, 0, 0, own(TOP), own(TOP), 0, 1, 2, 9, 9, 0)
    judged.predictor.take_event(judged.sequence, 22, moved)
    assert looks.number(frame) > number
    seen = build_frames([Frame(each, *(b"\1" + bytes(31),) * 3) for each in (0x12345, 0x12346)])
    looks.tell(frame, looks.number(frame), seen)
    for identifier, known in ((0x12345, True), (0x12346, True), (0x12347, False)):
        assert (judged.ask(14, ints(identifier)).answer is not None) is known


def test_a_window_is_removed_once(judged: Judged) -> None:
    window = judged.resources.windows[own(INNER)]
    judged.resources.remove_window(window)
    assert judged.resources.claim(own(INNER))
    judged.resources.remove_window(window)
    assert not judged.resources.claim(own(INNER))
