"""Files in the user's cache folder: read if they are his own, written beside and renamed.

Rules kept here: a file that others could have written is as good as none, and so is one that can't
be read; one that can't be written stays as it was.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return where xssh keeps what only saves time."""
    base, home = environ.get("XDG_CACHE_HOME", ""), environ.get("HOME", "")
    if not os.path.isabs(base):  # nothing is ever left in the folder where the run began
        base = os.path.join(home if os.path.isabs(home) else "/", ".cache")
    return Path(base) / "xssh"


def read_own_file(path: Path, limit: int) -> bytes:
    """Return the first ``limit`` bytes; nothing where there is no file that is the user's alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            own = status.st_uid == os.getuid() and not status.st_mode & _OTHERS_MAY_WRITE
            if not own or not stat.S_ISREG(status.st_mode):
                return b""
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(limit)
        finally:
            os.close(descriptor)
    except OSError:
        return b""


def write_own_file(path: Path, text: str) -> None:
    """Put a text in a file's place, with its folder. Nothing happens where that can't be done."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
