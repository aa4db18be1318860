"""Known_hosts: lines, names, hashes, the order of algorithms, key blobs, and what is written."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xsshpy.patterns import match_pattern
from xsshpy.ssh import known_hosts_file
from xsshpy.ssh.keyblob import (
    HostCertificate,
    HostKey,
    KeyBlobError,
    certificate_problem,
    is_certificate_algorithm,
    parse_public_key,
    plain_algorithm,
)
from xsshpy.ssh.known_hosts import (
    MAX_LINE_BYTES,
    KnownHosts,
    Marker,
    format_entry,
    hash_host_name,
    order_host_key_algorithms,
    parse_known_hosts,
)
from xsshpy.ssh.known_hosts_file import add_host_key, load_known_hosts
from xsshpy.ssh.patterns import match_host_list


def ssh_string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def ed25519(seed: str = "a") -> HostKey:
    public = hashlib.sha256(seed.encode()).digest()
    return HostKey("ssh-ed25519", ssh_string(b"ssh-ed25519") + ssh_string(public))


def rsa(bits: int = 2048, padding: bytes = b"\0") -> HostKey:
    modulus = padding + (1 << (bits - 1) | 5).to_bytes((bits + 7) // 8, "big")
    fields = [b"ssh-rsa", b"\1\0\1", modulus]
    return HostKey("ssh-rsa", b"".join(map(ssh_string, fields)))


def ecdsa(curve: str = "nistp256", size: int = 65) -> HostKey:
    name = f"ecdsa-sha2-{curve}"
    fields = [name.encode(), curve.encode(), b"\4" + b"\7" * (size - 1)]
    return HostKey(name, b"".join(map(ssh_string, fields)))


def certificate_blob(
    kind: int = 2,
    principals: tuple[str, ...] = ("tower",),
    valid: tuple[int, int] = (100, 200),
    critical: bytes = b"",
    ca: HostKey | None = None,
) -> bytes:
    return b"".join(
        [
            ssh_string(b"ssh-ed25519-cert-v01@openssh.com"),
            ssh_string(b"nonce"),
            ssh_string(ed25519("host").blob[-32:]),
            (7).to_bytes(8, "big"),
            kind.to_bytes(4, "big"),
            ssh_string(b"key id"),
            ssh_string(b"".join(ssh_string(name.encode()) for name in principals)),
            valid[0].to_bytes(8, "big"),
            valid[1].to_bytes(8, "big"),
            ssh_string(critical),
            ssh_string(b""),
            ssh_string(b""),
            ssh_string((ca or ed25519("ca")).blob),
            ssh_string(ssh_string(b"ssh-ed25519") + ssh_string(b"s" * 64)),
        ]
    )


def known(text: str, path: str = "/kh") -> KnownHosts:
    return KnownHosts((path,), (), parse_known_hosts(text.encode(), path))


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("host", "host", True), ("host", "hos", False), ("host", "hostx", False),
        ("host", "*", True), ("host", "h*t", True), ("host", "h??t", True), ("host", "h?t", False),
        ("host", "**h**t**", True), ("aXbXc", "a*X*c", True), ("aXbXc", "a*Y*c", False),
        ("a*b", "a*b", True), ("", "", True), ("", "*", True), ("x", "", False),
        ("[h]:22", "[h]:*", True), ("[h]:22", "[*]:22", True),
    ],
)  # fmt: skip
def test_pattern(name: str, pattern: str, expected: bool) -> None:
    assert match_pattern(name.encode(), pattern.encode()) is expected


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("a", "b,a", True), ("a", "!a,*", False), ("a", "*,!a", False), ("b", "*,!a", True),
        ("a", "!b", False), ("Tower", "tOWER", True), ("a", "!!a,*", True), ("a", ",a,", True),
        ("a", "a," + "x" * 1023, False), ("a", "a," + "x" * 1022, True), ("a", "", False),
    ],
)  # fmt: skip
def test_list_of_patterns(name: str, patterns: str, expected: bool) -> None:
    assert match_host_list(name.encode(), patterns.encode()) is expected


def test_many_stars_are_not_slow() -> None:
    start = time.monotonic()
    assert not match_pattern(b"a" * 1000, b"*a" * 500 + b"b")
    assert time.monotonic() - start < 1


def test_lines_keep_their_numbers_and_markers() -> None:
    a, b, c = (ed25519(seed) for seed in "abc")
    text = (
        f"# comment\n\nhost {a.text()} a comment\n@revoked host {b.text()}\n"
        f"   \n@cert-authority *.x,host\t{c.text()}\nbroken\n"
    )
    entries = known(text).lookup("HOST")
    assert [(entry.line, entry.marker, entry.key) for entry in entries] == [
        (3, Marker.NONE, a),
        (4, Marker.REVOKED, b),
        (6, Marker.CERT_AUTHORITY, c),
    ]
    assert {entry.path for entry in entries} == {"/kh"}


def test_marker_ends_at_a_tab_only_where_no_space_follows() -> None:
    kind, text = ed25519().text().split()
    assert known(f"@revoked\th\t{kind}\t{text}\n").lookup("h")[0].marker is Marker.REVOKED
    assert not known(f"@revoked\th {kind} {text}\n").lookup("h")


def test_long_line_is_passed_over() -> None:
    key = ed25519()
    long_comment = "x" * MAX_LINE_BYTES
    found = known(f"host {key.text()} {long_comment}\nhost {key.text()}\n").lookup("host")
    assert [entry.line for entry in found] == [2]


def test_nul_ends_a_line() -> None:
    key = ed25519()
    assert not known(f"host\0 {key.text()}\n").lookup("host")
    assert known(f"host {key.text()}\0\n").lookup("host")


def test_hash_is_that_of_openssh() -> None:
    """Made by ssh-keygen -H of OpenSSH 9.2 for ``tower.example.net``."""
    hashed = "|1|6Jolr0o5MWxgvNAuEsjDFVIuTVY=|aPnTcf9rdbxYIm/+88HWMWJi56c="
    salt = base64.b64decode(hashed.split("|")[2])
    made = hash_host_name("tower.example.net", salt)
    assert made == hashed
    line = f"{made} {ed25519().text()}\n"
    assert known(line).lookup("tower.example.net")
    assert not known(line).lookup("tower.example.com")
    assert known(line).lookup("tower.example.net")[0].hosts == "[hashed name]"


def test_other_names_leave_out_the_host_and_marked_lines() -> None:
    key = ed25519()
    text = (
        f"host {key.text()}\nother,*.x {key.text()}\n@revoked r {key.text()}\n"
        f"@cert-authority c {key.text()}\nz {ed25519('z').text()}\n"
    )
    assert [(e.line, e.hosts) for e in known(text).other_names(key, "host")] == [(2, "other,*.x")]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (ed25519(), "ED25519"), (rsa(), "RSA"), (ecdsa(), "ECDSA"),
        (ecdsa("nistp384", 97), "ECDSA"), (ecdsa("nistp521", 133), "ECDSA"),
    ],
)  # fmt: skip
def test_keys_are_decoded(key: HostKey, name: str) -> None:
    assert parse_public_key(key.blob) == key
    assert key.display_name == name
    assert known(f"h {key.text()}\n").lookup("h")[0].key == key


def test_security_keys() -> None:
    for fields, name in [
        ((b"sk-ssh-ed25519@openssh.com", b"p" * 32, b"ssh:"), "ED25519-SK"),
        ((b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", b"\4" * 65, b"ssh:"), "ECDSA-SK"),
    ]:
        blob = b"".join(map(ssh_string, fields))
        key = parse_public_key(blob)
        assert (key.display_name, key.plain.blob) == (name, blob)


def test_equal_rsa_keys_are_equal_however_they_are_written() -> None:
    assert parse_public_key(rsa(padding=b"\0\0\0").blob) == parse_public_key(rsa().blob)
    assert rsa().rsa_bits == 2048
    assert ed25519().rsa_bits == 0


@pytest.mark.parametrize(
    "blob",
    [
        b"", b"\0\0\0\1", ssh_string(b"ssh-foo"), ssh_string(b"ssh-ed25519"),
        ssh_string(b"ssh-ed25519") + ssh_string(b"short"), ed25519().blob + b"x",
        ed25519().blob[:-1], rsa(1023).blob, ecdsa(size=64).blob,
        ecdsa("nistp256").blob.replace(b"nistp256\0", b"nistp384\0"),
        ssh_string(b"ssh-rsa") + ssh_string(b"\x81") + ssh_string(b"\0" + b"\xff" * 256),
        certificate_blob()[:-1], certificate_blob() + b"x", certificate_blob(kind=3),
    ],
)  # fmt: skip
def test_broken_blobs(blob: bytes) -> None:
    with pytest.raises(KeyBlobError):
        parse_public_key(blob)


def test_a_certificate_is_no_ca() -> None:
    inner = HostKey("x", certificate_blob())
    with pytest.raises(KeyBlobError):
        parse_public_key(certificate_blob(ca=inner))


def test_fingerprints() -> None:
    key = ed25519()
    sha = base64.b64encode(hashlib.sha256(key.blob).digest()).decode().rstrip("=")
    assert key.fingerprint() == f"SHA256:{sha}"
    md5 = hashlib.md5(key.blob).hexdigest()
    assert key.fingerprint("MD5") == "MD5:" + ":".join(md5[i : i + 2] for i in range(0, 32, 2))


def certificate(**fields: object) -> HostCertificate:
    made = parse_public_key(certificate_blob(**fields))  # type: ignore[arg-type]
    assert isinstance(made, HostCertificate)
    return made


def test_certificate_is_decoded() -> None:
    made = certificate(principals=("a", "b"))
    assert (made.key, made.ca) == (ed25519("host"), ed25519("ca"))
    assert (made.principals, made.serial, made.key_id) == (("a", "b"), 7, "key id")
    assert (made.valid_after, made.valid_before) == (100, 200)
    assert made.signature_algorithm == "ssh-ed25519"
    assert made.display_name == "ED25519-CERT"


def test_certificate_on_record_needs_its_own_name() -> None:
    text = base64.b64encode(certificate_blob()).decode()
    assert not known(f"h ssh-ed25519 {text}\n").lookup("h")
    found = known(f"h ssh-ed25519-cert-v01@openssh.com {text}\n").lookup("h")
    assert found[0].key == certificate()
    assert not known(f"h ssh-ed25519-cert-v01@openssh.com {ed25519().text().split()[1]}").lookup(
        "h"
    )


@pytest.mark.parametrize(
    ("fields", "now", "problem"),
    [
        ({}, 150, ""),
        ({}, 100, ""),
        ({"principals": ("x", "*.net", "tow*")}, 150, ""),
        ({"kind": 1}, 150, "Certificate invalid: not a host certificate"),
        ({}, 99, "Certificate invalid: not yet valid"),
        ({}, 200, "Certificate invalid: expired"),
        ({"principals": ()}, 150, "Certificate lacks principal list"),
        ({"principals": ("towe",)}, 150, "Certificate invalid: name is not a listed principal"),
        ({"critical": b"x"}, 150, "Certificate contains unsupported critical options"),
    ],
)
def test_certificate_problems(fields: dict[str, object], now: int, problem: str) -> None:
    assert certificate_problem(certificate(**fields), "tower", now) == problem


def test_certificate_signed_with_a_forbidden_algorithm() -> None:
    made = certificate()
    assert certificate_problem(made, "tower", 150, ["ssh-ed25519"]) == ""
    problem = certificate_problem(made, "tower", 150, ["rsa-sha2-512"])
    assert problem == "Certificate signed with disallowed algorithm"


def test_algorithm_names() -> None:
    assert plain_algorithm("rsa-sha2-512-cert-v01@openssh.com") == "ssh-rsa"
    assert plain_algorithm("rsa-sha2-256") == "ssh-rsa"
    sk_certificate = "sk-ssh-ed25519-cert-v01@openssh.com"
    assert plain_algorithm(sk_certificate) == "sk-ssh-ed25519@openssh.com"
    assert plain_algorithm("ssh-foo") is None
    assert is_certificate_algorithm(sk_certificate)
    assert not is_certificate_algorithm("ssh-ed25519")


def test_order_keeps_what_it_does_not_know() -> None:
    configured = ("new-kind", "ssh-ed25519", "ecdsa-sha2-nistp384", "rsa-sha2-256", "rsa-sha2-512")
    ordered = order_host_key_algorithms(configured, known(f"h {rsa().text()}\n").lookup("h"))
    assert ordered == (*configured[3:], *configured[:3])
    only_256 = known(f"h {ecdsa().text()}\n").lookup("h")
    assert order_host_key_algorithms(configured, only_256) == configured
    assert order_host_key_algorithms((), only_256) == ()


# Files


def test_files_in_order_and_missing_ones(tmp_path: Path) -> None:
    user, system = tmp_path / "user", tmp_path / "system"
    user.write_text(f"h {ed25519('u').text()}\n")
    system.write_text(f"h {ed25519('s').text()}\n")
    files = load_known_hosts([str(tmp_path / "absent"), str(user)], [str(system), str(tmp_path)])
    assert [entry.path for entry in files.lookup("h")] == [str(user), str(system)]
    assert files.unreadable == ()


def test_none_means_no_file() -> None:
    files = load_known_hosts(["none"], ["NONE"])
    assert (files.user_files, files.system_files) == ((), ())


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    plain = tmp_path / "file"
    plain.write_text("")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    below, endless = str(plain / "x"), "/dev/zero"
    files = load_known_hosts([below, str(loop), "nul\0byte"], [endless])
    assert [path for path, _reason in files.unreadable] == [below, str(loop), "nul\0byte", endless]
    assert files.unreadable[0][1] == "Not a directory"
    assert files.unreadable[3][1] == "File too large"


def test_pipe_as_a_file(tmp_path: Path) -> None:
    """As in ``ssh -o UserKnownHostsFile=<(make_known_hosts)``."""
    reading, writing = os.pipe()
    try:
        text = f"h {ed25519().text()}\n".encode()
        writer = threading.Thread(target=write_slowly, args=(writing, [text[:20], text[20:]]))
        writer.start()
        files = load_known_hosts([f"/dev/fd/{reading}"], [])
        writer.join()
    finally:
        os.close(reading)
    assert files.lookup("h")


def write_slowly(descriptor: int, parts: list[bytes]) -> None:
    for part in parts:
        time.sleep(0.05)
        os.write(descriptor, part)
    os.close(descriptor)


def test_pipe_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_hosts_file, "_READ_SECONDS", 0.1)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    holder = os.open(fifo, os.O_RDWR)
    try:
        files = load_known_hosts([str(fifo)], [])
    finally:
        os.close(holder)
    assert files.unreadable == ((str(fifo), "nothing arrives on the pipe"),)


def add(path: Path, name: str = "h", seed: str = "a", *, hashed: bool = False) -> str | None:
    return add_host_key(str(path), [name], ed25519(seed), hashed=hashed)


def test_new_file_and_directory(private_places: Path) -> None:
    directory = Path(os.environ["HOME"]) / ".ssh"
    path = directory / "known_hosts"
    old_mask = os.umask(0o002)
    try:
        assert add(path) is None
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == f"h {ed25519().text()}\n"
    assert os.listdir(directory) == ["known_hosts"]


def test_no_other_directory_is_made(tmp_path: Path) -> None:
    assert add(tmp_path / "absent" / "known_hosts") == "No such file or directory"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("before", ["", "# x\n", "# no newline", "\n\n", "x y z"])
def test_added_after_what_was_there(tmp_path: Path, before: str) -> None:
    path = tmp_path / "kh"
    path.write_text(before)
    path.chmod(0o644)
    assert add(path, "H.Example") is None
    joint = "\n" if before and not before.endswith("\n") else ""
    assert path.read_text() == f"{before}{joint}h.example {ed25519().text()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["kh"]


def test_names_together_or_hashed_apart(tmp_path: Path) -> None:
    path = tmp_path / "kh"
    names = ["[h]:22", "192.0.2.1"]
    assert add_host_key(str(path), names, ed25519(), hashed=False) is None
    assert path.read_text() == f"[h]:22,192.0.2.1 {ed25519().text()}\n"
    path.write_text("")
    assert add_host_key(str(path), names, ed25519(), hashed=True) is None
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    salts = {line.split("|")[2] for line in lines}
    assert len(salts) == 2
    files = load_known_hosts([str(path)], [])
    assert [entry.line for name in names for entry in files.lookup(name)] == [1, 2]


def test_hash_of_an_upper_case_name_is_of_the_lower_case_one() -> None:
    salt = b"s" * 20
    assert format_entry(["Tower"], ed25519(), [salt]) == format_entry(["tower"], ed25519(), [salt])


def test_nothing_is_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "kh"
    for hashed in (True, False):
        assert add(path, hashed=hashed) is None
    assert len(path.read_text().splitlines()) == 1
    assert add(path, seed="b") is None
    assert len(path.read_text().splitlines()) == 2


def test_key_that_is_only_marked_is_written(tmp_path: Path) -> None:
    path = tmp_path / "kh"
    path.write_text(f"@cert-authority h {ed25519().text()}\n")
    assert add(path) is None
    assert len(path.read_text().splitlines()) == 2


def test_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "kh"
    link.symlink_to("there/file")
    for seed in "ab":  # first without, then with the target
        assert add(link, seed=seed) is None
        assert link.is_symlink()
    assert len(target.read_text().splitlines()) == 2
    assert os.listdir(tmp_path / "there") == ["file"]


def test_hard_link_is_kept(tmp_path: Path) -> None:
    path, twin = tmp_path / "kh", tmp_path / "twin"
    path.write_text("# x")
    os.link(path, twin)
    assert add(path) is None
    assert twin.read_text() == path.read_text() == f"# x\nh {ed25519().text()}\n"


def test_device_files() -> None:
    assert add(Path("/dev/null")) is None
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    if os.path.exists("/dev/full"):
        assert add(Path("/dev/full")) == "No space left on device"


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "a\tb", "x\x1b[2J"])
def test_names_that_would_break_the_file(tmp_path: Path, name: str) -> None:
    assert add(tmp_path / "kh", name) is not None
    assert not (tmp_path / "kh").exists()


def run_child(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


FULL_DISK = """
import resource, sys
from xsshpy.ssh.known_hosts_file import add_host_key
from tests.unit.test_known_hosts import ed25519
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
print(add_host_key(sys.argv[1], ["h"], ed25519(), hashed=False))
"""


@pytest.mark.parametrize("links", [1, 2])
def test_full_disk_leaves_the_file_whole(tmp_path: Path, links: int) -> None:
    """A limit on the file's size stops a write in the middle, as a full disk does."""
    path = tmp_path / "kh"
    before = "# kept\n" * 100
    path.write_text(before)
    if links == 2:
        os.link(path, tmp_path / "twin")
    done = run_child(FULL_DISK, str(path), str(len(before) + 10))
    assert done.stdout.strip() in ("File too large", "No space left on device"), done.stderr
    assert path.read_text() == before
    assert len(os.listdir(tmp_path)) == links


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """Then the line is appended, as ssh does; an unwritable file is left alone."""
    program = """
import os, sys
from xsshpy.ssh.known_hosts_file import add_host_key
from tests.unit.test_known_hosts import ed25519
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.umask(0)
for name in ("kh", "locked"):
    print(add_host_key(os.path.join(sys.argv[1], name), ["h"], ed25519(), hashed=False))
"""
    directory = Path(os.environ["TMPDIR"]).parent / "place"
    directory.mkdir()
    for parent in (directory, directory.parent):
        parent.chmod(0o755)
    for name, mode in [("kh", 0o666), ("locked", 0o644)]:
        (directory / name).write_text("# x\n")
        (directory / name).chmod(mode)
    done = run_child(program, str(directory))
    assert done.stdout.splitlines() == ["None", "Permission denied"], done.stderr
    assert (directory / "kh").read_text() == f"# x\nh {ed25519().text()}\n"
    assert (directory / "locked").read_text() == "# x\n"


