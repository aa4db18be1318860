"""Windows of other toolkits than Tk: Qt, GTK, xterm and Tk itself without matplotlib.

Trusted and untrusted, each compared pixel by pixel with the same program run locally.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agenthost import tell
from tests.support.clients import ClientHome
from tests.support.processes import run
from tests.support.sessions import started, started_xssh
from tests.support.sshd import SshServer
from tests.support.tools import require_tool, skip_or_fail
from tests.support.windows import Picture, Screen
from tests.support.xvfb import Xvfb

TRUST = {"trusted": ["-Y"], "untrusted": ["-X", "-o", "ForwardX11Trusted=no"]}

QT_PLOT = """\
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(5.0, 3.5))
figure.canvas.manager.set_window_title("toolkit: qtagg")
axes.bar(["a", "b", "c"], [3, 5, 2], color=["#00798c", "#d1495b", "#edae49"])
plt.show()
print(plt.get_backend().lower(), flush=True)
"""

QT_WIDGETS = """\
from PySide6.QtWidgets import QApplication, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget
application = QApplication([])
window = QWidget()
window.setWindowTitle("toolkit: qt")
layout = QVBoxLayout(window)
layout.addWidget(QLabel("drawn by Qt"))
layout.addWidget(QPushButton("A button"))
progress = QProgressBar()
progress.setValue(42)
layout.addWidget(progress)
window.resize(300, 200)
window.show()
application.exec()
print("closed", flush=True)
"""

GTK = """\
import gi
gi.require_version("Gtk", "3.0")
from gi.repository import Gtk
window = Gtk.Window(title="toolkit: gtk3")
window.set_default_size(300, 200)
box = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=8)
box.add(Gtk.Label(label="drawn by GTK"))
box.add(Gtk.Button(label="A button"))
box.add(Gtk.LevelBar(value=0.42))
window.add(box)
window.connect("destroy", Gtk.main_quit)
window.show_all()
Gtk.main()
print("closed", flush=True)
"""

TK = """\
import tkinter
root = tkinter.Tk()
root.title("toolkit: tk")
canvas = tkinter.Canvas(root, width=300, height=200, background="#edae49")
canvas.create_oval(20, 20, 200, 180, fill="#00798c", width=5)
canvas.create_text(150, 100, text="drawn by Tk")
canvas.pack()
root.mainloop()
print("closed", flush=True)
"""

SCRIPTS = {"qtagg": QT_PLOT, "qt": QT_WIDGETS, "gtk3": GTK, "tk": TK}
NEEDS = {
    "qtagg": "import PySide6.QtWidgets, matplotlib.backends.backend_qtagg",
    "qt": "import PySide6.QtWidgets",
    "gtk3": "import gi; gi.require_version('Gtk', '3.0'); from gi.repository import Gtk",
    "tk": "import tkinter",
}
TITLES = {name: f"toolkit: {name}" for name in (*SCRIPTS, "xterm")}
GTK_PYTHON = "/usr/bin/python3"
"""Debian's own: python3-gi is no package that pip could build without a compiler."""


@pytest.fixture(scope="session")
def toolkits(session_directory: Path) -> Path:
    """A directory with the scripts, in which toolkits may keep what they cache."""
    directory = session_directory / "toolkits"
    directory.mkdir(mode=0o700)
    for name, text in SCRIPTS.items():
        (directory / f"{name}.py").write_text(text)
    return directory


def quiet_environment(directory: Path) -> dict[str, str]:
    """Settings that keep toolkits from looking for a desktop, there and here alike."""
    return {
        "MPLCONFIGDIR": str(directory),
        "XDG_CACHE_HOME": str(directory),
        "XDG_RUNTIME_DIR": str(directory),
        "GTK_A11Y": "none",
        "NO_AT_BRIDGE": "1",
        "GSETTINGS_BACKEND": "memory",
        "GIO_USE_VFS": "local",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent",
        "LANG": "C.UTF-8",
    }


