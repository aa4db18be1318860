"""UpdateHostKeys beside ssh: the same known_hosts after both, byte for byte, and nothing said.

One server has an Ed25519, an ECDSA and an RSA key. What was on record decides what becomes of it.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.asyncserver import AsyncServer, Policy
from tests.support.beside import Beside, alike
from tests.support.clients import ClientHome
from tests.support.processes import Completed
from tests.support.sshd import KeyRing, ServerOptions, SshServer, generate_key
from tests.support.terminals import Terminal
from tests.support.tools import require_tool

YES = "-oUpdateHostKeys=yes"
KINDS = ("ed25519", "ecdsa", "rsa")


@pytest.fixture(scope="module")
def many_keys(
    tmp_path_factory: pytest.TempPathFactory, key_ring: KeyRing, long_lived_processes: set[int]
) -> Iterator[SshServer]:
    """One server for the module, with three host keys."""
    server = SshServer(tmp_path_factory.mktemp("sshd"), key_ring, ServerOptions())
    long_lived_processes.add(server.process.pid)
    yield server
    server.stop()


@pytest.fixture
def login(
    many_keys: SshServer, client_home: ClientHome, spawn_in_pty: Callable[..., Terminal]
) -> Beside:
    return Beside(client_home, many_keys, spawn_in_pty)


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A key that the server has no more, as a line has it."""
    path = generate_key(tmp_path_factory.mktemp("former") / "key", "ecdsa")
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


def lines_of(login: Beside, *kinds: str, name: str = "") -> str:
    """Return lines of known_hosts with some of the server's keys."""
    keys = login.server.keys.host_keys  # type: ignore[union-attr]
    lines = []
    for kind in kinds:
        public = Path(f"{keys[kind]}.pub").read_text().split()
        lines.append(f"{name or f'[127.0.0.1]:{login.server.port}'} {public[0]} {public[1]}\n")
    return "".join(lines)


def update_both(
    login: Beside, before: str, *words: str, command: str = "echo in", status: int = 0
) -> tuple[str, Completed]:
    """Log in with both from the same file; want the same files after it. Return the file."""
    folder, known = login.home.ssh, login.home.known_hosts
    old = known.with_name("known_hosts.old")
    after: list[tuple[str, str | None, list[str]]] = []
    runs = []
    for program in ("ssh", "xssh"):
        old.unlink(missing_ok=True)
        known.write_text(before)
        done = login.run(program, *words, "server", command)
        runs.append(done._replace(stderr=alike(done.stderr)))
        files = sorted(path.name for path in folder.iterdir())
        after.append((known.read_text(), old.read_text() if old.exists() else None, files))
    assert after[1] == after[0], f"\nxssh: {after[1]}\nssh:  {after[0]}"
    assert runs[1] == runs[0]
    assert runs[1].status == status
    return after[1][0], runs[1]


@pytest.mark.parametrize(
    ("on_record", "learned"),
    [
        ("{ed25519}", True),  # the usual case: two keys are new
        ("{rsa}", True),  # the proof for others comes from a host known by RSA
        ("# mine\n\n{ecdsa}other {former}\n", True),
        ("{ed25519}{name} {former}\n", True),  # one to be taken out, two to be added
        ("{ed25519}{ecdsa}{rsa}{name} {former}\n", True),  # one to be taken out, no proof needed
        ("{ed25519}{ecdsa}{rsa}", False),
        ("{ed25519}{name} {former}\nelsewhere {former}\n", False),
        ("{ed25519}elsewhere {former}\n", True),
        ("{ed25519}elsewhere {key_of_rsa}\n", False),
        ("{ed25519}@revoked elsewhere {key_of_rsa}\n", False),
        ("{ed25519}@cert-authority *.example {former}\n", True),
        ("{ed25519}@cert-authority [127.0.0.1]:* {former}\n", False),
        ("[127.0.0.*]:{port} {key_of_ed25519}\n", False),
        ("{name},other {key_of_ed25519}\n", True),
        ("{name},other,third {key_of_ed25519}\n", False),
        ("{ed25519}*,!x {former}\n", False),
        ("127.0.0.1 {key_of_ed25519}\n", False),  # known without its port
        ("{ed25519}broken line\n|1|broken {former}\n\tx y z", True),
        ("{ed25519}{ed25519}{name} {former} comment\n", True),
    ],
)
def test_update_host_keys_leaves_the_same_file(
    login: Beside, former: str, on_record: str, learned: bool
) -> None:
    keys = {kind: lines_of(login, kind) for kind in KINDS}
    plain = {f"key_of_{kind}": text.split(" ", 1)[1].strip() for kind, text in keys.items()}
    name = f"[127.0.0.1]:{login.server.port}"
    before = on_record.format(**keys, **plain, former=former, name=name, port=login.server.port)
    after, done = update_both(login, before, YES)
    assert done == (0, b"in\n", "")
    assert (after != before) is learned
    if learned:
        assert {kind for kind in KINDS if plain[f"key_of_{kind}"] in after} == set(KINDS)


