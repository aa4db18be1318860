"""Xauthority: which cookie opens which X server.

The file is a row of entries, each a 16-bit family and four counted strings (address, display
number, protocol name, data), all lengths 16 bits, big-endian (Xauth(3), "FILE FORMAT").

Rules kept here:

- Parsing is sans-IO and bounded. Entries up to a cut are used and the cut one is left out, as
  libXau does; a file that holds bytes and not one whole entry is an error, since X clients would
  then be refused without a word.
- Matching follows libXau's XauGetBestAuthByAddr and libxcb: of the entries that match, the first
  in the file wins, so that what opens for xterm opens here. Looser matches (a host name that
  changed) come only after that.
- Only MIT-MAGIC-COOKIE-1 is used. Finding no entry is no error: several servers ask for none.
- Reading never blocks: what is not a regular file is refused.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

from xsshpy.errors import DisplayError
from xsshpy.values import dataclass, field
from xsshpy.x11.display import Display, is_loopback

MAX_FILE = 1 << 20
"""Largest Xauthority file read, in bytes."""
MAX_ENTRIES = 4096
"""Most entries taken from one file."""
COOKIE_PROTOCOL = b"MIT-MAGIC-COOKIE-1"
"""The one authorization protocol that is used."""

_MAX_FOUND = 16


class Family(IntEnum):
    """What an entry's address is (X.h and Xauth.h); files may hold others, which never match."""

    INTERNET = 0
    INTERNET6 = 6
    LOCAL = 256
    WILD = 65535


class AuthorityError(DisplayError):
    """An Xauthority file could not be used."""


@dataclass(frozen=True)
class AuthorityEntry:
    """One entry, fields as in the file; ``data`` is the secret."""

    family: int
    address: bytes
    number: bytes
    name: bytes
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class FoundCookie:
    """The outcome of ``find_cookie``.

    ``entry`` is None when no file has one that fits. ``files`` are the files that were there;
    ``notes`` are lines for the user: why one was not used, and what to do.
    """

    entry: AuthorityEntry | None
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse_authority(data: bytes) -> tuple[AuthorityEntry, ...]:
    """Return the whole entries at the start of ``data``.

    Raises AuthorityError for more than MAX_FILE bytes or MAX_ENTRIES entries, and for data that
    has not even one whole entry.
    """
    if len(data) > MAX_FILE:
        raise AuthorityError(f"xssh: X11: the Xauthority data is larger than {MAX_FILE} bytes")
    entries: list[AuthorityEntry] = []
    offset = 0
    while offset < len(data):
        taken = _parse_entry(data, offset)
        if taken is None:
            break
        entry, offset = taken
        entries.append(entry)
        if len(entries) > MAX_ENTRIES:
            raise AuthorityError(
                f"xssh: X11: the Xauthority data holds more than {MAX_ENTRIES} entries"
            )
    if data and not entries:
        raise AuthorityError("xssh: X11: the Xauthority data is damaged: it holds no whole entry")
    return tuple(entries)


def _parse_entry(data: bytes, offset: int) -> tuple[AuthorityEntry, int] | None:
    if offset + 2 > len(data):
        return None
    (family,) = struct.unpack_from(">H", data, offset)
    offset += 2
    fields: list[bytes] = []
    for _ in range(4):
        if offset + 2 > len(data):
            return None
        (length,) = struct.unpack_from(">H", data, offset)
        offset += 2
        if offset + length > len(data):
            return None
        fields.append(data[offset : offset + length])
        offset += length
    address, number, name, secret = fields
    return AuthorityEntry(family, address, number, name, secret), offset


def find_authority_files(
    environ: Mapping[str, str], uid: int, *, runtime_root: str = "/run/user"
) -> tuple[str, ...]:
    """Return the Xauthority files to look in, best first.

    XAUTHORITY alone where it is set; else ``~/.Xauthority``, then the files that Wayland
    compositors keep for Xwayland in the user's runtime directory, newest first: only regular
    files that belong to ``uid`` in a directory that does, too. The first two need not exist.
    """
    named = environ.get("XAUTHORITY", "")
    if named:
        return (named,)
    home = environ.get("HOME", "") or _home_of(uid)
    first = (os.path.join(home, ".Xauthority"),) if home else ()
    folder = environ.get("XDG_RUNTIME_DIR", "") or os.path.join(runtime_root, str(uid))
    return first + _wayland_files(folder, uid)


def _home_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return ""


def _wayland_files(folder: str, uid: int) -> tuple[str, ...]:
    found: list[tuple[float, str]] = []
    try:
        status = os.stat(folder)
        if status.st_uid != uid or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return ()
        with os.scandir(folder) as listing:
            for item in listing:
                if not item.name.startswith((".mutter-Xwaylandauth.", "xauth_")):
                    continue
                about = item.stat(follow_symlinks=False)
                if stat.S_ISREG(about.st_mode) and about.st_uid == uid:
                    found.append((-about.st_mtime, item.path))
    except OSError:
        return ()
    return tuple(path for _, path in sorted(found)[:_MAX_FOUND])


def read_authority(path: str) -> tuple[AuthorityEntry, ...]:
    """Return the entries of the file at ``path``; none if it isn't there.

    Raises AuthorityError for what is not a regular file, can't be read, is larger than MAX_FILE,
    or is damaged (see ``parse_authority``).
    """
    try:
        data = _read_regular(path)
        return () if data is None else parse_authority(data)
    except OSError as error:
        reason, remedy = error.strerror or str(error), _check_remedy(path)
    except AuthorityError as error:
        reason = error.message.removeprefix("xssh: X11: the Xauthority data ")
        reason = reason.removeprefix("xssh: X11: ")
        remedy = error.remedy or f"move {path} away, then log in to your desktop again"
    raise AuthorityError(f"xssh: X11: cannot use {path}: {reason}", remedy=remedy)