def program(name: str, directory: Path) -> list[str]:
    """The argv of a toolkit's program; ends the test where the toolkit is missing."""
    if name == "xterm":
        code = "printf 'drawn by xterm\\033[41m red \\033[0m\\n'; exec cat"
        options = ["-T", TITLES[name], "-geometry", "40x10", "+bc"]
        return [require_tool("xterm"), *options, "-e", "sh", "-c", code]
    python = GTK_PYTHON if name == "gtk3" else sys.executable
    environment = {**quiet_environment(directory), "HOME": str(directory), "PATH": os.defpath}
    check = run([python, "-c", NEEDS[name]], env=environment, timeout=60)
    if check.status != 0:
        skip_or_fail(f"{python} has no {name}: {check.stderr.strip()[-200:]}")
    return [python, str(directory / f"{name}.py")]


@pytest.fixture
def screen(xvfb: Xvfb) -> Iterator[Screen]:
    with Screen.of(xvfb) as opened:
        yield opened


def look_and_close(screen: Screen, name: str) -> Picture:
    window = screen.find_window(TITLES[name], timeout=30)
    picture = screen.settled_picture(window, colours=3)
    screen.close_window(window)
    screen.wait_until_gone(window)
    return picture


@pytest.fixture(scope="session")
def authorities(xvfb: Xvfb, toolkits: Path) -> dict[str, str]:
    """Xauthority files for local clients: the server's own, and one that it does not trust."""
    untrusted = str(toolkits / "untrusted")
    argv = [require_tool("xauth"), "-q", "-f", untrusted, "generate", xvfb.display, "."]
    environment = {**xvfb.environment(), "PATH": os.defpath, "HOME": str(toolkits)}
    made = run([*argv, "untrusted", "timeout", "0"], env=environment)
    assert made.status == 0, made.stderr
    return {"trusted": xvfb.authority, "untrusted": untrusted}


@pytest.fixture(scope="session")
def expected(
    xvfb: Xvfb, toolkits: Path, authorities: dict[str, str]
) -> Callable[[str, str], Picture]:
    """How a toolkit's program looks to a client of the same trust, without any forwarding."""
    pictures: dict[tuple[str, str], Picture] = {}

    def look(name: str, trust: str) -> Picture:
        if (name, trust) not in pictures:
            environment = {
                **quiet_environment(toolkits),
                "DISPLAY": xvfb.display,
                "XAUTHORITY": authorities[trust],
                "HOME": str(toolkits),
                "PATH": os.environ.get("PATH", os.defpath),
                "MPLBACKEND": "QtAgg",
            }
            argv = program(name, toolkits)
            with started(argv, environment, toolkits) as session, Screen.of(xvfb) as screen:
                pictures[name, trust] = look_and_close(screen, name)
                session.wait()
        return pictures[name, trust]

    return look


WAYS = [("agent", "trusted"), ("agent", "untrusted"), ("native", "trusted")]


@pytest.mark.parametrize(("way", "trust"), WAYS)
@pytest.mark.parametrize("name", TITLES)
def test_window_looks_as_it_does_locally(
    name: str,
    way: str,
    trust: str,
    toolkits: Path,
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    xvfb: Xvfb,
    screen: Screen,
    expected: Callable[[str, str], Picture],
) -> None:
    picture_here = expected(name, trust)
    server = make_sshd(environment=quiet_environment(toolkits))
    client_home.add(server)
    backend = ["--backend", "QtAgg"] if name == "qtagg" else []
    command = shlex.join(program(name, toolkits))
    options = [*TRUST[trust], *backend, "-v", "--x11", way]
    argv = [*client_home.arguments, *options, "server", command]
    with started_xssh(argv, client_home.environment(xvfb), client_home.path) as session:
        picture = look_and_close(screen, name)
        done = session.wait()
    if picture != picture_here:
        seen = client_home.path / "seen.png"
        picture.save_png(seen)
        differing = picture.count_differences(picture_here)
        pytest.fail(f"{differing} pixels differ from the local window: see {seen}", pytrace=False)
    if way == "agent":
        tell(*done).require_flawless()
    assert (done.status, done.stdout) == {
        "qtagg": (0, b"qtagg\n"),
        "xterm": (0, b""),
    }.get(name, (0, b"closed\n"))
