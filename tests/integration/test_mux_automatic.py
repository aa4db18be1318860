"""xssh shares by itself, and a user who never asked for it notices nothing but the speed.

Each thing is looked at twice: in the run that makes the connection, and in one that finds it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration._masters import Harbour, harbour
from tests.integration._pairs import XSSH, plain
from tests.support.link import Link
from tests.support.masters import end_automatic_masters, find_automatic_masters
from tests.support.processes import (
    Completed,
    catches_signal,
    end_popen,
    find_descendants,
    is_alive,
    run,
    wait_until,
)
from tests.support.sshd import KeyRing
from tests.support.terminals import Terminal
from tests.support.warmstart import open_process

TIMES = pytest.mark.parametrize("time_of", ["cold", "warm"])


class Unasked:
    """A home in which xssh shares by itself."""

    def __init__(self, place: Harbour) -> None:
        self.place = place
        self.home = place.home
        self.environment = {**place.home.environment(), "XSSH_SHARE": "60"}

    def argv(self, *words: str) -> list[str]:
        return [*XSSH, *self.home.arguments, *words]

    def run(self, *words: str, stdin: bytes | int | None = b"", **variables: str) -> Completed:
        env = {**self.environment, **variables}
        done = plain(run(self.argv(*words), stdin=stdin, env=env))
        return done._replace(stderr=re.sub(r"^  try: .*\n", "", done.stderr, flags=re.M))

    def login(self, *words: str, **variables: str) -> str:
        """Run a command that tells which login it is part of."""
        done = self.run(*words, "server", "echo $SSH_CONNECTION", **variables)
        assert done.status == 0 and not done.stderr, done
        return done.stdout.decode()

    def prepare(self, time_of: str) -> None:
        if time_of == "warm":
            assert self.run("server", "true").status == 0

    def start(self, *words: str, **options: int) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = open_process(
            self.argv(*words),
            env=self.environment,
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options},
        )
        return process

    @property
    def masters(self) -> list[int]:
        return list(find_automatic_masters(self.home.runtime).values())


@pytest.fixture(scope="module")
def place(key_ring: KeyRing) -> Iterator[Harbour]:
    with harbour(key_ring, config="MaxSessions 40") as opened:
        yield opened


@pytest.fixture
def unasked(place: Harbour, private_places: Path) -> Iterator[Unasked]:
    config = place.home.config.read_bytes()
    known_hosts = place.home.known_hosts.read_bytes()
    yield Unasked(place)
    end_automatic_masters(place.home.runtime)
    place.home.config.write_bytes(config)
    place.home.known_hosts.write_bytes(known_hosts)


@pytest.fixture
def own(key_ring: KeyRing, private_places: Path) -> Iterator[Callable[..., Unasked]]:
    """Servers of a test's own: ``own(config="MaxSessions 1")``."""
    opened: list[Harbour] = []

    def make(**options: object) -> Unasked:
        made = harbour(key_ring, **options)
        opened.append(made.__enter__())
        managers.append(made)
        return Unasked(opened[-1])

    managers: list[object] = []
    yield make
    for harbours, manager in zip(opened, managers, strict=True):
        end_automatic_masters(harbours.home.runtime)
        manager.__exit__(None, None, None)  # type: ignore[attr-defined]


CASES: list[tuple[Sequence[str], bytes | None]] = [
    (["server", "echo out; echo err >&2; exit 7"], b""),
    (["server", "cat; echo end"], b"some\0thing"),
    (["server", "cat"], None),
    (["server"], b"echo from the shell; exit 4\n"),
    (["-n", "server", "cat"], b"unread"),
    (["-tt", "server", "echo a; exit 3"], b""),
    (["-tt", "-q", "server", "true"], b""),
    (["-s", "server", "nothing-such"], b""),
    (["-o", "RemoteCommand=echo %n %h", "server"], b""),
    (["-o", "RemoteCommand=echo", "server", "true"], b""),
    (["-o", "SetEnv=TERM=dumb", "-tt", "server", "echo $TERM"], b""),
    (["server", "kill -TERM $$"], b""),
    (["server", "head -c 3000000 /dev/zero"], b""),
    (["server", "exec >&-; exec 2>&-; sleep 0.1; exit 5"], b""),
    (["-T", "-o", "BatchMode=yes", "server", "tty"], b""),
    (["-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=/dev/null", "server"], b""),
    (["server", "-p", "1", "echo"], b""),
]


