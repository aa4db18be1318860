"""Key revocation lists: what one revokes, beside ``ssh-keygen -Q``; and lists that are broken."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.support.sshd import generate_key
from tests.support.tools import require_tool
from xsshpy.ssh.keyblob import HostCertificate, HostKey, parse_public_key
from xsshpy.ssh.krl import MAGIC, Krl, KrlError, parse_krl
from xsshpy.ssh.revoked_keys import RevokedKeys, RevokedKeysError, is_revoked, load_revoked_keys

HEADER = MAGIC + b"\0\0\0\1" + bytes(24) + bytes(4) + b"\0\0\0\4note"
SERIALS = (0, 1, 7, 42, 1000, 2**63, 2**64 - 1)


def keygen(*words: str | Path) -> str:
    argv = [require_tool("ssh-keygen"), *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def read_key(path: Path) -> HostKey | HostCertificate:
    return parse_public_key(base64.b64decode(path.read_text().split()[1]))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain keys of several kinds, and certificates with many serial numbers by two CAs."""
    directory = tmp_path_factory.mktemp("keys")
    for name, kind in [("a", "ed25519"), ("b", "ecdsa"), ("c", "rsa"), ("ca1", "ed25519"),
                       ("ca2", "rsa")]:  # fmt: skip
        generate_key(directory / name, kind)
    for ca in ("ca1", "ca2"):
        for serial in SERIALS:
            public = directory / f"{ca}-{serial}.pub"
            public.write_text((directory / "a.pub").read_text())
            name = ("-I", f"id {serial}", "-z", str(serial))
            keygen("-q", "-s", directory / ca, "-h", *name, public)
            public.unlink()
    return directory


def compare(keys: Path, krl: Path, source: str, *words: str | Path) -> set[str]:
    """Want every key to be revoked as ssh-keygen has it; return the names of those that are."""
    text = krl.with_name("source")
    text.write_text(source)
    keygen("-q", "-k", "-f", krl, *words, text)
    files = sorted(keys.glob("*.pub"))
    argv = [require_tool("ssh-keygen"), "-Q", "-f", str(krl), *map(str, files)]
    lines = subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()
    theirs = {path.stem for path, line in zip(files, lines, strict=True) if "REVOKED" in line}
    parsed = parse_krl(krl.read_bytes())
    assert {path.stem for path in files if parsed.revokes(read_key(path))} == theirs
    return theirs


@pytest.mark.parametrize("form", ["key", "sha1", "sha256"])
@pytest.mark.parametrize("name", ["a", "b", "c", "ca2"])
def test_revoked_host_keys_in_a_krl(keys: Path, tmp_path: Path, form: str, name: str) -> None:
    revoked = compare(keys, tmp_path / "krl", f"{form}: {(keys / f'{name}.pub').read_text()}")
    assert name in revoked
    assert "ca1" not in revoked
    if name == "a":  # the key in every certificate
        assert len(revoked) == 1 + 2 * len(SERIALS)


