"""Runs checks: at the same time where they don't depend on each other, each with a deadline.

A check whose need is broken is skipped, and says because of which. One that takes too long or fails
by itself is broken: a link that gives no answer is no link.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

from xsshpy.doctor.findings import Finding, Opinion, Verdict, broken
from xsshpy.errors import XsshError
from xsshpy.values import dataclass

DEADLINE = 10.0
"""How long a check may take unless it says otherwise (seconds)."""


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    ``needs`` names checks before it, which it waits for. ``explained_by`` names further ones before
    it: it looks without waiting for them, and where one of them is broken, that explains it.
    ``deadline`` is in seconds; ``late`` is the remedy where it passes.
    """

    name: str
    title: str
    look: Callable[[], Awaitable[Opinion]]
    needs: tuple[str, ...] = ()
    deadline: float = DEADLINE
    late: str = ""
    explained_by: tuple[str, ...] = ()


async def examine(
    checks: Sequence[Check],
    show: Callable[[Finding], None],
    watch: Callable[[Sequence[str]], None] = lambda _: None,
) -> list[Finding]:
    """Return what each check found, in the order of the table; ``show`` gets each in that order,
    as soon as it and all before it are known.

    ``needs`` and ``explained_by`` must name checks that stand before. ``watch`` gets the titles of
    those that are looking, whenever that changes.
    """
    looking = _Looking(watch)
    started: dict[str, asyncio.Task[Finding]] = {}
    for check in checks:
        needed = [started[name] for name in check.needs]
        reasons = [started[name] for name in check.explained_by]
        started[check.name] = asyncio.create_task(_look(check, needed, reasons, looking))
    found: list[Finding] = []
    try:
        for task in started.values():
            # Shielded, as a check that ends just when it is cancelled would swallow that.
            found.append(await asyncio.shield(task))
            show(found[-1])
    finally:
        for task in started.values():
            task.cancel()
        await asyncio.gather(*started.values(), return_exceptions=True)
    return found


class _Looking:
    """Which checks are looking at this moment."""

    def __init__(self, watch: Callable[[Sequence[str]], None]) -> None:
        self._watch = watch
        self._titles: list[str] = []

    @contextlib.contextmanager
    def at(self, title: str) -> Iterator[None]:
        """Count one as looking."""
        self._titles.append(title)
        self._watch(tuple(self._titles))
        try:
            yield
        finally:
            self._titles.remove(title)
            self._watch(tuple(self._titles))


async def _look(
    check: Check,
    needed: Sequence[asyncio.Task[Finding]],
    reasons: Sequence[asyncio.Task[Finding]],
    looking: _Looking,
) -> Finding:
    skipped = await _find_reason(check, needed)
    if skipped is not None:
        return skipped
    with looking.at(check.title):
        opinion = await _form_opinion(check)
    if opinion.verdict is Verdict.BROKEN:
        skipped = await _find_reason(check, reasons)
        if skipped is not None:
            return skipped
    return Finding(check.name, check.title, opinion.verdict, opinion.evidence, opinion.remedy)


async def _find_reason(check: Check, tasks: Sequence[asyncio.Task[Finding]]) -> Finding | None:
    """Return the check as skipped, where one of these others explains why."""
    for finding in [await asyncio.shield(task) for task in tasks]:
        if finding.verdict is Verdict.BROKEN:
            return Finding(check.name, check.title, Verdict.SKIPPED, because=finding.title)
        if finding.verdict is Verdict.SKIPPED:
            return Finding(check.name, check.title, Verdict.SKIPPED, because=finding.because)
    return None


async def _form_opinion(check: Check) -> Opinion:
    try:
        return await asyncio.wait_for(check.look(), check.deadline)
    except (TimeoutError, asyncio.TimeoutError):
        return broken(f"no answer within {check.deadline:g} seconds", remedy=check.late)
    except XsshError as error:
        return describe_error(error)
    except OSError as error:
        return broken(error.strerror or str(error))
    except Exception as error:  # what a library raises; the other checks go on
        return broken(f"{type(error).__name__}: {error}")


def describe_error(error: XsshError) -> Opinion:
    """Return an error as a broken link: what it says, without saying who says it."""
    lines = error.message.splitlines() or ["failed"]
    evidence = (line.strip() for line in (*lines, *error.evidence))
    return broken(*(line.removeprefix("xssh: ") for line in evidence), remedy=error.remedy)
