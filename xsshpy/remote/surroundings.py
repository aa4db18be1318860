"""What is around one client's windows: the root windows' children, and the frames that a window
manager puts its windows in.

Others decide that; it is known from ``looks``, made after everything that this client did or heard
of. A window's frame is the one that its last ReparentNotify named.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. Any request that may matter
spoils what was seen until the server is past it.

Follows the X Window System Protocol, version 11, §9 (CreateWindow to TranslateCoordinates), §10;
the Nonrectangular Window Shape Extension 1.1.
"""

import struct
from typing import Dict, Optional

from .facts import ServerFacts
from .looks import Frame, Looks, Subject, Thing, parse_frames
from .resources import Resources, Window
from .xmessages import Request

CREATE_WINDOW = 1
REPARENT_WINDOW = 7
CONFIGURE_WINDOW = 12
KILL_CLIENT = 113
CHANGES_TREE = frozenset((1, 4, 5, 7, 8, 9, 10, 11, 12, 13, KILL_CLIENT))
"""Requests that may matter for the tree of windows, their places and what is seen of them."""

GONE_OR_MOVED = frozenset((4, REPARENT_WINDOW))
STACKING = 0x60
"""ConfigureWindow's values that say what a window lies upon."""

HARMLESS = frozenset(
    (
        *(b"BIG-REQUESTS", b"DAMAGE", b"Generic Event Extension", b"GLX", b"Present", b"RANDR"),
        *(b"RENDER", b"SYNC", b"XC-MISC", b"XFIXES", b"XINERAMA", b"XInputExtension", b"XKEYBOARD"),
    )
)
"""Extensions that make no windows, nor move or shape any; but for RANDR's screens."""

XFIXES_SHAPES = 21

CREATE_NOTIFY, DESTROY_NOTIFY, UNMAP_NOTIFY, MAP_NOTIFY = 16, 17, 18, 19
REPARENT_NOTIFY, CONFIGURE_NOTIFY, GRAVITY_NOTIFY, CIRCULATE_NOTIFY = 21, 22, 24, 26
OF_WINDOWS = range(CREATE_NOTIFY, CIRCULATE_NOTIFY + 1)
CHANGES_CHILDREN = frozenset((CREATE_NOTIFY, DESTROY_NOTIFY, CONFIGURE_NOTIFY, CIRCULATE_NOTIFY))
CHANGES_FRAME = frozenset((UNMAP_NOTIFY, MAP_NOTIFY, CONFIGURE_NOTIFY, GRAVITY_NOTIFY))

MOST_FRAMES = 64
MOST_TOUCHED = 256


