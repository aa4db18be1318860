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

from .looks import Looks
from .roots import RootWindows
from .xextensions import HIDDEN_EXTENSIONS
from .xmessages import ByteOrder, ProtocolError, build_reply, pad_length
from .xrequests import INTERN_ATOM, ONLY_IF_EXISTS, FactClass

TRUE_COLOR = 4
"""Class of a visual whose colours follow from its masks alone."""

XY_PIXMAP = 1
Z_PIXMAP = 2
LAST_PREDEFINED_ATOM = 68
QUERY_PICTURE_FORMATS = 1
FONT_OPCODES = frozenset((49, 52))

KNOWN_LIMIT = 4096
KNOWN_BYTES = 16 << 20
"""Most facts that are kept, and bytes of them; a client could ask for any number of them."""

ATOM_LIMIT = 65536
FONT_LIMIT = 256
"""Most fonts whose description is kept."""


class PredictionClass(Enum):
    """Kinds of answers that may be given before the server's. Each can be switched off alone."""

    FACTS = "facts"
    KEYBOARD = "keyboard"
    SCREENS = "screens"
    COLOURS = "colours"
    PROPERTIES = "properties"
    FONTS = "fonts"
    ABSENT = "absent atoms"
    SELECTIONS = "selections"
    DEVICES = "devices"
    INPUT = "input"
    ROOT = "root window"
    WINDOWS = "windows"
    SURROUNDINGS = "surroundings"
    PIXMAPS = "pixmaps"
    SYNC = "sync"


CLASS_OF_FACT = {
    FactClass.FOREVER: PredictionClass.FACTS,
    FactClass.KEYBOARD: PredictionClass.KEYBOARD,
    FactClass.SCREENS: PredictionClass.SCREENS,
    FactClass.ABSENT: PredictionClass.ABSENT,
    FactClass.SELECTIONS: PredictionClass.SELECTIONS,
    FactClass.DEVICES: PredictionClass.DEVICES,
    FactClass.INPUT: PredictionClass.INPUT,
}

