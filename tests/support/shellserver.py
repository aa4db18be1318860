"""An SSH server that isn't OpenSSH: it runs commands by sh, and knows neither X11 nor variables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import asyncssh

from tests.support.asyncserver import AsyncServer, Policy
from tests.support.processes import find_descendants, send_signal

_PATIENCE = 3.0


class ShellServer(AsyncServer):
    """``prefix`` is what it says before the output of each command.

    A session beyond ``most_sessions`` is opened, and its command never starts.
    """

    def __init__(
        self,
        policy: Policy,
        host_key: Path,
        client_key: Path,
        environment: Mapping[str, str],
        *,
        prefix: bytes = b"",
        most_sessions: int = 1000,
    ) -> None:
        self._environment = dict(environment)
        self._prefix = prefix
        self._left = most_sessions
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._processes: list[asyncio.subprocess.Process] = []
        self._served: list[asyncssh.SSHServerProcess[bytes]] = []
        super().__init__(policy, host_key, client_key)

    async def serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run the command of a session to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.log.append(f"command {process.command}")
        self._left -= 1
        if self._left < 0:
            await self._over.wait()
            return
        process.stdout.write(self._prefix)
        child = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", process.command or "true"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )
        self._processes.append(child)
        self._served.append(process)
        await process.redirect(child.stdin, child.stdout, child.stderr)
        process.exit(await child.wait())

    async def _close(self) -> None:
        self._over.set()
        await super()._close()
        for child in self._processes:
            if child.returncode is None:
                for each in find_descendants(child.pid):
                    send_signal(each.pid, 9)
                send_signal(child.pid, 9)
        for task in self._tasks:
            task.cancel()
        waits = [asyncio.ensure_future(child.wait()) for child in self._processes]
        if waits or self._tasks:
            await asyncio.wait([*waits, *self._tasks], timeout=_PATIENCE)
        for child in self._processes:
            child._transport.close()  # type: ignore[attr-defined]
        # asyncssh's waits until all is written: a coroutine that nobody began is complained of.
        for process in self._served:
            for wait in process._cleanup_tasks:
                wait.close()  # type: ignore[attr-defined]
