"""DISPLAY → where the local X server listens, and a connection to it.

Rules kept here:

- ``parse_display`` is pure: the same text gives the same value on every run. Whatever depends on
  the machine (does that socket exist?) becomes a further endpoint to try.
- The forms are those of X(7) "DISPLAY NAMES", plus what libxcb adds: a name that begins with ``/``
  is the path of a socket, whole, or less a ``.screen`` at its end; so is ``unix:/path``.
- Nothing here waits without a limit: connecting and name resolution end by ``timeout``.

libxcb tries the abstract socket before the file. Here the file comes first: anybody on the machine
may take an abstract name, while the file lies in a sticky directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import re
import socket
import stat
import sys
from collections.abc import Sequence

from xsshpy.errors import DisplayError
from xsshpy.resolver import Address, resolve
from xsshpy.values import dataclass

MAX_NAME = 1024
"""Longest DISPLAY taken, in characters."""
MAX_NUMBER = 65535
"""Highest display number an X server takes."""
TCP_BASE = 6000
"""Display N listens on TCP port 6000 + N."""
SOCKET_FOLDER = "/tmp/.X11-unix"  # noqa: S108 - X's own fixed place, not a temporary file of ours

_NUMBER = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,10}))?")
_TCP_PROTOCOLS = {
    "": socket.AF_UNSPEC,
    "tcp": socket.AF_UNSPEC,
    "inet": socket.AF_INET,
    "inet6": socket.AF_INET6,
}
_LAUNCHD = "/com.apple.launchd."
_MAX_HOST = 255
_MAX_ADDRESSES = 8
_BACKLOG_PAUSE = 0.02
"""Seconds between two attempts at a server that has a queue."""
_FORMS = "set DISPLAY to the form :0, host:0 or the path of a socket"


@dataclass(frozen=True)
class UnixEndpoint:
    """A local socket: a file, or (Linux) a name in the abstract space, without its NUL."""

    path: str
    abstract: bool = False

    def __str__(self) -> str:
        return f"@{self.path}" if self.abstract else self.path


@dataclass(frozen=True)
class TcpEndpoint:
    """A TCP port of a named host; ``family`` is a ``socket.AF_*`` value, AF_UNSPEC for any."""

    host: str
    port: int
    family: int = int(socket.AF_UNSPEC)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Endpoint = UnixEndpoint | TcpEndpoint


@dataclass(frozen=True)
class Display:
    """A DISPLAY understood; ``endpoints`` are to be tried in this order.

    ``host`` is empty for a server reached through a local socket; ``number`` is what Xauthority
    entries are matched with.
    """

    name: str
    host: str
    number: int
    screen: int
    endpoints: tuple[Endpoint, ...]

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine: a local socket, or the loopback interface."""
        return not self.host or is_loopback(self.host)

    @property
    def is_launchd(self) -> bool:
        """Whether this is a socket on which macOS starts XQuartz at the first connection."""
        return self.name.removeprefix("unix:").startswith("/") and _LAUNCHD in self.name


@dataclass(frozen=True)
class ConnectFailure:
    """Why one endpoint gave no connection; ``code`` is an errno, 0 when there is none."""

    endpoint: str
    code: int
    reason: str


def is_loopback(host: str) -> bool:
    """Return whether ``host`` (a name or an address as text) is this machine's loopback."""
    if host.lower().rstrip(".") in ("localhost", "ip6-localhost", "ip6-loopback"):
        return True
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return address.ipv4_mapped.is_loopback
        return address.is_loopback
    return False


def parse_display(name: str, *, platform: str = sys.platform) -> Display:
    """Understand a DISPLAY.

    Raises DisplayError when ``name`` is empty, too long, or has none of the forms X knows.
    """
    if not name:
        raise DisplayError("xssh: X11: DISPLAY is not set", remedy=_unset_remedy(platform))
    if len(name) > MAX_NAME:
        raise _malformed(name, f"it is {len(name)} characters long, more than {MAX_NAME}")
    if not name.isprintable():
        raise _malformed(name, "it holds control characters")
    if name.startswith("/"):
        return _parse_path(name, name)
    if name.startswith("unix:/"):
        return _parse_path(name, name.removeprefix("unix:"))
    return _parse_host(name, platform)


def _malformed(name: str, why: str) -> DisplayError:
    shown = name if len(name) <= 80 else name[:77] + "..."
    return DisplayError(f"xssh: X11: DISPLAY {shown!a} makes no sense: {why}", remedy=_FORMS)


def _unset_remedy(platform: str) -> str:
    if platform == "darwin":
        return "install XQuartz, then log out and in again"
    return "run xssh from a terminal inside a graphical session, or set DISPLAY"


