"""``--man``: the manual xssh(1), which few installers put where man(1) looks.

The page is shown by man, else by mandoc, else as plain text by :mod:`mdoc`. Rule: where stdout is
no terminal there is no pager and nobody is waited for.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping

from xsshpy.errors import UsageError

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PLACES = (
    os.path.join(_FOLDER, "xssh.1"),
    os.path.join(os.path.dirname(_FOLDER), "docs", "xssh.1"),
)
"""In an installation, and in a checkout."""

_STUB = b"minimized"
"""In the script that stands for man in containers: "This system has been minimized…"."""


def find_page() -> str:
    """Return the path of the manual page. Raises UsageError."""
    for path in _PLACES:
        if os.path.isfile(path):
            return path
    raise UsageError("xssh: the manual is not installed", remedy="`xssh --help` lists the options")


def show(environ: Mapping[str, str]) -> None:
    """Become the first viewer that there is, or print the page as plain text. Raises UsageError."""
    page = find_page()
    if not sys.stdout.isatty():
        _close_stdin()
    for viewer in _viewers(page, environ):
        try:
            os.execve(viewer[0], viewer, environ)
        except OSError:
            continue
    from xsshpy.mdoc import render

    with open(page, encoding="utf-8") as file:
        sys.stdout.write(render(file.read()))


def _viewers(page: str, environ: Mapping[str, str]) -> Iterator[list[str]]:
    """Generate command lines. A name with a slash is a file to every man."""
    path = environ.get("PATH")
    man = shutil.which("man", path=path)
    if man is not None and not _is_stub(man):
        yield [man, page]
    mandoc = shutil.which("mandoc", path=path)
    if mandoc is not None:
        yield [mandoc, *(["-a"] if sys.stdout.isatty() else []), page]


def _is_stub(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError:
        return True
    return start.startswith(b"#!") and _STUB in start


def _close_stdin() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
