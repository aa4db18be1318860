"""Forwards as ``ssh -G`` prints them, ``-W``, and SOCKS requests."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.support.tools import require_tool
from xsshpy.errors import SettingsError, UsageError
from xsshpy.settings import parse_keywords
from xsshpy.ssh.forward_spec import (
    Endpoint,
    Forward,
    ForwardKind,
    ForwardOptions,
    Permission,
    TcpEndpoint,
    UnixEndpoint,
    decide_bind,
    parse_forward_options,
    parse_forwards,
    parse_stdio_forward,
    remote_bind,
)
from xsshpy.ssh.socks import LIMIT, SocksError, SocksReader, SocksRequest

LOCAL, DYNAMIC = ForwardKind.LOCAL, ForwardKind.DYNAMIC
REMOTE, REMOTE_DYNAMIC = ForwardKind.REMOTE, ForwardKind.REMOTE_DYNAMIC


def tcp(port: int, host: str | None = None) -> TcpEndpoint:
    return TcpEndpoint(host, port)


def unix(path: str) -> UnixEndpoint:
    return UnixEndpoint(path)


A80 = tcp(80, "a")
CASES: list[tuple[str, str, Forward]] = [
    ("-L", "8080:a:80", Forward(LOCAL, tcp(8080), A80)),
    ("-L", ":8080:a:80", Forward(LOCAL, tcp(8080, ""), A80)),
    ("-L", "*:8080:a:80", Forward(LOCAL, tcp(8080, "*"), A80)),
    ("-L", "localhost:8080:a:80", Forward(LOCAL, tcp(8080, "localhost"), A80)),
    ("-L", "[::1]:8080:[::2]:99", Forward(LOCAL, tcp(8080, "::1"), tcp(99, "::2"))),
    ("-L", "8080:/tmp/t", Forward(LOCAL, tcp(8080), unix("/tmp/t"))),
    ("-L", "*:8080:/tmp/t", Forward(LOCAL, tcp(8080, "*"), unix("/tmp/t"))),
    ("-L", "/tmp/l:a:80", Forward(LOCAL, unix("/tmp/l"), A80)),
    ("-L", "/tmp/l:/tmp/t", Forward(LOCAL, unix("/tmp/l"), unix("/tmp/t"))),
    ("-L", "/tmp/l 1:/tmp/t 2", Forward(LOCAL, unix("/tmp/l 1"), unix("/tmp/t 2"))),
    ("-L", "/tmp/l /1:/tmp/t", Forward(LOCAL, unix("/tmp/l /1"), unix("/tmp/t"))),
    ("-L", "/tmp/l 1:a:80", Forward(LOCAL, unix("/tmp/l 1"), A80)),
    ("-D", "1080", Forward(DYNAMIC, tcp(1080), None)),
    ("-D", "*:1080", Forward(DYNAMIC, tcp(1080, "*"), None)),
    ("-D", "[::1]:1080", Forward(DYNAMIC, tcp(1080, "::1"), None)),
    ("-D", "/tmp/l", Forward(DYNAMIC, unix("/tmp/l"), None)),
    ("-R", "9000:a:80", Forward(REMOTE, tcp(9000), A80)),
    ("-R", "0:a:80", Forward(REMOTE, tcp(0), A80)),
    ("-R", ":9000:a:80", Forward(REMOTE, tcp(9000, ""), A80)),
    ("-R", "9000:/tmp/t", Forward(REMOTE, tcp(9000), unix("/tmp/t"))),
    ("-R", "/tmp/l:a:80", Forward(REMOTE, unix("/tmp/l"), A80)),
    ("-R", "/tmp/l:/tmp/t", Forward(REMOTE, unix("/tmp/l"), unix("/tmp/t"))),
    ("-R", "9000", Forward(REMOTE_DYNAMIC, tcp(9000), None)),
    ("-R", "[::1]:9000", Forward(REMOTE_DYNAMIC, tcp(9000, "::1"), None)),
    ("-R", "/tmp/l", Forward(REMOTE_DYNAMIC, unix("/tmp/l"), None)),
    ("-R", "9000:socks:80", Forward(REMOTE, tcp(9000), tcp(80, "socks"))),
]


def ssh_keywords(*words: str) -> dict[str, tuple[str, ...]]:
    ssh = require_tool("ssh")
    done = subprocess.run(
        [ssh, "-F", "none", "-T", "-G", *words, "host"], capture_output=True, text=True, check=True
    )
    return parse_keywords(done.stdout)


@pytest.mark.parametrize(("option", "text", "expected"), CASES, ids=lambda value: str(value)[:24])
def test_every_form_that_ssh_prints(option: str, text: str, expected: Forward) -> None:
    assert parse_forwards(ssh_keywords(option, text)) == (expected,)


def test_all_of_them_together() -> None:
    chosen = [case for case in CASES if case[1] != "/tmp/l /1:/tmp/t"]
    words = [word for option, text, _ in chosen for word in (option, text)]
    found = parse_forwards(ssh_keywords(*words))
    assert sorted(map(repr, found)) == sorted(repr(expected) for _, _, expected in chosen)


def test_none_where_they_are_cleared() -> None:
    keywords = ssh_keywords("-L", "1:a:2", "-R", "3:a:4", "-D", "5", "-oClearAllForwardings=yes")
    assert parse_forwards(keywords) == ()
    assert parse_forwards({}) == ()


@pytest.mark.parametrize(
    "keywords",
    [
        {"localforward": ("8080",)},
        {"localforward": ("8080 a",)},
        {"localforward": ("8080 [a]:99999",)},
        {"localforward": ("[a]:x [a]:1",)},
        {"remoteforward": ("",)},
        {"dynamicforward": ("x",)},
        {"dynamicforward": ("99999",)},
    ],
)
def test_what_is_not_understood_is_said(keywords: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(SettingsError, match="not understood"):
        parse_forwards(keywords)


def test_options_as_ssh_prints_them() -> None:
    assert parse_forward_options(ssh_keywords()) == ForwardOptions()
    given = ssh_keywords(
        "-g",
        "-oExitOnForwardFailure=yes",
        "-oStreamLocalBindUnlink=yes",
        "-oStreamLocalBindMask=0117",
        "-oPermitRemoteOpen=a:80 [::1]:* *:22",
    )
    permitted = (Permission("a", 80), Permission("::1", None), Permission(None, 22))
    expected = ForwardOptions(True, True, True, 0o117, permitted)
    assert parse_forward_options(given) == expected
    assert parse_forward_options(ssh_keywords("-oPermitRemoteOpen=none")).permitted == ()
    assert parse_forward_options(ssh_keywords("-oPermitRemoteOpen=any")).permitted is None


def test_permissions() -> None:
    everything = ForwardOptions()
    assert everything.permits("anywhere", 1)
    nothing = ForwardOptions(permitted=())
    assert not nothing.permits("a", 80)
    some = ForwardOptions(permitted=(Permission("a", 80), Permission(None, 22)))
    assert some.permits("a", 80)
    assert some.permits("b", 22)
    assert not some.permits("a", 81)
    assert not some.permits("A", 80)
    with pytest.raises(SettingsError, match="PermitRemoteOpen"):
        parse_forward_options({"permitremoteopen": ("a:80 b",)})


@pytest.mark.parametrize(
    ("host", "gateway_ports", "expected"),
    [
        (None, False, (None, False)),
        (None, True, (None, True)),
        ("", False, (None, True)),
        ("*", False, (None, True)),
        ("localhost", True, (None, False)),
        ("127.0.0.1", True, ("127.0.0.1", False)),
        ("0.0.0.0", False, ("0.0.0.0", False)),
    ],
)
def test_bind_addresses(
    host: str | None, gateway_ports: bool, expected: tuple[str | None, bool]
) -> None:
    assert decide_bind(host, gateway_ports=gateway_ports) == expected


def test_bind_addresses_on_the_wire() -> None:
    given = [None, "", "*", "localhost", "::1"]
    assert [remote_bind(host) for host in given] == ["localhost", "", "", "localhost", "::1"]


STDIO: list[tuple[str, Endpoint | None]] = [
    ("a:80", tcp(80, "a")),
    (" a:080", tcp(80, "a")),
    ("a:80:", tcp(80, "a")),
    (":80", tcp(80, "")),
    ("[::1]:90", tcp(90, "::1")),
    (r"\:a:80", tcp(80, ":a")),
    ("a: +80", tcp(80, "a")),
    ("${WHERE}:80", tcp(80, "here")),
    ("/tmp/x", unix("/tmp/x")),
    ("[/tmp/x:y]", unix("/tmp/x:y")),
    *((text, None) for text in ("", "a", "a:b", "a:0", "a:65536", "[a", "[a]x:1", "a:b:c", "a\\")),
    *((text, None) for text in ("a:/x", "a:-1", "a:80 ", "${NOT_THERE}:80", ":")),
]


@pytest.mark.parametrize(("text", "expected"), STDIO)
def test_stdio_forward(text: str, expected: Endpoint | None) -> None:
    environ = {"WHERE": "here"}
    if expected is None:
        with pytest.raises(UsageError) as caught:
            parse_stdio_forward(text, environ)
        assert caught.value.render() == f"Bad stdio forwarding specification '{text}'"
    else:
        assert parse_stdio_forward(text, environ) == expected


@pytest.mark.parametrize(("text", "expected"), STDIO)
def test_ssh_judges_them_alike(
    text: str, expected: Endpoint | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE", "here")
    ssh = require_tool("ssh")
    done = subprocess.run(
        [ssh, "-F", "none", "-G", "-W", text, "h"], capture_output=True, text=True
    )
    assert ("Bad stdio" in done.stderr or "NOT_THERE" in done.stderr) == (expected is None)


def test_stdio_forward_to_a_service() -> None:
    try:
        port = socket.getservbyname("ssh", "tcp")
    except OSError:
        pytest.skip("no services(5) here")
    assert parse_stdio_forward("a:ssh") == tcp(port, "a")


# --- SOCKS --------------------------------------------------------------------------------------

GRANTED_4 = bytes([0, 90, 0, 0, 0, 0, 0, 0])
GRANTED_5 = bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
REQUESTS = [
    (b"\x04\x01\x00\x50\x7f\x00\x00\x01me\0", "127.0.0.1", 80, GRANTED_4, b""),
    (b"\x04\x01\x00\x50\x00\x00\x00\x01me\0host.example\0", "host.example", 80, GRANTED_4, b""),
    (b"\x04\x01\x00\x50\x00\x00\x00\x00\0", "0.0.0.0", 80, GRANTED_4, b""),
    (b"\x05\x01\0\x05\x01\0\x01\x7f\0\0\x01\0\x50", "127.0.0.1", 80, GRANTED_5, b"\5\0"),
    (b"\x05\x02\x02\0\x05\x01\0\x03\x04host\x1f\x90", "host", 8080, GRANTED_5, b"\5\0"),
    (b"\x05\x01\0\x05\x01\0\x04" + bytes(15) + b"\1\0\x16", "::1", 22, GRANTED_5, b"\5\0"),
]


@pytest.mark.parametrize(("data", "host", "port", "granted", "replies"), REQUESTS)
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.0\r\n"])
def test_socks(
    data: bytes, host: str, port: int, granted: bytes, replies: bytes, rest: bytes
) -> None:
    reader = SocksReader()
    assert reader.receive_data(data + rest) == SocksRequest(host, port, granted)
    assert reader.take_replies() == replies
    assert reader.take_rest() == rest


@pytest.mark.parametrize(("data", "host", "port", "granted", "replies"), REQUESTS)
def test_socks_byte_by_byte(
    data: bytes, host: str, port: int, granted: bytes, replies: bytes
) -> None:
    reader = SocksReader()
    said = b""
    for index in range(len(data) - 1):
        assert reader.receive_data(data[index : index + 1]) is None
        said += reader.take_replies()
    assert reader.receive_data(data[-1:]) == SocksRequest(host, port, granted)
    assert (said, reader.take_rest()) == (replies, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n",
        b"\0",
        b"\x04\x02\x00\x50\x7f\x00\x00\x01me\0",
        b"\x04\x01\x00\x50\x7f\x00\x00\x01" + b"u" * LIMIT,
        b"\x04\x01\x00\x50\x7f\x00\x00\x01" + b"u" * 2 * LIMIT + b"\0",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\0" + b"h" * LIMIT,
        b"\x04\x01\x00\x50\x00\x00\x00\x01\0\xff\xfe\0",
        b"\x05\x01\x02",
        b"\x05\0",
        b"\x05\x01\0\x04",
        b"\x05\x01\0\x05\x02\0\x01\x7f\0\0\x01\0\x50",
        b"\x05\x01\0\x05\x01\x01",
        b"\x05\x01\0\x05\x01\0\x02\x7f\0\0\x01\0\x50",
        b"\x05\x01\0\x05\x01\0\x03\x03a\0b\0\x50",
    ],
)
def test_socks_that_is_not_served(data: bytes) -> None:
    with pytest.raises(SocksError):
        SocksReader().receive_data(data)
