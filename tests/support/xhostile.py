"""What a hostile X client sends: a table, each row a function from a client to its bytes.

Every row counts its requests, so that whoever listens knows which reply ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tests.support.xdisplays import Speaker

Row = Callable[[Speaker], Iterable[bytes]]

NO_OPERATION, FOCUS, INTERN, EXTENSION = 127, 43, 16, 98
BIG_REQUESTS = b"BIG-REQUESTS"
FOREIGN = (0, 1, 0x1FFFFF, 0x7FFFFFFF, 0x80000000, 0xE0000000, 0xFFFFFFFF)
"""Ids that no client may give; the server's own are among them."""
MAKERS = (1, 45, 53, 55, 78, 93)
"""Core requests whose first word is an id that they give; OpenFont, CreatePixmap, …"""
FREERS = (4, 46, 54, 60, 79, 95)
USERS = (3, 8, 14, 15, 20, 21, 38, 40, 47, 61, 62, 63, 70, 73, 97)


def named(speaker: Speaker, opcode: int, name: bytes, size: int | None = None) -> bytes:
    """Return a request with a name whose length is told as ``size``."""
    told = len(name) if size is None else size
    return speaker.request(opcode, 0, rest=speaker.pack("Hxx", told) + name)


def lying(speaker: Speaker, opcode: int, units: int, sent: int, detail: int = 0) -> bytes:
    """Return a request that says it has ``units``, and has ``sent``."""
    return speaker.pack("BBH", opcode, detail, units) + bytes(4 * (sent - 1))


def too_short(speaker: Speaker) -> Iterator[bytes]:
    """Every core request with its header alone, as much as there is of it."""
    for opcode in range(120):
        if opcode == 99:  # what it lists is less than what there is
            continue
        yield lying(speaker, opcode, 1, 1)
        if opcode == 36:
            yield speaker.request(37)


def too_long(units: int, fill: int) -> Row:
    """Every core request with far more than belongs there. Nothing that lasts comes of it."""

    def row(speaker: Speaker) -> Iterator[bytes]:
        for opcode in range(120):
            if opcode not in (36, 107, 111, 112, 113):
                head = speaker.pack("BBH", opcode, fill, units)
                yield head + bytes((fill,)) * (4 * units - 4)

    return row


def unknown_opcodes(speaker: Speaker) -> Iterator[bytes]:
    for opcode in (*range(120, 127), *range(175, 256)):
        for units in (1, 2, 9):
            yield lying(speaker, opcode, units, units, detail=opcode & 0x7F)


def extensions_cut_short(speaker: Speaker) -> Iterator[bytes]:
    """Every minor request of every extension with its header alone."""
    for opcode in range(128, 160):
        for minor in range(70):
            yield lying(speaker, opcode, 1, 1, detail=minor)


def lying_names(speaker: Speaker) -> Iterator[bytes]:
    for opcode in (EXTENSION, INTERN, 45, 92, 85):
        for name, size in (
            (b"", 0), (b"", 1), (b"", 65535), (b"SHAPE", 4), (b"SHAPE", 8), (b"SHAPE", 9),
            (b"SHAPE\0", 6), (b"\xff" * 40, 40), (b"MIT-SHM", 65535), (b"A" * 2000, 1),
        ):  # fmt: skip
            yield named(speaker, opcode, name, size)