COHERENT = frozenset(
    (
        PredictionClass.KEYBOARD,
        PredictionClass.SCREENS,
        PredictionClass.PROPERTIES,
        PredictionClass.ABSENT,
        PredictionClass.ROOT,
        PredictionClass.SELECTIONS,
        PredictionClass.DEVICES,
        PredictionClass.INPUT,
        PredictionClass.SURROUNDINGS,
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
    depths: FrozenSet[int] = frozenset()
    """Depths that a pixmap of this screen may have."""


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
    if len(setup) < 40:
        raise ProtocolError("the server's setup is too short")
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
        position += 40
        depths = {1}
        for _ in range(depth_count):
            own_depth, visual_count = struct.unpack_from(order + "BxH", setup, position)
            depths.add(own_depth)
            position += 8
            for _ in range(visual_count):
                identifier, kind, bits, red, green, blue = struct.unpack_from(
                    order + "IBBxxIII", setup, position
                )
                visuals[identifier] = Visual(kind, own_depth, bits, red, green, blue)
                position += 24
        screens.append(Screen(root, colormap, visual, depth, frozenset(depths)))
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
        self.roots = RootWindows(order.value)
        self.looks = Looks()
        self.installed: Dict[int, int] = dict.fromkeys(self.colormaps, 1)
        """For each screen's own colormap, whether it is installed, as far as that is known."""
        self.focus: Optional[bytes] = None
        """The last answer to GetInputFocus."""
        self.managed: Optional[bool] = None
        """Whether a window manager redirects what happens to top-level windows, or did so; None:
        unknown."""
        self.generation = 0
        """Counts how often facts became stale: an answer to an older question may be so too."""
        self.screens_changed = False
        """Whether anything about the screens changed since the session began."""
        self.input_known = False
        """Whether something may be known of the input."""
        self.input_changing = 0
        """How many clients have requests under way that may change what is known of the input."""
        self._own_selections: Set[int] = set()
        self._kept_bytes = 0
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
        """Keep the reply to a request in canonical form, where there is room."""
        plain = reply[:2] + b"\0\0" + reply[4:]
        if key[0] == 98 and len(key) >= 8 and plain[8] == 1:
            name = key[8 : 8 + self._structs["H"].unpack_from(key, 4)[0]]
            self.extensions[plain[9]] = name
            self.event_bases[name] = plain[10]
        if kind is FactClass.INPUT:
            if self.input_changing:
                return  # it may be older than the change
            self.input_known = True
        if kind is FactClass.SELECTIONS and self._names_own_selection(key):
            return
        known = self.replies.get(key)
        grown = len(plain) - (0 if known is None else len(known[1]))
        if known is None and len(self.replies) >= KNOWN_LIMIT:
            return
        if self._kept_bytes + grown > KNOWN_BYTES:
            return
        self._kept_bytes += grown
        self.replies[key] = (kind, plain)
        if key[0] == INTERN_ATOM and kind is not FactClass.ABSENT:
            self.add_atom(self._structs["I"].unpack_from(plain, 8)[0])
        elif self.extensions.get(key[0]) == b"RENDER" and key[1] == QUERY_PICTURE_FORMATS:
            self._learn_picture_formats(plain)

    def learn_font(self, name: bytes, reply: bytes) -> bool:
        """Keep QueryFont's reply for a font of this name; return whether there is room."""
        if len(reply) < 60 or (len(self.fonts) >= FONT_LIMIT and name not in self.fonts):
            return False
        self.fonts[name] = reply[:2] + b"\0\0" + reply[4:]
        return True

    def forget_fonts(self) -> None:
        """The font path changes."""
        self.fonts.clear()
        self._drop([key for key in self.replies if key[0] in FONT_OPCODES])

    def _drop(self, keys: List[bytes]) -> None:
        for key in keys:
            self._kept_bytes -= len(self.replies.pop(key)[1])

    def _learn_picture_formats(self, reply: bytes) -> None:
        count = self._structs["I"].unpack_from(reply, 8)[0]
        for position in range(32, min(len(reply) - 27, 32 + 28 * count), 28):
            identifier = self._structs["I"].unpack_from(reply, position)[0]
            self.picture_formats[identifier] = reply[position + 5]

    def add_atom(self, atom: int) -> None:
        """Keep in mind that an atom exists."""
        if len(self.atoms) < ATOM_LIMIT:
            self.atoms.add(atom)

    def is_atom(self, atom: int) -> bool:
        """Tell whether an atom surely exists; those up to 68 always do."""
        return 0 < atom <= LAST_PREDEFINED_ATOM or atom in self.atoms

    def forget(self, kind: FactClass) -> None:
        """Forget all facts of a class: they are stale."""
        self.generation += 1
        self.screens_changed = self.screens_changed or kind is FactClass.SCREENS
        self.input_known = self.input_known and kind is not FactClass.INPUT
        self._drop([key for key, (known, _) in self.replies.items() if known is kind])

    def disown_selection(self, atom: int) -> None:
        """A client here takes or gives up a selection: who owns it is not known any more."""
        if len(self._own_selections) < ATOM_LIMIT:
            self._own_selections.add(atom)
        self._drop(
            [
                key
                for key, (kind, _) in self.replies.items()
                if kind is FactClass.SELECTIONS and self._names_own_selection(key)
            ]
        )

    def _names_own_selection(self, key: bytes) -> bool:
        too_many = len(self._own_selections) >= ATOM_LIMIT
        return too_many or self._structs["I"].unpack_from(key, 4)[0] in self._own_selections

    def find_atom(self, key: bytes) -> Optional[Tuple[FactClass, bytes]]:
        """Return what is known of an InternAtom in canonical form.

        One that creates the atom ends what was known of its absence.
        """
        if key[1] > ONLY_IF_EXISTS:
            return None  # an error, the server's to make
        plain = key[:1] + b"\0" + key[2:]
        found = self.replies.get(plain)
        if found is not None:
            return found
        if key[1] == ONLY_IF_EXISTS:
            return self.replies.get(key)
        absent = bytes((key[0], ONLY_IF_EXISTS)) + key[2:]
        if absent in self.replies:
            self._drop([absent])
        return None

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
        return build_reply(
            self.order.value, 0, struct.pack(self.order.value + "HHHxxI12x", *shown, pixel)
        )

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
        every = visual.red_mask | visual.green_mask | visual.blue_mask
        for pixel in struct.unpack_from("{}{}I".format(self.order.value, count), request, 8):
            if pixel & ~every:  # an error, the server's to make
                return None
            shown = [(pixel & mask) // (mask & -mask) * 65535 // largest for mask in visual[3:]]
            colours.append(struct.pack(self.order.value + "HHHxx", *shown))
        head = struct.pack(self.order.value + "H22x", count)
        return build_reply(self.order.value, 0, head, b"".join(colours))

    def is_true_colour(self, colormap: int) -> bool:
        """Tell whether this is a screen's own colormap, and its colours are mere arithmetic."""
        return self._true_colour(colormap) is not None

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
