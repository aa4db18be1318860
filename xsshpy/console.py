"""What the user sees and is asked: messages by log level, the server's words, questions.

Rules: all of it goes to stderr or to the terminal, never to stdout; nothing here raises because
nobody reads stderr; no byte from elsewhere reaches the terminal that could command it. Levels
and their names are those of ssh_config(5), LogLevel; questions follow OpenSSH's order of
SSH_ASKPASS and the terminal.
"""

from __future__ import annotations

import os

from xsshpy.errors import XsshError
from xsshpy.values import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from typing import Protocol

    class LogStream(Protocol):
        """Where messages may go besides a descriptor."""

        def write(self, data: bytes, /) -> int:
            """Take one message."""

        def flush(self) -> None:
            """Let go of what waits."""

    class MessageLog(Protocol):
        """Where messages may go that are kept by their level, as the system's log does."""

        def log(self, level: LogLevel, text: str) -> None:
            """Take one message, of one or more lines."""

        def use_facility(self, name: str) -> None:
            """Log from now on as one of SyslogFacility's names."""


TEXT_LIMIT = 65536
"""Characters of one message that are shown."""

_QUESTION_LIMIT = 16384
_WRITE_PATIENCE = 0.5
"""Seconds that a message waits for a stderr that takes nothing; then the rest is lost."""

# They reorder what is read on the line: a host name or a question could show as another one.
_BIDI_CONTROLS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_OUR_WORDS = ("xssh", "try")
"""What lines begin with that nobody else says."""
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


class LogLevel(IntEnum):
    """How much is said; a message is shown if its level is at most the chosen one."""

    QUIET = 0
    FATAL = 1
    ERROR = 2
    INFO = 3
    VERBOSE = 4
    DEBUG1 = 5
    DEBUG2 = 6
    DEBUG3 = 7

    @property
    def shown_name(self) -> str:
        """What OpenSSH calls the level where it shows one."""
        return {LogLevel.QUIET: "SILENT", LogLevel.DEBUG1: "DEBUG"}.get(self, self.name)

    @classmethod
    def parse(cls, name: str) -> LogLevel:
        """Return the level that OpenSSH calls ``name``, in any case. Raises ValueError."""
        upper = name.upper()
        if upper == "DEBUG":
            return cls.DEBUG1
        try:
            return cls[upper]
        except KeyError:
            raise ValueError(f"unsupported log level {name!r}") from None


def sanitise(text: str, limit: int = TEXT_LIMIT) -> str:
    r"""Return ``text`` without anything that commands a terminal. Pure and idempotent.

    Control characters but tabs and line ends, characters that change the direction of writing,
    and bytes that are not UTF-8 (as lone surrogates) become octal, as OpenSSH shows them:
    ``\033``. A carriage return is part of a line end or shown as ``\015``: it would let the rest
    of a line be written over its beginning. What is beyond ``limit`` characters is left out, and
    said so.
    """
    lines = "".join(_shown(character) for character in text[:limit]).split("\r\n")
    shown = "\r\n".join(line.replace("\r", "\\015") for line in lines)
    if len(text) > limit:
        shown += f"[{len(text) - limit} more characters]"
    return shown


def inline(text: str) -> str:
    r"""Return what a peer said as part of a line of ours: line breaks become ``\012``. Pure.

    Else it could go on in a line that looks as if it were said here. Those at its end are dropped.
    """
    return text.rstrip("\r\n").replace("\r", "\\015").replace("\n", "\\012")


def foreign(text: str) -> str:
    r"""Return what a peer says in lines of its own; a line like one of ours is marked. Pure.

    The first letter of ``xssh: …`` and ``  try: …`` becomes octal, as in :func:`sanitise`.
    """
    return "".join(_marked(line) for line in text.splitlines(keepends=True))


def _marked(line: str) -> str:
    said = line.lstrip()
    word = said.partition(":")[0].strip().lower()
    if ":" not in said or word not in _OUR_WORDS:
        return line
    return f"{line[: len(line) - len(said)]}\\{ord(said[0]):03o}{said[1:]}"


