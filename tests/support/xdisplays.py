"""One X server's display three ways: the server itself, the agent before it, the relay before it.

The agent is the real one, in a process of its own, with xssh's own end in a thread here; nothing
but SSH is missing between them. Whoever speaks X by hand compares what the three say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple, cast

from tests.integration._relay_server import RelayedDisplay
from tests.support.xvfb import COOKIE_NAME, Xvfb
from xsshpy.remote.xmessages import Authorization, ByteOrder
from xsshpy.x11.agent import AgentForwarding, AgentReceiver
from xsshpy.x11.local import LocalDisplay

PATIENCE = 20.0


class Loop:
    """An event loop in a thread; ``failures`` are what it had to say itself."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, found: self.failures.append(str(found)))
        self._thread = threading.Thread(target=self._loop.run_forever, name="displays")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], timeout: float = PATIENCE) -> Any:
        """Run something there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class _Pipes:
    """The agent's process as a channel."""

    def __init__(self, process: asyncio.subprocess.Process, receiver: AgentReceiver) -> None:
        assert process.stdin is not None
        self.process = process
        self._receiver = receiver
        self._stdin = process.stdin
        self._tasks = [asyncio.ensure_future(self._read())]

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(1 << 18):
            self._receiver.data_received(data)
        status = await self.process.wait()
        self._receiver.connection_lost(f"ended with status {status}")

    def write(self, data: bytes) -> None:
        if self._stdin.is_closing():
            raise OSError("closed")
        self._stdin.write(data)

    def close(self) -> None:
        self._stdin.close()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.close()

    async def reach(self) -> None:
        """The server answers at once."""

    async def wait(self) -> None:
        await asyncio.gather(*self._tasks)


class _Local:
    """The local X server without its proof: what AgentForwarding asks of a LocalDisplay."""

    screen = 0
    expires_in = None

    def __init__(self, path: str, cookie: bytes, lines: list[str]) -> None:
        self.path = path
        self._cookie = cookie
        self.report = lines.append

    async def open_server(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX)
        opened.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(opened, self.path)
        except BaseException:
            opened.close()
            raise
        return opened

    async def real_authorization(self) -> Authorization:
        return Authorization(COOKIE_NAME, self._cookie)

    def has_expired(self) -> bool:
        return False


class Way(NamedTuple):
    """How to reach a display: an address of a unix socket or a port, and what it wants to see."""

    name: str
    address: str | tuple[str, int]
    cookie: bytes

    def connect(self) -> socket.socket:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        opened = socket.socket(family)
        opened.settimeout(PATIENCE)
        opened.connect(self.address)
        return opened


class Displays:
    """The ways to one X server. ``path`` is where it is reached, unless it is where it listens."""

    def __init__(self, server: Xvfb, directory: Path, path: str = "") -> None:
        self.loop = Loop()
        self.lines: list[str] = []
        """What was said to the user."""
        self.details: list[str] = []
        """What was said at -v."""
        self._path = path or server.socket_path
        self.direct = Way("direct", self._path, server.cookie)
        self.loop.run(self._start(server, directory))

    async def _start(self, server: Xvfb, directory: Path) -> None:
        local = _Local(self._path, server.cookie, self.lines)
        environment = {"HOME": str(directory), "XDG_CACHE_HOME": str(directory / "cache")}
        self.forwarding = AgentForwarding(
            cast(LocalDisplay, local), environment, self.details.append
        )

        async def run_command(command: str, receiver: AgentReceiver) -> _Pipes:
            pipe = asyncio.subprocess.PIPE
            place = {**os.environ, **environment, "TMPDIR": str(directory), "XDG_RUNTIME_DIR": ""}
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", f"exec {command}" if command.startswith("/") else command,
                stdin=pipe, stdout=pipe, env=place, start_new_session=True,
            )  # fmt: skip
            self.channel = _Pipes(process, receiver)
            return self.channel

        shown = await self.forwarding.start(run_command, known=True)
        number = int(shown.name.rpartition(":")[2].partition(".")[0])
        cookie = Path(shown.authority).read_bytes()[-16:]
        self.agent = Way("agent", ("127.0.0.1", 6000 + number), cookie)
        self._relay = RelayedDisplay(directory, server)
        if self._path != server.socket_path:
            self._relay._open_server = local.open_server  # type: ignore[method-assign]
            self._relay.options = replace_opener(self._relay, local)
        await self._relay.__aenter__()
        self.native = Way("native", ("127.0.0.1", self._relay.port), self._relay.cookie.data)

    @property
    def ways(self) -> tuple[Way, Way, Way]:
        return self.direct, self.agent, self.native

    @property
    def relayed_clients(self) -> int:
        """How many clients are at the relay."""
        return self._relay.relay.open_clients

    @property
    def agent_pid(self) -> int:
        """The agent's process: the shell that started it may be its parent."""
        pid = self.channel.process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        return pid

    def notices(self) -> list[str]:
        """Return what was said to the user since the last time."""
        said = [*self.lines, *self._relay.notices]
        self.lines.clear()
        self._relay.notices.clear()
        return said

    def stop(self) -> None:
        async def close() -> None:
            await self._relay.__aexit__()
            await self.forwarding.close()
            await asyncio.wait_for(self.channel.wait(), 10)

        try:
            self.loop.run(close())
        finally:
            self.loop.stop()


