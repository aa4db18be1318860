"""An X server that lies: a real one, with something before it that says more than it did."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.support.xvfb import Xvfb

MARK = b"LIE:"
NAME_SIZE = 28


class LyingServer:
    """Listens at ``path``. A request with ``MARK`` and a name gets that lie behind what it got.

    ``greeting`` stands, while it is there, for the answer to a connection's setup.
    """

    def __init__(self, server: Xvfb, path: Path, lies: Mapping[str, bytes]) -> None:
        self.path = str(path)
        self.greeting: bytes | None = None
        self._server = server
        self._lies = lies
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._run(self._accept)

    def _run(self, work: object, *words: object) -> None:
        self._threads.append(threading.Thread(target=work, args=words))  # type: ignore[arg-type]
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                greeting = self.greeting
                if greeting is not None:
                    with contextlib.suppress(OSError):
                        client.recv(4096)
                        client.sendall(greeting)
                    continue
                server = socket.socket(socket.AF_UNIX)
                self._ends.append(server)
                server.connect(self._server.socket_path)
                self._run(self._hear, client, server)
                self._run(self._tell, server, client)

    def _hear(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 18):
                server.sendall(data)
                at = data.find(MARK)
                if at >= 0:
                    name = data[at + len(MARK) :][:NAME_SIZE].rstrip(b"\0").decode("ascii")
                    client.sendall(self._lies[name])
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _tell(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 18):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        for each in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in (self._listener, *self._ends):
            each.close()
