"""Which extensions a forwarded X client gets to see: bytes in, bytes out.

Some extensions cannot work through a relay. MIT-SHM, DRI3 and XFree86-Bigfont hand over shared
memory or descriptors, and an X server offers them to whoever comes through its unix socket; a
program that believes it waits for ever (Qt does). So they are hidden: QueryExtension says absent,
ListExtensions leaves them out.

Rules kept here: the real request always goes to the server and only its reply is altered, so that
sequence numbers stay the server's own; every other byte passes unchanged, both ways; nothing is
predicted and no error is invented. Python 3.6 and later, standard library only.

Follows the X Window System Protocol, version 11, §9 (QueryExtension, ListExtensions); the Big
Requests Extension 2.0.
"""

import struct
from enum import Enum
from typing import FrozenSet, Iterator, List, Optional

from .xmessages import (
    LIST_EXTENSIONS,
    QUERY_EXTENSION,
    ByteOrder,
    Message,
    NeedData,
    Raw,
    Request,
    SetupReply,
    SetupRequest,
    pad_length,
)
from .xwire import AnswerTest, ClientReader, ServerReader

HIDDEN_EXTENSIONS = frozenset((b"MIT-SHM", b"DRI3", b"XFree86-Bigfont"))
"""Extensions that need more than a stream of bytes between client and server."""

BIG_REQUESTS = b"BIG-REQUESTS"

PREFIX = 512
"""How much of a request is looked at, in bytes: more than any hidden name is long."""


class _Purpose(Enum):
    """Why a reply is awaited."""

    HIDE = "hide"
    LIST = "list"
    BIG_REQUESTS_OPCODE = "opcode"
    BIG_REQUESTS_MAXIMUM = "maximum"


class ExtensionFilter:
    """What passes between one X client and its server, without the hidden extensions.

    ``reader`` has read the client's setup, and nothing after it: see ``build_client_reader``. Each
    method takes what arrived and gives what is to be sent on, in order; to be iterated to the end.
    It raises ProtocolError where a side broke the protocol; the connection must then be closed.
    """

    def __init__(self, reader: ClientReader, hidden: FrozenSet[bytes] = HIDDEN_EXTENSIONS) -> None:
        if any(len(name) > PREFIX - 12 for name in hidden):
            raise ValueError("name of an extension is too long to be hidden")
        if reader.order is None:
            raise ValueError("the client's setup was not read")
        self._order: ByteOrder = reader.order
        self._hidden = hidden
        self._client = reader
        self._server = ServerReader(self._order)
        self._big_requests: Optional[int] = None
        self.setup: Optional[SetupReply] = None
        """The server's answer to the setup, once it came."""

    def pass_to_server(self, data: bytes) -> Iterator[bytes]:
        """Take bytes from the client, give bytes for the server."""
        self._client.receive_data(data)
        while True:
            event = self._client.next_event()
            if isinstance(event, NeedData):
                return
            assert not isinstance(event, SetupRequest)
            if isinstance(event, Request):
                self._announce(event)
            yield event.data

    def _announce(self, request: Request) -> None:
        """Ask for the answer to a request, where it is to be altered or tells us something."""
        if request.opcode == QUERY_EXTENSION:
            name = parse_extension_query(request, self._order)
            if name in self._hidden:
                self._expect(request, is_presence, _Purpose.HIDE)
            elif name == BIG_REQUESTS and self._big_requests is None:
                self._expect(request, is_presence, _Purpose.BIG_REQUESTS_OPCODE)
        elif request.opcode == LIST_EXTENSIONS:
            self._expect(request, is_extension_list, _Purpose.LIST)
        elif request.opcode == self._big_requests and not request.data[1] and not request.body:
            self._expect(request, is_maximum, _Purpose.BIG_REQUESTS_MAXIMUM)

    def _expect(self, request: Request, fits: AnswerTest, purpose: _Purpose) -> None:
        self._server.expect(request.sequence, fits, purpose)

    def pass_to_client(self, data: bytes) -> Iterator[bytes]:
        """Take bytes from the server, give bytes for the client."""
        self._server.receive_data(data)
        while True:
            event = self._server.next_event()
            if isinstance(event, NeedData):
                return
            if isinstance(event, Message):
                yield self._answer(event)
                continue
            if not isinstance(event, Raw):
                self.setup = event
            yield event.data

    def _answer(self, message: Message) -> bytes:
        """Return an awaited reply as the client may see it."""
        reply = message.data
        if message.purpose is _Purpose.HIDE:
            return hide_extension_answer(reply)
        if message.purpose is _Purpose.LIST:
            return hide_listed_extensions(reply, self._order, self._hidden)
        if message.purpose is _Purpose.BIG_REQUESTS_OPCODE:
            self._big_requests = reply[9]
            self._client.inspect(reply[9])
        else:
            maximum = struct.unpack_from(self._order.value + "I", reply, 8)[0]
            self._client.enable_big_requests(maximum)
        return reply


def build_client_reader() -> ClientReader:
    """Return a reader that sees what an ExtensionFilter must see."""
    return ClientReader((QUERY_EXTENSION, LIST_EXTENSIONS), PREFIX)


def parse_extension_query(request: Request, order: ByteOrder) -> bytes:
    """Return the name that a QueryExtension asks for; b"" where not all of it was gathered.

    A request whose lengths contradict each other is an error to the server; the name is read all
    the same.
    """
    body = request.body
    if len(body) < 4:
        return b""
    length: int = struct.unpack_from(order.value + "H", body)[0]
    name = body[4 : 4 + length]
    return name if len(name) == length else b""


def is_presence(head: bytes, size: int) -> bool:
    """Tell whether a reply can be that of QueryExtension for an extension that is there.

    An absent one needs no change, and its zeros look like many other replies.
    """
    return size == 32 and head[8] == 1 and head[9] >= 128


def is_extension_list(head: bytes, size: int) -> bool:
    """Tell whether a reply can be that of ListExtensions: as long as its number of names allows."""
    text, count = size - 32, head[1]
    return 0 < count <= text <= count * 256 + 3


def is_maximum(head: bytes, size: int) -> bool:
    """Tell whether a reply can be that of BigReqEnable. What fills it up may be garbage."""
    return size == 32 and any(head[8:12])


def hide_extension_answer(reply: bytes) -> bytes:
    """Return a QueryExtension reply that says: absent."""
    return reply[:8] + bytes(4) + reply[12:]


def parse_extension_list(reply: bytes) -> Optional[List[bytes]]:
    """Return the names in a ListExtensions reply; None where it is none, for it does not add up."""
    names: List[bytes] = []
    position = 32
    for _ in range(reply[1]):
        if position >= len(reply):
            return None
        following = position + 1 + reply[position]
        names.append(reply[position + 1 : following])
        position = following
    return names if position + pad_length(position) == len(reply) else None


def hide_listed_extensions(reply: bytes, order: ByteOrder, hidden: FrozenSet[bytes]) -> bytes:
    """Return a ListExtensions reply without the hidden names; the same where it has none."""
    names = parse_extension_list(reply)
    if names is None:
        return reply
    shown = [name for name in names if name not in hidden]
    if len(shown) == len(names):
        return reply
    text = b"".join(bytes((len(name),)) + name for name in shown)
    text += bytes(pad_length(len(text)))
    head = struct.pack(order.value + "BB2sI", reply[0], len(shown), reply[2:4], len(text) // 4)
    return head + reply[8:32] + text
