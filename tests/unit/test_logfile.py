"""The system's log: priorities, words and facilities as ssh -y has them."""

from __future__ import annotations

import syslog

import pytest

from xsshpy.console import Console, LogLevel
from xsshpy.logfile import SystemLog


@pytest.mark.parametrize(
    ("level", "line"),
    [
        (LogLevel.FATAL, (syslog.LOG_CRIT, "fatal: text")),
        (LogLevel.ERROR, (syslog.LOG_ERR, "error: text")),
        (LogLevel.INFO, (syslog.LOG_INFO, "text")),
        (LogLevel.VERBOSE, (syslog.LOG_INFO, "text")),
        (LogLevel.DEBUG1, (syslog.LOG_DEBUG, "debug1: text")),
        (LogLevel.DEBUG3, (syslog.LOG_DEBUG, "debug3: text")),
    ],
)
def test_each_level_has_sshs_priority(level: LogLevel, line: tuple[int, str]) -> None:
    sent: list[tuple[int, str]] = []
    log = SystemLog(send=lambda priority, text: sent.append((priority, text)))
    Console(LogLevel.DEBUG3, message_log=log, environ={}).log(level, "text\nmore \x1b")
    assert sent[0] == line
    assert sent[1] == (line[0], line[1].replace("text", "more \\033"))


@pytest.mark.parametrize(
    ("name", "facility"),
    [
        ("USER", syslog.LOG_USER),
        ("DAEMON", syslog.LOG_DAEMON),
        ("AUTH", syslog.LOG_AUTH),
        ("local7", syslog.LOG_LOCAL7),
        ("no such", syslog.LOG_USER),
    ],
)
def test_syslog_facility(name: str, facility: int) -> None:
    """SyslogFacility, where -y sends messages to the system's log."""
    log = SystemLog(send=lambda priority, text: None)
    log.use_facility(name)
    assert log.facility == facility
    log.use_facility("USER")
