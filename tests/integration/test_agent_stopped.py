"""An agent that is stopped or killed under a session: the session's end comes all the same."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.agenthost import AgentHost
from tests.support.processes import send_signal, wait_until

MOMENTS = {
    "before a client": "sleep 0.5; echo out; exit 3",
    "behind a client": "xdpyinfo >/dev/null; echo seen; sleep 0.5; echo out; exit 3",
    "under a client": "xprop -spy -root >/dev/null 2>&1 & echo seen; sleep 0.5; kill $!; echo out; "
    "exit 3",
}
PATIENCE = 8.0
QUICK = "import xsshpy.x11.agent_relay as _r; _r.SILENCE = _r.ANSWER_TIME = 0.4\n"


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("before a client", signal.SIGSTOP),
        ("behind a client", signal.SIGSTOP),
        ("under a client", signal.SIGKILL),
    ],
)
def test_the_session_goes_on_and_ends(host: AgentHost, moment: str, number: signal.Signals) -> None:
    with host.start(MOMENTS[moment], "-Y", before=QUICK) as session:
        wait_until(lambda: bool(host.agents()), what="the agent")
        if "seen" in MOMENTS[moment]:
            session.wait_for_output("seen\n")
        else:
            session.wait_for_message("X11: by the agent")
        (agent,) = host.agents()
        send_signal(agent, number)
        began = time.monotonic()
        try:
            done = host.wait(session, PATIENCE + 5)
        finally:
            if number == signal.SIGSTOP:  # it finds that its session is gone, and goes
                send_signal(agent, signal.SIGCONT)
    assert (done.status, done.stdout[-4:]) == (3, b"out\n"), done
    assert time.monotonic() - began < PATIENCE
    # What a killed one could not take away, the next one does.
    if number == signal.SIGKILL:
        assert host.run("exit 3", "-Y").status == 3
    host.wait_until_clean()


WINDOW = "xprop -spy -root >/dev/null 2>&1 & echo $! seen; "
SAID = "xssh: X11: the agent on the other host does not answer: windows stand still"


@pytest.mark.parametrize("behind", ["sleep 0.1", "sleep 4"])
def test_windows_of_a_stopped_agent_are_not_waited_for(host: AgentHost, behind: str) -> None:
    with host.start(f"{WINDOW}{behind}; exit 3", "-Y", before=QUICK) as session:
        session.wait_for_output("seen\n")
        (agent,) = host.agents()
        send_signal(agent, signal.SIGSTOP)
        try:
            done = host.wait(session, PATIENCE)
        finally:
            send_signal(agent, signal.SIGCONT)
    assert done.status == 3
    assert done.stderr.count(SAID) == 1, done
    host.wait_until_clean()


def test_windows_that_stood_still_go_on(host: AgentHost) -> None:
    command = f"{WINDOW}read word; xdpyinfo >/dev/null && echo again; kill $!; exit 3"
    fifo = host.home.path / "go"
    os.mkfifo(fifo)
    with host.start(command.replace("read word", f"cat {fifo}"), "-Y", before=QUICK) as session:
        session.wait_for_output("seen\n")
        (agent,) = host.agents()
        send_signal(agent, signal.SIGSTOP)
        try:
            session.wait_for_message(SAID)
        finally:
            send_signal(agent, signal.SIGCONT)
        fifo.write_text("")
        done = host.wait(session)
    assert (done.status, done.stdout[-6:]) == (3, b"again\n"), done
    assert done.stderr.count(SAID) == 1, done
