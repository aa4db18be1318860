"""Where messages go instead of stderr: a file (-E), or the system's log (-y)."""

from __future__ import annotations

import os

from xsshpy.errors import LogFileError


class SystemLog:
    """Takes what would go to stderr, line by line, to syslog(3)."""

    def __init__(self, program: str = "xssh") -> None:
        import syslog

        self._syslog = syslog.syslog
        syslog.openlog(program, syslog.LOG_PID, syslog.LOG_USER)

    def write(self, data: bytes) -> int:
        """Log each line."""
        for line in data.decode("utf-8", "replace").splitlines():
            self._syslog(line)
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""


def open_log_file(path: str) -> int:
    """Open a log file to append to, readable by its owner only. Raises LogFileError."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogFileError(
            f"Couldn't open logfile {path}: {error.strerror}",
            remedy="give -E the path of a file that can be written",
        ) from None
