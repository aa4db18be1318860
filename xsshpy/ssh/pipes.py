"""A connection that runs over two descriptors, one for each direction, as one asyncio transport.

That is how ssh talks to a ProxyCommand: by two pipes, so that the command may open /dev/stdin and
sees the end of its input. The end of what is read ends the connection. The end of the other
direction alone does not: what a program said before it ended is still to be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

_READ_SIZE = 256 << 10
_HIGH = 64 << 10
"""Waiting bytes from which on the protocol is asked to pause."""
_LAST_WORDS = 1.0
"""Seconds that may still be read after a write went nowhere."""


class DuplexPipe(asyncio.Transport):
    """Both directions of a connection; the descriptors belong to it and are closed at the end."""

    def __init__(self, read_from: int, write_to: int, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._reader = read_from
        self._writer = write_to
        self._protocol = protocol
        self._modes = {number: os.get_blocking(number) for number in (read_from, write_to)}
        self._waiting = bytearray()
        self._high, self._low = _HIGH, _HIGH // 4
        self._paused = False
        self._closing = False
        self._ended = False
        self._grace: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin. Raises OSError for a descriptor that can't be waited for, as a plain file's."""
        for number in self._modes:
            os.set_blocking(number, False)
        try:
            self._loop.add_writer(self._writer, self._flush)
            self._loop.remove_writer(self._writer)
            self._loop.add_reader(self._reader, self._read)
        except OSError:
            self._close_descriptors()
            raise
        self._protocol.connection_made(self)

    def _read(self) -> None:
        try:
            data = os.read(self._reader, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._end(None)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Write what goes at once; the rest waits."""
        if self._closing or self._grace is not None:
            return
        self._waiting += data
        if len(self._waiting) == len(data):
            self._flush()
            if self._waiting and not self._ended:
                self._loop.add_writer(self._writer, self._flush)
        if not self._paused and len(self._waiting) > self._high:
            self._paused = True
            self._protocol.pause_writing()

    def _flush(self) -> None:
        try:
            del self._waiting[: os.write(self._writer, self._waiting)]
        except BlockingIOError:
            return
        except OSError as error:
            self._waiting.clear()
            self._loop.remove_writer(self._writer)
            self._grace = self._loop.call_later(_LAST_WORDS, self._end, error)
            return
        if not self._waiting:
            self._loop.remove_writer(self._writer)
            if self._closing:
                self._end(None)
        if self._paused and len(self._waiting) <= self._low:
            self._paused = False
            self._protocol.resume_writing()

    def _end(self, error: Exception | None) -> None:
        """Close both, and tell the protocol: once."""
        if self._ended:
            return
        self._ended = self._closing = True
        if self._grace is not None:
            self._grace.cancel()
        self._loop.remove_reader(self._reader)
        self._loop.remove_writer(self._writer)
        self._close_descriptors()
        self._protocol.connection_lost(error)

    def _close_descriptors(self) -> None:
        for number, blocks in self._modes.items():
            with contextlib.suppress(OSError):
                os.set_blocking(number, blocks)  # stdin and stdout are shared with others
            os.close(number)

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return the default: pipes have no addresses."""
        return default

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be written."""
        return len(self._waiting)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set from how many waiting bytes on the protocol is asked to pause, and to go on."""
        self._high = high if high is not None else _HIGH if low is None else 4 * low
        self._low = low if low is not None else self._high // 4

    def pause_reading(self) -> None:
        """Read nothing for now."""
        self._loop.remove_reader(self._reader)

    def resume_reading(self) -> None:
        """Read on."""
        if not self._ended:
            self._loop.add_reader(self._reader, self._read)

    def is_closing(self) -> bool:
        """Whether the connection is over or about to be."""
        return self._closing

    def close(self) -> None:
        """Write what waits, then end."""
        self._closing = True
        if not self._waiting:
            self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        """End at once."""
        self._closing = True
        self._loop.call_soon(self._end, None)