@pytest.mark.parametrize("words, stdin", CASES, ids=[" ".join(words)[-40:] for words, _ in CASES])
def test_it_is_as_with_ssh(unasked: Unasked, words: Sequence[str], stdin: bytes | None) -> None:
    argv = ["ssh", *unasked.home.arguments, *words]
    expected = plain(run(argv, stdin=stdin, env=unasked.environment))
    for _ in ("cold", "warm"):
        assert unasked.run(*words, stdin=stdin) == expected


def test_words_in_a_file_are_the_users(unasked: Unasked, tmp_path: Path) -> None:
    """What ``ssh -G`` prints as if it had not been said counts too."""
    config = unasked.home.config.read_text()
    for text in (
        "Host server\n  ControlPath none\n",
        "Host *\n  ControlMaster no\n",
        'Match exec "true"\n  ControlPath none\n',
        "Match final host 127.0.0.1\n  ControlPath none\n",
        "Include {file}\n",
    ):
        (tmp_path / "more").write_text("ControlPath none\n")
        unasked.home.config.write_text(text.format(file=tmp_path / "more") + config)
        assert unasked.login() != unasked.login(), text
    unasked.home.config.write_text("Host other\n  ControlPath none\n" + config)
    assert unasked.login() == unasked.login()
    # Nothing lies about, and a word that is added later counts at once.
    assert len(list((unasked.home.runtime / "xssh").iterdir())) == len(unasked.masters) == 1
    first = unasked.login()
    unasked.home.config.write_text("Host server\n  ControlPath none\n" + config)
    assert unasked.login() != first


def test_what_has_a_connection_of_its_own(unasked: Unasked) -> None:
    proxy = f"ProxyCommand=ssh -F {unasked.home.config} -W %h:%p server"
    for words in (
        ["-o", "LogLevel=VERBOSE", "server", "true"],
        ["-v", "server", "true"],
        ["-o", proxy, "server", "true"],
        ["-o", "UpdateHostKeys=ask", "server"],
        ["-o", "EnableEscapeCommandline=yes", "server", "true"],
    ):
        assert unasked.run(*words).status == 0
        assert not unasked.masters, words
    assert unasked.run("server", "true", XSSH_SHARE="", CI="true").status == 0
    assert not unasked.masters
    # Where there may be windows that the X server is not to trust, the user has to ask.
    for words in (["server", "true"], ["-X", "server", "true"], ["-x", "-X", "server", "true"]):
        words = ["-o", "ForwardX11Trusted=no", *words]
        assert unasked.run(*words, XSSH_SHARE="").status == 0
        assert not unasked.masters, words
    # Unless it is asked for.
    done = run(unasked.argv("--share", "60", "-v", "server", "true"), env=unasked.environment)
    assert "Authenticated to" in done.stderr
    assert len(unasked.masters) == 1


def test_what_shares_unasked(unasked: Unasked) -> None:
    """With windows or without; git, rsync and sftp among them."""
    for number, words in enumerate(
        (
            ["server", "true"],
            ["-X", "server", "true"],
            ["-x", "server", "true"],
            ["--x11", "off", "server", "true"],
            ["-o", "Compression=yes", "server", "git-upload-pack", "'/nonexistent'"],
        ),
        1,
    ):
        first, second = (unasked.run(*words, XSSH_SHARE="") for _ in range(2))
        assert first == second and len(unasked.masters) == number, first
    number = len(unasked.masters)
    words = ["-s", "server", "nothing"]
    assert unasked.run(*words, XSSH_SHARE="") == unasked.run(*words, XSSH_SHARE="no")
    assert len(unasked.masters) == number


