"""xssh as the master of a shared connection: ssh, scp, sftp and git as its passengers, beside ssh's
own master."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration._pairs import plain
from tests.integration._targets import dial, echo, mirror, target
from tests.support.clients import ClientHome
from tests.support.masters import PROGRAMS, Master, open_descriptors
from tests.support.processes import end_popen, is_alive, run, run_xssh, send_signal, wait_until
from tests.support.sshd import SshServer, free_port
from tests.support.terminals import Terminal
from tests.support.tools import require_tool
from tests.support.xvfb import Xvfb
from xsshpy.mux.messages import (
    PATH_PORT,
    XSSH_EXTENSION,
    Alive,
    AliveCheck,
    CloseForward,
    Failure,
    FrameReader,
    Hello,
    NewSession,
    OpenForward,
    decode_reply,
    encode,
)
from xsshpy.mux.sockets import send_descriptors

MEGABYTE = 1 << 20
GREETING = encode(Hello(extensions=XSSH_EXTENSION))
MakeMaster = Callable[..., Master]


@pytest.fixture
def make_master(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, short_directory: Path
) -> Iterator[MakeMaster]:
    """Open masters of one server: ``make_master("xssh", "-v", command=["cat"])``."""
    server = make_sshd(accept_env="LC_* SHARED_*")
    client_home.add(server, extra="ForwardX11 no\nSendEnv LC_* SHARED_*")
    masters: list[Master] = []

    def make(program: str = "xssh", *words: str, **options: object) -> Master:
        masters.append(
            Master(program, client_home, short_directory, *words, **options)  # type: ignore[arg-type]
        )
        return masters[-1]

    yield make
    for master in masters:
        master.stop()


@pytest.fixture
def master(make_master: MakeMaster) -> Master:
    """Return a master of xssh's without a session of its own."""
    return make_master()


@pytest.fixture
def both(make_master: MakeMaster) -> tuple[Master, Master]:
    """Return xssh's master and ssh's, of the same server."""
    return make_master("xssh"), make_master("ssh")


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


# -- sessions without a terminal --


def test_sessions_are_those_of_a_master_of_sshs(both: tuple[Master, Master]) -> None:
    data = os.urandom(300_000)
    cases: list[tuple[tuple[str, ...], tuple[str, ...], bytes]] = [
        (("echo out; echo err >&2; exit 7",), (), b""),
        (("cat",), (), data),
        (("kill -9 $$",), (), b""),
        (('printf "%s|" "$LC_TEST" "$SHARED_ONE" "$OTHER"',), (), b""),
        (("exec >&-; cat; echo late >&2",), (), b"x" * 1000),
        (("exec </dev/null; echo first; sleep 0.1; echo last",), (), data),
        (("stty size; tty >/dev/null && echo terminal",), ("-tt",), b""),
        (("sftp",), ("-s",), b""),
        ((), (), b"echo shell\nexit 3\n"),
        (("echo null; cat",), ("-n",), b"unread"),
        (("printf 'a%.0s' $(seq 70000)",), (), b""),
    ]
    env = {**both[0].environment, "LC_TEST": "ä b", "SHARED_ONE": "x=y", "OTHER": "no"}
    for command, options, stdin in cases:
        found, expected = (
            one.ride(*command, options=options, stdin=stdin, env=env) for one in both
        )
        if "-tt" in options:  # ssh's master sends zeros for the modes of what is no terminal
            found = found._replace(stdout=found.stdout.replace(b"\r\n", b"\n"))
        assert found == expected, (command, options)
    # ssh's master means to say this, and closes the channel before it does.
    found, expected = (one.ride("no-such-subsystem", options=("-s",)) for one in both)
    assert found == expected._replace(stderr="subsystem request failed\n")


