"""Messages by level, hostile text, and questions on a real terminal or by a real askpass."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.unit.pty_child import ROOT, PtyChild
from xsshpy.askpass import AskpassPolicy, decide_askpass, find_askpass
from xsshpy.console import TEXT_LIMIT, Console, LogLevel, foreign, inline, sanitise
from xsshpy.errors import ConnectError

NO_TTY = "/nonexistent/tty"


# Messages


@pytest.mark.parametrize(
    ("name", "level"),
    [("QUIET", 0), ("fatal", 1), ("Error", 2), ("INFO", 3), ("VERBOSE", 4), ("DEBUG", 5),
     ("DEBUG1", 5), ("debug2", 6), ("DEBUG3", 7)],
)  # fmt: skip
def test_level_names(name: str, level: int) -> None:
    assert LogLevel.parse(name) == level


@pytest.mark.parametrize("name", ["", "DEBUG4", "NOTICE", "3", " INFO"])
def test_unknown_level_names(name: str) -> None:
    with pytest.raises(ValueError, match="log level"):
        LogLevel.parse(name)


def said(level: LogLevel, *, raw: bool = False) -> str:
    stream = io.BytesIO()
    console = Console(level, stderr=stream, environ={})
    console.raw = raw
    console.fatal("f")
    console.error("e")
    console.notice("i")
    console.verbose("v")
    for number in (1, 2, 3):
        console.debug(number, "d")
    return stream.getvalue().decode()


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        (LogLevel.QUIET, []),
        (LogLevel.FATAL, ["f"]),
        (LogLevel.ERROR, ["f", "e"]),
        (LogLevel.INFO, ["f", "e", "i"]),
        (LogLevel.VERBOSE, ["f", "e", "i", "v"]),
        (LogLevel.DEBUG1, ["f", "e", "i", "v", "debug1: d"]),
        (LogLevel.DEBUG2, ["f", "e", "i", "v", "debug1: d", "debug2: d"]),
        (LogLevel.DEBUG3, ["f", "e", "i", "v", "debug1: d", "debug2: d", "debug3: d"]),
    ],
)
def test_levels(level: LogLevel, lines: list[str]) -> None:
    assert said(level) == "".join(f"{line}\n" for line in lines)
    assert said(level, raw=True) == "".join(f"{line}\r\n" for line in lines)


def test_report_has_evidence_and_remedy() -> None:
    stream = io.BytesIO()
    console = Console(stderr=stream, environ={})
    console.raw = True
    console.report(ConnectError("a\nb\x1b[2J", evidence=("c",), remedy="d"))
    assert stream.getvalue() == b"a\r\nb\\033[2J\r\nc\r\n  try: d\r\n"
    console.level = LogLevel.ERROR
    console.report(ConnectError("less"), LogLevel.INFO)
    assert b"less" not in stream.getvalue()


def test_banner_keeps_its_line_ends() -> None:
    stream = io.BytesIO()
    console = Console(stderr=stream, environ={})
    console.banner("one\r\ntwo\nno end\x07")
    console.raw = True
    console.banner("one\r\ntwo\n")
    console.level = LogLevel.ERROR
    console.banner("hidden")
    assert stream.getvalue() == b"one\r\ntwo\nno end\\007one\r\ntwo\r\n"


def test_show_ignores_the_level() -> None:
    stream = io.BytesIO()
    console = Console(LogLevel.QUIET, stderr=stream, environ={})
    console.show("~?\r\n")
    assert stream.getvalue() == b"~?\r\n"


def test_stderr_that_is_closed_or_full_is_no_error() -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    console = Console(stderr=writable, environ={})
    start = time.monotonic()
    for _ in range(3):
        console.notice("x" * TEXT_LIMIT)
    assert time.monotonic() - start < 5
    os.close(readable)
    console.notice("nobody reads")
    os.close(writable)
    console.notice("closed")
    Console(stderr=io.BytesIO(), environ={}).notice("ok")
    stream = io.BytesIO()
    stream.close()
    Console(stderr=stream, environ={}).notice("closed stream")


def test_slow_stderr_gets_everything() -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    got = bytearray()

    def drain() -> None:
        time.sleep(0.1)
        while piece := os.read(readable, 4096):
            got.extend(piece)

    thread = threading.Thread(target=drain)
    thread.start()
    console = Console(stderr=writable, environ={})
    for _ in range(5):
        console.notice("y" * TEXT_LIMIT)
    os.close(writable)
    thread.join()
    os.close(readable)
    assert len(got) == 5 * (TEXT_LIMIT + 1)


def test_nothing_on_stdout_and_no_asyncio(tmp_path: Path) -> None:
    code = """
