"""What changes on the X server while a session starts, or right before a client asks."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable

from tests.support.agenthost import AgentHost
from tests.support.tools import require_tool
from tests.support.xvfb import Xvfb


def set_property(xvfb: Xvfb, value: str) -> list[str]:
    """Return a command that sets a property of the root window, not by way of xssh."""
    environment = [f"DISPLAY={xvfb.display}", f"XAUTHORITY={xvfb.authority}"]
    words = ["-root", "-f", "CHANGED", "8s", "-set", "CHANGED", value]
    return ["env", *environment, require_tool("xprop"), *words]


def test_what_changed_while_the_agent_was_started(
    make_host: Callable[..., AgentHost], xvfb: Xvfb
) -> None:
    host = make_host(shell="/bin/bash")
    subprocess.run(set_property(xvfb, "old"), check=True)
    change = shlex.join(set_property(xvfb, "new"))
    (host.server.home / ".bashrc").write_text(
        f"test -e $HOME/done || {{ touch $HOME/done; sleep 1; {change}; }}\n"
    )
    done = host.run("xprop -root CHANGED", "-Y")
    assert done.stdout == b'CHANGED(STRING) = "new"\n'
    done.require_flawless()
    assert (host.server.home / "done").exists()