class Surroundings:
    """What is around the windows of one client, and what of it the client is changing."""

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self._facts = facts
        self._looks: Looks = facts.looks
        self._resources = resources
        self._int = struct.Struct(facts.order.value + "I")
        self._frames: Dict[int, int] = {}  # by the window that is framed, the frame right around
        self.touched: Dict[Thing, int] = {}
        """What the client is changing, and the number of its last request that does."""
        self._is_lost = False  # too much was changing at once

    # -- what the client does --

    def touch(self, thing: Thing, sequence: int) -> None:
        """Take note of a request that may change something."""
        if thing in self.touched:
            self._looks.spoil(thing)
        elif len(self.touched) >= MOST_TOUCHED:
            self._is_lost = True
            return
        else:
            self._looks.begin(thing)
        self.touched[thing] = sequence

    def confirm(self, sequence: int) -> None:
        """Take note that the server has carried out everything up to ``sequence``."""
        for thing in [each for each, last in self.touched.items() if last <= sequence]:
            del self.touched[thing]
            self._looks.end(thing)

    def follow(self, request: Request) -> None:
        """Follow a request of ``CHANGES_TREE``, before anybody else does."""
        opcode, data = request.opcode, request.data
        if len(data) < 8:
            return
        identifier = self._int.unpack_from(data, 4)[0]
        if opcode == CREATE_WINDOW:
            self._follow_new(request)
            return
        if identifier in self._facts.screens:
            self._touch_children(identifier, request.sequence)
            return
        window = self._resources.windows.get(identifier)
        if window is None or opcode == KILL_CLIENT:
            self.touch_all(request.sequence)
            return
        if identifier in self._frames:
            self.touch(Thing(Subject.FRAME, identifier), request.sequence)
        restacks = opcode == CONFIGURE_WINDOW and len(data) >= 12 and any(data[8:10])
        restacks = restacks and self._is_restacked(data)
        if window.parent is None and (opcode in GONE_OR_MOVED or restacks):
            self._touch_children(window.root, request.sequence)
        elif opcode == REPARENT_WINDOW and not self._is_own_parent(data):
            self.touch_all(request.sequence)

    def _is_own_parent(self, data: bytes) -> bool:
        return len(data) == 16 and self._int.unpack_from(data, 8)[0] in self._resources.windows

    def _is_restacked(self, data: bytes) -> bool:
        mask = struct.unpack_from(self._facts.order.value + "H", data, 8)[0]
        return bool(mask & STACKING)

    def _follow_new(self, request: Request) -> None:
        parent = self._int.unpack_from(request.data, 8)[0] if len(request.data) >= 12 else 0
        if parent in self._facts.screens:
            self._touch_children(parent, request.sequence)
        elif parent not in self._resources.windows:
            self.touch_all(request.sequence)

    def follow_extension(self, name: Optional[bytes], request: Request) -> None:
        """Follow a request of an extension."""
        harmless = name in HARMLESS
        if name == b"XFIXES":
            harmless = request.data[1] != XFIXES_SHAPES
        elif name == b"SHAPE":
            harmless = not 1 <= request.data[1] <= 4
        if not harmless:
            self.touch_all(request.sequence)

    def _touch_children(self, root: int, sequence: int) -> None:
        self.touch(Thing(Subject.CHILDREN, root), sequence)

    def touch_all(self, sequence: int) -> None:
        """Take note of a request that may change anything around."""
        for root in self._facts.screens:
            self._touch_children(root, sequence)
        for window in self._frames:
            self.touch(Thing(Subject.FRAME, window), sequence)

    # -- what the client hears --

    def take_event(self, code: int, event: bytes) -> None:
        """Take note of an event about a window (``OF_WINDOWS``), before anybody else does."""
        order = self._facts.order.value
        heard, identifier, parent = struct.unpack_from(order + "III", event, 4)
        window = self._resources.windows.get(identifier)
        if code == REPARENT_NOTIFY:
            self._take_reparented(identifier, parent, window)
        elif identifier in self._frames and code in CHANGES_FRAME:
            self._looks.renew(Thing(Subject.FRAME, identifier))
        elif code == DESTROY_NOTIFY:
            self._drop_frame(identifier)
        outermost = window is not None and window.parent is None
        if code in CHANGES_CHILDREN and (outermost or heard in self._facts.screens):
            self._renew_children()

    def _take_reparented(self, identifier: int, parent: int, window: Optional[Window]) -> None:
        self._drop_frame(identifier)
        foreign = parent not in self._resources.windows and parent not in self._facts.screens
        if window is not None and foreign and len(self._frames) < MOST_FRAMES:
            self._frames[identifier] = parent
            self._looks.renew(Thing(Subject.FRAME, identifier))
        self._renew_children()

    def _drop_frame(self, window: int) -> None:
        if self._frames.pop(window, None) is not None:
            self._looks.drop(Thing(Subject.FRAME, window))
            self.touched.pop(Thing(Subject.FRAME, window), None)

    def forget_property(self, window: int, atom: int) -> None:
        """A window is no more: the next one of its id has other properties."""
        thing = Thing(Subject.PROPERTY, window, atom)
        self._looks.drop(thing)
        self.touched.pop(thing, None)

    def _renew_children(self) -> None:
        for root in self._facts.screens:
            self._looks.renew(Thing(Subject.CHILDREN, root))

    def close(self) -> None:
        """The client is gone, and its windows with it: their ids are the next client's."""
        self._frames.clear()
        self._looks.drop_windows(self._resources.is_own)

    # -- answers --

    def answer_tree(self, request: Request) -> Optional[bytes]:
        """Return the reply to a QueryTree of a root window or a frame; None where not known."""
        identifier = self._int.unpack_from(request.data, 4)[0]
        if identifier in self._facts.screens and not self._is_lost:
            return self._looks.find(Thing(Subject.CHILDREN, identifier))
        frame = self._find_frame(identifier)
        return None if frame is None else frame.tree

    def answer_geometry(self, identifier: int) -> Optional[bytes]:
        """Return the reply to a GetGeometry of a frame; None where not known."""
        frame = self._find_frame(identifier)
        return None if frame is None else frame.geometry

    def answer_translation(self, request: Request) -> Optional[bytes]:
        """Return the reply to a TranslateCoordinates from a window's corner to a frame of it."""
        if not self._frames or request.size != 16 or any(request.data[12:16]):
            return None
        window, frame = struct.unpack_from(self._facts.order.value + "II", request.data, 4)
        found = self._find_frame(frame, window)
        return None if found is None else found.translation

    def _find_frame(self, identifier: int, framed: int = 0) -> Optional[Frame]:
        """Return a frame by its id, around any window or the one that is named."""
        for window, innermost in self._frames.items():
            if self._is_lost or framed not in (0, window):
                continue
            frames = parse_frames(self._looks.find(Thing(Subject.FRAME, window)) or b"")
            if frames and frames[0].identifier == innermost:
                for frame in frames:
                    if frame.identifier == identifier:
                        return frame
        return None
