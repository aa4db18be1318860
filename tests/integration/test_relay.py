"""Real X clients through the relay, beside the same clients without it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.integration._relay_server import RelayedDisplay, run_client
from tests.support import xstreams as x
from tests.support.processes import find_descendants, wait_until
from tests.support.tools import require_tool, skip_or_fail
from tests.support.xvfb import COOKIE_NAME, Xvfb
from xsshpy.remote.xextensions import HIDDEN_EXTENSIONS
from xsshpy.remote.xmessages import Authorization, ByteOrder, Message, NeedData, SetupReply
from xsshpy.remote.xwire import ServerReader

HIDDEN = {name.decode() for name in HIDDEN_EXTENSIONS}


def direct(server: Xvfb) -> dict[str, str]:
    return {**os.environ, **server.environment()}


def without_hidden(text: str) -> list[str]:
    """Return a program's lines without what must differ: hidden extensions, their number."""
    lines = [line for line in text.splitlines() if line.strip() not in HIDDEN]
    return [re.sub(r"(name of display|number of extensions): .*", r"\1", line) for line in lines]


def extensions_in(text: str) -> set[str]:
    found = re.search(r"number of extensions: +(\d+)\n((?:    .*\n)+)", text)
    assert found
    names = [line.strip() for line in found[2].splitlines()]
    assert len(names) == int(found[1])
    return set(names)


