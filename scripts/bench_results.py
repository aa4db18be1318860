"""What was measured: rows of samples, the file that keeps them, and what follows from them.

A file holds the machine, the versions, the method, the command and every sample. It is written
after each part, so that a run that was broken off goes on where it was.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

SCHEMA = 1
METHOD = (
    "One run, clients turn by turn, neither always first; the first turn only warms up caches. "
    "Distance is a relay in user space that delays, with a rate where one is named. "
    "Figures are medians; counted trips are the least, memory is the most of all turns."
)
LEAST_FOR_RATIO = 0.005
MIDDLES: dict[str, Callable[[Iterable[float]], float]] = {
    "median": statistics.median,
    "least": min,
    "most": max,
}


@dataclass
class Row:
    """One thing that was measured. ``unit`` ends in /s where more is better. ``samples`` are by
    client; ``middle`` names what stands for them: median, least or most."""

    part: str
    link: str
    name: str
    unit: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    middle: str = "median"

    def figure(self, client: str) -> float | None:
        """Return what stands for a client's samples; None where it has none."""
        found = self.samples.get(client)
        return MIDDLES[self.middle](found) if found else None

    def counterpart(self, other: str) -> str:
        """Return what of xssh is to be held against another client: compressed, what is too."""
        return "xssh -C" if other == "ssh -C" and "xssh -C" in self.samples else "xssh"

    def times_better(self, other: str) -> float | None:
        """Return how many times better xssh is than another client; below 1 it is worse.

        None where one of them was not measured, or took next to no time.
        """
        us, them = self.figure(self.counterpart(other)), self.figure(other)
        if not us or not them or (self.unit == "s" and them < LEAST_FOR_RATIO):
            return None
        return us / them if self.unit.endswith("/s") else them / us


@dataclass
class Results:
    """A file's content. ``is_final``: measured on a quiet machine, with all turns."""

    command: str
    is_final: bool = False
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    finished: dict[str, float] = field(default_factory=dict)
    """The parts that are complete, and the seconds that each took."""
    left_out: list[str] = field(default_factory=list)
    """What was not measured, and why."""
    rows: list[Row] = field(default_factory=list)

    def replace(self, part: str, rows: Sequence[Row], left_out: Sequence[str]) -> None:
        """Take a part's rows in place of those there were."""
        self.rows = [row for row in self.rows if row.part != part] + list(rows)
        self.left_out = [each for each in self.left_out if not each.startswith(f"{part}: ")]
        self.left_out += [f"{part}: {each}" for each in left_out]

    def find(self, part: str, link: str, name: str) -> Row | None:
        """Return a row; None where it was not measured."""
        wanted = (part, link, name)
        return next((row for row in self.rows if (row.part, row.link, row.name) == wanted), None)

    def dump(self) -> str:
        """Return the file's text; figures and ratios stand beside the samples for other readers."""
        rows = []
        for row in self.rows:
            clients = list(row.samples)
            better = {
                other: row.times_better(other) for other in clients if not other.startswith("xssh")
            }
            samples = {
                name: [float(f"{value:.5g}") for value in row.samples[name]] for name in clients
            }
            rows.append(
                {
                    **asdict(row),
                    "samples": samples,
                    "figures": {client: _round(row.figure(client)) for client in clients},
                    "times_better": {name: _round(value) for name, value in better.items()},
                }
            )
        whole = {"schema": SCHEMA, "method": METHOD, **asdict(self), "rows": rows}
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the file, beside and renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_text(self.dump())
        beside.rename(path)


def load(path: Path) -> Results:
    """Return a file's content. Raises OSError, ValueError."""
    found = json.loads(path.read_text())
    if found.pop("schema") != SCHEMA:
        raise ValueError(f"{path}: of another schema")
    fields = {name: found[name] for name in Results.__dataclass_fields__ if name != "rows"}
    names = list(Row.__dataclass_fields__)
    rows = [Row(**{name: row[name] for name in names}) for row in found["rows"]]
    return Results(**fields, rows=rows)


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def describe_machine() -> dict[str, str]:
    """Return what the machine is, as far as it matters."""
    try:
        pretty = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        pretty = platform.platform()
    load_average = f"{os.getloadavg()[0]:.1f}"
    return {
        "system": pretty,
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
        "load at the start": load_average,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of what is measured, and of what it runs on."""
    found = {"Python": platform.python_version()}
    for name in ("asyncssh", "cryptography", "matplotlib", "PySide6-Essentials", "PyQt5"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from xsshpy import __version__

    found["xssh"] = __version__
    for name, argv in {
        "OpenSSH": ["ssh", "-V"],
        "nxagent": ["dpkg-query", "-W", "-f", "${Version}", "nxagent"],
        "xpra": ["xpra", "--version"],
    }.items():
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        said = (done.stdout or done.stderr).strip().splitlines()[0]
        found[name] = said.removeprefix("xpra v").removeprefix("OpenSSH_")
    return found


def describe(rows: Sequence[Row]) -> str:
    """Return the rows as text: figures, and how many times better than each other xssh is."""
    lines = []
    for row in rows:
        figures = "  ".join(
            f"{client} {show(row.figure(client), row.unit)}" for client in row.samples
        )
        better = [
            f"{value:.3g} times as good as {client}"
            for client in row.samples
            if not client.startswith("xssh") and (value := row.times_better(client)) is not None
        ]
        end = f"  ({', '.join(better)})" if better else ""
        lines.append(f"{row.part:10} {row.link:17} {row.name:36} {figures}{end}")
    return "\n".join(lines)


def show(value: float | None, unit: str) -> str:
    """Return a figure with its unit, in a few digits."""
    if value is None:
        return ""
    per_second = "/s" if unit == "1/s" else ""
    if per_second and value >= 1000:
        size, letter = (1e6, "M") if value >= 1e6 else (1e3, "k")
        return f"{_digits(value / size)} {letter}/s"
    if not unit:
        return _digits(value)
    return f"{_digits(value)}{per_second or ' ' + unit}"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2g}" if value < 1 else f"{value:.2f}".rstrip("0").rstrip(".")
