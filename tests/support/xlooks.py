"""The local side's eyes, for conversations with a real X server that are held in a test."""

from __future__ import annotations

import asyncio
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable

from tests.support.xoracle import Judge, connect
from xsshpy.remote.looks import Look
from xsshpy.remote.records import Record, Told, apply_record
from xsshpy.x11.watch import ServerWatch

QUIET = 0.03
"""How long nothing happens before all has happened (seconds)."""


class Eyes:
    """Runs a watch in a thread of its own, and looks where a judge's conversation wants it to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.told: queue.SimpleQueue[list[Record]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._watch = self._run(self._open)

    def _run(self, work: Callable[[], object]) -> ServerWatch:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(20)  # type: ignore

    async def _open(self) -> ServerWatch:
        async def open_server() -> socket.socket:
            sock = connect(self.path)
            sock.setblocking(False)
            return sock

        watch = ServerWatch(self.told.put, lambda kind: None)
        await watch.open(open_server, None)
        await watch.ask([])
        return watch

    def close(self) -> None:
        self._run(self._watch.aclose)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def order(self, looks: list[Look]) -> None:
        self._loop.call_soon_threadsafe(self._watch.look, looks)

    def serve(self, judge: Judge) -> None:
        """Pass on what is to be looked at, and what was seen."""
        looks = judge.conversation.take_looks()
        if looks:
            self.order(looks)
        while not self.told.empty():
            for record in self.told.get():
                if record.about is Told.SEEN:
                    apply_record(judge.facts, record)

    def wait_until_quiet(self, judge: Judge) -> None:
        """Go on until nothing comes from the server or from the watch any more."""
        deadline = time.monotonic() + 10
        quiet = time.monotonic() + QUIET
        judge.settle()
        while time.monotonic() < quiet:
            assert time.monotonic() < deadline, "there is no end to it"
            before = judge.conversation.counters.bytes_from_server
            self.serve(judge)
            judge.sock.settimeout(0.005)
            try:
                judge.read()
            except TimeoutError:
                pass
            finally:
                judge.sock.settimeout(20)
            busy = judge.conversation.counters.bytes_from_server != before
            if busy or not self.told.empty() or judge.facts.looks.wanted:
                quiet = time.monotonic() + QUIET


def request(opcode: int, *values: int, minor: int = 0, more: bytes = b"") -> bytes:
    """Return a request of 32-bit values, and more behind them."""
    body = struct.pack(f"<{len(values)}I", *values) + more
    return struct.pack("<BBH", opcode, minor, 1 + len(body) // 4) + body
