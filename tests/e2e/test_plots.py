"""Plots of a remote matplotlib on the local screen: found, looked at, typed at, closed.

Each picture is compared pixel by pixel with what the same script shows when it runs locally.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agenthost import tell
from tests.support.clients import ClientHome
from tests.support.processes import run, run_xssh, xssh_command
from tests.support.sessions import started, started_xssh
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal
from tests.support.tools import require_tool
from tests.support.windows import Picture, Screen
from tests.support.xvfb import Xvfb

PLOT = """\
import sys
import matplotlib
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6.4, 4.0))
figure.canvas.manager.set_window_title("A plot of " + sys.argv[1])
axes.plot([0, 1, 2, 3, 4], [0, 3, 1, 4, 2], marker="o", color="#d1495b", linewidth=3)
axes.fill_between([0, 1, 2, 3, 4], [0, 3, 1, 4, 2], color="#00798c", alpha=0.4)
axes.set_title("what the remote host drew")
figure.canvas.mpl_connect("key_press_event", lambda event: print("key", event.key, flush=True))
print("backend", matplotlib.get_backend().lower(), flush=True)
plt.show()
print("after show", flush=True)
"""

PYTHON = shlex.quote(sys.executable)

TRUST = {
    "default": [],
    "trusted": ["-Y"],
    "untrusted": ["-X", "-o", "ForwardX11Trusted=no"],
}


@pytest.fixture
def server(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, matplotlib_cache: Path
) -> SshServer:
    """A server with a plot to run in its HOME."""
    made = make_sshd(environment={"MPLCONFIGDIR": str(matplotlib_cache)})
    client_home.add(made)
    (made.home / "plot.py").write_text(PLOT)
    # sshd's xauth says that it makes the file, where there is none.
    (made.home / ".Xauthority").touch(mode=0o600)
    return made


@pytest.fixture
def screen(xvfb: Xvfb) -> Iterator[Screen]:
    with Screen.of(xvfb) as opened:
        yield opened


def look_and_close(screen: Screen, title: str) -> Picture:
    window = screen.find_window(title)
    picture = screen.settled_picture(window, colours=20)
    screen.close_window(window)
    screen.wait_until_gone(window)
    return picture


@pytest.fixture(scope="session")
def expected(xvfb: Xvfb, matplotlib_cache: Path) -> Picture:
    """How the plot looks without any forwarding: the same script, straight on the X server."""
    script = matplotlib_cache / "local-plot.py"
    script.write_text(PLOT)
    environment = {
        **xvfb.environment(),
        "HOME": str(matplotlib_cache),
        "PATH": os.environ["PATH"],
        "MPLBACKEND": "TkAgg",
        "MPLCONFIGDIR": str(matplotlib_cache),
    }
    argv = [sys.executable, str(script), "here"]
    with started(argv, environment, matplotlib_cache) as session, Screen.of(xvfb) as screen:
        picture = look_and_close(screen, "A plot of here")
        assert session.wait().status == 0
    return picture


def assert_same(picture: Picture, expected: Picture, client_home: ClientHome) -> None:
    if picture == expected:
        return
    seen, wanted = client_home.path / "seen.png", client_home.path / "expected.png"
    picture.save_png(seen)
    expected.save_png(wanted)
    differing = picture.count_differences(expected)
    pytest.fail(f"{differing} pixels differ: see {seen} and {wanted}", pytrace=False)


@pytest.mark.parametrize(
    ("way", "trust"), [*(("agent", trust) for trust in TRUST), ("native", "untrusted")]
)
def test_plot_of_a_command(
    way: str,
    trust: str,
    server: SshServer,
    client_home: ClientHome,
    xvfb: Xvfb,
    screen: Screen,
    expected: Picture,
) -> None:
    options = [*TRUST[trust], "-v", "--x11", way]
    argv = [*client_home.arguments, *options, "server", PYTHON, "plot.py", "there"]
    with started_xssh(argv, client_home.environment(xvfb), client_home.path) as session:
        picture = look_and_close(screen, "A plot of there")
        done = tell(*session.wait())
    assert (done.status, done.stdout) == (0, b"backend tkagg\nafter show\n")
    assert done.stderr == ""
    if way == "agent":
        done.require_flawless()
    assert_same(picture, expected, client_home)


@pytest.mark.parametrize("trust", ["default", "untrusted"])
def test_plot_of_a_local_script(
    trust: str,
    server: SshServer,
    client_home: ClientHome,
    xvfb: Xvfb,
    screen: Screen,
    expected: Picture,
) -> None:
    (server.home / "plot.py").unlink()
    script = client_home.path / "plot.py"
    script.write_text(PLOT)
    argv = [*client_home.arguments, *TRUST[trust], "--python", PYTHON, "--script", str(script)]
    environment = client_home.environment(xvfb)
    with started_xssh([*argv, "server", "sent"], environment, client_home.path) as session:
        picture = look_and_close(screen, "A plot of sent")
        done = session.wait()
    assert done == (0, b"backend tkagg\nafter show\n", "")
    assert_same(picture, expected, client_home)


def test_plot_from_an_interactive_shell(
    server: SshServer,
    client_home: ClientHome,
    xvfb: Xvfb,
    screen: Screen,
    expected: Picture,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    argv = [*xssh_command(), *client_home.arguments, "server"]
    terminal = spawn_in_pty(argv, env=client_home.environment(xvfb))
    terminal.write("echo $MPLBACKEND on $DISPLAY\n")
    terminal.read_until(r"TkAgg on localhost:\d+\.0\r\n")
    terminal.write(f"{PYTHON} plot.py shell; echo status=$?\n")
    picture = look_and_close(screen, "A plot of shell")
    terminal.read_until(r"after show\r\n")
    terminal.read_until(r"status=0\r\n")
    terminal.write("exit 7\n")
    assert terminal.wait() == 7
    assert terminal.is_restored
    assert_same(picture, expected, client_home)


def test_keys_reach_the_plot(
    server: SshServer, client_home: ClientHome, xvfb: Xvfb, screen: Screen
) -> None:
    xdotool = require_tool("xdotool")
    environment = client_home.environment(xvfb)
    argv = [*client_home.arguments, "-tt", "server", PYTHON, "plot.py", "keys"]
    with started_xssh(argv, environment, client_home.path) as session:
        window = screen.find_window("A plot of keys")
        screen.settled_picture(window, colours=20)
        # Without a window manager the window under the pointer has the keyboard.
        run([xdotool, "mousemove", "300", "200", "key", "b"], env=environment)
        session.wait_for_output("key b")
        run([xdotool, "key", "q"], env=environment)
        done = session.wait()
    assert done.status == 0
    assert done.stdout.split() == b"backend tkagg key b key q after show".split()


def test_plots_of_two_sessions_side_by_side(
    server: SshServer, client_home: ClientHome, xvfb: Xvfb, screen: Screen
) -> None:
    argv = [*client_home.arguments, "server", PYTHON, "plot.py"]
    environment = client_home.environment(xvfb)
    with (
        started_xssh([*argv, "one"], environment, client_home.path) as one,
        started_xssh([*argv, "two"], environment, client_home.path) as two,
    ):
        first, second = screen.find_window("A plot of one"), screen.find_window("A plot of two")
        screen.close_window(first)
        assert one.wait().status == 0
        assert two.runs
        assert screen.exists(second)
        screen.close_window(second)
        assert two.wait().status == 0


def test_a_signal_ends_the_plot_too(
    server: SshServer, client_home: ClientHome, xvfb: Xvfb, screen: Screen
) -> None:
    argv = [*client_home.arguments, "server", PYTHON, "plot.py", "gone"]
    with started_xssh(argv, client_home.environment(xvfb), client_home.path) as session:
        window = screen.find_window("A plot of gone")
        session.signal(signal.SIGTERM)
        assert session.wait(5).status == 255
        screen.wait_until_gone(window)
    server.wait_until_idle()


def test_no_display_means_no_forced_backend(server: SshServer, client_home: ClientHome) -> None:
    argv = [*client_home.arguments, "-Y", "server", PYTHON, "plot.py", "nobody"]
    done = run_xssh(argv, env=client_home.environment())
    assert done.status == 0
    assert done.stdout == b"backend agg\nafter show\n"
    assert "DISPLAY" in done.stderr
