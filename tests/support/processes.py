"""Start programs, find their descendants, end them for certain."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.support.warmstart import open_process, xssh_command

__all__ = ["xssh_command"]

_PR_SET_CHILD_SUBREAPER = 36
_HAS_PROC = os.path.isdir("/proc/self")
_TELLS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


class Completed(NamedTuple):
    """How a program ended: its status (negative: a signal), its output, its messages."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class Process:
    """One process as the kernel lists it."""

    pid: int
    parent: int
    state: str
    command: str


def run(
    argv: Sequence[str],
    *,
    stdin: bytes | int | None = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    cwd: str | os.PathLike[str] | None = None,
) -> Completed:
    """Run a program in a process group of its own and return how it ended.

    ``stdin`` is data, a descriptor, or None for the null device. After ``timeout`` seconds the
    group is killed and AssertionError tells what the program had said by then.
    """
    process = open_process(
        argv,
        stdin=subprocess.PIPE
        if isinstance(stdin, bytes)
        else subprocess.DEVNULL
        if stdin is None
        else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else dict(env),
        cwd=cwd,
    )
    try:
        stdout, stderr = process.communicate(
            stdin if isinstance(stdin, bytes) else None, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        stdout, stderr = process.communicate()
        raise AssertionError(
            f"{' '.join(argv)!r} still ran after {timeout:g} s.\n"
            f"stdout: {stdout[-2000:]!r}\nstderr: {stderr[-4000:].decode(errors='replace')}"
        ) from None
    except BaseException:
        kill_group(process.pid)
        process.communicate()
        raise
    return Completed(process.returncode, stdout, stderr.decode(errors="replace"))


def run_ssh(
    argv: Sequence[str],
    *,
    stdin: bytes | int | None = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    cwd: str | os.PathLike[str] | None = None,
) -> Completed:
    """Run OpenSSH's ssh, the oracle; ``argv`` is what follows ``ssh``."""
    return run(["ssh", *argv], stdin=stdin, env=env, timeout=timeout, cwd=cwd)


def run_xssh(
    argv: Sequence[str],
    *,
    stdin: bytes | int | None = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    cwd: str | os.PathLike[str] | None = None,
) -> Completed:
    """Run xssh as it lies in this checkout; ``argv`` is what follows ``xssh``."""
    return run([*xssh_command(), *argv], stdin=stdin, env=env, timeout=timeout, cwd=cwd)


def wait_until(
    condition: Callable[[], object], *, timeout: float = 10.0, what: str = "a condition"
) -> None:
    """Poll until ``condition()`` is true; AssertionError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.005
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends (Linux only).

    A daemon that a test leaves behind is then one of our children, and is seen.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def list_processes() -> dict[int, Process]:
    """Return every process of this machine that can be seen, by pid.

    On Linux ``command`` is the program's name alone.
    """
    if not _HAS_PROC:
        return _list_processes_by_ps()
    read = (_read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in read if process is not None}


def _read_process(pid: int) -> Process | None:
    """Return what /proc says of a process, its name for its command; None where it is gone."""
    text = _read_proc(f"/proc/{pid}/stat").decode(errors="replace")
    if not text:
        return None
    end = text.rindex(")")
    state, parent = text[end + 2 : end + 20].split(None, 2)[:2]
    return Process(pid, int(parent), state, text[text.index("(") + 1 : end])


def _list_folder(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _read_proc(path: str) -> bytes:
    """Return what a file below /proc says; nothing where the process ended while we looked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _list_processes_by_ps() -> dict[int, Process]:
    text = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat=,command="], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for line in text.splitlines():
        fields = line.split(None, 3)
        if len(fields) == 4 and not fields[3].startswith("ps -A"):
            pid = int(fields[0])
            found[pid] = Process(pid, int(fields[1]), fields[2][0], fields[3])
    return found


def find_descendants(root: int, *, ended: bool = False) -> list[Process]:
    """Return the living descendants of a process, children before grandchildren.

    With ``ended`` those too that ended and were not waited for.
    """
    if root == os.getpid() and not _has_children():
        return []
    find_children = _children_as_told if _TELLS_CHILDREN else _children_by_parents()
    found: list[Process] = []
    queue = [root]
    while queue:
        for child in find_children(queue.pop(0)):
            queue.append(child.pid)
            if ended or child.state != "Z":
                found.append(_with_arguments(child))
    return found


def _children_as_told(parent: int) -> list[Process]:
    """Return a process's children as the kernel lists them: a look at all processes takes longer.

    One may be left out of a list where another ends meanwhile. So there are two lists.
    """
    pids: dict[int, None] = {}
    for _ in range(2):
        for thread in _list_folder(f"/proc/{parent}/task"):
            text = _read_proc(f"/proc/{parent}/task/{thread}/children")
            pids.update(dict.fromkeys(map(int, text.split())))
    children = (_read_process(pid) for pid in pids)
    return [child for child in children if child is not None and child.parent == parent]


def _children_by_parents() -> Callable[[int], Sequence[Process]]:
    children: dict[int, list[Process]] = {}
    for process in list_processes().values():
        children.setdefault(process.parent, []).append(process)
    return lambda parent: children.get(parent, ())


def _with_arguments(process: Process) -> Process:
    if not _HAS_PROC:
        return process
    text = _read_proc(f"/proc/{process.pid}/cmdline").replace(b"\0", b" ")
    return replace(process, command=text.decode(errors="replace").strip() or process.command)


def _has_children() -> bool:
    """Tell whether this process has any, running or ended: orphans below it become its own."""
    try:
        has_ended_child()
    except ChildProcessError:
        return False
    return True


def has_ended_child() -> bool:
    """Tell whether a child has ended and was not waited for. ChildProcessError where there is none.

    It costs less than a look at all processes; where that is the only way, True.
    """
    if sys.platform != "linux":
        return True
    return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def freeze_tree(root: int) -> list[int]:
    """Stop a process and all below it; return their pids, the root's first.

    A list of running processes is out of date at once: one that forks meanwhile escapes it.
    """
    frozen = [root]
    send_signal(root, signal.SIGSTOP)
    while True:
        new = [found.pid for found in find_descendants(root) if found.pid not in frozen]
        if not new:
            return frozen
        for pid in new:
            send_signal(pid, signal.SIGSTOP)
        frozen += new


def is_alive(pid: int) -> bool:
    """Tell whether a process still runs; one that ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if _HAS_PROC:
        try:
            with open(f"/proc/{pid}/stat", "rb") as stat:
                return stat.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
        except OSError:
            return False
    process = list_processes().get(pid)
    return process is None or process.state != "Z"


def catches_signal(pid: int, number: int) -> bool:
    """Tell whether a process has a handler of its own for a signal."""
    text = _read_proc(f"/proc/{pid}/status").decode(errors="replace")
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", text, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(leader: int) -> None:
    """Kill a process group that a program of ours leads."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        send_signal(leader, signal.SIGKILL)


def end_processes(pids: Iterable[int], *, grace: float = 2.0) -> None:
    """End processes: a request first, and force for those that live ``grace`` seconds later."""
    left = list(pids)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            send_signal(pid, number)
            send_signal(pid, signal.SIGCONT)
        deadline = time.monotonic() + grace
        while left and time.monotonic() < deadline:
            left = [pid for pid in left if is_alive(pid)]
            if left:
                time.sleep(0.01)
        if not left:
            return


def end_popen(process: subprocess.Popen[bytes], *, grace: float = 2.0) -> None:
    """End a program that we started, with all its descendants, and wait for it."""
    if process.poll() is None:
        end_processes(freeze_tree(process.pid), grace=grace)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            # Unsent input of a program that is gone.
            with contextlib.suppress(OSError):
                stream.close()
