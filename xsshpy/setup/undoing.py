"""What setup did on a server, as its record there tells, and the calls that undo it. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from xsshpy.doctor.probes import Answers
from xsshpy.values import dataclass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_@-]*")


@dataclass(frozen=True)
class ChangedFile:
    """A file that was changed or made. ``is_later_changed``: by somebody else, since."""

    run: str
    number: int
    kind: str
    place: str
    is_later_changed: bool

    def describe(self) -> str:
        """Return one line."""
        return f"{self.place}: as it was before"

    def call(self) -> str:
        """Return the words that take it back."""
        return shlex.join(["take_back", self.run, str(self.number), self.kind, self.place])


@dataclass(frozen=True)
class InstalledPackage:
    """A package that was not there before, and is now."""

    run: str
    manager: str
    name: str
    program: str = ""
    prefix: str = ""

    def describe(self) -> str:
        """Return one line."""
        return f"remove {self.name} ({self.manager}), unless something needs it by now"

    def call(self) -> str:
        """Return the words that take it back."""
        words = [self.run, self.manager, self.name, self.program, self.prefix]
        return shlex.join(["remove_package", *words])


@dataclass(frozen=True)
class Record:
    """One record: newest first. ``is_closed``: only root can read it."""

    files: tuple[ChangedFile, ...] = ()
    packages: tuple[InstalledPackage, ...] = ()
    is_closed: bool = False
    problems: tuple[str, ...] = ()


def read_record(answers: Answers) -> Record:
    """Return what ``list_record`` answers. A file in two entries is judged by the newer one."""
    files: list[ChangedFile] = []
    packages: list[InstalledPackage] = []
    for answer in answers.all_of("undo"):
        run, kind, *rest = answer.split("|") if "|" in answer else ("", "")
        if kind == "file" and len(rest) == 4 and rest[0].isdigit():
            number, sort, place, state = rest
            newer = any(file.place == place for file in files)
            if newer or state in ("new", "changed"):
                later = state == "changed" and not newer
                files.append(ChangedFile(run, int(number), sort, place, later))
        elif kind == "package" and len(rest) == 4 and _NAME.fullmatch(rest[1]):
            packages.append(InstalledPackage(run, *rest))
    return Record(
        tuple(files),
        _without_repetition(packages),
        bool(answers.all_of("closed")),
        answers.all_of("problem"),
    )


def _without_repetition(packages: Sequence[InstalledPackage]) -> tuple[InstalledPackage, ...]:
    found: dict[tuple[str, str, str], InstalledPackage] = {}
    for each in packages:
        found.setdefault((each.manager, each.name, each.prefix), each)
    return tuple(found.values())
