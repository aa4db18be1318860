"""How findings are shown: a list for people, live, and JSON for programs.

The list fits 80 columns and says in words what colour only underlines. The JSON has a version,
``schema``: it rises when a field changes its meaning or goes; new fields may come without.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO

from xsshpy import __version__
from xsshpy.console import sanitise
from xsshpy.doctor.findings import Finding, Verdict, find_cause

SCHEMA = 1
WIDTH = 80
_VERDICT_WIDTH = 9
_TITLE_WIDTH = 18
_INDENT = " " * (2 + _VERDICT_WIDTH + _TITLE_WIDTH)
_COLOURS = {Verdict.OK: "32", Verdict.WARNING: "33", Verdict.BROKEN: "31", Verdict.SKIPPED: "2"}


class Listing:
    """Writes findings to a stream as they come."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        plain = environ.get("NO_COLOR") or environ.get("TERM", "dumb") == "dumb"
        self._coloured = stream.isatty() and not plain
        self._skipped: list[Finding] = []

    def write_heading(self, text: str) -> None:
        """Begin a part of the list."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def write_finding(self, finding: Finding) -> None:
        """Write one finding, with its evidence and its remedy.

        What is skipped for one reason stands together, on as few lines as it takes.
        """
        if finding.verdict is Verdict.SKIPPED:
            if self._skipped and self._skipped[0].because != finding.because:
                self._write_skipped()
            self._skipped.append(finding)
            return
        self._write_skipped()
        self._write_entry(finding.verdict, finding.title, describe_finding(finding))

    def _write_skipped(self) -> None:
        if self._skipped:
            titles = ", ".join(finding.title for finding in self._skipped)
            lines = _wrap(titles)
            self._write_entry(Verdict.SKIPPED, f"for: {self._skipped[0].because}", lines)
            self._skipped = []

    def _write_entry(self, kind: Verdict, title: str, lines: Sequence[str]) -> None:
        verdict = f"{kind.value:<{_VERDICT_WIDTH}}"
        if self._coloured:
            verdict = f"\x1b[{_COLOURS[kind]}m{verdict}\x1b[0m"
        head = f"  {verdict}{title:<{_TITLE_WIDTH}}"
        self._stream.write(f"{head}{lines[0]}".rstrip() + "\n")
        for line in lines[1:]:
            self._stream.write(f"{_INDENT}{line}\n")
        self._stream.flush()

    def write_conclusion(self, findings: Sequence[Finding]) -> None:
        """End the list with the sentence that names the cause."""
        self._write_skipped()
        self._stream.write("\n" + textwrap.fill(conclude(findings), WIDTH) + "\n")
        self._stream.flush()


def describe_finding(finding: Finding) -> list[str]:
    """Return the lines beside a finding's title; at least one."""
    lines: list[str] = []
    for text in finding.evidence:
        lines += _wrap(sanitise(text))
    if finding.remedy:
        lines += _wrap(f"try: {sanitise(finding.remedy)}")
    return lines or [""]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH - len(_INDENT), break_on_hyphens=False, subsequent_indent="  "
    ) or [""]


def conclude(findings: Sequence[Finding]) -> str:
    """Return one sentence: the cause, or that all is well."""
    cause = find_cause(findings)
    if cause is not None:
        what = sanitise(cause.evidence[0]) if cause.evidence else "it does not work"
        sentence = f"{cause.title}: {what.rstrip('.:')}."
        return f"{sentence} Try: {sanitise(cause.remedy)}" if cause.remedy else sentence
    count = sum(each.verdict is Verdict.WARNING for each in findings)
    if count:
        return (
            f"Nothing is broken; {count} {'thing is' if count == 1 else 'things are'} worth a look."
        )
    return "All is well."


def as_json(host: str | None, findings: Sequence[Finding]) -> str:
    """Return the findings as one JSON object, with a final newline. ``host`` as it was typed."""
    cause = find_cause(findings)
    return (
        json.dumps(
            {
                "schema": SCHEMA,
                "xssh": __version__,
                "host": host,
                "cause": cause.name if cause else None,
                "conclusion": conclude(findings),
                "findings": [
                    {
                        "name": each.name,
                        "title": each.title,
                        "verdict": each.verdict.value,
                        "evidence": [sanitise(text) for text in each.evidence],
                        "remedy": sanitise(each.remedy),
                        "because": each.because,
                    }
                    for each in findings
                ],
            },
            indent=2,
        )
        + "\n"
    )
