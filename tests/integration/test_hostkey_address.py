"""CheckHostIP beside ssh: a server at an address that is not loopback's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.beside import Beside
from tests.support.clients import ClientHome
from tests.support.networks import ADDRESS, run_in_network
from tests.support.sshd import SshServer, generate_key
from tests.support.terminals import Terminal

QUESTION = r"\(yes/no/\[fingerprint\]\)\? "
PLAIN_QUESTION = r"\(yes/no\)\? "
WORDS = ("-oHostName=tower", "-oCheckHostIP=yes")


@pytest.fixture
def in_tower(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    tmp_path: Path,
) -> Callable[[Callable[[Beside], None]], None]:
    """Call a function with a server that is called ``tower`` and lies at another address."""

    def run(body: Callable[[Beside], None]) -> None:
        def start() -> None:
            kinds = ("ed25519", "ecdsa")
            server = make_sshd(config=f"ListenAddress {ADDRESS}", host_key_types=kinds)
            login = Beside(client_home, server, spawn_in_pty, known=False)
            hosts = tmp_path / "hosts"
            hosts.write_text(f"{ADDRESS} tower\n")
            login.variables["NSS_WRAPPER_HOSTS"] = str(hosts)
            body(login)

        run_in_network(start)

    return run


def both_from(login: Beside, before: str, *words: str) -> tuple[str, str]:
    """Log in with both from the same known_hosts; return what it is then, and what was said."""
    texts: list[str] = []

    def put_back() -> None:
        texts.append(login.home.known_hosts.read_text())
        login.home.known_hosts.write_text(before)

    done = login.both(*words, *WORDS, "server", "echo in", before=put_back)
    texts.append(login.home.known_hosts.read_text())
    assert texts[1] == texts[2]
    return texts[2], done.stderr


def test_check_host_ip(in_tower: Callable[..., None], tmp_path: Path) -> None:
    other = " ".join(Path(f"{generate_key(tmp_path / 'other')}.pub").read_text().split()[:2])

    def body(login: Beside) -> None:
        assert isinstance(login.server, SshServer)
        port = login.server.port
        mine = login.server.known_hosts_lines("x").splitlines()[0].removeprefix("x ")
        tower, address = f"[tower]:{port}", f"[{ADDRESS}]:{port}"
        for strict in ("accept-new", "no"):
            after, said = both_from(login, "", f"-oStrictHostKeyChecking={strict}")
            assert after == f"{tower},{address} {mine}\n"
            assert f"Permanently added '{tower},{address}' (ED25519)" in said
        after, said = both_from(login, f"{tower} {mine}\n", "-oVisualHostKey=yes")
        assert after == f"{tower} {mine}\n{address} {mine}\n"
        assert "Permanently added the ED25519 host key for IP address" in said
        differs = f"{tower} {mine}\n{address} {other}\n"
        for strict in ("yes", "no", "accept-new", "ask"):
            words = [f"-oStrictHostKeyChecking={strict}", "-oBatchMode=yes"]
            after, said = both_from(login, differs, *words)
            assert after == differs
            assert ("differs from the key for the IP address" in said) is (strict != "ask")
        for before in (f"{tower} {other}\n", f"{tower} {other}\n{address} {mine}\n",
                       f"{tower},{address} {other}\n"):  # fmt: skip
            after, said = both_from(login, before, "-oStrictHostKeyChecking=no")
            assert ("POSSIBLE DNS SPOOFING" in said) is ("," not in before)
        both_from(login, f"{tower} {mine}\n", "-oHostKeyAlias=nick")
        assert both_from(login, f"{tower} {mine}\n", "-oCheckHostIP=no")[1] == ""

    in_tower(body)


def test_check_host_ip_of_a_host_known_without_its_port(
    in_tower: Callable[..., None], tmp_path: Path
) -> None:
    other = " ".join(Path(f"{generate_key(tmp_path / 'other')}.pub").read_text().split()[:2])

    def body(login: Beside) -> None:
        assert isinstance(login.server, SshServer)
        mine = login.server.known_hosts_lines("x").splitlines()[0].removeprefix("x ")
        address = f"[{ADDRESS}]:{login.server.port}"
        for more in ("", f"{ADDRESS} {mine}\n", f"{address} {other}\n"):
            both_from(login, f"tower {mine}\n{more}", "-oVisualHostKey=yes")
        differs = f"tower {mine}\n{ADDRESS} {other}\n"
        for strict in ("yes", "no", "accept-new"):
            both_from(login, differs, f"-oStrictHostKeyChecking={strict}")
        for steps in (
            [(PLAIN_QUESTION, "yes\n")],
            [(PLAIN_QUESTION, "no\n"), (QUESTION, "no\n")],
            [(PLAIN_QUESTION, "no\n"), (QUESTION, "yes\n")],
        ):
            login.converse_both(
                [*WORDS, "-oStrictHostKeyChecking=ask", "server", "echo in"],
                steps,
                before=lambda: login.home.known_hosts.write_text(differs),
            )

    in_tower(body)


def test_check_host_ip_with_names_that_are_hashed_or_numbers(in_tower: Callable[..., None]) -> None:
    def body(login: Beside) -> None:
        assert isinstance(login.server, SshServer)
        port, known = login.server.port, login.home.known_hosts
        accept = "-oStrictHostKeyChecking=accept-new"
        for program in ("ssh", "xssh"):
            known.write_text("")
            words = [*WORDS, accept, "-oHashKnownHosts=yes", "server", "true"]
            assert login.run(program, *words).status == 0
            assert known.read_text().count("|1|") == 2
            for name in ("tower", ADDRESS):
                argv = ["ssh-keygen", "-F", f"[{name}]:{port}", "-f", str(known)]
                assert subprocess.run(argv, capture_output=True).returncode == 0
        after, _ = both_from(login, "", accept, f"-oHostName={ADDRESS}")
        assert after.count("\n") == 1 and after.startswith(f"[{ADDRESS}]:{port} ")

    in_tower(body)


def test_check_host_ip_and_known_hosts_command(
    in_tower: Callable[..., None], tmp_path: Path
) -> None:
    def body(login: Beside) -> None:
        assert isinstance(login.server, SshServer)
        log, program = tmp_path / "log", tmp_path / "program"
        lines = login.server.known_hosts_lines(f"[tower]:{login.server.port}")
        program.write_text(f'#!/bin/sh\necho "$@" >>{log}\necho "{lines}"\n')
        program.chmod(0o755)
        _, said = both_from(login, "", f"-oKnownHostsCommand={program} %I %H %t")
        assert "not in list of known hosts" in said
        asked = log.read_text().splitlines()
        assert asked[:3] == asked[3:]
        assert asked[2] == f"ADDRESS [{ADDRESS}]:{login.server.port} ssh-ed25519"

    in_tower(body)


def test_check_host_ip_and_update_host_keys(in_tower: Callable[..., None]) -> None:
    def body(login: Beside) -> None:
        assert isinstance(login.server, SshServer)
        port = login.server.port
        mine, second = login.server.known_hosts_lines("x").replace("x ", "").splitlines()
        tower, address = f"[tower]:{port}", f"[{ADDRESS}]:{port}"
        update = "-oUpdateHostKeys=yes"
        after, _ = both_from(login, f"{tower},{address} {mine}\n", update)
        assert after == f"{tower},{address} {mine}\n{tower},{address} {second}\n"
        for before in (f"{tower} {mine}\n{address} {mine}\n{tower} {second}\n",
                       f"{tower} {mine}\n", f"{tower},[192.0.2.9]:{port} {mine}\n"):  # fmt: skip
            both_from(login, before, update)

    in_tower(body)
