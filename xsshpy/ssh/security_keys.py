"""Security keys (FIDO2 tokens): a signature from the token, with the user's touch.

Needs the extra ``fido2``. The token is spoken to in a thread that nobody waits for: it answers
when it is touched. SecurityKeyProvider knows ``internal`` alone; a library of somebody else's is
OpenSSH's own interface.
"""

from __future__ import annotations

import functools

import asyncssh
from asyncssh.sk import sk_available

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.ssh.keyblob import parse_public_key
from xsshpy.threads import call_in_thread

_PRESENCE_REQUIRED = 0x01
_VERIFICATION_REQUIRED = 0x04
INTERNAL = "internal"


class SecurityKeyError(Exception):
    """The token did not sign: why, in a few words."""


class SecurityKeySigner:
    """Signs with keys whose private half is in a token."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console

    async def sign(self, key: asyncssh.SSHKey, path: str, data: bytes, algorithm: bytes) -> bytes:
        """Return the token's signature. Raises SecurityKeyError, having said what to do."""
        flags = int(getattr(key, "_flags", 0))
        self._require_support(path, flags)
        public = parse_public_key(key.public_data)
        if flags & _PRESENCE_REQUIRED:
            fingerprint = public.plain.fingerprint(self._settings.fingerprint_hash)
            self._console.notice(
                f"Confirm user presence for key {public.display_name} {fingerprint}"
            )
        try:
            signing = functools.partial(key.sign, data, algorithm)
            return await call_in_thread(signing, "security key")
        except (OSError, ValueError) as error:
            self._console.debug(1, f"{path}: {error}")
            is_missing = "not found" in str(error).lower()
            raise SecurityKeyError(
                "device not found" if is_missing else str(error) or "invalid format"
            ) from None

    def _require_support(self, path: str, flags: int) -> None:
        provider = self._settings.login.security_key_provider
        if provider != INTERNAL:
            self._console.error(
                f"xssh: SecurityKeyProvider {provider} is not supported; "
                "try: SecurityKeyProvider internal, or ssh-add the key to an agent"
            )
            raise SecurityKeyError("requested feature not supported")
        if not sk_available:
            self._console.error(
                f"xssh: {path} is a security key, which needs the package fido2; "
                "try: pip install 'xsshpy[fido2]', or ssh-add the key to an agent"
            )
            raise SecurityKeyError("requested feature not supported")
        if flags & _VERIFICATION_REQUIRED:
            self._console.error(
                f"xssh: {path} wants its PIN for each use, which is not supported; "
                "try: ssh-add the key to an agent"
            )
            raise SecurityKeyError("requested feature not supported")
