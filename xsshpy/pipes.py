"""What a program that we started says, read without stopping the event loop and with a limit.

asyncio's own pipes keep a process waited for until they have been read to their end, which a
program that prints without end never lets happen.
"""

from __future__ import annotations

import asyncio
import os

_CHUNK = 1 << 16


async def read_limited(fd: int, limit: int) -> bytes:
    """Read a pipe to its end, or until there are ``limit`` bytes."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    data = bytearray()
    while len(data) < limit:
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(fd, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_reader(fd)
        try:
            piece = os.read(fd, min(_CHUNK, limit - len(data)))
        except BlockingIOError:
            continue
        if not piece:
            break
        data += piece
    return bytes(data)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
