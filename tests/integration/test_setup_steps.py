"""Setup's program, killed at every step: sshd's configuration stays one that sshd takes."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration._setup_server import write_program
from tests.support.sshd import KeyRing
from tests.support.tools import require_tool
from xsshpy.setup.plan import ChooseBackend, Configure
from xsshpy.setup.shell import program_text
from xsshpy.setup.wording import call_step

KILLER = """#!/bin/sh
# Counts the programs that are started, and kills who started the one that is awaited, behind it.
read -r n <@FOLDER@/count
n=$((n + 1))
read -r awaited <@FOLDER@/awaited
echo $n >@FOLDER@/count
@REAL@ "$@"
status=$?
test "$n" != "$awaited" || kill -9 0
exit $status
"""
WATCHED = ("cp", "mv", "rm", "mkdir", "sshd")
OLD = b"# the administrator's\nX11Forwarding no\n"


@dataclass
class Ground:
    """A configuration of sshd's and a matplotlibrc, and the program that changes them."""

    folder: Path
    keys: KeyRing

    def __post_init__(self) -> None:
        for name in ("bin", "home", "sshd_config.d"):
            (self.folder / name).mkdir()
        for name in WATCHED:
            path = self.folder / "bin" / name
            write_program(path, KILLER, FOLDER=self.folder, REAL=require_tool(name))
        self.config = self.folder / "sshd_config"
        self.rc = self.folder / "home" / ".config" / "matplotlib" / "matplotlibrc"
        self.rc.parent.mkdir(parents=True)

    def reset(self, head: str) -> None:
        """Make everything as it is without setup."""
        text = f"{head}HostKey {self.keys.host_keys['ed25519']}\n".encode() + OLD
        self.config.write_bytes(text)
        self.config.chmod(0o640)
        self.rc.write_bytes(b"backend: Agg\n")

    def run(self, *calls: str, awaited: str = "never") -> subprocess.CompletedProcess[str]:
        """Run calls; the shell is killed after the awaited program, which is counted."""
        (self.folder / "count").write_text("0\n")
        (self.folder / "awaited").write_text(awaited + "\n")
        binary = self.folder / "bin" / "sshd"
        lines = [
            "xs_nonce=n xs_user=demo xs_addr=127.0.0.1 xs_laddr=127.0.0.1 xs_lport=22",
            program_text(),
            f"find_sshd() {{ sshd_pid= sshd_bin={binary} sshd_config={self.config}; }}",
            f"record_folder() {{ echo {self.folder}/record/$1; }}",
            *calls,
        ]
        return subprocess.run(
            [require_tool("dash"), "-s"],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=True,
            env={"PATH": f"{self.folder}/bin:/usr/bin:/bin", "HOME": str(self.folder / "home")},
        )

    def state(self) -> dict[str, tuple[bytes, int]]:
        """Return content and mode of every file but the record's own."""
        folders = [self.config, self.rc.parent, self.folder / "sshd_config.d"]
        files = [path for folder in folders for path in (folder, *folder.glob("*"))]
        return {
            str(path): (path.read_bytes(), path.stat().st_mode) for path in files if path.is_file()
        }

    def accepts(self) -> bool:
        """Ask sshd itself."""
        argv = [require_tool("sshd"), "-t", "-f", str(self.config)]
        return subprocess.run(argv, capture_output=True).returncode == 0


@pytest.fixture
def ground(private_places: Path, key_ring: KeyRing) -> Ground:
    require_tool("sshd")
    folder = private_places / "ground"
    folder.mkdir()
    return Ground(folder, key_ring)


def calls_of(ground: Ground, *, is_own_file: bool) -> list[str]:
    own = f"{ground.folder}/sshd_config.d/00-xssh.conf"
    place = own if is_own_file else str(ground.config)
    configure = Configure(place, ("X11Forwarding yes", "AcceptEnv A"), is_own_file)
    return [
        "open_record root",
        call_step(1, configure),
        "close_record",
        "open_record home",
        call_step(2, ChooseBackend(str(ground.rc), "TkAgg", None)),
        "close_record",
    ]


UNDO_ALL = """undo_all() {
  open_record $1
  entries | while IFS='|' read -r r _ n k p; do undo 0 take_back "$r" "$n" "$k" "$p"; done
  close_record
}
undo_all root
undo_all home"""


@pytest.mark.parametrize(
    ("direction", "is_own_file"),
    [("do", True), ("undo", False)],
    ids=["done", "taken back"],
)
def test_killed_at_every_step(ground: Ground, direction: str, is_own_file: bool) -> None:
    """Whatever step is the last, sshd takes its settings, each file is old or new, and an undo goes
    all the way."""
    head = f"Include {ground.folder}/sshd_config.d/*.conf\n" if is_own_file else ""
    ground.reset(head)
    old, calls = ground.state(), calls_of(ground, is_own_file=is_own_file)
    done = ground.run(*calls)
    assert done.stdout.count("done") == 2, done
    new = ground.state()
    assert new != old
    if direction == "do":
        ground.run(UNDO_ALL)
    shutil.copytree(ground.folder, ground.folder.parent / "new", symlinks=True)
    killed, ended = 0, None
    while ended is None or ended.returncode == -9:
        killed += 1
        if direction == "undo":
            shutil.rmtree(ground.folder)
            shutil.copytree(ground.folder.parent / "new", ground.folder, symlinks=True)
        ended = ground.run(*calls if direction == "do" else [UNDO_ALL], awaited=str(killed))
        assert ground.accepts()
        for path, found in ground.state().items():
            if ".xssh-" not in path:
                assert found in (old.get(path), new.get(path)), (killed, path)
        back = ground.run(UNDO_ALL)
        assert "failed" not in back.stdout, (killed, back)
        assert {path: each for path, each in ground.state().items() if ".xssh-" not in path} == old
        assert list(ground.folder.glob("record/*/*/what")) == []
    assert killed > 10


