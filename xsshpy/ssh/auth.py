"""Logging in: keys, the agent, passwords and keyboard-interactive, in ssh's order and words.

asyncssh runs the protocol (RFC 4252, RFC 4256) and asks :class:`Login` what to offer next. Keys
are offered one by one by their public half; a private key is read, and its passphrase asked for,
only once the server has said that it would accept the key. Missing or unreadable key files are
passed over, as ssh does.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket

from xsshpy.console import Console
from xsshpy.settings import Settings

KEY_FILE_LIMIT = 1 << 20
"""Bytes of a key or certificate file that are read; OpenSSH has the same limit."""

DEFAULT_METHODS = ("gssapi-with-mic", "publickey", "keyboard-interactive", "password")
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_REMEMBERED_MESSAGES = 20
_UNPROTECTED = "@" * 59


class _Secret(str):
    """Text as it was typed: bytes that are not UTF-8 are sent as they are."""

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        """Return the bytes that were typed, whatever handling of errors asyncssh asks for."""
        return super().encode(encoding, "surrogateescape")


@dataclass(frozen=True)
class Identity:
    """A key file: its public half if that can be known without a passphrase, and certificates."""

    path: str
    public: asyncssh.SSHKey | None
    certificates: tuple[asyncssh.SSHCertificate, ...] = ()


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
            raise ValueError("the private key does not belong to the public key offered")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, key.sign, data, self.sig_algorithm)


def read_key_file(path: str) -> bytes:
    """Read a key file, with a limit. Raises OSError; a FIFO or device is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path}: not a regular file")
        return file.read(KEY_FILE_LIMIT)


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
            data = read_key_file(path)
        except OSError as error:
            self._console.error(f'Load key "{path}": {error.strerror or error}')
            return None
        if not self._is_private(path):
            return None
        try:
            return asyncssh.import_private_key(data)
        except asyncssh.KeyEncryptionError:
            return await self._ask_passphrase(path, data)
        except asyncssh.KeyImportError as error:
            if "passphrase" in str(error).lower():
                return await self._ask_passphrase(path, data)
            self._console.error(f'Load key "{path}": {error}')
            return None

    def _is_private(self, path: str) -> bool:
        """Refuse a key that others can read, in ssh's words."""
        mode = os.stat(path)
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
            except asyncssh.KeyEncryptionError:
                self._console.debug(2, "bad passphrase given, try again...")
            except asyncssh.KeyImportError as error:
                self._console.error(f'Load key "{path}": {error}')
                return None
        return None


def load_identities(settings: Settings, console: Console) -> list[Identity]:
    """Read the public halves of the configured keys, and their certificates."""
    certificates = [
        certificate
        for path in settings.certificate_files
        for certificate in _read_certificates(path, console)
    ]
    identities = []
    for path in dict.fromkeys(settings.identity_files):
        beside = _read_certificates(f"{path}-cert.pub", console)
        public = _read_public(path, console)
        if public is None and not os.path.exists(path):
            continue
        own = tuple(
            certificate
            for certificate in [*certificates, *beside]
            if public is not None and certificate.key.public_data == public.public_data
        )
        identities.append(Identity(path, public, own))
    return identities


def _read_public(path: str, console: Console) -> asyncssh.SSHKey | None:
    for candidate in (path, f"{path}.pub"):
        try:
            public = parse_public_half(read_key_file(candidate))
        except FileNotFoundError:
            continue
        except OSError as error:
            if candidate == path:
                console.error(f'Load key "{path}": {error.strerror or error}')
            continue
        if public is not None:
            return public
    return None


def _read_certificates(path: str, console: Console) -> list[asyncssh.SSHCertificate]:
    try:
        return [asyncssh.import_certificate(read_key_file(path))]
    except FileNotFoundError:
        return []
    except (OSError, asyncssh.KeyImportError, ValueError) as error:
        console.debug(1, f"certificate {path}: {error}")
        return []


