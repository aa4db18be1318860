"""xssh, ssh or another program at work in the background, while a test looks at its windows."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.support.processes import Completed, end_popen, send_signal, wait_until, xssh_command
from tests.support.warmstart import open_process


class Session:
    """A program whose output is gathered in files, so that it never waits for a reader."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], directory: Path) -> None:
        stem = f"session-{time.monotonic_ns()}"
        self._stdout = directory / f"{stem}.out"
        self._stderr = directory / f"{stem}.err"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = open_process(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=dict(env),
                cwd=directory,
            )

    @property
    def stdout(self) -> str:
        """What it wrote so far."""
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it complained about so far."""
        return self._stderr.read_text(errors="replace")

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def wait_for_output(self, text: str, timeout: float = 20.0) -> None:
        """Wait until stdout has ``text``; AssertionError shows what there is instead."""
        wait_until(lambda: text in self.stdout or not self.runs, timeout=timeout, what=f"{text!r}")
        assert text in self.stdout, f"no {text!r} in {self.stdout!r}; stderr: {self.stderr!r}"

    def wait_for_message(self, text: str, timeout: float = 20.0) -> None:
        """Wait until stderr has ``text``."""
        wait_until(lambda: text in self.stderr or not self.runs, timeout=timeout, what=f"{text!r}")
        assert text in self.stderr, f"no {text!r} in {self.stderr!r}"

    def signal(self, number: int) -> None:
        """Send it a signal."""
        send_signal(self.process.pid, number)

    def wait(self, timeout: float = 20.0) -> Completed:
        """Wait for the end; AssertionError tells what it said when it does not come."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still runs after {timeout:g} s; stdout: {self.stdout!r}; stderr: {self.stderr!r}"
            ) from None
        return Completed(status, self.stdout.encode(), self.stderr)


@contextmanager
def started(argv: Sequence[str], env: Mapping[str, str], directory: Path) -> Iterator[Session]:
    """Start a program in the background; it is ended afterwards if the test did not."""
    session = Session(argv, env, directory)
    try:
        yield session
    finally:
        end_popen(session.process)


def started_xssh(
    argv: Sequence[str], env: Mapping[str, str], directory: Path
) -> AbstractContextManager[Session]:
    """Start xssh from this checkout in the background; ``argv`` is what follows ``xssh``."""
    return started([*xssh_command(), *argv], env, directory)
