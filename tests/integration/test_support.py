"""The harness itself: a server that is isolated, an X server, a terminal, and the leak check."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.leaks import LeakCheck
from tests.support.processes import find_descendants, run, run_ssh, wait_until, xssh_command
from tests.support.sessions import started
from tests.support.sshd import SHELLS, SshServer
from tests.support.terminals import Terminal
from tests.support.tools import find_nss_wrapper, require_tool, skip_or_fail
from tests.support.windows import Screen
from tests.support.xvfb import Xvfb


def test_login_has_a_home_of_its_own(sshd: SshServer, client_home: ClientHome) -> None:
    client_home.add(sshd)
    command = 'echo "$HOME|$USER|$SHELL|$LD_PRELOAD"; pwd; cd; pwd; echo ~demo'
    argv = [*client_home.arguments, "server", command]
    done = run_ssh(argv, env=client_home.environment())
    home = str(sshd.home)
    shell = require_tool("bash")
    assert done == (0, f"{home}|demo|{shell}|\n{home}\n{home}\n~demo\n".encode(), "")


@pytest.mark.parametrize("shell", SHELLS)
def test_login_shell_is_the_one_asked_for(
    shell: str, make_sshd: Callable[..., SshServer], client_home: ClientHome
) -> None:
    server = make_sshd(shell=shell)
    client_home.add(server)
    argv = [*client_home.arguments, "server", "ps -o comm= -p $$ || ps -o comm= -p $fish_pid"]
    if shell == "fish":
        argv[-1] = "ps -o comm= -p $fish_pid"
    done = run_ssh(argv, env=client_home.environment())
    assert (done.status, done.stderr) == (0, "")
    # csh may be tcsh by another name, and a shell may become the program it runs last
    assert done.stdout.decode().strip() in {shell, "ps", "bsd-csh"}


def test_ssh_finds_the_private_home(sshd: SshServer, client_home: ClientHome) -> None:
    client_home.add(sshd)
    done = run_ssh(["-G", "server"], env=client_home.environment())
    assert f"hostname {sshd.host}\n" in done.stdout.decode()
    assert f"port {sshd.port}\n" in done.stdout.decode()


def test_x11_goes_through_ssh(sshd: SshServer, xvfb: Xvfb, client_home: ClientHome) -> None:
    require_tool("xdpyinfo")
    client_home.add(sshd)
    argv = [*client_home.arguments, "-Y", "server", "xdpyinfo | head -2; echo $DISPLAY"]
    done = run_ssh(argv, env=client_home.environment(xvfb))
    assert b"name of display:    localhost:" in done.stdout
    assert (sshd.home / ".Xauthority").exists()


def test_x_server_wants_its_cookie(xvfb: Xvfb, client_home: ClientHome) -> None:
    argv = [require_tool("xdpyinfo")]
    assert run(argv, env=client_home.environment(xvfb)).status == 0
    without = client_home.environment(xvfb, XAUTHORITY="/nonexistent")
    assert "Authorization required" in run(argv, env=without).stderr


def test_x_server_without_access_control(
    make_xvfb: Callable[..., Xvfb], client_home: ClientHome
) -> None:
    server = make_xvfb(access="none", reset=True)
    environment = client_home.environment(server, XAUTHORITY="/nonexistent")
    assert run([require_tool("xdpyinfo")], env=environment).status == 0
    server.kill()
    assert not os.path.exists(server.socket_path)


def test_window_is_found_looked_at_and_closed(xvfb: Xvfb, client_home: ClientHome) -> None:
    argv = [require_tool("xterm"), "-T", "a window of the harness", "-bg", "#123456"]
    process = subprocess.Popen([*argv, "-e", "cat"], env=client_home.environment(xvfb))
    with Screen.of(xvfb) as screen:
        window = screen.find_window("a window of the .*")
        assert "a window of the harness" in screen.titles()
        picture = screen.settled_picture(window, colours=2)
        assert picture.pixel(picture.width // 2, picture.height // 2) == (0x12, 0x34, 0x56)
        assert picture.count_differences(picture) == 0
        screen.close_window(window)
        screen.wait_until_gone(window)
    process.wait(10)


def test_window_that_never_comes_names_those_that_are_there(xvfb: Xvfb) -> None:
    with Screen.of(xvfb) as screen, pytest.raises(AssertionError, match="no window 'nobody'"):
        screen.find_window("nobody", timeout=0.2)


def test_terminal(spawn_in_pty: Callable[..., Terminal]) -> None:
    terminal = spawn_in_pty(
        ["sh", "-c", "stty size; read x; stty -echo; echo [$x]; sleep 9"], rows=7
    )
    terminal.read_until("7 80\r\n")
    assert terminal.echo
    assert not terminal.is_raw
    terminal.write("word\n")
    terminal.read_until(r"\[word\]")
    assert not terminal.echo
    assert not terminal.is_restored
    terminal.write("\x03")
    assert terminal.wait() == -2


def test_terminal_tells_what_came_instead(spawn_in_pty: Callable[..., Terminal]) -> None:
    terminal = spawn_in_pty(["echo", "something else"])
    with pytest.raises(AssertionError, match="something else"):
        terminal.read_until("awaited", timeout=5)


def test_a_hanging_command_is_ended_and_shown() -> None:
    with pytest.raises(AssertionError, match="half a line"):
        run(["sh", "-c", "printf 'half a line'; sleep 60"], timeout=0.5)


def test_stop_ends_running_sessions(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    server = make_sshd()
    client_home.add(server)
    argv = ["ssh", *client_home.arguments, "server", "echo started; sleep 4712; true"]
    terminal = spawn_in_pty(argv, env=client_home.environment())
    terminal.read_until("started")
    server.stop()
    assert terminal.wait() == 255
    assert not [found for found in find_descendants(os.getpid()) if "4712" in found.command]


def test_password_logs_in(make_sshd: Callable[..., SshServer], client_home: ClientHome) -> None:
    hashed = run([require_tool("openssl"), "passwd", "-6", "-salt", "salt", "secret"]).stdout
    server = make_sshd(password_hash=hashed.decode().strip())
    client_home.add(server, extra="PubkeyAuthentication no")
    askpass = client_home.path / "askpass"
    askpass.write_text("#!/bin/sh\necho secret\n")
    askpass.chmod(0o755)
    environment = client_home.environment(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    assert run_ssh([*client_home.arguments, "server", "echo in"], env=environment).stdout == b"in\n"


@pytest.fixture
def quick_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.leaks.SETTLE_SECONDS", 0.3)


def test_leak_of_a_daemon_is_seen_and_ended(tmp_path: Path, quick_settling: None) -> None:
    check = LeakCheck([tmp_path], set())
    subprocess.run(["sh", "-c", "setsid sleep 4711 >/dev/null 2>&1 &"], check=True)
    wait_until(
        lambda: any(found.command == "sleep 4711" for found in find_descendants(os.getpid()))
    )
    (leak,) = check.find_leaks()
    assert leak.startswith("process ")
    assert leak.endswith("sleep 4711")
    assert check.find_leaks() == []


def test_leak_of_a_descriptor_and_a_file_is_seen(tmp_path: Path, quick_settling: None) -> None:
    check = LeakCheck([tmp_path], set())
    with (tmp_path / "left").open("w") as file:
        leaks = check.find_leaks()
        assert len(leaks) == 2, leaks
        assert leaks[0].startswith(f"descriptor {file.fileno()} is still open")
    assert check.find_leaks() == [f"file left behind: {tmp_path / 'left'}"]


def test_home_and_tmpdir_are_private(private_places: Path, client_home: ClientHome) -> None:
    assert os.path.expanduser("~") == str(private_places / "home") == str(client_home.path)
    assert tempfile.gettempdir().startswith(str(private_places))


def test_passwd_is_private_too(client_home: ClientHome) -> None:
    if find_nss_wrapper() is None:
        skip_or_fail("libnss_wrapper is not installed")
    code = "import os, pwd; print(pwd.getpwuid(os.getuid()).pw_dir)"
    done = run([sys.executable, "-c", code], env=client_home.environment())
    assert done.stdout.decode().strip() == str(client_home.path)


# xssh that starts from a process that has its modules

LOOK = """
import atexit, gc, os, pwd, signal, sys, termios
def see(stream):
    return stream.encoding, stream.errors, stream.line_buffering, stream.isatty(), stream.fileno()
