"""Connections that are shared without a word in ssh_config: --share and XSSH_SHARE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.masters import end_automatic_masters
from tests.support.processes import run_xssh, wait_until, xssh_command
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal


class Sharer:
    """Runs of xssh that share, and what they leave."""

    def __init__(self, home: ClientHome, server: SshServer, temporary: Path) -> None:
        self.home = home
        self.server = server
        self.folder = home.runtime / "xssh"
        self.environment = {**home.environment(), "XSSH_SHARE": "60"}

    def run(self, *words: str, share: str | None = None, **variables: str) -> str:
        """Run a command that tells which login it is part of; return what it says."""
        env = {**self.environment, **variables}
        given = [] if share is None else ["--share", share]
        argv = [*self.home.arguments, *given, *words, "server", "echo $SSH_CONNECTION"]
        done = run_xssh(argv, env=env)
        assert done.status == 0 and not done.stderr, done
        return done.stdout.decode()

    @property
    def sockets(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.exists() else []

    def end(self) -> None:
        """End all masters, and take the folder away."""
        end_automatic_masters(self.home.runtime)


@pytest.fixture
def sharer(sshd: SshServer, client_home: ClientHome, short_directory: Path) -> Iterator[Sharer]:
    client_home.add(sshd, extra="ForwardX11 no")
    made = Sharer(client_home, sshd, short_directory)
    yield made
    made.end()


def test_the_second_run_has_the_firsts_connection(sharer: Sharer) -> None:
    first = sharer.run()
    assert sharer.run() == first
    assert sharer.folder.stat().st_mode & 0o7777 == 0o700
    assert [path.stat().st_mode & 0o7777 for path in sharer.sockets] == [0o600]
    # What is about one session alone makes no difference.
    assert sharer.run("-T", "-e", "none", "-o", "LogLevel=ERROR", "-n") == first


def test_nothing_is_shared_unless_asked_for(sharer: Sharer) -> None:
    assert (
        sharer.run(XSSH_SHARE="", CI="1") != sharer.run(XSSH_SHARE="no") != sharer.run(share="no")
    )
    assert not sharer.sockets


def test_who_logs_in_otherwise_has_a_connection_of_his_own(sharer: Sharer) -> None:
    """Anything that changes the login, the judgement of the key, or the way there."""
    seen = {sharer.run()}
    for number, words in enumerate(
        (
            ("-o", "BatchMode=yes"),
            ("-o", "StrictHostKeyChecking=no"),
            ("-o", "IdentityAgent=none"),
            ("-o", "PreferredAuthentications=publickey"),
            ("-A",),
            ("-C",),
        ),
        2,
    ):
        seen.add(sharer.run(*words))
        assert len(seen) == number, words
    seen.add(sharer.run(SSH_AUTH_SOCK="/nonexistent"))
    assert len(seen) == len(sharer.sockets) == 8


@pytest.mark.parametrize(
    "words",
    [
        ["-S", "none"],
        ["-o", "ControlPath=none"],
        ["-o", "ControlMaster=no"],
        ["-o", "controlmaster no"],
        ["-L", "/tmp/never:127.0.0.1:1", "-o", "ClearAllForwardings=no"],
        ["-o", "PermitLocalCommand=yes", "-o", "LocalCommand=true"],
        ["--stats"],
    ],
)
def test_never_for_these(sharer: Sharer, words: list[str], short_directory: Path) -> None:
    words = [word.replace("/tmp/never", f"{short_directory}/listen") for word in words]
    first = sharer.run(*words)
    (short_directory / "listen").unlink(missing_ok=True)
    assert sharer.run(*words) != first
    assert not sharer.sockets


def test_a_folder_that_is_not_ours_alone_is_not_used(sharer: Sharer) -> None:
    sharer.folder.mkdir()
    sharer.folder.chmod(0o755)
    assert sharer.run() != sharer.run()
    assert not sharer.sockets
    sharer.folder.chmod(0o700)
    assert sharer.run() == sharer.run()


def test_a_time_that_is_none(sharer: Sharer) -> None:
    done = run_xssh([*sharer.home.arguments, "--share", "soon", "server", "true"], env={})
    assert done.status == 255
    assert done.stderr.startswith("xssh: --share: 'soon' is neither yes nor no nor a time\n")


def test_the_connection_ends_after_its_time(sharer: Sharer) -> None:
    sharer.run(share="1")
    wait_until(lambda: not sharer.sockets, what="the end of the master")


def test_a_question_is_asked_once(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    short_directory: Path,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    """The login's questions come at the terminal; whoever shares is asked nothing."""
    server = make_sshd()
    client_home.add(server, known=False, extra="StrictHostKeyChecking ask\nForwardX11 no")
    sharer = Sharer(client_home, server, short_directory)
    argv = [*sharer.home.arguments, "-t", "server", "echo aboard"]
    terminal = spawn_in_pty([*xssh_command(), *argv], env=sharer.environment)
    terminal.read_until(r"\(yes/no/\[fingerprint\]\)\? ")
    terminal.write("yes\r")
    terminal.read_until("aboard\r\n")
    assert terminal.wait() == 0
    assert run_xssh([*sharer.home.arguments, "server", "echo b"], env=sharer.environment) == (
        0,
        b"b\n",
        "",
    )
    sharer.end()
