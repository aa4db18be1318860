"""Which host, which way, which options: OpenSSH resolves them, and xssh does as told."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, Pair, first_line
from tests.support.clients import ClientHome
from tests.support.processes import run
from tests.support.sshd import SshServer
from tests.support.xvfb import Xvfb
from xsshpy.settings import Invocation
from xsshpy.ssh_g import read_settings

MakeServer = Callable[..., SshServer]


def block(server: SshServer, home: ClientHome, alias: str, *extra: str) -> str:
    """Return a Host block for a server, without X11."""
    lines = "\n".join(("ForwardX11 no", *extra))
    return server.config_text(alias, known_hosts=home.known_hosts, extra=lines)


@pytest.fixture
def trio(make_sshd: MakeServer, client_home: ClientHome) -> list[SshServer]:
    """Return three servers, known, with no block of their own yet."""
    servers = [make_sshd(user=f"user{number}") for number in range(3)]
    client_home.known_hosts.write_text("".join(s.known_hosts_lines() for s in servers))
    return servers


WHERE = "echo $USER $SSH_CONNECTION | cut -d' ' -f1,5"


def where(server: SshServer) -> bytes:
    """Return what ``WHERE`` prints on a server."""
    return f"{server.user} {server.port}\n".encode()


# --- Files --------------------------------------------------------------------------------------


def test_alias_include_and_wildcards(trio: list[SshServer], client_home: ClientHome) -> None:
    one, two, _ = trio
    included = client_home.ssh / "more"
    included.mkdir()
    (included / "b.conf").write_text(block(two, client_home, "two tw?"))
    (included / "a.conf").write_text("Host *\n  SetEnv ORDER=first\n")
    client_home.config.write_text(
        f'Include "{included}/*.conf"  # all of them\n'
        + block(one, client_home, 'one "on*" !only')
        + "Host *\n  SetEnv ORDER=second\n"
    )
    pair = Pair(one, client_home)
    assert pair.both(["one", WHERE]).stdout == where(one)
    assert pair.both(["onx", WHERE]).stdout == where(one)
    assert pair.both(["two", WHERE]).stdout == where(two)
    assert pair.both(["twx", WHERE]).stdout == where(two)


def test_configuration_without_an_option(trio: list[SshServer], client_home: ClientHome) -> None:
    """``~/.ssh/config`` of the password database's home is read, whatever $HOME says."""
    client_home.config.write_text(block(trio[0], client_home, "here"))
    environment = client_home.environment(HOME="/nonexistent")
    results = [run([*argv, "here", WHERE], env=environment) for argv in PROGRAMS.values()]
    assert results[1] == results[0]
    assert results[1].stdout == where(trio[0])
    results = [run([*argv, "-Fnone", "here"], env=environment) for argv in PROGRAMS.values()]
    assert results[1].status == results[0].status == 255


def test_match_decides(trio: list[SshServer], client_home: ClientHome) -> None:
    one, two, three = trio
    flag = client_home.path / "flag"
    client_home.config.write_text(
        f'Match originalhost there exec "test -e {flag}"\n  Port {two.port}\n  User {two.user}\n'
        f"Match originalhost there user {three.user}\n  Port {three.port}\n"
        + block(one, client_home, "there")
        + "Match all\n  SetEnv A=1\n"
    )
    pair = Pair(one, client_home)
    assert pair.both(["there", WHERE]).stdout == where(one)
    assert pair.both([f"{three.user}@there", WHERE]).stdout == where(three)
    assert pair.both(["-l", three.user, "there", WHERE]).stdout == where(three)
    flag.touch()
    assert pair.both(["there", WHERE]).stdout == where(two)


def test_command_line_wins_over_files(trio: list[SshServer], client_home: ClientHome) -> None:
    one, two, _ = trio
    client_home.config.write_text(block(one, client_home, "one"))
    pair = Pair(one, client_home)
    words = [f"-p{two.port}", f"-l{two.user}", "one", WHERE]
    assert pair.both(words).stdout == where(two)
    words = ["-o", f"Port={two.port}", f"{two.user}@one", WHERE]
    assert pair.both(words).stdout == where(two)
    assert pair.both([f"ssh://{two.user}@one:{two.port}", WHERE]).stdout == where(two)
    assert pair.both([f"ssh://{two.user}@one:{two.port}/", WHERE]).stdout == where(two)


