"""One X client's own windows, pixmaps, graphics contexts and fonts, followed by its requests.

What only this client decides is known before the server says it. What others may decide as well is
not: a window whose place in the tree, whose size or whose visibility a window manager may change is
*unsettled*, and nothing is said of it until it is gone.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. What a request that may fail
makes or changes is taken for unknown.

Follows the X Window System Protocol, version 11, §9 (CreateWindow to FreeGC), §10 (events' causes).
"""

from typing import Dict, List, NamedTuple, Optional

EXPOSURE_MASK = 1 << 15
VISIBILITY_MASK = 1 << 16
STRUCTURE_MASK = 1 << 17
RESIZE_REDIRECT_MASK = 1 << 18
SUBSTRUCTURE_MASK = 1 << 19
SUBSTRUCTURE_REDIRECT_MASK = 1 << 20
FOCUS_MASK = 1 << 21
PROPERTY_MASK = 1 << 22
CROSSING_MASKS = 1 << 4 | 1 << 5

INPUT_OUTPUT = 1
INPUT_ONLY = 2

RESOURCE_LIMIT = 65536
"""Most resources of a client that are followed; what comes after is unknown."""

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
    """Something to draw on: a window or a pixmap."""

    __slots__ = ("depth", "height", "identifier", "root", "width")

    def __init__(self, identifier: int, root: int, depth: int, width: int, height: int) -> None:
        self.identifier = identifier
        self.root = root
        self.depth = depth
        self.width = width
        self.height = height


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


class Window(Drawable):
    """A window of this client. ``parent`` is None for a child of the root window.

    ``settled``: its geometry is what the client said. ``mapped``: whether the client mapped it;
    None where somebody else may have had a hand in it.
    """

    __slots__ = (
        "attributes",
        "border",
        "children",
        "kind",
        "mapped",
        "parent",
        "settled",
        "visual",
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
        self.visual = visual
        self.kind = kind
        self.x = 0
        self.y = 0
        self.border = 0
        self.mapped: Optional[bool] = False
        self.settled = True
        self.children: List[Window] = []
        self.attributes: Dict[str, int] = {}

    def attribute(self, name: str, default: int = 0) -> int:
        """Return the value that the client gave to an attribute, or the protocol's default."""
        return self.attributes.get(name, default)

    @property
    def event_mask(self) -> int:
        """The events that the client selected here."""
        return self.attributes.get("event_mask", 0)

    @property
    def is_shown(self) -> Optional[bool]:
        """Whether the window and all above it are mapped; None: not known."""
        window: Optional[Window] = self
        shown: Optional[bool] = True
        while window is not None:
            if window.mapped is False:
                return False
            if window.mapped is None:
                shown = None
            window = window.parent
        return shown

    @property
    def may_be_shown(self) -> bool:
        """Whether something done to it could be seen, and so cause an event."""
        return self.is_shown is not False

    def descendants(self) -> "List[Window]":
        """Return the window and all below it."""
        found, waiting = [], [self]
        while waiting:
            window = waiting.pop()
            found.append(window)
            waiting.extend(window.children)
        return found


class GraphicsContext:
    """A graphics context; components that the client never set have the protocol's defaults."""

    __slots__ = ("clipped", "depth", "values")

    def __init__(self, depth: int) -> None:
        self.depth = depth
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


class Picture(NamedTuple):
    """A picture of RENDER; ``drawable`` is 0 for one that is only a source."""

    drawable: int
    depth: int


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
        self.pictures: Dict[int, Picture] = {}
        self.glyph_sets: Dict[int, int] = {}
        """By id, the depth of the glyphs."""
        self.epoch = 0
        """Counts what might have drawn on anything."""

    def drawable(self, identifier: int) -> Optional[Drawable]:
        """Return a window or pixmap of this client."""
        return self.pixmaps.get(identifier) or self.windows.get(identifier)

    def is_own(self, identifier: int) -> bool:
        """Tell whether an id is the client's to give."""
        return identifier & ~self._mask == self._base

    def is_free(self, identifier: int) -> bool:
        """Tell whether an id is the client's to give, and not given."""
        return (
            self.is_own(identifier)
            and identifier not in self.windows
            and identifier not in self.pixmaps
            and identifier not in self.contexts
            and identifier not in self.fonts
            and identifier not in self.cursors
            and identifier not in self.pictures
            and identifier not in self.glyph_sets
            and self._has_room()
        )

    def _has_room(self) -> bool:
        followed = len(self.windows) + len(self.pixmaps) + len(self.contexts) + len(self.fonts)
        others = len(self.cursors) + len(self.pictures) + len(self.glyph_sets)
        return followed + others < RESOURCE_LIMIT

    def add_window(self, window: Window) -> None:
        """Follow a new window."""
        self.windows[window.identifier] = window
        if window.parent is not None:
            window.parent.children.append(window)

    def remove_window(self, window: Window) -> None:
        """Forget a window and those below it."""
        self._detach(window)
        for each in window.descendants():
            self.windows.pop(each.identifier, None)

    def move_window(self, window: Window, parent: Optional[Window]) -> None:
        """Give a window another parent."""
        self._detach(window)
        window.parent = parent
        if parent is not None:
            parent.children.append(window)

    def _detach(self, window: Window) -> None:
        if window.parent is not None and window in window.parent.children:
            window.parent.children.remove(window)
