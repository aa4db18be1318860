"""Answers about windows and pixmaps: what the client itself decided, and what is around it.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. What a request that may fail
made holds from when the server is past it.

Follows the X Window System Protocol, version 11, §9 (GetWindowAttributes, GetGeometry, QueryTree,
TranslateCoordinates, GetImage).
"""

import struct
from typing import Callable, Optional

from .facts import Z_PIXMAP, PredictionClass, ServerFacts
from .follow_windows import WindowFollower
from .opinions import WAITS_RISKY, WAITS_SAFE, Certainty, Opinion
from .own_windows import OwnWindows
from .resources import Resources, Window
from .surroundings import Surroundings
from .xmessages import Request

IMAGE_LIMIT = 1 << 20
"""Longest image that is made up here (bytes)."""


class WindowAnswers:
    """Opinions about one client's questions on windows; ``core_fact`` has them on all else."""

    def __init__(
        self,
        facts: ServerFacts,
        resources: Resources,
        windows: WindowFollower,
        own: OwnWindows,
        surroundings: Surroundings,
        sure: Certainty,
        core_fact: Callable[[Request], Opinion],
    ) -> None:
        self._facts = facts
        self._resources = resources
        self._windows = windows
        self._own = own
        self._surroundings = surroundings
        self._sure = sure
        self._core_fact = core_fact
        self._order = facts.order.value
        self._int = struct.Struct(self._order + "I")

    def _window(self, request: Request) -> Optional[Window]:
        if request.size != 8:
            return None
        self._windows.look_for_manager()
        return self._resources.windows.get(self._int.unpack_from(request.data, 4)[0])

    def get_window_attributes(self, request: Request) -> Opinion:
        """Return the opinion about a GetWindowAttributes."""
        window = self._window(request)
        if window is None:
            return self._get_root_attributes(request)
        shown = window.is_shown(self._sure.confirmed)
        colormap = window.attribute("colormap")
        installed = self._facts.installed.get(colormap)
        if not window.plain or window.since > self._sure.confirmed or installed is None:
            return WAITS_SAFE
        if window.mapped is None or (window.mapped and shown is None):
            return WAITS_SAFE
        if not window.has_small_attributes:
            return WAITS_RISKY  # the server will have refused them
        state = 0 if not window.mapped else 2 if shown else 1
        answer = struct.pack(
            self._order + "BBHIIHBBIIBBBBIIIHxx",
            *(1, window.attribute("backing_store"), 0, 3, window.visual, window.kind),
            *(window.attribute("bit_gravity"), window.attribute("win_gravity", 1)),
            *(window.attribute("backing_planes", 0xFFFFFFFF), window.attribute("backing_pixel")),
            *(window.attribute("save_under"), installed, state),
            *(window.attribute("override_redirect"), colormap),
            *(window.event_mask, window.event_mask, window.attribute("do_not_propagate")),
        )
        return self._sure.answer(PredictionClass.WINDOWS, answer)

    def _get_root_attributes(self, request: Request) -> Opinion:
        if request.size != 8:
            return WAITS_RISKY
        root = self._int.unpack_from(request.data, 4)[0]
        mask = self._windows.root_masks.get(root, 0)
        screen = self._facts.screens.get(root)
        installed = None if screen is None else self._facts.installed.get(screen.colormap)
        answer = None
        if installed is not None:
            answer = self._facts.roots.answer_attributes(root, mask, installed)
        return self._sure.answer(PredictionClass.ROOT, answer)

    def get_geometry(self, request: Request) -> Opinion:
        """Return the opinion about a GetGeometry."""
        window = self._window(request)
        if window is not None:
            if not window.settled or window.since > self._sure.confirmed:
                return WAITS_SAFE
            place = (window.x, window.y, window.width, window.height, window.border)
            opinion = self._geometry(PredictionClass.WINDOWS, window.depth, window.root, place)
            if window.parent is not None:
                return opinion
            outermost = window
            return opinion._replace(excuse=lambda: outermost.moved)
        if request.size == 8:
            identifier = self._int.unpack_from(request.data, 4)[0]
            pixmap = self._resources.pixmaps.get(identifier)
            if pixmap is not None:
                if pixmap.since > self._sure.confirmed:
                    return WAITS_SAFE
                place = (0, 0, pixmap.width, pixmap.height, 0)
                return self._geometry(PredictionClass.PIXMAPS, pixmap.depth, pixmap.root, place)
            answer = self._surroundings.answer_geometry(identifier)
            if answer is not None:
                return self._sure.answer(PredictionClass.SURROUNDINGS, answer)
        return self._core_fact(request)

    def _geometry(
        self, kind: PredictionClass, depth: int, root: int, place: "tuple[int, ...]"
    ) -> Opinion:
        answer = struct.pack(self._order + "BBHIIhhHHH10x", 1, depth, 0, 0, root, *place)
        return self._sure.answer(kind, answer)

    def get_image(self, request: Request) -> Opinion:
        """Return the opinion about a GetImage."""
        data = request.data
        if len(data) != 20:
            return WAITS_RISKY
        identifier, x, y, width, height, planes = struct.unpack_from(
            self._order + "IhhHHI", data, 4
        )
        pixmap = self._resources.pixmaps.get(identifier)
        if pixmap is None or pixmap.colour is None or pixmap.since > self._sure.confirmed:
            return WAITS_RISKY
        if pixmap.epoch != self._resources.epoch:
            return WAITS_RISKY
        layout = self._facts.formats.get(pixmap.depth)
        whole = planes & 0xFFFFFF == 0xFFFFFF and data[1] == Z_PIXMAP and pixmap.depth == 24
        inside = x >= 0 and y >= 0 and x + width <= pixmap.width and y + height <= pixmap.height
        if not (whole and inside and width and height):
            return WAITS_RISKY
        if layout is None or layout.bits_per_pixel != 32 or width * height * 4 > IMAGE_LIMIT:
            return WAITS_SAFE
        head = struct.pack(self._order + "BBHII20x", 1, pixmap.depth, 0, width * height, 0)
        pixel = struct.pack(self._order + "I", pixmap.colour & 0xFFFFFF)
        return self._sure.answer(PredictionClass.PIXMAPS, head + pixel * (width * height))

    def query_tree(self, request: Request) -> Opinion:
        """Return the opinion about a QueryTree."""
        self._windows.look_for_manager()
        answer = self._own.answer_tree(request, self._sure.confirmed)
        if answer is None and request.size == 8:
            answer = self._surroundings.answer_tree(request)
            return self._sure.answer(PredictionClass.SURROUNDINGS, answer)
        return self._sure.answer(PredictionClass.WINDOWS, answer)

    def translate_coordinates(self, request: Request) -> Opinion:
        """Return the opinion about a TranslateCoordinates."""
        answer = self._own.answer_translation(request, self._sure.confirmed)
        if answer is None:
            answer = self._surroundings.answer_translation(request)
            return self._sure.answer(PredictionClass.SURROUNDINGS, answer)
        return self._sure.answer(PredictionClass.WINDOWS, answer)
