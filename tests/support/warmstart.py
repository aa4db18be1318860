"""xssh from a process that has loaded its modules: their import is most of what a short run takes.

A process like xssh's own is started once for each worker, imports asyncssh and xsshpy, and waits.
For each xssh it forks a process, which gets the session, descriptors, directory, environment and
arguments that it would have got from exec, and runs main() there. ``Popen`` then has it as a child
of its own.

What an interpreter or libnss_wrapper takes from its environment as it starts can't be given
afterwards: a run that differs in that starts cold. The passwd file is therefore the same for all
tests of a worker, by its name: ``WORKER_ACCOUNT``. So starts what a shell or ``subprocess.Popen``
starts. With XSSH_TESTS_COLD=1 all do.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import gc
import importlib
import inspect
import io
import os
import pickle
import pkgutil
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SETUP = f"import sys; sys.path.insert(0, {_ROOT!r}); sys.argv[0] = 'xssh'; "
_MAIN = "from xsshpy.__main__ import main; sys.exit(main())"
_SERVE = "from tests.support.warmstart import serve; exec(serve(int(sys.argv[1])))"
_LANGUAGE = "C.UTF-8"
_EARLY = ("LC_", "PYTHON", "LD_", "TZ", "MALLOC_", "OPENSSL_", "LANGUAGE", "NSS_WRAPPER_")
_GIVEN = ("LD_PRELOAD", "NSS_WRAPPER_PASSWD", "NSS_WRAPPER_GROUP", "NSS_WRAPPER_HOSTS")
WORKER_ACCOUNT = "worker-account"
"""The directory with the passwd file for which a process waits that starts others."""
_PACKAGES = ("xsshpy", *(f"xsshpy.{name}" for name in ("terminal", "x11", "ssh", "mux", "doctor")))
_LATE = ("concurrent.futures.thread", "encodings.idna", "importlib.readers")
"""What nearly every run imports besides."""
_DEADLINE = 60.0
_LENGTH = struct.Struct("!I")
_register: Any = atexit.register


def xssh_command(before: str = "") -> list[str]:
    """Return the argv that starts xssh from this checkout, from any working directory.

    ``before`` is Python code that runs first: it sets what is a constant, such as a deadline.
    """
    start = f"{_SETUP}exec({before!r}); " if before else _SETUP
    return [sys.executable, "-c", start + _MAIN]


def open_process(argv: Sequence[str], *, terminal: int = -1, **options: Any) -> Any:
    """Start a program in a session of its own, as ``subprocess.Popen`` does, xssh with less delay.

    ``terminal`` becomes its controlling terminal, stdin, stdout and stderr.
    """
    env: Mapping[str, str] | None = options.get("env")
    if terminal >= 0:
        options.update(stdin=terminal, stdout=terminal, stderr=terminal)
    is_xssh = argv[0] == sys.executable and argv[1] == "-c" and argv[2].endswith(_MAIN)
    if is_xssh and env is not None and _can_be_warm(env):
        return _WarmPopen(list(argv), terminal=terminal, start_new_session=True, **options)
    if terminal >= 0:
        options["preexec_fn"] = _take_terminal
    return subprocess.Popen(list(argv), start_new_session=True, **options)


def _can_be_warm(env: Mapping[str, str]) -> bool:
    if not sys.platform.startswith("linux") or os.environ.get("XSSH_TESTS_COLD"):
        return False
    if not all(isinstance(name, str) for name in env):
        return False
    early = [name for name in env if name.startswith(_EARLY) and name not in _GIVEN]
    account = os.path.basename(os.path.dirname(env.get("NSS_WRAPPER_PASSWD", "")))
    return not early and env.get("LANG") == _LANGUAGE and account == WORKER_ACCOUNT


class _Starter:
    """The process that forks others; ``given`` are those of its variables that count early."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.control, other = socket.socketpair()
        self.control.settimeout(_DEADLINE)
        self._lock = threading.Lock()
        env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": _LANGUAGE, **given}
        with other:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SETUP + _SERVE, str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=env,
                pass_fds=(other.fileno(),),
                start_new_session=True,
            )

    def start(self, request: object, descriptors: Sequence[int]) -> int:
        """Return the pid of a new process, a child of this one."""
        data = pickle.dumps(request)
        with self._lock:
            socket.send_fds(self.control, [_LENGTH.pack(len(data))], list(descriptors))
            self.control.sendall(data)
            return int(_LENGTH.unpack(_read(self.control, _LENGTH.size))[0])

    def stop(self) -> None:
        self.control.close()
        self.process.wait(_DEADLINE)


