"""``--script``: a local Python file that runs on the other side as if it lay there."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration._pairs import XSSH, Pair
from tests.support.clients import ClientHome
from tests.support.processes import Completed, end_popen, run
from tests.support.sshd import SHELLS, SshServer
from tests.support.terminals import Terminal
from tests.support.tools import require_tool

MakeServer = Callable[..., SshServer]


@pytest.fixture
def place(short_directory: Path) -> Path:
    """Return a local folder for scripts."""
    path = short_directory / "scripts"
    path.mkdir()
    return path


def run_script(
    pair: Pair,
    source: str | bytes,
    place: Path,
    *arguments: str,
    name: str = "train.py",
    options: tuple[str, ...] = (),
    stdin: bytes | None = b"",
) -> Completed:
    path = place / name
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    words = [*options, "--script", str(path), "server", *arguments]
    return pair.run("xssh", words, stdin=stdin)


# --- As if it lay there -------------------------------------------------------------------------


def test_arguments_and_stdin_are_its_own(pair: Pair, place: Path) -> None:
    source = "import sys\nprint(sys.argv)\nsys.stdout.flush()\n"
    source += "sys.stdout.buffer.write(sys.stdin.buffer.read())\n"
    arguments = ["a b", "'", '"', "$HOME", "*", "", "-x", "--", "--help", "-p", "é\n", "!"]
    data = bytes(range(256)) * 999
    done = run_script(pair, source, place, *arguments, stdin=data)
    expected = repr(["train.py", *arguments]).encode() + b"\n" + data
    assert done == (0, expected, "")


def test_it_runs_in_the_home_and_imports_from_there(pair: Pair, place: Path) -> None:
    (pair.server.home / "beside.py").write_text("value = 42\n")
    source = "import os, sys, beside\nprint(os.getcwd(), __name__, __file__, beside.value)\n"
    source += (
        "print(sys.path[0], sys.modules['__main__'].__dict__ is globals(), sorted(globals()))\n"
    )
    home = str(pair.server.home)
    done = run_script(pair, source, place, options=("-o", "SetEnv=X=1"))
    local = run([sys.executable, str(place / "train.py")], cwd=home)
    lines = done.stdout.decode().splitlines()
    assert (done.status, done.stderr) == (0, "")
    assert lines[0] == f"{home} __main__ train.py 42"
    assert lines[1].startswith(f"{home} True [")
    names = lines[1].partition("[")[2]
    expected = local.stdout.decode().splitlines()[1].partition("[")[2] if not local.status else ""
    assert set(names.split(", ")) <= {*expected.split(", "), "'__builtins__'"} or not expected


@pytest.mark.parametrize(
    ("ending", "status", "says"),
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("raise SystemExit", 0, ""),
        ("import sys; sys.exit('a reason')", 1, "a reason\n"),
        ("import os; os._exit(9)", 9, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 255, None),
        ("import sys; sys.stderr.write('err\\n')", 0, "err\n"),
        ("import atexit; atexit.register(print, 'at exit')", 0, ""),
        ("raise KeyboardInterrupt", 255, None),
    ],
)
def test_exit_status_of_a_script(
    pair: Pair, place: Path, ending: str, status: int, says: str | None
) -> None:
    done = run_script(pair, f"print('out', flush=True)\n{ending}\n", place)
    assert done.status == status
    assert done.stdout.startswith(b"out\n")
    assert ("at exit" in done.stdout.decode()) == ("atexit" in ending)
    if says is not None:
        assert done.stderr == says


def test_traceback_names_the_file_and_shows_its_lines(pair: Pair, place: Path) -> None:
    source = "def work(x):\n    return 1 / x  # the culprit\n\nwork(0)\n"
    done = run_script(pair, source, place)
    assert done.status == 1
    local = run(["python3", "train.py"], cwd=place)
    assert local.status == 1
    expected = local.stderr.replace(f"{place}/", "")
    assert done.stderr == expected


@pytest.mark.parametrize(
    "source",
    [
        "print('a')\nif True print()\n",
        "x = (\n",
        "  indented\n",
        "print('unterminated\n",
        b"print('a')\n\xff\n",
        b"# coding: no-such-coding\n",
        b"print(1)\0\n",
    ],
)
def test_syntax_error_is_shown_as_by_python(pair: Pair, place: Path, source: str | bytes) -> None:
    done = run_script(pair, source, place)
    assert (done.status, done.stdout) == (1, b"")
    local = run(["python3", "train.py"], cwd=place)
    assert local.status == 1
    # Python words some of these by how the source came; the kind and the place are the same.
    assert done.stderr.splitlines()[-1].partition(":")[0] in (
        "SyntaxError",
        "IndentationError",
        "ValueError",
    )
    assert "Traceback" not in done.stderr or done.stderr.count("File") == 0


def test_source_in_another_coding(pair: Pair, place: Path) -> None:
    source = "# -*- coding: latin-1 -*-\nprint(ascii('é'))\nraise ValueError('ü')  # ö\n"
    done = run_script(pair, source.encode("latin-1"), place)
    assert done.stdout == b"'\\xe9'\n"
    assert done.stderr.endswith("ValueError: ü\n")
    bom = b"\xef\xbb\xbfprint('marked')\r\nprint('dos')\r\n"
    assert run_script(pair, bom, place).stdout == b"marked\ndos\n"


def test_future_imports_of_the_loader_are_not_the_scripts(pair: Pair, place: Path) -> None:
    source = (
        "def f(x: int): pass\nprint(f.__annotations__['x'] is int)\nprint('json' in globals())\n"
    )
    assert run_script(pair, source, place).stdout == b"True\nFalse\n"


@pytest.mark.parametrize(
    "name", ["a b.py", "it's.py", "$x;`y`.py", "é\U0001f389.py", "-x.py", "no-ending", "a\nb.py"]
)
def test_unusual_file_names(pair: Pair, place: Path, name: str) -> None:
    done = run_script(pair, "import sys; print([__file__, sys.argv[0]])", place, name=name)
    assert done == (0, repr([name, name]).encode() + b"\n", "")


def test_file_name_that_is_not_unicode(pair: Pair, place: Path) -> None:
    path = os.fsencode(place) + b"/\xff.py"
    with open(path, "wb") as file:
        file.write(b"import sys; print(ascii(sys.argv))")
    done = run(
        [
            *XSSH,
            *pair.home.arguments,
            "--script",
            os.fsdecode(path),
            "server",
            os.fsdecode(b"\xfe"),
        ],
        env=pair.environment,
    )
    assert done == (0, b"['\\udcff.py', '\\udcfe']\n", "")


def test_modules_that_look_at_main(pair: Pair, place: Path) -> None:
    """pickle, dataclasses and multiprocessing's fork find what the script defines."""
    source = """
import dataclasses, inspect, multiprocessing, pickle, sys
@dataclasses.dataclass
class Point:
    x: int
def double(p):
    return Point(2 * p.x)
if __name__ == "__main__":
    print(pickle.loads(pickle.dumps(Point(3))), inspect.getsource(double).splitlines()[1].strip())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(double, [Point(1), Point(2)]))
"""
    done = run_script(pair, source, place)
    assert done.stderr == ""
    assert done.stdout == b"Point(x=3) return Point(2 * p.x)\n[Point(x=2), Point(x=4)]\n"


