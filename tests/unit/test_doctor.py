"""The doctor's parts that need no other machine: the order of checks, words, kinds of machines."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tools import require_tool
from xsshpy.arguments import read_invocation, read_long_options, split_ssh_arguments
from xsshpy.console import Console
from xsshpy.doctor.examination import Check, examine
from xsshpy.doctor.findings import Finding, Opinion, Verdict, broken, warning, well
from xsshpy.doctor.host_checks import HostSide
from xsshpy.doctor.local_causes import explain_dead, explain_refused
from xsshpy.doctor.local_checks import LocalSide
from xsshpy.doctor.machine import XAUTH, Machine, describe_install, read_family, read_machine
from xsshpy.doctor.probes import (
    Program,
    display_command,
    read_answers,
    read_object,
    read_program,
    surroundings_command,
)
from xsshpy.doctor.python_checks import PythonSide
from xsshpy.doctor.report import Listing, as_json, conclude
from xsshpy.doctor.server_causes import explain_broken_off, explain_unwritable, has_starved
from xsshpy.doctor.server_checks import ServerSide
from xsshpy.doctor.x11_checks import X11Side
from xsshpy.errors import DisplayError
from xsshpy.invitation import doctor_command
from xsshpy.settings import Invocation
from xsshpy.x11.display import parse_display

NONCE = "0123456789abcdef"


def run_checks(*checks: Check) -> list[Finding]:
    shown: list[Finding] = []
    found = asyncio.run(examine(checks, shown.append))
    assert shown == found
    return found


def check(name: str, opinion: Opinion | Exception, *needs: str, deadline: float = 5.0) -> Check:
    async def look() -> Opinion:
        if isinstance(opinion, Exception):
            raise opinion
        return opinion

    return Check(name, name.upper(), look, needs, deadline)


def test_what_is_behind_a_broken_link_is_skipped_because_of_it() -> None:
    found = run_checks(
        check("a", well()),
        check("b", broken("no"), "a"),
        check("c", well(), "b"),
        check("d", well(), "c"),
        check("e", warning("hm"), "a"),
        check("f", well(), "e"),
    )
    assert [(each.name, each.verdict.value, each.because) for each in found] == [
        ("a", "ok", ""),
        ("b", "broken", ""),
        ("c", "skipped", "B"),
        ("d", "skipped", "B"),
        ("e", "warning", ""),
        ("f", "ok", ""),
    ]


def test_checks_without_needs_look_at_the_same_time() -> None:
    async def examine_both() -> list[Finding]:
        here, there = asyncio.Event(), asyncio.Event()

        async def one() -> Opinion:
            here.set()
            await there.wait()
            return well()

        async def other() -> Opinion:
            there.set()
            await here.wait()
            return well()

        return await examine([Check("a", "A", one), Check("b", "B", other)], lambda _: None)

    assert [each.verdict for each in asyncio.run(examine_both())] == [Verdict.OK, Verdict.OK]


def test_a_check_that_hangs_or_fails_is_broken() -> None:
    async def hang() -> Opinion:
        await asyncio.Event().wait()
        return well()

    found = run_checks(
        Check("a", "A", hang, deadline=0.01),
        check("b", DisplayError("xssh: X11: no", evidence=("  here",), remedy="that")),
        check("c", ConnectionRefusedError(111, "Connection refused")),
        check("d", KeyError("x")),
    )
    assert [(each.verdict, each.evidence, each.remedy) for each in found] == [
        (Verdict.BROKEN, ("no answer within 0.01 seconds",), ""),
        (Verdict.BROKEN, ("X11: no", "here"), "that"),
        (Verdict.BROKEN, ("Connection refused",), ""),
        (Verdict.BROKEN, ("KeyError: 'x'",), ""),
    ]


# --- Words -------------------------------------------------------------------------------------

FOUND = [
    Finding("a", "one", Verdict.OK, ("fine",)),
    Finding("b", "two", Verdict.WARNING, ("hm \x1b[31m" + "word " * 30,), "this"),
    Finding("c", "three", Verdict.BROKEN, ("it is broken:", "line 2"), "mend it"),
    Finding("d", "four", Verdict.SKIPPED, because="three"),
    Finding("e", "five", Verdict.SKIPPED, because="three"),
]


def test_the_list_fits_80_columns_and_ends_with_the_cause() -> None:
    stream = io.StringIO()
    listing = Listing(stream, {"TERM": "xterm"})
    for finding in FOUND:
        listing.write_finding(finding)
    listing.write_conclusion(FOUND)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in stream.getvalue()  # no colour without a terminal, none from the server
    assert "  skipped  for: three        four, five" in lines
    assert lines[-1] == "three: it is broken. Try: mend it"


def test_the_conclusion_breaks_no_word_that_is_to_be_typed() -> None:
    for width in range(40, 81):
        stream = io.StringIO()
        remedy = "sudo apt install openssh-client libxcb-render-util0"
        cause = Finding("a", "one", Verdict.BROKEN, ("broken",), remedy)
        Listing(stream, {}, width).write_conclusion([cause])
        assert {"openssh-client", "libxcb-render-util0"} < set(stream.getvalue().split()), width


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "coloured", "live"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, False, False),
        ({}, False, False),
    ],
)
def test_colour_and_life_only_on_a_terminal_that_has_them(
    environ: dict[str, str], coloured: bool, live: bool
) -> None:
    stream = Screen()
    listing = Listing(stream, environ)
    listing.show_progress(["one", "two"])
    listing.write_finding(FOUND[0])
    assert ("\x1b[32m" in stream.getvalue()) == coloured
    assert ("\r\x1b[K  ...      one, two" in stream.getvalue()) == live
    assert ("\x1b" in stream.getvalue()) == live
    listing.show_progress([])
    with listing.hide():
        listing.show_progress(["three"])
    assert stream.getvalue().count("three") == int(live)  # not while it is hidden
    listing.write_conclusion(FOUND[:1])
    assert stream.getvalue().endswith("\n\nAll is well.\n" if not live else "All is well.\n")


@pytest.mark.parametrize("columns", [1, 24, 40, 59, 60, 79, 80, 200])
def test_the_list_fits_every_terminal(columns: int) -> None:
    stream = io.StringIO()
    listing = Listing(stream, {}, columns)
    listing.write_heading("From this machine to a-host-with-a-name")
    for finding in FOUND:
        listing.write_finding(finding)
    listing.write_conclusion(FOUND)
    assert max(map(len, stream.getvalue().splitlines())) <= max(33, min(columns, 80))
    assert "word word" in stream.getvalue()


def test_the_line_of_what_goes_on_never_wraps() -> None:
    stream = Screen()
    Listing(stream, {"TERM": "xterm"}, 40).show_progress(["a long title"] * 9)
    assert len(stream.getvalue()) < 40 + len("\r\x1b[K")
    assert stream.getvalue().endswith("...")


def test_a_locale_without_utf_8() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Listing(stream, {}).write_finding(Finding("a", "one", Verdict.OK, ("caf\u00e9 \u2713",)))
    assert raw.getvalue().decode("ascii").endswith("caf\\xe9 \\u2713\n")


def test_conclusions() -> None:
    assert conclude(FOUND[:1]) == "All is well."
    assert conclude(FOUND[:2]) == "Nothing is broken; 1 thing is worth a look."


def test_json() -> None:
    found = json.loads(as_json("me@host", FOUND))
    assert (found["schema"], found["host"], found["cause"]) == (1, "me@host", "c")
    assert [each["verdict"] for each in found["findings"]] == [
        "ok",
        "warning",
        "broken",
        "skipped",
        "skipped",
    ]
    assert found["findings"][2]["remedy"] == "mend it"
    assert "\x1b" not in found["findings"][1]["evidence"][0]


DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "doctor.md"


def test_every_check_is_documented() -> None:
    """And only those that there are, in their order."""
    host = HostSide(Invocation("h"), {}, Console())
    server = ServerSide(host, {})
    x11 = X11Side(server)
    sides = (LocalSide({}, LINUX), host, server, x11, PythonSide(x11))
    names = [check.name for side in sides for check in side.checks()]
    rows = re.findall(r"^\| (`[^|]+`) \|", DOCUMENT.read_text(), re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`([a-z0-9.]+)`", row)]
    assert [name for name in documented if "." in name or name == "speed"] == names


def test_the_json_is_as_documented() -> None:
    """The document's table: a field, its kind, what it says."""
    kinds = {"number": int, "string": str, "list": list, "null": type(None)}
    row = re.compile(r"^\| `(\w+)`(, of a finding)? \| ([a-z ]+) \|", re.MULTILINE)
    fields: dict[str, list[str]] = {}
    of_findings: dict[str, list[str]] = {}
    for name, of, words in row.findall(DOCUMENT.read_text()):
        (of_findings if of else fields)[name] = words.split(" or ")
    for text in (as_json("me@host", FOUND), as_json(None, FOUND[:1])):
        found = json.loads(text)
        for described, values in ((fields, [found]), (of_findings, found["findings"])):
            for value in values:
                assert list(value) == list(described)
                for name, allowed in described.items():
                    assert type(value[name]) in {kinds[word] for word in allowed}, name


