"""The local end of the agent's link, with an agent that is played by the test: limits, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.support.loops import until
from tests.support.xtalk import server_setup
from xsshpy.remote.frames import TO_AGENT, Frame, FrameKind, FrameWriter
from xsshpy.remote.images import build_table
from xsshpy.remote.link import CLIENT_CEILING, Link
from xsshpy.remote.payloads import build_close, build_open
from xsshpy.remote.records import Record, Told, parse_records
from xsshpy.remote.xmessages import (
    NO_AUTHORIZATION,
    ByteOrder,
    SetupRequest,
    build_setup_request,
)
from xsshpy.remote.xrequests import FactClass
from xsshpy.x11.agent_relay import (
    CLIENT_LIMIT,
    POOL_SIZE,
    REFUSED_LIMIT,
    AgentOptions,
    AgentRelay,
)

LITTLE = ByteOrder.LITTLE
SETUP = build_setup_request(SetupRequest(LITTLE, 11, 0, NO_AUTHORIZATION))
MEBIBYTE = bytes(1 << 20)


class Stage:
    """A relay, the far ends of the connections that it opened, and what it said."""

    def __init__(self) -> None:
        self.servers: list[socket.socket] = []
        self.notices: list[str] = []
        self.sent: list[bytes] = []
        self.is_closed = False
        options = AgentOptions(
            open_server=self._open_server,
            real=None,
            report=self.notices.append,
            debug=lambda line: None,
        )
        self.relay = AgentRelay(options, self)
        self.agent = Link(
            time.monotonic, time.process_time, TO_AGENT, lambda n, d: Frame(FrameKind.DATA, n, d)
        )
        self._rude = FrameWriter(time.process_time)

    async def _open_server(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.servers.append(theirs)
        return ours

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.is_closed = True

    def exchange(self, *frames: Frame) -> list[Frame]:
        """Let the agent send, and return what it gets. LinkError where it may not have that."""
        for frame in frames:
            self.agent.queue(frame)
        data = b"".join(bytes(piece) for piece in self.agent.take())
        if data:
            self.relay.data_received(data)
        sent, self.sent[:] = b"".join(self.sent), []
        return list(self.agent.receive_data(sent)) if sent else []

    def send_rudely(self, *frames: Frame) -> None:
        """Send frames as no agent of ours would."""
        pieces = self._rude.encode(frames, 1e6)
        self.relay.data_received(b"".join(bytes(piece) for piece in pieces))

    async def open(self, client: int = 1) -> socket.socket:
        """Let a client come; return the X server's end of its connection."""
        before = len(self.servers)
        self.agent.open_stream(client)
        self.exchange(build_open(client, None, SETUP))
        await until(lambda: len(self.servers) > before)
        server = self.servers[-1]
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(server, 4096), 10) == SETUP
        await loop.sock_sendall(server, server_setup(LITTLE))
        await until(lambda: any(frame.kind is FrameKind.DATA for frame in self.exchange()))
        return server


@contextlib.asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    stage, failures = Stage(), []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    try:
        yield stage
    finally:
        for server in stage.servers:
            server.close()
        await stage.relay.aclose()
    assert not failures


def run(test: Callable[[Stage], Awaitable[None]]) -> None:
    async def play() -> None:
        async with staged() as stage:
            await test(stage)

    asyncio.run(play())


async def drain(server: socket.socket) -> None:
    """Read what there is to be read, like an X server that wakes up."""
    with contextlib.suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(server, 1 << 20):
            pass


def test_a_number_that_is_used_again_gets_no_credit_for_the_client_before() -> None:
    async def test(stage: Stage) -> None:
        slow = await stage.open()
        for _ in range(30):
            if stage.agent.may_read(1):
                stage.exchange(Frame(FrameKind.DATA, 1, bytes(100_000)))
            await asyncio.sleep(0)
        got = stage.exchange(build_close(1))
        assert [frame.kind for frame in got] == [FrameKind.CLOSE]
        stage.agent.close_stream(1)
        await stage.open()
        reading = asyncio.ensure_future(drain(slow))
        await asyncio.wait({reading}, timeout=10)
        for _ in range(5):
            stage.exchange()  # a credit for nothing would be a LinkError
            await asyncio.sleep(0)
        assert stage.agent.may_read(1)

    run(test)


@pytest.mark.parametrize("is_full", [False, True])
def test_both_ends_close_at_once(is_full: bool) -> None:
    async def test(stage: Stage) -> None:
        server = await stage.open()
        if is_full:
            stage.relay.pause_writing()
        server.close()
        stage.servers.remove(server)
        await until(lambda: stage.relay.has_lost_clients)
        await until(lambda: stage.relay._clients[1].close_sent)
        got = stage.exchange(build_close(1))
        stage.relay.resume_writing()
        got += stage.exchange()
        assert [frame.kind for frame in got] == [FrameKind.CLOSE]
        assert not stage.relay.open_clients

    run(test)


def test_an_agent_that_waits_for_no_credit_ends_the_link() -> None:
    async def test(stage: Stage) -> None:
        stage.send_rudely(build_open(1, None, SETUP))
        sent = 0
        while not stage.is_closed and sent < 4 * CLIENT_CEILING:
            stage.send_rudely(Frame(FrameKind.DATA, 1, MEBIBYTE))
            sent += len(MEBIBYTE)
            await asyncio.sleep(0)
        assert stage.is_closed
        assert stage.notices == [
            "xssh: X11: the agent broke the protocol: more is sent than was confirmed"
        ]

    run(test)


