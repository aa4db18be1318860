"""Logging in: keys, passwords and keyboard-interactive, in ssh's order and words.

asyncssh runs the protocol (RFC 4252, RFC 4256) and asks :class:`Login` what to offer next.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence

import asyncssh

from xsshpy.console import Console, foreign, inline
from xsshpy.settings import Settings
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.hostkey_policy import Feature
from xsshpy.ssh.identities import KeyRing
from xsshpy.ssh.keypairs import OfferedKeyPair

DEFAULT_METHODS = (
    "gssapi-with-mic",
    "hostbased",
    "publickey",
    "keyboard-interactive",
    "password",
)
_REMEMBERED_MESSAGES = 20
_REMEMBERED_LENGTH = 4096


class Typed(str):
    """Text as it was typed: bytes that are not UTF-8 are sent as they are."""

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        """Return the bytes that were typed, whatever handling of errors asyncssh asks for."""
        return super().encode(encoding, "surrogateescape")


class Login(asyncssh.SSHClient):
    """asyncssh's questions while it logs in, and what the server says meanwhile."""

    def __init__(
        self, settings: Settings, console: Console, allows: Callable[[Feature], bool]
    ) -> None:
        self._settings = settings
        self._console = console
        self._allows = allows
        self._ring = KeyRing(settings, console)
        self._keys: AsyncIterator[OfferedKeyPair] | None = None
        self._password_attempts = 0
        self._interactive_attempts = 0
        self._was_asked = False
        self._connection: ClientConnection | None = None
        self._shown_host = settings.host_key_alias or settings.hostname
        self.remote_messages: list[str] = []

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Remember whom this is about."""
        assert isinstance(conn, ClientConnection)
        self._connection = conn

    def _server_version(self) -> str:
        line = "" if self._connection is None else self._connection.get_extra_info("server_version")
        return str(line or "").removeprefix("SSH-2.0-")

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """Show the server's banner (RFC 4252 §5.4), made harmless."""
        self._console.banner(msg)

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None:
        """Remember what sshd says: it is where the reasons for a refused X11 request are."""
        said = inline(msg)
        kept = said[:_REMEMBERED_LENGTH]
        self.remote_messages = [*self.remote_messages, kept][-_REMEMBERED_MESSAGES:]
        self._console.debug(1, f"Remote: {said}")

    def is_command_forced(self) -> bool:
        """Tell whether the key that let us in has a ``command=`` of its own; sshd lists it."""
        return any(re.search(r"key options:.*\bcommand\b", text) for text in self.remote_messages)

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        """Return the next key to offer, or None when there is none left."""
        if self._keys is None:
            binding = self._connection.binding if self._connection is not None else None
            self._keys = self._ring.keys(self._server_version(), binding)
        async for pair in self._keys:
            self._console.debug(1, f"Offering public key: {pair.label.render()}")
            return [pair]
        return None

    def step_succeeded(self) -> None:
        """Offer every key again: the server wants a further login step (RFC 4252 §5.1)."""
        self._keys = None

    async def password_auth_requested(self) -> str | None:
        """Ask for the password; after the last allowed attempt the method is given up."""
        if not self._allows(Feature.PASSWORD):
            return None
        if self._password_attempts >= self._settings.number_of_password_prompts:
            return None
        if self._password_attempts:
            self._console.error("Permission denied, please try again.")
        self._password_attempts += 1
        user, host = self._settings.user, self._shown_host
        password = await self._console.ask_secret(f"{user}@{host}'s password: ")
        return None if password is None else Typed(password)

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
                return Typed(old), Typed(new)
            self._console.error("Mismatch; try again, EOF to quit.")

    def kbdint_auth_requested(self) -> str | None:
        """Start another keyboard-interactive attempt unless the attempts are used up."""
        if not self._allows(Feature.KEYBOARD_INTERACTIVE):
            return None
        if self._interactive_attempts >= self._settings.number_of_password_prompts:
            return None
        if self._interactive_attempts and not self._was_asked:
            return None  # refused without a question: another attempt would end the same way
        self._interactive_attempts += 1
        return self._settings.login.interactive_devices

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
            shown = f"({self._settings.user}@{self._shown_host}) {foreign(prompt)}"
            ask = self._console.ask_line if echo else self._console.ask_secret
            answer = await ask(shown)
            if answer is None:
                return None
            answers.append(Typed(answer))
        return answers

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the agent."""
        self._ring.close()


def methods_to_try(settings: Settings) -> list[str]:
    """Return the authentication methods that the settings allow, in the preferred order."""
    interactive = not settings.batch_mode
    allowed = {
        "gssapi-with-mic": settings.login.gssapi,
        "hostbased": settings.login.hostbased,
        "publickey": settings.pubkey_authentication,
        "keyboard-interactive": settings.kbd_interactive_authentication and interactive,
        "password": settings.password_authentication and interactive,
    }
    order = settings.preferred_authentications or DEFAULT_METHODS
    return [method for method in order if allowed.get(method, False)]