import sys
from xsshpy.console import Console, LogLevel
console = Console(LogLevel.DEBUG3, environ={})
console.notice("n"); console.debug(3, "d"); console.banner("b"); console.show("s")
assert "asyncio" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == (b"", b"n\ndebug3: d\nbs")


# Hostile text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ~ text", "plain ~ text"),
        ("a\tb\nc\r\n", "a\tb\nc\r\n"),
        ("Permission denied.\rAll is well.    ", "Permission denied.\\015All is well.    "),
        ("a\r\r\nb\r", "a\\015\r\nb\\015"),
        ("\x1b]0;title\x07", "\\033]0;title\\007"),
        ("\x1b[2J\x00\x08\x7f", "\\033[2J\\000\\010\\177"),
        ("\x9b31m", "\\302\\23331m"),
        ("Grüße 東京 🎉", "Grüße 東京 🎉"),
        ("a\u00a0b", "a\u00a0b"),
        ("\udcff\udc1b", "\\377\\355\\260\\233"),
        ("\ud800", "\\355\\240\\200"),
        ("\u202egnp.exe", "\\342\\200\\256gnp.exe"),
        ("a\u2028b\u2066", "a\\342\\200\\250b\\342\\201\\246"),
        ("\\033", "\\033"),
        ("", ""),
    ],
)
def test_sanitise(text: str, shown: str) -> None:
    assert sanitise(text) == shown
    assert sanitise(shown) == shown


def test_sanitise_leaves_no_control_character_at_all() -> None:
    everything = "".join(map(chr, range(0x3000))) + "\ud800\udfff\U000e0041"
    shown = sanitise(everything)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown if c not in "\t\n")
    shown.encode()


OTHERS = {
    "xssh: no": ("xssh: no", "\\170ssh: no"),
    "a\r\n  Try : b\r\n": ("a\\015\\012  Try : b", "a\r\n  \\124ry : b\r\n"),
    "\txssh no\ncountry: x": ("\txssh no\\012country: x", "\txssh no\ncountry: x"),
    "": ("", ""),
    "try\n:": ("try\\012:", "try\n:"),
}


@pytest.mark.parametrize("text", OTHERS)
def test_what_others_say_is_not_taken_for_ours(text: str) -> None:
    assert (inline(text), foreign(text)) == OTHERS[text]


def test_lines_of_a_debug_message_are_debug_lines() -> None:
    with tempfile.TemporaryFile() as file:
        Console(LogLevel.DEBUG2, stderr=file.fileno()).debug(2, "one\nxssh: two\n")
        file.seek(0)
        assert file.read() == b"debug2: one\ndebug2: xssh: two\n"


def test_sanitise_has_a_limit() -> None:
    assert sanitise("x" * 10, 10) == "x" * 10
    assert sanitise("x" * 25, 10) == "x" * 10 + "[15 more characters]"
    assert sanitise("x" * 9 + "\r\n", 10) == "x" * 9 + "\\015[1 more characters]"
    assert len(sanitise("\x00" * 10_000_000)) < 5 * TEXT_LIMIT


# Questions on the terminal

ASK = """
import asyncio, os, sys, time
from xsshpy.console import Console, LogLevel
console = Console(LogLevel.DEBUG1)
kind, prompt = sys.argv[1:3]
async def ask():
    return await getattr(console, kind)(prompt)
print(ascii(asyncio.run(ask())), flush=True)
"""


def asking(kind: str, prompt: str, home: Path, **options: object) -> PtyChild:
    return PtyChild(ASK, kind, prompt, home=home, **options)  # type: ignore[arg-type]


