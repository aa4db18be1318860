"""A key's fingerprint as a picture, which people recognise where they don't read 43 characters.

The drunken bishop of OpenSSH's VisualHostKey and ``ssh-keygen -lv``: two bits of the fingerprint
at a time move it one square diagonally, along the walls where there is one, and each square shows
how often it was there. Pure.
"""

from __future__ import annotations

from typing import Final

from xsshpy.ssh.keyblob import HostCertificate, HostKey

_WIDTH: Final = 17
_HEIGHT: Final = 9
_MARKS: Final = " .o+=*BOX@%&#/^"
_START: Final = "S"
_END: Final = "E"
_TITLE_LIMIT: Final = _WIDTH - 1
"""What OpenSSH cuts a title to, in characters."""


def draw_randomart(key: HostKey | HostCertificate, hash_name: str = "sha256") -> str:
    """Draw a key's fingerprint: eleven lines, joined by newlines. A certificate shows its key's."""
    digest = key.plain.digest(hash_name)
    visits, end = _walk(digest)
    rows = [_border(_title(key))]
    for y in range(_HEIGHT):
        marks = (_mark(visits, (x, y), end) for x in range(_WIDTH))
        rows.append(f"|{''.join(marks)}|")
    rows.append(_border(f"[{'MD5' if hash_name.lower() == 'md5' else 'SHA256'}]"))
    return "\n".join(rows)


def _walk(digest: bytes) -> tuple[dict[tuple[int, int], int], tuple[int, int]]:
    """Return how often each square was walked on, and where the walk ended."""
    x, y = _WIDTH // 2, _HEIGHT // 2
    visits: dict[tuple[int, int], int] = {}
    for byte in digest:
        for shift in (0, 2, 4, 6):
            move = byte >> shift
            x = min(max(x + (1 if move & 1 else -1), 0), _WIDTH - 1)
            y = min(max(y + (1 if move & 2 else -1), 0), _HEIGHT - 1)
            visits[x, y] = visits.get((x, y), 0) + 1
    return visits, (x, y)


def _mark(visits: dict[tuple[int, int], int], at: tuple[int, int], end: tuple[int, int]) -> str:
    if at == end:
        return _END
    if at == (_WIDTH // 2, _HEIGHT // 2):
        return _START
    return _MARKS[min(visits.get(at, 0), len(_MARKS) - 1)]


def _title(key: HostKey | HostCertificate) -> str:
    title = f"[{key.display_name} {key.plain.bits}]"
    if len(title) > _WIDTH:
        title = f"[{key.display_name}]"
    return title[:_TITLE_LIMIT]


def _border(text: str) -> str:
    before = (_WIDTH - len(text)) // 2
    return f"+{'-' * before}{text}{'-' * (_WIDTH - before - len(text))}+"
