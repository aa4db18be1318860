"""Keys on PKCS#11 tokens (-I, PKCS11Provider): listed without a PIN, which signing asks for.

Needs the extra ``pkcs11`` (python-pkcs11). A provider is a library that may block for as long as
it likes, so every call to it runs in a thread that nobody waits for. Which objects count as keys,
and how they sign, is OpenSSH's way (ssh-pkcs11.c): public key objects, and the keys of X.509
certificates; signatures of hashes, since many tokens can't hash.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import asyncssh
from asyncssh.packet import MPInt, String

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.threads import call_in_thread
from xsshpy.values import dataclass, field

if TYPE_CHECKING:
    from pkcs11 import PrivateKey, Session, Token

_LIBRARY_LIMIT = 256 << 20
_ENTRY_POINT = b"C_GetFunctionList"
_DIGESTS = {
    b"ssh-rsa": ("sha1", "3021300906052b0e03021a05000414"),
    b"rsa-sha2-256": ("sha256", "3031300d060960864801650304020105000420"),
    b"rsa-sha2-512": ("sha512", "3051300d060960864801650304020305000440"),
    b"ecdsa-sha2-nistp256": ("sha256", ""),
    b"ecdsa-sha2-nistp384": ("sha384", ""),
    b"ecdsa-sha2-nistp521": ("sha512", ""),
}
"""The hash of each signature; for RSA also the DER that stands before it (RFC 8017 §9.2)."""

_LOGIN_WORDS = {
    "PinIncorrect": "PIN incorrect",
    "PinLocked": "PIN locked",
    "PinLenRange": "PIN length out of range",
}
T = TypeVar("T")


class TokenError(Exception):
    """The token can't be used; what there is to say has been said."""


class _KeyObject(Protocol):
    """A public key object of a token, as far as it is used."""

    key_type: int

    def __getitem__(self, attribute: object) -> bytes:
        """Return one of its attributes."""


@dataclass(frozen=True)
class TokenKey:
    """A key on a token: its public half, and where the private one is."""

    blob: bytes
    label: str
    public: asyncssh.SSHKey
    token: Token = field(repr=False)
    key_id: bytes


class TokenReader:
    """The keys of PKCS11Provider. Its PIN is asked for once."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._provider = settings.login.pkcs11_provider
        self._batch_mode = settings.batch_mode
        self._console = console
        self._keys: list[TokenKey] | None = None
        self._sessions: dict[str, Session] = {}

    async def keys(self) -> list[TokenKey]:
        """Return the keys on all tokens of the provider; none where it can't be used."""
        if not self._provider:
            return []
        if self._keys is None:
            self._keys = await self._list() if await self._is_installed() else []
        return self._keys

    async def _is_installed(self) -> bool:
        try:
            await call_in_thread(lambda: importlib.import_module("pkcs11"), "PKCS#11")
        except ImportError as error:
            self._console.debug(1, f"pkcs11: {error}")
            self._console.error(
                f"xssh: the keys of {self._provider} need the package python-pkcs11; "
                "try: pip install 'xsshpy[pkcs11]', or ssh-add -s to an agent"
            )
            return False
        return True

    async def _list(self) -> list[TokenKey]:
        try:
            await self._call(functools.partial(_require_provider, self._provider))
            tokens = await self._call(functools.partial(_find_tokens, self._provider))
        except TokenError as error:
            self._console.error(f"{error}\nprovider {self._provider} is not a PKCS11 library")
            return []
        keys: dict[bytes, TokenKey] = {}
        for token in tokens:
            if self._batch_mode and _wants_login(token):
                self._console.error("pin required")
                continue
            try:
                found = await self._call(functools.partial(_list_keys, token))
            except TokenError as error:
                self._console.error(f"{token.label}: {error}")
                continue
            for key in found:
                keys.setdefault(key.blob, key)
        return list(keys.values())

    async def sign(self, key: TokenKey, data: bytes, algorithm: bytes) -> bytes:
        """Return a signature in SSH's encoding, asking for the PIN first. Raises TokenError."""
        session = await self._log_in(key.token)
        pin: str | None = None
        if await self._call(functools.partial(_always_wants_pin, session, key)):
            pin = await self._console.ask_secret(f"Enter PIN for '{key.label}': ")
        return await self._call(functools.partial(_sign, session, key, data, algorithm, pin))

    async def _log_in(self, token: Token) -> Session:
        if token.label in self._sessions:
            return self._sessions[token.label]
        pin: object = None
        if _has_pin_pad(token):
            from pkcs11 import PROTECTED_AUTH

            self._console.notice(f"Enter PIN for '{token.label}' on its reader")
            pin = PROTECTED_AUTH
        elif _wants_login(token):
            pin = await self._console.ask_secret(f"Enter PIN for '{token.label}': ")
            if not pin:
                raise TokenError("login failed\npkcs11_get_key failed")
        try:
            session = await self._call(functools.partial(token.open, user_pin=pin))
        except TokenError as error:
            cause = type(error.__cause__).__name__
            reason = _LOGIN_WORDS.get(cause, f"error {cause}")
            self._console.error(f"PKCS#11 login failed: {reason}")
            raise TokenError("login failed\npkcs11_get_key failed") from None
        self._sessions[token.label] = session
        return session

    async def _call(self, function: Callable[[], T]) -> T:
        from pkcs11 import PKCS11Error

        try:
            return await call_in_thread(function, "PKCS#11")
        except (PKCS11Error, OSError, ValueError) as error:
            raise TokenError(str(error) or type(error).__name__) from error