def test_nothing_is_left_behind(pair: Pair, place: Path) -> None:
    before = sorted(pair.server.home.rglob("*"))
    temporary = set(os.listdir("/tmp"))
    source = f"import os; print(set(os.listdir('/tmp')) - {temporary!r})"
    done = run_script(pair, source, place)
    assert (done.status, done.stderr) == (0, "")
    assert "xssh" not in done.stdout.decode()
    assert sorted(pair.server.home.rglob("*")) == before
    pair.server.wait_until_idle()


def test_large_script(pair: Pair, place: Path) -> None:
    source = "data = '''" + "é0123456789abcdef\n" * 300000 + "'''\nprint(len(data))\n"
    assert run_script(pair, source, place).stdout == b"5400000\n"


def test_script_does_not_wait_for_its_stdin(pair: Pair, place: Path) -> None:
    path = place / "quick.py"
    path.write_text("print('quick')\n")
    process = pair.start("xssh", ["--script", str(path), "server"])
    try:
        assert process.wait(20) == 0
    finally:
        end_popen(process)


def test_interrupt_shows_the_scripts_own_frames(pair: Pair, place: Path) -> None:
    source = "def work():\n    raise KeyboardInterrupt\n\nprint('out')\nwork()\n"
    done = run_script(pair, source, place)
    local = run(["python3", "train.py"], cwd=place)
    assert (done.status, done.stdout) == (255, b"out\n")
    assert done.stderr == local.stderr.replace(f"{place}/", "")