@pytest.mark.parametrize(
    "text",
    [
        "Host server\n  NoSuchKeyword yes\n",
        "Host server\n  Port many\n",
        "Host server\n  Port\n",
        'Host "server\n',
        "Include\n",
        "Match nonsense\n",
        "Host server\n  ForwardX11 perhaps\n",
    ],
)
def test_broken_configuration_in_openssh_words(client_home: ClientHome, text: str) -> None:
    client_home.config.write_text(text)
    results = [
        run([*argv, *client_home.arguments, "server", "true"], env=client_home.environment())
        for argv in PROGRAMS.values()
    ]
    expected, found = results
    assert found.status == expected.status == 255
    assert found.stderr.splitlines() == expected.stderr.splitlines()
    assert str(client_home.config) in found.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["-F", "/nonexistent/config", "server"],
        ["-o", "NoSuchKeyword=1", "server"],
        ["-o", "Port=many", "server"],
        ["-p", "70000", "server"],
        ["-c", "nonsense", "server"],
        ["-e", "too long", "server"],
        ["-J", "a b c::", "server"],
        ["@server"],
        ["ssh://server:port"],
        ["-l", "", "server"],
    ],
)
def test_broken_options_in_openssh_words(client_home: ClientHome, words: list[str]) -> None:
    results = [
        run([*argv, "-x", *words, "true"], env=client_home.environment())
        for argv in PROGRAMS.values()
    ]
    expected, found = results
    assert found.status == expected.status == 255
    assert first_line(found).stderr == first_line(expected).stderr


@pytest.mark.parametrize("destination", ["-oProxyCommand=touch owned", "--", "-x"])
def test_destination_is_never_an_option(
    client_home: ClientHome, destination: str, short_directory: Path
) -> None:
    words = [*client_home.arguments, "--", destination, "true"]
    done = run([*PROGRAMS["xssh"], *words], env=client_home.environment(), cwd=short_directory)
    assert done.status == 255
    assert not (short_directory / "owned").exists()


def test_user_name_that_would_be_an_option_of_a_proxy(
    client_home: ClientHome, short_directory: Path
) -> None:
    client_home.config.write_text("Host *\n  ProxyCommand echo %r >&2; touch owned\n")
    for program in PROGRAMS:
        words = [*client_home.arguments, "-l", "-bad", "host", "true"]
        done = run([*PROGRAMS[program], *words], env=client_home.environment(), cwd=short_directory)
        assert done.status == 255
        assert not (short_directory / "owned").exists(), program


def test_remote_command_of_the_configuration(
    trio: list[SshServer], client_home: ClientHome
) -> None:
    text = block(trio[0], client_home, "one", "RemoteCommand echo %n %r %%; exit 3")
    client_home.config.write_text(text)
    pair = Pair(trio[0], client_home)
    assert pair.both(["one"]).status == 3
    found = [pair.run(program, ["one", "true"]) for program in PROGRAMS]
    assert first_line(found[1]) == first_line(found[0])
    pair.both(["-oRemoteCommand=none", "one", "echo typed"])


def test_local_command_runs_when_permitted(trio: list[SshServer], client_home: ClientHome) -> None:
    text = block(
        trio[0], client_home, "one", "LocalCommand echo local %n %p", "PermitLocalCommand yes"
    )
    client_home.config.write_text(text)
    pair = Pair(trio[0], client_home)
    assert b"local one" in pair.both(["one", "sleep 0.2; echo remote"]).stdout
    assert pair.both(["-oPermitLocalCommand=no", "one", "echo remote"]).stdout == b"remote\n"


def test_variables_are_sent_and_set(make_sshd: MakeServer, client_home: ClientHome) -> None:
    server = make_sshd(accept_env="LC_* GIVEN")
    extra = "ForwardX11 no\nSendEnv LC_* GI*\nSetEnv GIVEN=\"two words\" OTHER=x LC_B='q u'"
    client_home.add(server, extra=extra)
    pair = Pair(server, client_home)
    environment = client_home.environment(LC_A="a b", LC_C="é", GIVEN="not this", OTHER="y")
    command = 'echo "$LC_A|$LC_B|$LC_C|$GIVEN|$OTHER"'
    done = pair.both(["server", command], env=environment)
    assert done.stdout == "a b|q u|é|two words|\n".encode()
    done = pair.both(["-oSendEnv=-LC_*", "-oSetEnv=GIVEN=1", "server", command], env=environment)


