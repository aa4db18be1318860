"""What may be answered before the X server does, for one client.

For each request that the client sends, an *opinion*: how many replies it has, the reply if it is
known, and whether the request is safe (see ``follow``). Only what is immutable, followed from being
told of each change, or decided by this client's own requests is known.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. The predictor is told what
the server confirmed; it never sees a reply itself. Between GrabServer and UngrabServer nothing is
known that others may change.

Follows the X Window System Protocol, version 11, §9.
"""

import struct
from collections import deque
from typing import Callable, Deque, Dict, Tuple

from .conclusions import Conclusions
from .fact_answers import FactAnswers
from .facts import (
    PredictionClass,
    ServerFacts,
)
from .fallible import FallibleRequests
from .follow import GRAB_SERVER, UNGRAB_SERVER, Follower
from .follow_events import EventFollower
from .looks import FOCUS
from .opinions import (
    UNKNOWN,
    VOID_RISKY,
    VOID_SAFE,
    WAITS_RISKY,
    WAITS_SAFE,
    Certainty,
    Opinion,
)
from .own_windows import MAPPING, SEND_EVENT, OwnWindows
from .properties import OwnProperties
from .resources import PROPERTY_MASK, Resources
from .surroundings import CHANGES_TREE, KILL_CLIENT, OF_WINDOWS, Surroundings
from .window_answers import WindowAnswers
from .xmessages import KEYMAP_NOTIFY, LIST_EXTENSIONS, QUERY_EXTENSION, Request
from .xrequests import (
    CORE_FACTS,
    CORE_MAKES_STALE,
    EXTENSION_FACTS,
    FACT_LIMIT,
    FIRST_EXTENSION_OPCODE,
    MAKES_STALE,
    MOVES_INPUT,
    MOVES_INPUT_CORE,
    FactClass,
    Replies,
    core_replies,
    extension_replies,
)

CREATE_WINDOW = 1
GET_INPUT_FOCUS = 43
PUT_IMAGE = 72
FIRST_DRAWING = 61
"""From here on the effect of most requests is no matter for whether they may fail."""

REPARENT_WINDOW = 7
CONFIGURE_WINDOW = 12

BAD_WINDOW = 3
BAD_DRAWABLE = 9
DESTROY_NOTIFY = 17
REPARENT_NOTIFY = 21
CONFIGURE_NOTIFY = 22
PROPERTY_NOTIFY = 28

SET_INPUT_FOCUS = 42
MOVES_FOCUS = frozenset((4, 5, 7, 10, 11, SET_INPUT_FOCUS))
"""SetInputFocus, and what takes a window away that may have the focus."""

CAUSES_EVENTS = frozenset(((b"DAMAGE", 1), (b"Present", 3), (b"XFIXES", 3)))
"""Requests after which drawing, and changes of windows and cursors, may cause events."""