def test_scp_sftp_and_git(master: Master, short_directory: Path) -> None:
    for program in ("scp", "sftp", "git"):
        require_tool(program)
    data = os.urandom(2 * MEGABYTE)
    (short_directory / "file").write_bytes(data)
    options = [*master.home.arguments, "-o", f"ControlPath={master.path}"]
    options += ["-o", "ProxyCommand=false"]
    env = master.environment
    done = run(["scp", *options, "file", "server:copied"], env=env, cwd=short_directory)
    assert done.status == 0, done.stderr
    done = run(["scp", *options, "server:copied", "back"], env=env, cwd=short_directory)
    assert (short_directory / "back").read_bytes() == data, done.stderr
    batch = b"put file other\nget other again\nls -l other\n"
    done = run(["sftp", *options, "-b", "-", "server"], stdin=batch, env=env, cwd=short_directory)
    assert (short_directory / "again").read_bytes() == data, done.stderr
    assert master.ride("git init -q repository").status == 0
    git = {**env, "GIT_SSH_COMMAND": " ".join(["ssh", *options])}
    done = run(["git", "clone", "server:repository", "clone"], env=git, cwd=short_directory)
    assert done.status == 0 and (short_directory / "clone/.git").is_dir(), done.stderr


def test_twenty_sessions_at_once(master: Master) -> None:
    assert master.ride("true").status == 0
    before = open_descriptors(master.process.pid)

    def ride(number: int) -> None:
        done = master.ride(f"cat; echo {number} >&2; exit {number}", stdin=b"%d" % number * 999)
        assert done == (number, b"%d" % number * 999, f"{number}\n")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(ride, range(20)))
    # Nothing is left of any of them.
    wait_until(lambda: open_descriptors(master.process.pid) <= before, what="closed descriptors")


def test_a_reader_that_stops_holds_up_nobody_else(master: Master) -> None:
    stuck = master.start("cat /dev/zero")
    try:
        assert stuck.stdout is not None and stuck.stdout.read(10) == bytes(10)
        assert master.ride("echo on").stdout == b"on\n"
    finally:
        end_popen(stuck)
        for pipe in (stuck.stdin, stuck.stdout, stuck.stderr):
            assert pipe is not None
            pipe.close()
    assert master.ride("echo on").stdout == b"on\n"


def test_a_session_that_the_server_refuses(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, short_directory: Path
) -> None:
    """Then the passenger connects by itself, as with ssh's master."""
    server = make_sshd(config="MaxSessions 1")
    client_home.add(server)
    said = []
    for program in ("ssh", "xssh"):
        master = Master(program, client_home, short_directory, "-x")
        try:
            first = master.start("echo first; cat")
            assert first.stdout is not None and first.stdout.readline() == b"first\n"
            done = run(["ssh", *master.arguments(), "echo own"], env=master.environment)
            assert done.status == 0 and done.stdout == b"own\n"
            said.append(done.stderr.replace(program, "program"))
            assert first.communicate(b"")[0] == b"" and first.returncode == 0
        finally:
            master.stop()
    assert said[0] == said[1] and "Session open refused by peer" in said[0]


# -- terminals --


def _spawn(spawn: Callable[..., Terminal], master: Master, *command: str) -> Terminal:
    argv = ["ssh", *master.arguments("-oProxyCommand=false", "-t"), *command]
    return spawn(argv, env=master.environment, rows=33, cols=101)


def test_terminal_size_modes_and_end(
    both: tuple[Master, Master], spawn_in_pty: Callable[..., Terminal]
) -> None:
    shown = []
    for one in both:
        terminal = _spawn(
            spawn_in_pty, one, "stty -a; echo $TERM; read x; stty size; read y; echo $y; exit 5"
        )
        shown.append(terminal.read_until("xterm\r\n"))
        assert terminal.is_raw
        terminal.resize(44, 99)
        # ssh tells the master of it by a signal; the server may hear of it a little later.
        terminal.read_for(0.3)
        terminal.write("\r")
        assert "44 99" in terminal.read_until("44 99")
        terminal.write("typed\r")
        terminal.read_until("typed\r\ntyped\r\n")
        terminal.read_until("Shared connection to 127.0.0.1 closed.")
        assert terminal.wait() == 5 and terminal.is_restored
    assert "rows 33; columns 101" in shown[0]
    assert shown[0] == shown[1]


