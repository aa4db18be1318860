"""The server: does it run commands, and by which way may X11 come back from it?

Both ways are tried, whichever a session would take, as each explains what the other one lacks.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from xsshpy.doctor.examination import Check
from xsshpy.doctor.findings import Opinion, broken, warning, well
from xsshpy.doctor.host_checks import HostSide
from xsshpy.doctor.machine import XAUTH, describe_install, read_family
from xsshpy.doctor.probes import Answers, display_command, read_answers, surroundings_command
from xsshpy.ssh.environment import BACKEND_VARIABLE, DEFAULT_BACKEND
from xsshpy.values import dataclass, field
from xsshpy.x11_ways import Way, X11Run, choose_way, prepare_x11

if TYPE_CHECKING:
    from xsshpy.ssh.capture import Captured
    from xsshpy.ssh.session import SessionPlan, X11Request

COMMAND_DEADLINE = 20.0
"""How long a small remote command may take: start files can be slow (seconds)."""

XAUTH_DEADLINE = 40.0
"""A locked Xauthority holds sshd's xauth up for twenty seconds."""

_AGENT_DEADLINE = 30.0


@dataclass
class ServerSide:
    """What the checks of the server look at, and the ways of X11 that they leave open.

    ``variables`` are what a session's command gets by the agent, empty where that does not run;
    ``native_display`` is the DISPLAY that sshd gives.
    """

    host: HostSide
    environ: Mapping[str, str]
    answers: Answers = field(default_factory=lambda: Answers((), ()))
    forwarding: X11Run | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    native_display: str = ""
    _accepts_backend: bool = False
    _agent_evidence: tuple[str, ...] = ()
    _said: list[str] = field(default_factory=list)

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
            ),
            Check(
                "server.acceptenv", "MPLBACKEND", self._look_at_backend, needs=("server.command",)
            ),
            Check("server.home", "home folder", self._look_at_home, needs=("server.command",)),
            Check(
                "x11.wanted",
                "X11 wanted",
                self._look_at_wish,
                needs=("local.cookie", "host.login"),
            ),
            Check(
                "x11.agent",
                "X11 by the agent",
                self._look_at_agent,
                needs=("x11.wanted", "server.command"),
                deadline=_AGENT_DEADLINE,
            ),
            Check(
                "x11.native",
                "X11 by sshd",
                self._look_at_native,
                needs=("x11.wanted", "server.command"),
                deadline=XAUTH_DEADLINE,
            ),
            Check(
                "x11.way",
                "way of X11",
                self._look_at_way,
                needs=("x11.agent", "x11.native"),
            ),
            Check(
                "session.display",
                "DISPLAY there",
                self._look_at_display,
                needs=("x11.way",),
                deadline=COMMAND_DEADLINE,
            ),
        ]

    @property
    def family(self) -> str:
        """The server's distribution, as ``machine.read_family`` names it."""
        if self.answers.first_of("system") == "Darwin":
            return "macos"
        return read_family("\n".join(self.answers.all_of("release")))

    async def close(self) -> None:
        """End what was opened."""
        if self.forwarding is not None:
            await self.forwarding.close()

    async def run(self, plan: SessionPlan) -> Captured:
        """Run a command as a session does. Raises SessionError."""
        from xsshpy.ssh.capture import capture

        session = self.host.session
        assert session is not None
        return await capture(session.connection, plan, self.host.console)

    async def _look_at_software(self) -> Opinion:
        session = self.host.session
        assert session is not None
        version = str(session.connection.get_extra_info("server_version", ""))
        if "OpenSSH" in version:
            return well(version)
        return warning(
            f"{version}: not OpenSSH, so it may know neither X11 nor long commands",
            remedy="OpenSSH's sshd, where windows do not come",
        )

    async def _look_at_commands(self) -> Opinion:
        from xsshpy.ssh.session import SessionPlan

        assert self.host.session is not None
        nonce = secrets.token_hex(8)
        # The variable is asked for by itself here: a session asks where it has a display.
        asked = {BACKEND_VARIABLE: DEFAULT_BACKEND}
        done = await self.run(SessionPlan(surroundings_command(nonce), variables=asked))
        self._accepts_backend = done.grants.backend_accepted
        self.answers = answers = read_answers(done.out, nonce)
        if not answers.has_ended and self.host.session.login.is_command_forced():
            return broken(
                "this key runs a command of its own: command= in authorized_keys",
                remedy="another key for sessions",
            )
        if not answers.has_ended:
            words = (done.out + done.err).decode("utf-8", "replace").splitlines()[:3]
            return broken(
                "the server runs something else than what it is asked for",
                *words,
                remedy="see ForceCommand in sshd_config, and what the login shell's start files do",
            )
        shell = answers.first_of("shell")
        if answers.noise:
            return warning(
                f"{shell} prints this for every command; scp and rsync stumble over it:",
                *answers.noise[:3],
                remedy="print only where there is a terminal: test -t 1 && ... in its start file",
            )
        return well(f"{shell} on {answers.first_of('system')}")

    async def _look_at_backend(self) -> Opinion:
        if self._accepts_backend:
            return well("accepted: AcceptEnv")
        return well("AcceptEnv does not name it, so xssh sets it in the command")

    async def _look_at_home(self) -> Opinion:
        home, state = self.answers.first_of("home"), self.answers.first_of("writable")
        if state == "full":
            return warning(
                f"nothing more can be written to {home}: the disk or the quota is full",
                remedy=f"make room there: df -h {home}",
            )
        if state == "no":
            return warning(
                f"{home} can't be written to, so sshd's X11 has no place for its cookie",
                remedy="--x11 agent, which needs none there",
            )
        locks = self.answers.all_of("lock")
        if locks:
            return warning(
                f"{', '.join(locks)}: a lock that a dead xauth left; each login waits for it",
                remedy=f"rm -f {' '.join(locks)}",
            )
        readonly = self.answers.first_of("readonly")
        if readonly:
            return warning(f"{readonly} can't be written to", remedy=f"chmod u+w {readonly}")
        return well(home)

    async def _look_at_wish(self) -> Opinion:
        settings = self.host.settings
        assert settings is not None
        self.forwarding = await prepare_x11(
            self.host.invocation, settings, self.environ, self.host.console, self._said.append
        )
        if self.forwarding is None:
            return broken(
                "X11 forwarding is off: -x, --x11 off, or ForwardX11 no in ssh_config",
                *self._said,
                remedy="-X for this host, or take ForwardX11 no out",
            )
        return well("as " + ("trusted (-Y)" if settings.forward_x11_trusted else "untrusted (-X)"))

    async def _look_at_agent(self) -> Opinion:
        assert self.forwarding is not None
        if self.forwarding.agent is None:
            return well("not tried: --x11 native")
        reason = await self._start_agent()
        if not reason:
            return well(f"display {self.variables['DISPLAY']}")
        lines = (reason, *self._agent_evidence)
        give = broken if self.forwarding.native is None else warning
        return give(*lines, remedy=self._agent_remedy())

    async def _start_agent(self) -> str:
        """Start the agent; return why it does not run, or nothing."""
        from xsshpy.ssh.agent_channel import open_agent_channel
        from xsshpy.x11.agent import AgentError

        session, forwarding = self.host.session, self.forwarding
        assert session is not None
        assert forwarding is not None
        assert forwarding.agent is not None
        try:
            display = await forwarding.agent.start(
                lambda command, receiver: open_agent_channel(
                    session.connection, command, receiver, session.login.is_command_forced
                ),
                known=True,
            )
        except AgentError as error:
            self._agent_evidence = error.evidence[-2:]
            return error.reason
        self.variables = display.variables
        return ""

    def _agent_remedy(self) -> str:
        if not self.answers.first_of("python"):
            return "a Python 3.6 or later on the server, for the quick way"
        return "xssh -v shows what the remote Python said"

    async def _look_at_native(self) -> Opinion:
        from xsshpy.ssh.session import SessionPlan

        assert self.forwarding is not None
        request = self.forwarding.x11_request()
        if request is None or self.forwarding.native is None:
            return well("not tried: --x11 agent")
        session = self.host.session
        assert session is not None
        session.connection.accept_x11 = self.forwarding.native.accept
        nonce = secrets.token_hex(8)
        done = await self.run(SessionPlan(command=display_command(nonce), x11=request))
        self.native_display = read_answers(done.out, nonce).first_of("display")
        if done.grants.x11 and self.native_display:
            rc = self.answers.all_of("rc")
            if rc:
                return self._native_verdict(
                    f"{rc[0]} is there, so sshd leaves the cookie to it",
                    remedy=f"call xauth in {rc[0]}, as sshd(8) shows under SSHRC",
                )
            return well(f"display {self.native_display}")
        if done.grants.x11:
            return self._native_verdict(
                "granted, and DISPLAY is empty: a start file unsets it, or sshd found no display",
                remedy="AddressFamily inet in sshd_config, where IPv6 is half switched off",
            )
        return self._explain_refusal()

    def _native_verdict(self, *lines: str, remedy: str) -> Opinion:
        """A way that is closed is only a warning where there is another one."""
        assert self.forwarding is not None
        give = broken if self.forwarding.agent is None else warning
        return give(*lines, remedy=remedy)

    def _explain_refusal(self) -> Opinion:
        from xsshpy.x11.refusal import find_reason

        session = self.host.session
        assert session is not None
        said = find_reason(session.login.remote_messages)
        if "xauth" in said.lower() or not self.answers.first_of("xauth"):
            return self._native_verdict(
                said or "refused: there is no xauth on the server",
                remedy=f"{describe_install(self.family, XAUTH)} on the server",
            )
        if "key options" in said:
            return self._native_verdict(
                said, remedy="take no-X11-forwarding or restrict off this key in authorized_keys"
            )
        lines = [
            line
            for line in self.answers.all_of("sshd")
            if re.search(r"(?i)X11Forwarding\s+no|DisableForwarding\s+yes", line)
        ]
        return self._native_verdict(
            said or "the server refuses, and does not say why",
            *lines,
            remedy="X11Forwarding yes in sshd_config on the server, and reload sshd",
        )

    async def _look_at_way(self) -> Opinion:
        way = choose_way(self.host.invocation, self.environ)
        if self.variables:
            return well("the agent: most answers are given on the server itself")
        if self.native_display and way is not Way.AGENT:
            return well("sshd's own channels: each answer takes a round trip")
        return broken(
            "neither the agent nor sshd gives a display; see the two checks above",
            remedy="what the first of them says",
        )

    async def _look_at_display(self) -> Opinion:
        """Does the display reach a program, or does a start file put another in its place?"""
        nonce = secrets.token_hex(8)
        done = await self.run(self.plan(display_command(nonce)))
        answers = read_answers(done.out, nonce)
        found, login = answers.first_of("display"), answers.first_of("login")
        wanted = self.variables.get("DISPLAY", self.native_display)
        if found != wanted and self.variables:
            return broken(
                f"DISPLAY is {found or 'empty'} for programs, where {wanted} was set",
                remedy="look for DISPLAY in the start files of the remote shell",
            )
        if not found:
            return broken(
                "DISPLAY is empty for programs",
                remedy="look for DISPLAY in the start files of the remote shell",
            )
        if login and login != found:
            return warning(
                f"DISPLAY becomes {login} in login shells, where {found} was set",
                remedy="take DISPLAY out of the login shell's start files",
            )
        return self._judge_surroundings(found)

    def _judge_surroundings(self, display: str) -> Opinion:
        stale = self.answers.first_of("tmux").removeprefix("DISPLAY=")
        if stale.startswith("localhost:") and stale != display:
            return warning(
                f"tmux on the server still has DISPLAY={stale}, of another session",
                remedy="in its windows: export DISPLAY and XAUTHORITY as in a new session",
            )
        lines = [display]
        if self.answers.first_of("container"):
            lines.append("the server is a container; programs in others do not see its localhost")
        if self.answers.first_of("slurm"):
            lines.append("Slurm: srun --x11 takes this display along")
        if self.answers.first_of("system") == "Darwin":
            lines.append("a Mac: Tk draws on its own screen; take Qt or --backend QtAgg")
        return well(*lines)

    def plan(self, command: str, backend: str | None = None) -> SessionPlan:
        """Return the plan of a command that has the display a session would have."""
        from xsshpy.ssh.session import SessionPlan

        request: X11Request | None = None
        if not self.variables and self.forwarding is not None:
            request = self.forwarding.x11_request()
        variables = self.variables

        async def have_display() -> Mapping[str, str] | None:
            return variables or None

        return SessionPlan(
            command=command,
            x11=request,
            backend=backend,
            start_agent=have_display if variables else None,
        )
