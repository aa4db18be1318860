"""ProxyCommand in all its forms, and ProxyJump through hosts with settings of their own."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.beside import PROGRAMS, Beside
from tests.support.clients import ClientHome
from tests.support.processes import find_descendants, kill_group, run, wait_until
from tests.support.sshd import SshServer, generate_key
from tests.support.terminals import Terminal
from tests.support.warmstart import open_process

NETCAT = """\
import os, socket, sys, threading
connection = socket.create_connection((sys.argv[-2], int(sys.argv[-1])))
if sys.argv[1] == "-F":  # hand the connection over
    socket.send_fds(socket.socket(fileno=1), [b"\\0"], [connection.fileno()])
    sys.exit()
if sys.argv[1] == "-o":  # through the names that need pipes
    source, sink = os.open("/dev/stdin", os.O_RDONLY), os.open("/dev/stdout", os.O_WRONLY)
else:
    source, sink = 0, 1
def send():
    while data := os.read(source, 65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := connection.recv(65536):
    while data:
        data = data[os.write(sink, data):]
"""


@pytest.fixture
def login(
    sshd: SshServer, client_home: ClientHome, spawn_in_pty: Callable[..., Terminal]
) -> Beside:
    return Beside(client_home, sshd, spawn_in_pty)


@pytest.fixture
def netcat(short_directory: Path) -> str:
    """A command that carries a connection; it is followed by -F or -o, host and port."""
    script = short_directory / "netcat.py"
    script.write_text(NETCAT)
    return f"{shlex.quote(sys.executable)} {script}"


# ProxyCommand


def test_the_tokens_of_a_proxy_command(login: Beside, netcat: str, short_directory: Path) -> None:
    record = short_directory / "record"
    command = f"printf '%%s\\n' %h %p %r %n %k 100%% > {record}; exec {netcat} %h %p"
    words = ["-oHostKeyAlias=Alias", f"-oProxyCommand=sh -c {shlex.quote(command)}", "server"]
    login.home.known_hosts.write_text(login.server.known_hosts_lines("alias"))
    records = []
    for program in PROGRAMS:
        assert login.run(program, *words, "echo hi")[:2] == (0, b"hi\n")
        records.append(record.read_text())
    assert records[0] == records[1]
    expected = ["127.0.0.1", str(login.server.port), "demo", "server", "alias", "100%"]
    assert records[1].splitlines() == expected


def test_tokens_that_a_proxy_command_does_not_have(login: Beside) -> None:
    for token in "CLTu":
        done = login.both(f"-oProxyCommand=echo %{token}", "server", "true")
        assert done.stderr.startswith(f"vdollar_percent_expand: unknown key %{token}\n")


@pytest.mark.parametrize("shell", ["a stub", "", "none"])
def test_the_shell_that_runs_a_proxy_command(
    login: Beside, netcat: str, short_directory: Path, shell: str
) -> None:
    record, stub = short_directory / "record", short_directory / "shell"
    stub.write_text(f'#!/bin/sh\nprintf "%s|" "$0" "$@" > {record}\nexec /bin/sh "$@"\n')
    stub.chmod(0o755)
    login.variables = {"SHELL": str(stub) if shell == "a stub" else ""}
    if shell == "none":
        login.variables = {"SHELL": "/nonexistent/shell"}
    done = login.both(f"-oProxyCommand={netcat} %h %p", "server", "echo hi")
    if shell == "none":
        assert done.status == 255 and done.stderr.startswith("/nonexistent/shell: No such file")
        return
    assert done == (0, b"hi\n", "")
    if shell == "a stub":
        where = f"127.0.0.1 {login.server.port}"
        assert record.read_text() == f"{stub}|-c|exec {netcat} {where}|"


def test_proxy_command_none(login: Beside) -> None:
    login.home.config.write_text("Host *\n  ProxyCommand false\n" + login.home.config.read_text())
    assert login.both("server", "true").status == 255
    assert login.both("-oProxyCommand=none", "server", "echo hi") == (0, b"hi\n", "")


def test_a_proxy_command_has_pipes(login: Beside, netcat: str) -> None:
    """A socket can't be opened by the name /dev/stdin."""
    assert login.both(f"-oProxyCommand={netcat} -o %h %p", "server", "echo hi").stdout == b"hi\n"


@pytest.mark.parametrize("fdpass", [False, True])
def test_much_data_through_a_proxy(login: Beside, netcat: str, fdpass: bool) -> None:
    data = os.urandom(3 << 20)
    flag = "-F" if fdpass else ""
    words = [f"-oProxyCommand={netcat} {flag} %h %p", f"-oProxyUseFdpass={'yes' * fdpass or 'no'}"]
    done = login.run("xssh", *words, "server", "cat", stdin=data)
    assert (done.status, done.stdout == data, done.stderr) == (0, True, "")


def test_proxy_use_fdpass_leaves_no_process_behind(
    login: Beside, netcat: str, short_directory: Path
) -> None:
    words = [f"-oProxyCommand={netcat} -F %h %p", "-oProxyUseFdpass=yes", "server", "echo $$; read"]
    with open_process(
        login.argv("xssh", words),
        env=login.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None and client.stdout.readline()
        assert not [p for p in find_descendants(client.pid) if "netcat" in p.command]
        client.communicate(b"\n", timeout=10)
    assert client.returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "true",
        "false",
        "echo hello",
        # what is no connection: it ends with it
        *(
            f"{sys.executable} -c \"import os, socket; socket.send_fds(socket.socket(fileno=1), "
            f"[b'x'], [{what}])\""
            for what in (
                "os.open('/dev/null', os.O_RDWR)",
                "socket.socket().detach()",
                "socket.socket(type=socket.SOCK_DGRAM).detach()",
            )
        ),
    ],
)  # fmt: skip
def test_proxy_use_fdpass_that_passes_nothing_useful(login: Beside, command: str) -> None:
    words = [f"-oProxyCommand={command}", "-oProxyUseFdpass=yes", "server", "true"]
    expected, found = (login.run(program, *words) for program in PROGRAMS)
    assert (found.status, found.stdout) == (expected.status, expected.stdout) == (255, b"")
    if "python" in command:
        assert "internal error" not in found.stderr
        return
    assert found.stderr.startswith(expected.stderr), found.stderr
    assert found.stderr.splitlines()[-1].startswith("  try: ")


