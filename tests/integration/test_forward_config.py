"""Forwards and modes read where no ``ssh`` is installed, beside what ``ssh -G`` says of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.processes import run
from xsshpy.errors import SettingsError
from xsshpy.settings import Invocation, Settings, parse_settings
from xsshpy.ssh.config import read_settings_without_ssh
from xsshpy.ssh.forward_spec import parse_forward_options, parse_forwards
from xsshpy.ssh.tunnel import parse_tunnel

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh to compare with")

FILE = """
LocalForward 1 a:1
LocalForward [::1]:2 [::2]:2
LocalForward /l/here /there
RemoteForward 3 a:3
RemoteForward 4
DynamicForward *:5
GatewayPorts yes
ExitOnForwardFailure yes
StreamLocalBindMask 0117
PermitRemoteOpen a:1 b:*
"""


def what_counts(settings: Settings) -> tuple[object, ...]:
    keywords = settings.keywords
    return (
        parse_forwards(keywords),
        parse_forward_options(keywords),
        parse_tunnel(keywords),
        settings.session_type,
        settings.fork_after_authentication,
        settings.stdin_null,
    )


@pytest.mark.parametrize(
    "options",
    [
        [],
        [("L", "1:a:1"), ("L", "h:2:/p"), ("D", "3"), ("R", "0"), ("R", "/s:a:4"), ("g", None)],
        [("N", None), ("f", None)],
        [("s", None), ("n", None)],
        [("w", "1:2"), ("N", None)],
        [("w", "any")],
        [("L", "1:a:1"), ("o", "ClearAllForwardings=yes")],
    ],
    ids=str,
)
@pytest.mark.parametrize("text", ["", FILE], ids=["empty", "file"])
def test_forwards_without_ssh(
    tmp_path: Path, text: str, options: list[tuple[str, str | None]]
) -> None:
    """The same as with it."""
    file = tmp_path / "config"
    file.write_text(text)
    options = [("F", str(file)), *options]
    invocation = Invocation("host", "command", tuple(options))
    done = run(["ssh", "-G", *invocation.ssh_arguments(), "host", "command"])
    assert done.status == 0, done.stderr
    expected = parse_settings(done.stdout.decode(), "host", os.environ)
    found = read_settings_without_ssh(invocation, os.environ)
    assert what_counts(found) == what_counts(expected)


def test_forward_that_is_none_without_ssh(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("LocalForward nonsense\n")
    with pytest.raises(SettingsError, match="Bad forwarding specification"):
        read_settings_without_ssh(Invocation("host", "", (("F", str(file)),)), os.environ)