def _parse_path(name: str, path: str) -> Display:
    """Read ``path`` or ``path.screen``; which of the two it is shows when connecting."""
    endpoints = [UnixEndpoint(path)]
    screen = 0
    stem, dot, tail = path.rpartition(".")
    if dot and re.fullmatch(r"[0-9]{1,5}", tail) and stem and not stem.endswith("/"):
        endpoints.append(UnixEndpoint(stem))
        screen = int(tail)
    last = path.rpartition("/")[2]
    match = re.search(r"(?::|^X)([0-9]{1,5})(?:\.[0-9]{1,5})?$", last)
    number = int(match[1]) if match else 0
    return Display(name, "", number, screen, tuple(endpoints))


def _parse_host(name: str, platform: str) -> Display:
    # As libxcb reads it: the protocol ends at the last slash, the host at the last colon.
    protocol, _, rest = name.rpartition("/")
    host, colon, digits = rest.rpartition(":")
    if not colon:
        raise _malformed(name, "there is no colon before a display number")
    match = _NUMBER.fullmatch(digits)
    if not match:
        raise _malformed(name, "what follows the last colon is not a display number")
    number, screen = int(match[1]), int(match[2] or 0)
    if number > MAX_NUMBER or screen > MAX_NUMBER:
        raise _malformed(name, f"a display or screen number is above {MAX_NUMBER}")
    if protocol == "unix" or host == "unix" or (not host and not protocol):
        fallback = not protocol and not host
        return Display(name, "", number, screen, _local_endpoints(number, platform, fallback))
    family = _TCP_PROTOCOLS.get(protocol)
    if family is None:
        raise _malformed(name, f"protocol {protocol!a} is not supported")
    host = _plain_host(name, host) or "localhost"
    endpoint = TcpEndpoint(host, _port(name, number), int(family))
    return Display(name, host, number, screen, (endpoint,))


def _plain_host(name: str, host: str) -> str:
    if host.startswith("[") or host.endswith("]"):
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else "[" + host
    if ":" in host or "[" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            why = "DECnet is not supported" if host.count(":") == 1 else "no IPv6 address"
            raise _malformed(name, why) from None
    if len(host) > _MAX_HOST:
        raise _malformed(name, f"the host name is longer than {_MAX_HOST} characters")
    if any(character.isspace() for character in host):
        raise _malformed(name, "the host name holds white space")
    return host


def _port(name: str, number: int) -> int:
    if TCP_BASE + number > 65535:
        raise _malformed(name, f"display {number} has no TCP port (6000 + {number} > 65535)")
    return TCP_BASE + number


def _local_endpoints(number: int, platform: str, fallback: bool) -> tuple[Endpoint, ...]:
    path = f"{SOCKET_FOLDER}/X{number}"
    endpoints: list[Endpoint] = [UnixEndpoint(path)]
    if platform.startswith("linux"):
        endpoints.append(UnixEndpoint(path, abstract=True))
    if fallback and TCP_BASE + number <= 65535:
        # Only for a bare `:N`, as libxcb does: X servers of other systems (VcXsrv seen from
        # WSL 1) listen on TCP alone.
        endpoints.append(TcpEndpoint("localhost", TCP_BASE + number))
    return tuple(endpoints)


def unix_address(endpoint: UnixEndpoint) -> bytes:
    """Return the address to give to ``socket.connect`` for ``endpoint``."""
    return (b"\0" if endpoint.abstract else b"") + os.fsencode(endpoint.path)


async def open_display(display: Display, *, timeout: float) -> socket.socket:
    """Connect to the X server of ``display`` within ``timeout`` seconds, endpoint by endpoint.

    Returns a non-blocking connected socket, which the caller closes. Raises DisplayError that
    names the cause for the endpoint that tells most.
    """
    failures: list[ConnectFailure] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    for endpoint in display.endpoints:
        try:
            return await asyncio.wait_for(_connect(endpoint), max(0.0, end - loop.time()))
        except (TimeoutError, asyncio.TimeoutError):
            reason = f"no answer within {timeout:g} seconds"
            failures.append(ConnectFailure(str(endpoint), errno.ETIMEDOUT, reason))
        except OSError as error:
            failures.append(describe_failure(endpoint, error))
    raise connect_error(display, failures)


async def _connect(endpoint: Endpoint) -> socket.socket:
    if isinstance(endpoint, UnixEndpoint):
        return await _connect_unix(unix_address(endpoint))
    last: OSError | None = None
    for address in (await _resolve(endpoint))[:_MAX_ADDRESSES]:
        try:
            return await _connect_tcp(address)
        except OSError as error:
            last = last or error
    raise last or OSError(errno.EADDRNOTAVAIL, "the name has no address")


