"""Where messages go instead of stderr: a file (-E), or the system's log (-y)."""

from __future__ import annotations

import os

from xsshpy.console import LogLevel
from xsshpy.errors import LogFileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class SystemLog:
    """Takes messages, line by line, to syslog(3): with ssh's priorities and words before them."""

    def __init__(
        self, program: str = "xssh", send: Callable[[int, str], object] | None = None
    ) -> None:
        import syslog

        self._program = program
        self._send = send or syslog.syslog
        self._priorities = {
            LogLevel.FATAL: (syslog.LOG_CRIT, "fatal: "),
            LogLevel.ERROR: (syslog.LOG_ERR, "error: "),
            LogLevel.INFO: (syslog.LOG_INFO, ""),
            LogLevel.VERBOSE: (syslog.LOG_INFO, ""),
        }
        self._debug = syslog.LOG_DEBUG
        self.facility = syslog.LOG_USER
        syslog.openlog(program, syslog.LOG_PID, self.facility)

    def use_facility(self, name: str) -> None:
        """Log as the facility of SyslogFacility: DAEMON, USER, AUTH, AUTHPRIV, LOCAL0 to 7."""
        import syslog

        self.facility = getattr(syslog, f"LOG_{name.upper()}", syslog.LOG_USER)
        syslog.openlog(self._program, syslog.LOG_PID, self.facility)

    def log(self, level: LogLevel, text: str) -> None:
        """Log each line of a message."""
        priority, prefix = self._priorities.get(level, (self._debug, f"{level.name.lower()}: "))
        for line in text.splitlines():
            self._send(priority, prefix + line)


def open_log_file(path: str) -> int:
    """Open a log file to append to, readable by its owner only. Raises LogFileError."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogFileError(
            f"Couldn't open logfile {path}: {error.strerror}",
            remedy="give -E the path of a file that can be written",
        ) from None
