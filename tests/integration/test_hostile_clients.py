"""X clients that mean harm, through the agent and through the relay, beside the X server itself.

Where the server answers, they get its very words: codes, opcodes, values, sequence numbers. Where
servers could disagree, the client's connection ends. Others go on being served in either case.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import wait_until
from tests.support.xdisplays import Displays, Said, Speaker, Way, setup_request
from tests.support.xhostile import ENDED, FOCUS, SAME, Row
from tests.support.xvfb import Xvfb
from xsshpy.remote import server as agent_server_module
from xsshpy.remote.listener import open_listener
from xsshpy.remote.server import Agent
from xsshpy.remote.xmessages import ByteOrder

LITTLE, BIG = ByteOrder.LITTLE, ByteOrder.BIG
BOTH_ORDERS = ("lie", "cut short", "wrap", "ids", "too short")
"""Rows that are told in both byte orders: all that is about a request's own bytes."""


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, long_lived_processes: set[int]
) -> Iterator[Xvfb]:
    """An X server that is flooded here, and nowhere else."""
    made = Xvfb(tmp_path_factory.mktemp("flooded"))
    long_lived_processes.add(made.process.pid)
    yield made
    made.stop()


@pytest.fixture
def displays(server: Xvfb, short_directory: Path) -> Iterator[Displays]:
    made = Displays(server, short_directory)
    yield made
    made.stop()
    assert made.loop.failures == []


def play(way: Way, row: Row, order: ByteOrder) -> tuple[list[Said], bool]:
    """Send a row and XSync; return what comes up to its reply, and whether the connection ended."""
    with Speaker(way, order) as speaker:
        pieces = list(row(speaker))
        data = b"".join(pieces) + speaker.request(FOCUS)
        sending = threading.Thread(target=speaker.send, args=(data,))
        sending.start()
        heard = speaker.hear(speaker.asked + len(pieces) + 1)
        sending.join()
        return heard, speaker.closed


def test_the_servers_own_words(displays: Displays) -> None:
    """All rows; in between and at the end another client is answered."""
    wrong = []
    with Speaker(displays.agent) as near, Speaker(displays.native) as far:
        for name, row in SAME.items():
            orders = (LITTLE, BIG) if any(word in name for word in BOTH_ORDERS) else (LITTLE,)
            for order in orders:
                expected = play(displays.direct, row, order)
                for way in (displays.agent, displays.native):
                    found = play(way, row, order)
                    if found != expected:
                        wrong.append((name, order.name, way.name))
                near.sync()
                far.sync()
    assert wrong == []
    assert displays.notices() == []


@pytest.mark.parametrize("order", [LITTLE, BIG], ids=lambda order: order.name)
def test_where_servers_could_disagree(displays: Displays, order: ByteOrder) -> None:
    with Speaker(displays.agent) as near, Speaker(displays.native) as far:
        for name, row in ENDED.items():
            for way in (displays.agent, displays.native):
                assert play(way, row, order) == ([], True), (name, way.name)
            near.sync()
            far.sync()
    assert len(displays.notices()) == len(ENDED), "the relay says so, the agent at -v"


# -- who they are --

REFUSED = b"xssh: X11 connection rejected because of wrong authentication\n"
MISMATCH = b"Protocol version mismatch"
SETUPS: dict[str, tuple[Callable[[Way], bytes], bytes]] = {
    "another byte order": (lambda way: setup_request(LITTLE, way.cookie, mark=b"B"), REFUSED),
    "no byte order": (lambda way: setup_request(LITTLE, way.cookie, mark=b"x"), b""),
    "a later version": (lambda way: setup_request(LITTLE, way.cookie, major=12), MISMATCH),
    "an earlier version": (lambda way: setup_request(BIG, way.cookie, major=10), MISMATCH),
    "a later revision": (lambda way: setup_request(LITTLE, way.cookie, minor=1), MISMATCH),
    "a wrong cookie": (lambda way: setup_request(LITTLE, bytes(16)), REFUSED),
    "most of the cookie": (lambda way: setup_request(LITTLE, way.cookie[:15]), REFUSED),
    "no cookie": (lambda way: setup_request(LITTLE, b""), REFUSED),
    "nothing": (lambda way: setup_request(LITTLE, b"", name=b""), REFUSED),
    "another scheme": (lambda way: setup_request(LITTLE, way.cookie, name=b"XDM-A-1"), REFUSED),
    "an endless name": (lambda way: setup_request(LITTLE, way.cookie, name_size=65535), REFUSED),
    "an endless cookie": (lambda way: setup_request(BIG, way.cookie, data_size=65535), REFUSED),
}


def _hear_to_the_end(raw: socket.socket) -> bytes:
    heard = b""
    with contextlib.suppress(ConnectionError):
        while piece := raw.recv(4096):
            heard += piece
    return heard


def test_setups(displays: Displays) -> None:
    """Refused in words, in the client's byte order; a version in the X server's own."""
    for name, (build, reason) in SETUPS.items():
        for way in (displays.agent, displays.native):
            with way.connect() as raw:
                raw.sendall(build(way))
                answer = _hear_to_the_end(raw)
            assert answer[:1] in (b"", b"\0"), (name, way.name)
            assert answer[8 : 8 + len(reason)] == reason, (name, way.name, answer)
            assert answer[1:2] == bytes((len(reason),)) if reason else not answer, (name, answer)
            if reason is MISMATCH:
                with displays.direct.connect() as raw:
                    raw.sendall(build(displays.direct))
                    theirs = _hear_to_the_end(raw)
                # The server's padding is whatever was in its memory.
                end = 8 + len(reason)
                assert (theirs[:end], len(theirs)) == (answer[:end], len(answer))
    for way in (displays.agent, displays.native):
        with Speaker(way) as speaker:
            speaker.sync()


