"""The server: what it is, and what it does with commands, sessions, variables and files."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from xsshpy.doctor.examination import Check
from xsshpy.doctor.findings import Opinion, broken, warning, well
from xsshpy.doctor.host_checks import HostSide
from xsshpy.doctor.machine import read_family
from xsshpy.doctor.probes import Answers, read_answers, surroundings_command
from xsshpy.doctor.server_causes import (
    explain_broken_off,
    explain_unwritable,
    has_starved,
)
from xsshpy.ssh.environment import BACKEND_VARIABLE, DEFAULT_BACKEND
from xsshpy.values import dataclass, field
from xsshpy.x11_ways import Way, choose_way

if TYPE_CHECKING:
    from xsshpy.ssh.capture import Captured
    from xsshpy.ssh.session_plan import SessionPlan

_Result = TypeVar("_Result")

_SETTLING = 2.0
"""Seconds after a session's end in which the server may refuse the next one for it."""
_PAUSE = 0.05

COMMAND_DEADLINE = 20.0
"""How long a small remote command may take: start files can be slow (seconds)."""


@dataclass
class ServerSide:
    """What the checks of the server look at, and what they found out.

    ``answers`` are those about its surroundings. ``accepts_backend``: MPLBACKEND may be sent
    as a variable. ``has_one_session``: the server allows no second one beside (MaxSessions 1).
    """

    host: HostSide
    environ: Mapping[str, str]
    answers: Answers = field(default_factory=lambda: Answers((), ()))
    accepts_backend: bool = False
    has_one_session: bool = False
    _gives_terminal: bool | None = None
    _running: set[asyncio.Event] = field(default_factory=set)
    _last_end: float = 0.0

    def checks(self) -> list[Check]:
        """Return the checks, each after those it needs."""
        return [
            Check("server.software", "server", self._look_at_software, needs=("host.login",)),
            Check(
                "server.command",
                "commands",
                self._look_at_commands,
                needs=("host.login",),
                deadline=COMMAND_DEADLINE,
                late="see what the login shell's start files on the server wait for",
            ),
            Check("server.sessions", "sessions", self._look_at_sessions, needs=("server.command",)),
            Check(
                "server.acceptenv", "MPLBACKEND", self._look_at_backend, needs=("server.command",)
            ),
            Check("server.home", "home folder", self._look_at_home, needs=("server.command",)),
        ]

    @property
    def family(self) -> str:
        """The server's distribution, as ``machine.read_family`` names it."""
        if self.answers.first_of("system") == "Darwin":
            return "macos"
        return read_family("\n".join(self.answers.all_of("release")))

    @property
    def way(self) -> Way:
        """The way of X11 that the user wants."""
        return choose_way(self.host.invocation, self.environ)

    async def run(self, plan: SessionPlan) -> Captured:
        """Run a command as a session does, see ``patiently``. Raises SessionError."""
        from xsshpy.ssh.capture import capture

        session = self.host.session
        assert session is not None
        return await self.patiently(lambda: capture(session.connection, plan, self.host.console))

    async def patiently(self, start: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do what opens a session; where the server allows but a few, one after another."""
        from xsshpy.ssh.agent_channel import NoSecondSessionError
        from xsshpy.ssh.session import ChannelRefusedError

        clock = asyncio.get_running_loop().time
        while True:
            ended, begun = asyncio.Event(), clock()
            self._running.add(ended)
            try:
                result = await start()
            except (ChannelRefusedError, NoSecondSessionError):
                # The server takes a moment to be through with one that has ended.
                if len(self._running) == 1 and begun - self._last_end > _SETTLING:
                    raise
            else:
                self._last_end = clock()
                return result
            finally:
                ended.set()
                self._running.discard(ended)
            others = [asyncio.ensure_future(other.wait()) for other in self._running]
            if others:
                await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
                for other in others:
                    other.cancel()
            await asyncio.sleep(_PAUSE)

    @property
    def software(self) -> str:
        """What the server says it is."""
        session = self.host.session
        assert session is not None
        return str(session.connection.get_extra_info("server_version", ""))

    async def _look_at_software(self) -> Opinion:
        version = self.software
        if "OpenSSH" in version:
            return well(version)
        return warning(
            f"{version}: not OpenSSH, so it may not know X11",
            remedy="OpenSSH's sshd, where windows do not come",
        )

    async def _look_at_commands(self) -> Opinion:
        from xsshpy.ssh.session_plan import SessionPlan

        assert self.host.session is not None
        nonce = secrets.token_hex(8)
        # The variable is asked for by itself here: a session asks where it has a display.
        asked = {BACKEND_VARIABLE: DEFAULT_BACKEND}
        plan = SessionPlan(surroundings_command(nonce), variables=asked)
        done, _ = await asyncio.gather(self.run(plan), self._try_second_session())
        self.accepts_backend = done.grants.backend_accepted
        self.answers = answers = read_answers(done.out, nonce)
        if not answers.has_ended and self.host.session.login.is_command_forced():
            return broken(
                "this key runs a command of its own: command= in authorized_keys",
                remedy="another key for sessions",
            )
        if not answers.has_ended:
            words = (done.out + done.err).decode("utf-8", "replace").splitlines()[:3]
            messages = done.err.decode("utf-8", "replace")
            if answers.lines or has_starved(messages):
                return explain_broken_off(answers, messages)
            return broken(
                "the server runs something else than what it is asked for",
                *words,
                remedy="see ForceCommand in sshd_config, and what the login shell is and does",
            )
        shell = answers.first_of("shell")
        if answers.noise:
            return warning(
                f"{shell} prints this for every command; scp and rsync stumble over it:",
                *answers.noise[:3],
                remedy="print only where there is a terminal: test -t 1 && ... in its start file",
            )
        return well(f"{shell} on {answers.first_of('system')}")

    async def _try_second_session(self) -> None:
        """See whether the server lets one run beside another, and gives it a terminal.

        A terminal is asked for where the user's session would have one. A key with a command of
        its own runs that once, and not again for this.
        """
        from xsshpy.ssh.capture import capture
        from xsshpy.ssh.session import PTY_REQUEST, ChannelRefusedError, RequestRefusedError
        from xsshpy.ssh.session_plan import PtyRequest, SessionPlan
        from xsshpy.terminal.tty import TerminalSize

        session, settings = self.host.session, self.host.settings
        assert session is not None
        assert settings is not None
        if session.login.is_command_forced():
            return
        wanted = {"no": False, "auto": not self.host.invocation.command}
        pty = None
        if wanted.get(settings.request_tty, True):
            pty = PtyRequest("dumb", TerminalSize(80, 24, 0, 0), {}, required=True)
        try:
            await capture(session.connection, SessionPlan(":", pty=pty), self.host.console)
            self._gives_terminal = pty is not None or None
        except ChannelRefusedError:
            self.has_one_session = True
        except RequestRefusedError as error:
            self._gives_terminal = False if error.request == PTY_REQUEST else None

    async def _look_at_sessions(self) -> Opinion:
        if self.has_one_session:
            give = broken if self.way is Way.AGENT else warning
            return give(
                "the server allows one session at a time on a connection: MaxSessions 1",
                remedy="MaxSessions 10 in sshd_config on the server; till then --x11 native",
            )
        if self._gives_terminal is False:
            return warning(
                "the server gives no terminal: PermitTTY no, or no-pty or restrict of this key",
                remedy="give a command, or PermitTTY yes in sshd_config on the server",
            )
        return well("one beside another" + (", with a terminal" if self._gives_terminal else ""))

    async def _look_at_backend(self) -> Opinion:
        if self.accepts_backend:
            return well("accepted: AcceptEnv")
        return well("AcceptEnv does not name it, so xssh sets it in the command")

    async def _look_at_home(self) -> Opinion:
        """A cookie that sshd can't put down is a closed way only where there is no other."""
        home, state = self.answers.first_of("home"), self.answers.first_of("writable")
        give = broken if self.way is Way.NATIVE else warning
        if self.answers.first_of("nohome"):
            return give(
                f"there is no home folder {home} on the server",
                remedy=f"sudo mkdir {home} there, and chown it to the account",
            )
        if state in ("full", "no"):
            evidence, remedy = explain_unwritable(home, state, self.answers.first_of("write"))
            return give(evidence, remedy=remedy)
        locks = self.answers.all_of("lock")
        if locks:
            return give(
                f"{', '.join(locks)}: a lock that a dead xauth left; each login waits for it",
                remedy=f"rm -f {' '.join(locks)}",
            )
        readonly = self.answers.first_of("readonly")
        if readonly:
            return give(
                f"{readonly} can't be written to, so sshd's X11 has no place for its cookie",
                remedy=f"ls -l {readonly} shows whose it is; rm -f {readonly}: the next login "
                "makes a new one",
            )
        return well(home)
