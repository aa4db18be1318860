"""stdin, stdout and stderr of a remote command: 8-bit clean, bounded, ended as ssh ends them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, Pair
from tests.support.processes import end_popen, wait_until

ALL_BYTES = bytes(range(256)) * 3 + b"\r\n\n\r~.\n~?\x00\xff" + "žluťoučký \U0001f389\n".encode()
EMIT_ALL_BYTES = "python3 -c 'import os; os.write(1, bytes(range(256)))'"

# --- What goes through --------------------------------------------------------------------------


def test_every_byte_both_ways(pair: Pair) -> None:
    assert pair.both(["server", "cat"], stdin=ALL_BYTES).stdout == ALL_BYTES
    assert pair.both(["server", EMIT_ALL_BYTES]).stdout == bytes(range(256))


def test_order_of_stdout_and_stderr_on_the_same_terminal(pair: Pair) -> None:
    """What came first is shown first, also where both go to one place."""
    command = "for i in 1 2 3 4 5; do echo out $i; sleep 0.02; echo err $i >&2; sleep 0.02; done"
    script = '"$@" 2>&1'
    for _ in range(3):
        assert pair.both_in_shell(["server", command], script).stdout.split() == [
            word for i in b"12345" for word in (b"out", b"%c" % i, b"err", b"%c" % i)
        ]


def test_stdout_that_nobody_reads_does_not_hold_stderr_up(pair: Pair) -> None:
    words = ["server", "head -c 1000000 /dev/zero; echo err >&2; cat"]
    process = pair.start("xssh", words)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == b"err\n"
    finally:
        end_popen(process)


def test_stderr_is_binary_too(pair: Pair) -> None:
    script = 'exec 2>&1 >/dev/null; "$@"'
    done = pair.both_in_shell(["server", f"{EMIT_ALL_BYTES} >&2"], script)
    assert done.stdout == bytes(range(256))


def test_terminal_merges_stderr_and_stdout(pair: Pair) -> None:
    done = pair.run("xssh", ["-tt", "server", "stty -onlcr; echo out; echo err >&2; tty"])
    assert done.stdout.startswith(b"out\nerr\n/dev/")


def test_quick_end_loses_no_output(pair: Pair) -> None:
    words = ["server", "head -c 3000000 /dev/zero; echo end >&2; exit 9"]
    done = pair.both(words)
    assert (done.status, len(done.stdout), done.stderr) == (9, 3000000, "end\n")


# --- Where stdin comes from ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        '"$@" < "$0.data"',
        '"$@" </dev/null',
        'head -c 100000 /dev/zero | "$@"',
        '"$@" <&-',
        ': | "$@"',
        '(printf a; sleep 0.3; printf b) | "$@"',
        'exec 3<>"$0.data"; "$@" <&3',
        '(read -r line; "$@"; cat) < "$0.data"',
    ],
)
def test_stdin_of_every_kind(pair: Pair, script: str, short_directory: Path) -> None:
    name = short_directory / "file"
    results = []
    for program in PROGRAMS:
        Path(f"{name}.data").write_bytes(b"line\n" + b"0123456789" * 5000)
        argv = pair.argv(program, ["server", "wc -c"])
        done = subprocess.run(
            ["bash", "-c", script, str(name), *argv],
            capture_output=True,
            env=pair.environment,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )
        results.append((done.returncode, done.stdout, done.stderr))
    assert results[1] == results[0]


def test_n_and_stdin_null_leave_stdin_alone(pair: Pair) -> None:
    script = 'printf "x\\ny\\n" | (while read -r line; do "$@"; echo "$line"; done)'
    for words in (["-n", "server", "cat"], ["-oStdinNull=yes", "server", "cat"]):
        assert pair.both_in_shell(words, script).stdout == b"x\ny\n"


def test_stdin_that_never_ends_does_not_keep_it(pair: Pair) -> None:
    pair.both_in_shell(["server", "echo done"], '"$@" </dev/zero')
    pair.both_in_shell(["server", "head -c 1000000 | md5sum"], '"$@" </dev/zero')
    pair.both_in_shell(["server", "head -c 5; exec <&-; echo; echo z"], 'yes | "$@"')


def test_standard_descriptors_that_are_closed(pair: Pair) -> None:
    words = ["server", "echo out; echo err >&2; cat; exit 4"]
    for script in ('"$@" >&-', '"$@" 2>&-', '"$@" <&-', '"$@" <&- >&- 2>&-; echo "$?"'):
        expected, found = (pair.shell(program, words, script) for program in PROGRAMS)
        assert (found.status, found.stdout) == (expected.status, expected.stdout), script
        assert "Traceback" not in found.stderr


# --- Where stdout goes --------------------------------------------------------------------------


def test_reader_that_leaves_early(pair: Pair) -> None:
    """What the reader took is the same, and the end comes at once, as with ssh."""
    script = '("$@"; echo "status $?" >&3) 3>&2 | head -c 6'
    for command in ("yes", "yes; echo never >&2; exit 3", "seq 3; sleep 0.2; yes"):
        done = pair.both_in_shell(["server", command], script, timeout=20)
        assert len(done.stdout) == 6


def test_reader_that_leaves_before_the_end(pair: Pair) -> None:
    script = '("$@"; echo "status $?" >&3) 3>&2 | true'
    pair.both_in_shell(["server", "sleep 0.3; echo x; exit 3"], script, timeout=20)


def test_stderr_reader_that_leaves_early(pair: Pair) -> None:
    script = '("$@" 2>&4; echo "status $?" >&3) 3>&1 4>&1 >/dev/null | (sleep 0.5; cat)'
    pair.both_in_shell(["server", "echo err >&2; exit 3"], script)
    script = '{ { "$@" 2>&1 >&5; echo "status $?" >&3; } | true; } 3>&2 5>&1'
    command = "sleep 0.3; echo e >&2; sleep 0.3; seq 9; exit 3"
    assert b"9" in pair.both_in_shell(["server", command], script).stdout


def test_stdout_on_a_full_disk(pair: Pair) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    for program in PROGRAMS:
        done = pair.shell(program, ["server", "echo x; exit 3"], '"$@" > /dev/full')
        assert done.status in (3, 255)
        assert "Traceback" not in done.stderr


def test_stdout_that_is_non_blocking(pair: Pair) -> None:
    """Flags of a descriptor are shared: found non-blocking, it works, and is left as it was."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = pair.start("xssh", ["server", "head -c 2000000 /dev/zero"], stdout=writer)
    try:
        time.sleep(0.5)
        assert not os.get_blocking(writer)
        os.close(writer)
        size = 0
        while piece := os.read(reader, 1 << 16):
            size += len(piece)
        assert size == 2000000
        assert process.wait(10) == 0
    finally:
        os.close(reader)
        end_popen(process)


