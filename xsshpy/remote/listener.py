"""The display on the other host: its port, its cookie, its Xauthority file.

X clients find a display by the name ``localhost:N.0``, which is port 6000+N of the loopback
address, and its cookie by the file that XAUTHORITY names. Both are made here, and taken away again.

Rules kept here: all addresses of localhost are taken or none, so that nobody else can answer at one
of them; the cookie is made here and stays here; what is written lies in a directory of its own that
nobody else may enter. Python 3.6 and later, standard library only.

Follows the Xau library's file format, and sshd's choice of display numbers.
"""

import errno
import fcntl
import hmac
import os
import re
import socket
import stat
import struct
import time
import zlib
from collections import deque
from typing import Deque, Dict, List, Optional, Tuple

from .payloads import name_authority

FIRST_DISPLAY = 10
LAST_DISPLAY = 999
FIRST_PORT = 6000
BACKLOG = 128

COOKIE_NAME = b"MIT-MAGIC-COOKIE-1"
COOKIE_LENGTH = 16

FAMILY_INTERNET = 0
FAMILY_INTERNET6 = 6
FAMILY_LOCAL = 256

LAST_RESORTS = ("/tmp", "/var/tmp")  # noqa: S108 - a directory of our own is made in there

DIRECTORY_PREFIX = "xssh-agent-"
AUTHORITY_NAME = "Xauthority"
LOCK_NAME = "lock"

SESSION_LIMIT = 1024
"""Most sessions that have a cookie of their own at one time."""

BOOT_FILE = "/proc/sys/kernel/random/boot_id"
"""Linux's name for the time since it was started."""

LEFTOVERS_LIMIT = 64
"""Most directories of dead agents that are looked at."""

UNLOCKED_AGE = 3600.0
"""After so long a directory without lock and files is nobody's (seconds)."""

PLAIN_PATH = re.compile(r"/[A-Za-z0-9_.:/+-]*\Z")
"""What any shell takes as it is: the path becomes part of a command line."""


class NoDisplayError(Exception):
    """No display can be made; the text says why."""


