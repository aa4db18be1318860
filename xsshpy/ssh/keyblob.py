"""Host keys as bytes: what lies in a public key or certificate blob, and what OpenSSH calls it.

A key is its algorithm's name and its blob. Nothing here verifies a signature and nothing imports
asyncssh: a host certificate is judged by what it says (who it is for, until when), after whoever
decoded it found its signature good.

Follows RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4 and OpenSSH's PROTOCOL.certkeys. Hostile input is
expected: only ``KeyBlobError`` comes out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Final

from xsshpy.patterns import match_pattern
from xsshpy.values import dataclass

_CERTIFICATE_SUFFIX: Final = "-cert-v01@openssh.com"
_MINIMUM_RSA_BITS: Final = 1024
_MAXIMUM_RSA_BITS: Final = 16384
_MAXIMUM_PRINCIPALS: Final = 256
_HOST_CERTIFICATE: Final = 2
_USER_CERTIFICATE: Final = 1

_DISPLAY_NAMES: Final = {
    "ssh-ed25519": "ED25519",
    "ssh-rsa": "RSA",
    "ssh-dss": "DSA",
    "ecdsa-sha2-nistp256": "ECDSA",
    "ecdsa-sha2-nistp384": "ECDSA",
    "ecdsa-sha2-nistp521": "ECDSA",
    "sk-ssh-ed25519@openssh.com": "ED25519-SK",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA-SK",
}
_SIGNATURE_ONLY_NAMES: Final = {
    "rsa-sha2-256": "ssh-rsa",
    "rsa-sha2-512": "ssh-rsa",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com": "sk-ecdsa-sha2-nistp256@openssh.com",
}
# A certificate's name is its key's name with a suffix, before the domain where there is one.
_CERTIFICATE_NAMES: Final = {
    name.removesuffix("@openssh.com") + _CERTIFICATE_SUFFIX: plain
    for name, plain in [
        *((name, name) for name in _DISPLAY_NAMES),
        ("rsa-sha2-256", "ssh-rsa"),
        ("rsa-sha2-512", "ssh-rsa"),
    ]
}
# The length of an uncompressed point (RFC 5656 §3.1), by the curve's name.
_POINT_LENGTHS: Final = {b"nistp256": 65, b"nistp384": 97, b"nistp521": 133}

_EDWARDS_BITS: Final = 256
_CURVE_BITS: Final = {"ecdsa-sha2-nistp384": 384, "ecdsa-sha2-nistp521": 521}


class KeyBlobError(ValueError):
    """The bytes are no public key or certificate of a known kind."""


class KeyLengthError(KeyBlobError):
    """The key is too short to be used."""


def plain_algorithm(name: str) -> str | None:
    """Return the name in the blob of the keys that ``name`` signs with; None if it is unknown.

    ``rsa-sha2-512`` and ``rsa-sha2-512-cert-v01@openssh.com`` both sign with an ``ssh-rsa`` key.
    """
    if name in _DISPLAY_NAMES:
        return name
    return _SIGNATURE_ONLY_NAMES.get(name) or _CERTIFICATE_NAMES.get(name)


def is_certificate_algorithm(name: str) -> bool:
    """Tell whether a host that proves itself with ``name`` shows a certificate."""
    return name in _CERTIFICATE_NAMES


@dataclass(frozen=True)
class HostKey:
    """A plain public key: ``algorithm`` is the name inside ``blob`` (``ssh-rsa`` for every RSA)."""

    algorithm: str
    blob: bytes

    @property
    def display_name(self) -> str:
        """The key's type as OpenSSH prints it, such as ``ED25519``."""
        return _DISPLAY_NAMES.get(self.algorithm, "unknown")

    @property
    def plain(self) -> HostKey:
        """The key itself; what it is inside, for a certificate."""
        return self

    @property
    def rsa_bits(self) -> int:
        """The size of an RSA key's modulus in bits; 0 for other keys."""
        return self.bits if self.algorithm == "ssh-rsa" else 0

    @property
    def bits(self) -> int:
        """The key's size in bits, as ssh-keygen -l counts them."""
        reader = _Reader(self.blob)
        reader.string()
        if self.algorithm == "ssh-rsa":
            reader.string()  # the exponent
        elif self.algorithm != "ssh-dss":
            return _CURVE_BITS.get(self.algorithm, _EDWARDS_BITS)
        return int.from_bytes(reader.string(), "big").bit_length()

    def digest(self, hash_name: str = "sha256") -> bytes:
        """Return the hash of the key's blob: ``md5`` or ``sha256``, in any case."""
        if hash_name.lower() == "md5":
            return hashlib.md5(self.blob, usedforsecurity=False).digest()
        return hashlib.sha256(self.blob).digest()

    def fingerprint(self, hash_name: str = "sha256") -> str:
        """Return ``SHA256:…`` (base64 without padding) or ``MD5:aa:bb:…``, as ssh-keygen -l."""
        digest = self.digest(hash_name)
        if hash_name.lower() == "md5":
            return "MD5:" + digest.hex(":")
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    def text(self) -> str:
        """Return the key as a line of a key file has it: algorithm and base64."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode('ascii')}"


@dataclass(frozen=True)
class HostCertificate:
    """An OpenSSH certificate and what it claims. Its signature is not verified here.

    ``valid_after`` and ``valid_before`` are seconds since the epoch; ``kind`` is 2 for a host's.
    """

    algorithm: str
    key: HostKey
    ca: HostKey
    kind: int
    key_id: str
    serial: int
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    has_critical_options: bool
    signature_algorithm: str

    @property
    def display_name(self) -> str:
        """The certificate's type as OpenSSH prints it, such as ``ED25519-CERT``."""
        return self.key.display_name + "-CERT"

    @property
    def plain(self) -> HostKey:
        """The key that the certificate is for."""
        return self.key


