"""The agent under every Python that this machine has, from 3.6 on; older ones say so."""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.agenthost import AgentHost, patch_candidates
from tests.support.tools import skip_or_fail

PYENV = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")


def find_pythons() -> dict[str, str]:
    """Return the interpreters by name: pyenv's, and those on the PATH."""
    found = {
        os.path.basename(path): f"{path}/bin/python" for path in glob.glob(f"{PYENV}/versions/*")
    }
    found = {name: path for name, path in found.items() if re.fullmatch(r"\d+\.\d+\.\d+", name)}
    system = [path for path in ("/usr/bin/python3",) if os.path.exists(path)]
    return {**{path: path for path in system}, **found}


PYTHONS = find_pythons()
NEW = [name for name in PYTHONS if not name.startswith("2.")] or ["none"]
OLD = [name for name in PYTHONS if name.startswith("2.")] or ["none"]
XCLIENT = str(Path(__file__).parents[1] / "support" / "xclient.py")


@pytest.mark.parametrize("name", NEW)
def test_it_serves_under(name: str, host: AgentHost) -> None:
    if name == "none":
        skip_or_fail("no Python but this one")
    client = f"{shlex.quote(sys.executable)} {shlex.quote(XCLIENT)} l"
    command = f"xdpyinfo >/dev/null && {client} burst 3000 && {client} trap 2 && {client} images 3"
    done = host.run(command, before=patch_candidates(PYTHONS[name]))
    assert (done.status, done.stdout, done.stderr) == (0, b"right\n" * 3, "")
    done.require_flawless()
    if name != "/usr/bin/python3":
        assert f"X11 agent: Python {name} at " in done.details


@pytest.mark.parametrize("name", OLD)
def test_an_old_one_says_so(name: str, host: AgentHost) -> None:
    if name == "none":
        pytest.skip("no Python 2 is here; new systems have none")
    done = host.run("exit 3", "--x11", "agent", before=patch_candidates(PYTHONS[name]))
    assert done.status == 3
    reason = f"no Python 3.6 or later is there, only {name}"
    assert done.stderr.startswith(f"xssh: X11: not by the agent: {reason}; try: ")


def test_shims_and_old_ones_before_a_good_one(host: AgentHost, short_directory: Path) -> None:
    shim = short_directory / "python3"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    old = [PYTHONS[name] for name in OLD if name != "none"]
    good = shutil.which("python3") or sys.executable
    done = host.run("xdpyinfo >/dev/null", before=patch_candidates(shim, *old, good))
    done.require_flawless()
