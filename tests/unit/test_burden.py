"""How much one client can have the agent work: little for each of its requests, and of its errors.

The agent serves all clients in one thread: who finds a request of 8 bytes that costs milliseconds
stops the others with a packet. Each row is what a client has made before, what it then repeats, and
the errors that come of it; the processor's time is measured.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence

import pytest

from tests.support import xstreams as x
from tests.support.xtalk import BASE, COLORMAP, ROOT, Talk
from xsshpy.remote.xmessages import ByteOrder

LITTLE = ByteOrder.LITTLE
MANY = 10_000
REPEATED = 2000
MOST = 250e-6
"""Seconds of processor time for each; a few microseconds is usual."""


def ask(opcode: int, *words: int, minor: int = 0) -> bytes:
    return x.request(LITTLE, opcode, struct.pack(f"<{len(words)}I", *words), minor)


def window(number: int, parent: int = ROOT) -> bytes:
    return ask(1, BASE + number, parent, 0, 0x00010001, 0x00010000, 0, 0)


def siblings() -> list[bytes]:
    """One window with ten thousand in it."""
    return [window(1), *(window(each, BASE + 1) for each in range(2, MANY))]


def fans() -> list[bytes]:
    """Windows in a window, each with hundreds in it."""
    inner = [window(each, BASE + 1) for each in range(2, 100)]
    return [window(1), *inner, *(window(100 + n, BASE + 2 + n % 98) for n in range(MANY))]


def chain() -> list[bytes]:
    """Ten thousand windows, each moved into the one before it."""
    moved = [ask(7, BASE + each + 1, BASE + each, 0) for each in range(1, MANY)]
    return [*(window(each) for each in range(1, MANY + 1)), *moved]


def written() -> list[bytes]:
    """Ten thousand windows, some with properties."""
    changed = [ask(18, BASE + each, 39, 31, 8, 4, 0) for each in range(1, 5000)]
    return [*(window(each) for each in range(1, MANY)), *changed]


def windows() -> list[bytes]:
    return [window(each) for each in range(1, MANY)]


def contexts() -> list[bytes]:
    return [ask(55, BASE + each, ROOT, 0) for each in range(1, MANY)]


def pixmaps() -> list[bytes]:
    return [ask(53, BASE + each, ROOT, 0x00010001, minor=24) for each in range(1, MANY)]


def nonsense() -> list[bytes]:
    return [ask(200)] * MANY


# Made where a row runs: every worker reads this file.
ROWS: dict[str, tuple[Callable[[], Sequence[bytes]], list[bytes], tuple[int, int]]] = {
    "what nobody knows fails": (nonsense, [ask(127)], (200, 1)),
    "contexts, and one that is none": (contexts, [ask(60, 5)], (60, 13)),
    "pixmaps, and one that is none": (pixmaps, [ask(54, 5)], (54, 4)),
    "windows, and one that is none": (windows, [ask(8, 5)], (8, 3)),
    "windows, and a wrong size": (windows, [ask(12, BASE + 5, 4, 0)], (12, 2)),
    "properties, and a wrong one": (written, [ask(18, BASE + 5, 39, 31, 64, 4, 0)], (18, 2)),
    "a full window is shown": (siblings, [ask(8, BASE + 1), ask(10, BASE + 1)], (8, 3)),
    "what is in it is shown": (siblings, [ask(9, BASE + 1), ask(11, BASE + 1)], (9, 3)),
    "a full window is resized": (siblings, [ask(12, BASE + 1, 4, 100)], (12, 2)),
    "its children are restacked": (siblings, [ask(12, BASE + 5, 0x60, BASE + 6, 0)], (12, 2)),
    "its children are asked for": (siblings, [ask(15, BASE + 1), ask(14, BASE + 1)], (8, 3)),
    "fans of windows are shown": (fans, [ask(9, BASE + 1)], (9, 3)),
    "the last of a chain is shown": (chain, [ask(8, BASE + MANY), ask(3, BASE + MANY)], (8, 3)),
    "the last of a chain moves": (chain, [ask(7, BASE + MANY, BASE + 1, 0)], (7, 3)),
    "colours are freed": (list, [ask(88, COLORMAP, 0, *range(1000))], (88, 10)),
    "properties are turned": (
        written,
        [ask(114, BASE + 1, 500 | 1 << 16, *range(500))],
        (114, 5),
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_nothing_costs_much(row: str) -> None:
    make, repeated, (opcode, code) = ROWS[row]
    made = make()
    talk = Talk(LITTLE).talk
    for at in range(0, len(made), 4000):
        talk.receive_from_client(b"".join(made[at : at + 4000]))
        talk.take_for_server()
    began = time.process_time()
    talk.receive_from_client(b"".join(repeated * (REPEATED // len(repeated))))
    talk.take_for_server()
    requests = time.process_time() - began
    first = 1 if opcode == 200 else len(made) + 1
    errors = [x.error(LITTLE, first + each, opcode, code) for each in range(REPEATED // 2)]
    began = time.process_time()
    talk.receive_from_server(b"".join(errors))
    talk.take_for_client()
    each = requests / REPEATED, (time.process_time() - began) / len(errors)
    # A walk over everything costs a second once; it is not to be had with every request.
    assert max(each) < MOST, each
