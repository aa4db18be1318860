"""``-W``, beside ssh: standard input and output carried to a target."""

from __future__ import annotations

import os
import shlex
import socket
import time
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, Pair, describe_difference, plain
from tests.integration._targets import PATIENCE, digest, echo, fill, mirror, read_all, target
from tests.support.processes import Completed, end_popen, wait_until

both_programs = pytest.mark.parametrize("program", PROGRAMS)
MEGABYTE = 1 << 20


def test_input_and_output(pair: Pair) -> None:
    """The answer comes only after the end of our input: a half-close."""
    with target(mirror) as server:
        for data in (b"", b"abc", os.urandom(500_000)):
            done = pair.both(["-W", server.address, "server"], stdin=data)
            assert done == Completed(0, data[::-1], "")


def test_other_kinds_of_input(pair: Pair) -> None:
    with target(mirror) as server:
        words = ["-W", server.address, "server"]
        for script in (
            '"$@" < /dev/null; echo $?',
            'printf abc > "$HOME/f"; "$@" < "$HOME/f"; echo $?',
            '"$@" <&-; echo $?',
            'printf abc | "$@" 2>&-; echo $?',
        ):
            done = pair.both_in_shell(words, script)
            assert done.stdout.endswith(b"0\n"), script


def test_unix_target(pair: Pair, short_directory: Path) -> None:
    """Understood since OpenSSH 9.4."""
    with target(mirror, short_directory / "target") as server:
        done = pair.run("xssh", ["-W", server.address, "server"], stdin=b"abc")
        assert done == Completed(0, b"cba", "")


@both_programs
def test_target_that_ends(pair: Pair, program: str) -> None:
    """Its end is the end, even of its own direction alone, though our input stays open."""

    def half_close(connection: socket.socket) -> bytes:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)

    for handler in (half_close, lambda connection: connection.sendall(b"bye")):
        with target(handler) as server:
            process = pair.start(program, ["-W", server.address, "server"])
            try:
                assert process.stdout is not None
                assert process.stdout.read() == b"bye"
                assert process.wait(PATIENCE) == 0
                server.wait_for()
            finally:
                end_popen(process)


def test_refused(pair: Pair) -> None:
    for aim in ("127.0.0.1:1", "nohost.invalid:1"):
        done = pair.both(["-W", aim, "server"])
        assert done.status == 255
        assert done.stderr.startswith("channel 0: open failed: connect failed: ")
        assert done.stderr.endswith("\nstdio forwarding failed\n")
    assert pair.both(["-q", "-W", "127.0.0.1:1", "server"]) == Completed(255, b"", "")


def test_bad_specification(pair: Pair) -> None:
    for text in ("a", "a:0", "[a"):
        done = pair.both(["-W", text, "server"])
        expected = f"Bad stdio forwarding specification '{text}'\n"
        assert (done.status, done.stderr) == (255, expected)


def test_much_of_it(pair: Pair) -> None:
    """An echo of 30 MB, both directions at once."""
    data = os.urandom(MEGABYTE) * 30
    with target(echo) as server:
        done = pair.run("xssh", ["-W", server.address, "server"], stdin=data, timeout=60)
    assert (done.status, digest(done.stdout), done.stderr) == (0, digest(data), "")


def test_slow_reader(pair: Pair) -> None:
    """Our reader holds the target back; all that it sent arrives later."""

    def flood(connection: socket.socket) -> int:
        sent = fill(connection)
        connection.shutdown(socket.SHUT_WR)
        return sent

    with target(flood) as server:
        process = pair.start("xssh", ["-W", server.address, "server"])
        try:
            (sent,) = server.wait_for()
            assert isinstance(sent, int)
            assert MEGABYTE < sent < 40 * MEGABYTE
            out, err = process.communicate(timeout=PATIENCE)
            assert (len(out), err, process.returncode) == (sent, b"", 0)
        finally:
            end_popen(process)


def test_target_that_does_not_read(pair: Pair) -> None:
    """It holds our input back, and its end is ours."""

    def sleep(connection: socket.socket) -> None:
        time.sleep(1.5)

    with target(sleep) as server, open("/dev/zero", "rb") as zero:
        words = ["-W", server.address, "server"]
        process = pair.start("xssh", words, stdin=zero.fileno())
        try:
            time.sleep(1)
            assert read_bytes(process.pid) < 80 * MEGABYTE
            assert process.wait(PATIENCE) == 0
        finally:
            end_popen(process)


def read_bytes(pid: int) -> int:
    """Return how much a process has read, its own program included."""
    with open(f"/proc/{pid}/io") as table:
        return int(dict(line.split(": ") for line in table)["rchar"])


@both_programs
def test_reader_that_leaves(pair: Pair, program: str) -> None:
    """The target is told by the end of our input; what it still says goes by."""

    def talk(connection: socket.socket) -> bytes:
        connection.sendall(b"line\n" * 3)
        said = connection.recv(9)
        connection.sendall(b"more\n" * 30000)
        return said + read_all(connection)

    with target(talk) as server:
        script = '(sleep 1; echo end) | ("$@"; echo "status $?" >&3) 3>&2 | head -n 1'
        done = pair.shell(program, ["-W", server.address, "server"], script)
        assert done.stdout == b"line\n"
        assert "status 0" in done.stderr
        assert server.wait_for() == [b"end\n"]


def test_connection_that_is_lost(pair: Pair) -> None:
    ends = {}
    for program in PROGRAMS:
        with target(echo) as server:
            process = pair.start(program, ["-W", server.address, "server"])
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(b"x")
                process.stdin.flush()
                assert process.stdout.read(1) == b"x"
                pair.server.kill_sessions()
                process.wait(PATIENCE)
                out, err = process.communicate(timeout=PATIENCE)
                ends[program] = plain(Completed(process.returncode, out, err.decode()))
            finally:
                end_popen(process)
    assert ends["xssh"] == ends["ssh"], describe_difference(ends["xssh"], ends["ssh"])


@both_programs
def test_signal(pair: Pair, program: str) -> None:
    with target(echo) as server:
        process = pair.start(program, ["-W", server.address, "server"])
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x")
            process.stdin.flush()
            assert process.stdout.read(1) == b"x"
            process.terminate()
            wait_until(lambda: process.poll() is not None, what="the end")
            server.wait_for()
        finally:
            end_popen(process)


@both_programs
def test_carries_another_connection(pair: Pair, program: str) -> None:
    """A ProxyCommand made of -W: ssh through xssh, and xssh through itself."""
    server = pair.server
    inner = " ".join(shlex.quote(word) for word in pair.argv(program, ["-W", "%h:%p", "server"]))
    pair.home.add(server, alias="behind", extra=f"ForwardX11 no\n  ProxyCommand {inner}")
    for outer in PROGRAMS:
        done = pair.run(outer, ["behind", "cat; exit 3"], stdin=b"abc" * 1000)
        assert (done.status, done.stdout) == (3, b"abc" * 1000), done.stderr
