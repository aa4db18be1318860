"""A real X server as the judge of what a conversation says in advance."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from dataclasses import dataclass, field

from tests.support.xrandom import RandomClient
from xsshpy.remote.conversation import Conversation, build_conversation_reader
from xsshpy.remote.facts import ServerFacts, parse_server_setup
from xsshpy.remote.opinions import Opinion
from xsshpy.remote.predict import Predictor
from xsshpy.remote.records import Record, Told, apply_record
from xsshpy.remote.xmessages import (
    NO_AUTHORIZATION,
    Authorization,
    ByteOrder,
    Message,
    NeedData,
    Request,
    SetupReply,
    SetupRequest,
    build_setup_request,
)
from xsshpy.remote.xrequests import ONLY_TOLD, Replies
from xsshpy.remote.xwire import ServerReader
from xsshpy.x11.questions import load_questions
from xsshpy.x11.watch import ServerWatch

LITTLE = ByteOrder.LITTLE
SYNC = struct.pack("<BBH", 43, 0, 1)


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(path)
    return sock


def ask_facts(path: str, real: Authorization | None = None) -> list[Record]:
    """Return what the local side would send ahead about a server."""

    async def open_server() -> socket.socket:
        sock = connect(path)
        sock.setblocking(False)
        return sock

    async def ask() -> list[Record]:
        watch = ServerWatch(lambda records: None, lambda kind: None)
        await watch.open(open_server, real)
        try:
            return await watch.ask(load_questions({"HOME": "/nonexistent"}))
        finally:
            await watch.aclose()

    return asyncio.run(ask())


class RootWatch:
    """Watches the root window as the local side does, as long as it lives, and tells its state."""

    def __init__(self, path: str, root: int, real: Authorization | None = None) -> None:
        self.root = root
        self.sock = connect(path)
        self.sock.sendall(
            build_setup_request(SetupRequest(LITTLE, 11, 0, real or NO_AUTHORIZATION))
        )
        self.reader = ServerReader(LITTLE, inspect_all=True, whole=262144)
        events = 1 << 22 | (0 if real else 1 << 19)  # who is not trusted does not see devices
        self.sock.sendall(struct.pack("<BBHIII", 2, 0, 4, root, 1 << 11, events))
        self.ask(SYNC)

    def ask(self, request: bytes) -> bytes:
        self.sock.sendall(request)
        while True:
            while not isinstance(event := self.reader.next_event(), NeedData):
                if isinstance(event, Message) and event.code in (0, 1):
                    assert event.code, event.data
                    return event.data
            self.reader.receive_data(self.sock.recv(1 << 16))

    def tell(self, facts: ServerFacts) -> None:
        """Bring facts up to date: focus, pointer, devices, selections, the root's properties."""
        facts.focus = self.ask(SYNC)
        for key, (kind, _) in list(facts.replies.items()):
            if kind in ONLY_TOLD:
                if facts.extensions.get(key[0]) == b"XKEYBOARD":
                    self.ask(struct.pack("<BBHHH", key[0], 0, 2, 1, 0))
                facts.learn(key, kind, self.ask(key))
        listed = self.ask(struct.pack("<BBHI", 21, 0, 2, self.root))
        there = struct.unpack_from(f"<{struct.unpack_from('<H', listed, 8)[0]}I", listed, 32)
        for atom in set(facts.roots.names(self.root)) - set(there):
            facts.roots.tell_absent(self.root, atom)
        for atom in there:
            value = self.ask(struct.pack("<BBHIIIII", 20, 0, 6, self.root, atom, 0, 0, 9999))
            kind, _, count = struct.unpack_from("<III", value, 8)
            size = count * value[1] // 8
            told = struct.pack(">III", self.root, atom, kind)
            apply_record(facts, Record(Told.PROPERTY, value[1], told, value[32 : 32 + size]))

    def close(self) -> None:
        self.sock.close()


def build_facts(records: list[Record]) -> ServerFacts:
    setup = next(record.value for record in records if record.about is Told.SETUP)
    facts = ServerFacts(setup, LITTLE)
    for record in records:
        apply_record(facts, record)
    return facts


@dataclass
class Verdict:
    """What was wrong, in words; empty where all was right. ``early`` replies were given early."""

    faults: list[str] = field(default_factory=list)
    early: int = 0
    safe: int = 0
    requests: int = 0