def test_secret_is_not_echoed(tmp_path: Path) -> None:
    with asking("ask_secret", "pass word: ", tmp_path) as child:
        before = child.modes()
        assert child.read_terminal(b"pass word: ") == b"\rpass word: "
        assert not child.echoes()
        child.type("héslo 1\n".encode())
        assert child.finish() == (0, ascii("héslo 1") + "\n", "")
        assert child.rest_of_terminal() == b"\r\n"
        assert child.modes() == before


def test_line_is_echoed(tmp_path: Path) -> None:
    with asking("ask_line", "yes/no? ", tmp_path) as child:
        before = child.modes()
        child.read_terminal(b"yes/no? ")
        assert child.echoes()
        child.type(b"yes\n")
        assert child.finish() == (0, "'yes'\n", "")
        assert child.rest_of_terminal() == b"yes\r\n"
        assert child.modes() == before


def test_line_editing_works_in_both(tmp_path: Path) -> None:
    for kind in ("ask_secret", "ask_line"):
        with asking(kind, "? ", tmp_path) as child:
            child.read_terminal(b"? ")
            child.type(b"wrong\x15rigth\x7f\x7fht\n")
            assert child.finish()[1] == "'right'\n"


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (b"\n", ""),
        (b"\x04", ""),
        (b"abc\x04\x04", "abc"),
        (b"\xff\xfe\n", "\udcff\udcfe"),
        (b"a" * 1023 + b"\n", "a" * 1023),
        (b"a" * 1024 + b"bcd\n", "a" * 1023),
        (b" spaces \n", " spaces "),
    ],
)
def test_answers(tmp_path: Path, typed: bytes, answer: str) -> None:
    with asking("ask_secret", "? ", tmp_path) as child:
        child.read_terminal(b"? ")
        child.type(typed)
        assert child.finish() == (0, ascii(answer) + "\n", "")


def test_what_is_typed_too_early_or_too_late_is_dropped(tmp_path: Path) -> None:
    code = "import time; time.sleep(0.3)\n" + ASK + "print(ascii(sys.stdin.readline()), flush=True)"
    with PtyChild(code, "ask_secret", "? ", home=tmp_path) as child:
        child.type(b"early\n")
        child.read_terminal(b"? ")
        child.type(b"right\nlate\n")
        assert child.finish()[1] == "'right'\n''\n"


def test_question_cannot_command_the_terminal(tmp_path: Path) -> None:
    with asking("ask_secret", "(u@h) \rPassword: \x1b[2J\nnext? ", tmp_path) as child:
        shown = child.read_terminal(b"next? ")
        assert shown == b"\r(u@h) \\015Password: \\033[2J\r\nnext? "
        child.type(b"\n")
        child.finish()


@pytest.mark.parametrize("kind", ["ask_secret", "ask_line"])
def test_ctrl_c_ends_the_run_and_restores(tmp_path: Path, kind: str) -> None:
    with asking(kind, "? ", tmp_path, job=True) as child:
        before = child.modes()
        child.read_terminal(b"? ")
        child.type(b"half\x03")
        assert child.line().endswith(" echo")
        assert child.modes() == before
        assert child.process.wait(20) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_that_kill_restore_the_echo(tmp_path: Path, signum: signal.Signals) -> None:
    with asking("ask_secret", "? ", tmp_path) as child:
        before = child.modes()
        child.read_terminal(b"? ")
        os.kill(child.process.pid, signum)
        assert child.process.wait(20) == -signum
        assert child.modes() == before


def test_ctrl_z_restores_and_asks_again(tmp_path: Path) -> None:
    with asking("ask_secret", "? ", tmp_path, job=True) as child:
        before = child.modes()
        child.read_terminal(b"? ")
        child.type(b"half\x1a")
        assert child.line() == "stopped SIGTSTP echo"
        child.order("fg")
        child.read_terminal(b"? ")
        child.wait_for_echo(False)
        child.type(b"whole\n")
        assert child.line() == "'whole'"
        assert child.line() == "ended 0 echo"
        assert child.modes() == before


def test_in_the_background_it_waits_to_be_called(tmp_path: Path) -> None:
    with asking("ask_secret", "? ", tmp_path, job=True, start="bg") as child:
        assert child.line() == "stopped SIGTTOU echo"
        child.order("fg")
        child.read_terminal(b"? ")
        child.type(b"x\n")
        assert child.line() == "'x'"
        assert child.line() == "ended 0 echo"


