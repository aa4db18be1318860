"""One setup, from the invocation to the exit status: ``xssh --setup``.

Looks, shows, asks, does, and lists what was done; ``--undo`` takes it back. The report goes to
stdout, as it is what was asked for; what the login asks and says, and the questions, don't.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from xsshpy.console import Console, LogLevel
from xsshpy.doctor.examination import examine
from xsshpy.doctor.findings import Finding, Verdict
from xsshpy.doctor.local_checks import LocalSide
from xsshpy.doctor.machine import read_machine
from xsshpy.doctor.visit import run_visit
from xsshpy.settings import Invocation
from xsshpy.setup.facts import Rights, ServerFacts
from xsshpy.setup.plan import Install, Plan, make_plan, needs_root
from xsshpy.setup.undoing import Record, read_record
from xsshpy.setup.visitor import Visitor, write
from xsshpy.setup.wording import call_step, describe_plan, describe_request, describe_step
from xsshpy.ssh.environment import decide_backend
from xsshpy.ssh.resolve import resolve_settings
from xsshpy.values import replace

EXIT_UNDONE = 1
"""Something could not be done, or was not wanted."""

WHAT_FOR = (
    "xssh's own way of X11, the agent, needs neither X11Forwarding nor xauth there: they are",
    "for --x11 native, for ssh -X, and for servers where the agent can't run.",
)


def visit(invocation: Invocation, environ: Mapping[str, str]) -> int:
    """Set a server up, or take that back; return 0 where nothing is left to do, else 1.

    Raises XsshError where the server can't be looked at.
    """
    return run_visit(_visit(invocation, environ))


async def _visit(invocation: Invocation, environ: Mapping[str, str]) -> int:
    from xsshpy.setup.shell import RemoteShell
    from xsshpy.ssh.connect import connect

    verbosity = min(3, invocation.count("v"))
    level = LogLevel(LogLevel.VERBOSE + verbosity) if verbosity else LogLevel.INFO
    console = Console(level, environ=environ)
    settings = await resolve_settings(invocation, environ, console)
    console.batch_mode = console.batch_mode or settings.batch_mode
    session = await connect(settings, invocation, console, environ)
    try:
        shell = await RemoteShell.open(
            session.connection, console, {"xs_user": session.settings.user}
        )
        visitor = Visitor(invocation, session, console, shell)
        try:
            if invocation.undo:
                return await _undo(visitor)
            backend = decide_backend(dict(reversed(settings.set_env)), invocation.backend)
            return await _set_up(visitor, backend, environ)
        finally:
            await visitor.close()
    finally:
        await session.close()


async def _set_up(visitor: Visitor, backend: str | None, environ: Mapping[str, str]) -> int:
    from xsshpy.setup.looking import look

    facts, advice = await asyncio.gather(look(visitor), _look_here(environ))
    plan = make_plan(facts, backend)
    if needs_root(facts, plan):
        facts = await _look_as_root(visitor, facts)
        plan = make_plan(facts, backend)
    write(*describe_plan(plan, visitor.host), *advice)
    request = describe_request(plan, visitor.host)
    if visitor.why_no_root and request:
        write(f"  can't: as root: {visitor.why_no_root}")
    write(*request)
    if plan.steps or plan.for_administrator:
        write("", *WHAT_FOR)
    left = bool(plan.obstacles or plan.for_administrator)
    if not plan.steps or visitor.invocation.dry_run:
        return EXIT_UNDONE if left else 0
    if not await visitor.may(f"Do this on {visitor.host}?"):
        write("Nothing was changed.")
        return EXIT_UNDONE
    is_done = await _carry_out(visitor, plan) and await _has_tk(visitor, facts, plan)
    return 0 if is_done and not left else EXIT_UNDONE


async def _has_tk(visitor: Visitor, facts: ServerFacts, plan: Plan) -> bool:
    """Tell whether the Python has what was installed for it; say so where it has not."""
    from xsshpy.setup.looking import look_at_python
    from xsshpy.ssh.session import ChannelRefusedError

    if not facts.python.lacks_tk or not any(isinstance(step, Install) for step in plan.steps):
        return True
    try:
        python = await look_at_python(visitor)
    except ChannelRefusedError:  # the shells are all that MaxSessions leaves
        return True
    if python.lacks_tk:
        write(f"  failed  {python.executable} still has no Tk that works: {python.tk_problem}")
    return not python.lacks_tk


async def _look_here(environ: Mapping[str, str]) -> list[str]:
    """Return what this machine itself lacks; here, setup only says so."""
    checks = LocalSide(environ, read_machine(environ)).checks()
    found: list[Finding] = await examine(checks, lambda finding: None)
    lines = []
    for each in found:
        if each.verdict is Verdict.BROKEN:
            remedy = f"; try: {each.remedy}" if each.remedy else ""
            lines.append(f"  on this machine: {'; '.join(each.evidence)}{remedy}")
    return lines


async def _look_as_root(visitor: Visitor, facts: ServerFacts) -> ServerFacts:
    """Return the facts with what only root sees, and with the rights that there are in fact."""
    from xsshpy.setup.looking import look_as_root

    await visitor.become_root(facts, may_ask=not visitor.invocation.dry_run)
    if visitor.root is not None:
        return await look_as_root(visitor.root, facts)
    if facts.rights is Rights.PASSWORD and visitor.invocation.dry_run:
        return facts
    return replace(facts, rights=Rights.NONE)


async def _carry_out(visitor: Visitor, plan: Plan) -> bool:
    """Do all steps; return whether each was done."""
    outcome: list[tuple[bool, str]] = []
    numbered = list(enumerate(plan.steps, 1))
    for owner, shell in (("root", visitor.root), ("home", visitor.user)):
        calls = [
            (call_step(number, step), describe_step(step))
            for number, step in numbered
            if step.as_root is (owner == "root")
        ]
        if not calls or shell is None:
            continue
        opened = await shell.ask(f"open_record {owner}")
        problem = opened.first_of("problem")
        if problem:
            write(f"  failed  {problem}")
            outcome.append((False, problem))
            continue
        outcome += await visitor.do(shell, calls)
        await shell.ask("close_record")
    done = [description for is_done, description in outcome if is_done]
    if done:
        write("", f"`xssh --setup --undo {visitor.host}` takes this back.")
        write("Connections that are open keep their settings; `xssh -O exit` ends a shared one.")
    return len(done) == len(plan.steps)


# --- Taking it back -----------------------------------------------------------------------------


async def _undo(visitor: Visitor) -> int:
    from xsshpy.setup.looking import look_at_login

    facts = await look_at_login(visitor)
    records = [("home", read_record(await visitor.user.ask("list_record home")))]
    is_there = read_record(await visitor.user.ask("list_record root")) != Record()
    if is_there:
        await visitor.become_root(facts, may_ask=not visitor.invocation.dry_run)
        if visitor.root is not None:
            records.append(("root", read_record(await visitor.root.ask("list_record root"))))
    unreachable = is_there and visitor.root is None
    if unreachable:
        why = visitor.why_no_root or "this login has no root's rights there"
        write(f"  can't: what was done as root: {why}")
    lines = [line for _, record in records for line in _describe_record(record)]
    if not lines:
        write(f"Nothing to take back on {visitor.host}.")
        return EXIT_UNDONE if unreachable else 0
    write(f"To take back on {visitor.host}:", *lines)
    if visitor.invocation.dry_run:
        return 0
    if not await visitor.may(f"Do this on {visitor.host}?"):
        write("Nothing was changed.")
        return EXIT_UNDONE
    done = [await _take_back(visitor, owner, record) for owner, record in records]
    return EXIT_UNDONE if unreachable or not all(done) else 0


def _describe_record(record: Record) -> list[str]:
    lines = [f"  can't: {problem}" for problem in record.problems]
    for file in record.files:
        if file.is_later_changed:
            lines.append(f"  can't: {file.place} was changed since: it stays as it is")
        else:
            lines.append(f"  - {file.describe()}")
    return lines + [f"  - {package.describe()}" for package in record.packages]


async def _take_back(visitor: Visitor, owner: str, record: Record) -> bool:
    """Take one record back; return whether nothing is left of it but what was not wanted."""
    shell = visitor.root if owner == "root" else visitor.user
    changed = any(file.is_later_changed for file in record.files)
    if shell is None or record.problems or not (record.files or record.packages):
        return not record.problems
    await shell.ask(f"open_record {owner}")
    files = [file for file in record.files if not file.is_later_changed]
    calls = [(f"undo 0 {file.call()}", file.describe()) for file in files]
    outcome = await visitor.do(shell, calls)
    names = ", ".join(package.name for package in record.packages)
    kept = bool(names) and not await visitor.may(f"Remove the packages too: {names}?")
    if names and not kept:
        calls = [(f"undo 0 {each.call()}", each.describe()) for each in record.packages]
        outcome += await visitor.do(shell, calls)
    await shell.ask("close_record keep" if kept else "close_record")
    return all(is_done for is_done, _ in outcome) and not changed
