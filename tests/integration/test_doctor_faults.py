"""What the system itself takes away, for real: space, inodes, names, networks, files, libraries.

Where a server has to see another system than this one it runs in namespaces of its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.doctors import (
    NO_MATPLOTLIB,
    PYTHON,
    Diagnosis,
    Doctor,
    in_namespace,
    small_file_system,
    without_python,
)
from tests.support.dropbear import Dropbear
from tests.support.processes import run, run_xssh
from tests.support.sshd import KeyRing, SshServer
from tests.support.tools import require_tool

NATIVE = ("--x11", "native")


def expect_cause(found: Diagnosis, name: str, words: str, remedy: str) -> None:
    """Nothing but this is wrong, and all that follows from it is skipped."""
    assert without_python(found.not_well) == {name: "broken"}, found
    assert (found.status, found.cause) == (1, name)
    assert words in found.text(name)
    assert remedy in found.text(name)


# --- This machine ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "verdict"), [(12, "broken"), (40, "warning")], ids=["12 files", "40 files"]
)
def test_few_files_may_be_open(doctor: Doctor, most: int, verdict: str) -> None:
    doctor.inside = ("sh", "-c", f'ulimit -n {most}; exec "$@"', "sh")
    found = doctor.visit()
    assert found.not_well == {"local.limits": verdict}
    assert f"may have {most} files open at once (ulimit -n)" in found.text("local.limits")


def test_no_process_may_be_started(doctor: Doctor) -> None:
    """The limit counts for everybody but root."""
    setpriv, prlimit = require_tool("setpriv"), require_tool("prlimit")
    if os.getuid():
        pytest.skip("only root may be somebody without a process")
    caps = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
    others = ("--reuid", "54321", "--regid", "54321", "--clear-groups", *caps)
    doctor.inside = (setpriv, *others, prlimit, "--nproc=1:1")
    found = doctor.visit()
    assert found.not_well == {"local.limits": "broken"}, found
    assert "1 processes may run at once (ulimit -u)" in found.text("local.limits")


def test_a_full_disk_here_is_no_fault(doctor: Doctor, private_places: Path) -> None:
    """HOME, its Xauthority and the places for sockets: X11 takes no room there."""
    full = private_places / "full"
    with small_file_system(full, "12k"):
        shutil.copy(doctor.xvfb.authority, full / ".Xauthority")
        (full / "much").write_bytes(bytes(8192))
        with pytest.raises(OSError, match="No space"):
            (full / "more").write_bytes(bytes(8192))
        places = dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR"), str(full))
        doctor.variables = {**places, "XAUTHORITY": ""}
        found = doctor.visit()
    assert found.not_well == {}, found
    assert str(full / ".Xauthority") in found.text("local.cookie")


def test_nothing_could_be_looked_at(doctor: Doctor) -> None:
    done = run_xssh(["--doctor", "--x11", "never", "server"], env=doctor.home.environment())
    assert (done.status, done.stdout) == (255, b"")


# --- The way there -----------------------------------------------------------------------------


def test_a_port_that_says_nothing(doctor: Doctor, make_sshd: Callable[..., SshServer]) -> None:
    doctor.home.add(make_sshd())
    doctor.before = "import xsshpy.doctor.host_checks as c; c.PORT_DEADLINE = 0.3"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = doctor.visit("-p", str(silent.getsockname()[1]), "server")
    expect_cause(found, "host.port", "no answer within 0.3 seconds", "firewall")


# --- The home folder there ---------------------------------------------------------------------


def test_a_home_folder_without_room(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    """Bytes, inodes, files that may grow: each is told apart, and explains what sshd lacks."""
    for name, size, words, remedy in (
        ("full", "8k", "the disk or the quota is full", "df -h"),
        ("many", "1m,nr_inodes=8", "no inode left", "df -i"),
    ):
        home = private_places / name
        with small_file_system(home, size):
            doctor.home.add(make_sshd(home=home), name)
            with pytest.raises(OSError, match="No space"):
                for number in range(9):
                    (home / f"much{number}").write_bytes(bytes(1024 if name == "full" else 0))
            found = doctor.visit(*NATIVE, name, doctor.bare)
            expect_cause(found, "server.home", words, remedy)
            assert found.verdict("x11.native") == "skipped"


def test_a_home_folder_that_is_not_there(
    make_sshd: Callable[..., SshServer], doctor: Doctor
) -> None:
    server = make_sshd()
    doctor.home.add(server)
    shutil.rmtree(server.home)
    found = doctor.visit(*NATIVE, "server", "/usr/bin/env", "-i", doctor.bare)
    expect_cause(found, "server.home", f"no home folder {server.home}", f"mkdir {server.home}")


def test_an_xauthority_that_stays_as_it_is(
    make_sshd: Callable[..., SshServer], doctor: Doctor
) -> None:
    """As sudo leaves it behind; root may write everywhere but to a read-only mount."""
    server = make_sshd()
    doctor.home.add(server)
    path = str(server.home / ".Xauthority")
    Path(path).touch()
    in_namespace("--mount")  # or there is no mount
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        found = doctor.visit(*NATIVE, "server", doctor.bare)
    finally:
        subprocess.run(["umount", "-l", path], check=True)
    expect_cause(found, "server.home", f"{path} can't be written to", f"rm -f {path}")


# --- Names, networks, programs -----------------------------------------------------------------


def test_a_server_without_an_address_for_its_name(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    """With X11UseLocalhost no its displays have that name."""
    hosts, switch = private_places / "hosts", private_places / "nsswitch.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    switch.write_text("hosts: files\n")
    before = f"mount --bind {hosts} /etc/hosts && mount --bind {switch} /etc/nsswitch.conf"
    inside = in_namespace("--mount", "--uts", before=f"{before} && hostname nowhere")
    doctor.home.add(make_sshd(wrapper=inside, config="X11UseLocalhost no"))
    found = doctor.visit(*NATIVE, "server", doctor.bare)
    expect_cause(found, "x11.native", "no address for its own name nowhere", "/etc/hosts")
    with hosts.open("a") as file:
        file.write("127.0.0.1 nowhere\n")
    found = doctor.visit(*NATIVE, "server", doctor.bare)
    assert without_python(found.not_well) == {}, found
    assert "X11UseLocalhost no: the network there can reach" in found.text("x11.native")


def test_a_network_of_its_own(make_sshd: Callable[..., SshServer], doctor: Doctor) -> None:
    """What a container is to a display."""
    in_namespace("--net")
    doctor.home.add(make_sshd())
    found = doctor.visit("server", "unshare", "--net", doctor.bare)
    words = "unshare runs programs in a network of its own, where localhost:"
    expect_cause(found, "session.command", words, "keep the host's network")


def write_hanging(program: Path) -> Path:
    """Write a program that hangs until the file that is returned is gone."""
    stay = program.parent / f"{program.name}-stays"
    stay.touch()
    program.write_text(f"#!/bin/sh\nwhile test -e {stay}; do sleep 0.1; done\n")
    program.chmod(0o700)
    return stay


def test_an_xauth_that_stalls(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    """Nothing that the agent needs; without the agent it is what is wrong."""
    xauth = private_places / "xauth"
    stay = write_hanging(xauth)
    server = make_sshd(config=f"XAuthLocation {xauth}")
    doctor.home.add(server)
    doctor.before = "import xsshpy.doctor.x11_checks as c; c.XAUTH_DEADLINE = 1.0"
    found = doctor.visit("server", doctor.bare)
    assert without_python(found.not_well) == {"x11.native": "warning"}, found
    assert "does not begin within 1 seconds" in found.text("x11.native")
    found = doctor.visit(*NATIVE, "server", doctor.bare)
    expect_cause(found, "x11.native", "sshd waits for xauth", "XAuthLocation")
    stay.unlink()
    server.wait_until_idle()


def test_a_python_that_hangs(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    folder = private_places / "bin"
    folder.mkdir()
    stay = write_hanging(folder / "python3")
    server = make_sshd(path=f"{folder}:{os.environ['PATH']}")
    doctor.home.add(server)
    doctor.before = (
        "import xsshpy.doctor.python_checks as c, xsshpy.x11.agent as a;"
        "c.FACTS_DEADLINE = a.HELLO_DEADLINE = 1.0"
    )
    found = doctor.visit("server", "python3", "train.py")
    assert found.not_well == {"x11.agent": "warning", "python.found": "broken"}, found
    assert "no Python spoke within 1 seconds" in found.text("x11.agent")
    for name in found.not_well:
        assert "network drive" in found.text(name)
    stay.unlink()
    server.wait_until_idle()


def test_few_files_may_be_open_there(make_sshd: Callable[..., SshServer], doctor: Doctor) -> None:
    server = make_sshd()
    (server.home / ".bashrc").write_text("ulimit -n 8\n")
    doctor.home.add(server)
    found = doctor.visit("server", doctor.bare)
    expect_cause(found, "server.command", "too few files at once (ulimit -n 8)", "limits.conf")


def test_dropbear(doctor: Doctor, key_ring: KeyRing, private_places: Path) -> None:
    """It drops a connection for a packet like the one with all of the agent in it."""
    for name in ("dropbear", "dropbearkey"):
        require_tool(name)
    server = Dropbear(private_places / "dropbear", key_ring)
    try:
        doctor.home.add(server)  # type: ignore[arg-type]
        found = doctor.visit("server", doctor.bare)
        expected = {"server.software": "warning", "x11.native": "warning"}
        assert without_python(found.not_well) == expected, found
        assert "SSH-2.0-dropbear" in found.text("server.software")
        assert found.text("x11.agent").startswith("display localhost:")
        assert "opened there (Tk" in found.text("proof.window")
        command = ["server", "echo $DISPLAY; exit 3"]
        done = run_xssh(
            [*doctor.home.arguments, *command], env=doctor.home.environment(doctor.xvfb)
        )
        assert (done.status, done.stdout[:10], done.stderr) == (3, b"localhost:", "")
    finally:
        server.stop()


# --- Libraries ---------------------------------------------------------------------------------


def find_library(name: str) -> Path:
    """Return where the linker finds a library, or end the test."""
    listed = run([require_tool("ldconfig"), "-p"]).stdout.decode()
    for line in listed.splitlines():
        if line.strip().startswith(f"{name} "):
            return Path(line.rpartition("=> ")[2])
    pytest.skip(f"{name} is not installed")


def mask(private_places: Path, *names: str) -> tuple[str, ...]:
    """Return the words that start a server which sees libraries' folders without these."""
    steps = []
    for number, folder in enumerate({find_library(name).parent.resolve() for name in names}):
        upper, work = (private_places / f"{kind}{number}" for kind in ("upper", "work"))
        upper.mkdir()
        work.mkdir()
        for name in names:
            os.mknod(upper / name, stat.S_IFCHR | 0o600, os.makedev(0, 0))  # overlay: not there
        options = f"lowerdir={folder},upperdir={upper},workdir={work}"
        steps.append(f"mount -t overlay overlay -o {options} {folder}")
    return in_namespace("--mount", before=" && ".join(steps))


