"""A real dropbear on loopback: small packets, short commands, and no X11, as Debian builds it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.accounts import account_environment
from tests.support.processes import end_popen, wait_until
from tests.support.sshd import KeyRing, client_block, free_port
from tests.support.tools import need_tool


class Dropbear:
    """One server; ends with ``stop()``. ``home`` is the HOME of who logs in."""

    host = "127.0.0.1"
    user = "demo"

    def __init__(self, directory: Path, keys: KeyRing) -> None:
        self.home = directory / "home"
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        self.home.chmod(0o700)
        allowed = self.home / ".ssh" / "authorized_keys"
        allowed.write_text(Path(f"{keys.client_key}.pub").read_text())
        allowed.chmod(0o600)
        self.client_key = str(keys.client_key)
        self.port = free_port()
        account = account_environment(
            directory / "account", name=self.user, home=str(self.home), shell="/bin/sh"
        )
        key = directory / "host_key"
        made = [need_tool("dropbearkey"), "-t", "ed25519", "-f", str(key)]
        shown = subprocess.run(made, capture_output=True, text=True, check=True).stdout
        self._public = next(line for line in shown.splitlines() if line.startswith("ssh-ed25519"))
        self._log = directory / "log"
        argv = [need_tool("dropbear"), "-F", "-E", "-s", "-p", f"{self.host}:{self.port}"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*argv, "-r", str(key), "-P", str(directory / "pid")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ.get("PATH", os.defpath), **account},
                start_new_session=True,
            )
        wait_until(lambda: "Not backgrounding" in self.log(), what="dropbear")

    def log(self) -> str:
        """Return what it logged so far."""
        return self._log.read_text(errors="replace")

    def known_hosts_lines(self) -> str:
        """Return its host key as known_hosts has it."""
        kind, blob, *_ = self._public.split()
        return f"[{self.host}]:{self.port} {kind} {blob}\n"

    def config_text(
        self, alias: str = "server", *, known_hosts: Path | str, extra: str = ""
    ) -> str:
        """Return an ssh_config block for a client."""
        return client_block(self, alias, known_hosts, extra)

    def stop(self) -> None:
        """End it and its sessions."""
        end_popen(self.process)
