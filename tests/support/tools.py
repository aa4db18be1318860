"""Which programs this machine has, and what becomes of a test that needs another.

On a user's machine a missing tool skips the test, with a reason; in CI it fails it.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import shutil
import subprocess

SYSTEM_PATH = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/local/sbin", "/opt/X11/bin"))
"""Where daemons and XQuartz's programs lie that a user's PATH often leaves out."""


class MissingTool(Exception):
    """A program or library that this machine lacks; the text says which, and how to get it."""


def find_tool(name: str) -> str | None:
    """Return the absolute path of a program, or None."""
    path = shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)
    return os.path.abspath(path) if path else None


def need_tool(name: str) -> str:
    """Return the absolute path of a program; raise MissingTool where there is none."""
    path = find_tool(name)
    if path is None:
        raise MissingTool(f"{name} is not installed (scripts/test names the packages)")
    return path


@functools.cache
def find_nss_wrapper() -> str | None:
    """Return the path of libnss_wrapper.so, which gives a process a passwd file of its own."""
    patterns = ("/usr/lib/*/libnss_wrapper.so", "/usr/lib64/libnss_wrapper.so")
    for pattern in (*patterns, "/usr/lib/libnss_wrapper.so"):
        for path in sorted(glob.glob(pattern)):
            return path
    return None


@functools.cache
def openssh_release() -> tuple[int, int]:
    """Return the release of this machine's ssh, as in ``OpenSSH_9.2p1``; zeros for none."""
    if find_tool("ssh") is None:
        return (0, 0)
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr
    found = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def in_ci() -> bool:
    """Tell whether a missing tool is a failure here."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def skip_or_fail(reason: str) -> None:
    """End the test that calls: skipped with a reason, or failed where CI is set. Never returns."""
    import pytest

    if in_ci():
        pytest.fail(f"CI lacks what this test needs: {reason}", pytrace=False)
    pytest.skip(reason)


def require_tool(name: str) -> str:
    """Return the absolute path of a program that the calling test needs, or end the test."""
    path = find_tool(name)
    if path is None:
        skip_or_fail(f"{name} is not installed")
    assert path is not None
    return path
