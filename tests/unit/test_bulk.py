"""The short way of bulk data, against asyncssh's own server: what takes it, and what does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, MSG_IGNORE
from asyncssh.packet import String, UInt32

from xsshpy.ssh.bulk import BulkChannel, BulkConnection
from xsshpy.ssh.window import FIRST_WINDOW

GCM = "aes128-gcm@openssh.com"
CIPHERS = [GCM, "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"]
KEY = asyncssh.generate_private_key("ssh-ed25519")
PACKET = 32 << 10
Serve = Callable[["asyncssh.SSHServerProcess[bytes]"], Awaitable[None]]


class Counting(BulkConnection):
    """Counts what goes the short way, and what is handed to the transport."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.short = 0
        self.writes = 0

    def _take_data(self, *args: Any) -> bool:
        taken = super()._take_data(*args)
        self.short += taken
        return taken

    def _send(self, data: bytes) -> None:
        super()._send(data)
        self.writes += self._outgoing is None


class Channel(BulkChannel, asyncssh.SSHClientChannel[bytes]):
    pass


class Receiver(asyncssh.SSHClientSession[bytes]):
    def __init__(self) -> None:
        self.data = bytearray()
        self.loss: Exception | None = None
        self.closed = asyncio.Event()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.data += data

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.loss = exc
        self.closed.set()


class Welcome(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


async def run(
    serve: Serve, send: bytes = b"", *, cipher: str = GCM, **more: Any
) -> tuple[Counting, Receiver]:
    """Log in to a server that serves a process with ``serve``; send it something, see its end."""
    loop = asyncio.get_running_loop()
    listener = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Welcome,
        server_host_keys=[KEY],
        process_factory=serve,
        encoding=None,
        gss_host=None,
    )
    options = asyncssh.SSHClientConnectionOptions(
        username="demo", config=None, known_hosts=None, client_keys=None, agent_path=None,
        gss_host=None, encryption_algs=[cipher], **more,
    )  # fmt: skip
    options.waiter = loop.create_future()
    _, connection = await loop.create_connection(
        lambda: Counting(loop, options, wait="auth"), "127.0.0.1", listener.get_port()
    )
    await options.waiter
    channel = Channel(connection, loop, "strict", None, "strict", FIRST_WINDOW, PACKET)
    session = Receiver()
    await channel._open(b"session")
    channel._session = session
    await channel._make_request(b"exec", String("x"))
    await channel._start_reading()
    connection.writes = 0
    if send:
        channel.write(send)
    channel.write_eof()
    await asyncio.wait_for(session.closed.wait(), 20)
    connection.abort()
    await connection.wait_closed()
    listener.close()
    await listener.wait_closed()
    return connection, session


async def echo(process: asyncssh.SSHServerProcess[bytes]) -> None:
    while data := await process.stdin.read(1 << 20):
        process.stdout.write(data)
    process.exit(0)


@pytest.mark.parametrize(
    "more", [{}, {"rekey_bytes": 1 << 20}, {"compression_algs": ["zlib@openssh.com"]}]
)
@pytest.mark.parametrize("cipher", CIPHERS)
def test_everything_arrives_as_it_was_sent(cipher: str, more: dict[str, Any]) -> None:
    data = os.urandom(2_500_003)
    connection, session = asyncio.run(run(echo, data, cipher=cipher, **more))
    assert session.data == data
    assert (connection.short > 30) == ("gcm" in cipher and "compression_algs" not in more)


def test_input_leaves_in_one_piece_and_without_empty_packets() -> None:
    ignored = 0

    async def count(process: asyncssh.SSHServerProcess[bytes]) -> None:
        connection: Any = process.channel.get_connection()

        def note(*_: object) -> None:
            nonlocal ignored
            ignored += 1

        connection._packet_handlers = {**connection._packet_handlers, MSG_IGNORE: note}
        await echo(process)

    connection, session = asyncio.run(run(count, os.urandom(10 * PACKET)))
    assert len(session.data) == 10 * PACKET
    assert ignored == 0
    assert connection.writes < 10


def crafted(*payloads: bytes, packet: int = MSG_CHANNEL_DATA) -> Serve:
    """Send packets to the client's channel, whatever the rules say."""

    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        connection = process.channel.get_connection()
        for payload in payloads:
            connection.send_packet(packet, payload)
        await process.stdin.read()
        await asyncio.sleep(10)

    return serve


DATA = b"x" * 1000


async def send_after_the_end(process: asyncssh.SSHServerProcess[bytes]) -> None:
    process.channel.get_connection().send_packet(MSG_CHANNEL_EOF, UInt32(0))
    await crafted(UInt32(0) + String(DATA))(process)


async def send_garbled(process: asyncssh.SSHServerProcess[bytes]) -> None:
    connection: Any = process.channel.get_connection()
    plain = connection._send

    def garble(data: bytes) -> None:
        plain(data[:500] + bytes([data[500] ^ 1]) + data[501:] if len(data) > 500 else data)

    connection._send = garble
    await crafted(UInt32(0) + String(DATA))(process)


async def send_too_much(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """As much as nobody can renew a window for while it arrives: in one packet."""
    connection: Any = process.channel.get_connection()
    connection.send_packet(MSG_CHANNEL_DATA, UInt32(0) + String(b"x" * (3 << 20)))
    await asyncio.sleep(10)


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (crafted(UInt32(0) + UInt32(900) + DATA), "Unexpected data"),
        (crafted(UInt32(0) + UInt32(1100) + DATA), "Incomplete packet"),
        (crafted(UInt32(9) + String(DATA)), "Invalid channel number"),
        (crafted(b"x" * 600, packet=MSG_IGNORE), "Incomplete packet"),
        (send_after_the_end, "Channel not open for sending"),
        (send_garbled, "MAC verification failed"),
        (send_too_much, "Max packet size exceeded"),
    ],
)
def test_what_breaks_the_rules_is_refused_as_asyncssh_refuses_it(serve: Serve, words: str) -> None:
    _, session = asyncio.run(run(serve))
    assert words in str(session.loss)
    assert not session.data


def test_data_beyond_the_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client renews no window here, so the third megabyte is one too many."""
    monkeypatch.setattr("xsshpy.ssh.window.ReceiveWindow.renewal", lambda *_: 0)
    monkeypatch.setattr(Channel, "_deliver_data", lambda *_: None)
    piece = UInt32(0) + String(b"x" * PACKET)
    _, session = asyncio.run(run(crafted(*[piece] * (FIRST_WINDOW // PACKET + 1))))
    assert "Window exceeded" in str(session.loss)
