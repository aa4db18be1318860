"""One client's requests, judged one after the other: little endian, on facts that are made up."""

from __future__ import annotations

import struct

from tests.support import xstreams as x
from tests.support.xtalk import BASE, RENDER, ROOT, known_facts
from xsshpy.remote.facts import ServerFacts
from xsshpy.remote.opinions import Opinion
from xsshpy.remote.predict import Predictor
from xsshpy.remote.xmessages import ByteOrder, Request

LITTLE = ByteOrder.LITTLE
MASK = 0x1FFFFF
FONTS = (b"fixed", b"cursor")
FORMATS = {40: 24, 41: 1, 42: 32, 43: 8, 44: 4}
"""RENDER's picture formats: by id, the depth."""


def facts() -> ServerFacts:
    """Return facts with fonts, picture formats and no window manager."""
    made = known_facts(LITTLE)
    for name in FONTS:
        assert made.learn_font(name, x.reply(LITTLE, 0, b"", bytes(32)))
    made.picture_formats.update(FORMATS)
    return made


def ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *(value & 0xFFFFFFFF for value in values))


def shorts(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *(value & 0xFFFF for value in values))


def own(number: int) -> int:
    """Return the client's resource id of this number."""
    return BASE + number


class Judged:
    """A predictor and the requests that it is given."""

    def __init__(self, known: ServerFacts | None = None) -> None:
        self.facts = known or facts()
        self.predictor = Predictor(self.facts, BASE, MASK)
        self.resources = self.predictor.resources
        self.sequence = 0

    def ask(self, opcode: int, body: bytes = b"", minor: int = 0) -> Opinion:
        """Give a request; return the opinion."""
        data = x.request(LITTLE, opcode, body, minor)
        self.sequence += 1
        return self.predictor.consider(Request(opcode, self.sequence, len(data), 4, data))

    def render(self, minor: int, body: bytes) -> Opinion:
        return self.ask(RENDER, body, minor)

    def confirm(self) -> None:
        """The server is past all requests."""
        self.predictor.confirm(self.sequence)

    # What requests are about.

    def window(
        self, number: int, parent: int = ROOT, values: tuple[int, ...] = (0,), kind: int = 1
    ) -> Opinion:
        """Create a window of 20 by 10; ``values`` are the value list, from its mask on."""
        body = ints(own(number), parent) + shorts(3, 4, 20, 10, 1, kind)
        return self.ask(1, body + ints(0, *values))

    def pixmap(self, number: int, depth: int = 24, width: int = 20, height: int = 10) -> Opinion:
        return self.ask(53, ints(own(number), ROOT) + shorts(width, height), depth)

    def context(self, number: int, drawable: int, values: tuple[int, ...] = (0,)) -> Opinion:
        return self.ask(55, ints(own(number), own(drawable), *values))

    def font(self, number: int, name: bytes = b"fixed") -> Opinion:
        return self.ask(45, ints(own(number)) + shorts(len(name), 0) + name)

    def picture(self, number: int, drawable: int, form: int = 40) -> Opinion:
        return self.render(4, ints(own(number), own(drawable), form, 0))

    # What is told in advance.

    def geometry(self, number: int) -> tuple[int, ...] | None:
        """Return place, size and border as GetGeometry would tell them now; None: not known."""
        answer = self.ask(14, ints(own(number))).answer
        return None if answer is None else struct.unpack_from("<hhHHH", answer, 12)

    def is_synced(self) -> bool:
        """Tell whether GetInputFocus is answered at once."""
        opinion = self.ask(43)
        return opinion.answer is not None and not opinion.after
