"""Key and certificate files: what they can offer, without a passphrase (sshconnect2.c, ssh.c).

Files that are missing or can't be read are passed over, as ssh does. Reading is bounded, and only
regular files are read.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.public_key import CERT_TYPE_USER, SSHOpenSSHCertificate

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.ssh.keyblob import KeyBlobError, parse_public_key
from xsshpy.tokens import home_directory
from xsshpy.values import dataclass

KEY_FILE_LIMIT = 1 << 20
"""Bytes of a key or certificate file that are read; OpenSSH has the same limit."""

_DEFAULT_NAMES = frozenset(
    {
        *("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"),
        *("id_mldsa44_ed25519", "id_xmss", "id_dsa"),  # of the newest ssh, and of older ones
    }
)
_Key = TypeVar("_Key")
_OPENSSH_MAGIC = b"openssh-key-v1\0"


@dataclass(frozen=True)
class Identity:
    """A key file, and what it can offer. ``public`` is None where only the private key can tell."""

    path: str
    public: asyncssh.SSHKey | None
    certificate: asyncssh.SSHCertificate | None = None

    @property
    def blob(self) -> bytes | None:
        """What the server is asked about: the public key or the certificate, in SSH's encoding."""
        if self.certificate is not None:
            return bytes(self.certificate.public_data)
        return None if self.public is None else bytes(self.public.public_data)


def read_key_file(path: str) -> bytes:
    """Read a key file, with a limit. Raises OSError; a FIFO or device is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(KEY_FILE_LIMIT)
    finally:
        os.close(descriptor)


def import_key(importer: Callable[..., _Key], data: bytes, *passphrase: str) -> _Key:
    """Let one of asyncssh's importers read a file. Raises KeyImportError, KeyEncryptionError.

    What a broken file makes asyncssh or cryptography raise besides is an import error too.
    """
    try:
        return importer(data, *passphrase)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        raise
    except Exception as error:
        raise asyncssh.KeyImportError(f"invalid format: {error}") from None


def parse_public_half(data: bytes) -> asyncssh.SSHKey | None:
    """Return the public key inside a private key file, where it can be read without passphrase."""
    if b"BEGIN OPENSSH PRIVATE KEY" in data:
        return _parse_openssh_public_half(data)
    try:
        if b"PRIVATE KEY" in data:
            return import_key(asyncssh.import_private_key, data).convert_to_public()
        return import_key(asyncssh.import_public_key, data)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError):
        return None


def _parse_openssh_public_half(data: bytes) -> asyncssh.SSHKey | None:
    """The OpenSSH format keeps the public key in clear beside the encrypted part (PROTOCOL.key)."""
    body = b"".join(line for line in data.splitlines() if line and not line.startswith(b"-"))
    try:
        packet = SSHPacket(base64.b64decode(body))
        if packet.get_bytes(len(_OPENSSH_MAGIC)) != _OPENSSH_MAGIC:
            return None
        for _ in ("cipher name", "key derivation name", "key derivation options"):
            packet.get_string()
        if packet.get_uint32() != 1:
            return None
        blob = packet.get_string()
        algorithm = SSHPacket(blob).get_string()
        text = b" ".join((algorithm, base64.b64encode(blob)))
        return import_key(asyncssh.import_public_key, text)
    except (PacketDecodeError, binascii.Error, asyncssh.KeyImportError, ValueError):
        return None


def is_default(path: str) -> bool:
    """Tell whether ssh looks for this key file even where nobody named it."""
    directory, name = os.path.split(path)
    return name in _DEFAULT_NAMES and directory == os.path.join(home_directory(), ".ssh")


def load_identities(settings: Settings, console: Console) -> tuple[list[Identity], list[Identity]]:
    """Read what the configured files can offer: IdentityFile's first, then CertificateFile's.

    ``KEY-cert.pub`` beside a key counts with it unless CertificateFile names others.
    """

    def is_usable(key: asyncssh.SSHKey | None, path: str, kind: str = "pubkey") -> bool:
        if key is None or not is_too_small(key, settings):
            return True
        console.error(f'load {kind} "{path}": Invalid key length')
        return False

    certificates = [
        Identity(path, certificate.key, certificate)
        for path in settings.certificate_files
        for certificate in _read_certificates([path], console)
        if is_usable(certificate.key, path, "certificate")
    ]
    identities = []
    for path in dict.fromkeys(settings.identity_files):
        public = _read_public(path)
        identities.append(Identity(path, public if is_usable(public, path) else None))
        if not settings.certificate_files:
            for certificate in _read_certificates([f"{path}-cert", f"{path}-cert.pub"], console):
                if is_usable(certificate.key, path):
                    identities.append(Identity(path, certificate.key, certificate))
    return identities, certificates


def is_too_small(key: asyncssh.SSHKey, settings: Settings) -> bool:
    """Tell whether an RSA key has fewer bits than RequiredRSASize wants."""
    try:
        bits = parse_public_key(key.public_data).plain.rsa_bits
    except KeyBlobError:
        return False
    return 0 < bits < settings.required_rsa_size


_TYPE_NUMBERS = {
    b"ssh-rsa": 0,
    b"ssh-dss": 1,
    b"ssh-ed25519": 3,
    b"ssh-rsa-cert-v01@openssh.com": 4,
    b"ssh-ed25519-cert-v01@openssh.com": 7,
    b"sk-ecdsa-sha2-nistp256@openssh.com": 10,
    b"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com": 11,
    b"sk-ssh-ed25519@openssh.com": 12,
    b"sk-ssh-ed25519-cert-v01@openssh.com": 13,
}
"""What ssh -v calls them (sshkey.h, enum sshkey_types); -1 is a file without a key."""


def describe_identities(settings: Settings, console: Console) -> list[str]:
    """Return ssh's line for each key file: whether there is a key in it, and of which kind."""
    identities, _ = load_identities(settings, console)
    lines = []
    for path in dict.fromkeys(settings.identity_files):
        ours = [identity for identity in identities if identity.path == path]
        public = next((each.public for each in ours if each.certificate is None), None)
        kind = -1 if public is None else _type_number(public.algorithm)
        lines.append(f"identity file {path} type {kind}")
        if not settings.certificate_files:
            numbers = [
                _type_number(each.certificate.algorithm) for each in ours if each.certificate
            ]
            lines.append(f"identity file {path}-cert type {(*numbers, -1)[0]}")
    return lines