# --- Machines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ('ID=debian\nVERSION="12"\n', "sudo apt install xauth"),
        ("ID=pop\nID_LIKE='ubuntu debian'\n", "sudo apt install xauth"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "sudo dnf install xorg-x11-xauth"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sudo zypper install xauth"),
        ("ID=arch\n", "sudo pacman -S xorg-xauth"),
        ("ID=alpine\n", "sudo apk add xauth"),
        ("ID=plan9\n", "install xauth (Debian's name; xorg-x11-xauth in Fedora)"),
    ],
)
def test_each_distribution_has_its_command(release: str, command: str) -> None:
    assert describe_install(read_family(release), XAUTH) == command


def test_kinds_of_machines(tmp_path: Path) -> None:
    for name, text in (
        ("proc/version", "Linux version 5.15 (Microsoft@Microsoft.com)"),
        ("etc/os-release", "ID=ubuntu\n"),
        ("Applications/Utilities/XQuartz.app/x", ""),
        ("mnt/wslg/.X11-unix/x", ""),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    root = str(tmp_path)
    wsl = read_machine({}, platform="linux", root=root)
    assert wsl == Machine("linux", "debian", is_wsl=True, has_wslg=True, has_xquartz=False)
    mac = read_machine({}, platform="darwin", root=root)
    assert mac == Machine("darwin", "macos", is_wsl=False, has_wslg=False, has_xquartz=True)
    bare = read_machine({}, platform="linux", root=str(tmp_path / "nothing"))
    assert bare == Machine("linux", "", is_wsl=False, has_wslg=False, has_xquartz=False)


MAC = Machine("darwin", "macos", is_wsl=False, has_wslg=False, has_xquartz=False)
LINUX = Machine("linux", "debian", is_wsl=False, has_wslg=False, has_xquartz=False)


@pytest.mark.parametrize(
    ("machine", "environ", "evidence", "remedy"),
    [
        (MAC, {}, "no XQuartz", "brew install --cask xquartz"),
        (Machine("darwin", "macos", False, False, True), {}, "older than it", "log out and in"),
        (Machine("linux", "debian", True, True, False), {}, "WSLg is there", "DISPLAY=:0"),
        (Machine("linux", "debian", True, False, False), {}, "no WSLg", "wsl --update"),
        (LINUX, {"WAYLAND_DISPLAY": "wayland-0"}, "no Xwayland", "sudo apt install xwayland"),
        (LINUX, {"SSH_CONNECTION": "1 2 3 4"}, "over SSH itself", "log in to this machine"),
        (LINUX, {}, "DISPLAY is not set", "graphical session"),
    ],
)
def test_no_display_has_a_reason(
    machine: Machine, environ: dict[str, str], evidence: str, remedy: str
) -> None:
    looks = {check.name: check.look for check in LocalSide(environ, machine).checks()}
    opinion = asyncio.run(looks["local.display"]())
    assert opinion.verdict is Verdict.BROKEN
    assert evidence in opinion.evidence[0]
    assert remedy in opinion.remedy


LINUX_FILES = {"proc/version": "Linux version 6.1"}
WSL_FILES = {"proc/version": "Linux version 5.15-microsoft-standard-WSL2"}
OLD_WSL_FILES = {"proc/version": "Linux version 4.4.0-19041-Microsoft"}
WSLG_FILES = {**WSL_FILES, "mnt/wslg/.X11-unix/X0": "", "tmp/.X11-unix/X1": ""}
BOX_FILES = {**LINUX_FILES, ".dockerenv": ""}
DEAD = {"DISPLAY": ":64321"}
ENDED = {"DISPLAY": "localhost:4321.0"}

LOCAL_CAUSES: list[tuple[str, dict[str, str], dict[str, str], str, str]] = [
    # check, files, environment, words of the evidence, words of the remedy
    ("local.display", OLD_WSL_FILES, {}, "WSL 1, which has no WSLg", "wsl --set-version"),
    ("local.display", WSL_FILES, {}, "this WSL has no WSLg", "wsl --update"),
    ("local.display", BOX_FILES, {}, "this is a container", "-v /tmp/.X11-unix"),
    ("local.display", LINUX_FILES, {"SUDO_USER": "ann"}, "a shell of sudo", "as ann, without"),
    ("local.display", LINUX_FILES, {"SNAP_NAME": "code"}, "of the snap code", "that is no snap"),
    ("local.display", LINUX_FILES, {"FLATPAK_ID": "a.B"}, "Flatpak a.B", "--socket=x11 a.B"),
    ("local.server", LINUX_FILES, DEAD, "/tmp/.X11-unix/X64321 does not exist", "echo $DISPLAY"),
    ("local.server", WSLG_FILES, DEAD, "/tmp/.X11-unix is not WSLg's", "mount --bind"),
    ("local.server", WSLG_FILES, {"DISPLAY": "127.0.0.2:4"}, "127.0.0.2:6004", "DISPLAY"),
    ("local.server", WSLG_FILES, {"DISPLAY": "nosuch.invalid:0"}, "firewall", "DISPLAY=:0"),
    ("local.server", WSL_FILES, {"DISPLAY": "nosuch.invalid:0"}, "firewall", "allow VcXsrv"),
    ("local.server", BOX_FILES, DEAD, "this is a container", "-e DISPLAY"),
    ("local.server", LINUX_FILES, {**DEAD, "SNAP_NAME": "x"}, "the snap x", "no snap"),
    ("local.server", LINUX_FILES, {**DEAD, "FLATPAK_ID": "a.B"}, "the Flatpak a.B", "--socket=x11"),
    ("local.server", LINUX_FILES, {**DEAD, "STY": "1.x"}, "screen keeps the DISPLAY", "export"),
    ("local.server", LINUX_FILES, ENDED, "over SSH that has ended", "log in anew"),
    ("local.server", LINUX_FILES, {**ENDED, "STY": "1.x"}, "screen keeps", "new terminal"),
    ("local.server", LINUX_FILES, {**ENDED, "TERM_PROGRAM": "vscode"}, "VS Code", "Kill VS Code"),
    ("local.server", LINUX_FILES, {**ENDED, "VSCODE_IPC_HOOK_CLI": "/x"}, "VS Code", "export"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "environ", "evidence", "remedy"), LOCAL_CAUSES)
def test_what_brought_it_about(
    name: str,
    files: dict[str, str],
    environ: dict[str, str],
    evidence: str,
    remedy: str,
    tmp_path: Path,
) -> None:
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    machine = read_machine(environ, platform="linux", root=str(tmp_path))
    environ = {"PATH": os.environ["PATH"], **environ}
    checks = LocalSide(environ, machine).checks()
    found = run_checks(*(check for check in checks if check.name != "local.openssh"))
    cause = next(each for each in found if each.verdict is not Verdict.OK)
    assert (cause.name, cause.verdict) == (name, Verdict.BROKEN)
    assert evidence in " ".join(cause.evidence)
    assert remedy in cause.remedy
    assert {each.verdict for each in found if each is not cause} <= {Verdict.OK, Verdict.SKIPPED}


def test_a_plain_local_display_has_nothing_to_do_with_its_surroundings(tmp_path: Path) -> None:
    """WSLg with its link, and a DISPLAY below those of SSH."""
    (tmp_path / "mnt/wslg/.X11-unix").mkdir(parents=True)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/.X11-unix").symlink_to("../mnt/wslg/.X11-unix")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/version").write_text("Linux version 5.15-microsoft-standard-WSL2")
    machine = read_machine({}, platform="linux", root=str(tmp_path))
    assert machine == Machine("linux", "", True, True, False, has_wslg_link=True)
    plain = broken("dead", remedy="mend")
    found = explain_dead({}, machine, parse_display("localhost:9"), "", plain)
    assert found == plain
    assert explain_refused({}, LINUX, plain) == plain


