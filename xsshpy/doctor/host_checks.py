"""The way to the server: its name, its port, its key, the login.

The login is made once, as a session makes it, with its questions, and beside the checks of name and
port; the checks read from its outcome which link held. No shared connection is used: what is wrong
with one would be taken for the way's own fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from xsshpy.console import Console, LogLevel
from xsshpy.doctor.examination import Check, describe_error
from xsshpy.doctor.findings import Opinion, broken, well
from xsshpy.errors import HostKeyError, XsshError
from xsshpy.resolver import Address, resolve
from xsshpy.settings import Invocation, Settings
from xsshpy.ssh.greeting import REFUSALS
from xsshpy.ssh.resolve import resolve_settings
from xsshpy.values import dataclass, field

if TYPE_CHECKING:
    from xsshpy.ssh.connect import Session

PORT_DEADLINE = 10.0
"""How long one address may take for its connection and its greeting (seconds)."""

LOGIN_DEADLINE = 300.0
"""The login's: someone may have to look for a password (seconds)."""

_MOST_ADDRESSES = 4
_GREETING_LIMIT = 8192


@dataclass
class HostSide:
    """What the checks of the connection look at, and the session that they end with."""

    invocation: Invocation
    environ: Mapping[str, str]
    console: Console
    settings: Settings | None = None
    session: Session | None = None
    _addresses: list[Address] = field(default_factory=list)
    _login: asyncio.Task[Session] | None = None

    def checks(self) -> list[Check]:
        """Return the checks, each after those it needs."""
        return [
            Check(
                "host.settings",
                "ssh_config",
                self._look_at_settings,
                deadline=60.0,
                explained_by=("local.limits",),
            ),
            Check("host.name", "name", self._look_at_name, needs=("host.settings",)),
            Check(
                "host.port",
                "port",
                self._look_at_port,
                needs=("host.name",),
                deadline=_MOST_ADDRESSES * PORT_DEADLINE,
            ),
            Check(
                "host.key",
                "host key",
                self._look_at_host_key,
                needs=("host.port",),
                deadline=LOGIN_DEADLINE,
            ),
            Check(
                "host.login",
                "login",
                self._look_at_login,
                needs=("host.key",),
                deadline=LOGIN_DEADLINE,
            ),
        ]

    async def close(self) -> None:
        """End the session, or the attempt."""
        if self._login is None:
            return
        self._login.cancel()
        ended = (await asyncio.gather(self._login, return_exceptions=True))[0]
        if not isinstance(ended, BaseException):
            await ended.close()

    async def _look_at_settings(self) -> Opinion:
        self.settings = settings = await resolve_settings(
            self.invocation, self.environ, self.console
        )
        self.console.batch_mode = self.console.batch_mode or settings.batch_mode
        if self.console.level == LogLevel.INFO:
            self.console.level = LogLevel.parse(settings.log_level)
        self._begin_login()  # meanwhile the name and the port are looked at by themselves
        return well(f"{settings.user}@{settings.hostname}, port {settings.port}{_way(settings)}")

    async def _look_at_name(self) -> Opinion:
        assert self.settings is not None
        settings = self.settings
        if settings.proxy_jump or settings.proxy_command:
            return well("left to the proxy")
        try:
            self._addresses = await resolve(
                settings.hostname, settings.port, int(settings.address_family)
            )
        except OSError as error:
            return broken(
                f"{settings.hostname}: {error.strerror or error}",
                remedy="look at the spelling, at HostName in ssh_config, and whether a VPN is on",
            )
        return well(", ".join(address.numeric for address in self._addresses[:_MOST_ADDRESSES]))

    async def _look_at_port(self) -> Opinion:
        assert self.settings is not None
        if not self._addresses:
            return well("left to the proxy")
        refused: list[str] = []
        for address in self._addresses[:_MOST_ADDRESSES]:
            try:
                seconds, greeting = await asyncio.wait_for(_greet(address), PORT_DEADLINE)
            except (TimeoutError, asyncio.TimeoutError):
                refused.append(f"{address.numeric}: no answer within {PORT_DEADLINE:g} seconds")
                continue
            except OSError as error:
                refused.append(f"{address.numeric}: {os.strerror(error.errno or 0)}")
                continue
            if greeting in REFUSALS:
                return broken(f"the server says: {greeting}", remedy=REFUSALS[greeting])
            if not greeting.startswith("SSH-"):
                return broken(
                    f"what listens on port {self.settings.port} is no SSH server: {greeting!r}",
                    remedy="give the right port with -p, or Port in ssh_config",
                )
            return well(f"{greeting}, {seconds * 1000:.0f} ms away")
        return broken(
            *refused,
            remedy=f"see whether an SSH server listens on port {self.settings.port}, and whether a "
            "firewall or a VPN stands between",
        )

    async def _look_at_host_key(self) -> Opinion:
        try:
            await self._log_in()
        except HostKeyError as error:
            return describe_error(error)
        except XsshError:
            pass  # the login's own check tells
        return well("as on record")

    async def _look_at_login(self) -> Opinion:
        self.session = await self._log_in()
        return well(f"as {self.session.settings.user}, on a connection of the doctor's own")

    def _begin_login(self) -> None:
        from xsshpy.ssh.connect import connect

        assert self.settings is not None
        self._login = asyncio.create_task(
            connect(self.settings, self.invocation, self.console, self.environ)
        )

    async def _log_in(self) -> Session:
        assert self._login is not None
        return await asyncio.shield(self._login)


def _way(settings: Settings) -> str:
    if settings.proxy_jump:
        return f", by way of {', '.join(settings.proxy_jump)}"
    return ", by ProxyCommand" if settings.proxy_command else ""


async def _greet(address: Address) -> tuple[float, str]:
    """Return how long a connection takes (seconds), and the line a server greets with."""
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    with socket.socket(address.family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address.address)
        seconds = time.monotonic() - started
        said = b""
        # Lines may stand before the version (RFC 4253 §4.2).
        while not any(line.startswith(b"SSH-") for line in said.splitlines()):
            piece = await loop.sock_recv(sock, 1024)
            said += piece
            if not piece or len(said) > _GREETING_LIMIT:
                break
        with contextlib.suppress(OSError):
            await loop.sock_sendall(sock, b"SSH-2.0-xssh_doctor\r\n")
    lines = said.decode("latin-1").splitlines()
    version = next((line for line in lines if line.startswith("SSH-")), "".join(lines[:1]))
    return seconds, version[:255].strip()