def test_an_agent_of_ours_sends_no_more_than_is_allowed() -> None:
    agent = Link(time.monotonic, time.process_time, TO_AGENT)
    agent.open_stream(1)
    sent, now = 0, 0.0
    agent._clock = lambda: now
    pace = agent._streams[1].pace
    pace._clock = agent._clock
    while pace.allowed:  # a connection that seems to be without any limit
        pace.sent(pace.allowed)
        now += 1e-4
        sent = max(sent, pace.in_flight)
        if now < 1:
            pace.confirmed(pace.in_flight)
    assert CLIENT_CEILING // 2 < sent <= CLIENT_CEILING


def test_data_behind_a_clients_end_goes_nowhere() -> None:
    async def test(stage: Stage) -> None:
        server = await stage.open()
        more = (Frame(FrameKind.EOF, 1), Frame(FrameKind.DATA, 1, b"more"))
        stage.exchange(*more, Frame(FrameKind.EOF, 1))
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(server, 99), 10) == b""
        assert not stage.is_closed

    run(test)


def test_far_too_many_clients_end_the_link() -> None:
    async def test(stage: Stage) -> None:
        for number in range(1, CLIENT_LIMIT + REFUSED_LIMIT + 1):
            stage.send_rudely(build_open(number, None, SETUP))
        assert not stage.is_closed
        stage.send_rudely(build_open(CLIENT_LIMIT + REFUSED_LIMIT + 1, None, SETUP))
        assert stage.is_closed

    run(test)


def test_a_refused_clients_images_are_not_kept() -> None:
    count, table = build_table([], 1)
    nonsense = struct.pack(">BBIII", 2, 1, 0, 1024, count) + table

    async def test(stage: Stage) -> None:
        for number in range(1, CLIENT_LIMIT + 2):
            stage.send_rudely(build_open(number, None, SETUP))
        stage.send_rudely(Frame(FrameKind.IMAGE, CLIENT_LIMIT + 1, nonsense))
        assert not stage.is_closed
        stage.send_rudely(Frame(FrameKind.IMAGE, 1, nonsense))
        assert stage.is_closed

    run(test)


def news(number: int, value: bytes) -> Record:
    return Record(Told.PROPERTY, 8, struct.pack(">III", 1, number, 31), value)


def test_news_add_up_to_the_last_while_the_channel_is_full() -> None:
    async def test(stage: Stage) -> None:
        keys = Record(Told.REPLY, FactClass.KEYBOARD.value, b"keys", bytes(32))
        stage.relay.pause_writing()
        for count in range(10_000):
            stage.relay.tell([news(1, b"%d" % count)], news=True)
        stage.relay.tell([keys, news(2, b"there")], news=True)
        stage.relay.tell([Record(Told.ABSENT_PROPERTY, 0, struct.pack(">III", 1, 2, 0), b"")])
        stage.relay.forget(FactClass.KEYBOARD)
        stage.relay.tell([news(1, b"last")], news=True)
        stage.relay.resume_writing()
        got = stage.exchange()
        kinds = [frame.kind for frame in got]
        assert kinds == [FrameKind.PROPERTY, FrameKind.PRIME, FrameKind.FORGET, FrameKind.PROPERTY]
        told = [record for frame in got[:1] for record in parse_records(bytes(frame.payload))]
        assert [record.value for record in told[:1]] == [b"9999"]
        assert parse_records(bytes(got[3].payload)) == [news(1, b"last")]

    run(test)


def test_a_forgotten_class_takes_its_waiting_news_along() -> None:
    async def test(stage: Stage) -> None:
        stage.relay.pause_writing()
        stage.relay.tell([Record(Told.REPLY, FactClass.KEYBOARD.value, b"keys", bytes(32))])
        stage.relay.tell(
            [Record(Told.REPLY, FactClass.KEYBOARD.value, b"keys", bytes(32))], news=True
        )
        stage.relay.forget(FactClass.KEYBOARD)
        stage.relay.resume_writing()
        assert [frame.kind for frame in stage.exchange()] == [FrameKind.PRIME, FrameKind.FORGET]

    run(test)


@pytest.mark.parametrize("behind", [b"", bytes((34,)) + bytes(31)], ids=["nothing", "news"])
def test_a_connection_ahead_may_hear_news_at_once(behind: bytes) -> None:
    """A new key map is told to all clients, to those that are just being set up as well."""

    async def test(stage: Stage) -> None:
        stage.relay.start()
        await until(lambda: len(stage.servers) == POOL_SIZE)
        for server in stage.servers:
            await asyncio.get_running_loop().sock_sendall(server, server_setup(LITTLE) + behind)
        offered: list[Frame] = []
        await until(lambda: bool(offered.extend(stage.exchange())) or len(offered) == POOL_SIZE)
        setups = {bytes(frame.payload[2:]) for frame in offered}
        assert (setups, {each.kind for each in offered}) == (
            {server_setup(LITTLE)},
            {FrameKind.POOL},
        )

    run(test)


def test_a_connection_ahead_that_is_not_answered_ends_with_the_link() -> None:
    async def test(stage: Stage) -> None:
        stage.relay.start()
        await until(lambda: len(stage.servers) == POOL_SIZE)
        loop = asyncio.get_running_loop()
        for server in stage.servers:
            assert await asyncio.wait_for(loop.sock_recv(server, 4096), 10) == SETUP
        await stage.relay.aclose()
        for server in stage.servers:
            assert await asyncio.wait_for(loop.sock_recv(server, 1), 10) == b""

    run(test)