MANY = """
import sys
from xsshpy.ssh.known_hosts_file import add_host_key
from tests.unit.test_known_hosts import ed25519
for number in range(25):
    name = f"{sys.argv[2]}-{number}"
    reason = add_host_key(sys.argv[1], [name], ed25519(name), hashed=False)
    assert reason is None, reason
"""


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kh"
    threads = [
        threading.Thread(target=run_child, args=(MANY, str(path), f"p{number}"))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [line.split()[0] for line in path.read_text().splitlines()]
    assert sorted(names) == sorted(f"p{p}-{n}" for p in range(4) for n in range(25))
    assert os.listdir(tmp_path) == ["kh"]


def test_lock_of_another_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kh"
    path.write_text("")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(known_hosts_file, "_LOCK_SECONDS", 0.1)
        assert add(path) == "another process keeps it locked"
        assert path.read_text() == ""
        monkeypatch.setattr(known_hosts_file, "_LOCK_SECONDS", 5.0)
        release = threading.Timer(0.2, fcntl.flock, (held, fcntl.LOCK_UN))
        release.start()
        assert add(path) is None
        release.join()
    assert path.read_text()


def test_line_that_ssh_appends_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSH takes no lock: its line may come between our reading and our renaming."""
    path = tmp_path / "kh"
    path.write_text("# x\n")
    fsync = os.fsync
    strangers = ["from ssh\n"]

    def meddle(descriptor: int) -> None:
        fsync(descriptor)
        if strangers:
            with path.open("a") as file:
                file.write(strangers.pop())

    monkeypatch.setattr(os, "fsync", meddle)
    assert add(path) is None
    assert path.read_text() == f"# x\nfrom ssh\nh {ed25519().text()}\n"


# Rarer lines and keys


def test_certificates_come_first_where_a_ca_is_known() -> None:
    plain, certificate = "ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"
    entries = known(f"@cert-authority h {rsa().text()}\n").lookup("h")
    assert order_host_key_algorithms((plain, certificate), entries) == (certificate, plain)


def test_lines_of_a_command_come_last_and_can_be_taken_away() -> None:
    files = known(f"h {ed25519('a').text()}\n")
    output = f"h {ed25519('b').text()}\n".encode()
    both = files.with_command_output(output, "command")
    assert [line.from_command for line in both.lines] == [False, True]
    assert both.without_command_output().lines == files.lines


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (rsa(16400).blob, "too large"),
        (certificate_blob(principals=("x",) * 257), "too many principals"),
    ],
)
def test_keys_beyond_all_bounds(blob: bytes, why: str) -> None:
    with pytest.raises(KeyBlobError, match=why):
        parse_public_key(blob)
