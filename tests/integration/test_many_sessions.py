"""Two hundred short sessions: no descriptor, process, thread or file stays behind.

Most of them run in a few processes, one session after the other, where anything left over adds
up and is seen; the rest are processes of their own, several at a time. The fixture around every
test looks for processes and files that outlive their session.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration._pairs import Pair
from tests.support.clients import ClientHome
from tests.support.processes import end_popen
from tests.support.sshd import SshServer
from tests.support.xvfb import Xvfb

SESSIONS_PER_PROCESS = 40
PROCESSES = 2
SINGLE_SESSIONS = 20

LOOP = """
import gc, os, sys, threading, time
sys.path.insert(0, {root!r})
from xsshpy.__main__ import parse_command_line
from xsshpy.run import run

def look():
    gc.collect()
    descriptors = {{}}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue  # that of the listing
        if not os.path.basename(target) in ("passwd", "group"):  # libnss_wrapper keeps them open
            descriptors[int(name)] = target
    with open(f"/proc/self/task/{{os.getpid()}}/children") as children:
        return len(descriptors), children.read().split(), threading.active_count(), descriptors

first = None
output = os.dup(1)  # a run lets go of it
for number in range({count}):
    os.dup2(output, 1)
    invocation = parse_command_line(sys.argv[1:] + [f"echo {{number}}; exit {{number % 100}}"])
    status = run(invocation, os.environ)
    if status != number % 100:
        sys.exit(f"session {{number}} ended with {{status}}")
    if number == 4:
        first = look()
def has_grown():
    return last[0] > first[0] or len(last[1]) > len(first[1]) or last[2] > first[2]

last = look()
deadline = time.monotonic() + 5  # what is just ending is no leak
while has_grown() and time.monotonic() < deadline:
    time.sleep(0.05)
    last = look()
if has_grown():
    sys.exit(f"after 5: {{first}}; after {{number + 1}}: {{last}}")
"""


def start_loop(
    pair: Pair, count: int, env: dict[str, str], words: Sequence[str]
) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    argv = [sys.executable, "-c", LOOP.format(root=root, count=count), *pair.home.arguments, *words]
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
    )


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")


@needs_proc
def test_a_hundred_sessions_leave_nothing(pair: Pair) -> None:
    assert SESSIONS_PER_PROCESS * PROCESSES + SINGLE_SESSIONS == 100
    before = len(os.listdir(f"/proc/{pair.server.process.pid}/fd"))
    loops = [
        start_loop(pair, SESSIONS_PER_PROCESS, pair.environment, ["server"])
        for _ in range(PROCESSES)
    ]
    try:
        expected = "".join(f"{number}\n" for number in range(SESSIONS_PER_PROCESS)).encode()
        for process in loops:
            out, err = process.communicate(timeout=110)
            assert (process.returncode, out, err.decode()) == (0, expected, "")
    finally:
        for process in loops:
            end_popen(process)

    def single(number: int) -> tuple[int, bytes, str]:
        return tuple(
            pair.run("xssh", ["server", f"cat; exit {number}"], stdin=b"%d" % number, timeout=60)
        )

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(single, range(SINGLE_SESSIONS)))
    assert results == [(number, b"%d" % number, "") for number in range(SINGLE_SESSIONS)]
    pair.server.wait_until_idle()
    assert len(os.listdir(f"/proc/{pair.server.process.pid}/fd")) == before


@needs_proc
def test_sessions_with_x11_leave_nothing(
    sshd: SshServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    (sshd.home / ".Xauthority").touch(mode=0o600)
    client_home.add(sshd)
    pair = Pair(sshd, client_home)
    environment = client_home.environment(xvfb)
    process = start_loop(pair, 15, environment, ["-Y", "server", 'test -n "$DISPLAY" || exit 250;'])
    try:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, len(out.splitlines()), err.decode()) == (0, 15, "")
    finally:
        end_popen(process)
    sshd.wait_until_idle()


@needs_proc
def test_sessions_that_fail_leave_nothing(pair: Pair) -> None:
    """The login refused, the port closed, the host unknown: each time all is put away."""
    loop = LOOP.replace("status != number % 100", "status != 255")
    root = str(Path(__file__).parents[2])
    for words in (["-p1", "server"], ["-oPubkeyAuthentication=no", "server"], ["-x", "no.invalid"]):
        argv = [sys.executable, "-c", loop.format(root=root, count=12), "-q", *pair.home.arguments]
        process = subprocess.run(
            [*argv, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=pair.environment,
            timeout=60,
        )
        assert (process.returncode, process.stdout, process.stderr.decode()) == (0, b"", "")
    pair.server.wait_until_idle()
