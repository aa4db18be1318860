"""The start of a run: the settings, from OpenSSH itself; then whether another process's connection
can be shared. If so, that is all of the run, and nothing slow is ever loaded.
"""

from __future__ import annotations

from xsshpy.errors import ConnectError, SettingsError
from xsshpy.loading import import_asyncio, pause_collection, resume_collection
from xsshpy.mux.client import Ride, try_master
from xsshpy.mux.control import decide_sharing_time, read_control
from xsshpy.mux.sockets import remove_stale
from xsshpy.preliminaries import (
    adopt_settings,
    examine_settings,
    explain_failure,
    is_passenger_next,
    open_console,
    silence_libraries,
)
from xsshpy.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from socket import socket

    from xsshpy.background import Background
    from xsshpy.configuration import Reading
    from xsshpy.console import Console
    from xsshpy.settings import Invocation, Settings


def start(
    invocation: Invocation, environ: Mapping[str, str], reading: Reading, log: int | None = None
) -> int:
    """Do what the invocation says and return the exit status.

    ``reading`` has begun; ``log`` is the descriptor of -E's file, where it is open. Ends the
    process by the signal itself where one came before the session.
    """
    console = open_console(invocation, environ, log)
    try:
        settings = _finish(reading, invocation, console)
        ride = Ride(None)
        if settings is not None:
            resume_collection()
            settings = _share(invocation, settings, console, environ)
            ride = try_master(invocation, settings, console, environ)
    except Exception as error:
        return explain_failure(console, error, invocation)
    if ride.status is not None:
        return ride.status
    if ride.passage is not None:
        return _run(invocation, environ, settings, passage=ride.passage)
    if ride.is_dead and settings is not None:
        _clear_away(settings)
    if settings is not None and _wants_lasting_master(invocation, settings):
        if _may_begin_sharing(invocation, settings):
            return _start_behind_master(invocation, settings, console, environ)
        settings = _without_sharing(settings)
    return _run(invocation, environ, settings)


def _share(
    invocation: Invocation, settings: Settings, console: Console, environ: Mapping[str, str]
) -> Settings:
    """Return the settings, with a shared connection or the one that -O is about."""
    seconds = decide_sharing_time(invocation.share, environ)
    if "controlpath" in settings.keywords:
        return settings
    if invocation.value_of("O") is not None:
        from xsshpy.mux.sharing import aim

        return aim(invocation, settings, environ)
    if not seconds:
        return settings
    from xsshpy.mux.sharing import share

    return share(invocation, settings, seconds, console, environ)


def _may_begin_sharing(invocation: Invocation, settings: Settings) -> bool:
    """Tell whether the user's files have nothing against it, where he did not ask for it."""
    if not read_control(settings.keywords).is_automatic:
        return True
    from xsshpy.mux.consent import may_begin

    return may_begin(invocation, settings, _load_run)


def _load_run() -> None:
    """Import what a connection of its own needs."""
    pause_collection()
    silence_libraries()
    import_asyncio()
    import xsshpy.run  # noqa: F401


def _without_sharing(settings: Settings) -> Settings:
    from xsshpy.mux.sharing import without_sharing

    return without_sharing(settings)


def _run(
    invocation: Invocation,
    environ: Mapping[str, str],
    settings: Settings | None,
    *,
    passage: socket | None = None,
    background: Background | None = None,
) -> int:
    _load_run()
    from xsshpy.run import run

    if passage is not None:
        invocation = _through_master(invocation, environ)
    return run(invocation, environ, settings, passage, background)


def _through_master(invocation: Invocation, environ: Mapping[str, str]) -> Invocation:
    """X11 goes by the agent there: x11 channels would be the master's to answer."""
    way = (invocation.x11 or environ.get("XSSH_X11") or "auto").lower()
    return replace(invocation, x11="agent") if way == "auto" else invocation


def _clear_away(settings: Settings) -> None:
    """Take the place of a master that does not answer."""
    control = read_control(settings.keywords)
    if control.makes_master:
        remove_stale(control.path)


def _wants_lasting_master(invocation: Invocation, settings: Settings) -> bool:
    """Tell whether the connection is to stay, in a process of its own."""
    is_whole_run = invocation.script is not None or invocation.stats
    return read_control(settings.keywords).makes_lasting_master and not is_whole_run


def _start_behind_master(
    invocation: Invocation, settings: Settings, console: Console, environ: Mapping[str, str]
) -> int:
    """Let a child process log in and hold the connection, and be its first passenger."""
    from xsshpy.background import start_in_background

    parting = start_in_background()
    if parting.background is not None:
        return _run(invocation, environ, settings, background=parting.background)
    if not parting.is_ready or not is_passenger_next(invocation, settings):
        return parting.status
    as_passenger = replace(settings, keywords={**settings.keywords, "controlmaster": ("no",)})
    try:
        ride = try_master(invocation, as_passenger, console, environ)
        if ride.status is None and not read_control(settings.keywords).is_automatic:
            raise ConnectError("Failed to connect to new control master")
    except Exception as error:
        return explain_failure(console, error, invocation)
    if ride.status is None:
        return _run(invocation, environ, _without_sharing(settings))
    return ride.status


def _finish(reading: Reading, invocation: Invocation, console: Console) -> Settings | None:
    """Return the settings; None where there is no ssh, and they are to be read without its help."""
    try:
        settings, said = reading.finish()
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
