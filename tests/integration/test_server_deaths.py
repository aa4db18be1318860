"""sshd's process of a session killed, ended, and stopped for a while, with and without windows.

A row is what the session is doing, and the signal. A process that is gone ends the session with
255, in ssh's words; one that was stopped goes on as if nothing had been.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.agenthost import AgentHost
from tests.support.processes import send_signal, wait_until

MOMENTS = {
    "waits": "echo seen; cat {go}; echo out; exit 3",
    "prints": "echo seen; timeout 0.6 yes; cat {go}; echo out; exit 3",
    "has a window": "xprop -spy -root >/dev/null 2>&1 & echo seen; cat {go}; xdpyinfo >/dev/null "
    "|| exit 9; kill $!; echo out; exit 3",
}
ENDS = (signal.SIGKILL, signal.SIGTERM)


def find_session_server(host: AgentHost) -> int:
    """Return the sshd that carries the connection."""
    return host.server.session_servers()[-1]


@pytest.mark.parametrize("number", [*ENDS, signal.SIGSTOP], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_servers_process_of_a_session(
    host: AgentHost, moment: str, number: signal.Signals
) -> None:
    go = host.home.path / f"go-{time.monotonic_ns()}"
    os.mkfifo(go)
    with host.start(MOMENTS[moment].format(go=go), "-Y") as session:
        session.wait_for_output("seen\n")
        server = find_session_server(host)
        send_signal(server, number)
        if number == signal.SIGSTOP:
            time.sleep(0.3)
            send_signal(server, signal.SIGCONT)
            go.write_text("")
        done = host.wait(session, 20)
    if number in ENDS:
        assert done.status == 255, done
        assert "closed by remote host" in done.stderr or "Broken pipe" in done.stderr, done.stderr
    else:
        assert (done.status, done.stdout[-4:]) == (3, b"out\n"), done
    assert "Traceback" not in done.details and "internal error" not in done.details
    if number in ENDS:  # what waits for the FIFO over there
        os.close(os.open(go, os.O_RDWR))
        host.wait_until_clean()
    wait_until(lambda: not host.agents(), what="the agent's end")
