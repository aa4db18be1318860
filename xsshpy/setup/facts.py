"""What setup knows of a server before it decides: pure values, read from the survey's answers.

The survey is in ``program.sh``, what a Python says of itself in ``remote/python_facts.py``. Both
come from another host: whatever is no fact of the expected form is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from xsshpy.doctor.machine import read_family
from xsshpy.doctor.probes import Answers
from xsshpy.values import dataclass, field

_MOST_LINES = 2000


class Rights(Enum):
    """How far the login reaches. FREE: by sudo or doas as it is; PASSWORD: they ask for one."""

    ROOT = "root"
    FREE = "free"
    PASSWORD = "password"  # noqa: S105  a kind of right, no secret
    NONE = "none"


@dataclass(frozen=True)
class Line:
    """One line of a configuration; ``number`` counts from 1."""

    path: str
    number: int
    text: str

    @property
    def keyword(self) -> str:
        """The keyword, in small letters."""
        return re.split(r"[\s=]", self.text.strip(), maxsplit=1)[0].lower()

    @property
    def value(self) -> str:
        """What follows the keyword."""
        parts = re.split(r"[\s=]+", self.text.strip(), maxsplit=1)
        return parts[1].strip() if len(parts) > 1 else ""


@dataclass(frozen=True)
class SshdFacts:
    """The sshd that this session came through.

    ``effective`` are its settings for this session by ``sshd -T``, empty where that may not be
    asked; ``lines`` those of its files that matter here, each file's in order. ``folders`` are
    Include patterns whose folder is there. ``own`` is what an earlier setup wrote, by file;
    ``present`` the files that ours could be, or be in. ``fragile`` says why sshd would not come
    back from a reload, empty where it will. ``can_allow``: whether X11 would be on if
    the configuration began so, None where that is not known.
    """

    listener: int = 0
    fragile: str = ""
    program: str = ""
    config: str = ""
    is_linked: bool = False
    effective: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lines: tuple[Line, ...] = ()
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    can_allow: bool | None = None
    half_inet6: bool = False
    xauth: str = ""
    other_xauth: str = ""

    def value_of(self, keyword: str) -> str:
        """Return an effective value, or an empty string."""
        return " ".join(self.effective.get(keyword, ()))


@dataclass(frozen=True)
class PythonFacts:
    """The Python of the command; ``found`` is false where there is none.

    ``base`` is where it lives, behind a virtual environment; ``tk`` Tk's version or empty.
    ``decider`` says what chooses ``backend`` where the environment does not.
    """

    found: bool = False
    interpreter: str = ""
    executable: str = ""
    version: str = ""
    base: str = ""
    may_write: bool = False
    conda: str = ""
    tk: str = ""
    tk_error: str = ""
    tcl_error: str = ""
    backend: str = ""
    decider: str = ""

    @property
    def lacks_tk(self) -> bool:
        """Whether it is there, and has no Tk that starts."""
        return self.found and bool(self.tk_problem)

    @property
    def tk_problem(self) -> str:
        """Why there is no Tk that starts, or nothing."""
        return self.tcl_error if self.tk else self.tk_error or "no Tk"

    @property
    def minor(self) -> str:
        """The version without its last number, such as 3.11."""
        return ".".join(self.version.split(".")[:2])


@dataclass(frozen=True)
class ServerFacts:
    """Everything that the plan is made from.

    ``x11`` tells whether this very session was granted X11, None where it was not asked;
    ``refusal`` are the server's words about it. ``default_python`` is where /usr/bin/python3 leads.
    ``root_by`` is the program that makes root, ``root_in_terminal`` whether it wants a terminal.
    ``rc_lines`` are the lines of the login's own matplotlibrc files that choose a backend.
    """

    user: str = ""
    is_root: bool = False
    rights: Rights = Rights.NONE
    root_by: str = ""
    root_in_terminal: bool = False
    system: str = "Linux"
    family: str = ""
    home: str = ""
    managers: tuple[str, ...] = ()
    is_image: bool = False
    default_python: str = ""
    rc_lines: tuple[Line, ...] = ()
    rc_home: str = ""
    mplbackend: str = ""
    python: PythonFacts = field(default_factory=PythonFacts)
    x11: bool | None = None
    refusal: str = ""
    sshd: SshdFacts = field(default_factory=SshdFacts)
    connection: tuple[str, ...] = ("", "", "", "")

    @property
    def variables(self) -> Mapping[str, str]:
        """What a shell without this session's environment has to know of it, for ``sshd -T``."""
        return {
            "xs_user": self.user,
            "xs_addr": self.connection[0],
            "xs_laddr": self.connection[2],
            "xs_lport": self.connection[3],
        }