def _shown(character: str) -> str:
    if character in "\t\n\r" or " " <= character <= "~":
        return character
    import unicodedata  # most of what is said needs none

    if character in _BIDI_CONTROLS or unicodedata.category(character) in _HIDDEN_CATEGORIES:
        try:
            raw = character.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raw = character.encode("utf-8", "surrogatepass")
        return "".join(f"\\{byte:03o}" for byte in raw)
    return character


class Console:
    """Where a run speaks to its user.

    ``stderr`` is a descriptor or a binary stream, and so is ``answers``, where goes what is no
    message: what an escape answers, the server's words (stderr, unless given). A ``message_log``
    takes all messages in stderr's place. ``environ`` decides about askpass. With ``batch_mode``
    nothing is ever asked. ``raw`` is set while the terminal is in raw mode: lines then end in a
    carriage return and a newline.
    """

    def __init__(
        self,
        level: LogLevel = LogLevel.INFO,
        *,
        stderr: int | LogStream = 2,
        answers: int | LogStream | None = None,
        message_log: MessageLog | None = None,
        environ: Mapping[str, str] | None = None,
        tty_path: str = "/dev/tty",
        batch_mode: bool = False,
    ) -> None:
        self.level = level
        self.raw = False
        self.batch_mode = batch_mode
        self._stderr = stderr
        self._answers = stderr if answers is None else answers
        self.message_log = message_log
        self._environ = os.environ if environ is None else environ
        self._tty_path = tty_path
        self._silent = False
        self._turn: asyncio.Lock | None = None

    @property
    def is_on_stderr(self) -> bool:
        """Whether messages go to standard error, and not to a file or the system's log."""
        return self._stderr == 2 and self.message_log is None

    def silence(self) -> None:
        """Say nothing on standard error from now on; a log file or the system's log goes on."""
        if self.is_on_stderr:
            self._silent = True

    def shows(self, level: LogLevel) -> bool:
        """Say whether a message of ``level`` would be shown."""
        return LogLevel.QUIET < level <= self.level and not self._silent

    def change_level(self, steps: int) -> None:
        """Say more (steps above 0) or less from now on, within the levels there are."""
        level = min(max(self.level + steps, LogLevel.QUIET), LogLevel.DEBUG3)
        self.level = LogLevel(level)

    def fatal(self, text: str) -> None:
        """Say why the run ends. QUIET hides even this, as ``ssh -q`` does."""
        self.log(LogLevel.FATAL, text)

    def error(self, text: str) -> None:
        """Say what failed."""
        self.log(LogLevel.ERROR, text)

    def notice(self, text: str) -> None:
        """Say what the user should know (level INFO)."""
        self.log(LogLevel.INFO, text)

    def verbose(self, text: str) -> None:
        """Say more than usual (level VERBOSE)."""
        self.log(LogLevel.VERBOSE, text)

    def debug(self, number: int, text: str) -> None:
        """Say what happens inside; ``number`` is 1, 2 or 3 and is shown before the text."""
        self.log(LogLevel(LogLevel.DEBUG1 + min(max(number, 1), 3) - 1), text)

    def report(self, error: XsshError, level: LogLevel = LogLevel.FATAL) -> None:
        """Show an error with its evidence and remedy."""
        text = error.render(informative=self.shows(LogLevel.INFO))
        if text:
            self.log(level, text)

    def log(self, level: LogLevel, text: str) -> None:
        """Show ``text``, of one or more lines, as a message of ``level``."""
        if not self.shows(level):
            return
        if self.message_log is not None:
            self.message_log.log(level, sanitise(text))
        else:
            if level >= LogLevel.DEBUG1:  # each line, as much of it is said by others
                prefix = f"{level.name.lower()}: "
                text = prefix + text.rstrip("\n").replace("\n", f"\n{prefix}")
            self._write(sanitise(text) + "\n", self._stderr)

    def banner(self, text: str) -> None:
        """Show what the server says before authentication, in lines of its own (INFO)."""
        if self.shows(LogLevel.INFO):
            self._write(sanitise(foreign(text)), self._answers)

    def show(self, text: str) -> None:
        """Show ``text`` as it is, at every level: what an escape answers."""
        self._write(text, self._answers)

    def speak(self, text: str) -> None:
        """Show a line at every level: that the connection is over."""
        if not self._silent:
            self._write(sanitise(text) + "\n", self._answers)

    async def ask_secret(self, prompt: str) -> str | None:
        """Ask for a secret, without echo. See :meth:`ask_line`."""
        return await self._ask(prompt, echo=False)

    async def ask_line(self, prompt: str) -> str | None:
        """Ask ``prompt`` and return the line typed, at most 1023 bytes, without its end.

        Bytes that are not UTF-8 come as lone surrogates. None: there is nobody to ask, the user
        refused, or the terminal is gone. An empty line and ^D are the empty answer.
        """
        return await self._ask(prompt, echo=True)

    async def ask_permission(self, prompt: str) -> bool:
        """Ask for a yes or no by askpass alone, as ssh does; without one the answer is no."""
        from xsshpy import askpass

        if not askpass.decide_askpass(self._environ).allowed:
            return False
        async with self._my_turn():
            answer = await self._run_askpass(_question(prompt), hint="confirm")
        return answer is not None and answer.lower() in ("", "yes")

    async def _ask(self, prompt: str, *, echo: bool) -> str | None:
        if self.batch_mode:
            return None
        async with self._my_turn():
            return await self._ask_now(_question(prompt), echo=echo)

    @property
    def is_asking(self) -> bool:
        """Whether the user is being asked something at this moment."""
        return self._turn is not None and self._turn.locked()

    def _my_turn(self) -> asyncio.Lock:
        # asyncio takes 50 ms to import: only a run that asks pays for it.
        import asyncio

        if self._turn is None:
            self._turn = asyncio.Lock()
        return self._turn

    async def _ask_now(self, question: str, *, echo: bool) -> str | None:
        from xsshpy import askpass, prompt

        policy = askpass.decide_askpass(self._environ)
        if policy.preferred:
            self.debug(1, "read_passphrase: requested to askpass")
            return await self._run_askpass(question)
        try:
            fd = prompt.open_terminal(self._tty_path)
        except OSError as error:
            reason = f"can't open {self._tty_path}: {error.strerror}"
            self.debug(1, f"read_passphrase: {reason}")
            return await self._run_askpass(question) if policy.allowed else None
        try:
            answer = await prompt.ask_on_terminal(fd, question.encode(), echo=echo)
        finally:
            os.close(fd)
        return _decoded(answer)

    async def _run_askpass(self, question: str, *, hint: str = "") -> str | None:
        from xsshpy import askpass

        program = askpass.find_askpass(self._environ)
        try:
            answer = await askpass.run_askpass(program, question, self._environ, hint=hint)
        except OSError as error:
            self.fatal(f"ssh_askpass: exec({program}): {error.strerror}")
            return None
        return _decoded(answer)

    def _write(self, text: str, stream: int | LogStream | None = None) -> None:
        stream = self._stderr if stream is None else stream
        if self.raw:
            text = text.replace("\r\n", "\n").replace("\n", "\r\n")
        data = text.encode("utf-8", "surrogateescape")
        if not isinstance(stream, int):
            try:
                stream.write(data)
                stream.flush()
            except (OSError, ValueError):
                return
            return
        while data:
            try:
                data = data[os.write(stream, data) :]
            except BlockingIOError:
                if not _wait_writable(stream):
                    return
            except OSError:
                return


def _question(prompt: str) -> str:
    return sanitise(prompt.replace("\r\n", "\n"), _QUESTION_LIMIT)


def _decoded(answer: bytes | None) -> str | None:
    return None if answer is None else answer.decode("utf-8", "surrogateescape")


def _wait_writable(fd: int) -> bool:
    import select

    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    try:
        return bool(poller.poll(_WRITE_PATIENCE * 1000))
    except OSError:
        return False
