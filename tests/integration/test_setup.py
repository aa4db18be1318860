"""Setup on real servers, from nothing to a window; interrupted, done twice, taken back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration._setup_server import (
    Place,
    feign_a_user,
    give_doas,
    give_sudo,
    make_place,
    write_program,
)
from tests.support.clients import ClientHome
from tests.support.processes import find_descendants, run, wait_until, xssh_command
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal
from tests.support.xvfb import Xvfb


@pytest.fixture
def make(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    private_places: Path,
    xvfb: Xvfb,
) -> Callable[..., Place]:
    """Return what makes a server from nothing."""
    return lambda **more: make_place(
        make_sshd, client_home, private_places / "place", xvfb.environment(), **more
    )


def test_from_nothing_to_a_window_and_back(make: Callable[..., Place]) -> None:
    place = make()
    before = place.state()
    shown = place.set_up("--dry-run")
    text = shown.stdout.decode()
    assert shown.status == 0, shown
    assert "apt-get -q -y -o DPkg::Lock::Timeout=120 install" in text
    assert f"{place.own_file}, a new file" in text
    assert "+ X11Forwarding yes" in text
    assert f"kill -HUP {place.server.process.pid} " in text
    assert place.state() == before
    assert [line for line in place.asked() if "install" in line] == []

    done = place.set_up("--yes")
    assert (done.status, done.stderr) == (0, ""), done
    assert done.stdout.decode().count("  done  ") == 2
    lines = place.own_file.read_text().splitlines()
    assert lines[1:-1] == ["X11Forwarding yes", "AcceptEnv MPLBACKEND"]
    assert place.own_file.stat().st_mode & 0o777 == 0o644
    assert place.server.process.poll() is None
    after = place.state()

    argv = [*xssh_command(), *place.home.arguments, "--doctor", "--json", "--x11", "native"]
    seen = run([*argv, "server", "python3"], env=dict(place.variables), timeout=90)
    found = {each["name"]: each for each in json.loads(seen.stdout)["findings"]}
    assert found["proof.window"]["verdict"] == "ok", found
    assert "opened there (Tk" in found["proof.window"]["evidence"][0]
    assert "accepted" in found["server.acceptenv"]["evidence"][0]

    again = place.set_up("--yes")
    assert (again.status, again.stdout.decode()) == (0, "Nothing to do on server.\n"), again
    assert place.state() == after

    undone = place.set_up("--undo", "--yes")
    assert undone.status == 0, undone
    assert "dpkg --remove xauth" in place.asked()
    assert place.state() == before
    assert place.set_up("--undo").stdout == b"Nothing to take back on server.\n"


def test_the_top_of_the_main_file(make: Callable[..., Place]) -> None:
    """Without an Include, and with a Match block that has its say for others."""
    place = make(config="AcceptEnv LANG\n")
    with place.configuration.open("a") as file:
        file.write("Match User nobody\n  X11Forwarding no\n")
    place.configuration.chmod(0o600)
    before = place.state()
    done = place.set_up("--yes")
    assert done.status == 0, done
    text = place.configuration.read_bytes()
    block = b"# xssh --setup: begin\nX11Forwarding yes\nAcceptEnv MPLBACKEND\n# xssh --setup: end\n"
    assert text == block + before[str(place.configuration)][0]
    assert place.configuration.stat().st_mode & 0o777 == 0o600
    assert place.set_up("--yes").stdout == b"Nothing to do on server.\n"
    # What somebody changes afterwards stays theirs.
    place.configuration.write_bytes(text + b"# mine\n")
    undone = place.set_up("--undo", "--yes")
    assert undone.status == 1, undone
    assert f"can't: {place.configuration} was changed since" in undone.stdout.decode()
    assert place.configuration.read_bytes() == text + b"# mine\n"
    place.configuration.write_bytes(text)
    assert place.set_up("--undo", "--yes").status == 0
    assert place.configuration.read_bytes() == before[str(place.configuration)][0]
    assert place.configuration.stat().st_mode & 0o777 == 0o600


def test_a_match_block_wins(make: Callable[..., Place]) -> None:
    place = make()
    with place.configuration.open("a") as file:
        file.write("Match User demo\n  X11Forwarding no\n")
    number = place.configuration.read_text().count("\n")
    place.server.reload()
    before = place.state()
    done = place.set_up("--dry-run")
    assert done.status == 1, done
    where = f"({place.configuration} line {number})"
    assert "a Match block says X11Forwarding no for this login" in done.stdout.decode()
    assert where in done.stdout.decode()
    assert place.state() == before


def test_a_configuration_that_was_broken_before(make: Callable[..., Place]) -> None:
    """sshd runs with what it read; nothing may be changed on top of what it would not take."""
    place = make()
    with place.configuration.open("a") as file:
        file.write("Nonsense yes\n")
    before = place.state()
    done = place.set_up("--yes")
    assert done.status == 1, done
    assert place.own_file.exists() is False
    assert place.server.process.poll() is None
    assert "sshd -T` says nothing" in done.stdout.decode() or "sshd -t" in done.stdout.decode()
    undone = place.set_up("--undo", "--yes")
    assert undone.status == 0, undone
    assert place.state() == before


@pytest.mark.parametrize(
    "way", [
        "none", "sudo", "password", "wrong", "nobody to ask", "doas", "doas password", "doas wrong",
        "requiretty", "requiretty password", "not allowed",
    ],
)  # fmt: skip
def test_rights(
    make: Callable[..., Place], spawn_in_pty: Callable[..., Terminal], way: str
) -> None:
    in_terminal = way.startswith(("doas ", "requiretty"))
    place = make(is_root=in_terminal)
    if in_terminal:
        feign_a_user(place)
    before = place.state()
    if way == "none":
        done = place.set_up("--yes")
        text = done.stdout.decode()
        assert done.status == 1
        assert "For its administrator, to copy:" in text
        assert "install --no-install-recommends xauth python3-tk" in text
        assert f"{place.own_file}, a file with:\n          X11Forwarding yes" in text
        assert place.state() == before
        return
    secret = "a secret" if way.endswith(("password", "wrong", "ask")) else ""
    by = "doas" if "doas" in way else "sudo"
    if by == "doas":
        give_doas(place, secret)
    else:
        give_sudo(place, secret, needs_terminal="requiretty" in way)
    if way == "not allowed":
        text = "#!/bin/sh\necho 'demo is not in the sudoers file.' >&2\nexit 1\n"
        write_program(place.folder / "bin" / "sudo", text)
        done = place.set_up("--yes")
        assert done.status == 1
        assert "can't: as root: demo is not in the sudoers file." in done.stdout.decode()
    elif way in ("sudo", "doas", "requiretty"):
        done = place.set_up("--yes")
        assert (done.status, done.stdout.decode().count("  done  ")) == (0, 2), done
        assert place.set_up("--yes").stdout == b"Nothing to do on server.\n"
        assert place.set_up("--undo", "--yes").status == 0
    elif way == "nobody to ask":
        done = place.set_up("--yes")
        assert done.status == 1
        assert "can't: as root: sudo was given no password" in done.stdout.decode()
    else:
        terminal = spawn_in_pty(place.argv("-vvv"), env=dict(place.variables))
        if "wrong" in way:
            for _ in range(3):
                terminal.read_until(rf"\[{by}\] password for demo@server: ")
                terminal.write("bad one\n")
            said = {"sudo": "sudo: 3 incorrect password attempts"}
            terminal.read_until(f"can't: as root: {said.get(by, 'doas: Authentication failed')}")
            terminal.read_until("For its administrator")
        else:
            terminal.read_until(rf"\[{by}\] password for demo@server: ")
            terminal.write("a secret\n")
            terminal.read_until(r"Do this on server\? \[y/N\] ")
            assert place.state() == before
            terminal.write("y\n")
            terminal.read_until("takes this back")
        assert terminal.wait() == (1 if "wrong" in way else 0)
        assert b"secret" not in terminal.output
        if "wrong" not in way:
            assert place.own_file.exists()
            return
    assert place.state() == before


def test_a_no_changes_nothing(
    make: Callable[..., Place], spawn_in_pty: Callable[..., Terminal]
) -> None:
    place = make()
    before = place.state()
    terminal = spawn_in_pty(place.argv(), env=dict(place.variables))
    terminal.read_until(r"Do this on server\? \[y/N\] ")
    terminal.write("\n")
    terminal.read_until("Nothing was changed")
    assert terminal.wait() == 1
    asked = place.set_up()  # no terminal
    assert asked.status == 1
    assert "--yes does it without" in asked.stdout.decode()
    assert place.state() == before


@pytest.mark.parametrize(
    ("release", "managers", "expected"),
    [
        ("ID=fedora\n", ("dnf", "rpm"), "dnf -q -y install xorg-x11-xauth python3-tkinter"),
        (
            'ID="opensuse-leap"\n',
            ("zypper", "rpm"),
            "zypper --non-interactive install --no-recommends xauth python3-tk",
        ),
        ("ID=arch\n", ("pacman",), "pacman -S --needed --noconfirm xorg-xauth tk"),
        ("ID=alpine\n", ("apk",), "apk --wait 120 add xauth python3-tkinter"),
    ],
    ids=["dnf", "zypper", "pacman", "apk"],
)
def test_each_package_manager(
    make: Callable[..., Place], release: str, managers: tuple[str, ...], expected: str
) -> None:
    place = make(release=release, managers=managers)
    done = place.set_up("--yes")
    assert done.status == 0, done
    assert [line for line in place.asked() if line == expected] == [expected]
    assert (place.folder / "bin" / "xauth").exists()
    place.folder.joinpath("log").write_text("")
    undone = place.set_up("--undo", "--dry-run")
    assert undone.stdout.decode().count("  - remove ") == 2


@pytest.mark.parametrize(
    ("base", "program", "install", "remove"),
    [
        ("b/opt/python@3.1", "b/bin/brew", "install python-tk@3.1", "uninstall python-tk@3.1"),
        ("conda", "conda/bin/conda", "install -y -p {base} tk", "remove -y -p {base} tk"),
        ("m/envs/my env", "m/bin/mamba", "install -y -p {base} tk", "remove -y -p {base} tk"),
    ],
    ids=["brew", "conda", "mamba"],
)  # fmt: skip
def test_package_managers_of_users(
    make: Callable[..., Place], base: str, program: str, install: str, remove: str
) -> None:
    """They need no root, and are where their Python is."""
    place = make(is_root=False, base=base, program=program)
    name = program.rpartition("/")[2]
    words = {"base": place.folder / base}
    place.set_up("--yes")  # what root is needed for is left
    assert f"{name} {install.format(**words)}" in place.asked()
    again = place.set_up("--dry-run").stdout.decode()
    assert "To do on" not in again, again
    assert place.set_up("--undo", "--yes").status == 0
    assert f"{name} {remove.format(**words)}" in place.asked()
    assert "install" in place.set_up("--dry-run").stdout.decode()


def test_a_package_manager_that_fails(make: Callable[..., Place]) -> None:
    """It is tried again after a refresh; the other steps are done, and its words are shown."""
    place = make()
    stub = "#!/bin/sh\necho apt-get $* >>@LOG@\necho 'E: no network' >&2\nexit 100\n"
    write_program(place.folder / "bin" / "apt-get", stub, LOG=place.folder / "log")
    done = place.set_up("--yes")
    assert done.status == 1, done
    assert "E: no network" in done.stdout.decode()
    calls = [line for line in place.asked() if line.startswith("apt-get ")]
    assert [("update" in line) for line in calls] == [False, True, False]
    assert place.own_file.exists()
    undone = place.set_up("--undo", "--yes")
    assert undone.status == 0, undone
    assert "remove" not in undone.stdout.decode()


def test_a_client_that_is_gone(make: Callable[..., Place]) -> None:
    """Killed while packages are installed, it leaves a step that comes to its end."""
    place = make()
    go = place.folder / "go"
    os.mkfifo(go)
    apt = place.folder / "bin" / "apt-get"
    text = apt.read_text().replace("\nthere=", f"\nread -r word <{go}\nthere=", 1)
    write_program(apt, text)
    client = subprocess.Popen(
        place.argv("--yes"),
        env=dict(place.variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: any("install" in line for line in place.asked()), timeout=30)
    client.kill()
    client.wait()
    place.server.wait_until_idle()
    go.write_text("on\n")
    here = os.getpid()  # nobody else is the parent of what the session left
    wait_until(lambda: not any("sh -s" in each.command for each in find_descendants(here)))
    assert (place.folder / "there" / "python3-tk").exists()
    assert not place.own_file.exists()
    write_program(apt, text.replace(f"read -r word <{go}\n", ""))
    assert place.set_up("--yes").status == 0
    assert place.set_up("--undo", "--yes").status == 0
    assert not (place.folder / "there" / "python3-tk").exists()


def test_matplotlib_that_draws_into_files(make: Callable[..., Place]) -> None:
    place = make(is_root=False)
    pytest.importorskip("matplotlib")
    folder = place.server.home / ".config" / "matplotlib"
    folder.mkdir(parents=True)
    place_of = folder / "matplotlibrc"
    place_of.write_bytes(b"# mine\nfont.size: 9\r\nbackend : Agg\nlines.linewidth: 2")
    place_of.chmod(0o640)
    before = place.state()
    done = place.set_up("--yes")
    assert f"  done    {place_of}" in done.stdout.decode(), done
    text = b"# mine\nfont.size: 9\r\nbackend: TkAgg\nlines.linewidth: 2"
    assert place_of.read_bytes().rstrip(b"\n") == text
    assert place_of.stat().st_mode & 0o777 == 0o640
    after = place.state()
    place.set_up("--yes")
    assert place.state() == after
    assert place.set_up("--undo", "--yes").status == 0
    assert place.state() == before
