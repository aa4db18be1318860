"""A start that imports with the collector off and without TLS, and an end that loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_libraries import python

ROOT = Path(__file__).parents[2]


def end(code: str, stdout: int | None = subprocess.PIPE) -> tuple[int, str]:
    """Run code that ends by QuickEnd; return the status and what stdout got."""
    done = subprocess.run(
        [sys.executable, "-c", f"from xsshpy.loading import QuickEnd\nimport sys, atexit\n{code}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.returncode, (done.stdout or "") + done.stderr


BEGIN = "end = QuickEnd()\n"


@pytest.mark.parametrize("status", [0, 7, 255])
def test_output_is_written_and_the_status_is_kept(status: int) -> None:
    lines = "print('x' * 100000, end=''); sys.stderr.write('y')\n"
    found = end(f"{BEGIN}{lines}end.status = {status}; sys.exit({status})")
    assert found == (status, "x" * 100000 + "y")


def test_what_runs_at_exit_runs() -> None:
    code = "atexit.register(print, 'late'); end.status = 3; sys.exit(3)"
    assert end(BEGIN + code) == (3, "late\n")


def test_threads_are_waited_for() -> None:
    code = (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('done'))).start()\n"
        "end.status = 3; sys.exit(3)"
    )
    assert end(BEGIN + code) == (3, "done\n")


def test_it_takes_nothing_apart() -> None:
    doomed = "class Doomed:\n  def __del__(self): print('apart')\nkept = Doomed()\n"
    assert end(f"{BEGIN}{doomed}end.status = 0; sys.exit(0)") == (0, "")
    assert end(f"{doomed}sys.exit(0)") == (0, "apart\n")


def test_who_was_there_before_is_not_passed_over() -> None:
    code = f"atexit.register(print, 'measured')\n{BEGIN}end.status = 4; sys.exit(4)"
    assert end(code) == (4, "measured\n")


def test_an_exception_is_shown() -> None:
    status, said = end(f"{BEGIN}raise ValueError('unexpected')")
    assert status == 1 and "ValueError: unexpected" in said


def test_output_that_cannot_be_written_is_said() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        status, said = end(f"{BEGIN}print('x'); end.status = 0; sys.exit(0)", writer)
    finally:
        os.close(writer)
    assert status == 120 and "Broken pipe" in said


def test_asyncio_without_tls() -> None:
    code = (
        "from xsshpy.loading import import_asyncio; import_asyncio(); import sys, asyncio;"
        "print('ssl' in sys.modules, asyncio.run(asyncio.sleep(0, 5)));"
        "import ssl; print(ssl.OPENSSL_VERSION != '')"
    )
    assert python(code) == "False 5\nTrue"


def test_asyncio_is_left_as_it_is_where_it_is_loaded() -> None:
    code = (
        "import asyncio.sslproto, sys; from xsshpy.loading import import_asyncio;"
        "import_asyncio(); print('ssl' in sys.modules, asyncio.sslproto.ssl is not None)"
    )
    assert python(code) == "True True"


def test_garbage_is_collected_again() -> None:
    code = (
        "import gc; from xsshpy.loading import pause_collection, resume_collection;"
        "pause_collection(); print(gc.isenabled()); resume_collection();"
        "print(gc.isenabled(), gc.get_freeze_count() > 1000)"
    )
    assert python(code) == "False\nTrue True"
