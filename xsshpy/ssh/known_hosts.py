"""known_hosts: which keys are on record for a host, and under which other names a key is known.

Reads the format of sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT" as OpenSSH's hostfile.c does: a line that
makes no sense is passed over, never an error, and a key is decoded only once its line's names
match. Lines are kept as bytes with their file and number, so that a message can point at them.
This module opens nothing: ``known_hosts_file`` does the reading and writing.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from xsshpy.ssh.keyblob import (
    HostCertificate,
    HostKey,
    KeyBlobError,
    is_certificate_algorithm,
    parse_public_key,
    plain_algorithm,
)
from xsshpy.ssh.patterns import match_host_list
from xsshpy.values import dataclass, field, replace

MAX_FILE_BYTES: Final = 64 << 20
"""A known_hosts file larger than this is passed over, and said to be (bytes)."""
MAX_LINE_BYTES: Final = 64 << 10
"""A longer line is a broken one; the longest sensible key takes a few kilobytes (bytes)."""

_HASH_MAGIC: Final = b"|1|"
_SALT_BYTES: Final = 20
_LONGEST_MARKER: Final = 31
_BLANK: Final = b" \t"


class Marker(Enum):
    """What a line says about its key."""

    NONE = ""
    CERT_AUTHORITY = "@cert-authority"
    REVOKED = "@revoked"


_MARKERS: Final = {b"@cert-authority": Marker.CERT_AUTHORITY, b"@revoked": Marker.REVOKED}


@dataclass(frozen=True)
class KnownLine:
    """One line that may hold a key: its names and key still as they stand in the file."""

    path: str
    number: int
    marker: Marker
    hosts: bytes
    key_text: bytes
    from_command: bool = False
    """Whether KnownHostsCommand printed the line: then no file can be put right."""

    def matches(self, name: str) -> bool:
        """Tell whether the line is about ``name`` (``host``, or ``[host]:port``)."""
        wanted = name.encode("utf-8", "surrogateescape")
        if self.hosts.startswith(b"|"):
            salt = _salt(self.hosts)
            return salt is not None and _hash_name(wanted, salt) == self.hosts
        return match_host_list(wanted, self.hosts)

    def key(self) -> HostKey | HostCertificate | None:
        """Decode the line's key; None where the line is broken."""
        try:
            return parse_key_text(self.key_text)
        except KeyBlobError:
            return None


@dataclass(frozen=True)
class Entry:
    """A key on record, and where."""

    path: str
    line: int
    marker: Marker
    key: HostKey | HostCertificate
    hosts: str
    """The names as the file has them, not sanitised; ``[hashed name]`` for a hashed one."""
    from_command: bool = False


@dataclass(frozen=True)
class KnownHosts:
    """The contents of the user's and the system's known_hosts files, in the order they are asked.

    ``user_files[0]`` is where new keys go; without user files nothing is recorded.
    ``unreadable`` are the files that exist and could not be read, each with the reason.
    """

    user_files: tuple[str, ...] = ()
    system_files: tuple[str, ...] = ()
    lines: tuple[KnownLine, ...] = field(default=(), repr=False)
    unreadable: tuple[tuple[str, str], ...] = ()

    def lookup(self, name: str) -> tuple[Entry, ...]:
        """Return every key on record for a name, CAs and revoked ones too, in file order."""
        return self._entries(lambda line: line.matches(name))

    def other_names(self, key: HostKey, name: str) -> tuple[Entry, ...]:
        """Return the unmarked lines that have this key and are not about ``name``."""
        # Decoding every key of a long file takes seconds; its text tells nearly as much.
        encoded = base64.b64encode(key.blob)
        entries = self._entries(
            lambda line: (
                line.marker is Marker.NONE
                and not line.from_command
                and encoded in line.key_text
                and not line.matches(name)
            )
        )
        return tuple(entry for entry in entries if entry.key == key)

    def with_command_output(self, output: bytes, tag: str) -> KnownHosts:
        """Return the same with the lines that KnownHostsCommand printed, last. ``tag`` names it."""
        lines = (replace(line, from_command=True) for line in parse_known_hosts(output, tag))
        return replace(self, lines=(*self.lines, *lines))

    def without_command_output(self) -> KnownHosts:
        """Return what the files alone hold."""
        return replace(self, lines=tuple(line for line in self.lines if not line.from_command))

    def _entries(self, wanted: Callable[[KnownLine], bool]) -> tuple[Entry, ...]:
        found = []
        for line in self.lines:
            if not wanted(line):
                continue
            key = line.key()
            if key is not None:
                hosts = _shown_hosts(line.hosts)
                place = (line.path, line.number, line.marker)
                found.append(Entry(*place, key, hosts, line.from_command))
        return tuple(found)


def parse_known_hosts(data: bytes, path: str) -> tuple[KnownLine, ...]:
    """Split a file's contents into the lines that may hold a key; others are left out."""
    lines = []
    for number, text in enumerate(data.split(b"\n"), start=1):
        if len(text) > MAX_LINE_BYTES:
            continue
        line = _parse_line(text.partition(b"\0")[0], path, number)
        if line is not None:
            lines.append(line)
    return tuple(lines)


