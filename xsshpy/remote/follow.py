"""Follows one X client's requests that have no reply, and judges which of them are *safe*.

A safe request cannot fail, and cannot cause an event for this client: after it, an answer to XSync
tells nothing that isn't known here. The judgement is from what the client itself did; whatever is
not surely safe is risky, and a risky request's effect is only taken over where it can't mislead.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. Requests come whole, unless
they are longer than the reader gathers; those are risky.

Follows the X Window System Protocol, version 11, §9.
"""

from typing import Dict

from .facts import ServerFacts
from .follow_drawing import DrawingFollower
from .follow_render import RenderFollower
from .follow_windows import WindowFollower
from .judgement import Handler
from .resources import Resources
from .xrequests import FIRST_EXTENSION_OPCODE

GRAB_SERVER = 36
UNGRAB_SERVER = 37


class Follower:
    """Judges the void requests of one client, and keeps its ``resources``.

    ``core`` are its judgements by opcode, ``render`` has those of RENDER; what is in neither is
    nobody's to judge.
    """

    def __init__(self, facts: ServerFacts, resources: Resources) -> None:
        self.resources = resources
        self.windows = WindowFollower(facts, resources)
        drawing = DrawingFollower(facts, resources)
        self.core: Dict[int, Handler] = {
            **self.windows.handlers,
            **drawing.handlers,
        }
        self.render = RenderFollower(facts, resources)

    def distrust(self, opcode: int) -> None:
        """Forget what may be wrong, since a request with this opcode failed."""
        self.resources.epoch += 1
        if opcode in (1, 2, 4, 5, 7, 8, 9, 10, 11, 12):
            self.resources.forget_windows()
        elif opcode in (18, 19, 114):
            self.resources.forget_properties()
        elif opcode in (53, 54):
            self.resources.pixmaps.clear()
        elif opcode in (55, 56, 57, 59, 60):
            self.resources.contexts.clear()
        elif opcode in (78, 79, 80):
            self.resources.colormaps.clear()
        elif opcode in (45, 46):
            self.resources.fonts.clear()
        elif opcode >= FIRST_EXTENSION_OPCODE:
            self.resources.pictures.clear()
            self.resources.glyph_sets.clear()
