"""Tables of the X protocol: which requests are answered, and which answers are facts of the server.

A *fact* is a reply that depends on nothing but the request: two clients that ask the same get the
same. Some facts stay as long as the server runs, others until something changes that all clients
are told of (the keyboard, the screens). Everything that is not in these tables may have a reply,
and is no fact.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. The canonical form of a
request has zeros wherever the protocol leaves bytes unused, as clients leave garbage there.

Follows the X Window System Protocol, version 11, §9 and appendix B, and the protocol texts of the
extensions named below.
"""

from enum import Enum
from typing import Callable, Dict, FrozenSet, Optional, Set, Tuple


class Replies(Enum):
    """How many replies a request has if it doesn't fail."""

    NONE = "none"
    ONE = "one"
    MANY = "many"
    UNKNOWN = "unknown"


class FactClass(Enum):
    """What a fact is about, and so what makes it stale.

    ABSENT: an atom that did not exist; whoever asks for it again may find that it does. SELECTIONS:
    who owns one. DEVICES: the input devices' properties. INPUT: where the pointer is, which keys
    and buttons are held, what the devices' axes show.
    """

    FOREVER = 0
    KEYBOARD = 1
    SCREENS = 2
    ABSENT = 3
    SELECTIONS = 4
    DEVICES = 5
    INPUT = 6


ONLY_TOLD = frozenset((FactClass.SELECTIONS, FactClass.DEVICES, FactClass.INPUT))
"""Facts that hold only where somebody watches just what was asked: a client's own question is not
kept."""


def _opcodes(text: str) -> FrozenSet[int]:
    """Return the numbers in a text such as ``0 4-6``."""
    found: Set[int] = set()
    for word in text.split():
        first, _, last = word.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


CORE_ANSWERED = _opcodes(
    "3 14-17 20-21 23 26 31 38-40 43-44 47-50 52 73 83-87 91-92 97-99 101 103 106 108 110 116-119"
)
"""Core requests with replies; 50 (ListFontsWithInfo) has many."""

LIST_FONTS_WITH_INFO = 50
FIRST_EXTENSION_OPCODE = 128

_ANSWERED: Dict[bytes, Tuple[FrozenSet[int], FrozenSet[int]]] = {
    name: (_opcodes(answered), _opcodes(silent))
    for name, answered, silent in (
        (b"BIG-REQUESTS", "0", ""),
        (b"Composite", "0 7", "1-6 8"),
        (b"DAMAGE", "0", "1-4"),
        (b"DOUBLE-BUFFER", "0 6-7", "1-5"),
        (b"DPMS", "0-2 7", "3-6 8"),
        (b"GLX", "5-7 14 17-19 21 25-26 29", "1-4 8-13 15-16 20 22-24 27-28 30-35"),
        (b"Generic Event Extension", "0", ""),
        (b"MIT-SCREEN-SAVER", "0-1", "2-5"),
        (b"Present", "0 4", "1-3 5"),
        (
            b"RANDR",
            "0 2 5-6 8-11 15-16 20-23 25 27-29 31-33 36-37 41-42 45",
            "4 7 12-14 17-19 24 26 30 34-35 38-40 43-44 46",
        ),
        (b"RENDER", "0-3 29", "4-15 17-28 30-36"),
        (b"SECURITY", "0-1", "2"),
        (b"SHAPE", "0 5 7-8", "1-4 6"),
        (b"SYNC", "0-1 5 10 13 18", "2-4 6-9 11-12 14-17 19"),
        (b"X-Resource", "0-5", ""),
        (b"XC-MISC", "0-2", ""),
        (b"XFIXES", "0 4 19 24-25 34", "1-3 5-18 20-23 26-33"),
        (b"XINERAMA", "0-5", ""),
        (
            b"XInputExtension",
            "1-3 5 7 9-13 20 22 24 26-30 33-36 39-40 45 47-48 50-51 54 56 59-60",
            "4 6 8 14-19 21 23 25 31-32 37-38 41-44 46 49 52-53 55 57-58 61",
        ),
        (b"XKEYBOARD", "0 4 6 8 10 12-13 15 17 19 21-24 101", "1 3 5 7 9 11 14 16 18 20 25"),
        (b"XTEST", "0-1", "2-3"),
    )
}


def core_replies(opcode: int) -> Replies:
    """Return how many replies a core request has; UNKNOWN for the numbers that mean none."""
    if opcode == LIST_FONTS_WITH_INFO:
        return Replies.MANY
    if opcode in CORE_ANSWERED:
        return Replies.ONE
    return Replies.NONE if 0 < opcode < 120 or opcode == 127 else Replies.UNKNOWN


