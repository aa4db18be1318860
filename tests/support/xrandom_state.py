"""Random requests about selections, input devices, outputs, the keyboard and the pointer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from xsshpy.remote.xrequests import FactClass

if TYPE_CHECKING:
    from tests.support.xrandom import RandomClient

Makers = list[tuple[int, Callable[[], bytes]]]
NET_WM_STATE = 100


class StateRequests:
    """Makes such requests for a client; ids and atoms are those that the facts name, and others."""

    def __init__(self, client: RandomClient) -> None:
        self.client = client
        self.random = client.random
        self.known = list(client.facts.replies.items())
        opcodes = {name: opcode for opcode, name in client.facts.extensions.items()}
        self.fixes = opcodes.get(b"XFIXES", 0)
        self.devices = opcodes.get(b"XInputExtension", 0)
        self.keyboard = opcodes.get(b"XKEYBOARD", 0)
        self.screens = opcodes.get(b"RANDR", 0)

    def makers(self) -> Makers:
        client = self.client
        found: Makers = [
            (4, lambda: self.core(40, client.id("window") * 2 + self.words("hh", 7, -9))),
            (2, lambda: self.core(40, client.id("window") + client.id("window") + bytes(4))),
            (3, lambda: self.core(15, client.id("window"))),
            (2, lambda: self.core(38, client.id("window"))),
            (2, self.warp),
            (2, self.send_event),
            (1, self.convert),
            (2, lambda: self.core(23, self.selection())),
            (1, lambda: self.core(22, client.id("window") + self.selection() + bytes(4))),
            (10, self.repeat),
            (2, self.grab_button),
            (8, self.get_own_property),
            (4, lambda: self.core(40, self.newest() * 2 + self.words("hh", 7, -9))),
        ]
        if self.fixes:
            found += [(2, self.fixes_version), (2, self.select_selection)]
        if self.devices:
            found += [(6, self.select_input), (1, self.introduce_input)]
        if self.keyboard:
            found += [(2, self.introduce_keyboard), (4, self.select_keyboard)]
        if self.screens:
            found.append((2, self.select_screens))
        return found

    @staticmethod
    def core(opcode: int, body: bytes = b"", minor: int = 0) -> bytes:
        return struct.pack("<BBH", opcode, minor, 1 + len(body) // 4) + body

    @staticmethod
    def words(form: str, *values: int) -> bytes:
        return struct.pack("<" + form, *values)

    def repeat(self) -> bytes:
        """Ask something that is known, of those kinds that this is about."""
        kinds = (FactClass.SELECTIONS, FactClass.DEVICES, FactClass.INPUT, FactClass.SCREENS)
        keys = [key for key, (kind, _) in self.known if kind in kinds or key[0] == self.keyboard]
        return self.random.choice(keys) if keys else self.core(43)

    def newest(self) -> bytes:
        """Return the window made last: others had the least to do with it."""
        return self.words("I", (self.client.ids["window"] or [self.client.screen.root])[-1])

    def get_own_property(self) -> bytes:
        kind = self.random.choice((bytes(4), self.client.atom()))
        return self.core(20, self.newest() + self.client.atom() + kind + self.words("II", 0, 9))

    def selection(self) -> bytes:
        keys = [key for key, (kind, _) in self.known if kind is FactClass.SELECTIONS]
        atoms = [key[4:8] for key in keys] + [self.client.atom()]
        return self.random.choice(atoms)

    def grab_button(self) -> bytes:
        pick = self.client.pick
        events, modes = pick(4, 0, 0x7FFC, 1), pick(0, 0x0101, 1, 2)
        there = self.words("HHII", events, modes, pick(0, 0, 5), pick(0, 0, 7))
        button = self.words("BxH", pick(0, 1, 9), pick(0, 4, 0x8000, 0x200))
        return self.core(28, self.client.id("window") + there + button, pick(0, 1, 2))

    def warp(self) -> bytes:
        place = self.words("hhHHhh", 0, 0, 0, 0, *(self.random.randrange(300) for _ in "xy"))
        return self.core(41, bytes(4) + self.client.id("window") + place)

    def send_event(self) -> bytes:
        message = self.words("BBH", 33, 32, 0) + self.client.id("window")
        message += self.words("I", NET_WM_STATE) + self.client.id("window") + bytes(16)
        return self.core(25, self.words("II", self.client.screen.root, 1 << 19) + message)

    def convert(self) -> bytes:
        names = self.selection() + self.client.atom() * 2
        return self.core(24, self.client.id("window") + names + bytes(4))

    def fixes_version(self) -> bytes:
        return self.core(self.fixes, self.words("II", self.client.pick(0, 1, 5, 6), 0))

    def select_selection(self) -> bytes:
        events = self.client.pick(7, 1, 8)
        body = self.client.id("window") + self.selection() + self.words("I", events)
        return self.core(self.fixes, body, 2)

    def introduce_input(self) -> bytes:
        return self.core(self.devices, self.words("HH", 2, self.client.pick(0, 2, 4)), 47)

    def select_input(self) -> bytes:
        pick, masks = self.client.pick, b""
        count = pick(1, 1, 2, 0)
        touch, gestures = 7 << 18, (7 << 27, 7 << 30)
        for _ in range(count):
            mask = pick(0x1802, 0x1F0, touch | 0x1F0, 1 << 11, 1 << 17, 1 << 18, 1, 0, *gestures)
            units = pick(1, 2, 2, 0, 3)
            mask |= pick(0, 0, 1 << 32, 1 << 33, gestures[0] | 7 << 30)
            words = mask.to_bytes(12, "little")[: units * 4]
            masks += self.words("HH", pick(0, 1, 1, 2, 3, 77), units) + words
        body = self.client.id("window") + self.words("Hxx", count) + masks
        return self.core(self.devices, body, 46)

    def introduce_keyboard(self) -> bytes:
        return self.core(self.keyboard, self.words("HH", self.client.pick(1, 1, 2), 0))

    def select_keyboard(self) -> bytes:
        pick = self.client.pick
        which = pick(7, 4, 2, 0x1000, 0xFFF)
        clear, every = pick((0, which), (which, 0), (0, 0), (4, 4), (which | 8, 0))
        parts, wanted = pick((0xFF, 0xFF), (0, 0), (0xF, 0xFF), (0x1FF, 0))
        body = self.words("HHHHHH", pick(256, 256, 3, 99), which, clear, every, parts, wanted)
        if which == 4 and not clear and not every:
            affected, details = pick((0x3FFF, 0x11), (0x10, 0x11), (0xFFFF, 0))
            body += self.words("HH", affected, details)
        return self.core(self.keyboard, body, 1)

    def select_screens(self) -> bytes:
        events = self.client.pick(15, 1, 0, 0x3F, 0xFF, 0x1000)
        return self.core(self.screens, self.client.id("window") + self.words("Hxx", events), 4)
