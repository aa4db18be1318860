"""Kerberos beside ssh: a realm of its own on loopback, a ticket, and sshd with GSSAPI."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.beside import Beside
from tests.support.clients import ClientHome
from tests.support.processes import end_popen
from tests.support.sshd import SshServer, free_port
from tests.support.startfile import hide_module
from tests.support.terminals import Terminal
from tests.support.tools import find_tool

REALM = "XSSH.TEST"


class Realm:
    """A KDC with one host, ``localhost``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        port = free_port()
        (directory / "krb5.conf").write_text(
            f"[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n"
            " dns_canonicalize_hostname = false\n rdns = false\n forwardable = true\n"
            f"[realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
            f"[domain_realm]\n localhost = {REALM}\n"
        )
        (directory / "kdc.conf").write_text(
            f"[kdcdefaults]\n kdc_listen = 127.0.0.1:{port}\n kdc_tcp_listen = 127.0.0.1:{port}\n"
            f"[realms]\n {REALM} = {{\n  database_name = {directory}/principal\n"
            f"  key_stash_file = {directory}/stash\n }}\n"
        )
        self.variables = {
            "KRB5_CONFIG": str(directory / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(directory / "kdc.conf"),
            "KRB5CCNAME": f"FILE:{directory}/tickets",
            "KRB5_KTNAME": str(directory / "keytab"),
        }
        self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", "master")
        for query in (
            "addprinc -randkey host/localhost",
            f"ktadd -k {directory}/keytab host/localhost",
        ):
            self._run("kadmin.local", "-q", query)
        self._kdc = subprocess.Popen(
            [find_tool("krb5kdc") or "", "-n", "-r", REALM],
            env={**os.environ, **self.variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _run(self, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = [find_tool(words[0]) or words[0], *words[1:]]
        environment = {**os.environ, **self.variables}
        return subprocess.run(argv, env=environment, input=given, capture_output=True, timeout=30)

    def add_user(self, user: str) -> None:
        """Let there be a user, who has a ticket."""
        self._run("kadmin.local", "-q", f"addprinc -pw secret {user}")
        for _ in range(100):
            done = self._run("kinit", f"{user}@{REALM}", given=b"secret\n")
            if done.returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(done.stderr.decode())

    def stop(self) -> None:
        end_popen(self._kdc)


@pytest.fixture
def kerberized(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    tmp_path: Path,
) -> Iterator[Beside]:
    """A server that lets its user in with a ticket alone; it is called ``localhost``."""
    if importlib.util.find_spec("gssapi") is None:
        pytest.skip("the extra gssapi is not installed: it is built from source")
    for tool in ("krb5kdc", "kadmin.local", "kdb5_util", "kinit"):
        if find_tool(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: krb5-kdc, krb5-admin-server, krb5-user)")
    realm = Realm(tmp_path)
    try:
        config = "GSSAPIAuthentication yes\nGSSAPIStrictAcceptorCheck no\nPubkeyAuthentication no"
        server = make_sshd(config=config, inherited=realm.variables)
        realm.add_user(server.user)
        extra = f"HostName localhost\nHostKeyAlias {server.known_hosts_name}\nBatchMode yes"
        login = Beside(client_home, server, spawn_in_pty, extra=extra)
        login.variables.update(realm.variables)
        yield login
    finally:
        realm.stop()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["-oGSSAPIAuthentication=yes"], 0),
        (["-oGSSAPIAuthentication=no"], 255),
        (["-oGSSAPIAuthentication=yes", "-oPreferredAuthentications=publickey"], 255),
        (["-oGSSAPIAuthentication=yes", "-oHostName=127.0.0.1"], 255),
        (["-K", "-k"], 0),
    ],
)
def test_gssapiauthentication_logs_in_with_a_ticket(
    kerberized: Beside, words: list[str], status: int
) -> None:
    assert kerberized.both(*words, "server", "echo in").status == status


@pytest.mark.parametrize("words", [["-K"], ["-oGSSAPIAuthentication=yes", "-k"]])
def test_gssapidelegatecredentials_passes_the_ticket_on(
    kerberized: Beside, words: list[str]
) -> None:
    done = kerberized.both(*words, "server", "klist >/dev/null 2>&1 && echo passed on")
    assert (done.stdout == b"passed on\n") is (words == ["-K"])


def test_gssapiauthentication_without_a_ticket_says_nothing(kerberized: Beside) -> None:
    kerberized.variables["KRB5CCNAME"] = "FILE:/nonexistent"
    assert kerberized.both("-K", "server", "true").status == 255


@pytest.mark.parametrize(
    ("words", "is_named"),
    [(["-oGSSAPIAuthentication=yes"], False), (["-K"], True), (["-K", "-k"], False)],
)
def test_gssapiauthentication_without_the_package(
    sshd: SshServer,
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    tmp_path: Path,
    words: list[str],
    is_named: bool,
) -> None:
    """The login goes on with a key; only -K names what is missing."""
    login = Beside(client_home, sshd, spawn_in_pty)
    hide_module("gssapi", tmp_path, login.variables)
    done = login.run("xssh", *words, "server", "echo in")
    assert (done.status, done.stdout) == (0, b"in\n")
    assert ("pip install 'xsshpy[gssapi]'" in done.stderr) is is_named
    assert is_named or done.stderr == ""