class Predictor:
    """The opinions about one client's requests. ``facts`` are shared with others."""

    def __init__(self, facts: ServerFacts, resource_base: int, resource_mask: int) -> None:
        self.facts = facts
        self.follower = Follower(facts, Resources(resource_base, resource_mask))
        self.resources = self.follower.resources
        self._order = facts.order.value
        self._int = struct.Struct(self._order + "I")
        self._fallible = FallibleRequests(facts, self.resources)
        self._events = EventFollower(facts, self.resources)
        self._sure = Certainty(facts)
        self._own = OwnWindows(facts, self.resources)
        self._moved_input = 0  # the last request under way that may have changed the input
        self.risky_sequence = 0
        """The last request that may fail, or cause an event."""
        self._fallible_sequence = 0
        self._conclusions = Conclusions(self._order, self.follower.windows, self.resources)
        self._surroundings = Surroundings(facts, self.resources)
        self._properties = OwnProperties(facts, self.resources, self._surroundings)
        self.resources.when_removed = self._properties.drop
        self._render = self.follower.render.handlers
        self._last = 0
        self.focus_sequence = 0
        """The last request of this client that may have moved the focus."""
        self._changes: Deque[Tuple[int, int, int]] = deque()
        self._answers = FactAnswers(facts, self.resources, self._events, self._sure)
        self._core_fact = self._answers.core_fact
        windows = WindowAnswers(
            facts,
            self.resources,
            self.follower.windows,
            self._own,
            self._surroundings,
            self._sure,
            self._core_fact,
        )
        self._follow = self.follower.core
        self._handlers = self._core_handlers(windows)

    def _core_handlers(self, windows: WindowAnswers) -> Dict[int, Callable[[Request], Opinion]]:
        """Return who judges a core request, by its opcode."""
        return {
            3: windows.get_window_attributes,
            14: windows.get_geometry,
            15: windows.query_tree,
            20: self._get_property,
            22: self._set_selection_owner,
            40: windows.translate_coordinates,
            47: self._answers.query_font,
            73: windows.get_image,
            84: self._answers.alloc_color,
            91: self._answers.query_colors,
            GET_INPUT_FOCUS: self._get_input_focus,
            QUERY_EXTENSION: self._answers.query_extension,
            LIST_EXTENSIONS: self._answers.list_extensions,
            18: self._change_property,
            19: self._delete_property,
            114: self._rotate_properties,
            51: self._set_font_path,
            81: self._install_colormap,
            82: self._install_colormap,
            KILL_CLIENT: self._kill_client,
            GRAB_SERVER: self._grab_server,
            UNGRAB_SERVER: self._grab_server,
            **dict.fromkeys(CORE_MAKES_STALE, self._change_keyboard),
        }

    @property
    def confirmed(self) -> int:
        """The last request that the server surely carried out, with all that came of it."""
        return self._sure.confirmed

    def confirm(self, sequence: int) -> None:
        """Take note that the server has carried out everything up to ``sequence``."""
        if sequence > self._sure.confirmed:
            self._sure.confirmed = sequence
            if self._moved_input and self._moved_input <= sequence:
                self._moved_input = 0
                self.facts.input_changing -= 1
            if self._surroundings.touched:
                self._surroundings.confirm(sequence)
            while self._changes and self._changes[0][0] <= sequence:
                _, root, atom = self._changes.popleft()
                self.facts.roots.end_change(root, atom)

    def fail(self, error: bytes) -> None:
        """Take note that the server refused a request: what relied on it may fail as well."""
        opcode, code = error[10], error[1]
        if core_replies(opcode) is Replies.ONE:
            return
        self.risky_sequence = self._fallible_sequence = self._last
        self._own.fail(opcode)
        foreign = not self.resources.is_own(self._int.unpack_from(error, 4)[0])
        followed = opcode in (CONFIGURE_WINDOW, REPARENT_WINDOW)  # own windows, named with others
        if followed or not (foreign and code in (BAD_WINDOW, BAD_DRAWABLE)):
            self.follower.distrust(opcode)

    def take_event(self, sequence: int, code: int, event: bytes) -> None:
        """Take note of what others did to windows of this client, and of what is over."""
        if self._surroundings.touched and code != KEYMAP_NOTIFY:
            # The server is busy with that request at most, and does nothing else meanwhile.
            self._surroundings.confirm(sequence)
        if code in OF_WINDOWS:
            self._surroundings.take_event(code, event)
        if code & 0x7F in (DESTROY_NOTIFY, REPARENT_NOTIFY):
            window, parent = struct.unpack_from(self._order + "II", event, 8)
            self.follower.windows.take_event(code & 0x7F, window, parent)
        elif code == PROPERTY_NOTIFY:
            window, atom = struct.unpack_from(self._order + "II", event, 4)
            if not self._properties.take_event(sequence, window, atom):
                self._own.forget(window, atom)
        elif code == CONFIGURE_NOTIFY:
            self.follower.windows.take_place(event)
        if self._conclusions.take_event(sequence, code, event):
            self.confirm(sequence)

    def close(self) -> None:
        """The client is gone, and what it selected on the root windows with it."""
        for root, mask in self.follower.windows.root_masks.items():
            self.facts.roots.select(root, mask, 0)
        self.confirm(self._last)
        self._surroundings.close()

    def pass_unseen(self, sequence: int) -> None:
        """Take note of NoOperations up to ``sequence``: nobody looks at them."""
        self._last = sequence

    def consider(self, request: Request) -> Opinion:
        """Return the opinion about a request; it takes its place among those before it."""
        self._last = request.sequence
        if request.opcode in MOVES_INPUT_CORE:
            self._move_input()
        if request.header_size != 4 and request.opcode != PUT_IMAGE:
            request = self._shorten(request)
        late = request.opcode >= FIRST_DRAWING
        may_fail = moves_focus = False
        if not late:
            may_fail = self._fallible.may_fail(request)
            moves_focus = request.opcode in MOVES_FOCUS and self._may_move_focus(request)
            if request.opcode in CHANGES_TREE:
                self._surroundings.follow(request)
        opinion = self._consider(request)
        if not opinion.safe:
            self.risky_sequence = request.sequence
            if moves_focus:
                self.focus_sequence = request.sequence
                self.facts.focus = None
                self._surroundings.touch(FOCUS, request.sequence)
            if opinion.replies is Replies.NONE:
                if may_fail or (late and self._fallible.may_fail(request)):
                    self._fallible_sequence = request.sequence
                else:
                    self._conclusions.expect(request)
        elif opinion.answer is not None and self._fallible_sequence > self._sure.confirmed:
            # An error may have to be told first.
            return opinion._replace(after=max(opinion.after, self._fallible_sequence))
        return opinion

    def _may_move_focus(self, request: Request) -> bool:
        """Tell whether the window that has the focus may be taken away; only what is shown has."""
        if request.opcode == SET_INPUT_FOCUS or len(request.data) < 8:
            return True
        window = self.resources.windows.get(self._int.unpack_from(request.data, 4)[0])
        return window is None or window.may_be_shown

    def _shorten(self, request: Request) -> Request:
        """Return a request that has a long length as if it had a short one."""
        size = request.size - 4
        units = struct.pack(self._order + "H", min(size // 4, 0xFFFF))
        data = b"".join((request.data[:2], units, request.data[8:]))
        return Request(request.opcode, request.sequence, size, 4, data)

    def _consider(self, request: Request) -> Opinion:
        opcode = request.opcode
        follow = self._follow.get(opcode)
        if follow is not None:
            if opcode in MAPPING:
                self._own.expose(request)
            elif opcode == CREATE_WINDOW:
                safe = follow(request)
                if len(request.data) == request.size >= 32:
                    self._own.create(self._int.unpack_from(request.data, 4)[0])
                return VOID_SAFE if safe and not self.resources.is_watched else VOID_RISKY
            return VOID_SAFE if follow(request) and not self.resources.is_watched else VOID_RISKY
        handler = self._handlers.get(opcode)
        if handler is not None:
            return handler(request)
        if opcode in CORE_FACTS:
            return self._core_fact(request)
        if opcode >= FIRST_EXTENSION_OPCODE:
            return self._extension(request)
        self.resources.epoch += 1
        if opcode in MAPPING:
            self._own.expose(request)
        elif opcode == SEND_EVENT:
            self._own.tell_others(request)
        return Opinion(core_replies(opcode), False)

    def _move_input(self) -> None:
        """Take note that the client may be changing where the pointer is, and over what."""
        if self.facts.input_known:
            self.facts.forget(FactClass.INPUT)
        if not self._moved_input:
            self.facts.input_changing += 1
        self._moved_input = self._last

    def _set_selection_owner(self, request: Request) -> Opinion:
        if len(request.data) >= 12:
            self.facts.disown_selection(self._int.unpack_from(request.data, 8)[0])
        return VOID_RISKY

    def _kill_client(self, request: Request) -> Opinion:
        self._surroundings.follow(request)
        self.resources.epoch += 1
        return VOID_RISKY

    def _grab_server(self, request: Request) -> Opinion:
        if request.size == 4:
            self._sure.grabbed = request.opcode == GRAB_SERVER
        return VOID_RISKY if request.size != 4 else VOID_SAFE

    def _change_keyboard(self, request: Request) -> Opinion:
        self.facts.forget(CORE_MAKES_STALE[request.opcode])
        return Opinion(core_replies(request.opcode), False)

    def _change_property(self, request: Request) -> Opinion:
        windows = self.follower.windows
        good = windows.is_good_change(request)
        self._properties.change(request, good)
        self._own.change(request)
        self._change_on_root(request, 4, 8)
        if not good or self._fallible.may_fail(request):
            return VOID_RISKY
        window = self._int.unpack_from(request.data, 4)[0]
        return VOID_RISKY if windows.selected(window) & PROPERTY_MASK else VOID_SAFE

    def _delete_property(self, request: Request) -> Opinion:
        if len(request.data) >= 12:
            window, atom = struct.unpack_from(self._order + "II", request.data, 4)
            self._properties.forget(request.sequence, window, atom)
        self._own.delete(request)
        self._change_on_root(request, 4, 8)
        return VOID_RISKY

    def _rotate_properties(self, request: Request) -> Opinion:
        if len(request.data) >= 8:
            window: int = self._int.unpack_from(request.data, 4)[0]
            self._properties.forget(request.sequence, window)
        self._own.rotate(request)
        for position in range(12, min(len(request.data), FACT_LIMIT) - 3, 4):
            self._change_on_root(request, 4, position)
        return VOID_RISKY

    def _change_on_root(self, request: Request, window_at: int, atom_at: int) -> None:
        """Take note that a property of a root window is changing."""
        if len(request.data) < atom_at + 4:
            return
        root = self._int.unpack_from(request.data, window_at)[0]
        if root in self.facts.screens:
            atom = self._int.unpack_from(request.data, atom_at)[0]
            if self.facts.roots.begin_change(root, atom):
                self._changes.append((request.sequence, root, atom))

    def _install_colormap(self, request: Request) -> Opinion:
        self.facts.installed.clear()
        return VOID_RISKY

    def _set_font_path(self, request: Request) -> Opinion:
        self.facts.forget_fonts()
        return VOID_RISKY

    def _extension(self, request: Request) -> Opinion:
        name, minor = self.facts.extensions.get(request.opcode), request.data[1]
        if name == b"RENDER":
            follow = self._render.get(minor)
            if follow is not None:
                safe = follow(request) and not self.resources.is_watched
                return VOID_SAFE if safe else VOID_RISKY
            self.follower.render.pass_unjudged(minor)
        self._surroundings.follow_extension(name, request)
        if name is None:
            self.resources.epoch += 1
            return UNKNOWN
        question = name, minor
        if question in MAKES_STALE:
            self.facts.forget(MAKES_STALE[question])
        if minor in MOVES_INPUT.get(name, ()):
            self._move_input()
        key = self._answers.find_extension_key(question, request)
        if key is not None:
            return self._answers.fact(key, EXTENSION_FACTS[question][0])
        judge = self._events.handlers.get(question)
        safe = judge is not None and judge(request)
        if question in CAUSES_EVENTS:
            self.resources.is_watched = True
        if name == b"XInputExtension":
            self.resources.sees_crossings = True
        if name not in (b"RENDER", b"XKEYBOARD", b"XInputExtension", b"RANDR"):
            self.resources.epoch += 1
        return VOID_SAFE if safe else Opinion(extension_replies(name, minor), False)

    def _get_property(self, request: Request) -> Opinion:
        answer = self.facts.roots.answer_property(request.data, self.facts.is_atom)
        if answer is None:
            own = self._properties.answer(request)
            if own is not None:
                return self._sure.answer(PredictionClass.PROPERTIES, own[0])._replace(excuse=own[1])
        if len(request.data) == 24 and request.data[1]:
            window, atom = struct.unpack_from(self._order + "II", request.data, 4)
            self._properties.forget(request.sequence, window, atom)
            self._change_on_root(request, 4, 8)
        if answer is None:
            answer = self._own.answer_property(request, self._sure.confirmed)
            return self._sure.answer(PredictionClass.WINDOWS, answer)
        return self._sure.answer(PredictionClass.PROPERTIES, answer)

    # -- XSync --

    def _get_input_focus(self, request: Request) -> Opinion:
        if request.size != 4:
            return WAITS_RISKY
        answer = self.facts.focus
        if answer is None or self._sure.grabbed or not self._sure.may(PredictionClass.SYNC):
            return WAITS_SAFE
        after = self.risky_sequence if self.risky_sequence > self._sure.confirmed else 0
        return Opinion(Replies.ONE, True, answer, PredictionClass.SYNC, after=after)