@pytest.mark.parametrize(
    "source",
    [
        "serial: 7", "serial: 1-42", "serial: 2-41", "serial: 43-999\nserial: 1001-2000",
        "serial: 9223372036854775808", "serial: 18446744073709551615",
        "serial: 1-18446744073709551615", "".join(f"serial: {n}\n" for n in range(1, 300, 6)),
        "".join(f"serial: {n}\n" for n in range(7, 2000, 5)), "id: id 42\nid: id 0", "id: id",
        "serial: 7\nserial: 1000\nid: id 1\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("ca", ["ca1", "ca2", "none"])
def test_revoked_host_keys_by_certificates(
    keys: Path, tmp_path: Path, source: str, ca: str
) -> None:
    signer = "none" if ca == "none" else keys / f"{ca}.pub"
    revoked = compare(keys, tmp_path / "krl", source, "-s", signer)
    assert ca == "none" or not any(name.startswith("ca") and ca not in name for name in revoked)


def test_revoked_host_keys_by_many_serial_numbers(keys: Path, tmp_path: Path) -> None:
    source = "".join(f"serial: {n}\n" for n in range(1, 12_000, 3))
    assert "ca1-7-cert" in compare(keys, tmp_path / "krl", source, "-s", keys / "ca1.pub")


# Lists made by hand


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def section(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + string(data)


def certificates(*parts: bytes, ca: bytes = b"") -> bytes:
    return section(1, string(ca) + string(b"reserved") + b"".join(parts))


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


KEY = HostKey("ssh-ed25519", string(b"ssh-ed25519") + string(bytes(32)))
OTHER = HostKey("ssh-ed25519", string(b"ssh-ed25519") + string(bytes(31) + b"\1"))


def certificate(serial: int, key_id: str = "id") -> HostCertificate:
    return HostCertificate(
        "ssh-ed25519-cert-v01@openssh.com", KEY, OTHER, 2, key_id, serial, (), 0, 1, False, "x"
    )


def test_empty_list_revokes_nothing() -> None:
    assert parse_krl(HEADER) == Krl(frozenset(), frozenset(), frozenset(), ())
    assert not parse_krl(HEADER).revokes(KEY)


def test_sections_may_come_again() -> None:
    parsed = parse_krl(HEADER + section(2, string(KEY.blob)) + section(2, string(OTHER.blob)))
    assert parsed.revokes(KEY) and parsed.revokes(OTHER)
    both = certificates(section(0x20, number(3))) + certificates(section(0x20, number(4)))
    parsed = parse_krl(HEADER + both)
    assert [parsed.revokes(certificate(serial)) for serial in (2, 3, 4)] == [False, True, True]


def test_bitmap() -> None:
    part = section(0x22, number(10) + string(b"\0\x85"))
    parsed = parse_krl(HEADER + certificates(part))
    revoked = [n for n in range(1, 30) if parsed.revokes(certificate(n))]
    assert revoked == [10, 12, 17]
    last = section(0x22, number(2**64 - 2) + string(b"\2"))
    assert parse_krl(HEADER + certificates(last)).revokes(certificate(2**64 - 1))


def test_signatures_and_harmless_extensions_are_passed_over() -> None:
    extension = string(b"name") + b"\0" + string(b"what")
    data = HEADER + section(255, extension) + certificates(section(0x39, extension))
    data += section(2, string(KEY.blob)) + section(4, b"key") + string(b"signature")
    assert parse_krl(data).revokes(KEY)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "magic"),
        (b"SSHKRL\n", "magic"),
        (MAGIC + b"\0\0\0\2" + HEADER[12:], "invalid format"),
        (HEADER[:-1], "incomplete"),
        (HEADER + b"\2", "incomplete"),
        (HEADER + section(2, string(KEY.blob))[:-1], "incomplete"),
        (HEADER + section(2, b"\0\0\0\5x"), "incomplete"),
        (HEADER + section(3, string(bytes(19))), "invalid format"),
        (HEADER + section(5, string(bytes(20))), "invalid format"),
        (HEADER + section(6, b""), "invalid format"),
        (HEADER + section(255, string(b"n") + b"\1" + string(b"")), "not supported"),
        (HEADER + section(255, string(b"n") + b"\0" + string(b"") + b"x"), "invalid format"),
        (HEADER + section(4, b"k") + string(b"s") + section(2, b""), "invalid format"),
        (HEADER + section(1, b""), "incomplete"),
        (HEADER + certificates(ca=b"x"), "invalid format"),
        (HEADER + certificates(section(0x20, number(0))), "invalid argument"),
        (HEADER + certificates(section(0x20, number(1) + b"x")), "incomplete"),
        (HEADER + certificates(section(0x21, number(2) + number(1))), "invalid argument"),
        (HEADER + certificates(section(0x21, number(0) + number(1))), "invalid argument"),
        (HEADER + certificates(section(0x21, number(1) + number(1) + b"x")), "invalid format"),
        (HEADER + certificates(section(0x22, number(0) + string(b"\1"))), "invalid argument"),
        (HEADER + certificates(section(0x22, number(1) + string(b"\x80"))), "negative"),
        (HEADER + certificates(section(0x22, number(1) + string(b"\1" * 2049))), "too large"),
        (HEADER + certificates(section(0x22, number(2**64 - 1) + string(b"\2"))), "invalid format"),
        (HEADER + certificates(section(0x23, string(b"a\0b"))), "invalid format"),
        (HEADER + certificates(section(0x24, b"")), "invalid format"),
    ],
)
def test_broken_lists(data: bytes, reason: str) -> None:
    with pytest.raises(KrlError, match=reason):
        parse_krl(data)
    if data.startswith(MAGIC):
        with pytest.raises(RevokedKeysError, match=reason):
            is_revoked(KEY, data)


# The file of RevokedHostKeys


def test_revoked_host_keys_are_found_in_a_text() -> None:
    text = f"# old\n\n \t\n{OTHER.text()} comment\n".encode()
    assert not is_revoked(KEY, text)
    assert is_revoked(OTHER, text)
    assert is_revoked(certificate(1), text)  # its CA
    assert is_revoked(certificate(1), KEY.text().encode())
    another_kind = b"ssh-rsa " + KEY.text().encode()[12:]
    for broken in (b"nonsense", b"ssh-ed25519", b"ssh-ed25519 !", another_kind):
        with pytest.raises(RevokedKeysError, match="invalid format"):
            is_revoked(KEY, broken + b"\n" + KEY.text().encode())
        assert is_revoked(OTHER, text + broken)
    short = string(b"ssh-rsa") + string(b"\3") + string(b"\1" * 64)
    line = b"ssh-rsa " + base64.b64encode(short) + b"\n"
    assert is_revoked(OTHER, line + text)


def test_revoked_host_keys_in_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in [(tmp_path / "missing", "No such file"), (tmp_path, "Is a directory")]:
        said = load_revoked_keys(str(path)).describe(KEY, "sha256")
        name = f"ED25519 {KEY.fingerprint()}"
        start = f"Error checking host key {name} in revoked keys file {path}: {reason}"
        assert said.startswith(start)
    assert load_revoked_keys("/dev/null").describe(KEY, "sha256") == ""


def test_revoked_host_keys_are_named_as_fingerprint_hash_says() -> None:
    said = RevokedKeys("/list", KEY.text().encode()).describe(KEY, "md5")
    digest = hashlib.md5(KEY.blob, usedforsecurity=False).hexdigest()
    assert said.replace(":", "") == f"Host key ED25519 MD5{digest} revoked by file /list"
