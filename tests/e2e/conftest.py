"""What plots need, made once: matplotlib takes seconds to look at all fonts of a machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.processes import run
from tests.support.tools import skip_or_fail

PYTHONS = (sys.executable, "/usr/bin/python3")
"""This one, and Debian's, which has GTK and Qt 5."""


@pytest.fixture(scope="session")
def font_lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with each matplotlib's list of fonts, for all workers of a run."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    directory /= "fonts"
    directory.mkdir(exist_ok=True)
    environment = {"MPLCONFIGDIR": str(directory), "HOME": str(directory), "PATH": "/usr/bin:/bin"}
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for number, python in enumerate(PYTHONS):
            mark = directory / f"made-{number}"
            if os.path.exists(python) and not mark.exists():
                run([python, "-c", "import matplotlib.font_manager"], env=environment, timeout=100)
                mark.touch()
    return directory


def copy_font_lists(lists: Path, directory: Path) -> None:
    """Put them where a MPLCONFIGDIR is to be."""
    for path in lists.glob("fontlist*.json"):
        shutil.copy(path, directory)


@pytest.fixture(scope="session")
def matplotlib_cache(session_directory: Path, font_lists: Path) -> Path:
    """A matplotlib that works with Tk, and a directory for what it keeps."""
    directory = session_directory / "matplotlib"
    directory.mkdir()
    copy_font_lists(font_lists, directory)
    code = "import tkinter; import matplotlib.font_manager"
    done = run(
        [sys.executable, "-c", code],
        env={"MPLCONFIGDIR": str(directory), "HOME": str(directory), "PATH": "/usr/bin:/bin"},
        timeout=100,
    )
    if done.status != 0:
        skip_or_fail(f"this Python cannot draw with Tk: {done.stderr.strip()[-200:]}")
    return directory
