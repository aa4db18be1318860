"""Faults made for real: the doctor names that link first, and nothing false beside it."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.asyncserver import Policy
from tests.support.doctors import (
    NO_MATPLOTLIB,
    PYTHON,
    Diagnosis,
    Doctor,
    in_namespace,
    small_file_system,
    without_python,
)
from tests.support.link import Link
from tests.support.processes import run, xssh_command
from tests.support.shellserver import ShellServer
from tests.support.sshd import KeyRing, SshServer, free_port
from tests.support.terminals import Terminal
from tests.support.tools import require_tool
from tests.support.xvfb import Xvfb

TRIES = 4
TRIPS = 25
"""Round trips of a whole examination on the connection that it makes."""

HERE = {"local.openssh", "local.display", "local.server", "local.answer", "local.cookie"}


def test_a_healthy_way_has_no_warning(visit: Callable[..., Diagnosis]) -> None:
    found = visit(python=PYTHON)
    assert without_python(found.not_well) == {}, found
    assert (found.status, found.cause) == (0, None)
    assert "skipped" not in {found.verdict(name) for name in found.findings}
    assert re.search(r"opened there \(Tk 8\.\d.*\), seen here after", found.text("proof.window"))
    assert re.search(r"localhost:\d+\.0", found.text("x11.agent"))
    assert "with ssh -X" in found.text("speed")
    assert "AcceptEnv does not name it" in found.text("server.acceptenv")
    assert found.messages == ""


def test_the_list_for_people(make_sshd: Callable[..., SshServer], doctor: Doctor) -> None:
    doctor.home.add(make_sshd(key_options='command="true"'))
    argv = [*xssh_command(), *doctor.home.arguments, "--doctor", "server"]
    done = run(argv, env=doctor.home.environment(doctor.xvfb), timeout=60)
    lines = done.stdout.decode().splitlines()
    assert done.status == 1
    assert lines[0] == "From this machine to server"
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  broken   commands") for line in lines)
    assert lines[-2].startswith("commands: this key runs a command of its own")


# --- This machine ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "cause", "words"),
    [
        ({"DISPLAY": ""}, "local.display", "DISPLAY is not set"),
        ({"DISPLAY": "nonsense"}, "local.display", "makes no sense"),
        ({"DISPLAY": ":64321"}, "local.server", "no X server"),
        ({"XAUTHORITY": "/nonexistent"}, "local.cookie", "has no cookie for"),
        ({"XAUTHORITY": "/etc"}, "local.cookie", "/etc: it is not a regular file"),
        (
            {"XAUTHORITY": "/x", "SUDO_USER": "ann"},
            "local.cookie",
            "shell of sudo, and the display",
        ),
    ],
)
def test_local_faults(doctor: Doctor, variables: dict[str, str], cause: str, words: str) -> None:
    doctor.variables = variables
    found = doctor.visit()
    assert (found.status, found.cause) == (1, cause)
    assert found.not_well == {cause: "broken"}
    assert words in found.text(cause)
    assert found.findings[cause]["remedy"]


def test_a_wrong_cookie(doctor: Doctor, make_xvfb: Callable[..., Xvfb]) -> None:
    other = make_xvfb()
    doctor.variables = {"DISPLAY": other.display}
    authority = Path(doctor.home.path, "wrong")
    data = Path(other.authority).read_bytes()
    authority.write_bytes(data.replace(other.cookie, bytes(16)))
    doctor.variables["XAUTHORITY"] = str(authority)
    found = doctor.visit()
    assert found.not_well == {"local.cookie": "broken"}
    assert "is not this server's" in found.text("local.cookie")
    assert other.cookie.hex() not in json.dumps(dict(found.findings))


def test_a_server_that_hangs(doctor: Doctor, private_places: Path) -> None:
    path = str(private_places / "X7")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        doctor.variables = {"DISPLAY": path}
        doctor.before = "import xsshpy.doctor.local_checks as c; c.PROOF_DEADLINE = 0.5"
        found = doctor.visit()
    assert found.not_well == {"local.answer": "broken"}
    assert "never answers" in found.text("local.answer")


def test_xwaylands_cookie_is_found(doctor: Doctor) -> None:
    """Where XAUTHORITY is not set it lies in the runtime folder."""
    path = doctor.home.runtime / ".mutter-Xwaylandauth.ABC123"
    path.write_bytes(Path(doctor.xvfb.authority).read_bytes())
    doctor.variables = {"XAUTHORITY": "", "WAYLAND_DISPLAY": "wayland-0"}
    try:
        found = doctor.visit()
    finally:
        path.unlink()
    assert found.not_well == {}
    assert ".mutter-Xwaylandauth.ABC123" in found.text("local.cookie")


def test_xquartz_that_does_not_answer(doctor: Doctor, private_places: Path) -> None:
    """launchd listens for it: the connection is taken, and nothing comes."""
    folder = private_places / "com.apple.launchd.x"
    folder.mkdir()
    doctor.variables = {"DISPLAY": f"{folder}/org.xquartz:0"}
    doctor.before = "import xsshpy.doctor.local_checks as c; c.PROOF_DEADLINE = 0.5"
    found = doctor.visit()
    assert found.not_well == {"local.server": "broken"}
    assert "so that XQuartz sets DISPLAY anew" in found.text("local.server")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(doctor.variables["DISPLAY"])
        listener.listen()
        found = doctor.visit()
    assert found.not_well == {"local.answer": "broken"}
    assert "DISPLAY=:0 xssh ..., with XQuartz open" in found.text("local.answer")


def test_a_server_without_security(doctor: Doctor, make_xvfb: Callable[..., Xvfb]) -> None:
    plain = make_xvfb(arguments=("-extension", "SECURITY"))
    doctor.variables = {"DISPLAY": plain.display, "XAUTHORITY": plain.authority}
    found = doctor.visit()
    assert (found.status, found.not_well) == (0, {"local.security": "warning"})


def test_tmux_knows_a_newer_display(doctor: Doctor, private_places: Path) -> None:
    tmux = private_places / "bin" / "tmux"
    tmux.parent.mkdir()
    tmux.write_text("#!/bin/sh\necho DISPLAY=:77\n")
    tmux.chmod(0o700)
    path = f"{tmux.parent}:{os.environ['PATH']}"
    doctor.variables = {"DISPLAY": ":64321", "TMUX": "/tmp/x,1,0", "PATH": path}
    found = doctor.visit()
    assert found.not_well == {"local.server": "broken"}
    assert "try: export DISPLAY=:77" in found.text("local.server")


# --- The way there -----------------------------------------------------------------------------


def test_the_way_there(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    """A name, a port, a listener that is no server, a host key, a login."""
    doctor.home.add(make_sshd())
    web = socket.create_server(("127.0.0.1", 0))
    with web:
        for words, cause, text in (
            (["-oHostName=nosuch.invalid", "server"], "host.name", "nosuch.invalid: "),
            (["-p", str(free_port()), "server"], "host.port", "Connection refused"),
            (["-oUserKnownHostsFile=/dev/null", "server"], "host.key", "verification failed"),
            (
                ["-oPubkeyAuthentication=no", "-oBatchMode=yes", "server"],
                "host.login",
                "Permission denied",
            ),
            (["-oNoSuchKeyword=1", "server"], "host.settings", "Bad configuration option"),
        ):
            found = doctor.visit(*words)
            assert (found.status, found.cause) == (1, cause), words
            assert found.not_well == {cause: "broken"}
            assert text.lower() in found.text(cause).lower()
            assert found.verdict("proof.window") == "skipped"


def test_messages_name_the_doctors_command(
    make_sshd: Callable[..., SshServer], doctor: Doctor
) -> None:
    """For this host, as it was typed: where there is no connection, no display, no X11."""
    doctor.home.add(make_sshd(x11=False))
    config, port = doctor.home.arguments, str(free_port())
    display = doctor.home.environment(doctor.xvfb)
    for words, more, shown in (
        (["-p", port, "server"], {}, f"-p {port} server"),
        (["-oHostName=nosuch.invalid", "server"], {}, "-o HostName=nosuch.invalid server"),
        (["server", "true"], {"DISPLAY": ":64321"}, "server"),
        (["--x11", "native", "server", "true"], {}, "--x11 native server"),
    ):
        done = run([*xssh_command(), *config, *words], env={**display, **more}, timeout=60)
        command = f"xssh --doctor {config[0]} {config[1]} {shown} looks at the whole way"
        assert done.stderr.splitlines()[-1].endswith(f"; {command}"), done.stderr
        assert done.stderr.count("xssh --doctor") == 1
    words = ["-oPubkeyAuthentication=no", "-oBatchMode=yes", "server"]
    done = run([*xssh_command(), *config, *words], env=display, timeout=60)
    assert "Permission denied" in done.stderr
    assert "--doctor" not in done.stderr


# --- The server --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A server, and what the doctor is to say of it: verdicts, and words of the named checks."""

    name: str
    options: Mapping[str, object]
    expected: Mapping[str, str]
    words: str
    remedy: str
    typed: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


