"""What kind of machine this is, as far as a remedy depends on it.

Facts come from files below ``root`` and from the environment; nothing here starts a program.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from xsshpy.values import dataclass

_RELEASE_FILES = ("etc/os-release", "usr/lib/os-release")
_XQUARTZ = ("Applications/Utilities/XQuartz.app", "opt/X11/bin/Xquartz")
_WSLG = "mnt/wslg/.X11-unix"
_X11 = "tmp/.X11-unix"
_CONTAINERS = (".dockerenv", "run/.containerenv")
_MAX_RELEASE = 1 << 16

_INSTALL = {
    "debian": "sudo apt install {deb}",
    "fedora": "sudo dnf install {rpm}",
    "suse": "sudo zypper install {suse}",
    "arch": "sudo pacman -S {arch}",
    "alpine": "sudo apk add {apk}",
}
"""How each family of distributions installs a package; names differ by kind of package."""

_FAMILIES = {
    "debian": ("debian", "ubuntu", "raspbian", "linuxmint", "pop", "kali"),
    "fedora": ("fedora", "rhel", "centos", "rocky", "almalinux", "ol", "amzn"),
    "suse": ("suse", "opensuse", "sles", "opensuse-leap", "opensuse-tumbleweed"),
    "arch": ("arch", "manjaro", "endeavouros"),
    "alpine": ("alpine",),
}


@dataclass(frozen=True)
class Package:
    """What one thing is called in each family of distributions."""

    deb: str
    rpm: str
    arch: str
    apk: str
    suse: str


XAUTH = Package("xauth", "xorg-x11-xauth", "xorg-xauth", "xauth", "xauth")
PYTHON_TK = Package("python3-tk", "python3-tkinter", "tk", "python3-tkinter", "python3-tk")
LIBX11 = Package("libx11-6", "libX11", "libx11", "libx11", "libX11-6")
XCB_CURSOR = Package(
    "libxcb-cursor0", "xcb-util-cursor", "xcb-util-cursor", "xcb-util-cursor", "libxcb-cursor0"
)
XKBCOMMON_X11 = Package(
    "libxkbcommon-x11-0",
    "libxkbcommon-x11",
    "libxkbcommon-x11",
    "libxkbcommon",
    "libxkbcommon-x11-0",
)
XCB_ICCCM = Package("libxcb-icccm4", "xcb-util-wm", "xcb-util-wm", "xcb-util-wm", "libxcb-icccm4")
XCB_KEYSYMS = Package(
    "libxcb-keysyms1", "xcb-util-keysyms", "xcb-util-keysyms", "xcb-util-keysyms", "libxcb-keysyms1"
)
XCB_IMAGE = Package(
    "libxcb-image0", "xcb-util-image", "xcb-util-image", "xcb-util-image", "libxcb-image0"
)
XCB_RENDER_UTIL = Package(
    "libxcb-render-util0",
    "xcb-util-renderutil",
    "xcb-util-renderutil",
    "xcb-util-renderutil",
    "libxcb-render-util0",
)
_LIBRARIES = {
    "libX11": LIBX11,
    "libxcb-cursor": XCB_CURSOR,
    "libxkbcommon-x11": XKBCOMMON_X11,
    "libxcb-icccm": XCB_ICCCM,
    "libxcb-keysyms": XCB_KEYSYMS,
    "libxcb-image": XCB_IMAGE,
    "libxcb-render-util": XCB_RENDER_UTIL,
}
OPENSSH_CLIENT = Package(
    "openssh-client", "openssh-clients", "openssh", "openssh-client", "openssh-clients"
)
XWAYLAND = Package("xwayland", "xorg-x11-server-Xwayland", "xorg-xwayland", "xwayland", "xwayland")


def describe_install(distribution: str, package: Package) -> str:
    """Return the command that installs a package; ``distribution`` as from ``read_family``.

    An unknown distribution gets the names to look for.
    """
    if distribution == "macos":
        return f"brew install {package.deb}"
    command = _INSTALL.get(distribution)
    if command is None:
        return f"install {package.deb} (Debian's name; {package.rpm} in Fedora)"
    return command.format(
        deb=package.deb,
        rpm=package.rpm,
        arch=package.arch,
        apk=package.apk,
        suse=package.suse,
    )


def find_package(library: str) -> Package | None:
    """Return what a library such as ``libX11.so.6`` comes with; None where that isn't known."""
    return _LIBRARIES.get(library.partition(".so")[0])


def read_family(release: str) -> str:
    """Return the family of distributions that an os-release file tells of, or an empty string."""
    found = dict(re.findall(r'^(ID|ID_LIKE)="?([^"\n]*)"?\s*$', release, re.MULTILINE))
    words = f"{found.get('ID', '')} {found.get('ID_LIKE', '')}".lower().split()
    for word in words:
        for family, names in _FAMILIES.items():
            if word in names:
                return family
    return ""


@dataclass(frozen=True)
class Machine:
    """This machine. ``platform`` is ``sys.platform``; ``family`` is the distribution's.

    ``has_old_wsl``: WSL 1, which has no WSLg. ``has_wslg_link``: X's folder is WSLg's.
    """

    platform: str
    family: str
    is_wsl: bool
    has_wslg: bool
    has_xquartz: bool
    has_old_wsl: bool = False
    has_wslg_link: bool = False
    is_container: bool = False


def read_machine(
    environ: Mapping[str, str], *, platform: str = sys.platform, root: str = "/"
) -> Machine:
    """Look at this machine."""
    if platform == "darwin":
        found = any(os.path.exists(os.path.join(root, path)) for path in _XQUARTZ)
        return Machine(platform, "macos", is_wsl=False, has_wslg=False, has_xquartz=found)
    kernel = _read(os.path.join(root, "proc/version"))
    release = next(filter(None, (_read(os.path.join(root, name)) for name in _RELEASE_FILES)), "")
    return Machine(
        platform,
        read_family(release),
        is_wsl="microsoft" in kernel.lower() or "WSL_DISTRO_NAME" in environ,
        has_wslg=os.path.isdir(os.path.join(root, _WSLG)),
        has_xquartz=False,
        has_old_wsl="-Microsoft" in kernel,
        has_wslg_link=_are_same(os.path.join(root, _X11), os.path.join(root, _WSLG)),
        is_container=any(os.path.exists(os.path.join(root, path)) for path in _CONTAINERS),
    )


def _are_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_RELEASE)
    except OSError:
        return ""