# --- The way there ------------------------------------------------------------------------------


def test_chain_of_two_jump_hosts(trio: list[SshServer], client_home: ClientHome) -> None:
    one, two, three = trio
    client_home.config.write_text(
        block(one, client_home, "one")
        + block(two, client_home, "two")
        + block(three, client_home, "three", "ProxyJump one,two")
        + block(three, client_home, "plain")
        + block(two, client_home, "by-one", "ProxyJump one")
        + block(three, client_home, "nested", "ProxyJump by-one")
    )
    pair = Pair(three, client_home)
    for words in (["three"], ["-J", "one,two", "plain"], ["nested"], ["-Jone", "plain"]):
        for server in trio:
            server.process.poll()
        assert pair.both([*words, f"{WHERE}; cat"], stdin=b"in").stdout == where(three) + b"in"
    assert "direct-tcpip" in one.log()
    assert "direct-tcpip" in two.log()
    explicit = f"{one.user}@{one.host}:{one.port}"
    own = ["-o", f"IdentityFile={one.client_key}"]
    words = [*own, "-J", explicit, "plain", WHERE]
    expected, found = (pair.run(program, words) for program in PROGRAMS)
    assert first_line(found)._replace(stderr="") == first_line(expected)._replace(stderr="")
    assert pair.both(["-J", "none", "three", WHERE]).stdout == where(three)


def test_jump_host_that_fails(trio: list[SshServer], client_home: ClientHome) -> None:
    one, _, three = trio
    client_home.config.write_text(
        block(one, client_home, "closed", "Port 1") + block(three, client_home, "three")
    )
    pair = Pair(three, client_home)
    for words in (["-J", "closed", "three", "true"], ["-J", "nobody.invalid", "three", "true"]):
        expected, found = (pair.run(program, words) for program in PROGRAMS)
        assert found.status == expected.status == 255
        assert first_line(found).stderr == first_line(expected).stderr


def test_proxy_command(trio: list[SshServer], client_home: ClientHome) -> None:
    one, two, _ = trio
    relay = client_home.path / "relay.py"
    relay.write_text(RELAY)
    client_home.config.write_text(
        block(one, client_home, "relayed", f"ProxyCommand python3 {relay} %h %p %r %n %%")
        + block(one, client_home, "one")
        + block(two, client_home, "hop", f"ProxyCommand ssh -F {client_home.config} -W %h:%p one")
        + block(one, client_home, "gone", "ProxyCommand echo sorry >&2; exit 3")
        + block(one, client_home, "absent", "ProxyCommand /nonexistent/program")
    )
    pair = Pair(one, client_home)
    done = pair.both(["relayed", f"{WHERE}; cat"], stdin=b"in" * 100000)
    assert done.stdout == where(one) + b"in" * 100000
    assert (client_home.path / "relay.py.log").read_text() == f"{one.user} relayed %\n" * 2
    assert pair.both(["hop", WHERE]).stdout == where(two)
    for alias in ("gone", "absent"):
        expected, found = (pair.run(program, [alias, "true"]) for program in PROGRAMS)
        assert found.status == expected.status == 255
        # What ssh says of the dead pipe depends on which of the two is quicker.
        said = {line for line in expected.stderr.splitlines() if "Broken pipe" not in line}
        assert said
        assert said <= set(found.stderr.splitlines())


RELAY = """
import os, select, socket, sys
host, port, user, name, percent = sys.argv[1:]
with open(sys.argv[0] + ".log", "a") as log:
    log.write(f"{user} {name} {percent}\\n")
server = socket.create_connection((host, int(port)))
sources = [0, server]
while server in sources:
    for source in select.select(sources, [], [])[0]:
        if source == 0:
            data = os.read(0, 65536)
            server.sendall(data) if data else (server.shutdown(1), sources.remove(0))
        else:
            data = server.recv(65536)
            os.write(1, data) if data else sources.remove(server)
"""


