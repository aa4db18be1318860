"""The agent's directory and display: whose is removed, whose is not, and which port is taken."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tools import require_tool, skip_or_fail
from xsshpy.remote import listener as module
from xsshpy.remote.listener import (
    COOKIE_NAME,
    Listener,
    NoDisplayError,
    build_authority,
    make_directory,
    open_listener,
    remove_directory,
)

ROOT = Path(__file__).parents[2]
LIVE = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from xsshpy.remote.listener import Listener
listener = Listener(77, [])
print(listener.write_authority(), flush=True)
sys.stdin.read()
if sys.argv[2] == "close":
    listener.close()
os._exit(0)
"""


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch, short_directory: Path) -> Path:
    """The only place for directories."""
    place = short_directory / "t"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(module, "LAST_RESORTS", ())
    return place


@pytest.fixture
def locks() -> Iterator[list[int]]:
    """Descriptors to be closed."""
    held: list[int] = []
    yield held
    for each in held:
        os.close(each)


def make(locks: list[int]) -> Path:
    path, lock = make_directory()
    assert lock is not None
    locks.append(lock)
    return Path(path)


def another(end: str, *before: str) -> subprocess.Popen[str]:
    """Another agent's directory, in a process of its own."""
    argv = [*before, sys.executable, "-c", LIVE, str(ROOT), end]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=20)


# Whose directory is removed ---------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True], ids=["beside", "other-processes"])
def test_a_living_agents_directory_stays(apart: bool, parent: Path, locks: list[int]) -> None:
    """In a namespace of its own too, where its process number means another process or none."""
    before = [require_tool("unshare"), "--pid", "--fork"] if apart else []
    if apart and subprocess.run([*before, "true"], capture_output=True).returncode:
        skip_or_fail("processes cannot be numbered apart here")
    process = another("close", *before)
    assert process.stdout is not None
    authority = Path(process.stdout.readline().strip())
    mine = make(locks)
    assert authority.exists()
    assert {mine, authority.parent} == set(parent.iterdir())
    finish(process)
    assert list(parent.iterdir()) == [mine]


def test_a_dead_agents_directory_goes(parent: Path, locks: list[int]) -> None:
    process = another("leave")
    assert process.stdout is not None
    authority = Path(process.stdout.readline().strip())
    # xauth, writing to it, was killed too.
    (authority.parent / "Xauthority-c").touch()
    finish(process)
    assert authority.exists()
    mine = make(locks)
    assert list(parent.iterdir()) == [mine]


