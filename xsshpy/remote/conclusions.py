"""Events that tell that a request is over: it causes this one, and nothing after it.

XSync is to wait until what a client's requests cause has arrived. Some requests cause one event and
no other; when it is here, there is nothing more to wait for. Anything else that carries the number
of such a request was caused by somebody else, and so after the server was done with it.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. What cannot surely be said is
not expected.

Follows the X Window System Protocol, version 11, §9 (MapWindow, ChangeProperty), §10.
"""

import struct
from collections import deque
from typing import Deque, NamedTuple, Optional

from .follow_windows import NOTICED, WindowFollower
from .resources import FAMILY_LIMIT, PROPERTY_MASK, STRUCTURE_MASK, SUBSTRUCTURE_MASK, Resources
from .xmessages import Request

MAP_WINDOW = 8
CHANGE_PROPERTY = 18
MAP_NOTIFY = 19
PROPERTY_NOTIFY = 28
MOST_EXPECTED = 64


class _Conclusion(NamedTuple):
    """The last event of a request: its code, and the eight bytes behind its head."""

    sequence: int
    code: int
    subject: bytes


class Conclusions:
    """The last events that one client's requests will cause."""

    def __init__(self, order: str, windows: WindowFollower, resources: Resources) -> None:
        self._windows = windows
        self._resources = resources
        self._ints = struct.Struct(order + "II")
        self._expected: Deque[_Conclusion] = deque(maxlen=MOST_EXPECTED)

    def expect(self, request: Request) -> None:
        """Take note of a request that cannot fail, and was followed."""
        subject: Optional[bytes] = None
        if request.opcode == CHANGE_PROPERTY:
            code, subject = PROPERTY_NOTIFY, self._property_event(request)
        elif request.opcode == MAP_WINDOW:
            code, subject = MAP_NOTIFY, self._map_event(request)
        if subject is not None:
            self._expected.append(_Conclusion(request.sequence, code, subject))

    def _property_event(self, request: Request) -> Optional[bytes]:
        window, _ = self._ints.unpack_from(request.data, 4)
        return request.data[4:12] if self._windows.selected(window) & PROPERTY_MASK else None

    def _map_event(self, request: Request) -> Optional[bytes]:
        """Return what tells of the mapping of a top-level; None where that may show others."""
        resources = self._resources
        window = resources.windows.get(self._ints.unpack_from(request.data + bytes(4), 4)[0])
        if window is None or window.parent is not None or not window.event_mask & STRUCTURE_MASK:
            return None
        if resources.is_watched or resources.sees_crossings:
            return None
        noticed = self._windows.selected(window.root) & (NOTICED | SUBSTRUCTURE_MASK)
        if noticed or len(resources.windows) > FAMILY_LIMIT:
            return None
        for each in resources.windows.values():
            if each.event_mask & NOTICED and each.may_be_shown:
                return None
        return request.data[4:8] * 2  # the window that hears of it, and the one that is mapped

    def take_event(self, sequence: int, code: int, event: bytes) -> bool:
        """Tell whether an event tells the end of request number ``sequence``."""
        expected = self._expected
        while expected and expected[0].sequence < sequence:
            expected.popleft()
        if not expected or expected[0].sequence != sequence:
            return False
        return code == expected[0].code and event[4:12] == expected[0].subject
