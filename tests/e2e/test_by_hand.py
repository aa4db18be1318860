"""What a person does with windows of the agent's: zoom, pan, resize, copy and paste, another
keyboard. Each looks and acts as the same program does without any forwarding.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agenthost import TRUST, AgentHost
from tests.support.managers import window_manager
from tests.support.processes import run, wait_until
from tests.support.sessions import Session, started
from tests.support.tools import find_tool, require_tool, skip_or_fail
from tests.support.windows import Picture, Screen
from tests.support.xvfb import Xvfb

PYTHON = shlex.quote(sys.executable)

PLOT = """\
import matplotlib
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(5.0, 4.0))
figure.canvas.manager.set_window_title("by hand")
axes.plot([0, 1, 2, 3, 4], [0, 3, 1, 4, 2], marker="o")
shown = lambda: " ".join("%.3f" % place for place in (*axes.get_xlim(), *axes.get_ylim()))
release = lambda event: print("limits", shown(), flush=True)
figure.canvas.mpl_connect("button_release_event", release)
figure.canvas.mpl_connect("resize_event", lambda event: print("size", event.width, flush=True))
window = figure.canvas.manager.window
window.update()
for name in ("Zoom", "Pan", "Home"):
    button = figure.canvas.toolbar._buttons[name]
    x, y = button.winfo_rootx() - window.winfo_rootx(), button.winfo_rooty() - window.winfo_rooty()
    place = x + button.winfo_width() // 2, y + button.winfo_height() // 2
    print("button", name, *place, flush=True)
plt.show()
"""

EDITOR = """\
import sys, tkinter
root = tkinter.Tk()
root.title(sys.argv[1])
entry = tkinter.Entry(root, width=30)
entry.pack(padx=40, pady=40)
entry.focus_force()
entry.bind("<Key>", lambda event: print("key", repr(event.char), flush=True))
entry.bind("<Enter>", lambda event: entry.focus_force())
root.bind("<F2>", lambda event: (entry.delete(0, "end"), entry.insert(0, "text of " + sys.argv[1]),
    entry.select_range(0, "end"), entry.event_generate("<<Copy>>"), print("copied", flush=True)))
root.bind("<F3>", lambda event: (entry.delete(0, "end"), entry.event_generate("<<Paste>>"),
    print("pasted", entry.get(), flush=True)))
