"""ssh beside xssh: the same words, the same input, the same environment."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.support.clients import ClientHome
from tests.support.processes import Completed, run, xssh_command
from tests.support.sshd import SshServer
from tests.support.warmstart import open_process

SSH = ["ssh"]
XSSH = xssh_command()
PROGRAMS = {"ssh": SSH, "xssh": XSSH}


def describe_difference(found: Completed, expected: Completed) -> str:
    """Return both results below each other."""
    return f"\nxssh: {found}\nssh:  {expected}"


def plain(done: Completed) -> Completed:
    """Return a result with plain line ends: ssh 9.2 writes its messages with ``\\r\\n``."""
    return done._replace(stderr=done.stderr.replace("\r\n", "\n"))


def first_line(done: Completed) -> Completed:
    """Keep only the first line of the messages: xssh adds what to do."""
    lines = plain(done).stderr.splitlines()
    return done._replace(stderr=lines[0] if lines else "")


@dataclass
class Pair:
    """A server, and a HOME in which it is called ``server``; X11 is off unless a test asks."""

    server: SshServer
    home: ClientHome

    @property
    def environment(self) -> dict[str, str]:
        return self.home.environment()

    def argv(self, program: str, words: Sequence[str]) -> list[str]:
        """Return the argv of ssh or xssh with the pair's configuration."""
        return [*PROGRAMS[program], *self.home.arguments, *words]

    def run(
        self,
        program: str,
        words: Sequence[str],
        *,
        stdin: bytes | int | None = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        cwd: str | None = None,
    ) -> Completed:
        """Run one of the two."""
        return run(
            self.argv(program, words),
            stdin=stdin,
            env=self.environment if env is None else env,
            timeout=timeout,
            cwd=cwd,
        )

    def both(
        self,
        words: Sequence[str],
        *,
        stdin: bytes | None = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        cwd: str | None = None,
    ) -> Completed:
        """Run both, want the same status, output and messages, and return them."""
        expected = plain(self.run("ssh", words, stdin=stdin, env=env, timeout=timeout, cwd=cwd))
        found = plain(self.run("xssh", words, stdin=stdin, env=env, timeout=timeout, cwd=cwd))
        assert found == expected, describe_difference(found, expected)
        return found

    def shell(
        self, program: str, words: Sequence[str], script: str, *, timeout: float = 30.0
    ) -> Completed:
        """Run a local bash script in which ``"$@"`` is ssh or xssh with these words."""
        return run(
            ["bash", "-c", script, "bash", *self.argv(program, words)],
            env=self.environment,
            timeout=timeout,
        )

    def both_in_shell(
        self, words: Sequence[str], script: str, *, timeout: float = 30.0
    ) -> Completed:
        """Do that with both and want the same."""
        expected = plain(self.shell("ssh", words, script, timeout=timeout))
        found = plain(self.shell("xssh", words, script, timeout=timeout))
        assert found == expected, describe_difference(found, expected)
        return found

    def start(
        self,
        program: str,
        words: Sequence[str],
        *,
        stdin: int | None = subprocess.PIPE,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start one of the two and leave it running."""
        process: subprocess.Popen[bytes] = open_process(
            self.argv(program, words),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=self.environment,
        )
        return process
