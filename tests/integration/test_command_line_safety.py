"""Words of the command line that look like something else: options, shell words, other lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, Pair
from tests.support.asyncserver import AsyncServer, Policy
from tests.support.beside import Beside
from tests.support.clients import ClientHome
from tests.support.processes import run, run_xssh
from tests.support.sshd import KeyRing
from tests.support.terminals import Terminal
from tests.support.tools import require_tool


@pytest.fixture
def echo(
    client_home: ClientHome, key_ring: KeyRing, spawn_in_pty: Callable[..., Terminal]
) -> Iterator[Beside]:
    """A server that says the command which reached it."""
    policy = Policy(keys=(Path(f"{key_ring.client_key}.pub"),))
    server = AsyncServer(policy, key_ring.host_keys["ed25519"], key_ring.client_key)
    yield Beside(client_home, server, spawn_in_pty)
    server.stop()


@pytest.mark.parametrize(
    "words",
    [
        ["--", "server", "-oProxyCommand=touch {mark}; false"],
        ["server", "--", "-oProxyCommand=touch {mark}; false"],
        ["--", "server", "-F", "/nonexistent", "x"],
        ["server", "--", "-x"],
        ["server", "--", "--", "-x"],
        ["server", "--", "--script", "{mark}"],
        ["server", "--", "--version"],
        ["--", "server", "--help"],
        ["server", "-T", "--", "-T", "y"],
        ["server", "echo", "-oProxyCommand=touch {mark}", "--", "--script=x"],
        ["server", "--", "-"],
    ],
)
def test_what_follows_two_dashes_is_the_command(
    echo: Beside, tmp_path: Path, words: list[str]
) -> None:
    mark = tmp_path / "mark"
    done = echo.both(*(word.format(mark=mark) for word in words))
    assert done.status == 7
    assert not mark.exists()


# Names: which are refused is a table in tests/unit/test_settings.py


def environment_of(reader: str, home: ClientHome, tmp_path: Path) -> dict[str, str]:
    """Return an environment with or without an ssh that reads the configuration."""
    if reader == "ssh":
        return home.environment()
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("sh", "touch", "false", "true"):
        (programs / name).symlink_to(require_tool(name))
    return {**home.environment(), "PATH": str(programs), "SHELL": "/bin/sh"}


@pytest.mark.parametrize("reader", ["ssh", "no ssh"])
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["--", "-oProxyCommand=touch {mark}", "true"], "hostname"),
        (["a$(touch {mark})", "true"], "hostname"),
        (["me@a;touch\t{mark};", "true"], "hostname"),
        (["ssh://me@a`touch\tmark`:22", "true"], "hostname"),
        (["-l", "a;touch {mark};", "h", "true"], "remote username"),
        (["-l-oProxyCommand=touch {mark}", "h"], "remote username"),
        (["a`touch {mark}`@h"], "remote username"),
        (["ssh://a|touch\tmark@h"], "remote username"),
        (["-J", "a;touch\t{mark};", "h"], ""),
    ],
)
def test_a_name_never_reaches_a_shell_as_its_words(
    client_home: ClientHome, tmp_path: Path, reader: str, words: list[str], kind: str
) -> None:
    mark = tmp_path / "mark"
    client_home.config.write_text("Host *\n  ProxyCommand false %h %p %r\n")
    argv = [word.format(mark=mark) for word in ["-x", *client_home.arguments, *words]]
    env = environment_of(reader, client_home, tmp_path)
    found = run_xssh(argv, env=env, cwd=tmp_path)
    assert (found.status, found.stdout) == (255, b""), found
    assert "internal error" not in found.stderr
    if kind:
        assert found.stderr == f"{kind} contains invalid characters\n"
    if reader == "ssh":
        assert run(["ssh", *argv], env=env, cwd=tmp_path).status == 255
    assert not mark.exists()


@pytest.mark.parametrize("words", [["-l", "a b$\\ü", "server"], ["a@b%c-@server"]])
def test_other_user_names_are_let_through(echo: Beside, words: list[str]) -> None:
    assert echo.both(*words, "hi").stdout == b"hi\n"


# Values


@pytest.mark.parametrize("reader", ["ssh", "no ssh"])
@pytest.mark.parametrize(
    ("words", "letter"),
    [
        (["-o", "RemoteCommand=echo a\necho b"], "o"),
        (["-o", "SendEnv=A\nProxyCommand touch {mark}"], "o"),
        (["-l", "me\nProxyCommand touch {mark}"], "l"),
    ],
)
def test_a_value_is_one_line(
    client_home: ClientHome, tmp_path: Path, reader: str, words: list[str], letter: str
) -> None:
    mark = tmp_path / "mark"
    argv = [word.format(mark=mark) for word in ["-x", *client_home.arguments, *words, "h"]]
    found = run_xssh(argv, env=environment_of(reader, client_home, tmp_path))
    assert (found.status, found.stdout) == (255, b"")
    assert found.stderr.startswith(f"xssh: the value of -{letter} has more than one line\n  try: ")
    assert not mark.exists()


def test_a_known_hosts_file_may_have_a_space_in_its_name(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "known hosts"
    path.write_text(pair.home.known_hosts.read_text())
    words = ["-o", f'UserKnownHostsFile="{path}"', "server", "echo in"]
    assert pair.both(words).stdout == b"in\n"
    words[1] = f'UserKnownHostsFile=/nonexistent "{path}" /dev/null'
    assert pair.both(words).stdout == b"in\n"


def test_set_env_arrives_as_with_ssh(
    make_sshd: Callable[..., object], client_home: ClientHome
) -> None:
    server = make_sshd(accept_env="LC_*")
    client_home.add(server, extra="ForwardX11 no")  # type: ignore[arg-type]
    pair = Pair(server, client_home)  # type: ignore[arg-type]
    values = ["\"say 'hi'\"", "'say \"hi\"'", "a=b", '"a  b"', "a\\ b", "a\\\\b", "'$HOME `x`'"]
    pairs = " ".join(f"LC_{number}={value}" for number, value in enumerate(values))
    command = "env | grep ^LC_ | sort"
    assert pair.both(["-o", f"SetEnv={pairs}", "server", command]).stdout.count(b"LC_") > 4
    pair.both(["-o", f'SetEnv "LC_0=x y" {pairs}', "server", command])


def test_a_variable_whose_name_is_no_text(
    make_sshd: Callable[..., object], client_home: ClientHome
) -> None:
    server = make_sshd(accept_env="LC_*")
    client_home.add(server, extra="SendEnv LC_*")  # type: ignore[arg-type]
    env = {name.encode(): value.encode() for name, value in client_home.environment().items()}
    env |= {b"LC_\xff": b"1", b"LC_V": b"\xfe"}
    results = []
    for argv in PROGRAMS.values():
        words = [*argv, *client_home.arguments, "-x", "server", "env | grep -a ^LC_ | sort"]
        results.append(run(words, env=env))  # type: ignore[arg-type]
    assert results[1] == results[0]
    assert b"LC_V=\xfe\n" in results[1].stdout and results[1].status == 0


def test_a_local_command_that_cannot_start_is_told(pair: Pair) -> None:
    words = ["-oPermitLocalCommand=yes", "-oLocalCommand=echo never", "server", "echo in"]
    done = pair.both(words, env={**pair.environment, "SHELL": "/nonexistent"})
    assert done.stdout == b"in\n"
    assert done.stderr.startswith('Couldn\'t execute /nonexistent -c "echo never": No such file')


def test_a_local_command_knows_the_tunnel_s_token(pair: Pair) -> None:
    words = ["-oPermitLocalCommand=yes", "-oLocalCommand=echo %T %n %p", "server", "echo in"]
    done = pair.both(words)
    assert done.stdout.splitlines() == [b"NONE server %d" % pair.server.port, b"in"]


# Long commands


def test_a_command_of_many_words_may_be_longer_than_one_argument_can_be(echo: Beside) -> None:
    """Linux takes no single argument over 128 KiB; the words are none, and travel as one text."""
    words = [f"{number:060d}" for number in range(3000)]
    done = echo.both("server", "echo", *words)
    assert done.stdout.decode() == f"{' '.join(['echo', *words])}\n"


@pytest.mark.parametrize("length", [32_000, 33_000, 130_000])
def test_a_long_command_arrives_whole(echo: Beside, length: int) -> None:
    assert len(echo.both("server", "x" * length).stdout) == length + 1


# How it ends


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_end_of_a_terminal_session_names_the_host_as_ssh_does(pair: Pair, name: str) -> None:
    words = ["-tt", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]
    done = pair.both([*words, "-o", f"HostName={name}", "server", "exit 3"])
    assert done.status == 3
    assert done.stderr.endswith(f"Connection to {name} closed.\n")


def test_what_the_script_option_takes_ends_the_options(pair: Pair, tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text("import sys\nprint(sys.argv[1:])\n")
    words = ["-x", "--script", str(script), "server", "-oProxyCommand=touch x", "--", "-x"]
    done = pair.run("xssh", words)
    assert done.stdout.decode().strip() == "['-oProxyCommand=touch x', '--', '-x']"
    assert not os.path.exists("x")