def test_hook_of_the_script_sees_its_frames_only(pair: Pair, place: Path) -> None:
    source = "import sys, traceback\ndef hook(kind, value, trace):\n"
    source += "    print(kind.__name__, [f.name for f in traceback.extract_tb(trace)])\n"
    source += "sys.excepthook = hook\ndef work():\n    1 / 0\nwork()\n"
    done = run_script(pair, source, place)
    assert done == (1, b"ZeroDivisionError ['<module>', 'work']\n", "")


# --- Interpreters and shells --------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_script_under_each_login_shell(
    shell: str, make_sshd: MakeServer, client_home: ClientHome, place: Path
) -> None:
    server = make_sshd(shell=shell)
    client_home.add(server, extra="ForwardX11 no")
    pair = Pair(server, client_home)
    source = "import sys; print(sys.argv[1:], sys.stdin.read())"
    done = run_script(pair, source, place, "a'b", "$c", "!d", stdin=b"in")
    assert done == (0, b"[\"a'b\", '$c', '!d'] in\n", "")
    python = require_tool("python3")
    done = run_script(pair, source, place, "x", options=("--python", python), stdin=b"in")
    assert done == (0, b"['x'] in\n", "")


def pythons() -> list[str]:
    """Return the interpreters of this machine beside the one on PATH."""
    found = glob.glob("/root/.pyenv/versions/*/bin/python") + glob.glob("/opt/python/*/bin/python")
    return sorted(path for path in found if os.access(path, os.X_OK)) or [sys.executable]


@pytest.mark.parametrize("python", pythons())
def test_script_under_every_python(pair: Pair, place: Path, python: str) -> None:
    version = run([python, "-c", "import sys; print(sys.version_info[:2])"]).stdout.decode().strip()
    source = "import sys\nprint(sys.version_info[:2], sys.argv, sys.stdin.read())\n1/0\n"
    done = run_script(pair, source, place, "x", options=("--python", python), stdin=b"in")
    if version.startswith("(2") or version in ("(3, 5)", "(3, 4)"):
        assert (done.status, done.stdout) == (255, b"")
        assert done.stderr.startswith("xssh: --script needs Python 3.6 or later on the remote host")
        assert "  try: --python" in done.stderr
        return
    assert done.stdout.decode() == f"{version} ['train.py', 'x'] in\n"
    assert done.status == 1
    assert 'File "train.py", line 3, in <module>\n    1/0\n' in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert done.stderr.count("File ") == 1


def test_python_with_arguments(pair: Pair, place: Path) -> None:
    source = "import sys; print(sys.flags.isolated, sys.flags.optimize)"
    assert run_script(pair, source, place, options=("--python", "python3 -I -O")).stdout == b"1 1\n"


