"""A server with a master of ssh's in front of it, and both programs as its passengers."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration._pairs import PROGRAMS, describe_difference, plain
from tests.support.clients import ClientHome
from tests.support.processes import Completed, end_popen, run, wait_until
from tests.support.sshd import KeyRing, ServerOptions, SshServer
from tests.support.warmstart import WORKER_ACCOUNT, open_process

_PATIENCE = 15


class Harbour:
    """A folder, a server and a HOME that knows it as ``server``; ``path`` is where sockets go."""

    def __init__(self, keys: KeyRing, account: Path | None = None, **options: object) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="xm-", dir="/tmp"))
        for name in ("home", "run", "tmp", "c"):
            (self.folder / name).mkdir(mode=0o700)
        self.home = ClientHome(
            self.folder / "home",
            self.folder / "run",
            self.folder / "tmp",
            account or self.folder / WORKER_ACCOUNT,
        )
        options.setdefault("shell", "/bin/bash")
        self.server = SshServer(self.folder / "sshd", keys, ServerOptions(**options))  # type: ignore[arg-type]
        self.home.add(self.server, extra="ForwardX11 no")
        self.path = str(self.folder / "c" / "m")
        self._processes: list[subprocess.Popen[bytes]] = []

    def argv(self, program: str, words: Sequence[str], path: str = "") -> list[str]:
        """Return the argv of ssh or xssh that shares the connection at ``path``."""
        return [*PROGRAMS[program], *self.home.arguments, "-S", path or self.path, *words]

    def open_master(
        self, *words: str, program: str = "ssh", path: str = "", **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start a master of ssh's, or xssh's, and wait until it listens."""
        path = path or self.path
        process: subprocess.Popen[bytes] = open_process(
            self.argv(program, ["-M", "-N", *words, "server"], path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.home.environment(None, **variables),
        )
        self._processes.append(process)
        wait_until(lambda: os.path.exists(path), what="the master")
        return process

    def start(
        self, program: str, *words: str, path: str = "", **options: int
    ) -> subprocess.Popen[bytes]:
        """Start a passenger and leave it running; its streams are pipes unless ``options`` say."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process: subprocess.Popen[bytes] = open_process(
            self.argv(program, words, path), env=self.home.environment(), **{**streams, **options}
        )
        self._processes.append(process)
        return process

    def connect(self, path: str = "") -> socket.socket:
        """Return a connection to a control socket, to say anything on; it waits to be let in."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            limit = struct.pack("@ll", _PATIENCE, 0)  # a timeout of Python's does not wait here
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            connection.connect(path or self.path)
            connection.settimeout(_PATIENCE)
        except BaseException:
            connection.close()
            raise
        return connection

    def run(
        self,
        program: str,
        *words: str,
        path: str = "",
        stdin: bytes | None = b"",
        timeout: float = 30.0,
        **variables: str,
    ) -> Completed:
        """Run one of the two through the master."""
        return plain(
            run(
                self.argv(program, words, path),
                stdin=stdin,
                env=self.home.environment(None, **variables),
                timeout=timeout,
            )
        )

    def both(
        self, *words: str, path: str = "", stdin: bytes | None = b"", **variables: str
    ) -> Completed:
        """Run both, want the same status, output and messages, and return them."""
        expected = self.run("ssh", *words, path=path, stdin=stdin, timeout=30.0, **variables)
        found = self.run("xssh", *words, path=path, stdin=stdin, timeout=30.0, **variables)
        assert found == expected, describe_difference(found, expected)
        return found

    def close(self) -> None:
        """End everything."""
        for process in reversed(self._processes):
            end_popen(process)
        self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def harbour(keys: KeyRing, account: Path | None = None, **options: object) -> Iterator[Harbour]:
    """Open a harbour for a while. ``account``: whose passwd file it uses, else one of its own.

    xssh starts sooner with the one that the worker's tests share (``warmstart``).
    """
    place = Harbour(keys, account, **options)
    try:
        yield place
    finally:
        place.close()
