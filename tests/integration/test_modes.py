"""Besides one session in the foreground: -f, -N, -s, -E, -G, -Q, -V, -B, ~# and ~R."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, SSH, XSSH, Pair, plain
from tests.integration._targets import dial, echo, target
from tests.support.clients import ClientHome
from tests.support.processes import catches_signal, run, wait_until
from tests.support.sshd import SshServer, free_port
from tests.support.terminals import Terminal
from tests.support.warmstart import open_process


def test_versions(pair: Pair) -> None:
    ssh = run([*SSH, "-V"], env=pair.environment)
    done = run([*XSSH, "-V"], env=pair.environment)
    assert (done.status, done.stdout) == (0, b"")
    assert re.fullmatch(r"xssh [\d.]+, asyncssh 2\.[\d.]+, OpenSSH_.*", done.stderr.strip())
    assert done.stderr.endswith(ssh.stderr)


def test_without_ssh_a_query_says_so(pair: Pair, tmp_path: Path) -> None:
    environment = {**pair.environment, "PATH": str(tmp_path)}
    done = run([*XSSH, "-Q", "cipher"], env=environment)
    assert done.status == 255
    assert "not installed" in done.stderr


def test_a_subsystem(make_sshd: Callable[..., SshServer], client_home: ClientHome) -> None:
    server = make_sshd(config="Subsystem upper /usr/bin/tr a-z A-Z")
    client_home.add(server, extra="ForwardX11 no")
    pair = Pair(server, client_home)
    assert pair.both(["-s", "server", "upper"], stdin=b"abc\n").stdout == b"ABC\n"
    pair.both(["-o", "SessionType=subsystem", "server", "upper"], stdin=b"abc\n")
    assert pair.run("xssh", ["-s", "server", "none"]).status == 255


def background(pair: Pair, program: str, words: list[str]) -> tuple[int, Path]:
    """Run with -f, stdout in a file; return the status and the file."""
    output = pair.home.path / f"{program}.out"
    with output.open("wb") as file:  # a pipe would be waited for until the background ends
        done = subprocess.run(
            pair.argv(program, words),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.DEVNULL,
            env=pair.environment,
            timeout=30,
        )
    return done.returncode, output


def test_background_returns_once_logged_in(pair: Pair) -> None:
    for program in PROGRAMS:
        go = pair.server.home / f"{program}.go"
        waiting = f"until [ -e {go} ]; do sleep 0.05; done"
        status, output = background(
            pair, program, ["-f", "server", f"echo begun; {waiting}; echo ended"]
        )
        assert status == 0, program
        go.touch()
        wait_until(lambda: output.read_bytes() == b"begun\nended\n", what="its output")  # noqa: B023
    pair.server.wait_until_idle()


def test_background_that_cannot_log_in_has_a_status(pair: Pair) -> None:
    for program in PROGRAMS:
        words = ["-f", "-o", "PubkeyAuthentication=no", "-o", "BatchMode=yes", "server", "true"]
        assert background(pair, program, words)[0] == 255


def test_background_needs_something_to_do(pair: Pair) -> None:
    found, expected = (background(pair, program, ["-f", "server"])[0] for program in PROGRAMS)
    assert found == expected == 255


CONFIGURED = "-oForkAfterAuthentication=yes"


@pytest.mark.parametrize("word", ["-f", CONFIGURED])
@pytest.mark.parametrize("program", PROGRAMS)
def test_fork_after_authentication_lets_go_of_the_streams(
    pair: Pair, program: str, word: str
) -> None:
    """``$(ssh -fN …)`` comes back at once, and the forward is there."""
    with target(echo) as server:
        port = free_port()
        words = [word, "-N", "-L", f"{port}:{server.address}", "server"]
        done = run(pair.argv(program, words), env=pair.environment, timeout=20)
        assert (done.status, done.stdout, done.stderr) == (0, b"", "")
        with dial(port) as caller:
            caller.sendall(b"x")
            assert caller.recv(9) == b"x"
        end_left_over(pair)


def end_left_over(pair: Pair) -> None:
    """End what went to the background by ending its server's side."""
    pair.server.kill_sessions()
    pair.server.wait_until_idle()


@pytest.mark.parametrize("word", ["-f", CONFIGURED])
def test_fork_after_authentication_reads_stdin_as_ssh_does(pair: Pair, word: str) -> None:
    """-f takes it away; the keyword alone does not."""
    done = pair.both([word, "server", "cat; echo done"], stdin=b"typed\n")
    assert done.stdout == (b"done\n" if word == "-f" else b"typed\ndone\n")
    pair.server.wait_until_idle()


@pytest.mark.parametrize("word", ["-f", CONFIGURED])
def test_fork_after_authentication_needs_something_to_do(pair: Pair, word: str) -> None:
    assert pair.both([word, "server"]).status == 255


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("kind", ["-L", "-R", "-D"])
def test_fork_after_authentication_with_exit_on_forward_failure(
    pair: Pair, program: str, kind: str
) -> None:
    """It is waited for: the status tells, with the words of a run in the foreground."""
    with target(echo) as busy:
        aim = "" if kind == "-D" else ":a:1"
        words = ["-oExitOnForwardFailure=yes", kind, f"127.0.0.1:{busy.place}{aim}", "server"]
        expected = plain(pair.run("ssh", ["-N", *words]))
        assert expected.status == 255
        assert plain(pair.run(program, ["-fN", *words])) == expected
        # Without the keyword it goes on.
        assert pair.run(program, ["-fN", *words[1:]]).status == 0
        end_left_over(pair)


