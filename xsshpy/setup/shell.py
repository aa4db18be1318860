"""A shell on the other host that setup talks to: ``sh -s`` on one channel, answers line by line.

Nothing of what is sent stands in a command line, so no length or quoting of the login shell's
limits it, and a sudo password goes to sudo's own question and nowhere else: it is sent only when
sudo has asked with this session's nonce, and what follows only when the shell behind it has spoken.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources

from xsshpy.console import Console
from xsshpy.doctor.probes import Answers, read_answers
from xsshpy.errors import SessionError
from xsshpy.ssh.capture import CapturedProcess
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.session import SessionPlan, start_process

WHO = "xssh-setup"
SURVEY_DEADLINE = 30.0
"""How long looking around may take (seconds)."""

STEP_DEADLINE = 1800.0
"""How long one step may take: a package manager on a slow line (seconds)."""

_PASSWORD_TRIES = 3
AskPassword = Callable[[int], Awaitable[str | None]]
"""Asks for sudo's password; the argument counts from 0. None gives up."""


class NoRootError(SessionError):
    """sudo gave no shell; the message says why."""


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
        ask_password: AskPassword | None = None,
        with_sudo: bool = False,
    ) -> RemoteShell:
        """Start a shell, as root where sudo is asked for. Raises NoRootError."""
        nonce = secrets.token_hex(12)
        process = _Told(console)
        shell = cls(process, nonce)
        command = "sh -s"
        if with_sudo:
            started = f"sh -c 'echo {WHO} {nonce} ready; exec sh -s'"
            prompt = "-n" if ask_password is None else f"-S -p {WHO}-{nonce}-password"
            command = f"sudo {prompt} {started}"
        await start_process(connection, SessionPlan(command), process, lambda: None)
        try:
            if with_sudo:
                await shell._pass_sudo(ask_password)
            program = resources.files("xsshpy.setup").joinpath("program.sh").read_text("utf-8")
            given = {"xs_nonce": nonce, **variables}
            for name, value in given.items():
                shell._send(f"{name}={shlex.quote(value)}\n")
            shell._send(program)
        except BaseException:
            await shell.close()
            raise
        return shell

    async def _pass_sudo(self, ask_password: AskPassword | None) -> None:
        """Answer sudo's questions until the shell behind it speaks."""
        prompt = f"{WHO}-{self._nonce}-password".encode()
        answered = 0
        while "ready" not in self._answers().lines:
            asked = bytes(self._process.err).count(prompt)
            if asked > answered and ask_password is not None:
                password = await ask_password(answered) if answered < _PASSWORD_TRIES else None
                if password is None:
                    raise NoRootError("sudo was given no password")
                self._process.write(password.encode("utf-8", "surrogateescape") + b"\n")
                answered += 1
                continue
            if self._process.closed.is_set():
                said = bytes(self._process.err).replace(prompt, b"").decode("utf-8", "replace")
                lines = said.strip().splitlines()
                raise NoRootError(lines[-1] if lines else "sudo gave no shell")
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
        return read_answers(whole, self._nonce, WHO)

    async def _wait(self, seconds: float) -> None:
        self._process.news.clear()
        try:
            await asyncio.wait_for(self._process.news.wait(), max(seconds, 0.01))
        except (TimeoutError, asyncio.TimeoutError):
            raise SessionError("xssh: the server takes too long for an answer") from None
