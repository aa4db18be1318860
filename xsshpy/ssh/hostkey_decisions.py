"""What to do about a host key: the decisions there are, and how one is carried through.

``hostkeys`` decides and does nothing; here a decision is carried out, with the asking and the
writing handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Final

from xsshpy.ssh.hostkey_policy import Feature
from xsshpy.ssh.hostkey_texts import VERIFICATION_FAILED, Line, info_line
from xsshpy.ssh.keyblob import HostKey
from xsshpy.values import dataclass

_MAX_QUESTIONS: Final = 100
"""An askpass program that never gives a sensible answer is taken to mean no."""


@dataclass(frozen=True)
class Addition:
    """A key to put on record, and what to say about how that went."""

    path: str
    names: tuple[str, ...]
    key: HostKey
    hashed: bool
    added: Line
    failed: Line


@dataclass(frozen=True)
class Accept:
    """Go on. ``trusted``: what else the server says about its keys may be put on record.

    So it is where the key stands in a file of the user's own, or the user said yes: see
    UpdateHostKeys in ssh_config(5).
    """

    lines: tuple[Line, ...]
    trusted: bool


@dataclass(frozen=True)
class AcceptUntrusted:
    """Go on, but without ``disabled``: StrictHostKeyChecking=no, and a changed or revoked key."""

    lines: tuple[Line, ...]
    disabled: frozenset[Feature]


@dataclass(frozen=True)
class Refuse:
    """End the run. ``reason`` is the last thing to be said, by whoever ends it."""

    lines: tuple[Line, ...]
    reason: str = VERIFICATION_FAILED


@dataclass(frozen=True)
class Add:
    """Say ``lines``, put the key on record, say how it went, go on with ``then`` either way."""

    lines: tuple[Line, ...]
    addition: Addition
    then: Decision


@dataclass(frozen=True)
class Ask:
    """Say ``lines``, then ask ``prompt``, and ``again`` until the answer is one.

    ``fingerprint`` counts as a yes; it is empty where only yes and no do.
    """

    lines: tuple[Line, ...]
    prompt: str
    again: str
    fingerprint: str
    yes: Decision
    no: Decision


Decision = Accept | AcceptUntrusted | Add | Ask | Refuse
Settled = Accept | AcceptUntrusted | Refuse


class Answer(Enum):
    """What the user said."""

    YES = auto()
    NO = auto()
    AGAIN = auto()


def parse_host_key_answer(answer: str | None, fingerprint: str) -> Answer:
    """Read an answer as ssh does: its first word, yes and no in any case, the fingerprint exactly.

    Nothing (an empty line, or None for the end of input) is a no.
    """
    words = (answer or "").lstrip(" \t").replace("\t", " ").replace("\n", " ").split(" ", 1)
    word = words[0]
    if word == "" or word.lower() == "no":
        return Answer.NO
    if word.lower() == "yes" or (fingerprint and word == fingerprint):
        return Answer.YES
    return Answer.AGAIN


async def settle_host_key(
    decision: Decision,
    *,
    say: Callable[[Line], None],
    ask: Callable[[str], Awaitable[str | None]],
    record: Callable[[Addition], Awaitable[str | None]],
) -> Settled:
    """Carry a decision through and return how it ended. All has been said but a refusal's reason.

    ``ask`` shows a prompt and returns the answer, None where there is no one to ask. ``record``
    writes a key and returns None, or the reason why it could not.
    """
    while True:
        for line in decision.lines:
            say(line)
        if isinstance(decision, Add):
            reason = await record(decision.addition)
            say(decision.addition.added if reason is None else decision.addition.failed)
            if reason is not None:
                say(info_line(f"xssh: {decision.addition.path}: {reason}"))
            decision = decision.then
        elif isinstance(decision, Ask):
            agreed = await _ask_until_answered(decision, ask)
            decision = decision.yes if agreed else decision.no
        else:
            return decision


async def _ask_until_answered(question: Ask, ask: Callable[[str], Awaitable[str | None]]) -> bool:
    prompt = question.prompt
    for _attempt in range(_MAX_QUESTIONS):
        answer = parse_host_key_answer(await ask(prompt), question.fingerprint)
        if answer is not Answer.AGAIN:
            return answer is Answer.YES
        prompt = question.again
    return False