@pytest.mark.parametrize("program", PROGRAMS)
def test_fork_after_authentication_says_nothing_later(pair: Pair, program: str) -> None:
    """What happens in the background is seen with -v only, the remote end's words always."""
    for words, seen in (([], False), (["-v"], True)):
        file = pair.home.path / f"{program}{seen}"
        command = "echo out; echo err >&2; sleep 0.3; kill -9 $PPID"
        with file.open("wb") as output:
            argv = pair.argv(program, ["-f", *words, "server", command])
            subprocess.run(argv, stderr=output, stdout=output, env=pair.environment, timeout=20)
        pair.server.wait_until_idle()
        wait_until(lambda: b"out\n" in file.read_bytes())  # noqa: B023
        wait_until(lambda: b"err\n" in file.read_bytes())  # noqa: B023
        if seen:
            wait_until(lambda: b"closed by remote host" in file.read_bytes())  # noqa: B023
        else:
            time.sleep(0.3)
            assert set(file.read_bytes().split()) == {b"out", b"err"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_stdout_ends_with_the_remote_command(pair: Pair, program: str) -> None:
    """Its reader need not wait for what is still being forwarded."""
    with target(echo) as server:
        port = free_port()
        words = ["-L", f"{port}:{server.address}", "server", "echo ready; read x; echo end"]
        process = pair.start(program, words)
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"ready\n"
        with dial(port) as caller:
            caller.sendall(b"x")
            assert caller.recv(9) == b"x"
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.read() == b"end\n"
            assert process.poll() is None
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_a_script_in_the_background(pair: Pair, tmp_path: Path) -> None:
    script, output = tmp_path / "script.py", tmp_path / "output"
    script.write_text("print('done')\n")
    with output.open("wb") as file:
        argv = pair.argv("xssh", ["-f", "--script", str(script), "server"])
        status = subprocess.run(argv, stdout=file, env=pair.environment, timeout=20).returncode
    assert status == 0
    wait_until(lambda: output.read_bytes() == b"done\n", what="its output")
    pair.server.wait_until_idle()


def wait_until_forwarding(pair: Pair, process: subprocess.Popen[bytes], number: int) -> None:
    """Wait until the server's session ``number`` is up and ssh, or xssh, minds signals."""
    pair.server.wait_for_log("(?s)" + "Entering interactive session.*" * number)
    wait_until(lambda: catches_signal(process.pid, signal.SIGTERM), what="a handler")
    time.sleep(0.2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_session_until_a_signal(pair: Pair, number: int) -> None:
    ended = {}
    for turn, program in enumerate(PROGRAMS, 1):
        process = open_process(
            pair.argv(program, ["-N", "server"]), env=pair.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_until_forwarding(pair, process, turn)
        assert process.poll() is None
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=10)
        ended[program] = (process.returncode, stdout, stderr.replace(b"\r", b""))
    assert ended["xssh"] == ended["ssh"]


def test_without_a_session_until_the_server_ends(pair: Pair) -> None:
    for number, program in enumerate(PROGRAMS, 1):
        process = open_process(
            pair.argv(program, ["-N", "server"]), env=pair.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_until_forwarding(pair, process, number)
        pair.server.kill_sessions()
        _, stderr = process.communicate(timeout=10)
        assert process.returncode == 255
        assert b"closed by remote host." in stderr, program


def test_log_file(pair: Pair, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = pair.run("xssh", ["-v", "-E", str(log), "server", "echo out; echo err >&2"])
    assert (done.status, done.stdout, done.stderr) == (0, b"out\n", "err\n")
    assert "debug1: Connecting to 127.0.0.1" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    done = pair.run("xssh", ["-E", str(tmp_path / "no" / "log"), "server", "true"])
    assert done.status == 1
    assert done.stderr.startswith("Couldn't open logfile")


def test_interface(pair: Pair) -> None:
    if os.getuid() == 0:
        assert pair.run("xssh", ["-B", "lo", "server", "echo hi"]).stdout == b"hi\n"
    assert pair.run("xssh", ["-B", "nosuch0", "server", "true"]).status == 255


def test_forwardings_are_listed_and_keys_exchanged_anew(
    pair: Pair, spawn_in_pty: Callable[..., Terminal]
) -> None:
    terminal = spawn_in_pty(pair.argv("xssh", ["-v", "server", "-t", "cat"]), env=pair.environment)
    terminal.write("one\r")
    terminal.read_until("one\r\none\r\n")
    terminal.write("~#")
    terminal.read_until("The following connections are open:\r\n")
    terminal.write("\r~R")
    pair.server.wait_for_log("rekey|SSH2_MSG_KEXINIT received.*[\\s\\S]*SSH2_MSG_KEXINIT received")
    terminal.write("\rtwo\r")
    terminal.read_until("two\r\n\r\ntwo\r\n")
    terminal.write("\x04")
    assert terminal.wait() == 0