@pytest.mark.parametrize("what", ["mode", "link", "file", "other host", "files in it", "pipe"])
def test_what_is_not_certain_stays(
    what: str, parent: Path, locks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{module.DIRECTORY_PREFIX}{module.name_host()}-0000"
    if what == "other host":
        name = f"{module.DIRECTORY_PREFIX}00000000-0000"
    place = parent / name
    if what == "link":
        target = parent / "elsewhere"
        target.mkdir(mode=0o700)
        (target / "lock").touch()
        place.symlink_to(target)
    elif what == "file":
        place.touch(mode=0o600)
    else:
        place.mkdir(mode=0o750 if what == "mode" else 0o700)
        if what == "files in it":  # of an agent that could not lock its files
            (place / "Xauthority").touch()
            os.utime(place, (1, 1))
        elif what == "pipe":
            os.mkfifo(place / "lock")
            monkeypatch.setattr(fcntl, "flock", refuse)
        else:
            (place / "lock").touch()
    path, lock = make_directory()
    if lock is not None:
        locks.append(lock)
    assert os.path.lexists(place)
    remove_directory(path)


def refuse(descriptor: int, how: int) -> None:
    raise OSError(errno.ENOLCK, "no locks")


def test_an_empty_directory_goes_once_it_is_old(parent: Path, locks: list[int]) -> None:
    place = parent / f"{module.DIRECTORY_PREFIX}{module.name_host()}-0000"
    place.mkdir(mode=0o700)
    (place / "lock.new").touch()
    make(locks)
    assert place.exists()
    os.utime(place, (1, 1))
    make(locks)
    assert not place.exists()


def test_another_users_directory_stays(
    parent: Path, locks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = parent / f"{module.DIRECTORY_PREFIX}{module.name_host()}-0000"
    place.mkdir(mode=0o700)
    (place / "lock").touch()
    monkeypatch.setattr(module.os, "getuid", lambda: place.stat().st_uid + 1)
    make(locks)
    assert place.exists()


def test_where_files_cannot_be_locked(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse)
    listener = Listener(77, [])
    authority = Path(listener.write_authority())
    assert [each.name for each in authority.parent.iterdir()] == ["Xauthority"]
    os.utime(authority.parent, (1, 1))
    Listener(78, []).write_authority()
    assert authority.exists()
    listener.close()
    assert not authority.parent.exists()


def test_the_first_place_that_can_be_written_to(
    parent: Path, locks: list[int], monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    runtime = short_directory / "runtime"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert make(locks).parent == parent  # there is none
    runtime.mkdir()
    runtime.chmod(0o755)
    assert make(locks).parent == parent  # others look into it
    runtime.chmod(0o700)
    assert make(locks).parent == runtime
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"{short_directory}/it's odd")
    assert make(locks).parent == parent
    monkeypatch.setenv("TMPDIR", str(short_directory / "missing"))
    monkeypatch.setattr(module, "LAST_RESORTS", (str(runtime),))
    assert make(locks).parent == runtime
    monkeypatch.setattr(module, "LAST_RESORTS", ())
    with pytest.raises(FileNotFoundError):
        make_directory()


def test_the_host_has_a_name_without_a_file_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first = module.name_host()
    assert first == module.name_host()
    monkeypatch.setattr(module, "BOOT_FILE", "/nonexistent")
    assert len(module.name_host()) == len(first) == 8


# The display ------------------------------------------------------------------------------------


def test_a_display_takes_both_addresses_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_listener()
    try:
        monkeypatch.setattr(module, "FIRST_DISPLAY", first.number)
        second = open_listener()
        assert second.number > first.number
        assert second.cookie != first.cookie
        second.close()
        monkeypatch.setattr(module, "LAST_DISPLAY", first.number)
        with pytest.raises(NoDisplayError, match="all display numbers are taken"):
            open_listener()
    finally:
        first.close()


def test_one_address_that_is_taken_frees_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Noted(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            super().__init__(family, kind)
            opened.append(self)

    with socket.socket(socket.AF_INET6) as taken:
        try:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken.bind(("::1", 0))
        except OSError:
            skip_or_fail("no ::1 here")
        taken.listen()
        monkeypatch.setattr(module, "FIRST_PORT", taken.getsockname()[1] - 10)
        monkeypatch.setattr(module, "LAST_DISPLAY", 10)
        monkeypatch.setattr(module.socket, "socket", Noted)
        with pytest.raises(NoDisplayError):
            open_listener()
    assert opened
    assert all(each.fileno() == -1 for each in opened)


@pytest.mark.parametrize("missing", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_host_without_some_address(missing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lacking(socket.socket):
        without = (socket.AF_INET6,)

        def __init__(self, family: int, kind: int) -> None:
            if missing == errno.EAFNOSUPPORT and family in self.without:
                raise OSError(missing, os.strerror(missing))
            super().__init__(family, kind)

        def bind(self, address: object) -> None:
            if self.family in self.without:
                raise OSError(missing, os.strerror(missing))
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr(module.socket, "socket", Lacking)
    found = open_listener()
    assert [each.family for each in found.sockets] == [socket.AF_INET]
    found.close()
    monkeypatch.setattr(Lacking, "without", (socket.AF_INET, socket.AF_INET6))
    with pytest.raises(NoDisplayError, match="no loopback address"):
        open_listener()


def test_other_failures_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(family: int, kind: int) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module.socket, "socket", fail)
    with pytest.raises(NoDisplayError, match="Too many open files"):
        open_listener()


def test_the_authority_file_names_each_address() -> None:
    data = build_authority(12, b"c" * 16)
    assert data.count(b"\0\x0212\0\x12" + COOKIE_NAME + b"\0\x10" + b"c" * 16) == 3
    assert socket.gethostname().encode() in data
    assert bytes((0, 0, 0, 4, 127, 0, 0, 1)) in data