async def _connect_unix(address: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(address)
                return sock
            except BlockingIOError:
                # The server's backlog is full. Linux doesn't queue the attempt, and a loop that
                # waits for "writable" would take the socket for connected at once.
                await asyncio.sleep(_BACKLOG_PAUSE)
    except BaseException:
        sock.close()
        raise


async def _connect_tcp(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address.address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


async def _resolve(endpoint: TcpEndpoint) -> list[Address]:
    return await resolve(endpoint.host, endpoint.port, endpoint.family)


async def resolve_addresses(display: Display, *, timeout: float) -> tuple[str, ...]:
    """Return the addresses, as text, of a display reached over TCP, for matching its cookie.

    Empty for a local socket, and when the name does not resolve within ``timeout`` seconds.
    """
    if not display.host:
        return ()
    addresses: dict[str, None] = {}
    for endpoint in display.endpoints:
        if isinstance(endpoint, TcpEndpoint):
            with contextlib.suppress(OSError, TimeoutError, asyncio.TimeoutError):
                for address in await asyncio.wait_for(_resolve(endpoint), timeout):
                    addresses[address.numeric] = None
    return tuple(addresses)[:_MAX_ADDRESSES]


def describe_failure(endpoint: Endpoint, error: OSError) -> ConnectFailure:
    """Put an operating system error that ``endpoint`` gave into words."""
    if isinstance(error, socket.gaierror):
        return ConnectFailure(str(endpoint), 0, f"{endpoint}: {error.strerror}")
    if error.errno is None:  # Python's own check: the address does not fit sockaddr_un
        return ConnectFailure(str(endpoint), errno.ENAMETOOLONG, "the socket's path is too long")
    code = error.errno
    return ConnectFailure(str(endpoint), code, os.strerror(code))


_LEAST_TELLING = (errno.ENOENT, errno.ECONNREFUSED)


def connect_error(display: Display, failures: Sequence[ConnectFailure]) -> DisplayError:
    """Build the error for a display none of whose endpoints answered.

    ``failures`` holds one item for each endpoint, in order.
    """
    # An abstract name or a TCP port that nobody serves says nothing when the socket file itself
    # is there and refused.
    telling = [item for item in failures if item.code not in _LEAST_TELLING]
    refused = [item for item in failures[:1] if item.code == errno.ECONNREFUSED]
    chosen = (telling or refused or list(failures))[0]
    evidence = tuple(f"  {item.endpoint}: {item.reason}" for item in failures)
    return DisplayError(
        f"xssh: X11: cannot open display {display.name}: {_cause(display, chosen)}",
        evidence=evidence if len(evidence) > 1 else (),
        remedy=start_remedy(display, code=chosen.code),
    )


def _cause(display: Display, failure: ConnectFailure) -> str:
    if failure.code == errno.ENOENT:
        return f"no X server: {failure.endpoint} does not exist"
    if failure.code == errno.ECONNREFUSED:
        return f"no X server is listening on {failure.endpoint}"
    if failure.code == errno.ETIMEDOUT and display.is_launchd:
        return f"XQuartz did not answer on {failure.endpoint}"
    if failure.code == 0:
        return failure.reason
    return f"{failure.endpoint}: {failure.reason}"


def start_remedy(display: Display, *, code: int = 0, platform: str = sys.platform) -> str:
    """Return the one thing to do about a display where no X server answers."""
    if display.is_launchd or (platform == "darwin" and display.is_local):
        if code == errno.ETIMEDOUT and display.is_launchd:
            return "DISPLAY=:0 xssh ..., with XQuartz open"
        if code == errno.ENOENT:
            return "log out and in again, so that XQuartz sets DISPLAY anew"
        return "open XQuartz yourself (open -a XQuartz), then run xssh again"
    if code == errno.EACCES:
        return "run xssh as the user who owns the graphical session"
    if not display.is_local:
        return f"check that the X server on {display.host} accepts TCP connections"
    if platform.startswith("linux") and _is_wslg() and not _wslg_linked():
        return f"link {SOCKET_FOLDER} to /mnt/wslg/.X11-unix"
    return "set DISPLAY to a running X server: echo $DISPLAY in a terminal on your desktop"


def _is_wslg() -> bool:
    return os.path.isdir("/mnt/wslg/.X11-unix")


def _wslg_linked() -> bool:
    try:
        here, there = os.stat(SOCKET_FOLDER), os.stat("/mnt/wslg/.X11-unix")
    except OSError:
        return False
    return stat.S_ISDIR(here.st_mode) and os.path.samestat(here, there)
