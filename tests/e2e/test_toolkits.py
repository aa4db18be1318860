"""Windows of all toolkits: Qt 5 and 6, GTK, Tk and xterm, with matplotlib and without.

Each compared pixel by pixel with the same program run locally: one by one the native way, and all
at once by the agent, trusted and untrusted, over a line of some length.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.e2e.conftest import copy_font_lists
from tests.support.agenthost import TRUST, AgentHost
from tests.support.clients import ClientHome
from tests.support.processes import run
from tests.support.sessions import started, started_xssh
from tests.support.sshd import SshServer
from tests.support.tools import require_tool, skip_or_fail
from tests.support.windows import Picture, Screen
from tests.support.xvfb import Xvfb

PLOT = """\
import sys
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(5.0, 3.5))
figure.canvas.manager.set_window_title("toolkit: " + sys.argv[1])
axes.bar(["a", "b", "c"], [3, 5, 2], color=["#00798c", "#d1495b", "#edae49"])
plt.show()
print(plt.get_backend().lower(), flush=True)
"""

QT_WIDGETS = """\
import sys
try:
    from PySide6.QtWidgets import *
except ImportError:
    from PyQt5.QtWidgets import *
application = QApplication([])
window = QWidget()
window.setWindowTitle("toolkit: " + sys.argv[1])
layout = QVBoxLayout(window)
layout.addWidget(QLabel("drawn by Qt"))
layout.addWidget(QPushButton("A button"))
progress = QProgressBar()
progress.setValue(42)
layout.addWidget(progress)
window.resize(300, 200)
window.show()
(application.exec if hasattr(application, "exec") else application.exec_)()
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

Pictures = dict[str, Picture]
NOTHING: Mapping[str, Picture] = MappingProxyType({})


@dataclass(frozen=True)
class Program:
    """A program of a toolkit: its source, what it needs, and what it prints at the end.

    ``system``: it runs under the system's own Python, as its toolkit is no package that pip could
    build without a compiler.
    """

    source: str
    needs: str
    says: bytes = b"closed\n"
    system: bool = False
    backend: str = ""

    @property
    def python(self) -> str:
        """The interpreter."""
        return SYSTEM_PYTHON if self.system else sys.executable


SYSTEM_PYTHON = "/usr/bin/python3"
QT5 = "import PyQt5.QtWidgets"
GTK3 = "import gi; gi.require_version('Gtk', '3.0'); from gi.repository import Gtk"
PROGRAMS = {
    "qtagg": Program(
        PLOT,
        "import PySide6.QtWidgets, matplotlib.backends.backend_qtagg",
        b"qtagg\n",
        backend="QtAgg",
    ),
    "qt5agg": Program(
        PLOT, QT5 + "; import matplotlib.backends.backend_qtagg", b"qtagg\n", True, "QtAgg"
    ),
    "gtk3agg": Program(
        PLOT, GTK3 + "; import matplotlib.backends.backend_gtk3agg", b"gtk3agg\n", True, "GTK3Agg"
    ),
    "qt": Program(QT_WIDGETS, "import PySide6.QtWidgets"),
    "qt5": Program(QT_WIDGETS, QT5, system=True),
    "gtk3": Program(GTK, GTK3, system=True),
    "tk": Program(TK, "import tkinter"),
    "xterm": Program("", "", b""),
}


@pytest.fixture(scope="session")
def toolkits(session_directory: Path, font_lists: Path) -> Path:
    """A directory with the scripts, in which toolkits may keep what they cache."""
    directory = session_directory / "toolkits"
    directory.mkdir(mode=0o700)
    copy_font_lists(font_lists, directory)
    for name, program in PROGRAMS.items():
        (directory / f"{name}.py").write_text(program.source)
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


def title(name: str) -> str:
    return f"toolkit: {name}"


@functools.cache
def what_is_missing(program: Program, directory: Path) -> str:
    """Return why a toolkit can't be imported; empty where it can."""
    environment = {**quiet_environment(directory), "HOME": str(directory), "PATH": os.defpath}
    check = run([program.python, "-c", program.needs], env=environment, timeout=60)
    return "" if check.status == 0 else check.stderr.strip()[-200:] or "no reason given"


def program_argv(name: str, directory: Path) -> list[str]:
    """The argv of a toolkit's program; ends the test where the toolkit is missing."""
    if name == "xterm":
        code = "printf 'drawn by xterm\\033[41m red \\033[0m\\n'; exec cat"
        options = ["-T", title(name), "-geometry", "40x10", "+bc"]
        return [require_tool("xterm"), *options, "-e", "sh", "-c", code]
    program = PROGRAMS[name]
    lack = what_is_missing(program, directory)
    if lack:
        skip_or_fail(f"{program.python} has no {name}: {lack}")
    return [program.python, str(directory / f"{name}.py"), name]


@pytest.fixture
def screen(xvfb: Xvfb) -> Iterator[Screen]:
    with Screen.of(xvfb) as opened:
        yield opened


