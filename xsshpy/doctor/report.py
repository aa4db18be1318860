"""How findings are shown: a list for people, live, and JSON for programs.

The list fits 80 columns, or the terminal's fewer, and says in words what colour only underlines.
The JSON has a version, ``schema``: it rises when a field changes its meaning or goes; new fields
may come without.
"""

from __future__ import annotations

import contextlib
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from xsshpy import __version__
from xsshpy.console import sanitise
from xsshpy.doctor.findings import Finding, Verdict, find_cause

SCHEMA = 1
WIDTH = 80
"""Most columns that are used; a narrower terminal has its own width."""

_LEAST_WIDTH = 24
_SIDE_BY_SIDE = 60
"""From this width on, what is found stands beside the titles, else below them."""

_VERDICT_WIDTH = 9
_TITLE_WIDTH = 18
_BESIDE = 2 + _VERDICT_WIDTH + _TITLE_WIDTH
_BELOW = 4
_COLOURS = {Verdict.OK: "32", Verdict.WARNING: "33", Verdict.BROKEN: "31", Verdict.SKIPPED: "2"}
_CLEAR = "\r\x1b[K"


class Listing:
    """Writes findings to a stream as they come.

    On a terminal the last line says meanwhile what is being looked at; ``hide`` and ``resume``
    stand around what others write there. ``columns`` is the terminal's width, where it is known.
    """

    def __init__(
        self, stream: TextIO, environ: Mapping[str, str], columns: int | None = None
    ) -> None:
        self._stream = stream
        is_plain = environ.get("TERM", "dumb") == "dumb"
        self._is_live = stream.isatty() and not is_plain
        self._coloured = self._is_live and not environ.get("NO_COLOR")
        self._width = max(_LEAST_WIDTH, min(WIDTH, columns or WIDTH))
        self._indent = " " * (_BESIDE if self._width >= _SIDE_BY_SIDE else _BELOW)
        self._skipped: list[Finding] = []
        self._looking: Sequence[str] = ()
        self._hidden = 0
        self._encoding = stream.encoding or "utf-8"

    def write_heading(self, text: str) -> None:
        """Begin a part of the list."""
        lines = textwrap.wrap(sanitise(text), self._width)
        self._write("".join(f"{line}\n" for line in lines))

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
        self._write_entry(finding.verdict, finding.title, self.describe(finding))

    def show_progress(self, titles: Sequence[str]) -> None:
        """Say what is being looked at now; nothing where that can't be taken back."""
        self._looking = titles
        self._write("")

    @contextlib.contextmanager
    def hide(self) -> Iterator[None]:
        """Keep the last line free while others write there."""
        self._hidden += 1
        self._write("")
        try:
            yield
        finally:
            self._hidden -= 1
            self._write("")

    def write_conclusion(self, findings: Sequence[Finding]) -> None:
        """End the list with the sentence that names the cause."""
        self._looking = ()
        self._write_skipped()
        lines = textwrap.wrap(conclude(findings), self._width, break_on_hyphens=False)
        self._write("".join(f"{line}\n" for line in ("", *lines)))

    def describe(self, finding: Finding) -> list[str]:
        """Return the lines beside a finding's title; at least one."""
        lines: list[str] = []
        for text in finding.evidence:
            lines += self._wrap(sanitise(text))
        if finding.remedy:
            lines += self._wrap(f"try: {sanitise(finding.remedy)}")
        return lines or [""]

    def _wrap(self, text: str) -> list[str]:
        width = self._width - len(self._indent)
        return textwrap.wrap(text, width, break_on_hyphens=False, subsequent_indent="  ") or [""]

    def _write_skipped(self) -> None:
        if self._skipped:
            titles = ", ".join(finding.title for finding in self._skipped)
            reason = f"for: {self._skipped[0].because}"
            self._write_entry(Verdict.SKIPPED, reason, self._wrap(titles))
            self._skipped = []

    def _write_entry(self, kind: Verdict, title: str, lines: Sequence[str]) -> None:
        verdict = f"{kind.value:<{_VERDICT_WIDTH}}"
        if self._coloured:
            verdict = f"\x1b[{_COLOURS[kind]}m{verdict}\x1b[0m"
        head, rest = f"  {verdict}{title:<{_TITLE_WIDTH}}", lines
        if len(self._indent) == _BESIDE:
            head, rest = head + lines[0], lines[1:]
        below = [f"{self._indent}{line}" for line in rest if line]
        self._write("".join(f"{line.rstrip()}\n" for line in (head, *below)))

    def _write(self, text: str) -> None:
        """Write whole lines above the one that says what is being looked at."""
        if self._is_live:
            progress = ""
            if self._looking and not self._hidden:
                line = f"  ...      {', '.join(self._looking)}"
                progress = line if len(line) < self._width else line[: self._width - 4] + "..."
            text = f"{_CLEAR}{text}{progress}"
        # What the locale can't show is shown escaped.
        data = text.encode(self._encoding, "backslashreplace")
        self._stream.write(data.decode(self._encoding))
        self._stream.flush()


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
