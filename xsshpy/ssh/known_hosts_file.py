"""known_hosts files: reads them, and puts a new key on record.

Both block (never for long: every wait has a limit) and belong in an executor, off the event loop.
A key is added by writing the whole file beside the old one and renaming it, under a lock on the
file itself, so that the old file stays whole whatever happens and two of us cannot lose each
other's line. OpenSSH's ssh takes no lock, so a file that changed meanwhile is read again. Where a
new file cannot take the old one's place (its owner, another hard link, a directory that may not be
written, a mount), the line is appended in one write, and taken back if it does not fit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from xsshpy.ssh.keyblob import HostKey
from xsshpy.ssh.known_hosts import (
    MAX_FILE_BYTES,
    KnownHosts,
    KnownLine,
    Marker,
    format_entry,
    parse_known_hosts,
)

_READ_SECONDS: Final = 5.0
"""How long a pipe (``UserKnownHostsFile=/dev/fd/63``) may take to be read."""
_LOCK_SECONDS: Final = 5.0
"""How long another process may keep the file locked, or go on replacing it."""
_LOCK_PAUSE_SECONDS: Final = 0.02
_REWRITES: Final = 20
_SALT_BYTES: Final = 20
_NO_REPLACEMENT: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV, errno.ENOTSUP}
)


def load_known_hosts(user_files: Sequence[str], system_files: Sequence[str]) -> KnownHosts:
    """Read every file, the user's first. A missing one is passed over, as is a broken line.

    The paths are complete (no ``~``), as ``ssh -G`` prints them; a list of just ``none`` is empty.
    """
    users, systems = _drop_none(user_files), _drop_none(system_files)
    lines: list[KnownLine] = []
    unreadable: list[tuple[str, str]] = []
    for path in (*users, *systems):
        try:
            lines.extend(parse_known_hosts(read_whole_file(path), path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            unreadable.append((path, _reason(error)))
    return KnownHosts(users, systems, tuple(lines), tuple(unreadable))


def _drop_none(files: Sequence[str]) -> tuple[str, ...]:
    if len(files) == 1 and files[0].lower() == "none":
        return ()
    return tuple(files)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def read_whole_file(path: str) -> bytes:
    """Return a file's contents; a directory has none. A pipe has some seconds to end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            return b""
        deadline = time.monotonic() + _READ_SECONDS
        if stat.S_ISFIFO(mode) and not _wait_readable(descriptor, deadline):
            raise TimeoutError(errno.ETIMEDOUT, "nothing arrives on the pipe")
        return _read_all(descriptor, deadline)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            part = os.read(descriptor, 1 << 20)
        except BlockingIOError:
            if not _wait_readable(descriptor, deadline):
                raise TimeoutError(errno.ETIMEDOUT, "the pipe does not end") from None
            continue
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _wait_readable(descriptor: int, deadline: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    remaining = max(0.0, deadline - time.monotonic())
    return bool(poller.poll(remaining * 1000))


def add_host_key(path: str, names: Sequence[str], key: HostKey, *, hashed: bool) -> str | None:
    """Put a key on record for some names; return None, or the reason why that is impossible.

    A file that is not there is made with mode 0600, and ``~/.ssh`` with 0700. A key that is on
    record for all the names already is not written twice. Device files, such as /dev/null, are
    written to as they are. On failure a file that was there is as it was.
    """
    if not names or any(not _is_one_word(name) for name in names):
        return "the name cannot be written to a known_hosts file"
    try:
        _make_ssh_directory(path)
        target = os.path.realpath(path)
        for _attempt in range(_REWRITES):
            with _locked(target) as descriptor:
                if _add_once(target, descriptor, names, key, hashed):
                    return None
        return "the file keeps changing"
    except (OSError, ValueError) as error:
        return _reason(error)


def rewrite_file(path: str, rewrite: Callable[[bytes], bytes | None]) -> str | None:
    """Put ``rewrite``'s result in place of a file's contents; return why that is impossible, if so.

    The contents of before stay beside it as ``PATH.old``, as ssh leaves them. Nothing is done
    where ``rewrite`` returns None, for a file that is not there, and for what is no regular file.
    """
    target = os.path.realpath(path)
    try:
        if not stat.S_ISREG(os.stat(target).st_mode):
            return None
        for _attempt in range(_REWRITES):
            with _locked(target) as descriptor:
                before = os.fstat(descriptor)
                if before.st_size > MAX_FILE_BYTES:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                data = rewrite(_read_all(descriptor, time.monotonic() + _READ_SECONDS))
                if data is None or _replace(target, descriptor, before, data, keep_old=True):
                    return None
        return "the file keeps changing"
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return _reason(error)


def _is_one_word(name: str) -> bool:
    return bool(name) and name.isprintable() and not any(letter.isspace() for letter in name)


def _make_ssh_directory(path: str) -> None:
    directory = os.path.dirname(path)
    if directory and directory == os.path.expanduser("~/.ssh"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)


@contextlib.contextmanager
def _locked(target: str) -> Iterator[int]:
    """Open the file to read and append, made if need be, and keep it locked.

    The lock is on the file that bears the name once it is ours: whoever held it before may have
    put a new file in its place.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    while True:
        descriptor = os.open(target, flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                yield descriptor
                return
            _lock(descriptor, deadline)
            if _is_same_file(descriptor, target):
                yield descriptor
                return
        finally:
            os.close(descriptor)
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "the file keeps being replaced")


def _lock(descriptor: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps it locked") from None
            time.sleep(_LOCK_PAUSE_SECONDS)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            return  # a file system without locks: as safe as ssh itself, which takes none
        else:
            return


def _is_same_file(descriptor: int, target: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(target))
    except FileNotFoundError:
        return False


def _add_once(
    target: str, descriptor: int, names: Sequence[str], key: HostKey, hashed: bool
) -> bool:
    """Add the key to the locked file; False if the file changed meanwhile and nothing was done."""
    before = os.fstat(descriptor)
    salts = [os.urandom(_SALT_BYTES) for _ in names] if hashed else []
    entry = format_entry(names, key, salts)
    if not stat.S_ISREG(before.st_mode):
        _write_all(descriptor, entry)
        return True
    if before.st_size > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    old = _read_all(descriptor, time.monotonic() + _READ_SECONDS)
    if _is_on_record(old, target, names, key):
        return True
    if old and not old.endswith(b"\n"):
        entry = b"\n" + entry
    if before.st_nlink == 1:
        try:
            return _replace(target, descriptor, before, old + entry)
        except OSError as error:
            if error.errno not in _NO_REPLACEMENT:
                raise
    _append(descriptor, entry, before.st_size)
    return True


def _is_on_record(data: bytes, path: str, names: Sequence[str], key: HostKey) -> bool:
    known = KnownHosts((path,), (), parse_known_hosts(data, path))
    return all(
        any(entry.key == key and entry.marker is Marker.NONE for entry in known.lookup(name))
        for name in (name.lower() for name in names)
    )


def _replace(
    target: str, descriptor: int, before: os.stat_result, data: bytes, *, keep_old: bool = False
) -> bool:
    """Write ``data`` beside the file, with its mode and owner, and put it in the file's place."""
    directory, base = os.path.split(target)
    copy, beside = tempfile.mkstemp(prefix=f".{base}.", dir=directory)
    try:
        try:
            made = os.fstat(copy)
            if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
                os.fchown(copy, before.st_uid, before.st_gid)
            os.fchmod(copy, stat.S_IMODE(before.st_mode))
            _write_all(copy, data)
            os.fsync(copy)
        finally:
            os.close(copy)
        now = os.fstat(descriptor)
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            return False
        if keep_old:
            _keep_old(target)
        os.replace(beside, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
    _sync_directory(directory)
    return True


def _keep_old(target: str) -> None:
    old = f"{target}.old"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(old)
    try:
        os.link(target, old)
    except OSError as error:  # a file system without hard links
        if error.errno not in _NO_REPLACEMENT:
            raise


def _sync_directory(directory: str) -> None:
    # The new file is in place by now: a directory that cannot be synced is no failure.
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _append(descriptor: int, entry: bytes, size: int) -> None:
    """Append in one write; take back a part that got through before the disk was full."""
    written = 0
    try:
        written = os.write(descriptor, entry)
        if written != len(entry):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        if written and os.fstat(descriptor).st_size == size + written:
            os.ftruncate(descriptor, size)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
