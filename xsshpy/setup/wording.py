"""What setup says: plans, steps and records in words and as diffs. Pure."""

from __future__ import annotations

import shlex

from xsshpy.setup.packages import Installation
from xsshpy.setup.plan import ChooseBackend, Configure, Install, Plan, Reload, Step

_INDENT = "     "


def describe_step(step: Step) -> str:
    """Return one line that names a step."""
    if isinstance(step, Install):
        return f"install {', '.join(step.installation.names)} ({step.installation.manager})"
    if isinstance(step, Configure):
        what = "" if step.before else ", a new file" if step.is_own_file else ", at its top"
        return f"{step.place}{what}; sshd tests it, then reads it"
    if isinstance(step, Reload):
        return "let sshd read its settings again"
    return f"{step.place}{'' if step.old else ', a new file'}"


def detail_step(step: Step) -> list[str]:
    """Return the commands and changes of a step, as lines."""
    if isinstance(step, Install):
        return [step.installation.command]
    if isinstance(step, Configure):
        new = step.text.splitlines()
        lines = [f"- {line}" for line in step.before] + [f"+ {line}" for line in new]
        return [*lines, *_reload_lines(step.listener, tested=True)]
    if isinstance(step, Reload):
        return _reload_lines(step.listener, tested=False)
    old = [f"- {step.old.text}"] if step.old else []
    return [*old, f"+ backend: {step.backend}"]


def _reload_lines(listener: int, *, tested: bool) -> list[str]:
    lines = ["sshd -t"] if tested else []
    if listener:
        return [*lines, f"kill -HUP {listener}    # no session is cut"]
    return [*lines, "# no sshd to tell: each connection starts one, and it reads the settings"]


def describe_plan(plan: Plan, host: str) -> list[str]:
    """Return the plan as lines to show; what is nothing to do in one sentence."""
    lines: list[str] = []
    if plan.steps:
        lines.append(f"To do on {host}:")
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"  {number}. {describe_step(step)}")
        lines += [f"{_INDENT}{line}" for line in detail_step(step)]
    lines += [f"  can't: {text}" for text in plan.obstacles]
    lines += [f"  note: {text}" for text in plan.notes]
    if plan.is_well:
        lines.append(f"Nothing to do on {host}.")
    return lines


def describe_request(plan: Plan, host: str) -> list[str]:
    """Return what to send to the server's administrator; nothing where there is nothing to ask."""
    if not plan.for_administrator:
        return []
    lines = [f"This takes root's rights on {host}. For its administrator, to copy:", ""]
    lines.append(f"    Please let {host} show plots to its users (X11 forwarding):")
    for step in plan.for_administrator:
        lines += [f"      {line}" for line in _request(step)]
    return lines


def _request(step: Step) -> list[str]:
    if isinstance(step, Install):
        return [f"- {step.installation.command}"]
    if isinstance(step, Configure):
        first = f"- {step.place}, {'a file with' if step.is_own_file else 'before all else'}:"
        return [first, *(f"    {line}" for line in step.lines), "  then sshd -t, and reload sshd"]
    return ["- reload sshd"]


def call_step(number: int, step: Step) -> str:
    """Return the line that runs a step in the remote shell, on one or more lines."""
    words = ["step", str(number)]
    if isinstance(step, Install):
        given: Installation = step.installation
        words += ["install", given.manager, " ".join(given.names), given.command, given.refresh]
        words += [given.program, given.prefix]
    elif isinstance(step, Configure):
        kind = "dropin" if step.is_own_file else "block"
        words += ["configure", kind, step.place, step.text]
    elif isinstance(step, Reload):
        words += ["reload_sshd"]
    elif isinstance(step, ChooseBackend):
        words += ["choose_backend", step.place, step.backend]
    return shlex.join(words)
