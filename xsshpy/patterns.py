"""Patterns as ssh_config(5) PATTERNS describes them: ``*`` and ``?``. Pure.

Works on bytes, as ssh does, and in time proportional to pattern times name: a hostile file cannot
make it slow.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def match_pattern(name: bytes, pattern: bytes) -> bool:
    """Tell whether the whole of ``name`` matches one pattern of ``*``, ``?`` and plain bytes."""
    at = here = 0
    star = -1  # where the last * stands in the pattern, and how much of the name it has taken
    taken = 0
    while at < len(name):
        if here < len(pattern) and pattern[here] == 0x2A:
            star, taken = here, at
            here += 1
        elif here < len(pattern) and pattern[here] in (0x3F, name[at]):
            at += 1
            here += 1
        elif star >= 0:
            taken += 1
            at, here = taken, star + 1
        else:
            return False
    return not pattern[here:].strip(b"*")


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a name matches one of several patterns, as SendEnv's."""
    raw = name.encode("utf-8", "surrogateescape")
    return any(
        match_pattern(raw, pattern.encode("utf-8", "surrogateescape")) for pattern in patterns
    )
