"""Host names to addresses, in a thread that nobody waits for."""

from __future__ import annotations

import socket

from xsshpy.threads import call_in_thread
from xsshpy.values import dataclass


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
    flags = socket.AI_PASSIVE if passive else 0

    def look_up() -> list[Address]:
        try:
            records = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)
        except UnicodeError:  # a label too long for a name server
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
        return [Address(kind, number, place) for kind, _, number, _, place in records]

    return await call_in_thread(look_up, "resolver")
