"""Every form of DISPLAY, and what connecting says when it fails."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from xsshpy.errors import DisplayError
from xsshpy.x11.display import (
    ConnectFailure,
    Display,
    TcpEndpoint,
    UnixEndpoint,
    connect_error,
    is_loopback,
    open_display,
    parse_display,
    resolve_addresses,
    start_remedy,
)

INET, INET6, ANY = int(socket.AF_INET), int(socket.AF_INET6), int(socket.AF_UNSPEC)


def local(number: int, *, tcp: bool) -> tuple[UnixEndpoint | TcpEndpoint, ...]:
    path = f"/tmp/.X11-unix/X{number}"
    unix = (UnixEndpoint(path), UnixEndpoint(path, abstract=True))
    return (*unix, TcpEndpoint("localhost", 6000 + number)) if tcp else unix


def tcp(host: str, port: int, family: int = ANY) -> tuple[TcpEndpoint, ...]:
    return (TcpEndpoint(host, port, family),)


QUARTZ = "/private/tmp/com.apple.launchd.AbC123xyz/org.xquartz:0"
NEWER_QUARTZ = "/var/run/com.apple.launchd.AbC123xyz/org.xquartz:0"

FORMS: list[tuple[str, str, int, int, tuple[UnixEndpoint | TcpEndpoint, ...]]] = [
    (":0", "", 0, 0, local(0, tcp=True)),
    (":0.1", "", 0, 1, local(0, tcp=True)),
    (":12.34", "", 12, 34, local(12, tcp=True)),
    (":65535", "", 65535, 0, local(65535, tcp=False)),
    ("unix:0", "", 0, 0, local(0, tcp=False)),
    ("unix:3.2", "", 3, 2, local(3, tcp=False)),
    ("unix/host:0", "", 0, 0, local(0, tcp=False)),
    ("unix/:4", "", 4, 0, local(4, tcp=False)),
    ("host/unix:0", "", 0, 0, local(0, tcp=False)),
    ("host/unix:10.0", "", 10, 0, local(10, tcp=False)),
    ("localhost:10.0", "localhost", 10, 0, tcp("localhost", 6010)),
    ("host:10.0", "host", 10, 0, tcp("host", 6010)),
    ("host.example.org:0", "host.example.org", 0, 0, tcp("host.example.org", 6000)),
    ("192.0.2.7:1", "192.0.2.7", 1, 0, tcp("192.0.2.7", 6001)),
    ("tcp/host:0", "host", 0, 0, tcp("host", 6000)),
    ("tcp/:0", "localhost", 0, 0, tcp("localhost", 6000)),
    ("inet/host:2", "host", 2, 0, tcp("host", 6002, INET)),
    ("inet6/host:2", "host", 2, 0, tcp("host", 6002, INET6)),
    ("[::1]:0", "::1", 0, 0, tcp("::1", 6000)),
    ("[::1]:0.3", "::1", 0, 3, tcp("::1", 6000)),
    ("::1:0", "::1", 0, 0, tcp("::1", 6000)),
    ("tcp/[2001:db8::1]:5", "2001:db8::1", 5, 0, tcp("2001:db8::1", 6005)),
    ("2001:db8::1:5.1", "2001:db8::1", 5, 1, tcp("2001:db8::1", 6005)),
    ("[fe80::1%eth0]:0", "fe80::1%eth0", 0, 0, tcp("fe80::1%eth0", 6000)),
    ("[host]:0", "host", 0, 0, tcp("host", 6000)),
    ("host:59535", "host", 59535, 0, tcp("host", 65535)),
    (QUARTZ, "", 0, 0, (UnixEndpoint(QUARTZ),)),
    (NEWER_QUARTZ, "", 0, 0, (UnixEndpoint(NEWER_QUARTZ),)),
    (QUARTZ + ".1", "", 0, 1, (UnixEndpoint(QUARTZ + ".1"), UnixEndpoint(QUARTZ))),
    ("unix:" + QUARTZ, "", 0, 0, (UnixEndpoint(QUARTZ),)),
    ("/tmp/.X11-unix/X7", "", 7, 0, (UnixEndpoint("/tmp/.X11-unix/X7"),)),
    (
        "unix:/tmp/.X11-unix/X7.2",
        "",
        7,
        2,
        (UnixEndpoint("/tmp/.X11-unix/X7.2"), UnixEndpoint("/tmp/.X11-unix/X7")),
    ),
    ("/run/some socket", "", 0, 0, (UnixEndpoint("/run/some socket"),)),
    ("/run/.5", "", 0, 0, (UnixEndpoint("/run/.5"),)),
    ("/run/x.sock", "", 0, 0, (UnixEndpoint("/run/x.sock"),)),
]


@pytest.mark.parametrize(
    ("name", "host", "number", "screen", "endpoints"), FORMS, ids=[form[0] for form in FORMS]
)
def test_each_form_is_understood(
    name: str,
    host: str,
    number: int,
    screen: int,
    endpoints: tuple[UnixEndpoint | TcpEndpoint, ...],
) -> None:
    assert parse_display(name, platform="linux") == Display(name, host, number, screen, endpoints)


def test_abstract_sockets_are_linux_own() -> None:
    for platform in ("darwin", "freebsd14"):
        assert parse_display(":3", platform=platform).endpoints == (
            UnixEndpoint("/tmp/.X11-unix/X3"),
            TcpEndpoint("localhost", 6003),
        )


MALFORMED = [
    ("", "not set"),
    ("0", "no colon"),
    ("host", "no colon"),
    (":", "not a display number"),
    ("host:", "not a display number"),
    (":x", "not a display number"),
    (":0.", "not a display number"),
    (":0.x", "not a display number"),
    (":0.0.0", "not a display number"),
    (":-1", "not a display number"),
    (": 1", "not a display number"),
    (":0 ", "not a display number"),
    (":\N{ARABIC-INDIC DIGIT ONE}", "not a display number"),
    (":65536", "above 65535"),
    (":99999999999999999999", "not a display number"),
    (":0.70000", "above 65535"),
    ("host:59536", "no TCP port"),
    ("host::0", "DECnet"),
    ("a:b:c:0", "no IPv6 address"),
    ("[::1:0", "no IPv6 address"),
    ("::1]:0", "no IPv6 address"),
    ("decnet/host:0", "not supported"),
    ("a b:0", "white space"),
    ("h" * 256 + ":0", "longer than 255"),
    (":0\n", "control characters"),
    ("\x1b[2J:0", "control characters"),
    (":0\0", "control characters"),
    ("x" * 2000 + ":0", "2002 characters"),
    ("/" + "x" * 2000, "2001 characters"),
]


@pytest.mark.parametrize(("name", "why"), MALFORMED, ids=[repr(name)[:20] for name, _ in MALFORMED])
def test_a_malformed_display_is_explained(name: str, why: str) -> None:
    with pytest.raises(DisplayError, match=re.escape(why)) as caught:
        parse_display(name)
    assert caught.value.remedy
    text = caught.value.render()
    assert "\x1b" not in text
    assert "\0" not in text
    assert len(text) < 400


def test_what_counts_as_local() -> None:
    for name in (":0", "unix:1", QUARTZ, "localhost:10.0", "127.0.0.1:0", "[::1]:0", "127.9.9.9:1"):
        assert parse_display(name).is_local, name
    for name in ("host:0", "192.0.2.1:0", "[2001:db8::1]:0"):
        assert not parse_display(name).is_local, name
    assert is_loopback("::ffff:127.0.0.1")
    assert is_loopback("LocalHost.")
    assert not is_loopback("::ffff:192.0.2.1")


def test_launchd_sockets_are_known_as_such() -> None:
    for name in (QUARTZ, NEWER_QUARTZ, QUARTZ + ".1", "unix:" + QUARTZ):
        assert parse_display(name).is_launchd, name
    for name in (":0", "host:0", "/tmp/.X11-unix/X7"):
        assert not parse_display(name).is_launchd, name


def test_remedies_fit_the_platform_and_never_open_the_display_to_everyone() -> None:
    shown = []
    for name in (":0", QUARTZ, "host:0", "/tmp/x"):
        for code in (0, errno.ENOENT, errno.ECONNREFUSED, errno.EACCES, errno.ETIMEDOUT):
            for platform in ("linux", "darwin"):
                shown.append(start_remedy(parse_display(name), code=code, platform=platform))
    assert all(shown)
    assert not any("xhost" in text or "\n" in text for text in shown)
    assert "XQuartz" in start_remedy(parse_display(QUARTZ), platform="linux")
    assert "XQuartz" in start_remedy(parse_display(":0"), platform="darwin")
    assert "DISPLAY=:0" in start_remedy(parse_display(QUARTZ), code=errno.ETIMEDOUT)
    with pytest.raises(DisplayError) as caught:
        parse_display("", platform="darwin")
    assert "XQuartz" in caught.value.remedy


def test_the_error_names_the_endpoint_that_tells_most() -> None:
    display = parse_display(":5", platform="linux")
    gone = ConnectFailure("@/tmp/.X11-unix/X5", errno.ECONNREFUSED, "Connection refused")
    nobody = ConnectFailure("localhost:6005", errno.ECONNREFUSED, "Connection refused")

    def first(code: int) -> ConnectFailure:
        return ConnectFailure("/tmp/.X11-unix/X5", code, os.strerror(code))

    missing = connect_error(display, [first(errno.ENOENT), gone, nobody])
    assert missing.message == (
        "xssh: X11: cannot open display :5: no X server: /tmp/.X11-unix/X5 does not exist"
    )
    stale = connect_error(display, [first(errno.ECONNREFUSED), gone, nobody])
    assert stale.message.endswith("no X server is listening on /tmp/.X11-unix/X5")
    denied = connect_error(display, [first(errno.EACCES), gone, nobody])
    assert denied.message.endswith("/tmp/.X11-unix/X5: Permission denied")
    assert "user who owns" in denied.remedy
    assert len(denied.evidence) == 3


def open_now(name: str, timeout: float = 2.0) -> socket.socket:
    return asyncio.run(open_display(parse_display(name), timeout=timeout))


@pytest.fixture
def listener(short_directory: Path) -> socket.socket:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(short_directory / "org.xquartz:0"))
        sock.listen(0)
        yield sock


def test_a_socket_path_is_opened_whole_or_without_its_screen(listener: socket.socket) -> None:
    path = listener.getsockname()
    for name in (path, "unix:" + path, path + ".1"):
        with open_now(name) as sock:
            assert sock.getpeername() == path
            assert sock.getblocking() is False
            assert not sock.get_inheritable()
            listener.accept()[0].close()


def test_a_full_backlog_is_no_connection(listener: socket.socket) -> None:
    """A non-blocking connect gives EAGAIN there, and the socket polls as writable all the same."""
    waiting = []
    try:
        while True:
            sock = socket.socket(socket.AF_UNIX)
            waiting.append(sock)
            sock.setblocking(False)
            try:
                sock.connect(listener.getsockname())
            except (BlockingIOError, ConnectionRefusedError):
                break
        with pytest.raises(DisplayError, match=r"no answer within 0\.3 seconds"):
            open_now(listener.getsockname(), timeout=0.3)
        # Once there is room again, the same attempt succeeds.
        timer = threading.Timer(0.2, lambda: listener.accept()[0].close())
        timer.start()
        open_now(listener.getsockname(), timeout=5).close()
        timer.join()
    finally:
        for sock in waiting:
            sock.close()


def test_what_is_missing_dead_or_too_long_is_named(short_directory: Path) -> None:
    stale = str(short_directory / "stale:0")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(stale)
    with pytest.raises(DisplayError, match="no X server is listening on"):
        open_now(stale)
    with pytest.raises(DisplayError, match="does not exist"):
        open_now(str(short_directory / "nothing:0"))
    with pytest.raises(DisplayError, match="the socket's path is too long"):
        open_now("/" + "x" * 200)
    with pytest.raises(DisplayError, match=r"Not a directory"):
        open_now(f"{stale}/below")


def test_tcp_over_both_versions_of_ip() -> None:
    for family, shape in ((socket.AF_INET, "127.0.0.1:{}"), (socket.AF_INET6, "[::1]:{}")):
        with listen_on_display(family) as server:
            number = server.getsockname()[1] - 6000
            with open_now(shape.format(number)) as sock:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with pytest.raises(DisplayError, match="no X server is listening on"):
            open_now(shape.format(number))


def listen_on_display(family: int) -> socket.socket:
    """Listen on a free port that a display number can name (6000 to 65535)."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    while True:
        server = socket.socket(family)
        try:
            server.bind((host, 0))
        except OSError:
            server.close()
            pytest.skip(f"no loopback for {host}")
        if server.getsockname()[1] >= 6000:
            server.listen(4)
            return server
        server.close()


