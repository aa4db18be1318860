"""What the doctor finds: a verdict with its evidence and one remedy for each link of the chain.

Pure values. A check looks at one thing and gives an :class:`Opinion`; the examination makes it a
:class:`Finding`. No cookie, key or password is ever part of an evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from xsshpy.values import dataclass


class Verdict(Enum):
    """What a check comes to. SKIPPED: another check explains why this one could not look."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Opinion:
    """A check's own word: what it saw, and the one thing to do where something is wrong."""

    verdict: Verdict
    evidence: tuple[str, ...] = ()
    remedy: str = ""


def well(*evidence: str) -> Opinion:
    """Nothing is wrong."""
    return Opinion(Verdict.OK, evidence)


def warning(*evidence: str, remedy: str = "") -> Opinion:
    """Something is not as it should be, and plots come through all the same."""
    return Opinion(Verdict.WARNING, evidence, remedy)


def broken(*evidence: str, remedy: str = "") -> Opinion:
    """Nothing that depends on this can work."""
    return Opinion(Verdict.BROKEN, evidence, remedy)


@dataclass(frozen=True)
class Finding:
    """One line of the result.

    ``name`` is the check's, stable for programs; ``title`` is for people. ``because`` is the title
    of the check that explains a skipped one.
    """

    name: str
    title: str
    verdict: Verdict
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    because: str = ""


def find_cause(findings: Sequence[Finding]) -> Finding | None:
    """Return the first broken link: all that is behind it is skipped, or follows from it."""
    return next((each for each in findings if each.verdict is Verdict.BROKEN), None)
