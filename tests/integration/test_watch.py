"""What is asked of a real X server ahead of the clients."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from Xlib import X
from Xlib.display import Display
from Xlib.ext import xtest

from tests.support.xvfb import Xvfb
from xsshpy.remote.records import Record, Told
from xsshpy.remote.xmessages import Authorization
from xsshpy.remote.xrequests import FactClass
from xsshpy.x11.questions import GET_ATOM_NAME, LAST_PREDEFINED_ATOM
from xsshpy.x11.state import WATCHED
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


class Watched:
    """What a watch of a server told: the latest replies by class, and what it took back."""

    def __init__(self) -> None:
        self.told: dict[FactClass, dict[bytes, bytes]] = {}
        self.stale: list[FactClass] = []

    def take(self, records: list[Record]) -> None:
        for record in records:
            if record.about is Told.REPLY:
                known = self.told.setdefault(FactClass(record.detail), {})
                known[record.key] = record.value

    async def wait_for_stale(self, kind: FactClass) -> None:
        while kind not in self.stale:
            await asyncio.sleep(0.01)


async def change_and_look(xvfb: Xvfb, display: Display, watched: Watched) -> None:
    """Change, one after another, what is watched; each change must be told."""

    async def connect() -> socket.socket:
        opened = socket.socket(socket.AF_UNIX)
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, xvfb.socket_path)
        return opened

    watch = ServerWatch(watched.take, watched.stale.append)
    await watch.open(connect, Authorization(b"MIT-MAGIC-COOKIE-1", xvfb.cookie))
    try:
        watched.take(await watch.ask([]))
        assert set(WATCHED) <= set(watched.told)
        root = display.screen().root
        where = struct.pack("<BBHI", 38, 0, 2, root.id)
        for place in ((11, 12), (33, 44)):
            xtest.fake_input(display, X.MotionNotify, x=place[0], y=place[1])
            xtest.fake_input(display, X.MotionNotify, x=place[0] + 1, y=place[1])
            display.sync()
            await watched.wait_for_stale(FactClass.INPUT)
            assert watched.stale.count(FactClass.INPUT) == 1  # not for every step
            watched.told.clear()
            watch.look_again()
            while where not in watched.told.get(FactClass.INPUT, {}):
                await asyncio.sleep(0.01)
            told = watched.told[FactClass.INPUT][where]
            assert struct.unpack_from("<hh", told, 16) == (place[0] + 1, place[1])
            watched.stale.clear()

        window = root.create_window(0, 0, 200, 200, 0, display.screen().root_depth)
        window.map()
        display.sync()
        await watched.wait_for_stale(FactClass.INPUT)  # the pointer is in another one now

        atom = display.intern_atom("_XSETTINGS_S0")
        window.set_selection_owner(atom, X.CurrentTime)
        display.sync()
        owner = struct.pack("<BBHI", 23, 0, 2, atom)
        owners = watched.told.setdefault(FactClass.SELECTIONS, {})
        while owners.get(owner, bytes(12))[8:12] != struct.pack("<I", window.id):
            await asyncio.sleep(0.01)
        window.destroy()
        display.sync()
        while owners[owner][8:12] != bytes(4):
            await asyncio.sleep(0.01)
    finally:
        await watch.aclose()


def test_what_changes_is_told(xvfb: Xvfb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAUTHORITY", xvfb.authority)
    display = Display(xvfb.display)
    try:
        asyncio.run(asyncio.wait_for(change_and_look(xvfb, display, Watched()), 30))
    finally:
        display.close()