def test_setups_that_are_cut_anywhere(displays: Displays) -> None:
    """At every byte, closed in an orderly way and not; behind the last one requests follow."""
    with Speaker(displays.agent) as near, Speaker(displays.native) as far:
        for way in (displays.agent, displays.native):
            whole = setup_request(LITTLE, way.cookie) + near.request(16) + near.request(FOCUS) * 3
            for cut in range(len(whole) + 1):
                with way.connect() as raw:
                    raw.sendall(whole[:cut])
                    if cut % 2:
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        near.sync()
        far.sync()
        relay = displays.forwarding._relay
        assert relay is not None
        wait_until(lambda: relay.open_clients == 1, what="the end of who left")
        wait_until(lambda: displays.relayed_clients == 1, what="the same at the relay")


def test_a_setup_of_a_byte_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time; the time for all of them counts."""
    monkeypatch.setattr(agent_server_module, "SETUP_TIMEOUT", 0.3)
    (source, hold), (rest, sink) = os.pipe(), os.pipe()
    listener = open_listener()
    agent = threading.Thread(target=Agent(listener, source, sink).run)
    agent.start()
    try:
        with socket.create_connection(("127.0.0.1", 6000 + listener.number), 10) as slow:
            began = time.monotonic()
            with pytest.raises(OSError):
                for byte in setup_request(LITTLE, bytes(16)):
                    slow.sendall(bytes((byte,)))
                    time.sleep(0.05)
            assert time.monotonic() - began < 2.0
    finally:
        os.close(hold)
        agent.join(10)
        listener.close()
        for descriptor in (source, rest, sink):
            os.close(descriptor)


# -- what they keep from others --


def resident(pid: int) -> int:
    """Return what a process has in memory (bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


UNREAD: dict[str, tuple[int, Callable[[Speaker], bytes]]] = {
    "pictures": (20, lambda s: s.request(73, 2, s.root, 0, 1280 | 1024 << 16, 0xFFFFFFFF)),
    "XSync": (150, lambda s: s.request(FOCUS) * 1000),
    "what nobody knows": (100, lambda s: s.request(200) * 1000),
}
"""How often what is asked, and never read: 3 to 100 MB of answers."""


def test_answers_that_are_not_read(displays: Displays) -> None:
    """Each asks until it may ask no more; what waits for all of them together stays small."""
    watched = (displays.agent_pid, os.getpid())
    with contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(Speaker(way)) for way in (displays.agent, displays.native))
        before = [resident(pid) for pid in watched]
        for count, build in UNREAD.values():
            for way in (displays.agent, displays.native):
                greedy = stack.enter_context(Speaker(way))
                greedy.socket.settimeout(0.2)
                data = build(greedy)
                with contextlib.suppress(OSError):
                    for _ in range(count):
                        greedy.socket.sendall(data)
                near.sync()
                far.sync()
        grown = [resident(pid) - old for pid, old in zip(watched, before, strict=True)]
    assert max(grown) < 64 << 20, grown


def test_who_kills_all_others(displays: Displays) -> None:
    """A trusted client may kill whom it likes, xssh's own connections too: the next are served."""
    with contextlib.ExitStack() as stack:
        near, killer, far = (
            stack.enter_context(Speaker(way))
            for way in (displays.agent, displays.agent, displays.native)
        )
        spared = {each.base for each in (near, killer, far)}
        for base in range(0, 64 << 21, 1 << 21):
            if base not in spared and base:
                killer.send(killer.request(113, 0, base | 1))
        killer.sync()
        wait_until(lambda: "closed the connection that watches" in "".join(displays.details))
        near.sync()
        far.sync()
        for _ in range(6):
            with Speaker(displays.agent) as later:
                later.sync()
    assert displays.notices() == []


def test_a_grab_that_is_never_let_go(displays: Displays) -> None:
    """Others wait for it, as at the X server; it ends with its client, and so does the wait."""
    with Speaker(displays.agent) as near, Speaker(displays.native) as far:
        with Speaker(displays.agent) as holder:
            holder.send(holder.request(36))
            holder.sync()
            for each in (near, far):
                each.send(each.request(73, 2, each.root, 0, 0x00010001, 1))
                each.socket.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    each.until(1)
                each.socket.settimeout(20)
            with displays.agent.connect() as raw:  # nobody comes in meanwhile, nor hangs for ever
                raw.sendall(setup_request(LITTLE, displays.agent.cookie))
        for each in (near, far):
            each.until(1)


def test_the_end_comes_under_a_grab(server: Xvfb, short_directory: Path) -> None:
    made = Displays(server, short_directory)
    with Speaker(made.direct) as holder, contextlib.closing(Speaker(made.agent).socket):
        holder.send(holder.request(36))
        holder.sync()
        began = time.monotonic()
        made.stop()
        assert time.monotonic() - began < 10
    assert made.loop.failures == []
