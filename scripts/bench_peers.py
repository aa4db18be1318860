"""Others that carry windows: nxagent with nxproxy, as X2Go runs them, and xpra.

Both have a display of their own on the server, which stays. It is up before anything is timed, and
so is the way to it, through the same link and an ``ssh``: what is timed is a plot on that display.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.processes import end_popen, find_descendants, wait_until
from tests.support.sshd import free_port
from tests.support.tools import find_tool

_START_SECONDS = 60.0
_FIRST_DISPLAY = 310


def _free_display() -> int:
    number = _FIRST_DISPLAY
    while Path(f"/tmp/.X11-unix/X{number}").exists() or Path(f"/tmp/.X{number}-lock").exists():
        number += 1
    return number


class _Processes:
    """What was started, in order; ended the other way round, with what it started."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._stack = contextlib.ExitStack()

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                list(argv),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._stack.callback(end_popen, process)

    def start_there(
        self, argv: Sequence[str], command: str, environment: Mapping[str, str]
    ) -> None:
        """Start what outlives its connection by a client, and end it too: there is here."""
        note = self._log.with_name("pid")
        self.start([*argv, f"echo $$ > {note}; {command}"], environment)
        self._stack.callback(_end_noted, note)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        try:
            wait_until(condition, timeout=_START_SECONDS, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.log()[-600:]}") from None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        self._stack.close()


def _end_noted(note: Path) -> None:
    """End a process whose id stands in a file, and what it started."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(note.read_text())
        family = [each.pid for each in find_descendants(pid)]
        os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), timeout=5.0, what="a peer's end")
        for each in (pid, *family):
            with contextlib.suppress(OSError):
                os.kill(each, signal.SIGKILL)


@contextlib.contextmanager
def _processes() -> Iterator[tuple[_Processes, Path]]:
    with tempfile.TemporaryDirectory(prefix="xssh-peer-", dir="/tmp") as name:
        started = _Processes(Path(name) / "log")
        try:
            yield started, Path(name)
        finally:
            started.stop()


@contextlib.contextmanager
def nxagent(ssh: Sequence[str], host: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Have an nxagent there and an nxproxy here; yield the DISPLAY to be used there.

    Pictures are compressed without loss, else what is drawn would have other colours.
    """
    number, port, entrance = _free_display(), free_port(), free_port()
    with _processes() as (started, folder):
        home = folder / "nx"
        home.mkdir(mode=0o700)
        options = f"nx/nx,link=adsl,pack=16m-png-9,cache=8M,images=32M,listen={port}:{number}"
        there = (
            f"HOME={home} NX_CLIENT=/bin/true DISPLAY={shlex.quote(options)} "
            f"exec nxagent -D -geometry 1024x768 -ac -nolisten tcp -nopn -name bench :{number}"
        )
        forward = f"{entrance}:127.0.0.1:{port}"
        started.start_there([*ssh, "-x", "-L", forward, host], there, environment)
        started.wait_for(lambda: "Waiting for connection" in started.log(), "nxagent")
        # nxproxy has no cookie of the display that the windows are to come to.
        me = f"+si:localuser:{getpass.getuser()}"
        subprocess.run(["xhost", me], env=dict(environment), check=True, capture_output=True)
        here = ["nxproxy", "-S", f"nx/nx,connect=127.0.0.1,port={entrance},cache=8M:{number}"]
        started.start(here, {**environment, "HOME": str(home)})
        started.wait_for(
            lambda: "Established X server connection" in started.log(), "nxagent's display"
        )
        yield f":{number}"


@contextlib.contextmanager
def xpra(ssh: Sequence[str], host: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Have an xpra there and an xpra attached to it here; yield the DISPLAY to be used there.

    Without loss, else what is drawn would have other colours; and without the memory that both
    ends could share where the distance is only simulated.
    """
    number = _free_display()
    with _processes() as (started, folder):
        home = folder / "xpra"
        home.mkdir(mode=0o700)
        own = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "XPRA_LOG_DIR": str(home)}
        quiet = (
            "--no-daemon --mdns=no --pulseaudio=no --notifications=no --printing=no --webcam=no "
            "--html=off --dbus-launch= --dbus-proxy=no --systemd-run=no --speaker=off "
            f"--microphone=off --file-transfer=off --socket-dir={home} --start-new-commands=no"
        )
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in own.items())
        xvfb = "Xvfb +extension Composite -screen 0 2560x1600x24 -nolisten tcp -noreset -ac"
        there = f"{words} exec xpra start :{number} {quiet} --xvfb={shlex.quote(xvfb)}"
        started.start_there([*ssh, "-x", host], there, environment)
        started.wait_for(lambda: "xpra is ready" in started.log(), "xpra")
        sockets = list(home.glob(f"*-{number}"))
        assert sockets, f"xpra has no socket: {started.log()[-600:]}"
        port = free_port()
        forward = f"{port}:{sockets[0]}"
        started.start([*ssh, "-x", "-N", "-L", forward, host], environment)
        here = [
            "xpra", "attach", f"tcp://127.0.0.1:{port}/", "--encoding=png", "--opengl=no",
            "--mmap=no",
            "--tray=no", "--notifications=no", "--speaker=off", "--microphone=off", "--mdns=no",
            "--webcam=no", "--printing=no", "--file-transfer=off", "--clipboard=no",
            "--bandwidth-detection=no",
        ]  # fmt: skip
        started.start(here, {**environment, **own})
        started.wait_for(lambda: "Attached to" in started.log(), "xpra's client")
        yield f":{number}"


Peer = Callable[[Sequence[str], str, Mapping[str, str]], contextlib.AbstractContextManager[str]]

PEERS: dict[str, Peer] = {
    "nxagent": nxagent,
    "xpra": xpra,
}


def installed() -> list[str]:
    """Return the peers that are there, by name."""
    tools = {"nxagent": ("nxagent", "nxproxy", "xhost"), "xpra": ("xpra",)}
    return [name for name in PEERS if all(find_tool(tool) for tool in tools[name])]