# --- Causes there ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "error", "words", "remedy"),
    [
        ("full", "head: error writing: No space left on device", "disk or the quota is full", "df"),
        ("full", "head: error writing: Disk quota exceeded", "disk quota is used up", "quota -s"),
        ("full", "head: error writing: File too large", "may grow (ulimit -f)", "limits.conf"),
        ("full", "", "disk or the quota is full", "df -h"),
        ("no", "sh: cannot create: Disk quota exceeded", "disk quota is used up", "quota -s"),
        ("no", "sh: cannot create: No space left on device", "no inode left", "df -i"),
        ("no", "sh: cannot create: Read-only file system", "mounted read-only", "--x11 agent"),
        ("no", "sh: cannot create: Permission denied", "/h can't be written to, so", "--x11 agent"),
    ],
)
def test_why_a_home_folder_takes_nothing(state: str, error: str, words: str, remedy: str) -> None:
    evidence, advice = explain_unwritable("/h", state, error)
    assert words in evidence
    assert remedy in advice


def test_the_probe_says_why_nothing_can_be_written(private_places: Path) -> None:
    """No file may grow: what a shell and a program say of it reaches the judgement."""
    script = f"ulimit -f 0; trap '' XFSZ; exec {surroundings_command(NONCE)}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    answers = read_answers(done.stdout, NONCE)
    assert answers.first_of("writable") == "full"
    assert "ulimit -f" in explain_unwritable("/h", "full", answers.first_of("write"))[0]


