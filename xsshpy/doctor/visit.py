"""One examination, from the invocation to the exit status: ``xssh --doctor``.

Without a host the local side is looked at, with one the whole way, to a window that opens here. The
list goes to stdout, as it is what was asked for; what the login asks and says goes to stderr.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import Coroutine, Mapping

from xsshpy.console import Console, LogLevel
from xsshpy.doctor.examination import Check, examine
from xsshpy.doctor.findings import Finding, find_cause
from xsshpy.doctor.host_checks import HostSide
from xsshpy.doctor.local_checks import LocalSide
from xsshpy.doctor.machine import read_machine
from xsshpy.doctor.python_checks import PythonSide
from xsshpy.doctor.report import Listing, as_json
from xsshpy.doctor.server_checks import ServerSide
from xsshpy.doctor.x11_checks import X11Side
from xsshpy.preliminaries import silence_libraries
from xsshpy.settings import Invocation

EXIT_BROKEN = 1
"""Something is broken, and the result names it."""


def visit(invocation: Invocation, environ: Mapping[str, str]) -> int:
    """Examine and show what was found; return 0 where nothing is broken, 1 where something is.

    An invocation without a destination is for the local side alone.
    """
    return run_visit(_visit(invocation, environ))


def run_visit(visiting: Coroutine[None, None, int]) -> int:
    """Run a visit to its exit status, or until SIGTERM, by which the process then ends.

    Where nobody reads stdout any more (``| head``) it ends as other programs do, by SIGPIPE. What
    the visit opened is closed before.
    """

    async def work() -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await visiting

    silence_libraries()
    try:
        status = asyncio.run(work())
        sys.stdout.flush()
        return status
    except asyncio.CancelledError:
        end = signal.SIGTERM
    except BrokenPipeError:
        end = signal.SIGPIPE
    signal.signal(end, signal.SIG_DFL)
    os.kill(os.getpid(), end)
    return EXIT_BROKEN


async def _visit(invocation: Invocation, environ: Mapping[str, str]) -> int:
    stream = io.StringIO() if invocation.as_json else sys.stdout  # JSON comes at the end
    listing = Listing(stream, environ, _columns())
    host = invocation.destination
    listing.write_heading(f"From this machine to {host}" if host else "This machine")

    local = LocalSide(environ, read_machine(environ))
    try:
        if host:
            findings = await _visit_host(local, invocation, environ, listing)
        else:
            findings = await examine(local.checks(), listing.write_finding, listing.show_progress)
    finally:
        listing.show_progress(())
    if invocation.as_json:
        sys.stdout.write(as_json(host or None, findings))
    else:
        listing.write_conclusion(findings)
    return EXIT_BROKEN if find_cause(findings) is not None else 0


def _columns() -> int | None:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return None


class _PoliteConsole(Console):
    """Leaves no question and no message behind the list's last line."""

    def __init__(self, level: LogLevel, environ: Mapping[str, str], listing: Listing) -> None:
        super().__init__(level, environ=environ)
        self._listing = listing

    async def ask_secret(self, prompt: str) -> str | None:
        """Ask while the list waits."""
        with self._listing.hide():
            return await super().ask_secret(prompt)

    async def ask_line(self, prompt: str) -> str | None:
        """Ask while the list waits."""
        with self._listing.hide():
            return await super().ask_line(prompt)

    def log(self, level: LogLevel, text: str) -> None:
        """Say something while the list waits."""
        if self.shows(level):
            with self._listing.hide():
                super().log(level, text)

    def banner(self, text: str) -> None:
        """Show the server's words while the list waits."""
        with self._listing.hide():
            super().banner(text)


async def _visit_host(
    local: LocalSide,
    invocation: Invocation,
    environ: Mapping[str, str],
    listing: Listing,
) -> list[Finding]:
    verbosity = min(3, invocation.count("v"))
    level = LogLevel(LogLevel.VERBOSE + verbosity) if verbosity else LogLevel.INFO
    console = _PoliteConsole(level, environ, listing)
    host = HostSide(invocation, environ, console)
    server = ServerSide(host, environ)
    x11 = X11Side(server)
    sides = (local, host, server, x11, PythonSide(x11))
    checks: list[Check] = [check for side in sides for check in side.checks()]
    try:
        return await examine(checks, listing.write_finding, listing.show_progress)
    finally:
        await x11.close()
        await host.close()
