"""Programs that start ssh, with ssh and with xssh in its place.

``Bench.each()`` gives two ways to run the same program: with ssh, and with xssh where a display is
there, which has more to decide than without one. The server writes down every command that it was
asked for, byte by byte, so that what travelled can be compared besides what came of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients import ClientHome
from tests.support.processes import Completed, run, xssh_command
from tests.support.sshd import SshServer
from tests.support.tools import need_tool
from tests.support.xvfb import Xvfb

RECORDER = """#!/bin/sh
printf '%s\\0' "${{GIT_PROTOCOL:-}}|$SSH_ORIGINAL_COMMAND" >>{log}
test -n "$SSH_ORIGINAL_COMMAND" || exec "$SHELL" -l
exec "$SHELL" -c "$SSH_ORIGINAL_COMMAND"
"""


def write_program(path: Path, argv: list[str]) -> Path:
    """Write a script that becomes ``argv`` with its own arguments after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    path.chmod(0o755)
    return path


@dataclass(frozen=True)
class Way:
    """One way to run a program: ``ssh`` is the path of what it has to start."""

    name: str
    ssh: str
    environment: Mapping[str, str]

    def run(
        self, argv: list[str], *, stdin: bytes = b"", timeout: float = 60.0, **more: str
    ) -> Completed:
        """Run a program in the folder ``work`` below HOME."""
        environment = {**self.environment, **more}
        done = run(argv, env=environment, stdin=stdin, timeout=timeout, cwd=environment["WORK"])
        return done._replace(stderr=done.stderr.replace("\r\n", "\n"))


class Bench:
    """A recording server, known as ``server``, and a client HOME.

    ``work``: the client's folder for one run; ``far``: the server's. Both are empty when a way
    begins.
    """

    def __init__(
        self, make_sshd: Callable[..., SshServer], home: ClientHome, xvfb: Xvfb, **options: object
    ) -> None:
        self.home = home
        self.work = home.path / "work"
        self._record = home.path / "record"
        self._log = home.path / "commands"
        self._record.write_text(RECORDER.format(log=shlex.quote(str(self._log))))
        self._record.chmod(0o755)
        sftp = "/usr/lib/openssh/sftp-server"
        if not os.path.exists(sftp):
            sftp = need_tool("sftp-server")
        config = f"ForceCommand {self._record}\nSubsystem sftp {sftp}\n{options.pop('config', '')}"
        self.server = make_sshd(config=config, **options)
        # xauth says so on stderr when it makes this file.
        (self.server.home / ".Xauthority").touch(mode=0o600)
        self.far = self.server.home / "far"
        home.add(self.server, extra="ForwardX11Trusted yes")
        self.xssh = write_program(home.path / "bin" / "xssh", xssh_command())
        write_program(home.path / "as-ssh" / "ssh", xssh_command())
        plain = home.environment(WORK=str(self.work), LC_ALL="C")
        self.ways = (
            Way("ssh", need_tool("ssh"), plain),
            Way("xssh", str(self.xssh), {**plain, **xvfb.environment()}),
        )

    def each(self) -> Iterator[Way]:
        """Go through the ways, each with empty folders and an empty record."""
        for way in self.ways:
            for folder in (self.work, self.far):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            self._log.write_bytes(b"")
            yield way

    def commands(self) -> list[str]:
        """Return what the server was asked to run in this way, sorted, each with GIT_PROTOCOL."""
        return sorted(self._log.read_text().split("\0")[:-1])

    def compare(self, do: Callable[[Way], object]) -> list[object]:
        """Do the same each way; what it returns and what the server was asked must be equal.

        Returns what it returned.
        """
        (expected, wanted), (found, asked) = [(do(way), self.commands()) for way in self.each()]
        assert found == expected, f"\nxssh: {found}\nssh: {expected}"
        assert asked == wanted, f"\nxssh: {asked}\nssh: {wanted}"
        assert wanted, "the server was asked nothing"
        return [expected, found]

    def named_ssh(self, way: Way) -> dict[str, str]:
        """Return a PATH on which ``ssh`` is the way's program."""
        path = way.environment["PATH"]
        return {} if way.name == "ssh" else {"PATH": f"{self.home.path}/as-ssh:{path}"}


def tree(folder: Path) -> dict[str, tuple[str, bytes, int]]:
    """Return what is below a folder: kind, content or target, and mode of each."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path).encode(), 0)
        elif path.is_dir():
            found[name] = ("folder", b"", path.stat().st_mode)
        else:
            found[name] = ("file", path.read_bytes(), path.stat().st_mode)
    return found