def test_descriptors_keep_their_flags(pair: Pair) -> None:
    reader, writer = os.pipe()
    process = pair.start("xssh", ["server", "echo x; cat"], stdin=reader, stdout=writer)
    try:
        pair.server.wait_for_log("Starting session")
        time.sleep(0.3)
        assert os.get_blocking(reader)
        assert os.get_blocking(writer)
    finally:
        os.close(writer)
        os.close(reader)
        end_popen(process)


# --- Much of it ---------------------------------------------------------------------------------

MEGABYTE = 1 << 20
HUNDRED_MEGABYTES = 100 * 1000 * 1000


def test_hundred_megabytes_down(pair: Pair) -> None:
    remote = (
        "python3 -c '"
        "import sys; block = bytes(range(251)) * 4000\n"
        f"n = {HUNDRED_MEGABYTES}\n"
        "while n: p = block[:n]; sys.stdout.buffer.write(p); n -= len(p)'"
    )
    block = bytes(range(251)) * 4000
    expected, left = hashlib.sha256(), HUNDRED_MEGABYTES
    while left:
        expected.update(block[:left])
        left -= len(block[:left])
    process = pair.start("xssh", ["server", remote], stdin=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        found = hashlib.sha256()
        while piece := process.stdout.read(MEGABYTE):
            found.update(piece)
        assert process.wait(10) == 0
        assert found.hexdigest() == expected.hexdigest()
    finally:
        end_popen(process)


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_hundred_megabytes_up(pair: Pair, kind: str, short_directory: Path) -> None:
    block = bytes(range(249)) * 4016
    expected = hashlib.sha256()
    data = short_directory / "data"
    with data.open("wb") as file:
        left = HUNDRED_MEGABYTES
        while left:
            piece = block[:left]
            file.write(piece)
            expected.update(piece)
            left -= len(piece)
    script = '"$@" < "$DATA"' if kind == "file" else 'cat "$DATA" | "$@"'
    argv = pair.argv("xssh", ["server", "sha256sum; echo end"])
    done = subprocess.run(
        ["bash", "-c", script, "bash", *argv],
        capture_output=True,
        env={**pair.environment, "DATA": str(data)},
        timeout=90,
    )
    assert done.stdout.decode() == f"{expected.hexdigest()}  -\nend\n"
    assert (done.returncode, done.stderr) == (0, b"")


def resident_memory(pid: int) -> int:
    """Return how many bytes of memory a process holds now."""
    with open(f"/proc/{pid}/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")


@needs_proc
def test_slow_reader_holds_the_sender_back(pair: Pair) -> None:
    """300 MB for a reader that sleeps: memory stays bounded, and everything arrives later."""
    total = 300 * MEGABYTE
    process = pair.start("xssh", ["server", f"echo go; head -c {total} /dev/zero"])
    try:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 3) == b"go\n"
        before = resident_memory(process.pid)
        grown = 0
        for _ in range(30):
            time.sleep(0.1)
            grown = max(grown, resident_memory(process.pid) - before)
        assert grown < 150 * MEGABYTE
        left = total
        while left and (piece := os.read(process.stdout.fileno(), MEGABYTE)):
            left -= len(piece)
        assert (left, process.wait(10)) == (0, 0)
    finally:
        end_popen(process)


