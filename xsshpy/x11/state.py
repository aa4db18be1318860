"""Watches what may change on the X server: selections, outputs, input devices, the pointer.

What is known of these names ids that only this server has, so it is on no list of questions: the
ids are found first, then all that toolkits ask about each is asked. The pointer is watched until it
moves; from then on nothing is said of it until somebody wants to know again, so that a hand on the
mouse costs one message and not one for every step.

Rules kept here: whatever the server does not watch for us is not told. Ids come from the server's
replies, and only so many are looked at.

Follows the X Window System Protocol, version 11, §9 and §11; XFIXES 5.0 (§7), RANDR 1.5 (§7), X
Input 2.4, the X Keyboard Extension 1.0 (§5).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence

from xsshpy.remote.facts import Screen
from xsshpy.remote.records import Record, Told
from xsshpy.remote.xmessages import pad_length
from xsshpy.remote.xrequests import FactClass
from xsshpy.x11.questions import ServerNames

WATCHED = (FactClass.SCREENS, FactClass.SELECTIONS, FactClass.DEVICES, FactClass.INPUT)

MANAGERS = ("_XSETTINGS_S{}", "_NET_WM_CM_S{}", "_NET_SYSTEM_TRAY_S{}")
"""Selections of which toolkits want to know the owner when they start."""

OUTPUT_PROPERTIES = (
    ("EDID", 100),
    ("EDID", 128),
    ("EDID_DATA", 100),
    ("XFree86_DDC_EDID1_RAWDATA", 100),
)
"""What Qt and GTK ask of each output, and how much of it (units of 4 bytes)."""

DEVICE_PROPERTY = "libinput Tapping Enabled"
"""What GTK asks of each input device: one INTEGER."""

INTEGER = 19
SUBSTRUCTURE_NOTIFY = 1 << 19
TREE_EVENTS = frozenset((17, 18, 19, 21, 22, 24, 26))
"""Top-level windows that go, come or move: the pointer is in another one then."""

GENERIC_EVENT = 35
XKB_STATE_NOTIFY = 2
HIERARCHY_CHANGED, DEVICE_CHANGED, DEVICE_PROPERTY_CHANGED = 11, 1, 12
DEVICE_EVENTS = 1 << HIERARCHY_CHANGED | 1 << DEVICE_CHANGED | 1 << DEVICE_PROPERTY_CHANGED
RAW_EVENTS = sum(1 << event for event in (15, 16, 17, 22, 23, 24))
ALL_DEVICES, ALL_MASTERS = 0, 1
RAW_EVENTS_SINCE = (2, 2)
CORE_KEYBOARD = 0x100

ID_LIMIT = 32
"""Most devices, outputs or controllers that are asked about one by one."""


class StateWatch:
    """What is watched over one connection: ``send`` a request, ``request`` one that has a reply."""

    def __init__(
        self,
        send: Callable[[bytes], object],
        request: Callable[[bytes], Awaitable[bytes | None]],
    ) -> None:
        self._send = send
        self._request = request
        self._names = ServerNames(0, 0, {})
        self._events: Mapping[str, int] = {}
        self._roots: list[int] = []
        self._atoms: dict[str, int] = {}
        self._selections: list[int] = []
        self.has_devices = False
        """Whether the server tells what happens to the pointer."""
        self._input_version = b""
        self._armed = 0
        """Counts up with each change: odd while the pointer is watched."""

    async def begin(
        self, names: ServerNames, events: Mapping[str, int], screens: Sequence[Screen]
    ) -> None:
        """Ask the server for news. ``events`` are the extensions' first events."""
        self._names, self._events = names, events
        self._roots = [screen.root for screen in screens]
        managers = [name.format(index) for index in range(len(screens)) for name in MANAGERS]
        wanted = dict.fromkeys([*(each[0] for each in OUTPUT_PROPERTIES), DEVICE_PROPERTY])
        await asyncio.gather(*(self._find_atom(name) for name in (*wanted, *managers)))
        await self._watch_selections(
            [self._atoms[name] for name in managers if name in self._atoms]
        )
        await self._watch_devices()

    async def _find_atom(self, name: str) -> None:
        text = name.encode("ascii")
        units = 2 + (len(text) + 3) // 4
        head = struct.pack("<BBHHxx", 16, 0, units, len(text))
        reply = await self._request(head + text + bytes(pad_length(len(text))))
        if reply is not None:
            self._atoms[name] = struct.unpack_from("<I", reply, 8)[0]

    async def _watch_selections(self, atoms: list[int]) -> None:
        xfixes = self._names.opcodes.get("XFIXES")
        if xfixes is None or await self._request(struct.pack("<BBHII", xfixes, 0, 3, 5, 0)) is None:
            return
        for atom in atoms:
            self._send(struct.pack("<BBHIII", xfixes, 2, 4, self._roots[0], atom, 7))
        self._selections = atoms

    async def _watch_devices(self) -> None:
        devices, keyboard = (self._names.opcodes.get(n) for n in ("XInputExtension", "XKEYBOARD"))
        if devices is None or keyboard is None:
            return
        reply = await self._request(struct.pack("<BBHHH", devices, 47, 2, 2, 4))
        if reply is None or struct.unpack_from("<HH", reply, 8) < RAW_EVENTS_SINCE:
            return
        self.has_devices = True
        self._input_version = reply
        self._select(ALL_DEVICES, DEVICE_EVENTS)
        state = 1 << XKB_STATE_NOTIFY
        self._send(struct.pack("<BBHHHHHHH", keyboard, 1, 4, CORE_KEYBOARD, state, 0, state, 0, 0))

    def _select(self, devices: int, events: int) -> None:
        for root in self._roots:
            head = struct.pack("<BBHIHxx", self._names.opcodes["XInputExtension"], 46, 5, root, 1)
            self._send(head + struct.pack("<HHI", devices, 1, events))

    # -- news --

    def take_event(self, code: int, data: bytes) -> set[FactClass]:
        """Return what an event makes stale."""
        stale = self._read_event(code, data)
        if FactClass.INPUT in stale and not self.disarm():
            stale.discard(FactClass.INPUT)
        return stale

    def _read_event(self, code: int, data: bytes) -> set[FactClass]:
        if code == GENERIC_EVENT and data[1] == self._names.opcodes.get("XInputExtension"):
            kind = struct.unpack_from("<H", data, 8)[0]
            if kind == DEVICE_PROPERTY_CHANGED:
                return {FactClass.DEVICES}
            changed = kind in (HIERARCHY_CHANGED, DEVICE_CHANGED)
            return {FactClass.DEVICES, FactClass.INPUT} if changed else {FactClass.INPUT}
        if code == self._events.get("XKEYBOARD") and data[1] == XKB_STATE_NOTIFY:
            return {FactClass.INPUT}
        if code == self._events.get("XFIXES"):
            return {FactClass.SELECTIONS}
        return {FactClass.INPUT} if code in TREE_EVENTS else set()

    def disarm(self) -> bool:
        """Watch the pointer no longer; return whether it was watched."""
        if not self._armed % 2:
            return False
        self._armed += 1
        self._select(ALL_MASTERS, 0)
        return True

    # -- questions --

    async def ask(self, kind: FactClass) -> list[Record]:
        """Return all that is known of a class of ``WATCHED``."""
        if kind is FactClass.SCREENS:
            return await self._ask_screens()
        if kind is FactClass.SELECTIONS:
            owners = [struct.pack("<BBHI", 23, 0, 2, atom) for atom in self._selections]
            return await self._answer(kind, owners)
        if not self.has_devices:
            return []
        return await (self._ask_devices() if kind is FactClass.DEVICES else self._ask_input())

    async def _answer(self, kind: FactClass, requests: Sequence[bytes]) -> list[Record]:
        replies = await asyncio.gather(*(self._request(each) for each in requests))
        return [
            Record(Told.REPLY, kind.value, key, reply)
            for key, reply in zip(requests, replies, strict=True)
            if reply is not None
        ]

    async def _ask_screens(self) -> list[Record]:
        opcode = self._names.opcodes.get("RANDR")
        requests: list[bytes] = []
        for root in self._roots if opcode is not None else ():
            reply = await self._request(struct.pack("<BBHI", opcode, 25, 2, root))
            if reply is None:
                continue
            controllers, outputs, when = _parse_resources(reply)
            requests += [struct.pack("<BBHII", opcode, 20, 3, each, when) for each in controllers]
            for output in outputs:
                requests.append(struct.pack("<BBHII", opcode, 9, 3, output, when))
                requests += [
                    struct.pack(
                        "<BBHIIIII4x", opcode, 15, 7, output, self._atoms[name], 0, 0, units
                    )
                    for name, units in OUTPUT_PROPERTIES
                    if name in self._atoms
                ]
        return await self._answer(FactClass.SCREENS, requests)

    async def _find_devices(self) -> list[int]:
        request = struct.pack("<BBHHxx", self._names.opcodes["XInputExtension"], 48, 2, ALL_DEVICES)
        return _parse_devices(await self._request(request) or bytes(32))

    async def _ask_devices(self) -> list[Record]:
        opcode, atom = self._names.opcodes["XInputExtension"], self._atoms.get(DEVICE_PROPERTY)
        devices = await self._find_devices() if atom is not None else []
        requests = [
            struct.pack("<BBHHBxIIII", opcode, 59, 6, device, 0, atom, INTEGER, 0, 1)
            for device in devices
        ]
        return [*self._derive_versions(), *await self._answer(FactClass.DEVICES, requests)]

    def _derive_versions(self) -> list[Record]:
        """Return what who asks for another minor version of X Input 2 is told: no newer one.

        It binds who asks, so this connection can ask but once.
        """
        opcode, reply = self._names.opcodes["XInputExtension"], self._input_version
        newest = struct.unpack_from("<H", reply, 10)[0]
        return [
            Record(
                Told.REPLY,
                FactClass.FOREVER.value,
                struct.pack("<BBHHH", opcode, 47, 2, 2, minor),
                reply[:10] + struct.pack("<H", minor) + reply[12:],
            )
            for minor in range(newest)
        ]

    async def _ask_input(self) -> list[Record]:
        if not self._armed % 2:
            self._armed += 1
            self._select(ALL_MASTERS, RAW_EVENTS)
        armed = self._armed
        opcode, keyboard = self._names.opcodes["XInputExtension"], self._names.opcodes["XKEYBOARD"]
        state = struct.pack("<BBHHxx", keyboard, 4, 2, CORE_KEYBOARD)
        core, devices = await asyncio.gather(self._request(state), self._find_devices())
        keyboards = [CORE_KEYBOARD, *([core[1]] if core is not None else [])]
        requests = [struct.pack("<BBHHxx", keyboard, 4, 2, each) for each in keyboards]
        requests += [struct.pack("<BBHI", 38, 0, 2, root) for root in self._roots]
        requests += [
            struct.pack("<BBHHxx", opcode, 48, 2, each)
            for each in (ALL_DEVICES, ALL_MASTERS, *devices)
        ]
        records = await self._answer(FactClass.INPUT, requests)
        return records if armed == self._armed else []


def _parse_resources(reply: bytes) -> tuple[list[int], list[int], int]:
    """Return controllers and outputs of GetScreenResourcesCurrent's reply, and the time of both."""
    when, controllers, outputs = struct.unpack_from("<IHH", reply, 12)
    if len(reply) < 32 + 4 * (controllers + outputs):
        return [], [], when
    ids = list(struct.unpack_from(f"<{controllers + outputs}I", reply, 32))
    return ids[:controllers][:ID_LIMIT], ids[controllers:][:ID_LIMIT], when


def _parse_devices(reply: bytes) -> list[int]:
    """Return the ids in XIQueryDevice's reply."""
    found: list[int] = []
    position = 32
    for _ in range(min(ID_LIMIT, struct.unpack_from("<H", reply, 8)[0])):
        if position + 12 > len(reply):
            break
        device, classes, name = struct.unpack_from("<H4xHH", reply, position)
        found.append(device)
        position += 12 + name + pad_length(name)
        for _ in range(classes):
            if position + 4 > len(reply):
                return found
            position += 4 * max(1, struct.unpack_from("<H", reply, position + 2)[0])
    return found
