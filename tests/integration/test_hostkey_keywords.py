"""The keywords about host keys in a whole login, beside the ssh of this machine.

VisualHostKey, RevokedHostKeys, KnownHostsCommand, VerifyHostKeyDNS and their kin: what each says,
asks and refuses. UpdateHostKeys has a file of its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.beside import Beside
from tests.support.clients import ClientHome
from tests.support.sshd import KeyRing, ServerOptions, SshServer, generate_key
from tests.support.terminals import Terminal
from tests.support.tools import openssh_release, require_tool

QUESTION = r"\(yes/no/\[fingerprint\]\)\? "
Login = Callable[..., Beside]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, with host certificates of its own for the module's servers."""
    require_tool("ssh-keygen")
    return generate_key(tmp_path_factory.mktemp("ca") / "ca")


def run_keygen(*words: str | Path) -> str:
    argv = [require_tool("ssh-keygen"), *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def plain_server(
    tmp_path_factory: pytest.TempPathFactory, key_ring: KeyRing, long_lived_processes: set[int]
) -> Iterator[SshServer]:
    """One server for the module; it shows an Ed25519 key."""
    directory = tmp_path_factory.mktemp("sshd")
    server = SshServer(directory, key_ring, ServerOptions(host_key_types=("ed25519",)))
    long_lived_processes.add(server.process.pid)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def certified_server(
    tmp_path_factory: pytest.TempPathFactory,
    key_ring: KeyRing,
    ca: Path,
    long_lived_processes: set[int],
) -> Iterator[SshServer]:
    """One whose key has a certificate: serial number 42, key id ``tower``."""
    directory = tmp_path_factory.mktemp("certified")
    public = directory / "host.pub"
    public.write_text(Path(f"{key_ring.host_keys['ed25519']}.pub").read_text())
    run_keygen("-q", "-s", ca, "-h", "-I", "tower", "-z", "42", "-n", "127.0.0.1", public)
    config = f"HostCertificate {directory / 'host-cert.pub'}"
    options = ServerOptions(host_key_types=("ed25519",), config=config)
    server = SshServer(directory, key_ring, options)
    long_lived_processes.add(server.process.pid)
    yield server
    server.stop()


@pytest.fixture
def login(
    plain_server: SshServer, client_home: ClientHome, spawn_in_pty: Callable[..., Terminal]
) -> Beside:
    """The plain server, known."""
    return Beside(client_home, plain_server, spawn_in_pty)


@pytest.fixture
def certified(
    certified_server: SshServer,
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    ca: Path,
) -> Beside:
    """The server with a certificate, known by its CA."""
    login = Beside(client_home, certified_server, spawn_in_pty, known=False)
    kind, text = Path(f"{ca}.pub").read_text().split()[:2]
    login.home.known_hosts.write_text(f"@cert-authority * {kind} {text}\n")
    return login


def public_key(login: Beside, kind: str = "ed25519") -> Path:
    return Path(f"{login.server.keys.host_keys[kind]}.pub")  # type: ignore[union-attr]


# VisualHostKey


def test_visual_host_key_is_shown_at_login(login: Beside) -> None:
    art = run_keygen("-lv", "-f", public_key(login)).split("\n", 1)[1]
    done = login.both("-oVisualHostKey=yes", "server", "echo in")
    assert done.stdout == b"in\n"
    assert art in done.stderr
    for words in (["-oFingerprintHash=md5"], ["-q"], ["-oLogLevel=ERROR"], ["-oVisualHostKey=no"]):
        login.both(*words, "-oVisualHostKey=yes", "server", "true")


def test_visual_host_key_is_shown_with_a_certificate(certified: Beside) -> None:
    done = certified.both("-oVisualHostKey=yes", "server", "true")
    assert "+-[ED25519-CERT]--+" in done.stderr


def test_visual_host_key_is_part_of_the_question(login: Beside) -> None:
    login.home.known_hosts.write_text("")
    words = ["-oVisualHostKey=yes", "-oStrictHostKeyChecking=ask", "server", "true"]
    seen = login.converse_both(words, [(QUESTION, "no\n")])
    assert b"+--[ED25519 256]--+" in seen.output


def test_visual_host_key_is_not_shown_with_a_changed_key(login: Beside, tmp_path: Path) -> None:
    other = Path(f"{generate_key(tmp_path / 'other')}.pub").read_text()
    login.home.known_hosts.write_text(f"[127.0.0.1]:{login.server.port} {other}")
    for strict in ("yes", "no"):
        words = ["-oVisualHostKey=yes", f"-oStrictHostKeyChecking={strict}"]
        done = login.both(*words, "server", "echo in")
        assert "ED25519 256" not in done.stderr


# RevokedHostKeys


@pytest.fixture
def revoked(tmp_path: Path) -> Path:
    return tmp_path / "revoked keys"


def test_revoked_host_keys_as_a_list_of_keys(login: Beside, revoked: Path, tmp_path: Path) -> None:
    other = Path(f"{generate_key(tmp_path / 'other')}.pub").read_text()
    mine = public_key(login).read_text()
    for text, accepted in [
        ("", True), (f"# all\n\n{other}\t {mine}", False), (mine.rstrip(), False),
        (mine.replace("\n", "\r\n"), False), (f"nonsense\n{mine}", False), (f"* {mine}", False),
    ]:  # fmt: skip
        revoked.write_text(text)
        done = login.both(f'-oRevokedHostKeys="{revoked}"', "server", "echo in")
        assert (done.status == 0) is accepted, text


def test_revoked_host_keys_says_which_key_and_where(login: Beside, revoked: Path) -> None:
    revoked.write_text(public_key(login).read_text())
    fingerprint = run_keygen("-lf", public_key(login)).split()[1]
    done = login.both(f'-oRevokedHostKeys="{revoked}"', "-oStrictHostKeyChecking=no", "server", "x")
    assert done.status == 255
    assert f"Host key ED25519 {fingerprint} revoked by file {revoked}\n" in done.stderr
    login.both(f'-oRevokedHostKeys="{revoked}"', "-oFingerprintHash=md5", "server", "x")


def test_revoked_host_keys_that_cannot_be_read_refuse_every_key(
    login: Beside, tmp_path: Path
) -> None:
    for path in (tmp_path / "missing", tmp_path, Path("/proc/self/mem"), Path("~/revoked")):
        done = login.both(f"-oRevokedHostKeys={path}", "server", "echo in")
        assert (done.status, done.stdout) == (255, b"")
        assert "Error checking host key ED25519" in done.stderr
    assert login.both("-oRevokedHostKeys=none", "server", "echo in").status == 0


def test_revoked_host_keys_as_a_krl(login: Beside, revoked: Path) -> None:
    """Which keys a KRL revokes is compared with ssh-keygen's answers in the unit tests."""
    source = revoked.with_name("source")
    source.write_text(f"sha256: {public_key(login).read_text()}")
    run_keygen("-q", "-k", "-f", revoked, source)
    option = f'-oRevokedHostKeys="{revoked}"'
    assert "revoked by file" in login.both(option, "server", "echo in").stderr
    whole = revoked.read_bytes()
    other_version = whole[:11] + b"\x02" + whole[12:]
    for broken in (whole[:-1], other_version):
        revoked.write_bytes(broken)
        done = login.run("xssh", option, "server", "echo in")
        assert done.status == 255
        theirs = login.run("ssh", option, "server", "echo in").stderr.splitlines()
        assert theirs[-2:] == done.stderr.splitlines()[:2]  # ssh may say more before that
    other = Path(f"{generate_key(revoked.with_name('other'))}.pub").read_text()
    source.write_text(f"key: {other}")
    run_keygen("-q", "-k", "-f", revoked, source)
    assert login.both(option, "server", "echo in").status == 0


def test_revoked_host_keys_in_certificates(certified: Beside, ca: Path, revoked: Path) -> None:
    option = f'-oRevokedHostKeys="{revoked}"'
    for public in (Path(f"{ca}.pub"), public_key(certified)):
        revoked.write_text(public.read_text())
        assert certified.both(option, "server", "true").status == 255
    source = revoked.with_name("source")
    for text, accepted in (("serial: 42\n", False), ("serial: 41\n", True), ("id: tower\n", False)):
        source.write_text(text)
        run_keygen("-q", "-k", "-f", revoked, "-s", f"{ca}.pub", source)
        assert (certified.both(option, "server", "true").status == 0) is accepted


# KnownHostsCommand


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A program that writes down its words and its stdin, then prints ``lines``."""
    program = tmp_path / "known hosts"
    program.write_text(
        f"#!/bin/sh\n(printf '<%s>' \"$@\"; cat; echo) >>'{tmp_path}/log'\n"
        f"cat '{tmp_path}/lines'\nexit $(cat '{tmp_path}/status')\n"
    )
    program.chmod(0o755)
    (tmp_path / "lines").touch()
    (tmp_path / "status").write_text("0")
    return program


def read_log(command: Path) -> str:
    log = command.with_name("log")
    text = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    return text


def both_run(login: Beside, command: Path, *words: str) -> tuple[str, int, str]:
    """Run both, want the program to be run alike; return its log, status and messages."""
    read_log(command)
    found = login.both(*words, stdin=b"input")
    log = read_log(command)
    half = len(log) // 2
    assert log[:half] == log[half:]
    return log[:half], found.status, found.stderr


def test_known_hosts_command_gets_its_words_and_tokens(login: Beside, command: Path) -> None:
    login.home.known_hosts.write_text("")
    tokens = "%I %H %t %f %K %h %n %p %r %u %k %i %L %l %C %d %%"
    line = f'"{command}" {tokens} "two words" x\\ y %%I ${{HOME}} \'$HOME;>\' %I%H ""'
    log, status, _ = both_run(login, command, f"-oKnownHostsCommand={line}", "server", "true")
    assert status == 255
    bare = "127.0.0.1"
    name = bare if openssh_release() < (9, 6) else f"[{bare}]:{login.server.port}"
    assert log.startswith(f"<ORDER><{name}><NONE><NONE><NONE><{bare}><server>")
    assert f"<HOSTNAME><[127.0.0.1]:{login.server.port}><ssh-ed25519><SHA256:" in log
    words = [f"-oKnownHostsCommand={line}", "-oHostKeyAlias=Nick", "-oFingerprintHash=md5"]
    log, _, _ = both_run(login, command, *words, "server", "true")
    assert "<HOSTNAME><nick><ssh-ed25519><MD5:" in log


def test_known_hosts_command_makes_a_host_known(login: Beside, command: Path) -> None:
    known = login.home.known_hosts
    known.write_text("")
    command.with_name("lines").write_text("# x\n\n" + login.server.known_hosts_lines())
    words = [f'-oKnownHostsCommand="{command}"', "server", "echo in"]
    assert both_run(login, command, *words)[1:] == (0, "")
    extra = ["-oVisualHostKey=yes", "-oUpdateHostKeys=yes", "-oStrictHostKeyChecking=no"]
    assert both_run(login, command, *extra, *words)[1] == 0
    assert known.read_text() == ""
    kind, text = public_key(login).read_text().split()[:2]
    command.with_name("lines").write_text(f"127.0.0.1 {kind} {text}\n")
    assert both_run(login, command, *words)[1] == 255
    command.with_name("lines").write_text(f"@revoked * {kind} {text}\n")
    known.write_text(login.server.known_hosts_lines())
    assert "REVOKED HOST KEY" in both_run(login, command, *words)[2]


def test_known_hosts_command_with_another_key(login: Beside, command: Path) -> None:
    other = Path(f"{generate_key(command.with_name('other'))}.pub").read_text()
    name = f"[127.0.0.1]:{login.server.port}"
    command.with_name("lines").write_text(f"{name} {other}")
    words = [f'-oKnownHostsCommand="{command}"', "server", "echo in"]
    assert both_run(login, command, *words)[1] == 0  # the file has the right one too
    login.home.known_hosts.write_text("")
    _, status, text = both_run(login, command, *words)
    assert status == 255
    assert "Offending ED25519 key in KnownHostsCommand-HOSTNAME:1" in text


def test_known_hosts_command_orders_the_kinds_of_keys(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    command: Path,
) -> None:
    login = Beside(client_home, make_sshd(), spawn_in_pty, known=False)
    for kind in ("rsa", "ecdsa"):
        name, text = public_key(login, kind).read_text().split()[:2]
        names = f"127.0.0.1,[127.0.0.1]:{login.server.port}"
        command.with_name("lines").write_text(f"{names} {name} {text}\n")
        words = [f'-oKnownHostsCommand="{command}"', "-oUpdateHostKeys=no", "server", "echo in"]
        log, status, _ = both_run(login, command, *words)
        assert (log.count("\n"), status) == (2, 0)


@pytest.mark.parametrize(
    "line",
    ["relative %I", "/nonexistent/program %I", "/etc/passwd %I", '/bin/sh -c "exit 3"',
     "/bin/sh -c 'kill -9 $$'"],
)  # fmt: skip
def test_known_hosts_command_that_fails(login: Beside, line: str) -> None:
    done = login.both(f"-oKnownHostsCommand={line}", "server", "echo in")
    runs = not line.startswith(("relative", "/nonexistent"))
    assert done.status == (255 if runs else 0)
    assert ("KnownHostsCommand failed" in done.stderr) is runs


@pytest.mark.parametrize("word", ["%Z", "%H%j", "${XSSH_TEST_UNSET}"])
def test_known_hosts_command_with_an_unknown_token(login: Beside, word: str) -> None:
    words = [f"-oKnownHostsCommand=/bin/echo {word}", "server", "echo in"]
    theirs, ours = (login.run(program, *words) for program in ("ssh", "xssh"))
    if word == "%H%j" and openssh_release() >= (9, 6):  # it is known there
        assert (theirs.status, ours.status) == (0, 0)
        return
    assert (theirs.status, ours.status, ours.stdout) == (255, 255, b"")
    assert "KnownHostsCommand" in ours.stderr


def test_known_hosts_command_that_prints_without_end(login: Beside) -> None:
    done = login.run("xssh", "-oKnownHostsCommand=/bin/cat /dev/zero", "server", "echo in")
    assert (done.status, done.stdout) == (255, b"")
    assert "printed more than" in done.stderr


# The others


@pytest.mark.parametrize(("value", "shown"), [("yes", "true"), ("ask", "ask")])
def test_verify_host_key_dns_is_named_and_nothing_is_weaker(
    login: Beside, value: str, shown: str
) -> None:
    option = f"-oVerifyHostKeyDNS={value}"
    done = login.run("xssh", option, "server", "echo in")
    assert (done.status, done.stdout) == (0, b"in\n")
    assert done.stderr.startswith(f"xssh: verifyhostkeydns {shown} is not supported: ")
    login.home.known_hosts.write_text("")
    assert login.run("xssh", option, "server", "echo in").status == 255
    assert login.run("xssh", "-oVerifyHostKeyDNS=no", "server", "x").stderr.startswith("No ED25519")


def test_global_known_hosts_file(login: Beside, tmp_path: Path) -> None:
    known = login.home.known_hosts.read_text()
    login.home.known_hosts.write_text("")
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text(known)
    config = login.home.config.read_text()
    files = f"GlobalKnownHostsFile {first} {second}"
    login.home.config.write_text(config.replace("GlobalKnownHostsFile none", files))
    assert login.both("server", "echo in") == (0, b"in\n", "")
    assert login.both("-oStrictHostKeyChecking=no", "-oUpdateHostKeys=yes", "server", "x").status
    assert login.home.known_hosts.read_text() == ""
    other = Path(f"{generate_key(tmp_path / 'other')}.pub").read_text()
    first.write_text(f"[127.0.0.1]:{login.server.port} {other}")
    assert login.both("server", "echo in").status == 0
    second.unlink()
    done = login.both("server", "echo in")
    assert (done.status, f"Offending ED25519 key in {first}:1" in done.stderr) == (255, True)


@pytest.mark.parametrize("extra", [[], ["-oHostKeyAlias=nick"], ["-oStrictHostKeyChecking=no"]])
def test_no_host_authentication_for_localhost(
    login: Beside, tmp_path: Path, extra: list[str]
) -> None:
    other = Path(f"{generate_key(tmp_path / 'other')}.pub").read_text()
    name = f"[127.0.0.1]:{login.server.port}"
    option = "-oNoHostAuthenticationForLocalhost=yes"
    for text in ("", f"{name} {other}"):
        login.home.known_hosts.write_text(text)
        done = login.both(option, *extra, "server", "echo in")
        assert (done.status == 0) is ("-oHostKeyAlias=nick" not in extra)
        if "nick" not in str(extra):
            assert login.home.known_hosts.read_text() == text
    listed = tmp_path / "revoked"
    listed.write_text(public_key(login).read_text())
    assert login.both(option, f"-oRevokedHostKeys={listed}", "server", "x").status == 255


def test_required_rsa_size_of_a_host_key(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    login = Beside(client_home, make_sshd(host_key_types=("rsa",)), spawn_in_pty)
    assert login.both("-oRequiredRSASize=2048", "server", "echo in").status == 0
    words = ["-oStrictHostKeyChecking=no", "-oNoHostAuthenticationForLocalhost=yes"]
    done = login.both("-oRequiredRSASize=2049", *words, "server", "echo in")
    assert done.status == 255
    assert "Bad server host key: Invalid key length" in done.stderr


def test_verbose_words_about_the_key(login: Beside) -> None:
    wanted = "Server host "
    for words in (["server"], ["-oFingerprintHash=md5", "server"]):
        theirs, ours = (login.run(program, "-vv", *words, "true") for program in ("ssh", "xssh"))
        lines = [line for line in theirs.stderr.splitlines() if wanted in line]
        assert lines and lines == [line for line in ours.stderr.splitlines() if wanted in line]


def test_verbose_words_about_a_certificate(certified: Beside) -> None:
    wanted = "Server host "
    theirs, ours = (certified.run(program, "-vv", "server", "true") for program in ("ssh", "xssh"))
    lines = [line for line in theirs.stderr.splitlines() if wanted in line]
    assert len(lines) == 2
    assert lines == [line for line in ours.stderr.splitlines() if wanted in line]
