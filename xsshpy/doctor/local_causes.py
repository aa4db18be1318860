"""Why this terminal has no display, a dead one, or one that lets nobody in. Pure.

What a check saw is one thing, what brought it about another: a snap that sees no X socket, a tmux
that is older than the login, sudo without the cookie, WSL, a session over SSH that has ended. Facts
are the environment and the machine; each cause gives its evidence and one remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from xsshpy.doctor.findings import Opinion, broken
from xsshpy.doctor.machine import XWAYLAND, Machine, describe_install
from xsshpy.values import dataclass
from xsshpy.x11.display import SOCKET_FOLDER, Display

_UNSET = "DISPLAY is not set"
_FIRST_FORWARDED = 10
"""sshd's X11DisplayOffset: numbers from here on are of displays over SSH."""


@dataclass(frozen=True)
class _Cause:
    evidence: str
    remedy: str


def explain_unset(environ: Mapping[str, str], machine: Machine, newer: str) -> Opinion:
    """Say why there is no DISPLAY; ``newer`` is the one that tmux has for new windows."""
    if newer:
        return broken(f"{_UNSET}; tmux knows one: {newer}", remedy=f"export DISPLAY={newer}")
    causes = [*_boxes(environ, machine), *_missing_servers(environ, machine)]
    if "SSH_CONNECTION" in environ:
        causes.insert(
            0,
            _Cause(
                "this is a session over SSH itself",
                "log in to this machine with xssh, so that this shell has a display",
            ),
        )
    if "SUDO_USER" in environ:
        causes.insert(0, _sudo(environ))
    for cause in causes:
        return broken(f"{_UNSET}: {cause.evidence}", remedy=cause.remedy)
    return broken(_UNSET, remedy="run xssh in a terminal of a graphical session, or set DISPLAY")


def explain_dead(
    environ: Mapping[str, str], machine: Machine, display: Display, newer: str, plain: Opinion
) -> Opinion:
    """Say why nothing answers there; ``plain`` is what was seen."""
    causes: list[_Cause] = []
    if newer:
        causes.append(
            _Cause(f"tmux was told of another one since: {newer}", f"export DISPLAY={newer}")
        )
    if machine.is_wsl:
        causes += _wsl_causes(machine, display)
    if display.is_local and display.host and display.number >= _FIRST_FORWARDED:
        causes.append(_ended_session(environ))
    if display.is_local and not display.host and not display.is_launchd:
        causes += _boxes(environ, machine)
    if display.is_local:
        causes += _old_terminals(environ)
    return _extend(plain, causes)


def explain_refused(environ: Mapping[str, str], machine: Machine, plain: Opinion) -> Opinion:
    """Say why the X server lets nobody in; ``plain`` is what was seen."""
    causes = [_sudo(environ)] if "SUDO_USER" in environ else []
    return _extend(plain, [*causes, *_boxes(environ, machine)])


def _extend(plain: Opinion, causes: list[_Cause]) -> Opinion:
    if not causes:
        return plain
    return broken(*plain.evidence, causes[0].evidence, remedy=causes[0].remedy)


def _sudo(environ: Mapping[str, str]) -> _Cause:
    user = environ["SUDO_USER"]
    return _Cause(
        f"this is a shell of sudo, and the display and its cookie are {user}'s",
        f"run xssh as {user}, without sudo",
    )


def _boxes(environ: Mapping[str, str], machine: Machine) -> Iterator[_Cause]:
    """Yield what may hide a display from the programs inside."""
    if "FLATPAK_ID" in environ:
        name = environ["FLATPAK_ID"]
        yield _Cause(
            f"this terminal is of the Flatpak {name}, which may lack the right to X11",
            f"flatpak override --user --socket=x11 {name}, or a terminal outside of it",
        )
    elif "SNAP_NAME" in environ:
        yield _Cause(
            f"this terminal is of the snap {environ['SNAP_NAME']}, which has a /tmp of its own",
            "run xssh in a terminal that is no snap",
        )
    elif machine.is_container:
        yield _Cause(
            "this is a container, which sees the desktop's X server only where it is let in",
            f"start it with -e DISPLAY -v {SOCKET_FOLDER}:{SOCKET_FOLDER} and your Xauthority file",
        )


def _missing_servers(environ: Mapping[str, str], machine: Machine) -> Iterator[_Cause]:
    if machine.platform == "darwin" and machine.has_xquartz:
        yield _Cause(
            "XQuartz is installed, and this login is older than it", "log out and in again"
        )
    elif machine.platform == "darwin":
        yield _Cause(
            "there is no XQuartz",
            "brew install --cask xquartz, or take it from xquartz.org; then log out and in again",
        )
    elif machine.is_wsl and machine.has_wslg:
        yield _Cause("WSLg is there, and no start file sets it", "export DISPLAY=:0")
    elif machine.is_wsl and machine.has_old_wsl:
        yield _Cause(
            "this is WSL 1, which has no WSLg",
            "wsl --set-version with this distribution's name and 2, in Windows",
        )
    elif machine.is_wsl:
        yield _Cause("this WSL has no WSLg", "wsl --update in Windows, then wsl --shutdown")
    elif "WAYLAND_DISPLAY" in environ:
        yield _Cause(
            "this Wayland session runs no Xwayland",
            f"{describe_install(machine.family, XWAYLAND)}, then log in again",
        )


def _wsl_causes(machine: Machine, display: Display) -> Iterator[_Cause]:
    if not display.is_local:
        remedy = "export DISPLAY=:0, for WSLg" if machine.has_wslg else ""
        yield _Cause(
            f"{display.host} is an X server in Windows, and Windows' firewall may stand before it",
            remedy or "allow VcXsrv or X410 public networks in Windows' firewall",
        )
    elif not display.host and machine.has_wslg and not machine.has_wslg_link:
        yield _Cause(
            f"{SOCKET_FOLDER} is not WSLg's",
            f"sudo mkdir -p {SOCKET_FOLDER}; sudo mount --bind /mnt/wslg/.X11-unix {SOCKET_FOLDER}",
        )


def _ended_session(environ: Mapping[str, str]) -> _Cause:
    for cause in _old_terminals(environ):
        return cause
    return _Cause(
        "it belonged to a session over SSH that has ended",
        "log in anew with xssh and take DISPLAY from there",
    )


def _old_terminals(environ: Mapping[str, str]) -> Iterator[_Cause]:
    """Yield what keeps a shell alive beyond the display that it was started with."""
    again = "export DISPLAY as `echo $DISPLAY` says in a new terminal"
    if "TMUX" in environ:
        yield _Cause("tmux keeps the DISPLAY of when this window was opened", again)
    elif "STY" in environ:
        yield _Cause("screen keeps the DISPLAY of when it was started", again)
    elif environ.get("TERM_PROGRAM") == "vscode" or _has_editor(environ):
        yield _Cause(
            "VS Code's terminal keeps the DISPLAY of when its server was started",
            "export DISPLAY from a login with xssh, or `Kill VS Code Server on Host` and connect",
        )


def _has_editor(environ: Mapping[str, str]) -> bool:
    return any(re.match(r"VSCODE_(IPC_HOOK_CLI|GIT_IPC_HANDLE)$", name) for name in environ)
