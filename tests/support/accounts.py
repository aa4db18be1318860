"""A passwd file of one's own: any user name, HOME and login shell, without touching the system's.

OpenSSH's programs take the home directory from passwd, not from $HOME. libnss_wrapper (LD_PRELOAD)
answers getpwnam and getpwuid from a private file, so that neither sshd nor ssh nor anything they
start can find the real home of the account that the tests run under.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from tests.support.tools import MissingTool, find_nss_wrapper


def account_environment(
    directory: Path,
    *,
    name: str,
    home: str,
    shell: str,
    password_hash: str = "*",
    uid: int | None = None,
) -> dict[str, str]:
    """Write ``passwd`` and ``group`` to ``directory``; return the variables that make them count.

    The account has the uid and gid of this process, whatever its name, or ``uid`` for both.
    Raises MissingTool.
    """
    library = find_nss_wrapper()
    if library is None:
        raise MissingTool("libnss_wrapper is not installed (Debian: apt install libnss-wrapper)")
    uid, gid = (os.getuid(), os.getgid()) if uid is None else (uid, uid)
    lines = [f"{name}:{password_hash}:{uid}:{gid}:{name}:{home}:{shell}"]
    for entry in pwd.getpwall():
        if entry.pw_uid != uid and entry.pw_name != name:
            fields = (entry.pw_name, "*", entry.pw_uid, entry.pw_gid, "", entry.pw_dir)
            lines.append(":".join(map(str, (*fields, entry.pw_shell))))
    directory.mkdir(parents=True, exist_ok=True)
    passwd, group = directory / "passwd", directory / "group"
    _replace(passwd, "\n".join(lines) + "\n")
    _replace(group, Path("/etc/group").read_text())
    return {
        "LD_PRELOAD": library,
        "NSS_WRAPPER_PASSWD": str(passwd),
        "NSS_WRAPPER_GROUP": str(group),
    }


def _replace(path: Path, text: str) -> None:
    """Write a file anew: libnss_wrapper reads again what it has open only where that is gone."""
    path.unlink(missing_ok=True)
    path.write_text(text)
