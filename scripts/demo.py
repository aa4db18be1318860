"""The demo's story, run by scripts/demo: a server, a display, a plot, its picture, and no trace.

What is shown is done for real: a real sshd with keys and a HOME of its own, a real X server, and
`xssh` as a user calls it. The server and the display are those that the tests use.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.authorities import encode_authority  # noqa: E402
from tests.support.clients import ClientHome  # noqa: E402
from tests.support.processes import adopt_orphans, end_popen, find_descendants  # noqa: E402
from tests.support.sshd import KeyRing, ServerOptions, SshServer  # noqa: E402
from tests.support.tools import MissingTool, find_nss_wrapper, find_tool  # noqa: E402
from tests.support.windows import Screen  # noqa: E402
from tests.support.xvfb import Xvfb  # noqa: E402
from xsshpy.errors import XsshError  # noqa: E402
from xsshpy.x11.authority import (  # noqa: E402
    Family,
    find_authority_files,
    find_cookie,
)
from xsshpy.x11.display import parse_display  # noqa: E402

DEMO = ROOT / ".demo"
SESSION = DEMO / "session"
PICTURE = ROOT / "demo.png"
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
"""Where `xssh` is found here, and `python` with matplotlib in the session."""
WINDOW_TITLE = "Damped waves, drawn by .*"
WINDOW_SECONDS = 90.0
"""How long the window may take; matplotlib's first start builds its font list."""

FAILURES = (AssertionError, MissingTool, OSError, RuntimeError, subprocess.SubprocessError)
"""What the server, the display or the window may fail with; each says why."""
DISPLAY_SECONDS = 20
"""How long the user's display may take to answer; XQuartz starts on first use, in up to 12 s."""
LOOK_SECONDS = 2.0
"""How long the window stays on a display that someone looks at."""


@dataclass(frozen=True)
class Display:
    """The X display that the window opens on. ``server`` is set where it is one of our own."""

    name: str
    authority: str
    server: Xvfb | None


class Story:
    """What happened, and how long each part took."""

    def __init__(self, spent: list[tuple[str, float]]) -> None:
        self._spent = spent

    @contextmanager
    def step(self, name: str, aloud: str) -> Iterator[None]:
        """Tell what comes, and take its time."""
        print(aloud, flush=True)
        started = time.monotonic()
        yield
        self._spent.append((name, time.monotonic() - started))

    def table(self) -> str:
        """Return a line for each step."""
        return "\n".join(f"  {seconds:7.2f} s  {name}" for name, seconds in self._spent)


