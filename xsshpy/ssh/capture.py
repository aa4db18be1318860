"""A remote command whose output is wanted here, as text: bounded in size, run as a session is."""

from __future__ import annotations

import time

from asyncssh.constants import EXTENDED_DATA_STDERR

from xsshpy.console import Console
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.session import RemoteProcess, start_process
from xsshpy.ssh.session_plan import Grants, SessionPlan
from xsshpy.values import dataclass

LIMIT = 1 << 20
"""Most output that is kept, stdout and stderr together (bytes); what says more is ended."""


@dataclass(frozen=True)
class Captured:
    """How a command ended; ``status`` is None where a signal or the connection ended it."""

    status: int | None
    out: bytes
    err: bytes
    grants: Grants


class CapturedProcess(RemoteProcess):
    """A remote process whose output is kept. ``arrived`` is when its first output came
    (``time.monotonic``)."""

    def __init__(self, console: Console, limit: int = LIMIT) -> None:
        super().__init__(console, stdout=-1, stderr=-1)
        self.out = bytearray()
        self.err = bytearray()
        self.arrived: float | None = None
        self._left = limit

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Keep output; end what says too much."""
        if self.arrived is None:
            self.arrived = time.monotonic()
        (self.err if datatype == EXTENDED_DATA_STDERR else self.out).extend(data[: self._left])
        self._left -= len(data)
        if self._left < 0:
            self.end()


class TimedProcess(CapturedProcess):
    """One whose output is timed: ``arrivals`` are times (``time.monotonic``), and how many bytes
    had come by then."""

    def __init__(self, console: Console, limit: int = LIMIT) -> None:
        super().__init__(console, limit)
        self.arrivals: list[tuple[float, int]] = []

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Keep output, and note when it came."""
        super().data_received(data, datatype)
        self.arrivals.append((time.monotonic(), len(self.out)))


async def capture(
    connection: ClientConnection, plan: SessionPlan, console: Console, stdin: bytes = b""
) -> Captured:
    """Run a plan's command to its end. Raises SessionError where the server refuses.

    Cancelled, it ends the command.
    """
    process = CapturedProcess(console)
    try:
        grants = await start_process(connection, plan, process, lambda: None)
        process.write(stdin)
        process.write_eof()
        await process.closed.wait()
    finally:
        process.end()
    return Captured(process.exit_status, bytes(process.out), bytes(process.err), grants)


async def measure_round_trip(connection: ClientConnection) -> float:
    """Return the time until the server answers a question (seconds)."""
    started = time.monotonic()
    await connection._make_global_request(b"keepalive@openssh.com")
    return time.monotonic() - started
