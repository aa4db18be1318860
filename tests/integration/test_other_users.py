"""Another user of this machine, and of the server, for real: what he tries, and what comes of it.

The folders around are open to him, as /tmp and many a home folder are; what keeps him out is ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.integration._pairs import Pair
from tests.support.agenthost import AgentHost
from tests.support.beside import PROGRAMS
from tests.support.clients import ClientHome
from tests.support.masters import Master
from tests.support.processes import end_popen, wait_until
from tests.support.sshd import SshServer
from tests.support.warmstart import open_process
from xsshpy.mux.messages import AliveCheck, Hello, encode
from xsshpy.mux.sharing import _prepare_folder
from xsshpy.mux.sockets import listen
from xsshpy.remote import listener

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="only root can be somebody else"
)
OTHER = 12345
RACE_SECONDS = 1.0
PROLOGUE = """
import json, os, socket, stat, sys, time
def attempt(work):
    try:
        return work()
    except OSError as error:
        return type(error).__name__
def unix(path, said=b""):
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(10)
    link.connect(path)
    if not said:
        return "connected"
    link.sendall(said)
    return link.recv(4096).hex()
"""


def start_other(code: str, *words: str) -> subprocess.Popen[bytes]:
    """Start Python as another user."""
    python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    if python is None:
        pytest.skip("needs a python3 that everybody may run")
    return subprocess.Popen(
        [python, "-I", "-c", PROLOGUE + code, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd="/",
        user=OTHER,
        group=OTHER,
        extra_groups=[],
    )


def ask_other(code: str, *words: str) -> object:
    """Return the value of an expression, as another user has it."""
    process = start_other(f"print(json.dumps({code}))", *words)
    said, _ = process.communicate(timeout=30)
    return json.loads(said)


@pytest.fixture
def open_directory(short_directory: Path) -> Path:
    """A folder that everybody may enter and look into."""
    short_directory.chmod(0o755)
    path = short_directory / "open"
    path.mkdir()
    path.chmod(0o755)
    return path


@pytest.fixture
def master(sshd: SshServer, client_home: ClientHome, open_directory: Path) -> Iterator[Master]:
    client_home.add(sshd, extra="ForwardX11 no")
    made = Master("xssh", client_home, open_directory)
    yield made
    made.stop()


def test_the_control_socket(master: Master) -> None:
    path = str(master.path)
    assert ask_other("attempt(lambda: unix(sys.argv[1]))", path) == "PermissionError"
    for theft in ("unlink", "chmod", "rename"):
        rest = {"unlink": "", "chmod": ", 0o666", "rename": ", sys.argv[1] + 'x'"}[theft]
        code = f"attempt(lambda: os.{theft}(sys.argv[1]{rest}))"
        assert ask_other(code, path) == "PermissionError", theft
    # As if the mode had not kept him out: the kernel says who he is.
    master.path.chmod(0o666)
    said = (encode(Hello()) + encode(AliveCheck(1))).hex()
    code = "attempt(lambda: unix(sys.argv[1], bytes.fromhex(sys.argv[2])))"
    for _ in range(3):
        assert ask_other(code, path, said) in ("", "ConnectionResetError", "BrokenPipeError")
    master.path.chmod(0o600)
    assert f"multiplex uid mismatch: peer euid {OTHER} != uid {os.getuid()}" in master.log()
    assert master.ride("echo served").stdout == b"served\n"


def test_many_at_the_control_socket_keep_nobody_out(master: Master) -> None:
    master.path.chmod(0o666)
    crowd = start_other(
        "links = [socket.socket(socket.AF_UNIX) for _ in range(400)]\n"
        "[attempt(lambda: each.connect(sys.argv[1])) for each in links]\n"
        "print(flush=True); time.sleep(60)",
        str(master.path),
    )
    try:
        assert crowd.stdout is not None
        crowd.stdout.readline()
        master.path.chmod(0o600)
        assert master.ride("echo served").stdout == b"served\n"
    finally:
        end_popen(crowd)
        crowd.stdout.close()
    complaints = master.log().count("multiplex uid mismatch")
    assert 0 < complaints <= 100


def test_the_agents_display_and_its_files(host: AgentHost) -> None:
    """He finds the folder and the port; without the cookie neither is of use."""
    host.temporary.parent.chmod(0o755)
    host.temporary.chmod(0o1777)
    look = (
        "[attempt(lambda: os.listdir(sys.argv[1])),"
        " attempt(lambda: os.rename(sys.argv[1], sys.argv[1] + 'x')),"
        " attempt(lambda: open(sys.argv[2]).read()),"
        " attempt(lambda: os.unlink(sys.argv[2]))]"
    )
    knock = (
        "def knock(cookie):\n"
        "    link = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)\n"
        "    name = b'MIT-MAGIC-COOKIE-1' if cookie else b''\n"
        "    pad = b'\\0' * (-len(name) % 4)\n"
        "    sizes = [11, 0, len(name), len(cookie), 0]\n"
        "    head = b'l\\0' + b''.join(each.to_bytes(2, 'little') for each in sizes)\n"
        "    link.sendall(head + name + pad + cookie)\n"
        "    return link.recv(1)[:1].hex()\n"
        "print(json.dumps([attempt(lambda: knock(each)) for each in (b'', bytes(16))]))"
    )
    command = 'echo "$DISPLAY $XAUTHORITY"; read line; xdpyinfo | grep -c "dimensions:"'
    process = open_process(
        [*host.argv(["--x11=agent", "server", command])],
        env=host.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None and process.stdin is not None
        display, authority = process.stdout.readline().decode().split()
        found = re.fullmatch(r"localhost:(\d+)\.0", display)
        assert found is not None
        folder = str(Path(authority).parent)
        assert ask_other(look, folder, authority) == ["PermissionError"] * 4
        knocking = start_other(knock, str(6000 + int(found[1])))
        said, _ = knocking.communicate(timeout=30)
        assert json.loads(said) == ["00", "00"]  # X11's "failed", with a reason
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"1\n"
        process.stdin.close()
        assert process.wait(20) == 0
    finally:
        end_popen(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        host.temporary.chmod(0o700)
        host.temporary.parent.chmod(0o700)


@pytest.mark.parametrize("program", ["ssh", "xssh"])
def test_the_sockets_of_forwards(pair: Pair, open_directory: Path, program: str) -> None:
    path = open_directory / "forward"
    for options, wanted in (([], "PermissionError"), (["-oStreamLocalBindMask=0111"], "connected")):
        argv = [*PROGRAMS[program], *pair.home.arguments, "-N", *options]
        argv += ["-L", f"{path}:127.0.0.1:9", "server"]
        process = open_process(argv, env=pair.home.environment(), stdin=subprocess.DEVNULL)
        try:
            wait_until(path.exists, what="the socket")
            assert ask_other("attempt(lambda: unix(sys.argv[1]))", str(path)) == wanted
        finally:
            end_popen(process)
        path.unlink()


# Races

SWAP = """
names, target = sys.argv[2:], sys.argv[1]
def clear(name):
    for away in (os.unlink, os.rmdir):
        attempt(lambda: away(name))
