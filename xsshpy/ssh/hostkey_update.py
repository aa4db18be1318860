"""What a server says about its other host keys, and what becomes of known_hosts by it. Pure.

A server that is known by one key announces all of them (``hostkeys-00@openssh.com``, OpenSSH's
PROTOCOL, section 2.5). New ones are put on record once it has proved to have them, and those that
it has no more are taken out, so that a host can change its keys without anyone being warned.
ssh_config(5), UpdateHostKeys, and OpenSSH's clientloop.c say when nothing is touched: where a
person wrote the lines (patterns, long lists, markers), and where a key stands under other names.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Final

from xsshpy.console import LogLevel
from xsshpy.ssh.hostkey_policy import is_permitted
from xsshpy.ssh.hostkey_texts import Line, debug_line
from xsshpy.ssh.keyblob import HostKey, KeyBlobError, parse_public_key
from xsshpy.ssh.known_hosts import KnownLine, Marker, format_entry, parse_known_hosts
from xsshpy.values import dataclass

PROOF_REQUEST: Final = b"hostkeys-prove-00@openssh.com"

_MOST_KEYS: Final = 100
_SALT_BYTES: Final = 20


class AnnouncementError(ValueError):
    """The server's list makes no sense; the text says why, as OpenSSH does."""


@dataclass(frozen=True)
class HostSpec:
    """How the host is named on record; ``address`` only where CheckHostIP counts."""

    host: str
    address: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The host's name, and its address where that counts."""
        return (self.host,) if self.address is None else (self.host, self.address)

    def matched_by(self, line: KnownLine) -> frozenset[str]:
        """Return those of the names that the line is about."""
        return frozenset(name for name in self.names if line.matches(name))

    def __str__(self) -> str:
        """Return the names as messages show them."""
        return ",".join(self.names)


@dataclass(frozen=True)
class UpdatePlan:
    """What is to be done: ``new`` keys need a proof, ``obsolete`` ones go.

    ``offered`` are all that the server has and the settings allow. ``obstacle`` is why nothing is
    done, if so.
    """

    offered: tuple[HostKey, ...] = ()
    new: tuple[HostKey, ...] = ()
    obsolete: tuple[HostKey, ...] = ()
    obstacle: str = ""


def parse_announcement(payload: bytes, algorithms: Sequence[str]) -> tuple[HostKey, ...]:
    """Read the list of keys; certificates, unknown kinds and those not allowed are left out.

    Raises AnnouncementError for a list that is cut off, too long, or has a key twice.
    """
    keys: list[HostKey] = []
    at = 0
    while at < len(payload):
        end = at + 4 + int.from_bytes(payload[at : at + 4], "big")
        if end > len(payload) or at + 4 > len(payload):
            raise AnnouncementError("parse key: incomplete message")
        key = _parse_key(payload[at + 4 : end])
        at = end
        if key is None or not is_permitted(key, algorithms):
            continue
        if key in keys:
            raise AnnouncementError(f"received duplicated {key.algorithm} host key")
        keys.append(key)
        if len(keys) > _MOST_KEYS:
            raise AnnouncementError("received too many host keys")
    return tuple(keys)


def _parse_key(blob: bytes) -> HostKey | None:
    try:
        key = parse_public_key(blob)
    except KeyBlobError:
        return None
    return key if isinstance(key, HostKey) else None


def plan_update(
    offered: tuple[HostKey, ...], lines: Sequence[KnownLine], spec: HostSpec
) -> UpdatePlan:
    """Compare what the server has with ``lines``, those of the user's own files."""
    if not offered:
        return UpdatePlan(obstacle="server sent no hostkeys")
    known: set[HostKey] = set()
    obsolete: list[HostKey] = []
    obstacles: set[str] = set()
    others = []
    for line in lines:
        matched = spec.matched_by(line)
        if not matched:
            others.append(line)
            continue
        key = line.key()
        if key is None:
            continue
        problem = _why_not_touched(line, matched, spec)
        if problem:
            obstacles.add(problem)
        if problem in (_COMPLEX, _MARKED) or (problem and spec.host not in matched):
            continue
        if key in offered:
            known.add(key.plain)
        else:
            obsolete.append(key.plain)
    new = tuple(key for key in offered if key not in known)
    if not new and not obsolete:
        return UpdatePlan(offered, obstacle="no new or deprecated keys from server")
    if _has_any(others, offered):
        obstacles.add(_OTHER_NAME)
    if _has_any(others, obsolete):
        obstacles.add(_OBSOLETE_ELSEWHERE)
    first = next((text for text in _OBSTACLES if text in obstacles), "")
    return UpdatePlan(offered, new, tuple(dict.fromkeys(obsolete)), first)


