"""One X client and its server, over a distance: what each sends, what each gets, and what is
answered before the server could.

Every request goes to the server. Where its reply is known, the client gets it at once; the server's
own reply is compared when it comes, and dropped.

Rules kept here:

* Sans-IO; Python 3.6 and later, standard library only.
* Replies reach the client in the order of its requests: one that is known waits behind those that
  are not. Past a request that may or may not have a reply nothing is known.
* A difference between what was said and what the server says is a misprediction: it is counted, and
  its class of answers is switched off for everybody.
* No error is invented. One that comes for a request which was answered already is a misprediction,
  and reaches nobody, since the client has its answer.
* What comes from the server after an early answer has an older sequence number than that answer. It
  is raised to the last number that the client saw, as libraries take a lower one for a wrap.

Follows the X Window System Protocol, version 11, §1 (sequence numbers), §4 (errors), §11 (events).
"""

import struct
from collections import deque
from typing import Deque, List, Optional

from .comparing import Comparison
from .counters import Counters, Piece
from .facts import PredictionClass, ServerFacts, parse_resource_range
from .learning import Learner, Pending
from .looks import FOCUS, Look
from .predict import GET_INPUT_FOCUS, Predictor
from .xmessages import (
    ERROR,
    KEYMAP_NOTIFY,
    REPLY,
    Message,
    ProtocolError,
    Raw,
    Request,
    SetupReply,
    SetupStatus,
)
from .xrequests import FactClass, Replies
from .xwire import ClientReader, ServerReader

PUT_IMAGE = 72
GATHERED = 4 << 20
"""Bytes of a request that are gathered: images up to this size can be sent as differences."""

FOCUS_IN = 9
FOCUS_OUT = 10
PROPERTY_NOTIFY = 28
MAPPING_NOTIFY = 34
XKB_STATE_EVENTS = frozenset((2, 4, 5, 8))
"""XKEYBOARD events that leave the keyboard's description as it is: state, indicators, bell."""

INSPECTED = frozenset(range(256)) - {127}
"""All but NoOperation: each may matter to what is known, or have a reply."""

PENDING_FULL = 4096
PENDING_LIMIT = 1 << 18
"""How many requests may wait for the server before no more are read, and before it is an error."""

ANSWERS_LIMIT = 4 << 20
"""Bytes of early answers that may wait for the server's own, to be compared."""