steps = [
    lambda name: os.symlink(target, name),
    lambda name: os.mkdir(name, 0o700),
    lambda name: os.mkdir(name, 0o777),
    lambda name: os.close(os.open(name, os.O_CREAT | os.O_EXCL)),
    lambda name: os.mkfifo(name),
    lambda name: os.symlink("/nonexistent/x", name),
]
print(flush=True)
while True:
    for step in steps:
        for name in names:
            attempt(lambda: step(name))
            clear(name)
"""


@contextmanager
def swapping(target: Path, *names: Path) -> Iterator[None]:
    """Let another user put things where ours are to be, and take them away, as fast as he can."""
    process = start_other(SWAP, str(target), *map(str, names))
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        end_popen(process)
        process.stdout.close()


@pytest.fixture
def shared(short_directory: Path) -> Path:
    """A folder for everybody, as /tmp."""
    short_directory.chmod(0o755)
    path = short_directory / "shared"
    path.mkdir()
    path.chmod(0o1777)
    return path


@pytest.fixture
def prey(short_directory: Path) -> Path:
    """A folder of ours that he would have us write to, or clear: it looks like a dead agent's."""
    path = short_directory / "prey"
    path.mkdir(mode=0o700)
    for name in (listener.AUTHORITY_NAME, listener.LOCK_NAME):
        (path / name).touch()
    return path


def test_a_race_for_the_folder_of_shared_connections(shared: Path, prey: Path) -> None:
    folder = shared / "xssh-0"
    ours = theirs = 0
    with swapping(prey, folder):
        end = time.monotonic() + RACE_SECONDS
        while time.monotonic() < end:
            if _prepare_folder(str(folder)):
                theirs += 1
                continue
            ours += 1
            with closing(listen(str(folder / "s"))) as listening:
                found = os.lstat(listening.path)
                assert stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid()
            assert os.lstat(folder).st_uid == os.getuid()
            os.rmdir(folder)
    assert ours and theirs
    assert sorted(os.listdir(prey)) == sorted((listener.AUTHORITY_NAME, listener.LOCK_NAME))


def test_a_race_for_the_agents_folder(
    shared: Path, prey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What he lays there looks like what a killed agent left: it is not followed to be removed."""
    monkeypatch.setenv("TMPDIR", str(shared))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    prefix = f"{listener.DIRECTORY_PREFIX}{listener.name_host()}-"
    made = 0
    with swapping(prey, *(shared / f"{prefix}{number:016x}" for number in range(4))):
        end = time.monotonic() + RACE_SECONDS
        while time.monotonic() < end:
            path, lock = listener.make_directory()
            found = os.lstat(path)
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.getuid(), 0o700)
            listener.remove_directory(path)
            if lock is not None:
                os.close(lock)
            made += 1
    assert made
    assert sorted(os.listdir(prey)) == sorted((listener.AUTHORITY_NAME, listener.LOCK_NAME))


def test_runs_beside_a_race(pair: Pair, shared: Path, prey: Path, short_directory: Path) -> None:
    """Whole runs, with TMPDIR where he is; they say nothing of it, and leave nothing."""
    environment = {**pair.home.environment(), "TMPDIR": str(shared)}
    names = [shared / name for name in ("xssh-0", "xssh", "xssh-options", "xssh-agent")]
    with swapping(prey, *names):
        for _ in range(3):
            argv = [*PROGRAMS["xssh"], *pair.home.arguments, "server", "echo through"]
            done = subprocess.run(argv, env=environment, capture_output=True, timeout=60)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"through\n", b"")
    assert all(path.lstat().st_uid == OTHER for path in shared.iterdir())
    assert sorted(os.listdir(prey)) == sorted((listener.AUTHORITY_NAME, listener.LOCK_NAME))
