"""One examination, from the invocation to the exit status: ``xssh --doctor``.

Without a host the local side is looked at, with one the whole way, to a window that opens here. The
list goes to stdout, as it is what was asked for; what the login asks and says goes to stderr.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping

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
    silence_libraries()
    return asyncio.run(_visit(invocation, environ))


async def _visit(invocation: Invocation, environ: Mapping[str, str]) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    listing = Listing(sys.stdout, environ)
    host = invocation.destination
    if not invocation.as_json:
        listing.write_heading(f"From this machine to {host}" if host else "This machine")

    def show(finding: Finding) -> None:
        if not invocation.as_json:
            listing.write_finding(finding)

    local = LocalSide(environ, read_machine(environ))
    if host:
        findings = await _visit_host(local, invocation, environ, show)
    else:
        findings = await examine(local.checks(), show)
    if invocation.as_json:
        sys.stdout.write(as_json(host or None, findings))
    else:
        listing.write_conclusion(findings)
    return EXIT_BROKEN if find_cause(findings) is not None else 0


async def _visit_host(
    local: LocalSide,
    invocation: Invocation,
    environ: Mapping[str, str],
    show: Callable[[Finding], None],
) -> list[Finding]:
    verbosity = min(3, invocation.count("v"))
    level = LogLevel(LogLevel.VERBOSE + verbosity) if verbosity else LogLevel.INFO
    console = Console(level, environ=environ)
    host = HostSide(invocation, environ, console)
    server = ServerSide(host, environ)
    x11 = X11Side(server)
    sides = (local, host, server, x11, PythonSide(x11))
    checks: list[Check] = [check for side in sides for check in side.checks()]
    try:
        return await examine(checks, show)
    finally:
        await x11.close()
        await host.close()