def certificate_problem(
    certificate: HostCertificate,
    name: str,
    now: float,
    ca_signature_algorithms: Sequence[str] = (),
) -> str:
    """Return why the certificate does not prove that the host is ``name``, in OpenSSH's words.

    The answer is empty where it does. ``now`` is in seconds since the epoch; ``name`` is the
    HostKeyAlias or the host's name, without a port. Principals may be patterns, as since
    OpenSSH 9.9. An empty ``ca_signature_algorithms`` allows every algorithm.
    """
    if certificate.kind != _HOST_CERTIFICATE:
        return "Certificate invalid: not a host certificate"
    if now < certificate.valid_after:
        return "Certificate invalid: not yet valid"
    if now >= certificate.valid_before:
        return "Certificate invalid: expired"
    if not certificate.principals:
        return "Certificate lacks principal list"
    wanted = name.encode("utf-8", "surrogateescape")
    if not any(
        match_pattern(wanted, principal.encode("utf-8", "surrogateescape"))
        for principal in certificate.principals
    ):
        return "Certificate invalid: name is not a listed principal"
    if certificate.has_critical_options:
        return "Certificate contains unsupported critical options"
    if ca_signature_algorithms and certificate.signature_algorithm not in ca_signature_algorithms:
        return "Certificate signed with disallowed algorithm"
    return ""


def parse_public_key(blob: bytes, *, certificates: bool = True) -> HostKey | HostCertificate:
    """Decode a public key blob, plain or certified; raise KeyBlobError for anything else.

    Without ``certificates`` a certificate is an error: a CA is a plain key. Lengths are checked as
    OpenSSH does (an RSA key below 1024 bits is no key); whether a point lies on its curve is not.
    """
    reader = _Reader(blob)
    algorithm = reader.text()
    if algorithm in _DISPLAY_NAMES:
        key = _read_plain_key(reader, algorithm)
        reader.finish()
        return key
    plain = _CERTIFICATE_NAMES.get(algorithm)
    if plain is None or not certificates:
        raise KeyBlobError("unknown key type")
    reader.string()  # the nonce
    return _read_certificate(reader, algorithm, _read_plain_key(reader, plain))


