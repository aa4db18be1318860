"""The addresses of a network interface (BindInterface), by getifaddrs(3)."""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
import sys


class _InterfaceAddress(ctypes.Structure):
    """struct ifaddrs, up to the address (getifaddrs(3)); the rest is not looked at."""


_InterfaceAddress._fields_ = [
    ("next", ctypes.POINTER(_InterfaceAddress)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]
_UP = 1
_LINK_LOCAL = b"\xfe\x80"


def interface_addresses(name: str, family: int) -> list[str]:
    """Return the addresses of a network interface that is up, those of wider reach first.

    ``family`` is AF_INET or AF_INET6. Raises OSError.
    """
    library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    first = ctypes.POINTER(_InterfaceAddress)()
    if library.getifaddrs(ctypes.byref(first)) != 0:
        raise OSError(ctypes.get_errno(), "getifaddrs")
    found: list[tuple[bool, str]] = []
    try:
        entry = first
        while entry:
            this = entry.contents
            if this.name == name.encode() and this.flags & _UP and this.address:
                address = _read_address(this.address, family)
                if address is not None:
                    found.append(address)
            entry = this.next
    finally:
        library.freeifaddrs(first)
    return [text for _, text in sorted(found, key=lambda pair: pair[0])]


def _read_address(pointer: int, family: int) -> tuple[bool, str] | None:
    """Return (whether it is of local reach only, the address) of a struct sockaddr."""
    head = ctypes.string_at(pointer, 2)
    kind = head[1] if sys.platform == "darwin" else int.from_bytes(head, sys.byteorder)
    if kind != family:
        return None
    if family == socket.AF_INET:
        raw = ctypes.string_at(pointer + 4, 4)
        return raw == b"\x7f\0\0\1", socket.inet_ntop(family, raw)
    raw = ctypes.string_at(pointer + 8, 16)
    scope = int.from_bytes(ctypes.string_at(pointer + 24, 4), sys.byteorder)
    local = raw == bytes(15) + b"\1" or raw[:1] + bytes([raw[1] & 0xC0]) == _LINK_LOCAL
    text = socket.inet_ntop(family, raw)
    return local, f"{text}%{scope}" if scope else text