def extension_replies(name: Optional[bytes], minor: int) -> Replies:
    """Return how many replies an extension's request has; ``name`` None: nobody knows whose."""
    known = _ANSWERED.get(name) if name is not None else None
    if known is None:
        return Replies.UNKNOWN
    answered, silent = known
    if minor in answered:
        return Replies.ONE
    return Replies.NONE if minor in silent else Replies.UNKNOWN


# --- facts --------------------------------------------------------------------------------------

_Zeroed = Tuple[Tuple[int, int], ...]
"""Ranges of unused bytes in a request, from and to."""

CORE_FACTS: Dict[int, Tuple[FactClass, _Zeroed]] = {
    14: (FactClass.SCREENS, ((1, 2),)),  # GetGeometry, of a root window
    16: (FactClass.FOREVER, ((6, 8),)),  # InternAtom
    17: (FactClass.FOREVER, ((1, 2),)),  # GetAtomName
    23: (FactClass.SELECTIONS, ((1, 2),)),  # GetSelectionOwner
    38: (FactClass.INPUT, ((1, 2),)),  # QueryPointer
    49: (FactClass.FOREVER, ((1, 2),)),  # ListFonts
    52: (FactClass.FOREVER, ((1, 2),)),  # GetFontPath
    85: (FactClass.FOREVER, ((1, 2), (10, 12))),  # AllocNamedColor
    92: (FactClass.FOREVER, ((1, 2), (10, 12))),  # LookupColor
    97: (FactClass.FOREVER, ()),  # QueryBestSize
    98: (FactClass.FOREVER, ((1, 2), (6, 8))),  # QueryExtension
    99: (FactClass.FOREVER, ((1, 2),)),  # ListExtensions
    101: (FactClass.KEYBOARD, ((1, 2), (6, 8))),  # GetKeyboardMapping
    117: (FactClass.KEYBOARD, ((1, 2),)),  # GetPointerMapping
    119: (FactClass.KEYBOARD, ((1, 2),)),  # GetModifierMapping
}
"""Core requests whose replies are facts. Those about a colour or a size are so only where
they name the screen's own colormap or root window."""

INTERN_ATOM = 16
ONLY_IF_EXISTS = 1

_TEXTS: Dict[int, Tuple[int, int]] = {16: (4, 8), 49: (6, 8), 85: (8, 12), 92: (8, 12), 98: (4, 8)}
"""Where a core request has the length of its text, and the text itself."""

EXTENSION_FACTS: Dict[Tuple[bytes, int], Tuple[FactClass, _Zeroed]] = {
    (b"BIG-REQUESTS", 0): (FactClass.FOREVER, ()),
    (b"Composite", 0): (FactClass.FOREVER, ()),
    (b"DAMAGE", 0): (FactClass.FOREVER, ()),
    (b"DPMS", 0): (FactClass.FOREVER, ()),
    (b"DPMS", 1): (FactClass.FOREVER, ()),
    (b"GLX", 7): (FactClass.FOREVER, ()),
    (b"GLX", 14): (FactClass.FOREVER, ()),
    (b"GLX", 18): (FactClass.FOREVER, ()),
    (b"GLX", 19): (FactClass.FOREVER, ()),
    (b"GLX", 21): (FactClass.FOREVER, ()),
    (b"Generic Event Extension", 0): (FactClass.FOREVER, ()),
    (b"MIT-SCREEN-SAVER", 0): (FactClass.FOREVER, ((6, 8),)),
    (b"Present", 0): (FactClass.FOREVER, ()),
    (b"RANDR", 0): (FactClass.FOREVER, ()),
    (b"RANDR", 6): (FactClass.SCREENS, ()),
    (b"RANDR", 8): (FactClass.SCREENS, ()),
    (b"RANDR", 9): (FactClass.SCREENS, ()),
    (b"RANDR", 15): (FactClass.SCREENS, ((26, 28),)),
    (b"RANDR", 20): (FactClass.SCREENS, ()),
    (b"RANDR", 25): (FactClass.SCREENS, ()),
    (b"RANDR", 31): (FactClass.SCREENS, ()),
    (b"RANDR", 42): (FactClass.SCREENS, ((9, 12),)),
    (b"RENDER", 0): (FactClass.FOREVER, ()),
    (b"RENDER", 1): (FactClass.FOREVER, ()),
    (b"RENDER", 29): (FactClass.FOREVER, ()),
    (b"SHAPE", 0): (FactClass.FOREVER, ()),
    (b"SYNC", 0): (FactClass.FOREVER, ((6, 8),)),
    (b"XC-MISC", 0): (FactClass.FOREVER, ()),
    (b"XFIXES", 0): (FactClass.FOREVER, ()),
    (b"XINERAMA", 0): (FactClass.FOREVER, ((6, 8),)),
    (b"XINERAMA", 4): (FactClass.SCREENS, ()),
    (b"XINERAMA", 5): (FactClass.SCREENS, ()),
    (b"XInputExtension", 1): (FactClass.FOREVER, ((6, 8),)),
    (b"XInputExtension", 47): (FactClass.FOREVER, ()),
    (b"XInputExtension", 48): (FactClass.INPUT, ((6, 8),)),
    (b"XInputExtension", 59): (FactClass.DEVICES, ((7, 8),)),
    (b"XKEYBOARD", 0): (FactClass.FOREVER, ()),
    (b"XKEYBOARD", 4): (FactClass.INPUT, ((6, 8),)),
    (b"XKEYBOARD", 6): (FactClass.KEYBOARD, ((6, 8),)),
    (b"XKEYBOARD", 8): (FactClass.KEYBOARD, ((26, 28),)),
    (b"XKEYBOARD", 10): (FactClass.KEYBOARD, ()),
    (b"XKEYBOARD", 13): (FactClass.KEYBOARD, ((6, 8),)),
    (b"XKEYBOARD", 17): (FactClass.KEYBOARD, ((6, 8),)),
    (b"XKEYBOARD", 21): (FactClass.KEYBOARD, ((6, 8),)),
    (b"XKEYBOARD", 24): (FactClass.KEYBOARD, ((11, 12),)),
    (b"XTEST", 0): (FactClass.FOREVER, ((5, 6),)),
}
"""Requests of extensions whose replies are facts, by the name of the extension and minor opcode."""