def test_escapes(both: tuple[Master, Master], spawn_in_pty: Callable[..., Terminal]) -> None:
    """Help, what is not to be had, a break, new keys, and the escape character itself."""
    shown = []
    for one in both:
        terminal = _spawn(spawn_in_pty, one, "stty -echo; echo ready; cat -v")
        # The command may be quicker than the passenger, whose terminal is not raw yet.
        terminal.read_until("ready\r+\n")
        wait_until(lambda: terminal.is_raw)  # noqa: B023  (at once)
        text = ""
        for typed, end in (
            ("~?", r"after newline\.\)\r\n"),
            ("~\x1a", "sessions\r\n"),
            ("~v", "sessions\r\n"),
            ("~V", "sessions\r\n"),
            ("~C", "sessions\r\n"),
            ("~&", "sessions\r\n"),
            ("~B", "~B\r\n"),
            ("~R~~x\r", "~x\r\n"),
            ("~q\r", "~q\r\n"),
        ):
            terminal.write(typed)
            text += terminal.read_until(end)
        shown.append(text)
        terminal.write("~.")
        assert terminal.wait() == 255 and terminal.is_restored
        assert "Shared connection to 127.0.0.1 closed." in terminal.output.decode()
    assert shown[0] == shown[1]


def test_no_terminal_to_be_had(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    short_directory: Path,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    """The passenger learns it, and its terminal is not raw."""
    client_home.add(make_sshd(config="PermitTTY no"))
    shown = []
    for program in ("ssh", "xssh"):
        master = Master(program, client_home, short_directory, "-x")
        try:
            terminal = _spawn(spawn_in_pty, master, "sleep 0.5; echo on; exit 4")
            terminal.read_until("PTY allocation request failed")
            terminal.read_until("on\r\n")
            assert terminal.wait() == 4
            shown.append(terminal.output.replace(b"\r", b""))  # raw or not yet
        finally:
            master.stop()
    assert shown[0] == shown[1]


# -- what a passenger asks for --


def test_check_stop_and_exit(both: tuple[Master, Master]) -> None:
    for one in both:
        done = one.control("check")
        assert done == (0, b"", f"Master running (pid={one.process.pid})\n")
        assert one.path.stat().st_mode & 0o7777 == 0o600
        staying = one.start("echo there; cat")
        assert staying.stdout is not None and staying.stdout.readline() == b"there\n"
        assert one.control("stop") == (0, b"", "Stop listening request sent.\n")
        assert not one.path.exists()
        # Who is aboard stays; the master ends when he has gone.
        assert staying.communicate(b"more")[0] == b"more"
        assert one.wait() == 255


def test_exit_ends_everything(both: tuple[Master, Master]) -> None:
    for one in both:
        staying = one.start("echo there; cat")
        assert staying.stdout is not None and staying.stdout.readline() == b"there\n"
        assert one.control("exit") == (0, b"", "Exit request sent.\n")
        assert one.wait() == 255
        assert staying.communicate()[0] == b"" and staying.returncode == 255
        assert not one.path.exists()


def test_forwards_are_opened_and_closed(both: tuple[Master, Master], short_directory: Path) -> None:
    answers: dict[str, list[object]] = {}
    with target(echo) as server:
        for name, one in zip(("xssh", "ssh"), both, strict=True):
            path = short_directory / f"listen-{name}"
            local = f"{path}:{server.address}"
            answers[name] = []

            def control(
                command: str, *words: str, name: str = name, one: Master = one, path: Path = path
            ) -> bytes:
                done = one.control(command, *words)
                text = done.stderr.replace(str(path), "PATH")
                answers[name].append((done.status, re.sub(r"\b\d{5}\b", "N", text)))
                return done.stdout

            control("forward", "-L", local)
            control("forward", "-L", local)  # again: it is there
            with dial(path) as caller:
                caller.sendall(b"local")
                assert caller.recv(5) == b"local"
            control("cancel", "-L", local)
            control("cancel", "-L", local)
            port = int(control("forward", "-R", f"0:{server.address}"))
            assert int(control("forward", "-R", f"0:{server.address}")) == port
            with dial(port) as caller:
                caller.sendall(b"remote")
                assert caller.recv(6) == b"remote"
            control("cancel", "-R", f"0:{server.address}")
            control("forward", "-R", f"{port}:{server.address}")
            with dial(port) as caller:
                caller.sendall(b"remote")
                assert caller.recv(6) == b"remote"
            control("forward", "-R", "/nowhere/at/all:127.0.0.1:1")
            control("forward", "-L", f"/nowhere/at/all:{server.address}")
            control("cancel", "-D", "1080")
            control("cancel", "-R", f"{port}:{server.address}")
    assert answers["xssh"] == answers["ssh"]


def test_dynamic_forward(master: Master) -> None:
    port = free_port()
    with target(echo) as server:
        assert master.control("forward", "-D", str(port)).status == 0
        with dial(port) as caller:
            host, _, number = server.address.partition(":")
            place = bytes(map(int, host.split("."))) + int(number).to_bytes(2, "big")
            caller.sendall(b"\5\1\0" + b"\5\1\0\1" + place)
            assert caller.recv(2) == b"\5\0"
            assert caller.recv(10)[:2] == b"\5\0"
            caller.sendall(b"through")
            assert caller.recv(7) == b"through"
        assert master.control("cancel", "-D", str(port)).status == 0
        assert not _listens(port)


def test_stdio_forward(both: tuple[Master, Master]) -> None:
    with target(mirror) as server:
        for one in both:
            done = one.ride(options=("-W", server.address), stdin=b"abc" * 1000)
            assert done == (0, (b"abc" * 1000)[::-1], "")
        done, expected = (one.ride(options=("-W", "127.0.0.1:1")) for one in both)
        assert done == expected


def test_proxy_mode(both: tuple[Master, Master]) -> None:
    data = os.urandom(3 * MEGABYTE)
    with target(echo) as server:
        for one in both:
            options = ("-O", "proxy")
            done = one.ride("cat; echo err >&2; exit 9", options=options, stdin=data)
            assert done == (9, data, "err\n")
        one = both[0]
        listening = one.start("echo up; cat", options=("-O", "proxy", "-R", f"0:{server.address}"))
        assert listening.stderr is not None
        said = listening.stderr.readline().decode()
        port = int(re.search(r"Allocated port (\d+)", said)[1])  # type: ignore[index]
        with dial(port) as caller:
            caller.sendall(b"arrived")
            assert caller.recv(7) == b"arrived"
        # It is gone, its channels are closed, and the port is free again.
        listening.kill()
        listening.communicate()
        wait_until(lambda: not _listens(port), what="the port to be given back")
    assert one.is_alive()


# -- the ends --


def test_a_killed_passenger_takes_its_session_along(master: Master) -> None:
    for command in ("echo $$; cat; echo on", "echo $$; exec cat /dev/zero"):
        passenger = master.start(command)
        assert passenger.stdout is not None
        pid = int(passenger.stdout.readline())
        send_signal(passenger.pid, signal.SIGKILL)
        passenger.communicate()
        wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), what="its end")
    assert master.is_alive()