def open_users_display() -> Display | None:
    """Return the display that DISPLAY names, if it answers.

    Its cookie goes to a private Xauthority, in the one form that every X library reads.
    """
    name = os.environ.get("DISPLAY", "")
    if not name:
        return None
    authority = SESSION / "Xauthority"
    host = socket.gethostname()
    try:
        display = parse_display(name)
        found = find_cookie(display, find_authority_files(os.environ, os.getuid()), host)
        entries = []
        if found.entry is not None:
            number = str(display.number).encode()
            entry = replace(found.entry, family=Family.LOCAL, address=host.encode(), number=number)
            entries.append(entry)
        authority.touch(mode=0o600)
        authority.write_bytes(encode_authority(entries))
        # In a process of its own: a server that hangs would hold up whoever asks.
        code = "import sys, Xlib.display; Xlib.display.Display(sys.argv[1])"
        environment = {**os.environ, "XAUTHORITY": str(authority)}
        answer = subprocess.run(
            [sys.executable, "-c", code, name],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DISPLAY_SECONDS,
        )
        if answer.returncode != 0:
            raise RuntimeError(answer.stderr.strip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        print(f"  DISPLAY {name} is of no use here: no answer within {DISPLAY_SECONDS} s")
        return None
    except (XsshError, RuntimeError, OSError) as error:
        print(f"  DISPLAY {name} is of no use here: {error}")
        return None
    return Display(name, str(authority), None)


def open_display() -> Display:
    """Return the user's display, or an invisible one."""
    users = open_users_display()
    if users is not None:
        print(f"  the window opens on your display, {users.name}")
        return users
    if find_tool("Xvfb") is None:
        raise MissingTool("there is no display, and no Xvfb to stand in for one (Debian: xvfb)")
    server = Xvfb(SESSION / "xvfb")
    print(f"  no display here: the window opens on an invisible one, Xvfb {server.display}")
    return Display(server.display, server.authority, server)


def start_server() -> SshServer:
    """Start the throwaway sshd, with plot.py in the login's HOME."""
    options = ServerOptions(
        shell=find_tool("bash") or "/bin/sh",
        path=PATH,
        isolation="passwd" if find_nss_wrapper() else "environment",
    )
    server = SshServer(SESSION / "server", KeyRing.generate(SESSION / "keys"), options)
    shutil.copy(ROOT / "examples" / "plot.py", server.home)
    # The first xauth of a new account says that it makes this file; the story is short without.
    (server.home / ".Xauthority").touch(mode=0o600)
    print(f"  it listens on {server.host} port {server.port}; {server.user}'s HOME: {server.home}")
    return server


def make_client(server: SshServer, display: Display) -> tuple[list[str], dict[str, str]]:
    """Return the command that a user would type, and its environment."""
    client = ClientHome(SESSION / "client", SESSION / "run", SESSION / "tmp")
    client.runtime.mkdir(mode=0o700)
    client.temporary.mkdir(mode=0o700)
    client.add(server, alias=server.host)
    environment = client.environment(
        DISPLAY=display.name,
        XAUTHORITY=display.authority,
        PATH=PATH,
    )
    # Without a passwd of its own a session starts in the real home; the plot lies in the other.
    in_home = server.options.isolation == "passwd"
    plot = "plot.py" if in_home else shlex.quote(str(server.home / "plot.py"))
    command = ["xssh", *client.arguments, f"{server.user}@{server.host}", "python", plot]
    return command, environment


def show_plot(
    story: Story, command: list[str], environment: dict[str, str], display: Display
) -> int:
    """Run the command until its window was seen, pictured and closed; return its exit status."""
    with Screen(display.name, display.authority) as screen:
        with story.step("xssh: from the command to the window", f"$ {shlex.join(command)}"):
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
            try:
                window = wait_for_window(screen, process)
            except BaseException:
                end_popen(process)
                raise
        try:
            with story.step("picture of the window", "  the window is open; taking its picture"):
                picture = screen.settled_picture(window)
                picture.save_png(PICTURE)
            if display.server is None:
                time.sleep(LOOK_SECONDS)
            with story.step("closing the window", "  closing the window, as its close button does"):
                screen.close_window(window)
                return process.wait(30)
        finally:
            end_popen(process)


def wait_for_window(screen: Screen, process: subprocess.Popen[bytes]) -> Any:
    """Return the plot's window; RuntimeError when the command ends or takes too long."""
    deadline = time.monotonic() + WINDOW_SECONDS
    while time.monotonic() < deadline:
        with suppress(AssertionError):
            return screen.find_window(WINDOW_TITLE, timeout=0.5)
        if process.poll() is not None:
            raise RuntimeError(f"xssh ended with status {process.returncode} and showed no window")
    raise RuntimeError(f"no window came within {WINDOW_SECONDS:g} s")


def tell(story: Story) -> int:
    """Run the whole story; return the exit status of what the user typed."""
    with ExitStack() as ends:
        with story.step("X display", "opening a display"):
            display = open_display()
            if display.server is not None:
                ends.callback(display.server.stop)
        with story.step("throwaway sshd", "starting a throwaway SSH server"):
            server = start_server()
            ends.callback(server.stop)
        command, environment = make_client(server, display)
        try:
            status = show_plot(story, command, environment, display)
            with story.step("end of the session", "  waiting for the server's side to end"):
                server.wait_until_idle()
            return status
        except BaseException:
            print("the server's last words:\n" + "\n".join(server.log().splitlines()[-15:]))
            raise


def parse_arguments() -> list[tuple[str, float]]:
    """Return what scripts/demo spent before."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Show what xssh does.")
    parser.add_argument("--spent", nargs=2, action="append", default=[], help=argparse.SUPPRESS)
    return [(name, float(seconds)) for name, seconds in parser.parse_args().spent]


def main() -> int:
    """Run the demo; 0 when a window opened, was pictured, and its command ended well."""
    adopt_orphans()
    story = Story(parse_arguments())
    shutil.rmtree(SESSION, ignore_errors=True)
    SESSION.mkdir(parents=True, mode=0o700)
    try:
        status = tell(story)
    except (
        AssertionError,
        MissingTool,
        OSError,
        RuntimeError,
        subprocess.SubprocessError,
    ) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(SESSION, ignore_errors=True)
    left = find_descendants(os.getpid())
    print(f"\nA plot was computed in an SSH session and its window opened here: {PICTURE}")
    print(story.table())
    for process in left:
        print(f"demo: process {process.pid} is left: {process.command}", file=sys.stderr)
    if status != 0:
        print(f"demo: xssh ended with status {status}", file=sys.stderr)
    elif not left:
        print("xssh ended with status 0. No process is left; .demo/ holds the Python environment.")
    return 1 if status or left else 0


if __name__ == "__main__":
    sys.exit(main())
