"""Agents for tests: a real ssh-agent on a socket of its own, and ones that misbehave."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.processes import wait_until
from tests.support.tools import require_tool


class Agent:
    """A real ssh-agent; ``path`` is its socket."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.path = str(path)
        self._process = subprocess.Popen(
            [require_tool("ssh-agent"), "-D", "-a", self.path],
            stdout=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        wait_until(self._answers, what="the agent")

    def _answers(self) -> bool:
        """The socket is there a moment before anyone listens."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path) == 0

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ssh-add with these words."""
        return subprocess.run(
            [require_tool("ssh-add"), *words],
            env={**os.environ, "SSH_AUTH_SOCK": self.path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def add(self, *words: object) -> None:
        """Add keys, with ssh-add's options."""
        done = self.run("-q", *map(str, words))
        assert done.returncode == 0, done.stderr

    def keys(self) -> list[str]:
        """Return the lines of ``ssh-add -l``."""
        return [line for line in self.run("-l").stdout.splitlines() if "no identities" not in line]

    def clear(self) -> None:
        self.run("-q", "-D")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class OddAgent:
    """Answers each request as it was told: bytes go out as they are, None hangs up, () stalls.

    ``answer`` gets the request's kind. ``requests`` are the requests that came in.
    """

    def __init__(self, path: Path, answer: Callable[[int], bytes | tuple[()] | None]) -> None:
        self.path = str(path)
        self.requests: list[bytes] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(8)
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while True:
                length = int.from_bytes(_read(client, 4), "big")
                request = _read(client, length)
                self.requests.append(request)
                answer = self._answer(request[0])
                if answer is None:
                    return
                if answer != ():
                    client.sendall(bytes(answer))

    def stop(self) -> None:
        for place in (self._listener, *self._clients):
            with contextlib.suppress(OSError):
                place.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


def _read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            raise OSError("end")
        data += piece
    return data


def framed(payload: bytes) -> bytes:
    """Return an agent's message."""
    return len(payload).to_bytes(4, "big") + payload


@contextlib.contextmanager
def odd_agent(
    directory: Path, answer: Callable[[int], bytes | tuple[()] | None]
) -> Iterator[OddAgent]:
    """Have an agent that misbehaves for as long as the block lasts."""
    agent = OddAgent(directory / "odd", answer)
    try:
        yield agent
    finally:
        agent.stop()


NO_KEYS = framed(b"\x0c\0\0\0\0")
"""The answer that there is no key (SSH_AGENT_IDENTITIES_ANSWER)."""
