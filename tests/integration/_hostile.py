"""A server whose misbehaviour is a row of a table, and what may come of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from asyncssh.packet import Boolean, Byte, String, UInt32

from tests.support.clients import ClientHome
from tests.support.oddserver import OddServer
from tests.support.processes import Completed, run, xssh_command
from tests.support.sshd import KeyRing

NASTY = b"\x1b]0;owned\x07\x1b[2J\x9b31m\r\nxssh: forged\r\n  try: forged\nx"
FORGED = r"^\s*(xssh|try): forged"
ENDS, GOES_ON, EITHER = 255, 0, -1
"""EITHER: who is quick to read has opened the window again."""
ACCEPT, FAILURE, SUCCESS, KEXINIT, KEX_REPLY, OPENED = 6, 51, 52, 20, 31, 91


def opening(kind: bytes, *arguments: bytes) -> bytes:
    numbers = UInt32(7) + UInt32(1 << 20) + UInt32(32768)
    return Byte(90) + String(kind) + numbers + b"".join(arguments)


def asking(name: bytes, *arguments: bytes, reply: bool = False) -> bytes:
    return Byte(98) + UInt32(0) + String(name) + Boolean(reply) + b"".join(arguments)


def data(size: int, channel: int = 0) -> bytes:
    return Byte(94) + UInt32(channel) + String(b"y" * size)


def text(kind: int, *fields: bytes) -> bytes:
    return Byte(kind) + b"".join(fields) + String(NASTY) + String(b"")


TCP = String(b"h"), UInt32(1), String(b"h"), UInt32(2)
Algorithms = dict[str, list[str]]
Change = Callable[[OddServer], object]


class Hostile:
    """Runs of xssh with servers that were changed."""

    def __init__(self, keys: KeyRing, home: ClientHome) -> None:
        self._keys = keys
        self._home = home

    def run(
        self, change: Change, *words: str, before: str = "", algorithms: Algorithms | None = None
    ) -> Completed:
        """Run once; ``before`` is code that sets a constant of xssh's."""
        host_key, client_key = self._keys.host_keys["ed25519"], self._keys.client_key
        server = OddServer(host_key, client_key, **(algorithms or {}))
        try:
            change(server)
            known = self._home.path / f"known-{server.port}"
            known.write_text(server.known_hosts_lines())
            options = [f"-p{server.port}", f"-oUserKnownHostsFile={known}", "-oUpdateHostKeys=no"]
            more = ["-oBatchMode=yes", "-oServerAliveInterval=3", "-vx", f"-i{server.client_key}"]
            argv = ["-F/dev/null", *options, *more, *words, server.host, "true"]
            return run([*xssh_command(before), *argv], env=self._home.environment(), timeout=30)
        finally:
            server.stop()

    def find_faults(self, rows: dict[str, tuple[Change, int]]) -> dict[str, str]:
        """Return what is wrong, by row."""
        with ThreadPoolExecutor(4) as pool:
            ends = pool.map(lambda row: self.run(row[0]), rows.values())
            faults = {
                name: find_fault(done, status)
                for (name, (_, status)), done in zip(rows.items(), ends, strict=True)
            }
        return {name: fault for name, fault in faults.items() if fault}


def find_fault(done: Completed, status: int) -> str:
    if done.status not in ((ENDS, GOES_ON) if status == EITHER else (status,)):
        return f"status: {done}"
    if re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stderr.replace("\r\n", "\n")):
        return f"control characters: {done.stderr!r}"
    if re.search(FORGED, done.stderr, re.MULTILINE):
        return f"said as if by us: {done.stderr!r}"
    if re.search("Traceback|internal error|Task |codec", done.stderr):
        return f"internal: {done.stderr}"
    return ""