def test_update_host_keys_of_an_alias(login: Beside) -> None:
    before = lines_of(login, "ecdsa", name="nick")
    after, _ = update_both(login, before, YES, "-oHostKeyAlias=Nick")
    assert after.count("nick ") == 3


@pytest.mark.parametrize(
    "words",
    [
        ["-oUpdateHostKeys=no"], [YES, "-oHostKeyAlgorithms=ssh-ed25519,rsa-sha2-512"],
        [YES, "-oHostKeyAlgorithms=-rsa*"], [YES, "-oNoHostAuthenticationForLocalhost=yes"],
        ["-oUpdateHostKeys=ask"], [YES, "-oBatchMode=yes"], [YES, "-oFingerprintHash=md5"],
    ],
)  # fmt: skip
def test_update_host_keys_and_other_settings(login: Beside, words: list[str]) -> None:
    before = lines_of(login, "ed25519")
    after, done = update_both(login, before, *words)
    assert done == (0, b"in\n", "")
    expected = {"-oHostKeyAlgorithms=ssh-ed25519,rsa-sha2-512": 2, "-oHostKeyAlgorithms=-rsa*": 2}
    none = ("no", "ask", "-oNoHostAuthenticationForLocalhost=yes")
    count = 1 if words[-1].endswith(none) else expected.get(words[-1], 3)
    assert after.count("\n") == count


