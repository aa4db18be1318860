"""Xauthority files as xauth writes them: for the readers of xsshpy.x11.authority."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from xsshpy.x11.authority import AuthorityEntry


def encode_authority(entries: Iterable[AuthorityEntry]) -> bytes:
    """Return the file that holds ``entries``; struct.error for a field that does not fit."""
    out = bytearray()
    for entry in entries:
        out += struct.pack(">H", entry.family)
        for text in (entry.address, entry.number, entry.name, entry.data):
            out += struct.pack(">H", len(text)) + text
    return bytes(out)
