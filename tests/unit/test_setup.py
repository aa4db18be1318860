"""What setup decides: pure, for each distribution and state of a server; and its small programs."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.support.tools import require_tool
from xsshpy.__main__ import parse_command_line
from xsshpy.doctor.probes import Answers
from xsshpy.errors import SessionError, UsageError
from xsshpy.setup.facts import (
    Line,
    PythonFacts,
    Rights,
    ServerFacts,
    SshdFacts,
    read_python,
    read_server,
    read_sshd,
)
from xsshpy.setup.looking import look
from xsshpy.setup.plan import (
    BEGIN,
    END,
    ChooseBackend,
    Configure,
    Install,
    Plan,
    Reload,
    make_plan,
    needs_root,
)
from xsshpy.setup.shell import WHO, RemoteShell, _Told, program_text
from xsshpy.setup.undoing import read_record
from xsshpy.setup.visitor import Visitor
from xsshpy.setup.wording import call_step, describe_plan, describe_request
from xsshpy.values import replace

MAIN = "/etc/ssh/sshd_config"
DROPIN = "/etc/ssh/sshd_config.d"
INCLUDE = Line(MAIN, 1, f"Include {DROPIN}/*.conf")
NO = {"x11forwarding": ("no",), "addressfamily": ("any",)}
YES = {"x11forwarding": ("yes",), "addressfamily": ("any",)}
SSHD = SshdFacts(
    listener=9,
    program="/usr/sbin/sshd",
    config=MAIN,
    effective=NO,
    lines=(INCLUDE, Line(MAIN, 90, "X11Forwarding no")),
    files=(MAIN,),
    folders=(f"{DROPIN}/*.conf",),
    can_allow=True,
    xauth="/usr/bin/xauth",
)
SYSTEM_PYTHON = PythonFacts(
    found=True,
    interpreter="python3",
    executable="/usr/bin/python3",
    version="3.11.2",
    base="/usr",
    tk="8.6",
)
NO_TK = replace(SYSTEM_PYTHON, tk="", tk_error="ModuleNotFoundError: No module named '_tkinter'")
SERVER = ServerFacts(
    user="demo",
    is_root=True,
    rights=Rights.ROOT,
    family="debian",
    home="/root",
    managers=("apt-get",),
    default_python="/usr/bin/python3.11",
    rc_home="/root/.config/matplotlib/matplotlibrc",
    python=SYSTEM_PYTHON,
    x11=False,
    sshd=SSHD,
)


def answers(*lines: str) -> Answers:
    return Answers(lines, ())


def plan_of(facts: ServerFacts, backend: str | None = "TkAgg") -> Plan:
    return make_plan(facts, backend)


def commands(plan: Plan) -> list[str]:
    return [step.installation.command for step in plan.steps if isinstance(step, Install)]


def configuration(plan: Plan) -> Configure:
    (found,) = [step for step in plan.steps if isinstance(step, Configure)]
    return found


# --- Packages ----------------------------------------------------------------------------------

RELEASES = {
    "debian": 'ID=debian\nVERSION_ID="12"',
    "ubuntu": "ID=ubuntu\nID_LIKE=debian",
    "mint": 'ID=linuxmint\nID_LIKE="ubuntu debian"',
    "fedora": "ID=fedora",
    "rocky": 'ID="rocky"\nID_LIKE="rhel centos fedora"',
    "centos 7": 'ID="centos"\nID_LIKE="rhel fedora"',
    "amazon": 'ID="amzn"\nID_LIKE="fedora"',
    "leap": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"',
    "tumbleweed": 'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"',
    "arch": "ID=arch",
    "manjaro": "ID=manjaro\nID_LIKE=arch",
    "alpine": "ID=alpine",
    "unheard of": "ID=unheardof",
}
APT = "env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends"


@pytest.mark.parametrize(
    ("release", "managers", "expected"),
    [
        ("debian", "apt-get", f"{APT} xauth python3-tk"),
        ("ubuntu", "apt-get brew", f"{APT} xauth python3-tk"),
        ("mint", "apt-get", f"{APT} xauth python3-tk"),
        ("fedora", "dnf yum", "dnf -q -y install xorg-x11-xauth python3-tkinter"),
        ("rocky", "dnf yum apt-get", "dnf -q -y install xorg-x11-xauth python3-tkinter"),
        ("centos 7", "yum", "yum -q -y install xorg-x11-xauth python3-tkinter"),
        ("amazon", "dnf", "dnf -q -y install xorg-x11-xauth python3-tkinter"),
        ("leap", "zypper", "env ZYPP_LOCK_TIMEOUT=120 zypper --non-interactive install --no-recommends xauth python3-tk"),
        ("tumbleweed", "zypper", "env ZYPP_LOCK_TIMEOUT=120 zypper --non-interactive install --no-recommends xauth python3-tk"),
        ("arch", "pacman", "pacman -S --needed --noconfirm xorg-xauth tk"),
        ("manjaro", "pacman", "pacman -S --needed --noconfirm xorg-xauth tk"),
        ("alpine", "apk", "apk --wait 120 add xauth python3-tkinter"),
        ("unheard of", "zypper apk", "env ZYPP_LOCK_TIMEOUT=120 zypper --non-interactive install --no-recommends xauth python3-tk"),
    ],
)  # fmt: skip
def test_each_distribution(release: str, managers: str, expected: str) -> None:
    lines = [f"release {line}" for line in RELEASES[release].splitlines()]
    said = answers(
        "user 0 root",
        "rights root",
        "system Linux",
        *lines,
        *(f"manager {name}" for name in managers.split()),
        "default /usr/bin/python3.11",
    )
    facts = replace(
        read_server(said), python=NO_TK, x11=False, sshd=replace(SSHD, xauth="", effective=YES)
    )
    plan = plan_of(facts)
    assert commands(plan) == [expected]
    assert plan.obstacles == ()


@pytest.mark.parametrize(
    ("changes", "python", "expected", "words"),
    [
        ({}, {"version": "3.12.1", "executable": "/usr/bin/python3.12"}, [f"{APT} python3.12-tk"], ""),
        ({"family": "fedora", "managers": ("dnf",)}, {"version": "3.12.1"}, ["dnf -q -y install python3.12-tkinter"], ""),
        ({"family": "fedora", "managers": ("dnf",), "default_python": "/usr/bin/python3.6"}, {"version": "3.9.18"}, ["dnf -q -y install python39-tkinter"], ""),
        ({"family": "fedora", "managers": ("dnf",), "default_python": "/usr/bin/python3.6"}, {"version": "3.11.7"}, ["dnf -q -y install python3.11-tkinter"], ""),
        ({"family": "suse", "managers": ("zypper",)}, {"version": "3.12.1"}, ["env ZYPP_LOCK_TIMEOUT=120 zypper --non-interactive install --no-recommends python312-tk"], ""),
        ({"family": "arch", "managers": ("pacman",)}, {"version": "3.12.1"}, ["pacman -S --needed --noconfirm tk"], ""),
        ({}, {"tk_error": "ImportError: libX11.so.6: cannot open", "base": "/home/d/.local/share/uv/python/cpython-3.12"}, [f"{APT} libx11-6"], ""),
        ({}, {"conda": "/opt/c/bin/conda", "base": "/opt/c/envs/my env", "may_write": True}, ["/opt/c/bin/conda install -y -p '/opt/c/envs/my env' tk"], ""),
        ({}, {"conda": "/opt/c/bin/conda", "base": "/opt/c"}, [], "whoever keeps /opt/c"),
        ({"is_root": False}, {"base": "/home/linuxbrew/.linuxbrew/Cellar/python@3.13/3.13.1", "may_write": True}, ["/home/linuxbrew/.linuxbrew/bin/brew install python-tk@3.13"], ""),
        ({"is_root": False}, {"base": "/home/b/opt/python@3.13", "may_write": True}, ["/home/b/bin/brew install python-tk@3.13"], ""),
        ({"is_root": False}, {"base": "/home/b/opt/python@3.13"}, [], "whoever keeps /home/b, not root: /home/b/bin/brew install"),
        ({}, {"base": "/home/b/opt/python@3.13", "may_write": True}, [], "not root"),
        ({}, {"base": "/usr/local", "tk_error": "ImportError: libtk8.6.so: cannot open"}, [f"{APT} libtk8.6"], ""),
        ({"family": "fedora", "managers": ("dnf",)}, {"base": "/usr/local", "tk_error": "libtcl8.6.so: cannot open"}, ["dnf -q -y install tk"], ""),
        ({}, {"base": "/usr/local"}, [], "build it again with Tk's headers"),
        ({}, {"base": "/usr", "version": "3.12.7", "executable": "/usr/bin/python3.12", "tk_error": "ModuleNotFoundError: No module named '_tkinter'"}, [f"{APT} python3.12-tk"], ""),
        ({}, {"base": "/home/d/.local/share/uv/python/cpython-3.12.1"}, [], "uv python install --reinstall 3.11"),
        ({}, {"base": "/home/d/.pyenv/versions/3.11.2"}, [], "pyenv install --force 3.11.2"),
        ({}, {"base": "/opt/own"}, [], "PySide6"),
        ({"managers": ()}, {}, [], "python3-tk (Debian's name; python3-tkinter in Fedora)"),
        ({"is_image": True}, {}, [], "python3-tk (Debian's name"),
        ({"system": "Darwin", "family": "macos"}, {}, [], ""),
        ({}, {"found": False}, [], ""),
        ({}, {"tk": "8.6", "tcl_error": "Can't find a usable init.tcl", "base": "/opt/c"}, [], "TCL_LIBRARY"),
        ({}, {"version": "$(x)"}, [], "which version"),
    ],
)  # fmt: skip
def test_each_python(
    changes: dict[str, object], python: dict[str, object], expected: list[str], words: str
) -> None:
    facts = replace(SERVER, x11=True, python=replace(NO_TK, **python), **changes)
    plan = plan_of(facts)
    assert commands(plan) == expected
    assert words in " ".join(plan.obstacles)
    assert bool(plan.obstacles) == bool(words)


def test_who_installs() -> None:
    brewed = replace(NO_TK, base="/opt/brew/Cellar/python@3.12/3.12.1", may_write=True)
    (step,) = plan_of(replace(SERVER, is_root=False, x11=True, python=brewed)).steps
    assert not step.as_root
    (step,) = plan_of(replace(SERVER, x11=True, python=NO_TK)).steps
    assert step.as_root


def test_macs_are_left_to_their_owners() -> None:
    sshd = replace(SSHD, xauth="")
    facts = replace(SERVER, system="Darwin", family="macos", managers=("brew",), sshd=sshd)
    plan = plan_of(facts)
    assert commands(plan) == []
    assert "xquartz" in plan.obstacles[0]


# --- sshd --------------------------------------------------------------------------------------


def sshd_plan(sshd: SshdFacts, **changes: object) -> Plan:
    return plan_of(replace(SERVER, sshd=sshd, **changes))


def test_a_healthy_server() -> None:
    plan = plan_of(replace(SERVER, x11=True))
    assert plan.is_well
    assert describe_plan(plan, "h") == ["Nothing to do on h."]
    assert not needs_root(replace(SERVER, x11=True), plan)


def test_an_own_file() -> None:
    step = configuration(sshd_plan(SSHD))
    assert (step.place, step.is_own_file) == (f"{DROPIN}/00-xssh.conf", True)
    assert step.text == f"{BEGIN}\nX11Forwarding yes\nAcceptEnv MPLBACKEND\n{END}\n"


@pytest.mark.parametrize(
    "lines",
    [
        [Line(MAIN, 1, "X11Forwarding no"), Line(MAIN, 2, f"Include {DROPIN}/*.conf")],
        [Line(MAIN, 1, "Match User x"), Line(MAIN, 2, f"Include {DROPIN}/*.conf")],
        [INCLUDE, Line(f"{DROPIN}/00-first.conf", 1, "x11forwarding=no")],
        [Line(MAIN, 1, "Include /elsewhere/*.conf")],
        [Line(MAIN, 1, f"Include {DROPIN}/site.conf")],
        [],
    ],
    ids=["an earlier line", "in a Match", "an earlier file", "no folder", "one file", "no Include"],
)
def test_the_top_of_the_main_file(lines: list[Line]) -> None:
    """Where a file of its own would not win."""
    step = configuration(sshd_plan(replace(SSHD, lines=tuple(lines))))
    assert (step.place, step.is_own_file) == (MAIN, False)


@pytest.mark.parametrize(
    "lines",
    [
        [INCLUDE, Line(f"{DROPIN}/50-redhat.conf", 3, "X11Forwarding no")],
        [Line(MAIN, 3, "Include sshd_config.d/*.conf")],
        [Line(MAIN, 3, f'Include "{DROPIN}/*.conf"'), Line(MAIN, 9, "Match User x")],
        [Line(MAIN, 1, "AcceptEnv LANG"), INCLUDE],
    ],
    ids=["a later file", "relative", "quoted", "AcceptEnv adds up"],
)
def test_an_own_file_wins(lines: list[Line]) -> None:
    assert configuration(sshd_plan(replace(SSHD, lines=tuple(lines)))).is_own_file


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"effective": {**NO, "acceptenv": ("LANG", "MPL*")}}, ["X11Forwarding yes"]),
        ({"effective": YES, "half_inet6": True}, ["AddressFamily inet", "AcceptEnv MPLBACKEND"]),
        (
            {"effective": {**YES, "addressfamily": ("inet",)}, "half_inet6": True},
            None,
        ),
        (
            {"effective": YES, "xauth": "", "other_xauth": "/opt/X11/bin/xauth"},
            ["XAuthLocation /opt/X11/bin/xauth", "AcceptEnv MPLBACKEND"],
        ),
        (
            {"own": {f"{DROPIN}/00-xssh.conf": (BEGIN, "X11Forwarding no", "AcceptEnv A", END)}},
            ["X11Forwarding yes", "AcceptEnv MPLBACKEND"],
        ),
        (
            {"own": {f"{DROPIN}/00-xssh.conf": (BEGIN, "AddressFamily inet", END)}},
            ["X11Forwarding yes", "AcceptEnv MPLBACKEND", "AddressFamily inet"],
        ),
    ],
)
def test_only_missing_lines(changes: dict[str, object], lines: list[str] | None) -> None:
    plan = sshd_plan(replace(SSHD, **changes))
    if lines is None:
        assert plan.steps == (Reload(9),)
    else:
        assert list(configuration(plan).lines) == lines


IN_MATCH = (
    INCLUDE,
    Line(MAIN, 10, "X11Forwarding yes"),
    Line(MAIN, 20, "Match Group users"),
    Line(MAIN, 21, "X11Forwarding no"),
)


@pytest.mark.parametrize(
    ("sshd", "changes", "words"),
    [
        ({"can_allow": False, "lines": IN_MATCH}, {}, f"a Match block says X11Forwarding no for this login ({MAIN} line 21)"),
        ({"can_allow": False}, {}, "the command line of sshd"),
        ({"effective": {**NO, "disableforwarding": ("yes",)}, "lines": (Line(MAIN, 4, "DisableForwarding yes"),)}, {}, f"({MAIN} line 4) is somebody's decision"),
        ({}, {"refusal": "X11 forwarding disabled by key options."}, "authorized_keys"),
        ({"config": ""}, {}, "not found"),
        ({"program": ""}, {}, "not found"),
        ({"is_linked": True, "lines": ()}, {}, "is a link"),
        ({"present": (f"{DROPIN}/00-xssh.conf",)}, {}, "not of setup's making"),
        ({"effective": {}, "lines": ()}, {}, "says nothing"),
        ({"effective": YES, "listener": 0}, {}, "its settings would allow it"),
        ({"config": "/etc/a|b", "lines": ()}, {}, "no name"),
    ],
)  # fmt: skip
def test_what_setup_leaves_alone(
    sshd: dict[str, object], changes: dict[str, object], words: str
) -> None:
    plan = sshd_plan(replace(SSHD, **sshd), **changes)
    assert plan.steps == ()
    assert words in " ".join(plan.obstacles)


def test_a_reload_that_was_forgotten() -> None:
    assert sshd_plan(replace(SSHD, effective=YES)).steps == (Reload(9),)
    assert (
        sshd_plan(replace(SSHD, effective=YES, xauth="")).steps[0]
        == plan_of(replace(SERVER, sshd=replace(SSHD, effective=YES, xauth=""))).steps[0]
    )


def test_without_rights() -> None:
    unseen = replace(SSHD, effective={}, can_allow=None, xauth="")
    facts = replace(SERVER, rights=Rights.NONE, is_root=False, sshd=unseen, python=NO_TK)
    plan = plan_of(facts)
    assert plan.steps == ()
    assert len(plan.for_administrator) == 2
    text = "\n".join(describe_request(plan, "h"))
    assert f"- {APT} xauth python3-tk" in text
    assert f"- {DROPIN}/00-xssh.conf, a file with:" in text
    assert "reload sshd" in text
    # What sshd says about xauth tells that X11Forwarding is on.
    plan = plan_of(replace(facts, refusal="No xauth program; cannot forward X11."))
    assert [type(step) for step in plan.for_administrator] == [Install]


# --- matplotlib --------------------------------------------------------------------------------

RC = "/root/.config/matplotlib/matplotlibrc"


@pytest.mark.parametrize(
    ("changes", "decider", "backend", "expected"),
    [
        ({"rc_lines": (Line(RC, 3, "backend : Agg"),)}, RC, "agg", (RC, "TkAgg", "backend : Agg")),
        ({}, "/usr/share/matplotlib/mpl-data/matplotlibrc", "pdf", (RC, "TkAgg", None)),
        ({}, "matplotlib itself", "agg", None),
        ({}, RC, "qtagg", None),
        ({"mplbackend": "Agg"}, "MPLBACKEND", "Agg", "take it out of the start files"),
    ],
)
def test_the_backend(
    changes: dict[str, object], decider: str, backend: str, expected: object
) -> None:
    python = replace(SYSTEM_PYTHON, backend=backend, decider=decider)
    plan = plan_of(replace(SERVER, x11=True, python=python, **changes))
    if isinstance(expected, tuple):
        (step,) = plan.steps
        assert isinstance(step, ChooseBackend)
        assert (step.place, step.backend, step.old and step.old.text) == expected
        assert not step.as_root
    else:
        assert plan.steps == ()
        assert (expected or "") in " ".join(plan.obstacles)


# --- Answers -----------------------------------------------------------------------------------


def test_nonsense_is_left_out() -> None:
    said = answers(
        "user", "rights emperor", "connection $(x) 1 2 3", "rcline 1:backend: Agg", "rcline x",
        "listener -4", "line nonsense", "line /a|x:y", f"line {MAIN}|7:Match all", "own",
        "effective x11forwarding yes", "effective acceptenv A", "effective acceptenv B", "undo x",
        "undo r|file|x|sshd|/a|new", "undo r|package|apt-get|-oevil|a|b", "undo r|package|apt-get",
    )  # fmt: skip
    server, sshd = read_server(said), read_sshd(said)
    assert (server.rights, server.connection, server.rc_lines) == (Rights.NONE, ("",) * 4, ())
    assert (sshd.listener, sshd.lines) == (0, (Line(MAIN, 7, "Match all"),))
    assert sshd.effective["acceptenv"] == ("A", "B")
    assert read_record(said) == read_record(answers())
    assert read_python("python3", None) == PythonFacts(interpreter="python3")
    assert read_python("p", {"version": 3, "qt": []}).version == ""


def test_a_record_in_two_layers() -> None:
    """The older entry of a file is judged by the newer one, which is undone first."""
    record = read_record(
        answers(
            "undo 2|file|1|sshd|/a|new",
            "undo 2|package|apt-get|xauth||",
            "undo 1|file|1|sshd|/a|changed",
            "undo 1|file|2|home|/b|changed",
            "undo 1|file|3|home|/c|old",
            "undo 1|package|apt-get|xauth||",
        )
    )
    assert [(file.run, file.is_later_changed) for file in record.files] == [
        ("2", False),
        ("1", False),
        ("1", True),
    ]
    assert len(record.packages) == 1


@pytest.mark.parametrize("text", ["it's", 'a "b"\n$(c) `d`', "\\n%s", "", "ä;#"])
def test_calls_are_quoted(text: str) -> None:
    call = call_step(3, ChooseBackend(f"/h/{text}", text, None))
    assert shlex.split(call) == ["step", "3", "choose_backend", f"/h/{text}", text]


# --- The program -------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "zsh --emulate sh"])
def test_the_program_is_plain_sh(shell: str, private_places: Path) -> None:
    words = shell.split()
    require_tool(words[0])
    config = private_places / "home" / ".config" / "matplotlib"
    config.mkdir(parents=True)
    (config / "matplotlibrc").write_text("#backend: pdf\n  backend:  Agg # \\c\n")
    text = f"xs_nonce=n\n{program_text()}survey\nsay end\n"
    done = subprocess.run([*words, "-s"], input=text.encode(), capture_output=True, check=True)
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert {line.split()[0] for line in lines} == {"xssh-setup"}
    said = answers(*(line.removeprefix("xssh-setup n ") for line in lines))
    server = read_server(said)
    assert server.rc_lines == (Line(str(config / "matplotlibrc"), 2, "backend:  Agg # \\c"),)
    assert server.home == str(private_places / "home")
    assert said.has_ended


def test_a_backend_may_have_slashes_in_its_name(private_places: Path) -> None:
    place, backend = private_places / "matplotlibrc", "module://drawing.windows"
    place.write_text("font.size: 3\n  backend : Agg\n")
    call = call_step(1, ChooseBackend(str(place), backend, None))
    text = f"xs_nonce=n\n{program_text()}open_record home\n{call}\n"
    done = subprocess.run(["sh", "-s"], input=text.encode(), capture_output=True, check=True)
    assert done.stdout.decode().splitlines()[-1] == "xssh-setup n done 1"
    assert place.read_text() == f"font.size: 3\nbackend: {backend}\n"


TITLES = {
    "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups": "9 /usr/sbin/sshd /etc/ssh/sshd_config ",
    "/usr/sbin/sshd -D": "9 /usr/sbin/sshd /etc/ssh/sshd_config ",
    "sshd: /opt/s/sshd -D -f /opt/c -o X11Forwarding=no -oA=b [listener] 1 of": "9 /opt/s/sshd /opt/c -oX11Forwarding=no -oA=b\nits program, /opt/s/sshd, is gone",
    "sshd: /usr/sbin/sshd -D -f/opt/c [listener] 1 of": "9 /usr/sbin/sshd /opt/c ",
    "sshd: /opt/s/sshd -D -o AcceptEnv A B -h /k -p 22 [listener] 1 of": "9 /opt/s/sshd /etc/ssh/sshd_config -oAcceptEnv A B -h/k -p22\nits program, /opt/s/sshd, is gone",
    "sshd: /usr/sbin/sshd -f here [listener] 1 of": "9 /usr/sbin/sshd here \nit was started with -f here, a name that holds in one folder only",
    "sshd: sshd -D [listener] 1 of": "9 /usr/bin/found /etc/ssh/sshd_config \nit was started without its full path",
    "sshd: /usr/sbin/sshd -D -o Ciphers=a,b": "9 /usr/sbin/sshd /etc/ssh/sshd_config -oCiphers=a,b",
    "sshd: demo [priv]": " /usr/bin/found /etc/ssh/sshd_config ",
    "systemd": " /usr/bin/found /etc/ssh/sshd_config ",
}  # fmt: skip


@pytest.mark.parametrize("title", TITLES)
def test_the_sshd_of_this_session(title: str) -> None:
    """Nine listens; above it stands another sshd, which is none of ours."""
    rows: Iterable[tuple[str, str, str]] = [
        ("5", "sh -s", "6"), ("6", "sshd: demo@notty", "9"), ("9", title, "11"),
        ("11", "bash", "12"), ("12", "/usr/sbin/sshd -D", "1"),
    ]  # fmt: skip
    titles = "".join(f"{pid}) echo {shlex.quote(text)} ;;\n" for pid, text, _ in rows)
    parents = "".join(f"{pid}) echo {above} ;;\n" for pid, _, above in rows)
    text = program_text().replace("p=$$", "p=5") + (
        f"title_of() {{ case $1 in {titles} esac; }}\n"
        f"parent_of() {{ case $1 in {parents} esac; }}\n"
        "command() { echo /usr/bin/found; }\nfind_sshd\n"
        'echo "$sshd_pid $sshd_bin $sshd_config $(echo $sshd_options)"\n'
        'test -z "$sshd_fragile" || echo "$sshd_fragile"\n'
    )
    shell = [require_tool("dash"), "-s"]
    done = subprocess.run(shell, input=text, capture_output=True, text=True, check=True)
    found = done.stdout.rstrip("\n")
    if title == "systemd":  # the session's own sshd was started for it alone
        assert found.startswith(" ")
    else:
        assert found == TITLES[title]


# --- The command line --------------------------------------------------------------------------


def test_the_options() -> None:
    found = parse_command_line(["--setup", "--yes", "-p", "22", "me@h", "python3.12", "a.py"])
    assert found is not None
    assert (found.setup, found.yes, found.dry_run, found.undo) == (True, True, False, False)
    assert (found.destination, found.command) == ("me@h", "python3.12 a.py")
    found = parse_command_line(["--setup", "--undo", "--dry-run", "h"])
    assert found is not None
    assert (found.undo, found.dry_run) == (True, True)


@pytest.mark.parametrize(
    "words", [["--setup"], ["--yes", "h"], ["--undo", "h"], ["--setup", "--doctor", "h"],
              ["--setup", "--script", "a.py", "h"], ["--setup", "--json", "h"]],
)  # fmt: skip
def test_options_that_make_no_sense(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_command_line(words)


# --- The server's answers -----------------------------------------------------------------------


def test_a_survey_of_many_lines_is_read_to_its_end() -> None:
    """As of an sshd with hundreds of Match blocks."""
    said = "".join(f"{WHO} 0 line /etc/ssh/sshd_config|{n}:Match User u{n}\n" for n in range(700))
    out = bytearray()
    process = SimpleNamespace(
        out=out,
        err=bytearray(),
        news=SimpleNamespace(clear=lambda: None, wait=lambda: asyncio.sleep(60)),
        closed=asyncio.Event(),
        write=lambda data: out.extend(f"{said}{WHO} 0 end 1\n".encode()),
    )
    shell = RemoteShell(cast("_Told", process), "0")
    assert len(asyncio.run(shell.ask("survey_sshd", deadline=0)).all_of("line")) == 700


def test_a_python_that_hangs_ends_the_visit_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(visitor: object) -> None:
        await asyncio.sleep(60)

    async def ask(line: str) -> Answers:
        return Answers((), ())

    monkeypatch.setattr("xsshpy.setup.looking.DEADLINE", 0.01)
    monkeypatch.setattr("xsshpy.setup.looking.look_at_python", hang)
    monkeypatch.setattr("xsshpy.setup.looking._ask_for_x11", hang)
    visitor = SimpleNamespace(user=SimpleNamespace(ask=ask))
    with pytest.raises(SessionError, match="takes too long"):
        asyncio.run(look(cast("Visitor", visitor)))