RC = """if read proto cookie && [ -n "$DISPLAY" ]; then
  echo add unix:$(echo $DISPLAY | cut -c11-) $proto $cookie | xauth -q -
fi
"""
"""As sshd(8) shows it."""

FAULTS = [
    Fault("X11Forwarding no", {"x11": False}, {"x11.native": "warning"}, "does not say why", "X11Forwarding yes"),
    Fault("X11Forwarding no, native wanted", {"x11": False}, {"x11.native": "broken"}, "", "X11Forwarding yes", ("--x11", "native")),
    Fault("DisableForwarding", {"config": "DisableForwarding yes"}, {"x11.native": "warning"}, "", "reload sshd"),
    Fault("no xauth", {"config": "XAuthLocation /nonexistent/xauth"}, {"x11.native": "warning"}, "No xauth program", "xauth on the server"),
    Fault("key options", {"key_options": "no-X11-forwarding"}, {"x11.native": "warning"}, "key options", "authorized_keys"),
    Fault("an rc file", {}, {"x11.native": "warning"}, "/.ssh/rc is there", "call xauth", files={".ssh/rc": "true\n"}),
    Fault("a lock", {}, {"server.home": "warning"}, "a lock that a dead xauth left", "rm -f", ("--x11", "agent"), {".Xauthority-c": ""}),
    Fault("a lock, native wanted", {}, {"server.home": "broken"}, "a dead xauth", "rm -f", ("--x11", "native"), {".Xauthority-l": ""}),
    Fault("Match", {"config": "Match User demo\n  X11Forwarding no"}, {"x11.native": "warning"}, "does not say why", "X11Forwarding yes"),
    Fault("MaxSessions 0", {"config": "MaxSessions 0"}, {"server.command": "broken"}, "open failed", "MaxSessions"),
    Fault("MaxSessions 1", {"config": "MaxSessions 1"}, {"server.sessions": "warning"}, "one session at a time", "MaxSessions 10"),
    Fault("MaxSessions 1, agent wanted", {"config": "MaxSessions 1"}, {"server.sessions": "broken"}, "one session at a time", "--x11 native", ("--x11", "agent")),
    Fault("MaxSessions 2", {"config": "MaxSessions 2"}, {}, "", ""),
    Fault("no-pty", {"key_options": "no-pty"}, {"server.sessions": "warning"}, "gives no terminal", "PermitTTY yes", ("-t",)),
    Fault("PermitTTY no, and none wanted", {"config": "PermitTTY no"}, {}, "", ""),
    Fault("nologin", {"shell": "/usr/sbin/nologin"}, {"server.command": "broken"}, "not available", "login shell"),
    Fault("an rc file that calls xauth", {}, {}, "", "", files={".ssh/rc": RC}),
    Fault("a start file that unsets DISPLAY", {}, {"session.display": "warning"}, ".profile:1:unset DISPLAY", "start files", files={".profile": "unset DISPLAY\n"}),
    Fault("ForceCommand", {"config": "ForceCommand echo hello"}, {"server.command": "broken"}, "hello", "ForceCommand"),
    Fault("command=", {"key_options": 'command="echo hello"'}, {"server.command": "broken"}, "a command of its own", "another key"),
    Fault("-x", {}, {"x11.wanted": "broken"}, "X11 forwarding is off: -x", "-X for this host", ("-x",)),
    Fault("-N", {}, {"x11.wanted": "broken"}, "open no session", "without them", ("-N",)),
    Fault("rsync", {}, {"x11.wanted": "broken"}, "another program speaks", "opens windows", ("rsync", "--server")),
    Fault("noise", {}, {"server.command": "warning"}, "scp and rsync stumble over it: noise", "test -t 1", files={".bashrc": "echo noise\n"}),
    Fault("a start file with DISPLAY", {}, {"session.display": "warning"}, "DISPLAY becomes :5 in login shells", "start files", files={".profile": "export DISPLAY=:5\n"}),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_server_faults(visit: Callable[..., Diagnosis], fault: Fault) -> None:
    found = visit(*fault.typed, files=fault.files, **fault.options)
    assert without_python(found.not_well) == fault.expected, found
    if not fault.expected:
        assert found.status == 0
        return
    name = next(iter(fault.expected))
    assert fault.words in found.text(name)
    assert fault.remedy in str(found.findings[name]["remedy"])
    assert found.cause == (name if fault.expected[name] == "broken" else None)
    assert found.status == (fault.expected[name] == "broken")


def test_a_full_disk(visit: Callable[..., Diagnosis], private_places: Path) -> None:
    home = private_places / "full"
    with small_file_system(home, "8k"):
        (home / "much").write_bytes(bytes(4096))
        found = visit("--x11", "agent", home=home)
        assert without_python(found.not_well) == {"server.home": "warning"}, found
        assert "is full" in found.text("server.home")


def test_a_home_that_is_read_only(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    home = private_places / "fixed"
    with small_file_system(home, "64k"):
        doctor.home.add(make_sshd(home=home))
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        found = doctor.visit("--x11", "agent", "server", doctor.bare)
        assert without_python(found.not_well) == {"server.home": "warning"}, found
        assert f"{home} can't be written to" in found.text("server.home")


def test_tmux_there_keeps_an_old_display(
    visit: Callable[..., Diagnosis], private_places: Path
) -> None:
    require_tool("tmux")
    folder = private_places / "tmux"
    folder.mkdir(mode=0o700)
    here = {**os.environ, "TMUX_TMPDIR": str(folder), "DISPLAY": "localhost:99.0"}
    subprocess.run(["tmux", "-f", "/dev/null", "new-session", "-d", "cat"], env=here, check=True)
    try:
        found = visit(environment={"TMUX_TMPDIR": str(folder)})
    finally:
        subprocess.run(["tmux", "kill-server"], env=here, check=True)
    assert without_python(found.not_well) == {"session.display": "warning"}
    assert "tmux on the server still has DISPLAY=localhost:99.0" in found.text("session.display")


@pytest.fixture
def make_shell_server(
    key_ring: KeyRing, doctor: Doctor, private_places: Path
) -> Iterator[Callable[..., ShellServer]]:
    """Start servers that aren't OpenSSH; each is called ``other``."""
    servers: list[ShellServer] = []

    def make(banner: str = "", **options: object) -> ShellServer:
        home = private_places / "other"
        home.mkdir(mode=0o700)
        policy = Policy(
            keys=(key_ring.client_key.with_suffix(".pub"),),
            version="dropbear_2022.83",
            banner=banner,
        )
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "SHELL": "/bin/sh"}
        servers.append(
            ShellServer(
                policy, key_ring.host_keys["ed25519"], key_ring.client_key, environment, **options
            )  # type: ignore[arg-type]
        )
        home = doctor.home
        with home.config.open("a") as file:
            file.write(servers[-1].config_text("other", known_hosts=home.known_hosts))
        with home.known_hosts.open("a") as file:
            file.write(servers[-1].known_hosts_lines())
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def test_a_server_that_is_not_openssh(
    doctor: Doctor, make_shell_server: Callable[..., ShellServer]
) -> None:
    make_shell_server()
    found = doctor.visit("other", doctor.bare)
    assert without_python(found.not_well) == {
        "server.software": "warning",
        "x11.native": "warning",
    }, found
    assert "dropbear_2022.83: not OpenSSH" in found.text("server.software")
    assert "not every SSH server forwards X11" in found.text("x11.native")
    assert "opened there (Tk" in found.text("proof.window")


def test_what_hangs_has_an_end(
    doctor: Doctor, make_shell_server: Callable[..., ShellServer]
) -> None:
    """The command, or what comes after it."""
    doctor.before = "import xsshpy.doctor.server_checks as s; s.COMMAND_DEADLINE = 1.0"
    make_shell_server(most_sessions=0)
    found = doctor.visit("other", doctor.bare)
    assert found.cause == "server.command"
    assert "no answer within 1 seconds" in found.text("server.command")
    assert "start files" in found.text("server.command")
    assert found.not_well == {"server.software": "warning", "server.command": "broken"}


def test_hostile_words_are_harmless(
    make_shell_server: Callable[..., ShellServer],
    doctor: Doctor,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    """In a narrow terminal, where the list is live."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    make_shell_server(banner=evil, prefix=f"{evil} {'long ' * 99}\n".encode())
    argv = [*xssh_command(), *doctor.home.arguments, "--doctor", "other"]
    terminal = spawn_in_pty(argv, env=doctor.home.environment(doctor.xvfb), cols=40)
    assert terminal.wait(60) in (0, 1)
    text = terminal.output.decode()
    assert "\\033]0;owned\\007" in text
    escapes = set(re.findall(r"\x1b[^a-zA-Z]*[a-zA-Z]", text))
    assert escapes <= {"\x1b[K", "\x1b[0m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[2m"}
    assert "\u202e" not in text and "\x07" not in text
    lines = re.sub(r"\r\x1b\[K|\x1b\[\d*m", "\r", text).replace("\r", "\n").splitlines()
    assert max(map(len, (line for line in lines if "\\033" not in line))) <= 40
    assert "  ...      " in text  # what it was looking at


# --- The Python there --------------------------------------------------------------------------


def test_no_such_python(make_sshd: Callable[..., SshServer], doctor: Doctor) -> None:
    doctor.home.add(make_sshd())
    found = doctor.visit("server", "/nonexistent/python", "plot.py")
    assert found.not_well == {"python.found": "broken"}
    assert "/nonexistent/python does not run" in found.text("python.found")


def test_a_server_without_python(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    folder = private_places / "few"
    folder.mkdir()
    for name in ("sh", "bash", "env", "grep", "head", "rm", "uname", "xauth", "test"):
        (folder / name).symlink_to(require_tool(name))
    doctor.home.add(make_sshd(path=str(folder)))
    found = doctor.visit("server")
    assert found.not_well == {"x11.agent": "warning", "python.found": "broken"}
    assert "Python 3.6 or later" in found.text("x11.agent")


TK_FAULTS = {
    "no Tk": ("PYTHONPATH", "_tkinter.py", "raise ImportError(\"No module named '_tkinter'\")", "has no Tk"),
    "no libX11": ("LD_LIBRARY_PATH", "libX11.so.6", "", "Tk can't be loaded: ImportError"),
}  # fmt: skip


@pytest.mark.skipif(NO_MATPLOTLIB, reason="matplotlib is not installed")
@pytest.mark.parametrize("name", TK_FAULTS)
def test_tk_faults(visit: Callable[..., Diagnosis], private_places: Path, name: str) -> None:
    variable, file, text, words = TK_FAULTS[name]
    folder = private_places / "lib"
    folder.mkdir()
    (folder / file).write_text(text)
    found = visit(python=PYTHON, environment={variable: str(folder)})
    # sshd's xauth needs libX11, too
    others = {"x11.native": "warning"} if name == "no libX11" else {}
    assert found.not_well == {"python.tkinter": "broken", **others}, found
    assert words in found.text("python.tkinter")
    assert found.findings["python.tkinter"]["remedy"]
    assert "opened there (X11 alone)" in found.text("proof.window")


OLD = """__version__ = "3.3.4"
raise ValueError("Key backend: 'qtagg' is not a valid value for backend")
"""
MATPLOTLIBRC = ".config/matplotlib/matplotlibrc"


@dataclass(frozen=True)
class PythonFault:
    """What is in the Python's surroundings, and what the doctor is to say of it."""

    name: str
    expected: Mapping[str, str]
    words: str
    remedy: str
    typed: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    accept_env: str = ""


BROKEN = {"python.backend": "broken"}
AGG = "export MPLBACKEND=Agg\n"
NATIVE = ("--x11", "native")
PYTHON_FAULTS = [
    PythonFault("matplotlibrc", BROKEN, f"{MATPLOTLIBRC} says so", "--backend", ("--backend", "none"), {MATPLOTLIBRC: "backend: Agg\n"}),
    PythonFault("--backend Agg", BROKEN, "Agg draws into files only; MPLBACKEND says so", "another backend", ("--backend", "Agg")),
    PythonFault("a start file, and AcceptEnv", BROKEN, ".bashrc:1:export MPLBACKEND=Agg", "another backend", NATIVE, {".bashrc": AGG}, accept_env="MPLBACKEND"),
    PythonFault("a start file", {"python.backend": "warning"}, ".bashrc:1:export MPLBACKEND=Agg", "out of it", (), {".bashrc": AGG}),
    PythonFault("a start file's remark", {}, "", "", (), {".bashrc": "# MPLBACKEND=Agg\nexport MPLBACKEND=TkAgg\n"}),
    PythonFault("headless Qt", BROKEN, "QT_QPA_PLATFORM=offscreen: Qt opens no window", "unset", ("--backend", "QtAgg"), {}, {"QT_QPA_PLATFORM": "offscreen"}),
    PythonFault("headless Qt, unused", {}, "", "", (), {}, {"QT_QPA_PLATFORM": "offscreen"}),
    PythonFault("no Gtk", BROKEN, "GTK3Agg can't be imported", "TkAgg", ("--backend", "GTK3Agg"), modules={"gi.py": "raise ImportError('no gi')"}),
    PythonFault("an old matplotlib", {"python.matplotlib": "broken"}, "not a valid value for backend", "Qt5Agg", ("--backend", "QtAgg"), modules={"matplotlib.py": OLD}),
    PythonFault("a matplotlib that fails", {"python.matplotlib": "broken"}, "RuntimeError: no numpy", "shows all of it", modules={"matplotlib.py": "raise RuntimeError('no numpy')"}),
]  # fmt: skip


@pytest.mark.skipif(NO_MATPLOTLIB, reason="matplotlib is not installed")
@pytest.mark.parametrize("fault", PYTHON_FAULTS, ids=lambda fault: fault.name)
def test_python_faults(
    visit: Callable[..., Diagnosis], private_places: Path, fault: PythonFault
) -> None:
    folder = private_places / "modules"
    folder.mkdir()
    for name, text in fault.modules.items():
        (folder / name).write_text(text)
    environment = {**fault.environment, **({"PYTHONPATH": str(folder)} if fault.modules else {})}
    found = visit(
        *fault.typed,
        python=PYTHON,
        files=fault.files,
        environment=environment,
        accept_env=fault.accept_env,
    )
    assert found.not_well == fault.expected, found
    for name in fault.expected:
        assert fault.words in found.text(name)
        assert fault.remedy in str(found.findings[name]["remedy"])


@pytest.mark.skipif(NO_MATPLOTLIB, reason="matplotlib is not installed")
def test_an_interactive_shell_with_another_backend(
    make_sshd: Callable[..., SshServer], doctor: Doctor
) -> None:
    """Its start files are read after what xssh sets."""
    server = make_sshd(path=f"{Path(PYTHON).parent}:{os.environ['PATH']}")
    (server.home / ".bashrc").write_text(AGG)
    doctor.home.add(server)
    found = doctor.visit("server")
    assert found.not_well == BROKEN
    assert ".bashrc:1:export MPLBACKEND=Agg" in found.text("python.backend")


@pytest.mark.skipif(NO_MATPLOTLIB, reason="matplotlib is not installed")
def test_a_script_that_forces_a_backend(
    make_sshd: Callable[..., SshServer], doctor: Doctor
) -> None:
    server = make_sshd()
    doctor.home.add(server)
    (server.home / "helper.py").write_text("import matplotlib as mpl\nmpl.use('svg')\n")
    (server.home / "train.py").write_text("import helper\n")
    found = doctor.visit("server", PYTHON, "-u", "train.py", "--fast")
    assert found.not_well == {"python.backend": "broken"}
    assert "helper.py, line 2: mpl.use('svg')" in found.text("python.backend")


@pytest.mark.parametrize("kind", ["missing", "here", "a folder", "beside"])
def test_a_script_that_is_not_there(
    make_sshd: Callable[..., SshServer], doctor: Doctor, kind: str
) -> None:
    server = make_sshd()
    doctor.home.add(server)
    folder = server.home / "project"
    folder.mkdir()
    typed, words, remedy = "train.py", "train.py can't be read there: No such file", "its place"
    if kind == "here":
        (doctor.home.path / typed).write_text("")
        typed, remedy = "~/train.py", "xssh --script ~/train.py server"
    elif kind == "a folder":
        (server.home / typed).mkdir()
        words = "train.py can't be read there: Is a directory"
    elif kind == "beside":
        (folder / typed).write_text("")
        words, remedy = "project/train.py", ""
    found = doctor.visit("server", "cd project &&" if kind == "beside" else "", doctor.bare, typed)
    expected = {} if kind == "beside" else {"python.script": "broken"}
    assert without_python(found.not_well) == expected, found
    assert words in found.text("python.script")
    assert remedy in found.text("python.script")


WRAPPERS = {
    "srun": (
        'SLURMD_NODENAME=node7 "$@"',
        "runs programs on node7, where localhost:",
        "srun --x11",
    ),
    "docker": ('shift 2; env -u DISPLAY -u XAUTHORITY "$@"', "without DISPLAY", "--network host"),
    "sudo": ('XAUTHORITY=/nonexistent "$@"', "cookie: /nonexistent", "sudo DISPLAY="),
    "nice": ('"$@"', "", ""),
}
"""Stubs in place of the programs: what they do to the surroundings, and what is to be said."""


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_stands_before_the_python(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path, name: str
) -> None:
    script, words, remedy = WRAPPERS[name]
    folder = private_places / "wrappers"
    folder.mkdir()
    stub = folder / name
    stub.write_text(f"#!/bin/sh\n{script}\n")
    stub.chmod(0o755)
    server = make_sshd(path=f"{folder}:{os.environ['PATH']}")
    doctor.home.add(server)
    (server.home / "train.py").write_text("")
    typed = ["docker", "exec", "box"] if name == "docker" else [name]
    found = doctor.visit("server", *typed, doctor.bare, "train.py")
    expected = {"session.command": "broken"} if words else {}
    assert without_python(found.not_well) == expected, found
    assert words in found.text("session.command")
    assert remedy in found.text("session.command")


def test_a_server_without_localhost(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    hosts = private_places / "hosts"
    hosts.write_text("10.0.0.1 elsewhere\n")
    nowhere = private_places / "resolv.conf"
    nowhere.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    before = f"mount --bind {hosts} /etc/hosts && mount --bind {nowhere} /etc/resolv.conf"
    doctor.home.add(make_sshd(wrapper=in_namespace("--mount", before=before)))
    found = doctor.visit("server", doctor.bare)
    assert without_python(found.not_well) == {"proof.window": "broken"}, found
    assert "localhost has no address there" in found.text("proof.window")
    assert "127.0.0.1 localhost" in found.text("proof.window")


def test_ipv6_half_off(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    """sshd wants ::1 for its displays, and the loopback interface has none."""
    off = "sysctl -qw net.ipv6.conf.lo.disable_ipv6=1"
    inside = in_namespace("--net", before=f"ip link set lo up && {off}")
    server = make_sshd(wrapper=inside)
    bridge = f"nsenter -t {server.process.pid} -n {need_nc()} 127.0.0.1 {server.port}"
    doctor.home.add(server, extra=f"ProxyCommand {bridge}")
    found = doctor.visit("server", doctor.bare)
    assert without_python(found.not_well) == {"x11.native": "warning"}, found
    assert "IPv6 is switched off on its loopback interface" in found.text("x11.native")
    assert "AddressFamily inet" in found.text("x11.native")


def need_nc() -> str:
    """Return a program that ties its stdin and stdout to a port."""
    return f"{PYTHON} {Path(__file__).parent.parent / 'support' / 'netcat.py'}"


def test_a_shared_connection_is_left_alone(
    make_sshd: Callable[..., SshServer], doctor: Doctor, private_places: Path
) -> None:
    server = make_sshd()
    path = private_places / "master"
    doctor.home.add(server, extra=f"ControlPath {path}\nControlMaster auto\nControlPersist yes")
    argv = ["ssh", *doctor.home.arguments]
    environment = doctor.home.environment()
    subprocess.run([*argv, "-fN", "server"], env=environment, check=True, stderr=subprocess.DEVNULL)
    try:
        found = doctor.visit("server", doctor.bare)
        done = run([*argv, "-O", "check", "server"], env=environment)
        assert done.status == 0
    finally:
        subprocess.run([*argv, "-q", "-O", "exit", "server"], env=environment, check=False)
    assert without_python(found.not_well) == {}
    assert "a connection of the doctor's own" in found.text("host.login")
    assert server.log().count("Accepted publickey") == 2


@contextmanager
def distance(server: SshServer, doctor: Doctor, delay: float, rate: float | None) -> Iterator[Link]:
    """Have ``server`` mean a server behind a link."""
    link = Link((server.host, server.port), delay=delay, rate=rate)
    doctor.home.add(server, extra=f"Port {link.port}\nHostKeyAlias {server.known_hosts_name}")
    try:
        yield link
    finally:
        link.stop()


def test_how_far_the_server_is(make_sshd: Callable[..., SshServer], doctor: Doctor) -> None:
    """A tenth of a second there and back, a megabyte a second."""
    with distance(make_sshd(), doctor, 0.05, 1e6):
        found = doctor.visit("--x11", "agent", "server", doctor.bare)
    measured = re.search(r"([\d.]+) ms there and back, at least ([\d.]+) M", found.text("speed"))
    predicted = re.search(r"about ([\d.]+) s, .*; with ssh -X ([\d.]+) s", found.text("speed"))
    assert measured and predicted, found.text("speed")
    assert 100 <= float(measured[1]) < 150
    assert 6 < float(measured[2]) < 9
    assert 0.6 < float(predicted[1]) < 2
    assert 38 < float(predicted[2]) < 60


def test_what_an_examination_waits_for(make_sshd: Callable[..., SshServer], doctor: Doctor) -> None:
    """What disturbs makes the trips more, never less; a long way makes that rare."""
    counts: list[float] = []
    with distance(make_sshd(), doctor, 0.15, None) as link:
        while len(counts) < TRIES and TRIPS not in counts:
            doctor.visit("--x11", "agent", "server", doctor.bare)
            counts.append(max(link.round_trips_of_all[-2:]))
    assert min(counts) == TRIPS, counts


def test_nothing_is_left_on_the_server(make_sshd: Callable[..., SshServer], doctor: Doctor) -> None:
    server = make_sshd()
    doctor.home.add(server)
    before = {path.name for path in server.home.iterdir()}
    doctor.visit("server", doctor.bare)
    server.wait_until_idle()
    after = {path.name for path in server.home.iterdir()}
    assert after - before <= {".Xauthority", ".config", ".cache"}
    assert stat.S_IMODE((server.home / ".Xauthority").stat().st_mode) == 0o600