def test_a_configuration_that_sshd_does_not_take(ground: Ground) -> None:
    """The same rules where a test passes before the change and not behind it."""
    ground.reset(f"Include {ground.folder}/sshd_config.d/*.conf\n")
    old = ground.state()
    place = f"{ground.folder}/sshd_config.d/00-xssh.conf"
    bad = Configure(place, ("Nonsense yes",), True)
    done = ground.run("open_record root", call_step(1, bad), "close_record")
    assert "failed 1 sshd -t does not accept it: nothing was changed" in done.stdout
    assert "Bad configuration option: Nonsense" in done.stdout
    assert ground.state() == old
    refuses = ground.folder / "bin" / "sshd"
    real = require_tool("sshd")
    text = '#!/bin/sh\ncase "$*" in *@CONFIG@*) echo no >&2; exit 255;; esac\nexec @REAL@ "$@"\n'
    write_program(refuses, text, CONFIG=ground.config, REAL=real)
    good = Configure(place, ("X11Forwarding yes",), True)
    done = ground.run("open_record root", call_step(1, good), "close_record")
    assert "failed 1 sshd -t failed: the old settings are back" in done.stdout, done
    assert ground.state() == old
    assert list(ground.folder.glob("record/*")) == []


def test_a_line_that_still_wins(ground: Ground) -> None:
    ground.reset("")
    with ground.config.open("a") as file:
        file.write("Match User demo\n  X11Forwarding no\n")
    old = ground.state()
    good = Configure(str(ground.config), ("X11Forwarding yes",), False)
    done = ground.run("open_record root", call_step(1, good), "close_record")
    assert "failed 1 another line still wins: the old settings are back" in done.stdout
    assert ground.state() == old


def test_a_record_that_others_can_change(ground: Ground) -> None:
    ground.reset("")
    record = ground.folder / "record" / "home"
    record.parent.mkdir()
    other = ground.folder / "other"
    other.mkdir()
    for make in (lambda: record.mkdir(), lambda: record.symlink_to(other)):
        make()
        if not record.is_symlink():
            record.chmod(0o777)
        done = ground.run("open_record home", "list_record home")
        assert done.stdout.count(f"problem {record} is not a private folder") == 2, done
        record.rmdir() if not record.is_symlink() else record.unlink()


def test_links_are_followed_for_settings_of_ones_own(ground: Ground) -> None:
    ground.reset("")
    real = ground.folder / "home" / "dotfiles rc"
    ground.rc.rename(real)
    ground.rc.symlink_to(real)
    step = call_step(1, ChooseBackend(str(ground.rc), "QtAgg", None))
    done = ground.run("open_record home", step, "close_record")
    assert "done 1" in done.stdout, done
    assert ground.rc.is_symlink()
    assert real.read_text() == "backend: QtAgg\n"
    what = next(ground.folder.glob("record/home/*/what")).read_text()
    assert what == f"file|1|home|{real}\n"
    assert shlex.quote(str(real)).startswith("'")


def test_a_package_manager_that_waits(ground: Ground) -> None:
    """What it said last is told meanwhile, and its status is what counts."""
    step = "step 1 install apt-get xauth {} ''"
    waits = shlex.quote("echo Waiting for the lock: it is 4711; sleep 2; exit 7")
    done = ground.run("xs_every=1", "open_record root", step.format(waits), "close_record")
    lines = [line.removeprefix("xssh-setup n ") for line in done.stdout.splitlines()]
    assert "still 1 Waiting for the lock: it is 4711" in lines, done
    # At its end it may be told that it waits once more.
    assert [line for line in lines if not line.startswith("still ")][-2:] == [
        "said Waiting for the lock: it is 4711",
        "failed 1 the package manager failed",
    ], done
    assert list(ground.folder.glob("record/*")) == []


def test_a_file_that_cannot_be_written(ground: Ground) -> None:
    ground.reset("")
    old = ground.state()
    mv = ground.folder / "bin" / "mv"
    write_program(
        mv, "#!/bin/sh\necho \"mv: cannot move '$2': Operation not permitted\" >&2\nexit 1\n"
    )
    good = Configure(str(ground.config), ("X11Forwarding yes",), False)
    calls = [call_step(2, ChooseBackend(str(ground.rc), "TkAgg", None)), call_step(1, good)]
    done = ground.run("open_record root", *calls, "close_record")
    for number, place in ((1, ground.config), (2, ground.rc)):
        words = f"failed {number} {place} can't be written: mv: cannot move "
        assert words in done.stdout and "Operation not permitted" in done.stdout
    assert ground.state() == old
    assert list(ground.folder.glob("record/*")) == []
