"""X11 on the way back: by the agent, by the server, and as the programs there see it.

Both ways are tried, whichever a session would take, as each explains what the other one lacks.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from xsshpy.doctor.examination import Check
from xsshpy.doctor.findings import Opinion, broken, warning, well
from xsshpy.doctor.machine import XAUTH, describe_install
from xsshpy.doctor.probes import Answers, display_command, read_answers
from xsshpy.doctor.server_checks import COMMAND_DEADLINE, ServerSide
from xsshpy.values import dataclass, field
from xsshpy.x11_ways import Way, X11Run, is_spoken_over, opens_no_session, prepare_x11

if TYPE_CHECKING:
    from xsshpy.settings import Settings
    from xsshpy.ssh.session_plan import SessionPlan, X11Request
    from xsshpy.x11.agent import AgentChannel, AgentReceiver

XAUTH_DEADLINE = 40.0
"""A locked Xauthority holds sshd's xauth up for twenty seconds."""

_AGENT_DEADLINE = 45.0
"""More than the agent's own deadlines together, which say what it was that took too long."""

_MARGIN = 5.0
"""How much longer the check may take than sshd's xauth, so that it can say so itself (seconds)."""

_LOADER_ERROR = re.compile(r"symbol lookup error|loading shared libraries|undefined symbol")


