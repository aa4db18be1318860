"""Sequences of requests whose early answers were wrong once, before a real X server."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.support.xoracle import SYNC, Judge, RootWatch, ask_facts, build_facts
from tests.support.xvfb import Xvfb
from xsshpy.remote.facts import ServerFacts
from xsshpy.remote.records import Record

NOBODY = 0x1234567
"""An id that no client has."""


class Stage:
    """A client that is answered early, another that is not, and the server."""

    def __init__(self, path: str, records: list[Record], watch: RootWatch) -> None:
        self.facts: ServerFacts = build_facts(records)
        self.path = path
        self.other = watch
        self.root = watch.root
        watch.tell(self.facts)
        self.judge = Judge(path, self.facts)
        self.judge.lockstep = False
        self.base = self.judge.base
        self.send = self.judge.send
        self.settle = self.judge.settle

    def opcode_of(self, name: bytes) -> int:
        return next(code for code, each in self.facts.extensions.items() if each == name)

    def window(self, number: int, mask: int = 0, *values: int) -> int:
        """Make a window of 100 by 80 at 10, 20."""
        place = struct.pack("<hhHHHHI", 10, 20, 100, 80, 0, 1, 0)
        head = struct.pack("<BBHII", 1, 0, 8 + len(values), self.base + number, self.root)
        self.send(head + place + struct.pack(f"<I{len(values)}I", mask, *values))
        return self.base + number

    def require_right(self) -> None:
        assert not self.judge.finish().faults


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, long_lived_processes: set[int]
) -> Iterator[Xvfb]:
    made = Xvfb(tmp_path_factory.mktemp("x"), access="none")
    long_lived_processes.add(made.process.pid)
    yield made
    made.stop()


@pytest.fixture
def stage(server: Xvfb) -> Iterator[Stage]:
    records = ask_facts(server.socket_path)
    watch = RootWatch(server.socket_path, next(iter(build_facts(records).screens)))
    made = Stage(server.socket_path, records, watch)
    yield made
    made.judge.close()
    watch.close()


def test_a_window_that_was_not_moved_since_its_sibling_is_none(stage: Stage) -> None:
    window = stage.window(1)
    stage.settle()
    # x, and above a sibling that is not there: nothing of it is done.
    stage.send(struct.pack("<BBHIHxxIII", 12, 0, 6, window, 1 | 32 | 64, 77, NOBODY, 0))
    stage.settle()
    stage.send(struct.pack("<BBHI", 14, 0, 2, window))
    stage.require_right()


@pytest.mark.parametrize("request_of", [5, 6, 7])
def test_a_picture_goes_with_its_window(stage: Stage, request_of: int) -> None:
    render, window, picture = stage.opcode_of(b"RENDER"), stage.window(1), stage.base + 2
    deep = next(key for key, depth in stage.facts.picture_formats.items() if depth == 24)
    stage.send(struct.pack("<BBHIIII", render, 4, 5, picture, window, deep, 0))
    stage.send(struct.pack("<BBHI", 4, 0, 2, window))
    stage.settle()
    stage.send(
        {
            5: struct.pack("<BBHII", render, 5, 3, picture, 0),
            6: struct.pack("<BBHIhh", render, 6, 3, picture, 0, 0),
            7: struct.pack("<BBHI", render, 7, 2, picture),
        }[request_of]
    )
    stage.send(SYNC)
    stage.require_right()


def test_who_hears_of_a_propertys_change_reads_the_new_value(stage: Stage) -> None:
    name = struct.pack("<BBHHxx", 16, 0, 4, 8) + b"REVISED\0"
    atom = struct.unpack_from("<I", stage.other.ask(name), 8)[0]
    change = struct.pack("<BBHIIIB3xI", 18, 0, 7, stage.root, atom, 31, 8, 4)
    read = struct.pack("<BBHIIIII", 20, 0, 6, stage.root, atom, 0, 0, 9)
    stage.other.sock.sendall(change + b"old!")
    stage.other.ask(SYNC)
    stage.other.tell(stage.facts)
    stage.send(struct.pack("<BBHIII", 2, 0, 4, stage.root, 1 << 11, 1 << 22))
    stage.send(read)
    stage.settle()
    stage.other.sock.sendall(change + b"new!")
    stage.other.ask(SYNC)
    stage.judge.read()  # the event; what the other end has to tell of it is still under way
    stage.send(read)
    stage.settle()
    assert stage.judge.real[stage.judge.sequence - 1][32:36] == b"new!"
    assert stage.judge.told == stage.judge.real
    assert not stage.judge.conversation.counters.mispredictions


def test_an_atom_that_was_absent_may_have_been_made(stage: Stage) -> None:
    ask = struct.pack("<BBHHxx", 16, 1, 4, 8) + b"MADE_NOW"
    stage.send(ask)
    stage.settle()
    stage.other.ask(ask[:1] + b"\0" + ask[2:])
    stage.send(ask)
    stage.require_right()


def test_a_request_of_an_unknown_extension_may_have_many_replies(stage: Stage) -> None:
    stage.send(struct.pack("<BBHHxx", 98, 0, 4, 6) + b"RECORD\0\0")
    stage.settle()
    record, context = stage.judge.real[1][9], stage.base + 5
    stage.send(struct.pack("<BBHHH", record, 0, 2, 1, 13))
    ranges = struct.pack("<BB22x", 43, 43)
    every = struct.pack("<BBHIB3xIII", record, 1, 12, context, 0, 1, 1, 3)
    stage.send(every + ranges)
    stage.settle()
    stage.send(struct.pack("<BBHI", record, 5, 2, context))
    enabled, replies = stage.judge.sequence, []
    for _ in range(3):
        stage.other.ask(SYNC)
        stage.judge.read(64)
        replies.append(stage.judge.told[enabled])
    assert len(set(replies)) > 1


def test_a_failed_move_ends_what_was_followed(stage: Stage) -> None:
    outer, inner = stage.window(1), stage.base + 2
    place = struct.pack("<hhHHHHII", 10, 20, 50, 50, 0, 1, 0, 0)
    stage.send(struct.pack("<BBHII", 1, 0, 8, inner, outer) + place)
    stage.settle()
    stage.send(struct.pack("<BBHIHxxIII", 12, 0, 6, inner, 4 | 32 | 64, 9, NOBODY, 0))
    stage.settle()
    stage.send(struct.pack("<BBHI", 14, 0, 2, inner))
    stage.require_right()


GRADIENT = struct.pack("<iiiiI", 0, 0, 1 << 16, 0, 2) + struct.pack("<ii8H", 0, 1 << 16, *[0] * 8)


def test_what_nobody_follows_is_no_burden_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xsshpy.remote.resources.RESOURCE_LIMIT", 20)
    render = stage.opcode_of(b"RENDER")
    for number in range(1, 50):
        picture = stage.base + number
        head = struct.pack("<BBHI", render, 34, 2 + len(GRADIENT) // 4, picture)
        stage.send(head + GRADIENT)
        stage.send(struct.pack("<BBHI", render, 7, 2, picture))
    stage.settle()
    assert not stage.judge.conversation.counters.errors
    stage.window(100)
    stage.send(SYNC)
    assert stage.judge.sequence in stage.judge.told
    stage.require_right()
