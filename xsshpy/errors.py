"""What can go wrong, as exceptions that carry everything the user has to read.

An error says what failed, shows the evidence, and names one thing to do. Programs match on
OpenSSH's own words, so a message that OpenSSH has is used as OpenSSH prints it; everything else
starts with ``xssh:``. No secret is ever part of an error's text.
"""

from __future__ import annotations

EXIT_FAILURE = 255
"""Exit status of xssh's own failures, as of ssh's: every other status is the remote program's."""


class XsshError(Exception):
    """A failure told to the user; it ends the run with ``status``.

    ``message`` is what failed and its cause, in full (one or more lines). ``evidence`` are lines
    that show it (a path and line number, the server's own words). ``remedy`` is one action,
    printed as ``  try: …``. ``informative`` is how many lines at the message's end ssh logs at
    INFO, and does not say where only errors are asked for.
    """

    status = EXIT_FAILURE

    def __init__(
        self,
        message: str,
        *,
        evidence: tuple[str, ...] = (),
        remedy: str = "",
        informative: int = 0,
    ) -> None:
        super().__init__(message)
        self.informative = informative
        self.message = message
        self.evidence = evidence
        self.remedy = remedy

    def render(self, *, informative: bool = True) -> str:
        """Return the text, without a final newline; empty if all of it is only informative."""
        lines = [self.message, *self.evidence]
        if not informative and self.informative:
            said = self.message.split("\n")[: -self.informative]
            if not said:
                return ""
            lines = [*said, *self.evidence]
        if self.remedy:
            lines.append(f"  try: {self.remedy}")
        return "\n".join(lines)

    def summary(self) -> str:
        """Return message and remedy on one line, for what does not end the run."""
        return f"{self.message}; try: {self.remedy}" if self.remedy else self.message


class UsageError(XsshError):
    """The command line makes no sense."""


class SettingsError(XsshError):
    """The configuration could not be read, or asks for something that is not supported."""


class LibraryError(XsshError):
    """A library is installed in a version that xssh can't be used with."""


class LogFileError(XsshError):
    """The file of -E can't be written; ssh ends with 1 here."""

    status = 1


class ConnectError(XsshError):
    """There is no connection to the server, or it ended before a session was open."""


class UnreachableError(ConnectError):
    """No address of the server took the call; ssh has it at ERROR, where all else is FATAL."""


class HostKeyError(XsshError):
    """The server could not prove who it is, or the user refused its key."""


class AuthenticationError(XsshError):
    """The server accepted none of the ways to log in."""


class ForwardError(XsshError):
    """A port or socket could not be forwarded, and ExitOnForwardFailure says to end the run."""


class SessionError(XsshError):
    """The session could not be started, or ended without an exit status."""


class DisplayError(XsshError):
    """There is no usable local X display. X11 is left out; the session goes on."""
