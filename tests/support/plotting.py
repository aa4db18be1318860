"""A plot on the other host, told what to do by its stdin, and looked at on the local screen.

What an application believes to be drawn says little where somebody answers it early. So times end
when the local X server shows what was drawn: a small square in the plot's corner has a colour, a
``Watcher`` looks for it. Both hosts are the same machine in tests, and share a clock.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from Xlib import XK, X
from Xlib.error import XError
from Xlib.ext import xtest

from tests.support.processes import end_popen
from tests.support.warmstart import open_process
from tests.support.windows import Screen
from tests.support.xvfb import Xvfb

COLOURS = tuple(0xC02070 + 0x000900 * step + 3 * step for step in range(10))
"""Colours of the mark, one for each thing that is waited for."""

PROGRAM = f"""\
import os, select, sys, time
import matplotlib
import numpy as np
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

COLOURS = {tuple(f"#{colour:06x}" for colour in COLOURS)}

def say(*words):
    print(*words, flush=True)

def told():
    line = b""
    while not line.endswith(b"\\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)
        line += byte
    return line.decode().split()

def draw(step):
    line.set_ydata(np.sin(x + step / 10))
    figure.canvas.draw()
    figure.canvas.flush_events()

def mark(index):
    square.set_color(COLOURS[index])

if sys.argv[1] == "wait":
    say("ready")
    told()
x = np.linspace(0, 10, 500)
say("begun", time.time())
figure, axes = plt.subplots(figsize=(6.4, 4.8), dpi=100)
line, = axes.plot(x, np.sin(x))
square = Rectangle((0, 0), 0.06, 1, transform=figure.transFigure, clip_on=False)
if sys.argv[2] == "square":
    square = Rectangle((0, 0.93), 0.06, 0.07, transform=figure.transFigure)
figure.add_artist(square)
mark(0)
keys = 1
def pressed(event):
    global keys
    mark(keys)
    keys += 1
figure.canvas.mpl_connect("key_press_event", pressed)
plt.show(block=False)
figure.canvas.flush_events()
say("shown", time.time())
while True:
    word, number = told()
    if word == "exit":
        os._exit(0)
    elif word == "events":
        end = time.time() + float(number)
        while time.time() < end:
            figure.canvas.flush_events()
            time.sleep(0.01)
        say("done", time.time())
    elif word == "redraw":
        say("begun", time.time())
        for step in range(1, int(number)):
            draw(step)
        mark(9)
        draw(int(number))
        say("done", time.time())
    elif word == "animate":
        mark(0)
        say("begun", time.time())
        step = 0
        while not select.select([0], [], [], 0)[0]:
            draw(step)
            step += 1
        told()
        say("done", step)
"""


class Watcher:
    """Looks for marks on an X server; ends with ``close()``."""

    INTERVAL = 0.004

    def __init__(self, xvfb: Xvfb) -> None:
        self._screen = Screen.of(xvfb)
        self._display: Any = self._screen._display
        self._found: Any = None

    def close(self) -> None:
        """End the connection."""
        self._screen.close()

    def wait_for_mark(
        self, index: int, timeout: float = 120.0, plot: DrivenPlot | None = None
    ) -> float:
        """Return when the mark had its colour, in seconds of the epoch.

        AssertionError where that takes too long, or the plot ended before.
        """
        deadline = time.monotonic() + timeout
        while not self._shows(COLOURS[index]):
            if plot is not None:
                assert plot.process.poll() is None, f"the plot ended: {plot.messages[-500:]}"
            assert time.monotonic() < deadline, f"mark {index} was not drawn within {timeout:g} s"
            time.sleep(self.INTERVAL)
        return time.time()

    def wait_until_gone(self, timeout: float = 20.0) -> None:
        """Wait until no window has a mark."""
        self._found = None
        deadline = time.monotonic() + timeout
        while any(self._shows(colour) for colour in COLOURS):
            assert time.monotonic() < deadline, "the window stays"
            time.sleep(0.02)

    def press_key(self) -> float:
        """Press and release a key with the pointer in the window found; return when."""
        place = self._found.get_geometry()
        xtest.fake_input(self._display, X.MotionNotify, x=place.x + 200, y=place.y + 200)
        self._display.sync()
        code = self._display.keysym_to_keycode(XK.string_to_keysym("x"))
        pressed = time.time()
        xtest.fake_input(self._display, X.KeyPress, code)
        xtest.fake_input(self._display, X.KeyRelease, code)
        self._display.sync()
        return pressed

    def enter(self) -> None:
        """Move the pointer into the window found."""
        place = self._found.get_geometry()
        xtest.fake_input(self._display, X.MotionNotify, x=place.x + 210, y=place.y + 210)
        self._display.sync()

    def _shows(self, colour: int) -> bool:
        windows = (
            [self._found] if self._found is not None else self._screen._root.query_tree().children
        )
        for window in windows:
            if self._has_colour(window, colour):
                self._found = window
                return True
        return False

    def _has_colour(self, window: Any, colour: int) -> bool:
        """Look along a line from top to bottom: toolbars have their place above or below."""
        try:
            if window.get_attributes().map_state != X.IsViewable:
                return False
            place = window.get_geometry()
            if place.width < 100 or place.height < 40:
                return False
            column = window.get_image(12, 0, 1, place.height, X.ZPixmap, 0xFFFFFFFF)
        except XError:  # it went away, or lies beyond the screen's edge
            self._found = None
            return False
        wanted = colour.to_bytes(3, "little")
        data: bytes = column.data
        return any(data[at : at + 3] == wanted for at in range(0, len(data), 4))


class DrivenPlot:
    """The program, started by any client; use it in a ``with`` statement.

    ``argv`` runs a command on the other host that executes ``PROGRAM``.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], directory: Path) -> None:
        self._messages = tempfile.NamedTemporaryFile(dir=directory, suffix=".err")  # noqa: SIM115
        self.started = time.time()
        self.process: subprocess.Popen[bytes] = open_process(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env=dict(env),
            cwd=directory,
        )

    def __enter__(self) -> DrivenPlot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_popen(self.process)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self._messages.close()

    @property
    def messages(self) -> str:
        """What the client said on stderr so far."""
        return Path(self._messages.name).read_text(errors="replace")

    def hear(self, word: str) -> float:
        """Wait for a line that begins with a word; return the number behind it, or 0."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said, *rest = line.decode().split()
            if said == word:
                return float(rest[0]) if rest else 0.0
        raise AssertionError(f"the plot ended before {word!r}: {self.messages[-2000:]}")

    def tell(self, word: str, number: float = 0) -> None:
        """Tell the program what to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word} {number:g}\n".encode())
        self.process.stdin.flush()

    def leave(self, timeout: float = 60.0) -> str:
        """Let the program end at once; return what the client had said on stderr by then."""
        self.tell("exit")
        self.process.wait(timeout)
        return self.messages


def parse_statistics(messages: str) -> list[dict[str, int]]:
    """Return what ``--stats`` says of each client, by the titles of its columns (bytes: about)."""
    lines = messages[messages.index("xssh: X11 by the agent") :].splitlines()[1:]
    titles = [title.strip() for title in lines[0].split("  ") if title.strip()]
    rows = []
    for text in lines[1:]:
        cells = [cell.strip() for cell in text.split("  ") if cell.strip()]
        if len(cells) != len(titles):
            break
        rows.append({title: _number(cell) for title, cell in zip(titles, cells, strict=True)})
    return rows


def _number(cell: str) -> int:
    value, _, unit = cell.partition(" ")
    return round(float(value) * {"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit])


def plot_environment(directory: Path) -> dict[str, str]:
    """Return what a toolkit needs on the other host in order not to look for a desktop there."""
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
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
    }
