"""How a run ended: the exit status, and what ssh says about it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xsshpy.console import LogLevel
from xsshpy.errors import EXIT_FAILURE, SessionError
from xsshpy.streams import Streams

if TYPE_CHECKING:
    from xsshpy.console import Console
    from xsshpy.foreground import Attendance
    from xsshpy.settings import Settings
    from xsshpy.ssh.connect import Session
    from xsshpy.ssh.session import ConnectionEndedError, RemoteProcess


def conclude(
    session: Session,
    process: RemoteProcess,
    attendance: Attendance,
    streams: Streams,
    started: float,
) -> int:
    """Say how it ended where ssh does, and return the exit status.

    ``started`` is when the login was done, by the loop's clock.
    """
    from xsshpy.ssh.endings import explain_end

    settings, console = session.settings, session.console
    status = EXIT_FAILURE
    if process.exit_status is not None and not attendance.disconnected:
        status = process.exit_status
    left = session.connection.farewell is not None and process.exit_status is None
    if (process.error is not None or left) and not attendance.disconnected:
        ending = explain_end(process.error, session.connection, settings, session.where)
        if ending.spoken:
            console.speak(ending.spoken)
            _speak_of_the_terminal(streams, settings, console)
        for level, text in ending.logged:
            console.log(level, text)
        if ending.logged:
            return EXIT_FAILURE
        status = EXIT_FAILURE
    elif not attendance.killed or settings.release >= (9, 8):
        _speak_of_the_terminal(streams, settings, console)
    if attendance.killed:
        return status
    _report_traffic(session, process, started)
    return status


def _speak_of_the_terminal(streams: Streams, settings: Settings, console: Console) -> None:
    if streams.pty and console.shows(LogLevel.INFO):
        console.speak(f"Connection to {settings.hostname} closed.")


def explain_early_end(session: Session, error: ConnectionEndedError, pty: bool) -> SessionError:
    """Say in ssh's words why the connection ended before the session had begun."""
    from xsshpy.ssh.endings import explain_end

    name = session.settings.hostname
    ending = explain_end(error.cause, session.connection, session.settings, session.where)
    lines = [text for _, text in ending.logged]
    informative = sum(level is LogLevel.INFO for level, _ in ending.logged)
    if not lines:
        lines = [ending.spoken, *([f"Connection to {name} closed."] if pty else [])]
    elif ending.spoken:
        lines.insert(0, ending.spoken)
    return SessionError(
        "\n".join(lines), evidence=error.evidence, remedy=error.remedy, informative=informative
    )


def _report_traffic(session: Session, process: RemoteProcess, started: float) -> None:
    """Say how much passed, as ssh -v does."""
    seconds = asyncio.get_running_loop().time() - started
    volume, console = session.connection.volume, session.console
    console.verbose(
        f"Transferred: sent {volume.sent}, received {volume.received} bytes, "
        f"in {seconds:.1f} seconds"
    )
    if seconds > 0:
        sent, received = volume.sent / seconds, volume.received / seconds
        console.verbose(f"Bytes per second: sent {sent:.1f}, received {received:.1f}")
    status = -1 if process.exit_status is None else process.exit_status
    console.debug(1, f"Exit status {status}")
