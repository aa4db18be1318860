"""A server that says what no server says, at any time: an end or a reply, in time, and no harm.

A row is a stage, and packets that don't belong there. Nothing of it may reach the terminal as it
is, hang, or come out as an error of ours.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator

import asyncssh
import pytest
from asyncssh.packet import Boolean, Byte, String, UInt32

from tests.integration._hostile import (
    ACCEPT,
    EITHER,
    ENDS,
    FAILURE,
    FORGED,
    GOES_ON,
    KEX_REPLY,
    KEXINIT,
    NASTY,
    OPENED,
    SUCCESS,
    TCP,
    Change,
    Hostile,
    asking,
    data,
    find_fault,
    opening,
    text,
)
from tests.support.asyncserver import AsyncServer, Policy, Round
from tests.support.beside import PROGRAMS, Beside
from tests.support.clients import ClientHome
from tests.support.oddserver import OddServer
from tests.support.processes import run
from tests.support.sshd import KeyRing
from tests.support.terminals import Terminal

KEYS = Byte(80) + String(b"hostkeys-00@openssh.com") + Boolean(False)
ANNOUNCED = String(String(b"ssh-ed25519") + String(bytes(32)))

BEFORE_THE_SESSION: dict[str, tuple[int, list[bytes], int]] = {
    "debug": (ACCEPT, [text(4, Byte(1))], GOES_ON),
    "ignored": (ACCEPT, [Byte(2) + String(b"x" * 100)] * 3000, GOES_ON),
    "unimplemented": (ACCEPT, [Byte(3) + UInt32(0)], GOES_ON),
    "unknown packets": (ACCEPT, [Byte(0), Byte(200), Byte(255)], GOES_ON),
    "disconnect": (ACCEPT, [text(1, UInt32(2))], ENDS),
    "data": (ACCEPT, [data(1)], ENDS),
    "channel": (ACCEPT, [opening(b"session")], ENDS),
    "empty proposal": (ACCEPT, [Byte(20) + bytes(16)], ENDS),
    "new keys": (ACCEPT, [Byte(21)], ENDS),
    "success too early": (ACCEPT, [Byte(52)], ENDS),
    "success in the key exchange": (KEX_REPLY, [Byte(52)], ENDS),
    "success before it": (KEXINIT, [Byte(52)], ENDS),
    "endless extensions": (ACCEPT, [Byte(7) + UInt32(1 << 31)], ENDS),
    "banner": (FAILURE, [Byte(53) + String(NASTY * 2000) + String(b"")], ENDS),
    "banners": (FAILURE, [Byte(53) + String(b"banner\n") + String(b"")] * 1000, ENDS),
    "methods": (FAILURE, [Byte(51) + String(NASTY) + Boolean(False)], ENDS),
    "questions unasked": (FAILURE, [text(60, String(b"n")) + UInt32(0)], ENDS),
}  # fmt: skip
IN_THE_SESSION: dict[str, tuple[list[bytes], int]] = {
    "x11": ([opening(b"x11", *TCP[:2])], ENDS),
    "agent": ([opening(b"auth-agent@openssh.com")], ENDS),
    "forwarded port": ([opening(b"forwarded-tcpip", *TCP)], ENDS),
    "forwarded socket": (
        [opening(b"forwarded-streamlocal@openssh.com", String(b"/x"), String(b""))], ENDS
    ),
    "session": ([opening(b"session")], ENDS),
    "direct": ([opening(b"direct-tcpip", *TCP)], ENDS),
    "tunnel": ([opening(b"tun@openssh.com", UInt32(1), UInt32(0))], ENDS),
    "channel of no kind": ([opening(NASTY)], ENDS),
    "500 channels": ([opening(b"x11", *TCP[:2])] * 500, ENDS),
    "1000 questions": ([Byte(80) + String(b"x@y") + Boolean(True)] * 1000, ENDS),
    "more than the window": ([data(32000)] * 200, EITHER),
    "a packet larger than agreed": ([data(200_000)], GOES_ON),
    "endless window": ([Byte(93) + UInt32(0) + UInt32(0xFFFFFFFF)] * 3, GOES_ON),
    "another channel": ([data(1, 99)], ENDS),
    "channel 2^32-1": ([data(1, 0xFFFFFFFF)], ENDS),
    "answer to nothing": ([Byte(99) + UInt32(0)], ENDS),
    "opened twice": ([Byte(91) + UInt32(0) * 2 + UInt32(1) * 2], ENDS),
    "refused after all": ([text(92, UInt32(0), UInt32(1))], ENDS),
    "killed": ([asking(b"exit-signal", String(b"T"), Boolean(False), String(NASTY), String(b""))],
               ENDS),
    "two ends": ([asking(b"exit-status", UInt32(5))] * 2, ENDS),
    "largest status": ([asking(b"exit-status", UInt32(0xFFFFFFFF))], ENDS),
    "request of no kind": ([asking(NASTY, reply=True)], ENDS),
    "closed twice": ([Byte(97) + UInt32(0)] * 2, ENDS),
    "data behind the end": ([Byte(96) + UInt32(0), data(1)], ENDS),
    "data behind the close": ([Byte(97) + UInt32(0), data(1)], ENDS),
    "global success": ([Byte(81)], ENDS),
    "third stream": ([Byte(95) + UInt32(0) + UInt32(99) + String(b"e")], ENDS),
    "no data": ([Byte(94) + UInt32(0)], ENDS),
    "longer than it is": ([Byte(94) + UInt32(0) + UInt32(1 << 31)], ENDS),
    "half a status": ([asking(b"exit-status")], ENDS),
    "another login": ([Byte(52)], ENDS),
    "disconnect": ([text(1, UInt32(2))], ENDS),
    "debug": ([text(4, Byte(1))], GOES_ON),
    "host keys": ([KEYS + ANNOUNCED * 2000], GOES_ON),
    "host keys of no kind": (
        [KEYS + String(b"x")], GOES_ON
    ),
}  # fmt: skip
INSTEAD: dict[str, tuple[int, bytes]] = {
    "more than a channel": (OPENED, UInt32(0) * 2 + UInt32(1 << 15) * 2 + String(NASTY)),
    "no proposal": (KEXINIT, b""),
    "proposal of no text": (KEXINIT, bytes(16) + String(NASTY) * 10 + bytes(5)),
    "no host key": (KEX_REPLY, b""),
    "host key of no kind": (KEX_REPLY, String(String(NASTY) + String(b"x")) + String(b"y") * 2),
    "RSA key of 240000 bits": (
        KEX_REPLY,
        String(String(b"ssh-rsa") + String(b"\1\0\1") + String(b"\x7f" * 30000)) + String(b"y") * 2,
    ),
}
BEHIND: dict[str, tuple[int, bytes]] = {
    "a packet of 2^31": (KEXINIT, b"\x80\0\0\0" + bytes(100)),
    "a packet of nothing": (KEXINIT, bytes(100)),
    "a sealed packet of 2^32": (SUCCESS, b"\xff" * 1000),
    "a seal that is broken": (SUCCESS, bytes(1000)),
}


@pytest.fixture
def hostile(key_ring: KeyRing, client_home: ClientHome) -> Hostile:
    return Hostile(key_ring, client_home)


def test_before_the_session(hostile: Hostile) -> None:
    def say(at: int, payloads: list[bytes]) -> Change:
        def change(server: OddServer) -> None:
            server.said_before[at] = payloads
            server.asks_for_password = at == FAILURE

        return change

    rows = {name: (say(at, said), end) for name, (at, said, end) in BEFORE_THE_SESSION.items()}
    assert not hostile.find_faults(rows)


def test_in_the_session(hostile: Hostile) -> None:
    def say(payloads: list[bytes]) -> Change:
        async def speak(connection: asyncssh.SSHServerConnection, log: list[str]) -> None:
            for payload in payloads:
                connection.send_packet(payload[0], payload[1:])
            await asyncio.sleep(0.15)

        return lambda server: setattr(server, "on_session", speak)

    assert not hostile.find_faults({n: (say(p), end) for n, (p, end) in IN_THE_SESSION.items()})


def test_other_packets_and_none(hostile: Hostile) -> None:
    def put(field: str, at: int, payload: bytes) -> Change:
        return lambda server: getattr(server, field).update({at: payload})

    rows = {name: (put("said_instead", *row), ENDS) for name, row in INSTEAD.items()}
    rows |= {name: (put("raw_after", *row), ENDS) for name, row in BEHIND.items()}
    assert not hostile.find_faults(rows)


@pytest.mark.parametrize("port", [b"", b"\0\0", UInt32(0), UInt32(65536)])
def test_a_port_that_there_is_not(hostile: Hostile, port: bytes) -> None:
    def change(server: OddServer) -> None:
        server.granted_port = port

    done = hostile.run(change, "-R0:localhost:9", "-oExitOnForwardFailure=yes")
    assert not find_fault(done, ENDS)
    assert "remote forward to localhost:9" in done.stderr


@pytest.mark.parametrize("program", ["ssh", "xssh"])
@pytest.mark.parametrize(("kind", "name"), [("x11", "X11"), ("auth-agent@openssh.com", "agent")])
def test_who_wants_what_it_was_not_offered_is_named(
    client_home: ClientHome, key_ring: KeyRing, kind: str, name: str, program: str
) -> None:
    server = OddServer(key_ring.host_keys["ed25519"], key_ring.client_key)

    async def speak(connection: asyncssh.SSHServerConnection, log: list[str]) -> None:
        payload = opening(kind.encode(), *(TCP[:2] if name == "X11" else ()))
        connection.send_packet(payload[0], payload[1:])
        await asyncio.sleep(0.15)

    server.on_session = speak
    try:
        client_home.add(server)  # type: ignore[arg-type]
        argv = [*PROGRAMS[program], *client_home.arguments, "-x", "server", "true"]
        done = run(argv, env=client_home.environment())
    finally:
        server.stop()
    assert done.stderr.replace("\r", "").startswith(
        f"Warning: ssh server tried {name} forwarding.\n"
        "Warning: this is probably a break-in attempt by a malicious server.\n"
    )


# Questions

NASTY_TEXT = NASTY.decode("latin-1")
QUESTIONS = {
    "name and instruction": Round((("Code: ", False),), ("x",), NASTY_TEXT, NASTY_TEXT * 50),
    "prompt": Round(((NASTY_TEXT + "Code: ", False),), ("x",)),
    "huge prompt": Round((("Code: " + "z" * 30_000, False),), ("x",)),
    "100 prompts": Round((("Code: ", True),) * 100, ("x",) * 100),
}


@pytest.fixture
def make_asker(
    client_home: ClientHome, key_ring: KeyRing, spawn_in_pty: Callable[..., Terminal]
) -> Iterator[Callable[[Round], Beside]]:
    servers: list[AsyncServer] = []

    def make(asked: Round) -> Beside:
        policy = Policy(steps=(("keyboard-interactive",),), rounds=(asked,))
        servers.append(AsyncServer(policy, key_ring.host_keys["ed25519"], key_ring.client_key))
        return Beside(client_home, servers[-1], spawn_in_pty)

    yield make
    for server in servers:
        server.stop()


@pytest.mark.parametrize("kind", sorted(QUESTIONS))
def test_questions_are_shown_and_do_nothing(
    make_asker: Callable[[Round], Beside], kind: str
) -> None:
    asked = QUESTIONS[kind]
    terminal = make_asker(asked).converse(
        "xssh", ["server", "hi"], [("Code: ", "x\n")] * len(asked.prompts)
    )
    assert terminal.process.returncode == 7, terminal.output[-500:]
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x9b]", terminal.output)
    assert not re.search(FORGED.encode(), terminal.output, re.MULTILINE)
    assert terminal.is_restored
