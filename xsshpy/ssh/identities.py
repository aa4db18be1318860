"""The keys that a login may offer: from the agent, key files and certificates, in ssh's order.

Keys are offered one by one by their public half; a private key is read, and its passphrase asked
for, only once the server has said that it would accept the key. Missing or unreadable key files
are passed over, as ssh does (sshconnect2.c, pubkey_prepare).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import errno
import os
import re
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.public_key import CERT_TYPE_USER, SSHOpenSSHCertificate

from xsshpy.console import Console, LogLevel
from xsshpy.settings import Settings, home_directory

KEY_FILE_LIMIT = 1 << 20
"""Bytes of a key or certificate file that are read; OpenSSH has the same limit."""

_AGENT_DEADLINE = 10.0
_DEFAULT_NAMES = frozenset(
    {"id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_xmss", "id_dsa"}
)
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_RSA = b"ssh-rsa"
_RSA_SIGNATURES = (b"rsa-sha2-512", b"rsa-sha2-256", _RSA)
_CERTIFICATE_SUFFIX = b"-cert-v01@openssh.com"
_RSA_CERTIFICATE = _RSA + _CERTIFICATE_SUFFIX
_OLD_CERTIFICATES = re.compile(r"OpenSSH_7\.[0-7]")
"""Servers that know RSA certificates by one name only, whatever the signature (compat.c)."""
_UNPROTECTED = "@" * 59


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


class DeferredKeyPair(asyncssh.SSHKeyPair):
    """A key of which the server is asked first, and the private half read afterwards."""

    _key_type = "local"

    def __init__(
        self,
        path: str,
        public: asyncssh.SSHKey,
        certificate: asyncssh.SSHCertificate | None,
        unlock: KeyUnlocker,
    ) -> None:
        super().__init__(
            public.algorithm,
            public.algorithm,
            public.sig_algorithms,
            public.sig_algorithms,
            public.public_data,
            public.get_comment_bytes(),
            certificate,
        )
        self._path = path
        self._unlock = unlock

    async def sign_async(self, data: bytes) -> bytes:
        """Sign, reading the private key now. ValueError makes asyncssh go on to the next key."""
        key = await self._unlock.private_key(self._path)
        if key is None:
            raise ValueError("the private key could not be used")
        if key.public_data != self.key_public_data:
            self._unlock.complain(
                f"identity_sign: private key {self._path} contents do not match public"
            )
            raise ValueError("the private key does not belong to the public key offered")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, key.sign, data, self.sig_algorithm)


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


def parse_public_half(data: bytes) -> asyncssh.SSHKey | None:
    """Return the public key inside a private key file, where it can be read without passphrase."""
    if b"BEGIN OPENSSH PRIVATE KEY" in data:
        return _parse_openssh_public_half(data)
    try:
        if b"PRIVATE KEY" in data:
            return asyncssh.import_private_key(data).convert_to_public()
        return asyncssh.import_public_key(data)
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
        return asyncssh.import_public_key(text)
    except (PacketDecodeError, binascii.Error, asyncssh.KeyImportError, ValueError):
        return None


class KeyUnlocker:
    """Reads private keys, asking for passphrases; each key is unlocked once in a run."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._unlocked: dict[str, asyncssh.SSHKey | None] = {}

    async def private_key(self, path: str) -> asyncssh.SSHKey | None:
        """Return the private key, or None where it can't be had; the reason has been shown."""
        if path not in self._unlocked:
            self._unlocked[path] = await self._load(path)
        return self._unlocked[path]

    async def _load(self, path: str) -> asyncssh.SSHKey | None:
        try:
            mode = os.stat(path)
        except OSError as error:
            text = f"no such identity: {path}: {error.strerror}"
            self._console.log(LogLevel.DEBUG3 if _is_default(path) else LogLevel.INFO, text)
            return None
        if not self._is_private(path, mode):
            return None
        try:
            data = read_key_file(path)
        except OSError as error:
            self._console.error(f'Load key "{path}": {error.strerror or error}')
            return None
        try:
            return asyncssh.import_private_key(data)
        except asyncssh.KeyEncryptionError:
            return await self._ask_passphrase(path, data)
        except asyncssh.KeyImportError as error:
            if "passphrase" in str(error).lower():
                return await self._ask_passphrase(path, data)
            self._console.debug(1, f"{path}: {error}")
            self._console.error(f'Load key "{path}": invalid format')
            return None

    def complain(self, text: str) -> None:
        """Say why a key is of no use."""
        self._console.error(text)

    def _is_private(self, path: str, mode: os.stat_result) -> bool:
        """Refuse a key that others can read, in ssh's words."""
        if mode.st_uid != os.getuid() or not mode.st_mode & 0o077:
            return True
        self._console.error(
            f"{_UNPROTECTED}\n"
            "@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\n"
            f"{_UNPROTECTED}\n"
            f"Permissions 0{mode.st_mode & 0o777:o} for '{path}' are too open.\n"
            "It is required that your private key files are NOT accessible by others.\n"
            "This private key will be ignored.\n"
            f'Load key "{path}": bad permissions'
        )
        return False

    async def _ask_passphrase(self, path: str, data: bytes) -> asyncssh.SSHKey | None:
        if self._settings.batch_mode:
            return None
        loop = asyncio.get_running_loop()
        for _ in range(max(1, self._settings.number_of_password_prompts)):
            passphrase = await self._console.ask_secret(f"Enter passphrase for key '{path}': ")
            if not passphrase:
                self._console.debug(2, "no passphrase given, try next key")
                return None
            try:
                return await loop.run_in_executor(
                    None, asyncssh.import_private_key, data, passphrase
                )
            except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError):
                # What a wrong passphrase makes of a PEM file is no key either.
                self._console.debug(2, "bad passphrase given, try again...")
        return None


