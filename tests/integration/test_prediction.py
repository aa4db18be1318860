"""What is said in advance, compared with what a real X server says: nothing may differ.

Random clients, valid and not, from fixed seeds. A request that is judged safe may neither fail nor
cause an event; an answer that is given early must be the server's own, byte for byte.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.tools import need_tool
from tests.support.xoracle import (
    Judge,
    RedirectingManager,
    RootWatch,
    Verdict,
    ask_facts,
    build_facts,
)
from tests.support.xvfb import Xvfb
from xsshpy.remote.facts import ServerFacts
from xsshpy.remote.records import Record
from xsshpy.remote.xmessages import Authorization
from xsshpy.remote.xrequests import FactClass


class Oracle:
    """One X server, what is known of it, and someone who watches its root window."""

    def __init__(self, server: Xvfb, real: Authorization | None = None) -> None:
        self.path = server.socket_path
        self.real = real
        self.records: list[Record] = ask_facts(self.path, real)
        self.watch = RootWatch(self.path, next(iter(self.facts().screens)), real)

    def facts(self) -> ServerFacts:
        return build_facts(self.records)

    def judge(self, seed: int, facts: ServerFacts | None = None) -> Judge:
        known = facts or self.facts()
        self.watch.tell(known)
        return Judge(self.path, known, self.real, seed)

    def run(self, seed: int, count: int, *, in_step: bool) -> Verdict:
        judge = self.judge(seed)
        try:
            return judge.run_in_step(count) if in_step else judge.run_in_haste(count, seed)
        finally:
            judge.close()


@pytest.fixture(scope="module")
def oracle(
    tmp_path_factory: pytest.TempPathFactory, long_lived_processes: set[int]
) -> Iterator[Oracle]:
    server = Xvfb(tmp_path_factory.mktemp("x"), access="none")
    long_lived_processes.add(server.process.pid)
    made = Oracle(server)
    yield made
    made.watch.close()
    server.stop()


@pytest.mark.parametrize("seed", range(0, 100, 20))
def test_what_is_safe_neither_fails_nor_causes_events(oracle: Oracle, seed: int) -> None:
    early = safe = 0
    for each in range(seed, seed + 20):
        verdict = oracle.run(each, 50, in_step=True)
        assert not verdict.faults, (each, *verdict.faults)
        early += verdict.early
        safe += verdict.safe
    assert early > 100
    assert safe > 500


@pytest.mark.parametrize("seed", range(1000, 1100, 20))
def test_what_is_said_in_a_hurry_is_what_the_server_says(oracle: Oracle, seed: int) -> None:
    early = 0
    for each in range(seed, seed + 20):
        verdict = oracle.run(each, 80, in_step=False)
        assert not verdict.faults, (each, *verdict.faults)
        early += verdict.early
    assert early > 20


def test_under_a_window_manager_too(oracle: Oracle) -> None:
    with RedirectingManager(oracle.path):
        facts = build_facts(ask_facts(oracle.path))
        assert facts.managed
        for seed in range(2000, 2025):
            oracle.watch.tell(facts)
            judge = Judge(oracle.path, facts, None, seed)
            verdict = judge.run_in_haste(60, seed)
            judge.close()
            assert not verdict.faults, (seed, *verdict.faults)


@pytest.fixture(scope="module")
def untrusted(
    tmp_path_factory: pytest.TempPathFactory, long_lived_processes: set[int]
) -> Iterator[Oracle]:
    server = Xvfb(tmp_path_factory.mktemp("x"))
    long_lived_processes.add(server.process.pid)
    environment = {"PATH": "/usr/bin:/bin", **server.environment()}

    def xauth(*words: str) -> str:
        command = [need_tool("xauth"), "-f", server.authority, *words]
        done = subprocess.run(
            command, env=environment, check=True, timeout=30, capture_output=True, text=True
        )
        return done.stdout

    xauth("generate", server.display, ".", "untrusted")
    cookie = bytes.fromhex(xauth("list", server.display).splitlines()[0].split()[-1])
    assert cookie != server.cookie
    made = Oracle(server, Authorization(b"MIT-MAGIC-COOKIE-1", cookie))
    yield made
    made.watch.close()
    server.stop()


@pytest.mark.parametrize("in_step", [True, False])
def test_untrusted_clients_too(untrusted: Oracle, in_step: bool) -> None:
    early = 0
    for seed in range(3000, 3020):
        verdict = untrusted.run(seed, 50, in_step=in_step)
        assert not verdict.faults, (seed, *verdict.faults)
        early += verdict.early
    assert early > 10


def make_decent_requests(judge: Judge, seed: int) -> Iterator[bytes]:
    """Requests about a client's own windows that never fail, as toolkits send them at start."""
    dice = random.Random(seed)
    root = next(iter(judge.facts.screens))
    atoms = [4, 31, 35, 39, 40, 68]
    windows: list[int] = []

    def request(opcode: int, form: str, *values: int, minor: int = 0, more: bytes = b"") -> bytes:
        body = struct.pack("<" + form, *values) + more + bytes(-len(more) % 4)
        return struct.pack("<BBH", opcode, minor, 1 + len(body) // 4) + body

    for step in range(60):
        kind = dice.choices(range(9), (2, 9, 3, 12, 3, 3, 0.3, 0.3, 0.6))[0]
        if kind == 0 or not windows:
            windows.append(judge.base + 1 + step)
            above = dice.choice([root, *windows[:-1]])
            yield request(1, "IIhhHHHHII", windows[-1], above, 3, 4, 50, 60, 0, 1, 0, 0)
        window, atom, type_ = dice.choice(windows), dice.choice(atoms), dice.choice(atoms)
        if kind == 1:
            unit, count = dice.choice((8, 16, 32)), dice.randrange(9)
            data = dice.randbytes(count * unit // 8)
            head = (window, atom, type_, unit, count)
            yield request(18, "IIIBxxxI", *head, more=data)
        elif kind == 2:
            yield request(19, "II", window, atom)
        elif kind == 3:
            span = dice.choice((0, 1, 9, 0xFFFFFFFF))
            wanted = dice.choice((0, 0, type_))
            yield request(20, "IIIII", window, atom, wanted, 0, span, minor=dice.random() < 0.1)
        elif kind == 4:
            yield request(15, "I", window)
        elif kind == 5:
            yield request(40, "IIhh", window, window, dice.randrange(-99, 99), 5)
        elif kind == 6:
            yield request(8, "I", window)
        elif kind == 7:
            yield request(24, "IIIII", window, 1, 31, atom, 0)
        elif kind == 8:
            yield request(7, "IIhh", window, root, 9, 9)


@pytest.mark.parametrize("waiting", [True, False])
def test_windows_are_what_their_client_made_them(oracle: Oracle, waiting: bool) -> None:
    known = set()
    for seed in range(4000, 4040):
        judge = oracle.judge(seed)
        judge.lockstep = waiting
        for request in make_decent_requests(judge, seed):
            judge.send(request)
            if waiting:
                judge.settle()
        verdict = judge.finish()
        judge.close()
        assert not verdict.faults, (seed, *verdict.faults)
        assert not judge.conversation.counters.errors
        known.update(
            judge.asked[number][0]
            for number, opinion in judge.opinions.items()
            if opinion.answer is not None
        )
    assert known >= {15, 20, 40}


KINDS_OF_STATE = (FactClass.SELECTIONS, FactClass.DEVICES, FactClass.INPUT, FactClass.SCREENS)


def test_what_is_watched_is_what_the_server_says(oracle: Oracle) -> None:
    """Every question about selections, devices, outputs, the pointer: answered early, and right."""
    judge = oracle.judge(1)
    opcodes = {name: opcode for opcode, name in judge.facts.extensions.items()}
    keyboard = opcodes[b"XKEYBOARD"]
    judge.send(struct.pack("<BBHHH", keyboard, 0, 2, 1, 0))
    kinds = {key: kind for key, (kind, _) in judge.facts.replies.items()}
    asked = [key for key, kind in kinds.items() if kind in KINDS_OF_STATE or key[0] == keyboard]
    before = judge.conversation.counters.answered_early
    for key in asked:
        judge.send(key)
    told = judge.conversation.counters.answered_early - before
    verdict = judge.finish()
    judge.close()
    assert not verdict.faults, verdict.faults
    assert told == len(asked)
    assert {kinds[key] for key in asked} >= set(KINDS_OF_STATE)
    devices = opcodes[b"XInputExtension"]
    assert {(devices, 48), (devices, 59), (keyboard, 4), (keyboard, 6), (keyboard, 24)} <= {
        (key[0], key[1]) for key in asked
    }


@pytest.mark.parametrize(
    "change",
    [
        struct.pack("<BBHIIhhHHhh", 41, 0, 6, 0, 0, 0, 0, 0, 0, 5, 6),  # WarpPointer
        struct.pack("<BBHI", 8, 0, 2, 0),  # MapWindow
    ],
    ids=["warped", "mapped"],
)
def test_who_may_have_moved_the_pointer_waits_for_the_server(oracle: Oracle, change: bytes) -> None:
    judge = oracle.judge(1)
    root = next(iter(judge.facts.screens))
    window = judge.base + 1
    judge.send(struct.pack("<BBHIIhhHHHHII", 1, 0, 8, window, root, 0, 0, 999, 999, 0, 1, 0, 0))
    where = struct.pack("<BBHI", 38, 0, 2, root)
    judge.send(where)
    assert judge.opinions[judge.sequence].answer is not None
    if change[0] == 41:
        change = change[:8] + struct.pack("<I", root) + change[12:]
    else:
        change = change[:4] + struct.pack("<I", window)
    judge.send(change)
    judge.send(where)
    assert judge.opinions[judge.sequence].answer is None
    verdict = judge.finish()
    judge.close()
    assert not verdict.faults, verdict.faults
    assert judge.told[2][12:20] != judge.told[4][12:20]


def test_who_owns_a_selection_is_not_told_to_who_takes_one(oracle: Oracle) -> None:
    judge = oracle.judge(1)
    root = next(iter(judge.facts.screens))
    questions = [key for key, (k, _) in judge.facts.replies.items() if k is FactClass.SELECTIONS]
    window = judge.base + 1
    judge.send(struct.pack("<BBHIIhhHHHHII", 1, 0, 8, window, root, 0, 0, 9, 9, 0, 1, 0, 0))
    judge.send(questions[0])
    assert judge.opinions[judge.sequence].answer is not None
    judge.send(struct.pack("<BBHI", 22, 0, 4, window) + questions[0][4:8] + bytes(4))
    judge.send(questions[0])
    assert judge.opinions[judge.sequence].answer is None
    judge.send(questions[1])
    assert judge.opinions[judge.sequence].answer is not None
    verdict = judge.finish()
    judge.close()
    assert not verdict.faults, verdict.faults
    assert judge.told[4][8:12] == struct.pack("<I", window)


def request_of(opcode: int, *values: int, minor: int = 0) -> bytes:
    return struct.pack(f"<BBH{len(values)}I", opcode, minor, 1 + len(values), *values)


def message_about(window: int, root: int, kind: int) -> bytes:
    event = struct.pack("<BBHIIIIIII", 33, 32, 0, window, kind, 0, 0, 0, 0, 0)
    return struct.pack("<BBHII", 25, 0, 11, root, 1 << 19) + event


@pytest.mark.parametrize("managed", [False, True])
@pytest.mark.parametrize("what", ["map", "convert", "embed", "tell", "announce"])
def test_others_may_write_to_what_they_are_told_of(
    oracle: Oracle, what: str, managed: bool
) -> None:
    judge = oracle.judge(1)
    judge.facts.managed = managed
    root = next(iter(judge.facts.screens))
    window, other = judge.base + 1, judge.base + 2
    for each in (window, other):
        judge.send(
            struct.pack("<BBHII", 1, 0, 8, each, root) + struct.pack("<6HII", *[9] * 4, 0, 1, 0, 0)
        )
    asked = request_of(20, window, 39, 0, 0, 9)
    judge.send(asked)
    assert judge.opinions[judge.sequence].answer is not None
    judge.send(
        {
            "map": request_of(8, window),
            "convert": request_of(24, window, 1, 31, 39, 0),
            "embed": request_of(7, window, other, 0),
            "tell": message_about(window, root, 39),
            "announce": struct.pack("<BBHIIIBxxxII", 18, 0, 7, root, 200, 33, 32, 1, window),
        }[what]
    )
    judge.send(asked)
    # Messages to the root window are read by window managers alone.
    alone = what == "tell" and not managed
    assert (judge.opinions[judge.sequence].answer is not None) is alone
    judge.close()
