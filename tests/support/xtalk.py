"""A conversation with a server that is played by the test, in either byte order."""

from __future__ import annotations

import struct

from tests.support import xstreams as x
from xsshpy.remote.conversation import Conversation, build_conversation_reader
from xsshpy.remote.facts import ServerFacts
from xsshpy.remote.xmessages import ByteOrder, Message, NeedData, SetupRequest
from xsshpy.remote.xrequests import FactClass
from xsshpy.remote.xwire import ServerReader

ROOT, COLORMAP, VISUAL, BASE = 0x100, 0x20, 0x21, 0x400000
FOCUS, INTERN, EXTENSION, NO_OPERATION = 43, 16, 98, 127
BIG, RENDER, STRANGE = 133, 139, 200


def server_setup(order: ByteOrder, base: int = BASE) -> bytes:
    """Return a successful setup: one screen of 24 bits, depths 1, 24 and 32."""
    o = order.value
    formats = b"".join(struct.pack("BBB5x", d, b, 32) for d, b in ((1, 1), (24, 32), (32, 32)))
    visual = struct.pack(o + "IBBHIII4x", VISUAL, 4, 8, 256, 0xFF0000, 0xFF00, 0xFF)
    depths = struct.pack(o + "BxH4x", 24, 1) + visual + struct.pack(o + "BxH4x", 32, 0)
    screen = struct.pack(o + "IIIIIHHHHHHIBBBB", ROOT, COLORMAP, *(0,) * 9, VISUAL, 0, 0, 24, 2)
    screen = screen[:38] + bytes((24, 2)) + depths
    head = struct.pack(
        o + "IIIIHHBBBBBBBB4x", 1, base, 0x1FFFFF, 0, 0, 65535, 1, 3, *(0, 0, 32, 32, 8, 255)
    )
    body = head + formats + screen
    return struct.pack(o + "BxHHH", 1, 11, 0, len(body) // 4) + body


def known_facts(order: ByteOrder) -> ServerFacts:
    """Return facts with a focus, one atom, BIG-REQUESTS and RENDER."""
    facts = ServerFacts(server_setup(order), order)
    facts.focus = x.reply(order, 0, struct.pack(order.value + "I", 1))
    facts.managed = False
    facts.learn(atom_request(order, b"KNOWN"), FactClass.FOREVER, atom_reply(order, 0, 77))
    for name, opcode in ((b"BIG-REQUESTS", BIG), (b"RENDER", RENDER)):
        facts.learn(x.query(order, name), FactClass.FOREVER, x.present(order, 0, opcode))
    facts.learn(
        x.request(order, BIG),
        FactClass.FOREVER,
        x.reply(order, 0, struct.pack(order.value + "I", 1 << 20)),
    )
    return facts


def atom_request(order: ByteOrder, name: bytes) -> bytes:
    return x.request(order, INTERN, x.query_body(order, name))


def atom_reply(order: ByteOrder, sequence: int, atom: int) -> bytes:
    return x.reply(order, sequence, struct.pack(order.value + "I", atom))


class Talk:
    """One client's conversation; ``facts`` may be shared."""

    def __init__(self, order: ByteOrder, facts: ServerFacts | None = None) -> None:
        self.order = order
        self.facts = facts or known_facts(order)
        reader = build_conversation_reader()
        reader.receive_data(x.setup(order))
        assert isinstance(reader.next_event(), SetupRequest)
        self.talk = Conversation(reader, self.facts)
        self.talk.receive_from_server(server_setup(order))
        self.setup = self.talk.take_for_client()
        self.reader = ServerReader(order, inspect_all=True, whole=262144)
        self.reader.receive_data(self.setup)
        self.reader.next_event()

    def ask(self, *requests: bytes) -> list[tuple[int, int]]:
        """Send requests; return code and number of each message that came at once."""
        self.talk.receive_from_client(b"".join(requests))
        sent = b"".join(piece.data for piece in self.talk.take_for_server())
        assert sent == b"".join(requests)
        return self.messages()

    def serve(self, *messages: bytes) -> list[tuple[int, int]]:
        self.talk.receive_from_server(b"".join(messages))
        return self.messages()

    def messages(self) -> list[tuple[int, int]]:
        self.reader.receive_data(self.talk.take_for_client())
        self.last: list[Message] = []
        while not isinstance(event := self.reader.next_event(), NeedData):
            if isinstance(event, Message):
                self.last.append(event)
        return [(each.code, each.sequence) for each in self.last]
