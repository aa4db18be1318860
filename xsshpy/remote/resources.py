"""One X client's own windows, pixmaps, graphics contexts and fonts, followed by its requests.

What only this client decides is known before the server says it. What others may decide as well is
not: a window whose place in the tree, whose size or whose visibility a window manager may change is
*unsettled*, and nothing is said of it until it is gone.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. What a request that may fail
makes or changes holds from the moment when the server is past that request (``since``): had it
failed, all of its kind would have been forgotten by then. A client can't make this grow without
end, nor let one request of its cost more than a short walk.

Follows the X Window System Protocol, version 11, §9 (CreateWindow to FreeGC), §10 (events' causes).
"""

from collections import deque
from typing import Callable, Deque, Dict, List, Mapping, Optional, Set, Tuple

from .roots import Property

EXPOSURE_MASK = 1 << 15
VISIBILITY_MASK = 1 << 16
STRUCTURE_MASK = 1 << 17
RESIZE_REDIRECT_MASK = 1 << 18
SUBSTRUCTURE_MASK = 1 << 19
SUBSTRUCTURE_REDIRECT_MASK = 1 << 20
PROPERTY_MASK = 1 << 22
CROSSING_MASKS = 1 << 4 | 1 << 5

INPUT_OUTPUT = 1
INPUT_ONLY = 2

BUTTON_MASK = 1 << 2
COLORMAP_MASK = 1 << 23

RESOURCE_LIMIT = 65536
"""Most resources of a client that are followed; what comes after is unknown."""

DEPTH_LIMIT = 64
"""How deep windows that are followed may lie in one another."""

FAMILY_LIMIT = 256
"""Most windows that are looked at to judge one request."""

WINDOW_VALUES = (
    "background_pixmap",
    "background_pixel",
    "border_pixmap",
    "border_pixel",
    "bit_gravity",
    "win_gravity",
    "backing_store",
    "backing_planes",
    "backing_pixel",
    "override_redirect",
    "save_under",
    "event_mask",
    "do_not_propagate",
    "colormap",
    "cursor",
)
"""Window attributes in the order of the bits of their value mask."""

SMALL_VALUES = ("bit_gravity", "win_gravity", "backing_store", "save_under", "override_redirect")
LARGER_VALUE = "do_not_propagate"

GC_VALUES = (
    "function",
    "plane_mask",
    "foreground",
    "background",
    "line_width",
    "line_style",
    "cap_style",
    "join_style",
    "fill_style",
    "fill_rule",
    "tile",
    "stipple",
    "tile_x",
    "tile_y",
    "font",
    "subwindow_mode",
    "graphics_exposures",
    "clip_x",
    "clip_y",
    "clip_mask",
    "dash_offset",
    "dashes",
    "arc_mode",
)
"""Components of a graphics context in the order of the bits of their value mask."""


class Drawable:
    """Something to draw on: a window or a pixmap.

    ``since`` is the number of a request; what is known holds once the server is past it.
    """

    __slots__ = ("depth", "height", "identifier", "root", "since", "width")

    def __init__(self, identifier: int, root: int, depth: int, width: int, height: int) -> None:
        self.identifier = identifier
        self.root = root
        self.depth = depth
        self.width = width
        self.height = height
        self.since = 0


class Pixmap(Drawable):
    """A pixmap. ``colour`` is the one pixel value that fills it as of drawing number ``epoch``."""

    __slots__ = ("colour", "epoch")

    def __init__(self, identifier: int, root: int, depth: int, width: int, height: int) -> None:
        super().__init__(identifier, root, depth, width, height)
        self.colour: Optional[int] = None
        self.epoch = 0


def touch(drawable: Drawable) -> None:
    """Take note that something is drawn on a drawable."""
    if isinstance(drawable, Pixmap):
        drawable.colour = None


class OwnProperty:
    """What the client wrote last. ``changes`` are its writes whose events have not come yet."""

    __slots__ = ("changes", "overwritten", "value")

    def __init__(self) -> None:
        self.value = Property(0, 0, b"")
        self.changes: Deque[int] = deque()
        self.overwritten = False