@dataclass
class X11Side:
    """What the checks of X11 look at, and the ways that they leave open.

    ``variables`` are what a session's command gets by the agent, empty where that does not run;
    ``native_display`` is the DISPLAY that sshd gives; ``seen`` is what programs see.
    """

    server: ServerSide
    forwarding: X11Run | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    native_display: str = ""
    seen: Answers = field(default_factory=lambda: Answers((), ()))
    _agent_evidence: tuple[str, ...] = ()
    _said: list[str] = field(default_factory=list)

    def checks(self) -> list[Check]:
        """Return the checks, each after those it needs."""
        return [
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
                # One that takes no cookie holds xauth up for seconds, and says why itself.
                needs=("x11.wanted", "server.home"),
                deadline=XAUTH_DEADLINE + _MARGIN,
            ),
            Check(
                "x11.way",
                "way of X11",
                self._look_at_way,
                needs=("x11.agent", "x11.native"),
                explained_by=("server.sessions",),
            ),
            Check(
                "session.display",
                "DISPLAY there",
                self._look_at_display,
                needs=("x11.way",),
                deadline=COMMAND_DEADLINE,
            ),
        ]

    async def close(self) -> None:
        """End what was opened."""
        if self.forwarding is not None:
            await self.forwarding.close()

    async def _look_at_wish(self) -> Opinion:
        settings = self.server.host.settings
        assert settings is not None
        self.forwarding = await prepare_x11(
            self.server.host.invocation,
            settings,
            self.server.environ,
            self.server.host.console,
            self._said.append,
        )
        if self.forwarding is None:
            return self._explain_no_wish(settings)
        return well("as " + ("trusted (-Y)" if settings.forward_x11_trusted else "untrusted (-X)"))

    def _explain_no_wish(self, settings: Settings) -> Opinion:
        invocation = self.server.host.invocation
        if opens_no_session(invocation, settings):
            return broken(
                "-N, -W and SessionType none open no session, so there is no window",
                remedy="the doctor's command without them",
            )
        if is_spoken_over(invocation, settings) and invocation.last_of("XYx") != "x":
            return broken(
                "another program speaks over this command, so xssh forwards no X11 for it",
                remedy="name the command that opens windows, or -X",
            )
        return broken(
            "X11 forwarding is off: -x, --x11 off, or ForwardX11 no in ssh_config",
            *(line.partition("; try: ")[0] for line in self._said),
            remedy="-X for this host, or take ForwardX11 no out",
        )

    async def _look_at_agent(self) -> Opinion:
        assert self.forwarding is not None
        if self.forwarding.agent is None:
            return well("not tried: --x11 native")
        if self.server.has_one_session:
            return well("not tried: it takes a session of its own")
        reason = await self._start_agent()
        if not reason:
            return well(f"display {self.variables['DISPLAY']}")
        lines = (reason, *self._agent_evidence)
        give = broken if self.forwarding.native is None else warning
        return give(*lines, remedy=self._agent_remedy(reason))

    async def _start_agent(self) -> str:
        """Start the agent; return why it does not run, or nothing."""
        from xsshpy.ssh.agent_channel import needs_brief_command, open_agent_channel
        from xsshpy.x11.agent import AgentError

        session, forwarding = self.server.host.session, self.forwarding
        assert session is not None
        assert forwarding is not None
        assert forwarding.agent is not None

        async def open_channel(command: str, receiver: AgentReceiver) -> AgentChannel:
            is_forced = session.login.is_command_forced
            return await self.server.patiently(
                lambda: open_agent_channel(session.connection, command, receiver, is_forced)
            )

        try:
            display = await forwarding.agent.start(
                open_channel, known=True, brief=needs_brief_command(session.connection)
            )
        except AgentError as error:
            self._agent_evidence = error.evidence[-2:]
            return error.reason
        self.variables = display.variables
        return ""

    def _agent_remedy(self, reason: str) -> str:
        if not self.server.answers.first_of("python"):
            return "a Python 3.6 or later on the server, for the quick way"
        if "no Python spoke" in reason:
            return "see what python3 waits for on the server: a network drive, a start file"
        return "xssh -v shows what the remote Python said"

    async def _look_at_native(self) -> Opinion:
        from xsshpy.ssh.session_plan import SessionPlan

        assert self.forwarding is not None
        request = self.forwarding.x11_request()
        if request is None or self.forwarding.native is None:
            return well("not tried: --x11 agent")
        if self.server.answers.all_of("lock"):
            return self._native_verdict(
                "not tried: sshd's xauth would wait twenty seconds for the lock in the home folder",
                remedy=f"rm -f {' '.join(self.server.answers.all_of('lock'))}",
            )
        session = self.server.host.session
        assert session is not None
        session.connection.accept_x11 = self.forwarding.native.accept
        nonce = secrets.token_hex(8)
        plan = SessionPlan(command=display_command(nonce), x11=request)
        try:
            done = await asyncio.wait_for(self.server.run(plan), XAUTH_DEADLINE)
        except (TimeoutError, asyncio.TimeoutError):
            return self._native_verdict(
                f"a session with X11 does not begin within {XAUTH_DEADLINE:g} seconds, one without "
                "does: sshd waits for xauth, or for an rc file",
                *self.server.answers.all_of("rc"),
                remedy="on the server: timeout 5 xauth list; a home folder on a network drive that "
                "hangs, or an XAuthLocation that is no xauth, stalls it",
            )
        seen = read_answers(done.out, nonce)
        self.native_display = seen.first_of("display")
        if not done.grants.x11:
            return self._explain_refusal()
        if not self.native_display:
            return self._native_verdict(
                "granted, and DISPLAY is empty: a start file unsets it",
                *self._start_lines("DISPLAY"),
                remedy="look for DISPLAY in the start files of the remote shell",
            )
        if not seen.first_of("cookie"):
            return self._explain_missing_cookie(seen)
        lines = [f"display {self.native_display}"]
        if not self.native_display.startswith("localhost:"):
            lines.append("X11UseLocalhost no: the network there can reach the display's port")
        return well(*lines)

    def _start_lines(self, name: str) -> tuple[str, ...]:
        """Return the lines of start files that speak of a variable."""
        return tuple(line for line in self.server.answers.all_of("start") if name in line)[:3]

    def _explain_missing_cookie(self, seen: Answers) -> Opinion:
        """The display is granted, and xauth has put down no cookie for it."""
        rc = self.server.answers.all_of("rc")
        if rc:
            return self._native_verdict(
                f"{rc[0]} is there, so sshd leaves the cookie to it, and it does not call xauth",
                remedy=f"call xauth in {rc[0]}, as sshd(8) shows under SSHRC",
            )
        name = seen.first_of("noaddress")
        if name:
            return self._native_verdict(
                f"the server has no address for its own name {name}, so xauth takes no cookie for "
                f"{self.native_display}",
                remedy=f"the line `127.0.1.1 {name}` in /etc/hosts on the server, or "
                "X11UseLocalhost yes in sshd_config there",
            )
        state = self.server.answers.first_of("writable")
        why = {"no": ", which can't be written to", "full": ": the disk or the quota is full"}
        return self._native_verdict(
            f"sshd's xauth left no cookie in {seen.first_of('authority')}{why.get(state, '')}",
            *seen.all_of("xauth"),
            remedy="touch ~/.Xauthority on the server, and see what it says"
            if not _LOADER_ERROR.search(" ".join(seen.all_of("xauth")))
            else "xauth on the server finds wrong libraries: look at LD_LIBRARY_PATH there",
        )

    def _native_verdict(self, *lines: str, remedy: str) -> Opinion:
        """A way that is closed is only a warning where there is another one."""
        assert self.forwarding is not None
        give = broken if self.forwarding.agent is None else warning
        return give(*lines, remedy=remedy)

    def _explain_refusal(self) -> Opinion:
        from xsshpy.x11.refusal import find_reason

        session = self.server.host.session
        assert session is not None
        said = find_reason(session.login.remote_messages)
        if "OpenSSH" not in self.server.software:
            return self._native_verdict(
                said or "refused: not every SSH server forwards X11",
                remedy="--x11 agent, which asks nothing of it",
            )
        if "xauth" in said.lower() or not self.server.answers.first_of("xauth"):
            return self._native_verdict(
                said or "refused: there is no xauth on the server",
                remedy=f"{self._setup}, or "
                f"{describe_install(self.server.family, XAUTH)} on the server",
            )
        if "key options" in said:
            return self._native_verdict(
                said, remedy="take no-X11-forwarding or restrict off this key in authorized_keys"
            )
        lines = [
            line
            for line in self.server.answers.all_of("sshd")
            if re.search(r"(?i)X11Forwarding\s+no|DisableForwarding\s+yes", line)
        ]
        if self.server.answers.first_of("noipv6") and not lines:
            return self._native_verdict(
                said or "the server refuses, and does not say why",
                "IPv6 is switched off on its loopback interface, where sshd wants it for X11",
                remedy=f"{self._setup}: AddressFamily inet in sshd_config there, and reload sshd",
            )
        return self._native_verdict(
            said or "the server refuses, and does not say why",
            *lines,
            remedy=f"{self._setup}: X11Forwarding yes in sshd_config there, and reload sshd",
        )

    @property
    def _setup(self) -> str:
        return f"xssh --setup {self.server.host.invocation.destination}"

    async def _look_at_way(self) -> Opinion:
        way = self.server.way
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
        done = await self.server.run(self.plan(display_command(nonce)))
        self.seen = answers = read_answers(done.out, nonce)
        found, login = answers.first_of("display"), _login_display(answers)
        wanted = self.variables.get("DISPLAY", self.native_display)
        if found != wanted and self.variables:
            return broken(
                f"DISPLAY is {found or 'empty'} for programs, where {wanted} was set",
                *self._start_lines("DISPLAY"),
                remedy="look for DISPLAY in the start files of the remote shell",
            )
        if not found:
            return broken(
                "DISPLAY is empty for programs",
                *self._start_lines("DISPLAY"),
                remedy="look for DISPLAY in the start files of the remote shell",
            )
        if login is not None and login != found:
            return warning(
                f"DISPLAY becomes {login or 'empty'} in login shells, where {found} was set",
                *self._start_lines("DISPLAY"),
                remedy="take DISPLAY out of the login shell's start files",
            )
        return self._judge_surroundings(found)

    def _judge_surroundings(self, display: str) -> Opinion:
        stale = self.server.answers.first_of("tmux").removeprefix("DISPLAY=")
        if stale.startswith("localhost:") and stale != display:
            return warning(
                f"tmux on the server still has DISPLAY={stale}, of another session",
                remedy="in its windows: export DISPLAY and XAUTHORITY as in a new session",
            )
        old = [line.partition(" ")[::2] for line in self.server.answers.all_of("stale")]
        kept = [(name, value) for name, value in old if value != display]
        if kept:
            return warning(
                f"{kept[0][0]} on the server still has DISPLAY={kept[0][1]}, of another session",
                remedy="in its windows: export DISPLAY and XAUTHORITY as in a new session",
            )
        lines = [display]
        if self.server.answers.first_of("container"):
            lines.append("the server is a container; programs in others do not see its localhost")
        if self.server.answers.first_of("slurm"):
            lines.append("Slurm: srun --x11 takes this display along")
        if self.server.answers.first_of("system") == "Darwin":
            lines.append("a Mac: Tk draws on its own screen; take Qt or --backend QtAgg")
        return well(*lines)

    def plan(self, command: str, backend: str | None = None) -> SessionPlan:
        """Return the plan of a command that has the display a session would have."""
        from xsshpy.ssh.session_plan import SessionPlan

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


def _login_display(answers: Answers) -> str | None:
    """Return DISPLAY as a login shell has it, empty where it has none; None if that isn't known."""
    found = dict(line.partition("=")[::2] for line in answers.all_of("login"))
    return found.get("DISPLAY", "") if found else None
