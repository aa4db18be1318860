"""The differential table once more, through shared connections: ssh and xssh as master and as
passenger, in all combinations, have to do what ssh does through a master of ssh's.

Left out is what a passenger has no say in: the login, the host key, the algorithms; and what needs
no connection. ``tests/support/mux_differential.py`` has the masters.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.test_differential import CASES, VARIANTS
from tests.support.clients import ClientHome
from tests.support.differential import Case, Servers
from tests.support.mux_differential import Masters, SharedBench
from tests.support.sshd import SHELLS, KeyRing
from tests.support.terminals import Terminal
from tests.support.tools import find_nss_wrapper, require_tool, skip_or_fail
from tests.support.xvfb import Xvfb


def _between(first: str, last: str) -> set[str]:
    names = [case.name for case in CASES]
    return set(names[names.index(first) : names.index(last) + 1])


ABOUT_THE_LOGIN = _between("an old server", "NoHostAuthenticationForLocalhost")
WITHOUT_A_CONNECTION = _between("-Q cipher", "-G bare")
BEFORE_IT = _between("flags in a cluster", "-b loopback") | _between("an unknown keyword", "-E")
"""Command line and configuration, which ``ssh -G`` reads before a master is looked for."""

NO_MASTER = ("closed account", "password", "no such shell")
"""Variants in which no master could log in."""

THE_SAME = ("banner", "slow", "gateway", "chatty", *SHELLS)
"""Variants that differ at the login, or behind the command: passengers have no part in that."""

OTHERWISE = {
    "without -n stdin is eaten": "a master may or may not read it before the command is over",
    "-N": "ssh's passenger has a shell all the same",
    "SessionType none": "the same",
    "a cluster with a joined value": "the same",
    "-s with -tt": "ssh's master sends zeros for the modes of what is no terminal: no end of input",
    "RequestTTY force with a command, stdin a pipe": "the same: no echo",
    "-s that is missing": "ssh's master means to say so, and closes the channel before it does",
}
"""Where a shared connection of ssh's own is another thing, by design or by mistake."""

STATUSES = {
    **dict.fromkeys(
        (
            "a refused port",
            "an unknown host",
            "User of the configuration",
            "-l after user@host",
            "-b bad",
            "-J through nowhere",
            "ProxyCommand that fails",
            "ProxyCommand that is missing",
            "ProxyCommand with tokens",
            "ProxyCommand with a bad token",
        ),
        0,
    ),
    "a restricted key: a terminal": 1,
    "no tty: -tt": 1,
}
"""Statuses where nobody has to log in, or a terminal that is refused ends nothing."""

ALSO = {"-tt without a terminal", "-T then -tt", "-- after both", "-e none", "the user's own file"}
LEFT_OUT = ABOUT_THE_LOGIN | WITHOUT_A_CONNECTION | BEFORE_IT - {*STATUSES} - ALSO | {*OTHERWISE}
SHARED = [
    case for case in CASES if case.name not in LEFT_OUT and case.server not in NO_MASTER + THE_SAME
]


@pytest.fixture(scope="module")
def servers(key_ring: KeyRing, long_lived_processes: set[int]) -> Iterator[Servers]:
    """The servers of all variants."""
    require_tool("sshd")
    if find_nss_wrapper() is None:
        skip_or_fail("libnss_wrapper is not installed (Debian: apt install libnss-wrapper)")
    directory = Path(tempfile.mkdtemp(prefix="xt-", dir="/tmp"))
    servers = Servers(directory, key_ring, VARIANTS, long_lived_processes.add)
    yield servers
    servers.stop()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def masters(xvfb: Xvfb, long_lived_processes: set[int]) -> Iterator[Masters]:
    """Masters of both kinds, one server's at a time."""
    directory = Path(tempfile.mkdtemp(prefix="xm-", dir="/tmp"))
    masters = Masters(directory, xvfb, long_lived_processes.add)
    yield masters
    masters.stop()
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    "case",
    sorted(SHARED, key=lambda case: list(VARIANTS).index(case.server)),
    ids=lambda case: case.name,
)
def test_all_combinations_do_the_same(
    case: Case,
    servers: Servers,
    masters: Masters,
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    xvfb: Xvfb,
) -> None:
    bench = SharedBench(client_home, servers, spawn_in_pty, masters)
    bench.compare_all(case, xvfb if case.x11 else None, STATUSES.get(case.name))
