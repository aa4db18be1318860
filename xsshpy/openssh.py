"""Which program is the machine's own OpenSSH client. It reads the configuration (``ssh -G``).

xssh may itself be installed under the name ``ssh``, before the other on PATH: as a link, or as a
script that starts it. Rule: it never asks itself. A link is seen at once. A script is not, so
whoever is started by one learns from the environment which ``ssh`` was tried, and takes the next.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TRIED = "XSSH_TRIED_SSH"
_POST_QUANTUM = "mlkem768x25519-sha256"
_SCRIPT_MARK = b"#!"


def find_openssh(environ: Mapping[str, str]) -> str | None:
    """Return the path of the first ``ssh`` on PATH that is not this program, or None."""
    tried = environ.get(_TRIED, "").split(os.pathsep)
    own = os.path.realpath(sys.argv[0])
    for path in _candidates(environ):
        if path not in tried and os.path.realpath(path) != own:
            return path
    return None


def openssh_environment(path: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which to start ``path``, which may turn out to be xssh.

    A program in machine code is not xssh, and what it starts (``Match exec``) may look for any
    ``ssh``.
    """
    found = {name: value for name, value in environ.items() if name != _TRIED}
    if _is_script(path):
        found[_TRIED] = os.pathsep.join(filter(None, (environ.get(_TRIED), path)))
    return found


def tell_release(keywords: Mapping[str, tuple[str, ...]]) -> tuple[int, int]:
    """Return the release of which the ``ssh`` is at least that printed these (``ssh -G``).

    Some of its words and rules changed in 9.5 to 10.1. What it prints is there already, and to
    ask it with -V takes another process; a configuration may hide that it is newer than 9.6.
    """
    if "warnweakcrypto" in keywords:
        return (10, 1)
    if any(_POST_QUANTUM in value for value in keywords.get("kexalgorithms", ())):
        return (9, 9)
    if "channeltimeout" in keywords:
        return (9, 6)
    return (9, 5) if "obscurekeystroketiming" in keywords else (0, 0)


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder or os.curdir, "ssh")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            yield path


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_SCRIPT_MARK)) == _SCRIPT_MARK
    except OSError:
        return False