def lying_counts(speaker: Speaker) -> Iterator[bytes]:
    """Counts, masks and sizes inside requests that don't fit what is sent."""
    s, root = speaker, speaker.root
    for mask in (0xFFFFFFFF, 0x7FFF, 1, 0x80000000):
        yield s.request(1, 24, s.base + 1, root, 0, 0x00010001, 0x00010000, 0, mask)
        yield s.request(2, 0, s.base + 1, mask)
        yield s.request(12, 0, s.base + 1, mask)
        yield s.request(55, 0, s.base + 2, root, mask)
        yield s.request(56, 0, s.base + 2, mask)
    for size in (0, 1, 2, 0xFFFF, 0x3FFFFFFF, 0x40000000, 0xFFFFFFFF):
        for form in (0, 7, 8, 16, 32, 64, 255):
            yield s.request(18, 0, root, 39, 31, rest=s.pack("B3xI", form, size))
    for opcode in (58, 59, 64, 65, 66, 67, 68, 69, 70, 71):
        yield s.request(opcode, 0, s.base, s.base, 0xFFFFFFFF)
        yield s.request(opcode, 0, s.base, s.base, rest=bytes(7))
    for opcode in (74, 75, 76, 77, 49, 50, 51, 88, 89, 91, 100, 102, 105, 114, 118):
        yield s.request(opcode, 255, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    yield s.request(53, 24, s.base + 3, root, 0xFFFFFFFF)
    yield s.request(53, 24, s.base + 4, root, 0)
    for kind in range(4):
        yield s.request(72, kind, root, 0, 0xFFFFFFFF, 0, rest=bytes((0, 24, 0, 0)))
        yield s.request(73, kind, root, 0, 0xFFFFFFFF, 0xFFFFFFFF)


def foreign_ids(speaker: Speaker) -> Iterator[bytes]:
    """Ids given, used and freed that belong to nobody, to the server, and to other clients."""
    s = speaker
    ids = (*FOREIGN, s.root, s.root + 1, s.visual, 0x1E00001, 0x2000001)
    for each in ids:
        yield s.request(1, 24, each, s.root, 0, 0x00010001, 0x00010000, 0, 0)
        yield s.request(45, 0, each, rest=s.pack("Hxx", 5) + b"fixed")
        yield s.request(53, 24, each, s.root, 0x00010001)
        yield s.request(55, 0, each, s.root, 0)
        yield s.request(78, 0, each, s.root, s.visual)
        for opcode in (*USERS, *FREERS):
            # What the root window may be asked is no mistake, and is left alone.
            if each not in (s.root, s.root + 1, s.visual) and opcode != 112:
                yield s.request(opcode, 0, each, each, each)
                yield s.request(opcode, 0, each)


def ids_given_twice(speaker: Speaker) -> Iterator[bytes]:
    s = speaker
    for first in range(4):
        yield from (
            s.request(1, 24, s.base + 1, s.root, 0, 0x00010001, 0x00010000, 0, 0),
            s.request(53, 24, s.base + 1, s.root, 0x00010001),
            s.request(55, 0, s.base + 1, s.root, 0),
            s.request(45, 0, s.base + 1, rest=s.pack("Hxx", 5) + b"fixed"),
        )[first:]
        for opcode in (*FREERS, *FREERS):
            yield s.request(opcode, 0, s.base + 1)
    yield s.request(4, 0, s.root)  # DestroyWindow of the root window does nothing
    yield s.request(5, 0, s.base + 1)


def crowd_of(kind: str, count: int) -> Row:
    """As many resources of a kind, never freed."""

    def row(speaker: Speaker) -> Iterator[bytes]:
        s = speaker
        for number in range(1, count + 1):
            each = s.base + number
            if kind == "windows":
                yield s.request(1, 24, each, s.root, 0, 0x00010001, 0x00010000, 0, 0)
            elif kind == "pixmaps":
                yield s.request(53, 24, each, s.root, 0x00010001)
            else:
                yield s.request(55, 0, each, s.root, 0)

    return row


def nested_windows(speaker: Speaker) -> Iterator[bytes]:
    """Each in the one before it."""
    parent = speaker.root
    for number in range(1, 1001):
        each = speaker.base + number
        yield speaker.request(1, 24, each, parent, 0, 0x00010001, 0x00010000, 0, 0)
        parent = each
    yield speaker.request(9, 0, speaker.base + 1)  # MapSubwindows, DestroySubwindows, …
    yield speaker.request(5, 0, speaker.base + 1)
    yield speaker.request(4, 0, speaker.base + 1)


def atom_flood(count: int, only_if_exists: int) -> Row:
    def row(speaker: Speaker) -> Iterator[bytes]:
        for number in range(count):
            name = b"XSSH_FLOOD_%08d" % number
            yield speaker.request(INTERN, only_if_exists, rest=speaker.pack("Hxx", 19) + name)

    return row


def property_flood(of_root: bool, count: int, size: int) -> Row:
    """Properties of many names on a window, and one that grows."""

    def row(speaker: Speaker) -> Iterator[bytes]:
        s = speaker
        window = s.root if of_root else s.base + 1
        if not of_root:
            yield s.request(1, 24, window, s.root, 0, 0x00010001, 0x00010000, 0, 0)
        for number in range(count):
            atom = 1 + number % 68
            value = s.pack("B3xI", 8, size) + bytes(size)
            yield s.request(18, 2 if number % 68 == 67 else 0, window, atom, 31, rest=value)
        for atom in range(1, 69):
            yield s.request(19, 0, window, atom)

    return row


def wrap(unanswered: int) -> Row:
    """Errors, answers that are known near by and answers of the server around the wrap."""

    def row(speaker: Speaker) -> Iterator[bytes]:
        s = speaker
        mixed = (
            s.request(8, 0, 0x7FFFFFFF),  # an error, nobody waits
            named(s, INTERN, b"WM_NAME"),  # known near by
            s.request(14, 0, 0x7FFFFFFF),  # an error in place of a reply
            s.request(FOCUS),  # XSync
            s.request(40, 0, s.root, s.root, 0),  # the server's own
            named(s, EXTENSION, b"SHAPE"),
            s.request(200),  # may have any number of replies
        )
        yield from mixed
        yield from [s.request(NO_OPERATION)] * unanswered
        for _ in range(12):
            yield from mixed
        yield from [s.request(NO_OPERATION)] * 65_536
        for _ in range(3):
            yield from mixed

    return row


def big(*pieces: tuple[int, int, int]) -> Row:
    """BIG-REQUESTS turned on, then NoOperation: short length, long length, units that follow."""

    def row(speaker: Speaker) -> Iterator[bytes]:
        speaker.send(named(speaker, EXTENSION, BIG_REQUESTS))
        opcode = speaker.until(1)[9]
        speaker.send(speaker.request(opcode))
        speaker.until(1)
        speaker.asked = 2
        for short, long, sent in pieces:
            head = speaker.pack("BBH", NO_OPERATION, 0, short)
            yield head + (speaker.pack("I", long) if not short else b"") + bytes(4 * sent)

    return row


def bare(*pieces: tuple[int, int, int]) -> Row:
    """The same without BIG-REQUESTS."""

    def row(speaker: Speaker) -> Iterator[bytes]:
        for short, long, sent in pieces:
            head = speaker.pack("BBH", NO_OPERATION, 0, short)
            yield head + (speaker.pack("I", long) if not short else b"") + bytes(4 * sent)

    return row


SAME: dict[str, Row] = {
    "too short, every core request": too_short,
    "too long, zeros": too_long(40, 0),
    "too long, ones": too_long(40, 255),
    "far too long": too_long(2000, 1),
    "unknown opcodes": unknown_opcodes,
    "extensions cut short": extensions_cut_short,
    "lengths of names that lie": lying_names,
    "counts that lie": lying_counts,
    "ids of nobody and of others": foreign_ids,
    "ids given twice": ids_given_twice,
    "10,000 windows": crowd_of("windows", 10_000),
    "10,000 pixmaps": crowd_of("pixmaps", 10_000),
    "10,000 contexts": crowd_of("contexts", 10_000),
    "1,000 windows in one another": nested_windows,
    "5,000 atoms": atom_flood(5000, 0),
    "5,000 absent atoms": atom_flood(5000, 1),
    "properties of an own window": property_flood(False, 2000, 3000),
    "properties of the root window": property_flood(True, 1000, 3000),
    "the numbers wrap": wrap(65_500),
    "the numbers wrap twice": wrap(131_050),
    "long lengths in order": big((0, 2, 0), (0, 3, 1), (1, 0, 0), (0, 300_000, 299_998)),
    "the longest request": big((0, 4194303, 4194301)),
}
"""What the X server answers is what the client gets."""

ENDED: dict[str, Row] = {
    "length 0": bare((1, 0, 0), (0, 1, 0)),
    "a long length too early": bare((0, 3, 1), (1, 0, 0)),
    "long length 0": big((0, 0, 2)),
    "long length 1": big((0, 1, 2)),
    "long length above the maximum": big((0, 4194304, 30)),
    "long length 2^30": big((0, 1 << 30, 30)),
    "long length 2^32 - 1": big((0, 0xFFFFFFFF, 30)),
}
"""What servers read in more than one way: the connection ends, and no other."""
