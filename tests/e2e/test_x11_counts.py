"""What a plot over a distance costs, in numbers that don't depend on how busy the machine is.

The link is simulated (``tests.support.link``). Times are reported by ``scripts/bench x11`` only.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.link import Link
from tests.support.managers import window_manager
from tests.support.plotting import (
    COLOURS,
    PROGRAM,
    DrivenPlot,
    Watcher,
    parse_statistics,
    plot_environment,
)
from tests.support.processes import run, xssh_command
from tests.support.sshd import SshServer
from tests.support.tools import require_tool, skip_or_fail
from tests.support.xvfb import Xvfb

SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian has packages of GTK and Qt 5 for its own Python, and pip could not build them all."""

TK = "MPLBACKEND=TkAgg", sys.executable, "tkinter, matplotlib"
QT6 = "MPLBACKEND=QtAgg QT_API=PySide6", sys.executable, "PySide6.QtWidgets"
QT5 = "MPLBACKEND=QtAgg QT_API=PyQt5", SYSTEM_PYTHON, "PyQt5.QtWidgets, matplotlib"
GTK3 = "MPLBACKEND=GTK3Agg", SYSTEM_PYTHON, "numpy, matplotlib.backends.backend_gtk3agg"
TOOLKITS = {"Qt 6": (*QT6, 8), "Qt 5": (*QT5, 9), "GTK 3": (*GTK3, 16)}
"""Settings, Python, what it needs, and the most trips that are waited for until it is drawn.

GTK 3.24.38 waits for 9 of them, 3.24.49 for 15.
"""

XTERM_TRIPS = 18
STALE = 2
"""A window manager may act in the very moment of a question."""

RATE = 2.5e6
FRAMES = 12
TRIPS_PRIMED = 10
BYTES_A_REDRAW = 12_000


@pytest.fixture
def watcher(xvfb: Xvfb) -> Iterator[Watcher]:
    opened = Watcher(xvfb)
    yield opened
    opened.close()


@dataclass
class Distance:
    """A server behind a link, and what draws there."""

    link: Link
    argv: list[str]
    environment: dict[str, str]
    directory: Path

    def plot(self, *options: str) -> DrivenPlot:
        """Start a plot in a connection of its own."""
        command = f"{shlex.quote(sys.executable)} plot.py wait square"
        argv = [*xssh_command(), *self.argv, *options, "far", command]
        return DrivenPlot(argv, self.environment, self.directory)


@pytest.fixture(params=[0.0, 0.05], ids=["near", "far"])
def distance(
    request: pytest.FixtureRequest,
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    matplotlib_cache: Path,
    xvfb: Xvfb,
) -> Iterator[Distance]:
    environment = {**plot_environment(matplotlib_cache), "MPLBACKEND": "TkAgg"}
    server = make_sshd(environment=environment)
    (server.home / "plot.py").write_text(PROGRAM)
    link = Link((server.host, server.port), delay=request.param, rate=RATE)
    try:
        client_home.add(server, "far", extra=f"Port {link.port}\nHostKeyAlias far", known=False)
        with client_home.known_hosts.open("a") as file:
            file.write(server.known_hosts_lines("far"))
        yield Distance(link, client_home.arguments, client_home.environment(xvfb), client_home.path)
    finally:
        link.stop()


@pytest.mark.timeout(120)
def test_what_a_plot_costs(distance: Distance, watcher: Watcher) -> None:
    with distance.plot() as first:  # what it asked is known from now on
        first.hear("ready")
        first.tell("go")
        watcher.wait_for_mark(0)
        first.leave()
    watcher.wait_until_gone()

    with distance.plot("--stats") as plot:
        plot.hear("ready")
        plot.tell("go")
        plot.hear("shown")
        watcher.wait_for_mark(0)
        clients = parse_statistics(plot.leave())
    watcher.wait_until_gone()
    assert sum(client["trips"] for client in clients) <= TRIPS_PRIMED
    assert sum(client["wrong"] for client in clients) == 0
    assert sum(client["replies"] for client in clients) > 300

    with distance.plot("--stats") as plot:
        plot.hear("ready")
        plot.tell("go")
        plot.hear("shown")
        watcher.wait_for_mark(0)
        plot.tell("redraw", 2)  # the square's new colour is none of a plot's usual changes
        watcher.wait_for_mark(9)
        plot.hear("done")
        before = distance.link.carried_to_client
        plot.tell("redraw", FRAMES)
        plot.hear("done")
        clients = parse_statistics(plot.leave())
        carried = distance.link.carried_to_client - before
    if distance.link.delay:  # where nothing is far away, sending more may be the quicker way
        assert carried / FRAMES <= BYTES_A_REDRAW
    assert sum(client["wrong"] for client in clients) == 0
    assert sum(client["images"] for client in clients) >= FRAMES