class Window(Drawable):
    """A window of this client. ``parent`` is None for a child of the root window.

    ``settled``: its geometry is what the client said; ``plain``: so are its attributes. ``mapped``:
    whether the client mapped it. All three are otherwise where somebody else may have had a hand
    in it, ``mapped`` is None then. ``adopts``: others' windows may be below it.
    """

    __slots__ = (
        "adopts",
        "attributes",
        "border",
        "children",
        "kind",
        "level",
        "mapped",
        "moved",
        "parent",
        "plain",
        "properties",
        "settled",
        "visual",
        "written",
        "x",
        "y",
    )

    def __init__(
        self,
        identifier: int,
        root: int,
        parent: "Optional[Window]",
        depth: int,
        visual: int,
        kind: int,
    ) -> None:
        super().__init__(identifier, root, depth, 0, 0)
        self.parent = parent
        self.level: int = 0 if parent is None else parent.level + 1
        self.visual = visual
        self.kind = kind
        self.x = 0
        self.y = 0
        self.border = 0
        self.mapped: Optional[bool] = False
        self.settled = True
        self.moved = False
        """Whether an event told that somebody else moved or resized it."""
        self.plain = True
        self.adopts = False
        self.children: Dict[int, Window] = {}
        self.attributes: Dict[str, int] = {}
        self.properties: "Dict[int, OwnProperty]" = {}
        self.written: "Optional[Dict[int, bool]]" = None
        """What properties it may have, and whether others wrote them; None: any may be there."""

    def attribute(self, name: str, default: int = 0) -> int:
        """Return the value that the client gave to an attribute, or the protocol's default."""
        return self.attributes.get(name, default)

    @property
    def event_mask(self) -> int:
        """The events that the client selected here."""
        return self.attributes.get("event_mask", 0)

    @property
    def has_small_attributes(self) -> bool:
        """Whether those that take few values have one that fits where it is told."""
        small = (self.attribute(name) for name in SMALL_VALUES)
        return all(value <= 0xFF for value in small) and self.attribute(LARGER_VALUE) <= 0xFFFF

    def unsettle(self) -> None:
        """Somebody else may do what he likes with this window from now on."""
        self.settled = self.plain = False
        self.mapped = None

    def is_shown(self, confirmed: Optional[int] = None) -> Optional[bool]:
        """Whether the window and all above it are mapped; None: not known.

        With ``confirmed``, what does not yet hold when that request was carried out is not known.
        """
        window: Optional[Window] = self
        shown: Optional[bool] = True
        while window is not None:
            doubtful = confirmed is not None and window.since > confirmed
            if window.mapped is False and not doubtful:
                return False
            if window.mapped is None or doubtful:
                shown = None
            window = window.parent
        return shown

    @property
    def may_be_shown(self) -> bool:
        """Whether something done to it could be seen, and so cause an event."""
        return self.is_shown() is not False

    def is_above(self, other: "Optional[Window]") -> bool:
        """Tell whether ``other`` is this window or lies in it."""
        while other is not None:
            if other is self:
                return True
            other = other.parent
        return False

    def sink(self, level: int) -> bool:
        """Lie at a level, with all that is inside; return False where that is too deep."""
        family = self.family(FAMILY_LIMIT)
        deeper = level - self.level
        if family is None or max(each.level for each in family) + deeper > DEPTH_LIMIT:
            return False
        for each in family:
            each.level += deeper
        return True

    def family(self, most: int) -> "Optional[List[Window]]":
        """Return the window and all that lie in it; None where they are more than ``most``."""
        found = [self]
        for window in found:
            if len(found) + len(window.children) > most:
                return None
            found.extend(window.children.values())
        return found


class GraphicsContext:
    """A graphics context; components that the client never set have the protocol's defaults."""

    __slots__ = ("clipped", "depth", "root", "since", "values")

    def __init__(self, root: int, depth: int) -> None:
        self.root = root
        self.depth = depth
        self.since = 0
        self.values: Dict[str, int] = {}
        self.clipped = False

    @property
    def exposes(self) -> bool:
        """Whether copies with it cause GraphicsExpose or NoExpose events."""
        return bool(self.values.get("graphics_exposures", 1))

    @property
    def paints_plain(self) -> bool:
        """Whether a filled rectangle gets the foreground everywhere."""
        values = self.values
        return (
            not self.clipped
            and values.get("function", 3) == 3
            and values.get("fill_style", 0) == 0
            and values.get("clip_mask", 0) == 0
            and values.get("plane_mask", 0xFFFFFFFF) & 0xFFFFFF == 0xFFFFFF
        )


