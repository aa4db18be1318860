"""Setup where sshd itself is odd: started by hand, gone, dying at a reload, or one a connection."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration._setup_server import Place, make_place, write_program
from tests.support.clients import ClientHome
from tests.support.processes import find_descendants, send_signal, wait_until
from tests.support.sshd import SshServer
from tests.support.tools import require_tool

Make = Callable[..., Place]

# An sshd that is as it should be until it starts itself again.
DIES = """#!/bin/sh
case " $* " in
*" -t "*|*" -T "*|*" -R "*) ;;
*" -D "*) test ! -e @FOLDER@/fifo || { : >@FOLDER@/told; read -r word <@FOLDER@/fifo; }
  test -e @FOLDER@/fifo || exit 1 ;;
*) test ! -e @FOLDER@/gone || exit 1 ;;
esac
exec @SSHD@ "$@"
"""


@pytest.fixture
def make(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, private_places: Path
) -> Make:
    return lambda **more: make_place(make_sshd, client_home, private_places / "place", {}, **more)


def with_own_sshd(make: Make) -> tuple[Place, Path]:
    """Return a server whose sshd is a copy, which may go."""
    start = 'cp "$1" "$S_FOLDER/sshd" && exec "$S_FOLDER/sshd" -D -E "$4" -f "$6"'
    place = make(start=start, mounts='export S_FOLDER="$1" &&')
    return place, place.folder / "sshd"


def put_in_place(sshd: Path, text: str, **values: object) -> None:
    """As a package manager does it: beside, and renamed."""
    beside = sshd.with_suffix(".new")
    write_program(beside, text, **values)
    beside.rename(sshd)


ODD = {
    "relative -f": ('exec "$1" -D -E "$4" -f "${6##*/}"', "", "a name that holds in one folder"),
    "by an option": ('exec "$@" -o "X11Forwarding no" -o "AcceptEnv A B"', "", "the command line"),
    "read-only": ('exec "$@"', 'mount --bind "$1/sshd_config.d" "$1/sshd_config.d" && '
                  'mount -o remount,ro,bind "$1/sshd_config.d" &&', "Read-only file system"),
}  # fmt: skip


@pytest.mark.parametrize("way", ODD)
def test_what_setup_can_see_beforehand(make: Make, way: str) -> None:
    start, mounts, words = ODD[way]
    place = make(start=start, mounts=mounts)
    before = place.state()
    done = place.set_up("--yes")
    assert done.status == 1, done
    assert words in done.stdout.decode()
    assert place.server.process.poll() is None
    assert not place.own_file.exists()
    assert place.set_up("--undo", "--yes").status == 0
    assert place.state() == before


@pytest.mark.parametrize("comes_back", [True, False])
def test_an_sshd_that_dies_at_the_reload(make: Make, comes_back: bool) -> None:
    place, sshd = with_own_sshd(make)
    before = place.configuration.read_bytes()
    put_in_place(sshd, DIES, SSHD=require_tool("sshd"), FOLDER=place.folder)
    if not comes_back:
        (place.folder / "gone").touch()
    try:
        done = place.set_up("--yes")
        text = done.stdout.decode()
        assert done.status == 1, done
        assert "sshd did not come back when it was told to read its settings" in text
        assert not place.own_file.exists()
        assert place.configuration.read_bytes() == before
        if comes_back:
            assert "it was started again with the old ones" in text
            socket.create_connection((place.server.host, place.server.port), 5).close()
        else:
            command = f"{sshd} -f {place.configuration}"
            assert f"NO SSHD LISTENS THERE NOW: before this login ends, there: {command}" in text
    finally:
        end_servers(place)


def end_servers(place: Place) -> None:
    """End the servers that setup started."""
    for each in find_descendants(os.getpid()):
        if str(place.configuration) in each.command and each.pid != place.server.process.pid:
            send_signal(each.pid, signal.SIGKILL)


def test_a_connection_that_ends_during_the_reload(make: Make) -> None:
    """sshd comes back with the new settings, and the record is whole."""
    place, sshd = with_own_sshd(make)
    put_in_place(sshd, DIES, SSHD=require_tool("sshd"), FOLDER=place.folder)
    os.mkfifo(place.folder / "fifo")
    client = subprocess.Popen(
        place.argv("--yes"),
        env=dict(place.variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: (place.folder / "told").exists(), timeout=30)
    client.kill()
    client.wait()
    (place.folder / "fifo").write_text("on\n")
    place.server.wait_until_idle()
    put_in_place(sshd, '#!/bin/sh\nexec @SSHD@ "$@"\n', SSHD=require_tool("sshd"))
    assert place.own_file.exists()
    assert place.set_up("--yes").stdout.startswith(b"Nothing to do on server.\n")
    assert place.set_up("--undo", "--yes").status == 0
    assert not place.own_file.exists()


def test_one_sshd_a_connection(make: Make, client_home: ClientHome) -> None:
    """As inetd and systemd's sockets start it: nobody has to be told."""
    place = make(start='mount --bind "$6" /etc/ssh/sshd_config && exec "$@"')
    script = place.folder / "inetd"
    words = ["nsenter", "-m", "-t", str(place.server.process.pid)]
    words += ["env", *(f"{name}={value}" for name, value in place.server._environment.items())]
    write_program(script, f"#!/bin/sh\nexec {shlex.join(words)} {require_tool('sshd')} -i\n")
    client_home.config.write_text(f"ProxyCommand {script}\n" + client_home.config.read_text())
    assert "# no sshd to tell" in place.set_up("--dry-run").stdout.decode()
    assert place.set_up("--yes").status == 0
    assert place.own_file.exists()


@pytest.mark.parametrize("most", [1, 2])
def test_few_sessions(make: Make, most: int) -> None:
    place = make(config=f"Include @FOLDER@/sshd_config.d/*.conf\nMaxSessions {most}\n")
    done = place.set_up("--yes")
    if most == 1:
        assert done.status == 255
        assert "the server allows one session on a connection, and setup takes two" in done.stderr
    else:
        assert (done.status, done.stdout.decode().count("  done  ")) == (0, 2), done
