"""Asks the local X server beforehand what its clients will ask, and watches what may change.

One connection of our own, with the rights that the forwarded clients have: so it sees what they
would see. Its answers go to the agent as facts; news of the root window's properties, the keyboard
and the screens follow as they come.

Rules kept here: nothing is asked but what the tables of facts allow; every wait has an end, and an
answer that does not come only costs speed. The server's words are not trusted further than their
framing.

Follows the X Window System Protocol, version 11, §9 to §11; the X Keyboard Extension 1.0, §16.9;
the Resize and Rotate Extension 1.5, §7.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable

from xsshpy.remote.facts import Screen, parse_server_setup
from xsshpy.remote.looks import Look
from xsshpy.remote.records import PROPERTY_LIMIT, Record, Told
from xsshpy.remote.xmessages import (
    ERROR,
    NO_AUTHORIZATION,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    REPLY,
    Authorization,
    ByteOrder,
    Message,
    NeedData,
    ProtocolError,
    SetupReply,
    SetupRequest,
    SetupStatus,
    build_setup_request,
    pad_length,
)
from xsshpy.remote.xrequests import CORE_FACTS, EXTENSION_FACTS, INTERN_ATOM, FactClass
from xsshpy.remote.xwire import ServerReader
from xsshpy.x11.looker import Looker
from xsshpy.x11.questions import (
    CORE,
    FONT,
    GET_ATOM_NAME,
    LAST_PREDEFINED_ATOM,
    Question,
    ServerNames,
    build_request,
)
from xsshpy.x11.state import SUBSTRUCTURE_NOTIFY, WATCHED, XKB_STATE_NOTIFY, StateWatch

ANSWER_TIMEOUT = 10.0
"""How long the server may take for all answers (seconds)."""

REPLY_LIMIT = 1 << 18
PROPERTY_CHANGE = 1 << 22
SUBSTRUCTURE_REDIRECT = 1 << 20
PROPERTY_NOTIFY = 28
MAPPING_NOTIFY = 34
PROPERTY_DELETED = 1

ATOM_LIMIT = 1024
"""Atoms from here on are asked for by their numbers when a client wants to know."""

ATOM_BATCH = 128

XKB_EVENTS = 0x01 | 0x02 | 0x08 | 0x20 | 0x40 | 0x80
"""New keyboard, map, controls, indicator map, names and compatibility map (§16.9)."""

RANDR_EVENTS = 0x0F
"""Screen, CRTC, output and output property changes (§7)."""

_XKB_USE = b"\x00\x00\x02\x00\x01\x00\x00\x00"

News = Callable[[list[Record]], None]


class ServerWatch(asyncio.Protocol):
    """One connection that asks and watches. ``news`` and ``stale`` are called as things change,
    ``gone`` when the X server has closed the connection.
    """

    def __init__(
        self,
        news: News,
        stale: Callable[[FactClass], None],
        gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._news = news
        self._stale = stale
        self._gone = gone
        self._ends = False
        self._transport: asyncio.Transport | None = None
        self._reader = ServerReader(ByteOrder.LITTLE, inspect_all=True, whole=REPLY_LIMIT)
        self._sequence = 0
        self._pending: dict[int, asyncio.Future[bytes | None]] = {}
        self._greeted: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._closed = asyncio.Event()
        self._screens: tuple[Screen, ...] = ()
        self._roots: set[int] = set()
        self._base = 0
        self._setup = b""
        self._events: dict[str, int] = {}
        self._asked: dict[FactClass, list[Question]] = {}
        self._dirty: dict[tuple[int, int], bool] = {}
        self._stale_classes: set[FactClass] = set()
        self._absent_asked = True
        self._renewing: asyncio.Task[None] | None = None
        self._last_root: dict[int, bytes] = {}
        self._state = StateWatch(self._send, self._request)
        self._looker = Looker(self._send, self._request, news)
        self.names = ServerNames(0, 0, {})

    async def open(
        self, open_server: Callable[[], Awaitable[socket.socket]], real: Authorization | None
    ) -> None:
        """Connect and set up. Raises OSError, XsshError or ProtocolError."""
        opened = await open_server()
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self, sock=opened)
        except BaseException:
            opened.close()
            raise
        assert self._transport is not None
        setup = SetupRequest(
            ByteOrder.LITTLE, PROTOCOL_MAJOR, PROTOCOL_MINOR, real or NO_AUTHORIZATION
        )
        self._transport.write(build_setup_request(setup))
        self._setup = await asyncio.wait_for(self._greeted, ANSWER_TIMEOUT)
        self._screens = parse_server_setup(self._setup, ByteOrder.LITTLE).screens
        self._roots = {screen.root for screen in self._screens}
        self._base = struct.unpack_from("<I", self._setup, 12)[0]

    async def ask(self, questions: Iterable[Question]) -> list[Record]:
        """Return the first facts: all there is to know of the root windows, and the answers."""
        asked = list(questions)
        await self._find_extensions()
        records = [Record(Told.SETUP, 0, b"", self._setup)]
        self._watch_keyboard_and_screens()
        await asyncio.wait_for(
            self._state.begin(self.names, self._events, self._screens), ANSWER_TIMEOUT
        )
        if self._state.has_devices:
            self._looker.begin(
                [screen.root for screen in self._screens],
                (self.names.opcodes["SHAPE"], self._events["SHAPE"])
                if "SHAPE" in self.names.opcodes
                else None,
            )
        roots = [self._ask_root(screen) for screen in self._screens]
        answers = [self._answer(question) for question in asked]
        state = [self._state.ask(kind) for kind in WATCHED]
        for found in await asyncio.wait_for(asyncio.gather(*roots, *state), ANSWER_TIMEOUT):
            records.extend(found)
        focus = await self._request(struct.pack("<BBH", 43, 0, 1))
        if focus is not None:
            records.append(Record(Told.FOCUS, 0, b"", focus))
        for record in await asyncio.wait_for(asyncio.gather(*answers), ANSWER_TIMEOUT):
            if record is not None:
                records.append(record)
        return records

    async def ask_atom_names(self) -> list[Record]:
        """Return the names of all atoms, to be asked for when the first facts are there.

        Their numbers have no gaps, and toolkits ask for those that they get as types and labels.
        """
        records: list[Record] = []
        for first in range(LAST_PREDEFINED_ATOM + 1, ATOM_LIMIT, ATOM_BATCH):
            keys = [
                struct.pack("<BBHI", GET_ATOM_NAME, 0, 2, atom)
                for atom in range(first, first + ATOM_BATCH)
            ]
            asked = [self._request(key) for key in keys]
            replies = await asyncio.wait_for(asyncio.gather(*asked), ANSWER_TIMEOUT)
            for key, reply in zip(keys, replies, strict=True):
                if reply is None:
                    return records
                records.append(Record(Told.REPLY, FactClass.FOREVER.value, key, reply))
        return records

    def look_again(self) -> None:
        """Look again at what nobody is told of: absent atoms, and who selects on the root; and at
        the pointer, where it moved.
        """
        self._absent_asked = False
        self._last_root.clear()
        self._stale_classes.add(FactClass.INPUT)
        self._renew()

    def look(self, orders: list[Look]) -> None:
        """Look at windows for the agent, and tell it what is seen."""
        self._looker.look(orders)

    async def aclose(self) -> None:
        """Close the connection."""
        self._ends = True
        looking = self._looker.close()
        if self._renewing is not None:
            self._renewing.cancel()
        tasks = [task for task in (self._renewing, looking) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._transport is not None:
            self._transport.abort()
            await self._closed.wait()

    # -- asking --

    def _send(self, request: bytes) -> int:
        self._sequence += 1
        if self._transport is not None:
            self._transport.write(request)
        return self._sequence

    def _request(self, request: bytes) -> asyncio.Future[bytes | None]:
        """Send a request; the future has its reply, None where it failed."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        if self._closed.is_set():
            future.set_result(None)
        else:
            self._pending[self._send(request)] = future
        return future

    async def _find_extensions(self) -> None:
        names = sorted({name.decode("ascii") for name, _ in EXTENSION_FACTS})
        asked = [self._request(build_named_request(98, name.encode("utf-8"))) for name in names]
        opcodes: dict[str, int] = {}
        answers = await asyncio.wait_for(asyncio.gather(*asked), ANSWER_TIMEOUT)
        for name, answer in zip(names, answers, strict=True):
            if answer is not None and answer[8]:
                opcodes[name] = answer[9]
                self._events[name] = answer[10]
        screen = self._screens[0]
        self.names = ServerNames(screen.root, screen.colormap, opcodes)

    def _watch_keyboard_and_screens(self) -> None:
        keyboard = self.names.opcodes.get("XKEYBOARD")
        if keyboard is not None:
            self._request(bytes((keyboard,)) + _XKB_USE[1:])
            masks = struct.pack("<HHHHHH", 0x100, XKB_EVENTS, 0, XKB_EVENTS, 0, 0)
            self._send(struct.pack("<BBH", keyboard, 1, 4) + masks)
        randr = self.names.opcodes.get("RANDR")
        if randr is not None:
            self._request(struct.pack("<BBHII", randr, 0, 3, 1, 5))
            for screen in self._screens:
                self._send(struct.pack("<BBHIHxx", randr, 4, 3, screen.root, RANDR_EVENTS))

    async def _answer(self, question: Question) -> Record | None:
        """Ask one question; None where there is no answer."""
        if question.owner == FONT:
            return await self._answer_font(question.body)
        request = build_request(question, self.names)
        if request is None:
            return None
        reply = await self._request(request)
        if reply is None:
            return None
        key, kind = request, _fact_class(question)
        if request[0] == INTERN_ATOM:
            if any(reply[8:12]):
                key = request[:1] + b"\0" + request[2:]
            else:
                kind = FactClass.ABSENT
        self._asked.setdefault(kind, []).append(question)
        return Record(Told.REPLY, kind.value, key, reply)

    async def _answer_font(self, name: bytes) -> Record | None:
        self._base += 1
        self._send(
            struct.pack("<BBHIHxx", 45, 0, 3 + _units(name), self._base, len(name)) + _pad(name)
        )
        reply = await self._request(struct.pack("<BBHI", 47, 0, 2, self._base))
        self._send(struct.pack("<BBHI", 46, 0, 2, self._base))
        return None if reply is None else Record(Told.FONT, 0, name, reply)

    # -- the root windows --

    async def _ask_root(self, screen: Screen) -> list[Record]:
        """Select what changes on a root window, then ask for all of it."""
        root = screen.root
        events = PROPERTY_CHANGE | (SUBSTRUCTURE_NOTIFY if self._state.has_devices else 0)
        self._send(struct.pack("<BBHIII", 2, 0, 4, root, 1 << 11, events))
        attributes = asyncio.ensure_future(self._ask_attributes(screen))
        listed = await self._request(struct.pack("<BBHI", 21, 0, 2, root))
        # An absent property says as well that this root window is watched.
        records = [Record(Told.ABSENT_PROPERTY, 0, struct.pack(">III", root, 0, 0), b"")]
        if listed is not None:
            count = struct.unpack_from("<H", listed, 8)[0]
            atoms = struct.unpack_from(f"<{count}I", listed, 32)
            records += await asyncio.gather(*(self._ask_property(root, atom) for atom in atoms))
        return [*(records if listed is not None else []), *await attributes]

    async def _ask_attributes(self, screen: Screen) -> list[Record]:
        reply = await self._request(struct.pack("<BBHI", 3, 0, 2, screen.root))
        if reply is None or len(reply) != 44:
            return []
        plain = reply[:2] + b"\0\0" + reply[4:]
        if self._last_root.get(screen.root) == plain:
            return []
        self._last_root[screen.root] = plain
        managed = struct.unpack_from("<I", reply, 32)[0] & SUBSTRUCTURE_REDIRECT
        key = struct.pack(">I", screen.root)
        return [
            Record(Told.ROOT_ATTRIBUTES, 0, key, plain),
            Record(Told.MANAGED, int(bool(managed)), b"", b""),
        ]

    async def _ask_property(self, root: int, atom: int) -> Record:
        units = PROPERTY_LIMIT // 4
        reply = await self._request(struct.pack("<BBHIIIII", 20, 0, 6, root, atom, 0, 0, units))
        unknown = Record(Told.UNKNOWN_PROPERTY, 0, struct.pack(">III", root, atom, 0), b"")
        if reply is None:
            return unknown
        kind, left, count = struct.unpack_from("<III", reply, 8)
        key = struct.pack(">III", root, atom, kind)
        if not kind:
            return Record(Told.ABSENT_PROPERTY, 0, key, b"")
        value = reply[32 : 32 + count * reply[1] // 8]
        if left or len(value) != count * reply[1] // 8:
            return unknown
        return Record(Told.PROPERTY, reply[1], key, value)

    # -- news --

    def _take_event(self, message: Message) -> None:
        code, data = message.code & 0x7F, message.data
        self._looker.take_event(code, data)
        if code == PROPERTY_NOTIFY:
            window, atom = struct.unpack_from("<II", data, 4)
            if window in self._roots:
                self._dirty[window, atom] = data[16] == PROPERTY_DELETED
                self._renew()
        elif self._is_keyboard_change(code, data):
            self._go_stale(FactClass.KEYBOARD)
            if self._state.disarm():
                self._stale(FactClass.INPUT)
        elif code - self._events.get("RANDR", 1000) in (0, 1):
            self._go_stale(FactClass.SCREENS)
        for kind in self._state.take_event(code, data):
            if kind is FactClass.INPUT:
                self._stale(kind)  # until somebody wants to know again
            else:
                self._go_stale(kind)

    def _is_keyboard_change(self, code: int, data: bytes) -> bool:
        of_keyboard = code == self._events.get("XKEYBOARD") and data[1] != XKB_STATE_NOTIFY
        return code == MAPPING_NOTIFY or of_keyboard

    def _go_stale(self, kind: FactClass) -> None:
        self._stale(kind)
        self._stale_classes.add(kind)
        self._renew()

    def _renew(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.ensure_future(self._tell_news())

    async def _tell_news(self) -> None:
        """Ask again for what changed, until nothing has changed meanwhile."""
        while self._dirty or self._stale_classes or not self._absent_asked:
            dirty, self._dirty = self._dirty, {}
            records = [
                Record(Told.ABSENT_PROPERTY, 0, struct.pack(">III", root, atom, 0), b"")
                if deleted
                else await self._ask_property(root, atom)
                for (root, atom), deleted in dirty.items()
            ]
            while self._stale_classes:
                kind = self._stale_classes.pop()
                if kind in WATCHED:
                    records += await self._state.ask(kind)
                for question in self._asked.pop(kind, []):
                    record = await self._answer(question)
                    if record is not None:
                        records.append(record)
            if not self._absent_asked:
                self._absent_asked = True
                records += await self._ask_absent()
            for screen in self._screens:
                records += await self._ask_attributes(screen)
            # What has changed again is asked for again; the value that came may be older than
            # what clients have heard of.
            records = [record for record in records if record.key[:8] not in self._changed()]
            if records:
                self._news(records)

    def _changed(self) -> set[bytes]:
        """Return the properties that changed since they were asked for: the records' keys."""
        return {struct.pack(">II", root, atom) for root, atom in self._dirty}

    async def _ask_absent(self) -> list[Record]:
        answers = [await self._answer(each) for each in self._asked.pop(FactClass.ABSENT, [])]
        return [
            record
            for record in answers
            if record is not None and record.detail != FactClass.ABSENT.value
        ]

    # -- what the transport calls --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes from the X server; a broken stream ends the connection."""
        try:
            self._reader.receive_data(data)
            while True:
                event = self._reader.next_event()
                if isinstance(event, NeedData):
                    return
                self._take(event)
        except ProtocolError as error:
            if not self._greeted.done():
                self._greeted.set_exception(error)
            if self._transport is not None:
                self._transport.abort()

    def _take(self, event: object) -> None:
        if isinstance(event, SetupReply):
            if event.status is SetupStatus.SUCCESS:
                self._greeted.set_result(event.data)
            else:
                self._greeted.set_exception(ConnectionRefusedError("the X server refuses"))
        elif isinstance(event, Message):
            if event.code in (REPLY, ERROR):
                self._settle(event)
            else:
                self._take_event(event)

    def _settle(self, message: Message) -> None:
        future = self._pending.pop(message.sequence, None)
        if future is None or future.done():
            return
        whole = message.code == REPLY and len(message.data) == message.size
        future.set_result(message.data if whole else None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end: what was asked has no answer."""
        self._closed.set()
        if not self._greeted.done():
            self._greeted.set_exception(ConnectionResetError("the X server closed the connection"))
        for future in self._pending.values():
            if not future.done():
                future.set_result(None)
        self._pending.clear()
        if not self._ends:
            self._gone()


def _fact_class(question: Question) -> FactClass:
    if question.owner == CORE:
        return CORE_FACTS[question.body[0]][0]
    return EXTENSION_FACTS[question.owner.encode("utf-8"), question.body[1]][0]


def _units(text: bytes) -> int:
    return (len(text) + 3) // 4


def _pad(text: bytes) -> bytes:
    return text + bytes(pad_length(len(text)))


def build_named_request(opcode: int, name: bytes) -> bytes:
    """Return a request that has nothing but a name: QueryExtension, InternAtom."""
    return struct.pack("<BBHHxx", opcode, 0, 2 + _units(name), len(name)) + _pad(name)
