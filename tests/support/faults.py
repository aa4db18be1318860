"""A line on which one thing goes wrong at one packet: a relay on loopback that knows SSH's packets.

It stands between a client and a real sshd and counts what each side sends: the first line, then
packets (RFC 4253 §6). Those before NEWKEYS show their length, and those of AES-GCM do later on (RFC
5647 §7.2), so the server has to be one that speaks no other cipher, :data:`CIPHER`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field, replace
from enum import Enum

CIPHER = "aes128-gcm@openssh.com"
SLOWNESS = 0.3
"""Seconds that a slow line takes for one packet."""

_NEWKEYS = 21
_TAG = 16
_JOIN_SECONDS = 10.0


class Harm(Enum):
    """What happens to the packet at which the line fails."""

    NONE = "none"
    FIN = "fin"
    """The line ends before it, in an orderly way."""
    RST = "rst"
    """The connection is reset before it."""
    HALF = "half"
    """Half of it arrives, then the line ends."""
    FLIP = "flip"
    """A bit in its middle is another."""
    STALL = "stall"
    """Neither it nor anything behind it arrives, and the line stays."""
    SLOW = "slow"
    """It takes a while."""


@dataclass(frozen=True)
class Fault:
    """``at``: which thing the server sends, its first line being 0; the client where
    ``from_client``."""

    harm: Harm = Harm.NONE
    at: int = -1
    from_client: bool = False

    def later(self, count: int) -> Fault:
        """Return the same, but for so many things more."""
        return replace(self, at=self.at + count)


@dataclass
class _Splitter:
    """Bytes in, whole units out: the first line, and packets."""

    units: int = 0
    sealed: bool = False
    buffer: bytearray = field(default_factory=bytearray)

    def take(self, data: bytes) -> list[bytes]:
        self.buffer += data
        found = []
        while (size := self._size()) and len(self.buffer) >= size:
            found.append(bytes(self.buffer[:size]))
            del self.buffer[:size]
            if self.units and not self.sealed:
                self.sealed = found[-1][5] == _NEWKEYS
            self.units += 1
        return found

    def _size(self) -> int:
        if not self.units:
            return self.buffer.find(b"\n") + 1
        if len(self.buffer) < 4:
            return 0
        length: int = struct.unpack_from(">I", self.buffer)[0]
        return 4 + length + (_TAG if self.sealed else 0)


class _Ended(Exception):
    """The fault has ended the line."""


class FaultyLine:
    """Ports that lead to a server, each with its fault; ends with ``stop()``."""

    host = "127.0.0.1"

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty line")
        self._thread.start()
        self._servers: list[asyncio.Server] = []
        self._lines: set[asyncio.Task[None]] = set()
        self.units: dict[int, list[int]] = {}
        """How many things the client and the server had sent, by port."""

    def open(self, fault: Fault) -> int:
        """Return a port whose line has this fault."""
        return asyncio.run_coroutine_threadsafe(self._open(fault), self._loop).result(_JOIN_SECONDS)

    async def _open(self, fault: Fault) -> int:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = asyncio.ensure_future(self._carry(fault, port, reader, writer))
            self._lines.add(line)
            line.add_done_callback(self._lines.discard)

        server = await asyncio.start_server(accept, self.host, 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        self.units[port] = [0, 0]
        return port

    async def _carry(
        self, fault: Fault, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.ensure_future(self._pass(reader, far_writer, fault, port, from_client=True)),
            asyncio.ensure_future(self._pass(far_reader, writer, fault, port, from_client=False)),
        ]
        try:
            await asyncio.gather(*ways)
        except (_Ended, OSError):
            pass
        finally:
            for way in ways:
                way.cancel()
            for each in (writer, far_writer):
                each.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fault: Fault,
        port: int,
        *,
        from_client: bool,
    ) -> None:
        splitter, number = _Splitter(), 0
        while data := await reader.read(65536):
            for unit in splitter.take(data):
                if number == fault.at and from_client == fault.from_client:
                    unit = await _harm(fault.harm, unit, writer)
                writer.write(unit)
                number += 1
                self.units[port][not from_client] = number
            await writer.drain()
        writer.write(bytes(splitter.buffer))
        with contextlib.suppress(OSError):
            writer.write_eof()

    def stop(self) -> None:
        """Drop all lines and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_JOIN_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_SECONDS)
        self._loop.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for line in list(self._lines):
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)


async def _harm(harm: Harm, unit: bytes, writer: asyncio.StreamWriter) -> bytes:
    """Return what arrives of a unit; :class:`_Ended` where nothing does any more."""
    if harm is Harm.SLOW:
        await asyncio.sleep(SLOWNESS)
    elif harm is Harm.FLIP:
        middle = len(unit) // 2
        return unit[:middle] + bytes([unit[middle] ^ 0x10]) + unit[middle + 1 :]
    elif harm is Harm.STALL:
        await asyncio.get_running_loop().create_future()
    elif harm in (Harm.FIN, Harm.HALF):
        if harm is Harm.HALF:
            writer.write(unit[: len(unit) // 2])
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(0.2)  # the other end answers the end with its own
        raise _Ended
    elif harm is Harm.RST:
        await writer.drain()
        own: socket.socket = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Ended
    return unit
