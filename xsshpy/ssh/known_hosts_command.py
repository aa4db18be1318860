"""KnownHostsCommand: a program of the user's that prints known_hosts lines (ssh_config(5)).

It is started directly, never by a shell: the configured line is split into words first and its
tokens are replaced afterwards, so that nothing a server sends can become another word. It has
nothing on stdin and a limited time and output; if it fails, so does the run.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from xsshpy.console import Console
from xsshpy.errors import HostKeyError, SettingsError
from xsshpy.pipes import read_limited
from xsshpy.settings import Settings, connection_tokens
from xsshpy.ssh.keyblob import HostCertificate, HostKey
from xsshpy.ssh.known_hosts import MAX_FILE_BYTES
from xsshpy.values import dataclass

DEADLINE: Final = 60.0
"""Seconds that the program may take."""

_TOKENS: Final = frozenset("%CLiklnpdhru")
_TOKENS_OF_9_6: Final = _TOKENS | {"j"}
_FAILED: Final = "KnownHostsCommand failed"
_ESCAPABLE: Final = ("'", '"', "\\")


class QuotesError(ValueError):
    """A line of words ends inside quotes."""


def split_words(line: str) -> list[str]:
    """Split a line as ssh splits its configuration: blanks, two kinds of quotes, backslashes.

    Raises QuotesError.
    """
    words: list[str] = []
    at = 0
    while at < len(line):
        if line[at] in " \t":
            at += 1
            continue
        word, at = _read_word(line, at)
        words.append(word)
    return words


def _read_word(line: str, at: int) -> tuple[str, int]:
    word: list[str] = []
    quote = ""
    while at < len(line):
        letter, following = line[at], line[at + 1 : at + 2]
        if letter == "\\" and following in (_ESCAPABLE if quote else (*_ESCAPABLE, " ")):
            word.append(following)
            at += 1
        elif not quote and letter in " \t":
            break
        elif not quote and letter in "'\"":
            quote = letter
        elif quote and letter == quote:
            quote = ""
        else:
            word.append(letter)
        at += 1
    if quote:
        raise QuotesError(line)
    return "".join(word), at


def join_words(words: Sequence[str]) -> str:
    """Return words as one line for people to read, quoted as ssh quotes it."""
    line = []
    for word in words:
        escaped = re.sub(r"([\\'\"])", r"\\\1", word)
        line.append(f'"{escaped}"' if " " in word or "\t" in word else escaped)
    return " ".join(line)


@dataclass(frozen=True)
class Occasion:
    """What the program is run for: ``purpose`` is %I, ``name`` %H.

    ``key`` is what the server showed, and ``blob`` the same as it was sent.
    """

    purpose: str
    name: str
    key: HostKey | HostCertificate | None = None
    blob: bytes = b""

    @property
    def tag(self) -> str:
        """What stands for a file's name in messages about the lines it printed."""
        return f"KnownHostsCommand-{self.purpose}"


