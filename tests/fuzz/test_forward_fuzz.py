"""SOCKS clients and forward specifications under any input: only their own errors come out."""

from __future__ import annotations

import ipaddress
import itertools

from hypothesis import given
from hypothesis import strategies as st

from xsshpy.errors import SettingsError, UsageError
from xsshpy.ssh.forward_spec import (
    Forward,
    ForwardKind,
    TcpEndpoint,
    UnixEndpoint,
    parse_forward_options,
    parse_forwards,
    parse_stdio_forward,
)
from xsshpy.ssh.socks import LIMIT, SocksError, SocksReader, SocksRequest

SOCKS_LIKE = st.binary(max_size=60) | st.tuples(
    st.sampled_from(
        [b"\4\1", b"\5\1\0", b"\5\1\0\5\1\0", b"\5\1\0\5\1\0\3\4", b"\4\1\0\x50\0\0\0\1"]
    ),
    st.binary(max_size=40),
).map(b"".join)


def read_pieces(pieces: list[bytes]) -> tuple[SocksRequest | str | None, bytes, bytes]:
    """Return the outcome, the replies, and what is left, all pieces given."""
    reader, replies, outcome = SocksReader(), b"", None
    for index, piece in enumerate(pieces):
        try:
            outcome = reader.receive_data(piece)
        except SocksError:
            return "error", b"", b""
        replies += reader.take_replies()
        if outcome is not None:
            return outcome, replies, reader.take_rest() + b"".join(pieces[index + 1 :])
    return outcome, replies, b""


@given(SOCKS_LIKE, st.lists(st.integers(0, 100), max_size=6))
def test_socks_does_not_care_where_it_is_cut(data: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    whole = read_pieces([data])
    in_pieces = read_pieces(pieces)
    assert in_pieces == whole


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=40))
def test_socks_keeps_little(pieces: list[bytes]) -> None:
    reader = SocksReader()
    for piece in pieces:
        try:
            if reader.receive_data(piece) is not None:
                return
        except SocksError:
            return
        assert len(reader.take_replies()) <= 2
    assert len(reader.take_rest()) <= LIMIT + 200


@given(
    st.ip_addresses(v=4) | st.ip_addresses(v=6) | st.text("abc.-é", min_size=1, max_size=60),
    st.integers(0, 65535),
    st.binary(max_size=20),
)
def test_socks_5_round_trip(
    host: ipaddress.IPv4Address | ipaddress.IPv6Address | str, port: int, rest: bytes
) -> None:
    if isinstance(host, str):
        place = bytes([3, len(host.encode())]) + host.encode()
    else:
        place = bytes([1 if host.version == 4 else 4]) + host.packed
    data = b"\5\1\0\5\1\0" + place + port.to_bytes(2, "big")
    request, replies, left = read_pieces([data + rest])
    assert isinstance(request, SocksRequest)
    assert (request.host, request.port, replies, left) == (str(host), port, b"\5\0", rest)


SPECIFICATION = st.text("a0123456789:[]/ \\*${}\n\0é", max_size=30)


@given(SPECIFICATION, st.sampled_from(["localforward", "remoteforward", "dynamicforward"]))
def test_what_ssh_might_print(text: str, keyword: str) -> None:
    try:
        (forward,) = parse_forwards({keyword: (text,)})
    except SettingsError:
        return
    for endpoint in (forward.listen, forward.target):
        if isinstance(endpoint, TcpEndpoint):
            assert 0 <= endpoint.port <= 65535
        elif endpoint is not None:
            assert "/" in endpoint.path


def printed(endpoint: TcpEndpoint | UnixEndpoint) -> str:
    if isinstance(endpoint, UnixEndpoint):
        return endpoint.path
    return str(endpoint.port) if endpoint.host is None else f"[{endpoint.host}]:{endpoint.port}"


PORTS = st.integers(0, 65535)
HOSTS = st.sampled_from(["", "*", "a", "::1", "localhost"])
PATHS = st.text("ab/.", max_size=20).map(lambda text: f"/{text}").map(UnixEndpoint)
TARGETS = st.builds(TcpEndpoint, HOSTS, st.integers(1, 65535)) | PATHS
LISTENS = st.builds(TcpEndpoint, st.none() | HOSTS, PORTS) | PATHS


@given(LISTENS, TARGETS)
def test_forwards_round_trip(
    listen: TcpEndpoint | UnixEndpoint, target: TcpEndpoint | UnixEndpoint
) -> None:
    line = f"{printed(listen)} {printed(target)}"
    keywords = {"localforward": (line,), "remoteforward": (line,)}
    if isinstance(target, UnixEndpoint):
        keywords["dynamicforward"] = (printed(listen),)
    kinds = (ForwardKind.LOCAL, ForwardKind.REMOTE)
    assert parse_forwards(keywords) == tuple(Forward(kind, listen, target) for kind in kinds)


@given(SPECIFICATION)
def test_stdio_specifications(text: str) -> None:
    try:
        endpoint = parse_stdio_forward(text, {"a": "b"})
    except UsageError:
        return
    assert isinstance(endpoint, UnixEndpoint) or 0 < endpoint.port <= 65535


@given(st.dictionaries(st.sampled_from(["permitremoteopen", "streamlocalbindmask"]), SPECIFICATION))
def test_options(keywords: dict[str, str]) -> None:
    try:
        options = parse_forward_options({name: (value,) for name, value in keywords.items()})
    except SettingsError:
        return
    assert 0 <= options.bind_mask <= 0o7777
