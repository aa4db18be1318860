"""What to make of a script, or a module that it imports, which chooses a backend itself. Pure."""

from __future__ import annotations

import re

from xsshpy.doctor.findings import Opinion, broken, warning
from xsshpy.values import dataclass

FILE_BACKENDS = ("agg", "svg", "pdf", "ps", "pgf", "cairo", "template")
"""Those that open no window, in small letters."""

_CHOSEN = re.compile(r"""(?:use|switch_backend)\s*\(\s*["'](\w+)["']|=\s*["'](\w+)["']""")
_SHOWN = 3


@dataclass(frozen=True)
class _Line:
    place: str
    text: str
    backend: str
    is_conditional: bool

    @property
    def draws_files(self) -> bool:
        return self.backend.lower() in FILE_BACKENDS


def judge_forced(facts: object, wanted: str | None) -> Opinion | None:
    """Return what is wrong with the lines that ``python_facts`` found; None where nothing is.

    A line under a condition may never be carried out: it is worth a look, no more. Nothing is wrong
    with one that chooses what is ``wanted`` anyway.
    """
    lines = [line for line in _read(facts) if line.backend.lower() != (wanted or "").lower()]
    if not lines:
        return None
    certain = any(line.draws_files and not line.is_conditional for line in lines)
    shown = [f"{line.place}: {line.text}" for line in lines[:_SHOWN]]
    if all(line.is_conditional for line in lines):
        return warning(
            "the script may choose a backend itself, which beats MPLBACKEND:",
            *shown,
            remedy="see that its condition is not met, or take that line out",
        )
    return (broken if certain else warning)(
        "the script chooses a backend itself, which beats MPLBACKEND:",
        *shown,
        remedy="take that line out, or choose TkAgg there",
    )


def _read(facts: object) -> list[_Line]:
    """Read hostile facts: whatever has another form is passed over."""
    lines: list[_Line] = []
    for fact in facts if isinstance(facts, list) else []:
        if not isinstance(fact, list) or len(fact) != 4:
            continue
        number, text, conditional, path = fact
        found = _CHOSEN.search(str(text))
        backend = (found[1] or found[2]) if found else ""
        lines.append(_Line(f"{path}, line {number}", str(text), backend, bool(conditional)))
    return lines
