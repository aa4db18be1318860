"""Control sockets: made, trusted, connected to; descriptors that travel through them.

Rules kept here:

* A socket appears under its name with its mode set and already listening: it is bound beside,
  and linked into place, which fails where the name is taken (ssh does the same).
* Who connects looks at both what lies on the disk and who answers. The folder must not be one in
  which others may put things in the place of ours, the socket must be ours, and so must the
  process behind it; root may stand in everywhere. Who listens looks at who connects.
* Every wait has a deadline. A descriptor that arrives is closed in what this process starts, and
  one too many is closed at once.

ssh checks owners only where it listens; the rest is ours. PROTOCOL.mux, unix(7).
"""

from __future__ import annotations

import _socket  # what `socket` adds, a passenger has no use for: names, selectors; 5 ms
import errno
import os
import stat
import sys

from xsshpy.errors import XsshError
from xsshpy.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

PATH_SIZE = 104 if sys.platform == "darwin" or "bsd" in sys.platform else 108
"""Room for a socket's path and the NUL at its end (bytes)."""

BACKLOG = 64
"""How many may wait to be let in, as with ssh."""

_SUFFIX_BYTES = 8
_DESCRIPTOR_SIZE = 4
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class ControlPathError(XsshError):
    """The socket's path can't be used, and the run ends, as ssh's does."""


class ControlSocketTakenError(Exception):
    """Another process has put its socket there already."""


class UntrustedSocketError(Exception):
    """Others could stand behind this socket. The text says why, and names the path."""


@dataclass(frozen=True)
class Peer:
    """The process at the other end; ``pid`` is 0 where the system does not tell."""

    uid: int
    pid: int


def require_length(path: str) -> None:
    """Raise ControlPathError, in ssh's words, for a path that no socket can have."""
    if len(os.fsencode(path)) >= PATH_SIZE:
        raise ControlPathError(
            f"ControlPath too long ('{path}' >= {PATH_SIZE} bytes)",
            remedy="a shorter one: %C stands for host, port and user, hashed",
        )


def check_place(path: str) -> None:
    """Look at the socket and its folder. Raises UntrustedSocketError, and OSError as stat(2)."""
    allowed = (os.geteuid(), 0)
    folder = os.path.dirname(path) or os.curdir
    there = os.stat(folder)
    if there.st_uid not in allowed:
        raise UntrustedSocketError(f"{folder} belongs to another user")
    if not there.st_mode & stat.S_ISVTX and _may_others_write(there):
        raise UntrustedSocketError(f"{folder} can be written by others")
    found = os.lstat(path)
    if found.st_uid not in allowed:
        raise UntrustedSocketError(f"{path} belongs to another user")
    if stat.S_ISLNK(found.st_mode):
        found = os.stat(path)
        if found.st_uid not in allowed:
            raise UntrustedSocketError(f"{path} belongs to another user")
    if stat.S_ISSOCK(found.st_mode) and found.st_mode & _OTHERS_MAY_WRITE:
        mode = stat.S_IMODE(found.st_mode)
        raise UntrustedSocketError(f"{path} is open to others (mode {mode:04o})")


def _may_others_write(folder: os.stat_result) -> bool:
    """A group of one's own, which is what many systems give a user, is no other."""
    if folder.st_mode & stat.S_IWOTH:
        return True
    return bool(folder.st_mode & stat.S_IWGRP) and folder.st_gid not in (os.getegid(), 0)


def connect(path: str, seconds: float) -> _socket.socket:
    """Return a connection to the process that listens there, checked.

    It blocks, with ``seconds`` as its timeout. Raises ControlPathError, UntrustedSocketError, and
    OSError: FileNotFoundError where there is no such file, ConnectionRefusedError where nobody
    listens, TimeoutError where nobody lets us in.
    """
    require_length(path)
    check_place(path)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        try:
            connection.connect(path)
        except BlockingIOError:
            _wait_for_room(connection, path, seconds)
        check_peer(connection, path)
        connection.settimeout(seconds)
    except BaseException:
        connection.close()
        raise
    return connection


def _wait_for_room(connection: _socket.socket, path: str, seconds: float) -> None:
    """Connect where many wait to be let in: with a timeout of Python's that is an error."""
    import struct

    whole = int(seconds)
    limit = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)
    connection.settimeout(None)
    try:
        connection.connect(path)
    except BlockingIOError:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def check_peer(connection: _socket.socket, path: str) -> None:
    """Raise UntrustedSocketError where neither we nor root are at the other end."""
    peer = identify_peer(connection)
    if peer is not None and peer.uid not in (os.geteuid(), 0):
        raise UntrustedSocketError(f"another user is behind {path}")