print(ascii((
    sys.argv, os.getcwd(), sorted(os.environ.items()), pwd.getpwuid(os.getuid()),
    [see(each) for each in (sys.stdin, sys.stdout, sys.stderr)], sys.flags, sys.path[0],
    [signal.getsignal(number) for number in sorted(signal.valid_signals())],
    sorted(os.listdir("/proc/self/fd")), os.getsid(0) == os.getpgid(0) == os.getpid(),
    os.getppid() == int(os.environ["PARENT"]), gc.isenabled(), atexit._ncallbacks(),
    [os.readlink(f"/proc/self/fd/{number}").partition(":")[0] for number in range(3)],
)))
sys.stdout.flush()
os._exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("terminal", [False, True])
def test_xssh_finds_the_same_however_it_was_started(
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    monkeypatch: pytest.MonkeyPatch,
    turn: int,
    terminal: bool,
) -> None:
    """All that a process has from its start, in each test anew."""
    argv = [*xssh_command(LOOK), str(turn), "\udcff"]
    env = {**client_home.environment(), "PARENT": str(os.getpid()), "TURN": "ž\udcff"}
    seen = []
    for cold in ("1", ""):
        monkeypatch.setenv("XSSH_TESTS_COLD", cold)
        if terminal:
            process = spawn_in_pty(argv, env=env, cwd=client_home.ssh)
            assert process.wait() == turn
            seen.append(re.sub(rb"/dev/pts/\d+", b"pts", process.output))
        else:
            done = run(argv, env=env, cwd=client_home.ssh)
            assert (done.status, done.stderr) == (turn, "")
            seen.append(done.stdout)
    assert seen[1] == seen[0]
    assert str(client_home.ssh).encode() in seen[0]


def test_xssh_is_killed_and_waited_for_however_it_was_started(client_home: ClientHome) -> None:
    code = "import os, time; print('up', flush=True); time.sleep(60)"
    with started(xssh_command(code), client_home.environment(), client_home.path) as session:
        session.wait_for_output("up")
        session.signal(signal.SIGTERM)
        assert session.wait().status == -signal.SIGTERM