_MARKED: Final = "a CA or revocation marker"
_COMPLEX: Final = "a list of host names or a pattern"
_OTHER_NAME: Final = "host key found matching a different name/address"
_OBSOLETE_ELSEWHERE: Final = "a key that the server has no more exists under other names"
_OBSTACLES: Final = (_MARKED, _COMPLEX, _OTHER_NAME, _OBSOLETE_ELSEWHERE)


def _why_not_touched(line: KnownLine, matched: frozenset[str], spec: HostSpec) -> str:
    """Say why a line about this host shows that its records are not for us to change."""
    if line.marker is not Marker.NONE:
        return _MARKED
    if spec.address is not None and b"," in line.hosts and len(matched) < len(spec.names):
        return _OTHER_NAME
    if b"*" in line.hosts or b"?" in line.hosts or line.hosts.count(b",") > 1:
        return _COMPLEX
    return ""


def _has_any(lines: Sequence[KnownLine], keys: Sequence[HostKey]) -> bool:
    # Decoding every key of a long file takes seconds; its text tells nearly as much.
    texts = [base64.b64encode(key.blob) for key in keys]
    return any(
        any(text in line.key_text for text in texts) and line.key() in keys for line in lines
    )


@dataclass(frozen=True)
class Rewritten:
    """A file's new contents, and what to say about it (at VERBOSE); ``changed`` or as it was."""

    data: bytes
    lines: tuple[Line, ...]
    changed: bool


def rewrite_known_hosts(
    data: bytes,
    path: str,
    spec: HostSpec,
    keys: Sequence[HostKey],
    *,
    make_salt: Callable[[int], bytes] | None,
    hash_name: str = "sha256",
) -> Rewritten:
    """Take the host's other keys out of a file's contents, and add those of ``keys`` it lacks.

    ``make_salt`` returns that many random bytes; without it names are not hashed. A line with one
    of the keys stays as it is, as does every line about other hosts or with a marker.
    """
    parsed = {line.number: line for line in parse_known_hosts(data, path)}
    kept: list[bytes] = []
    said: list[Line] = []
    have: dict[HostKey, frozenset[str]] = {}
    for number, text in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), start=1):
        line = parsed.get(number)
        matched = spec.matched_by(line) if line is not None else frozenset[str]()
        key = line.key() if line is not None and matched and line.marker is Marker.NONE else None
        if key is None or key in keys:
            kept.append(text + b"\n")
            if isinstance(key, HostKey):
                have[key] = have.get(key, frozenset()) | matched
        else:
            removed = f"{path}:{number}: Removed {key.display_name} key for host {spec.host}"
            said.append(Line(LogLevel.VERBOSE, removed))
    for key in keys:
        missing = [name for name in spec.names if name not in have.get(key, ())]
        if missing:
            salts = [make_salt(_SALT_BYTES) for _ in missing] if make_salt else []
            kept.append(format_entry(missing, key, salts))
            said.append(_describe_addition(key, missing, spec, path, hash_name))
    return Rewritten(b"".join(kept), tuple(said), bool(said))


def _describe_addition(
    key: HostKey, missing: Sequence[str], spec: HostSpec, path: str, hash_name: str
) -> Line:
    what = "Adding new key"
    if len(missing) < len(spec.names):
        part = "hostname" if missing[0] == spec.host else "address"
        what = f"Fixing match ({part})"
    fingerprint = key.fingerprint(hash_name)
    return Line(LogLevel.VERBOSE, f"{what} for {spec} to {path}: {key.algorithm} {fingerprint}")


def describe_update(
    learned: Sequence[HostKey], obsolete: Sequence[HostKey], hash_name: str, *, asking: bool
) -> tuple[Line, ...]:
    """Say which keys come and go: at VERBOSE, or at INFO before the user is asked."""
    level = LogLevel.INFO if asking else LogLevel.VERBOSE
    texts = [
        *(_name(key, "Learned new hostkey", hash_name) for key in learned),
        *(_name(key, "Deprecating obsolete hostkey", hash_name) for key in obsolete),
    ]
    if asking and texts:
        texts[:0] = [
            "The server has updated its host keys.",
            "These changes were verified by the server's existing trusted key.",
        ]
    return tuple(Line(level, text) for text in texts)


def _name(key: HostKey, what: str, hash_name: str) -> str:
    return f"{what}: {key.display_name} {key.fingerprint(hash_name)}"


def plan_lines(plan: UpdatePlan) -> tuple[Line, ...]:
    """Say at -v why nothing is done, if nothing is."""
    if not plan.obstacle:
        return ()
    touched = plan.new or plan.obsolete
    end = ", skipping UserKnownHostsFile update" if touched else ""
    return (debug_line(f"client_input_hostkeys: {plan.obstacle}{end}"),)