class Conversation:
    """One client in the byte order of the facts. ``reader`` has read its setup, and nothing after.

    Feed it with ``receive_from_client`` and ``receive_from_server``; take what is to be sent from
    ``take_for_server`` and ``take_for_client``. ProtocolError from either ends it.
    """

    def __init__(self, reader: ClientReader, facts: ServerFacts) -> None:
        assert reader.order is facts.order
        self.counters = Counters()
        self.facts = facts
        self._learner = Learner(facts)
        self.learned = self._learner.learned
        """Questions about facts that the server had to be asked; to be taken and emptied."""
        self._comparison = Comparison(facts, self.counters)
        self.notes = self._comparison.notes
        self._order = facts.order.value
        self._client = reader
        self._server = ServerReader(facts.order, inspect_all=True)
        self._predictor: Optional[Predictor] = None
        self._pending: Deque[Pending] = deque()
        self._unanswered: Deque[Pending] = deque()
        self._unripe: Deque[Pending] = deque()  # those of them whose answer waits for the server
        self._unknown = 0
        self._for_server: List[Piece] = []
        self._run: List[bytes] = []  # requests that follow one another on the way to the server
        self._for_client: List[bytes] = []
        self._last_sent = 0
        self._last_seen = 0
        self._trip_end = 0
        self._early_sync = 0
        self._risky_told = 0
        self._answers_size = 0
        self._passing = 0  # bytes of a long message that the client still gets

    @property
    def may_read(self) -> bool:
        """Whether more may be read from the client now."""
        return self._predictor is not None and len(self._pending) < PENDING_FULL

    def brings_news(self) -> bool:
        """Tell whether the client may be waiting for what its latest requests bring.

        It is not while all its questions are answered and nothing new can cause an event.
        """
        risky = self._predictor.risky_sequence if self._predictor is not None else 0
        news = bool(self._unanswered) or risky > self._risky_told
        self._risky_told = risky
        return news

    def close(self) -> None:
        """The client is gone."""
        if self._predictor is not None:
            self._predictor.close()

    def take_for_server(self) -> List[Piece]:
        """Return what is to be sent to the server, in order."""
        self._end_run()
        pieces, self._for_server = self._for_server, []
        return pieces

    def _end_run(self) -> None:
        if self._run:
            self._for_server.append(Piece(b"".join(self._run), False))
            self._run.clear()

    def take_for_client(self) -> bytes:
        """Return what is to be sent to the client."""
        pieces, self._for_client = self._for_client, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take_looks(self) -> List[Look]:
        """Return what is to be looked at next to the server, now."""
        looks = self.facts.looks
        return looks.take_wanted() if looks.wanted else []

    # -- from the client --

    def receive_from_client(self, data: bytes) -> None:
        """Take bytes from the client. Raises ProtocolError."""
        self.counters.bytes_from_client += len(data)
        self._client.receive_data(data)
        if self._predictor is not None:
            self._read_requests(self._predictor)

    def _read_requests(self, predictor: Predictor) -> None:
        while True:
            event = self._client.next_event()
            if isinstance(event, Request):
                self._last_seen = event.sequence
                self._take_request(predictor, event)
            elif isinstance(event, Raw):
                self._run.append(event.data)
                if self._client.sequence > self._last_seen:
                    self._last_seen = self._client.sequence
                    predictor.pass_unseen(self._last_seen)
            else:
                break
        self.counters.requests = self._client.sequence
        self._answer()

    def _take_request(self, predictor: Predictor, request: Request) -> None:
        opcode = request.opcode
        is_image = opcode == PUT_IMAGE and len(request.data) == request.size
        if is_image:
            self._end_run()
            self._for_server.append(Piece(request.data, True))
        else:
            self._run.append(request.data)
        if opcode == PUT_IMAGE:
            self.counters.images += 1
        opinion = predictor.consider(request)
        if opinion.replies is Replies.NONE:
            return
        if len(self._pending) >= PENDING_LIMIT:
            raise ProtocolError("too many unanswered requests")
        if opinion.answer is not None:
            size = len(opinion.answer)
            if self._unknown or self._answers_size + size > ANSWERS_LIMIT:
                opinion = opinion._replace(answer=None)
            else:
                self._answers_size += size
        pending = Pending(request.sequence, opcode, opinion, self.facts.generation)
        self._pending.append(pending)
        self._unanswered.append(pending)
        if opinion.after and opinion.answer is not None:
            self._unripe.append(pending)
        if opinion.replies is Replies.UNKNOWN:
            self._unknown += 1

    def _answer(self) -> None:
        """Give the client the answers that are known and next in turn."""
        while self._unanswered and not self._passing:
            pending = self._unanswered[0]
            answer = pending.opinion.answer
            if answer is None or (pending.opinion.after and not self._is_ripe(pending)):
                return
            if pending.opinion.after and pending.opcode == GET_INPUT_FOCUS:
                answer = self.facts.focus or answer
                pending.opinion = pending.opinion._replace(answer=answer)
            self._pass_first()
            pending.answered = True
            self.counters.answered_early += 1
            self.counters.replies += 1
            self._note_reply(pending, answer)
            if pending.opcode == GET_INPUT_FOCUS:
                self._early_sync = pending.sequence
            self._send(self._number(answer, pending.sequence), pending.sequence)

    def _is_ripe(self, pending: Pending) -> bool:
        """Tell whether an answer that had to wait for the server may be given now."""
        opinion = pending.opinion
        if self._predictor is None or opinion.after > self._predictor.confirmed:
            return False
        if pending.opcode == GET_INPUT_FOCUS and self.facts.focus is None:
            return False
        return opinion.kind not in self.facts.switched_off

    def _pass_first(self) -> None:
        """The client has what it was to get for the first request that was not answered."""
        gone = self._unanswered.popleft()
        if self._unripe and self._unripe[0] is gone:
            self._unripe.popleft()

    def _withdraw_unripe(self) -> None:
        """A request failed: what was to be said once it had not is the server's to say.

        A client that fails ten thousand times must not cost a walk over all that waits each time.
        """
        for pending in self._unripe:
            if pending.opinion.answer is not None:
                self._answers_size -= len(pending.opinion.answer)
                pending.opinion = pending.opinion._replace(answer=None)
        self._unripe.clear()

    def _number(self, message: bytes, sequence: int) -> bytes:
        number = struct.pack(self._order + "H", sequence & 0xFFFF)
        return b"".join((message[:2], number, message[4:]))

    def _send(self, message: bytes, sequence: int) -> None:
        self._for_client.append(message)
        self._last_sent = max(self._last_sent, sequence)

    def _note_reply(self, pending: Pending, reply: bytes) -> None:
        """Do what a reply means for the framing of what follows."""
        if self.facts.extensions.get(pending.opcode) == b"BIG-REQUESTS" and len(reply) >= 12:
            maximum = struct.unpack_from(self._order + "I", reply, 8)[0]
            self._client.enable_big_requests(maximum)

    # -- from the server --

    def receive_from_server(self, data: bytes) -> None:
        """Take bytes from the server. Raises ProtocolError."""
        self.counters.bytes_from_server += len(data)
        self._server.receive_data(data)
        while True:
            event = self._server.next_event()
            if isinstance(event, Message):
                self._take_message(event)
            elif isinstance(event, Raw):
                self._take_rest(event.data)
            elif isinstance(event, SetupReply):
                self._take_setup(event)
            else:
                break
        self._answer()

    def _take_setup(self, setup: SetupReply) -> None:
        self._for_client.append(setup.data)
        if setup.status is not SetupStatus.SUCCESS:
            return
        base, mask = parse_resource_range(setup.data, self.facts.order)
        self._predictor = Predictor(self.facts, base, mask)
        self._read_requests(self._predictor)

    def _take_rest(self, data: bytes) -> None:
        """Take what follows the beginning of a long message."""
        if not self._comparison.take_rest(data):
            self._for_client.append(data)
            self._passing = max(0, self._passing - len(data))

    def _take_message(self, message: Message) -> None:
        if message.code == REPLY:
            self._take_reply(message)
        elif message.code == ERROR:
            self._take_error(message)
        else:
            self._take_event(message)

    def _take_reply(self, message: Message) -> None:
        pending = self._find_pending(message.sequence & 0xFFFF)
        if pending is None:
            raise ProtocolError("a reply that no request can have")
        self._server.sequence = pending.sequence
        self._confirm(pending.sequence)
        if not self._may_have_more(pending, message):
            self._remove_first()
        assert self._predictor is not None
        self._learner.learn(pending, message, self._predictor.focus_sequence)
        if pending.answered:
            self._comparison.compare(pending, message)
            return
        reply = message.data
        if pending.opinion.alters is not None:
            reply = pending.opinion.alters(reply)
        more = bool(self._pending) and self._pending[0] is pending
        if not pending.begun and not (more and pending.opinion.replies is Replies.MANY):
            self._note_reply(pending, reply)
            self.counters.replies += 1
            self._count_wait(pending)
        if more:
            pending.begun = pending.opinion.replies is Replies.UNKNOWN
            self._send_long(reply, message, pending.sequence)
            return
        self._pass_first()
        self._send_long(reply, message, pending.sequence)
        self._answer()

    def _may_have_more(self, pending: Pending, message: Message) -> bool:
        """Tell whether another reply to the same request may follow.

        Nobody knows of an unknown one, until the server is past it; RECORD's come without end.
        """
        if pending.opinion.replies is Replies.MANY:
            return bool(message.data[1])
        return pending.opinion.replies is Replies.UNKNOWN

    def _send_long(self, data: bytes, message: Message, sequence: int) -> None:
        """Send the beginning of a message; nothing may come between it and the rest."""
        self._send(data, sequence)
        self._passing = message.size - len(message.data)

    def _remove_first(self) -> Pending:
        """Await the reply to the first request no longer."""
        gone = self._pending.popleft()
        if gone.opinion.replies is Replies.UNKNOWN:
            self._unknown -= 1
        if gone.opinion.answer is not None:
            self._answers_size -= len(gone.opinion.answer)
        return gone

    def _count_wait(self, pending: Pending) -> None:
        counted = self.counters.waited_for
        counted[pending.opcode] = counted.get(pending.opcode, 0) + 1
        if pending.sequence > self._trip_end:
            self.counters.trips += 1
            self._trip_end = self._client.sequence

    def _find_pending(self, number: int) -> Optional[Pending]:
        """Return the request that a reply with these lower 16 bits belongs to.

        The server answers in order, so it is the first that has one for sure, or one before it that
        may have one.
        """
        for pending in self._pending:
            if pending.sequence & 0xFFFF == number:
                self._drop_before(pending.sequence)
                return pending
            if pending.opinion.replies is not Replies.UNKNOWN:
                return None
        return None

    def _drop_before(self, sequence: int) -> None:
        """Forget requests below ``sequence``: had they a reply, it would have come."""
        while self._pending and self._pending[0].sequence < sequence:
            gone = self._remove_first()
            if self._unanswered and self._unanswered[0] is gone:
                self._pass_first()
                self._answer()

    def _confirm(self, sequence: int) -> None:
        assert self._predictor is not None  # messages follow a setup that succeeded
        self._predictor.confirm(sequence)

    def _take_error(self, message: Message) -> None:
        self.counters.errors += 1
        pending = self._find_failed(message)
        if pending is not None:
            message.sequence = self._server.sequence = pending.sequence
        sequence = message.sequence
        self._drop_before(sequence)
        self._confirm(sequence)
        assert self._predictor is not None
        self._predictor.fail(message.data)
        self._withdraw_unripe()
        if pending is not None:
            self._remove_first()
            if pending.answered:
                self._comparison.differs(pending, "the server's answer is an error")
                return
            self._pass_first()
            self._count_wait(pending)
        elif sequence < self._early_sync:
            self._comparison.switch_off(
                PredictionClass.SYNC,
                "request {} (opcode {}) failed".format(sequence, message.data[10]),
            )
        self._send_raised(message)
        self._answer()

    def _find_failed(self, message: Message) -> Optional[Pending]:
        """Return the request that an error answers, where it is one that awaits a reply.

        After 65,536 requests without a sign from the server the number alone doesn't tell.
        """
        number, opcode = message.sequence & 0xFFFF, message.data[10]
        for pending in self._pending:
            if pending.sequence & 0xFFFF == number and pending.opcode == opcode:
                return pending
            if pending.opinion.replies is not Replies.UNKNOWN:
                break
        return None

    def _take_event(self, message: Message) -> None:
        code = message.code & 0x7F
        if code != KEYMAP_NOTIFY:
            self._confirm(message.sequence - 1)
        assert self._predictor is not None
        self._predictor.take_event(message.sequence, message.code, message.data)
        if code in (FOCUS_IN, FOCUS_OUT):
            self.facts.focus = None
            self.facts.looks.renew(FOCUS)
        elif code == MAPPING_NOTIFY or self._is_keyboard_change(code, message.data):
            self.facts.forget(FactClass.KEYBOARD)
        elif self._is_screen_change(code):
            self.facts.forget(FactClass.SCREENS)
        elif code == PROPERTY_NOTIFY:
            # Who hears of it must not read the old value, and news of the new one may come later.
            root, atom = struct.unpack_from(self._order + "II", message.data, 4)
            if root in self.facts.screens:
                self.facts.roots.tell(root, atom, None)
        if code == KEYMAP_NOTIFY:
            self._for_client.append(message.data)
        else:
            self._send_raised(message)

    def _is_keyboard_change(self, code: int, data: bytes) -> bool:
        base = self.facts.event_bases.get(b"XKEYBOARD")
        return base is not None and code == base and data[1] not in XKB_STATE_EVENTS

    def _is_screen_change(self, code: int) -> bool:
        base = self.facts.event_bases.get(b"RANDR")
        return base is not None and code in (base, base + 1)

    def _send_raised(self, message: Message) -> None:
        data, sequence = message.data, message.sequence
        if sequence < self._last_sent:
            data, sequence = self._number(data, self._last_sent), self._last_sent
        self._send_long(data, message, sequence)


def build_conversation_reader() -> ClientReader:
    """Return a reader that sees what a conversation must see."""
    return ClientReader(INSPECTED, GATHERED)
