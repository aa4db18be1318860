"""Who else is on the agent's host, and what there is too little of there: nobody is kept out by it.

The agent runs as it would, but with the test at the other end of its link.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import end_popen, wait_until
from tests.support.xtalk import server_setup
from xsshpy.remote.frames import TO_LOCAL, Frame, FrameKind
from xsshpy.remote.link import CONTROL_LIMIT, Link
from xsshpy.remote.listener import open_listener
from xsshpy.remote.records import Record, Told, build_records
from xsshpy.remote.server import CLIENT_LIMIT, REFUSED_LIMIT
from xsshpy.remote.server import Agent as AgentItself
from xsshpy.remote.xmessages import ByteOrder
from xsshpy.x11.agent_start import StageReader, agent_command

NAME = b"MIT-MAGIC-COOKIE-1"


class Agent:
    """An agent with the nonce ``n``, at the other end of two pipes."""

    def __init__(self, directory: Path, descriptors: int) -> None:
        command = ["/bin/sh", "-c", f"ulimit -n {descriptors}; {agent_command('n')}"]
        environment = {**os.environ, "TMPDIR": str(directory), "XDG_RUNTIME_DIR": ""}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._sink, self._source = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.link = Link(time.monotonic, time.process_time, TO_LOCAL)
        stages, last = StageReader("n"), None
        while not stages.is_ready:
            for stage in stages.receive_data(os.read(self._source, 4096)):
                last = stage
        assert last is not None
        found = re.fullmatch(r"localhost:(\d+)\.0", last.facts["display"])
        assert found is not None
        self.port = 6000 + int(found[1])
        self.cookie = Path(last.facts["authority"]).read_bytes()[-16:]

    def tell(self) -> None:
        """Send the facts, so that clients don't wait for them."""
        setup = Record(Told.SETUP, 0, b"", server_setup(ByteOrder.LITTLE))
        self.link.queue_control(Frame(FrameKind.PRIME, 0, build_records([setup])))
        os.write(self._sink, b"".join(bytes(piece) for piece in self.link.take()))

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def frames(self, patience: float) -> list[Frame]:
        """Return what comes within ``patience`` seconds."""
        end, got = time.monotonic() + patience, []
        while select.select([self._source], [], [], max(0.0, end - time.monotonic()))[0]:
            got += list(self.link.receive_data(os.read(self._source, 1 << 16)))
        return got

    def lets_in(self, client: socket.socket) -> bool:
        """Show the right cookie; tell whether the agent announces the client."""
        client.sendall(show(self.cookie))
        for _ in range(50):
            if any(frame.kind is FrameKind.OPEN for frame in self.frames(0.1)):
                return True
        return False

    def processor_time(self) -> float:
        """Return the seconds that the agent has worked."""
        pid = self.process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def show(cookie: bytes) -> bytes:
    """Return a client's setup."""
    return struct.pack("<cxHHHHxx", b"l", 11, 0, len(NAME), 16) + NAME + b"\0\0" + cookie


@pytest.fixture
def make_agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    made: list[Agent] = []

    def make(descriptors: int = 1024) -> Agent:
        made.append(Agent(tmp_path, descriptors))
        return made[-1]

    yield make
    for each in made:
        end_popen(each.process)


def test_strangers_who_say_nothing_keep_nobody_out(make_agent: Callable[..., Agent]) -> None:
    agent = make_agent()
    agent.tell()
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENT_LIMIT + REFUSED_LIMIT + 20):
            stack.enter_context(agent.connect())
        assert agent.lets_in(stack.enter_context(agent.connect()))


def test_strangers_with_wrong_cookies_end_nothing(make_agent: Callable[..., Agent]) -> None:
    agent = make_agent()
    agent.tell()
    # Nothing is read from the link meanwhile: it takes 64 kB of notes, and no more.
    for _ in range(CONTROL_LIMIT + 1200):
        with agent.connect() as stranger:
            stranger.sendall(show(bytes(16)))
            assert b"wrong authentication" in stranger.recv(200)
    assert agent.process.poll() is None
    with agent.connect() as client:
        assert agent.lets_in(client)


def test_without_descriptors_clients_wait_and_the_agent_sleeps(
    make_agent: Callable[..., Agent],
) -> None:
    agent = make_agent(descriptors=24)
    agent.tell()
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(agent.connect())
        wait_until(lambda: not agent.frames(0.2), what="quiet")
        before = agent.processor_time()
        agent.frames(1.0)
        assert agent.processor_time() - before < 0.1
    with agent.connect() as client:
        assert agent.lets_in(client)


def test_a_fault_that_one_client_finds_ends_that_client() -> None:
    def fail(data: bytes) -> None:
        raise KeyError("something that nobody thought of")

    source, sink = os.pipe()
    listener = open_listener()
    try:
        agent = AgentItself(listener, source, sink)
        agent._primed = True
        with socket.create_connection(("127.0.0.1", 6000 + listener.number), 10) as other:
            other.sendall(show(listener.cookie))
            select.select([listener.sockets[0]], [], [], 10)
            agent._accept(listener.sockets[0])
            client = agent._clients[1]
            assert client.sock is not None
            select.select([client.sock], [], [], 10)
            agent._read_client(client)
            assert client.conversation is not None
            agent._converse(client, fail, b"")
            assert client.sock is None
            assert client.close_sent
    finally:
        listener.close()
        os.close(source)
        os.close(sink)
