"""A key revocation list as ``ssh-keygen -k`` writes it: which keys and certificates it revokes.

Follows OpenSSH's PROTOCOL.krl, and its krl.c where that is stricter: what it does not understand
makes the whole list useless, because whoever skipped a part would accept keys that are revoked in
it. Signatures in the list are passed over, as by OpenSSH since 9.4: the list is a local file.
Pure; only ``KrlError`` comes out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from xsshpy.ssh.keyblob import HostCertificate, HostKey, KeyBlobError, parse_public_key
from xsshpy.values import dataclass, field

MAGIC: Final = b"SSHKRL\n\0"
"""What every such file begins with."""

_FORMAT_VERSION: Final = 1
_CERTIFICATES, _KEYS, _SHA1, _SIGNATURE, _SHA256, _EXTENSION = 1, 2, 3, 4, 5, 255
_SERIALS, _RANGE, _BITMAP, _KEY_IDS, _CERTIFICATE_EXTENSION = 0x20, 0x21, 0x22, 0x23, 0x39
_HASH_BYTES: Final = {_SHA1: 20, _SHA256: 32}
_BITMAP_BYTES: Final = 2048
_LAST_SERIAL: Final = (1 << 64) - 1
_INVALID: Final = "invalid format"


class KrlError(ValueError):
    """The list can't be used; the text is OpenSSH's for it."""


@dataclass(frozen=True)
class Bitmap:
    """Serial numbers as bits: bit N of ``bits`` stands for ``offset`` + N."""

    offset: int
    bits: int

    def __contains__(self, serial: int) -> bool:
        """Tell whether the serial number is revoked."""
        return serial >= self.offset and bool(self.bits >> (serial - self.offset) & 1)


@dataclass(frozen=True)
class RevokedCertificates:
    """Certificates of one CA, or of every CA where ``ca`` is None."""

    ca: HostKey | None
    serials: frozenset[int]
    ranges: tuple[tuple[int, int], ...]
    bitmaps: tuple[Bitmap, ...]
    key_ids: frozenset[str]

    def revokes(self, certificate: HostCertificate) -> bool:
        """Tell whether the certificate is among them. Serial number 0 means that it has none."""
        if self.ca is not None and self.ca != certificate.ca:
            return False
        serial = certificate.serial
        return certificate.key_id in self.key_ids or (
            serial != 0
            and (
                serial in self.serials
                or any(low <= serial <= high for low, high in self.ranges)
                or any(serial in bitmap for bitmap in self.bitmaps)
            )
        )


@dataclass(frozen=True)
class Krl:
    """Everything that a list revokes: key blobs, their hashes, certificates."""

    keys: frozenset[bytes] = field(repr=False)
    sha1: frozenset[bytes] = field(repr=False)
    sha256: frozenset[bytes] = field(repr=False)
    certificates: tuple[RevokedCertificates, ...] = field(repr=False)

    def revokes(self, key: HostKey | HostCertificate) -> bool:
        """Tell whether the key is revoked; of a certificate also its key and its CA's."""
        if isinstance(key, HostKey):
            return self._revokes_plain(key)
        return (
            self._revokes_plain(key.key)
            or any(revoked.revokes(key) for revoked in self.certificates)
            or self._revokes_plain(key.ca)
        )

    def _revokes_plain(self, key: HostKey) -> bool:
        return (
            key.blob in self.keys
            or hashlib.sha1(key.blob, usedforsecurity=False).digest() in self.sha1
            or key.digest("sha256") in self.sha256
        )


