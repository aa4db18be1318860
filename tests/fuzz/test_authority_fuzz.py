"""Whatever bytes an Xauthority file or a DISPLAY holds, only their own errors come out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.authorities import encode_authority
from xsshpy.errors import DisplayError
from xsshpy.x11.authority import (
    COOKIE_PROTOCOL,
    AuthorityEntry,
    AuthorityError,
    parse_authority,
    select_cookie,
    unsupported_protocols,
)
from xsshpy.x11.display import Display, TcpEndpoint, parse_display

small = st.binary(max_size=40)
entries = st.lists(
    st.builds(
        AuthorityEntry,
        family=st.one_of(st.sampled_from([0, 6, 256, 65535]), st.integers(0, 65535)),
        address=st.one_of(st.just(b"host"), st.binary(max_size=16), small),
        number=st.one_of(st.sampled_from([b"", b"0", b"1"]), small),
        name=st.one_of(st.just(COOKIE_PROTOCOL), small),
        data=small,
    ),
    max_size=8,
)
names = st.one_of(
    st.sampled_from([":0", "localhost:1.0", "[::1]:0", "192.0.2.1:0", "/s:1"]),
    st.text(max_size=30),
    st.from_regex(r"(tcp/|unix/|unix:)?[a-z:.\[\]/0-9]{0,12}:[0-9]{1,6}(\.[0-9])?", fullmatch=True),
)


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    try:
        found = parse_authority(data)
    except AuthorityError:
        return
    assert data.startswith(encode_authority(found))


@given(entries, st.binary(max_size=30))
def test_round_trip_with_trailing_bytes(made: list[AuthorityEntry], rest: bytes) -> None:
    data = encode_authority(made)
    if data:
        assert parse_authority(data) == tuple(made)
    try:
        assert parse_authority(data + rest)[: len(made)] == tuple(made)
    except AuthorityError:
        assert not made


@given(entries, st.integers(0, 2000))
def test_truncated(made: list[AuthorityEntry], cut: int) -> None:
    try:
        found = parse_authority(encode_authority(made)[:cut])
    except AuthorityError:
        return
    assert tuple(made[: len(found)]) == found


@given(names)
def test_any_display(name: str) -> None:
    try:
        display = parse_display(name)
    except DisplayError as error:
        assert error.remedy
        assert "\n" not in error.message
        return
    assert isinstance(display, Display)
    assert display.endpoints
    for endpoint in display.endpoints:
        if isinstance(endpoint, TcpEndpoint):
            assert 6000 <= endpoint.port <= 65535


@given(entries, names, st.text(max_size=20), st.lists(st.text(max_size=12), max_size=3))
def test_any_choice(
    made: list[AuthorityEntry], name: str, hostname: str, addresses: list[str]
) -> None:
    try:
        display = parse_display(name)
    except DisplayError:
        return
    try:
        hostname.encode()
    except UnicodeEncodeError:
        return
    chosen = select_cookie(made, display, hostname, addresses=addresses)
    if chosen is not None:
        assert chosen in made
        assert chosen.name == COOKIE_PROTOCOL
        assert chosen.data
        assert chosen.number in (b"", str(display.number).encode())
    assert COOKIE_PROTOCOL.decode() not in unsupported_protocols(
        made, display, hostname, addresses=addresses
    )
