"""The proof of a display against real X servers, and against listeners that only seem to be one."""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.authorities import encode_authority
from tests.support.processes import is_alive, wait_until
from tests.support.tools import require_tool
from tests.support.xvfb import Xvfb
from xsshpy.x11.access import Access, decide_access
from xsshpy.x11.authority import (
    COOKIE_PROTOCOL,
    AuthorityEntry,
    Family,
    find_cookie,
)
from xsshpy.x11.display import parse_display
from xsshpy.x11.verify import DisplayProbe, Verdict

ROOT = Path(__file__).resolve().parents[2]


def cookie_entry(data: bytes) -> AuthorityEntry:
    return AuthorityEntry(Family.WILD, b"", b"", COOKIE_PROTOCOL, data)


async def probing(
    name: str,
    cookie: AuthorityEntry | None,
    use: Callable[[DisplayProbe, Verdict], Awaitable[None]] | None = None,
    *,
    untrusted: bool = False,
    timeout: int = 1200,
    deadline: float = 15,
) -> Verdict:
    probe = await DisplayProbe.start(
        parse_display(name),
        cookie,
        want_untrusted=untrusted,
        untrusted_timeout=timeout,
        environ=os.environ,
        deadline=deadline,
    )
    try:
        verdict = await probe.verdict(30)
        assert verdict is not None
        if use is not None:
            await use(probe, verdict)
        return verdict
    finally:
        await probe.close()
        assert probe.pid is None or not is_alive(probe.pid)


def prove(name: str, cookie: bytes | None, **options: object) -> Verdict:
    entry = None if cookie is None else cookie_entry(cookie)
    return asyncio.run(probing(name, entry, **options))  # type: ignore[arg-type]


def client(argv: list[str], display: str, cookie: bytes, folder: Path) -> tuple[int, str]:
    """Run an X client with ``cookie``; return its status and what it said."""
    file = folder / f"client-{os.urandom(4).hex()}"
    file.write_bytes(encode_authority([cookie_entry(cookie)]))
    done = subprocess.run(
        [require_tool(argv[0]), *argv[1:]],
        env={**os.environ, "DISPLAY": display, "XAUTHORITY": str(file)},
        capture_output=True,
        timeout=20,
    )
    return done.returncode, (done.stdout + done.stderr).decode("latin-1")


# What a working server says ---------------------------------------------------------------------


def test_facts_of_a_real_server(xvfb: Xvfb, tmp_path: Path) -> None:
    display = parse_display(xvfb.display + ".0")
    found = find_cookie(display, [xvfb.authority], socket.gethostname())
    assert found.entry is not None
    assert found.entry.data == xvfb.cookie
    verdict = asyncio.run(probing(display.name, found.entry))
    assert verdict.works
    assert verdict.reason == verdict.remedy == ""
    assert verdict.untrusted is None
    facts = verdict.facts
    assert facts is not None
    _, shown = client(["xdpyinfo"], xvfb.display, xvfb.cookie, tmp_path)
    assert f"vendor string:    {facts.vendor}\n" in shown
    assert f"vendor release number:    {facts.release}\n" in shown
    assert f"version number:    {facts.protocol[0]}.{facts.protocol[1]}\n" in shown
    assert f"number of extensions:    {len(facts.extensions)}\n" in shown
    assert all(f"    {name}\n" in shown for name in facts.extensions)
    assert (facts.width, facts.height, facts.depth) == (1280, 1024, 24)
    assert (facts.screens, facts.screen) == (1, 0)
    assert verdict.has_security
    assert "1280x1024" in facts.describe()


def test_the_screen_that_display_names(make_xvfb: Callable[..., Xvfb]) -> None:
    server = make_xvfb(arguments=("-screen", "1", "640x480x16", "-extension", "XINERAMA"))
    facts = prove(f"{server.display}.1", server.cookie).facts
    assert facts is not None
    assert (facts.width, facts.height, facts.depth) == (640, 480, 16)
    assert (facts.screens, facts.screen) == (2, 1)
    beyond = prove(f"{server.display}.7", server.cookie).facts
    assert beyond is not None
    assert beyond.screen == 1


