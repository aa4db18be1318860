"""A shell on the other host that setup talks to: ``sh -s`` on one channel, answers line by line.

Nothing of what is sent stands in a command line, so no length or quoting of the login shell's
limits it. A password for sudo goes to sudo's own question and nowhere else: it is sent only when
sudo has asked with this session's nonce, and what follows only when the shell behind it has spoken.
doas, and sudo with ``requiretty``, want a terminal: they get one that echoes nothing, and the shell
behind them makes it a plain pipe (``stty raw``) before it speaks.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources

from xsshpy.console import Console
from xsshpy.doctor.probes import Answers, read_answers
from xsshpy.errors import SessionError
from xsshpy.ssh.capture import LIMIT, CapturedProcess
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.session import start_process
from xsshpy.ssh.session_plan import PtyRequest, SessionPlan
from xsshpy.terminal.tty import TerminalSize
from xsshpy.values import dataclass

WHO = "xssh-setup"
SURVEY_DEADLINE = 30.0
"""How long looking around may take (seconds)."""

STEP_DEADLINE = 1800.0
"""How long one step may take: a package manager on a slow line (seconds)."""

_PASSWORD_TRIES = 3
_SILENT = {53: 0}
"""A terminal's modes: ECHO off (RFC 4254 §8)."""

_DOAS_QUESTION = re.compile(rb"(?i)password[^\r\n]*: ")
AskPassword = Callable[[int], Awaitable[str | None]]
"""Asks for the password; the argument counts from 0. None gives up."""


@dataclass(frozen=True)
class RootWay:
    """How a shell of root's is had: by ``sudo`` or ``doas``, and whether in a terminal.

    Without ``ask_password`` neither may ask for one.
    """

    program: str
    in_terminal: bool = False
    ask_password: AskPassword | None = None

    def command(self, nonce: str) -> str:
        """Return the command that starts the shell, which then says that it is there."""
        before, shell = "", "exec sh -s"
        if self.in_terminal:
            # A shell that reads from a terminal itself would prompt.
            before, shell = "stty raw -echo; echo; ", "cat | sh -s"
        started = f"sh -c '{before}echo {WHO} {nonce} ready; {shell}'"
        if self.ask_password is None:
            return f"{self.program} -n {started}"
        if self.program == "doas":
            return f"doas {started}"
        return f"sudo -S -p {_prompt(nonce)} {started}"

    def count_questions(self, said: bytes, nonce: str) -> int:
        """Return how often the password was asked for."""
        if self.program == "doas":
            return len(_DOAS_QUESTION.findall(said))
        return said.count(_prompt(nonce).encode())


def _prompt(nonce: str) -> str:
    return f"{WHO}-{nonce}-password"


class NoRootError(SessionError):
    """There is no shell of root's; the message says why. ``was_asked``: for a password."""

    def __init__(self, message: str, *, was_asked: bool = False) -> None:
        super().__init__(message)
        self.was_asked = was_asked


def program_text() -> str:
    """Return what the shell is to know: what setup sees, and what it does."""
    folder = resources.files("xsshpy.setup")
    return "".join(
        folder.joinpath(f"{name}.sh").read_text("utf-8") for name in ("program", "steps")
    )


class _Told(CapturedProcess):
    """A process whose every output wakes whoever waits for it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.news = asyncio.Event()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        super().data_received(data, datatype)
        self.news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.news.set()


class RemoteShell:
    """One shell with the program's functions; ends with :meth:`close`.

    ``variables`` are set in it beforehand. Raises SessionError where the server refuses.
    """

    def __init__(self, process: _Told, nonce: str) -> None:
        self._process = process
        self._nonce = nonce
        self._asked = 0

    @classmethod
    async def open(
        cls,
        connection: ClientConnection,
        console: Console,
        variables: Mapping[str, str],
        *,
        root_way: RootWay | None = None,
    ) -> RemoteShell:
        """Start a shell, root's where the way there is given. Raises NoRootError."""
        nonce = secrets.token_hex(12)
        process = _Told(console)
        shell = cls(process, nonce)
        command = "sh -s" if root_way is None else root_way.command(nonce)
        pty = None
        if root_way is not None and root_way.in_terminal:
            pty = PtyRequest("dumb", TerminalSize(80, 24, 0, 0), _SILENT)
        plan = SessionPlan(command, pty=pty)
        await start_process(connection, plan, process, lambda: None)
        try:
            if root_way is not None:
                await shell._become_root(root_way)
            given = {"xs_nonce": nonce, **variables}
            for name, value in given.items():
                shell._send(f"{name}={shlex.quote(value)}\n")
            shell._send(program_text())
        except BaseException:
            await shell.close()
            raise
        return shell

    async def _become_root(self, way: RootWay) -> None:
        """Answer the questions for a password until the shell behind them speaks."""
        answered = 0
        while "ready" not in self._answers().lines:
            said = bytes(self._process.err) + bytes(self._process.out)
            if way.count_questions(said, self._nonce) > answered and way.ask_password is not None:
                is_left = answered < _PASSWORD_TRIES
                password = await way.ask_password(answered) if is_left else None
                if password is None:
                    raise NoRootError(f"{way.program} was given no password")
                self._process.write(password.encode("utf-8", "surrogateescape") + b"\n")
                answered += 1
                continue
            if self._process.closed.is_set():
                text = said.replace(_prompt(self._nonce).encode(), b"").decode("utf-8", "replace")
                lines = text.strip().splitlines() or [f"{way.program} gave no shell"]
                raise NoRootError(lines[-1].strip(), was_asked=answered > 0)
            await self._wait(SURVEY_DEADLINE)

    async def ask(
        self,
        line: str,
        *,
        deadline: float = SURVEY_DEADLINE,
        seen: Callable[[str], None] = lambda answer: None,
    ) -> Answers:
        """Run a line and return its answers; ``seen`` gets each as it comes.

        Raises SessionError where the shell ends, or takes longer than that.
        """
        self._asked += 1
        end = f"end {self._asked}"
        before = len(self._answers().lines)
        self._send(f"{line}\nsay {end}\n")
        shown = before
        limit = asyncio.get_running_loop().time() + deadline
        while True:
            answers = self._answers()
            for answer in answers.lines[shown:]:
                seen(answer)
            shown = len(answers.lines)
            if end in answers.lines:
                return Answers(answers.lines[before:-1], answers.noise)
            if self._process.closed.is_set():
                said = bytes(self._process.err).decode("utf-8", "replace").strip().splitlines()
                raise SessionError(
                    "xssh: the shell on the server ended before it had answered",
                    evidence=tuple(said[-3:]),
                    remedy="xssh --doctor says what the server does with commands",
                )
            await self._wait(limit - asyncio.get_running_loop().time())

    async def close(self) -> None:
        """End the shell; a step that runs comes to its end there."""
        self._process.write_eof()
        self._process.end()

    def _send(self, text: str) -> None:
        self._process.write(text.encode("utf-8", "surrogateescape"))

    def _answers(self) -> Answers:
        # The last line may not be whole yet.
        whole = bytes(self._process.out).rpartition(b"\n")[0]
        # All of them, for the last one says that it is the last; LIMIT bounds what is kept.
        return read_answers(whole, self._nonce, WHO, most=LIMIT)

    async def _wait(self, seconds: float) -> None:
        self._process.news.clear()
        try:
            await asyncio.wait_for(self._process.news.wait(), max(seconds, 0.01))
        except (TimeoutError, asyncio.TimeoutError):
            raise late_answer() from None


def late_answer() -> SessionError:
    """Return what ends a visit where the server takes too long."""
    return SessionError("xssh: the server takes too long for an answer")