class Judge:
    """One client of a real server by way of a conversation, and all that was said of it."""

    def __init__(
        self, path: str, facts: ServerFacts, real: Authorization | None = None, seed: int = 0
    ) -> None:
        self.facts = facts
        self.sock = connect(path)
        setup = SetupRequest(LITTLE, 11, 0, real or NO_AUTHORIZATION)
        self.sock.sendall(build_setup_request(setup))
        reader = build_conversation_reader()
        reader.receive_data(build_setup_request(SetupRequest(LITTLE, 11, 0, NO_AUTHORIZATION)))
        assert isinstance(reader.next_event(), SetupRequest)
        self.conversation = Conversation(reader, facts)
        self.server = ServerReader(LITTLE, inspect_all=True, whole=262144)
        self.client = ServerReader(LITTLE, inspect_all=True, whole=262144)
        self.opinions: dict[int, Opinion] = {}
        self.asked: dict[int, bytes] = {}
        self.told: dict[int, bytes] = {}
        self.real: dict[int, bytes] = {}
        self.verdict = Verdict()
        self.sequence = 0
        self.heard = 0
        self.enabling: set[int] = set()
        self.held = b""
        while self.conversation._predictor is None:
            data = self.sock.recv(1 << 16)
            self.server.receive_data(data)
            self._hear()
            self.conversation.receive_from_server(data)
            self._read_client()
        self._spy(self.conversation._predictor)
        self.base = self.conversation._predictor.resources._base
        # Every other client is a decent one: it asks for nothing that makes no sense.
        self.random = RandomClient(seed, facts, self.base, wild=bool(seed % 2))

    def _spy(self, predictor: Predictor) -> None:
        consider = predictor.consider

        def spied(request: Request) -> Opinion:
            opinion = consider(request)
            self.opinions[request.sequence] = opinion
            return opinion

        predictor.consider = spied  # type: ignore[method-assign]

    def close(self) -> None:
        self.conversation.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send one request."""
        self.sequence += 1
        self.asked[self.sequence] = data
        self.conversation.receive_from_client(data)
        for piece in self.conversation.take_for_server():
            self.sock.sendall(piece.data)
        self._read_client()

    def read(self, most: int = 1 << 16) -> None:
        """Take some of what the server says."""
        data, self.held = self.held[:most], self.held[most:]
        if not data:
            data = self.sock.recv(most)
        if not data:
            raise ConnectionResetError("the server ended the connection")
        self.server.receive_data(data)
        self._hear()
        self.conversation.receive_from_server(data)
        self._read_client()

    def settle(self) -> None:
        """Ask for a sign of life and wait for it."""
        self.send(SYNC)
        while self.heard < self.sequence:
            self.read()

    def _hear(self) -> None:
        while not isinstance(event := self.server.next_event(), NeedData):
            if not isinstance(event, Message):
                continue
            if event.code == 1:
                self.real[event.sequence] = event.data
                self.heard = event.sequence
                continue
            if event.code & 0x7F == 11:
                continue
            if event.code == 0 and event.sequence == self.sequence:
                self.heard = event.sequence
            said = self.opinions.get(event.sequence)
            what = self.describe(event.sequence)
            if event.code == 34:
                continue
            if event.sequence < self.conversation._early_sync:
                self.verdict.faults.append(f"{event.code} after an early sync: {what}")
            self.noticed(event, said, what)

    def noticed(self, event: Message, said: Opinion | None, what: str) -> None:
        if said is not None and said.safe and self.lockstep:
            self.verdict.faults.append(f"safe, but {event.code}/{event.data[1]}: {what}")

    lockstep = True

    def describe(self, sequence: int) -> str:
        data = self.asked.get(sequence, b"")
        return f"request {sequence} opcode {data[:2].hex()} {data[:72].hex(' ', 4)}"

    def _read_client(self) -> None:
        data = self.conversation.take_for_client()
        if not data:
            return
        self.client.receive_data(data)
        last = self.client.sequence
        while not isinstance(event := self.client.next_event(), NeedData):
            if isinstance(event, Message) and event.code & 0x7F != 11:
                if event.sequence > self.sequence:
                    self.verdict.faults.append(f"number {event.sequence} after {last}")
                if event.code == 1:
                    self.told[event.sequence] = event.data
            last = self.client.sequence

    def finish(self) -> Verdict:
        """Compare everything."""
        self.settle()
        verdict, counters = self.verdict, self.conversation.counters
        for sequence, reply in self.real.items():
            said = self.opinions[sequence]
            if said.alters is None and self.told.get(sequence) != reply:
                told = self.told.get(sequence, b"")
                verdict.faults.append(
                    f"told {told[:64].hex(' ', 4)} not {reply[:64].hex(' ', 4)}: "
                    + self.describe(sequence)
                )
        if counters.mispredictions:
            verdict.faults.append(f"{counters.mispredictions} {self.conversation.notes}")
        if counters.stale:
            verdict.faults.append(f"{counters.stale} stale")
        verdict.early = counters.answered_early
        verdict.requests = self.sequence
        verdict.safe = sum(each.safe for each in self.opinions.values())
        return verdict

    def run_in_step(self, count: int) -> Verdict:
        """Send random requests; after each, wait until the server has dealt with it."""
        for data in self.random.requests(count):
            self.send(data)
            if data[0] == self.random.big and len(data) == 4:
                self.enabling.add(self.sequence)
            self.random.big_enabled = not self.enabling.isdisjoint(self.told)
            self.settle()
        return self.finish()

    def run_in_haste(self, count: int, seed: int) -> Verdict:
        """Send random requests in a hurry, and take what the server says now and then."""
        self.lockstep = False
        dice = random.Random(seed)
        for data in self.random.requests(count):
            self.send(data)
            if data[0] == self.random.big and len(data) == 4:
                self.enabling.add(self.sequence)
            self.random.big_enabled = not self.enabling.isdisjoint(self.told)
            if dice.random() < 0.1:
                self.send(SYNC)
            said = self.opinions.get(self.sequence)  # none for a NoOperation
            waits = said is not None and said.replies is Replies.ONE and dice.random() < 0.8
            while waits and self.sequence not in self.told and self.heard < self.sequence:
                self.read(dice.choice((1 << 16, 32, 77)))
        return self.finish()


class RedirectingManager:
    """A window manager of the rudest kind: it frames, moves and resizes what asks to be mapped."""

    def __init__(self, path: str) -> None:
        self.sock = connect(path)
        self.thread = threading.Thread(target=self._manage, daemon=True)
        self.ready = threading.Event()

    def __enter__(self) -> RedirectingManager:
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.sock.close()

    def _manage(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # its end may come while it frames a window
            self._run()

    def _run(self) -> None:
        self.sock.sendall(build_setup_request(SetupRequest(LITTLE, 11, 0, NO_AUTHORIZATION)))
        reader = ServerReader(LITTLE, inspect_all=True)
        frame, root = 0, 0
        self.sock.settimeout(None)
        while data := self.sock.recv(1 << 16):
            reader.receive_data(data)
            while not isinstance(event := reader.next_event(), NeedData):
                if isinstance(event, SetupReply):
                    frame = struct.unpack_from("<I", event.data, 12)[0]
                    root = parse_server_setup(event.data, LITTLE).screens[0].root
                    mask = 1 << 19 | 1 << 20
                    self.sock.sendall(struct.pack("<BBHIII", 2, 0, 4, root, 1 << 11, mask) + SYNC)
                elif isinstance(event, Message) and event.code == 1:
                    self.ready.set()
                elif isinstance(event, Message) and event.code == 20:
                    frame += 1
                    window = struct.unpack_from("<I", event.data, 8)[0]
                    self.sock.sendall(self._frame(frame, root, window))
                elif isinstance(event, Message) and event.code == 23:
                    window = struct.unpack_from("<I", event.data, 8)[0]
                    self.sock.sendall(struct.pack("<BBHIHxxI", 12, 0, 4, window, 4, 77))

    def _frame(self, frame: int, root: int, window: int) -> bytes:
        return b"".join(
            (
                struct.pack("<BBHII", 1, 0, 8, frame, root),
                struct.pack("<hhHHHHII", 5, 6, 90, 80, 0, 1, 0, 0),
                struct.pack("<BBHIII", 2, 0, 4, window, 1 << 11, 1 << 22),
                struct.pack("<BBHIIhh", 7, 0, 4, window, frame, 3, 4),
                struct.pack("<BBHI", 8, 0, 2, window),
                struct.pack("<BBHI", 8, 0, 2, frame),
            )
        )
