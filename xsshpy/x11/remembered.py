"""Which hosts ran the agent, and which could not: remembered in the user's cache folder.

A host that ran it gets its modules at once the next time, which saves a round trip; one where it
cannot run is not asked again for a day. The file names no host: it has digests.

Rules kept here: a hint, never more. Whatever is wrong with the file costs a round trip at most.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from xsshpy.x11.cache import cache_folder, read_own_file, write_own_file

YES_LIFETIME = 90 * 86400
NO_LIFETIME = 86400
"""How long each is believed (seconds)."""
HOST_LIMIT = 500
FILE_LIMIT = 1 << 18
LATEST = 1e12
"""No time is later (seconds); a file can hold any number."""


def hosts_path(environ: Mapping[str, str]) -> Path:
    """Return where it is remembered."""
    return cache_folder(environ) / "x11-hosts.json"


def name_account(user: str, host: str, port: int) -> str:
    """Return what stands for an account in the file."""
    return hashlib.sha256(os.fsencode(f"{user}\0{host}\0{port}")).hexdigest()[:32]


def recall(account: str, environ: Mapping[str, str], now: float | None = None) -> bool | None:
    """Tell whether the agent ran at an account; None where nothing is known of late."""
    entry = _read(hosts_path(environ)).get(account)
    if entry is None:
        return None
    ran, when = entry
    age = (time.time() if now is None else now) - when
    return ran if 0 <= age < (YES_LIFETIME if ran else NO_LIFETIME) else None


def remember(account: str, ran: bool, environ: Mapping[str, str], now: float | None = None) -> None:
    """Remember whether the agent ran. Nothing happens where that cannot be written."""
    path = hosts_path(environ)
    entries = _read(path)
    entries.pop(account, None)
    entries[account] = (ran, time.time() if now is None else now)
    text = json.dumps({name: list(entry) for name, entry in list(entries.items())[-HOST_LIMIT:]})
    write_own_file(path, text)


def _read(path: Path) -> dict[str, tuple[bool, float]]:
    try:
        parsed = json.loads(read_own_file(path, FILE_LIMIT))
    except (ValueError, RecursionError):
        return {}
    found = {}
    if isinstance(parsed, dict):
        for name, entry in parsed.items():
            match entry:
                case [bool(ran), int() | float() as when] if abs(when) < LATEST:
                    found[name] = (ran, float(when))
    return found
