"""A server that sends much, or what unfolds to much: its run keeps little of it, and ends soon.

A row is a server, the end it comes to and its words. What a run keeps at most is compared with what
it keeps of a server that does nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import asyncssh
import pytest
from asyncssh.packet import Boolean, Byte, MPInt, String, UInt32

from tests.integration._hostile import (
    ACCEPT,
    ENDS,
    FAILURE,
    GOES_ON,
    KEX_REPLY,
    NASTY,
    SUCCESS,
    Algorithms,
    Change,
    Hostile,
    asking,
    find_fault,
    opening,
)
from tests.support.clients import ClientHome
from tests.support.oddserver import OddServer
from tests.support.sshd import KeyRing

TIMES = int(os.environ.get("XSSH_TESTS_FLOOD", "1"))
"""How many times as much as usual is sent."""

MEGABYTES_KEPT = 24
"""Above what a quiet server costs: the largest packets, a few times."""

PEAK = """
import atexit, re
def say():
    found = re.search("VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())
    print("\\npeak:", found[1], file=sys.stderr)
atexit.register(say)
"""
LITTLE = "import xsshpy.ssh.observed as o; o.MOST_UNSENT = 1 << 17\n"
TAKES_LITTLE = """
import os, socket, threading
link = socket.create_connection(("127.0.0.1", %p))
def take():
    left = 12000
    while left > 0:
        link.sendall(data := os.read(0, left))
        left -= len(data)
threading.Thread(target=take, daemon=True).start()
try:
    while data := link.recv(65536):
        os.write(1, data)
except OSError:
    pass
os._exit(0)
"""
"""A proxy that stops to read once the session has begun: little can wait on the way."""
PROXY = shlex.join([sys.executable, "-c", f"exec({TAKES_LITTLE!r})"])
ZLIB: Algorithms = {"compression_algs": ["zlib@openssh.com"]}
GROUPS: Algorithms = {"kex_algs": ["diffie-hellman-group-exchange-sha256"]}
Connection = asyncssh.SSHServerConnection
Payloads = Iterable[bytes]
Hook = Callable[[Connection, list[str]], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """What a server does; how the run ends and with what words (a pattern)."""

    change: Change
    status: int = ENDS
    words: str = ""
    before: str = ""
    algorithms: Algorithms = field(default_factory=dict)
    options: tuple[str, ...] = ()


def debug(size: int, said: bytes = b"d") -> bytes:
    return Byte(4) + Boolean(True) + String((said * size)[:size]) + String(b"")


def banner(size: int) -> bytes:
    return Byte(53) + String(b"b" * size) + String(b"")


def host_keys(count: int, key: bytes) -> bytes:
    return Byte(80) + String(b"hostkeys-00@openssh.com") + Boolean(False) + String(key) * count


def extensions(said: int, count: int) -> bytes:
    return Byte(7) + UInt32(said) + b"".join(String(b"%d" % n) * 2 for n in range(count))


def in_session(*payloads: bytes, times: int = 1) -> Change:
    """Send packets, no faster than they are taken."""

    async def speak(connection: Connection, log: list[str]) -> None:
        for _ in range(times * TIMES):
            for payload in payloads:
                connection.send_packet(payload[0], payload[1:])
                await wait_for_room(connection)
        await asyncio.sleep(0.15)

    return lambda server: setattr(server, "on_session", speak)


def of_one(make: Callable[[], bytes]) -> Change:
    """Send one packet, which is made when it is sent: it is large, and every worker reads this."""
    return lambda server: in_session(make())(server)


async def wait_for_room(connection: Connection) -> None:
    await asyncio.sleep(0)
    while (link := connection._transport) is not None and link.get_write_buffer_size() > 1 << 20:
        await asyncio.sleep(0.002)


def do(hook: Hook) -> Change:
    return lambda server: setattr(server, "on_session", hook)


def before_the_session(at: int, *payloads: bytes, times: int = 1) -> Change:
    def change(server: OddServer) -> None:
        server.said_before[at] = [*payloads] * (times * TIMES)
        server.asks_for_password = at == FAILURE

    return change


def instead(at: int, payload: bytes) -> Change:
    return lambda server: server.said_instead.update({at: payload})


async def exchange_keys_for_ever(connection: Connection, log: list[str]) -> None:
    """Begin a key exchange, and ask on as if there were none."""
    connection._send_kexinit()
    connection._kex_complete = True
    await keep_asking(connection)


async def keep_asking(connection: Connection) -> None:
    """Ask, and do not listen."""
    connection.data_received = lambda data, datatype=None: None  # type: ignore[method-assign]
    question = opening(b"x11", String(b"h"), UInt32(1))
    while (link := connection._transport) is not None and not link.is_closing():
        for _ in range(50):
            connection.send_packet(question[0], question[1:])
        await wait_for_room(connection)


async def flip_a_bit(connection: Connection, log: list[str]) -> None:
    send = connection._send
    connection._send = lambda data: send(data[:-1] + bytes([data[-1] ^ 1]))  # type: ignore[method-assign]
    connection.send_packet(94, UInt32(0) + String(b"z" * 20_000))
    await asyncio.sleep(0.15)


async def say_garbage(connection: Connection, log: list[str]) -> None:
    assert connection._transport is not None
    connection._transport.write(b"\xa5" * 4000)
    await asyncio.sleep(0.15)


WRONG_SEAL = "message authentication code incorrect"
WIDE = "\U0001f600\n".encode()
UNREADABLE = "the server sent a host key that can't be read"
KEY = String(b"ssh-ed25519") + String(bytes(32))
DAMAGED = "Decompression failed"
SPLIT = 250_000
"""Bytes of text that go into one packet."""


def group(modulus: int, generator: int = 2) -> Row:
    words = "DH GEX group out of range|Invalid DH|DH generator|modulus|Kex DH f|unsigned"
    payload = MPInt(modulus) + MPInt(generator)
    return Row(instead(KEX_REPLY, payload), words=words, algorithms=GROUPS)


def host_key(*fields: bytes) -> Row:
    said = String(b"".join(fields)) + String(bytes(32)) * 2
    return Row(instead(KEX_REPLY, said), words=UNREADABLE)


def seal(cipher: str) -> Row:
    return Row(do(flip_a_bit), words=WRONG_SEAL, algorithms={"encryption_algs": [cipher]})


def end_of(name: bytes) -> bytes:
    """Say that the program was killed by this, with a long story."""
    return asking(b"exit-signal", String(name), Boolean(True), String(NASTY * 3000), String(b""))


ROWS = {
    "debug messages": Row(in_session(debug(SPLIT), times=40), GOES_ON),
    "wide debug messages": Row(in_session(debug(SPLIT, WIDE), times=25), GOES_ON),
    "requests": Row(in_session(Byte(200), times=2000), GOES_ON),
    "windows": Row(in_session(Byte(93) + UInt32(0) + UInt32(0xFFFFFFFF), times=2000), GOES_ON),
    "host keys": Row(in_session(host_keys(4000, KEY), times=25), GOES_ON),
    "host keys that are none": Row(in_session(host_keys(50_000, b"x"), times=4), GOES_ON),
    "signal": Row(in_session(end_of(b"T" * 80_000)), words="Multiple exit results"),
    "answers that nobody reads": Row(
        do(lambda connection, log: keep_asking(connection)),
        words="too much waits to be sent",
        before=LITTLE,
        options=(f"-oProxyCommand={PROXY}",),
    ),
    "keys that are never exchanged": Row(
        do(exchange_keys_for_ever), words="too much waits to be sent", before=LITTLE
    ),
    "garbage": Row(do(say_garbage), words="Bad packet length"),
    "seal of AES-GCM": seal("aes128-gcm@openssh.com"),
    "seal of ChaCha20": seal("chacha20-poly1305@openssh.com"),
    "seal of AES-CTR": seal("aes128-ctr"),
    "new keys twice": Row(in_session(Byte(21), Byte(21)), words="New keys not negotiated"),
    "folded message": Row(of_one(lambda: debug(64 << 20)), words=DAMAGED, algorithms=ZLIB),
    "folded data": Row(
        of_one(lambda: Byte(94) + UInt32(0) + String(bytes(64 << 20))),
        words=DAMAGED, algorithms=ZLIB,
    ),
    "extensions": Row(before_the_session(ACCEPT, extensions(12_000, 12_000), times=2), GOES_ON),
    "endless extensions": Row(
        before_the_session(ACCEPT, extensions(1_000_000, 12_000)), words="Incomplete packet"
    ),
    "refusals": Row(
        before_the_session(FAILURE, Byte(51) + String(b"password") + Boolean(False), times=1000),
        words="Permission denied",
    ),
    "successes in part": Row(
        before_the_session(FAILURE, Byte(51) + String(b"publickey") + Boolean(True), times=500),
        words="Permission denied",
    ),
    "banners": Row(before_the_session(SUCCESS, banner(SPLIT), times=40), GOES_ON),
    "farewell": Row(
        before_the_session(ACCEPT, Byte(1) + UInt32(2) + String(NASTY * 4000) + String(b"")),
        words="Received disconnect",
    ),
    "group of 1024 bits": group(asyncssh.kex_dh._group1_p),
    "group of 10^6 bits": group((1 << 1_000_000) + 1),
    "group of 8192 bits": group((1 << 8191) + 6),
    "group of nothing": group(0, 0),
    "negative group": group(-(1 << 2048) - 1),
    "host key of 10^6 bits": host_key(
        String(b"ssh-rsa"), MPInt(65537), MPInt((1 << 1_000_000) + 1)
    ),
    "exponent of 500000 bits": host_key(
        String(b"ssh-rsa"), MPInt((1 << 500_000) + 1), MPInt((1 << 500_000) + 3)
    ),
    "host key of 200 kB": host_key(String(b"ssh-ed25519"), String(bytes(200_000))),
}  # fmt: skip


@pytest.fixture
def hostile(key_ring: KeyRing, client_home: ClientHome) -> Hostile:
    return Hostile(key_ring, client_home)


def measure(hostile: Hostile, row: Row) -> tuple[str, float]:
    """Return what is wrong with a run, and the most that it kept, in megabytes."""
    before = PEAK + row.before
    done = hostile.run(row.change, *row.options, before=before, algorithms=row.algorithms)
    said, _, peak = done.stderr.rpartition("\npeak: ")
    fault = find_fault(done._replace(stderr=said), row.status)
    if not fault and not re.search(row.words, said):
        fault = f"words: {said[-500:]!r}"
    return fault, int(peak or 0) / 1024


def test_little_is_kept_of_much(hostile: Hostile) -> None:
    fault, quiet = measure(hostile, Row(lambda server: None, GOES_ON))
    assert not fault and quiet
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda row: measure(hostile, row), ROWS.values())
        faults = {
            name: fault or f"{peak - quiet:.0f} MB"
            for name, (fault, peak) in zip(ROWS, found, strict=True)
            if fault or peak - quiet > MEGABYTES_KEPT
        }
    assert not faults
