"""An X server that lies to one client, through the agent and through the relay.

The relay carries replies that nobody asked for, as the X server's own socket would. The agent, that
has to know which reply is whose, ends that client. Others are served in either case.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import xstreams as x
from tests.support.lyingserver import MARK, NAME_SIZE, LyingServer
from tests.support.xdisplays import Displays, Said, Speaker, Way, setup_request
from tests.support.xvfb import Xvfb
from xsshpy.remote.xmessages import ByteOrder

LITTLE = ByteOrder.LITTLE
FOREVER = 0x3FFFFFFF

LIES: dict[str, tuple[bytes, bool]] = {
    "a reply to nothing": (x.reply(LITTLE, 1), True),
    "a reply from the future": (x.reply(LITTLE, 60000), True),
    "the same reply again": (x.reply(LITTLE, 2), True),
    "an error from the past": (x.error(LITTLE, 1, 8), False),
    "an error from the future": (x.error(LITTLE, 60000, 8), False),
    "an event from the future": (x.event(LITTLE, 12, 60000), False),
    "an event that is none": (x.event(LITTLE, 127, 2), False),
    "a key map": (x.keymap_notify(), False),
    "a flood of events": (x.event(LITTLE, 12, 2) * 100_000, False),
    "nothing but ones": (bytes((255,)) * 64, False),
}
"""What it says, and whether the agent ends the client for it."""

ENDLESS = {
    "an endless reply": x.reply(LITTLE, 4)[:4] + FOREVER.to_bytes(4, "little") + bytes(24),
    "an endless event": x.generic_event(LITTLE, 3, b"")[:4]
    + FOREVER.to_bytes(4, "little")
    + bytes(24),
    "its setup again": x.setup_success(LITTLE, 6),
    "half a message": x.event(LITTLE, 12, 3)[:13],
}
"""What the client itself waits for the rest of."""

GREETINGS = {
    "silence": b"",
    "no status": b"\x07" * 40,
    "an event": x.event(LITTLE, 12, 0),
    "a yes of nothing": x.setup_success(LITTLE, 0),
    "a yes of zeros": x.setup_success(LITTLE, 200),
    "half a yes": x.setup_success(LITTLE, 200)[:100],
    "a question": bytes((2,)) + x.setup_success(LITTLE, 4)[1:],
    "no": b"\0\3" + x.setup_success(LITTLE, 1)[2:8] + b"no!\0",
}


@pytest.fixture
def liar(xvfb: Xvfb, short_directory: Path) -> Iterator[LyingServer]:
    told = {name: lie for name, (lie, _) in LIES.items()} | ENDLESS
    made = LyingServer(xvfb, short_directory / "liar", told)
    yield made
    made.stop()


@pytest.fixture
def displays(liar: LyingServer, xvfb: Xvfb, short_directory: Path) -> Iterator[Displays]:
    made = Displays(xvfb, short_directory, liar.path)
    yield made
    made.stop()
    assert made.loop.failures == []


def ask_for(speaker: Speaker, name: str) -> bytes:
    return speaker.request(127, 0, rest=MARK + name.encode("ascii").ljust(NAME_SIZE, b"\0"))


def lie_to(way: Way, name: str) -> list[Said]:
    """Return what a client hears from a lie on; the reply to XSync behind it is the last."""
    with Speaker(way) as speaker:
        speaker.send(speaker.request(127))
        speaker.sync()
        speaker.send(ask_for(speaker, name))
        # The lie is here, or the client's end, before the next is asked: else they would race.
        try:
            heard = [speaker.describe(speaker.message())]
        except EOFError:
            return []
        speaker.send(speaker.request(101, 0, rest=bytes((8, 1, 0, 0))))
        return heard + speaker.hear(4)


def test_lies(displays: Displays) -> None:
    with Speaker(displays.agent) as near, Speaker(displays.native) as far:
        for name, (_, ends) in LIES.items():
            expected = lie_to(displays.direct, name)
            found = lie_to(displays.agent, name)
            if ends:
                assert [said for said in found if said.kind == 1] == [], name
            else:
                assert found[-1:] == expected[-1:], name
            assert lie_to(displays.native, name) == expected, name
            near.sync()
            far.sync()
    assert displays.notices() == []


def test_lies_without_end(displays: Displays) -> None:
    with contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(Speaker(way)) for way in (displays.agent, displays.native))
        for name in ENDLESS:
            for way in (displays.agent, displays.native):
                fooled = stack.enter_context(Speaker(way))
                fooled.send(fooled.request(127))
                fooled.sync()
                fooled.send(ask_for(fooled, name), fooled.request(43))
            near.sync()
            far.sync()


def test_greetings(displays: Displays, liar: LyingServer) -> None:
    """Liars refill the connections ahead, and are met by clients; later ones are served."""
    with Speaker(displays.agent) as near, Speaker(displays.native) as far:
        for greeting in GREETINGS.values():
            liar.greeting = greeting
            for way in (displays.agent, displays.native):
                for _ in range(5):
                    with way.connect() as raw:
                        raw.sendall(setup_request(LITTLE, way.cookie))
            near.sync()
            far.sync()
            liar.greeting = None
            for way in (displays.agent, displays.native):
                with Speaker(way) as later:
                    later.sync()