def test_a_name_that_does_not_resolve_is_named() -> None:
    with pytest.raises(DisplayError, match=r"no-such-host\.invalid:6000: "):
        open_now("no-such-host.invalid:0", timeout=20)


def test_a_name_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_: object) -> list[object]:
        release.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    try:
        with pytest.raises(DisplayError, match=r"no answer within 0\.2 seconds"):
            open_now("slow.example:0", timeout=0.2)
        assert asyncio.run(resolve_addresses(parse_display("slow.example:0"), timeout=0.1)) == ()
        lookups = [item for item in threading.enumerate() if item.name == "resolver"]
        assert len(lookups) == 2
        assert all(item.daemon for item in lookups)  # nor will the program's end
        assert time.monotonic() - start < 3  # the loops' ends did not wait for the look-ups
    finally:
        release.set()


def test_addresses_for_matching_cookies() -> None:
    def resolve(name: str) -> tuple[str, ...]:
        return asyncio.run(resolve_addresses(parse_display(name), timeout=5))

    assert resolve(":0") == ()
    assert resolve("127.0.0.1:0") == ("127.0.0.1",)
    assert resolve("[::1]:0") == ("::1",)
    assert set(resolve("localhost:0")) <= {"127.0.0.1", "::1"}
    assert resolve("no-such-host.invalid:0") == ()
