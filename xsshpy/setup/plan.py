"""What is to be done on a server: a pure decision from the facts to steps and words.

Only what is missing becomes a step. xssh's own agent needs none of it: X11Forwarding and xauth are
for ``--x11 native``, for ssh itself, and for servers where the agent can't run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from xsshpy.doctor.machine import XAUTH
from xsshpy.setup.facts import Line, Rights, ServerFacts, SshdFacts
from xsshpy.setup.packages import (
    Installation,
    TkWay,
    find_manager,
    find_tk_way,
    install_by,
    name_of,
)
from xsshpy.ssh.environment import BACKEND_VARIABLE
from xsshpy.values import dataclass

OWN_FILE = "00-xssh.conf"
BEGIN = "# xssh --setup: begin"
END = "# xssh --setup: end"
_WINDOWLESS = ("agg", "svg", "pdf", "ps", "pgf", "cairo", "template")


@dataclass(frozen=True)
class Install:
    """Install packages."""

    installation: Installation

    @property
    def as_root(self) -> bool:
        """Whether it takes root's rights."""
        return self.installation.as_root


@dataclass(frozen=True)
class Configure:
    """Put lines into sshd's configuration: in a file of its own, or before a file's first line.

    ``before`` are the lines of an earlier setup there, which these take the place of.
    """

    place: str
    lines: tuple[str, ...]
    is_own_file: bool
    before: tuple[str, ...] = ()
    listener: int = 0
    as_root: bool = True

    @property
    def text(self) -> str:
        """What is written, marked."""
        return "\n".join((BEGIN, *self.lines, END, ""))


@dataclass(frozen=True)
class Reload:
    """Let sshd read its configuration, which is as it should be."""

    listener: int
    as_root: bool = True


@dataclass(frozen=True)
class ChooseBackend:
    """Change one line of a matplotlibrc; ``old`` is that line, None where the file is new."""

    place: str
    backend: str
    old: Line | None
    as_root: bool = False


Step = Install | Configure | Reload | ChooseBackend