def test_a_terminal_that_vanishes_is_no_answer() -> None:
    master, slave = pty.openpty()
    name = os.ttyname(slave)

    async def ask() -> str | None:
        console = Console(environ={}, tty_path=name)
        answer = asyncio.ensure_future(console.ask_secret("? "))
        while not await asyncio.to_thread(lambda: select.select([master], [], [], 0.1)[0]):
            pass
        os.close(slave)
        os.close(master)
        return await answer

    assert asyncio.run(asyncio.wait_for(ask(), 20)) is None


def test_the_loop_runs_on_and_a_question_can_be_cancelled() -> None:
    master, slave = pty.openpty()
    import termios

    before = termios.tcgetattr(slave)
    console = Console(environ={}, tty_path=os.ttyname(slave))

    async def ask() -> None:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(console.ask_secret("? "), 0.1)
            assert termios.tcgetattr(slave) == before
        asked = asyncio.ensure_future(console.ask_line("? "))
        ticks = 0
        while ticks < 20:
            await asyncio.sleep(0.005)
            ticks += 1
        os.write(master, b"yes\n")
        assert await asyncio.wait_for(asked, 10) == "yes"

    descriptors = len(os.listdir("/dev/fd"))
    asyncio.run(ask())
    assert len(os.listdir("/dev/fd")) == descriptors
    assert not [t for t in threading.enumerate() if t.name == "terminal prompt"]
    os.close(master)
    os.close(slave)


def test_two_questions_wait_for_each_other(tmp_path: Path) -> None:
    code = """
import asyncio
from xsshpy.console import Console
async def ask():
    console = Console()
    return await asyncio.gather(console.ask_secret("one? "), console.ask_line("two? "))
print(asyncio.run(ask()), flush=True)
"""
    with PtyChild(code, home=tmp_path) as child:
        assert b"two" not in child.read_terminal(b"one? ")
        assert b"two" not in child.rest_of_terminal()
        child.type(b"1\n")
        child.read_terminal(b"two? ")
        child.type(b"2\n")
        assert child.finish()[1] == "['1', '2']\n"


def test_batch_mode_asks_nobody(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    environ = {"SSH_ASKPASS": stub(tmp_path, f"touch {asked}"), "SSH_ASKPASS_REQUIRE": "force"}
    console = Console(environ=environ, batch_mode=True)

    async def ask() -> tuple[object, ...]:
        return tuple(await asyncio.gather(console.ask_secret("?"), console.ask_line("?")))

    assert asyncio.run(ask()) == (None, None)
    assert not asked.exists()


# Questions by askpass


def stub(directory: Path, body: str, name: str = "askpass") -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def ask_without_terminal(
    environ: dict[str, str], prompt: str = "q? ", *, path: str = "/usr/bin:/bin"
) -> tuple[str | None, str]:
    stream = io.BytesIO()
    console = Console(stderr=stream, environ={"PATH": path, **environ}, tty_path=NO_TTY)
    answer = asyncio.run(asyncio.wait_for(console.ask_secret(prompt), 30))
    return answer, stream.getvalue().decode()


@pytest.mark.parametrize(
    ("environ", "allowed", "preferred"),
    [
        ({}, False, False),
        ({"DISPLAY": ""}, False, False),
        ({"DISPLAY": ":0"}, True, False),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, False),
        ({"SSH_ASKPASS_REQUIRE": "force"}, True, True),
        ({"SSH_ASKPASS_REQUIRE": "FORCE"}, True, True),
        ({"SSH_ASKPASS_REQUIRE": "prefer"}, False, False),
        ({"SSH_ASKPASS_REQUIRE": "prefer", "DISPLAY": ":0"}, True, True),
        ({"SSH_ASKPASS_REQUIRE": "never", "DISPLAY": ":0"}, False, False),
        ({"SSH_ASKPASS_REQUIRE": "other", "DISPLAY": ":0"}, True, False),
    ],
)
def test_policy(environ: dict[str, str], allowed: bool, preferred: bool) -> None:
    assert decide_askpass(environ) == AskpassPolicy(allowed, preferred)