class Listener:
    """A display that clients can connect to. ``close`` takes it away."""

    def __init__(self, number: int, sockets: List[socket.socket]) -> None:
        self.number = number
        self.sockets = sockets
        self.cookie = os.urandom(COOKIE_LENGTH)
        self._cookies: Dict[int, bytes] = {0: self.cookie}
        self._retired: Deque[bytes] = deque(maxlen=SESSION_LIMIT)
        self.directory: Optional[str] = None
        self._lock: Optional[int] = None

    @property
    def name(self) -> str:
        """What DISPLAY is to be set to."""
        return "localhost:{}.0".format(self.number)

    def write_authority(self) -> str:
        """Write the cookie where clients find it; return the file's path. Raises OSError."""
        self.directory, self._lock = make_directory()
        return self._write(0, self.cookie)

    def _write(self, session: int, cookie: bytes) -> str:
        path = self._place(session)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, build_authority(self.number, cookie))
        finally:
            os.close(descriptor)
        return path

    def _place(self, session: int) -> str:
        assert self.directory is not None
        return os.path.join(self.directory, name_authority(AUTHORITY_NAME, session))

    def admit(self, session: int) -> None:
        """Make a session a cookie of its own. Raises OSError."""
        if session in self._cookies or len(self._cookies) > SESSION_LIMIT:
            raise OSError(errno.EUSERS, "too many sessions")
        cookie = os.urandom(COOKIE_LENGTH)
        self._write(session, cookie)
        self._cookies[session] = cookie

    def dismiss(self, session: int) -> None:
        """Let nobody in any more with a session's cookie, and take it away."""
        cookie = self._cookies.pop(session, None)
        if cookie is None:
            return
        self._retired.append(cookie)
        try:
            os.unlink(self._place(session))
        except OSError:
            pass

    def find_session(self, shown: bytes) -> Optional[int]:
        """Return the session whose cookie this is; None where it is nobody's."""
        found = None
        for session, cookie in self._cookies.items():
            if hmac.compare_digest(shown, cookie):
                found = session
        return found

    def was_let_in(self, shown: bytes) -> bool:
        """Tell whether this is the cookie of a session that has ended."""
        return shown in self._retired

    def close(self) -> None:
        """Close the port and remove the file."""
        for each in self.sockets:
            each.close()
        self.sockets = []
        if self.directory is not None:
            remove_directory(self.directory)
            self.directory = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def open_listener() -> Listener:
    """Return a listener on the first free display. Raises NoDisplayError."""
    reason = "all display numbers are taken"
    for number in range(FIRST_DISPLAY, LAST_DISPLAY + 1):
        try:
            return Listener(number, _listen(FIRST_PORT + number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = error.strerror or str(error)
                break
    raise NoDisplayError(reason)


def _listen(port: int) -> List[socket.socket]:
    opened: List[socket.socket] = []
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            made = _listen_at(family, address, port)
            if made is not None:
                opened.append(made)
        if not opened:
            raise OSError(errno.EADDRNOTAVAIL, "this host has no loopback address")
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened


def _listen_at(family: int, address: str, port: int) -> Optional[socket.socket]:
    """Return a listening socket; None where the host has no such address at all."""
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return made


def build_authority(number: int, cookie: bytes) -> bytes:
    """Return an Xauthority file with the cookie for this display of this host."""
    host = socket.gethostname().encode("utf-8", "surrogateescape")
    addresses: Tuple[Tuple[int, bytes], ...] = (
        (FAMILY_LOCAL, host),
        (FAMILY_INTERNET, bytes((127, 0, 0, 1))),
        (FAMILY_INTERNET6, bytes(15) + b"\x01"),
    )
    entries = []
    for family, address in addresses:
        fields = (address, str(number).encode("ascii"), COOKIE_NAME, cookie)
        packed = b"".join(struct.pack(">H", len(field)) + field for field in fields)
        entries.append(struct.pack(">H", family) + packed)
    return b"".join(entries)


# --- the directory ------------------------------------------------------------------------------


def make_directory() -> "tuple[str, Optional[int]]":
    """Make a directory that only this user may enter. Raises OSError.

    Returns its path, and a descriptor of the lock in it that says, as long as it is open, that its
    agent lives; None where files cannot be locked. What earlier agents could not take away, since
    they were killed, is removed.
    """
    failure: Optional[OSError] = None
    for parent in _parents():
        _remove_leftovers(parent)
        unique = "".join("{:02x}".format(byte) for byte in os.urandom(8))
        path = os.path.join(parent, "{}{}-{}".format(DIRECTORY_PREFIX, name_host(), unique))
        try:
            os.mkdir(path, 0o700)
            return path, _make_lock(path)
        except OSError as error:
            failure = error
    raise failure or OSError(errno.ENOENT, "no directory for temporary files")


def name_host() -> str:
    """Return a short name for this host since it was started, the same in all its containers."""
    try:
        with open(BOOT_FILE, "rb") as file:
            name = file.read(100)
    except OSError:
        name = socket.gethostname().encode("utf-8", "surrogateescape")
    return "{:08x}".format(zlib.crc32(name))


def _make_lock(directory: str) -> Optional[int]:
    """Return a descriptor of a locked file; it has its name from when it is locked on."""
    path = os.path.join(directory, LOCK_NAME)
    descriptor = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(path + ".new", path)
    except OSError:
        os.close(descriptor)
        os.unlink(path + ".new")
        return None
    return descriptor


def _parents() -> List[str]:
    """Return where directories may be made: the session's own place first."""
    found = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if PLAIN_PATH.match(runtime):
        try:
            status = os.stat(runtime)
            if status.st_uid == os.getuid() and not status.st_mode & 0o077:
                found.append(runtime)
        except OSError:
            pass
    temporary = os.environ.get("TMPDIR", "")
    return [*found, *([temporary] if PLAIN_PATH.match(temporary) else []), *LAST_RESORTS]


def _remove_leftovers(parent: str) -> None:
    """Remove what agents of this user and this host left that are certain to be dead."""
    prefix = "{}{}-".format(DIRECTORY_PREFIX, name_host())
    try:
        names = [name for name in os.listdir(parent) if name.startswith(prefix)]
    except OSError:
        return
    for name in names[:LEFTOVERS_LIMIT]:
        path = os.path.join(parent, name)
        try:
            status = os.lstat(path)
            ours = status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode)
            if ours and not status.st_mode & 0o077 and _is_left(path, status.st_mtime):
                remove_directory(path)
        except OSError:
            continue


def _is_left(directory: str, changed: float) -> bool:
    """Tell whether the agent that made a directory is dead: nobody holds its lock.

    A process number would tell nothing: containers that share a directory number their own.
    """
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(os.path.join(directory, LOCK_NAME), flags)
    except FileNotFoundError:
        # It has no lock yet, or was killed before; or files can't be locked, then it has others.
        files = [name for name in os.listdir(directory) if name != LOCK_NAME + ".new"]
        return not files and time.time() - changed > UNLOCKED_AGE
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def remove_directory(path: str) -> None:
    """Remove one of these directories, with the files that an agent or xauth put there."""
    try:
        for name in os.listdir(path):
            if name.startswith((AUTHORITY_NAME, LOCK_NAME)):
                os.unlink(os.path.join(path, name))
        os.rmdir(path)
    except OSError:
        pass
