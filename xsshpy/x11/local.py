"""The local display as one run needs it: found, proved, and open to the other host's clients.

Whether the display works is proved in a child process while the connection is made; the proof never
holds that up. What comes of it, trusted or untrusted access, holds for either way to carry X11.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from xsshpy.errors import DisplayError
from xsshpy.remote.xmessages import Authorization
from xsshpy.values import dataclass
from xsshpy.x11.access import Access, Refusal, decide_access
from xsshpy.x11.authority import AuthorityEntry, find_authority_files, find_cookie
from xsshpy.x11.display import Display, open_display, parse_display, resolve_addresses
from xsshpy.x11.verify import DisplayProbe

COOKIE_NAME = b"MIT-MAGIC-COOKIE-1"
VERDICT_PATIENCE = 3.0
"""Seconds from the start of the proof after which a session goes on without its verdict."""
VERDICT_DEADLINE = 20.0
"""Seconds by which every proof has ended: XQuartz, started by it, takes up to twelve."""
_CONNECT_DEADLINE = 15.0
"""Seconds for the X server to let a connection in."""


@dataclass(frozen=True)
class X11Policy:
    """What the user's settings say about X11; ``timeout`` is ForwardX11Timeout in seconds.

    ``more`` gives the words that say how to find out more, where the display does not work.
    """

    trusted: bool
    explicit: bool
    timeout: int
    more: Callable[[], str]


class LocalDisplay:
    """The local end of X11 for one run, from the proof of the display to its end."""

    def __init__(
        self,
        display: Display,
        entry: AuthorityEntry | None,
        probe: DisplayProbe,
        policy: X11Policy,
        report: Callable[[str], None],
    ) -> None:
        self.report = report
        self._display = display
        self._entry = entry
        self._probe = probe
        self._policy = policy
        self._started = asyncio.get_running_loop().time()
        self._expires: float | None = None
        self._access: asyncio.Task[Access | Refusal] = asyncio.create_task(self._decide())

    @classmethod
    async def prepare(
        cls, environ: Mapping[str, str], policy: X11Policy, report: Callable[[str], None]
    ) -> LocalDisplay:
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
            self.report(
                f"xssh: X11: display {self._display.name} has not answered yet; "
                "try: see whether the X server hangs, or -x to do without it"
            )
        return True

    @property
    def is_refused(self) -> bool:
        """Whether the display is known not to work."""
        return self._access.done() and not isinstance(self._access.result(), Access)

    async def describe(self) -> str:
        """Return what is known of the local server, for -v; an empty string before the verdict."""
        verdict = await self._probe.verdict(0)
        return verdict.facts.describe() if verdict is not None and verdict.facts else ""

    async def access(self) -> Access | Refusal:
        """Return how clients may come in; waits for the verdict."""
        return await asyncio.shield(self._access)

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
            refused = isinstance(decision, Refusal)
            self.report(f"{line}; {self._policy.more()}" if refused else line)
        if isinstance(decision, Access) and decision.expires_after is not None:
            self._expires = asyncio.get_running_loop().time() + decision.expires_after
        return decision

    async def open_server(self) -> socket.socket:
        """Connect to the X server. Raises DisplayError where the display does not work."""
        decision = await self.access()
        if isinstance(decision, Refusal):
            raise decision.error
        return await open_display(self._display, timeout=_CONNECT_DEADLINE)

    async def real_authorization(self) -> Authorization | None:
        """Return what the X server wants to see of clients; None where it wants nothing."""
        decision = await self.access()
        cookie = decision.cookie if isinstance(decision, Access) else None
        return None if cookie is None else Authorization(COOKIE_NAME, cookie)

    @property
    def expires_in(self) -> float | None:
        """Seconds until new clients come too late; None where they never do."""
        if self._expires is None:
            return None
        return max(0.0, self._expires - asyncio.get_running_loop().time())

    def has_expired(self) -> bool:
        """Tell whether new clients come too late (ForwardX11Timeout)."""
        return self._expires is not None and asyncio.get_running_loop().time() >= self._expires

    async def close(self) -> None:
        """End the proof; revoke what was granted."""
        self._access.cancel()
        await asyncio.gather(self._access, return_exceptions=True)
        await self._probe.close()
