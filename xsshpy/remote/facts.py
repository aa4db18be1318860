"""What is known of the X server: its setup, and the answers that are facts.

All clients of one trust share one ``ServerFacts``. The side next to the server fills it beforehand,
keeps what may change up to date, and the clients' own questions add to it.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. Replies are kept as the
server gave them, with a sequence number of 0, in the byte order of the setup that was parsed;
clients of the other byte order are told nothing from here.

Follows the X Window System Protocol, version 11, §8 (connection setup), §9 (GetProperty,
AllocColor, QueryColors) and appendix B.
"""

import struct
from enum import Enum
from typing import Dict, FrozenSet, List, NamedTuple, Optional, Set, Tuple

from .xextensions import HIDDEN_EXTENSIONS
from .xmessages import ByteOrder, ProtocolError, pad_length
from .xrequests import INTERN_ATOM, ONLY_IF_EXISTS, FactClass

TRUE_COLOR = 4
"""Class of a visual whose colours follow from its masks alone."""

XY_PIXMAP = 1
Z_PIXMAP = 2
LAST_PREDEFINED_ATOM = 68
QUERY_PICTURE_FORMATS = 1

KNOWN_LIMIT = 4096
"""Most facts that are kept; a client could ask for any number of them."""

PROPERTY_LIMIT = 65536
"""Longest root property that is kept (bytes)."""


class PredictionClass(Enum):
    """Kinds of answers that may be given before the server's. Each can be switched off alone."""

    FACTS = "facts"
    KEYBOARD = "keyboard"
    SCREENS = "screens"
    COLOURS = "colours"
    PROPERTIES = "properties"
    FONTS = "fonts"
    ABSENT = "absent atoms"
    ROOT = "root window"
    WINDOWS = "windows"
    PIXMAPS = "pixmaps"
    SYNC = "sync"


CLASS_OF_FACT = {
    FactClass.FOREVER: PredictionClass.FACTS,
    FactClass.KEYBOARD: PredictionClass.KEYBOARD,
    FactClass.SCREENS: PredictionClass.SCREENS,
    FactClass.ABSENT: PredictionClass.ABSENT,
}

COHERENT = frozenset(
    (
        PredictionClass.KEYBOARD,
        PredictionClass.SCREENS,
        PredictionClass.PROPERTIES,
        PredictionClass.ABSENT,
        PredictionClass.ROOT,
    )
)
"""Classes that follow changes by being told; who grabs the server gets the server's own answers."""


class PixmapFormat(NamedTuple):
    """How pixels of one depth lie in an image."""

    bits_per_pixel: int
    scanline_pad: int


class Visual(NamedTuple):
    """One visual type."""

    kind: int
    depth: int
    bits_per_colour: int
    red_mask: int
    green_mask: int
    blue_mask: int


class Screen(NamedTuple):
    """One screen of the server."""

    root: int
    colormap: int
    visual: int
    depth: int


class Property(NamedTuple):
    """The value of a window's property; ``kind`` is its type's atom, ``unit`` 8, 16 or 32 bits."""

    kind: int
    unit: int
    data: bytes


class ServerSetup(NamedTuple):
    """What a server says to every client that it lets in, apart from its resource ids."""

    screens: Tuple[Screen, ...]
    bitmap_pad: int
    formats: Dict[int, PixmapFormat]
    visuals: Dict[int, Visual]


def parse_resource_range(setup: bytes, order: ByteOrder) -> Tuple[int, int]:
    """Return base and mask of the resource ids that a client was given (setup §8)."""
    if len(setup) < 40:
        raise ProtocolError("the server's setup is too short")
    base, mask = struct.unpack_from(order.value + "II", setup, 12)
    return base, mask


def parse_server_setup(setup: bytes, order: ByteOrder) -> ServerSetup:
    """Return what a successful connection setup says. Raises ProtocolError where it's malformed."""
    try:
        return _parse_server_setup(setup, order.value)
    except struct.error:
        raise ProtocolError("the server's setup does not add up") from None