def test_a_master_that_is_killed(master: Master) -> None:
    passenger = master.start("echo up; cat")
    assert passenger.stdout is not None and passenger.stdout.readline() == b"up\n"
    master.process.kill()
    assert passenger.communicate()[0] == b"" and passenger.returncode == 255


def test_a_master_stays_for_its_passengers(make_master: MakeMaster) -> None:
    """Its own session is over, its status is kept, and others may still come."""
    for program in ("ssh", "xssh"):
        master = make_master(program, command=["read x; exit 6"])
        staying = master.start("echo up; cat")
        assert staying.stdout is not None and staying.stdout.readline() == b"up\n"
        assert master.process.stdin is not None and master.process.stdout is not None
        master.process.stdin.write(b"\n")
        master.process.stdin.close()
        assert master.process.stdout.read() == b""
        assert master.ride("echo later").stdout == b"later\n"
        assert master.process.poll() is None
        assert staying.communicate(b"bye")[0] == b"bye"
        assert master.wait() == 6
        assert not master.path.exists()


def test_a_socket_that_is_there_already(make_master: MakeMaster) -> None:
    """The second master goes on without, as ssh does."""
    first = make_master()
    arguments = first.arguments("-o", "ControlMaster=yes")
    said = [
        plain(run([*program, *arguments, "echo alone"], env=first.environment))
        for program in PROGRAMS.values()
    ]
    assert said[0] == said[1]
    assert said[0].stdout == b"alone\n"
    assert f"ControlSocket {first.path} already exists, disabling multiplexing" in said[0].stderr
    assert first.is_alive()


