"""How the agent ends, whatever ends it: no process, socket or file stays behind, and who loses a
window is told why.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.agenthost import AgentHost
from tests.support.link import Link
from tests.support.plotting import parse_statistics
from tests.support.processes import send_signal, wait_until
from tests.support.xvfb import Xvfb

SUPPORT = Path(__file__).parents[1] / "support"
XCLIENT = f"{shlex.quote(sys.executable)} {shlex.quote(str(SUPPORT / 'xclient.py'))}"
STAYS = f"echo $DISPLAY; {XCLIENT} l stay 30; echo status=$?"
STAY = f"{STAYS}; exit 4"


def port_of(output: str) -> int:
    found = re.search(r"localhost:(\d+)\.", output)
    assert found is not None, output
    return 6000 + int(found[1])


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_normal_end(host: AgentHost) -> None:
    with host.start(STAY.replace("30", "1")) as session:
        session.wait_for_output("in\n")
        (agent,) = host.agents()
        assert is_listening(port_of(session.stdout))
        (place,) = host.traces()
        assert os.stat(place).st_mode & 0o777 == 0o700
        assert os.stat(f"{place}/Xauthority").st_mode & 0o777 == 0o600
        done = host.wait(session)
    done.require_flawless()
    assert (done.status, done.stderr) == (4, "")
    host.wait_until_clean()
    wait_until(lambda: not os.path.exists(f"/proc/{agent}"), what="the end of the agent")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_statistics_are_told_at_the_end(host: AgentHost, number: signal.Signals) -> None:
    """Whatever ends the session: of clients that are gone, and of those that are here."""
    with host.start(f"{XCLIENT} l burst 500; {STAY}", "--stats") as session:
        session.wait_for_output("in\n")
        session.signal(number)
        session.process.wait(10)
        rows = parse_statistics(session.stderr)
    assert rows[0]["requests"] > 500
    assert rows[0]["at once"] > 0
    assert len(rows) == 2, session.stderr
    assert all(row["wrong"] == 0 for row in rows)
    host.wait_until_clean()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_xssh_is_killed(host: AgentHost, number: signal.Signals) -> None:
    with host.start(STAY) as session:
        session.wait_for_output("in\n")
        session.signal(number)
        assert session.process.wait(10) == (-9 if number == signal.SIGKILL else 255)
        host.wait_until_clean()


def test_the_servers_session_is_killed(host: AgentHost) -> None:
    """sshd's process for this session dies; agent, shell and client are left without it."""
    with host.start(STAY) as session:
        session.wait_for_output("in\n")
        (agent,) = host.agents()
        for pid in host.server.session_servers():
            send_signal(pid, signal.SIGKILL)
        done = host.wait(session)
        wait_until(lambda: not os.path.exists(f"/proc/{agent}"), what="the end of the agent")
        wait_until(lambda: not host.traces(), what="the end of its files")
    assert done.status == 255
    # As with ssh, the second where something was being written at that moment.
    assert re.search("closed by remote host|send disconnect: Broken pipe", done.stderr)
    assert "agent" not in done.stderr


def test_the_network_goes_away(host: AgentHost) -> None:
    """First nothing arrives any more, then the connection is reset: clients there lose theirs."""
    said = host.server.home / "said"
    said.unlink(missing_ok=True)
    command = f"trap '' HUP; {XCLIENT} l stay 30 >said; echo status=$? >>said"
    link = Link((host.server.host, host.server.port), delay=0.001)
    try:
        options = ["-o", f"Port={link.port}", "-o", f"HostKeyAlias={host.server.known_hosts_name}"]
        with host.start(command, *options) as session:
            wait_until(lambda: said.exists() and said.read_text(), what="the client")
            link.delay = 1000.0
            time.sleep(0.3)
            assert session.runs
            link.stop()
            done = host.wait(session)
        assert done.status == 255
        assert re.search("Connection (reset|closed)|closed by", done.stderr), done.stderr
        host.wait_until_clean()
        wait_until(lambda: "status=" in said.read_text(), what="the client's end")
        assert re.fullmatch("in\n(closed|reset)\nright\nstatus=0\n", said.read_text())
    finally:
        if link._thread.is_alive():
            link.stop()