def _is_default(path: str) -> bool:
    """Tell whether ssh looks for this key file even where nobody named it."""
    directory, name = os.path.split(path)
    return name in _DEFAULT_NAMES and directory == os.path.join(home_directory(), ".ssh")


def signature_algorithms(key_algorithm: bytes, accepted: Sequence[str]) -> list[bytes]:
    """Return how a key may sign, by PubkeyAcceptedAlgorithms and in its order; [] for not at all.

    ``key_algorithm`` is a plain key's or a certificate's. An empty ``accepted`` allows all.
    """
    certified = key_algorithm.endswith(_CERTIFICATE_SUFFIX)
    plain = key_algorithm.removesuffix(_CERTIFICATE_SUFFIX)
    if certified and plain.startswith(b"sk-"):
        plain += b"@openssh.com"
    able = _RSA_SIGNATURES if plain == _RSA else (plain,)
    if not accepted:
        return list(able)
    allowed = []
    for name in (name.encode() for name in accepted):
        signature = name.removesuffix(_CERTIFICATE_SUFFIX)
        if signature != name and signature.startswith(b"sk-"):
            signature += b"@openssh.com"
        if (signature != name) == certified and signature in able:
            allowed.append(signature)
    return allowed


def load_identities(settings: Settings, console: Console) -> tuple[list[Identity], list[Identity]]:
    """Read what the configured files can offer: IdentityFile's first, then CertificateFile's.

    ``KEY-cert.pub`` beside a key counts with it unless CertificateFile names others.
    """
    certificates = [
        Identity(path, certificate.key, certificate)
        for path in settings.certificate_files
        for certificate in _read_certificates([path], console)
    ]
    identities = []
    for path in dict.fromkeys(settings.identity_files):
        identities.append(Identity(path, _read_public(path)))
        if not settings.certificate_files:
            for certificate in _read_certificates([f"{path}-cert", f"{path}-cert.pub"], console):
                identities.append(Identity(path, certificate.key, certificate))
    return identities, certificates


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
    return parse_public_half(data[path]) if path in data else None


