"""The local X server, the agent and xssh killed, and stopped for a while, at stages of a session.

A row is who, a stage and a signal. The session ends with its own status, and nothing stays behind.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.support.agenthost import AgentHost
from tests.support.processes import send_signal
from tests.support.xvfb import Xvfb

WINDOW = "xprop -spy -root >/dev/null 2>&1 & echo seen; cat {go}; kill $! 2>/dev/null; "
STAGES = {
    "before the connection": ("", "echo seen; cat {go}; "),
    "after the grant": ("seen\n", "echo seen; cat {go}; "),
    "under a window": ("seen\n", WINDOW),
    "in the middle of pictures": ("seen\n", "xdpyinfo >/dev/null; echo seen; x11perf -putimage500 "
        "-time 1 -repeat 1 >/dev/null 2>&1 & cat {go}; kill $! 2>/dev/null; "),
    "while the last window closes": ("seen\n", WINDOW + "kill -9 $! 2>/dev/null; "),
}  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda each: each.name)
@pytest.mark.parametrize("stage", STAGES)
def test_the_x_server(
    host: AgentHost, make_xvfb: Callable[..., Xvfb], stage: str, number: signal.Signals
) -> None:
    """What follows a stop runs as if nothing had been; after a death it has no display."""
    sign, command = STAGES[stage]
    server = make_xvfb()
    go = host.home.path / f"go-{time.monotonic_ns()}"
    os.mkfifo(go)
    words = command.format(go=go) + "xdpyinfo >/dev/null 2>&1; echo shown=$?; exit 3"
    if not sign:
        send_signal(server.process.pid, number)
    with host.start(words, "-Y", env=server.environment()) as session:
        session.wait_for_output("seen\n")
        if sign:
            send_signal(server.process.pid, number)
        if number == signal.SIGSTOP:
            time.sleep(0.2)
            send_signal(server.process.pid, signal.SIGCONT)
        else:
            server.process.wait(10)
        go.write_text("")
        done = host.wait(session, 20)
    assert done.status == 3, done
    assert "Traceback" not in done.details and "internal error" not in done.details
    shown = 0 if number == signal.SIGSTOP else 1
    assert f"shown={shown}\n" in done.stdout.decode(), done
    host.wait_until_clean()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda each: each.name)
@pytest.mark.parametrize("stage", [name for name, (sign, _) in STAGES.items() if sign])
@pytest.mark.parametrize("who", ["agent", "xssh"])
def test_the_ends_of_the_link(
    host: AgentHost, who: str, stage: str, number: signal.Signals
) -> None:
    """What the agent's death leaves, the next session takes away; xssh's takes all along."""
    sign, command = STAGES[stage]
    go = host.home.path / f"go-{time.monotonic_ns()}"
    os.mkfifo(go)
    words = command.format(go=go) + "xdpyinfo >/dev/null 2>&1; echo shown=$?; exit 3"
    with host.start(words, "-Y") as session:
        session.wait_for_output(sign)
        (agent,) = host.agents()
        pid = agent if who == "agent" else session.process.pid
        send_signal(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(0.2)
            send_signal(pid, signal.SIGCONT)
        is_over = who == "xssh" and number == signal.SIGKILL
        if is_over:
            assert session.process.wait(10) == -number
            os.close(os.open(go, os.O_RDWR))  # what waits for it over there
        else:
            go.write_text("")
            done = host.wait(session, 20)
            shown = 0 if number == signal.SIGSTOP else 1
            assert (done.status, f"shown={shown}\n" in done.stdout.decode()) == (3, True), done
            assert "Traceback" not in done.details and "internal error" not in done.details
    if who == "agent" and number == signal.SIGKILL:
        assert host.run("exit 3", "-Y").status == 3
    host.wait_until_clean()