@needs_proc
def test_remote_that_does_not_read_holds_us_back(pair: Pair) -> None:
    """Endless input to a program that sleeps: memory stays bounded; its end is our end."""
    with open("/dev/zero", "rb") as zero:
        words = ["server", "echo go; sleep 3; exit 5"]
        process = pair.start("xssh", words, stdin=zero.fileno())
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        before = resident_memory(process.pid)
        grown = used = 0
        for _ in range(20):
            time.sleep(0.1)
            grown = max(grown, resident_memory(process.pid) - before)
        used = processor_seconds(process.pid)
        time.sleep(0.5)
        assert processor_seconds(process.pid) - used < 0.3
        assert grown < 80 * MEGABYTE
        assert process.wait(20) == 5
    finally:
        end_popen(process)


def processor_seconds(pid: int) -> float:
    """Return how much processor time a process has used."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        fields = stat.read().rpartition(b") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@needs_proc
def test_idle_session_uses_no_processor(pair: Pair) -> None:
    process = pair.start("xssh", ["server", "echo go; cat"])
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        time.sleep(0.3)
        before = processor_seconds(process.pid)
        time.sleep(1)
        assert processor_seconds(process.pid) - before <= 0.05
    finally:
        end_popen(process)


def test_both_directions_at_once(pair: Pair) -> None:
    """An echo of 20 MB: neither side waits for the other forever."""
    data = os.urandom(MEGABYTE) * 20
    done = pair.run("xssh", ["server", "cat"], stdin=data, timeout=60)
    assert done.status == 0
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_interactive_pace(pair: Pair) -> None:
    """A line is answered when it is sent, not when the input ends."""
    process = pair.start("xssh", ["server", "while read -r x; do echo got $x; done"])
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in (b"one", b"two", b"three"):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"got " + word + b"\n"
        process.stdin.close()
        assert process.wait(10) == 0
    finally:
        end_popen(process)


# --- A connection that breaks -------------------------------------------------------------------


def test_server_that_dies_in_the_middle(pair: Pair) -> None:
    ends = {}
    for program in PROGRAMS:
        process = pair.start(program, ["server", "echo go; cat"])
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
            pair.server.kill_sessions()
            process.wait(15)  # before communicate() closes its stdin, which ssh would notice
            out, err = process.communicate(timeout=15)
            ends[program] = (process.returncode, out, err.decode().replace("\r\n", "\n"))
        finally:
            end_popen(process)
    assert ends["xssh"] == ends["ssh"]


def test_server_that_hangs_is_noticed(pair: Pair) -> None:
    words = ["-oServerAliveInterval=1", "-oServerAliveCountMax=1", "server", "echo go; cat"]
    ends = {}
    for program in PROGRAMS:
        process = pair.start(program, words)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
            pair.server.suspend()
            out, err = process.communicate(timeout=20)
            ends[program] = (process.returncode, out, err.decode().replace("\r\n", "\n"))
        finally:
            pair.server.resume()
            end_popen(process)
    assert ends["xssh"] == ends["ssh"]


def test_stdin_left_open_does_not_delay_the_end(pair: Pair) -> None:
    reader, writer = os.pipe()
    process = pair.start("xssh", ["server", "exit 6"], stdin=reader)
    try:
        assert process.wait(15) == 6
    finally:
        os.close(reader)
        os.close(writer)
        end_popen(process)


def test_stdout_reader_that_never_reads_does_not_block_a_signal(pair: Pair) -> None:
    process = pair.start("xssh", ["server", "yes"])
    try:
        pair.server.wait_for_log("Starting session")
        time.sleep(1)
        process.terminate()
        wait_until(lambda: process.poll() is not None, timeout=10, what="the end after SIGTERM")
    finally:
        end_popen(process)
