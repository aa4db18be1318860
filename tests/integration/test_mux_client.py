"""xssh as a passenger of ssh's master, beside ssh as one: the same argv, the same outcome."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration._masters import Harbour, harbour
from tests.integration._pairs import PROGRAMS
from tests.integration._targets import echo, mirror, target
from tests.support.processes import end_popen, wait_until
from tests.support.sshd import KeyRing, free_port
from tests.support.terminals import Terminal
from tests.support.warmstart import WORKER_ACCOUNT, open_process
from tests.support.xvfb import Xvfb
from xsshpy.mux.messages import (
    Alive,
    ExitMessage,
    Failure,
    FrameReader,
    Hello,
    SessionOpened,
    encode,
)

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def place(key_ring: KeyRing) -> Iterator[Harbour]:
    """A server that lets many sessions in, and a master that sends FOO."""
    with harbour(key_ring, accept_env="FOO", config="MaxSessions 40") as opened:
        opened.open_master("-o", "SendEnv=FOO")
        yield opened


@pytest.fixture
def own(
    key_ring: KeyRing, private_places: Path, session_directory: Path
) -> Iterator[Callable[..., Harbour]]:
    """Harbours of a test's own: ``own(key_options="no-pty")``."""
    account = session_directory / WORKER_ACCOUNT
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(harbour(key_ring, account, **options))


CASES: list[tuple[list[str], bytes]] = [
    (["-N", "server"], b""),
    (["-tt", "-q", "server", "true"], b""),
    (["-tt", "-o", "LogLevel=ERROR", "server", "true"], b""),
    (["-o", "SetEnv=FOO=set", "server", "echo $FOO"], b""),
    (["-o", "SetEnv=OTHER=set", "server", "echo $OTHER."], b""),
    (["-o", "ControlMaster=auto", "server", "echo auto"], b""),
    (["-o", "ControlMaster=autoask", "server", "echo autoask"], b""),
    (["-f", "-N", "-O", "check", "server"], b""),
    (["-O", "wrong", "server"], b""),
    (["-O", "check", "-O", "exit", "server"], b""),
    (["-O", "check", "-W", "a:1", "server"], b""),
    (["-O", "check"], b""),
    (["-O", "check", "unknown.invalid"], b""),
]
"""Sessions and requests are in test_mux_differential.py and test_mux_combinations.py."""


@pytest.mark.parametrize(
    ("words", "stdin"), CASES, ids=[" ".join(words)[:50] for words, _ in CASES]
)
def test_as_with_ssh(place: Harbour, words: list[str], stdin: bytes) -> None:
    if not any("server" in word or "unknown" in word for word in words):
        done = [place.run(program, *words) for program in ("ssh", "xssh")]
        assert done[0].status == done[1].status == 255  # each shows its own usage
        return
    before = set(place.server.sessions())
    place.both(*words, stdin=stdin)
    assert set(place.server.sessions()) == before, "a connection of its own was made"


NO_MASTER: list[tuple[list[str], str]] = [
    (["-O", "check"], "nobody"),
    (["-O", "exit"], "nobody"),
    (["-O", "check"], "none"),
    (["-O", "check"], "/tmp/" + "x" * 110),
    ([], "/tmp/" + "x" * 110),
    (["-O", "check"], "%z"),
    (["-o", "LogLevel=ERROR"], "a-file"),
    (["-O", "stop"], "a-file"),
    ([], "no/such/folder"),
]


@pytest.mark.parametrize(("words", "name"), NO_MASTER, ids=lambda value: "".join(value)[:20])
def test_nobody_there_in_sshs_words(place: Harbour, words: list[str], name: str) -> None:
    folder = place.folder / "c"
    (folder / "a-file").touch()
    path = name if name.startswith("/") or name == "none" else str(folder / name)
    done = [place.run(program, *words, "server", "echo own", path=path) for program in PROGRAMS]
    without = [found._replace(stderr=found.stderr.split("  try:")[0]) for found in done]
    assert without[0] == without[1]
    (folder / "a-file").unlink()


def test_no_path_no_command(place: Harbour) -> None:
    done = [place.run(program, "-O", "check", "server", path="none") for program in PROGRAMS]
    assert done[0] == done[1]
    assert done[1].stderr == 'No ControlPath specified for "-O" command\n'