class KnownHostsCommand:
    """The command of one connection's settings; there is none where it is not configured."""

    def __init__(self, settings: Settings, console: Console, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._console = console
        self._environ = environ
        self._line = settings.known_hosts_command

    def __bool__(self) -> bool:
        """Tell whether there is a command to run."""
        return bool(self._line)

    async def read(self, occasion: Occasion) -> bytes:
        """Run the program and return what it printed; nothing where it can't be started.

        Raises HostKeyError where it failed, and SettingsError for a token that does not exist.
        """
        try:
            words = split_words(self._line)
        except QuotesError:
            self._console.error(f'{occasion.tag} "{self._line}" contains invalid quotes')
            return b""
        if not words:
            self._console.error(f'{occasion.tag} "{self._line}" yielded no arguments')
            return b""
        argv = [words[0], *self._expand(words[1:], occasion)]
        if not argv[0].startswith("/"):
            self._console.error(f"{occasion.tag} path is not absolute")
            return b""
        return await self._run(argv, occasion)

    def _expand(self, words: Sequence[str], occasion: Occasion) -> list[str]:
        """Replace tokens and variables in one go: what they hold is no place for others."""
        tokens = self._tokens(occasion)

        def replace(match: re.Match[str]) -> str:
            variable, token = match.groups()
            values = tokens if variable is None else self._environ
            if (token if variable is None else variable) in values:
                return values[token if variable is None else variable]
            problem = f"unknown key %{token}"
            if variable is not None:
                problem = f"the variable ${{{variable}}} is not set"
            raise SettingsError(f"xssh: KnownHostsCommand: {problem}")

        return [re.sub(r"\$\{(\w+)\}|%(.?)", replace, word, flags=re.DOTALL) for word in words]

    def _tokens(self, occasion: Occasion) -> dict[str, str]:
        everywhere = connection_tokens(self._settings)
        known = _TOKENS_OF_9_6 if self._settings.release >= (9, 6) else _TOKENS
        tokens = {name: value for name, value in everywhere.items() if name in known}
        tokens.update(H=occasion.name, I=occasion.purpose, t="NONE", f="NONE", K="NONE")
        key = occasion.key
        if key is not None:
            fingerprint = key.plain.fingerprint(self._settings.fingerprint_hash)
            blob = base64.b64encode(occasion.blob).decode("ascii")
            tokens.update(t=key.algorithm, f=fingerprint, K=blob)
        return tokens

    async def _run(self, argv: Sequence[str], occasion: Occasion) -> bytes:
        shown = join_words(argv)
        self._console.debug(3, f'{occasion.tag} command "{shown}"')
        readable, writable = os.pipe()
        try:
            try:
                process = await _start(argv, writable)
            except OSError as error:
                return self._explain_start(error, argv[0], shown, occasion)
            finally:
                os.close(writable)
            output = await self._read(process, readable, shown, occasion)
        finally:
            os.close(readable)
        status = process.returncode or 0
        if status < 0:
            self._console.error(f"{occasion.tag} {shown} exited on signal {-status}")
            raise HostKeyError(_FAILED)
        if status > 0:
            raise self._failure(occasion, shown, f"failed, status {status}")
        return output

    async def _read(
        self, process: asyncio.subprocess.Process, fd: int, shown: str, occasion: Occasion
    ) -> bytes:
        """Return all that the process prints, once it has ended by itself."""

        async def read() -> bytes:
            output = await read_limited(fd, MAX_FILE_BYTES + 1)
            if len(output) > MAX_FILE_BYTES:
                raise self._failure(occasion, shown, f"printed more than {MAX_FILE_BYTES} bytes")
            await process.wait()
            return output

        try:
            return await asyncio.wait_for(read(), DEADLINE)
        except (TimeoutError, asyncio.TimeoutError):
            problem = f"did not end within {DEADLINE:.0f} seconds"
            raise self._failure(occasion, shown, problem) from None
        finally:
            await _end(process)

    def _explain_start(self, error: OSError, path: str, shown: str, occasion: Occasion) -> bytes:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if not os.path.exists(path):
            self._console.error(f'Could not stat {occasion.tag} "{path}": {reason}')
            return b""
        self._console.error(f'{occasion.tag} execv "{shown}": {reason}')
        raise self._failure(occasion, shown, "failed, status 127")

    def _failure(self, occasion: Occasion, shown: str, problem: str) -> HostKeyError:
        self._console.notice(f"{occasion.tag} {shown} {problem}")
        return HostKeyError(_FAILED, remedy="run that command by hand and see what it says")


async def _start(argv: Sequence[str], stdout: int) -> asyncio.subprocess.Process:
    # Shielded: a start that is broken off half way collects the child's status, and asyncio, which
    # then misses it, says so aloud.
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL, stdout=stdout)
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    # Not Process.kill(): it may reap the process, which asyncio's watcher then misses aloud.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
