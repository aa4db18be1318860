"""The parts of ``scripts/soak`` with windows: many sessions, and one that draws for a long time.

sessions  sessions of their own connection, each with X11 by the agent and a client; then as many
          through one master of xssh's
plots     one session in which matplotlib (or, without it, xdpyinfo) opens window after window

What xssh and the agent hold is told in quarters: caches are full after two, then it may not grow.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.support.agenthost import AgentHost
from tests.support.clients import ClientHome
from tests.support.masters import open_descriptors
from tests.support.processes import wait_until
from tests.support.sshd import KeyRing, ServerOptions, SshServer
from tests.support.xvfb import Xvfb

QUARTERS = 4
AT_ONCE = 4
ALLOWED = 2000
"""Growth of a process after the second quarter that is no leak (kB)."""
LONG_SECONDS, LONG_SESSIONS = 120, 100
"""From when on a run says something about memory."""
PLOTS = """
import sys, time
import matplotlib
matplotlib.use("TkAgg")
import matplotlib.pyplot as plt
from random import random
until = time.time() + float(sys.argv[1])
count = 0
while time.time() < until:
    plt.plot([random() for _ in range(500)])
    plt.show(block=False)
    plt.pause(0.02)
    plt.close("all")
    count += 1
    if count % 10 == 0:
        print(count, flush=True)
print("drawn", count, flush=True)
"""
WITHOUT_MATPLOTLIB = (
    "n=0; end=$(($(date +%s)+{seconds})); while [ $(date +%s) -lt $end ]; do "
    "xdpyinfo >/dev/null || exit 1; n=$((n+1)); done; echo drawn $n"
)


@contextmanager
def windows(keys: KeyRing) -> Iterator[AgentHost]:
    """Yield a host that is reached from a HOME with a display; nothing may be left on either."""
    with tempfile.TemporaryDirectory(prefix="sx-") as name:
        places = {each: Path(name, each) for each in ("home", "run", "tmp", "far", "account")}
        for path in places.values():
            path.mkdir(mode=0o700)
        options = ServerOptions(
            environment={"TMPDIR": str(places["far"])},
            shell="/bin/bash",
            config="MaxSessions 100\nMaxStartups 100",
        )
        server = SshServer(Path(name, "sshd"), keys, options)
        display = Xvfb(Path(name, "xvfb"))
        try:
            home = ClientHome(places["home"], places["run"], places["tmp"], places["account"])
            host = AgentHost(server, home, display)
            yield host
            wait_until(lambda: not (host.agents() or host.traces()), timeout=20, what="an end")
            left = [str(path) for key in ("run", "tmp") for path in places[key].iterdir()]
            assert not left, f"left behind: {left}"
        finally:
            display.stop()
            server.stop()


class Flat:
    """What processes hold, looked at in quarters."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[int, int]]] = {}

    def look(self, processes: dict[str, int]) -> None:
        for name, pid in processes.items():
            text = Path(f"/proc/{pid}/status").read_text()
            memory = int(text.partition("VmRSS:")[2].split()[0])
            self._seen.setdefault(name, []).append((memory, open_descriptors(pid)))

    def judge(self, is_long: bool) -> list[str]:
        """Tell what was seen; return what grew. In a short run caches are still being filled."""
        wrong = []
        for name, seen in self._seen.items():
            shown = ", ".join(f"{memory / 1000:.1f} MB/{files}" for memory, files in seen)
            print(f"  {name} (memory/descriptors): {shown}", flush=True)
            grew = is_long and seen[-1][0] > seen[1][0] + ALLOWED
            if grew or seen[-1][1] > seen[0][1] + 2:
                wrong.append(f"{name} grew: {shown}")
        return wrong


def run_sessions(keys: KeyRing, options: argparse.Namespace) -> list[str]:
    """Part ``sessions``."""
    wrong: list[str] = []
    with windows(keys) as host:

        def visit(*words: str) -> None:
            done = host.run("xdpyinfo >/dev/null && echo seen", "-Y", *words, timeout=120)
            if (done.status, done.stdout) != (0, b"seen\n"):
                wrong.append(f"{done.status} {done.stdout!r} {done.stderr}")

        def go(*words: str, look: Callable[[], None] = lambda: None) -> None:
            began = time.monotonic()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for _ in range(QUARTERS):
                    list(pool.map(lambda _: visit(*words), range(options.sessions // QUARTERS)))
                    look()
            took = time.monotonic() - began
            way = "one master" if words[1:] != ("none",) else "connections of their own"
            print(f"  {options.sessions} sessions through {way} in {took:.0f} s", flush=True)

        go("-S", "none")
        wait_until(lambda: not host.server.sessions(), timeout=20, what="an end of all sessions")
        path = f"{host.home.runtime}/m"
        flat = Flat()
        with host.start("sleep 100000", "-Y", "-M", "-S", path) as master:
            wait_until(lambda: Path(path).exists(), timeout=20, what="the master's socket")
            visit("-S", path)
            processes = {"master": master.process.pid, "agent": host.agents()[0]}
            go("-S", path, look=lambda: flat.look(processes))
        wrong += flat.judge(options.sessions >= LONG_SESSIONS)
    return wrong


def run_plots(keys: KeyRing, options: argparse.Namespace) -> list[str]:
    """Part ``plots``."""
    flat, quarter = Flat(), options.seconds / QUARTERS
    with windows(keys) as host:
        has_plots = not subprocess.run(
            ["/usr/bin/python3", "-c", "import matplotlib"], capture_output=True, check=False
        ).returncode
        script = host.server.home / "plots.py"
        script.write_text(PLOTS)
        command = f"/usr/bin/python3 {script} {options.seconds}"
        if not has_plots:
            command = WITHOUT_MATPLOTLIB.format(seconds=int(options.seconds))
        with host.start(command, "-Y") as session:
            wait_until(lambda: bool(host.agents()), timeout=20, what="the agent")
            processes = {"xssh": session.process.pid, "agent": host.agents()[0]}
            for _ in range(QUARTERS):
                time.sleep(max(0.0, quarter - 0.5))
                flat.look(processes)
            done = host.wait(session, 60)
        last = done.stdout.decode().splitlines()[-1:]
        print(f"  {last}, {done.mispredictions} mispredictions", flush=True)
        wrong = [] if done.status == 0 and done.went_by_agent else [f"{done.status}: {done.stderr}"]
    return wrong + flat.judge(options.seconds >= LONG_SECONDS)


RUNS: dict[str, Callable[[KeyRing, argparse.Namespace], list[str]]] = {
    "sessions": run_sessions,
    "plots": run_plots,
}