def test_variables_that_the_master_sends_too(place: Harbour) -> None:
    words = ["-o", "SendEnv=FOO BAR", "server", "echo $FOO-$BAR"]
    assert place.both(*words, FOO="one", BAR="two").stdout == b"one-\n"


def test_debug_lines(place: Harbour) -> None:
    words = ["-vvv", "-L", f"{free_port()}:127.0.0.1:1", "server", "exit 5"]
    wanted = (
        "Requesting forwarding of local forward LOCALHOST:",
        "mux_client_hello_exchange: master version 4",
        "mux_client_request_alive: done pid = ",
        "mux_client_request_session: master session id: ",
        "Received exit status from master 5",
    )
    for program in PROGRAMS:
        done = place.run(program, *words)
        assert done.status == 5
        for line in wanted:
            assert line in done.stderr, program


def test_a_passenger_loads_little(place: Harbour) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import atexit; "
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        f"sys.argv = ['xssh', *{place.argv('xssh', [])[3:]!r}, 'server', 'exit 6']; "
        "from xsshpy.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=place.home.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    heavy = {"asyncssh", "Xlib", "asyncio", "cryptography", "subprocess", "logging"}
    assert not heavy & set(done.stderr.split())


# Forwards


def test_forwards_are_opened_and_closed(place: Harbour) -> None:
    with target(echo) as server:
        for program in PROGRAMS:
            for option in ("-L", "-R"):
                port = free_port()
                words = [option, f"{port}:127.0.0.1:{server.place}", "server"]
                assert place.run(program, "-O", "forward", *words) == (0, b"", "")
                assert ask(port, b"hello") == b"hello"
                assert place.run(program, "-O", "cancel", *words) == (0, b"", "")
                with pytest.raises(ConnectionRefusedError):
                    ask(port, b"hello")


def test_a_proxy_opened_by_one_is_closed_by_the_other(place: Harbour) -> None:
    for first, second in (("ssh", "xssh"), ("xssh", "ssh")):
        for option, spec in (
            ("-D", f"{free_port()}"),
            ("-R", f"{free_port()}"),
            ("-L", f"*:{free_port()}:127.0.0.1:1"),
            ("-L", f":{free_port()}:127.0.0.1:1"),
            ("-L", f"127.0.0.1:{free_port()}:/no/socket"),
            ("-L", f"{place.folder}/sock:127.0.0.1:1"),
            ("-R", f"{place.folder}/remote:{place.folder}/local"),
        ):
            words = [option, spec, "server"]
            assert place.run(first, "-O", "forward", *words) == (0, b"", ""), words
            assert place.run(second, "-O", "cancel", *words) == (0, b"", ""), words
            for left in ("remote", "sock"):
                (place.folder / left).unlink(missing_ok=True)


def test_the_servers_choice_of_a_port_is_printed(place: Harbour) -> None:
    with target(echo) as server:
        words = ["-R", f"0:127.0.0.1:{server.place}", "server"]
        done = place.run("xssh", "-O", "forward", *words)
        assert (done.status, done.stderr) == (0, "")
        assert ask(int(done.stdout), b"x") == b"x"
        again = place.run("xssh", *words, "echo ran")
        assert again.stdout == b"ran\n"


def test_a_forward_that_is_refused_leads_to_an_own_connection(place: Harbour) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        words = ["-R", f"{taken.getsockname()[1]}:127.0.0.1:1", "server", "echo ran"]
        done = place.both(*words)
        failed = place.both("-O", "forward", *words[:-1])
    assert done.stdout == b"ran\n"
    assert "mux_client_forward: forwarding request failed: remote port forwarding" in done.stderr
    assert "muxclient: master forward request failed" in done.stderr
    assert failed.status == 255


def test_stdio_forward(place: Harbour) -> None:
    data = os.urandom(300_000)
    with target(mirror) as server:
        for program in PROGRAMS:
            done = place.run(program, "-W", server.address, "server", stdin=data)
            assert (done.status, done.stdout, done.stderr) == (0, data[::-1], "")