def test_nobody_waits_for_a_master(unasked: Unasked, tmp_path: Path) -> None:
    """Whoever waits for all holders of a pipe, a lock, a folder or a terminal."""
    script = (
        'exec 8>"$1"; shift; flock 8; out=$("$@" 2>&1); [ "$out" = done ] || echo "$out"; '
        "exec 8>&-; flock -w 3 9 9>$0 && pwd"
    )
    lock, folder = tmp_path / "lock", tmp_path / "folder"
    folder.mkdir()
    argv = ["bash", "-c", script, str(lock), str(lock), *unasked.argv("server", "echo done")]
    started = time.monotonic()
    done = run(argv, env=unasked.environment, cwd=folder, timeout=20)
    assert done == (0, f"{folder}\n".encode(), "")
    assert time.monotonic() - started < 15
    [pid] = unasked.masters
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    held = {
        number: os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")
    }
    assert [held[number] for number in "012"] == [os.devnull] * 3
    kinds = {re.sub(r"[:\[].*|.*(?=/passwd$)", "", target) for target in held.values()}
    assert kinds <= {os.devnull, "socket", "anon_inode", "/dev/urandom", "/passwd"}, held
    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    session, terminal = int(status[3]), int(status[4])
    assert (session, terminal) == (pid, 0)


@TIMES
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_the_remote_command(unasked: Unasked, time_of: str, number: int) -> None:
    unasked.prepare(time_of)
    process = unasked.start("-tt", "server", "echo $$; exec sleep 100")
    assert process.stdout is not None
    remote = int(process.stdout.readline())
    # The master writes to stdout itself, perhaps before this run knows that it has its session.
    wait_until(lambda: catches_signal(process.pid, signal.SIGTERM), what="the session")
    try:
        process.send_signal(number)
        assert process.wait(10) == (-9 if number == signal.SIGKILL else 255)
        wait_until(lambda: not is_alive(remote), what="the remote command's end")
    finally:
        end_popen(process)


@TIMES
def test_pipes_are_let_go_of_with_the_run(unasked: Unasked, time_of: str) -> None:
    """Though the remote command, which nobody told, still has the other end."""
    unasked.prepare(time_of)
    process = unasked.start("server", "echo begun; exec sleep 3")
    try:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        # The master writes it, perhaps before this run knows that it has its session.
        wait_until(lambda: catches_signal(process.pid, signal.SIGTERM), what="the session")
        process.terminate()
        started = time.monotonic()
        assert process.stdout.read() == b"" and process.wait() == 255
        assert time.monotonic() - started < 2
    finally:
        end_popen(process)
    script = '"$@" "yes" | head -1; echo ${PIPESTATUS[0]}'
    found = run(["bash", "-c", script, "bash", *unasked.argv("server")], env=unasked.environment)
    ssh = ["ssh", *unasked.home.arguments, "server"]
    assert found == run(["bash", "-c", script, "bash", *ssh], env=unasked.environment)


def test_nohup_holds(unasked: Unasked) -> None:
    unasked.prepare("warm")
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *unasked.argv("server", "echo a; cat")],
        env=unasked.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"a\n"
        wait_until(lambda: catches_signal(process.pid, signal.SIGTERM), what="the session")
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(b"still here\n", timeout=10)
        assert (out, process.returncode) == (b"still here\n", 0)
    finally:
        end_popen(process)


@TIMES
def test_a_terminal(unasked: Unasked, time_of: str, spawn_in_pty: Callable[..., Terminal]) -> None:
    """Size, signals and closing words are as without a master."""
    unasked.prepare(time_of)
    command = 'while read a && [ -z "$a" ]; do stty size; done; echo [$a]; exit 3'
    terminal = spawn_in_pty(unasked.argv("-t", "server", command), env=unasked.environment)
    terminal.write("\r")
    terminal.read_until("24 80\r\n")
    terminal.resize(30, 90)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    for _ in range(100):
        terminal.write("\r")
        if "30 90" in terminal.read_until(r"\d+ \d+\r\n"):
            break
    terminal.write("typed\r")
    terminal.read_until(r"\[typed\]\r\n")
    terminal.read_until("Connection to 127.0.0.1 closed.\r\n")
    assert terminal.wait() == 3 and terminal.is_restored


