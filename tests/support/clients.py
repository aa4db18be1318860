"""The local side of a test: a HOME of its own with an ssh_config that names the test's servers."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.accounts import account_environment
from tests.support.sshd import SshServer
from tests.support.tools import MissingTool
from tests.support.xvfb import Xvfb

SHARING = os.environ.get("XSSH_TESTS_SHARE", "no")
"""XSSH_SHARE for every run: no, unless a test is about sharing. A run that made a master by itself
would leave it behind. With XSSH_TESTS_SHARE=yes all tests are run through shared connections."""


class ClientHome:
    """A private HOME. ssh takes ``~`` from passwd, so its environment brings a private passwd too.

    ``config`` is ``.ssh/config``; pass it with ``-F`` (``arguments`` does) so that nothing depends
    on where ``~`` is. ``account`` is the directory of the private passwd, beside
    HOME unless it is given.
    """

    def __init__(
        self, path: Path, runtime: Path, temporary: Path, account: Path | None = None
    ) -> None:
        self.path = path
        self.ssh = path / ".ssh"
        self.ssh.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.config = self.ssh / "config"
        self.config.touch(mode=0o600)
        self.known_hosts = self.ssh / "known_hosts"
        self.known_hosts.touch(mode=0o600)
        self.runtime = runtime
        self.temporary = temporary
        try:
            name = os.environ.get("USER") or os.environ.get("LOGNAME") or "tester"
            beside = path.parent / "client-account"
            self._account = account_environment(
                account or beside, name=name, home=str(path), shell="/bin/sh"
            )
        except MissingTool:
            self._account = {}

    def add(
        self, server: SshServer, alias: str = "server", *, extra: str = "", known: bool = True
    ) -> None:
        """Name a server in the config; with ``known`` its host keys go to known_hosts.

        ``extra`` lines win over the rest of the block.
        """
        with self.config.open("a") as file:
            file.write(server.config_text(alias, known_hosts=self.known_hosts, extra=extra))
        if known:
            with self.known_hosts.open("a") as file:
                file.write(server.known_hosts_lines())

    @property
    def arguments(self) -> list[str]:
        """What ssh and xssh get first."""
        return ["-F", str(self.config)]

    def environment(self, xvfb: Xvfb | None = None, **more: str) -> dict[str, str]:
        """Return a minimal environment: no agent, no display unless one is given."""
        return {
            "HOME": str(self.path),
            "PATH": os.environ.get("PATH", os.defpath),
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.temporary),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XSSH_SHARE": SHARING,
            **self._account,
            **(xvfb.environment() if xvfb else {}),
            **more,
        }
