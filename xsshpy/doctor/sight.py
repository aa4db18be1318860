"""Looks for a window on the local X server: the other end of the doctor's proof.

One connection with the rights that the forwarded clients have. Follows the X Window System
Protocol, version 11, §8 and §9 (QueryTree, GetProperty).
"""

from __future__ import annotations

import asyncio
import struct

from xsshpy.errors import DisplayError
from xsshpy.remote.facts import parse_server_setup
from xsshpy.remote.xmessages import (
    NO_AUTHORIZATION,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    ByteOrder,
    SetupRequest,
    SetupStatus,
    build_setup_request,
)
from xsshpy.x11.local import LocalDisplay

_QUERY_TREE = 15
_GET_PROPERTY = 20
_WM_NAME = 39
_NAME_UNITS = 64
_PAUSE = 0.05
_REPLY = 1
_ERROR = 0
_REPLY_LIMIT = 1 << 20
_DEPTH = 3
"""How far below the root a program's window may lie: window managers put frames around it."""


async def see_window(local: LocalDisplay, title: str) -> None:
    """Return when a window of that title is there. Raises DisplayError, OSError; wait bounded."""
    sock = await local.open_server()
    reader, writer = await asyncio.open_connection(sock=sock, limit=_REPLY_LIMIT)
    try:
        real = await local.real_authorization()
        setup = SetupRequest(
            ByteOrder.LITTLE, PROTOCOL_MAJOR, PROTOCOL_MINOR, real or NO_AUTHORIZATION
        )
        writer.write(build_setup_request(setup))
        head = await reader.readexactly(8)
        rest = await reader.readexactly(4 * int(struct.unpack_from("<H", head, 6)[0]))
        if head[0] != SetupStatus.SUCCESS.value:
            raise DisplayError("xssh: X11: the X server refuses a second client")
        roots = [item.root for item in parse_server_setup(head + rest, ByteOrder.LITTLE).screens]
        sight = _Sight(reader, writer, title.encode("utf-8"))
        while not await sight.look(roots, _DEPTH):  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(_PAUSE)
    except asyncio.IncompleteReadError:
        raise DisplayError("xssh: X11: the X server closed the connection") from None
    finally:
        writer.close()


class _Sight:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, title: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._title = title

    async def look(self, windows: list[int], depth: int) -> bool:
        """Tell whether the window is one of these, or below them."""
        for window in windows:
            if await self._name_of(window) == self._title:
                return True
        if not depth:
            return False
        for window in windows:
            if await self.look(await self._children_of(window), depth - 1):
                return True
        return False

    async def _children_of(self, window: int) -> list[int]:
        reply = await self._ask(struct.pack("<BBHI", _QUERY_TREE, 0, 2, window))
        count = int(struct.unpack_from("<H", reply, 16)[0]) if reply else 0
        return list(struct.unpack_from(f"<{count}I", reply, 32))

    async def _name_of(self, window: int) -> bytes:
        reply = await self._ask(
            struct.pack("<BBHIIIII", _GET_PROPERTY, 0, 6, window, _WM_NAME, 0, 0, _NAME_UNITS)
        )
        size = int(struct.unpack_from("<I", reply, 16)[0]) if reply else 0
        return reply[32 : 32 + size] if reply and reply[1] == 8 else b""

    async def _ask(self, request: bytes) -> bytes:
        """Return the reply; nothing where the window has gone meanwhile."""
        self._writer.write(request)
        while True:
            head = await self._reader.readexactly(32)
            if head[0] == _ERROR:
                return b""
            if head[0] == _REPLY:
                units = int(struct.unpack_from("<I", head, 4)[0])
                if 4 * units > _REPLY_LIMIT:
                    raise DisplayError("xssh: X11: the X server sends more than makes sense")
                return head + await self._reader.readexactly(4 * units)