def test_update_host_keys_by_default_only_with_the_default_file(
    login: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = re.sub(r"  UserKnownHostsFile .*\n", "", login.home.config.read_text())
    before = lines_of(login, "rsa")
    after, _ = update_both(login, before)
    assert after == before
    login.home.config.write_text(config)
    after, _ = update_both(login, before)
    assert after.count("\n") == 3


def test_update_host_keys_hashes_as_hash_known_hosts_says(login: Beside) -> None:
    """The salts are random, so the names are looked up."""
    name = f"[127.0.0.1]:{login.server.port}"
    for program in ("ssh", "xssh"):
        login.home.known_hosts.write_text("# mine\n" + lines_of(login, "rsa"))
        assert login.run(program, YES, "-oHashKnownHosts=yes", "server", "echo in").status == 0
        lines = login.home.known_hosts.read_text().splitlines()
        assert lines[1].startswith("[127") and [line[:3] for line in lines[2:]] == ["|1|"] * 2
        argv = ["ssh-keygen", "-l", "-F", name, "-f", str(login.home.known_hosts)]
        found = subprocess.run(argv, capture_output=True, text=True).stdout
        assert re.findall(r"found: line (\d)", found) == ["2", "3", "4"]


def test_update_host_keys_finds_hashed_names(login: Beside, former: str) -> None:
    name = f"[127.0.0.1]:{login.server.port}"
    known = login.home.known_hosts
    known.write_text(lines_of(login, "ed25519") + f"{name} {former}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    after, done = update_both(login, known.read_text(), YES)
    assert done == (0, b"in\n", "")
    assert after.count("\n") == 3 and former not in after


def test_update_host_keys_adds_to_the_first_file_and_removes_from_all(
    login: Beside, former: str, tmp_path: Path
) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    name = f"[127.0.0.1]:{login.server.port}"
    results = []
    for program in ("ssh", "xssh"):
        first.write_text("# first\n" + lines_of(login, "rsa"))
        second.write_text(f"{name} {former}\nother {former[:-4]}\n" + lines_of(login, "ecdsa"))
        option = f"-oUserKnownHostsFile={first} {second} {third}"
        done = login.run(program, option, YES, "server", "echo in")
        assert done == (0, b"in\n", "")
        results.append((first.read_text(), second.read_text(), third.exists()))
    assert results[0] == results[1]
    assert results[1][1] == f"other {former[:-4]}\n" and not results[1][2]


def test_update_host_keys_takes_nothing_from_a_host_known_by_the_system(
    login: Beside, tmp_path: Path
) -> None:
    system = tmp_path / "system"
    system.write_text(lines_of(login, "rsa"))
    config = login.home.config.read_text()
    text = config.replace("GlobalKnownHostsFile none", f"GlobalKnownHostsFile {system}")
    login.home.config.write_text(text)
    after, done = update_both(login, "", YES)
    assert (after, done) == ("", (0, b"in\n", ""))
    after, _ = update_both(login, lines_of(login, "ecdsa"), YES)
    assert after.count("\n") == 3


def test_update_host_keys_after_the_question(login: Beside) -> None:
    """A host that the user accepted is trusted; one that was accepted unasked is not."""
    question = (r"\(yes/no/\[fingerprint\]\)\? ", "yes\n")
    for strict, count in (("ask", 3), ("accept-new", 1), ("no", 1)):
        texts = []
        for program in ("ssh", "xssh"):
            login.home.known_hosts.write_text("")
            words = [f"-oStrictHostKeyChecking={strict}", YES, "server", "echo in"]
            login.converse(program, words, [question] if strict == "ask" else [])
            texts.append(login.home.known_hosts.read_text())
        assert texts[0] == texts[1]
        assert texts[1].count("\n") == count


def test_update_host_keys_is_off_with_a_changed_key(login: Beside, former: str) -> None:
    before = f"[127.0.0.1]:{login.server.port} {former}\n"
    after, done = update_both(login, before, YES, "-oStrictHostKeyChecking=no")
    assert after == before
    assert "UpdateHostkeys is disabled because the host key is not trusted.\n" in done.stderr


def test_update_host_keys_says_what_it_did_at_verbose(login: Beside, former: str) -> None:
    before = lines_of(login, "ed25519") + f"[127.0.0.1]:{login.server.port} {former}\n"
    wanted = re.compile(r"^(Learned|Deprecating|Adding|.*: Removed) .*$", re.MULTILINE)
    said = []
    for program in ("ssh", "xssh"):
        login.home.known_hosts.write_text(before)
        done = login.run(program, YES, "-oLogLevel=VERBOSE", "server", "true")
        said.append([match.group() for match in wanted.finditer(done.stderr)])
    assert said[0] == said[1]
    assert len(said[1]) == 6


@pytest.mark.parametrize(
    ("answers", "learned"),
    [
        (["yes\n"], True), (["YES\n"], True), (["no\n"], False),
        (["y\n", "\n", "yes\n"], True), (["a\n", "b\n", "c\n"], False), (["\x04"], False),
    ],
)  # fmt: skip
def test_update_host_keys_ask(login: Beside, answers: list[str], learned: bool) -> None:
    before = lines_of(login, "rsa")
    question = r"Accept updated hostkeys\? \(yes/no\): "
    steps = [(question, answer) for answer in answers]
    if answers == ["\x04"]:
        steps *= 3
    seen = []
    for program in ("ssh", "xssh"):
        login.home.known_hosts.write_text(before)
        terminal = login.converse(
            program, ["-oUpdateHostKeys=ask", "server"], [*steps, (r"[$#] ", "exit 3\n")]
        )
        assert terminal.process.returncode == 3
        text = terminal.output.decode().replace("\r", "")
        asked = text[text.index("The server has") :]
        last = asked.rindex("(yes/no): ")
        seen.append((asked[:last], login.home.known_hosts.read_text()))
    assert seen[0] == seen[1]
    assert (seen[1][1] != before) is learned
    assert "Learned new hostkey: ED25519 SHA256:" in seen[1][0]


def test_update_host_keys_keeps_links_and_modes(login: Beside, tmp_path: Path) -> None:
    """ssh puts a file in a link's place; here the file that it leads to is changed."""
    real = tmp_path / "real"
    real.write_text(lines_of(login, "rsa"))
    real.chmod(0o640)
    login.home.known_hosts.unlink()
    login.home.known_hosts.symlink_to(real)
    assert login.run("xssh", YES, "server", "echo in") == (0, b"in\n", "")
    assert login.home.known_hosts.is_symlink()
    assert real.read_text() == lines_of(login, "rsa", "ed25519", "ecdsa")
    assert real.stat().st_mode & 0o777 == 0o640


def test_update_host_keys_in_a_place_that_cannot_be_written(login: Beside, tmp_path: Path) -> None:
    require_tool("chattr")
    place = tmp_path / "place"
    place.mkdir()
    known = place / "known_hosts"
    known.write_text(lines_of(login, "rsa"))
    if subprocess.run(["chattr", "+i", str(place)], capture_output=True).returncode:
        pytest.skip("no file can be made immutable here")
    try:
        done = login.run("xssh", f"-oUserKnownHostsFile={known}", YES, "server", "echo in")
    finally:
        subprocess.run(["chattr", "-i", str(place)], check=True)
    assert (done.status, done.stdout) == (0, b"in\n")
    failed = f"update_known_hosts: hostfile_replace_entries failed for {known}: "
    assert done.stderr.startswith(failed) and done.stderr.count("\n") == 1
    assert [path.name for path in place.iterdir()] == ["known_hosts"]


def test_update_host_keys_without_a_regular_file(login: Beside) -> None:
    """/dev/null stays what it is."""
    words = ["-oUserKnownHostsFile=/dev/null", YES, "-oStrictHostKeyChecking=ask", "server", "true"]
    login.converse("xssh", words, [(r"\(yes/no/\[fingerprint\]\)\? ", "yes\n")])
    assert Path("/dev/null").is_char_device()
    assert not Path("/dev/null.old").exists()


# Servers that lie


@pytest.fixture
def make_liar(
    client_home: ClientHome, key_ring: KeyRing, spawn_in_pty: Callable[..., Terminal]
) -> Iterator[Callable[..., Beside]]:
    """Start a server that announces keys and proves them in its own way; its RSA key is known."""
    servers = []

    def make(proof: str, announced: Sequence[str] = ("rsa", "ed25519")) -> Beside:
        files = tuple(Path(f"{key_ring.host_keys[kind]}.pub") for kind in announced)
        client = Path(f"{key_ring.client_key}.pub")
        policy = Policy(keys=(client,), announced=files, proof=proof)
        servers.append(AsyncServer(policy, key_ring.host_keys["ecdsa"], key_ring.client_key))
        return Beside(client_home, servers[-1], spawn_in_pty)

    yield make
    for server in servers:
        server.stop()


@pytest.mark.parametrize(
    ("proof", "count", "said"),
    [
        ("right", 3, ""),
        ("refused", 1, "Server failed to confirm ownership of private host keys\n"),
        ("wrong", 1, "server gave bad signature for RSA key 0: "),
        ("short", 1, "parse sig: incomplete message"),
        ("long", 1, "protocol error"),
        ("sha1", 2, ""),
    ],
)
def test_update_host_keys_wants_the_right_proof(
    make_liar: Callable[..., Beside], proof: str, count: int, said: str
) -> None:
    login = make_liar(proof, ("rsa", "ed25519", "ecdsa"))
    before = login.home.known_hosts.read_text()
    after, done = update_both(login, before, YES, command="hi", status=7)
    assert after.count("\n") == count
    assert said in done.stderr
    assert bool(said) is bool(done.stderr)


def test_update_host_keys_of_a_key_twice(make_liar: Callable[..., Beside]) -> None:
    login = make_liar("right", ("ed25519", "rsa", "ed25519"))
    before = login.home.known_hosts.read_text()
    after, done = update_both(login, before, YES, command="hi", status=7)
    assert after == before
    assert done.stderr == "client_input_hostkeys: received duplicated ssh-ed25519 host key\n"


def test_update_host_keys_does_not_wait_for_a_server_that_proves_nothing(
    make_liar: Callable[..., Beside],
) -> None:
    login = make_liar("none", ("ecdsa", "rsa"))
    before = login.home.known_hosts.read_text()
    started = time.monotonic()
    done = login.run("xssh", YES, "server", "hi")
    assert (done.status, done.stdout, done.stderr) == (7, b"hi\n", "")
    assert time.monotonic() - started < 8  # one second, and what the machine takes
    assert login.home.known_hosts.read_text() == before


def test_update_host_keys_drops_the_last_key_of_a_server_only_with_others(
    make_liar: Callable[..., Beside],
) -> None:
    """The key that the host is known by is not announced any more."""
    login = make_liar("right", ("rsa", "ed25519"))
    after, done = update_both(
        login, login.home.known_hosts.read_text(), YES, command="hi", status=7
    )
    assert "ecdsa" not in after and after.count("\n") == 2
    assert done.stderr == ""