def look_and_close(screen: Screen, name: str, wanted: Picture) -> Picture:
    window = screen.find_window(title(name), timeout=30)
    picture = screen.settled_picture(window, colours=3, wanted=wanted)
    screen.close_window(window)
    screen.wait_until_gone(window)
    return picture


@pytest.fixture(scope="session")
def authorities(xvfb: Xvfb, toolkits: Path) -> dict[str, str]:
    """Xauthority files for local clients: the server's own, and one that it does not trust."""
    untrusted = xvfb.write_untrusted_authority(toolkits / "untrusted")
    return {"trusted": xvfb.authority, "untrusted": untrusted}


Expected = Callable[[str], Pictures]


@pytest.fixture(scope="session")
def expected(xvfb: Xvfb, toolkits: Path, authorities: dict[str, str]) -> Expected:
    """How the programs look to clients of the same trust, without any forwarding."""
    seen: dict[str, Pictures] = {}

    def look(trust: str) -> Pictures:
        if trust not in seen:
            environment = {
                **quiet_environment(toolkits),
                "DISPLAY": xvfb.display,
                "XAUTHORITY": authorities[trust],
                "HOME": str(toolkits),
                "PATH": os.environ.get("PATH", os.defpath),
            }
            argv = ["sh", "-c", side_by_side(toolkits)]
            with started(argv, environment, toolkits) as session, Screen.of(xvfb) as screen:
                seen[trust] = look_and_close_all(screen)
                session.wait()
        return seen[trust]

    return look


def side_by_side(toolkits: Path) -> str:
    """Return a command that runs all programs at once."""
    commands = [
        shlex.join(["env", f"MPLBACKEND={program.backend}", *program_argv(name, toolkits)])
        for name, program in PROGRAMS.items()
    ]
    return " & ".join(commands) + " & wait"


def look_and_close_all(screen: Screen, wanted: Mapping[str, Picture] = NOTHING) -> Pictures:
    """Return how the programs look that run side by side, and end them.

    What is ``wanted`` to be seen is waited for.
    """
    windows = {name: screen.find_window(title(name), timeout=60) for name in PROGRAMS}
    column = row = height = 0
    for window in windows.values():  # what is hidden by another has no picture
        shape = window.get_geometry()
        if column + shape.width > screen.width:
            column, row, height = 0, row + height, 0
        assert row + shape.height <= screen.height
        screen.move(window, column, row)
        column, height = column + shape.width, max(height, shape.height)
    pictures = {
        name: screen.settled_picture(window, colours=3, wanted=wanted.get(name))
        for name, window in windows.items()
    }
    for window in windows.values():
        screen.close_window(window)
        screen.wait_until_gone(window)
    return pictures


@pytest.mark.parametrize("name", PROGRAMS)
def test_window_of_the_native_way(
    name: str,
    toolkits: Path,
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    xvfb: Xvfb,
    screen: Screen,
    expected: Expected,
) -> None:
    picture_here = expected("trusted")[name]
    server = make_sshd(environment=quiet_environment(toolkits))
    client_home.add(server)
    backend = ["--backend", PROGRAMS[name].backend] if PROGRAMS[name].backend else []
    command = shlex.join(program_argv(name, toolkits))
    argv = [*client_home.arguments, "-Y", *backend, "--x11", "native", "server", command]
    with started_xssh(argv, client_home.environment(xvfb), client_home.path) as session:
        picture = look_and_close(screen, name, picture_here)
        done = session.wait()
    require_same(name, picture, picture_here, client_home)
    assert (done.status, done.stdout) == (0, PROGRAMS[name].says)


def require_same(name: str, picture: Picture, wanted: Picture, client_home: ClientHome) -> None:
    if picture != wanted:
        seen = client_home.path / f"seen-{name}.png"
        picture.save_png(seen)
        differing = picture.count_differences(wanted)
        pytest.fail(f"{name}: {differing} pixels differ from the local one: {seen}", pytrace=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("trust", "trip"),
    [("trusted", 0.0), ("untrusted", 0.05), ("trusted", 0.15)],
    ids=lambda value: value if isinstance(value, str) else f"{value * 1000:.0f}ms",
)
def test_all_at_once_from_afar(
    trust: str,
    trip: float,
    toolkits: Path,
    make_host: Callable[..., AgentHost],
    xvfb: Xvfb,
    screen: Screen,
    expected: Expected,
) -> None:
    """All programs side by side by one agent, so that each draws while others do."""
    host = make_host(environment=quiet_environment(toolkits))
    pictures_here = expected(trust)
    with (
        host.distance(trip / 2) as options,
        host.start(side_by_side(toolkits), *options, *TRUST[trust]) as session,
    ):
        pictures = look_and_close_all(screen, pictures_here)
        done = host.wait(session)
    for name, picture in pictures.items():
        require_same(name, picture, pictures_here[name], host.home)
    done.require_flawless()
    assert done.status == 0
    said = sorted(program.says for program in PROGRAMS.values() if program.says)
    assert sorted(done.stdout.splitlines(keepends=True)) == said