@contextlib.asynccontextmanager
async def running(
    environment: dict[str, str], *argv: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a client in the background; end it at the end."""
    process = await asyncio.create_subprocess_exec(
        *argv, env=environment, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(condition: Callable[[], Awaitable[bool]], timeout: float = 20) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not await condition():
        assert loop.time() < deadline, "did not happen in time"
        await asyncio.sleep(0.05)


async def shows_window(environment: dict[str, str], name: str) -> bool:
    return (await run_client(environment, "xwininfo", "-name", name)).status == 0


# -- the same as without a relay --


def test_xdpyinfo_sees_the_server_without_the_hidden_extensions(xvfb, tmp_path):
    require_tool("xdpyinfo")

    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display:
            relayed = await display.run("xdpyinfo", "-queryExtensions")
            plain = await run_client(direct(xvfb), "xdpyinfo", "-queryExtensions")
            assert relayed.status == plain.status == 0
            there = extensions_in(re.sub(r"  \(opcode.*", "", plain.output))
            seen = extensions_in(re.sub(r"  \(opcode.*", "", relayed.output))
            assert "MIT-SHM" in there, "or this test shows nothing"
            assert seen == there - HIDDEN
            strip = re.compile(r"^    (MIT-SHM|DRI3|XFree86-Bigfont)  .*\n", re.MULTILINE)
            assert without_hidden(relayed.output) == without_hidden(strip.sub("", plain.output))
            assert (relayed.errors, display.notices) == (plain.errors, [])

    asyncio.run(test())


@pytest.mark.parametrize(
    "argv", [("xlsatoms",), ("xprop", "-root"), ("xwininfo", "-root", "-all"), ("xset", "q")]
)
def test_other_programs_see_the_same(xvfb, tmp_path, argv):
    require_tool(argv[0])

    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display:
            relayed = await display.run(*argv)
            plain = await run_client(direct(xvfb), *argv)
            assert relayed == plain
            assert relayed.status == 0

    asyncio.run(test())


# -- real programs --


def test_xterm_runs_and_ends_with_its_program(xvfb, tmp_path):
    require_tool("xterm")
    done = tmp_path / "done"
    script = f"i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo ok > {done}"

    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display:
            ended = await display.run("xterm", "-e", "sh", "-c", script)
            assert (ended.status, done.read_text()) == (0, "ok\n")
            assert display.notices == []

    asyncio.run(test())


def test_a_window_appears_and_goes_with_its_client(xvfb, tmp_path):
    for tool in ("xterm", "xwininfo"):
        require_tool(tool)
    name = f"relayed-{os.getpid()}"

    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display:
            argv = ("xterm", "-T", name, "-e", "sleep", "60")
            async with running(display.environment(), *argv):
                await until(lambda: shows_window(direct(xvfb), name))
                assert display.relay.open_clients == 1
            await until(lambda: has_no_client(display))
            assert not await shows_window(direct(xvfb), name)

    asyncio.run(test())


async def has_no_client(display: RelayedDisplay) -> bool:
    return display.relay.open_clients == 0


QT_PROGRAM = """
import sys
from {binding} import QtCore, QtGui, QtWidgets
application = QtWidgets.QApplication([])
label = QtWidgets.QLabel("a label" * 20)
label.resize(400, 300)
label.show()
QtCore.QTimer.singleShot(300, application.quit)
sys.exit(getattr(application, "exec", getattr(application, "exec_", None))())
"""


def test_a_qt_program_is_not_left_waiting_for_shared_memory(xvfb, tmp_path):
    bindings = ("PySide6", "PyQt6", "PyQt5", "PySide2")
    binding = next((name for name in bindings if importlib.util.find_spec(name)), None)
    if binding is None:
        pytest.skip("no Qt for this Python")

    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display:
            environment = {**display.environment(), "QT_QPA_PLATFORM": "xcb"}
            program = QT_PROGRAM.format(binding=binding)
            ended = await run_client(environment, sys.executable, "-c", program, timeout=20)
            if "could not load the qt platform plugin" in ended.errors.lower():
                skip_or_fail("Qt's xcb plugin lacks a library")
            assert ended.status == 0, ended.errors

    asyncio.run(test())


def test_many_clients_at_once(xvfb, tmp_path):
    require_tool("xdpyinfo")

    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display:
            ended = await asyncio.gather(*(display.run("xdpyinfo") for _ in range(20)))
            assert {(each.status, each.errors) for each in ended} == {(0, "")}
            assert len({each.output for each in ended}) == 1
            await until(lambda: has_no_client(display))

    asyncio.run(test())


# -- what goes wrong --


@pytest.mark.parametrize(
    "shown", [Authorization(COOKIE_NAME, bytes(16)), Authorization(b"OTHER", bytes(16))]
)
def test_a_wrong_cookie_is_refused_with_a_reason_that_the_client_prints(xvfb, tmp_path, shown):
    require_tool("xdpyinfo")

    async def test():
        async with RelayedDisplay(tmp_path, xvfb, shown) as display:
            refused = await display.run("xdpyinfo")
            assert refused.status == 1
            reason = "xssh: X11 connection rejected because of wrong authentication\n"
            assert reason in refused.errors
            notice = "X11 connection rejected because of wrong authentication."
            assert display.notices == [notice]

    asyncio.run(test())


def test_a_server_that_is_not_there(make_xvfb, tmp_path):
    require_tool("xdpyinfo")
    server = make_xvfb()
    server.kill()

    async def test():
        async with RelayedDisplay(tmp_path, server) as display:
            refused = await display.run("xdpyinfo")
            assert refused.status == 1
            assert "xssh: the local X server cannot be reached\n" in refused.errors
            assert len(display.notices) == 1

    asyncio.run(test())


def test_a_server_that_dies_ends_its_clients(make_xvfb, tmp_path):
    for tool in ("xterm", "xwininfo"):
        require_tool(tool)
    server = make_xvfb()

    async def test():
        async with RelayedDisplay(tmp_path, server) as display:
            argv = ("xterm", "-T", "doomed", "-e", "sleep", "60")
            async with running(display.environment(), *argv) as client:
                await until(lambda: shows_window(direct(server), "doomed"))
                server.kill()
                assert await asyncio.wait_for(client.wait(), 10) != 0
            await until(lambda: has_no_client(display))

    asyncio.run(test())


def test_the_end_of_the_session_ends_its_clients(xvfb, tmp_path):
    require_tool("xterm")
    name = f"ending-{os.getpid()}"

    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display:
            argv = ("xterm", "-T", name, "-e", "sleep", "60")
            async with running(display.environment(), *argv) as client:
                await until(lambda: shows_window(direct(xvfb), name))
                await display.relay.aclose()
                assert await asyncio.wait_for(client.wait(), 10) != 0

    asyncio.run(test())
    wait_until(
        lambda: not any("sleep" in each.command for each in find_descendants(os.getpid())),
        what="the end of what ran in it",
    )


# -- a client of our own, for what libraries never send --


class WireClient:
    """Speaks X11 by hand, through the relay."""

    def __init__(self, display: RelayedDisplay, order: ByteOrder) -> None:
        self.display = display
        self.order = order
        self.messages: list[Message] = []

    async def __aenter__(self) -> WireClient:
        self._input, self.output = await asyncio.open_connection("127.0.0.1", self.display.port)
        self.output.write(x.setup(self.order, self.display.cookie))
        self._reader = ServerReader(self.order, inspect_all=True, whole=262144)
        self.setup = await self._next()
        assert isinstance(self.setup, SetupReply)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.output.close()
        with contextlib.suppress(OSError):
            await self.output.wait_closed()

    async def _next(self) -> object:
        while isinstance(event := self._reader.next_event(), NeedData):
            data = await asyncio.wait_for(self._input.read(1 << 18), 20)
            if not data:
                raise EOFError
            self._reader.receive_data(data)
        return event

    async def answer(self) -> Message:
        """Return the next reply or error."""
        while True:
            event = await self._next()
            if isinstance(event, Message) and event.code < 2:
                return event

    async def ask(self, request: bytes) -> Message:
        self.output.write(request)
        return await self.answer()

    async def enable_big_requests(self) -> None:
        found = await self.ask(x.query(self.order, b"BIG-REQUESTS"))
        await self.ask(x.request(self.order, found.data[9]))


@pytest.fixture(params=list(ByteOrder), ids=lambda order: order.name)
def order(request: pytest.FixtureRequest) -> ByteOrder:
    return request.param


FOCUS = 43


def test_hidden_in_both_orders_and_in_the_long_form(xvfb, tmp_path, order):
    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display, WireClient(display, order) as client:
            await client.enable_big_requests()
            body = x.query_body(order, b"MIT-SHM")
            for build in (x.request, x.long_request):
                answer = await client.ask(build(order, x.QUERY_EXTENSION, body))
                assert (answer.code, answer.data[8:12]) == (1, bytes(4))
                shape = x.query_body(order, b"SHAPE")
                answer = await client.ask(build(order, x.QUERY_EXTENSION, shape))
                assert (answer.code, answer.data[8]) == (1, 1)
            assert answer.sequence == 6

    asyncio.run(test())


def test_the_server_reads_long_lengths_as_we_do(xvfb, tmp_path, order):
    """A long request hides a query in its body; the queries after it count."""

    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display, WireClient(display, order) as client:
            await client.enable_big_requests()
            inner = x.query(order, b"SHAPE") * 30_000
            client.output.write(x.long_request(order, x.NO_OPERATION, inner))
            client.output.write(x.request(order, x.NO_OPERATION, inner[:4000]))
            client.output.write(x.query(order, b"MIT-SHM"))
            answer = await client.answer()
            assert (answer.sequence, answer.data[8]) == (5, 0)
            answer = await client.ask(x.request(order, FOCUS))
            assert answer.sequence == 6

    asyncio.run(test())


def test_more_than_65536_requests(xvfb, tmp_path, order):
    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display, WireClient(display, order) as client:
            client.output.write(x.request(order, x.NO_OPERATION) * 70_000)
            answer = await client.ask(x.query(order, b"MIT-SHM"))
            assert answer.data[8] == 0
            assert answer.sequence == 70_001 % 65_536, "a reader of its own cannot know more"
            client.output.write(x.request(order, FOCUS) * 70_000 + x.query(order, b"MIT-SHM"))
            for _ in range(70_000):
                answer = await client.answer()
            answer = await client.answer()
            assert (answer.size, answer.data[8]) == (32, 0)

    asyncio.run(test())


def test_a_client_that_breaks_the_protocol_is_closed(xvfb, tmp_path, order):
    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display, WireClient(display, order) as client:
            assert (await client.ask(x.request(order, FOCUS))).sequence == 1
            client.output.write(x.long_request(order, x.NO_OPERATION))
            with pytest.raises(EOFError):
                await client.answer()
            assert len(display.notices) == 1

    asyncio.run(test())


def resident_bytes() -> int:
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        pytest.skip("no /proc")
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_server_that_hangs_costs_no_memory(make_xvfb, tmp_path):
    order = ByteOrder.LITTLE
    server = make_xvfb()
    image = x.request(order, x.NO_OPERATION, bytes(200_000))

    async def send(client: WireClient, count: int) -> None:
        for _ in range(count):
            client.output.write(image)
            await client.output.drain()

    async def test():
        async with (
            RelayedDisplay(tmp_path, server) as display,
            WireClient(display, order) as client,
        ):
            before = resident_bytes()
            server.suspend()
            try:
                sending = asyncio.ensure_future(send(client, 500))
                done, _ = await asyncio.wait([sending], timeout=1.0)
                assert not done, "100 MB went somewhere"
                assert resident_bytes() - before < 16 << 20
            finally:
                server.resume()
            await asyncio.wait_for(sending, 30)
            assert (await client.ask(x.request(order, FOCUS))).sequence == 501

    asyncio.run(test())


def test_a_client_that_does_not_read_costs_no_memory(xvfb, tmp_path):
    """Sixteen pictures of the screen, 84 MB, for a client that looks away."""
    order = ByteOrder.LITTLE

    async def test():
        async with RelayedDisplay(tmp_path, xvfb) as display, WireClient(display, order) as client:
            root = find_root(client.setup.data)
            ask = struct.pack("<IhhHHI", root, 0, 0, 1280, 1024, 0xFFFFFFFF)
            before = resident_bytes()
            client.output.write(x.request(order, 73, ask, minor=2) * 16)
            await asyncio.sleep(1.0)
            assert resident_bytes() - before < 16 << 20
            for number in range(1, 17):
                answer = await client.answer()
                assert (answer.code, answer.sequence) == (1, number)
                assert answer.size == 32 + 1280 * 1024 * 4

    asyncio.run(test())


def find_root(setup: bytes) -> int:
    """Return the first screen's root window from a little-endian setup answer."""
    (vendor_length,) = struct.unpack_from("<H", setup, 24)
    start = 40 + vendor_length + -vendor_length % 4 + 8 * setup[29]
    return struct.unpack_from("<I", setup, start)[0]