def test_a_server_that_starts_no_more_processes(private_places: Path) -> None:
    setpriv, prlimit = require_tool("setpriv"), require_tool("prlimit")
    if os.getuid():
        pytest.skip("only root may be somebody without a process")
    argv = [setpriv, "--reuid", "54322", "--clear-groups", prlimit, "--nproc=1:1", "sh", "-c"]
    argv.append(surroundings_command(NONCE).replace("sh -c", "exec sh -c", 1))
    done = subprocess.run(argv, capture_output=True, check=False)
    answers = read_answers(done.stdout, NONCE)
    assert not answers.has_ended
    assert has_starved(done.stderr.decode())
    opinion = explain_broken_off(answers, done.stderr.decode())
    assert "too many processes of this account" in opinion.evidence[0]
    assert "ulimit -u" in opinion.remedy


NO_TK = {"tk_error": "ModuleNotFoundError: No module named '_tkinter'"}
NO_FIT = "/opt/miniconda3/lib/libtk8.6.so: undefined symbol: XftDrawCreate"


def lacks(name: str) -> dict[str, str]:
    """Return what a Python says where the linker finds no such library."""
    return {"tk_error": f"ImportError: {name}: cannot open shared object file"}


@pytest.mark.parametrize(
    ("facts", "words", "remedy"),
    [
        (lacks("libtk8.6.so"), "can't be loaded", "python3-tk"),
        (lacks("libX11.so.6"), "can't be loaded", "libx11-6"),
        ({"tk_error": f"ImportError: {NO_FIT}"}, "don't fit", "conda install"),
        ({"tk_error": "ImportError: version `GLIBC_2.38' not found"}, "don't fit", "python3-tk"),
        ({**NO_TK, "executable": "/opt/conda/bin/python"}, "has no Tk", "conda install tk"),
        ({**NO_TK, "qt": ["PyQt6"]}, "has no Tk", "QtAgg: PyQt6"),
        ({"tk": "8.6", "tcl_error": "TclError: no init.tcl"}, "does not start", "set TCL_LIBRARY"),
    ],
)
def test_what_tk_lacks(facts: dict[str, object], words: str, remedy: str) -> None:
    """A conda's libraries are not at hand: its words are those that its users report."""
    server = ServerSide(HostSide(Invocation("h"), {}, Console()), {})
    server.answers = read_answers(f"xssh-doctor {NONCE} release ID=debian\n".encode(), NONCE)
    python = PythonSide(X11Side(server), {"executable": "/usr/bin/python3", **facts})
    opinion = python.judge_tk(is_needed=True)
    assert opinion.verdict is Verdict.BROKEN
    assert words in opinion.evidence[0]
    assert remedy in opinion.remedy