def _read_certificates(paths: Sequence[str], console: Console) -> Iterator[asyncssh.SSHCertificate]:
    for path in paths:
        try:
            certificate = asyncssh.import_certificate(read_key_file(path))
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


class KeyRing:
    """All keys to offer: CertificateFile's, the agent's, then those in files."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._unlock = KeyUnlocker(settings, console)
        self._agent: asyncssh.SSHAgentClient | None = None

    async def keys(self, server_version: str) -> AsyncIterator[asyncssh.SSHKeyPair]:
        """Yield the key pairs one after another, asking for a passphrase only on the way.

        ``server_version`` is the server's first line, without ``SSH-2.0-``.
        """
        async for pair in self._all_keys():
            accepted = self._settings.pubkey_accepted_algorithms
            signatures = signature_algorithms(pair.algorithm, accepted)
            if not signatures:
                self._console.debug(1, "Skipping key: not in PubkeyAcceptedAlgorithms")
                continue
            pair.sig_algorithms = signatures
            if pair.algorithm == _RSA_CERTIFICATE and not _OLD_CERTIFICATES.match(server_version):
                pair.sig_algorithms = signatures[:1]
                pair.algorithm = signatures[0] + _CERTIFICATE_SUFFIX
            if _RSA not in signatures:
                # For a server that does not say which of RSA's signatures it knows.
                pair.set_sig_algorithm(signatures[0])
            yield pair

    async def _all_keys(self) -> AsyncIterator[asyncssh.SSHKeyPair]:
        loop = asyncio.get_running_loop()
        files, certificates = await loop.run_in_executor(
            None, load_identities, self._settings, self._console
        )
        held = {key.public_data: key for key in await self._agent_keys()}
        configured = {identity.blob for identity in files}
        usable = {
            blob: key
            for blob, key in held.items()
            if blob in configured or not self._settings.identities_only
        }
        for identity in certificates:
            yield self._certified(identity, usable, files)
        for blob in sorted(usable, key=lambda blob: blob not in configured):
            yield usable[blob]
        for identity in files:
            if identity.blob in usable:
                continue
            pair = await self._from_file(identity, usable, files)
            if pair is not None:
                yield pair

    def _certified(
        self,
        identity: Identity,
        held: dict[bytes, asyncssh.SSHKeyPair],
        files: Sequence[Identity],
    ) -> asyncssh.SSHKeyPair:
        """Join a certificate with its private key: the agent's, a key file's, or its own file."""
        public, certificate = identity.public, identity.certificate
        assert public is not None and certificate is not None
        blob = public.public_data
        if blob in held and self._agent is not None:
            pair = asyncssh.SSHAgentKeyPair(self._agent, public.algorithm, blob, b"")
            pair.set_certificate(certificate)
            return pair
        paths = [other.path for other in files if other.blob == blob]
        return DeferredKeyPair([*paths, identity.path][0], public, certificate, self._unlock)

    async def _from_file(
        self,
        identity: Identity,
        held: dict[bytes, asyncssh.SSHKeyPair],
        files: Sequence[Identity],
    ) -> asyncssh.SSHKeyPair | None:
        if identity.certificate is not None:
            return self._certified(identity, held, files)
        public = identity.public
        if public is None:
            key = await self._unlock.private_key(identity.path)
            if key is None:
                return None
            public = key.convert_to_public()
        return DeferredKeyPair(identity.path, public, None, self._unlock)

    async def _agent_keys(self) -> Sequence[asyncssh.SSHKeyPair]:
        if not self._settings.identity_agent:
            return []
        agent = asyncssh.SSHAgentClient(self._settings.identity_agent)
        try:
            keys = await asyncio.wait_for(agent.get_keys(), _AGENT_DEADLINE)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            self._console.debug(1, f"get_agent_identities: {error}")
            agent.close()
            return []
        self._agent = agent
        return keys

    def close(self) -> None:
        """Close the connection to the agent."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None
