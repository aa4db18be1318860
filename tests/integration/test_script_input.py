"""Where a script comes from and what follows it: waits that can be broken off, bounded memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.integration._pairs import Pair
from tests.support.processes import end_popen, wait_until, xssh_command

MOST_GROWTH = 100 << 20
"""Bytes that a run may need more than when it began."""


def start_script(pair: Pair, script: Path, **streams: object) -> subprocess.Popen[bytes]:
    argv = [*xssh_command(), "-x", *pair.home.arguments, "--script", str(script), "server"]
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        argv, env=pair.environment, start_new_session=True, **streams
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_script_that_nobody_writes_can_be_broken_off(
    pair: Pair, tmp_path: Path, number: signal.Signals
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start_script(pair, fifo, **pipes)
    writer = -1
    try:
        while writer < 0:  # until there is a reader
            assert process.poll() is None
            with contextlib.suppress(OSError):
                writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=5)
        assert process.returncode in (-number, 128 + number), process.returncode
        assert out == b"" and b"Traceback" not in err, err
    finally:
        end_popen(process)
        os.close(writer)


def test_a_script_comes_through_a_fifo(pair: Pair, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_text("print('from a fifo')\n"))
    writer.start()
    done = pair.run("xssh", ["-x", "--script", str(fifo), "server"])
    writer.join(10)
    assert (done.status, done.stdout) == (0, b"from a fifo\n"), done


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_large_script_before_endless_input_takes_little_memory(
    pair: Pair, tmp_path: Path
) -> None:
    """The script waits in the channel's window; what comes after it has to wait outside."""
    started, ended = tmp_path / "started", tmp_path / "ended"
    script = tmp_path / "large.py"
    text = (
        "import os, time\n"
        f"open({str(started)!r}, 'w').close()\n"
        f"while not os.path.exists({str(ended)!r}): time.sleep(0.05)\n"
        f"os.remove({str(ended)!r})\n"
        f"x = '{os.urandom(4 << 20).hex()}'\n"
    )
    script.write_text(text)
    with Path("/dev/zero").open("rb") as zero:
        process = start_script(pair, script, stdin=zero, stdout=subprocess.DEVNULL)
        try:
            first = most = 0
            ends = time.monotonic() + 20
            while time.monotonic() < ends and not started.exists():
                most = max(most, resident_bytes(process.pid))
                first = first or most
                assert process.poll() is None
                time.sleep(0.02)
            assert started.exists()
            ends = time.monotonic() + 1
            while time.monotonic() < ends:
                most = max(most, resident_bytes(process.pid))
                time.sleep(0.02)
            assert most < MOST_GROWTH + first, f"{most >> 20} MiB"
        finally:
            end_popen(process)
            ended.touch()
            wait_until(lambda: not ended.exists(), what="the script to end")
