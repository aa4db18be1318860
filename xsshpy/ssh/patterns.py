"""Host name patterns as ssh_config(5) PATTERNS describes them: ``*``, ``?``, ``!`` and commas.

Works on bytes, as ssh does. See :mod:`xsshpy.patterns`.
"""

from __future__ import annotations

from xsshpy.patterns import match_pattern

_LONGEST_PATTERN = 1022
"""ssh gives up on a list in which one pattern is longer."""


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