def _parse_line(text: bytes, path: str, number: int) -> KnownLine | None:
    rest = text.lstrip(_BLANK)
    if not rest or rest.startswith(b"#"):
        return None
    marker = Marker.NONE
    if rest.startswith(b"@"):
        # As ssh does it: up to the first space, and only where there is none, up to a tab.
        separator = b" " if b" " in rest else b"\t"
        word, found, rest = rest.partition(separator)
        if not found or len(word) > _LONGEST_MARKER or word not in _MARKERS:
            return None
        marker = _MARKERS[word]
        rest = rest.lstrip(_BLANK)
        if rest.startswith(b"@"):
            return None
    hosts, key_text = _split_blank(rest)
    if not key_text or key_text.startswith(b"#"):
        return None
    if hosts.startswith(b"|") and _salt(hosts) is None:
        return None
    return KnownLine(path, number, marker, hosts, key_text)


def _split_blank(text: bytes) -> tuple[bytes, bytes]:
    """Return the first word and what follows the blanks after it."""
    end = min((at for at in (text.find(b" "), text.find(b"\t")) if at >= 0), default=len(text))
    return text[:end], text[end:].lstrip(_BLANK)


def parse_key_text(text: bytes) -> HostKey | HostCertificate:
    """Decode a key as a line has it: algorithm, base64, perhaps a comment. Raises KeyBlobError."""
    name, rest = _split_blank(text)
    encoded, _comment = _split_blank(rest)
    blob = _decode_base64(encoded)
    if blob is None:
        raise KeyBlobError("no base64")
    key = parse_public_key(blob)
    algorithm = name.decode("ascii", "replace")
    certified = isinstance(key, HostCertificate)
    if (
        plain_algorithm(algorithm) != key.plain.algorithm
        or is_certificate_algorithm(algorithm) != certified
    ):
        raise KeyBlobError("the key is of another kind")
    return key


def _decode_base64(text: bytes) -> bytes | None:
    """Decode strictly, but for white space inside, such as the CR of a file from elsewhere."""
    text = b"".join(text.split())
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if data and base64.b64encode(data) == text else None


def hash_host_name(name: str, salt: bytes) -> str:
    """Return the hashed form of a name, ``|1|salt|HMAC-SHA1``; ``salt`` is 20 random bytes."""
    return _hash_name(name.encode("utf-8", "surrogateescape"), salt).decode("ascii")


def _hash_name(name: bytes, salt: bytes) -> bytes:
    digest = hmac.digest(salt, name, "sha1")
    return _HASH_MAGIC + base64.b64encode(salt) + b"|" + base64.b64encode(digest)


def _salt(hosts: bytes) -> bytes | None:
    """Return the salt of a hashed name; None where it is broken."""
    if not hosts.startswith(_HASH_MAGIC):
        return None
    encoded, found, _digest = hosts[len(_HASH_MAGIC) :].partition(b"|")
    salt = _decode_base64(encoded) if found else None
    return salt if salt is not None and len(salt) == _SALT_BYTES else None


def _shown_hosts(hosts: bytes) -> str:
    if hosts.startswith(b"|"):
        return "[hashed name]"
    return hosts.decode("utf-8", "surrogateescape")


def format_entry(names: Sequence[str], key: HostKey, salts: Sequence[bytes] = ()) -> bytes:
    """Return the line that puts a key on record; with one salt for each name, hashed lines."""
    lowered = [name.lower() for name in names]
    if salts:
        hosts = [hash_host_name(name, salt) for name, salt in zip(lowered, salts, strict=True)]
    else:
        hosts = [",".join(lowered)]
    text = "".join(f"{host} {key.text()}\n" for host in hosts)
    return text.encode("utf-8", "surrogateescape")


def order_host_key_algorithms(
    configured: Sequence[str], entries: Sequence[Entry]
) -> tuple[str, ...]:
    """Put first the algorithms whose keys are among ``entries``; the rest keep their order.

    As OpenSSH's order_hostkeyalgs: where the favourite's key is on record nothing moves, and
    where a CA is, certificates come first. Otherwise a server that is known by its RSA key would
    show an Ed25519 one, and look like another host.
    """
    revoked = {entry.key.plain for entry in entries if entry.marker is Marker.REVOKED}
    first_keys: dict[str, HostKey] = {}
    for entry in entries:
        if entry.marker is Marker.NONE and isinstance(entry.key, HostKey):
            first_keys.setdefault(entry.key.algorithm, entry.key)
    on_record = {kind for kind, key in first_keys.items() if key not in revoked}
    if configured and plain_algorithm(configured[0]) in on_record:
        return tuple(configured)
    has_ca = any(entry.marker is Marker.CERT_AUTHORITY for entry in entries)

    def is_preferred(algorithm: str) -> bool:
        if has_ca and is_certificate_algorithm(algorithm):
            return True
        return plain_algorithm(algorithm) in on_record

    preferred = [algorithm for algorithm in configured if is_preferred(algorithm)]
    return (*preferred, *(algorithm for algorithm in configured if algorithm not in preferred))
