"""The local side of the chain: is there an X server for this terminal, and may its clients in?

The checks use what a session uses: the same reading of DISPLAY, the same search for the cookie, the
same proof by python-xlib in a child process.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping

from xsshpy.doctor.examination import Check, describe_error
from xsshpy.doctor.findings import Opinion, broken, warning, well
from xsshpy.doctor.local_causes import explain_dead, explain_refused, explain_unset
from xsshpy.doctor.machine import OPENSSH_CLIENT, Machine, describe_install
from xsshpy.errors import DisplayError
from xsshpy.openssh import find_openssh, openssh_environment
from xsshpy.values import dataclass
from xsshpy.x11.authority import FoundCookie, find_authority_files, find_cookie
from xsshpy.x11.display import Display, open_display, parse_display, resolve_addresses
from xsshpy.x11.verify import DisplayProbe, Verdict

PROOF_DEADLINE = 20.0
"""As for a session: XQuartz, started by the proof, takes up to twelve seconds."""
CONNECT_DEADLINE = 15.0
"""How long the X server may take to let a connection in (seconds)."""
_PROGRAM_DEADLINE = 5.0
"""How long a program may take to say what it is asked for (seconds)."""

_FEWEST_FILES = 24
"""Below that neither the proof of the display nor a login goes through (tried)."""

_FEW_FILES = 64


@dataclass
class LocalSide:
    """What the local checks look at, and what they hand on to those behind them."""

    environ: Mapping[str, str]
    machine: Machine
    display: Display | None = None
    found: FoundCookie | None = None
    verdict: Verdict | None = None

    def checks(self) -> list[Check]:
        """Return the checks, each after those it needs."""
        return [
            Check("local.limits", "limits", self._look_at_limits),
            Check(
                "local.openssh", "OpenSSH", self._look_at_openssh, explained_by=("local.limits",)
            ),
            Check("local.display", "DISPLAY", self._look_at_display),
            Check(
                "local.server",
                "X server",
                self._look_at_server,
                needs=("local.display",),
                deadline=CONNECT_DEADLINE + 5.0,
            ),
            Check(
                "local.answer",
                "its answer",
                self._look_at_answer,
                needs=("local.server",),
                deadline=PROOF_DEADLINE + 5.0,
                explained_by=("local.limits",),
            ),
            Check("local.cookie", "cookie", self._look_at_cookie, needs=("local.answer",)),
            Check("local.security", "SECURITY", self._look_at_security, needs=("local.cookie",)),
        ]

    async def _look_at_limits(self) -> Opinion:
        """May this terminal's programs open files and start programs?"""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= files < _FEW_FILES:
            give = broken if files < _FEWEST_FILES else warning
            return give(
                f"a program may have {files} files open at once (ulimit -n)",
                remedy="ulimit -n 1024 in this terminal, or without what lowers it",
            )
        try:
            await _output_of(["true"], self.environ)
        except BlockingIOError:
            most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
            return broken(
                f"no program can be started: {most} processes may run at once (ulimit -u)",
                remedy="end some of them, or raise ulimit -u",
            )
        return well()

    async def _look_at_openssh(self) -> Opinion:
        path = find_openssh(self.environ)
        if path is None:
            return warning(
                "there is no `ssh` on PATH: xssh reads ssh_config by itself, and knows fewer "
                "keywords",
                remedy=describe_install(self.machine.family, OPENSSH_CLIENT),
            )
        version = await _output_of([path, "-V"], openssh_environment(path, self.environ))
        return well(f"{version.partition(',')[0] or 'ssh'}, {path}")

    async def _look_at_display(self) -> Opinion:
        name = self.environ.get("DISPLAY", "")
        if not name:
            newer = await self._newer_display()
            return explain_unset(self.environ, self.machine, newer)
        self.display = parse_display(name, platform=self.machine.platform)
        return well(name)

    async def _look_at_server(self) -> Opinion:
        assert self.display is not None
        try:
            sock = await open_display(self.display, timeout=CONNECT_DEADLINE)
        except DisplayError as error:
            newer = await self._newer_display()
            plain = describe_error(error)
            return explain_dead(self.environ, self.machine, self.display, newer, plain)
        with sock:
            if self.display.host:
                return well(f"{self.display.name} by TCP, as {self.display.host}")
            return well(str(_address_of(sock)))

    async def _newer_display(self) -> str:
        """Return what tmux has as DISPLAY for new windows, where that is another one."""
        if "TMUX" not in self.environ or shutil.which("tmux") is None:
            return ""
        shown = await _output_of(["tmux", "show-environment", "DISPLAY"], dict(self.environ))
        name, _, value = shown.partition("=")
        differs = name == "DISPLAY" and value != self.environ.get("DISPLAY")
        return value if differs and value.isprintable() else ""

    async def _look_at_answer(self) -> Opinion:
        """Does an X server answer? Whether it lets us in is the next check's question."""
        assert self.display is not None
        self.verdict = verdict = await self._prove(self.display)
        if verdict.works:
            assert verdict.facts is not None
            return well(verdict.facts.describe())
        if verdict.refused:
            return well("an X server")
        return broken(verdict.reason, remedy=verdict.remedy)

    async def _prove(self, display: Display) -> Verdict:
        addresses = () if display.is_local else await resolve_addresses(display, timeout=3.0)
        files = find_authority_files(self.environ, os.getuid())
        self.found = find_cookie(display, files, socket.gethostname(), addresses=addresses)
        probe = await DisplayProbe.start(
            display,
            self.found.entry,
            want_untrusted=False,
            untrusted_timeout=0,
            environ=self.environ,
            deadline=PROOF_DEADLINE,
        )
        try:
            verdict = await probe.verdict()
        finally:
            await probe.close()
        assert verdict is not None  # nobody else closes the probe
        return verdict

    async def _look_at_cookie(self) -> Opinion:
        assert self.verdict is not None
        assert self.found is not None
        verdict, found = self.verdict, self.found
        files = ", ".join(found.files) or "no Xauthority file"
        if not verdict.works:
            lines = (*map(_without_name, found.notes), f"looked in: {files}")
            plain = broken(verdict.reason, *lines, remedy=verdict.remedy)
            return explain_refused(self.environ, self.machine, plain)
        if found.notes:
            return warning(*map(_without_name, found.notes))
        if found.entry is None:
            return well("the server asks for none")
        return well(f"MIT-MAGIC-COOKIE-1, from {files}")

    async def _look_at_security(self) -> Opinion:
        assert self.verdict is not None
        if self.verdict.has_security:
            return well("untrusted forwarding (-X) is possible")
        return warning(
            "the X server has no SECURITY extension: X11 is forwarded as trusted, as with -Y",
            remedy="-x for hosts that you would not give your display to",
        )


def _without_name(note: str) -> str:
    return note.removeprefix("xssh: X11: ").strip()


def _address_of(sock: socket.socket) -> str:
    address = sock.getpeername()
    if isinstance(address, bytes):
        return "@" + os.fsdecode(address.lstrip(b"\0"))
    return str(address) if isinstance(address, str) else ":".join(map(str, address[:2]))


async def _output_of(argv: list[str], environ: Mapping[str, str]) -> str:
    """Return the first line that a program prints, to stdout or stderr; empty where it fails.

    Raises BlockingIOError where the system starts no program any more.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environ),
        )
    except BlockingIOError:
        raise
    except OSError:
        return ""
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _PROGRAM_DEADLINE)
    except (TimeoutError, asyncio.TimeoutError):
        process.kill()
        await process.wait()
        return ""
    return said.decode("utf-8", "replace").partition("\n")[0].strip()
