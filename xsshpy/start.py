"""The start of a run: the settings, from OpenSSH itself; then whether another process's connection
can be shared. If so, that is all of the run, and nothing slow is ever loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from xsshpy.configuration import read_settings_now
from xsshpy.console import Console
from xsshpy.errors import SettingsError
from xsshpy.loading import import_asyncio, pause_collection, resume_collection
from xsshpy.mux.client import Ride, try_master
from xsshpy.preliminaries import (
    adopt_settings,
    examine_settings,
    explain_failure,
    open_console,
    silence_libraries,
)
from xsshpy.settings import Invocation, Settings
from xsshpy.terminal.tty import sanitise_standard_descriptors
from xsshpy.values import replace


def start(invocation: Invocation, environ: Mapping[str, str]) -> int:
    """Do what the invocation says and return the exit status.

    Raises LogFileError. Ends the process by the signal itself where one came before the session.
    """
    sanitise_standard_descriptors()
    console = open_console(invocation, environ)
    try:
        settings = _read_settings(invocation, environ, console)
        ride = Ride(None)
        if settings is not None:
            resume_collection()
            ride = try_master(invocation, settings, console, environ)
    except Exception as error:
        return explain_failure(console, error)
    if ride.status is not None:
        return ride.status
    pause_collection()
    silence_libraries()
    import_asyncio()
    from xsshpy.run import run

    if ride.passage is not None:
        invocation = _through_master(invocation, environ)
    return run(invocation, environ, settings, ride.passage)


def _through_master(invocation: Invocation, environ: Mapping[str, str]) -> Invocation:
    """X11 goes by the agent there: x11 channels would be the master's to answer."""
    way = (invocation.x11 or environ.get("XSSH_X11") or "auto").lower()
    return replace(invocation, x11="agent") if way == "auto" else invocation


def _read_settings(
    invocation: Invocation, environ: Mapping[str, str], console: Console
) -> Settings | None:
    """Return the settings; None where there is no ssh, and they are to be read without its help."""
    try:
        settings, said = read_settings_now(invocation, environ)
    except FileNotFoundError:
        if invocation.value_of("O") is not None:
            raise SettingsError(
                "xssh: -O needs `ssh`, which reads the configuration",
                remedy="install OpenSSH's client",
            ) from None
        return None
    for line in said:
        console.error(line)
    adopt_settings(console, settings)
    examine_settings(invocation, settings, console)
    return settings
