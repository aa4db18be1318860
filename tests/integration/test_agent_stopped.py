"""An agent that is stopped or killed under a session: the session's end comes all the same."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("before a client", signal.SIGSTOP),
        ("behind a client", signal.SIGSTOP),
        # As ssh, xssh waits for windows that a stopped agent does not say are closed.
        ("under a client", signal.SIGKILL),
    ],
)
def test_the_session_goes_on_and_ends(host: AgentHost, moment: str, number: signal.Signals) -> None:
    with host.start(MOMENTS[moment], "-Y") as session:
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