def test_escapes_end_and_stop_this_session_alone(
    unasked: Unasked, spawn_in_pty: Callable[..., Terminal]
) -> None:
    unasked.prepare("warm")
    env = {**unasked.environment, "PS1": "% "}
    shell = spawn_in_pty(["bash", "--norc", "--noediting", "-i"], env=env)
    shell.read_until("% ")
    line = " ".join(map(_quoted, unasked.argv("-t", "server", "echo rea''dy; cat")))
    shell.write(f"{line}\r")
    shell.read_until("ready\r\n")
    shell.write("one\r")
    shell.read_until("one\r\none\r\n")
    shell.write("~\x1a")
    shell.read_until(r"~\^Z \[suspend ssh\]\r\n.*Stopped.*% ")
    shell.write("echo lo''cal\r")
    shell.read_until("local\r\n")
    shell.write("fg\r")
    shell.write("two\r")
    shell.read_until("two\r\ntwo\r\n")
    shell.write("~.")
    shell.read_until("Connection to 127.0.0.1 closed.\r\n")
    shell.write("echo =$?\r")
    shell.read_until("=255\r\n")
    assert len(unasked.masters) == 1
    shell.write("exit\r")
    shell.wait()


def test_a_job_in_the_background_takes_no_keys(
    unasked: Unasked, spawn_in_pty: Callable[..., Terminal]
) -> None:
    """The shell stops it, as it stops any job that reads the terminal."""
    unasked.prepare("warm")
    shell = spawn_in_pty(
        ["bash", "--norc", "--noediting", "-i"], env={**unasked.environment, "PS1": "% "}
    )
    shell.read_until("% ")
    line = " ".join(map(_quoted, unasked.argv("server", "echo begun; cat")))
    shell.write(f"{line} &\r")
    shell.read_until("begun\r\n")
    shell.write("sleep 0.5\r")
    shell.write("echo $((70 + 7))\r")  # nobody else is there to read it
    shell.read_until("% 77\r\n")
    shell.write("fg\r")
    shell.read_until("cat")
    shell.write("for cat\r\x04")
    shell.read_until("for cat\r\nfor cat\r\n")
    shell.write("exit\r")
    shell.wait()


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def test_a_host_that_is_not_on_record_any_more(unasked: Unasked) -> None:
    first = unasked.login()
    lines = unasked.home.known_hosts.read_text()
    unasked.home.known_hosts.write_text(lines + "other.example ssh-ed25519 AAAA\n")
    assert unasked.login() == first
    [pid] = unasked.masters
    unasked.home.known_hosts.write_text("")
    done = unasked.run("-o", "LogLevel=ERROR", "server", "true")
    assert (done.status, done.stdout) == (255, b"")
    assert done.stderr.endswith("Host key verification failed.\n"), done
    wait_until(lambda: not is_alive(pid), what="the end of the master")
    unasked.home.known_hosts.write_text(lines)
    assert unasked.login() != first


def test_a_dead_connection_is_replaced(unasked: Unasked) -> None:
    link = Link((unasked.place.server.host, unasked.place.server.port), delay=0)
    try:
        words = [
            "-o",
            f"HostKeyAlias=[127.0.0.1]:{unasked.place.server.port}",
            "-p",
            str(link.port),
        ]
        first = unasked.login(*words)
        assert unasked.login(*words) == first
        [pid] = unasked.masters
        link.stall()
        started = time.monotonic()
        second = unasked.login(*words)
        assert second != first and time.monotonic() - started < 12
        wait_until(lambda: not is_alive(pid), what="the end of the old master")
        assert unasked.login(*words) == second
    finally:
        end_automatic_masters(unasked.home.runtime)
        link.stop()


