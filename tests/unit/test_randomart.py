"""The picture of a fingerprint, beside the one that ssh-keygen draws."""

from __future__ import annotations

import base64
import random
import subprocess
from pathlib import Path

import pytest

from tests.support.sshd import generate_key
from tests.support.tools import require_tool
from xsshpy.ssh.keyblob import parse_public_key
from xsshpy.ssh.randomart import draw_randomart


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def made_up_blobs(count: int) -> list[bytes]:
    """Return public keys of every kind and of sizes that no one asks ssh-keygen for."""
    chance = random.Random(9)
    blobs = []
    for number in range(count):
        public = chance.randbytes(32)
        blobs.append(string(b"ssh-ed25519") + string(public))
        blobs.append(string(b"sk-ssh-ed25519@openssh.com") + string(public) + string(b"ssh:"))
        bits = chance.choice((1024, 1031, 2048, 4095, 16384))
        modulus = (chance.getrandbits(bits) | 1 << (bits - 1) | 1).to_bytes(bits // 8 + 1, "big")
        modulus = modulus.lstrip(b"\0")
        modulus = b"\0" + modulus if modulus[0] & 0x80 else modulus
        if number % 4 == 0:
            blobs.append(string(b"ssh-rsa") + string(b"\1\0\1") + string(modulus))
    return blobs


def draw_with_ssh_keygen(lines: list[str], path: Path, hash_name: str) -> list[str]:
    """Return ssh-keygen's pictures of the keys in ``lines``, in their order."""
    path.write_text("".join(f"{line}\n" for line in lines))
    argv = [require_tool("ssh-keygen"), "-lv", "-E", hash_name, "-f", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    rows = done.stdout.splitlines()
    pictures = ["\n".join(rows[at + 1 : at + 12]) for at in range(0, len(rows), 12)]
    assert len(pictures) == len(lines), done
    return pictures


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One key of every kind that ssh-keygen makes, and certificates of them."""
    directory = tmp_path_factory.mktemp("keys")
    ca = generate_key(directory / "ca")
    lines = []
    for kind, bits in [("ed25519", ""), ("rsa", "1024"), ("rsa", "3072"), ("dsa", ""),
                       ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521")]:  # fmt: skip
        path = directory / f"{kind}{bits}"
        argv = [require_tool("ssh-keygen"), "-q", "-t", kind, "-N", "", "-f", str(path)]
        done = subprocess.run([*argv, *(["-b", bits] if bits else [])], capture_output=True)
        if done.returncode:
            continue  # a kind that this ssh-keygen no longer makes
        sign = [require_tool("ssh-keygen"), "-q", "-h", "-s", str(ca), "-I", "x", "-n", "host"]
        subprocess.run([*sign, f"{path}.pub"], check=True)
        for public in (f"{path}.pub", f"{path}-cert.pub"):
            lines.append(Path(public).read_text().strip())
    return lines


@pytest.mark.parametrize("hash_name", ["sha256", "md5"])
def test_visual_host_key_is_drawn_as_ssh_keygen_draws_it(
    generated: list[str], tmp_path: Path, hash_name: str
) -> None:
    lines = [*generated]
    for blob in made_up_blobs(40):
        name = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode()
        lines.append(f"{name} {base64.b64encode(blob).decode()}")
    theirs = draw_with_ssh_keygen(lines, tmp_path / "keys", hash_name)
    keys = [parse_public_key(base64.b64decode(line.split()[1])) for line in lines]
    assert [draw_randomart(key, hash_name) for key in keys] == theirs
    assert "[ED25519-CERT]" in "".join(theirs)


def test_visual_host_key_has_seventeen_by_nine_squares(generated: list[str]) -> None:
    key = parse_public_key(base64.b64decode(generated[0].split()[1]))
    rows = draw_randomart(key).split("\n")
    assert rows[0] == "+--[ED25519 256]--+"
    assert rows[-1] == "+----[SHA256]-----+"
    assert [len(row) for row in rows] == [19] * 11
