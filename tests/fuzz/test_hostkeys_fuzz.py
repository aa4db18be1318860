"""Revoked keys, a server's list of keys, a command's words: only their own errors come out."""

from __future__ import annotations

import contextlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_krl import HEADER, KEY, certificate, certificates, number, section, string
from xsshpy.ssh.hostkey_update import (
    AnnouncementError,
    HostSpec,
    parse_announcement,
    plan_update,
    rewrite_known_hosts,
)
from xsshpy.ssh.known_hosts import parse_known_hosts
from xsshpy.ssh.known_hosts_command import QuotesError, split_words
from xsshpy.ssh.krl import MAGIC, KrlError, parse_krl
from xsshpy.ssh.randomart import draw_randomart
from xsshpy.ssh.revoked_keys import RevokedKeysError, is_revoked

WHOLE = (
    HEADER
    + section(2, string(KEY.blob))
    + section(3, string(bytes(20)))
    + certificates(
        section(0x20, number(5)),
        section(0x21, number(1) + number(9)),
        section(0x22, number(9) + string(b"\x01\xff")),
        section(0x23, string(b"id")),
        ca=KEY.blob,
    )
    + section(5, string(bytes(32)))
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_header(data: bytes) -> None:
    for start in (b"", MAGIC, HEADER):
        with contextlib.suppress(RevokedKeysError):
            is_revoked(KEY, start + data)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_a_damaged_list(seed: int, damages: int) -> None:
    chance = random.Random(seed)
    data = bytearray(WHOLE)
    for _ in range(damages):
        data[chance.randrange(len(data))] = chance.randrange(256)
    for text in (bytes(data), bytes(data[: chance.randrange(len(data))])):
        with contextlib.suppress(KrlError):
            parse_krl(text).revokes(certificate(chance.getrandbits(64)))


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab \t\\'\"%$"), max_size=30))
def test_words_of_a_command(line: str) -> None:
    with contextlib.suppress(QuotesError):
        words = split_words(line)
        assert len(words) <= len(line)


@given(st.sampled_from(["md5", "sha256"]))
def test_pictures_have_one_size(name: str) -> None:
    assert {len(row) for row in draw_randomart(KEY, name).split("\n")} == {19}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=300))
def test_a_list_of_host_keys_and_any_file(announced: bytes, known: bytes) -> None:
    with contextlib.suppress(AnnouncementError):
        parse_announcement(string(KEY.blob) + announced, ())
    spec = HostSpec("h", "1")
    lines = parse_known_hosts(known, "/kh")
    plan_update((KEY,), lines, spec)
    done = rewrite_known_hosts(known, "/kh", spec, (KEY,), make_salt=None)
    assert plan_update((KEY,), parse_known_hosts(done.data, "/kh"), spec).new == ()
    again = rewrite_known_hosts(done.data, "/kh", spec, (KEY,), make_salt=None)
    assert (again.data, again.changed) == (done.data, False)