class KeyRing:
    """All keys to offer, in ssh's order: certificates, the agent's, then files (ssh(1))."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._unlock = KeyUnlocker(settings, console)
        self._agent: asyncssh.SSHAgentClient | None = None

    async def keys(self) -> AsyncIterator[asyncssh.SSHKeyPair]:
        """Yield the key pairs one after another, asking for a passphrase only on the way."""
        loop = asyncio.get_running_loop()
        identities = await loop.run_in_executor(
            None, load_identities, self._settings, self._console
        )
        agent_keys = await self._agent_keys()
        by_blob = {key.public_data: key for key in agent_keys}
        for identity in identities:
            for certificate in identity.certificates:
                yield self._certified(identity, certificate, by_blob)
        configured = [
            identity.public.public_data for identity in identities if identity.public is not None
        ]
        for blob in configured:
            if blob in by_blob:
                yield by_blob[blob]
        if not self._settings.identities_only:
            for key in agent_keys:
                if key.public_data not in configured:
                    yield key
        for identity in identities:
            if identity.public is not None and identity.public.public_data in by_blob:
                continue
            pair = await self._from_file(identity)
            if pair is not None:
                yield pair

    def _certified(
        self,
        identity: Identity,
        certificate: asyncssh.SSHCertificate,
        by_blob: dict[bytes, asyncssh.SSHKeyPair],
    ) -> asyncssh.SSHKeyPair:
        assert identity.public is not None
        held = by_blob.get(identity.public.public_data)
        if held is not None and self._agent is not None:
            pair = asyncssh.SSHAgentKeyPair(
                self._agent, held.key_algorithm, held.key_public_data, b""
            )
            pair.set_certificate(certificate)
            return pair
        return DeferredKeyPair(identity.path, identity.public, certificate, self._unlock)

    async def _from_file(self, identity: Identity) -> asyncssh.SSHKeyPair | None:
        public = identity.public
        if public is None:
            key = await self._unlock.private_key(identity.path)
            public = key.convert_to_public() if key is not None else None
        elif not os.path.exists(identity.path):
            return None  # only the .pub file is there, and the agent does not hold the key
        if public is None:
            return None
        return DeferredKeyPair(identity.path, public, None, self._unlock)

    async def _agent_keys(self) -> Sequence[asyncssh.SSHKeyPair]:
        if not self._settings.identity_agent:
            return []
        agent = asyncssh.SSHAgentClient(self._settings.identity_agent)
        try:
            keys = await asyncio.wait_for(agent.get_keys(), 10)
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


class Login(asyncssh.SSHClient):
    """asyncssh's questions while it logs in, and what the server says meanwhile."""

    def __init__(
        self, settings: Settings, console: Console, passwords_allowed: Callable[[], bool]
    ) -> None:
        self._settings = settings
        self._console = console
        self._passwords_allowed = passwords_allowed
        self._ring = KeyRing(settings, console)
        self._keys: AsyncIterator[asyncssh.SSHKeyPair] | None = None
        self._password_attempts = 0
        self._interactive_attempts = 0
        self._was_asked = False
        self._shown_host = settings.host_key_alias or settings.hostname
        self.remote_messages: list[str] = []

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """Show the server's banner (RFC 4252 §5.4), made harmless."""
        self._console.banner(msg)

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None:
        """Remember what sshd says: it is where the reasons for a refused X11 request are."""
        self.remote_messages = [*self.remote_messages, msg][-_REMEMBERED_MESSAGES:]
        self._console.debug(1, f"Remote: {msg}")

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        """Return the next key to offer, or None when there is none left."""
        if self._keys is None:
            self._keys = self._ring.keys()
        async for pair in self._keys:
            self._console.debug(1, f"Offering public key: {pair.get_algorithm()}")
            return [pair]
        return None

    def step_succeeded(self) -> None:
        """Offer every key again: the server wants a further login step (RFC 4252 §5.1)."""
        self._keys = None

    async def password_auth_requested(self) -> str | None:
        """Ask for the password; after the last allowed attempt the method is given up."""
        if not self._passwords_allowed():
            return None
        if self._password_attempts >= self._settings.number_of_password_prompts:
            return None
        if self._password_attempts:
            self._console.error("Permission denied, please try again.")
        self._password_attempts += 1
        user, host = self._settings.user[:30], self._shown_host[:128]
        password = await self._console.ask_secret(f"{user}@{host}'s password: ")
        return None if password is None else _Secret(password)

    async def password_change_requested(self, prompt: str, lang: str) -> tuple[str, str]:
        """Ask for the old password and a new one, twice, as ssh does when a password expired."""
        user, host = self._settings.user, self._shown_host
        if prompt:
            self._console.banner(prompt + "\n")
        old = await self._console.ask_secret(f"Enter {user}@{host}'s old password: ") or ""
        while True:
            new = await self._console.ask_secret(f"Enter {user}@{host}'s new password: ")
            if not new:
                raise asyncssh.PermissionDenied("the password was not changed")
            again = await self._console.ask_secret(f"Retype {user}@{host}'s new password: ")
            if again == new:
                return _Secret(old), _Secret(new)
            self._console.error("Mismatch; try again, EOF to quit.")

    def kbdint_auth_requested(self) -> str | None:
        """Start another keyboard-interactive attempt unless the attempts are used up."""
        if not self._passwords_allowed():
            return None
        if self._interactive_attempts >= self._settings.number_of_password_prompts:
            return None
        if self._interactive_attempts and not self._was_asked:
            return None  # refused without a question: another attempt would end the same way
        self._interactive_attempts += 1
        return ""

    async def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """Ask each prompt of one round (RFC 4256 §3.2); None where the user gave up."""
        self._was_asked = True
        for text in (name, instructions):
            if text:
                self._console.banner(text + "\n")
        answers: list[str] = []
        for prompt, echo in prompts:
            shown = f"({self._settings.user}@{self._shown_host}) {prompt}"
            ask = self._console.ask_line if echo else self._console.ask_secret
            answer = await ask(shown)
            if answer is None:
                return None
            answers.append(_Secret(answer))
        return answers

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the agent."""
        self._ring.close()


def methods_to_try(settings: Settings) -> list[str]:
    """Return the authentication methods that the settings allow, in the preferred order."""
    interactive = not settings.batch_mode
    allowed = {
        "publickey": settings.pubkey_authentication,
        "keyboard-interactive": settings.kbd_interactive_authentication and interactive,
        "password": settings.password_authentication and interactive,
    }
    order = settings.preferred_authentications or DEFAULT_METHODS
    return [method for method in order if allowed.get(method, False)]
