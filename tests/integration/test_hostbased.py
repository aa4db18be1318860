"""HostbasedAuthentication beside ssh, with the real ssh-keysign.

ssh-keysign reads /etc/ssh alone, so the clients run in a mount namespace with another one.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncssh
import pytest

from tests.support.beside import Beside
from tests.support.clients import ClientHome
from tests.support.sshd import SshServer, generate_key
from tests.support.terminals import Terminal
from tests.support.tools import find_tool
from xsshpy.ssh.hostbased import find_keysign, order_host_keys


class Elsewhere(Beside):
    """Clients that see another /etc/ssh."""

    etc: Path

    def argv(self, program: str, words: Sequence[str]) -> list[str]:
        script = f'mount --bind {self.etc} /etc/ssh && exec "$@"'
        return ["unshare", "-m", "sh", "-c", script, "sh", *super().argv(program, words)]


@pytest.fixture
def vouched(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    tmp_path: Path,
) -> Elsewhere:
    """A server that believes this machine; the machine has an ECDSA and an RSA key."""
    probe = ["unshare", "-m", "mount", "--bind", str(tmp_path), "/etc/ssh"]
    if os.geteuid() or find_keysign() is None or find_tool("unshare") is None:
        pytest.skip("needs root, ssh-keysign and unshare")
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    etc = tmp_path / "ssh"
    etc.mkdir()
    (etc / "ssh_config").write_text("EnableSSHKeysign yes\n")
    server = make_sshd(
        config="HostbasedAuthentication yes\nIgnoreRhosts no\nPubkeyAuthentication no\n"
        "HostbasedUsesNameFromPacketOnly yes"
    )
    name = socket.getnameinfo(("127.0.0.1", 1), 0)[0]
    (server.home / ".ssh").mkdir(exist_ok=True)
    for kind in ("ecdsa", "rsa"):
        generate_key(etc / f"ssh_host_{kind}_key", kind)
        public = (etc / f"ssh_host_{kind}_key.pub").read_text()
        with (server.home / ".ssh" / "known_hosts").open("a") as file:
            file.write(f"{name} {public}")
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or "tester"
    (server.home / ".shosts").write_text(f"{name} {user}\n")
    login = Elsewhere(client_home, server, spawn_in_pty, extra="BatchMode yes")
    login.etc = etc
    return login


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["-oHostbasedAuthentication=yes"], 0),
        (["-oHostbasedAuthentication=yes", "-oHostbasedAcceptedAlgorithms=rsa-sha2-256"], 0),
        (["-oHostbasedAuthentication=yes", "-oHostbasedAcceptedAlgorithms=ssh-ed25519"], 255),
        (["-oHostbasedAuthentication=no"], 255),
    ],
)
def test_hostbasedauthentication_has_this_machine_vouch(
    vouched: Elsewhere, words: list[str], status: int
) -> None:
    assert vouched.both(*words, "server", "echo in").status == status


def test_without_enablesshkeysign_nobody_signs(vouched: Elsewhere) -> None:
    (vouched.etc / "ssh_config").write_text("EnableSSHKeysign no\n")
    done = vouched.both("-oHostbasedAuthentication=yes", "server", "echo in")
    assert done.status == 255
    assert "ssh_keysign: no reply" in done.stderr


def test_hostbasedacceptedalgorithms_sets_the_order() -> None:
    rsa, ec = (asyncssh.generate_private_key(kind) for kind in ("ssh-rsa", "ecdsa-sha2-nistp256"))
    found = order_host_keys([ec, rsa], ["rsa-sha2-512", "rsa-sha2-256", "ecdsa-sha2-nistp256"])
    assert found == [(rsa, b"rsa-sha2-512"), (ec, b"ecdsa-sha2-nistp256")]
    assert order_host_keys([ec, rsa], ["ssh-ed25519"]) == []