@pytest.mark.timeout(120)
@pytest.mark.parametrize("toolkit", TOOLKITS)
def test_what_other_toolkits_wait_for(distance: Distance, watcher: Watcher, toolkit: str) -> None:
    """In the first session of all: nothing was learned before."""
    settings, python, needed, most = TOOLKITS[toolkit]
    environment = {**distance.environment, "HOME": str(distance.directory), "PATH": "/usr/bin:/bin"}
    check = run([python, "-c", f"import {needed}"], env=environment, timeout=60)
    if check.status != 0:
        skip_or_fail(f"{python} has no {toolkit}: {check.stderr.strip()[-200:]}")
    command = f"{settings} {shlex.quote(python)} plot.py now column"
    argv = [*xssh_command(), *distance.argv, "--stats", "far", command]
    with DrivenPlot(argv, distance.environment, distance.directory) as plot:
        plot.hear("begun")
        watcher.wait_for_mark(0, plot=plot)
        plot.hear("shown")
        clients = parse_statistics(plot.leave())
    watcher.wait_until_gone()
    assert sum(client["wrong"] for client in clients) == 0
    assert sum(client["replies"] for client in clients) > 100
    assert 0 < sum(client["trips"] for client in clients) <= most, clients


MANAGED = {"TkAgg": (TK, 13), "Qt 6": (QT6, 14), "GTK 3": (GTK3, 25)}
"""The most trips under a window manager, until it is drawn and gone again."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("toolkit", MANAGED)
def test_what_is_waited_for_under_a_window_manager(
    toolkit: str,
    make_xvfb: Callable[..., Xvfb],
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    matplotlib_cache: Path,
) -> None:
    (settings, python, needed), most = MANAGED[toolkit]
    xvfb = make_xvfb()
    server = make_sshd(environment=plot_environment(matplotlib_cache))
    (server.home / "plot.py").write_text(PROGRAM)
    environment = {**client_home.environment(xvfb), "PATH": "/usr/bin:/bin"}
    check = run([python, "-c", f"import {needed}"], env=environment, timeout=60)
    if check.status != 0:
        skip_or_fail(f"{python} has no {toolkit}: {check.stderr.strip()[-200:]}")
    link = Link((server.host, server.port), delay=0.05, rate=RATE)
    client_home.add(server, "far", extra=f"Port {link.port}\nHostKeyAlias far", known=False)
    with client_home.known_hosts.open("a") as file:
        file.write(server.known_hosts_lines("far"))
    command = f"{settings} {shlex.quote(python)} plot.py now column"
    argv = [*xssh_command(), *client_home.arguments, "-Y", "--stats", "far", command]
    watcher = Watcher(xvfb)
    try:
        with (
            window_manager("openbox", xvfb, client_home.path),
            DrivenPlot(argv, client_home.environment(xvfb), client_home.path) as plot,
        ):
            plot.hear("begun")
            watcher.wait_for_mark(0, plot=plot)
            plot.hear("shown")
            clients = parse_statistics(plot.leave())
    finally:
        watcher.close()
        link.stop()
    assert sum(client["wrong"] for client in clients) == 0
    assert sum(client["stale"] for client in clients) <= STALE
    assert 0 < sum(client["trips"] for client in clients) <= most, clients


@pytest.mark.timeout(120)
def test_what_an_xterm_waits_for(distance: Distance, watcher: Watcher) -> None:
    """Nearly all of it are fonts that this server has not."""
    require_tool("xterm")
    colour = f"-xrm '*color1: #{COLOURS[0]:06x}'"
    command = f"xterm {colour} -e sh -c \"printf '\\033[41m%2000s' ' '; sleep 3\""
    argv = [*xssh_command(), *distance.argv, "--stats", "far", command]
    with DrivenPlot(argv, distance.environment, distance.directory) as window:
        watcher.wait_for_mark(0, plot=window)
        window.process.wait(60)
        clients = parse_statistics(window.messages)
    assert sum(client["wrong"] for client in clients) == 0
    assert 0 < sum(client["trips"] for client in clients) <= XTERM_TRIPS
