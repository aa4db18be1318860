"""What is held back of asyncssh is there as soon as somebody uses it, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.unit.test_libraries import python
from xsshpy.ssh.deferred import HELD_BACK, NAMES

LIGHT = "import xsshpy.ssh.connect, xsshpy.ssh.session, xsshpy.ssh.forward, asyncssh, sys;"
HELD = "[n for n, m in sys.modules.items() if type(m).__name__ == 'HeldBack']"

LOOPBACK = """
import xsshpy.ssh.connect, asyncssh, asyncio, sys, os
from asyncssh.connection import SFTPServer, SSHServer
def held(): return {n[9:] for n, m in sys.modules.items() if type(m).__name__ == 'HeldBack'}
async def main():
    key = asyncssh.generate_private_key('ssh-ed25519')
    async def serve(process):
        process.stdout.write('said ' + process.command)
        process.exit(3)
    class Server(SSHServer):
        def begin_auth(self, username): return False
    async with asyncssh.listen('127.0.0.1', 0, server_factory=Server, server_host_keys=[key],
                               process_factory=serve, sftp_factory=True) as server:
        async with asyncssh.connect('127.0.0.1', server.get_port(), known_hosts=None, config=None,
                                    client_keys=None, agent_path=None) as connection:
            assert isinstance(connection, asyncssh.SSHClientConnection)
            print(ACTION)
asyncio.run(main())
"""


def test_nothing_of_it_is_loaded() -> None:
    assert python(LIGHT + f"print(sorted({HELD}))") == str(sorted(HELD_BACK))
    x509 = "[name for name in sys.modules if name.startswith(('cryptography.x509', 'email'))]"
    assert python(LIGHT + f"print({x509})") == "[]"


@pytest.mark.parametrize("module", HELD_BACK)
def test_names_are_the_modules_own(module: str) -> None:
    """What others took from it stands for what is there, and constants have their values."""
    names = HELD_BACK[module]
    code = (
        LIGHT + f"from asyncssh import connection, stream, crypto, public_key, subprocess;"
        f"module = sys.modules[{module!r}]; names = {dict(names)!r};"
        "real = {name: getattr(module, name) for name in names};"
        "assert all(real[n] == v for n, v in names.items() if v is not None);"
        "takers = [m for m in (connection, stream, crypto, public_key, subprocess)];"
        "taken = [(n, vars(t)[n]) for t in takers for n in names if n in vars(t)];"
        "assert all(getattr(v, '_real', lambda v=v: v)() is real[n] for n, v in taken);"
        "print(type(module).__name__, module.__file__ == module.__spec__.origin,"
        " not {n for n, v in real.items() if isinstance(v, type) and"
        " issubclass(v, BaseException)}, bool(taken) or module)"
    )
    assert python(code) == "module True True True"


def test_whole_package_is_there_for_who_asks() -> None:
    show = (
        "print([(name, type(getattr(asyncssh, name)).__name__,"
        " getattr(getattr(asyncssh, name), '__module__', '')) for name in asyncssh.__all__],"
        " asyncssh.__version__)"
    )
    assert python(LIGHT + show) == python("import asyncssh;" + show)


def test_names_are_the_same_objects() -> None:
    names = [name for each in NAMES.values() for name in each]
    code = (
        LIGHT + f"names = {names!r}; before = [vars(asyncssh)[name] for name in names];"
        "asyncssh.scp; print(before == [vars(asyncssh)[name] for name in names],"
        " all(a is b for a, b in zip(before, [vars(asyncssh)[name] for name in names])),"
        " set(names) <= set(asyncssh.__all__) | set(vars(asyncssh.constants)))"
    )
    assert python(code) == "True True True"


def test_algorithms_are_those_of_asyncssh_without_x509() -> None:
    show = (
        "from asyncssh import public_key as k, encryption as e, compression as c;"
        "print(k.get_public_key_algs(), k.get_certificate_algs(), e.get_encryption_algs(),"
        " c.get_compression_algs(), k.get_default_public_key_algs())"
    )
    assert python(LIGHT + show) == python("import asyncssh;" + show)
    code = LIGHT + "import cryptography.x509; print('asyncssh.crypto.x509' in sys.modules)"
    assert python(code) == "False"


def test_star_and_unknown_names() -> None:
    code = LIGHT + "exec('from asyncssh import *'); print(SFTPClient, hasattr(asyncssh, 'nothing'))"
    assert python(code) == "<class 'asyncssh.sftp.SFTPClient'> False"
    code = LIGHT + "import asyncssh.sftp; print(hasattr(sys.modules['asyncssh.sftp'], 'nothing'))"
    assert python(code) == "False"


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("await (await connection.start_sftp_client()).exists('/')", "True"),
        ("(lambda r: (r.stdout, r.exit_status))(await connection.run('x'))", "('said x', 3)"),
        ("(await (await connection.create_process('x')).stdout.read())", "said x"),
        ("isinstance(connection, SFTPServer), isinstance(3, SSHServer)", "False False"),
        ("issubclass(Server, SSHServer), issubclass(int, SFTPServer)", "True False"),
    ],
)
def test_what_is_held_back_works(action: str, said: str) -> None:
    assert python(LOOPBACK.replace("ACTION", action)) == said


def test_two_threads_load_it_once() -> None:
    code = (
        LIGHT + "import threading; from asyncssh.connection import SFTPServer;"
        "found = []; start = threading.Barrier(8);"
        "ask = lambda: (start.wait(), found.append((asyncssh.SFTPAttrs, SFTPServer.stat)));"
        "threads = [threading.Thread(target=ask) for _ in range(8)];"
        "[t.start() for t in threads]; [t.join() for t in threads];"
        "print(len(found), len(set(found)))"
    )
    assert python(code) == "8 1"
