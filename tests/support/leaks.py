"""What a test left behind: processes, descriptors, threads, files.

A look is taken before the test and after it. What is new then gets a few seconds to go away (a
session that is just ending is no leak); what stays is described, and processes are ended so that
the next test is not blamed for them.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import end_processes, find_descendants, has_ended_child
from tests.support.warmstart import list_starters

SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Snapshot:
    """What there was at one moment: pids below this process, descriptors, threads, files."""

    processes: frozenset[tuple[int, str]]
    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[tuple[int, str]]
    files: frozenset[str]


class LeakCheck:
    """Compares the world before a test with the world after it.

    ``directories``: where nothing may be left, such as the test's own TMPDIR.
    ``long_lived``: pids that outlive a test on purpose (the session's X server); kept by
    reference, so that a fixture may add one while a test runs.
    """

    def __init__(self, directories: Iterable[Path], long_lived: set[int]) -> None:
        self._directories = tuple(directories)
        self._long_lived = long_lived
        self._before = self._look()

    def _look(self) -> Snapshot:
        return Snapshot(
            frozenset((found.pid, found.command) for found in find_descendants(os.getpid())),
            frozenset(_list_descriptors()),
            frozenset(
                (thread.ident or 0, thread.name)
                for thread in threading.enumerate()
                if not thread.daemon
            ),
            frozenset(_list_files(self._directories)),
        )

    def find_leaks(self) -> list[str]:
        """Return a line for each thing left behind; empty when all is as before."""
        deadline = time.monotonic() + SETTLE_SECONDS
        pause = 0.005
        while True:
            _reap_orphans()
            leaks, pids = self._compare(self._look())
            if not leaks:
                return []
            if pause < 0.02:
                gc.collect()
            if time.monotonic() > deadline:
                end_processes(pids)
                _reap_orphans()
                return leaks
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def _compare(self, after: Snapshot) -> tuple[list[str], list[int]]:
        before = self._before
        known = {pid for pid, _ in before.processes} | self._long_lived
        starters = list_starters()
        known |= {starter.process.pid for starter in starters}
        processes = sorted(item for item in after.processes if item[0] not in known)
        leaks = [f"process {pid} still runs: {command}" for pid, command in processes]
        leaks += [
            f"descriptor {number} is still open: {target}"
            for number, target in sorted(after.descriptors - before.descriptors)
            if number not in {starter.control.fileno() for starter in starters}
        ]
        leaks += [
            f"thread {name!r} still runs" for _, name in sorted(after.threads - before.threads)
        ]
        leaks += [f"file left behind: {path}" for path in sorted(after.files - before.files)]
        return leaks, [pid for pid, _ in processes]


def _list_descriptors() -> list[tuple[int, str]]:
    directory = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    found = []
    for name in os.listdir(directory):
        try:
            target = os.readlink(f"{directory}/{name}") if sys.platform == "linux" else ""
            os.fstat(int(name))
        except OSError:
            continue  # the descriptor of the listing itself
        if target != "/dev/urandom":
            found.append((int(name), target))
    return found


def _list_files(directories: Iterable[Path]) -> list[str]:
    found = []
    for directory in directories:
        for parent, folders, files in os.walk(directory):
            found += [os.path.join(parent, name) for name in (*folders, *files)]
    return found


_started: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()


def remember_children() -> None:
    """Know from now on which children were started here: the others are orphans."""
    start = subprocess.Popen.__init__

    @functools.wraps(start)
    def start_and_remember(self: subprocess.Popen[bytes], *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        _started.add(self)

    subprocess.Popen.__init__ = start_and_remember  # type: ignore[method-assign, assignment]


def _reap_orphans() -> None:
    """Collect adopted processes that have ended; a Popen of the test's own is left to it."""
    for pid in _zombie_children():
        if pid not in {process.pid for process in _started}:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _zombie_children() -> list[int]:
    try:
        if not has_ended_child():
            return []
    except ChildProcessError:
        return []
    me = os.getpid()
    ended = find_descendants(me, ended=True)
    return [found.pid for found in ended if found.parent == me and found.state == "Z"]
