"""Compares what one client was told early with what the server says.

A difference is a misprediction: it is counted, and its class of answers is switched off for
everybody. Where others may have acted between answer and question it is stale: counted apart.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. Long replies are compared as
they come.

Follows the X Window System Protocol, version 11, §9 (GetWindowAttributes, GetInputFocus).
"""

from typing import List, Optional

from .counters import Counters
from .facts import PredictionClass, ServerFacts
from .learning import GET_WINDOW_ATTRIBUTES, Pending
from .predict import GET_INPUT_FOCUS
from .xmessages import Message
from .xrequests import FactClass

OTHERS_PARTS = ((25, 26), (32, 36))
"""What other clients decide of a window's attributes: whether its colormap is installed, and the
events that anybody selected."""

_NOTES = 32
"""Most notes that are kept for the log."""


class _Expected:
    """The rest of a long reply that was given already: ``answer`` from ``position`` on."""

    __slots__ = ("answer", "left", "pending", "position", "same")

    def __init__(self, pending: Pending, answer: bytes, position: int, left: int) -> None:
        self.pending = pending
        self.answer = answer
        self.position = position
        self.left = left
        self.same = True


class Comparison:
    """The comparisons of one conversation. ``notes`` say what was wrong, for the log."""

    def __init__(self, facts: ServerFacts, counters: Counters) -> None:
        self._facts = facts
        self._counters = counters
        self._expected: Optional[_Expected] = None
        self.notes: List[str] = []

    def take_rest(self, data: bytes) -> bool:
        """Take what follows the beginning of a long message; tell whether it is compared here."""
        expected = self._expected
        if expected is None:
            return False
        end = expected.position + len(data)
        expected.same = expected.same and data == expected.answer[expected.position : end]
        expected.position = end
        expected.left -= len(data)
        if expected.left <= 0:
            self._expected = None
            if not expected.same:
                self.differs(expected.pending)
        return True

    def compare(self, pending: Pending, message: Message) -> None:
        """Compare what was answered early with the server's reply, as far as that is here."""
        answer, real = pending.opinion.answer, message.data
        assert answer is not None
        if pending.opinion.alters is not None:
            real = pending.opinion.alters(real)
        rest = message.size - len(message.data)
        if rest:
            self._expected = _Expected(pending, answer, len(real), rest)
            answer = answer[: len(real)]
        if real[1] == answer[1] and real[4:] == answer[4:]:
            return
        if self._is_stale(pending, answer, real):
            # It changed between the answer and the question's arrival.
            self._counters.stale += 1
        elif self._expected is not None:
            self._expected.same = False
        else:
            self.differs(pending)

    def differs(self, pending: Pending, how: str = "the server's reply differs") -> None:
        """The server says something else: it was wrongly said, or others acted meanwhile."""
        if pending.opinion.kind is PredictionClass.INPUT:
            self._counters.stale += 1
            self._facts.forget(FactClass.INPUT)
        elif pending.opinion.kind is PredictionClass.SURROUNDINGS:
            self._counters.stale += 1
            self._facts.looks.renew_all()
        else:
            self._mispredicted(pending, how)

    def _is_stale(self, pending: Pending, answer: bytes, real: bytes) -> bool:
        """Tell whether a difference lies only in what others decide, and nobody looks at."""
        if pending.opcode == GET_INPUT_FOCUS:
            return True
        if pending.opinion.excuse is not None:
            return pending.opinion.excuse()
        if pending.opcode != GET_WINDOW_ATTRIBUTES or not len(real) == len(answer) == 44:
            return False
        alike = bytearray(answer)
        for first, last in ((2, 4), *OTHERS_PARTS):
            alike[first:last] = real[first:last]
        return alike == real

    def _mispredicted(self, pending: Pending, how: str) -> None:
        kind = pending.opinion.kind
        assert kind is not None  # an answer is of some class
        self.switch_off(
            kind, "request {} (opcode {}): {}".format(pending.sequence, pending.opcode, how)
        )

    def switch_off(self, kind: PredictionClass, why: str) -> None:
        """Count a wrong answer, and say nothing of its class any more."""
        counted = self._counters.mispredictions
        counted[kind] = counted.get(kind, 0) + 1
        self._facts.switched_off.add(kind)
        if len(self.notes) < _NOTES:
            self.notes.append("misprediction of {}: {}".format(kind.value, why))
