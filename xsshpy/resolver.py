"""Host names to addresses, in a thread that nobody waits for.

The event loop's own executor is joined when the loop ends, so a name server that hangs would hold
up Ctrl-C and the end of the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    """One address of a host, as getaddrinfo(3) gives it."""

    family: socket.AddressFamily
    protocol: int
    address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

    @property
    def numeric(self) -> str:
        """The address as text, with its scope where it has one."""
        return str(self.address[0])


async def resolve(
    host: str, port: int, family: int = socket.AF_UNSPEC, *, passive: bool = False
) -> list[Address]:
    """Return the stream addresses of ``host`` in the system's order. Raises socket.gaierror."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Address]] = loop.create_future()
    flags = socket.AI_PASSIVE if passive else 0

    def deliver(found: list[Address], error: OSError | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found)

    def look_up() -> None:
        found: list[Address] = []
        failure: OSError | None = None
        try:
            records = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)
            found = [Address(kind, number, place) for kind, _, number, _, place in records]
        except UnicodeError:  # a label too long for a name server
            failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        except OSError as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(deliver, found, failure)

    threading.Thread(target=look_up, daemon=True, name="resolver").start()
    return await answer
