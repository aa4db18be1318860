"""The native way to carry X11: the SSH x11 channels (RFC 4254 §6.3), through a relay of ours.

The remote side only ever gets a random cookie. Each X client that arrives shows it, and the relay
puts the real one in its place, or refuses. A client that arrives before the local display is proved
waits for the verdict, and is told in X's own way if that is no.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from xsshpy.remote.xmessages import Authorization
from xsshpy.x11.local import COOKIE_NAME, LocalDisplay
from xsshpy.x11.relay import X11Relay
from xsshpy.x11.relayed_client import RelayedClient, RelayOptions

COOKIE_LENGTH = 16


class NativeForwarding:
    """The clients that come through x11 channels, from the first to the last."""

    def __init__(self, local: LocalDisplay) -> None:
        self.local = local
        self.cookie = secrets.token_bytes(COOKIE_LENGTH)
        self._relay: X11Relay | None = None
        self._doors: dict[bytes, Callable[[str], None]] = {}

    async def accept(self) -> RelayedClient:
        """Take one X client that arrived from the remote side; waits for the verdict."""
        real = await self.local.real_authorization()
        if self._relay is None:
            self._relay = X11Relay(
                RelayOptions(
                    open_server=self.local.open_server,
                    fake=Authorization(COOKIE_NAME, self.cookie),
                    real=real,
                    report=self.local.report,
                    expired=self.local.has_expired,
                    others=self._doors,
                )
            )
        return self._relay.build_client()

    def open_door(self, report: Callable[[str], None]) -> bytes:
        """Return a cookie for one of several sessions; ``report`` takes what its clients cause."""
        cookie = secrets.token_bytes(COOKIE_LENGTH)
        self._doors[cookie] = report
        return cookie

    async def wait_for_door(self, cookie: bytes) -> None:
        """Wait until the last client of a session is gone."""
        if self._relay is not None:
            await self._relay.wait_for_session(cookie)

    def close_door(self, cookie: bytes) -> None:
        """End a session's clients, and let no more of them in."""
        self._doors.pop(cookie, None)
        if self._relay is not None:
            self._relay.close_session(cookie)

    async def wait_until_idle(self) -> None:
        """Wait until the last X client is gone; ssh does not end before its windows do."""
        if self._relay is not None:
            await self._relay.wait_until_idle()

    async def close(self) -> None:
        """End all clients."""
        if self._relay is not None:
            await self._relay.aclose()