def _parse_server_setup(setup: bytes, order: str) -> ServerSetup:
    vendor, _, screen_count, format_count = struct.unpack_from(order + "HHBB", setup, 24)
    position = 40 + vendor + pad_length(vendor)
    formats = {}
    for _ in range(format_count):
        depth, bits, pad = struct.unpack_from("BBB", setup, position)
        formats[depth] = PixmapFormat(bits, pad)
        position += 8
    screens = []
    visuals = {}
    for _ in range(screen_count):
        root, colormap = struct.unpack_from(order + "II", setup, position)
        visual, _, _, depth, depth_count = struct.unpack_from(order + "IBBBB", setup, position + 32)
        screens.append(Screen(root, colormap, visual, depth))
        position += 40
        for _ in range(depth_count):
            own_depth, visual_count = struct.unpack_from(order + "BxH", setup, position)
            position += 8
            for _ in range(visual_count):
                identifier, kind, bits, red, green, blue = struct.unpack_from(
                    order + "IBBxxIII", setup, position
                )
                visuals[identifier] = Visual(kind, own_depth, bits, red, green, blue)
                position += 24
    return ServerSetup(tuple(screens), setup[33] or 8, formats, visuals)


class ServerFacts:
    """What is known of one server, for clients of one trust and one byte order."""

    def __init__(
        self, setup: bytes, order: ByteOrder, hidden: FrozenSet[bytes] = HIDDEN_EXTENSIONS
    ) -> None:
        self.order = order
        self.hidden = hidden
        parsed = parse_server_setup(setup, order)
        self.screens = {screen.root: screen for screen in parsed.screens}
        self.colormaps = {screen.colormap: screen for screen in parsed.screens}
        self.formats = parsed.formats
        self.bitmap_pad = parsed.bitmap_pad
        self.visuals = parsed.visuals
        self.replies: Dict[bytes, Tuple[FactClass, bytes]] = {}
        self.extensions: Dict[int, bytes] = {}
        self.event_bases: Dict[bytes, int] = {}
        self.atoms: Set[int] = set()
        self.picture_formats: Dict[int, int] = {}
        """RENDER's picture formats: by id, the depth."""
        self.fonts: Dict[bytes, bytes] = {}
        """QueryFont's reply by the name that OpenFont was given, for fonts that can be opened."""
        self.root_attributes: Dict[int, bytes] = {}
        """GetWindowAttributes' reply by root window, as long as nobody selects more events."""
        self.properties: Dict[int, Dict[int, Optional[Property]]] = {}
        """For each root window that is watched, its properties; None: one not known at present."""
        self.focus: Optional[bytes] = None
        """The last answer to GetInputFocus."""
        self.managed: Optional[bool] = None
        """Whether a window manager redirects what happens to top-level windows; None: unknown."""
        self.switched_off: Set[PredictionClass] = set()
        self._structs = {
            "H": struct.Struct(order.value + "H"),
            "I": struct.Struct(order.value + "I"),
        }

    def image_size(self, layout: int, depth: int, width: int, height: int) -> Optional[int]:
        """Return the bytes of an image of layout 1 (XYPixmap) or 2 (ZPixmap); else None."""
        known = self.formats.get(depth)
        if known is None or layout not in (XY_PIXMAP, Z_PIXMAP):
            return None
        bits, pad, planes = width * known.bits_per_pixel, known.scanline_pad, 1
        if layout == XY_PIXMAP:
            bits, pad, planes = width, self.bitmap_pad, depth
        return (bits + pad - 1) // pad * pad // 8 * height * planes

    # -- facts --

    def learn(self, key: bytes, kind: FactClass, reply: bytes) -> None:
        """Keep the reply to a request in canonical form."""
        if len(self.replies) >= KNOWN_LIMIT and key not in self.replies:
            return
        plain = reply[:2] + b"\0\0" + reply[4:]
        self.replies[key] = (kind, plain)
        if key[0] == 98 and len(key) >= 8 and plain[8] == 1:
            name = key[8 : 8 + self._structs["H"].unpack_from(key, 4)[0]]
            self.extensions[plain[9]] = name
            self.event_bases[name] = plain[10]
        elif key[0] == INTERN_ATOM and kind is not FactClass.ABSENT:
            self.atoms.add(self._structs["I"].unpack_from(plain, 8)[0])
        elif self.extensions.get(key[0]) == b"RENDER" and key[1] == QUERY_PICTURE_FORMATS:
            self._learn_picture_formats(plain)

    def _learn_picture_formats(self, reply: bytes) -> None:
        count = self._structs["I"].unpack_from(reply, 8)[0]
        for position in range(32, min(len(reply), 32 + 28 * count), 28):
            identifier = self._structs["I"].unpack_from(reply, position)[0]
            self.picture_formats[identifier] = reply[position + 5]

    def is_atom(self, atom: int) -> bool:
        """Tell whether an atom surely exists; those up to 68 always do."""
        return 0 < atom <= LAST_PREDEFINED_ATOM or atom in self.atoms

    def forget(self, kind: FactClass) -> None:
        """Forget all facts of a class: they are stale."""
        for key in [key for key, (known, _) in self.replies.items() if known is kind]:
            del self.replies[key]

    def find_atom(self, key: bytes) -> Optional[Tuple[FactClass, bytes]]:
        """Return what is known of an InternAtom in canonical form.

        One that creates the atom ends what was known of its absence.
        """
        plain = key[:1] + b"\0" + key[2:]
        found = self.replies.get(plain)
        if found is not None:
            return found
        if key[1] == ONLY_IF_EXISTS:
            return self.replies.get(key)
        self.replies.pop(bytes((key[0], ONLY_IF_EXISTS)) + key[2:], None)
        return None

    # -- the root window --

    def select_on_root(self, root: int, mask: int) -> None:
        """A client selects events on a root window; other clients can see that."""
        known = self.root_attributes.get(root)
        if known is not None and mask & ~self._structs["I"].unpack_from(known, 32)[0]:
            del self.root_attributes[root]

    def answer_root_attributes(self, root: int, own_mask: int) -> Optional[bytes]:
        """Return the reply to GetWindowAttributes of a root window; None where it's not known."""
        known = self.root_attributes.get(root)
        if known is None:
            return None
        return known[:36] + self._structs["I"].pack(own_mask) + known[40:]

    def unsettle_property(self, root: int, atom: int) -> None:
        """A client is changing a root property: nothing is known of it until the next news."""
        if root in self.properties:
            self.properties[root][atom] = None

    def answer_property(self, request: bytes) -> Optional[bytes]:
        """Return the reply to a GetProperty of a watched root window; None where it's not known."""
        if len(request) != 24 or request[1]:  # a read that deletes
            return None
        window, atom, kind, offset, length = struct.unpack_from(
            self.order.value + "IIIII", request, 4
        )
        watched = self.properties.get(window)
        if watched is None:
            return None
        if atom not in watched:
            return self._reply(0, struct.pack(self.order.value + "III12x", 0, 0, 0))
        found = watched[atom]
        if found is None:
            return None
        pack = self.order.value + "III12x"
        if kind not in (0, found.kind):
            return self._reply(found.unit, struct.pack(pack, found.kind, len(found.data), 0))
        if offset * 4 > len(found.data):  # an error, the server's to make
            return None
        value = found.data[offset * 4 : (offset + length) * 4]
        left = len(found.data) - offset * 4 - len(value)
        count = len(value) * 8 // found.unit
        return self._reply(found.unit, struct.pack(pack, found.kind, left, count), value)

    # -- colours --

    def answer_colour(self, request: bytes) -> Optional[bytes]:
        """Return the reply to an AllocColor; None where arithmetic doesn't tell."""
        if len(request) != 16:
            return None
        colormap, *wished = struct.unpack_from(self.order.value + "IHHH", request, 4)
        visual = self._true_colour(colormap)
        if visual is None:
            return None
        pixel, shown = 0, []
        for value, mask in zip(wished, visual[3:]):
            index = value >> (16 - visual.bits_per_colour)
            pixel |= index * (mask & -mask)
            shown.append(index * 65535 // ((1 << visual.bits_per_colour) - 1))
        return self._reply(0, struct.pack(self.order.value + "HHHxxI12x", *shown, pixel))

    def answer_colours(self, request: bytes) -> Optional[bytes]:
        """Return the reply to a QueryColors; None where arithmetic doesn't tell."""
        if len(request) < 8:
            return None
        visual = self._true_colour(self._structs["I"].unpack_from(request, 4)[0])
        if visual is None:
            return None
        count = (len(request) - 8) // 4
        largest = (1 << visual.bits_per_colour) - 1
        colours = []
        for pixel in struct.unpack_from("{}{}I".format(self.order.value, count), request, 8):
            shown = [(pixel & mask) // (mask & -mask) * 65535 // largest for mask in visual[3:]]
            colours.append(struct.pack(self.order.value + "HHHxx", *shown))
        head = struct.pack(self.order.value + "H22x", count)
        return self._reply(0, head, b"".join(colours))

    def _true_colour(self, colormap: int) -> Optional[Visual]:
        """Return the visual of a screen's own colormap, where its colours are mere arithmetic."""
        screen = self.colormaps.get(colormap)
        visual = self.visuals.get(screen.visual) if screen is not None else None
        if visual is None or visual.kind != TRUE_COLOR or visual.depth > 24:
            return None
        for mask in visual[3:]:
            if not mask or mask // (mask & -mask) != (1 << visual.bits_per_colour) - 1:
                return None
        return visual

    def _reply(self, detail: int, rest: bytes, value: bytes = b"") -> bytes:
        """Return a reply: ``rest`` are the 24 bytes behind the length, ``value`` what follows."""
        units = (len(value) + 3) // 4
        head = struct.pack(self.order.value + "BBHI", 1, detail, 0, units)
        return head + rest + value + bytes(units * 4 - len(value))


# --- facts on their way -------------------------------------------------------------------------


class Told(Enum):
    """What one record of facts is about."""

    REPLY = 0
    FONT = 1
    ROOT_ATTRIBUTES = 2
    PROPERTY = 3
    ABSENT_PROPERTY = 4
    UNKNOWN_PROPERTY = 5
    FOCUS = 6
    MANAGED = 7
    SETUP = 8


class Record(NamedTuple):
    """One fact: ``key`` says what of, ``value`` what."""

    about: Told
    detail: int
    key: bytes
    value: bytes


_RECORD = struct.Struct(">BBHI")
RECORD_LIMIT = 1 << 20
"""Longest value of one record (bytes)."""


def build_records(records: List[Record]) -> bytes:
    """Return records in the form in which they travel."""
    return b"".join(
        _RECORD.pack(record.about.value, record.detail, len(record.key), len(record.value))
        + record.key
        + record.value
        for record in records
    )


def parse_records(data: bytes) -> List[Record]:
    """Return the records in a payload. Raises ProtocolError where it is malformed."""
    records, position = [], 0
    while position < len(data):
        if position + _RECORD.size > len(data):
            raise ProtocolError("facts are cut short")
        about, detail, key_size, value_size = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        end = position + key_size + value_size
        if value_size > RECORD_LIMIT or end > len(data):
            raise ProtocolError("facts are cut short")
        try:
            told = Told(about)
        except ValueError:
            raise ProtocolError("facts of an unknown kind") from None
        key = bytes(data[position : position + key_size])
        records.append(Record(told, detail, key, bytes(data[position + key_size : end])))
        position = end
    return records


def apply_record(facts: ServerFacts, record: Record) -> None:
    """Take over one fact. Raises ProtocolError where it is malformed."""
    try:
        _TAKERS[record.about](facts, record)
    except (struct.error, IndexError, ValueError):
        raise ProtocolError("facts are malformed") from None


def _take_reply(facts: ServerFacts, record: Record) -> None:
    if len(record.value) < 32 or len(record.key) < 4:
        raise ValueError
    facts.learn(record.key, FactClass(record.detail), record.value)


def _take_font(facts: ServerFacts, record: Record) -> None:
    if len(record.value) < 60 or len(facts.fonts) >= KNOWN_LIMIT:
        raise ValueError
    facts.fonts[record.key] = record.value


def _take_root_attributes(facts: ServerFacts, record: Record) -> None:
    if len(record.value) != 44:
        raise ValueError
    facts.root_attributes[struct.unpack(">I", record.key)[0]] = record.value


def _take_property(facts: ServerFacts, record: Record) -> None:
    root, atom, kind = struct.unpack(">III", record.key)
    watched = facts.properties.setdefault(root, {})
    if record.about is Told.ABSENT_PROPERTY:
        watched.pop(atom, None)
    elif record.about is Told.UNKNOWN_PROPERTY or len(record.value) > PROPERTY_LIMIT:
        watched[atom] = None
    elif record.detail in (8, 16, 32) and len(record.value) % (record.detail // 8) == 0:
        watched[atom] = Property(kind, record.detail, record.value)
    else:
        raise ValueError


def _take_focus(facts: ServerFacts, record: Record) -> None:
    if len(record.value) != 32:
        raise ValueError
    facts.focus = record.value


def _take_setup(facts: ServerFacts, record: Record) -> None:
    """The facts were made of it."""


def _take_managed(facts: ServerFacts, record: Record) -> None:
    facts.managed = bool(record.detail)


_TAKERS = {
    Told.REPLY: _take_reply,
    Told.FONT: _take_font,
    Told.ROOT_ATTRIBUTES: _take_root_attributes,
    Told.PROPERTY: _take_property,
    Told.ABSENT_PROPERTY: _take_property,
    Told.UNKNOWN_PROPERTY: _take_property,
    Told.FOCUS: _take_focus,
    Told.MANAGED: _take_managed,
    Told.SETUP: _take_setup,
}
