"""Why a server's shell breaks off, or its home folder takes nothing. Pure.

What the system says of it is one of a few sentences of the C library. A shell may say them in
another language; then the plain fact stands.
"""

from __future__ import annotations

import re

from xsshpy.doctor.findings import Opinion, broken
from xsshpy.doctor.probes import Answers

_LAST_LINES = 2
_FEWEST_FILES = 16
"""Shells put files away at descriptors from 10 on, and say something else where they can't."""


_NO_PROCESS = re.compile(r"(?i)cannot fork|\bfork: |resource temporarily unavailable")


def has_starved(messages: str) -> bool:
    """Tell whether a shell said that it can't start programs, which may be all that it says."""
    return _NO_PROCESS.search(messages) is not None


def explain_broken_off(answers: Answers, messages: str) -> Opinion:
    """Say why a small command began and did not end; ``messages`` is its stderr."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()][-_LAST_LINES:]
    shell = answers.first_of("shell") or "the shell"
    files = answers.first_of("files")
    if "Too many open files" in messages or (files.isdigit() and int(files) < _FEWEST_FILES):
        return broken(
            f"programs there may open too few files at once (ulimit -n {files}): {shell} gives up",
            *lines,
            remedy="take the low limit out of the start files, or of limits.conf on the server",
        )
    if has_starved(messages):
        return broken(
            f"{shell} can't start programs there: too many processes of this account run already",
            *lines,
            remedy="ps -u there shows them; raise ulimit -u, or nproc in limits.conf",
        )
    if re.search(r"(?i)cannot allocate memory|out of memory", messages):
        return broken(
            f"{shell} gets no memory there", *lines, remedy="free shows what there is; ulimit -v"
        )
    return broken(
        f"{shell} there breaks off before the end of a small command",
        *lines,
        remedy="see what its start files do, and the limits there: ulimit -a",
    )


def explain_unwritable(home: str, state: str, error: str) -> tuple[str, str]:
    """Return what keeps files out of the home folder, and the remedy.

    ``state`` is "full" where a file could be made and not filled, else "no"; ``error`` is what was
    said about that.
    """
    if "quota" in error.lower():
        return (
            f"nothing more can be written to {home}: the disk quota is used up",
            "remove what you can spare there: quota -s, du -sh",
        )
    if "File too large" in error or "ile size limit" in error:
        return (
            f"no file in {home} may grow (ulimit -f)",
            "take that limit out of the start files, or of limits.conf on the server",
        )
    if state == "full":
        return (
            f"nothing more can be written to {home}: the disk or the quota is full",
            f"make room there: df -h {home}",
        )
    if "No space left" in error:
        return (
            f"no file can be made in {home}: its file system has no inode left",
            f"remove files there: df -i {home}",
        )
    if "Read-only" in error:
        return (
            f"{home} can't be written to: its file system is mounted read-only, so sshd's X11 has "
            "no place for its cookie",
            "--x11 agent, which needs none there",
        )
    return (
        f"{home} can't be written to, so sshd's X11 has no place for its cookie",
        "--x11 agent, which needs none there",
    )