def test_interpreter_that_is_missing(
    pair: Pair, make_sshd: MakeServer, client_home: ClientHome, place: Path, short_directory: Path
) -> None:
    done = run_script(pair, "print(1)", place, options=("--python", "no-such-python"))
    assert (done.status, done.stdout) == (127, b"")
    assert "no-such-python" in done.stderr
    bare = short_directory / "bare"
    bare.mkdir()
    (bare / "sh").symlink_to(require_tool("sh"))
    server = make_sshd(path=str(bare))
    client_home.config.write_text("")
    client_home.add(server, extra="ForwardX11 no")
    other = Pair(server, client_home)
    done = run_script(other, "print(1)", place, stdin=b"x" * 100000)
    assert (done.status, done.stdout) == (127, b"")
    assert "xssh: neither python3 nor python is on the remote PATH" in done.stderr
    assert "  try: --python" in done.stderr
    (bare / "python").symlink_to(os.path.realpath(sys.executable))
    assert run_script(other, "print('python')", place) == (0, b"python\n", "")


# --- What is wrong here -------------------------------------------------------------------------


def test_script_that_cannot_be_read(pair: Pair, place: Path) -> None:
    for path, why in ((place / "absent.py", "No such file"), (place, "Is a directory")):
        done = pair.run("xssh", ["--script", str(path), "server"])
        assert (done.status, done.stdout) == (255, b"")
        assert done.stderr.startswith(f"xssh: --script {path}: {why}")
        assert "  try: " in done.stderr
    assert "Connection from" not in pair.server.log()


def test_script_from_a_pipe(pair: Pair) -> None:
    done = pair.shell("xssh", [], '"$@" --script <(echo "print(6*7)") server')
    assert done == (0, b"42\n", "")


def test_connection_that_breaks_before_the_script_arrived(pair: Pair, place: Path) -> None:
    """A forced command that takes the loader's place gets input it does not want; nothing hangs."""
    pair.server.authorized_keys.write_text("")
    pair.server.authorize(pair.server.client_key, 'command="echo forced; exit 3"')
    done = run_script(pair, "#" + "x" * 3000000, place)
    assert (done.status, done.stdout) == (3, b"forced\n")


# --- In a terminal ------------------------------------------------------------------------------


def test_script_in_a_terminal(
    pair: Pair, place: Path, spawn_in_pty: Callable[..., Terminal]
) -> None:
    path = place / "ask.py"
    path.write_text(
        "import os, sys, termios\n"
        "print(sys.stdin.isatty(), sys.stdout.isatty(), os.get_terminal_size())\n"
        "flags = termios.tcgetattr(0)[3]\n"
        "print([bool(flags & bit) for bit in (termios.ECHO, termios.ICANON, termios.ISIG)])\n"
        "name = input('name? ')\n"
        "print('hello', name)\n"
        "try:\n    print('reading')\n    sys.stdin.read()\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
        "sys.exit(5)\n" + "# padding\n" * 20000
    )
    argv = pair.argv("xssh", ["-t", "--script", str(path), "server"])
    terminal = spawn_in_pty(argv, env=pair.environment, rows=30, cols=90)
    terminal.read_until(r"name\? ")
    head = terminal.output.decode()
    assert head.startswith(
        "True True os.terminal_size(columns=90, lines=30)\r\n[True, True, True]\r\n"
    )
    terminal.write("Ada\r")
    assert terminal.read_until("hello Ada") == "Ada\r\nhello Ada"
    terminal.read_until("reading")
    terminal.write("\x03")
    terminal.read_until("interrupted")
    assert terminal.wait() == 5
    assert terminal.is_restored


def test_script_that_uses_readline(
    pair: Pair, place: Path, spawn_in_pty: Callable[..., Terminal]
) -> None:
    path = place / "ask.py"
    path.write_text("import readline\nprint('got', input('> '))\n")
    argv = pair.argv("xssh", ["-t", "--script", str(path), "server"])
    terminal = spawn_in_pty(argv, env=pair.environment)
    terminal.read_until("> ")
    terminal.write("abX\x7fc\r")
    assert "got abc" in terminal.read_until("got abc")
    assert terminal.wait() == 0
