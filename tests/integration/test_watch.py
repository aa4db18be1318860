"""What is asked of a real X server ahead of the clients."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from Xlib.display import Display

from tests.support.xvfb import Xvfb
from xsshpy.remote.records import Record
from xsshpy.remote.xmessages import Authorization
from xsshpy.x11.questions import GET_ATOM_NAME, LAST_PREDEFINED_ATOM
from xsshpy.x11.watch import ServerWatch


def ask_atom_names(xvfb: Xvfb) -> list[Record]:
    async def ask() -> list[Record]:
        async def connect() -> socket.socket:
            opened = socket.socket(socket.AF_UNIX)
            opened.setblocking(False)
            await asyncio.get_running_loop().sock_connect(opened, xvfb.socket_path)
            return opened

        watch = ServerWatch(lambda records: None, lambda kind: None)
        await watch.open(connect, Authorization(b"MIT-MAGIC-COOKIE-1", xvfb.cookie))
        try:
            return await watch.ask_atom_names()
        finally:
            await watch.aclose()

    return asyncio.run(ask())


def test_the_names_of_all_atoms(xvfb: Xvfb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAUTHORITY", xvfb.authority)
    display = Display(xvfb.display)
    try:
        atoms = {display.intern_atom(f"WATCHED_{number}"): number for number in range(200)}
        records = ask_atom_names(xvfb)
        assert set(atoms) <= {struct.unpack("<BBHI", record.key)[3] for record in records}
        for number, record in enumerate(records, LAST_PREDEFINED_ATOM + 1):
            opcode, _, units, atom = struct.unpack("<BBHI", record.key)
            assert (opcode, units, atom) == (GET_ATOM_NAME, 2, number)
            length = struct.unpack_from("<H", record.value, 8)[0]
            assert record.value[32 : 32 + length].decode() == display.get_atom_name(atom)
    finally:
        display.close()
