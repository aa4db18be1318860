"""A master of a shared connection, opened by ssh or by xssh, and what its passengers do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.clients import ClientHome
from tests.support.processes import (
    Completed,
    end_popen,
    is_alive,
    run,
    send_signal,
    wait_until,
    xssh_command,
)
from tests.support.warmstart import open_process

PROGRAMS = {"ssh": ["ssh"], "xssh": xssh_command()}


class Master:
    """A process that holds a connection to ``server`` and lets others in, until :meth:`stop`.

    ``program`` is ssh or xssh; ``words`` are more of its arguments. It has no session of its own
    unless ``command`` is one.
    """

    def __init__(
        self,
        program: str,
        home: ClientHome,
        directory: Path,
        *words: str,
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        mode: str = "yes",
    ) -> None:
        self.path = directory / f"control-{program}"
        self.home = home
        self.environment = dict(env or home.environment())
        self._log = directory / f"master-{program}.log"
        argv = [
            *PROGRAMS[program],
            *home.arguments,
            *("-E", str(self._log)),
            *("-o", f"ControlMaster={mode}", "-o", f"ControlPath={self.path}"),
            *([] if command else ["-N"]),
            *words,
            "server",
            *command,
        ]
        self.process: subprocess.Popen[bytes] = open_process(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        wait_until(
            lambda: self.path.exists() or self.process.poll() is not None, what="the control socket"
        )
        assert self.path.exists(), self.log()

    def log(self) -> str:
        """Return what the master logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def arguments(self, *words: str) -> list[str]:
        """Return the arguments of a passenger; ``words`` come before the server's name."""
        return [*self.home.arguments, "-o", f"ControlPath={self.path}", *words, "server"]

    def ride(
        self,
        *command: str,
        options: Sequence[str] = (),
        passenger: str = "ssh",
        stdin: bytes | int | None = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Completed:
        """Run a passenger to its end; a connection of its own would fail."""
        argv = [*PROGRAMS[passenger], *self.arguments("-oProxyCommand=false", *options), *command]
        done = run(argv, stdin=stdin, env=env or self.environment, timeout=timeout)
        return done._replace(stderr=done.stderr.replace("\r\n", "\n"))

    def control(self, command: str, *options: str, passenger: str = "ssh") -> Completed:
        """Send the master a command, as ``-O`` does."""
        return self.ride(options=("-O", command, *options), passenger=passenger)

    def start(self, *command: str, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a passenger of ssh's and leave it running."""
        return subprocess.Popen(
            ["ssh", *self.arguments(*options), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )

    def connect(self) -> socket.socket:
        """Return a connection to the control socket, to say anything on."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.path))
        connection.settimeout(15)
        return connection

    def is_alive(self) -> bool:
        """Say whether the master answers."""
        return self.control("check").status == 0

    def wait(self, timeout: float = 15.0) -> int:
        """Wait for the master's end and return its status."""
        return self.process.wait(timeout)

    def stop(self) -> None:
        """End the master, whatever it is doing."""
        end_popen(self.process)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def find_automatic_masters(runtime: Path) -> dict[Path, int]:
    """Return the masters that runs made by themselves, below $XDG_RUNTIME_DIR: socket and pid."""
    folder, found = runtime / "xssh", {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            layout = struct.Struct("@iII")
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size)
            found[path] = layout.unpack(raw)[0]
    return found


def end_automatic_masters(runtime: Path) -> None:
    """End all of them, and take their folder away, so that a test leaves nothing."""
    masters = find_automatic_masters(runtime)
    for pid in masters.values():
        send_signal(pid, signal.SIGTERM)
    wait_until(lambda: not any(map(is_alive, masters.values())), what="the masters' end")
    for path in runtime.glob("xssh/*"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (runtime / "xssh").rmdir()


def open_descriptors(pid: int) -> int:
    """Return how many descriptors a process has open (Linux)."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def has_program(name: str) -> bool:
    """Say whether a program is installed."""
    return shutil.which(name) is not None
