"""What is set on the connection's socket: its priority (IPQoS).

ssh_config(5): IPQoS has one value for sessions with a terminal or X11, and for the login, and one
for all others. Parsing is pure.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from xsshpy.console import Console
from xsshpy.values import dataclass

_CLASSES: Mapping[str, int] = {
    # RFC 2474 (cs), RFC 2597 (af), RFC 3246 (ef), RFC 8622 (le), RFC 1349 (the last three)
    **{f"cs{n}": n << 5 for n in range(8)},
    **{f"af{c}{d}": (c << 5) | (d << 3) for c in range(1, 5) for d in range(1, 4)},
    "ef": 0xB8,
    "le": 0x04,
    "lowdelay": 0x10,
    "throughput": 0x08,
    "reliability": 0x04,
}
_IPV6_TCLASS = getattr(socket, "IPV6_TCLASS", 67)


@dataclass(frozen=True)
class Priorities:
    """The IPv4 TOS byte (IPv6: traffic class) for each kind of session; None: the system's own."""

    interactive: int | None = None
    bulk: int | None = None


def parse_priorities(text: str) -> Priorities:
    """Read IPQoS as ``ssh -G`` prints it: two names or numbers; nothing leaves it to the system."""
    words = text.lower().split()
    values = [_parse_class(word) for word in words[:2]]
    if not values:
        return Priorities()
    return Priorities(values[0], values[-1])


def _parse_class(word: str) -> int | None:
    if word in _CLASSES:
        return _CLASSES[word]
    try:
        value = int(word, 0)
    except ValueError:
        return None
    return value if 0 <= value <= 0xFF else None


def set_priority(connection: socket.socket, value: int | None, console: Console) -> None:
    """Set the priority of what is sent; a system that does not let us is told about and borne."""
    if value is None:
        return
    if connection.family == socket.AF_INET:
        level, option, name = socket.IPPROTO_IP, socket.IP_TOS, "IP_TOS"
    elif connection.family == socket.AF_INET6:
        level, option, name = socket.IPPROTO_IPV6, _IPV6_TCLASS, "IPV6_TCLASS"
    else:
        return
    number = connection.fileno()
    console.debug(3, f"set_sock_tos: set socket {number} {name} {value:#04x}")
    try:
        connection.setsockopt(level, option, value)
    except OSError as error:
        console.error(f"setsockopt socket {number} {name} {value}: {error.strerror}")
