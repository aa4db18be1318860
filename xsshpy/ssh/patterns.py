"""Host name patterns as ssh_config(5) PATTERNS describes them: ``*``, ``?``, ``!`` and commas.

Works on bytes, as ssh does, and in time proportional to pattern times name: a hostile file cannot
make it slow.
"""

from __future__ import annotations

from typing import Final

_LONGEST_PATTERN: Final = 1022
"""ssh gives up on a list in which one pattern is longer."""


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


def match_host_list(name: bytes, patterns: bytes) -> bool:
    """Tell whether a name matches a comma-separated list, whatever the case of its letters.

    A matching pattern with ``!`` before it decides against the name, wherever it stands.
    """
    name = name.lower()
    found = False
    for part in patterns.lower().split(b","):
        negated = part.startswith(b"!")
        pattern = part[1:] if negated else part
        if len(pattern) > _LONGEST_PATTERN:
            return False
        if match_pattern(name, pattern):
            if negated:
                return False
            found = True
    return found
