"""A throwaway OpenSSH server on loopback, isolated from the account it runs under.

It has host keys, a port, a HOME and a log of its own. Who logs in is not a user of this machine:
``accounts.account_environment`` gives sshd a private passwd file in which ``demo`` (or any name)
has the uid of this process, a HOME in a temporary folder and any login shell. So nothing reads or
writes the real ``~/.ssh``, ``~/.Xauthority`` or shell startup files, and neither root nor a new
account is needed.

Where libnss_wrapper is missing (macOS, no root), ``isolation="environment"`` gets by with sshd's
own settings: the login is the real user's, with HOME set by SetEnv, xauth called with a file in
that HOME, and the user's rc file and authorized_keys left alone.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.support.accounts import account_environment
from tests.support.processes import (
    end_popen,
    find_descendants,
    freeze_tree,
    send_signal,
    wait_until,
)
from tests.support.tools import find_tool, need_tool

HOST_KEY_TYPES = ("ed25519", "ecdsa", "rsa")
SHELLS = ("bash", "zsh", "dash", "fish", "csh", "tcsh")
"""The login shells that a server may have; ``find_shell`` gives their paths."""

PRIVILEGE_SEPARATION_DIRECTORY = "/run/sshd"

TEST_RUNTIME_VARIABLE = "XSSH_TESTS_RUNTIME"
"""Where the test that runs has its XDG_RUNTIME_DIR; not set outside of tests."""


def find_shell(name: str) -> str | None:
    """Return the absolute path of a login shell, or None."""
    return find_tool(name)


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def generate_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair with ssh-keygen; return the private key's path."""
    bits = ["-b", "2048"] if kind == "rsa" else []
    argv = [need_tool("ssh-keygen"), "-q", "-t", kind, *bits, "-N", passphrase, "-C", path.name]
    subprocess.run([*argv, "-f", str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


@dataclass(frozen=True)
class KeyRing:
    """Keys made once and used by every server: host keys by type, and the client's key."""

    host_keys: Mapping[str, Path]
    client_key: Path

    @classmethod
    def generate(cls, directory: Path) -> KeyRing:
        """Make the keys in a directory, unless they are there."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        paths = {kind: directory / f"host_{kind}" for kind in HOST_KEY_TYPES}
        client = directory / "id_ed25519"
        for kind, path in (*paths.items(), ("ed25519", client)):
            if not path.exists():
                generate_key(path, kind)
        return cls(paths, client)


@dataclass
class ServerOptions:
    """How a server differs from the plain one.

    ``user``: the name to log in with. ``shell``: an absolute path. ``home``: a directory, else a
    new one. ``config``: lines of sshd_config that win over all others here (a LogLevel
    below INFO hides that the server is ready). ``key_options``: what
    authorized_keys says before the client's key. ``accept_env``: patterns; none unless asked for,
    as upstream. ``path``: the session's PATH. ``password_hash``: a crypt(3) hash, which also turns
    password authentication on. ``host_key_types``: which keys the server has. ``x11``: whether
    X11Forwarding is on. ``isolation``: "passwd" or "environment" (see the module). ``inherited``:
    variables of the server itself, which a session does not see. ``wrapper``: words that stand
    before sshd's own and end in its place. ``uid``: of the account, which must be the server's.
    ``is_hurried``: without the key exchange that takes ssh longest; not for what is measured.
    """

    user: str = "demo"
    shell: str = "/bin/sh"
    home: Path | None = None
    config: str = ""
    key_options: str = ""
    x11: bool = True
    accept_env: str = ""
    path: str = ""
    password_hash: str = ""
    host_key_types: Sequence[str] = HOST_KEY_TYPES
    isolation: str = "passwd"
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited: Mapping[str, str] = field(default_factory=dict)
    wrapper: Sequence[str] = ()
    uid: int | None = None
    is_hurried: bool = True


class Reachable(Protocol):
    """What a client has to know of a server."""

    host: str
    port: int
    user: str
    client_key: str


def client_block(server: Reachable, alias: str, known_hosts: Path | str, extra: str) -> str:
    """Return an ssh_config block for a client, with absolute paths only.

    ``extra`` lines come first and so win.
    """
    lines = [
        f"Host {alias}",
        *extra.splitlines(),
        f"HostName {server.host}",
        f"Port {server.port}",
        f"User {server.user}",
        f"IdentityFile {server.client_key}",
        "IdentitiesOnly yes",
        f"UserKnownHostsFile {known_hosts}",
        "GlobalKnownHostsFile none",
        "StrictHostKeyChecking yes",
    ]
    return "\n  ".join(lines) + "\n"


class SshServer:
    """One sshd; ends with ``stop()``, which ends its sessions and what they started too."""

    host = "127.0.0.1"

    def __init__(self, directory: Path, keys: KeyRing, options: ServerOptions) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.options = options
        self.keys = keys
        self.client_key = str(keys.client_key)
        self.home = options.home or directory / "home"
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        # With this in place fish does not read every manual page in the background.
        (self.home / ".local/share/fish/generated_completions").mkdir(parents=True, exist_ok=True)
        self.user = options.user if options.isolation == "passwd" else getpass.getuser()
        self.authorized_keys = directory / "authorized_keys"
        self.authorize(keys.client_key, options.key_options)
        self._log = directory / "sshd.log"
        self._environment = self._isolate()
        self.process = self._start()

    def authorize(self, private_key: Path | str, key_options: str = "") -> None:
        """Accept one more client key, with the options that authorized_keys knows."""
        public = Path(f"{private_key}.pub").read_text()
        with self.authorized_keys.open("a") as file:
            file.write(f"{key_options} {public}".lstrip())

    def _isolate(self) -> dict[str, str]:
        if self.options.isolation != "passwd":
            return {**os.environ, **self.options.inherited}
        account = account_environment(
            self.directory / "account",
            name=self.user,
            home=str(self.home),
            shell=self.options.shell,
            password_hash=self.options.password_hash or "*",
            uid=self.options.uid,
        )
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": path, **account, **self.options.inherited}

    def _set_env(self) -> str:
        variables = dict(self.options.environment)
        if self.options.path:
            variables["PATH"] = self.options.path
        if self.options.isolation == "environment":
            variables["HOME"] = str(self.home)
            variables["XAUTHORITY"] = str(self.home / ".Xauthority")
        if not variables:
            return ""
        return "SetEnv " + " ".join(f'"{name}={value}"' for name, value in variables.items())

    def _xauth_location(self) -> str:
        xauth = find_tool("xauth")
        if xauth is None:
            return ""
        if self.options.isolation == "environment":
            wrapper = self.directory / "xauth"
            authority = shlex.quote(str(self.home / ".Xauthority"))
            wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(xauth)} -f {authority} "$@"\n')
            wrapper.chmod(0o755)
            xauth = str(wrapper)
        return f"XAuthLocation {xauth}"

    def config(self, port: int) -> str:
        """Return the sshd_config for a port. The first value of a keyword counts."""
        options = self.options
        lines = [
            options.config,
            f"Port {port}",
            f"ListenAddress {self.host}",
            *(f"HostKey {self.keys.host_keys[kind]}" for kind in options.host_key_types),
            f"AuthorizedKeysFile {self.authorized_keys}",
            f"PasswordAuthentication {'yes' if options.password_hash else 'no'}",
            "KbdInteractiveAuthentication no",
            f"X11Forwarding {'yes' if options.x11 else 'no'}",
            self._xauth_location(),
            f"AcceptEnv {options.accept_env}" if options.accept_env else "",
            self._set_env(),
            f"PermitUserRC {'yes' if options.isolation == 'passwd' else 'no'}",
            # The login has this process's uid, root's in a container; its folders lie in /tmp.
            "PermitRootLogin yes",
            "StrictModes no",
            "UsePAM no" if _knows("UsePAM") else "",
            # From 9.8 on an address that fails to log in often is refused for a while.
            "PerSourcePenalties no" if _knows("PerSourcePenalties") else "",
            "UseDNS no",
            # A tenth of a second of processor time for each login of ssh: more than all the rest.
            f"KexAlgorithms {quick_exchanges()}" if options.is_hurried else "",
            "PidFile none",
            # Tests log in faster and more often than anyone at a keyboard.
            "MaxStartups 200:30:400",
            "MaxSessions 100",
            "LogLevel DEBUG1",
            "" if "Subsystem sftp " in options.config else "Subsystem sftp internal-sftp",
        ]
        # Match blocks reach to the end of the file, so a caller's block goes last.
        head, match, tail = options.config.partition("Match ")
        lines[0] = head
        return "\n".join(line for line in [*lines, match + tail] if line.strip()) + "\n"

    def _start(self) -> subprocess.Popen[bytes]:
        sshd = need_tool("sshd")
        if os.geteuid() == 0 and os.path.isdir("/run"):
            # sshd refuses to start without it; a container's boot has not made it.
            os.makedirs(PRIVILEGE_SEPARATION_DIRECTORY, mode=0o755, exist_ok=True)
        for _ in range(20):
            self.port = free_port()
            config = self.directory / "sshd_config"
            config.write_text(self.config(self.port))
            self._log.write_bytes(b"")
            # -r: a connection does not start sshd anew; newer ones know the option and ignore it.
            # -E, not -e: with -e the last debug messages land on the session's own stderr.
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    [*self.options.wrapper, sshd, "-Dr", "-E", str(self._log), "-f", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    start_new_session=True,
                    cwd=self.directory,
                )
            if self._is_listening(process):
                return process
            if "Address already in use" not in self.log():
                break
        raise RuntimeError(f"sshd did not start: {self.log()[-3000:]}")

    def _is_listening(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            if f"Server listening on {self.host} port {self.port}." in self.log():
                return True
            time.sleep(0.01)
        end_popen(process)
        return False

    def log(self) -> str:
        """Return what sshd logged so far (at DEBUG1)."""
        return self._log.read_text(errors="replace")

    def wait_for_log(self, pattern: str, timeout: float = 10.0) -> None:
        """Wait until a line of the log matches a regular expression."""
        expression = re.compile(pattern)
        wait_until(lambda: expression.search(self.log()), timeout=timeout, what=f"log: {pattern}")

    @property
    def known_hosts_name(self) -> str:
        """How known_hosts names this server."""
        return f"[{self.host}]:{self.port}"

    def known_hosts_lines(self, name: str | None = None) -> str:
        """Return the server's host keys as known_hosts lines, under its own or another name."""
        lines = []
        for kind in self.options.host_key_types:
            public = Path(f"{self.keys.host_keys[kind]}.pub").read_text().split()
            lines.append(f"{name or self.known_hosts_name} {public[0]} {public[1]}\n")
        return "".join(lines)

    def config_text(
        self, alias: str = "server", *, known_hosts: Path | str, extra: str = ""
    ) -> str:
        """Return an ssh_config block for a client, with absolute paths only.

        ``extra`` lines come first and so win.
        """
        return client_block(self, alias, known_hosts, extra)

    def session_servers(self) -> list[int]:
        """Return the pids of sshd's own processes that carry connections, as they call themselves.

        From 9.8 on they are another program's.
        """
        found = []
        for pid in self.sessions():
            with contextlib.suppress(OSError):
                if re.match(rb"sshd(-session)?: ", Path(f"/proc/{pid}/cmdline").read_bytes()):
                    found.append(pid)
        return found

    def sessions(self) -> list[int]:
        """Return the pids of everything that runs below the listening sshd."""
        return [process.pid for process in find_descendants(self.process.pid)]

    def wait_until_idle(self, timeout: float = 10.0) -> None:
        """Wait until every session has ended and left no process.

        Masters that a test's runs made by themselves would stay, and are ended; a user's never.
        """
        if runtime := os.environ.get(TEST_RUNTIME_VARIABLE):
            from tests.support.masters import end_automatic_masters

            end_automatic_masters(Path(runtime))
        wait_until(lambda: not self.sessions(), timeout=timeout, what="the sessions to end")

    def kill_sessions(self) -> None:
        """Let every session die at once, as by a crash; the server goes on listening."""
        for pid in self.sessions():
            send_signal(pid, signal.SIGKILL)

    def reload(self) -> None:
        """Let the server read its configuration again."""
        already = self.log().count("Server listening on")
        send_signal(self.process.pid, signal.SIGHUP)
        wait_until(lambda: self.log().count("Server listening on") > already, what="the reload")

    def suspend(self) -> None:
        """Let the server and its sessions hang."""
        freeze_tree(self.process.pid)

    def resume(self) -> None:
        """Let them go on."""
        for pid in (self.process.pid, *self.sessions()):
            send_signal(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End the server, its sessions, and what they started."""
        end_popen(self.process)


@functools.cache
def quick_exchanges() -> str:
    """Return the key exchanges to be had but for the slowest, older ones among them."""
    argv = [need_tool("ssh"), "-Q", "kex"]
    names = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    return ",".join(name for name in names if not re.search("^sntrup|sha1$", name))


@functools.cache
def _knows(keyword: str) -> bool:
    """Say whether this sshd has a keyword that may be ``no``."""
    sshd = need_tool("sshd")
    argv = [sshd, "-T", "-o", f"{keyword}=no", "-f", os.devnull]
    text = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL).stderr
    return keyword not in text