def test_a_server_without_access_control_needs_no_cookie(make_xvfb: Callable[..., Xvfb]) -> None:
    server = make_xvfb(access="none")
    assert prove(server.display, None).works
    assert prove(server.display, b"any cookie at all").works


def test_starting_does_not_wait(xvfb: Xvfb) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        probe = await DisplayProbe.start(
            parse_display(xvfb.display),
            cookie_entry(xvfb.cookie),
            want_untrusted=False,
            untrusted_timeout=0,
            environ=os.environ,
        )
        try:
            assert await probe.verdict(0) is None
            assert loop.time() - start < 0.2
            pending = [asyncio.create_task(probe.verdict(20)) for _ in range(3)]
            verdicts = await asyncio.gather(*pending)
            assert all(item is verdicts[0] for item in verdicts)
            assert verdicts[0] is await probe.verdict(0)
        finally:
            await probe.close()

    asyncio.run(run())


# Refusals ---------------------------------------------------------------------------------------


def test_a_wrong_cookie_is_refused_in_the_servers_words(xvfb: Xvfb) -> None:
    verdict = prove(xvfb.display, b"0123456789abcdef", untrusted=True)
    assert not verdict.works
    assert "Invalid MIT-MAGIC-COOKIE-1 key" in verdict.reason
    assert "not this server's" in verdict.reason
    assert verdict.remedy
    assert verdict.untrusted is None
    text = verdict.as_error().render()
    assert text.startswith(f"xssh: X11: cannot open display {xvfb.display}: the X server refuses: ")
    assert "0123456789abcdef" not in text
    assert b"0123456789abcdef".hex() not in text


def test_no_cookie_where_one_is_needed(xvfb: Xvfb) -> None:
    verdict = prove(xvfb.display, None)
    assert not verdict.works
    assert "Authorization required" in verdict.reason
    assert f"no cookie for {xvfb.display}" in verdict.reason
    assert "xhost" not in verdict.as_error().render()


def test_a_dead_display(make_xvfb: Callable[..., Xvfb]) -> None:
    server = make_xvfb()
    server.kill()
    start = time.monotonic()
    verdict = prove(server.display, server.cookie)
    assert not verdict.works
    assert verdict.reason == f"no X server: {server.socket_path} does not exist"
    assert verdict.as_error().message.count("cannot open display") == 1
    assert time.monotonic() - start < 2


def test_a_suspended_server_hangs_and_recovers(make_xvfb: Callable[..., Xvfb]) -> None:
    server = make_xvfb()
    server.suspend()
    start = time.monotonic()
    verdict = prove(server.display, server.cookie, deadline=0.7)
    assert not verdict.works
    assert "never answers" in verdict.reason
    assert 0.5 < time.monotonic() - start < 3
    server.resume()
    assert prove(server.display, server.cookie).works


def test_a_server_full_of_clients(make_xvfb: Callable[..., Xvfb]) -> None:
    server = make_xvfb(arguments=("-maxclients", "64"))
    held = []
    try:
        for _ in range(64):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(server.socket_path)
            held.append(sock)
            name, data = COOKIE_PROTOCOL, server.cookie
            hello = struct.pack("<BxHHHHxx", 0x6C, 11, 0, len(name), len(data))
            sock.sendall(hello + name + bytes(-len(name) % 4) + data)
            if sock.recv(1) != b"\1":
                break
        verdict = prove(server.display, server.cookie)
        assert not verdict.works
        assert "Maximum number of clients" in verdict.reason
        assert verdict.remedy == "close some windows"
    finally:
        for sock in held:
            sock.close()


# Listeners that are no X server -----------------------------------------------------------------


Serve = Callable[[socket.socket], None]


@contextmanager
def listening(folder: Path, serve: Serve) -> Iterator[str]:
    """Listen on a socket path; ``serve`` handles each connection in a thread."""
    path = str(folder / "org.xquartz:0")
    threads: list[threading.Thread] = []

    def handle(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            serve(sock)

    def accept() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=handle, args=(sock,)))
            threads[-1].start()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield path
        finally:
            server.shutdown(socket.SHUT_RDWR)
            acceptor.join(5)
            for thread in threads:
                thread.join(5)