def replace_opener(display: RelayedDisplay, local: _Local) -> Any:
    """Return the relay's options with another way to the X server."""
    import dataclasses

    return dataclasses.replace(display.options, open_server=local.open_server)


# -- who speaks --


def setup_request(order: ByteOrder, cookie: bytes, **other: Any) -> bytes:
    """Return a client's setup; ``other``: mark, major, minor, name, name_size, data_size."""
    name: bytes = other.get("name", COOKIE_NAME)
    mark: bytes = other.get("mark", order.mark)
    sizes = other.get("name_size", len(name)), other.get("data_size", len(cookie))
    version = other.get("major", 11), other.get("minor", 0)
    head: bytes = mark + b"\0" + struct.pack(order.value + "HHHHxx", *version, *sizes)
    return head + name + bytes(-len(name) % 4) + cookie + bytes(-len(cookie) % 4)


class Said(NamedTuple):
    """One message without what differs from one connection to the next.

    ``detail`` is an error's code, opcodes and value, and a reply's size; ids are told from their
    client's base.
    """

    kind: int
    number: int
    detail: tuple[object, ...]


class Speaker:
    """A client that speaks by hand: nothing that it sends is looked at."""

    def __init__(self, way: Way, order: ByteOrder = ByteOrder.LITTLE) -> None:
        self.way = way
        self.order = order
        self.socket = way.connect()
        self._data = b""
        self.closed = False
        self.asked = 0
        """How many requests a row made before its own."""
        self.socket.sendall(setup_request(order, way.cookie))
        head = self._exactly(8)
        assert head[0] == 1, head
        self.setup = self._exactly(4 * self.unpack("H", head, 6))
        self.base = self.unpack("I", self.setup, 4)
        vendor, formats = self.unpack("H", self.setup, 16), self.setup[21]
        screen = 32 + (vendor + 3) // 4 * 4 + 8 * formats
        self.root = self.unpack("I", self.setup, screen)
        self.visual = self.unpack("I", self.setup, screen + 32)

    def __enter__(self) -> Speaker:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def pack(self, form: str, *values: int) -> bytes:
        return struct.pack(self.order.value + form, *values)

    def unpack(self, form: str, data: bytes, at: int) -> int:
        value: int = struct.unpack_from(self.order.value + form, data, at)[0]
        return value

    def request(self, opcode: int, detail: int = 0, *words: int, rest: bytes = b"") -> bytes:
        """Return a request of 32-bit words, and more bytes."""
        body = self.pack("I" * len(words), *words) + rest + bytes(-len(rest) % 4)
        return self.pack("BBH", opcode, detail, 1 + len(body) // 4) + body

    def send(self, *pieces: bytes) -> None:
        """Send; that the other end has closed meanwhile is found when reading."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(b"".join(pieces))

    def _exactly(self, size: int) -> bytes:
        while len(self._data) < size:
            try:
                piece = self.socket.recv(1 << 18)
            except ConnectionError:
                piece = b""
            if not piece:
                self.closed = True
                raise EOFError
            self._data += piece
        data, self._data = self._data[:size], self._data[size:]
        return data

    def message(self) -> bytes:
        """Return the next message; EOFError where there is none any more."""
        data = self._exactly(32)
        if data[0] in (1, 35):
            data += self._exactly(4 * self.unpack("I", data, 4))
        return data

    def describe(self, data: bytes) -> Said:
        number = self.unpack("H", data, 2)
        if data[0] == 0:
            value = self.unpack("I", data, 4)
            own = value & ~0x1FFFFF == self.base
            told = ("own", value - self.base) if own else ("", value)
            return Said(0, number, (data[1], data[10], self.unpack("H", data, 8), told))
        return Said(data[0] & 0x7F, number, (len(data),))

    def until(self, *kinds: int) -> bytes:
        """Return the first message of these kinds."""
        while (data := self.message())[0] & 0x7F not in kinds:
            pass
        return data

    def sync(self) -> bytes:
        self.send(self.request(43))
        return self.until(1)

    def hear(self, last: int) -> list[Said]:
        """Return errors and replies up to the reply with this number, or to the end."""
        heard: list[Said] = []
        with contextlib.suppress(EOFError):
            while not heard or (heard[-1].kind, heard[-1].number) != (1, last & 0xFFFF):
                said = self.describe(self.message())
                if said.kind < 2:
                    heard.append(said)
        return heard