print("ready", flush=True)
root.mainloop()
"""


class Hand:
    """Mouse and keyboard."""

    def __init__(self, xvfb: Xvfb) -> None:
        self._xdotool = require_tool("xdotool")
        self._environment = {**xvfb.environment(), "PATH": os.environ["PATH"]}

    def do(self, *words: str) -> None:
        done = run([self._xdotool, *words], env=self._environment)
        assert done.status == 0, done

    def drag(self, window: int, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Press the left button, move in two steps, let go."""
        middle = ((start[0] + end[0]) // 2, (start[1] + end[1]) // 2)
        self.move(window, start)
        self.do("mousedown", "1")
        for place in (middle, end):
            self.move(window, place)
            time.sleep(0.1)
        self.do("mouseup", "1")

    def click(self, window: int, place: tuple[int, int]) -> None:
        """Press and let go of the left button."""
        self.move(window, place)
        self.do("click", "1")

    def move(self, window: int, place: tuple[int, int]) -> None:
        self.do("mousemove", "--window", str(window), *map(str, place))


def zoom_pan_and_resize(
    session: Session, screen: Screen, hand: Hand, expected: Sequence[Picture] = ()
) -> tuple[list[Picture], str]:
    """Work with the plot and its toolbar; return what was seen, and what it printed.

    What is ``expected`` to be seen is waited for.
    """
    window = screen.find_window("by hand", timeout=30)
    pictures: list[Picture] = []

    def look() -> None:
        deadline = time.monotonic() + 10
        picture = screen.settled_picture(window, colours=20)
        while expected and picture != expected[len(pictures)] and time.monotonic() < deadline:
            picture = screen.settled_picture(window, colours=20)
        pictures.append(picture)

    def drag_with(button: str, start: tuple[int, int], end: tuple[int, int]) -> None:
        count = session.stdout.count("limits")
        hand.click(window.id, buttons[button])
        hand.drag(window.id, start, end)
        wait_until(lambda: session.stdout.count("limits") > count, timeout=20, what=button)
        hand.move(window.id, (5, 5))
        look()

    session.wait_for_output("button Home")
    buttons = read_places(session.stdout)
    hand.move(window.id, (5, 5))
    look()
    drag_with("Zoom", (150, 120), (300, 250))
    drag_with("Pan", (200, 200), (260, 170))
    hand.click(window.id, buttons["Home"])
    hand.move(window.id, (5, 5))
    look()
    count = session.stdout.count("size")
    hand.do("windowsize", str(window.id), "620", "510")
    wait_until(lambda: session.stdout.count("size") > count, what="the new size")
    look()
    screen.close_window(window)
    return pictures, session.stdout


def read_places(said: str) -> dict[str, tuple[int, int]]:
    """Return where the toolbar's buttons are in the window."""
    found = re.findall(r"button (\w+) (\d+) (\d+)\n", said)
    return {name: (int(x), int(y)) for name, x, y in found}


@pytest.mark.parametrize(
    ("manager", "trust", "trip"),
    [
        ("", "trusted", 0.15),
        ("openbox", "untrusted", 0.05),
        ("openbox", "trusted", 0.0),
    ],
)
def test_zoom_pan_and_resize(
    manager: str,
    trust: str,
    trip: float,
    host: AgentHost,
    make_xvfb: Callable[..., Xvfb],
    matplotlib_cache: Path,
) -> None:
    if manager and not find_tool(manager):
        skip_or_fail(f"{manager} is not installed")
    xvfb = make_xvfb()
    (host.server.home / "plot.py").write_text(PLOT)
    hand = Hand(xvfb)
    here = {
        **host.environment,
        **xvfb.environment(),
        "MPLBACKEND": "TkAgg",
        "MPLCONFIGDIR": str(matplotlib_cache),
    }
    script = str(host.server.home / "plot.py")
    command = f"env MPLCONFIGDIR={matplotlib_cache} {PYTHON} plot.py"
    with (
        host.distance(trip / 2) as options,
        window_manager(manager, xvfb, host.home.path),
        Screen.of(xvfb) as screen,
    ):
        with started([sys.executable, script], here, host.home.path) as session:
            expected, said = zoom_pan_and_resize(session, screen, hand)
            session.wait()
        options = [*options, *TRUST[trust]]
        with host.start(command, *options, env=xvfb.environment()) as session:
            pictures, also_said = zoom_pan_and_resize(session, screen, hand, expected)
            done = host.wait(session)
    assert done.status == 0
    done.require_flawless()
    assert limits(also_said) == limits(said)
    for number, (picture, wanted) in enumerate(zip(pictures, expected, strict=True)):
        assert picture.count_differences(wanted) == 0, number


def limits(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("limits")]


@contextmanager
def editors(host: AgentHost, xvfb: Xvfb) -> Iterator[tuple[dict[str, Session], Screen, Hand]]:
    """Two entry fields: one of the host's, one of this machine's."""
    script = host.server.home / "editor.py"
    script.write_text(EDITOR)
    environment: Mapping[str, str] = {**host.environment, **xvfb.environment()}
    local = [sys.executable, str(script), "here"]
    with (
        host.start(f"{PYTHON} editor.py there", env=xvfb.environment()) as there,
        started(local, environment, host.home.path) as here,
        Screen.of(xvfb) as screen,
    ):
        sessions = {"there": there, "here": here}
        for name, session in sessions.items():
            session.wait_for_output("ready")
            window = screen.find_window(name)
            place = {"there": ("10", "10"), "here": ("10", "300")}[name]
            hand = Hand(xvfb)
            hand.do("windowmove", str(window.id), *place)
        yield sessions, screen, hand
        for name in sessions:
            screen.close_window(screen.find_window(name))
        done = host.wait(there)
        assert done.status == 0
        done.require_flawless()


def press(screen: Screen, hand: Hand, name: str, key: str) -> None:
    """Press a key over a window."""
    window = screen.find_window(name)
    hand.move(window.id, (60, 50))
    time.sleep(0.2)
    hand.do("key", key)


def test_copy_and_paste(host: AgentHost, make_xvfb: Callable[..., Xvfb]) -> None:
    with editors(host, make_xvfb()) as (sessions, screen, hand):
        for source, target in (("there", "here"), ("here", "there")):
            press(screen, hand, source, "F2")
            sessions[source].wait_for_output("copied")
            press(screen, hand, target, "F3")
            sessions[target].wait_for_output(f"pasted text of {source}")


def test_another_keyboard_while_it_runs(host: AgentHost, make_xvfb: Callable[..., Xvfb]) -> None:
    setxkbmap = require_tool("setxkbmap")
    xvfb = make_xvfb()
    environment = {**xvfb.environment(), "PATH": os.environ["PATH"]}
    y_key = "29"
    with editors(host, xvfb) as (sessions, screen, hand):
        for layout, letter in (("us", "y"), ("de", "z"), ("us", "y")):
            assert run([setxkbmap, layout], env=environment).status == 0
            for name, session in sessions.items():
                count = session.stdout.count("key")
                press(screen, hand, name, y_key)
                wait_until(lambda: session.stdout.count("key") > count, what="the key")  # noqa: B023
                assert session.stdout.splitlines()[-1] == f"key '{letter}'", (name, layout)
