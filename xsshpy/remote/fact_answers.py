"""Answers that are facts about the server: extensions, atoms, colours, fonts, and what else the
tables of ``xrequests`` say.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. A client is told only what
the server would tell this client: some answers depend on what it asked before.

Follows the X Window System Protocol, version 11, §9 (QueryExtension, InternAtom, AllocColor, …).
"""

import struct
from typing import Dict, Optional, Tuple

from .facts import CLASS_OF_FACT, QUERY_PICTURE_FORMATS, PredictionClass, ServerFacts
from .follow_events import EventFollower
from .opinions import WAITS_RISKY, Certainty, Opinion
from .resources import Resources
from .xextensions import hide_extension_answer, hide_listed_extensions, parse_extension_query
from .xmessages import Request
from .xrequests import (
    CORE_FACTS,
    EXTENSION_FACTS,
    FACT_LIMIT,
    INTERN_ATOM,
    MUST_BE_ZERO,
    ONLY_TOLD,
    PER_CLIENT_FACTS,
    FactClass,
    Replies,
    canonicalise,
    canonicalise_core,
)

SUBPIXELS_SINCE = (0, 6)
"""RENDER's version from which on the picture formats are told with the order of subpixels."""

ABSENT = bytes((1,)) + bytes(31)
"""QueryExtension's reply for an extension that is not there."""


class FactAnswers:
    """Opinions about one client's questions for facts."""

    def __init__(
        self, facts: ServerFacts, resources: Resources, events: EventFollower, sure: Certainty
    ) -> None:
        self._facts = facts
        self._resources = resources
        self._events = events
        self._sure = sure
        self._order = facts.order.value
        self._int = struct.Struct(self._order + "I")
        self._short = struct.Struct(self._order + "H")
        self._versions: Dict[Tuple[bytes, int], bytes] = {}

    def core_fact(self, request: Request) -> Opinion:
        """Return the opinion about a core request whose reply may be a fact."""
        key = None
        if request.size == len(request.data) <= FACT_LIMIT:
            key = canonicalise_core(request.data, self._read_short)
        if key is None or not self._is_about_server(request):
            return WAITS_RISKY
        return self.fact(key, CORE_FACTS[request.opcode][0])

    def _read_short(self, data: bytes, position: int) -> int:
        value: int = self._short.unpack_from(data, position)[0]
        return value

    def _is_about_server(self, request: Request) -> bool:
        """Tell whether what is asked does not depend on the client's own resources."""
        opcode = request.opcode
        if opcode not in (14, 85, 92, 97):
            return True
        if len(request.data) < 8:
            return False
        identifier = self._int.unpack_from(request.data, 4)[0]
        if opcode == 85:  # elsewhere a colour takes a cell that the next one doesn't get
            return self._facts.is_true_colour(identifier)
        return identifier in (self._facts.colormaps if opcode == 92 else self._facts.screens)

    def fact(self, key: bytes, fact: FactClass) -> Opinion:
        """Return the opinion about a question, by its canonical form."""
        is_atom = key[0] == INTERN_ATOM
        found = self._facts.find_atom(key) if is_atom else self._facts.replies.get(key)
        if found is None and fact in ONLY_TOLD:
            return WAITS_RISKY
        if found is None:
            return Opinion(Replies.ONE, False, key=key, fact=fact)
        kind = CLASS_OF_FACT[found[0]]
        if not self._sure.may(kind):
            return Opinion(Replies.ONE, True, key=key, fact=fact)
        return Opinion(Replies.ONE, True, found[1], kind, key, fact)

    def query_extension(self, request: Request) -> Opinion:
        """Return the opinion about a QueryExtension."""
        name = parse_extension_query(request, self._facts.order)
        opinion = self.core_fact(request)
        if name not in self._facts.hidden:
            return opinion
        # The truth about it is nobody's to know: not kept, and not compared either.
        if opinion.key is None:  # an error, the server's to make
            return Opinion(Replies.ONE, False, alters=hide_extension_answer)
        kind = PredictionClass.FACTS
        return Opinion(Replies.ONE, True, ABSENT, kind, alters=hide_extension_answer)

    def list_extensions(self, request: Request) -> Opinion:
        """Return the opinion about a ListExtensions."""
        opinion = self.core_fact(request)
        answer = None if opinion.answer is None else self._hide_listed(opinion.answer)
        return opinion._replace(answer=answer, alters=self._hide_listed)

    def _hide_listed(self, reply: bytes) -> bytes:
        return hide_listed_extensions(reply, self._facts.order, self._facts.hidden)

    def find_extension_key(self, question: Tuple[bytes, int], request: Request) -> Optional[bytes]:
        """Return the canonical form of an extension's request, where its reply is a fact."""
        known = EXTENSION_FACTS.get(question)
        if known is None or not request.size == len(request.data) <= FACT_LIMIT:
            return None
        name, minor = question
        if minor == 0:
            self._events.introduce(name, request)
        elif not self._events.may_ask(name):
            return None
        key = canonicalise(request.data, known[1])
        first, last = MUST_BE_ZERO.get(question, (0, 0))
        if key is None or any(key[first:last]):
            return None
        return key if self._is_first(question, key) else None

    def _is_first(self, question: Tuple[bytes, int], key: bytes) -> bool:
        """Tell whether a client has not asked this otherwise before, where that binds it."""
        if question in PER_CLIENT_FACTS:
            if len(key) == PER_CLIENT_FACTS[question]:
                known = self._versions.setdefault(question, key)
                self._versions[question] = key if known == key else b""
                return known == key
            return False
        if question == (b"RENDER", QUERY_PICTURE_FORMATS):
            version = self._versions.get((b"RENDER", 0), b"") or bytes(12)
            return struct.unpack_from(self._order + "II", version, 4) >= SUBPIXELS_SINCE
        return True

    def alloc_color(self, request: Request) -> Opinion:
        """Return the opinion about an AllocColor."""
        return self._sure.answer(PredictionClass.COLOURS, self._facts.answer_colour(request.data))

    def query_colors(self, request: Request) -> Opinion:
        """Return the opinion about a QueryColors."""
        answer = None
        if len(request.data) == request.size:
            answer = self._facts.answer_colours(request.data)
        return self._sure.answer(PredictionClass.COLOURS, answer)

    def query_font(self, request: Request) -> Opinion:
        """Return the opinion about a QueryFont."""
        if request.size != 8:
            return WAITS_RISKY
        name = self._resources.fonts.get(self._int.unpack_from(request.data, 4)[0])
        answer = self._facts.fonts.get(name) if name is not None else None
        if answer is not None:
            return self._sure.answer(PredictionClass.FONTS, answer)
        return Opinion(Replies.ONE, False, font=name)