def test_host_name_that_resolves_to_several_addresses(
    make_sshd: MakeServer, client_home: ClientHome
) -> None:
    """Where IPv6 comes first and nobody listens there, IPv4 is next."""
    addresses = {info[4][0] for info in socket.getaddrinfo("localhost", 1)}
    server = make_sshd()
    client_home.known_hosts.write_text(server.known_hosts_lines(f"[localhost]:{server.port}"))
    client_home.add(server, extra="ForwardX11 no\nHostName localhost", known=False)
    pair = Pair(server, client_home)
    assert pair.both(["server", "echo in"]).stdout == b"in\n"
    assert pair.both(["-4", "server", "echo in"]).stdout == b"in\n"
    expected, found = (pair.run(program, ["-6", "server", "true"]) for program in PROGRAMS)
    assert found.status == expected.status == 255
    if "::1" in addresses:
        assert first_line(found) == first_line(expected)


# --- X11, as asked for --------------------------------------------------------------------------

DISPLAY = 'echo "[${DISPLAY:+set}]"'


def shows_display(pair: Pair, words: list[str], xvfb: Xvfb) -> bool:
    done = pair.run("xssh", [*words, "server", DISPLAY], env=pair.home.environment(xvfb))
    assert done.status == 0, done
    assert done.stdout in (b"[set]\n", b"[]\n")
    return done.stdout == b"[set]\n"


@pytest.mark.parametrize(
    ("config", "words", "expected"),
    [
        ("", [], True),
        ("", ["-x"], False),
        ("", ["-X"], True),
        ("", ["-Y"], True),
        ("", ["-x", "-Y"], True),
        ("", ["-X", "-x"], False),
        ("ForwardX11 no", [], False),
        ("ForwardX11 no", ["-X"], True),
        ("ForwardX11 no", ["-oForwardX11=yes"], True),
        ("ForwardX11 yes", [], True),
        ("ForwardX11 yes", ["-oForwardX11=no"], False),
        ("ForwardX11Trusted yes", [], True),
    ],
)
def test_x11_is_forwarded_unless_the_user_says_no(
    sshd: SshServer,
    client_home: ClientHome,
    xvfb: Xvfb,
    config: str,
    words: list[str],
    expected: bool,
) -> None:
    client_home.add(sshd, extra=config)
    assert shows_display(Pair(sshd, client_home), words, xvfb) is expected


def test_no_to_x11_counts_wherever_it_stands(
    sshd: SshServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    """In an included file, for all hosts, under a Match: but not another host's."""
    pair = Pair(sshd, client_home)
    more = client_home.ssh / "more"
    for text, expected in (
        ("Host other\n  ForwardX11 no\n", True),
        ("Host *\n  ForwardX11 no\n", False),
        (f"Include {more}\n", False),
        (f"Match user {sshd.user}\n  ForwardX11 no\n", True),
        (f"Match final user {sshd.user}\n  ForwardX11 no\n", False),
    ):
        more.write_text("Host ser*\n  ForwardX11 no\n")
        client_home.config.write_text("")
        client_home.add(sshd)
        client_home.config.write_text(text + client_home.config.read_text())
        assert shows_display(pair, [], xvfb) is expected, text


# --- What is not done is said -------------------------------------------------------------------


def test_convenience_that_is_missing_is_named(pair: Pair) -> None:
    done = pair.run("xssh", ["-o", "LogVerbose=kex.c:*", "server", "echo on"])
    assert (done.status, done.stdout) == (0, b"on\n")
    assert "logverbose" in done.stderr.lower()


# --- %C is what this machine's ssh makes of it --------------------------------------------------


@pytest.mark.parametrize("words", [[], ["-J", "u@a:22,b.example:33"], ["-p", "2222", "-l", "me"]])
def test_connection_hash_is_that_of_ssh(words: list[str]) -> None:
    """``ssh -G`` expands ControlPath; whether a jump host is part of it depends on the release."""
    words = ["-F", "none", *words]
    argv = ["ssh", "-G", *words, "-o", "ControlPath=/%C", "host"]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    path = next(line.split()[1] for line in printed.splitlines() if line.startswith("controlpath"))
    options = tuple((words[at][1:], words[at + 1]) for at in range(0, len(words), 2))
    invocation = Invocation("host", ssh_options=(*options, ("o", "IdentityFile=/%C")))
    settings, _ = asyncio.run(read_settings(invocation, os.environ))
    assert path in settings.identity_files
