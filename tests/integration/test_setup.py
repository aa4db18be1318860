"""Setup on real servers, from nothing to a window; interrupted, done twice, taken back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration._setup_server import Place, give_sudo, make_place
from tests.support.clients import ClientHome
from tests.support.processes import run, xssh_command
from tests.support.sshd import SshServer
from tests.support.xvfb import Xvfb


@pytest.fixture
def make(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    private_places: Path,
    xvfb: Xvfb,
) -> Callable[..., Place]:
    """Return what makes a server from nothing."""
    return lambda **more: make_place(
        make_sshd, client_home, private_places / "place", xvfb.environment(), **more
    )


def test_from_nothing_to_a_window_and_back(make: Callable[..., Place]) -> None:
    place = make()
    before = place.state()
    shown = place.set_up("--dry-run")
    text = shown.stdout.decode()
    assert shown.status == 0, shown
    assert "apt-get -q -y -o DPkg::Lock::Timeout=120 install" in text
    assert f"{place.own_file}, a new file" in text
    assert "+ X11Forwarding yes" in text
    assert f"kill -HUP {place.server.process.pid} " in text
    assert place.state() == before
    assert [line for line in place.asked() if "install" in line] == []

    done = place.set_up("--yes")
    assert (done.status, done.stderr) == (0, ""), done
    assert done.stdout.decode().count("  done  ") == 2
    lines = place.own_file.read_text().splitlines()
    assert lines[1:-1] == ["X11Forwarding yes", "AcceptEnv MPLBACKEND"]
    assert place.own_file.stat().st_mode & 0o777 == 0o644
    assert place.server.process.poll() is None
    after = place.state()

    argv = [*xssh_command(), *place.home.arguments, "--doctor", "--json", "--x11", "native"]
    seen = run([*argv, "server", "python3"], env=dict(place.variables), timeout=90)
    found = {each["name"]: each for each in json.loads(seen.stdout)["findings"]}
    assert found["proof.window"]["verdict"] == "ok", found
    assert "opened there (Tk" in found["proof.window"]["evidence"][0]
    assert "accepted" in found["server.acceptenv"]["evidence"][0]

    again = place.set_up("--yes")
    assert (again.status, again.stdout.decode()) == (0, "Nothing to do on server.\n"), again
    assert place.state() == after

    undone = place.set_up("--undo", "--yes")
    assert undone.status == 0, undone
    assert "dpkg --remove xauth" in place.asked()
    assert place.state() == before
    assert place.set_up("--undo").stdout == b"Nothing to take back on server.\n"