class _Reader:
    """Reads the fields of a blob in order (RFC 4251 §5)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise KeyBlobError("truncated key")
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        return self.take(self.number(4))

    def text(self) -> str:
        part = self.string()
        if b"\0" in part:
            raise KeyBlobError("NUL in a name")
        return part.decode("utf-8", "surrogateescape")

    def magnitude(self) -> bytes:
        """A non-negative mpint without its leading zeros."""
        part = self.string()
        if part[:1] >= b"\x80":
            raise KeyBlobError("negative number in a key")
        if len(part) > _MAXIMUM_RSA_BITS // 8 + 1:
            raise KeyBlobError("number too large in a key")
        return part.lstrip(b"\0")

    def at_end(self) -> bool:
        return self._at == len(self._data)

    def finish(self) -> None:
        if not self.at_end():
            raise KeyBlobError("bytes after the key")


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _mpint(magnitude: bytes) -> bytes:
    return _string(b"\0" + magnitude if magnitude[:1] >= b"\x80" else magnitude)


def _read_plain_key(reader: _Reader, algorithm: str) -> HostKey:
    """Read the key's own fields and put them together again, so that equal keys are equal."""
    if algorithm == "ssh-rsa":
        exponent, modulus = reader.magnitude(), reader.magnitude()
        if int.from_bytes(modulus, "big").bit_length() < _MINIMUM_RSA_BITS:
            raise KeyLengthError("RSA key too short")
        fields = _mpint(exponent) + _mpint(modulus)
    elif algorithm == "ssh-dss":
        fields = b"".join(_mpint(reader.magnitude()) for _ in range(4))
    elif algorithm in ("ssh-ed25519", "sk-ssh-ed25519@openssh.com"):
        public = reader.string()
        if len(public) != 32:
            raise KeyBlobError("Ed25519 key of a wrong length")
        fields = _string(public)
    else:
        fields = _read_ecdsa_fields(reader, algorithm)
    if algorithm.startswith("sk-"):
        fields += _string(reader.string())  # the application, part of the key's identity
    return HostKey(algorithm, _string(algorithm.encode("ascii")) + fields)


def _read_ecdsa_fields(reader: _Reader, algorithm: str) -> bytes:
    curve, point = reader.string(), reader.string()
    name = algorithm.removeprefix("sk-").removesuffix("@openssh.com")
    if curve.decode("ascii", "replace") != name.removeprefix("ecdsa-sha2-"):
        raise KeyBlobError("curve and key type differ")
    if point[:1] != b"\x04" or len(point) != _POINT_LENGTHS[curve]:
        raise KeyBlobError("ECDSA point of a wrong form")
    return _string(curve) + _string(point)


def _read_certificate(reader: _Reader, algorithm: str, key: HostKey) -> HostCertificate:
    serial = reader.number(8)
    kind = reader.number(4)
    if kind not in (_USER_CERTIFICATE, _HOST_CERTIFICATE):
        raise KeyBlobError("unknown certificate type")
    key_id = reader.text()
    names = _Reader(reader.string())
    principals = []
    while not names.at_end():
        principals.append(names.text())
        if len(principals) > _MAXIMUM_PRINCIPALS:
            raise KeyBlobError("too many principals")
    valid_after, valid_before = reader.number(8), reader.number(8)
    critical = reader.string()
    reader.string()  # extensions mean nothing for a host
    reader.string()  # reserved
    ca = parse_public_key(reader.string(), certificates=False)
    assert isinstance(ca, HostKey)
    signature = _Reader(reader.string())
    reader.finish()
    return HostCertificate(
        algorithm=algorithm,
        key=key,
        ca=ca,
        kind=kind,
        key_id=key_id,
        serial=serial,
        principals=tuple(principals),
        valid_after=valid_after,
        valid_before=valid_before,
        has_critical_options=bool(critical),
        signature_algorithm=signature.text(),
    )
