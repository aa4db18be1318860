"""Reading a stdin that other processes share, of every kind, without keeping the loop waiting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import resource
import socket
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.loops import until
from xsshpy.terminal.streams import READ_SIZE, InputPump, OutputWriter

KINDS = ("pipe", "fifo", "terminal", "master", "socket")


@contextlib.contextmanager
def ends(kind: str) -> Iterator[tuple[int, int]]:
    """Open a descriptor to read from, and the one to write what it reads."""
    if kind == "pipe":
        reader, writer = os.pipe()
    elif kind == "fifo":
        with tempfile.TemporaryDirectory() as directory:
            os.mkfifo(f"{directory}/fifo")
            reader = os.open(f"{directory}/fifo", os.O_RDONLY | os.O_NONBLOCK)
            writer = os.open(f"{directory}/fifo", os.O_WRONLY)
            os.set_blocking(reader, True)
    elif kind == "socket":
        reader, writer = (end.detach() for end in socket.socketpair())
    else:
        writer, reader = pty.openpty()
        tty.setraw(reader)
        if kind == "master":
            reader, writer = writer, reader
    try:
        yield reader, writer
    finally:
        for descriptor in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class Reader:
    """A pump and what it handed on."""

    def __init__(self, descriptor: int, data: Callable[[bytes], None] | None = None) -> None:
        self.read = b""
        self.ended = 0
        self.pump = InputPump(descriptor, data or self.take, self.end)
        self.pump.start()

    def take(self, data: bytes) -> None:
        self.read += data

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_another_process_took_keeps_nobody_waiting(kind: str) -> None:
    with ends(kind) as (descriptor, writer):

        async def run() -> None:
            loop = asyncio.get_running_loop()
            reader = Reader(descriptor)
            rescue = threading.Timer(5, os.write, (writer, b"late"))
            rescue.start()
            started = time.monotonic()
            # This runs before what the loop does on finding the descriptor ready.
            loop.call_soon(os.read, descriptor, 9)
            os.write(writer, b"taken")
            for _ in range(10):
                await asyncio.sleep(0.01)
            rescue.cancel()
            assert time.monotonic() - started < 3
            assert reader.read == b""
            os.write(writer, b"ours")
            await until(lambda: reader.read == b"ours")
            reader.pump.stop()

        asyncio.run(run())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_while_paused_or_stopped(kind: str) -> None:
    with ends(kind) as (descriptor, writer):

        async def run() -> None:
            reader = Reader(descriptor)
            os.write(writer, b"one")
            await until(lambda: reader.read == b"one")
            reader.pump.pause()
            os.write(writer, b"two")
            await asyncio.sleep(0.05)
            assert os.read(descriptor, 1) == b"t"
            reader.pump.resume()
            await until(lambda: reader.read == b"onewo")
            reader.pump.stop()
            reader.pump.resume()
            os.write(writer, b"three")
            await asyncio.sleep(0.05)
            assert os.read(descriptor, 9) == b"three"
            assert (reader.read, reader.ended) == (b"onewo", 0)

        asyncio.run(run())


@pytest.mark.parametrize("kind", KINDS)
def test_what_stops_the_pump_gets_nothing_more(kind: str) -> None:
    """What is typed after an escape that ends or suspends is for whoever reads next."""
    with ends(kind) as (descriptor, writer):

        async def run() -> None:
            taken: list[bytes] = []

            def take(data: bytes) -> None:
                taken.append(data)
                os.write(writer, b"next")
                time.sleep(0.05)
                assert os.read(descriptor, 9) == b"next"
                reader.pump.stop()

            reader = Reader(descriptor, take)
            os.write(writer, b"first")
            await until(lambda: taken == [b"first"])

        asyncio.run(run())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("early", [True, False])
def test_end_of_input(kind: str, early: bool) -> None:
    """It comes once, after the data, also where the writer was gone before the reader began."""
    with ends(kind) as (descriptor, writer):

        async def run() -> None:
            os.write(writer, b"last")
            if early and kind != "terminal":  # a hang-up takes the data with it
                os.close(writer)
            reader = Reader(descriptor)
            await until(lambda: reader.read == b"last")
            if not early or kind == "terminal":
                os.close(writer)
            await until(lambda: reader.ended == 1)
            reader.pump.resume()
            await asyncio.sleep(0.02)
            assert reader.ended == 1

        asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1, READ_SIZE, 3 * READ_SIZE + 5])
def test_regular_file(size: int, short_directory: Path) -> None:
    path = short_directory / "data"
    path.write_bytes(os.urandom(size))
    descriptor = os.open(path, os.O_RDONLY)

    async def run() -> None:
        reader = Reader(descriptor)
        await until(lambda: reader.ended == 1)
        assert reader.read == path.read_bytes()

    try:
        asyncio.run(run())
    finally:
        os.close(descriptor)


def test_device_that_never_ends_is_read_piece_by_piece() -> None:
    descriptor = os.open("/dev/zero", os.O_RDONLY)

    async def run() -> None:
        reader = Reader(descriptor)
        await until(lambda: len(reader.read) > 5 * READ_SIZE)
        reader.pump.pause()
        await asyncio.sleep(0.05)  # what was under way
        before = len(reader.read)
        await asyncio.sleep(0.05)
        assert len(reader.read) == before
        reader.pump.stop()

    try:
        asyncio.run(run())
    finally:
        os.close(descriptor)


def test_input_that_is_non_blocking_stays_so() -> None:
    with ends("pipe") as (descriptor, writer):
        os.set_blocking(descriptor, False)

        async def run() -> None:
            reader = Reader(descriptor)
            os.write(writer, b"x")
            await until(lambda: reader.read == b"x")
            assert not os.get_blocking(descriptor)
            reader.pump.stop()

        asyncio.run(run())


def test_output_that_must_wait_has_a_number_that_select_does_not_know() -> None:
    """As a master with many passengers has it, each with three descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("no more files may be open here")
    number, sent = 1500, b"x" * (1 << 18)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    try:
        reader, writer = os.pipe()
        os.dup2(writer, number, inheritable=False)
        os.close(writer)
        os.set_blocking(number, False)
        taken = bytearray()

        async def run() -> None:
            output = OutputWriter(number, pause=_nothing, resume=_nothing, broken=errors.append)
            output.write(sent)
            while len(taken) < len(sent):
                taken.extend(
                    await asyncio.wait_for(asyncio.to_thread(os.read, reader, 1 << 16), 20)
                )
            await asyncio.wait_for(output.close(), 20)

        errors: list[OSError] = []
        asyncio.run(run())
        assert bytes(taken) == sent and not errors
        os.close(number)
        os.close(reader)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _nothing() -> None:
    """There is nobody to pause."""