def parse_krl(data: bytes) -> Krl:
    """Read a whole list. Raises KrlError for anything but a complete and understood one."""
    if not data.startswith(MAGIC):
        raise KrlError("KRL file has invalid magic number")
    reader = _Reader(data[len(MAGIC) :])
    if reader.number(4) != _FORMAT_VERSION:
        raise KrlError(_INVALID)
    reader.take(3 * 8)  # its version, its date, flags
    reader.string()  # reserved
    reader.text()  # the comment
    blobs: dict[int, set[bytes]] = {_KEYS: set(), _SHA1: set(), _SHA256: set()}
    certificates: list[RevokedCertificates] = []
    signed = False
    while not reader.at_end():
        kind, section = reader.number(1), _Reader(reader.string())
        if kind == _SIGNATURE:
            reader.string()
            signed = True
            continue
        if signed:
            raise KrlError(_INVALID)  # what no signature covers
        if kind == _CERTIFICATES:
            certificates.append(_read_certificates(section))
        elif kind in blobs:
            blobs[kind].update(_read_blobs(section, _HASH_BYTES.get(kind, 0)))
        else:
            _pass_over_extension(section, is_one=kind == _EXTENSION)
    return Krl(
        frozenset(blobs[_KEYS]),
        frozenset(blobs[_SHA1]),
        frozenset(blobs[_SHA256]),
        tuple(certificates),
    )


class _Reader:
    """Reads fields in order (RFC 4251 §5)."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise KrlError("incomplete message")
        part = bytes(self._data[self._at : end])
        self._at = end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        return self.take(self.number(4))

    def text(self) -> str:
        """A string without NUL, but for one at its end, which doesn't count."""
        part = self.string()
        part = part[:-1] if part.endswith(b"\0") else part
        if b"\0" in part:
            raise KrlError(_INVALID)
        return part.decode("utf-8", "surrogateescape")

    def at_end(self) -> bool:
        return self._at == len(self._data)

    def finish(self) -> None:
        if not self.at_end():
            raise KrlError(_INVALID)


def _read_blobs(section: _Reader, length: int) -> Iterator[bytes]:
    """Read strings to the section's end; with a ``length``, each has to have it."""
    while not section.at_end():
        blob = section.string()
        if length and len(blob) != length:
            raise KrlError(_INVALID)
        yield blob


def _pass_over_extension(section: _Reader, *, is_one: bool) -> None:
    """Leave out what was added to the format later and is not said to be critical."""
    if not is_one:
        raise KrlError(_INVALID)
    section.text()
    is_critical = section.number(1)
    section.string()
    section.finish()
    if is_critical:
        raise KrlError("requested feature not supported")


def _read_certificates(section: _Reader) -> RevokedCertificates:
    blob = section.string()
    section.string()  # reserved
    ca = _read_ca(blob) if blob else None
    serials: set[int] = set()
    ranges: list[tuple[int, int]] = []
    bitmaps: list[Bitmap] = []
    key_ids: set[str] = set()
    while not section.at_end():
        kind, part = section.number(1), _Reader(section.string())
        if kind == _SERIALS:
            while not part.at_end():
                serials.add(_checked_serial(part.number(8)))
        elif kind == _RANGE:
            low, high = _checked_serial(part.number(8)), part.number(8)
            if low > high:
                raise KrlError("invalid argument")
            ranges.append((low, high))
        elif kind == _BITMAP:
            bitmaps.append(_read_bitmap(part))
        elif kind == _KEY_IDS:
            while not part.at_end():
                key_ids.add(part.text())
        else:
            _pass_over_extension(part, is_one=kind == _CERTIFICATE_EXTENSION)
        part.finish()
    return RevokedCertificates(
        ca, frozenset(serials), tuple(ranges), tuple(bitmaps), frozenset(key_ids)
    )


def _read_ca(blob: bytes) -> HostKey:
    try:
        key = parse_public_key(blob, certificates=False)
    except KeyBlobError:
        raise KrlError(_INVALID) from None
    assert isinstance(key, HostKey)
    return key


def _checked_serial(serial: int) -> int:
    if serial == 0:
        raise KrlError("invalid argument")
    return serial


def _read_bitmap(part: _Reader) -> Bitmap:
    offset, number = part.number(8), part.string()
    if number[:1] >= b"\x80":
        raise KrlError("bignum is negative")
    number = number.lstrip(b"\0")
    if len(number) > _BITMAP_BYTES:
        raise KrlError("bignum is too large")
    bits = int.from_bytes(number, "big")
    if offset + bits.bit_length() - 1 > _LAST_SERIAL:
        raise KrlError(_INVALID)
    if bits & 1:
        _checked_serial(offset)
    return Bitmap(offset, bits)
