"""X11 for one of several sessions of a connection: its own cookies, its own windows.

All have their windows through the same agent, or the same relay of x11 channels. By the cookie that
a client shows it is known whose it is: each session waits for its own windows, takes them along
when it is broken off, and hears what is amiss with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from xsshpy.settings import Settings
from xsshpy.x11_ways import X11Run

if TYPE_CHECKING:
    from xsshpy.ssh.connect import Session
    from xsshpy.ssh.session_plan import Grants, StartAgent, X11Request
    from xsshpy.x11.agent import AgentForwarding


class X11Door:
    """One session's windows. Call :meth:`close` at its end, which ends them."""

    def __init__(self, run: X11Run, report: Callable[[str], None]) -> None:
        self._run = run
        self._report = report
        self._is_closed = False
        self._agent: AgentForwarding | None = None
        self._number = 0
        self._cookie = run.native.open_door(report) if run.native is not None else b""

    def x11_request(self) -> X11Request | None:
        """Return what is asked of the server for the native way."""
        request = self._run.x11_request()
        if request is None:
            return None
        from xsshpy.ssh.session_plan import X11Request

        return X11Request(request.name, self._cookie, request.screen)

    def agent_starter(self, session: Session, settings: Settings) -> StartAgent | None:
        """Return what starts the agent and has it let this session in; None where none is tried."""
        start = self._run.agent_starter(session, settings)
        if start is None:
            return None

        async def enter() -> Mapping[str, str] | None:
            has_failed = self._run.failure is not None
            if await start() is None or self._run.agent is None:
                line = self._run.explain_failure()
                if has_failed and line:
                    self._report(line)
                return None
            agent = self._run.agent
            opened = await agent.open_door(self._report)
            if opened is None:
                return None
            self._agent = agent
            self._number, display = opened
            if self._is_closed:
                agent.close_door(self._number)
            return display.variables

        return enter

    def explain_refusal(self, grants: Grants, session: Session, settings: Settings) -> str:
        """Return why there is no display, where both ways failed; empty where there is one."""
        return self._run.explain_refusal(grants, session, settings)

    async def wait_until_idle(self) -> None:
        """Wait until the last window is closed."""
        if self._agent is not None:
            await self._agent.wait_until_idle(self._number)
        if self._run.native is not None:
            await self._run.native.wait_for_door(self._cookie)

    def close(self) -> None:
        """End this session's clients, and let no more of them in."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._agent is not None:
            self._agent.close_door(self._number)
        if self._run.native is not None:
            self._run.native.close_door(self._cookie)
