"""The relay between channels and an X server, which is the far end of a socket here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support import xstreams as x
from tests.support.loops import until
from xsshpy.errors import DisplayError
from xsshpy.remote.xmessages import Authorization, ByteOrder, build_setup_failed
from xsshpy.x11.relay import WAITING_ROOM, X11Relay
from xsshpy.x11.relayed_client import RelayedClient, RelayOptions

FAKE = x.COOKIE
REAL = Authorization(b"MIT-MAGIC-COOKIE-1", b"the real cookie!")
LITTLE = ByteOrder.LITTLE
WRONG = "X11 connection rejected because of wrong authentication."
WRONG_REASON = b"xssh: X11 connection rejected because of wrong authentication\n"


class Channel:
    """A channel that remembers what it was told, and delivers to its client as SSH would."""

    def __init__(self, client: RelayedClient) -> None:
        self.client = client
        self.sent = b""
        self.told: list[str] = []
        self.paused = False
        self.fails = False
        self.waiting: list[bytes] = []
        client.attach(self)

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data
        if self.fails or "close" in self.told:
            raise BrokenPipeError("Channel not open for sending")
        self.sent += data

    def write_eof(self) -> None:
        if "eof" not in self.told:
            self.told.append("eof")

    def close(self) -> None:
        if "close" not in self.told:
            self.told.append("close")
            asyncio.get_running_loop().call_soon(self.client.connection_lost, None)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        while self.waiting and not self.paused:
            self.client.data_received(self.waiting.pop(0))

    def deliver(self, data: bytes) -> None:
        if self.paused:
            self.waiting.append(data)
        else:
            self.client.data_received(data)


class Stage:
    """A relay, the far ends of the sockets it opened, and what it reported."""

    def __init__(self, **options: object) -> None:
        self.notices: list[str] = []
        self.servers: list[socket.socket] = []
        given: dict[str, object] = {
            "open_server": self.open_server,
            "fake": FAKE,
            "real": REAL,
            "report": self.notices.append,
        }
        self.relay = X11Relay(RelayOptions(**{**given, **options}))  # type: ignore[arg-type]

    async def open_server(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.servers.append(theirs)
        return ours

    def channel(self) -> Channel:
        return Channel(self.relay.build_client())

    async def read(self, length: int) -> bytes:
        """Read from the far end of the newest socket."""
        loop, data = asyncio.get_running_loop(), b""
        while len(data) < length:
            reading = loop.sock_recv(self.servers[-1], length - len(data))
            piece = await asyncio.wait_for(reading, 10)
            if not piece:
                break
            data += piece
        return data

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.servers[-1], data)

    async def connected(self, order: ByteOrder = LITTLE) -> Channel:
        """Bring a client to the point where the server let it in."""
        channel, before = self.channel(), len(self.servers)
        channel.deliver(x.setup(order))
        await until(lambda: len(self.servers) > before)
        assert await self.read(len(x.setup(order, REAL))) == x.setup(order, REAL)
        await self.write(x.setup_success(order))
        await until(lambda: channel.sent == x.setup_success(order))
        channel.sent = b""
        return channel


@contextlib.asynccontextmanager
async def staged(**options: object) -> AsyncIterator[Stage]:
    """Run a stage; afterwards nothing of it may be left in the loop."""
    stage = Stage(**options)
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    try:
        yield stage
    finally:
        await stage.relay.aclose()
        for server in stage.servers:
            server.close()
    assert stage.relay.open_clients == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not failures


def run(test: Callable[[], object]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


@pytest.fixture(params=list(ByteOrder), ids=lambda order: order.name)
def order(request: pytest.FixtureRequest) -> ByteOrder:
    return request.param


# -- the door --


@pytest.mark.parametrize(
    "shown",
    [
        Authorization(FAKE.name, bytes(16)),
        Authorization(FAKE.name, FAKE.data[:-1]),
        Authorization(FAKE.name, FAKE.data + b"\0"),
        Authorization(FAKE.name, b""),
        Authorization(b"", b""),
        Authorization(b"XDM-AUTHORIZATION-1", FAKE.data),
    ],
)
def test_a_wrong_cookie_is_refused_in_the_clients_order(order, shown):
    async def test():
        async with staged() as stage:
            channel = stage.channel()
            channel.deliver(x.setup(order, shown) + x.request(order, 127) * 9)
            assert channel.sent == build_setup_failed(order, WRONG_REASON)
            assert channel.told == ["eof", "close"]
            assert stage.notices == [WRONG]
            assert stage.relay.open_clients == 0
            channel.client.data_received(b"more")
            assert stage.servers == []

    run(test)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100, b"\x16\x03\x01"])
def test_garbage_is_refused_without_an_answer(garbage):
    async def test():
        async with staged() as stage:
            channel = stage.channel()
            channel.deliver(garbage)
            assert (channel.sent, channel.told) == (b"", ["eof", "close"])
            assert stage.notices == [WRONG]

    run(test)


def test_a_long_setup_is_refused_with_its_header(order):
    async def test():
        async with staged() as stage:
            channel = stage.channel()
            channel.deliver(struct.pack(order.value + "cxHHHHxx", order.mark, 11, 0, 18, 60000))
            assert channel.sent == build_setup_failed(order, WRONG_REASON)
            assert stage.notices == [WRONG]

    run(test)


@pytest.mark.parametrize("begun", [b"", b"l", x.setup(LITTLE)[:-1]])
def test_a_setup_that_never_ends(begun):
    async def test():
        async with staged(setup_timeout=0.05) as stage:
            channel = stage.channel()
            if begun:
                channel.deliver(begun)
            await until(lambda: "close" in channel.told)
            reason = b"xssh: X11 connection rejected: setup took too long\n"
            assert channel.sent == (build_setup_failed(LITTLE, reason) if begun else b"")
            assert len(stage.notices) == 1

    run(test)


def test_a_setup_that_ends_early():
    async def test():
        async with staged() as stage:
            channel = stage.channel()
            channel.deliver(x.setup(LITTLE)[:-1])
            assert channel.client.eof_received() is True
            assert (channel.sent, channel.told, stage.notices) == (b"", ["eof", "close"], [])

    run(test)


def test_after_the_timeout_of_untrusted_forwarding():
    async def test():
        late = False
        async with staged(expired=lambda: late) as stage:
            first = await stage.connected()
            late = True
            second = stage.channel()
            second.deliver(x.setup(LITTLE))
            reason = b"xssh: X11 connection rejected after ForwardX11Timeout expired\n"
            assert second.sent == build_setup_failed(LITTLE, reason)
            assert stage.notices == ["Rejected X11 connection after ForwardX11Timeout expired"]
            assert first.told == [], "what is open stays open"

    run(test)


def test_too_many_clients():
    async def test():
        async with staged(max_clients=1) as stage:
            await stage.connected()
            second = stage.channel()
            second.deliver(x.setup(LITTLE))
            assert second.sent.startswith(b"\0")
            assert len(stage.notices) == 1
            assert stage.relay.open_clients == 1

    run(test)


def test_channels_that_say_nothing_are_limited_too():
    async def test():
        async with staged(max_clients=2) as stage:
            channels = [stage.channel() for _ in range(200)]
            assert stage.relay.open_clients == 2 + WAITING_ROOM
            assert [channel.told for channel in channels[2 + WAITING_ROOM :]] == [
                ["eof", "close"]
            ] * (198 - WAITING_ROOM)
            channels[0].deliver(x.setup(LITTLE))
            assert channels[0].sent.startswith(b"\0"), "told why"
            assert stage.notices == ["xssh: X11 connection rejected: too many are open"]
            for channel in channels:
                channel.client.connection_lost(None)
            await stage.connected()
            assert len(stage.notices) == 1

    run(test)


# -- the X server at the beginning --


async def refused() -> socket.socket:
    raise ConnectionRefusedError(111, "Connection refused", "/tmp/.X11-unix/X9")


async def no_display() -> socket.socket:
    raise DisplayError("xssh: the display is gone: no such file\nevidence")


async def broken() -> socket.socket:
    raise KeyError("bug")


async def never() -> socket.socket:
    await asyncio.sleep(3600)
    raise AssertionError


@pytest.mark.parametrize(
    ("opener", "cause"),
    [
        (refused, "Connection refused"),
        (no_display, "xssh: the display is gone: no such file"),
        (broken, "'bug'"),
        (never, "Connection timed out"),
    ],
)
def test_a_server_that_cannot_be_reached(order, opener, cause):
    async def test():
        async with staged(open_server=opener, setup_timeout=0.05) as stage:
            channel = stage.channel()
            channel.deliver(x.setup(order))
            await until(lambda: "close" in channel.told)
            reason = b"xssh: the local X server cannot be reached\n"
            assert channel.sent == build_setup_failed(order, reason)
            assert stage.notices == [f"xssh: X11 connection failed: local X server: {cause}"]

    run(test)


def test_the_cookie_is_swapped_and_nothing_else(order):
    async def test():
        async with staged() as stage:
            channel = stage.channel()
            early = x.request(order, 43) * 3
            for part in x.pieces(x.setup(order) + early, 7):
                channel.deliver(part)
            expected = x.setup(order, REAL) + early
            await until(lambda: bool(stage.servers))
            assert await stage.read(len(expected)) == expected
            assert FAKE.data not in expected

    run(test)


def test_a_server_without_authorization(order):
    async def test():
        async with staged(real=None) as stage:
            channel = stage.channel()
            channel.deliver(x.setup(order))
            await until(lambda: bool(stage.servers))
            assert await stage.read(12) == x.setup(order, Authorization(b"", b""))

    run(test)


def test_a_server_that_does_not_want_the_client():
    async def test():
        async with staged() as stage:
            channel = stage.channel()
            channel.deliver(x.setup(LITTLE))
            await until(lambda: bool(stage.servers))
            answer = build_setup_failed(LITTLE, b"Invalid \x1b[1mMIT-MAGIC-COOKIE-1 key")
            await stage.write(answer)
            await until(lambda: "close" in channel.told)
            assert channel.sent == answer
            said = "Invalid  [1mMIT-MAGIC-COOKIE-1 key"
            assert stage.notices == [
                f"xssh: X11 connection closed: the local X server said: {said}"
            ]

    run(test)


def test_a_client_waits_while_the_server_is_asked():
    async def test():
        async with staged(open_server=never) as stage:
            channel = stage.channel()
            channel.deliver(x.setup(LITTLE))
            assert channel.paused

    run(test)


def test_a_client_that_leaves_while_the_server_is_asked():
    async def test():
        async with staged(open_server=never) as stage:
            channel = stage.channel()
            channel.deliver(x.setup(LITTLE))
            await asyncio.sleep(0.01)
            channel.client.connection_lost(None)
            await until(lambda: stage.relay.open_clients == 0)
            assert stage.notices == []

    run(test)


def test_a_client_that_ends_while_the_server_is_asked():
    async def test():
        async with staged() as stage:
            channel = stage.channel()
            channel.deliver(x.setup(LITTLE) + x.request(LITTLE, 127))
            channel.client.eof_received()
            await until(lambda: bool(stage.servers))
            expected = x.setup(LITTLE, REAL) + x.request(LITTLE, 127)
            assert await stage.read(len(expected) + 1) == expected

    run(test)


# -- the middle --


def test_bytes_pass_both_ways_and_extensions_are_hidden(order):
    async def test():
        async with staged() as stage:
            channel = await stage.connected(order)
            asked = x.query(order, b"MIT-SHM") + x.query(order, b"GLX")
            channel.deliver(asked)
            assert await stage.read(len(asked)) == asked
            await stage.write(x.present(order, 1) + x.present(order, 2))
            expected = x.absent(order, 1) + x.present(order, 2)
            await until(lambda: channel.sent == expected)
            assert stage.notices == []

    run(test)


def test_a_client_that_breaks_the_protocol_ends_alone():
    async def test():
        async with staged() as stage:
            bystander = await stage.connected()
            channel = await stage.connected()
            before = x.request(LITTLE, 127) * 5
            channel.deliver(before + bytes(8))
            assert await stage.read(len(before) + 1) == before
            assert channel.told == ["eof", "close"]
            assert len(stage.notices) == 1
            assert "without BIG-REQUESTS" in stage.notices[0]
            assert bystander.told == []
            await until(lambda: stage.relay.open_clients == 1)

    run(test)


def test_a_server_that_hangs_stops_the_client():
    async def test():
        async with staged(linger=0.1) as stage:
            channel = await stage.connected()
            image = x.request(LITTLE, 72, bytes(200_000))
            sent = 0
            while not channel.paused:
                channel.deliver(image)
                sent += len(image)
                assert sent < 4_000_000, "the client is never paused"
            channel.deliver(image)
            sent += len(image)
            assert len(await stage.read(sent)) == sent
            await until(lambda: not channel.paused)
            assert channel.waiting == []

    run(test)


def test_a_channel_that_is_full_stops_the_server():
    async def test():
        async with staged() as stage:
            channel = await stage.connected()
            channel.client.pause_writing()
            stage.servers[-1].setblocking(False)
            sent = 0
            with pytest.raises(BlockingIOError):
                while sent < 10_000_000:
                    sent += stage.servers[-1].send(x.keymap_notify() * 1000)
            await asyncio.sleep(0.05)
            assert len(channel.sent) == 0
            channel.client.resume_writing()
            await until(lambda: len(channel.sent) == sent)

    run(test)


def test_a_channel_that_is_full_before_the_server_is_there():
    async def test():
        async with staged() as stage:
            channel = stage.channel()
            channel.deliver(x.setup(LITTLE))
            channel.client.pause_writing()
            await until(lambda: bool(stage.servers))
            await stage.write(x.setup_success(LITTLE))
            await asyncio.sleep(0.05)
            assert channel.sent == b""
            channel.client.resume_writing()
            await until(lambda: channel.sent == x.setup_success(LITTLE))

    run(test)


# -- the end --


def test_a_client_that_ends_still_gets_its_answers():
    async def test():
        async with staged() as stage:
            channel = await stage.connected()
            channel.deliver(x.request(LITTLE, 43))
            assert channel.client.eof_received() is True
            assert await stage.read(5) == x.request(LITTLE, 43)
            await stage.write(x.reply(LITTLE, 1))
            await until(lambda: channel.sent == x.reply(LITTLE, 1))
            assert channel.told == []
            stage.servers[-1].close()
            await until(lambda: channel.told == ["eof", "close"])
            await until(lambda: stage.relay.open_clients == 0)
            assert stage.notices == []

    run(test)


def test_a_server_that_vanishes():
    async def test():
        async with staged() as stage:
            channel = await stage.connected()
            await stage.write(x.event(LITTLE, 12, 0))
            stage.servers[-1].close()
            await until(lambda: channel.told == ["eof", "close"])
            assert channel.sent == x.event(LITTLE, 12, 0), "what it said last arrives"
            await until(lambda: stage.relay.open_clients == 0)

    run(test)


def test_a_channel_that_vanishes_leaves_its_last_requests_to_the_server():
    async def test():
        async with staged() as stage:
            channel = await stage.connected()
            image = x.request(LITTLE, 72, bytes(250_000)) * 4
            channel.deliver(image)
            channel.client.connection_lost(ConnectionResetError())
            assert stage.relay.open_clients == 1
            assert len(await stage.read(len(image) + 1)) == len(image)
            await until(lambda: stage.relay.open_clients == 0)

    run(test)


def test_a_server_that_hangs_is_left_in_the_end():
    async def test():
        async with staged(linger=0.1) as stage:
            channel = await stage.connected()
            channel.deliver(x.request(LITTLE, 72, bytes(250_000)) * 8)
            channel.client.connection_lost(None)
            await until(lambda: stage.relay.open_clients == 0)

    run(test)


def test_a_channel_that_was_closed_by_the_other_host():
    async def test():
        async with staged() as stage:
            channel = await stage.connected()
            channel.fails = True
            await stage.write(x.event(LITTLE, 12, 0) * 10)
            await until(lambda: stage.relay.open_clients == 0)
            channel.client.data_received(x.request(LITTLE, 127))
            channel.client.eof_received()
            channel.client.pause_writing()
            channel.client.resume_writing()
            channel.client.connection_lost(None)

    run(test)


def test_a_refusal_that_nobody_takes():
    async def test():
        async with staged() as stage:
            channel = stage.channel()
            channel.fails = True
            channel.deliver(x.setup(LITTLE, Authorization(b"", b"")))
            assert stage.notices == [WRONG]
            assert stage.relay.open_clients == 0

    run(test)


def test_the_wait_for_windows_is_not_for_channels_that_say_nothing():
    async def test():
        async with staged(setup_grace=0.05) as stage:
            window = await stage.connected()
            silent = [stage.channel() for _ in range(3)]
            silent[0].deliver(x.setup(LITTLE)[:9])
            waiting = asyncio.ensure_future(stage.relay.wait_until_idle())
            await asyncio.sleep(0.2)
            assert not waiting.done(), "the window is still open"
            assert [channel.told for channel in silent] == [[]] * 3
            window.client.connection_lost(None)
            await asyncio.wait_for(waiting, 5)
            assert [channel.told for channel in silent] == [["eof", "close"]] * 3

    run(test)


def test_the_wait_for_windows_is_for_one_that_is_just_opening():
    async def test():
        async with staged(setup_grace=0.3) as stage:
            channel = stage.channel()
            waiting = asyncio.ensure_future(stage.relay.wait_until_idle())
            await asyncio.sleep(0.05)
            channel.deliver(x.setup(LITTLE))
            await until(lambda: bool(stage.servers))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            channel.client.connection_lost(None)
            await asyncio.wait_for(waiting, 5)

    run(test)


def test_the_wait_for_windows_ends_with_the_last_that_said_nothing():
    async def test():
        async with staged(setup_grace=60) as stage:
            channel = stage.channel()
            waiting = asyncio.ensure_future(stage.relay.wait_until_idle())
            await asyncio.sleep(0.01)
            assert not waiting.done()
            channel.client.connection_lost(None)
            await asyncio.wait_for(waiting, 5)
            await asyncio.wait_for(stage.relay.wait_until_idle(), 5)

    run(test)


def test_the_end_of_the_session_in_every_state():
    async def test():
        async with staged(linger=0.1) as stage:
            hung = await stage.connected()
            hung.deliver(x.request(LITTLE, 72, bytes(250_000)) * 8)
            calm = await stage.connected()
            silent = stage.channel()
            asking = stage.channel()
            asking.deliver(x.setup(LITTLE))
            assert stage.relay.open_clients == 4
            await stage.relay.aclose()
            assert stage.relay.open_clients == 0
            for channel in (hung, calm, silent, asking):
                assert channel.told == ["eof", "close"]
            late = stage.channel()
            assert late.told == ["eof", "close"]
            await stage.relay.aclose()

    run(test)


def test_secrets_are_not_shown():
    stage = Stage()
    shown = f"{stage.relay.options!r} {stage.relay!r} {stage.relay.build_client()!r}"
    assert "real cookie" not in shown
    assert "\\x01" not in shown
