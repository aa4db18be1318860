"""Runs checks: at the same time where they don't depend on each other, each with a deadline.

A check whose need is broken is skipped, and says because of which. One that takes too long or fails
by itself is broken: a link that gives no answer is no link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from xsshpy.doctor.findings import Finding, Opinion, Verdict, broken
from xsshpy.errors import XsshError
from xsshpy.values import dataclass

DEADLINE = 10.0
"""How long a check may take unless it says otherwise (seconds)."""


@dataclass(frozen=True)
class Check:
    """One thing to look at. ``needs`` names checks before it; ``deadline`` is in seconds."""

    name: str
    title: str
    look: Callable[[], Awaitable[Opinion]]
    needs: tuple[str, ...] = ()
    deadline: float = DEADLINE


async def examine(checks: Sequence[Check], show: Callable[[Finding], None]) -> list[Finding]:
    """Return what each check found, in the order of the table; ``show`` gets each in that order,
    as soon as it and all before it are known.

    ``needs`` must name checks that stand before.
    """
    started: dict[str, asyncio.Task[Finding]] = {}
    for check in checks:
        needed = [started[name] for name in check.needs]
        started[check.name] = asyncio.create_task(_look(check, needed))
    found: list[Finding] = []
    try:
        for task in started.values():
            found.append(await task)
            show(found[-1])
    finally:
        for task in started.values():
            task.cancel()
        await asyncio.gather(*started.values(), return_exceptions=True)
    return found


async def _look(check: Check, needed: Sequence[asyncio.Task[Finding]]) -> Finding:
    for finding in [await asyncio.shield(task) for task in needed]:
        if finding.verdict is Verdict.BROKEN:
            return Finding(check.name, check.title, Verdict.SKIPPED, because=finding.title)
        if finding.verdict is Verdict.SKIPPED:
            return Finding(check.name, check.title, Verdict.SKIPPED, because=finding.because)
    opinion = await _form_opinion(check)
    return Finding(check.name, check.title, opinion.verdict, opinion.evidence, opinion.remedy)


async def _form_opinion(check: Check) -> Opinion:
    try:
        return await asyncio.wait_for(check.look(), check.deadline)
    except (TimeoutError, asyncio.TimeoutError):
        return broken(f"no answer within {check.deadline:g} seconds")
    except XsshError as error:
        return describe_error(error)
    except OSError as error:
        return broken(error.strerror or str(error))


def describe_error(error: XsshError) -> Opinion:
    """Return an error as a broken link: what it says, without saying who says it."""
    lines = error.message.splitlines() or ["failed"]
    evidence = (line.strip() for line in (*lines, *error.evidence))
    return broken(*(line.removeprefix("xssh: ") for line in evidence), remedy=error.remedy)
