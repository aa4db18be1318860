"""Looks at a server: the survey, its Python and whether X11 is granted, at the same time."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from xsshpy.doctor.probes import (
    display_command,
    python_command,
    read_answers,
    read_object,
    read_program,
)
from xsshpy.setup.facts import PythonFacts, ServerFacts, read_python, read_server, read_sshd
from xsshpy.ssh.capture import capture
from xsshpy.ssh.session import SessionPlan, X11Request
from xsshpy.values import replace
from xsshpy.x11.refusal import find_reason

if TYPE_CHECKING:
    from xsshpy.setup.shell import RemoteShell
    from xsshpy.setup.visitor import Visitor

DEADLINE = 60.0
"""How long a Python with matplotlib, or a locked xauth, may take (seconds)."""


async def look(visitor: Visitor) -> ServerFacts:
    """Return what there is, as far as the login sees it. Raises SessionError."""
    answers, python, (granted, refusal) = await asyncio.gather(
        visitor.user.ask("survey; survey_sshd"),
        asyncio.wait_for(look_at_python(visitor), DEADLINE),
        asyncio.wait_for(_ask_for_x11(visitor), DEADLINE),
    )
    return replace(
        read_server(answers),
        python=python,
        x11=granted,
        refusal=refusal,
        sshd=read_sshd(answers),
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