@dataclass(frozen=True)
class Plan:
    """Steps in order, what can't be done with the reason, and what is good to know.

    ``for_administrator`` are the steps that this login may not take.
    """

    steps: tuple[Step, ...] = ()
    obstacles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    for_administrator: tuple[Step, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether nothing is missing."""
        return not (self.steps or self.obstacles or self.for_administrator)


@dataclass
class _Draft:
    steps: list[Step]
    obstacles: list[str]
    notes: list[str]


def make_plan(facts: ServerFacts, backend: str | None) -> Plan:
    """Decide. ``backend`` is what xssh sets, None where it leaves matplotlib alone."""
    draft = _Draft([], [], [])
    tk = find_tk_way(facts)
    wants_xauth = _wants_xauth(facts)
    _plan_packages(facts, tk, draft, wants_xauth=wants_xauth)
    if facts.x11 is not True:
        _plan_sshd(facts, draft, xauth_comes=wants_xauth)
    _plan_backend(facts, backend, draft)
    _note_python(facts, draft)
    allowed = facts.rights is not Rights.NONE
    return Plan(
        tuple(step for step in draft.steps if allowed or not step.as_root),
        tuple(draft.obstacles),
        tuple(draft.notes),
        () if allowed else tuple(step for step in draft.steps if step.as_root),
    )


def needs_root(facts: ServerFacts, plan: Plan) -> bool:
    """Tell whether root's rights are of use: for a step, or to see why X11 is refused."""
    return any(step.as_root for step in plan.steps) or facts.x11 is False


def _wants_xauth(facts: ServerFacts) -> bool:
    return facts.x11 is not True and not facts.sshd.xauth and not facts.sshd.other_xauth


def _plan_packages(facts: ServerFacts, tk: TkWay, draft: _Draft, *, wants_xauth: bool) -> None:
    manager = find_manager(facts)
    names = [tk.package] if tk.package else []
    if wants_xauth and manager is not None:
        names.insert(0, name_of(XAUTH, manager))
    elif wants_xauth:
        draft.obstacles.append(f"xauth is missing on the server: {_install_by_hand(facts)}")
    if names and manager is not None:
        draft.steps.append(Install(install_by(manager, names)))
    if tk.installation is not None:
        draft.steps.append(Install(tk.installation))
    if tk.advice:
        what = "Tcl does not start" if facts.python.tk else "no Tk"
        draft.obstacles.append(f"{facts.python.executable}: {what}; {tk.advice}")


def _install_by_hand(facts: ServerFacts) -> str:
    if facts.system == "Darwin":
        return "brew install --cask xquartz there, which brings /opt/X11/bin/xauth"
    if facts.is_image:
        return f"its system is an image: rpm-ostree install {XAUTH.rpm}, and a restart"
    return "no package manager that is known here; install it there by hand"


# --- sshd ---------------------------------------------------------------------------------------


def _plan_sshd(facts: ServerFacts, draft: _Draft, *, xauth_comes: bool) -> None:
    sshd = facts.sshd
    if "key options" in facts.refusal:
        draft.obstacles.append(
            f"{facts.refusal} Take no-X11-forwarding or restrict off this key in authorized_keys"
        )
        return
    if not sshd.config or not sshd.program:
        draft.obstacles.append("the sshd of this session was not found: X11Forwarding by hand")
        return
    lines = _wanted_lines(facts)
    is_told_only = not lines and facts.x11 is False and not xauth_comes and bool(sshd.effective)
    if sshd.fragile and (lines or is_told_only):
        draft.obstacles.append(
            f"sshd would not come back from a reload: {sshd.fragile}. Restart it by hand first, "
            "and keep this login until a second one works"
        )
        return
    barred = _find_bar(sshd)
    if barred:
        draft.obstacles.append(barred)
        return
    if lines and not sshd.effective and not sshd.lines and facts.rights is Rights.ROOT:
        draft.obstacles.append(f"`{sshd.program} -T` says nothing: see what {sshd.config} lacks")
        return
    if lines:
        step = _place_lines(sshd, lines)
        if isinstance(step, str):
            draft.obstacles.append(step)
        else:
            draft.steps.append(step)
    elif is_told_only and sshd.listener:
        draft.steps.append(Reload(sshd.listener))
    elif facts.x11 is False and not xauth_comes:
        said = facts.refusal or "and does not say why"
        draft.obstacles.append(f"sshd refuses X11, {said}; its settings would allow it")


def _find_bar(sshd: SshdFacts) -> str:
    """Return what forbids X11 whatever is put first, or nothing."""
    if sshd.value_of("disableforwarding") == "yes":
        where = [line for line in sshd.lines if line.keyword == "disableforwarding"]
        return f"DisableForwarding yes{_locate(where)} is somebody's decision: left as it is"
    if sshd.can_allow is False:
        where = [
            line
            for line in sshd.lines
            if line.keyword == "x11forwarding" and _is_in_match(line, sshd)
        ]
        what = "a Match block" if where else "the command line of sshd, or a Match block,"
        return f"{what} says X11Forwarding no for this login{_locate(where)}: left as it is"
    return ""


def _locate(lines: Sequence[Line]) -> str:
    return (
        " (" + ", ".join(f"{each.path} line {each.number}" for each in lines) + ")" if lines else ""
    )


def _is_in_match(line: Line, sshd: SshdFacts) -> bool:
    """A Match block reaches to the next one, or to the end of its file."""
    before = [
        each
        for each in sshd.lines
        if each.path == line.path and each.number < line.number and each.keyword == "match"
    ]
    return bool(before) and before[-1].value.lower() != "all"


def _wanted_lines(facts: ServerFacts) -> tuple[str, ...]:
    """Return the lines that are missing; nothing where X11Forwarding and its kin are right.

    AcceptEnv alone is no reason to touch a server: xssh sets the variable in the command.
    """
    sshd = facts.sshd
    lines = []
    if not _is_on(facts):
        lines.append("X11Forwarding yes")
    if sshd.half_inet6 and sshd.value_of("addressfamily") in ("any", ""):
        lines.append("AddressFamily inet")
    if sshd.other_xauth and not sshd.xauth:
        lines.append(f"XAuthLocation {sshd.other_xauth}")
    accepted = " ".join(sshd.effective.get("acceptenv", ())).split()
    if lines and not any(fnmatchcase(BACKEND_VARIABLE, pattern) for pattern in accepted):
        lines.append(f"AcceptEnv {BACKEND_VARIABLE}")
    return tuple(lines)


def _is_on(facts: ServerFacts) -> bool:
    """Tell whether X11Forwarding is yes; without ``sshd -T`` the refusal or a line may tell."""
    sshd = facts.sshd
    if sshd.effective:
        return sshd.value_of("x11forwarding") == "yes"
    said = {
        line.value.lower()
        for line in sshd.lines
        if line.keyword == "x11forwarding" and not _is_in_match(line, sshd)
    }
    return "xauth" in facts.refusal.lower() or said == {"yes"}


def _place_lines(sshd: SshdFacts, lines: tuple[str, ...]) -> Configure | str:
    """Decide where lines go: the first value of a keyword counts in sshd_config."""
    folder = _find_folder(sshd, lines)
    place = f"{folder}/{OWN_FILE}" if folder else sshd.config
    before = sshd.own.get(place, ())
    if folder and place in sshd.present and not before:
        return f"{place} is there and not of setup's making: left as it is"
    if not folder and sshd.is_linked:
        return f"{sshd.config} is a link: put {', '.join(lines)} at the top of the file behind it"
    if not re.fullmatch(r"/[^|\n]*", place):
        return f"{sshd.config} has no name that setup could use"
    kept = [each for each in before if each not in (BEGIN, END)]
    first = {each.split()[0].lower() for each in lines}
    kept = [each for each in kept if each and each.split()[0].lower() not in first]
    return Configure(place, (*lines, *kept), bool(folder), before, sshd.listener)


def _find_folder(sshd: SshdFacts, lines: Sequence[str]) -> str:
    """Return the folder of an Include that comes before whatever else sets the same keywords."""
    firsts = {line.split()[0].lower() for line in lines} - {"acceptenv"}
    for line in sshd.lines:
        if line.path != sshd.config:
            continue
        if line.keyword == "match" or line.keyword in firsts:
            return ""
        if line.keyword == "include":
            folder = _own_folder(line.value, sshd.folders)
            others = [
                each
                for each in sshd.lines
                if folder and each.path.rpartition("/")[0] == folder and each.keyword in firsts
            ]
            earlier = [each for each in others if each.path < f"{folder}/{OWN_FILE}"]
            if folder and not earlier:
                return folder
            if earlier:
                return ""
    return ""


def _own_folder(include: str, folders: Sequence[str]) -> str:
    """Return the first folder of an Include line that our file's name fits in."""
    for word in include.replace('"', "").split():
        pattern = word if word.startswith("/") else f"/etc/ssh/{word}"
        folder, _, name = pattern.rpartition("/")
        if pattern in folders and fnmatchcase(OWN_FILE, name) and not re.search(r"[*?[|]", folder):
            return folder
    return ""


# --- matplotlib ---------------------------------------------------------------------------------


def _plan_backend(facts: ServerFacts, backend: str | None, draft: _Draft) -> None:
    """A matplotlibrc that draws into files only counts wherever MPLBACKEND does not reach."""
    python = facts.python
    if python.backend.lower() not in _WINDOWLESS or backend is None or facts.system == "Darwin":
        return
    if facts.mplbackend:
        draft.obstacles.append(
            f"MPLBACKEND={facts.mplbackend} on the server draws into files only: take it out of "
            "the start files there"
        )
        return
    lines = [line for line in facts.rc_lines if line.path == python.decider]
    if lines:
        draft.steps.append(ChooseBackend(python.decider, backend, lines[-1]))
    elif python.decider.startswith("/") and facts.rc_home.startswith("/"):
        draft.steps.append(ChooseBackend(facts.rc_home, backend, None))


def _note_python(facts: ServerFacts, draft: _Draft) -> None:
    if not facts.python.found:
        named = facts.python.interpreter
        draft.notes.append(
            f"{named} does not run there" if named else "there is no Python on the server's PATH"
        )
    if facts.system == "Darwin":
        draft.notes.append("a Mac: Tk draws on its own screen; take Qt and --backend QtAgg")