class Picture:
    """A picture of RENDER; ``drawable`` is None for one that is only a source."""

    __slots__ = ("drawable",)

    def __init__(self, drawable: Optional[Drawable]) -> None:
        self.drawable = drawable


class Resources:
    """What one client made, by resource id; ids outside its own range are not followed."""

    def __init__(self, base: int, mask: int) -> None:
        self._base = base
        self._mask = mask
        self.windows: Dict[int, Window] = {}
        self.pixmaps: Dict[int, Pixmap] = {}
        self.contexts: Dict[int, GraphicsContext] = {}
        self.fonts: Dict[int, bytes] = {}
        self.cursors: Dict[int, bool] = {}
        self.colormaps: Dict[int, Tuple[int, int]] = {}
        """By id, root window and visual."""
        self.pictures: Dict[int, Picture] = {}
        self.glyph_sets: Dict[int, int] = {}
        """By id, the depth of the glyphs."""
        self.unfollowed: Dict[int, Mapping[int, object]] = {}
        """By id, the kind of what nobody follows: where those would be kept that somebody does."""
        self._given: Set[int] = set()
        self.when_removed: "Callable[[int], None]" = lambda identifier: None
        """Is told of each window that is no more."""
        self.epoch = 0
        """Counts what might have drawn on anything."""
        self.is_watched = False
        """Whether the client asked for events of extensions that drawing may cause."""
        self.annotated: Dict[int, Window] = {}
        """The windows whose properties are known, by id."""
        self._follows_windows = True
        self.sees_crossings = False
        """Whether it asked for the X Input extension's events."""

    def drawable(self, identifier: int) -> Optional[Drawable]:
        """Return a window or pixmap of this client."""
        return self.pixmaps.get(identifier) or self.windows.get(identifier)

    def find_picture(self, identifier: int) -> Optional[Picture]:
        """Return a picture of this client; it outlives its pixmap, but not its window."""
        picture = self.pictures.get(identifier)
        drawable = None if picture is None else picture.drawable
        if not isinstance(drawable, Window):
            return picture
        return picture if self.windows.get(drawable.identifier) is drawable else None

    def is_own(self, identifier: int) -> bool:
        """Tell whether an id lies in the client's range."""
        return identifier & ~self._mask == self._base

    def claim(self, identifier: int) -> bool:
        """Take note that the client gives an id; return whether it was surely free."""
        if not self.is_own(identifier) or identifier in self._given:
            return False
        if len(self._given) >= RESOURCE_LIMIT:
            return False
        self._given.add(identifier)
        return True

    def claim_unfollowed(self, identifier: int, kind: "Mapping[int, object]") -> None:
        """An id is given to something of a kind; those that are followed are kept in ``kind``."""
        if self.claim(identifier):
            self.unfollowed[identifier] = kind

    def release_unfollowed(self, identifier: int, kind: "Mapping[int, object]") -> None:
        """Something was freed as one of a kind: if it is one, its id is free, made or not."""
        if self.unfollowed.get(identifier) is kind:
            del self.unfollowed[identifier]
            self.release(identifier)

    def release(self, identifier: int) -> None:
        """An id is surely free again."""
        self._given.discard(identifier)

    def add_window(self, window: Window) -> None:
        """Follow a new window."""
        if not self._follows_windows:
            return
        self.windows[window.identifier] = window
        if window.parent is not None:
            window.parent.children[window.identifier] = window

    def give_up_windows(self) -> None:
        """Follow no windows any more: it costs too much."""
        self._follows_windows = False
        self.forget_windows()

    def forget_windows(self) -> None:
        """Nothing is known of any window."""
        self.windows.clear()
        self.annotated.clear()

    def forget_properties(self) -> None:
        """Nothing is known of any window's properties."""
        for window in self.annotated.values():
            window.properties.clear()
        self.annotated.clear()

    def remove_window(self, window: Window) -> None:
        """Forget a window and those below it."""
        self._detach(window)
        for each in window.family(RESOURCE_LIMIT) or ():
            if self.windows.pop(each.identifier, None) is not None:
                self.annotated.pop(each.identifier, None)
                self.release(each.identifier)
                self.when_removed(each.identifier)

    def move_window(self, window: Window, parent: Optional[Window]) -> None:
        """Give a window another parent."""
        self._detach(window)
        window.parent = parent
        if parent is not None:
            parent.children[window.identifier] = window

    def _detach(self, window: Window) -> None:
        if window.parent is not None:
            window.parent.children.pop(window.identifier, None)
