"""Control sockets: made in one step, trusted only where nobody else can stand behind them."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from xsshpy.mux.sockets import (
    PATH_SIZE,
    ControlPathError,
    ControlSocketTakenError,
    Listener,
    UntrustedSocketError,
    check_place,
    connect,
    identify_peer,
    listen,
    receive,
    remove_stale,
    require_length,
    send_descriptors,
)

SECONDS = 5.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose path leaves room for a socket's."""
    place = Path(os.path.join("/tmp", f"mux-{os.getpid()}-{time.monotonic_ns()}"))
    place.mkdir(mode=0o700)
    yield place
    for left in place.iterdir():
        left.unlink()
    place.rmdir()


@pytest.fixture
def listener(folder: Path) -> Iterator[Listener]:
    opened = listen(str(folder / "s"))
    yield opened
    opened.close()


def test_it_is_there_at_once_with_its_mode_and_nothing_beside(folder: Path) -> None:
    before = os.umask(0)
    try:
        listener = listen(str(folder / "s"))
    finally:
        os.umask(before)
    assert [path.name for path in folder.iterdir()] == ["s"]
    mode = os.lstat(folder / "s").st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    with closing(connect(str(folder / "s"), SECONDS)) as connection:
        peer = identify_peer(connection)
        assert peer is not None
        assert (peer.uid, peer.pid) == (os.geteuid(), os.getpid())
    listener.close()
    assert not list(folder.iterdir())


def test_a_name_that_is_taken_stays_what_it_is(folder: Path, listener: Listener) -> None:
    with pytest.raises(ControlSocketTakenError):
        listen(listener.path)
    assert listener.is_in_place()
    assert [path.name for path in folder.iterdir()] == ["s"]


def test_closing_leaves_anothers_socket_alone(folder: Path) -> None:
    first = listen(str(folder / "s"))
    os.unlink(first.path)
    second = listen(str(folder / "s"))
    assert not first.is_in_place()
    first.close()
    assert second.is_in_place()
    second.close()


def test_no_folder_no_socket(folder: Path) -> None:
    with pytest.raises(
        ControlPathError, match=r"unix_listener: cannot bind to path .*No such file"
    ):
        listen(str(folder / "missing" / "s"))


def test_a_path_may_be_so_long_and_no_longer(folder: Path) -> None:
    room = PATH_SIZE - 1 - len(str(folder)) - 1
    longest = str(folder / ("x" * room))
    require_length(longest)
    with pytest.raises(ControlPathError) as caught:
        require_length(longest + "x")
    assert caught.value.message == f"ControlPath too long ('{longest}x' >= {PATH_SIZE} bytes)"
    with pytest.raises(ControlPathError, match="too long for Unix domain socket"):
        listen(longest)  # the name beside it is longer
    listen(longest[:-17]).close()


def test_nobody_there(folder: Path) -> None:
    path = str(folder / "s")
    with pytest.raises(FileNotFoundError):
        connect(path, SECONDS)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(ConnectionRefusedError):
        connect(path, SECONDS)
    remove_stale(path)
    assert not os.path.exists(path)
    Path(path).write_text("no socket")
    remove_stale(path)
    assert os.path.exists(path)


def test_a_full_queue_is_waited_for_no_longer_than_said(folder: Path) -> None:
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        os.chmod(path, 0o600)
        listening.listen(0)
        first = connect(path, SECONDS)
        started = time.monotonic()
        try:
            with pytest.raises(TimeoutError):
                connect(path, 0.2)
        finally:
            first.close()
        assert 0.1 < time.monotonic() - started < 3


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o707])
def test_a_folder_for_everybody_is_not_trusted(folder: Path, listener: Listener, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(UntrustedSocketError, match="can be written by others"):
        connect(listener.path, SECONDS)
    folder.chmod(mode | stat.S_ISVTX)
    connect(listener.path, SECONDS).close()
    folder.chmod(0o700)


def test_a_group_of_ones_own_is_no_other(folder: Path, listener: Listener) -> None:
    folder.chmod(0o770)
    connect(listener.path, SECONDS).close()
    if os.geteuid() == 0:
        os.chown(folder, 0, 12345)
        with pytest.raises(UntrustedSocketError, match="can be written by others"):
            connect(listener.path, SECONDS)


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_socket_for_others_is_not_trusted(listener: Listener, mode: int) -> None:
    os.chmod(listener.path, mode)
    with pytest.raises(UntrustedSocketError, match=rf"open to others \(mode {mode:04o}\)"):
        connect(listener.path, SECONDS)
    os.chmod(listener.path, 0o640)
    connect(listener.path, SECONDS).close()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@needs_root
def test_what_belongs_to_another_is_not_trusted(folder: Path, listener: Listener) -> None:
    os.chown(listener.path, 12345, 0)
    with pytest.raises(UntrustedSocketError, match="s belongs to another user"):
        check_place(listener.path)
    os.chown(listener.path, 0, 0)
    check_place(listener.path)
    link = folder / "link"
    link.symlink_to("s")
    check_place(str(link))
    os.chown(link, 12345, 0, follow_symlinks=False)
    with pytest.raises(UntrustedSocketError, match="link belongs to another user"):
        check_place(str(link))
    os.chown(folder, 12345, 0)
    with pytest.raises(UntrustedSocketError, match="belongs to another user"):
        check_place(listener.path)
    os.chown(folder, 0, 0)


@needs_root
def test_a_process_of_anothers_is_not_trusted(folder: Path) -> None:
    path = str(folder / "s")
    ready, announce = os.pipe()
    stop, stopper = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(path)
            os.setuid(12345)
            listening.listen()
            os.write(announce, b"1")
            os.close(stopper)
            os.read(stop, 1)
        finally:
            os._exit(0)
    os.close(stop)
    try:
        assert os.read(ready, 1) == b"1"
        os.chmod(path, 0o600)
        with pytest.raises(UntrustedSocketError, match="another user is behind"):
            connect(path, SECONDS)
    finally:
        os.close(stopper)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(announce)


def test_descriptors_travel_with_a_byte_each(listener: Listener) -> None:
    with closing(connect(listener.path, SECONDS)) as near:
        far, _ = listener.socket.accept()
        far.setblocking(True)
        reader, writer = os.pipe()
        near.sendall(b"frame")
        send_descriptors(near, (reader, writer))
        os.close(reader)
        data, received = b"", []
        while len(data) < 7:
            piece, came = receive(far, 100, 3)
            data += piece
            received += came
        assert data == b"frame\0\0"
        assert len(received) == 2
        assert not any(os.get_inheritable(number) for number in received)
        os.write(received[1], b"through")
        assert os.read(received[0], 100) == b"through"
        for number in (writer, *received):
            os.close(number)
        far.close()


def test_more_descriptors_than_wanted_are_closed(listener: Listener) -> None:
    with closing(connect(listener.path, SECONDS)) as near:
        far, _ = listener.socket.accept()
        far.setblocking(True)
        before = set(os.listdir("/proc/self/fd"))
        for count in (2, 40):
            socket.send_fds(near, [b"x"], [0] * count)
            with pytest.raises(OSError, match="more descriptors"):
                receive(far, 100, 1)
        assert set(os.listdir("/proc/self/fd")) == before
        far.close()
