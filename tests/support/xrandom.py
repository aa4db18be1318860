"""Random requests of one X client, most of them valid: little endian, from a seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

from tests.support.xrandom_state import StateRequests
from xsshpy.remote.facts import ServerFacts

T = TypeVar("T")
KINDS = ("window", "pixmap", "gc", "font", "cursor", "picture", "glyphs", "colormap")
ATOM, STRING, CARDINAL, WM_NAME, RESOURCES = 4, 31, 6, 39, 23
PLAIN_EVENTS = (0, 0, 0, 1 << 15, 1 << 16, 1 << 17, 1 << 19, 1 << 22, 1 << 4, 1 << 23, 0x3)


def core(opcode: int, body: bytes = b"", minor: int = 0) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<BBH", opcode, minor, 1 + len(body) // 4) + body


class RandomClient:
    """Makes requests; remembers what ids it gave to what, whether the server took it or not."""

    def __init__(self, seed: int, facts: ServerFacts, base: int, *, wild: bool = True) -> None:
        self.random = random.Random(seed)
        self.facts = facts
        self.base = base
        self.count = 0
        self.wild = wild
        self.ids: dict[str, list[int]] = {kind: [] for kind in KINDS}
        self.screen = next(iter(facts.screens.values()))
        self.render = next((o for o, n in facts.extensions.items() if n == b"RENDER"), 0)
        self.big = next((o for o, n in facts.extensions.items() if n == b"BIG-REQUESTS"), 0)
        self.big_enabled = False
        self.sizes: dict[int, tuple[int, int]] = {}
        self.depths: dict[int, int] = {self.screen.root: self.screen.depth}
        self.makers: list[tuple[int, Callable[[], bytes]]] = [
            (8, self.create_window),
            (6, self.change_window),
            (2, lambda: core(4, self.id("window"))),
            (1, lambda: core(5, self.id("window"))),
            (2, self.reparent),
            (6, lambda: core(8, self.id("window"))),
            (2, lambda: core(9, self.id("window"))),
            (3, lambda: core(10, self.id("window"))),
            (1, lambda: core(11, self.id("window"))),
            (6, self.configure),
            (1, lambda: core(13, self.id("window"), self.pick(0, 1))),
            (8, lambda: core(3, self.id("window"))),
            (8, lambda: core(14, self.id(self.pick("window", "pixmap")))),
            (1, lambda: core(15, self.id("window"))),
            (6, self.change_property),
            (2, lambda: core(19, self.id("window") + self.atom())),
            (5, self.get_property),
            (1, self.rotate_properties),
            (1, self.open_font),
            (1, lambda: core(46, self.id("font"))),
            (2, lambda: core(47, self.id(self.pick("font", "font", "gc")))),
            (8, self.create_pixmap),
            (2, lambda: core(54, self.id("pixmap"))),
            (7, self.create_gc),
            (5, self.change_gc),
            (3, self.copy_gc),
            (1, lambda: core(58, self.id("gc") + struct.pack("<HH", 0, 2) + b"\4\4", 0)),
            (3, self.clip),
            (1, lambda: core(60, self.id("gc"))),
            (2, self.clear),
            (4, lambda: core(62, self.copy_body())),
            (1, lambda: core(63, self.copy_body() + struct.pack("<I", self.pick(1, 2, 0)))),
            (6, self.shapes),
            (10, self.fill),
            (5, self.put_image),
            (10, self.get_image),
            (3, self.text),
            (2, self.colour),
            (1, self.query_colours),
            (1, self.create_colormap),
            (1, lambda: core(79, self.id("colormap"))),
            (1, self.create_cursor),
            (1, lambda: core(95, self.id("cursor"))),
            (1, lambda: core(97, self.drawable() + struct.pack("<HH", 7, 9), self.pick(0, 1, 2))),
            (3, self.intern),
            (1, lambda: core(17, self.atom())),
            (2, self.query_extension),
            (1, lambda: core(99)),
            (10, lambda: core(43)),
            (1, lambda: core(42, self.id("window") + bytes(4), self.pick(0, 1))),
            (1, lambda: core(36)),
            (3, lambda: core(37)),
            (1, lambda: core(50, struct.pack("<HH", 3, 3) + b"6x*")),
            (1, lambda: core(127, bytes(4 * self.pick(0, 3)))),
            (1, lambda: core(self.pick(81, 82), struct.pack("<I", self.screen.colormap))),
        ]
        if self.render:
            self.makers += [
                (6, self.create_picture),
                (2, lambda: self.draw(5, self.id("picture") + self.picture_values())),
                (3, self.picture_clip),
                (1, lambda: self.draw(7, self.id("picture"))),
                (6, self.composite),
                (2, self.trapezoids),
                (1, self.add_traps),
                (3, self.create_glyphs),
                (1, lambda: self.draw(19, self.id("glyphs"))),
                (3, self.add_glyphs),
                (4, self.composite_glyphs),
                (5, self.render_fill),
                (1, self.render_cursor),
                (2, self.solid_fill),
                (1, lambda: self.draw(0, struct.pack("<II", 0, 11))),
                (1, lambda: self.draw(1)),
            ]
        if self.big:
            self.makers.append((1, self.enable_big))
        self.makers += StateRequests(self).makers()
        self.weights = [weight for weight, _ in self.makers]

    def requests(self, count: int) -> Iterator[bytes]:
        """Give some requests, of which a few are broken on purpose."""
        for _ in range(count):
            made = self.random.choices(self.makers, self.weights)[0][1]()
            yield self.mangle(made)

    def mangle(self, made: bytes) -> bytes:
        chance = self.random.random()
        if self.big_enabled and chance > 0.93:
            units = len(made) // 4 + 1
            return made[:2] + bytes(2) + struct.pack("<I", units) + made[4:]
        if not self.wild or chance > 0.06:
            return made
        if chance < 0.02:
            longer = made + bytes(4)
        elif chance < 0.04 and len(made) > 4:
            longer = made[:-4]
        else:
            place = self.random.randrange(len(made))
            if place in (0, 2, 3) or made[0] in (36, 37):
                return made
            changed = bytes((self.random.choice((made[place] ^ 1, 0, 255, made[place] + 1 & 255)),))
            return made[:place] + changed + made[place + 1 :]
        return longer[:2] + struct.pack("<H", len(longer) // 4) + longer[4:]

    # -- parts --

    def pick(self, *among: T) -> T:
        return self.random.choice(among)

    def number(self, low: int = -40, high: int = 60) -> int:
        return self.random.randint(low, high)

    def new(self, kind: str) -> int:
        chance = self.random.random()
        if self.wild and chance < 0.03:
            known = [each for ids in self.ids.values() for each in ids]
            if known:
                return self.random.choice(known)
        self.count += 1
        made = self.base + self.count if not self.wild or chance < 0.99 else self.count
        self.ids[kind].append(made)
        return made

    def some(self, kind: str) -> int:
        chance = self.random.random()
        if kind == "window" and chance > 0.9:
            return self.screen.root
        if self.wild and chance < 0.02:
            return self.random.choice((0, 1, self.base + 5000, self.screen.colormap))
        if self.wild and chance < 0.05:
            kind = self.random.choice(KINDS)
        known = self.ids[kind]
        if not known:
            return self.screen.root if kind == "window" else self.base + 7777
        return self.random.choice(known[-6:])

    def id(self, kind: object) -> bytes:
        return struct.pack("<I", self.some(str(kind)))

    def drawable(self) -> bytes:
        return self.id(self.pick("window", "pixmap", "pixmap"))

    def atom(self) -> bytes:
        one = (ATOM, STRING, CARDINAL, WM_NAME, RESOURCES, 68, 69, 70, 100, 5000, 0)
        return struct.pack("<I", self.random.choice(one))

    def values(self, choices: dict[int, Callable[[], int]], most: int = 4) -> tuple[int, bytes]:
        bits = sorted(self.random.sample(list(choices), self.random.randint(0, most)))
        body = b"".join(struct.pack("<I", choices[bit]() & 0xFFFFFFFF) for bit in bits)
        return sum(1 << bit for bit in bits), body

    # -- windows --

    def window_values(self) -> tuple[int, bytes]:
        odd = self.wild and self.random.random() < 0.1
        some = self.some
        choices: dict[int, Callable[[], int]] = {
            0: lambda: self.random.choice((0, 1, some("pixmap"))),
            1: lambda: 0x123456,
            2: lambda: self.random.choice((0, 0, some("pixmap"), 1 if odd else 0)),
            3: lambda: 7,
            4: lambda: self.number(0, 10),
            5: lambda: self.random.choice((1, 1, 1, 10, 5, 0)),
            6: lambda: self.number(0, 3 if odd else 2),
            7: lambda: 0xFF,
            8: lambda: 3,
            9: lambda: self.number(0, 2 if odd else 1),
            10: lambda: self.number(0, 1),
            11: lambda: (
                self.random.choice(PLAIN_EVENTS)
                | self.random.choice(PLAIN_EVENTS)
                | (self.random.choice((1 << 18, 1 << 20, 1 << 2, 1 << 25)) if odd else 0)
            ),
            12: lambda: 0x2000 if odd else self.random.choice((0, 1, 4)),
            13: lambda: self.random.choice((0, self.screen.colormap, some("colormap"))),
            14: lambda: self.random.choice((0, some("cursor"))),
        }
        return self.values(choices)

    def create_window(self) -> bytes:
        parent = self.some("window")
        made = self.new("window")
        depth = self.random.choice((0, 0, 0, 24, 32, 1 if self.wild else 0))
        kind = self.random.choice((0, 0, 1, 1, 2, 3 if self.wild else 1))
        if kind == 2:
            depth = 0 if not self.wild else depth
        visual = self.random.choice((0, 0, 0, self.screen.visual, *self.facts.visuals))
        size = (self.number(1, 60), self.number(1, 60))
        if self.wild and self.random.random() < 0.02:
            size = (0, 5)
        mask, values = self.window_values()
        place = (self.number(), self.number(), *size, self.pick(0, 0, 1, 2), kind)
        head = struct.pack("<IIhhHHHHII", made, parent, *place, visual, mask)
        self.sizes[made] = size
        self.depths[made] = depth or self.depths.get(parent, 24)
        return core(1, head + values, depth)

    def change_window(self) -> bytes:
        window = self.some("window")
        if window == self.screen.root:
            mask = self.random.choice((0, 1 << 17, 1 << 19, 1 << 22, 0x4))
            return core(2, struct.pack("<III", window, 1 << 11, mask))
        mask, values = self.window_values()
        return core(2, struct.pack("<II", window, mask) + values)

    def reparent(self) -> bytes:
        return core(7, self.id("window") + self.id("window") + struct.pack("<hh", self.number(), 4))

    def configure(self) -> bytes:
        choices: dict[int, Callable[[], int]] = {
            0: self.number,
            1: self.number,
            2: lambda: self.number(0 if self.wild and self.number() < -30 else 1, 80),
            3: lambda: self.number(1, 80),
            4: lambda: self.number(0, 3),
            6: lambda: self.number(0, 5 if self.wild else 4),
        }
        if self.random.random() < 0.1:
            choices[5] = lambda: self.some("window")
        mask, values = self.values(choices)
        return core(12, self.id("window") + struct.pack("<Hxx", mask) + values)

    def change_property(self) -> bytes:
        unit = int(self.random.choice((8, 16, 32, 7 if self.wild else 8)))
        count = self.number(0, 12)
        data = bytes(self.random.randrange(256) for _ in range(count * unit // 8))
        window = self.id("window")
        mode = self.random.choice((0, 0, 0, 1, 2, 3 if self.wild else 0))
        body = window + self.atom() + self.atom() + struct.pack("<BxxxI", unit, count) + data
        return core(18, body, mode)

    def get_property(self) -> bytes:
        span = self.random.choice((0, 1, 4, 1000, 0x7FFFFFFF, 0x40000000, 0xFFFFFFFF))
        kind = self.random.choice((bytes(4), self.atom()))
        window = self.random.choice((self.id("window"), struct.pack("<I", self.screen.root)))
        place = struct.pack("<II", self.random.choice((0, 0, 1, 2, 50)), span)
        return core(20, window + self.atom() + kind + place, int(self.random.random() < 0.1))

    def rotate_properties(self) -> bytes:
        return core(114, self.id("window") + struct.pack("<HhII", 2, 1, RESOURCES, WM_NAME))

    # -- fonts, cursors, colours --

    def open_font(self) -> bytes:
        name = self.random.choice((b"fixed", b"cursor", b"6x13", b"nosuchfont"))
        return core(45, struct.pack("<IHxx", self.new("font"), len(name)) + name)

    def create_cursor(self) -> bytes:
        made = struct.pack("<I", self.new("cursor"))
        if self.random.random() < 0.5:
            fonts = self.id("font")
            glyphs = struct.pack("<HH", self.number(0, 160), self.number(0, 160))
            return core(94, made + fonts + fonts + glyphs + bytes(12))
        return core(93, made + self.id("pixmap") + self.id("pixmap") + bytes(16))

    def create_colormap(self) -> bytes:
        made = struct.pack("<I", self.new("colormap"))
        visual = self.random.choice(list(self.facts.visuals))
        root = struct.pack("<I", self.screen.root)
        return core(78, made + root + struct.pack("<I", visual))

    def map(self) -> bytes:
        plain = struct.pack("<I", self.screen.colormap)
        return plain if self.random.random() < 0.8 else self.id("colormap")

    def colour(self) -> bytes:
        wished = [self.random.randrange(65536) for _ in range(3)]
        return core(84, self.map() + struct.pack("<HHHxx", *wished))

    def query_colours(self) -> bytes:
        pixels = [self.random.randrange(1 << 25) for _ in range(self.number(0, 5))]
        return core(91, self.map() + struct.pack(f"<{len(pixels)}I", *pixels))

    def intern(self) -> bytes:
        name = self.random.choice((b"WM_STATE", b"UTF8_STRING", b"_NEW_%d" % self.number(0, 9)))
        flag = self.random.choice((0, 1, 2 if self.wild else 0))
        return core(16, struct.pack("<Hxx", len(name)) + name, flag)

    def query_extension(self) -> bytes:
        name = self.random.choice((b"MIT-SHM", b"RENDER", b"NO-SUCH", b"DRI3", b"XKEYBOARD"))
        return core(98, struct.pack("<Hxx", len(name)) + name)

    # -- pixmaps, graphics contexts --

    def create_pixmap(self) -> bytes:
        made, drawable = self.new("pixmap"), self.drawable()
        depth = self.random.choice((24, 24, 24, 32, 1, 8, 4, 5 if self.wild else 24))
        size = (self.number(1, 40), self.number(1, 40))
        if self.wild and self.random.random() < 0.02:
            size = self.random.choice(((0, 4), (32767, 32767), (40000, 1)))
        self.sizes[made] = size if max(size) < 99 else (9, 9)
        self.depths[made] = depth
        return core(53, struct.pack("<I", made) + drawable + struct.pack("<HH", *size), depth)

    def gc_values(self) -> tuple[int, bytes]:
        some, small = self.some, self.number
        extra = int(self.wild and self.random.random() < 0.1)
        choices: dict[int, Callable[[], int]] = {
            0: lambda: self.random.choice((3, 3, 3, 6, 15 + extra)),
            1: lambda: self.random.choice((0xFFFFFFFF, 0xFFFFFF, 0xFF)),
            2: lambda: self.random.choice((0, 0x123456, 0xFF00FF80, 1)),
            3: lambda: 0xFFFFFF,
            4: lambda: small(0, 3),
            5: lambda: small(0, 2 + extra),
            6: lambda: small(0, 3 + extra),
            7: lambda: small(0, 2 + extra),
            8: lambda: self.random.choice((0, 0, 0, 1, 2, 3 + extra)),
            9: lambda: small(0, 1 + extra),
            10: lambda: some("pixmap"),
            11: lambda: some("pixmap"),
            12: lambda: small(),
            14: lambda: some("font"),
            15: lambda: small(0, 1 + extra),
            16: lambda: self.random.choice((0, 0, 0, 1, 1 + extra)),
            17: lambda: small(),
            18: lambda: small(),
            19: lambda: self.random.choice((0, 0, some("pixmap"))),
            20: lambda: 1,
            21: lambda: self.random.choice((4, 0)),
            22: lambda: small(0, 1 + extra),
        }
        return self.values(choices, 5)

    def create_gc(self) -> bytes:
        drawable = self.some(str(self.pick("window", "pixmap", "pixmap")))
        made = self.new("gc")
        self.depths[made] = self.depths.get(drawable, 24)
        mask, values = self.gc_values()
        return core(55, struct.pack("<III", made, drawable, mask) + values)

    def change_gc(self) -> bytes:
        mask, values = self.gc_values()
        return core(56, self.id("gc") + struct.pack("<I", mask) + values)

    def copy_gc(self) -> bytes:
        mask = self.random.choice((0x7FFFFF, 0xFF, 0x10004, 0xFFFFFFFF if self.wild else 4))
        return core(57, self.id("gc") + self.id("gc") + struct.pack("<I", mask))

    def boxes(self, most: int = 3) -> bytes:
        boxes = [
            (self.number(), self.number(), self.number(0, 50), self.number(0, 50))
            for _ in range(self.number(0, most))
        ]
        return b"".join(struct.pack("<hhHH", *box) for box in boxes)

    def clip(self) -> bytes:
        order = self.random.choice((0, 0, 0, 1, 2, 3, 4 if self.wild else 0))
        return core(59, self.id("gc") + struct.pack("<hh", 0, 1) + self.boxes(), order)

    # -- drawing --

    def target(self) -> tuple[int, bytes]:
        """Return a drawable, and the ids of it and of a context, mostly one that suits it."""
        drawable = self.some(str(self.pick("window", "pixmap", "pixmap", "pixmap")))
        depth = self.depths.get(drawable)
        suited = [each for each in self.ids["gc"] if self.depths.get(each) == depth]
        context = self.some("gc")
        if suited and self.random.random() < 0.9:
            context = self.random.choice(suited)
        return drawable, struct.pack("<II", drawable, context)

    def clear(self) -> bytes:
        exposures = self.random.choice((0, 0, 1, 2 if self.wild else 0))
        return core(61, self.id("window") + struct.pack("<hhHH", 0, 1, 5, 0), exposures)

    def copy_body(self) -> bytes:
        drawable, pair = self.target()
        same = [each for each, depth in self.depths.items() if depth == self.depths.get(drawable)]
        same = [each for each in same if each in self.sizes] or [drawable]
        source = self.random.choice(same) if self.random.random() < 0.9 else self.some("pixmap")
        return struct.pack("<I", source) + pair + struct.pack("<hhhhHH", 0, 0, 1, -1, 10, 9)

    def shapes(self) -> bytes:
        opcode = int(self.random.choice((64, 65, 66, 67, 68, 69, 71)))
        _, pair = self.target()
        count = self.number(0, 3)
        unit = {66: 8, 67: 8, 68: 12, 71: 12}.get(opcode, 4)
        body = b"".join(struct.pack("<h", self.number()) for _ in range(unit // 2 * count))
        mode = self.random.choice((0, 1, 2 if self.wild else 0))
        if opcode == 69:
            return core(69, pair + bytes((self.number(0, 2), mode, 0, 0)) + body)
        return core(opcode, pair + body, mode if opcode in (64, 65) else 0)

    def fill(self) -> bytes:
        drawable, pair = self.target()
        width, height = self.sizes.get(drawable, (9, 9))
        if self.random.random() < 0.6:
            return core(70, pair + struct.pack("<hhHH", 0, 0, width & 0xFFFF, height & 0xFFFF))
        if self.random.random() < 0.3:
            return core(70, pair + struct.pack("<hhHH", -5, -1, 70, 70))
        return core(70, pair + self.boxes())

    def put_image(self) -> bytes:
        drawable, pair = self.target()
        depth = self.depths.get(drawable, 24)
        layout = self.random.choice((2, 2, 2, 1, 0, 3 if self.wild else 2))
        width, height = self.number(0, 20), self.number(0, 20)
        size = self.facts.image_size(layout or 1, depth if layout else 1, width, height) or 0
        depth = depth if layout else 1
        pad = self.random.choice((0, 0, 0, 3))
        head = pair + struct.pack("<HHhhBBxx", width, height, self.number(), 2, pad, depth)
        return core(72, head + bytes(size), layout)

    def get_image(self) -> bytes:
        drawable = self.some(str(self.pick("pixmap", "pixmap", "pixmap", "window")))
        width, height = self.sizes.get(drawable, (9, 9))
        planes = self.random.choice((0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFF, 0xFF))
        box = (0, 0, width, height)
        if self.random.random() < 0.4:
            box = (self.number(-1, 5), self.number(0, 5), self.number(0, 10), self.number(1, 9))
        layout = int(self.random.choice((2, 2, 2, 1, 0 if self.wild else 2)))
        place = struct.pack("<hhHH", *(each & 0x7FFF for each in box))
        return core(73, struct.pack("<I", drawable) + place + struct.pack("<I", planes), layout)

    def text(self) -> bytes:
        opcode = int(self.random.choice((74, 75, 76, 77)))
        _, pair = self.target()
        text = bytes(65 + self.number(0, 20) for _ in range(self.number(0, 6) * 2))
        if opcode in (76, 77):
            length = len(text) // (2 if opcode == 77 else 1)
            return core(opcode, pair + struct.pack("<hh", 3, 9) + text, length)
        unit = 2 if opcode == 75 else 1
        items = struct.pack("<Bb", len(text) // unit, 1) + text
        return core(opcode, pair + struct.pack("<hh", 3, 9) + items)

    # -- RENDER --

    def draw(self, minor: int, body: bytes = b"") -> bytes:
        return core(self.render, body, minor)

    def format(self, depth: int) -> int:
        fitting = [each for each, known in self.facts.picture_formats.items() if known == depth]
        if not fitting or (self.wild and self.random.random() < 0.03):
            return self.random.choice([*self.facts.picture_formats, 3])
        return self.random.choice(fitting)

    def picture_values(self) -> bytes:
        odd = int(self.wild and self.random.random() < 0.1)
        choices: dict[int, Callable[[], int]] = {
            0: lambda: self.number(0, 3 + odd),
            4: self.number,
            5: self.number,
            6: lambda: self.random.choice((0, self.some("pixmap"))),
            7: lambda: self.number(0, 1),
            8: lambda: self.number(0, 1 + odd),
            9: lambda: self.number(0, 1 + odd),
            10: lambda: self.number(0, 1),
            11: lambda: 0,
            12: lambda: self.number(0, 1),
            1: lambda: self.random.choice((0, self.some("picture"))),
        }
        mask, values = self.values(choices, 2)
        return struct.pack("<I", mask) + values

    def create_picture(self) -> bytes:
        drawable = self.some(str(self.pick("window", "pixmap", "pixmap")))
        form = self.format(self.depths.get(drawable, 24))
        made = self.new("picture")
        return self.draw(4, struct.pack("<III", made, drawable, form) + self.picture_values())

    def picture_clip(self) -> bytes:
        return self.draw(6, self.id("picture") + struct.pack("<hh", 0, 1) + self.boxes())

    def operator(self) -> bytes:
        known = (0, 1, 3, 3, 12, 13, 0x1B, 0x2B, 14 if self.wild else 3)
        return struct.pack("<Bxxx", self.random.choice(known))

    def composite(self) -> bytes:
        mask = self.random.choice((bytes(4), bytes(4), self.id("picture")))
        ids = self.id("picture") + mask + self.id("picture")
        return self.draw(8, self.operator() + ids + struct.pack("<6hHH", *(0,) * 6, 9, 9))

    def trapezoids(self) -> bytes:
        fixed = [self.number(0, 30) << 16 for _ in range(10)]
        ids = self.id("picture") + self.id("picture") + struct.pack("<I", self.format(8))
        return self.draw(
            10, self.operator() + ids + struct.pack("<hh", 0, 0) + struct.pack("<10i", *fixed)
        )

    def add_traps(self) -> bytes:
        fixed = [self.number(0, 30) << 16 for _ in range(6)]
        return self.draw(32, self.id("picture") + bytes(4) + struct.pack("<6i", *fixed))

    def create_glyphs(self) -> bytes:
        made, depth = self.new("glyphs"), self.random.choice((8, 8, 1, 32, 24, 4))
        self.depths[made] = depth
        return self.draw(17, struct.pack("<II", made, self.format(depth)))

    def add_glyphs(self) -> bytes:
        glyphs = self.some("glyphs")
        depth = self.depths.get(glyphs, 8)
        count = self.number(0, 3)
        names, places, images = b"", b"", b""
        for index in range(count):
            width, height = self.number(0, 9), self.number(0, 9)
            names += struct.pack("<I", index)
            places += struct.pack("<HHhhhh", width, height, 0, height, width, 0)
            images += bytes((width * depth + 31) // 32 * 4 * height)
        return self.draw(20, struct.pack("<II", glyphs, count) + names + places + images)

    def composite_glyphs(self) -> bytes:
        minor = int(self.random.choice((23, 24, 25)))
        unit = {23: 1, 24: 2, 25: 4}[minor]
        items = b""
        for _ in range(self.number(0, 2)):
            count = self.number(0, 4)
            text = b"".join(self.number(0, 3).to_bytes(unit, "little") for _ in range(count))
            items += struct.pack("<Bxxxhh", count, 3, 4) + text + bytes(-len(text) % 4)
        form = self.random.choice((0, self.format(8)))
        ids = self.id("picture") + self.id("picture") + struct.pack("<I", form) + self.id("glyphs")
        return self.draw(minor, self.operator() + ids + struct.pack("<hh", 0, 0) + items)

    def render_fill(self) -> bytes:
        colour = struct.pack("<4H", 1, 2, 3, 65535)
        return self.draw(26, self.operator() + self.id("picture") + colour + self.boxes())

    def render_cursor(self) -> bytes:
        made = struct.pack("<I", self.new("cursor"))
        hot = struct.pack("<HH", self.number(0, 20), self.number(0, 20))
        return self.draw(27, made + self.id("picture") + hot)

    def solid_fill(self) -> bytes:
        made = struct.pack("<I", self.new("picture"))
        return self.draw(33, made + struct.pack("<4H", 9, 9, 9, 65535))

    def enable_big(self) -> bytes:
        return core(self.big)