def identify_peer(connection: _socket.socket) -> Peer | None:
    """Return who is at the other end, or None where the system does not tell.

    Raises OSError where it does tell and fails: macOS has no word on one who is gone already.
    """
    if hasattr(_socket, "SO_PEERCRED"):
        # struct ucred: pid, uid, gid (unix(7))
        raw = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        pid, uid, _ = memoryview(raw).cast("I")
        return Peer(uid, pid)
    if sys.platform == "darwin" or "freebsd" in sys.platform:
        # struct xucred: version, uid, … (unix(4), LOCAL_PEERCRED at level 0)
        raw = connection.getsockopt(0, 1, 76)
        return Peer(memoryview(raw)[:8].cast("I")[1], 0)
    return None


class Listener:
    """A control socket that others may connect to."""

    def __init__(self, path: str, sock: socket.socket) -> None:
        self.path = path
        self.socket = sock
        found = os.lstat(path)
        self._identity = (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Listen no more, and take the name away if it is still this socket's."""
        self.socket.close()
        try:
            if self.is_in_place():
                os.unlink(self.path)
        except OSError:
            pass

    def is_in_place(self) -> bool:
        """Say whether the name is still this socket's."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity


def listen(path: str) -> Listener:
    """Listen at ``path``, for this user alone; the socket does not block.

    Raises ControlSocketTakenError where the name is taken, and ControlPathError, in ssh's words,
    where nothing can be made there.
    """
    import socket

    beside = f"{path}.{os.urandom(_SUFFIX_BYTES).hex()}"  # as long as ssh's
    if len(os.fsencode(beside)) >= PATH_SIZE:
        raise ControlPathError(
            f'unix_listener: path "{beside}" too long for Unix domain socket',
            remedy="a shorter ControlPath: %C stands for host, port and user, hashed",
        )
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listening.bind(beside)
        except OSError as error:
            raise ControlPathError(
                f"unix_listener: cannot bind to path {beside}: {os.strerror(error.errno or 0)}"
            ) from None
        try:
            # Nobody gets in before listen(2), so that the mode needs no umask, which is every
            # thread's.
            os.chmod(beside, stat.S_IRUSR | stat.S_IWUSR)
            listening.listen(BACKLOG)
            listening.setblocking(False)
            _link(beside, path)
        finally:
            os.unlink(beside)
        return Listener(path, listening)
    except BaseException:
        listening.close()
        raise


def _link(beside: str, path: str) -> None:
    try:
        os.link(beside, path)
    except FileExistsError:
        raise ControlSocketTakenError(path) from None
    except OSError as error:
        raise ControlPathError(
            f"muxserver_listen: link mux listener {beside} => {path}: "
            f"{os.strerror(error.errno or 0)}"
        ) from None


def is_stale(path: str) -> bool:
    """Say whether ``path`` is a socket at which nobody listens."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def remove_stale(path: str) -> None:
    """Remove a socket at which nobody listens; anything else is left."""
    try:
        found = os.lstat(path)
        if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid():
            os.unlink(path)
    except OSError:
        pass


def send_descriptors(connection: _socket.socket, descriptors: tuple[int, ...]) -> None:
    """Send descriptors, each with a byte of its own, as ssh takes them. Raises OSError."""
    for descriptor in descriptors:
        number = descriptor.to_bytes(_DESCRIPTOR_SIZE, sys.byteorder)
        connection.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, number)])


def receive(connection: _socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Return up to ``size`` bytes, none at the end, and the descriptors that came with them.

    More than ``most`` descriptors at once are no peer's of ours: they are closed, and OSError is
    raised, which it is too for what recvmsg(2) finds.
    """
    room = _socket.CMSG_SPACE(_DESCRIPTOR_SIZE * (most + 1))
    flags = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, said, _ = connection.recvmsg(size, room, flags)
    received: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            whole = len(content) - len(content) % _DESCRIPTOR_SIZE
            received += memoryview(content)[:whole].cast("i")
    for descriptor in received:
        os.set_inheritable(descriptor, False)
    if len(received) > most or said & _socket.MSG_CTRUNC:
        close_descriptors(received)
        raise OSError(errno.EMSGSIZE, "more descriptors than asked for")
    return data, received


def close_descriptors(descriptors: list[int]) -> None:
    """Close descriptors, and empty the list."""
    while descriptors:
        try:
            os.close(descriptors.pop())
        except OSError:
            pass
