"""The agent's clients: what goes between their sockets, their conversations and the link.

The loop around it, and how clients are let in, is ``server``'s.

Rules kept here: a client's fault ends that client; nobody waits for a client that doesn't read, and
what waits for it has a limit. Python 3.6 and later, standard library only.
"""

import gc
import select
import socket
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Union

from .conversation import Conversation, build_conversation_reader
from .counters import Piece
from .frames import TO_AGENT, Frame, FrameKind
from .images import ImageChoice, ImageEncoder
from .link import Link, image_budget
from .looks import pack_looks
from .payloads import build_close, build_note, build_stats, parse_text
from .plain import PlainConversation
from .records import build_records
from .xmessages import ByteOrder, ProtocolError, SetupRequest, build_setup_failed

COLLECTED_CLIENTS = 32
"""After so many what they left is collected: it is little in number, and a lot in bytes."""

OUTPUT_LIMIT = 1 << 20
"""What may wait for a client that doesn't read before its requests are left waiting (bytes)."""

LITTLE = ByteOrder.LITTLE


class Client:
    """One X client of this host."""

    __slots__ = (
        "answered",
        "close_received",
        "close_sent",
        "conversation",
        "deadline",
        "ended",
        "events",
        "image_choice",
        "images",
        "number",
        "output",
        "output_size",
        "reader",
        "session",
        "setup",
        "sock",
        "uncredited",
        "welcomed",
    )

    def __init__(self, number: int, sock: socket.socket, deadline: float) -> None:
        self.number = number
        self.sock: Optional[socket.socket] = sock
        self.deadline: Optional[float] = deadline
        self.reader = build_conversation_reader()
        self.setup: Optional[SetupRequest] = None
        self.session = 0
        self.conversation: Union[Conversation, PlainConversation, None] = None
        self.images: Optional[ImageEncoder] = None
        self.image_choice = ImageChoice()
        self.output: Deque[bytes] = deque()
        self.output_size = 0
        self.uncredited = 0
        self.events = 0
        self.ended = False
        self.welcomed = False
        self.answered = False
        self.close_sent = False
        self.close_received = False


