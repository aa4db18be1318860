"""ssh beside xssh: the same command line for both, and the same result wanted.

xssh adds one thing to ssh's words: a last line that says what to do, ``  try: …``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.asyncserver import AsyncServer
from tests.support.clients import ClientHome
from tests.support.processes import Completed, run, xssh_command
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal

PROGRAMS = {"ssh": ["ssh"], "xssh": xssh_command()}
Step = tuple[str, str | bytes]


def without_remedy(text: str) -> str:
    """Return messages with plain line ends and without the lines that only xssh has."""
    return re.sub(r"^(  try|xssh): .*\n", "", text.replace("\r", ""), flags=re.MULTILINE)


def alike(text: str) -> str:
    """Return words of ssh's, or of xssh's, in one form for what its releases have in several."""
    for pattern, general in (
        # Debian's own line.
        (r"""(ssh-keygen -f )["']([^"']*)["'] -R ["']([^"']*)["']""", r"\1'\2' -R '\3'"),
        (r"(fingerprint is):? ((?:SHA256|MD5):\S+?)\.?(\r?\n)", r"\1 \2\3"),  # 10.1
        # ~# in 9.6 to 10.5.
        (r"\[session:\w+\]", "[session]"),
        (r"\[tun-connection\]", "[tun]"),
        (r" nm\d+", ""),
        (r" nc\d+( io \S+) \w+\)", r"\1)"),
    ):
        text = re.sub(pattern, general, text)
    return text


class Beside:
    """Both programs in one HOME; ``server`` is the name of its server. X11 stays off."""

    def __init__(
        self,
        home: ClientHome,
        server: SshServer | AsyncServer,
        spawn: Callable[..., Terminal],
        *,
        extra: str = "",
        known: bool = True,
    ) -> None:
        self.home = home
        self.server = server
        self._spawn = spawn
        home.add(server, extra=extra, known=known)  # type: ignore[arg-type]  # the same shape
        self.variables: dict[str, str] = {}

    def forget_keys(self) -> None:
        """Take the client's key out of the configuration."""
        text = self.home.config.read_text()
        self.home.config.write_text(re.sub(r"  Identit.*\n", "", text))

    def argv(self, program: str, words: Sequence[str]) -> list[str]:
        return [*PROGRAMS[program], *self.home.arguments, "-x", *words]

    def environment(self) -> dict[str, str]:
        return {**self.home.environment(), **self.variables}

    def run(self, program: str, *words: str, stdin: bytes = b"", timeout: float = 30) -> Completed:
        """Run one of the two without a terminal."""
        done = run(self.argv(program, words), env=self.environment(), stdin=stdin, timeout=timeout)
        return done._replace(stderr=done.stderr.replace("\r\n", "\n"))

    def both(
        self, *words: str, stdin: bytes = b"", before: Callable[[], object] = lambda: None
    ) -> Completed:
        """Run both, want the same status, output and messages; return xssh's.

        ``before`` puts things back before each. What an AsyncServer logged has to agree too.
        """
        before()
        expected, logged = self._logged("ssh", words, stdin)
        before()
        found, ours = self._logged("xssh", words, stdin)
        same = found._replace(stderr=alike(without_remedy(found.stderr)))
        expected = expected._replace(stderr=alike(expected.stderr))
        assert same == expected, f"\nxssh: {found}\nssh:  {expected}"
        assert ours == logged, f"\nxssh: {ours}\nssh:  {logged}"
        return found

    def _logged(
        self, program: str, words: Sequence[str], stdin: bytes
    ) -> tuple[Completed, list[str]]:
        if isinstance(self.server, AsyncServer):
            self.server.log.clear()
        done = self.run(program, *words, stdin=stdin)
        return done, self.requests()

    def requests(self) -> list[str]:
        """Return what the AsyncServer was asked."""
        if not isinstance(self.server, AsyncServer):
            return []
        return [line for line in self.server.log if "connection" not in line]

    def converse(
        self, program: str, words: Sequence[str], steps: Sequence[Step], *, status: bool = True
    ) -> Terminal:
        """Start one of the two in a terminal and answer what it asks."""
        if isinstance(self.server, AsyncServer):
            self.server.log.clear()
        terminal = self._spawn(self.argv(program, words), env=self.environment())
        for wait, answer in steps:
            terminal.read_until(wait)
            terminal.write(answer)
        if status:
            terminal.wait()
        return terminal

    def converse_both(
        self,
        words: Sequence[str],
        steps: Sequence[Step],
        *,
        before: Callable[[], object] = lambda: None,
    ) -> Terminal:
        """Let both be asked the same and want the same to be shown; return xssh's terminal."""
        before()
        expected = self.converse("ssh", words, steps)
        logged = self.requests()
        before()
        found = self.converse("xssh", words, steps)
        shown = alike(without_remedy(found.output.decode()))
        wanted = alike(expected.output.decode().replace("\r", ""))
        assert shown == wanted, f"\nxssh: {shown}\nssh:  {wanted}"
        assert found.process.returncode == expected.process.returncode
        assert found.is_restored and expected.is_restored
        assert self.requests() == logged
        return found


def write_askpass(directory: Path, answers: Sequence[str]) -> tuple[Path, Path]:
    """Write an askpass program that gives these answers in turn; return it and its record."""
    program, record = directory / "askpass", directory / "asked"
    cases = "\n".join(f"  {number}) echo {answer!r};;" for number, answer in enumerate(answers))
    program.write_text(
        f'#!/bin/sh\necho "$1" >> {record}\n'
        f'n=$(grep -c "" {directory}/turn 2>/dev/null); echo >> {directory}/turn\n'
        f"case ${{n:-0}} in\n{cases}\n  *) exit 1;;\nesac\n"
    )
    program.chmod(0o755)
    return program, record
