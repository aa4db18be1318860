"""What becomes of known_hosts by a server's list of keys: all that loopback cannot show.

CheckHostIP has no effect there; the rest is compared with ssh in the integration tests.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.unit.test_hostkeys import CERTIFICATE, KEY, OTHER, make_key, ssh_string
from xsshpy.ssh.hostkey_update import (
    AnnouncementError,
    HostSpec,
    UpdatePlan,
    parse_announcement,
    plan_update,
    rewrite_known_hosts,
)
from xsshpy.ssh.keyblob import HostKey
from xsshpy.ssh.known_hosts import parse_known_hosts
from xsshpy.ssh.known_hosts_file import rewrite_file

THIRD = make_key("third")
HOST = HostSpec("tower")
BOTH = HostSpec("tower", "192.0.2.7")


def text(names: str, key: HostKey = KEY) -> str:
    return f"{names} {key.text()}\n"


def plan(known: str, spec: HostSpec = HOST, offered: tuple[HostKey, ...] = (KEY,)) -> UpdatePlan:
    return plan_update(offered, parse_known_hosts(known.encode(), "/kh"), spec)


def rewrite(known: str, spec: HostSpec = HOST, keys: tuple[HostKey, ...] = (KEY,)) -> str:
    return rewrite_known_hosts(known.encode(), "/kh", spec, keys, make_salt=None).data.decode()


# The server's list


def test_update_host_keys_reads_the_list() -> None:
    modulus = ssh_string(b"\0" + b"\xff" * 128)
    rsa = HostKey("ssh-rsa", ssh_string(b"ssh-rsa") + ssh_string(b"\3") + modulus)
    payload = b"".join(map(ssh_string, (KEY.blob, b"", b"what", rsa.blob, OTHER.blob)))
    assert parse_announcement(payload, ()) == (KEY, rsa, OTHER)
    assert parse_announcement(payload, ("rsa-sha2-256",)) == (rsa,)
    assert parse_announcement(payload, ("ssh-ed25519-cert-v01@openssh.com",)) == ()
    assert parse_announcement(b"", ()) == ()
    assert CERTIFICATE.key == KEY


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (ssh_string(KEY.blob)[:-1], "incomplete"),
        (b"\0\0", "incomplete"),
        (b"\xff\xff\xff\xff", "incomplete"),
        (ssh_string(KEY.blob) * 2, "received duplicated ssh-ed25519 host key"),
        (b"".join(ssh_string(make_key(str(n)).blob) for n in range(101)), "too many"),
    ],
)
def test_update_host_keys_and_a_broken_list(payload: bytes, reason: str) -> None:
    with pytest.raises(AnnouncementError, match=reason):
        parse_announcement(payload, ())


# What is to be done


def test_update_host_keys_plans() -> None:
    assert plan(text("tower")).obstacle == "no new or deprecated keys from server"
    assert plan(text("tower"), offered=()).obstacle == "server sent no hostkeys"
    found = plan(text("tower") + text("tower", OTHER), offered=(KEY, THIRD))
    assert found == UpdatePlan((KEY, THIRD), (THIRD,), (OTHER,))


@pytest.mark.parametrize(
    ("known", "obstacle"),
    [
        (text("tower,192.0.2.7"), ""),
        (text("tower") + text("192.0.2.7"), ""),
        (text("tower"), ""),
        (text("tower,192.0.2.9"), "different name/address"),  # the address of before
        (text("mast,192.0.2.7"), "different name/address"),
        (text("tower,192.0.2.7,x"), "pattern"),
        (text("tower,192.0.2.*"), "pattern"),
        (text("tower,192.0.2.7") + text("mast,192.0.2.9"), "different name/address"),
        (text("tower,192.0.2.7") + text("mast", OTHER), ""),
    ],
)
def test_update_host_keys_with_check_host_ip(known: str, obstacle: str) -> None:
    found = plan(known, BOTH, (KEY, THIRD))
    assert obstacle in found.obstacle
    assert bool(obstacle) is bool(found.obstacle)


def test_update_host_keys_adds_what_is_missing_of_name_and_address() -> None:
    assert rewrite("", BOTH) == text("tower,192.0.2.7")
    assert rewrite(text("tower"), BOTH) == text("tower") + text("192.0.2.7")
    assert rewrite(text("192.0.2.7"), BOTH) == text("192.0.2.7") + text("tower")
    both = text("tower") + text("192.0.2.7")
    assert rewrite(both, BOTH) == both
    old = text("tower,192.0.2.7", OTHER) + text("192.0.2.7", THIRD) + text("mast", OTHER)
    assert rewrite(old, BOTH) == text("mast", OTHER) + text("tower,192.0.2.7")


def test_update_host_keys_says_what_it_does() -> None:
    known = (text("tower") + text("tower", OTHER)).encode()
    done = rewrite_known_hosts(known, "/kh", BOTH, (KEY, THIRD), make_salt=None, hash_name="md5")
    assert [line.text for line in done.lines] == [
        "/kh:2: Removed ED25519 key for host tower",
        "Fixing match (address) for tower,192.0.2.7 to /kh: ssh-ed25519 " + KEY.fingerprint("md5"),
        "Adding new key for tower,192.0.2.7 to /kh: ssh-ed25519 " + THIRD.fingerprint("md5"),
    ]


def test_update_host_keys_leaves_every_other_line_as_it_is() -> None:
    known = "# x\r\n\n\0\n  mast x\ntower broken\n@revoked tower " + OTHER.text() + "\nno end"
    assert rewrite(known, keys=()) == known + "\n"
    assert rewrite_known_hosts(b"", "/kh", HOST, (), make_salt=None).data == b""
    assert not rewrite_known_hosts(b"x", "/kh", HOST, (), make_salt=None).changed


def test_update_host_keys_hashes_each_name_apart() -> None:
    done = rewrite_known_hosts(b"", "/kh", BOTH, (KEY,), make_salt=bytes)
    lines = parse_known_hosts(done.data, "/kh")
    assert [line.hosts[:3] for line in lines] == [b"|1|", b"|1|"]
    assert [line.matches(name) for line, name in zip(lines, BOTH.names, strict=True)] == [True] * 2
    assert base64.b64encode(bytes(20)) in done.data


# The file


def test_update_host_keys_keeps_the_old_file_beside(tmp_path: Path) -> None:
    path = tmp_path / "kh"
    path.write_text("one\n")
    (tmp_path / "kh.old").write_text("older\n")
    assert rewrite_file(str(path), lambda data: data + b"two\n") is None
    assert path.read_text() == "one\ntwo\n"
    assert (tmp_path / "kh.old").read_text() == "one\n"
    assert rewrite_file(str(path), lambda data: None) is None
    assert (tmp_path / "kh.old").read_text() == "one\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["kh", "kh.old"]


def test_update_host_keys_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "kh"
    assert rewrite_file(str(path), lambda data: b"new") is None
    assert rewrite_file("/dev/null", lambda data: b"new") is None
    assert rewrite_file(str(tmp_path), lambda data: b"new") is None
    assert list(tmp_path.iterdir()) == []


def test_update_host_keys_in_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "kh"
    path.write_text("one\n")
    seen: list[bytes] = []

    def change(data: bytes) -> bytes:
        seen.append(data)
        if len(seen) == 1:
            with path.open("a") as file:
                file.write("two\n")
        return data + b"three\n"

    assert rewrite_file(str(path), change) is None
    assert seen == [b"one\n", b"one\ntwo\n"]
    assert path.read_text() == "one\ntwo\nthree\n"
