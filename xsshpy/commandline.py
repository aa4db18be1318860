"""The command line of the ``~C`` escape: asks ``ssh> `` on the terminal and does what is typed.

Forwards are opened and cancelled while the session goes on. What is said is said in ssh's words.
What ssh does not tell is told here: that the server refused to listen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from xsshpy.console import Console
from xsshpy.settings import Settings

if TYPE_CHECKING:
    from xsshpy.ssh.forward import Forwarder

PROMPT = "\r\nssh> "


class CommandLine:
    """What ``~C`` opens, for one session."""

    def __init__(
        self,
        settings: Settings,
        console: Console,
        forwarder: Forwarder,
        environ: Mapping[str, str],
    ) -> None:
        self._console = console
        self._forwarder = forwarder
        self._environ = environ
        self.is_enabled = settings.keywords.get("enableescapecommandline") == ("yes",)
        self._permits_local_command = settings.keywords.get("permitlocalcommand") == ("yes",)

    async def ask_and_obey(self) -> None:
        """Ask for one command and carry it out. The terminal must not be raw."""
        from xsshpy.ssh import forward_command as commands

        line = await self._console.ask_line(PROMPT)
        permitted = self._permits_local_command
        command = commands.parse_command(line or "", self._environ, permits_local_command=permitted)
        if isinstance(command, commands.ShowHelp):
            for text in commands.help_lines(permits_local_command=permitted):
                self._console.notice(text)
        elif isinstance(command, commands.RunLocally):
            await run_local_command(command.command, self._console)
        elif isinstance(command, commands.Refused):
            if command.error:
                self._console.error(command.error)
            self._console.notice(command.reason)
        elif isinstance(command, commands.CancelForward):
            found = self._forwarder.cancel(command.kind, command.listen)
            self._console.notice("Canceled forwarding." if found else "Unknown port forwarding.")
        elif isinstance(command, commands.AddForward):
            opened = await self._forwarder.add(command.forward)
            self._console.notice("Forwarding port." if opened else "Port forwarding failed.")


async def run_local_command(command: str, console: Console) -> None:
    """Run a command of the user's shell on this machine, and wait for its end.

    An empty one is none. What it returns is of no consequence, as with ssh.
    """
    if not command:
        return
    shell = os.environ.get("SHELL") or "/bin/sh"
    console.debug(3, f'Executing {shell} -c "{command}"')
    try:
        process = await asyncio.create_subprocess_exec(shell, "-c", command)
    except OSError as error:
        console.error(f'Couldn\'t execute {shell} -c "{command}": {error.strerror or error}')
        return
    await process.wait()
