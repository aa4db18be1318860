"""What comes before everything else in a run: where messages go, and what the settings make clear.

Used before there is an event loop, so nothing here imports one.
"""

from __future__ import annotations

import os
import sys

from xsshpy.console import Console, LogLevel
from xsshpy.errors import EXIT_FAILURE, ConnectError, SettingsError, UnreachableError, XsshError
from xsshpy.streams import STDERR, STDIN, decide_streams
from xsshpy.unsupported import find_unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from xsshpy.console import MessageLog
    from xsshpy.settings import Invocation, Settings
    from xsshpy.streams import Streams


def open_console(
    invocation: Invocation, environ: Mapping[str, str], log: int | None = None
) -> Console:
    """Return the console, as loud as -q and -v say. ``log`` is what :func:`open_log` returned.

    Raises LogFileError.
    """
    log = open_log(invocation) if log is None else log
    system_log: MessageLog | None = None
    if log == STDERR and invocation.count("y"):
        from xsshpy.logfile import SystemLog

        system_log = SystemLog()
    console = Console(environ=environ, stderr=log, answers=STDERR, message_log=system_log)
    console.level = _early_level(invocation)
    return console


def open_log(invocation: Invocation) -> int:
    """Return the descriptor of -E's file, or stderr's. Raises LogFileError."""
    path = invocation.value_of("E")
    if path is None:
        return STDERR
    from xsshpy.logfile import open_log_file

    return open_log_file(path)


def _early_level(invocation: Invocation) -> LogLevel:
    """Return the level until the configuration is read."""
    if invocation.last_of("qv") == "q":
        return LogLevel.QUIET
    loudness = min(3, invocation.count("v"))
    return LogLevel(LogLevel.VERBOSE + loudness) if loudness else LogLevel.INFO


def adopt_settings(console: Console, settings: Settings) -> None:
    """Set up the console as the configuration says."""
    console.level = LogLevel.parse(settings.log_level)
    console.batch_mode = settings.batch_mode
    if console.message_log is not None:
        console.message_log.use_facility(settings.keywords.get("syslogfacility", ("USER",))[0])


def examine_settings(invocation: Invocation, settings: Settings, console: Console) -> None:
    """Say what the settings make clear at once. Raises SettingsError for what can't be done."""
    if invocation.command and settings.remote_command:
        raise SettingsError("Cannot execute command-line and remote command.")
    for line in find_unsupported(settings.keywords):
        console.notice(line)
    if settings.fork_after_authentication and settings.session_type != "none":
        has_program = invocation.command or settings.remote_command or invocation.script
        if not has_program:
            raise SettingsError("Cannot fork into background without a command to execute.")
    _, notice = find_streams(invocation, settings)
    has_session = settings.session_type != "none" and invocation.value_of("W") is None
    if notice and has_session and invocation.value_of("O") is None:
        console.notice(notice)


def find_streams(invocation: Invocation, settings: Settings) -> tuple[Streams, str]:
    """Decide about the pty; the second value is a line for the user, or empty."""
    has_program = invocation.script is not None or bool(
        invocation.command or settings.remote_command
    )
    return decide_streams(settings, has_program, stdin_is_terminal=os.isatty(STDIN))


def is_passenger_next(invocation: Invocation, settings: Settings) -> bool:
    """Tell whether what was asked for is done by a passenger, once there is a lasting master."""
    if settings.fork_after_authentication:
        return False
    return settings.session_type != "none" or invocation.value_of("W") is not None


def explain_failure(console: Console, error: Exception, invocation: Invocation) -> int:
    """Say what went wrong and return the exit status."""
    if isinstance(error, XsshError):
        if isinstance(error, ConnectError) and error.remedy:
            from xsshpy.invitation import invite

            error.remedy = f"{error.remedy}; {invite(invocation)}"
        if error.message:  # ForwardError has been told for each forward
            unreachable = isinstance(error, UnreachableError)
            console.report(error, LogLevel.ERROR if unreachable else LogLevel.FATAL)
        return EXIT_FAILURE
    import traceback

    console.debug(1, "".join(traceback.format_exception(error)))
    console.fatal(
        f"xssh: internal error: {type(error).__name__}: {error}\n"
        "  try: the same with -v, and report what it prints"
    )
    return EXIT_FAILURE


def silence_libraries() -> None:
    """Keep what libraries say to their developers out of stderr: programs read it.

    One warns of an old cipher that the server wants, another of a child that ended early.
    """
    import logging
    import warnings

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
