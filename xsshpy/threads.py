"""Calls that may never return, in threads that nobody waits for.

The event loop's own executor is joined when the loop ends, so a name server or a token that hangs
would hold up Ctrl-C and the end of the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def call_in_thread(function: Callable[[], T], name: str) -> T:
    """Return what ``function`` returns, or raise what it raises.

    A cancelled call goes on in its thread, called ``name``, and its outcome is dropped.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def succeed(value: T) -> None:
        if not outcome.done():
            outcome.set_result(value)

    def fail(error: Exception) -> None:
        if not outcome.done():
            outcome.set_exception(error)

    def work() -> None:
        # RuntimeError: the loop has ended meanwhile.
        try:
            value = function()
        except Exception as error:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(fail, error)
        else:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(succeed, value)

    threading.Thread(target=work, daemon=True, name=name).start()
    return await outcome