def _type_number(algorithm: bytes) -> int:
    if algorithm.startswith(b"ecdsa-sha2-"):
        return 6 if b"-cert-" in algorithm else 2
    return _TYPE_NUMBERS.get(algorithm, -1)


def _read_public(path: str) -> asyncssh.SSHKey | None:
    """Find a key's public half where ssh does: a public key, the ``.pub`` file, the private key."""
    data = {}
    for name in (path, f"{path}.pub"):
        with contextlib.suppress(OSError):
            data[name] = read_key_file(name)
    for text in data.values():
        if b"PRIVATE KEY" not in text:
            public = parse_public_half(text)
            if public is not None:
                return public
    # Other private keys are read as a whole before they are offered, as ssh does.
    private = data.get(path, b"")
    return parse_public_half(private) if b"BEGIN OPENSSH PRIVATE KEY" in private else None


def _read_certificates(paths: Sequence[str], console: Console) -> Iterator[asyncssh.SSHCertificate]:
    for path in paths:
        try:
            certificate = import_key(asyncssh.import_certificate, read_key_file(path))
        except FileNotFoundError:
            continue
        except (OSError, asyncssh.KeyImportError, ValueError) as error:
            console.debug(1, f"certificate {path}: {error}")
            continue
        if not isinstance(certificate, SSHOpenSSHCertificate):
            continue
        if certificate._cert_type == CERT_TYPE_USER:
            yield certificate
            return
