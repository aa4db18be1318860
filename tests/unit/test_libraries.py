"""How asyncssh is loaded: no program is started for it, and nothing is left changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import asyncssh
import pytest

from xsshpy.errors import LibraryError
from xsshpy.ssh.libraries import require_known

ROOT = Path(__file__).parents[2]

SPY = """
import sys
started = []
sys.addaudithook(
    lambda event, arguments: started.append(arguments[0])
    if event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec") else None
)
"""


def python(code: str, **environment: str) -> str:
    """Run Python code in a process of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_no_program_is_started() -> None:
    assert python(SPY + "import xsshpy.ssh.connect; print(started)") == "[]"


def test_no_temporary_file_is_needed() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        "import xsshpy.ssh.connect; print('loaded')"
    )
    assert python(code) == "loaded"


def test_another_thread_that_is_importing_misses_no_finder() -> None:
    code = (
        "import sys; from xsshpy.ssh.libraries import speed_up_import; speed_up_import();"
        "way = iter(sys.meta_path); last = [next(way) for _ in sys.meta_path[1:]];"
        "import asyncssh; print(list(way) == sys.meta_path[-1:])"
    )
    assert python(code) == "True"


def test_the_search_is_as_it_was() -> None:
    code = (
        "import ctypes.util, sys; search, finders = ctypes.util.find_library, sys.meta_path[:];"
        "import xsshpy.ssh.connect, inspect, asyncssh;"
        "print(ctypes.util.find_library is search, sys.meta_path == finders,"
        " 'exec_module' in vars(asyncssh.__loader__), len(inspect.getsource(asyncssh)) > 1000)"
    )
    assert python(code) == "True True False True"


def test_loaded_alone_it_finds_the_same() -> None:
    """The optional algorithms are those that asyncssh finds by itself."""
    show = (
        "from asyncssh.kex import get_kex_algs; from asyncssh.mac import get_mac_algs;"
        "print(sorted(get_kex_algs()), sorted(get_mac_algs()))"
    )
    assert python("import xsshpy.ssh.connect;" + show) == python(show)


def test_light_modules_stay_light() -> None:
    code = "import xsshpy.ssh.environment, sys; print({'asyncssh', 'ctypes'} & set(sys.modules))"
    assert python(code) == "set()"


def test_missing_asyncssh_is_said_by_python_itself(tmp_path: Path) -> None:
    code = (
        "import sys, xsshpy\n"
        "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "import xsshpy.ssh\n"
        "try: import asyncssh\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    assert python(code) == "No module named 'asyncssh'"


@pytest.mark.parametrize("version", ["2.24.1", "2.24.2", "2.24.10", "2.24.1.post1"])
def test_a_known_asyncssh(version: str) -> None:
    require_known(version)


@pytest.mark.parametrize(
    "version", ["2.24.0", "2.24", "2.23.9", "1.99.1", "2.25.0", "2.25", "3.0.0", "", "x"]
)
def test_another_asyncssh_is_refused(version: str) -> None:
    said = f"^xssh: asyncssh {version} is installed: xssh works with 2.24.1 or later, below 2.25$"
    with pytest.raises(LibraryError, match=said) as caught:
        require_known(version)
    remedy = f"{sys.executable} -m pip install 'asyncssh>=2.24.1,<2.25'"
    assert caught.value.remedy == remedy
    project = ROOT / "pyproject.toml"
    assert re.search('"(asyncssh.*?)"', project.read_text())[1] in remedy  # type: ignore[index]


def test_another_asyncssh_ends_the_run(short_directory: Path) -> None:
    assert asyncssh.__file__ is not None
    copy = short_directory / "asyncssh"
    shutil.copytree(Path(asyncssh.__file__).parent, copy)
    text = (copy / "version.py").read_text()
    (copy / "version.py").write_text(text.replace("'2.24.", "'2.99."))
    done = subprocess.run(
        [sys.executable, "-m", "xsshpy", "--share", "no", "-p", "1", "127.0.0.1", "true"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(short_directory), str(ROOT)])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (255, "")
    assert done.stderr.startswith("xssh: asyncssh 2.99.") and "try: " in done.stderr
