"""What is known of one request: the opinion about it, and what opinions can rely on.

Rules kept here: sans-IO; Python 3.6 and later, standard library only.

Follows the X Window System Protocol, version 11, §9 (GrabServer).
"""

from typing import Callable, NamedTuple, Optional

from .facts import COHERENT, PredictionClass, ServerFacts
from .xrequests import FactClass, Replies


class Opinion(NamedTuple):
    """What is known of one request.

    ``answer`` is its reply, with any sequence number, where it is known now; ``kind`` the class
    that the answer belongs to. It holds once the server is past request number ``after`` without an
    error. ``key`` and ``fact`` are set where the server's reply is worth keeping. ``excuse`` tells,
    once that is there, whether an event before it said that others changed what was told.
    ``alters`` is how the server's own reply must be changed before the client sees it.
    """

    replies: Replies
    safe: bool
    answer: Optional[bytes] = None
    kind: Optional[PredictionClass] = None
    key: Optional[bytes] = None
    fact: Optional[FactClass] = None
    alters: Optional[Callable[[bytes], bytes]] = None
    font: Optional[bytes] = None
    after: int = 0
    excuse: Optional[Callable[[], bool]] = None


VOID_SAFE = Opinion(Replies.NONE, True)
VOID_RISKY = Opinion(Replies.NONE, False)
UNKNOWN = Opinion(Replies.UNKNOWN, False)
WAITS_RISKY = Opinion(Replies.ONE, False)
WAITS_SAFE = Opinion(Replies.ONE, True)


class Certainty:
    """What one client's opinions can rely on: what the server has carried out, and whether the
    client holds it to itself.
    """

    def __init__(self, facts: ServerFacts) -> None:
        self._facts = facts
        self.confirmed = 0
        """The last request that the server surely carried out, with all that came of it."""
        self.grabbed = False
        """Whether the client grabbed the server: nothing is known then that others may change."""

    def may(self, kind: PredictionClass) -> bool:
        """Tell whether answers of a class may be given now."""
        if kind in self._facts.switched_off:
            return False
        return not (self.grabbed and kind in COHERENT)

    def answer(self, kind: PredictionClass, answer: Optional[bytes]) -> Opinion:
        """Return the opinion on a request that can't fail, and may have a known answer."""
        if answer is None or not self.may(kind):
            return WAITS_SAFE if answer is not None else WAITS_RISKY
        return Opinion(Replies.ONE, True, answer, kind)