def _require_provider(path: str) -> None:
    """See that a file is a PKCS#11 library before it is loaded: loading runs its code."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LIBRARY_LIMIT)
    except OSError as error:
        raise OSError(f"lib_contains_symbol: open {path}: {error.strerror}") from None
    if _ENTRY_POINT not in data:
        name = _ENTRY_POINT.decode()
        raise ValueError(f"lib_contains_symbol: {path} does not contain expected string {name}")


def _find_tokens(path: str) -> list[Token]:
    import pkcs11

    slots = pkcs11.lib(path).get_slots(token_present=True)
    tokens = [slot.get_token() for slot in slots]
    return [token for token in tokens if token.flags & pkcs11.TokenFlag.TOKEN_INITIALIZED]


def _wants_login(token: Token) -> bool:
    from pkcs11 import TokenFlag

    return bool(token.flags & TokenFlag.LOGIN_REQUIRED)


def _has_pin_pad(token: Token) -> bool:
    from pkcs11 import TokenFlag

    return bool(token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH)


def _list_keys(token: Token) -> list[TokenKey]:
    from pkcs11 import Attribute, ObjectClass

    found = []
    with token.open() as session:
        for kind in (ObjectClass.PUBLIC_KEY, ObjectClass.CERTIFICATE):
            for item in session.get_objects({Attribute.CLASS: kind}):
                public = _read_public(item, is_key=kind == ObjectClass.PUBLIC_KEY)
                if public is not None:
                    label, key_id = item[Attribute.LABEL], item[Attribute.ID]
                    blob = public.public_data
                    found.append(TokenKey(blob, label, public, token, key_id))
    return found


def _read_public(item: _KeyObject, *, is_key: bool) -> asyncssh.SSHKey | None:
    """Return the key of a public key object or a certificate; None for what SSH has no use of."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_der_x509_certificate
    from pkcs11 import Attribute, KeyType, PKCS11Error
    from pkcs11.util.ec import encode_ec_public_key
    from pkcs11.util.rsa import encode_rsa_public_key

    encoders = {KeyType.RSA: encode_rsa_public_key, KeyType.EC: encode_ec_public_key}
    try:
        if is_key:
            encode = encoders.get(item.key_type)
            if encode is None:
                return None
            data = encode(item)
        else:
            certificate = load_der_x509_certificate(item[Attribute.VALUE])
            data = certificate.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            )
        return asyncssh.import_public_key(data)
    except (PKCS11Error, ValueError, asyncssh.KeyImportError):
        return None


def _private_half(session: Session, key: TokenKey) -> PrivateKey:
    from pkcs11 import Attribute, ObjectClass

    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: key.key_id}
    private = next(iter(session.get_objects(wanted)), None)
    if private is None:
        raise ValueError("cannot find private key")
    return private


def _always_wants_pin(session: Session, key: TokenKey) -> bool:
    """Tell whether the key asks for the PIN at each signature, as a PIV card's may."""
    from pkcs11 import Attribute, PKCS11Error

    try:
        return bool(_private_half(session, key)[Attribute.ALWAYS_AUTHENTICATE])
    except PKCS11Error:
        return False


def _sign(session: Session, key: TokenKey, data: bytes, algorithm: bytes, pin: str | None) -> bytes:
    from pkcs11 import Mechanism

    if algorithm not in _DIGESTS:
        raise ValueError(f"{algorithm.decode('ascii', 'replace')} is not for tokens")
    name, prefix = _DIGESTS[algorithm]
    digest = bytes.fromhex(prefix) + hashlib.new(name, data).digest()
    private = _private_half(session, key)
    if not algorithm.startswith(b"ecdsa-"):
        signature = bytes(private.sign(digest, mechanism=Mechanism.RSA_PKCS, pin=pin))
        return String(algorithm) + String(signature)
    raw = bytes(private.sign(digest, mechanism=Mechanism.ECDSA, pin=pin))
    half = len(raw) // 2
    numbers = [int.from_bytes(part, "big") for part in (raw[:half], raw[half:])]
    return String(algorithm) + String(b"".join(map(MPInt, numbers)))