def _check_remedy(path: str) -> str:
    return f"ls -l {path}: it has to be a file that you can read"


def _read_regular(path: str) -> bytes | None:
    """Return the content, at most MAX_FILE bytes; None for a file that isn't there."""
    if "\0" in path:
        raise AuthorityError("xssh: X11: its name holds a NUL")
    try:
        # Looked at before it is opened: opening a device may do something to it.
        _require_regular(path, os.stat(path))
        # O_NONBLOCK: had a FIFO taken its place meanwhile, open would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        _require_regular(path, status)
        data = b"" if status.st_size > MAX_FILE else file.read(MAX_FILE + 1)
    if status.st_size > MAX_FILE or len(data) > MAX_FILE:
        raise AuthorityError(f"xssh: X11: it is larger than {MAX_FILE} bytes")
    return data


def _require_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise AuthorityError("xssh: X11: it is not a regular file", remedy=_check_remedy(path))


def find_cookie(
    display: Display,
    files: Sequence[str],
    hostname: str,
    *,
    addresses: Sequence[str] = (),
) -> FoundCookie:
    """Look for the cookie of ``display`` in ``files``, in order.

    A file that can't be used is passed over with a note. ``hostname`` and ``addresses`` are as for
    ``select_cookie``. Blocks only as long as reading small regular files takes.
    """
    there: list[str] = []
    notes: list[str] = []
    for path in files:
        try:
            entries = read_authority(path)
        except AuthorityError as error:
            notes.extend(error.render().splitlines())
            continue
        if entries or os.path.exists(path):
            there.append(path)
        entry = select_cookie(entries, display, hostname, addresses=addresses)
        if entry is not None:
            return FoundCookie(entry, tuple(there), tuple(notes))
        for name in unsupported_protocols(entries, display, hostname, addresses=addresses):
            notes.append(f"xssh: X11: {path}: {name} is not supported, only MIT-MAGIC-COOKIE-1")
    return FoundCookie(None, tuple(there), tuple(notes))


def select_cookie(
    entries: Sequence[AuthorityEntry],
    display: Display,
    hostname: str,
    *,
    addresses: Sequence[str] = (),
) -> AuthorityEntry | None:
    """Return the entry whose cookie opens ``display``, or None.

    ``hostname`` is this machine's name as gethostname gives it; ``addresses`` are the server's, as
    text, where it is reached over TCP. An entry without a display number fits every number.

    On a local display, if no entry has this host name: one whose name differs only in domain and
    case, or else the only local cookie for that number (macOS changes its host name between sleep
    and waking, and the entry keeps the old one).
    """
    usable = [entry for entry in entries if entry.name == COOKIE_PROTOCOL and entry.data]
    matches = _matching(usable, display, hostname, addresses)
    if matches:
        return matches[0]
    if not display.is_local:
        return None
    local = [item for item in usable if item.family == Family.LOCAL and _same_number(item, display)]
    alike = [
        item for item in local if _host_label(item.address) == _host_label(os.fsencode(hostname))
    ]
    for group in (alike, local):
        if len({item.data for item in group}) == 1:
            return group[0]
    return None


def unsupported_protocols(
    entries: Sequence[AuthorityEntry],
    display: Display,
    hostname: str,
    *,
    addresses: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the names of protocols other than the cookie that ``entries`` offer for ``display``.

    To be said where ``select_cookie`` found nothing. Names are cut to 64 printable characters.
    """
    names = {
        entry.name[:64].decode("ascii", "backslashreplace")
        for entry in _matching(entries, display, hostname, addresses)
        if entry.name != COOKIE_PROTOCOL
    }
    return tuple(sorted(name for name in names if name.isprintable() and name))


def _matching(
    entries: Iterable[AuthorityEntry],
    display: Display,
    hostname: str,
    addresses: Sequence[str],
) -> list[AuthorityEntry]:
    wanted = _addresses_of(display, hostname, addresses)
    return [
        entry
        for entry in entries
        if _same_number(entry, display)
        and (entry.family == Family.WILD or (entry.family, entry.address) in wanted)
    ]


def _same_number(entry: AuthorityEntry, display: Display) -> bool:
    return entry.number in (b"", str(display.number).encode())


def _addresses_of(
    display: Display, hostname: str, addresses: Sequence[str]
) -> frozenset[tuple[int, bytes]]:
    """Return what entries for ``display`` may carry as family and address.

    Loopback counts as local and is listed under the host name: so do Xlib and libxcb, and so are
    the entries that sshd makes for `localhost:10.0`.
    """
    texts = [display.host, *addresses] if display.host else []
    local = not texts or any(is_loopback(text) for text in texts)
    wanted: set[tuple[int, bytes]] = set()
    if local:
        wanted.add((Family.LOCAL, os.fsencode(hostname)))
    for text in texts:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        plain = mapped or address
        family = Family.INTERNET if plain.version == 4 else Family.INTERNET6
        wanted.add((family, plain.packed))
    return frozenset(wanted)


def _host_label(name: bytes) -> bytes:
    return name.split(b".", 1)[0].lower()