MUST_BE_ZERO: Dict[Tuple[bytes, int], Tuple[int, int]] = {
    (b"RANDR", 15): (24, 26),  # the property isn't deleted, and is the current one
    (b"XInputExtension", 59): (6, 7),  # the property isn't deleted
    (b"XKEYBOARD", 24): (6, 8),  # nothing is wanted but what never changes
}
"""Where such a request must have zeros, for its reply to be a fact."""

CORE_MAKES_STALE: Dict[int, FactClass] = {
    100: FactClass.KEYBOARD,  # ChangeKeyboardMapping
    116: FactClass.KEYBOARD,  # SetPointerMapping
    118: FactClass.KEYBOARD,  # SetModifierMapping
}
MAKES_STALE: Dict[Tuple[bytes, int], FactClass] = {
    **{
        (b"XKEYBOARD", minor): FactClass.KEYBOARD
        for minor in _opcodes("7 9 11 14 16 18 20 23")  # those that set something
    },
    **{(b"XInputExtension", minor): FactClass.KEYBOARD for minor in (25, 27, 29)},
    **{(b"XInputExtension", minor): FactClass.DEVICES for minor in (37, 38, 57, 58)},
    **{
        (b"RANDR", minor): FactClass.SCREENS
        for minor in _opcodes("2 7 12-14 16-19 21 24 26 29-30 34-35 38-40 43-46")
    },
}
"""Requests after which facts of a class may be others: a client must see what it did itself."""

PER_CLIENT_FACTS = {
    (b"XInputExtension", 47): 8,
    (b"RENDER", 0): 12,
    (b"XKEYBOARD", 21): 28,
}
"""Questions after a version or flags, and their size, that are facts for those who always ask the
same: the answer binds the client."""

MOVES_INPUT_CORE = _opcodes("4-5 7-13 26 35 41")
MOVES_INPUT: Dict[bytes, FrozenSet[int]] = {
    b"Composite": _opcodes("1-4 7-8"),
    b"SHAPE": _opcodes("1-4"),
    b"XFIXES": _opcodes("21"),
    b"XInputExtension": frozenset(range(256))
    - _opcodes("1-2 6-7 9-10 20 22 24 26 28 30 36 39-40 42 45-50 54-56 59-60"),
    b"XKEYBOARD": _opcodes("5"),
    b"XTEST": _opcodes("2"),
}
"""Requests with which a client itself may change where the pointer is, and over which window."""

FACT_LIMIT = 512
"""Longest request that is looked up as a question after a fact (bytes)."""


def canonicalise(request: bytes, zeroed: _Zeroed) -> Optional[bytes]:
    """Return the request with zeros in its unused bytes; None where its lengths don't add up."""
    form = bytearray(request)
    for first, last in zeroed:
        if last > len(form):
            return None
        form[first:last] = bytes(last - first)
    return bytes(form)


def canonicalise_core(request: bytes, read_short: Callable[[bytes, int], int]) -> Optional[bytes]:
    """Return the canonical form of a core request about a fact; None where it is malformed.

    ``read_short(data, position)`` reads 16 bits in the connection's byte order.
    """
    opcode = request[0]
    form = canonicalise(request, CORE_FACTS[opcode][1])
    if form is None or opcode not in _TEXTS:
        return form
    length_at, text_at = _TEXTS[opcode]
    if len(form) < text_at:
        return None
    end = text_at + read_short(form, length_at)
    if (end + 3) & ~3 != len(form):
        return None
    return form[:end] + bytes(len(form) - end)