def test_which_program() -> None:
    assert find_askpass({"SSH_ASKPASS": "mine"}) == "mine"
    assert find_askpass({"SSH_ASKPASS": ""}) == ""
    assert find_askpass({}).endswith("ssh-askpass")


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("echo secret", "secret"),
        ("printf 'no end'", "no end"),
        ("printf 'one\\r\\ntwo\\n'", "one"),
        ("printf '\\377\\n'", "\udcff"),
        ("exit 0", ""),
        ("echo secret; exit 1", None),
        ("echo secret; kill -9 $$", None),
        ("head -c 3000 /dev/zero | tr '\\0' a", "a" * 1023),
        ("cat; echo done", "done"),
    ],
)
def test_askpass_answers(tmp_path: Path, body: str, answer: str | None) -> None:
    program = stub(tmp_path, body)
    assert ask_without_terminal({"DISPLAY": ":9", "SSH_ASKPASS": program}) == (answer, "")


def test_askpass_does_not_get_the_input_of_the_session(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from xsshpy.console import Console
answer = asyncio.run(Console(tty_path="/nonexistent").ask_secret("? "))
print(answer, sys.stdin.read())
"""
    environ = {"DISPLAY": ":9", "SSH_ASKPASS": stub(tmp_path, "cat; echo done"), "PATH": "/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"in", stdout=-1, env=environ, cwd=ROOT
    )
    assert done.stdout == b"done in\n"


def test_askpass_gets_question_and_environment(tmp_path: Path) -> None:
    record = tmp_path / "record"
    report = 'printf "%s|%s|%s|%s" "$#" "$1" "$MARK" "${SSH_ASKPASS_PROMPT-unset}"'
    program = stub(tmp_path, f"{report} > {shlex.quote(str(record))}; echo yes")
    environ = {"DISPLAY": ":9", "SSH_ASKPASS": program, "MARK": "m"}
    assert ask_without_terminal(environ, "two\nlines\x1b\x00 é? ")[0] == "yes"
    assert record.read_text() == "1|two\nlines\\033\\000 é? |m|unset"


def test_program_is_found_on_path_and_run_without_interpreter_line(tmp_path: Path) -> None:
    stub(tmp_path, "echo found", "my-askpass")
    (tmp_path / "my-askpass").write_text("echo found\n")
    environ = {"DISPLAY": ":9", "SSH_ASKPASS": "my-askpass"}
    answer = ask_without_terminal(environ, path=f"/usr/bin:{tmp_path}:/bin")
    assert answer == ("found", "")


@pytest.mark.parametrize("program", ["/nonexistent/askpass", "no-such-askpass", ""])
def test_missing_program(program: str) -> None:
    answer = ask_without_terminal({"DISPLAY": ":9", "SSH_ASKPASS": program})
    assert answer == (None, f"ssh_askpass: exec({program}): No such file or directory\n")


def test_program_that_may_not_be_run(tmp_path: Path) -> None:
    answer = ask_without_terminal({"DISPLAY": ":9", "SSH_ASKPASS": str(tmp_path)})
    assert answer == (None, f"ssh_askpass: exec({tmp_path}): Permission denied\n")


def test_nobody_to_ask() -> None:
    assert ask_without_terminal({}) == (None, "")


def test_endless_answer_is_cut_and_the_program_told(tmp_path: Path) -> None:
    # It ends by SIGPIPE, which counts as a refusal in ssh too.
    program = stub(tmp_path, "exec yes")
    assert ask_without_terminal({"DISPLAY": ":9", "SSH_ASKPASS": program}) == (None, "")


@pytest.mark.parametrize("body", ["exec sleep 60", "exec >/dev/null; exec sleep 60"])
def test_cancelled_askpass_ends(tmp_path: Path, body: str) -> None:
    pid_file = tmp_path / "pid"
    program = stub(tmp_path, f"echo $$ > {pid_file}\n{body}")

    async def ask() -> int:
        console = Console(environ={"DISPLAY": ":9", "SSH_ASKPASS": program}, tty_path=NO_TTY)
        asked = asyncio.ensure_future(console.ask_secret("?"))
        while not (pid_file.exists() and pid_file.read_text()):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        return int(pid_file.read_text())

    pid = asyncio.run(asyncio.wait_for(ask(), 20))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
