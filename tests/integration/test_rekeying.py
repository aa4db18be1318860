"""Keys exchanged anew in the middle of a transfer, and compression: the bytes stay the same."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.beside import PROGRAMS, Beside
from tests.support.clients import ClientHome
from tests.support.processes import Completed, run
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal

SIZE = 8 << 20
DATA = os.urandom(SIZE)
DIGEST = f"{hashlib.sha256(DATA).hexdigest()}  -\n".encode()


@pytest.fixture
def login(
    sshd: SshServer, client_home: ClientHome, spawn_in_pty: Callable[..., Terminal]
) -> Beside:
    return Beside(client_home, sshd, spawn_in_pty)


@pytest.fixture
def store(short_directory: Path) -> Path:
    path = short_directory / "data"
    path.write_bytes(DATA)
    return path


def count(text: str, pattern: str) -> int:
    return len(re.findall(f"^debug1: {pattern}", text, re.MULTILINE))


def transfer(login: Beside, direction: str, store: Path, *words: str) -> Completed:
    """Send or fetch the data, or both at once, and want it whole."""
    if direction == "up":
        done = login.run("xssh", *words, "server", "sha256sum", stdin=DATA)
        assert done.stdout == DIGEST
    elif direction == "down":
        done = login.run("xssh", *words, "server", f"cat {store}")
        assert hashlib.sha256(done.stdout).hexdigest() in DIGEST.decode()
    else:
        done = login.run("xssh", *words, "server", "cat", stdin=DATA)
        assert done.stdout == DATA
    assert done.status == 0, done.stderr
    return done


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com",
                                    "aes256-ctr"])  # fmt: skip
@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_rekey_limit_in_the_middle_of_a_transfer(
    login: Beside, store: Path, direction: str, cipher: str
) -> None:
    done = transfer(login, direction, store, "-v", "-oRekeyLimit=1M", f"-oCiphers={cipher}")
    out = count(done.stderr, r"ssh_set_newkeys: rekeying out, input \d+ bytes \d+ blocks, ")
    into = count(done.stderr, r"ssh_set_newkeys: rekeying in, input \d+ bytes \d+ blocks, ")
    assert out == into >= 2, done.stderr[-2000:]
    assert out <= 16  # each way has its own megabyte
    assert count(done.stderr, "SSH2_MSG_NEWKEYS sent") == out + 1
    assert count(done.stderr, rf"rekey out after {(1 << 20) // (8 if 'chacha' in cipher else 16)} ")


def test_the_lines_about_it_are_sshs(login: Beside, store: Path) -> None:
    kinds = []
    for program in PROGRAMS:
        words = ["-v", "-oRekeyLimit=1M", "-oCiphers=aes128-gcm@openssh.com", "server"]
        text = login.run(program, *words, f"cat {store}").stderr
        lines = [
            line for line in text.splitlines() if "rekey" in line and "rekeying in p" not in line
        ]
        kinds.append({re.sub(r"\d+", "N", line) for line in lines})
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_a_server_that_wants_new_keys(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    store: Path,
    direction: str,
) -> None:
    server = make_sshd(config="RekeyLimit 1M")
    login = Beside(client_home, server, spawn_in_pty)
    done = transfer(login, direction, store, "-v")
    assert count(done.stderr, "ssh_set_newkeys: rekeying out") >= 3


def test_tiny_limits(login: Beside) -> None:
    """A few bytes: every packet has new keys, and things still go on."""
    done = login.run("xssh", "-v", "-oRekeyLimit=16", "server", "echo hi; cat", stdin=b"in")
    assert (done.status, done.stdout) == (0, b"hi\nin")
    assert count(done.stderr, "ssh_set_newkeys: rekeying out") >= 3


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_a_limit_of_time_is_kept_by_an_idle_connection(login: Beside, program: str) -> None:
    words = ["-v", "-oRekeyLimit=default 1", "server", "sleep 2.6; echo hi"]
    done = login.run(program, *words)
    assert (done.status, done.stdout) == (0, b"hi\n")
    assert count(done.stderr, "ssh_set_newkeys: rekeying out") in (1, 2, 3)


def test_both_sides_want_new_keys_at_once(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    store: Path,
) -> None:
    server = make_sshd(config="RekeyLimit 128K")
    login = Beside(client_home, server, spawn_in_pty)
    done = transfer(login, "both", store, "-v", "-oRekeyLimit=100K")
    assert count(done.stderr, "ssh_set_newkeys: rekeying out") >= 20


def test_a_jump_host_s_keys_change_under_the_connection(login: Beside, store: Path) -> None:
    """A jump host's connection, which has no session: the transfer is the inner connection's."""
    words = ["-J", "jump", "-oRekeyLimit=1M"]
    text = login.home.config.read_text()
    jump = text.replace("Host server\n", "Host jump\n  RekeyLimit 256K\n")
    login.home.config.write_text(text + jump)
    transfer(login, "down", store, *words)
    transfer(login, "up", store, *words)


# Compression


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_compression_is_negotiated_and_works(login: Beside, store: Path, direction: str) -> None:
    done = transfer(login, direction, store, "-v", "-oCompression=yes", "-oRekeyLimit=2M")
    assert count(done.stderr, "kex: server->client .* compression: zlib@openssh.com") >= 2
    assert count(done.stderr, "kex: client->server .* compression: zlib@openssh.com") >= 2


@pytest.mark.parametrize("option", ["-C", "-oCompression=yes", "-oCompression=no"])
def test_compression_makes_it_smaller(login: Beside, option: str) -> None:
    """A megabyte of zeros: on the wire it is one, or next to nothing."""
    sizes = []
    for program in PROGRAMS:
        words = ["-v", option, "server", "head -c 1000000 /dev/zero; cat >/dev/null"]
        done = login.run(program, *words, stdin=bytes(1_000_000))
        assert (done.status, len(done.stdout)) == (0, 1_000_000)
        found = re.search(r"Transferred: sent (\d+), received (\d+) bytes", done.stderr)
        assert found is not None
        sizes.append([int(found.group(1)) > 500_000, int(found.group(2)) > 500_000])
    assert sizes == [[option.endswith("=no")] * 2] * 2


def test_a_server_without_compression(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    login = Beside(client_home, make_sshd(config="Compression no"), spawn_in_pty)
    assert login.both("-C", "server", "echo hi") == (0, b"hi\n", "")


def test_measured_by_sha256sum_in_a_pipeline(login: Beside, store: Path) -> None:
    """As people check it: xssh in a pipe, at both ends."""
    argv = login.argv("xssh", ["-oRekeyLimit=512K", "server", f"cat {store}"])
    with subprocess.Popen(argv, env=login.environment(), stdout=subprocess.PIPE) as source:
        assert source.stdout is not None
        done = run(["sha256sum"], stdin=source.stdout.fileno())
    assert (source.returncode, done.stdout) == (0, DIGEST)


def test_nothing_is_ignored_but_with_cbc(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    server = make_sshd(config="LogLevel DEBUG3\nCiphers +aes128-cbc\n")
    login = Beside(client_home, server, spawn_in_pty)
    text = "Received SSH2_MSG_IGNORE"
    for cipher in ("aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"):
        assert login.run("xssh", f"-oCiphers={cipher}", "server", "echo", "hi").status == 0
    assert text not in server.log()
    assert login.run("xssh", "-oCiphers=aes128-cbc", "server", "echo", "hi").status == 0
    assert text in server.log()
