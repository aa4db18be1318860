"""A server that setup may change: its own sshd_config, package manager, system and /var/lib.

Nothing of this machine's is touched: sshd runs in a mount namespace in which /var/lib and
os-release are the test's, and its sessions have a PATH with the programs they need and no more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients import ClientHome
from tests.support.processes import Completed, run, xssh_command
from tests.support.sshd import SshServer
from tests.support.tools import require_tool, skip_or_fail

PROGRAMS = (
    "sh bash id uname grep readlink sed tr cat ls cp mv rm rmdir mkdir date chmod head tail sleep"
    " sync env ps touch unshare true stty"
)
DEBIAN = "ID=debian\n"
LOGIN_UID = 1000

PACKAGES = """#!/bin/sh
# Stands for a package manager: what it installs is a file in a folder, and xauth itself.
echo "${0##*/} $*" >>@LOG@
there=@THERE@
case "${0##*/} $*" in
*" install -y -p "*) touch "$4/conda-meta/tk-8.6.json" "$there/tk" ;;
*" remove -y -p "*) rm "$4/conda-meta/tk-8.6.json" "$there/tk" ;;
"brew list --versions "*) test -e "$there/$3" ;;
"brew uninstall "*) rm "$there/$2" ;;
*" install "*|"pacman -S "*|"apk "*" add "*)
  for name; do
    case $name in
    -*|install|add|120) continue ;;
    *xauth*) cp @XAUTH@ @BIN@/xauth ;;
    esac
    touch "$there/$name"
  done ;;
"dpkg-query "*) test -e "$there/$3" && echo "install ok installed" ;;
"dpkg --remove "*) rm "$there/$2"; case $2 in xauth) rm @BIN@/xauth ;; esac ;;
"rpm -q "*|"pacman -Q "*) test -e "$there/$2" ;;
"apk info "*) test -e "$there/$3" ;;
*" update") ;;
*) exit 1 ;;
esac
"""

PYTHON = """#!/bin/sh
ls @THERE@ | grep -Eq '^(python3-)?tk(inter)?$|^python-tk@' || PYTHONPATH=@HIDDEN@:@HOME@
export PYTHONPATH="${PYTHONPATH:-@HOME@}"
exec @PYTHON@ "$@"
"""


@dataclass
class Place:
    """A server from nothing, known to the client as ``server``."""

    server: SshServer
    home: ClientHome
    folder: Path
    variables: Mapping[str, str]

    @property
    def configuration(self) -> Path:
        """sshd_config."""
        return self.server.directory / "sshd_config"

    @property
    def own_file(self) -> Path:
        """Where setup's lines go."""
        return self.folder / "sshd_config.d" / "00-xssh.conf"

    def asked(self) -> list[str]:
        """Return what the package manager was asked."""
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def argv(self, *words: str) -> list[str]:
        """Return the command line of a setup."""
        return [*xssh_command(), *self.home.arguments, "--setup", *words, "server"]

    def set_up(self, *words: str, stdin: bytes = b"") -> Completed:
        """Run setup to its end."""
        return run(self.argv(*words), env=dict(self.variables), stdin=stdin, timeout=60)

    def state(self) -> dict[str, tuple[bytes, int, int, int]]:
        """Return content, mode, owner and time of everything that setup may change."""
        found = {}
        roots = [
            self.configuration,
            *self.folder.glob("sshd_config.d/*"),
            *self.folder.glob("state/**/*"),
        ]
        roots += [
            path
            for path in self.server.home.rglob("*")
            if ".Xauthority" not in path.name and ".cache" not in path.parts
        ]
        for path in roots:
            about = path.lstat()
            if path.is_file():
                found[str(path)] = (
                    path.read_bytes(),
                    about.st_mode,
                    about.st_uid,
                    about.st_mtime_ns,
                )
        return found


def write_program(path: Path, text: str, **values: object) -> None:
    """Write an executable text in which @NAMES@ are filled in."""
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    path.write_text(text)
    path.chmod(0o755)


def make_folder(folder: Path, managers: tuple[str, ...]) -> Path:
    """Make the PATH of the server's sessions; return it."""
    path = folder / "bin"
    for name in ("bin", "there", "hidden", "python", "state", "sshd_config.d"):
        (folder / name).mkdir()
    for name in PROGRAMS.split():
        (path / name).symlink_to(require_tool(name))
    given = {
        "LOG": folder / "log",
        "THERE": folder / "there",
        "BIN": path,
        "XAUTH": require_tool("xauth"),
    }
    for name in managers:
        write_program(path / name, PACKAGES, **given)
    (folder / "hidden" / "_tkinter.py").write_text("raise ImportError('no Tk')\n")
    (folder / "python" / "sitecustomize.py").write_text("import sys\nsys.base_prefix = '/usr'\n")
    hidden, home = folder / "hidden", folder / "python"
    write_program(
        path / "python3", PYTHON, HIDDEN=hidden, HOME=home, PYTHON=sys.executable, **given
    )
    return path


