"""The X clients that come through x11 channels of one connection: who may come in, how many.

What becomes of each is :mod:`xsshpy.x11.relayed_client`'s. Here is what they have in common: the
cookies that let them in, the limit to their number, and the wait for the last of them.

Rules kept here:

* A cookie is compared in the same time whether it is right or not, and none is logged.
* Every wait for clients that have not said who they are has an end.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

from xsshpy.remote.xmessages import SetupRequest
from xsshpy.x11.rejections import (
    TIMEOUT_EXPIRED,
    TOO_MANY_CLIENTS,
    WRONG_AUTHENTICATION,
    Rejection,
)
from xsshpy.x11.relayed_client import RelayedClient, RelayOptions

WAITING_ROOM = 32
"""How many more are heard, so that they can be told why they are turned away."""


class X11Relay:
    """All X clients of one session. Call ``aclose`` at its end."""

    def __init__(self, options: RelayOptions) -> None:
        self.options = options
        self._clients: set[RelayedClient] = set()
        self._closed = False
        self._said_full = False
        self._watchers: set[asyncio.Event] = set()

    @property
    def open_clients(self) -> int:
        """How many clients are here, those not yet set up and those that are ending included."""
        return len(self._clients)

    def build_client(self) -> RelayedClient:
        """Return the session of one channel that the server is about to open."""
        return RelayedClient(self)

    def decide_rejection(self, setup: SetupRequest) -> Rejection | None:
        """Return why a client must not come in, or None."""
        if self.options.expired():
            return TIMEOUT_EXPIRED
        fake, shown = self.options.fake, setup.authorization
        right_name = hmac.compare_digest(fake.name, shown.name)
        if not right_name or self.find_cookie(shown.data) is None:
            return WRONG_AUTHENTICATION
        if len(self._clients) > self.options.max_clients:
            return TOO_MANY_CLIENTS
        return None

    def find_cookie(self, shown: bytes) -> bytes | None:
        """Return the cookie that a client shows, of those that let it in."""
        found = None
        for cookie in (self.options.fake.data, *self.options.others):
            if hmac.compare_digest(cookie, shown):
                found = cookie
        return found

    async def wait_for_session(self, cookie: bytes) -> None:
        """Wait until the last client that showed this cookie is gone."""
        waited = False
        while True:
            if any(client.cookie == cookie for client in self._clients):
                await self._wait_for_leaver()
            elif waited or not any(client.in_setup for client in self._clients):
                return
            else:
                waited = True
                await asyncio.sleep(self.options.setup_grace)

    def close_session(self, cookie: bytes) -> None:
        """Close all clients that showed this cookie."""
        for client in [each for each in self._clients if each.cookie == cookie]:
            client.close()

    async def wait_until_idle(self) -> None:
        """Wait until the last client is gone.

        Those that say nothing do not count: they have ``setup_grace`` to do so, and are closed.
        """
        while self._clients:
            if self._has_let_in():
                await self._wait_for_leaver()
            elif not (await self._became_empty(self.options.setup_grace) or self._has_let_in()):
                break
        for client in list(self._clients):
            client.close()

    async def aclose(self) -> None:
        """Close all clients, and wait until their sockets and tasks are gone."""
        self._closed = True
        for client in list(self._clients):
            client.close()
        if not await self._became_empty(self.options.linger):
            for client in list(self._clients):
                client.abort()
            await self._became_empty(self.options.linger)

    def _has_let_in(self) -> bool:
        return any(not client.in_setup for client in self._clients)

    async def _became_empty(self, timeout: float) -> bool:
        """Wait until no client is left; return False where that takes longer than ``timeout``."""
        try:
            await asyncio.wait_for(self._wait_until_empty(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    async def _wait_for_leaver(self) -> None:
        left = asyncio.Event()
        self._watchers.add(left)
        try:
            await left.wait()
        finally:
            self._watchers.discard(left)

    async def _wait_until_empty(self) -> None:
        while self._clients:
            await self._wait_for_leaver()

    def admit(self, client: RelayedClient) -> bool:
        """Let a client say who it is, unless so many do that the other host means no good."""
        if self._closed:
            return False
        if len(self._clients) >= self.options.max_clients + WAITING_ROOM:
            self.report(TOO_MANY_CLIENTS)
            return False
        self._clients.add(client)
        return True

    def forget(self, client: RelayedClient) -> None:
        """A client is gone, and its socket with it."""
        self._clients.discard(client)
        for watcher in self._watchers:
            watcher.set()
        if len(self._clients) < self.options.max_clients:
            self._said_full = False

    def report(self, rejection: Rejection, report: Callable[[str], None] | None = None) -> None:
        """Tell the user, of too many clients once as long as there are too many."""
        if rejection is TOO_MANY_CLIENTS:
            if self._said_full:
                return
            self._said_full = True
        (report or self.options.report)(rejection.notice)
