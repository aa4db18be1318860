"""Keys as files: their public halves, how they may sign, and the methods that are allowed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.sshd import generate_key
from tests.support.tools import require_tool
from xsshpy.settings import Settings, parse_settings
from xsshpy.ssh.auth import methods_to_try
from xsshpy.ssh.identities import signature_algorithms
from xsshpy.ssh.keyfiles import (
    KEY_FILE_LIMIT,
    is_default,
    parse_public_half,
    read_key_file,
)
from xsshpy.tokens import home_directory

RSA_CERTIFICATE = b"ssh-rsa-cert-v01@openssh.com"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_tool("ssh-keygen")
    path = tmp_path_factory.mktemp("keys")
    for kind in ("ed25519", "rsa", "ecdsa"):
        generate_key(path / kind, kind)
        generate_key(path / f"{kind}-locked", kind, "secret")
    for style in ("PEM", "PKCS8"):
        name = path / f"rsa-{style}"
        generate_key(name, "rsa")
        words = ["-q", "-p", "-m", style, "-P", "", "-N", "", "-f", str(name)]
        subprocess.run(["ssh-keygen", *words], check=True, stdout=subprocess.DEVNULL)
    return path


def blob(public: Path) -> bytes:
    import base64

    return base64.b64decode(public.read_text().split()[1])


@pytest.mark.parametrize(
    "name",
    ["ed25519", "rsa", "ecdsa", "ed25519-locked", "rsa-locked", "ecdsa-locked",
     "rsa-PEM", "rsa-PKCS8", "ed25519.pub", "rsa.pub"],
)  # fmt: skip
def test_the_public_half_needs_no_passphrase(directory: Path, name: str) -> None:
    public = parse_public_half((directory / name).read_bytes())
    assert public is not None
    assert public.public_data == blob(directory / f"{name.removesuffix('.pub')}.pub")


def test_an_encrypted_pem_file_tells_nothing(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "pem"
    path.write_bytes((directory / "rsa-PEM").read_bytes())
    path.chmod(0o600)
    words = ["-q", "-p", "-m", "PEM", "-P", "", "-N", "secret", "-f", str(path)]
    subprocess.run(["ssh-keygen", *words], check=True, stdout=subprocess.DEVNULL)
    assert parse_public_half(path.read_bytes()) is None


@given(data=st.binary(max_size=400))
@settings(deadline=None)
def test_what_is_no_key_has_no_public_half(data: bytes) -> None:
    assert parse_public_half(data) is None


@given(data=st.data())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
def test_a_damaged_key_is_a_key_or_none(directory: Path, data: st.DataObject) -> None:
    """No other exception may come out of a file that something has damaged."""
    name = data.draw(st.sampled_from(["ed25519", "rsa-PEM", "rsa-PKCS8", "ecdsa.pub"]))
    text = bytearray((directory / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    parse_public_half(bytes(text))


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError):
            read_key_file(str(path))
    big = tmp_path / "big"
    big.write_bytes(bytes(KEY_FILE_LIMIT + 5))
    assert len(read_key_file(str(big))) == KEY_FILE_LIMIT


@pytest.mark.parametrize(
    ("key", "accepted", "expected"),
    [
        (b"ssh-ed25519", "", [b"ssh-ed25519"]),
        (b"ssh-ed25519", "ssh-ed25519,rsa-sha2-256", [b"ssh-ed25519"]),
        (b"ssh-ed25519", "rsa-sha2-256", []),
        (b"ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com", []),
        (b"ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519", []),
        (b"ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519-cert-v01@openssh.com",
         [b"ssh-ed25519"]),
        (b"ssh-rsa", "rsa-sha2-256,rsa-sha2-512", [b"rsa-sha2-256", b"rsa-sha2-512"]),
        (b"ssh-rsa", "rsa-sha2-512,ssh-rsa", [b"rsa-sha2-512", b"ssh-rsa"]),
        (RSA_CERTIFICATE, "rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256", [b"rsa-sha2-512"]),
        (b"sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519@openssh.com",
         [b"sk-ssh-ed25519@openssh.com"]),
        (b"sk-ssh-ed25519-cert-v01@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com",
         [b"sk-ssh-ed25519@openssh.com"]),
    ],
)  # fmt: skip
def test_how_a_key_may_sign(key: bytes, accepted: str, expected: list[bytes]) -> None:
    names = [name for name in accepted.split(",") if name]
    assert signature_algorithms(key, names) == expected


def test_without_a_list_rsa_signs_with_the_strongest_first() -> None:
    assert signature_algorithms(b"ssh-rsa", []) == [b"rsa-sha2-512", b"rsa-sha2-256", b"ssh-rsa"]


def settle(*lines: str) -> Settings:
    return parse_settings("\n".join(("user u", "hostname h", *lines)), "h", {})


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ["publickey", "keyboard-interactive", "password"]),
        (["batchmode yes"], ["publickey"]),
        (["pubkeyauthentication false"], ["keyboard-interactive", "password"]),
        (["pubkeyauthentication unbound"], ["publickey", "keyboard-interactive", "password"]),
        (["passwordauthentication no"], ["publickey", "keyboard-interactive"]),
        (["kbdinteractiveauthentication no"], ["publickey", "password"]),
        (["preferredauthentications password,publickey"], ["password", "publickey"]),
        (["preferredauthentications gssapi-with-mic,hostbased"], []),
        (["preferredauthentications ,"], []),
        (["preferredauthentications none"], []),
        (["preferredauthentications password", "passwordauthentication no"], []),
    ],
)
def test_which_methods_are_tried(lines: list[str], expected: list[str]) -> None:
    assert methods_to_try(settle(*lines)) == expected


def test_the_key_files_that_ssh_looks_for_by_itself() -> None:
    """What this machine's ssh names in -G without being asked is not missed aloud."""
    argv = [require_tool("ssh"), "-F", "none", "-G", "host"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    lines = [line.split()[1] for line in shown.splitlines() if line.startswith("identityfile ")]
    assert len(lines) > 3
    folder = os.path.join(home_directory(), ".ssh")
    assert [
        name
        for name in (os.path.basename(line) for line in lines)
        if not is_default(os.path.join(folder, name))
    ] == []
    assert not is_default(os.path.join(folder, "id_other"))
    assert not is_default("/elsewhere/id_rsa")