def make_place(
    make_sshd: Callable[..., SshServer],
    home: ClientHome,
    folder: Path,
    variables: Mapping[str, str],
    *,
    release: str = DEBIAN,
    managers: tuple[str, ...] = ("apt-get", "dpkg-query", "dpkg"),
    config: str = "Include @FOLDER@/sshd_config.d/*.conf\n",
    is_root: bool = True,
    start: str = 'exec "$@"',
    base: str = "",
    program: str = "",
    mounts: str = "",
) -> Place:
    """Start a server without xauth, X11Forwarding and Tk. Needs root.

    ``start`` is how a shell starts sshd: by default by its words, ``sshd -D -E LOG -f CONFIG``.
    ``base`` is where its Python lives, ``program`` the package manager that keeps it, both below
    the folder. ``mounts`` is run before, in the server's own mount namespace; "$1" is the folder.
    """
    folder.mkdir()
    path = make_folder(folder, managers)
    (folder / "release").write_text(release)
    if base:
        (folder / base / ("bin" if "brew" in program else "conda-meta")).mkdir(parents=True)
        (folder / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path / managers[0], folder / program)
        text = f"import sys\nsys.base_prefix = {str(folder / base)!r}\n"
        (folder / "python" / "sitecustomize.py").write_text(text)
    own = 'mount --bind "$1/state" /var/lib && mount --bind "$1/release" /etc/os-release'
    login = f'exec unshare -U --map-user={LOGIN_UID} --map-group={LOGIN_UID} "$@"'
    before = ["unshare", "-m", "sh", "-c", f"{own} && {mounts} shift && {login}", "sh", str(folder)]
    if os.getuid() or subprocess.run([*before, "true"], capture_output=True).returncode:
        skip_or_fail("needs root, unshare and mount")
    if is_root:
        before[4] = before[4].replace(login, start)
    server = make_sshd(
        x11=False,
        path=str(path),
        config=config.replace("@FOLDER@", str(folder)) + f"\nXAuthLocation {path}/xauth",
        wrapper=before,
        uid=None if is_root else LOGIN_UID,
    )
    home.add(server, extra="ForwardX11Trusted yes")
    return Place(server, home, folder, home.environment(**variables))


def feign_a_user(place: Place) -> None:
    """Let root's login look like another one: a user namespace has no terminals to give."""
    real = require_tool("id")
    text = f'#!/bin/sh\ntest "$1" != -u || test "$AS_ROOT" || {{ echo {LOGIN_UID}; exit; }}\n'
    (place.folder / "bin" / "id").unlink()
    write_program(place.folder / "bin" / "id", f'{text}exec {real} "$@"\n')


def give_sudo(place: Place, password: str = "", *, needs_terminal: bool = False) -> None:
    """Put a sudo on the server's PATH; with a password it asks for it as sudo -S does."""
    text = """#!/bin/sh
test -t 0 || @MAY@ || { echo "sudo: sorry, you must have a tty to run sudo" >&2; exit 1; }
case "$1" in
-n) shift; test -z '@PASSWORD@' || { echo "sudo: a password is required" >&2; exit 1; } ;;
-S)
  test -z '@PASSWORD@' || for n in 1 2 3; do
    printf %s "$3" >&2
    read -r given || exit 1
    test "$given" = '@PASSWORD@' && break
    test $n = 3 && { echo "sudo: 3 incorrect password attempts" >&2; exit 1; }
  done
  shift 3 ;;
esac
test "$(@ID@ -u)" = 0 || exec unshare -r "$@"
AS_ROOT=1 exec "$@"
"""
    may = "false" if needs_terminal else "true"
    write_program(
        place.folder / "bin" / "sudo", text, PASSWORD=password, ID=require_tool("id"), MAY=may
    )


def give_doas(place: Place, password: str = "") -> None:
    """Put a doas on the server's PATH, which asks on the terminal as OpenDoas does."""
    text = """#!/bin/sh
case $1 in
-n) shift; test -z '@PASSWORD@' || { echo "doas: Authentication required" >&2; exit 1; } ;;
*)
  (: </dev/tty) 2>/dev/null || { echo "doas: a tty is required" >&2; exit 1; }
  printf '\rdoas (demo@server) password: ' >/dev/tty
  read -r given </dev/tty
  echo >/dev/tty
  test "$given" = '@PASSWORD@' || { echo "doas: Authentication failed" >&2; exit 1; } ;;
esac
test "$(@ID@ -u)" = 0 || exec unshare -r "$@"
AS_ROOT=1 exec "$@"
"""
    write_program(place.folder / "bin" / "doas", text, PASSWORD=password, ID=require_tool("id"))
