"""Requests as no library makes them, and answers as no server gives them.

Nothing but the protocol's error comes out of a conversation, lest one client take all others along.
"""

from __future__ import annotations

import random
import struct

import pytest

from tests.support.xoracle import ask_facts, build_facts
from tests.support.xrandom import RandomClient
from tests.support.xtalk import server_setup
from tests.support.xvfb import Xvfb
from xsshpy.remote.conversation import Conversation, build_conversation_reader
from xsshpy.remote.facts import ServerFacts
from xsshpy.remote.records import Record, Told
from xsshpy.remote.xmessages import (
    NO_AUTHORIZATION,
    Authorization,
    ByteOrder,
    ProtocolError,
    SetupRequest,
    build_setup_request,
)

LITTLE = ByteOrder.LITTLE
BASE = 0x400000
EVENTS = (2, 11, 17, 18, 19, 21, 22, 28, 29, 34, 35)


@pytest.fixture
def records(xvfb: Xvfb) -> list[Record]:
    return ask_facts(xvfb.socket_path, Authorization(b"MIT-MAGIC-COOKIE-1", xvfb.cookie))


def begin(facts: ServerFacts) -> Conversation:
    reader = build_conversation_reader()
    reader.receive_data(build_setup_request(SetupRequest(LITTLE, 11, 0, NO_AUTHORIZATION)))
    reader.next_event()
    talk = Conversation(reader, facts)
    talk.receive_from_server(server_setup(LITTLE, BASE))
    return talk


def spoil(request: bytes, dice: random.Random) -> bytes:
    """Return a request with other bytes or another length, which it tells."""
    spoiled = bytearray(request)
    if dice.random() < 0.4:
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(len(spoiled))
            spoiled[place] = dice.choice((0, 1, 2, 255, dice.randrange(256)))
    if dice.random() < 0.15:
        spoiled = spoiled[: 4 * dice.randint(1, len(spoiled) // 4)]
    if dice.random() < 0.05:
        spoiled += bytes(4 * dice.randint(1, 4))
    if request[2:4] != b"\0\0":
        spoiled[2:4] = struct.pack("<H", len(spoiled) // 4)
    return bytes(spoiled)


def answer(talk: Conversation, sequence: int, dice: random.Random) -> bytes:
    """Return what a server out of its mind might say."""
    chosen, number = dice.random(), dice.randint(max(0, sequence - 5), sequence) & 0xFFFF
    some = (0, 0x50D, BASE + dice.randrange(30), dice.randrange(1 << 32))
    if chosen < 0.35 and talk._pending:
        units, first = dice.choice((0, 0, 1, 3, 20)), talk._pending[0].sequence & 0xFFFF
        return struct.pack("<BBHI", 1, dice.randrange(256), first, units) + dice.randbytes(
            24 + 4 * units
        )
    if chosen < 0.6:
        error = (0, dice.randint(1, 17), number, dice.choice(some), 0, dice.randrange(256))
        return struct.pack("<BBHIHB21x", *error)
    code = dice.choice((*EVENTS, dice.randrange(2, 128)))
    rest = struct.pack("<III", *(dice.choice(some) for _ in range(3))) + dice.randbytes(12)
    extra = 0 if code == 35 else dice.randrange(1 << 32)
    return struct.pack("<BBHI", code, dice.randrange(256), number, extra) + rest


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_only_the_protocols_error_comes_out(first: int, records: list[Record]) -> None:
    assert any(record.about is Told.SETUP for record in records)
    for seed in range(first, first + 20):
        dice, facts = random.Random(seed), build_facts(records)
        talk = begin(facts)
        try:
            requests = RandomClient(seed, facts, BASE, wild=True).requests(120)
            for sequence, request in enumerate(requests, 1):
                talk.receive_from_client(spoil(request, dice))
                talk.take_for_server()
                if dice.random() < 0.4:
                    talk.receive_from_server(answer(talk, sequence, dice))
                talk.take_for_client()
        except ProtocolError:
            continue


def test_a_configure_window_without_its_sibling(records: list[Record]) -> None:
    facts = build_facts(records)
    talk, root = begin(facts), next(iter(facts.screens))
    place = struct.pack("<hhHHHHII", 1, 1, 9, 9, 0, 1, 0, 0)
    talk.receive_from_client(struct.pack("<BBHII", 1, 0, 8, BASE + 1, root) + place)
    talk.receive_from_client(struct.pack("<BBHIHxx", 12, 0, 3, BASE + 1, 0x3F))
    talk.receive_from_client(struct.pack("<BBH", 43, 0, 1))
    assert not talk.take_for_client()[len(server_setup(LITTLE)) :]
