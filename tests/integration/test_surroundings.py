"""What window managers decide, answered from looks next to the X server: compared with the server.

The window manager is a rude one: it frames, moves and resizes what asks to be mapped.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from tests.support.xlooks import Eyes, request
from tests.support.xoracle import Judge, RedirectingManager, ask_facts, build_facts, connect
from tests.support.xvfb import Xvfb

EVENTS = 1 << 17 | 1 << 22  # StructureNotify, PropertyChange
QUERY_TREE, GET_GEOMETRY, TRANSLATE, GET_PROPERTY = 15, 14, 40, 20


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, long_lived_processes: set[int]) -> Iterator[str]:
    server = Xvfb(tmp_path_factory.mktemp("x"), access="none")
    long_lived_processes.add(server.process.pid)
    yield server.socket_path
    server.stop()


@pytest.fixture(scope="module")
def eyes(path: str) -> Iterator[Eyes]:
    made = Eyes(path)
    yield made
    made.close()


class Managed:
    """One client with a window that a window manager has put into a frame."""

    def __init__(self, path: str, eyes: Eyes) -> None:
        self.facts = build_facts(ask_facts(path))
        self.judge = Judge(path, self.facts)
        self.judge.lockstep = False
        self.eyes = eyes
        self.root = next(iter(self.facts.screens))
        self.window = self.judge.base + 1
        self.create(self.window)
        self.do(request(8, self.window))
        framed = self.judge.conversation._predictor
        assert framed is not None
        self.frame = framed._surroundings._frames[self.window]

    def create(self, window: int) -> None:
        place = struct.pack("<hhHHHHII", 3, 4, 50, 60, 0, 1, 0, 1 << 11)
        self.do(request(1, window, self.root, more=place + struct.pack("<I", EVENTS)))

    def do(self, data: bytes) -> None:
        self.judge.send(data)
        self.eyes.wait_until_quiet(self.judge)

    def is_known(self, data: bytes) -> bool:
        """Ask; tell whether the answer came early."""
        self.judge.send(data)
        known = self.judge.opinions[self.judge.sequence].answer is not None
        while self.judge.heard < self.judge.sequence:
            self.judge.read()
        return known

    def questions(self) -> list[bytes]:
        return [
            request(QUERY_TREE, self.root),
            request(QUERY_TREE, self.frame),
            request(GET_GEOMETRY, self.frame),
            request(TRANSLATE, self.window, self.frame, 0),
        ]

    def finish(self) -> None:
        faults = self.judge.finish().faults
        # What others did may come at any time.
        assert not [each for each in faults if "after an early sync" not in each], faults


@pytest.fixture
def managed(path: str, eyes: Eyes) -> Iterator[Managed]:
    with RedirectingManager(path):
        made = Managed(path, eyes)
        yield made
        made.judge.close()


def test_a_frame_and_the_roots_children_are_what_the_server_says(managed: Managed) -> None:
    assert all(managed.is_known(each) for each in managed.questions())
    managed.finish()


CHANGES = {
    "configured": lambda made: struct.pack("<BBHIHxxI", 12, 0, 4, made.window, 4, 33),
    "unmapped": lambda made: request(10, made.window),
    "reparented": lambda made: request(7, made.window, made.root, 0),
    "a new window": lambda made: request(
        1, made.judge.base + 9, made.root, more=struct.pack("<6HII", 0, 0, 9, 9, 0, 1, 0, 0)
    ),
    "something in the frame": lambda made: request(
        1, made.judge.base + 9, made.frame, more=struct.pack("<6HII", 0, 0, 9, 9, 0, 1, 0, 0)
    ),
    "the frame moved": lambda made: struct.pack("<BBHIHxxI", 12, 0, 4, made.frame, 1, 99),
}


@pytest.mark.parametrize("change", CHANGES)
def test_who_changes_something_waits_for_the_server(managed: Managed, change: str) -> None:
    touched = {"a new window": managed.questions()[:1]}.get(change, managed.questions()[1:])
    managed.judge.send(CHANGES[change](managed))
    for each in touched:
        assert not managed.is_known(each)
    managed.eyes.wait_until_quiet(managed.judge)
    for each in managed.questions():
        managed.is_known(each)
        managed.eyes.wait_until_quiet(managed.judge)
    managed.finish()


def test_what_others_do_is_told(managed: Managed, path: str) -> None:
    """Another client moves the frame, puts a window into it, and one more on the root window."""
    other = connect(path)
    judge = Judge(path, build_facts(ask_facts(path)))
    for data in (
        struct.pack("<BBHIHxxI", 12, 0, 4, managed.frame, 1, 77),
        request(1, judge.base + 1, managed.frame, more=struct.pack("<6HII", *[9] * 4, 0, 1, 0, 0)),
        request(1, judge.base + 2, managed.root, more=struct.pack("<6HII", *[9] * 4, 0, 1, 0, 0)),
        request(8, judge.base + 1),
    ):
        judge.send(data)
    judge.settle()
    managed.eyes.wait_until_quiet(managed.judge)
    assert all(managed.is_known(each) for each in managed.questions())
    managed.finish()
    judge.close()
    other.close()


@pytest.mark.parametrize("grabbed", [True, False])
def test_nothing_is_said_in_a_grab(managed: Managed, grabbed: bool) -> None:
    if grabbed:
        managed.judge.send(request(36))
    assert [managed.is_known(each) for each in managed.questions()] == [not grabbed] * 4
    managed.judge.send(request(37))
    managed.finish()


def intern(name: bytes) -> bytes:
    return (
        struct.pack("<BBHHxx", 16, 0, 2 + (len(name) + 3) // 4, len(name))
        + name
        + bytes(-len(name) % 4)
    )


def test_a_property_that_others_wrote(managed: Managed, path: str) -> None:
    judge = Judge(path, build_facts(ask_facts(path)))
    name = intern(b"WM_STATE")
    for each in (judge, managed.judge):
        each.send(name)
        each.settle()
    atom = struct.unpack_from("<I", judge.told[1], 8)[0]
    asked = request(GET_PROPERTY, managed.window, atom, 0, 0, 64)
    for value in (b"one", b"four", b""):
        head = struct.pack("<IIIBxxxI", managed.window, atom, 31, 8, len(value))
        body = head + value + bytes(-len(value) % 4)
        judge.send(struct.pack("<BBH", 18, 0, 1 + len(body) // 4) + body)
        judge.settle()
        managed.eyes.wait_until_quiet(managed.judge)
        assert managed.is_known(asked)
    judge.send(request(19, managed.window, atom))
    judge.settle()
    managed.eyes.wait_until_quiet(managed.judge)
    assert managed.is_known(asked)
    # From its own change on the client gets what it wrote, and no older look counts.
    managed.judge.send(request(19, managed.window, atom))
    assert not managed.is_known(asked)
    managed.finish()
    judge.close()


def test_the_focus_is_known_again_after_it_moved(managed: Managed, path: str) -> None:
    judge = Judge(path, build_facts(ask_facts(path)))
    managed.do(struct.pack("<BBHIII", 2, 0, 4, managed.window, 1 << 11, EVENTS | 1 << 21))
    judge.send(request(42, managed.window, 0, minor=1))
    judge.settle()
    managed.eyes.wait_until_quiet(managed.judge)
    assert managed.is_known(request(43))
    assert managed.judge.told[managed.judge.sequence][8:12] == struct.pack("<I", managed.window)
    judge.close()


@pytest.mark.parametrize("seed", range(6))
def test_in_a_hurry_nothing_is_said_that_never_was(path: str, eyes: Eyes, seed: int) -> None:
    """What is told may be as old as the way of an answer, and no older; nothing fails by it."""
    dice = random.Random(seed)
    with RedirectingManager(path):
        made = Managed(path, eyes)
        judge, windows = made.judge, [made.window]
        for number in range(2, 60):
            kind = dice.randrange(8)
            window = dice.choice(windows)
            if kind == 0:
                windows.append(judge.base + number)
                place = struct.pack("<6HII", 3, 4, 50, 60, 0, 1, 0, 1 << 11)
                events = struct.pack("<I", EVENTS)
                judge.send(request(1, windows[-1], made.root, more=place + events))
            elif kind == 1:
                judge.send(request(8, window))
            elif kind == 2:
                width = dice.randrange(1, 99)
                judge.send(struct.pack("<BBHIHxxI", 12, 0, 4, window, 4, width))
            elif kind == 3:
                judge.send(request(10, window))
            else:
                for each in made.questions():
                    judge.send(each)
                    known = judge.opinions[judge.sequence].answer is not None
                    while not known and judge.heard < judge.sequence:
                        judge.read()
            eyes.serve(judge)
            if dice.random() < 0.4:
                eyes.wait_until_quiet(judge)
        judge.settle()
        assert not judge.conversation.counters.mispredictions, judge.conversation.notes
        judge.close()