_starters: dict[tuple[str, ...], _Starter] = {}


def list_starters() -> list[_Starter]:
    """Return those that run: their processes and sockets outlive a test."""
    return list(_starters.values())


def stop_starters() -> None:
    """End them."""
    while _starters:
        _starters.popitem()[1].stop()


class _WarmPopen(subprocess.Popen[bytes]):
    def __init__(self, argv: list[str], *, terminal: int, **options: Any) -> None:
        self._has_terminal = terminal >= 0
        super().__init__(argv, **options)

    def _execute_child(self, *values: Any) -> None:
        names = list(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]  # type: ignore[attr-defined]
        given = dict(zip(names, values, strict=False))
        environment = dict(given["env"])
        key = tuple(environment.get(name, "") for name in _GIVEN)
        if key not in _starters:
            # Files of hosts are a test's own; no more than two such processes wait.
            for other in [other for other in _starters if other[-1]]:
                _starters.pop(other).stop()
            _starters[key] = _Starter(
                {name: environment[name] for name in _GIVEN if name in environment}
            )
        cwd = os.path.abspath(given["cwd"] or ".")
        request = (given["args"][2:], environment, cwd, self._has_terminal)
        streams = enumerate(given[name] for name in ("p2cread", "c2pwrite", "errwrite"))
        own = [number if descriptor < 0 else descriptor for number, descriptor in streams]
        self.pid = _starters[key].start(request, own)
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in ends))  # type: ignore[attr-defined]


def _read(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = control.recv(size - len(data))
        if not piece:
            raise EOFError("the process that starts others has ended")
        data += piece
    return data


# From here on: in the process that was started.


def serve(descriptor: int) -> str:
    """Fork for each request; in the new process, furnished as it asks, return what it is to run."""
    from xsshpy.ssh.libraries import speed_up_import

    registered = _collect_callbacks()
    speed_up_import()
    for package in _PACKAGES:
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if found.name != "__main__":
                importlib.import_module(f"{package}.{found.name}")
    for name in _LATE:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=descriptor)
    while True:
        length, descriptors, _, _ = socket.recv_fds(control, _LENGTH.size, 3)
        if not length:
            os._exit(0)
        request = pickle.loads(_read(control, _LENGTH.unpack(length)[0]))
        pid = _fork_twice()
        if pid == 0:
            control.close()
            _register_after_the_first(registered)
            return _furnish(request, descriptors)
        control.sendall(_LENGTH.pack(pid))
        for each in descriptors:
            os.close(each)


def _collect_callbacks() -> list[Callable[..., object]]:
    """Return a list that gets what modules want done at exit, instead of the interpreter."""
    registered: list[Callable[..., object]] = []

    def collect(function: Any, *args: Any, **options: Any) -> Any:
        registered.append(functools.partial(function, *args, **options))
        return function

    atexit.register = collect  # type: ignore[assignment]
    return registered


def _register_after_the_first(functions: Sequence[Callable[..., object]]) -> None:
    """Let these come after whatever is registered first, as when modules are loaded later.

    xssh's own quick end is made only where nothing else waits for the exit. Without it the
    interpreter takes itself down object by object, and copies for this each page that it shares.
    """

    def register_first(function: Any, *args: Any, **options: Any) -> Any:
        atexit.register = _register
        for each in (functools.partial(function, *args, **options), *functions):
            _register(each)
        return function

    atexit.register = register_first  # type: ignore[assignment]


def _fork_twice() -> int:
    """Return 0 in a process that nobody here waits for, and its pid here once it is an orphan."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        between = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(receive)
            os.close(send)
            while os.getppid() == between:
                time.sleep(0.0005)
            return 0
        os.write(send, _LENGTH.pack(pid))
        os._exit(0)
    os.close(send)
    os.waitpid(child, 0)
    data = os.read(receive, _LENGTH.size)
    os.close(receive)
    return int(_LENGTH.unpack(data)[0])


def _furnish(request: tuple[list[str], dict[str, str], str, bool], own: Sequence[int]) -> str:
    (code, *words), environment, directory, has_terminal = request
    os.setsid()
    for target, source in enumerate(own):
        os.dup2(source, target)
    for source in own:
        os.close(source)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    if has_terminal:
        _take_terminal()
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            stream = _open_standard(number)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    sys.argv = ["-c", *words]
    return code


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _open_standard(number: int) -> io.TextIOWrapper:
    """Return a standard stream on a terminal, as the interpreter opens it."""
    file = open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115
    errors = "backslashreplace" if number == 2 else "surrogateescape"
    return io.TextIOWrapper(file, "utf-8", errors, line_buffering=True)
