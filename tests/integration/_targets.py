"""What forwarded connections lead to: small servers, and callers that wait for a listener."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import wait_until

PATIENCE = 15.0
Place = int | Path


def open_listener(place: Place) -> socket.socket:
    """Listen on loopback's port (0: any), or on a path."""
    family = socket.AF_INET if isinstance(place, int) else socket.AF_UNIX
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", place) if isinstance(place, int) else str(place))
    listener.listen(256)
    return listener


def dial(place: Place) -> socket.socket:
    """Connect, waiting until someone listens."""
    found: list[socket.socket] = []

    def try_once() -> bool:
        family = socket.AF_INET if isinstance(place, int) else socket.AF_UNIX
        caller = socket.socket(family, socket.SOCK_STREAM)
        caller.settimeout(PATIENCE)
        try:
            caller.connect(("127.0.0.1", place) if isinstance(place, int) else str(place))
        except OSError:
            caller.close()
            return False
        found.append(caller)
        return True

    wait_until(try_once, timeout=PATIENCE, what=f"someone to listen at {place}")
    return found[0]


def read_all(connection: socket.socket) -> bytes:
    """Read until the end."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Target:
    """A server with a thread for each connection; ``seen`` is what the handlers returned."""

    def __init__(self, handler: Callable[[socket.socket], object], place: Place = 0) -> None:
        self.handler = handler
        self.seen: list[object] = []
        self._listener = open_listener(place)
        self.place: Place = self._listener.getsockname()[1] if isinstance(place, int) else place
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def address(self) -> str:
        """How a forward names it."""
        return f"127.0.0.1:{self.place}" if isinstance(self.place, int) else str(self.place)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            self._connections.append(connection)
            self._start(self._handle, connection)

    def _handle(self, connection: socket.socket) -> None:
        try:
            result = self.handler(connection)
        except OSError as error:
            result = error
        finally:
            connection.close()
        self.seen.append(result)

    def wait_for(self, count: int = 1) -> list[object]:
        """Wait until so many connections have ended; return what was seen."""
        wait_until(lambda: len(self.seen) >= count, timeout=PATIENCE, what=f"{count} ends")
        return self.seen

    def stop(self) -> None:
        """End everything."""
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(PATIENCE)


@contextmanager
def target(handler: Callable[[socket.socket], object], place: Place = 0) -> Iterator[Target]:
    """Run a target for a while."""
    server = Target(handler, place)
    try:
        yield server
    finally:
        server.stop()


def mirror(connection: socket.socket) -> str:
    """Answer only after the end of the input, with all of it backwards."""
    data = read_all(connection)
    connection.sendall(data[::-1])
    return digest(data)


def echo(connection: socket.socket) -> None:
    """Give back what comes, as it comes."""
    for data in iter(lambda: connection.recv(1 << 16), b""):
        connection.sendall(data)


def fill(connection: socket.socket, seconds: float = 1.0) -> int:
    """Send until nothing was taken for ``seconds``; return how many bytes were taken."""
    connection.setblocking(False)
    sent, since = 0, time.monotonic()
    block = bytes(1 << 16)
    while time.monotonic() - since < seconds:
        try:
            sent += connection.send(block)
            since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    connection.settimeout(PATIENCE)
    return sent


def resident_memory(pid: int) -> int:
    """Return how many bytes of memory a process holds now."""
    with open(f"/proc/{pid}/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