def ask(port: int, question: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(question)
        return connection.recv(100)


# Terminals and signals


@pytest.mark.parametrize("program", PROGRAMS)
def test_in_a_terminal(place: Harbour, spawn_in_pty: Callable[..., Terminal], program: str) -> None:
    environment = place.home.environment()
    terminal = spawn_in_pty(place.argv(program, ["server"]), env=environment, rows=30, cols=90)
    terminal.write("PS1=pro''mpt; echo re''ady; stty size\n")
    terminal.read_until(r"ready\r*\n30 90\r*\n")
    assert terminal.is_raw
    terminal.resize(40, 120)
    terminal.write("until stty size | grep 120; do sleep 0.1; done\n")
    terminal.read_until("40 120\r\n")
    terminal.write("\r~?")
    terminal.read_until("Supported escape sequences")
    terminal.write("\n(echo be''gun; sleep 100)\n")
    terminal.read_until("begun\r*\n")
    terminal.write("\x03")
    terminal.read_until(r"\^C.*prompt")  # before that bash throws away what is typed
    terminal.write("exit 9\n")
    assert terminal.wait() == 9
    assert last_line(terminal) == "Shared connection to 127.0.0.1 closed."
    assert terminal.is_restored


def last_line(terminal: Terminal) -> str:
    return terminal.output.decode().rstrip("\r\n").split("\n")[-1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_escape_ends_the_session(
    place: Harbour, spawn_in_pty: Callable[..., Terminal], program: str
) -> None:
    terminal = spawn_in_pty(place.argv(program, ["server"]), env=place.home.environment())
    terminal.write("PS1=; echo re''ady\n")
    terminal.read_until("ready\r*\n")
    terminal.write("\r~.")
    assert terminal.wait() == 255
    assert terminal.is_restored
    place.run("ssh", "-O", "check", "server")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(
    place: Harbour, spawn_in_pty: Callable[..., Terminal], program: str, number: int
) -> None:
    terminal = spawn_in_pty(
        place.argv(program, ["-t", "server", "echo ready; sleep 100"]), env=place.home.environment()
    )
    terminal.read_until("ready\r*\n")
    wait_until(lambda: terminal.is_raw, what="raw mode")
    terminal.process.send_signal(number)
    assert terminal.wait() == 255
    assert terminal.is_restored
    assert last_line(terminal) == "Shared connection to 127.0.0.1 closed."


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_master_is_killed(
    own: Callable[..., Harbour], spawn_in_pty: Callable[..., Terminal], program: str
) -> None:
    place = own()
    master = place.open_master()
    words = ["server", "echo ready; while kill -0 $PPID 2>/dev/null; do sleep 0.1; done"]
    reader, writer = os.pipe()
    plain = open_process(
        place.argv(program, words),
        env=place.home.environment(),
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    terminal = spawn_in_pty(place.argv(program, ["-t", *words]), env=place.home.environment())
    terminal.read_until("ready\r*\n")
    assert os.read(reader, 100) == b"ready\n"
    assert not os.get_blocking(writer)  # as the master has it, for all who share it
    wait_until(lambda: terminal.is_raw, what="raw mode")
    master.kill()
    assert terminal.wait() == 255
    assert terminal.is_restored
    assert last_line(terminal) == "Shared connection to 127.0.0.1 closed."
    said = b"xssh: the connection that this session shared has ended\n"
    assert plain.communicate(timeout=10)[1] == (said if program == "xssh" else b"")
    assert plain.returncode == 255
    assert os.get_blocking(writer) == (program == "xssh")
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_terminal_that_the_server_refuses(
    own: Callable[..., Harbour], spawn_in_pty: Callable[..., Terminal], program: str
) -> None:
    place = own(key_options="no-pty")
    place.open_master()
    terminal = spawn_in_pty(
        place.argv(program, ["-t", "server", "echo ready; read line; echo got $line; exit 8"]),
        env=place.home.environment(),
    )
    terminal.read_until("ready")
    wait_until(lambda: not terminal.is_raw, what="cooked mode")
    terminal.write("typed\n")
    terminal.read_until("got typed")
    assert terminal.wait() == 8
    assert terminal.is_restored


def test_to_the_background(place: Harbour) -> None:
    """Later releases of ssh than 9.2 go there with a master too; the status is that of going."""
    marker = place.folder / "marker"
    done = place.run("xssh", "-f", "server", f"sleep 0.7; echo done >{marker}; exit 3", timeout=10)
    assert done == (0, b"", "")
    wait_until(marker.exists, what="the command's end")


def test_several_at_once(place: Harbour) -> None:
    passengers = [
        open_process(
            place.argv("xssh", ["server", f"cat; exit {number}"]),
            env=place.home.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(6)
    ]
    data = os.urandom(200_000)
    for number, passenger in enumerate(passengers):
        out, _ = passenger.communicate(data, timeout=30)
        assert (passenger.returncode, out == data) == (number, True)


# Masters that refuse, or are none


def test_the_server_takes_no_more_sessions(own: Callable[..., Harbour]) -> None:
    place = own(config="MaxSessions 1")
    place.open_master()
    holder = subprocess.Popen(
        place.argv("ssh", ["server", "echo ready; cat"]),
        env=place.home.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    done = place.both("server", "echo own")
    assert done.stdout == b"own\n"
    words = "mux_client_request_session: session request failed: Session open refused by peer\n"
    assert done.stderr.startswith(words)
    end_popen(holder)


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_a_master_that_asks(own: Callable[..., Harbour], answer: str) -> None:
    place = own()
    asker = place.folder / "asker"
    asker.write_text(f"#!/bin/sh\necho {answer}\nexit {int(answer == 'no')}\n")
    asker.chmod(0o755)
    place.open_master("-M", SSH_ASKPASS=str(asker), SSH_ASKPASS_REQUIRE="force", DISPLAY=":9")
    done = place.both("server", "echo here")
    assert done.stdout == b"here\n"
    refused = "Master refused session request: Permission denied\n"
    assert done.stderr == ("" if answer == "yes" else refused)
    if answer == "no":
        ended = place.both("-O", "exit", "server")
        assert ended == (255, b"", "Master refused termination request: Permission denied\n")


def test_exit_and_stop(own: Callable[..., Harbour]) -> None:
    place = own()
    for program in PROGRAMS:
        master = place.open_master()
        assert place.run(program, "-O", "stop", "server").stderr == "Stop listening request sent.\n"
        assert not os.path.exists(place.path)
        end_popen(master)
        master = place.open_master()
        assert place.run(program, "-O", "exit", "server") == (0, b"", "Exit request sent.\n")
        assert master.wait(10) == 0 or master.returncode == 255


def speak(*pieces: bytes, hang: bool = False) -> Callable[[socket.socket], object]:
    """Return a master that answers what comes with these pieces in turn, then hangs up."""

    def handle(connection: socket.socket) -> None:
        for piece in pieces:
            connection.recv(1 << 16)
            connection.sendall(piece)
        while hang and connection.recv(1 << 16):
            pass

    return handle


HELLO = encode(Hello())
ALIVE = encode(Alive(0, 4711))
ODD_MASTERS = {
    "silence": speak(hang=True),
    "end at once": speak(),
    "noise": speak(b"SSH-2.0-noise\r\n" * 10),
    "a long frame": speak(b"\x7f\xff\xff\xff" + bytes(100)),
    "an empty frame": speak(bytes(4)),
    "half a hello": speak(HELLO[:7]),
    "half a hello, then silence": speak(HELLO[:7], hang=True),
    "version 5": speak(encode(Hello(5))),
    "another message first": speak(encode(Alive(0, 1))),
    "hello, then the end": speak(HELLO),
    "hello, then silence": speak(HELLO, hang=True),
    "hello, then noise": speak(HELLO, b"noise" * 100),
    "alive for another": speak(HELLO, encode(Alive(9, 4711))),
    "alive, then the end": speak(HELLO, ALIVE),
    "alive, then noise": speak(HELLO, ALIVE, b"noise" * 100),
    "alive, then half a message": speak(HELLO, ALIVE, b"\0\0\0\x0c\x80\0"),
}


@pytest.mark.parametrize("kind", ODD_MASTERS)
def test_odd_masters_are_told_and_done_without(
    place: Harbour, short_directory: Path, kind: str
) -> None:
    path = short_directory / "odd"
    with target(ODD_MASTERS[kind], path):
        words = ["-o", "ConnectTimeout=1", "server", "echo own"]
        started = time.monotonic()
        done = place.run("xssh", *words, path=str(path))
        assert (done.status, done.stdout) == (0, b"own\n"), done
        assert done.stderr.startswith(("muxclient: ", "mux_client_", "Unsupported multiplexing"))
        assert "internal error" not in done.stderr
        check = place.run("xssh", "-O", "check", *words[:-1], path=str(path))
        if "alive, then" not in kind:
            assert check.status == 255
            assert "muxclient: master " in check.stderr
        assert time.monotonic() - started < 20
    path.unlink()


@pytest.mark.parametrize(
    "late",
    [
        encode(ExitMessage(8, 0)),
        encode(ExitMessage(7, 1)) * 2,
        encode(SessionOpened(1, 7)),
        b"\xff" * 100,
    ],
)
def test_what_no_master_says_later_ends_the_run(
    place: Harbour, short_directory: Path, late: bytes
) -> None:
    path = short_directory / "odd"

    def handle(connection: socket.socket) -> None:
        reader, requests = FrameReader(), 0
        while requests < 3:
            reader.receive_data(connection.recv(reader.missing()))
            if reader.next_frame() is not None:
                requests += 1
                connection.sendall((HELLO, ALIVE, encode(SessionOpened(1, 7)) + late)[requests - 1])
        time.sleep(0.1)
        while connection.recv(100):
            pass

    with target(handle, path):
        done = place.run("xssh", "server", "echo own", path=str(path))
    assert (done.status, done.stdout) == (255, b"")
    assert done.stderr.startswith("mux_client_request_session: ")
    path.unlink()


def test_a_master_that_is_stopped_is_done_without(own: Callable[..., Harbour]) -> None:
    place = own()
    master = place.open_master()
    os.kill(master.pid, signal.SIGSTOP)
    try:
        done = place.run("xssh", "-o", "ConnectTimeout=1", "server", "echo own")
        assert (done.status, done.stdout) == (0, b"own\n")
        assert done.stderr == "muxclient: master hello exchange failed\n"
        check = place.run("xssh", "-o", "ConnectTimeout=1", "-O", "check", "server")
        assert (check.status, check.stdout) == (255, b"")
    finally:
        os.kill(master.pid, signal.SIGCONT)


def test_a_master_that_is_stopped_while_a_session_opens(
    place: Harbour, short_directory: Path
) -> None:
    """One that takes its time is waited for."""
    path = short_directory / "odd"
    process = subprocess.Popen(["sleep", "60"])

    def handle(connection: socket.socket) -> None:
        for piece in (HELLO, encode(Alive(0, process.pid)), b""):
            connection.recv(1 << 16)
            connection.sendall(piece)
        time.sleep(1.5)
        process.send_signal(signal.SIGSTOP)
        while connection.recv(1 << 16):
            pass

    try:
        with target(handle, path):
            words = ["-o", "ConnectTimeout=1", "server", "echo own"]
            started = time.monotonic()
            done = place.run("xssh", *words, path=str(path))
            assert time.monotonic() - started > 1.5
    finally:
        process.kill()
        process.wait()
    assert (done.status, done.stdout) == (0, b"own\n")
    said = "mux_client_request_session: read from master failed: Connection timed out\n"
    assert done.stderr == said
    path.unlink()


def test_what_others_could_stand_behind_is_not_used(own: Callable[..., Harbour]) -> None:
    place = own()
    place.open_master()
    folder = place.folder / "c"
    before = logins(place)
    for path, mode, back in ((place.path, 0o666, 0o600), (str(folder), 0o777, 0o700)):
        os.chmod(path, mode)
        done = place.run("xssh", "server", "echo own")
        assert (done.status, done.stdout) == (0, b"own\n")
        assert done.stderr.startswith(f"xssh: a shared connection is not used: {path} ")
        assert place.run("xssh", "-O", "check", "server").status == 255
        os.chmod(path, back)
    assert logins(place) == before + 2
    assert place.run("xssh", "server", "echo shared").stdout == b"shared\n"
    assert logins(place) == before + 2


def logins(place: Harbour) -> int:
    return len(re.findall(r"^Accepted publickey for", place.server.log(), re.MULTILINE))


def test_a_stale_socket_is_removed(own: Callable[..., Harbour]) -> None:
    place = own()
    place.open_master().kill()
    wait_until(lambda: place.run("ssh", "-O", "check", "server").status == 255, what="its end")
    assert os.path.exists(place.path)
    done = place.run("xssh", "server", "echo own")
    assert done.stdout == b"own\n"
    assert done.stderr == f"Control socket connect({place.path}): Connection refused\n"
    assert os.path.exists(place.path)
    done = place.run("xssh", "-v", "-o", "ControlMaster=auto", "server", "echo own")
    assert done.stdout == b"own\n"
    assert f"debug1: Stale control socket {place.path}, unlinking" in done.stderr
    assert not os.path.exists(place.path)


# What a passenger has no words for: this process speaks SSH through the master


def test_a_script_through_the_master(place: Harbour, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('from a script', input(), sys.argv[1:])\nsys.exit(5)\n")
    before = logins(place)
    done = place.run("xssh", f"--script={script}", "server", "word", stdin=b"typed\n")
    assert done == (5, b"from a script typed ['word']\n", "")
    assert logins(place) == before


@pytest.mark.parametrize("command", ["echo out; echo err >&2; exit 7", "cat; exit 300", "kill $$"])
def test_proxy(place: Harbour, command: str) -> None:
    before = logins(place)
    place.both("-O", "proxy", "server", command, stdin=os.urandom(200_000))
    assert logins(place) == before
    assert place.run("xssh", "-O", "check", "server").status == 0


def test_proxy_in_a_terminal(place: Harbour, spawn_in_pty: Callable[..., Terminal]) -> None:
    words = ["-O", "proxy", "-t", "server", "stty size; exit 6"]
    terminal = spawn_in_pty(
        place.argv("xssh", words), env=place.home.environment(), rows=31, cols=91
    )
    assert terminal.wait() == 6
    assert b"31 91" in terminal.output
    assert terminal.is_restored


def test_forwards_through_a_proxy_end_with_it(place: Harbour) -> None:
    with target(echo) as server:
        ports = [free_port(), free_port()]
        words = ["-O", "proxy", "-L", f"{ports[0]}:{server.address}"]
        words += ["-R", f"127.0.0.1:{ports[1]}:{server.address}", "-o", "ExitOnForwardFailure=yes"]
        process = open_process(
            place.argv("xssh", [*words, "server", "echo ready; cat"]),
            env=place.home.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for port in ports:
            assert ask(port, b"hello") == b"hello"
        process.communicate(timeout=10)
        assert process.returncode == 0
        with pytest.raises(ConnectionRefusedError):
            ask(ports[0], b"hello")
    assert place.run("xssh", "-O", "check", "server").status == 0


def test_the_agent_through_the_master(place: Harbour, xvfb: Xvfb) -> None:
    before = logins(place)
    command = "echo $MPLBACKEND; xset q | grep -c Keyboard"
    done = place.run("xssh", "-Y", "--stats", "server", command, **xvfb.environment())
    assert (done.status, done.stdout) == (0, b"TkAgg\n1\n")
    assert "X11 by the agent" in done.stderr
    assert logins(place) == before


def test_x11_channels_would_be_the_masters(own: Callable[..., Harbour], xvfb: Xvfb) -> None:
    """Where the agent can't run, nothing is asked for that the master would have to answer."""
    place = own(path="/nonexistent")
    place.open_master()
    done = place.run("xssh", "-Y", "server", "echo [$DISPLAY]", **xvfb.environment())
    assert (done.status, done.stdout) == (0, b"[]\n")
    assert "X11" in done.stderr


def test_a_master_that_passes_nothing_on(place: Harbour, short_directory: Path) -> None:
    path = short_directory / "odd"
    refusal = encode(Failure(0, b"unsupported request"))
    with target(speak(HELLO, refusal), path):
        refused = place.run("xssh", "-O", "proxy", "server", "echo own", path=str(path))
        script = short_directory / "script.py"
        script.write_text("print('from a script')")
        done = place.run("xssh", f"--script={script}", "server", path=str(path))
    words = "mux_client_proxy: master returned error: unsupported request\n"
    assert refused == (255, b"", words)
    assert done == (0, b"from a script\n", "")
    path.unlink()


def test_x11_that_the_master_has(own: Callable[..., Harbour], xvfb: Xvfb) -> None:
    place = own()
    place.open_master("-X", **xvfb.environment())
    words = ["-Y", "server", "echo ${DISPLAY%:*}; xset q | grep -c Keyboard"]
    for program in PROGRAMS:
        done = place.run(program, *words, XSSH_X11="native", **xvfb.environment())
        assert done.stdout == b"localhost\n1\n"
        assert place.run(program, "-x", *words[1:], **xvfb.environment()).stdout == b"\n0\n"
