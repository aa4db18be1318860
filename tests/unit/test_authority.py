"""Xauthority: files by the real xauth and by hand, matching, and files that are none."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.authorities import encode_authority
from tests.support.tools import require_tool
from xsshpy.x11.authority import (
    COOKIE_PROTOCOL,
    MAX_ENTRIES,
    MAX_FILE,
    AuthorityEntry,
    AuthorityError,
    Family,
    find_authority_files,
    find_cookie,
    parse_authority,
    read_authority,
    select_cookie,
    unsupported_protocols,
)
from xsshpy.x11.display import parse_display

HOST = "desk.example.org"


def entry(
    family: int = Family.LOCAL,
    address: bytes = HOST.encode(),
    number: bytes = b"0",
    data: bytes = b"0123456789abcdef",
    name: bytes = COOKIE_PROTOCOL,
) -> AuthorityEntry:
    return AuthorityEntry(family, address, number, name, data)


def select(
    entries: list[AuthorityEntry], display: str, *addresses: str, hostname: str = HOST
) -> AuthorityEntry | None:
    return select_cookie(entries, parse_display(display), hostname, addresses=addresses)


SAMPLE = [
    entry(),
    entry(Family.INTERNET, bytes((192, 0, 2, 7)), b"1", b"\x00\xff" * 8),
    entry(Family.INTERNET6, bytes(15) + b"\x01", b"", b"x"),
    entry(Family.WILD, b"", b"", b"", b""),
    entry(31337, b"\xff" * 300, b"99", b"d" * 65535, b"OTHER"),
]


def test_round_trip() -> None:
    assert parse_authority(encode_authority(SAMPLE)) == tuple(SAMPLE)
    assert parse_authority(b"") == ()


def test_layout_is_that_of_the_manual() -> None:
    data = bytes.fromhex("0000 0004 7f000001 0002 3130 0001 4e 0001 ab")
    expected = entry(Family.INTERNET, b"\x7f\0\0\x01", b"10", b"\xab", b"N")
    assert parse_authority(data) == (expected,)
    assert parse_authority(b"\xff\xff" + bytes(8))[0].family == Family.WILD


def test_a_cut_file_gives_its_whole_entries() -> None:
    """Cut at each byte; as libXau does, what was read before the cut counts."""
    entries = SAMPLE[:3]
    data = encode_authority(entries)
    ends = [len(encode_authority(entries[: count + 1])) for count in range(3)]
    for cut in range(1, len(data) + 1):
        whole = sum(end <= cut for end in ends)
        if whole:
            assert parse_authority(data[:cut]) == tuple(entries[:whole]), cut
        else:
            with pytest.raises(AuthorityError, match="no whole entry"):
                parse_authority(data[:cut])


def test_limits() -> None:
    one = encode_authority([entry(address=b"", number=b"", data=b"", name=b"")])
    assert len(parse_authority(one * MAX_ENTRIES)) == MAX_ENTRIES
    with pytest.raises(AuthorityError, match="more than 4096 entries"):
        parse_authority(one * (MAX_ENTRIES + 1))
    with pytest.raises(AuthorityError, match="larger than 1048576 bytes"):
        parse_authority(bytes(MAX_FILE + 1))


def test_secrets_do_not_show() -> None:
    assert "0123456789" not in repr(entry())
    broken = b"\0\0\0\x63secret-cookie"
    with pytest.raises(AuthorityError) as caught:
        parse_authority(broken)
    assert "secret" not in caught.value.render()


def xauth(file: Path, *words: str) -> str:
    argv = [require_tool("xauth"), "-q", "-f", str(file), *words]
    home = {"HOME": str(file.parent), "PATH": os.environ["PATH"]}
    done = subprocess.run(argv, env=home, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout


def test_files_that_xauth_writes(tmp_path: Path) -> None:
    file = tmp_path / "made-by-xauth"
    cookies = {name: os.urandom(16) for name in (":0", "192.0.2.7:3", "[2001:db8::5]:4", ":11")}
    for name, data in cookies.items():
        xauth(file, "add", name, ".", data.hex())
    xauth(file, "add", ":12", "XDM-AUTHORIZATION-1", os.urandom(16).hex())
    entries = list(read_authority(str(file)))
    assert len(entries) == 5
    host = socket.gethostname()
    for name, data in cookies.items():
        found = select(entries, name, hostname=host)
        assert found is not None, name
        assert found.data == data, name
    # sshd gives localhost:11.0 as DISPLAY and files the cookie as local.
    remote = select(entries, "localhost:11.0", "127.0.0.1", hostname=host)
    assert remote is not None
    assert remote.data == cookies[":11"]
    assert select(entries, ":12", hostname=host) is None
    assert unsupported_protocols(entries, parse_display(":12"), host) == ("XDM-AUTHORIZATION-1",)


def test_files_that_xauth_reads(tmp_path: Path) -> None:
    file = tmp_path / "made-here"
    written = [entry(Family.WILD, b"", b"7"), entry(Family.INTERNET, bytes((192, 0, 2, 7)), b"3")]
    file.write_bytes(encode_authority(written))
    listed = xauth(file, "nlist").splitlines()
    assert [line.split()[0] for line in listed] == ["ffff", "0000"]
    assert all(b"0123456789abcdef".hex() in line for line in listed)


def test_local_needs_the_host_name_and_the_number() -> None:
    here, other = entry(data=b"here"), entry(address=b"desk.example.com", data=b"other")
    assert select([other, here], ":0") is here
    assert select([other, here], "unix:0.1") is here
    assert select([here], ":1") is None
    assert select([here], "/private/tmp/com.apple.launchd.x/org.xquartz:0") is here
    assert select([], ":0") is None


def test_an_empty_number_fits_every_display() -> None:
    every = entry(number=b"")
    assert select([every], ":0") is every
    assert select([every], "localhost:63") is every


def test_wild_fits_every_host() -> None:
    wild = entry(Family.WILD, b"")
    for name in (":0", "localhost:0", "192.0.2.1:0", "[2001:db8::1]:0", "name:0"):
        assert select([wild], name) is wild, name
    assert select([wild], ":1") is None


def test_the_first_in_the_file_wins_as_in_libxau() -> None:
    wild, local, every = entry(Family.WILD, b"", data=b"w"), entry(data=b"l"), entry(number=b"")
    assert select([wild, local, every], ":0") is wild
    assert select([local, wild], ":0") is local
    assert select([every, local], ":0") is every


def test_hosts_by_address() -> None:
    v4 = entry(Family.INTERNET, bytes((192, 0, 2, 7)), data=b"4")
    v6 = entry(Family.INTERNET6, bytes.fromhex("20010db8" + "0" * 23 + "1"), data=b"6")
    both = [v4, v6]
    assert select(both, "192.0.2.7:0") is v4
    assert select(both, "[2001:db8::1]:0") is v6
    assert select(both, "[::ffff:192.0.2.7]:0") is v4
    assert select(both, "host:0", "192.0.2.7") is v4
    assert select(both, "host:0", "198.51.100.1", "2001:db8::1") is v6
    assert select(both, "host:0") is None
    assert select(both, "192.0.2.8:0") is None
    assert select([entry()], "192.0.2.7:0") is None
    # The same four bytes under another family are another address.
    assert select([entry(Family.LOCAL, bytes((192, 0, 2, 7)))], "192.0.2.7:0") is None


@pytest.mark.parametrize("name", ["localhost:0", "127.0.0.1:0", "[::1]:0", "tcp/localhost:0"])
def test_loopback_is_local(name: str) -> None:
    here, namesake = entry(data=b"here"), entry(address=b"desk.example.com", data=b"there")
    assert select([namesake, here], name) is here


def test_a_host_name_that_changed_while_asleep() -> None:
    old = entry(address=b"Desk.local", data=b"old")
    assert select([old], ":0") is old  # the first label still fits
    stranger = entry(address=b"dhcp-17", data=b"stranger")
    assert select([stranger], ":0") is stranger  # nothing else it could be
    assert select([stranger, old], ":0") is old
    assert select([old, stranger, entry(data=b"exact")], ":0") == entry(data=b"exact")


def test_no_guess_between_several_hosts() -> None:
    """A HOME on a file server: cookies of other machines, one display number."""
    others = [entry(address=b"node1", data=b"1"), entry(address=b"node2", data=b"2")]
    assert select(others, ":0") is None
    same = [entry(address=b"node1", data=b"1"), entry(address=b"node2", data=b"1")]
    assert select(same, ":0") is same[0]
    assert select([entry(address=b"node1", number=b"4")], ":0") is None
    assert select([entry(address=b"node1")], "192.0.2.1:0") is None


def test_only_cookies_are_used() -> None:
    xdm = entry(name=b"XDM-AUTHORIZATION-1", data=b"x" * 16)
    empty = entry(data=b"")
    good = entry(data=b"good")
    assert select([xdm, empty, good], ":0") is good
    assert select([xdm, empty], ":0") is None
    hostile = entry(name=b"\x1b[2J", data=b"x")
    assert unsupported_protocols([xdm, hostile], parse_display(":0"), HOST) == (
        "XDM-AUTHORIZATION-1",
    )


def test_where_to_look(tmp_path: Path) -> None:
    uid = os.getuid()
    assert find_authority_files({"XAUTHORITY": "/x/y", "HOME": "/h"}, uid) == ("/x/y",)
    runtime = tmp_path / str(uid)
    runtime.mkdir(mode=0o700)
    own = {"HOME": "/h", "XAUTHORITY": ""}
    assert find_authority_files(own, uid, runtime_root=str(tmp_path)) == ("/h/.Xauthority",)
    now = time.time()
    for age, name in enumerate([".mutter-Xwaylandauth.AB12", "xauth_cdEF", "xauth_older"]):
        (runtime / name).write_bytes(b"")
        os.utime(runtime / name, (now - age, now - age))
    (runtime / "xauth_link").symlink_to("/etc/passwd")
    (runtime / "other").write_bytes(b"")
    os.mkfifo(runtime / "xauth_fifo")
    wanted = (
        "/h/.Xauthority",
        str(runtime / ".mutter-Xwaylandauth.AB12"),
        str(runtime / "xauth_cdEF"),
        str(runtime / "xauth_older"),
    )
    assert find_authority_files(own, uid, runtime_root=str(tmp_path)) == wanted
    by_name = {**own, "XDG_RUNTIME_DIR": str(runtime)}
    assert find_authority_files(by_name, uid, runtime_root="/nowhere") == wanted
    # Somebody else's, or one that others can write to, is not looked into.
    assert find_authority_files(by_name, uid + 1) == wanted[:1]
    runtime.chmod(0o770)
    assert find_authority_files(by_name, uid) == wanted[:1]


def test_home_from_passwd_when_the_environment_has_none() -> None:
    (found,) = find_authority_files({}, os.getuid(), runtime_root="/nowhere")
    assert found.endswith("/.Xauthority")
    assert find_authority_files({}, 2**31 - 5, runtime_root="/nowhere") == ()


def test_missing_is_empty(tmp_path: Path) -> None:
    assert read_authority(str(tmp_path / "nothing")) == ()
    (tmp_path / "file").write_bytes(b"")
    assert read_authority(str(tmp_path / "file")) == ()
    assert read_authority(str(tmp_path / "file" / "below")) == ()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    start = time.monotonic()
    for name in ("fifo", "folder", "link"):
        with pytest.raises(AuthorityError, match="not a regular file") as caught:
            read_authority(str(tmp_path / name))
        assert caught.value.remedy
    for path in ("/dev/zero", "/dev/tty", "/dev/null"):
        with pytest.raises(AuthorityError, match="cannot use /dev/"):
            read_authority(path)
    with pytest.raises(AuthorityError, match="NUL"):
        read_authority("/tmp/a\0b")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(AuthorityError, match=r"levels of symbolic links"):
        read_authority(str(tmp_path / "loop"))
    assert time.monotonic() - start < 2


def test_a_fifo_that_takes_the_files_place_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular = tmp_path / "file"
    regular.write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    status = os.stat(regular)
    assert stat.S_ISREG(status.st_mode)
    monkeypatch.setattr(os, "stat", lambda *_, **__: status)
    with pytest.raises(AuthorityError, match="not a regular file"):
        read_authority(str(tmp_path / "fifo"))


def test_damaged_and_huge_files_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_bytes(b"garbage, not an Xauthority file at all")
    with pytest.raises(AuthorityError, match=r"cannot use .*/auth: is damaged|it holds no whole"):
        read_authority(str(file))
    with file.open("wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(AuthorityError, match="larger than") as caught:
        read_authority(str(file))
    assert str(file) in caught.value.message
    assert caught.value.remedy


def test_an_unreadable_file_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "auth"
    file.write_bytes(b"x")
    file.chmod(0)
    if os.getuid() == 0:  # root reads everything, so the refusal has to come from elsewhere

        def refuse(*_: object) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AuthorityError, match="Permission denied"):
        read_authority(str(file))


def test_the_search_passes_over_what_it_cannot_use(tmp_path: Path) -> None:
    broken, foreign, xdm, good = (tmp_path / name for name in ("a", "b", "c", "d"))
    broken.write_bytes(b"\0\0\0\xffx")
    foreign.write_bytes(encode_authority([entry(number=b"44")]))
    xdm.write_bytes(encode_authority([entry(name=b"XDM-AUTHORIZATION-1")]))
    good.write_bytes(encode_authority([entry()]))
    display = parse_display(":0")
    paths = [str(tmp_path / "missing"), *map(str, (broken, foreign, xdm, good))]
    found = find_cookie(display, paths, HOST)
    assert found.entry == entry()
    assert found.files == (str(foreign), str(xdm), str(good))
    assert len(found.notes) == 3
    assert "damaged" in found.notes[0]
    assert found.notes[1].startswith("  try: ")
    assert "XDM-AUTHORIZATION-1 is not supported" in found.notes[2]
    nothing = find_cookie(display, paths[:1], HOST)
    assert (nothing.entry, nothing.files, nothing.notes) == (None, (), ())