class ClientTraffic:
    """The clients that are there, and what they say and hear, from their setup to their end."""

    def __init__(self) -> None:
        self._link = Link(time.monotonic, time.process_time, TO_AGENT, self._encode_image)
        self._poll = select.poll()
        self._clients: Dict[int, Client] = {}
        self._by_descriptor: Dict[int, Client] = {}
        self._waiting: List[Client] = []
        self._gone = 0
        self._fresh = False  # something was queued since the link was written to
        self._urgent = False

    def _take_from_server(self, client: Client, data: bytes, credited: bool = True) -> None:
        assert client.conversation is not None
        if not client.close_sent:  # else nobody hears it, and what it knew is given up
            self._converse(client, client.conversation.receive_from_server, data)
        if credited:
            client.uncredited += len(data)
            self._credit(client)

    def _converse(self, client: Client, receive: Callable[[bytes], None], data: bytes) -> None:
        """Let a conversation go on, and send what comes of it both ways."""
        conversation = client.conversation
        assert conversation is not None
        failure = None
        try:
            receive(data)
        except ProtocolError as error:
            failure = str(error)
        except Exception as error:  # a fault of ours that one client found: the others go on
            failure = "it cannot be followed: {}".format(type(error).__name__)
        pieces = conversation.take_for_server()
        self._fresh = True
        if conversation.brings_news() or failure is not None:
            self._urgent = True
        self._send_pieces(client, pieces)
        output = conversation.take_for_client()
        if output:
            client.answered = True
        if output and client.sock is not None:
            client.output.append(output)
            client.output_size += len(output)
            self._write_client(client)
        if conversation.learned:
            seen = build_records(conversation.learned)
            conversation.learned.clear()
            self._link.queue_note(Frame(FrameKind.SEEN, 0, seen))
        looks = conversation.take_looks()
        if looks:
            self._link.queue_note(Frame(FrameKind.LOOK, 0, pack_looks(looks)))
            self._urgent = True
        for note in conversation.notes:
            self._link.queue_note(build_note(note, client.number))
        conversation.notes.clear()
        if failure is not None:
            self._link.queue_note(build_note(failure, client.number))
            self._close(client)

    def _send_pieces(self, client: Client, pieces: List[Piece]) -> None:
        if client.close_sent:
            return
        plain: List[bytes] = []
        for piece in pieces:
            if piece.is_image:
                self._send_plain(client, plain)
                self._link.queue_image(client.number, piece.data)
            else:
                plain.append(piece.data)
        self._send_plain(client, plain)

    def _encode_image(self, number: int, request: bytes) -> Frame:
        """Return the frame of a PutImage: what is new in it, where that is less."""
        client, link = self._clients[number], self._link
        if not client.image_choice.decide(len(request), link.rate, link.byte_time):
            return Frame(FrameKind.DATA, number, request)
        if client.images is None:
            client.images = ImageEncoder(client.reader.order or LITTLE, image_budget(number))
        started = time.process_time()
        payload = client.images.encode(request)
        if payload is None:
            return Frame(FrameKind.DATA, number, request)
        client.image_choice.learn(len(request), payload, time.process_time() - started)
        return Frame(FrameKind.IMAGE, number, payload)

    def _send_plain(self, client: Client, plain: List[bytes]) -> None:
        if plain:
            data = plain[0] if len(plain) == 1 else b"".join(plain)
            self._link.queue(Frame(FrameKind.DATA, client.number, data))
            plain.clear()

    def _write_client(self, client: Client) -> None:
        try:
            while client.output and client.sock is not None:
                sent = client.sock.send(client.output[0])
                client.output_size -= sent
                if sent < len(client.output[0]):
                    client.output[0] = client.output[0][sent:]
                    break
                client.output.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)
            return
        self._credit(client)
        if client.close_received and not client.output:
            self._drop_socket(client)
            self._forget(client)

    def _credit(self, client: Client) -> None:
        if client.uncredited and client.output_size < OUTPUT_LIMIT:
            self._link.consumed(client.number, client.uncredited)
            client.uncredited = 0

    def _set_events(self, client: Client) -> None:
        """Ask for what can be done with a client now."""
        if client.sock is None:
            return
        events = select.POLLOUT if client.output else 0
        if client.conversation is None:
            reads = client.setup is None
        else:
            reads = self._link.may_read(client.number) and client.output_size < OUTPUT_LIMIT
            reads = reads and client.conversation.may_read
        if reads and not client.ended:
            events |= select.POLLIN
        if events != client.events:
            client.events = events
            self._poll.modify(client.sock.fileno(), events)

    # -- clients: the end --

    def _end(self, client: Client) -> None:
        """The client sends nothing more; the server may still answer."""
        client.ended = True
        self._urgent = True
        if client.welcomed and not client.close_sent:
            self._link.queue(Frame(FrameKind.EOF, client.number))
        else:
            self._close(client)

    def _close(self, client: Client) -> None:
        """The client is gone."""
        self._drop_socket(client)
        if client.welcomed:
            self._send_close(client)
        self._forget(client)

    def _send_close(self, client: Client) -> None:
        if client.close_sent:
            return
        client.close_sent = True
        self._urgent = True
        assert client.conversation is not None
        client.conversation.close()
        self._link.queue(self._count(client))
        self._link.queue(build_close(client.number))

    def _count(self, client: Client) -> Frame:
        assert client.conversation is not None
        counters = client.conversation.counters.describe()
        counters["wire_from_client"] = self._link.wire_bytes(client.number)
        return build_stats(client.number, counters)

    def _take_close(self, frame: Frame) -> None:
        client = self._clients.get(frame.client)
        if client is None or client.close_received:
            return
        client.close_received = True
        self._send_close(client)
        reason = parse_text(frame)
        if client.sock is not None and reason and not client.answered:
            order = client.reader.order or LITTLE
            client.output.append(build_setup_failed(order, reason.encode("utf-8")))
        self._write_client(client)

    def _drop_socket(self, client: Client) -> None:
        if client.sock is None:
            return
        descriptor = client.sock.fileno()
        self._poll.unregister(descriptor)
        del self._by_descriptor[descriptor]
        client.sock.close()
        client.sock = None
        client.output.clear()
        client.output_size = 0
        if client in self._waiting:
            self._waiting.remove(client)

    def _forget(self, client: Client) -> None:
        """Give the number of a client free, once both ends know that it is gone."""
        if client.sock is not None:
            return
        known = client.close_received and client.close_sent
        if not client.welcomed or (known and self._link.is_drained(client.number)):
            self._link.close_stream(client.number)
            self._clients.pop(client.number, None)
            self._gone += 1
            if self._gone % COLLECTED_CLIENTS == 0:
                gc.collect()