def test_the_agent_is_killed(host: AgentHost) -> None:
    """The shell lives, and is told; the next agent takes away what this one could not."""
    with host.start(f"{STAYS}; sleep 0.3; xdpyinfo; exit 4") as session:
        session.wait_for_output("in\n")
        (agent,) = host.agents()
        send_signal(agent, signal.SIGKILL)
        done = host.wait(session)
    assert (done.status, done.stdout.splitlines()[-2:]) == (4, [b"right", b"status=0"])
    assert b"\nclosed\n" in done.stdout or b"\nreset\n" in done.stdout
    assert "xssh: X11: the remote agent was ended by SIGKILL, and its windows with it\n" in (
        done.stderr.replace("ended with status 137", "was ended by SIGKILL")
    )
    assert "unable to open display" in done.stderr
    assert len(host.traces()) == 1
    assert host.run("exit 3").status == 3
    host.wait_until_clean()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_agent_is_asked_to_end(host: AgentHost, number: signal.Signals) -> None:
    with host.start("sleep 0.2; read line; exit 4") as session:
        wait_until(lambda: host.agents() and host.traces(), what="the agent")
        time.sleep(0.3)
        for agent in host.agents():
            send_signal(agent, number)
        host_done = host.wait(session)
    assert host_done.status == 4
    wait_until(lambda: not host.traces(), what="the end of its files")


def test_the_x_server_goes_away_and_another_comes(
    host: AgentHost, make_xvfb: Callable[..., Xvfb]
) -> None:
    # A number that no other test's server looks for while this one's is free.
    number = 10000 + os.getpid() % 40000
    server = make_xvfb(arguments=(f":{number}", "-extension", "XTEST"))
    command = (
        f"{STAYS}; xdpyinfo >/dev/null; echo second=$?; touch $HOME/gone; "
        "while test -e $HOME/gone; do sleep 0.05; done; "
        "xdpyinfo | grep -c XTEST; xprop -root -len 9 XSSH_NEW; exit 4"
    )
    gone = host.server.home / "gone"
    environment = {**server.environment(), "XAUTHORITY": server.authority}
    with host.start(command, env=environment) as session:
        session.wait_for_output("in\n")
        server.kill()
        session.wait_for_output("second=")
        wait_until(gone.exists, what="the shell")
        another = restart(server, make_xvfb)
        gone.unlink()
        done = host.wait(session)
    another.stop()
    lines = done.stdout.decode().splitlines()
    assert done.status == 4
    assert lines[2] in ("closed", "reset")
    assert lines[3:] == [
        *("right", "status=0", "second=1", "1"),
        "XSSH_NEW:  no such atom on any window.",
    ], done
    # Where the second client comes within the moment of patience, what it met is told instead.
    assert re.search(
        "xssh: X11: the local X server ended, and all windows with it\n"
        "|xssh: X11 connection failed: local X server: cannot open display",
        done.stderr,
    )
    # The second client is refused in words; one that came before the news loses its connection.
    assert re.search("xssh: the local X server cannot be reached|XIO: +fatal IO error", done.stderr)
    assert done.mispredictions == 0


def restart(server: Xvfb, make_xvfb: Callable[..., Xvfb]) -> Xvfb:
    """Start another X server with the number and the cookie of one that is gone."""

    class Again(Xvfb):
        def __init__(self) -> None:
            self.directory = server.directory
            self.cookie, self.authority = server.cookie, server.authority
            self._log = server.directory / "log2"
            argv = ["Xvfb", server.display, "-screen", "0", "640x480x24", "-nolisten", "tcp"]
            auth = ["-noreset", "-auth", str(server.directory / "server-authority")]
            self._start([*argv, *auth])

    return Again()


def test_hundreds_of_clients_leave_nothing(host: AgentHost, make_xvfb: Callable[..., Xvfb]) -> None:
    """Ten at a time: the pool is filled again, no connection stays, memory does not grow."""
    server = make_xvfb()
    measured = "seq 100 | xargs -P 10 -I{} xdpyinfo >/dev/null"
    wait = "touch $HOME/$1; while test -e $HOME/$1; do sleep 0.05; done"
    command = (
        f"stop() {{ {wait}; }}; run() {{ {measured}; }}; run; stop one; run; run; stop two; "
        f"{XCLIENT} l burst 100"
    )
    stops = [host.server.home / name for name in ("one", "two")]
    memory, connections = [], []
    with host.start(command, env=server.environment()) as session:
        for stop in stops:
            wait_until(stop.exists, timeout=60, what=f"the {stop.name}")
            time.sleep(0.3)
            (agent,) = host.agents()
            memory.append((resident(agent), resident(session.process.pid)))
            connections.append(len(os.listdir(f"/proc/{server.process.pid}/fd")))
            stop.unlink()
        done = host.wait(session, 60)
    done.require_flawless()
    assert (done.status, done.stdout) == (0, b"right\n")
    assert connections[0] == connections[1]
    for before, after in zip(memory[0], memory[1], strict=True):
        assert after - before < 3000, memory  # the heap finds its size


def resident(pid: int) -> int:
    """Return what a process has in memory (KiB)."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found is not None
    return int(found[1])
