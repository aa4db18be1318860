"""What all judgements of requests share: the two verdicts, value lists, what is taken away.

Rules kept here: sans-IO; Python 3.6 and later, standard library only.

Follows the X Window System Protocol, version 11, §9.
"""

import struct
from typing import Callable, Dict, Optional, Tuple, TypeVar

from .resources import Resources
from .xmessages import Request

SAFE = True
RISKY = False

Handler = Callable[[Request], bool]
T = TypeVar("T")


def read_values(
    order: str, data: bytes, start: int, mask: int, names: Tuple[str, ...]
) -> Optional[Dict[str, int]]:
    """Return a value list by name; None where the request is not as long as its mask says."""
    if mask >> len(names):
        return None
    chosen = [name for bit, name in enumerate(names) if mask >> bit & 1]
    if len(data) != start + 4 * len(chosen):
        return None
    return dict(zip(chosen, struct.unpack_from("{}{}I".format(order, len(chosen)), data, start)))


def take_away(resources: Resources, kept: Dict[int, T], order: str, request: Request) -> bool:
    """Take a resource away, as the request says; safe where it was one of ``kept``."""
    if request.size != 8:
        return RISKY
    identifier = struct.unpack_from(order + "I", request.data, 4)[0]
    if kept.pop(identifier, None) is None:
        resources.release_unfollowed(identifier, kept)
        return RISKY
    resources.release(identifier)
    return SAFE
