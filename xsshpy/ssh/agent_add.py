"""AddKeysToAgent: a private key that was read for a login goes to the agent too.

As ssh does it (sshconnect.c, maybe_add_key_to_agent): as soon as the key has been read, whether or
not the login then succeeds; the plain key, never its certificate; a failure costs a debug line.
"""

from __future__ import annotations

import asyncssh
from asyncssh.packet import String

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.ssh.agent import AgentConnection, AgentError, KeyConstraints


class AgentAdder:
    """Adds keys to the agent that IdentityAgent names, as far as AddKeysToAgent wants it."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console

    async def add(self, path: str, key: asyncssh.SSHKey, comment: bytes) -> None:
        """Offer the agent the key that was read from ``path``; ``ask`` asks the user first."""
        mode = self._settings.login.add_keys_to_agent
        if mode == "no":
            return
        try:
            agent = await AgentConnection.open(self._settings.identity_agent)
        except OSError:
            self._console.debug(3, "no authentication agent, not adding key")
            return
        try:
            shown = comment.decode("utf-8", "replace")
            if mode == "ask" and not await self._console.ask_permission(
                f"Add key {path} ({shown}) to agent?"
            ):
                self._console.debug(3, "user denied adding this key")
                return
            await agent.add(
                String(key.algorithm) + key.encode_ssh_private(),
                comment,
                self._constraints(key),
            )
        except (AgentError, asyncssh.KeyExportError) as error:
            self._console.debug(1, f"could not add identity to agent: {path} ({error})")
        else:
            self._console.debug(1, f"identity added to agent: {path}")
        finally:
            agent.close()

    def _constraints(self, key: asyncssh.SSHKey) -> KeyConstraints:
        is_hosted = key.algorithm.startswith(b"sk-")
        return KeyConstraints(
            lifetime=self._settings.login.add_keys_lifetime,
            confirm=self._settings.login.add_keys_to_agent == "confirm",
            security_key_provider=self._settings.login.security_key_provider if is_hosted else "",
        )