def test_proxy_use_fdpass_and_a_server_that_hangs_up(login: Beside, netcat: str) -> None:
    """The address of what was passed is known, and named."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # The kernel takes the call; closing the listener resets it.
        script = f"{netcat} -F 127.0.0.1 {port}"
        words = [f"-oProxyCommand={script}", "-oProxyUseFdpass=yes", "-oConnectTimeout=1"]
        done = login.both(*words, "server", "true")
    assert f"Connection to 127.0.0.1 port {port} timed out\n" in done.stderr


def test_proxy_command_is_the_own_stdin_and_stdout(login: Beside, short_directory: Path) -> None:
    """Whoever starts it speaks SSH there: here, a connection to the server."""
    for program in PROGRAMS:
        touched = short_directory / program
        words = ["-oProxyCommand=-", "-n", "server", f"echo hi > {touched}"]
        with socket.create_connection((login.server.host, login.server.port)) as connection:
            done = subprocess.run(
                login.argv(program, words),
                env=login.environment(),
                stdin=connection,
                stdout=connection,
                stderr=subprocess.PIPE,
                timeout=20,
            )
        assert (done.returncode, done.stderr) == (0, b""), program
        assert touched.read_text() == "hi\n"


def test_proxy_command_dash_over_two_pipes(
    login: Beside, netcat: str, short_directory: Path
) -> None:
    touched = short_directory / "touched"
    words = ["-oProxyCommand=-", "-n", "server", f"echo hi > {touched}"]
    carrier = subprocess.Popen(
        [*shlex.split(netcat), login.server.host, str(login.server.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    done = subprocess.run(
        login.argv("xssh", words),
        env=login.environment(),
        stdin=carrier.stdout,
        stdout=carrier.stdin,
        stderr=subprocess.PIPE,
        timeout=20,
    )
    carrier.communicate(timeout=10)
    assert (done.returncode, done.stderr) == (0, b"")
    assert touched.read_text() == "hi\n"


def test_proxy_command_dash_and_fdpass_exclude_each_other(login: Beside) -> None:
    done = login.both("-oProxyCommand=-", "-oProxyUseFdpass=yes", "server", "true")
    assert done.stderr == "ProxyCommand=- and ProxyUseFDPass are incompatible\n"


def test_proxy_command_dash_without_a_connection(login: Beside, short_directory: Path) -> None:
    plain = short_directory / "plain"
    plain.write_text("no connection")
    with plain.open("rb") as stdin:
        argv = login.argv("xssh", ["-oProxyCommand=-", "server", "true"])
        done = run(argv, env=login.environment(), stdin=stdin.fileno())
    assert done.status == 255 and "internal error" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("  try: ")


GARBAGE = {
    "an HTML page": "printf 'HTTP/1.1 502 Bad Gateway\\r\\n\\r\\n<html>\\n'; cat >/dev/null",
    "no version": "printf 'hello\\n'; sleep 0.3",
    "control bytes": "printf '\\033[2J\\000\\n'; sleep 0.3",
    "SSH-1": "printf 'SSH-1.5-old\\r\\n'; sleep 0.3",
}


@pytest.mark.parametrize("kind", sorted(GARBAGE))
def test_a_proxy_that_prints_garbage(login: Beside, kind: str) -> None:
    words = [f"-oProxyCommand=sh -c {shlex.quote(GARBAGE[kind].replace('%', '%%'))}"]
    words += ["-oConnectTimeout=1", "server", "true"]
    expected, found = (login.run(program, *words) for program in PROGRAMS)
    assert (found.status, found.stdout) == (expected.status, expected.stdout) == (255, b"")
    # ssh has more to say about SSH-1, that nobody greps for.
    lines = expected.stderr.splitlines()[: 1 if kind == "SSH-1" else None]
    assert found.stderr.splitlines()[: len(lines)] == lines
    assert "\x1b" not in found.stderr


@pytest.fixture
def lasting(login: Beside, short_directory: Path) -> Iterator[Path]:
    """A proxy that writes down its pid and would stay for long."""
    record = short_directory / "pid"
    script = short_directory / "proxy"
    script.write_text(f"#!/bin/sh\necho $$ > {record}\nexec sleep 60\n")
    script.chmod(0o755)
    yield script


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_proxy_too(login: Beside, lasting: Path, number: signal.Signals) -> None:
    record = lasting.parent / "pid"
    client = open_process(
        login.argv("xssh", [f"-oProxyCommand={lasting}", "server", "true"]),
        env=login.environment(),
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: record.exists() and record.read_text(), what="the proxy to start")
        client.send_signal(number)
        assert client.wait(10) == -number
        wait_until(lambda: not is_running(int(record.read_text())), what="the proxy to end")
    finally:
        kill_group(client.pid)
        client.wait()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("end", ["login", "refusal", "kill"])
def test_a_proxy_is_gone_when_the_run_is(
    login: Beside, netcat: str, short_directory: Path, end: str
) -> None:
    """After a good end, a refused login, and a server that dies."""
    record = short_directory / "pid"
    proxy = f"sh -c 'echo $$ > {record}; exec {netcat} %h %p'"
    words = {
        "login": ["server", "true"],
        "refusal": ["-oPubkeyAuthentication=no", "server", "true"],
        "kill": ["server", "kill -9 $PPID"],
    }[end]
    done = login.run("xssh", f"-oProxyCommand={proxy}", *words)
    assert done.status == (0 if end == "login" else 255), done
    assert not is_running(int(record.read_text()))


# Jumps


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_a_proxy_command_made_of_W(login: Beside, program: str) -> None:
    """Both as the carrier for both."""
    carrier = shlex.join([*PROGRAMS[program], *login.home.arguments, "-x"])
    done = login.both(
        f"-oProxyCommand={carrier.replace('%', '%%')} -W %h:%p server",
        "server",
        "echo $LOGNAME; cat",
        stdin=b"in",
    )
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout == b"demo\nin"


@pytest.fixture
def chain(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    short_directory: Path,
) -> Beside:
    """Three servers: each with another user and key, and its own known name."""
    login = None
    for number, name in enumerate(["target", "inner", "outer"]):
        key = generate_key(short_directory / f"key_{name}", "ecdsa" if number % 2 else "ed25519")
        server = make_sshd(user=f"user-{name}", environment={"WHERE": name})
        server.authorized_keys.write_text("")
        server.authorize(key)
        extra = f"IdentityFile {key}\nHostKeyAlias known-as-{name}\nSetEnv FROM={name}"
        if login is None:
            login = Beside(client_home, server, spawn_in_pty, extra=extra, known=False)
            text = client_home.config.read_text().replace("Host server\n", "Host target\n")
            client_home.config.write_text(text)
        else:
            client_home.add(server, name, extra=extra, known=False)
        with client_home.known_hosts.open("a") as file:
            file.write(server.known_hosts_lines(f"known-as-{name}"))
    assert login is not None
    return login


WHO = "echo $LOGNAME; echo $WHERE"
ARRIVED = (0, b"user-target\ntarget\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["-J", "outer,inner"],
        ["-oProxyJump=outer,inner"],
        ["-J", "user-outer@outer,user-inner@inner"],
        ["-J", "ssh://user-outer@outer,inner"],
        ["-J", "inner"],
        ["-oProxyJump=none"],
        ["-J", "none"],
    ],
)
def test_jumps_through_hosts_with_their_own_settings(chain: Beside, words: list[str]) -> None:
    assert chain.both(*words, "target", WHO) == ARRIVED


def test_jumps_named_in_the_jumps_own_blocks(chain: Beside, netcat: str) -> None:
    """target is reached by inner, that by outer, and that by a ProxyCommand."""
    blocks = (
        f"Host target\n  ProxyJump inner\nHost inner\n  ProxyJump outer\n"
        f"Host outer\n  ProxyCommand {netcat} %h %p\n"
    )
    chain.home.config.write_text(blocks + chain.home.config.read_text())
    assert chain.both("target", WHO) == ARRIVED
    assert chain.both("-oProxyJump=none", "inner", WHO) == (0, b"user-inner\ninner\n", "")
    assert chain.both("-oProxyCommand=none", "outer", WHO) == (0, b"user-outer\nouter\n", "")


@pytest.mark.parametrize(
    "jumps", ["nobody@outer,inner", "outer,nobody@inner", "outer,nowhere.invalid"]
)
def test_a_jump_that_fails_ends_the_run(chain: Beside, jumps: str) -> None:
    words = ["-oBatchMode=yes", "-J", jumps, "target", "true"]
    expected, found = (chain.run(program, *words) for program in PROGRAMS)
    assert found.status == expected.status == 255
    assert found.stderr.splitlines()[0] == expected.stderr.splitlines()[0]


def test_a_jump_to_itself(login: Beside) -> None:
    words = ["-F", "none", "-J", "127.0.0.1", "127.0.0.1", "true"]
    assert login.both(*words).stderr == "jumphost loop via 127.0.0.1\n"


def test_the_first_of_proxy_jump_and_proxy_command_wins(login: Beside) -> None:
    done = login.both("-J", "server", "-oProxyCommand=false", "server", "echo hi")
    assert done == (0, b"hi\n", "")