def setup_reply(*, roots: int = 1, body: bytes = b"") -> bytes:
    """Return a success of the connection setup with what follows it."""
    counts = (roots, 0, 0, 0, 32, 32, 8, 255)
    fixed = struct.pack("<IIIIHHBBBBBBBBxxxx", 1, 0x200000, 0x1FFFFF, 0, 4, 65535, *counts)
    rest = fixed + b"Evil" + body
    return struct.pack("<BxHHH", 1, 11, 0, len(rest) // 4) + rest


def root_window() -> bytes:
    """Return one screen without depths."""
    return struct.pack("<IIIIIHHHHHHIBBBB", 1, 2, 3, 4, 5, 640, 480, 1, 1, 1, 1, 6, 0, 0, 24, 0)


def reply(sequence: int, length: int, body: bytes = bytes(24)) -> bytes:
    return struct.pack("<BBHI", 1, 0, sequence, length) + body


def say(*parts: bytes, then: Callable[[socket.socket], object] | None = None) -> Serve:
    """Answer each thing that is sent with the next part."""

    def serve(sock: socket.socket) -> None:
        sock.settimeout(15)
        for part in parts:
            sock.recv(4096)
            sock.sendall(part)
        if then is not None:
            then(sock)

    return serve


def wait_for_end(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def flood(sock: socket.socket) -> None:
    while True:
        sock.sendall(bytes(65536))


WORKING = setup_reply(body=root_window())
REFUSAL = b"\x1b[2J\x1b]0;evil\x07 go away"

LISTENERS = {
    "never answers": (say(b"", then=wait_for_end), "never answers"),
    "closes at once": (say(b""), "closes the connection"),
    "a web server": (say(b"HTTP/1.1 400 Bad Request\r\n\r\n", then=wait_for_end), "no X server"),
    "an SSH server": (say(b"SSH-2.0-OpenSSH_9.2\r\n", then=wait_for_end), "no X server"),
    "half a setup": (say(WORKING[:30]), "closes the connection"),
    "half a setup, waiting": (say(WORKING[:30], then=wait_for_end), "never answers"),
    "no screens": (say(setup_reply(roots=0), then=wait_for_end), "no X server"),
    "screens it doesn't send": (say(setup_reply(roots=255), then=wait_for_end), "no X server"),
    "another version": (
        say(WORKING[:2] + b"\x0a\0" + WORKING[4:], then=wait_for_end),
        "no X server",
    ),
    "a reply of 16 GiB": (
        say(WORKING, reply(1, 0xFFFFFFFF), then=flood),
        "sent more than 1048576 bytes",
    ),
    "an answer nobody asked for": (say(WORKING, reply(77, 0), then=wait_for_end), "no X server"),
    "only events": (say(WORKING, b"\x22" * 320, then=wait_for_end), "never answers"),
    "events without end": (
        say(WORKING, then=lambda sock: [sock.sendall(b"\x22" * 65536) for _ in range(1000)]),
        "sent more than 1048576 bytes|never answers",
    ),
    "an error for the request": (
        say(WORKING, struct.pack("<BBHIHB21x", 0, 1, 1, 0, 0, 99), then=wait_for_end),
        "no X server",
    ),
    "words that paint": (
        say(struct.pack("<BBHHH", 0, len(REFUSAL), 11, 0, 6) + REFUSAL.ljust(24)),
        "go away",
    ),
}


@pytest.mark.parametrize("kind", LISTENERS)
def test_what_only_seems_to_be_an_x_server(kind: str, short_directory: Path) -> None:
    serve, why = LISTENERS[kind]
    with listening(short_directory, serve) as path:
        start = time.monotonic()
        verdict = prove(path, b"0123456789abcdef", untrusted=True, deadline=1.0)
        assert time.monotonic() - start < 6
    assert not verdict.works
    assert re.search(why, verdict.reason)
    assert verdict.remedy
    assert verdict.facts is None
    assert verdict.reason.isprintable()
    assert len(verdict.reason) < 400


def test_close_before_the_verdict(short_directory: Path) -> None:
    async def run(path: str, pause: float) -> None:
        probe = await DisplayProbe.start(
            parse_display(path),
            None,
            want_untrusted=True,
            untrusted_timeout=0,
            environ=os.environ,
        )
        await asyncio.sleep(pause)
        assert await probe.verdict(0) is None
        start = time.monotonic()
        await asyncio.gather(probe.close(), probe.close())
        await probe.close()
        assert time.monotonic() - start < 2
        assert probe.pid is None or not is_alive(probe.pid)
        assert await probe.verdict(1) is None

    with listening(short_directory, wait_for_end) as path:
        for pause in (0, 0.001, 0.02, 0.3):
            asyncio.run(run(path, pause))


# Other ways to the server -----------------------------------------------------------------------


@contextmanager
def relaying(server: socket.socket, target: str) -> Iterator[None]:
    """Pass every connection that ``server`` (listening) takes to the socket at ``target``."""
    chooser = selectors.DefaultSelector()
    stopping, stop = socket.socketpair()
    peers: dict[socket.socket, socket.socket] = {}

    def serve() -> None:
        while True:
            for key, _ in chooser.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is stopping:
                    return
                if sock is server:
                    front, back = server.accept()[0], socket.socket(socket.AF_UNIX)
                    back.connect(target)
                    peers.update({front: back, back: front})
                    chooser.register(front, selectors.EVENT_READ)
                    chooser.register(back, selectors.EVENT_READ)
                elif sock in peers:
                    data = sock.recv(65536)
                    if data:
                        peers[sock].sendall(data)
                    else:
                        other = peers.pop(sock)
                        peers.pop(other, None)
                        for end in (sock, other):
                            chooser.unregister(end)
                            end.close()

    chooser.register(server, selectors.EVENT_READ)
    chooser.register(stopping, selectors.EVENT_READ)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.send(b"x")
        thread.join(5)
        for sock in (*peers, stopping, stop):
            sock.close()
        chooser.close()


def test_a_launchd_socket_with_a_long_path(xvfb: Xvfb, short_directory: Path) -> None:
    folder = short_directory / "com.apple.launchd.AbCdEfGhIj"
    filler = "x" * (103 - len(str(folder)) - len("//org.xquartz:0"))
    (folder / filler).mkdir(parents=True)
    path = str(folder / filler / "org.xquartz:0")
    assert len(path) == 103  # as much as macOS allows
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with relaying(server, xvfb.socket_path):
            assert parse_display(path).is_launchd
            for name in (path, "unix:" + path, path + ".0"):
                assert prove(name, xvfb.cookie).works, name


@pytest.mark.parametrize(
    ("family", "address", "shape"),
    [(socket.AF_INET6, "::1", "[::1]:{}"), (socket.AF_INET, "127.0.0.1", "127.0.0.1:{}.0")],
)
def test_over_tcp(xvfb: Xvfb, family: int, address: str, shape: str) -> None:
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip(f"no {address} here")
        port = server.getsockname()[1]
        if port < 6000:
            pytest.skip("the system chose a port that no display number names")
        server.listen()
        with relaying(server, xvfb.socket_path):
            name = shape.format(port - 6000)
            assert prove(name, xvfb.cookie).works
            assert "Invalid" in prove(name, b"0123456789abcdef").reason


# Untrusted --------------------------------------------------------------------------------------


def test_an_untrusted_cookie_works_and_is_untrusted(xvfb: Xvfb, tmp_path: Path) -> None:
    async def use(probe: DisplayProbe, verdict: Verdict) -> None:
        assert verdict.untrusted is not None
        made = verdict.untrusted.data
        assert len(made) == 16
        assert made != xvfb.cookie
        assert made.hex() not in repr(verdict)
        status, shown = client(["xdpyinfo"], xvfb.display, made, tmp_path)
        assert status == 0
        assert "    XTEST\n" not in shown
        assert "    SECURITY\n" not in shown
        status, shown = client(["xdpyinfo"], xvfb.display, xvfb.cookie, tmp_path)
        assert "    XTEST\n" in shown
        # The screen's content is for trusted clients alone.
        picture = ["xwd", "-root", "-silent", "-out", str(tmp_path / "picture")]
        assert client(picture, xvfb.display, xvfb.cookie, tmp_path)[0] == 0
        status, shown = client(picture, xvfb.display, made, tmp_path)
        assert status != 0
        decided = decide_access(
            verdict,
            cookie_entry(xvfb.cookie),
            forward_x11_trusted=False,
            explicit=True,
            timeout=1200,
        )
        assert decided == Access(trusted=False, cookie=made, expires_after=1200)

    asyncio.run(probing(xvfb.display, cookie_entry(xvfb.cookie), use, untrusted=True))


def test_the_untrusted_cookie_is_revoked_by_close(xvfb: Xvfb, tmp_path: Path) -> None:
    verdict = prove(xvfb.display, xvfb.cookie, untrusted=True)
    assert verdict.untrusted is not None
    status, shown = client(["xdpyinfo"], xvfb.display, verdict.untrusted.data, tmp_path)
    assert status != 0
    assert "Invalid MIT-MAGIC-COOKIE-1 key" in shown


def test_the_untrusted_cookie_outlives_other_clients(
    make_xvfb: Callable[..., Xvfb], tmp_path: Path
) -> None:
    """A server that resets when its last client leaves forgets its authorizations."""
    server = make_xvfb(reset=True)

    async def use(probe: DisplayProbe, verdict: Verdict) -> None:
        assert verdict.untrusted is not None
        for _ in range(3):
            status, shown = client(["xdpyinfo"], server.display, verdict.untrusted.data, tmp_path)
            assert status == 0, shown
            await asyncio.sleep(0.05)

    asyncio.run(probing(server.display, cookie_entry(server.cookie), use, untrusted=True))


@pytest.mark.parametrize("timeout", [0, 1, 1200, 3_000_000, 2**32, 10**12])
def test_any_timeout_is_taken(xvfb: Xvfb, tmp_path: Path, timeout: int) -> None:
    """X.Org's server aborts when asked for 25 days and more; the desktop would go with it."""

    async def use(probe: DisplayProbe, verdict: Verdict) -> None:
        assert verdict.untrusted is not None, verdict.reason
        status, shown = client(["xdpyinfo"], xvfb.display, verdict.untrusted.data, tmp_path)
        assert status == 0, shown

    entry = cookie_entry(xvfb.cookie)
    asyncio.run(probing(xvfb.display, entry, use, untrusted=True, timeout=timeout))
    assert xvfb.process.poll() is None


def test_a_server_without_the_extension(make_xvfb: Callable[..., Xvfb]) -> None:
    server = make_xvfb(arguments=("-extension", "SECURITY"))
    verdict = prove(server.display, server.cookie, untrusted=True)
    assert verdict.works
    assert not verdict.has_security
    assert verdict.untrusted is None
    assert verdict.untrusted_reason == "the X server has no SECURITY extension"


def test_an_untrusted_client_cannot_make_untrusted_cookies(xvfb: Xvfb) -> None:
    async def use(probe: DisplayProbe, verdict: Verdict) -> None:
        assert verdict.untrusted is not None
        inner = await probing(xvfb.display, cookie_entry(verdict.untrusted.data), untrusted=True)
        assert inner.works
        assert inner.untrusted is None
        assert "no SECURITY extension" in inner.untrusted_reason

    asyncio.run(probing(xvfb.display, cookie_entry(xvfb.cookie), use, untrusted=True))


def test_the_server_goes_away_while_the_cookie_is_held(make_xvfb: Callable[..., Xvfb]) -> None:
    server = make_xvfb()

    async def use(probe: DisplayProbe, verdict: Verdict) -> None:
        server.kill()
        pid = probe.pid
        assert pid is not None
        await asyncio.to_thread(wait_until, lambda: not is_alive(pid), what="the child's end")

    asyncio.run(probing(server.display, cookie_entry(server.cookie), use, untrusted=True))


def test_a_server_that_hangs_at_the_farewell(make_xvfb: Callable[..., Xvfb]) -> None:
    server = make_xvfb()
    start = 0.0

    async def use(probe: DisplayProbe, verdict: Verdict) -> None:
        nonlocal start
        server.suspend()
        start = time.monotonic()

    asyncio.run(probing(server.display, cookie_entry(server.cookie), use, untrusted=True))
    assert time.monotonic() - start < 4
    server.resume()


# The child as a process -------------------------------------------------------------------------

PARENT = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[1])
from xsshpy.x11.authority import AuthorityEntry
from xsshpy.x11.display import parse_display
from xsshpy.x11.verify import DisplayProbe

async def run():
    cookie = AuthorityEntry(65535, b"", b"", b"MIT-MAGIC-COOKIE-1", bytes.fromhex(input()))
    probe = await DisplayProbe.start(
        parse_display(sys.argv[2]), cookie, want_untrusted=True, untrusted_timeout=0,
        environ=os.environ,
    )
    while probe.pid is None and await probe.verdict(0.01) is None:
        pass
    if sys.argv[3] == "answered":
        assert (await probe.verdict(20)).works
    print(probe.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(run())
"""


def start_parent(display: str, cookie: bytes, moment: str, folder: Path) -> tuple:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT), display, moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(cookie.hex().encode() + b"\n")
    parent.stdin.close()
    child = int(parent.stdout.readline())
    parent.stdout.close()
    return parent, child


@pytest.mark.parametrize("moment", ["answered", "proving"])
def test_the_child_ends_with_a_parent_that_is_killed(
    moment: str, xvfb: Xvfb, short_directory: Path
) -> None:
    with listening(short_directory, wait_for_end) as silent:
        name = xvfb.display if moment == "answered" else silent
        parent, child = start_parent(name, xvfb.cookie, moment, short_directory)
        try:
            assert is_alive(child)
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
        wait_until(lambda: not is_alive(child), timeout=3, what="the child's end")


def test_secrets_are_in_no_argument_and_no_environment(xvfb: Xvfb, short_directory: Path) -> None:
    if not os.path.isdir("/proc/self"):
        pytest.skip("needs /proc")
    parent, child = start_parent(xvfb.display, xvfb.cookie, "answered", short_directory)
    try:
        for name in ("cmdline", "environ"):
            content = Path(f"/proc/{child}/{name}").read_bytes()
            assert xvfb.cookie not in content
            assert xvfb.cookie.hex().encode() not in content
        # Ctrl-C at the terminal reaches the foreground group; the child is not in it.
        assert os.getpgid(child) == child != os.getpgid(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_alive(child), timeout=3, what="the child's end")


def test_modules_lying_in_the_current_directory_are_not_loaded(
    xvfb: Xvfb, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "socket", "Xlib", "xsshpy", "signal", "site"):
        (short_directory / f"{name}.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(short_directory)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert prove(xvfb.display, xvfb.cookie).works


def test_a_python_that_cannot_start_is_told(xvfb: Xvfb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    verdict = prove(xvfb.display, xvfb.cookie)
    assert not verdict.works
    assert "could not be checked" in verdict.reason
    monkeypatch.setattr(sys, "executable", "/bin/false")
    verdict = prove(xvfb.display, xvfb.cookie)
    assert "gave no answer" in verdict.reason


def test_standard_input_may_be_closed(xvfb: Xvfb) -> None:
    """The first descriptor opened is number 0 then, and must not end up as the child's stdin."""
    program = (
        PARENT.replace("input()", "sys.argv[4]")
        .replace("    probe = await", "    os.close(0)\n    probe = await")
        .replace("asyncio.sleep(60)", "probe.close()")
    )
    arguments = (str(ROOT), xvfb.display, "answered", xvfb.cookie.hex())
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        timeout=30,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_no_descriptor_is_left_by_many_proofs(xvfb: Xvfb) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    prove(xvfb.display, xvfb.cookie)
    before = len(os.listdir("/proc/self/fd"))
    for round_number in range(6):
        prove(xvfb.display, xvfb.cookie, untrusted=round_number % 2 == 0)
        prove(xvfb.display, b"wrong")
    assert len(os.listdir("/proc/self/fd")) == before
