"""Keys as they are offered: by their public half, with something behind that can sign.

asyncssh asks the server about ``public_data`` and calls ``sign_async`` if the server would accept
it. A ValueError from there makes it go on to the next key; why is said here, in ssh's words.
"""

from __future__ import annotations

import asyncio

import asyncssh

from xsshpy.console import Console
from xsshpy.ssh.agent import AgentConnection, AgentError, HeldKey, WrongSignatureError
from xsshpy.ssh.keyblob import KeyBlobError, parse_public_key
from xsshpy.ssh.pkcs11 import TokenError, TokenKey, TokenReader
from xsshpy.ssh.private_keys import KeyUnlocker
from xsshpy.ssh.security_keys import SecurityKeyError, SecurityKeySigner
from xsshpy.values import dataclass


@dataclass(frozen=True)
class KeyLabel:
    """How ssh speaks of a key: by its file or comment, its type and its fingerprint.

    ``plain_kind`` is the type of the key that signs, ``kind`` that of what is offered: they
    differ for a certificate. ``note`` says where the key is: ``token``, ``authenticator``.
    """

    name: str
    kind: str
    plain_kind: str
    fingerprint: str
    is_explicit: bool = False
    note: str = ""
    in_agent: bool = False

    def render(self) -> str:
        """Return it as debug messages have it."""
        words = [self.name, self.kind, self.fingerprint]
        words += ["explicit"] if self.is_explicit else []
        words += [self.note] if self.note else []
        words += ["agent"] if self.in_agent else []
        return " ".join(words)


def label_key(
    blob: bytes,
    name: str,
    fingerprint_hash: str,
    *,
    is_explicit: bool = False,
    in_agent: bool = False,
    in_token: bool = False,
) -> KeyLabel:
    """Return the label of a key or certificate in SSH's encoding."""
    try:
        key = parse_public_key(blob)
    except KeyBlobError:
        return KeyLabel(name, "unknown", "unknown", "")
    note = "authenticator" if key.algorithm.startswith("sk-") else ""
    return KeyLabel(
        name,
        key.display_name,
        key.plain.display_name,
        key.plain.fingerprint(fingerprint_hash),
        is_explicit,
        "token" if in_token else note,
        in_agent,
    )


class OfferedKeyPair(asyncssh.SSHKeyPair):
    """A key with its label, and a console for what goes wrong."""

    def __init__(
        self,
        label: KeyLabel,
        console: Console,
        public: asyncssh.SSHKey,
        certificate: asyncssh.SSHCertificate | None,
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
        self.label = label
        self._console = console

    def _fail(self, cause: str, kind: str = "") -> ValueError:
        """Say that the key did not sign, and return what makes asyncssh try the next one."""
        source = " from agent" if self.label.in_agent else ""
        self._console.error(
            f"sign_and_send_pubkey: signing failed for {kind or self.label.plain_kind} "
            f'"{self.label.name}"{source}: {cause}'
        )
        return ValueError(cause)


class DeferredKeyPair(OfferedKeyPair):
    """A key in a file: the private half is read once the server wants a signature."""

    _key_type = "local"

    def __init__(
        self,
        label: KeyLabel,
        console: Console,
        path: str,
        public: asyncssh.SSHKey,
        certificate: asyncssh.SSHCertificate | None,
        unlock: KeyUnlocker,
        signer: SecurityKeySigner,
    ) -> None:
        super().__init__(label, console, public, certificate)
        self._path = path
        self._unlock = unlock
        self._signer = signer

    async def sign_async(self, data: bytes) -> bytes:
        """Sign, reading the private key now. ValueError makes asyncssh go on to the next key."""
        key = await self._unlock.private_key(self._path)
        if key is None:
            raise ValueError("the private key could not be used")
        if key.public_data != self.key_public_data:
            self._console.error(
                f"identity_sign: private key {self._path} contents do not match public"
            )
            raise ValueError("the private key does not belong to the public key offered")
        if key.algorithm.startswith(b"sk-"):
            try:
                return await self._signer.sign(key, self._path, data, self.sig_algorithm)
            except SecurityKeyError as error:
                raise self._fail(str(error)) from None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(None, key.sign, data, self.sig_algorithm)
        except ValueError:  # a key too small for the hash, or one that cryptography refuses
            raise self._fail("error in libcrypto") from None


class AgentKeyPair(OfferedKeyPair):
    """A key that an agent holds; ``blob`` is what the agent knows it by."""

    _key_type = "agent"

    def __init__(
        self,
        label: KeyLabel,
        console: Console,
        agent: AgentConnection,
        blob: bytes,
        public: asyncssh.SSHKey,
        certificate: asyncssh.SSHCertificate | None,
    ) -> None:
        super().__init__(label, console, public, certificate)
        self._agent = agent
        self._blob = blob

    async def sign_async(self, data: bytes) -> bytes:
        """Let the agent sign; it may ask its user first, for as long as he takes."""
        try:
            return await self._agent.sign(self._blob, data, self.sig_algorithm)
        except WrongSignatureError:
            self._console.notice(
                f"agent key {self.label.kind} {self.label.fingerprint} returned incorrect "
                "signature type"
            )
            self._console.error("sign_and_send_pubkey: no mutual signature supported")
            raise ValueError("the agent signed in another way than asked") from None
        except AgentError as error:
            held = parse_public_key(self._blob)
            raise self._fail(str(error), held.display_name) from None


class TokenKeyPair(OfferedKeyPair):
    """A key on a PKCS#11 token."""

    _key_type = "pkcs11"

    def __init__(
        self,
        label: KeyLabel,
        console: Console,
        reader: TokenReader,
        key: TokenKey,
        certificate: asyncssh.SSHCertificate | None,
    ) -> None:
        super().__init__(label, console, key.public, certificate)
        self._reader = reader
        self._key = key

    async def sign_async(self, data: bytes) -> bytes:
        """Let the token sign; its PIN may be asked for."""
        try:
            return await self._reader.sign(self._key, data, self.sig_algorithm)
        except TokenError as error:
            self._console.error(str(error))
            raise self._fail("error in libcrypto") from None


def import_held_key(
    held: HeldKey,
) -> tuple[asyncssh.SSHKey, asyncssh.SSHCertificate | None] | None:
    """Return the public key and, where the agent holds a certificate, that; None for neither."""
    try:
        if held.key is held.key.plain:
            return asyncssh.public_key.decode_ssh_public_key(held.blob), None
        certificate = asyncssh.public_key.decode_ssh_certificate(held.blob)
    except (asyncssh.KeyImportError, ValueError):
        return None
    return certificate.key, certificate
