"""Which packages bring what, by which package manager: pure tables and decisions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from xsshpy.doctor.machine import LIBX11, PYTHON_TK, Package
from xsshpy.setup.facts import PythonFacts, ServerFacts
from xsshpy.values import dataclass

_APT = "env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y"


@dataclass(frozen=True)
class Manager:
    """How a package manager is called. ``kind`` is the field of :class:`Package` with its names;
    ``refresh`` is run where the first try fails, before a second one."""

    name: str
    kind: str
    install: str
    refresh: str = ""


MANAGERS = (
    Manager(
        "apt-get",
        "deb",
        f"{_APT} -o DPkg::Lock::Timeout=120 install --no-install-recommends",
        f"{_APT} update",
    ),
    Manager("dnf", "rpm", "dnf -q -y install"),
    Manager("yum", "rpm", "yum -q -y install"),
    Manager(
        "zypper",
        "suse",
        "env ZYPP_LOCK_TIMEOUT=120 zypper --non-interactive install --no-recommends",
    ),
    Manager("pacman", "arch", "pacman -S --needed --noconfirm"),
    Manager("apk", "apk", "apk --wait 120 add", "apk update"),
)
"""The system's own, in the order in which they are looked for."""

_OF_FAMILY = {
    "debian": ("apt-get",),
    "fedora": ("dnf", "yum"),
    "suse": ("zypper",),
    "arch": ("pacman",),
    "alpine": ("apk",),
}


_MODULES_OF_EL8 = ("3.8", "3.9")
"""Pythons of Red Hat Enterprise Linux 8 and kin whose packages have no point in their names."""


@dataclass(frozen=True)
class Installation:
    """Packages to install by one manager, as root or as the user.

    ``program`` and ``prefix`` are conda's and the environment's.
    """

    manager: str
    names: tuple[str, ...]
    command: str
    refresh: str = ""
    as_root: bool = True
    program: str = ""
    prefix: str = ""


def find_manager(facts: ServerFacts) -> Manager | None:
    """Return the system's package manager: its distribution's, or else the first that is there."""
    wanted = _OF_FAMILY.get(facts.family) or tuple(each.name for each in MANAGERS)
    there = [each for each in MANAGERS if each.name in wanted and each.name in facts.managers]
    return there[0] if there and facts.system == "Linux" and not facts.is_image else None


def name_of(package: Package, manager: Manager) -> str:
    """Return what a manager calls a package."""
    return str(getattr(package, manager.kind))


def install_by(manager: Manager, names: Sequence[str]) -> Installation:
    """Return an installation by the system's manager."""
    words = " ".join(shlex.quote(name) for name in names)
    return Installation(
        manager.name, tuple(names), f"{manager.install} {words}", refresh=manager.refresh
    )


@dataclass(frozen=True)
class TkWay:
    """How a Python gets Tk: a package of the system, an installation by the user, or words."""

    package: str = ""
    installation: Installation | None = None
    advice: str = ""


def find_tk_way(facts: ServerFacts) -> TkWay:
    """Decide how the Python of the command gets a Tk that works; nothing where it has one."""
    python = facts.python
    if facts.system == "Darwin" or not python.found:
        return TkWay()
    if python.tk and python.tcl_error:
        folder = f"{python.base}/lib"
        return TkWay(advice=f"set TCL_LIBRARY to the folder with init.tcl below {folder}")
    if python.tk:
        return TkWay()
    manager = find_manager(facts)
    if "libX11" in python.tk_error:
        return _by_system(LIBX11, manager)
    library = re.search(r"\blib(tk|tcl)(\d+\.\d+)\.so", python.tk_error)
    if library:  # a Python that was built with Tk, as in slim images; Debian's name has the version
        name = f"lib{library[1]}{library[2]}"
        return _by_system(Package(name, "tk", "tk", "tk", "tk"), manager)
    if python.conda:
        return _by_conda(python)
    brewed = re.match(r"(/.+)/(?:Cellar|opt)/python@(\d+\.\d+)/", python.base + "/")
    if brewed:
        return _by_brew(facts, brewed[1], f"python-tk@{brewed[2]}")
    if python.base == "/usr":
        return _by_distribution(facts, manager)
    return TkWay(advice=_advise(python))


def _by_system(package: Package, manager: Manager | None) -> TkWay:
    if manager is None:
        return TkWay(advice=f"{package.deb} (Debian's name; {package.rpm} in Fedora)")
    return TkWay(package=name_of(package, manager))


def _by_brew(facts: ServerFacts, home: str, name: str) -> TkWay:
    """By that Homebrew's own program: no session over SSH has it on its PATH. It refuses root."""
    command = f"{shlex.quote(home + '/bin/brew')} install {name}"
    if facts.is_root or not facts.python.may_write:
        return TkWay(advice=f"whoever keeps {home}, not root: {command}")
    return TkWay(
        installation=Installation(
            "brew", (name,), command, as_root=False, program=f"{home}/bin/brew"
        )
    )


def _by_conda(python: PythonFacts) -> TkWay:
    command = f"{shlex.quote(python.conda)} install -y -p {shlex.quote(python.base)} tk"
    if not python.may_write:
        return TkWay(advice=f"whoever keeps {python.base}: {command}")
    return TkWay(
        installation=Installation(
            "conda", ("tk",), command, as_root=False, program=python.conda, prefix=python.base
        )
    )


def _by_distribution(facts: ServerFacts, manager: Manager | None) -> TkWay:
    """A system's Python, which may be another one than the system's python3."""
    default = re.search(r"python(\d+\.\d+)$", facts.default_python)
    minor = facts.python.minor
    if manager is None or default is None or default[1] == minor or manager.kind == "arch":
        return _by_system(PYTHON_TK, manager)
    if not re.fullmatch(r"\d+\.\d+", minor):
        return TkWay(advice="a Python that says which version it is")
    joined = minor.replace(".", "")
    is_module = default[1] == "3.6" and minor in _MODULES_OF_EL8
    names = {
        "deb": f"python{minor}-tk",
        "rpm": f"python{joined if is_module else minor}-tkinter",
        "suse": f"python{joined}-tk",
    }
    name = names.get(manager.kind, "")
    return TkWay(package=name) if name else _by_system(PYTHON_TK, manager)


def _advise(python: PythonFacts) -> str:
    if "/uv/python/" in python.base + "/":
        return f"uv python install --reinstall {python.minor} (uv's Pythons bring Tk along)"
    if "/.pyenv/" in python.base + "/":
        return f"Tk's headers (tk-dev, tk-devel), then pyenv install --force {python.version}"
    return (
        f"{python.base} was built without Tk: build it again with Tk's headers (tk-dev, tk-devel), "
        f"or {python.interpreter} -m pip install PySide6 and xssh --backend QtAgg"
    )
