"""What the other end was asked to look at, and what it saw: a root window's children, the frames
around windows, what a window manager wrote, the focus.

All of it is decided by others, so it is known only from someone who watches it. A *look* has a
number. What is seen counts as long as its number is the latest: whatever may have changed the
thing, as far as a client here can know (a request of its own that the server has carried out, an
event that it got), takes a new number, and so asks for a look that begins after that.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. A client can't make this
grow, nor have it ask without end for what nobody wants to know.

Follows the X Window System Protocol, version 11, §9 (QueryTree, GetGeometry, TranslateCoordinates,
GetInputFocus, GetProperty), §10 (events' causes).
"""

import struct
from enum import IntEnum
from typing import Callable, Dict, List, NamedTuple, Optional

from .xmessages import ProtocolError

MOST_LOOKS = 256
"""Most things that are looked at."""

DEEPEST = 8
"""Most frames around one window."""

UNUSED_LOOKS = 8
"""How often something is looked at anew that nobody asked about."""


class Subject(IntEnum):
    """What a look is at."""

    FOCUS = 0
    CHILDREN = 1
    FRAME = 2
    PROPERTY = 3


OF_ONE_WINDOW = frozenset((Subject.FRAME, Subject.PROPERTY))


class Thing(NamedTuple):
    """What is looked at: ``detail`` is a property's atom, else 0; so is the focus's ``window``."""

    subject: Subject
    window: int
    detail: int = 0


_LOOK = struct.Struct(">BIII")
_FRAME = struct.Struct(">II32s32s")
FOCUS = Thing(Subject.FOCUS, 0)


class Look(NamedTuple):
    """The order to look at something."""

    thing: Thing
    number: int


class Frame(NamedTuple):
    """A window around another: the replies to GetGeometry, to QueryTree, and to
    TranslateCoordinates from the corner of the window that is framed.
    """

    identifier: int
    geometry: bytes
    translation: bytes
    tree: bytes


def build_frames(frames: List[Frame]) -> bytes:
    """Return frames from the inner to the outer in the form in which they travel."""
    return b"".join(
        _FRAME.pack(frame.identifier, len(frame.tree), frame.geometry, frame.translation)
        + frame.tree
        for frame in frames
    )


def parse_frames(data: bytes) -> List[Frame]:
    """Return the frames in what was seen. Raises ProtocolError where it is malformed."""
    frames: List[Frame] = []
    position = 0
    while position < len(data):
        if position + _FRAME.size > len(data) or len(frames) >= DEEPEST:
            raise ProtocolError("frames are malformed")
        identifier, size, geometry, translation = _FRAME.unpack_from(data, position)
        position += _FRAME.size + size
        tree = data[position - size : position]
        if len(tree) != size or size < 32:
            raise ProtocolError("frames are malformed")
        frames.append(Frame(identifier, geometry, translation, tree))
    return frames


class Looks:
    """All looks of one agent. ``wanted`` ones are to be sent."""

    def __init__(self) -> None:
        self._count = 0
        self._numbers: Dict[Thing, int] = {}
        self._seen: Dict[Thing, bytes] = {}
        self._changing: Dict[Thing, int] = {}
        self._unused: Dict[Thing, int] = {}
        self.wanted: Dict[Thing, None] = {}

    def spoil(self, thing: Thing) -> None:
        """What was seen may not be so any more."""
        if thing not in self._numbers and len(self._numbers) >= MOST_LOOKS:
            return
        self._count = self._count % 0xFFFFFFFF + 1
        self._numbers[thing] = self._count
        self._seen.pop(thing, None)
        self.wanted.pop(thing, None)

    def renew(self, thing: Thing) -> None:
        """What was seen is not so any more: look again."""
        self.spoil(thing)
        self._want(thing)

    def renew_all(self) -> None:
        """Nothing that was seen is sure."""
        for thing in list(self._numbers):
            self.renew(thing)

    def begin(self, thing: Thing) -> None:
        """A client is changing something: until the server did that, looks may be older."""
        self.spoil(thing)
        if thing in self._numbers:
            self._changing[thing] = self._changing.get(thing, 0) + 1

    def end(self, thing: Thing) -> None:
        """The server has carried out a change that began."""
        count = self._changing.pop(thing, 0)
        if count > 1:
            self._changing[thing] = count - 1
        elif count:
            self._want(thing)

    def drop(self, thing: Thing) -> None:
        """The thing is no more."""
        self._numbers.pop(thing, None)
        self._seen.pop(thing, None)
        self._changing.pop(thing, None)
        self._unused.pop(thing, None)
        self.wanted.pop(thing, None)

    def drop_windows(self, are_gone: Callable[[int], bool]) -> None:
        """Windows are no more, nor what they had; ``are_gone`` tells which."""
        for thing in list(self._numbers):
            if thing.subject in OF_ONE_WINDOW and are_gone(thing.window):
                self.drop(thing)

    def _want(self, thing: Thing) -> None:
        unused = self._unused.get(thing, 0)
        if thing in self._numbers and thing not in self._changing and unused < UNUSED_LOOKS:
            self._unused[thing] = unused + 1
            self.wanted[thing] = None

    def take_wanted(self) -> List[Look]:
        """Return what is to be looked at, to be sent to the other end."""
        wanted = [Look(thing, self._numbers[thing]) for thing in self.wanted]
        self.wanted.clear()
        return wanted

    def tell(self, thing: Thing, number: int, seen: bytes) -> bool:
        """Take over what was seen, nothing where it can't be; return whether it still counts."""
        if self._numbers.get(thing) != number or thing in self._changing:
            return False
        self._seen[thing] = seen
        return True

    def find(self, thing: Thing) -> Optional[bytes]:
        """Return what is there, as far as anybody here can know; None where that is not known."""
        self._unused.pop(thing, None)
        seen = self._seen.get(thing)
        if seen is None:
            self._want(thing)
        return seen or None

    def number(self, thing: Thing) -> int:
        """Return the number of the latest look at something."""
        return self._numbers.get(thing, 0)


def pack_looks(looks: List[Look]) -> bytes:
    """Return orders to look in the form in which they travel."""
    return b"".join(_LOOK.pack(*look.thing, look.number) for look in looks)


def parse_looks(data: bytes) -> List[Look]:
    """Return the orders in a payload. Raises ProtocolError where it is malformed."""
    if len(data) % _LOOK.size:
        raise ProtocolError("looks are cut short")
    looks = []
    for subject, window, detail, number in _LOOK.iter_unpack(data):
        try:
            thing = Thing(Subject(subject), window, detail)
        except ValueError:
            raise ProtocolError("a look at nothing that is known") from None
        looks.append(Look(thing, number))
    return looks