def read_server(answers: Answers) -> ServerFacts:
    """Return what the login's survey says, without Python, X11 and sshd."""
    uid, _, name = answers.first_of("user").partition(" ")
    rights = answers.first_of("rights")
    system = answers.first_of("system")
    root_by = answers.first_of("by")
    connection = answers.first_of("connection").split()
    if len(connection) != 4 or not all(re.fullmatch(r"[\w.:%]+", word) for word in connection):
        connection = ["", "", "", ""]
    release = "\n".join(answers.all_of("release"))
    return ServerFacts(
        user=name,
        is_root=uid == "0",
        rights=Rights(rights) if rights in {each.value for each in Rights} else Rights.NONE,
        root_by=root_by if root_by in ("sudo", "doas") else "",
        # doas asks on the terminal alone.
        root_in_terminal=bool(answers.first_of("terminal"))
        or (root_by == "doas" and rights == "password"),
        system=system,
        family="macos" if system == "Darwin" else read_family(release),
        home=answers.first_of("home"),
        managers=answers.all_of("manager"),
        is_image=bool(answers.first_of("image")),
        default_python=answers.first_of("default"),
        rc_lines=_read_rc_lines(answers),
        rc_home=answers.first_of("rchome"),
        mplbackend=answers.first_of("mplbackend"),
        connection=tuple(connection),
    )


def _read_rc_lines(answers: Answers) -> tuple[Line, ...]:
    """Lines come behind the name of their file."""
    path, found = "", []
    for answer in answers.lines[:_MOST_LINES]:
        name, _, value = answer.partition(" ")
        number, _, text = value.partition(":")
        if name == "rcfile":
            path = value.strip()
        elif name == "rcline" and path and number.isdigit():
            found.append(Line(path, int(number), text.strip()))
    return tuple(found)


def read_sshd(answers: Answers) -> SshdFacts:
    """Return what the survey of sshd says."""
    effective: dict[str, tuple[str, ...]] = {}
    for each in answers.all_of("effective"):
        keyword, _, value = each.partition(" ")
        effective[keyword] = (*effective.get(keyword, ()), value)
    own: dict[str, tuple[str, ...]] = {}
    for each in answers.all_of("own"):
        path, _, text = each.partition("|")
        own[path] = (*own.get(path, ()), text)
    composed = answers.first_of("composed")
    listener = answers.first_of("listener")
    return SshdFacts(
        listener=int(listener) if re.fullmatch(r"\d{1,9}", listener) else 0,
        fragile=answers.first_of("fragile"),
        program=answers.first_of("sshd"),
        config=answers.first_of("config"),
        is_linked=bool(answers.first_of("linked")),
        effective=effective,
        lines=tuple(filter(None, map(_read_line, answers.all_of("line")))),
        files=answers.all_of("file"),
        folders=answers.all_of("folder"),
        own=own,
        present=answers.all_of("present"),
        can_allow=composed.endswith(" yes") if composed else None,
        half_inet6=answers.first_of("inet6") == "half",
        xauth=answers.first_of("xauth"),
        other_xauth=answers.first_of("otherxauth"),
    )


def _read_line(answer: str) -> Line | None:
    path, _, rest = answer.partition("|")
    number, _, text = rest.partition(":")
    return Line(path, int(number), text.strip()) if re.fullmatch(r"\d{1,9}", number) else None


def read_python(interpreter: str, said: Mapping[str, object] | None) -> PythonFacts:
    """Return what a Python says of itself; ``said`` is None where it did not run."""
    if said is None:
        return PythonFacts(interpreter=interpreter)

    def text(name: str) -> str:
        value = said.get(name)
        return value if isinstance(value, str) else ""

    return PythonFacts(
        found=True,
        interpreter=interpreter,
        executable=text("executable"),
        version=text("version"),
        base=text("base"),
        may_write=said.get("may_write") is True,
        conda=text("conda"),
        tk=text("tk"),
        tk_error=text("tk_error"),
        tcl_error=text("tcl_error"),
        backend=text("backend"),
        decider=text("backend_from"),
    )
