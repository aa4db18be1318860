"""Fixtures for tests of the agent: one server for all tests of a module."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agenthost import AgentHost
from tests.support.clients import ClientHome
from tests.support.sshd import KeyRing, ServerOptions, SshServer
from tests.support.tools import find_nss_wrapper, require_tool, skip_or_fail
from tests.support.xvfb import Xvfb


def serve(keys: KeyRing, long_lived: set[int], **options: object) -> Iterator[SshServer]:
    """Run a server with a TMPDIR of its own for its sessions, in which nothing may be left."""
    require_tool("sshd")
    if find_nss_wrapper() is None:
        skip_or_fail("libnss_wrapper is not installed (Debian: apt install libnss-wrapper)")
    with tempfile.TemporaryDirectory(prefix="xa-", dir="/tmp") as name:
        directory = Path(name)
        (directory / "t").mkdir(mode=0o700)
        environment = {"TMPDIR": str(directory / "t"), **dict(options.pop("environment", {}))}  # type: ignore[call-overload]
        given = ServerOptions(environment=environment, **options)  # type: ignore[arg-type]
        server = SshServer(directory / "sshd", keys, given)
        long_lived.add(server.process.pid)
        try:
            yield server
        finally:
            server.stop()
        assert not list((directory / "t").iterdir())


@pytest.fixture(scope="module")
def agent_server(key_ring: KeyRing, long_lived_processes: set[int]) -> Iterator[SshServer]:
    yield from serve(key_ring, long_lived_processes, shell="/bin/bash")


@pytest.fixture
def host(agent_server: SshServer, client_home: ClientHome, xvfb: Xvfb) -> Iterator[AgentHost]:
    """The shared server; afterwards nothing of an agent may be left on it."""
    made = AgentHost(agent_server, client_home, xvfb)
    yield made
    made.wait_until_clean()


@pytest.fixture
def make_host(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    xvfb: Xvfb,
    short_directory: Path,
) -> Callable[..., AgentHost]:
    """Make a host with a server of its own, and of a special kind."""

    def make(**options: object) -> AgentHost:
        place = short_directory / "t"
        place.mkdir(mode=0o700, exist_ok=True)
        environment = {"TMPDIR": str(place), **dict(options.pop("environment", {}))}  # type: ignore[call-overload]
        return AgentHost(make_sshd(environment=environment, **options), client_home, xvfb)

    return make
