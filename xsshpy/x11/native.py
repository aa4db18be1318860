"""The native way to carry X11: the SSH x11 channels (RFC 4254 §6.3), through a relay of ours.

The remote side only ever gets a random cookie. Each X client that arrives shows it, and the relay
puts the real one in its place, or refuses. Whether the local display works is proved meanwhile in
a child process; the proof never holds up the connection: a client that arrives before the verdict
waits for it, and is told in X's own way if the verdict is no.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xsshpy.errors import DisplayError
from xsshpy.remote.xmessages import Authorization
from xsshpy.x11.access import Access, Refusal, decide_access
from xsshpy.x11.authority import AuthorityEntry, find_authority_files, find_cookie
from xsshpy.x11.display import Display, open_display, parse_display, resolve_addresses
from xsshpy.x11.relay import RelayedClient, RelayOptions, X11Relay
from xsshpy.x11.verify import DisplayProbe

COOKIE_NAME = b"MIT-MAGIC-COOKIE-1"
COOKIE_LENGTH = 16
VERDICT_PATIENCE = 3.0
"""Seconds from the start of the proof after which a session goes on without its verdict."""
VERDICT_DEADLINE = 20.0
"""Seconds by which every proof has ended: XQuartz, started by it, takes up to twelve."""
_CONNECT_DEADLINE = 15.0


@dataclass(frozen=True)
class X11Policy:
    """What the user's settings say about X11; ``timeout`` is ForwardX11Timeout in seconds."""

    trusted: bool
    explicit: bool
    timeout: int


class NativeForwarding:
    """The local end of X11 for one run, from the proof of the display to the last client."""

    def __init__(
        self,
        display: Display,
        entry: AuthorityEntry | None,
        probe: DisplayProbe,
        policy: X11Policy,
        report: Callable[[str], None],
    ) -> None:
        self._display = display
        self._entry = entry
        self._probe = probe
        self._policy = policy
        self._report = report
        self._started = asyncio.get_running_loop().time()
        self._expires: float | None = None
        self._access: asyncio.Task[Access | Refusal] = asyncio.create_task(self._decide())
        self.cookie = secrets.token_bytes(COOKIE_LENGTH)
        self._relay: X11Relay | None = None

    @classmethod
    async def prepare(
        cls, environ: Mapping[str, str], policy: X11Policy, report: Callable[[str], None]
    ) -> NativeForwarding:
        """Find the display and its cookie and begin to prove that it works; returns at once.

        ``report`` takes lines for the user. Raises DisplayError where DISPLAY is unset or
        malformed.
        """
        display = parse_display(environ.get("DISPLAY", ""))
        addresses = () if display.is_local else await resolve_addresses(display, timeout=3.0)
        files = find_authority_files(environ, os.getuid())
        found = find_cookie(display, files, socket.gethostname(), addresses=addresses)
        for note in found.notes:
            report(note)
        probe = await DisplayProbe.start(
            display,
            found.entry,
            want_untrusted=not policy.trusted,
            untrusted_timeout=policy.timeout,
            environ=environ,
            deadline=VERDICT_DEADLINE,
        )
        return cls(display, found.entry, probe, policy, report)

    @property
    def screen(self) -> int:
        """The screen that DISPLAY names."""
        return self._display.screen

    async def is_wanted(self) -> bool:
        """Say whether X11 is to be requested now: yes, unless the display is known not to work."""
        waited = asyncio.get_running_loop().time() - self._started
        patience = max(0.0, VERDICT_PATIENCE - waited)
        await asyncio.wait({self._access}, timeout=patience)
        if self._access.done():
            return isinstance(self._access.result(), Access)
        if not self._display.is_launchd:  # XQuartz, started by the proof, takes its time
            self._report(
                f"xssh: X11: display {self._display.name} has not answered yet; "
                "try: see whether the X server hangs, or -x to do without it"
            )
        return True

    async def describe(self) -> str:
        """Return what is known of the local server, for -v; an empty string before the verdict."""
        verdict = await self._probe.verdict(0)
        return verdict.facts.describe() if verdict is not None and verdict.facts else ""

    async def _decide(self) -> Access | Refusal:
        verdict = await self._probe.verdict()
        if verdict is None:
            return Refusal(DisplayError("xssh: X11: the proof of the display was called off"))
        decision = decide_access(
            verdict,
            self._entry,
            forward_x11_trusted=self._policy.trusted,
            explicit=self._policy.explicit,
            timeout=self._policy.timeout,
        )
        for line in decision.lines:
            self._report(line)
        if isinstance(decision, Access) and decision.expires_after is not None:
            self._expires = asyncio.get_running_loop().time() + decision.expires_after
        return decision

    async def accept(self) -> RelayedClient:
        """Take one X client that arrived from the remote side; waits for the verdict."""
        if self._relay is None:
            decision = await asyncio.shield(self._access)
            # Another client may have arrived while this one waited.
            self._relay = self._relay or self._build_relay(decision)
        return self._relay.build_client()

    def _build_relay(self, decision: Access | Refusal) -> X11Relay:
        real = decision.cookie if isinstance(decision, Access) else None

        async def open_server() -> socket.socket:
            if isinstance(decision, Refusal):
                raise decision.error
            return await open_display(self._display, timeout=_CONNECT_DEADLINE)

        return X11Relay(
            RelayOptions(
                open_server=open_server,
                fake=Authorization(COOKIE_NAME, self.cookie),
                real=None if real is None else Authorization(COOKIE_NAME, real),
                report=self._report,
                expired=self._has_expired,
            )
        )

    def _has_expired(self) -> bool:
        return self._expires is not None and asyncio.get_running_loop().time() >= self._expires

    async def wait_until_idle(self) -> None:
        """Wait until the last X client is gone; ssh does not end before its windows do."""
        if self._relay is not None:
            await self._relay.wait_until_idle()

    async def close(self) -> None:
        """End all clients and the proof; revoke what was granted."""
        self._access.cancel()
        await asyncio.gather(self._access, return_exceptions=True)
        if self._relay is not None:
            await self._relay.aclose()
        await self._probe.close()