@pytest.mark.skipif(NO_MATPLOTLIB, reason="matplotlib is not installed")
def test_a_tcl_without_its_files(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    """As with Pythons that were built elsewhere: Tcl looks where nothing is."""
    done = run([PYTHON, "-c", "import tkinter; print(tkinter.Tcl().eval('info library'))"])
    folder = done.stdout.decode().strip()
    empty = private_places / "empty"
    empty.mkdir()
    inside = in_namespace("--mount", before=f"mount --bind {empty} {folder}")
    doctor.home.add(make_sshd(wrapper=inside, environment={"TCL_LIBRARY": str(empty)}))
    found = doctor.visit("server", PYTHON)
    words = "Tcl does not start: TclError: Can't find a usable init.tcl"
    expect_cause(found, "python.tkinter", words, f"unset TCL_LIBRARY, which is {empty}")
    assert "opened there (X11 alone)" in found.text("proof.window")


@pytest.mark.skipif(NO_MATPLOTLIB, reason="matplotlib is not installed")
def test_libraries_that_do_not_fit(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    """As conda's beside the system's: one of them lacks what the other one calls."""
    folder = private_places / "lib"
    folder.mkdir()
    shutil.copy(find_library("libXau.so.6"), folder / "libX11.so.6")
    doctor.home.add(make_sshd(environment={"LD_LIBRARY_PATH": str(folder)}))
    found = doctor.visit("server", PYTHON)
    assert found.not_well == {"x11.native": "warning", "python.tkinter": "broken"}, found
    assert "undefined symbol" in found.text("python.tkinter")
    assert f"{folder}/libX11.so.6" in found.text("python.tkinter")
    assert f"take {folder} out of LD_LIBRARY_PATH" in found.text("python.tkinter")
    assert "LD_LIBRARY_PATH" in found.text("x11.native")


def test_qts_plugin_lacks_a_library(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    pytest.importorskip("PySide6")
    pytest.importorskip("matplotlib")
    if os.getuid():
        pytest.skip("needs root")
    inside = mask(private_places, "libxcb-cursor.so.0")
    doctor.home.add(make_sshd(wrapper=inside))
    found = doctor.visit("--backend", "QtAgg", "server", PYTHON)
    expect_cause(found, "python.backend", "libxcb-cursor.so.0: cannot open", "libxcb-cursor0")