def test_programs_that_outlive_their_display(private_places: Path) -> None:
    """screen and VS Code's server, among the processes of a system of their own.

    The shell that looks for them has their names in its own words, and is not one of them.
    """
    folder = private_places / "home" / ".vscode-server"
    folder.mkdir()
    (folder / "node").symlink_to(require_tool("sleep"))
    script = f"""mount -t proc proc /proc
DISPLAY=localhost:98.0 bash -c 'exec -a SCREEN sleep 9' &
DISPLAY=localhost:97.0 {folder}/node 9 &
DISPLAY=:0 bash -c 'exec -a SCREEN sleep 9' &
sleep 0.2
COLUMNS=9999 DISPLAY=localhost:96.0 {surroundings_command(NONCE)}
kill %1 %2 %3"""
    argv = ["unshare", "--pid", "--mount", "--fork", "bash", "-c"]
    if os.getuid() or subprocess.run([*argv, "true"], capture_output=True).returncode:
        pytest.skip("needs root and namespaces")
    done = subprocess.run([*argv, script], capture_output=True, check=True)
    stale = read_answers(done.stdout, NONCE).all_of("stale")
    assert sorted(stale) == ["VSCode localhost:97.0", "screen localhost:98.0"]


# --- The command that messages name ------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["host"], "xssh --doctor host"),
        (["-p", "2222", "-v", "me@host", "make plots"], "xssh --doctor -p 2222 me@host"),
        (["-XC", "-L8080:x:80", "-t", "host"], "xssh --doctor -X -C host"),
        (["-oProxyCommand=nc %h 22", "host"], "xssh --doctor -o 'ProxyCommand=nc %h 22' host"),
        (["-i", "~/a key", "--x11", "native", "h"], "xssh --doctor -i '~/a key' --x11 native h"),
        (["-J", "a,b", "host", "-p", "9"], "xssh --doctor -J a,b -p 9 host"),
        (["-oA=" + "x" * 500, "host"], "xssh --doctor host"),
        (["h$(reboot)"], "xssh --doctor 'h$(reboot)'"),
    ],
)
def test_the_command_is_as_it_was_typed(typed: list[str], named: str) -> None:
    words = split_ssh_arguments(typed)
    options = read_long_options(words.long_options, {})
    assert options is not None
    invocation = read_invocation(words, options)
    assert invocation is not None
    assert doctor_command(invocation) == named