def test_no_room_for_another_session(own: Callable[..., Unasked]) -> None:
    """It has a connection of its own then, and says nothing of it."""
    unasked = own(config="MaxSessions 1")
    process = unasked.start("server", "echo $SSH_CONNECTION; cat")
    try:
        assert process.stdout is not None
        first = process.stdout.readline().decode()
        assert unasked.login() != first
        assert process.communicate(b"more", timeout=10) == (b"more", None)
        assert unasked.login() == first
    finally:
        end_popen(process)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"config": "MaxSessions 0"}, ["server", "true"]),
        ({"config": "ForceCommand echo forced; exit 3"}, ["server", "true"]),
        ({"config": "ForceCommand internal-sftp"}, ["-s", "server", "sftp"]),
        ({"key_options": "restrict"}, ["server", "tty"]),
    ],
)
def test_accounts_that_may_do_little(
    own: Callable[..., Unasked], options: dict[str, str], words: list[str]
) -> None:
    unasked = own(**options)
    argv = ["ssh", *unasked.home.arguments, *words]
    expected = plain(run(argv, env=unasked.environment))
    assert unasked.run(*words) == unasked.run(*words) == expected


def test_orders_reach_it_without_a_path(unasked: Unasked) -> None:
    no_path = (255, b"", 'No ControlPath specified for "-O" command\n')
    assert unasked.run("-O", "check", "server") == no_path
    unasked.login("-A")
    unasked.login()
    pids = unasked.masters
    done = unasked.run("-O", "check", "server", XSSH_SHARE="no")
    found = re.fullmatch(r"Master running \(pid=(\d+)\)\n", done.stderr)
    assert done.status == 0 and found is not None and int(found[1]) in pids, done
    for left in (1, 0):
        assert unasked.run("-O", "exit", "server") == (0, b"", "Exit request sent.\n")
        wait_until(lambda left=left: len(unasked.masters) == left, what="a master's end")
    assert unasked.run("-O", "exit", "server") == no_path


def test_interrupted_at_a_question(unasked: Unasked, spawn_in_pty: Callable[..., Terminal]) -> None:
    unasked.home.known_hosts.write_text("")
    for number in (signal.SIGINT, signal.SIGTERM):
        words = ["-o", "StrictHostKeyChecking=ask", "server", "true"]
        terminal = spawn_in_pty(unasked.argv(*words), env=unasked.environment)
        terminal.read_until(r"\(yes/no/\[fingerprint\]\)\? ")
        os.kill(terminal.process.pid, number)
        assert terminal.wait() == -number
    assert not unasked.masters


def test_another_one_was_quicker(unasked: Unasked, spawn_in_pty: Callable[..., Terminal]) -> None:
    """The run keeps its connection to itself, and ends as any other when it is killed."""
    words = ["-o", "StrictHostKeyChecking=ask", "-tt", "server", "echo pid=$$.; exec sleep 100"]
    unasked.prepare("warm")
    assert unasked.run(*words[:2], "server", "true").status == 0
    newest = max(
        find_automatic_masters(unasked.home.runtime), key=lambda path: path.stat().st_mtime
    )
    end_automatic_masters(unasked.home.runtime)
    unasked.home.known_hosts.write_text("")
    # The end of the terminal's own process would be everybody's.
    shell = ["sh", "-c", '"$@"; exec cat', "sh"]
    terminal = spawn_in_pty([*shell, *unasked.argv(*words)], env=unasked.environment)
    terminal.read_until(r"\(yes/no/\[fingerprint\]\)\? ")
    newest.touch()
    terminal.write("yes\r")
    found = re.search(r"pid=(\d+)\.", terminal.read_until(r"pid=\d+\."))
    assert found is not None and not unasked.masters
    below = find_descendants(terminal.process.pid)
    [run_pid] = [item.pid for item in below if item.parent == terminal.process.pid]
    os.kill(run_pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(int(found[1])), what="the remote command's end")


def test_sudo_leaves_nothing_in_anothers_folder(place: Harbour, tmp_path: Path) -> None:
    """A runtime folder of another user's is none of ours."""
    if os.getuid() != 0 or sys.platform != "linux":
        pytest.skip("only root can make another user's folder")
    os.chown(tmp_path, 12345, 12345)
    from xsshpy.mux.sharing import _folders

    assert str(tmp_path) not in "".join(_folders({"XDG_RUNTIME_DIR": str(tmp_path)}))
