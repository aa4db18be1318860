"""What is said in advance, compared with what a real X server says: nothing may differ.

Random clients, valid and not, from fixed seeds. A request that is judged safe may neither fail nor
cause an event; an answer that is given early must be the server's own, byte for byte.
"""

from __future__ import annotations

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