def test_a_socket_that_a_killed_master_left(make_master: MakeMaster) -> None:
    """It is replaced, also for -M, where ssh goes on without."""
    first = make_master()
    first.process.kill()
    first.process.wait()
    assert first.path.is_socket()
    second = make_master()
    wait_until(lambda: second.is_alive(), what="the new master")
    assert second.ride("echo aboard").stdout == b"aboard\n"


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_the_user_is_asked(
    make_master: MakeMaster, client_home: ClientHome, short_directory: Path, answer: str
) -> None:
    """By askpass, as ssh does it, about each thing."""
    asked = short_directory / "asked"
    askpass = short_directory / "askpass"
    askpass.write_text(f'#!/bin/sh\necho "$1" >> {asked}\necho {answer}\n')
    askpass.chmod(0o755)
    env = client_home.environment(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    questions = []
    for program in ("ssh", "xssh"):
        asked.unlink(missing_ok=True)
        master = make_master(program, mode="ask", env=env)
        done = run(["ssh", *master.arguments("-n"), "echo aboard"], env=master.environment)
        assert done.stdout == b"aboard\n"  # refused, it connects by itself
        assert ("Permission denied" in done.stderr) is (answer == "no")
        master.control("forward", "-L", f"{short_directory}/s-{program}:127.0.0.1:1")
        master.control("stop")
        questions.append(asked.read_text().replace(f"s-{program}", "s"))
        master.stop()
    assert questions[0] == questions[1]
    assert "Allow shared connection to 127.0.0.1? " in questions[0]


# -- a connection that stays --


def _find_master(home: ClientHome, path: Path) -> int:
    """Return the process id of the master in the background."""
    words = [*home.arguments, "-S", str(path), "-O", "check", "server"]
    done = run_xssh(words, env=home.environment())
    found = re.search(r"pid=(\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def _exit(home: ClientHome, path: Path) -> None:
    """End the master in the background, and wait until it is gone."""
    pid = _find_master(home, path)
    run_xssh([*home.arguments, "-S", str(path), "-O", "exit", "server"], env=home.environment())
    wait_until(lambda: not is_alive(pid), what="the master's end")
    assert not path.exists()


@pytest.fixture
def lasting(sshd: SshServer, client_home: ClientHome, short_directory: Path) -> list[str]:
    """Return the arguments of a run whose connection stays for 60 seconds."""
    client_home.add(sshd, extra="ForwardX11 no")
    path = short_directory / "control"
    options = ["-S", str(path), "-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
    return [*client_home.arguments, *options]


def test_the_connection_stays(
    lasting: list[str], client_home: ClientHome, sshd: SshServer, short_directory: Path
) -> None:
    env = client_home.environment()
    path = short_directory / "control"
    assert run_xssh([*lasting, "server", "cat; exit 3"], env=env, stdin=b"in") == (3, b"in", "")
    assert path.stat().st_mode & 0o7777 == 0o600
    logins = sshd.log().count("Accepted publickey")
    for program in PROGRAMS.values():
        done = run([*program, *lasting, "server", "cat; exit 4"], env=env, stdin=b"again")
        assert done == (4, b"again", "")
    assert sshd.log().count("Accepted publickey") == logins == 1
    _exit(client_home, path)


def test_the_first_session_has_the_terminal(
    lasting: list[str],
    client_home: ClientHome,
    short_directory: Path,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    terminal = spawn_in_pty(
        [*PROGRAMS["xssh"], *lasting, "-t", "server", "stty size; read x; echo got $x; exit 5"],
        env=client_home.environment(),
        rows=31,
        cols=97,
    )
    terminal.read_until("31 97\r\n")
    assert terminal.is_raw
    terminal.write("this\r")
    terminal.read_until("got this\r\n")
    terminal.read_until("Shared connection to 127.0.0.1 closed.\r\n")
    assert terminal.wait() == 5 and terminal.is_restored
    _exit(client_home, short_directory / "control")


def test_the_connection_ends_in_time(
    lasting: list[str], client_home: ClientHome, short_directory: Path
) -> None:
    """After the last session, and not while there is one."""
    path = short_directory / "control"
    words = [*lasting[:-1], "ControlPersist=1"]
    env = client_home.environment()
    assert run_xssh([*words, "server", "sleep 1.5; echo on"], env=env).stdout == b"on\n"
    assert path.exists()
    wait_until(lambda: not path.exists(), what="the end of the master")


def test_a_background_run_keeps_its_command(
    lasting: list[str], client_home: ClientHome, sshd: SshServer, short_directory: Path
) -> None:
    """ssh forgets the command of -f where ControlPersist is on."""
    env = client_home.environment()
    assert run_xssh([*lasting, "-f", "server", "touch ran"], env=env).status == 0
    wait_until((sshd.home / "ran").exists, what="the command")
    _exit(client_home, short_directory / "control")


def test_a_master_without_a_session_goes_to_the_background(
    lasting: list[str], client_home: ClientHome, short_directory: Path
) -> None:
    assert run_xssh([*lasting, "-N", "server"], env=client_home.environment()).status == 0
    _exit(client_home, short_directory / "control")


def test_a_login_that_fails(
    lasting: list[str], client_home: ClientHome, short_directory: Path
) -> None:
    """Messages and status are those of a run without a master."""
    env = client_home.environment()
    done = run_xssh([*lasting, "-o", "IdentityFile=none", "-l", "no", "server", "x"], env=env)
    assert done.status == 255 and "Permission denied" in done.stderr
    assert not (short_directory / "control").exists()


def test_two_at_once(lasting: list[str], client_home: ClientHome, short_directory: Path) -> None:
    """One becomes the master; the others may be too late for it, and are served all the same."""
    env = client_home.environment()
    with ThreadPoolExecutor(3) as pool:
        done = list(
            pool.map(lambda n: run_xssh([*lasting, "server", f"echo {n}"], env=env), range(3))
        )
    assert [one.stdout for one in done] == [b"0\n", b"1\n", b"2\n"]
    assert [one.status for one in done] == [0, 0, 0]
    _exit(client_home, short_directory / "control")


# -- hostile peers --


def _talk(master: Master, data: bytes) -> bytes:
    """Send bytes after the master's hello, and return all of its answers."""
    with master.connect() as connection:
        connection.sendall(data)
        answers = b""
        # It may hang up before it has read everything.
        with contextlib.suppress(ConnectionError):
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                answers += piece
        return answers


def test_what_breaks_the_protocol_ends_its_sender_alone(master: Master) -> None:
    hello = encode(Hello())
    session = encode(NewSession(1, command=b"echo never"))
    for data in (
        b"",
        b"\0",
        hello[:-1],
        encode(Hello(3)),
        hello + hello,
        session,
        hello + session,  # and no descriptors
        hello + session[: len(session) // 2],
        hello + struct.pack(">I", 1 << 30),
        hello + struct.pack(">III", 8, 0x10000002, 1),
        b"GET / HTTP/1.1\r\n\r\n",
        hello + encode(OpenForward(2, 1, b"", 70000, b"h", 1)),
    ):
        assert _talk(master, data).startswith(GREETING)
    assert master.ride("echo on").stdout == b"on\n"


def test_answers_to_strange_requests(master: Master) -> None:
    hello = encode(Hello())
    unknown = struct.pack(">III", 8, 0x10000042, 7)
    asked = b"".join(
        encode(request)
        for request in (
            AliveCheck(5),
            OpenForward(6, 9, b"", 1, b"h", 1),
            OpenForward(7, 3, b"/a", PATH_PORT, b"", 0),
            OpenForward(8, 1, b"", 1, b"h", 0),
            OpenForward(9, 1, b"", 1, b"", 5),
            CloseForward(10, 1, b"", 5, b"h", 5),
        )
    )
    invalid = b"Invalid forwarding request"
    expected = [
        Hello(extensions=XSSH_EXTENSION),
        Failure(7, b"unsupported request"),
        Alive(5, master.process.pid),
        *(Failure(number, invalid) for number in (6, 7, 8, 9)),
        Failure(10, b"port not forwarded"),
    ]
    assert _talk(master, hello + unknown + asked) == b"".join(map(encode, expected))


def test_a_second_session_on_one_connection(master: Master) -> None:
    with master.connect() as connection:
        reader, writer = os.pipe()
        for number in (1, 2):
            request = NewSession(number, command=b"cat")
            connection.sendall((encode(Hello()) if number == 1 else b"") + encode(request))
            send_descriptors(connection, (reader, writer, writer))
        answers = FrameReader()
        while (refused := answers.next_frame()) is None or decode_reply(refused) != Failure(
            2, b"Multiple sessions not supported"
        ):
            if refused is None:
                answers.receive_data(connection.recv(4096))
        os.close(reader)
        os.close(writer)
    assert master.is_alive()


def test_a_server_that_does_not_answer_any_more(
    lasting: list[str], client_home: ClientHome, sshd: SshServer, short_directory: Path
) -> None:
    """As after a sleep: the next session soon has a connection of its own, and is the master."""
    env = client_home.environment()
    path = short_directory / "control"
    assert run_xssh([*lasting, "server", "true"], env=env).status == 0
    first = _find_master(client_home, path)
    hanging = sshd.sessions()
    for pid in hanging:
        send_signal(pid, signal.SIGSTOP)
    try:
        done = run_xssh([*lasting, "server", "echo on"], env=env)
    finally:
        for pid in hanging:
            send_signal(pid, signal.SIGCONT)
    assert done.status == 0 and done.stdout == b"on\n", done.stderr
    assert _find_master(client_home, path) != first
    _exit(client_home, path)


# -- X11 --


def test_windows_of_all_sessions_come_through_one_agent(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    short_directory: Path,
    xvfb: Xvfb,
) -> None:
    for program in ("xdpyinfo", "python3"):
        require_tool(program)
    client_home.add(make_sshd())
    env = client_home.environment(xvfb)
    master = Master("xssh", client_home, short_directory, env=env)
    try:
        shows = "echo $DISPLAY $XAUTHORITY $MPLBACKEND; xdpyinfo | grep -c screen"
        first = master.ride(shows, options=("-X",))
        second = master.ride(shows, passenger="xssh")
        assert first == second and b"/xssh-agent-" in first.stdout and b"TkAgg" in first.stdout
        assert not master.ride("printf %s $DISPLAY").stdout
        assert not master.ride("printf %s $DISPLAY", options=("-x",), passenger="xssh").stdout
        chosen = master.ride("echo $MPLBACKEND", options=("--backend", "agg"), passenger="xssh")
        assert chosen.stdout == b"agg\n"
    finally:
        master.stop()


def test_windows_through_the_servers_own_channels(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, short_directory: Path, xvfb: Xvfb
) -> None:
    client_home.add(make_sshd())
    env = client_home.environment(xvfb)
    master = Master("xssh", client_home, short_directory, "--x11", "native", env=env)
    try:
        done = [master.ride("xdpyinfo | grep -c screen", options=("-X",)) for _ in range(2)]
        assert done[0].status == 0 and done[0].stdout == done[1].stdout != b""  # xauth says more
    finally:
        master.stop()
