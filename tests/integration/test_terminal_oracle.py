"""The terminal's side of a session beside ssh's own: escapes, help, places of questions."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.unit.pty_child import PtyChild
from xsshpy.terminal.escapes import Data, EscapeParser, help_text

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh to compare with")


class Server:
    """An SSH server in a thread: user ``open`` needs no password, others never get in."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(20)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(server.wait_closed())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        class Login(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return username != "open"

            def password_auth_supported(self) -> bool:
                return True

        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.create_server(
            Login, "127.0.0.1", 0, server_host_keys=[key], process_factory=self._session,
            encoding=None, line_editor=False,
        )  # fmt: skip
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _session(self, process: asyncssh.SSHServerProcess) -> None:
        process.stdout.write(b"ready\r\n")
        while piece := await process.stdin.read(1024):
            self.received += piece
        process.exit(0)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def ssh(server: Server, user: str, *options: str) -> list[str]:
    return [
        *("ssh", "-F", "/dev/null", "-p", str(server.port)),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
        *("-o", "LogLevel=ERROR", "-o", "IdentityFile=none", "-o", "NumberOfPasswordPrompts=1"),
        *("-o", "IgnoreUnknown=EnableEscapeCommandline", "-o", "EnableEscapeCommandline=yes"),
        *(*options, f"{user}@127.0.0.1"),
    ]


def test_help_is_that_of_this_ssh(server: Server, tmp_path: Path) -> None:
    argv = ["sh", "-c", 'exec "$@" 2>&1', "sh", *ssh(server, "open", "-tt", "-e", "%")]
    with PtyChild("", argv=argv, home=tmp_path, std_on_tty=True) as child:
        assert child.line() == "ready\r"
        child.type(b"%?")
        lines = []
        while not lines or "only recognized" not in lines[-1]:
            lines.append(child.line() + "\n")
        child.type(b"%.")
        child.process.wait(20)
    # Newer ones know an escape that is not offered here.
    shown = "".join(line for line in lines if not line.startswith(" %I "))
    assert shown == help_text(ord("%"))


@pytest.mark.parametrize(
    "typed",
    [
        b"~~a\r~~~b\n~q~.",
        b"x~.\r\r~?~~",
        b"~\r~\n~\x00\xff~",
        b"~?~?y~?\r~#z~#",
        b"\xf0\x9f\x8e\x89\r~~\xf0",
    ],
)
def test_ssh_sends_the_same_bytes(server: Server, tmp_path: Path, typed: bytes) -> None:
    server.received.clear()
    argv = ["sh", "-c", 'exec "$@" 2>/dev/null', "sh", *ssh(server, "open", "-tt")]
    with PtyChild("", argv=argv, home=tmp_path, std_on_tty=True) as child:
        assert child.line() == "ready\r"
        child.type(typed + b"END\r")
        deadline = time.monotonic() + 10
        while not server.received.endswith(b"END\r") and time.monotonic() < deadline:
            time.sleep(0.01)
        # Separately: ssh drops what it has not sent yet.
        child.type(b"~.")
        child.process.wait(20)
    events = EscapeParser(ord("~")).feed(typed + b"END\r")
    expected = b"".join(event.data for event in events if isinstance(event, Data))
    assert bytes(server.received) == expected


ASK = """
import asyncio
from xsshpy.console import Console
asyncio.run(Console().ask_secret("password: "))
"""


def place_of_question(argv: list[str], env: dict[str, str], asked: Path, tty: bool) -> str:
    """Say where a program asks its question: at askpass, on the terminal or nowhere."""
    asked.unlink(missing_ok=True)
    if not tty:
        argv = ["setsid", "-w", *argv]
    with PtyChild("", argv=argv, home=asked.parent, env=env) as child:
        seen = b""
        while child.process.poll() is None:
            if select.select([child.master], [], [], 0.02)[0]:
                seen += os.read(child.master, 1000)
                if b"assword:" in seen:
                    return "terminal"
    return "askpass" if asked.exists() else "nowhere"


@pytest.mark.parametrize(
    ("require", "display", "tty"),
    list(itertools.product(["", "force", "Prefer", "never", "bogus"], ["", ":99"], [True, False])),
)
def test_question_is_asked_where_ssh_asks_it(
    server: Server, tmp_path: Path, require: str, display: str, tty: bool
) -> None:
    asked = tmp_path / "asked"
    askpass = tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\n: > {asked}\necho answer\n")
    askpass.chmod(0o755)
    env = {"SSH_ASKPASS": str(askpass), "DISPLAY": display}
    if require:
        env["SSH_ASKPASS_REQUIRE"] = require
    argv = ssh(server, "closed", "-o", "PreferredAuthentications=password", "-x")
    theirs = place_of_question(argv, env, asked, tty)
    ours = place_of_question([sys.executable, "-c", ASK], env, asked, tty)
    assert ours == theirs
