"""What is typed at a passenger's terminal passes to the master byte for byte, but for ``~^Z``."""

from __future__ import annotations

import os
import select

import pytest

from xsshpy.mux.keyboard import Keyboard


@pytest.mark.parametrize(
    "typed, passed, stops",
    [
        ([b"ls\r"], b"ls\r", 0),
        ([b"~\x1a"], b"", 1),
        ([b"a~\x1a"], b"a~\x1a", 0),
        ([b"a\r~\x1ab"], b"a\rb", 1),
        ([b"a\n", b"~", b"\x1a", b"~.", b"x"], b"a\n~.x", 1),
        ([b"~?~\x1a~~\x1a"], b"~?~~\x1a", 1),
        ([b"~~\x1a\r~x~\x1a"], b"~~\x1a\r~x~\x1a", 0),
        ([bytes(range(256))], bytes(range(256)), 0),
    ],
)
def test_only_the_stop_is_taken(typed: list[bytes], passed: bytes, stops: int) -> None:
    reader, writer = os.pipe()
    said: list[str] = []
    keyboard = Keyboard(reader, ord("~"))
    master = os.dup(keyboard.reader)
    keyboard.begin(said.append)
    try:
        for piece in typed:
            os.write(writer, piece)
            assert keyboard.wanted is not None
            keyboard.advance()
        os.close(writer)
        keyboard.advance()
        assert keyboard.wanted is None
        assert os.read(master, 4096) == passed
        assert os.read(master, 4096) == b""
        assert said == ["~^Z [suspend ssh]\r\n"] * stops
    finally:
        keyboard.close()
        os.close(master)
        os.close(reader)


def test_a_master_that_takes_nothing_is_not_waited_for() -> None:
    reader, writer = os.pipe()
    keyboard = Keyboard(reader, None)
    master = os.dup(keyboard.reader)
    keyboard.begin(str)
    try:
        passed, sent = b"", b""
        while True:
            assert keyboard.wanted is not None
            if keyboard.wanted[1] != select.POLLIN:  # it waits for the master, and reads no more
                break
            sent += b"x" * os.write(writer, b"x" * 4000)
            keyboard.advance()
        os.set_blocking(master, False)
        while len(passed) < len(sent):
            passed += os.read(master, 1 << 20)
            keyboard.advance()
        assert passed == sent
        os.close(master)
        os.write(writer, b"more")
        keyboard.advance()
        assert keyboard.wanted is None
    finally:
        keyboard.close()
        os.close(reader)
        os.close(writer)


def test_one_that_no_master_took_leaves_nothing_open() -> None:
    reader, writer = os.pipe()
    keyboard = Keyboard(reader, None)
    ours = keyboard.reader
    keyboard.close()
    with pytest.raises(OSError):
        os.fstat(ours)
    os.close(reader)
    os.close(writer)
