"""How the agent starts: in every login shell, past what start files print, with odd Pythons, and
what is said and done where it cannot.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.agenthost import (
    AgentHost,
    patch_candidates,
    patch_deadlines,
    write_executable,
)
from tests.support.sshd import SHELLS

MakeHost = Callable[..., AgentHost]

SHOW = "sh -c 'echo \"[$DISPLAY]\"'; xdpyinfo >/dev/null; exit 3"
"""Says which display there is, and with a status that must come through whether it works."""

NOISE = (
    "printf 'no end of line'; printf 'nor here' >&2; sleep 0.3; printf 'xssh-agent 00 ready x='\n"
)
START_FILES = {
    "bash": (".bashrc", NOISE),
    "zsh": (".zshenv", NOISE),
    "dash": (".profile", NOISE),
    "fish": (".config/fish/config.fish", NOISE),
    "csh": (".cshrc", "echo -n no end of line\nsleep 0.3\n"),
    "tcsh": (".tcshrc", "echo -n no end of line\nsleep 0.3\n"),
}


def write_start_file(host: AgentHost, name: str, text: str) -> None:
    path = host.server.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_login_shell_past_its_noise(shell: str, make_host: MakeHost) -> None:
    host = make_host(shell=shell)
    write_start_file(host, *START_FILES[shell])
    done = host.run("xdpyinfo >/dev/null && echo shown; exit 3")
    done.require_flawless()
    assert done.status == 3
    assert done.stdout.endswith(b"shown\n")
    host.wait_until_clean()


ONLY_FOR_AGENT = 'case "$BASH_EXECUTION_STRING" in *xssh-agent*) {} ;; esac\n'


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("exec dash", "no Python spoke within 1 seconds"),
        ("exit 7", "the command ended with status 7"),
        ("sleep 4", "no Python spoke within 1 seconds"),
        ("exec yes", "the login shell prints without end"),
        ("kill -9 $$", "the command was ended by SIGKILL"),
    ],
)
def test_start_files_that_leave_no_way(what: str, reason: str, make_host: MakeHost) -> None:
    host = make_host(shell="bash")
    write_start_file(host, ".bashrc", ONLY_FOR_AGENT.format(what))
    done = host.run(SHOW, before=patch_deadlines())
    assert done.reason == reason
    # The native way takes its place, and nothing is said about it.
    assert (done.status, done.stderr) == (3, "")
    assert done.stdout.startswith(b"[localhost:")
    host.wait_until_clean()


def test_what_the_start_printed_is_shown(make_host: MakeHost) -> None:
    host = make_host(shell="bash")
    text = ONLY_FOR_AGENT.format("echo out-of; echo order >&2; exit 7")
    write_start_file(host, ".bashrc", text)
    done = host.run("exit 3", "--x11", "agent")
    assert (done.status, done.stderr.count("\n")) == (3, 1), done
    reason = "X11: not by the agent: the command ended with status 7"
    assert done.stderr.startswith(f"xssh: {reason}; try: --x11 native")
    assert "  out-of\n" in done.details.replace("debug1:", "")
    assert "order" in done.details


# Pythons ----------------------------------------------------------------------------------------

OLDER = """\
#!/bin/sh
while [ "$1" != -c ]; do shift; done
exec {python} -c "import sys; sys.version_info = (3, 5, 2, 'final', 0)
sys.argv = sys.argv[1:]; sys.argv[0] = '-c'
exec(sys.argv.pop(1))" -c "$2" "$3"
"""

PYTHONS = {
    "missing": "",
    "broken": "#!/bin/sh\necho 'Fatal Python error: init_fs_encoding' >&2\nexit 1\n",
    "shim": "#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n",
    "not to be run": "#!/nonexistent/interpreter\n",
    "old": OLDER.format(python=shlex.quote(sys.executable)),
}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no Python 3.6 or later is there"),
        ("broken", "no Python 3.6 or later is there"),
        ("shim", "no Python 3.6 or later is there"),
        ("not to be run", "no Python 3.6 or later is there"),
        ("old", "no Python 3.6 or later is there, only 3.5.2"),
    ],
)
def test_pythons_that_will_not_do(
    kind: str, reason: str, host: AgentHost, short_directory: Path
) -> None:
    path = short_directory / "python3"
    if PYTHONS[kind]:
        write_executable(path, PYTHONS[kind])
    done = host.run(SHOW, before=patch_candidates(path))
    assert done.reason == reason
    assert (done.status, done.stderr) == (3, "")
    assert done.stdout.startswith(b"[localhost:")


@pytest.mark.parametrize("kind", ["broken", "old"])
def test_a_good_python_behind_a_bad_one(kind: str, host: AgentHost, short_directory: Path) -> None:
    path = write_executable(short_directory / "python3", PYTHONS[kind])
    done = host.run("xdpyinfo >/dev/null", before=patch_candidates(path, sys.executable))
    done.require_flawless()
    assert (
        f"at {os.path.realpath(sys.executable)}" in done.details or sys.executable in done.details
    )


def test_python_that_hangs(host: AgentHost, short_directory: Path) -> None:
    path = write_executable(short_directory / "python3", "#!/bin/sh\nexec sleep 4\n")
    begin = time.monotonic()
    done = host.run("exit 3", "--x11", "agent", before=patch_deadlines() + patch_candidates(path))
    assert done.status == 3
    assert "no Python spoke within 1 seconds" in done.stderr
    assert time.monotonic() - begin < 20


def test_modules_that_do_not_start(host: AgentHost) -> None:
    before = "import xsshpy.x11.agent_start as s; s.pack_modules = lambda: 'eHl6'\n"
    done = host.run("exit 3", before=before)
    assert (done.status, done.reason) == (3, "it fails: error")
    source = b"def serve(say):\n    import time\n    time.sleep(4)\n"
    packed = zlib.compress(b"slow %d\n" % len(source) + source)
    words = base64.b64encode(packed).decode("ascii")
    slow = f"import xsshpy.x11.agent_start as s; s.pack_modules = lambda: {words!r}\n"
    slow += patch_deadlines()
    done = host.run("exit 3", before=slow)
    assert (done.status, done.reason) == (3, "it was not ready within 1 seconds")


def test_modules_in_the_home_directory_are_not_imported(make_host: MakeHost) -> None:
    host = make_host(shell="bash")
    for name in ("zlib", "socket", "struct", "base64", "re", "select", "hmac", "json", "enum"):
        (host.server.home / f"{name}.py").write_text("raise SystemExit('of the home directory')\n")
    done = host.run("xdpyinfo >/dev/null", env={"PYTHONSAFEPATH": "1"})
    done.require_flawless()
    assert done.status == 0


# Which runs have an agent -----------------------------------------------------------------------


@pytest.fixture
def recorded(
    make_host: MakeHost, short_directory: Path
) -> tuple[AgentHost, Callable[[], list[str]]]:
    """A host whose login shell writes down every command it is given."""
    log = short_directory / "commands"
    log.touch()
    shell = write_executable(
        short_directory / "recorder",
        f'#!/bin/sh\nprintf "%s\\0" "$*" >>{log}\nexec /bin/sh "$@"\n',
    )
    host = make_host(shell=str(shell))

    def commands() -> list[str]:
        found = log.read_text().split("\0")[:-1]
        log.write_text("")
        return found

    return host, commands


@pytest.mark.parametrize(
    "words",
    [
        ["server", "git-upload-pack", "'x y'"],
        ["server", "rsync --server -a . /nonexistent"],
        ["server", "scp -t /nonexistent/x"],
        ["-s", "server", "sftp"],
        ["-N", "server"],
        ["-W", "127.0.0.1:1", "server"],
        ["-x", "server", "true"],
        ["--x11", "off", "server", "true"],
        ["--x11", "native", "server", "true"],
        ["-T", "-o", "ForwardX11=no", "server", "true"],
    ],
    ids=lambda words: words[-2] if words[-1] == "true" else words[0] + words[-1][:4],
)
def test_runs_without_an_agent(
    words: list[str], recorded: tuple[AgentHost, Callable[[], list[str]]]
) -> None:
    host, commands = recorded
    with_end = ["timeout", "2"] if words[0] == "-N" else []
    from tests.support.processes import run

    run([*with_end, *host.argv(words)], env=host.environment)
    asked = commands()
    assert not [each for each in asked if "xssh-agent" in each]
    if words[0] == "server":
        assert asked == ["-c " + " ".join(words[1:])]


def test_both_ways_by_the_variable(host: AgentHost) -> None:
    asked = "echo $XAUTHORITY"
    assert host.run(asked, env={"XSSH_X11": "native"}).stdout == b"\n"
    assert b"/xssh-agent-" in host.run(asked, env={"XSSH_X11": "agent"}).stdout
    assert b"/xssh-agent-" in host.run(asked, env={"XSSH_X11": "auto"}).stdout
    assert host.run("echo [$DISPLAY]", env={"XSSH_X11": "off"}).stdout == b"[]\n"
    # The option wins.
    assert host.run(asked, "--x11", "native", env={"XSSH_X11": "agent"}).stdout == b"\n"
    wrong = host.run(asked, env={"XSSH_X11": "maybe"})
    assert (wrong.status, wrong.stdout) == (255, b"")
    assert "XSSH_X11: 'maybe'" in wrong.stderr


def test_server_that_opens_one_session(make_host: MakeHost) -> None:
    """The session gets it, and X11 the native way."""
    host = make_host(config="MaxSessions 1")
    done = host.run(SHOW)
    assert (done.status, done.stderr) == (3, "")
    assert done.stdout.startswith(b"[localhost:")
    assert done.reason == "the server opens no second session: open failed"
    without = host.run(SHOW, "--x11", "agent")
    assert (without.status, without.stdout) == (3, b"[]\n")
    assert "the server opens no second session" in without.stderr


def test_key_with_a_command_starts_no_agent(make_host: MakeHost, short_directory: Path) -> None:
    record = short_directory / "record"
    command = f"echo run >>{record}; echo DISPLAY=$DISPLAY; echo $SSH_ORIGINAL_COMMAND"
    host = make_host(key_options=f'command="{command}"')
    done = host.run("typed words")
    assert done.status == 0
    assert done.stdout.startswith(b"DISPLAY=localhost:")
    assert done.stdout.endswith(b"\ntyped words\n")
    assert record.read_text() == "run\n"
    assert done.reason == "the server runs a command of its own"


def test_restricted_key_has_windows_by_the_agent(make_host: MakeHost) -> None:
    host = make_host(key_options="restrict")
    done = host.run("xdpyinfo >/dev/null; exit 3")
    done.require_flawless()
    assert (done.status, done.stderr) == (3, "")


def test_into_the_background(host: AgentHost) -> None:
    from tests.support.processes import run, wait_until

    ready = host.server.home / "shown"
    ready.unlink(missing_ok=True)
    argv = host.argv(["-f", "server", f"xdpyinfo >/dev/null && touch {ready}"])
    assert run(argv, env=host.environment).status == 0
    wait_until(ready.exists, timeout=20, what="xdpyinfo")


# What is remembered -----------------------------------------------------------------------------


def test_a_host_that_could_not_is_left_alone_for_a_day(
    host: AgentHost, short_directory: Path
) -> None:
    nothing = patch_candidates(short_directory / "none")
    assert host.run("exit 3", before=nothing).reason == "no Python 3.6 or later is there"
    again = host.run(SHOW)
    assert again.reason == "it could not run on this host of late"
    assert (again.status, again.stderr) == (3, "")
    assert again.stdout.startswith(b"[localhost:")
    # Who asks for it gets it.
    assert host.run("true", "--x11", "agent").went_by_agent
    assert host.run("exit 3", before=nothing).status == 3
    hosts = host.home.path / ".cache" / "xssh" / "x11-hosts.json"
    remembered = json.loads(hosts.read_text())
    assert str(host.server.port) not in hosts.read_text()
    hosts.write_text(
        json.dumps({name: [False, when - 86401] for name, (_, when) in remembered.items()})
    )
    assert host.run("true").went_by_agent


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "\0\xff", "x" * 10])
def test_what_is_remembered_may_be_garbage(text: str, host: AgentHost) -> None:
    folder = host.home.path / ".cache" / "xssh"
    folder.mkdir(parents=True)
    for name in ("x11-hosts.json", "x11-questions.json"):
        (folder / name).write_text(text)
    assert host.run("xdpyinfo >/dev/null").went_by_agent


SCRIPT = """\
import os
import re
print(os.environ["DISPLAY"], os.path.exists(os.environ["XAUTHORITY"]), os.environ["MPLBACKEND"])
"""


def test_a_script_has_the_display(host: AgentHost, short_directory: Path) -> None:
    script = short_directory / "script.py"
    script.write_text(SCRIPT)
    options = ["--python", shlex.quote(sys.executable), "--script", str(script)]
    done = host.run("", *options)
    assert done.status == 0
    assert re.fullmatch(rb"localhost:\d+\.0 True TkAgg\n", done.stdout), done


def test_a_folder_with_an_odd_name_is_no_place_for_the_cookie(make_host: MakeHost) -> None:
    """It could not stand in a command line of every shell."""
    host = make_host(shell="bash")
    odd = host.server.home / "it's $HOME"
    odd.mkdir(mode=0o700)
    write_start_file(
        host, ".bashrc", f'export XDG_RUNTIME_DIR="{str(odd).replace("$", chr(92) + "$")}"\n'
    )
    done = host.run("xdpyinfo >/dev/null; echo $XAUTHORITY")
    done.require_flawless()
    assert done.stdout.startswith(str(host.temporary).encode())
    assert not list(odd.iterdir())
