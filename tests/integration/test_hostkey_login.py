"""Host keys in a whole login: questions, refusals and records, beside the ssh of this machine."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.asyncserver import AsyncServer, Policy
from tests.support.beside import Beside, Step, write_askpass
from tests.support.clients import ClientHome
from tests.support.processes import run, wait_until
from tests.support.sshd import KeyRing, SshServer, generate_key
from tests.support.terminals import Terminal
from tests.support.tools import require_tool

ASK = "StrictHostKeyChecking ask"
QUESTION = r"\(yes/no/\[fingerprint\]\)\? "
AGAIN = "Please type 'yes', 'no' or the fingerprint: "
MakeHost = Callable[..., Beside]


@pytest.fixture
def make_host(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> MakeHost:
    """Start an sshd with an Ed25519 key, ``extra`` in ssh_config; it is not known."""

    def make(extra: str = ASK, *, known: bool = False, **options: object) -> Beside:
        options.setdefault("host_key_types", ("ed25519",))
        return Beside(client_home, make_sshd(**options), spawn_in_pty, extra=extra, known=known)

    return make


@pytest.fixture
def watched(
    client_home: ClientHome, key_ring: KeyRing, spawn_in_pty: Callable[..., Terminal]
) -> Iterator[Beside]:
    """A server that writes down what is asked of it; it is not known."""
    public = Path(f"{key_ring.client_key}.pub")
    policy = Policy(keys=(public,))
    server = AsyncServer(policy, key_ring.host_keys["ed25519"], key_ring.client_key)
    yield Beside(client_home, server, spawn_in_pty, extra=ASK, known=False)
    server.stop()


def fingerprint(login: Beside, kind: str = "ed25519") -> str:
    keys = login.server.keys  # type: ignore[union-attr]
    argv = ["ssh-keygen", "-lf", f"{keys.host_keys[kind]}.pub"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]


def empty(login: Beside) -> Callable[[], None]:
    return lambda: login.home.known_hosts.write_text("")


# A new host


@pytest.mark.parametrize(
    ("steps", "recorded"),
    [
        ([(QUESTION, "yes\n")], True),
        ([(QUESTION, "YES\n")], True),
        ([(QUESTION, "no\n")], False),
        ([(QUESTION, "\n")], False),
        ([(QUESTION, "\x04")], False),
        ([(QUESTION, "y\n"), (AGAIN, "maybe\n"), (AGAIN, "yes\n")], True),
        ([(QUESTION, "SHA256:wrong\n"), (AGAIN, "no\n")], False),
        ([(QUESTION, "{fingerprint}\n")], True),
    ],
)
def test_the_question_about_a_new_host(
    make_host: MakeHost, steps: list[Step], recorded: bool
) -> None:
    login = make_host()
    typed = [(w, str(a).format(fingerprint=fingerprint(login))) for w, a in steps]
    seen = login.converse_both(["server", "echo in"], typed, before=empty(login))
    assert seen.process.returncode == (0 if recorded else 255)
    lines = login.server.known_hosts_lines() if recorded else ""
    assert login.home.known_hosts.read_text() == lines
    assert (b"Host key verification failed." in seen.output) is not recorded


def test_nothing_but_the_key_exchange_happens_before_the_answer(watched: Beside) -> None:
    server = watched.server
    assert isinstance(server, AsyncServer)
    seen = watched.converse("xssh", ["server", "hi"], [], status=False)
    seen.read_until(QUESTION)
    time.sleep(0.7)
    assert server.log == ["connection"]
    seen.write("yes\n")
    assert seen.wait() == 7
    assert "request demo none" in server.log


@pytest.mark.parametrize("answer", ["no\n", "\x03"])
def test_a_refused_host_learns_nothing(watched: Beside, answer: str) -> None:
    server = watched.server
    assert isinstance(server, AsyncServer)
    seen = watched.converse("xssh", ["server", "hi"], [], status=False)
    seen.read_until(QUESTION)
    time.sleep(0.2)
    seen.write(answer)
    assert seen.wait() == (255 if answer == "no\n" else -2)
    assert seen.is_restored
    wait_until(lambda: "connection lost" in server.log, what="the connection to end")
    assert not [line for line in server.log if line.startswith("request")]


@pytest.mark.parametrize("strict", ["yes", "accept-new", "no", "off", "ask"])
@pytest.mark.parametrize("batch", ["yes", "no"])
def test_each_way_of_checking_a_new_host(make_host: MakeHost, strict: str, batch: str) -> None:
    login = make_host(f"StrictHostKeyChecking {strict}\nBatchMode {batch}")
    done = login.both("server", "echo in", before=empty(login))
    accepted = strict in ("accept-new", "no", "off")
    assert done.status == (0 if accepted else 255)
    recorded = login.server.known_hosts_lines() if accepted else ""
    assert login.home.known_hosts.read_text() == recorded


def test_the_question_by_askpass(make_host: MakeHost) -> None:
    login = make_host()
    for program in ("ssh", "xssh"):
        login.home.known_hosts.write_text("")
        askpass, record = write_askpass(login.home.path, ["what", "yes"])
        login.variables.update(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
        done = login.run(program, "server", "echo in")
        assert (done.status, done.stdout) == (0, b"in\n"), done
        asked = record.read_text()
        assert asked.startswith("The authenticity of host '[127.0.0.1]:")
        assert fingerprint(login) in asked
        assert asked.splitlines()[-1] == AGAIN
        for path in (record, login.home.path / "turn"):
            path.unlink()


def test_the_record_is_hashed_where_that_is_wanted(make_host: MakeHost) -> None:
    login = make_host("StrictHostKeyChecking accept-new\nHashKnownHosts yes")
    login.both("server", "true", before=empty(login))
    text = login.home.known_hosts.read_text()
    assert text.startswith("|1|") and text.count("\n") == 1
    assert login.both("-oStrictHostKeyChecking=yes", "server", "true").status == 0


def test_a_new_key_goes_to_the_first_of_several_files(make_host: MakeHost) -> None:
    login = make_host("StrictHostKeyChecking accept-new")
    first, second = (login.home.path / name for name in ("first", "second"))
    option = f"-oUserKnownHostsFile={first} {second}"
    for program in ("ssh", "xssh"):
        first.write_text("# mine\n")
        assert login.run(program, option, "server", "true").status == 0
        added = login.server.known_hosts_lines()
        assert first.read_text() == f"# mine\n{added}"
        assert not second.exists()
    second.write_text(added)
    first.unlink()
    assert login.both(option, "server", "true") == (0, b"", "")
    assert not first.exists()


@pytest.mark.parametrize("name", ["[127.0.0.1]:{port}", "[127.0.0.*]:{port}", "nick"])
def test_a_host_is_known_by_its_names(make_host: MakeHost, name: str) -> None:
    login = make_host("StrictHostKeyChecking yes")
    known = login.server.known_hosts_lines(name.format(port=login.server.port))
    login.home.known_hosts.write_text(known)
    words = ["-oHostKeyAlias=nick"] if name == "nick" else []
    assert login.both(*words, "server", "echo in") == (0, b"in\n", "")
    other = [] if words else ["-oHostKeyAlias=another"]
    assert login.both(*other, "server", "echo in").status == 255


def test_the_kind_of_key_on_record_is_asked_for(make_host: MakeHost) -> None:
    """Otherwise a host that is known by its RSA key shows its Ed25519 one, and looks changed."""
    login = make_host("StrictHostKeyChecking yes", host_key_types=("ed25519", "ecdsa", "rsa"))
    lines = login.server.known_hosts_lines().splitlines(keepends=True)
    for line in lines:
        login.home.known_hosts.write_text(line)
        assert login.both("server", "echo in") == (0, b"in\n", "")


# A changed or revoked key


@pytest.fixture
def impostor(make_host: MakeHost, tmp_path: Path) -> Beside:
    """A server whose key is not the one on record, in the second line of the file."""
    login = make_host("StrictHostKeyChecking ask")
    generate_key(tmp_path / "former")
    former = (tmp_path / "former.pub").read_text().split()
    name = login.server.known_hosts_name  # type: ignore[union-attr]
    login.home.known_hosts.write_text(f"# known\n{name} {former[0]} {former[1]}\n")
    return login


@pytest.mark.parametrize("strict", ["yes", "ask", "accept-new"])
def test_a_changed_key_ends_the_run(impostor: Beside, strict: str) -> None:
    before = impostor.home.known_hosts.read_text()
    done = impostor.both(f"-oStrictHostKeyChecking={strict}", "server", "echo in")
    assert (done.status, done.stdout) == (255, b"")
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
    assert f"Offending ED25519 key in {impostor.home.known_hosts}:2\n" in done.stderr
    assert done.stderr.rstrip().endswith("Host key verification failed.")
    assert impostor.home.known_hosts.read_text() == before


def test_a_changed_key_with_checking_off_lets_in_without_passwords(impostor: Beside) -> None:
    done = impostor.both("-oStrictHostKeyChecking=no", "server", "echo in")
    assert (done.status, done.stdout) == (0, b"in\n")
    assert "Password authentication is disabled" in done.stderr


def test_no_password_for_a_host_with_a_changed_key(make_host: MakeHost, tmp_path: Path) -> None:
    hashed = subprocess.run(
        [require_tool("openssl"), "passwd", "-6", "right"], capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    login = make_host("StrictHostKeyChecking no", password_hash=hashed)
    generate_key(tmp_path / "former")
    former = (tmp_path / "former.pub").read_text().split()
    name = login.server.known_hosts_name  # type: ignore[union-attr]
    login.home.known_hosts.write_text(f"{name} {former[0]} {former[1]}\n")
    seen = login.converse_both(["-oPubkeyAuthentication=no", "server", "echo in"], [])
    assert seen.process.returncode == 255
    assert b"password:" not in seen.output


@pytest.mark.parametrize("strict", ["yes", "ask", "no"])
def test_a_revoked_key(make_host: MakeHost, strict: str) -> None:
    login = make_host(f"StrictHostKeyChecking {strict}")
    known = login.server.known_hosts_lines()
    login.home.known_hosts.write_text(f"{known}@revoked * {known.split(' ', 1)[1]}")
    done = login.both("server", "echo in")
    assert done.status == (0 if strict == "no" else 255)
    assert "REVOKED HOST KEY DETECTED" in done.stderr


# Host certificates


@pytest.fixture
def certified(make_host: MakeHost, key_ring: KeyRing, tmp_path: Path) -> Callable[..., Beside]:
    """A server that shows a certificate, and a client that knows only the CA."""

    def make(*options: str, break_signature: bool = False) -> Beside:
        generate_key(tmp_path / "ca")
        public = tmp_path / "host.pub"
        public.write_text(Path(f"{key_ring.host_keys['ed25519']}.pub").read_text())
        argv = ["ssh-keygen", "-q", "-s", tmp_path / "ca", "-I", "host", "-h", *options, public]
        subprocess.run(argv, check=True)
        certificate = tmp_path / "host-cert.pub"
        if break_signature:
            kind, text, *_ = certificate.read_text().split()
            data = bytearray(base64.b64decode(text))
            data[-1] ^= 1
            certificate.write_text(f"{kind} {base64.b64encode(data).decode()}\n")
        login = make_host("StrictHostKeyChecking yes", config=f"HostCertificate {certificate}")
        ca = (tmp_path / "ca.pub").read_text().split()
        login.home.known_hosts.write_text(f"@cert-authority * {ca[0]} {ca[1]}\n")
        return login

    return make


def test_a_host_certificate_is_enough(certified: Callable[..., Beside]) -> None:
    login = certified("-n", "127.0.0.1", "-V", "-5m:+1h")
    assert login.both("server", "echo in") == (0, b"in\n", "")


def test_a_host_certificate_for_an_alias(certified: Callable[..., Beside]) -> None:
    login = certified("-n", "nick", "-V", "-5m:+1h")
    assert login.both("-oHostKeyAlias=nick", "server", "echo in") == (0, b"in\n", "")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-n", "127.0.0.1", "-V", "-2h:-1h"], "Certificate invalid: expired"),
        (["-n", "127.0.0.1", "-V", "+1h:+2h"], "Certificate invalid: not yet valid"),
        (["-n", "elsewhere", "-V", "-5m:+1h"], "Certificate invalid: name is not a listed"),
    ],
)
def test_a_host_certificate_that_does_not_hold(
    certified: Callable[..., Beside], options: list[str], reason: str
) -> None:
    done = certified(*options).both("server", "echo in")
    assert done.status == 255
    assert reason in done.stderr
    assert "Host key verification failed." in done.stderr


def test_a_certificate_by_an_algorithm_that_no_authority_may_use(
    certified: Callable[..., Beside],
) -> None:
    login = certified("-n", "127.0.0.1", "-V", "-5m:+1h")
    done = login.both("-oCASignatureAlgorithms=rsa-sha2-512", "server", "echo in")
    assert (done.status, done.stdout) == (255, b"")


def test_a_host_certificate_with_a_broken_signature(
    make_host: MakeHost, certified: Callable[..., Beside]
) -> None:
    try:
        login = certified("-n", "127.0.0.1", "-V", "-5m:+1h", break_signature=True)
    except RuntimeError:
        pytest.skip("sshd does not load such a certificate")
    done = login.run("xssh", "server", "echo in")
    assert done.status == 255 and done.stdout == b""


# Where the record cannot be written


def limited_program(limit: int) -> list[str]:
    """Return an argv before which no file can grow beyond ``limit`` bytes, as on a full disk."""
    code = (
        "import os,resource,signal,sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", code]


def test_a_full_disk_leaves_the_old_records_whole(make_host: MakeHost) -> None:
    login = make_host("StrictHostKeyChecking accept-new")
    old = "".join(f"# an old line {number}\n" for number in range(30))
    login.home.known_hosts.write_text(old)
    limited = limited_program(len(old) + 10)
    done = run([*limited, *login.argv("xssh", ["server", "echo in"])], env=login.environment())
    assert (done.status, done.stdout) == (0, b"in\n"), done
    assert "Failed to add the host to the list of known hosts" in done.stderr
    assert "File too large" in done.stderr
    assert login.home.known_hosts.read_text() == old
    assert sorted(os.listdir(login.home.ssh)) == ["config", "known_hosts"]


def test_a_full_file_system_leaves_the_old_records_whole(
    make_host: MakeHost, short_directory: Path
) -> None:
    place = short_directory / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
    try:
        known = place / "known_hosts"
        known.write_text("# old\n")
        with (place / "filling").open("wb", buffering=0) as filling:
            while True:
                try:
                    filling.write(bytes(4096))
                except OSError:
                    break
        login = make_host("StrictHostKeyChecking accept-new")
        done = login.run("xssh", f"-oUserKnownHostsFile={known}", "server", "echo in")
        assert (done.status, done.stdout) == (0, b"in\n"), done
        assert known.read_text() == "# old\n"
        assert "No space left on device" in done.stderr
        assert sorted(os.listdir(place)) == ["filling", "known_hosts"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("path", ["/nonexistent/known_hosts", "/dev/null"])
def test_a_place_that_takes_no_record(make_host: MakeHost, path: str) -> None:
    login = make_host("StrictHostKeyChecking accept-new")
    for program in ("ssh", "xssh"):
        done = login.run(program, f"-oUserKnownHostsFile={path}", "server", "echo in")
        assert (done.status, done.stdout) == (0, b"in\n"), done
        failed = "Failed to add the host to the list of known hosts"
        assert (failed in done.stderr) is (path != "/dev/null")


def test_many_runs_at_once_lose_no_record(make_host: MakeHost) -> None:
    """Each knows the host by another name; ssh would append, and so must we."""
    login = make_host("StrictHostKeyChecking accept-new")
    running = [
        subprocess.Popen(
            login.argv("xssh", [f"-oHostKeyAlias=name{number}", "server", "true"]),
            env=login.environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(6)
    ]
    assert [process.wait(60) for process in running] == [0] * 6
    lines = login.home.known_hosts.read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == [f"name{n}" for n in range(6)]
