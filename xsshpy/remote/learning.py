"""What is learned from the X server's replies to one client: facts for all, questions for later.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. What was asked before facts
of its class became stale is not learned.

Follows the X Window System Protocol, version 11, §9.
"""

import struct
from typing import List

from .facts import ServerFacts
from .opinions import Opinion
from .predict import GET_INPUT_FOCUS
from .records import Record, Told
from .xmessages import Message
from .xrequests import INTERN_ATOM, FactClass

GET_WINDOW_ATTRIBUTES = 3
LEARNED_LIMIT = 4096
"""Most questions that wait to be told to the other end."""


class Pending:
    """A request whose reply has not come from the server."""

    __slots__ = ("answered", "begun", "generation", "opcode", "opinion", "sequence")

    def __init__(self, sequence: int, opcode: int, opinion: Opinion, generation: int) -> None:
        self.sequence = sequence
        self.opcode = opcode
        self.opinion = opinion
        self.generation = generation
        self.answered = False
        self.begun = False  # a reply came, and more may follow


class Learner:
    """Learns for all clients of a server; ``learned`` is what it had to be asked, to be taken."""

    def __init__(self, facts: ServerFacts) -> None:
        self._facts = facts
        self._order = facts.order.value
        self.learned: List[Record] = []

    def learn(self, pending: Pending, message: Message, focus_moved: int) -> None:
        """Keep the server's reply where it is a fact that was not known.

        ``focus_moved`` is the number of the last request that may have moved the focus.
        """
        opinion, reply = pending.opinion, message.data
        if message.size != len(reply):
            return
        if pending.opcode == GET_INPUT_FOCUS:
            if pending.sequence > focus_moved:
                self._facts.focus = reply
        elif pending.opcode == GET_WINDOW_ATTRIBUTES and len(reply) == 44:
            colormap = struct.unpack_from(self._order + "I", reply, 28)[0]
            if colormap in self._facts.colormaps:
                self._facts.installed[colormap] = reply[25]
        elif opinion.key is not None and opinion.fact is not None:
            current = opinion.fact is FactClass.FOREVER
            if opinion.answer is None and (current or pending.generation == self._facts.generation):
                self._learn_fact(opinion.key, opinion.fact, reply)
        elif opinion.font is not None and self._facts.learn_font(opinion.font, reply):
            self._tell(Record(Told.FONT, 0, opinion.font, b""))

    def _tell(self, record: Record) -> None:
        """Note what the server had to be asked, for the next session to know beforehand."""
        if len(self.learned) < LEARNED_LIMIT:
            self.learned.append(record)

    def _learn_fact(self, key: bytes, fact: FactClass, reply: bytes) -> None:
        if key[0] == INTERN_ATOM:
            if not any(reply[8:12]):
                fact = FactClass.ABSENT
            else:
                key = key[:1] + b"\0" + key[2:]
        known = key in self._facts.replies
        # Anybody may make an atom that is absent, and only what the other end asked is renewed.
        if fact is not FactClass.ABSENT:
            self._facts.learn(key, fact, reply)
        if not known:
            self._tell(Record(Told.REPLY, fact.value, key, b""))
