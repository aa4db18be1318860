"""The server's side of SOCKS 4, 4a and 5: bytes in, a target and bytes out. Sans-IO.

CONNECT alone, and no authentication, as ssh's own proxy. A reply that grants the request is to be
sent only once the target is connected; what cannot be granted ends the connection without one.
Whatever the client sends, no more than :data:`LIMIT` bytes are kept.

Follows RFC 1928 and the SOCKS 4 and 4A memos.
"""

from __future__ import annotations

import ipaddress

from xsshpy.values import dataclass

LIMIT = 1024
"""Most bytes that a request may take."""

_VERSION_4, _VERSION_5 = 4, 5
_CONNECT = 1
_NO_AUTHENTICATION = 0
_IPV4, _DOMAIN, _IPV6 = 1, 3, 4
_GRANTED_4 = bytes((0, 90, 0, 0, 0, 0, 0, 0))
_GRANTED_5 = bytes((_VERSION_5, 0, 0, _IPV4, 0, 0, 0, 0, 0, 0))


class SocksError(Exception):
    """The client said something that is not served."""


@dataclass(frozen=True)
class SocksRequest:
    """Where the client wants to go, and the reply that tells it that it is there."""

    host: str
    port: int
    granted: bytes


class SocksReader:
    """Reads one client's request. :meth:`receive_data` until it returns a request."""

    def __init__(self) -> None:
        self._buffer = b""
        self._method_chosen = False
        self._replies = b""

    def receive_data(self, data: bytes) -> SocksRequest | None:
        """Take bytes from the client; None where more are needed. Raises SocksError.

        Send :meth:`take_replies` afterwards in any case.
        """
        self._buffer += data
        if not self._buffer:
            return None
        if self._buffer[0] == _VERSION_4:
            request = self._read_version_4()
        elif self._buffer[0] == _VERSION_5:
            request = self._read_version_5()
        else:
            raise SocksError(f"unknown SOCKS version {self._buffer[0]}")
        if request is None and len(self._buffer) > LIMIT:
            raise SocksError("request too long")
        return request

    def take_replies(self) -> bytes:
        """Return what the client has to be sent before it goes on."""
        replies, self._replies = self._replies, b""
        return replies

    def take_rest(self) -> bytes:
        """Return what the client sent after its request: the first data for the target."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _read_version_4(self) -> SocksRequest | None:
        head, body = self._buffer[:8], self._buffer[8:]
        if len(head) >= 2 and head[1] != _CONNECT:
            raise SocksError(f"cannot handle SOCKS 4 command {head[1]}")
        if len(head) < 8:
            return None
        named = head[4:7] == b"\0\0\0" and head[7] != 0
        pieces = body.split(b"\0", 2 if named else 1)
        if len(pieces) <= (2 if named else 1):
            return None
        self._buffer = pieces[-1]
        if len(body) - len(self._buffer) > LIMIT:
            raise SocksError("request too long")
        host = _text(pieces[1]) if named else str(ipaddress.IPv4Address(head[4:8]))
        return SocksRequest(host, int.from_bytes(head[2:4], "big"), _GRANTED_4)

    def _read_version_5(self) -> SocksRequest | None:
        if not self._method_chosen:
            if len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
                return None
            end = 2 + self._buffer[1]
            if _NO_AUTHENTICATION not in self._buffer[2:end]:
                raise SocksError("the client wants to authenticate")
            self._buffer = self._buffer[end:]
            self._method_chosen = True
            self._replies = bytes((_VERSION_5, _NO_AUTHENTICATION))
        return self._read_request_5()

    def _read_request_5(self) -> SocksRequest | None:
        head = self._buffer[:5]
        expected = bytes((_VERSION_5, _CONNECT, 0))
        if head[:3] != expected[: len(head)]:
            raise SocksError("only SOCKS 5 CONNECT is served")
        if len(head) < 5:
            return None
        kind = head[3]
        if kind not in (_IPV4, _DOMAIN, _IPV6):
            raise SocksError(f"unknown SOCKS 5 address type {kind}")
        start = 5 if kind == _DOMAIN else 4
        end = start + {_IPV4: 4, _IPV6: 16, _DOMAIN: head[4]}[kind]
        if len(self._buffer) < end + 2:
            return None
        name = self._buffer[start:end]
        port = int.from_bytes(self._buffer[end : end + 2], "big")
        self._buffer = self._buffer[end + 2 :]
        host = _text(name) if kind == _DOMAIN else str(ipaddress.ip_address(name))
        return SocksRequest(host, port, _GRANTED_5)


def _text(name: bytes) -> str:
    """Return a host name. One that no server could look up is refused at once."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        raise SocksError("the host name is not text") from None
    if any(character < " " or character == "\x7f" for character in text):
        raise SocksError("the host name has control characters")
    return text
