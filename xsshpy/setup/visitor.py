"""Who visits a server for setup: the shells there, the questions here, the steps one by one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xsshpy.console import Console, sanitise
from xsshpy.setup.facts import Rights, ServerFacts
from xsshpy.setup.shell import STEP_DEADLINE, AskPassword, NoRootError, RemoteShell, RootWay

if TYPE_CHECKING:
    from xsshpy.settings import Invocation
    from xsshpy.ssh.connect import Session


_DOAS_TRIES = 3


def write(*lines: str) -> None:
    """Put lines of the report out."""
    for line in lines:
        sys.stdout.write(sanitise(line) + "\n")
    sys.stdout.flush()


class Visitor:
    """One visit. ``user`` is the login's shell; ``root`` root's, where there is one by now."""

    def __init__(
        self, invocation: Invocation, session: Session, console: Console, user: RemoteShell
    ) -> None:
        self.invocation = invocation
        self.session = session
        self.console = console
        self.user = user
        self.root: RemoteShell | None = None
        self.why_no_root = ""

    async def close(self) -> None:
        """End the shells."""
        for shell in (self.root, self.user):
            if shell is not None:
                await shell.close()

    @property
    def host(self) -> str:
        """The server, as it was typed."""
        return self.invocation.destination

    async def become_root(self, facts: ServerFacts, *, may_ask: bool) -> None:
        """Get root's shell where the login's rights allow; else ``why_no_root`` says why not."""
        if facts.rights is Rights.ROOT:
            self.root = self.user
            return
        by = facts.root_by
        asks = facts.rights is Rights.PASSWORD
        if facts.rights is Rights.NONE or (asks and not may_ask):
            self.why_no_root = f"{by} asks for a password" if asks else ""
            return
        for again in range(_DOAS_TRIES):
            ask = self._password_question(facts, again) if asks else None
            way = RootWay(by, facts.root_in_terminal, ask)
            try:
                self.root = await RemoteShell.open(
                    self.session.connection, self.console, facts.variables, root_way=way
                )
            except NoRootError as error:
                self.why_no_root = error.message
                # sudo asks again by itself.
                if by == "doas" and error.was_asked and "uthentication" in error.message:
                    continue
            return

    def _password_question(self, facts: ServerFacts, before: int) -> AskPassword:
        async def ask(again: int) -> str | None:
            if before + again:
                self.console.error("Sorry, try again.")
            by = facts.root_by
            return await self.console.ask_secret(f"[{by}] password for {facts.user}@{self.host}: ")

        return ask

    async def may(self, question: str) -> bool:
        """Ask for a yes; --yes is one. Nobody to ask is a no, and says so."""
        if self.invocation.yes:
            return True
        answer = await self.console.ask_line(f"{question} [y/N] ")
        if answer is None:
            write("There is nobody to ask: --yes does it without.")
        return answer is not None and answer.strip().lower() in ("y", "yes")

    async def do(
        self, shell: RemoteShell, calls: Sequence[tuple[str, str]]
    ) -> list[tuple[bool, str]]:
        """Run calls with their descriptions one by one; report each, and return how it went.

        Raises SessionError where the connection ends meanwhile.
        """
        outcome = []
        for call, description in calls:
            answers = await shell.ask(call, deadline=STEP_DEADLINE, seen=self._show_wait)
            is_done = bool(answers.all_of("done"))
            outcome.append((is_done, description))
            if is_done:
                write(f"  done    {description}")
                continue
            failed = answers.first_of("failed").partition(" ")[2]
            write(f"  failed  {description}: {failed or 'the server did not say why'}")
            write(*(f"          {line}" for line in answers.all_of("said")))
        return outcome

    def _show_wait(self, answer: str) -> None:
        """Say what a long step is at: it may wait for another one's lock, or for the network."""
        name, _, rest = answer.partition(" ")
        seconds, _, said = rest.partition(" ")
        if name == "still":
            self.console.notice(f"  {seconds} s: {said.strip() or 'nothing was said so far'}")