# --- Probes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "dash", "fish", "csh", "tcsh"])
def test_every_shell_runs_the_probes(shell: str, private_places: Path) -> None:
    home = private_places / "home"
    (home / ".Xauthority-c").touch()
    for command, name in (
        (surroundings_command(NONCE), "home"),
        (display_command(NONCE), "display"),
    ):
        done = subprocess.run([require_tool(shell), "-c", command], capture_output=True, check=True)
        answers = read_answers(done.stdout, NONCE)
        assert answers.has_ended
        assert answers.noise == ()
        if name == "home":
            assert answers.first_of("home") == str(home)
            assert answers.first_of("writable") == "yes"
            assert answers.all_of("lock") == (str(home / ".Xauthority-c"),)
    assert [path.name for path in home.glob(".xssh*")] == []


def test_answers_are_told_from_noise() -> None:
    mine = f"xssh-doctor {NONCE}"
    text = f"hello\nxssh-doctor other home /x\n{mine} home /h  \n\n{mine} end"
    answers = read_answers(text.encode() + b"\nlater \xff", NONCE)
    assert answers.noise == ("hello", "xssh-doctor other home /x")
    assert (answers.first_of("home"), answers.first_of("none")) == ("/h", "")
    assert answers.has_ended
    assert not read_answers(b"", NONCE).has_ended


def test_objects() -> None:
    line = f'noise\nxssh-doctor {NONCE} [1]\nxssh-doctor {NONCE} {{"a": 1}}\n'
    assert read_object(line.encode(), NONCE) == {"a": 1}
    assert read_object(b"xssh-doctor x {}", NONCE) is None


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("python train.py --fast", Program("python", "train.py")),
        ("~/venv/bin/python", Program("~/venv/bin/python", "")),
        ("env A=1 python3.11 -u a/b.py x.py", Program("env A=1 python3.11", "a/b.py")),
        ("conda run -n x python t.py", Program("conda run -n x python", "t.py")),
        ("python -c 'import x.py'", Program("python", "")),
        ("python -m mod a.py", Program("python", "")),
        ("make plots", Program("", "")),
        ("", Program("", "")),
    ],
)
def test_which_python(command: str, program: Program) -> None:
    assert read_program(command) == program


@pytest.mark.parametrize("end", ["; sys.stdout.flush()", ""])
def test_a_list_that_nobody_reads_ends_in_silence(end: str) -> None:
    program = f"""
import sys
from xsshpy.doctor.visit import run_visit
async def visit():
    sys.stdout.write("found"){end}
    return 0
run_visit(visit())
"""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        argv = [sys.executable, "-c", program]
        ended = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")
