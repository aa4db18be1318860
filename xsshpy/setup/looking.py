"""Looks at a server: the survey, its Python and whether X11 is granted, at the same time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from xsshpy.doctor.probes import (
    display_command,
    python_command,
    read_answers,
    read_object,
    read_program,
)
from xsshpy.errors import SessionError
from xsshpy.setup.facts import PythonFacts, ServerFacts, read_python, read_server, read_sshd
from xsshpy.setup.shell import late_answer
from xsshpy.ssh.capture import capture
from xsshpy.ssh.session import ChannelRefusedError
from xsshpy.ssh.session_plan import SessionPlan, X11Request
from xsshpy.values import replace
from xsshpy.x11.refusal import find_reason

if TYPE_CHECKING:
    from xsshpy.setup.shell import RemoteShell
    from xsshpy.setup.visitor import Visitor

_T = TypeVar("_T")
_TRIES, _PAUSE = 8, 0.25
"""For a session that another one has yet to make room for (a number, seconds)."""

DEADLINE = 60.0
"""How long a Python with matplotlib, or a locked xauth, may take (seconds)."""


async def look(visitor: Visitor) -> ServerFacts:
    """Return what there is, as far as the login sees it. Raises SessionError."""
    answers, python, display = await asyncio.gather(
        visitor.user.ask("survey; survey_sshd"),
        asyncio.wait_for(look_at_python(visitor), DEADLINE),
        asyncio.wait_for(_ask_for_x11(visitor), DEADLINE),
        return_exceptions=True,
    )
    for each in (answers, python, display):
        if isinstance(each, (TimeoutError, asyncio.TimeoutError)):
            raise late_answer()
        if isinstance(each, BaseException) and not isinstance(each, ChannelRefusedError):
            raise each
    # A server with MaxSessions 2 gets one question at a time, beside the shell.
    if isinstance(python, BaseException):
        python = await _beside_the_shell(lambda: look_at_python(visitor))
    granted, refusal = (
        await _beside_the_shell(lambda: _ask_for_x11(visitor))
        if isinstance(display, BaseException)
        else display
    )
    assert not isinstance(answers, BaseException)  # its channel is open already
    return replace(
        read_server(answers),
        python=python,
        x11=granted,
        refusal=refusal,
        sshd=read_sshd(answers),
    )


async def _beside_the_shell(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask once more, and again: sshd counts a session until it has seen its processes end.

    Raises SessionError where not even two sessions are allowed.
    """
    for _ in range(_TRIES):
        try:
            return await asyncio.wait_for(ask(), DEADLINE)
        except ChannelRefusedError:
            await asyncio.sleep(_PAUSE)
        except (TimeoutError, asyncio.TimeoutError):
            raise late_answer() from None
    raise SessionError(
        "xssh: the server allows one session on a connection, and setup takes two",
        remedy="MaxSessions 10 in its sshd_config, or take the line with MaxSessions out",
    )


async def look_at_login(visitor: Visitor) -> ServerFacts:
    """Return what there is without Python, X11 and sshd."""
    return read_server(await visitor.user.ask("survey"))


async def look_as_root(shell: RemoteShell, facts: ServerFacts) -> ServerFacts:
    """Return the facts with what only root sees of sshd."""
    return replace(facts, sshd=read_sshd(await shell.ask("survey_sshd")))


async def look_at_python(visitor: Visitor) -> PythonFacts:
    """Ask the Python of the command, or else the first of PATH, what it has."""
    named = read_program(visitor.invocation.command).interpreter
    for interpreter in (named,) if named else ("python3", "python"):
        nonce = secrets.token_hex(8)
        plan = SessionPlan(python_command(interpreter, "python_facts", nonce))
        done = await capture(visitor.session.connection, plan, visitor.console)
        said = read_object(done.out, nonce)
        if said is not None:
            return read_python(interpreter, said)
    return read_python(named, None)


async def _ask_for_x11(visitor: Visitor) -> tuple[bool, str]:
    """Is X11 granted to this session, as it is now? Asked with a cookie that opens nothing."""
    nonce = secrets.token_hex(8)
    request = X11Request(b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16))
    plan = SessionPlan(display_command(nonce), x11=request)
    done = await capture(visitor.session.connection, plan, visitor.console)
    if done.grants.x11 and read_answers(done.out, nonce).first_of("display"):
        return True, ""
    return False, find_reason(visitor.session.login.remote_messages)
