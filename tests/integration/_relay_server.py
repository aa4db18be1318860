"""A display that is a relay: a port where X clients come in, in front of a real X server."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.support.xvfb import COOKIE_NAME, Xvfb, pack_authority_entry
from xsshpy.remote.xmessages import Authorization
from xsshpy.x11.relay import X11Relay
from xsshpy.x11.relayed_client import RelayedClient, RelayOptions

FAMILY_WILD = 65535


class _Channel(asyncio.Protocol):
    """A client's connection as a channel: an asyncio transport has what a ClientChannel needs."""

    def __init__(self, client: RelayedClient) -> None:
        self._client = client
        self.data_received = client.data_received  # type: ignore[method-assign]
        self.eof_received = client.eof_received  # type: ignore[method-assign]
        self.connection_lost = client.connection_lost  # type: ignore[method-assign]
        self.pause_writing = client.pause_writing  # type: ignore[method-assign]
        self.resume_writing = client.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._client.attach(transport)


@dataclass(frozen=True)
class Outcome:
    """What a client program said, and its exit status."""

    status: int
    output: str
    errors: str


class RelayedDisplay:
    """Listens on a free port of 127.0.0.1, as sshd does, and relays to ``server``.

    An async context manager. ``cookie`` is what clients must show; ``environment`` gives them
    ``shown``, the same unless a test wants it otherwise.
    """

    def __init__(self, directory: Path, server: Xvfb, shown: Authorization | None = None) -> None:
        self.server = server
        self.notices: list[str] = []
        self.cookie = Authorization(COOKIE_NAME, os.urandom(16))
        self.authority = directory / "relay-authority"
        self._shown = shown or self.cookie
        self.options = RelayOptions(
            open_server=self._open_server,
            fake=self.cookie,
            real=Authorization(COOKIE_NAME, server.cookie),
            report=self.notices.append,
        )

    async def _open_server(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX)
        opened.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(opened, self.server.socket_path)
        except BaseException:
            opened.close()
            raise
        return opened

    async def __aenter__(self) -> RelayedDisplay:
        entry = pack_authority_entry(FAMILY_WILD, b"", b"", self._shown.name, self._shown.data)
        self.authority.write_bytes(entry)
        self.authority.chmod(0o600)
        self.relay = X11Relay(self.options)
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _Channel(self.relay.build_client()), "127.0.0.1", 0
        )
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self.relay.aclose()
        await self._listener.wait_closed()

    def environment(self) -> dict[str, str]:
        """Return what a client of the relay has in its environment."""
        return {
            **os.environ,
            "DISPLAY": f"127.0.0.1:{self.port - 6000}",
            "XAUTHORITY": str(self.authority),
        }

    async def run(self, *argv: str, timeout: float = 30) -> Outcome:
        """Run a client of the relay to its end."""
        return await run_client(self.environment(), *argv, timeout=timeout)


async def run_client(environment: dict[str, str], *argv: str, timeout: float = 30) -> Outcome:
    """Run a program to its end, or kill it."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), timeout)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Outcome(process.returncode, output.decode(), errors.decode(errors="replace"))
