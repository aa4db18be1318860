"""Agents beside ssh: keys restricted to destinations, forwarding, AddKeysToAgent, bad agents."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agents import Agent, framed, odd_agent
from tests.support.asyncserver import AsyncServer, Policy
from tests.support.beside import Beside, write_askpass
from tests.support.clients import ClientHome
from tests.support.sshd import KeyRing, SshServer, generate_key
from tests.support.terminals import Terminal
from tests.support.tools import require_tool

MakeLogin = Callable[..., Beside]
REFUSAL = framed(b"\x05")
NO_KEYS = framed(b"\x0c\0\0\0\0")
DONE = framed(b"\x06")
ADDING = (17, 25)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    for name, kind in (("ed", "ed25519"), ("rsa", "rsa"), ("ec", "ecdsa"), ("other", "ed25519")):
        generate_key(directory / name, kind)
    generate_key(directory / "locked", "ed25519", "secret")
    keygen = require_tool("ssh-keygen")
    shutil.copy(directory / "rsa", directory / "pem")
    shutil.copy(directory / "rsa.pub", directory / "pem.pub")
    shutil.copy(directory / "ed", directory / "plain")
    for options in (
        ["-p", "-m", "PEM", "-P", "", "-N", "", "-f", directory / "pem"],
        ["-c", "-C", "", "-P", "", "-f", directory / "plain"],
        ["-s", directory / "ec", "-I", "me", "-n", "demo", directory / "ed.pub"],
    ):
        subprocess.run([keygen, "-q", *options], check=True, stdout=subprocess.DEVNULL)
    return directory


@pytest.fixture
def agent(short_directory: Path) -> Iterator[Agent]:
    with Agent(short_directory / "agent") as running:
        yield running


@pytest.fixture
def second_agent(short_directory: Path) -> Iterator[Agent]:
    with Agent(short_directory / "agent2") as running:
        yield running


@pytest.fixture
def make_login(
    client_home: ClientHome, key_ring: KeyRing, spawn_in_pty: Callable[..., Terminal]
) -> Iterator[MakeLogin]:
    """Start a server of one's own rules, whose configuration names no key."""
    servers: list[AsyncServer] = []

    def make(**policy: object) -> Beside:
        host_key = key_ring.host_keys["ed25519"]
        server = AsyncServer(Policy(**policy), host_key, key_ring.client_key)  # type: ignore[arg-type]
        servers.append(server)
        login = Beside(client_home, server, spawn_in_pty)
        login.forget_keys()
        return login

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def real(
    sshd: SshServer,
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    keys: Path,
    agent: Agent,
) -> Beside:
    """OpenSSH's server, which lets ``other`` in; the agent is the environment's."""
    sshd.authorize(keys / "other")
    login = Beside(client_home, sshd, spawn_in_pty)
    login.forget_keys()
    login.variables["SSH_AUTH_SOCK"] = agent.path
    return login


# Keys restricted to destinations (ssh-add -h)


def restrict(agent: Agent, login: Beside, key: Path, *hops: str) -> None:
    """Give the agent a key for these hops; ``{}`` is the server."""
    here = login.server.known_hosts_lines().split()[0]
    words = [word for hop in hops for word in ("-h", hop.replace("{}", here))]
    agent.add("-H", login.home.known_hosts, *words, key)


@pytest.mark.parametrize(
    ("hops", "gets_in"),
    [(["{}"], True), (["demo@{}"], True), (["somebody-else@{}"], False)],
)
def test_a_key_for_this_destination_alone(
    real: Beside, agent: Agent, keys: Path, hops: list[str], gets_in: bool
) -> None:
    user = real.server.user
    restrict(agent, real, keys / "other", *(hop.replace("demo", user) for hop in hops))
    done = real.both("-oPasswordAuthentication=no", "server", "echo in")
    assert done.status == (0 if gets_in else 255)
    if not gets_in:
        assert "from agent: agent refused operation" in done.stderr


@pytest.mark.parametrize("hops", [["{}"], ["{}", "{}>{}"]])
def test_forwardagent_shows_the_keys_that_may_be_used_from_there(
    real: Beside, agent: Agent, keys: Path, hops: list[str]
) -> None:
    """The forwarded connection is bound as such: a key for the first hop only is not shown."""
    restrict(agent, real, keys / "other", *hops)
    done = real.both("-oForwardAgent=yes", "server", "ssh-add -l")
    assert done.stdout.count(b"(ED25519)") == len(hops) - 1


def test_a_restricted_key_takes_a_second_hop(
    real: Beside, agent: Agent, keys: Path, make_sshd: Callable[..., SshServer]
) -> None:
    restrict(agent, real, keys / "other", "{}", "{}>{}")
    port = real.server.port
    onward = (
        f"ssh -F none -o UserKnownHostsFile={real.home.known_hosts} -o BatchMode=yes "
        f"-p {port} {real.server.user}@127.0.0.1 echo twice"
    )
    assert real.both("-A", "server", onward).stdout == b"twice\n"
    assert "publickey-hostbound-v00@openssh.com" in real.server.log()  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["yes", "unbound", "host-bound"])
def test_pubkeyauthentication_says_how_signatures_are_bound(
    real: Beside, agent: Agent, keys: Path, value: str
) -> None:
    agent.add(keys / "other")
    real.both(f"-oPubkeyAuthentication={value}", "server", "true")
    asked = re.findall("service ssh-connection method (publickey\\S*)", real.server.log())  # type: ignore[union-attr]
    assert ("hostbound" in asked[-1]) is (value != "unbound"), asked


# Which agent


@pytest.mark.parametrize("value", ["yes", "{second}", "$OTHER_AGENT", "no"])
def test_forwardagent_names_the_agent(
    real: Beside, agent: Agent, second_agent: Agent, keys: Path, value: str
) -> None:
    agent.add(keys / "other")
    second_agent.add(keys / "ec")
    real.variables["OTHER_AGENT"] = second_agent.path
    option = f"-oForwardAgent={value.format(second=second_agent.path)}"
    done = real.both(option, "server", "ssh-add -l 2>&1")
    expected = {"yes": b"ED25519", "no": b"Could not open"}.get(value, b"ECDSA")
    assert expected in done.stdout


def test_forwardagent_with_an_agent_that_is_gone(real: Beside, agent: Agent, keys: Path) -> None:
    words = [*("-i", str(keys / "other")), "-oForwardAgent=/nonexistent", "-oIdentitiesOnly=yes"]
    done = real.both(*words, "server", "ssh-add -l >/dev/null 2>&1; echo out")
    assert done.stdout == b"out\n"
    assert "Cannot forward agent socket path" in done.stderr


@pytest.mark.parametrize("value", ["none", "SSH_AUTH_SOCK", "$OTHER_AGENT", "{second}", "%d/../x"])
def test_identityagent_names_the_agent(
    real: Beside, agent: Agent, second_agent: Agent, keys: Path, value: str
) -> None:
    agent.add(keys / "ec")
    second_agent.add(keys / "other")
    real.variables["OTHER_AGENT"] = second_agent.path
    option = f"-oIdentityAgent={value.format(second=second_agent.path)}"
    done = real.both(option, "-oPasswordAuthentication=no", "server", "echo in")
    assert (done.status == 0) is (value in ("$OTHER_AGENT", "{second}"))


# AddKeysToAgent


@pytest.mark.parametrize(
    ("name", "value"),
    [("ed", "yes"), ("rsa", "yes"), ("ec", "yes"), ("pem", "yes"), ("plain", "yes"),
     ("ed", "no"), ("ed", "confirm"), ("ed", "1h"), ("pem", "confirm 90m")],
)  # fmt: skip
def test_addkeystoagent_tells_the_agent_what_ssh_tells_it(
    make_login: MakeLogin, keys: Path, short_directory: Path, name: str, value: str
) -> None:
    """The request itself is compared: key, comment, lifetime, confirmation."""
    login = make_login(keys=(keys / f"{name}.pub",))
    words = [f"-oAddKeysToAgent={value}", "-i", str(keys / name), "server", "hi"]
    given = []

    def answer(kind: int) -> bytes:
        return NO_KEYS if kind == 11 else DONE if kind in ADDING else REFUSAL

    for program in ("ssh", "xssh"):
        with odd_agent(short_directory, answer) as odd:
            login.variables["SSH_AUTH_SOCK"] = odd.path
            assert login.run(program, *words).status == 7
            given.append([request for request in odd.requests if request[0] in ADDING])
        Path(odd.path).unlink()
    assert given[0] == given[1]
    assert len(given[1]) == (0 if value == "no" else 1)


@pytest.mark.parametrize(
    "options",
    [
        ["-i", "{keys}/ed"],  # with its certificate beside it
        ["-i", "{keys}/other", "-i", "{keys}/ed"],
        ["-i", "{keys}/rsa", "-oIdentityAgent=none"],
        ["-i", "{keys}/nothing"],
    ],
)
def test_addkeystoagent_adds_the_keys_that_were_read(
    make_login: MakeLogin, agent: Agent, keys: Path, options: list[str]
) -> None:
    login = make_login(keys=(keys / "ed.pub", keys / "rsa.pub"))
    login.variables["SSH_AUTH_SOCK"] = agent.path
    words = ["-oAddKeysToAgent=yes", *(word.format(keys=keys) for word in options)]
    held = []
    for program in ("ssh", "xssh"):
        login.run(program, *words, "-oBatchMode=yes", "server", "hi")
        held.append(agent.keys())
        agent.clear()
    assert held[0] == held[1]


def test_addkeystoagent_adds_a_key_once_its_passphrase_is_known(
    make_login: MakeLogin, agent: Agent, keys: Path
) -> None:
    login = make_login(keys=(keys / "locked.pub",))
    login.variables["SSH_AUTH_SOCK"] = agent.path
    words = ["-oAddKeysToAgent=yes", "-i", str(keys / "locked"), "server", "hi"]
    login.converse_both(words, [("passphrase", "secret\n")], before=agent.clear)
    assert len(agent.keys()) == 1
    login.converse_both(words, [])


@pytest.mark.parametrize("answer", ["yes", "", "YES", "no", None])
def test_addkeystoagent_asks(
    make_login: MakeLogin, agent: Agent, keys: Path, answer: str | None
) -> None:
    login = make_login(keys=(keys / "ed.pub",))
    program, record = write_askpass(login.home.path, [] if answer is None else [answer])
    text = program.read_text().replace('"$1" >>', '"$SSH_ASKPASS_PROMPT: $1" >>')
    program.write_text(text)
    login.variables.update(
        SSH_AUTH_SOCK=agent.path, SSH_ASKPASS=str(program), SSH_ASKPASS_REQUIRE="force"
    )
    words = ["-oAddKeysToAgent=ask", "-i", str(keys / "ed"), "server", "hi"]
    seen = []
    for name in ("ssh", "xssh"):
        assert login.run(name, *words).status == 7
        seen.append((record.read_text(), agent.keys()))
        agent.clear()
        record.unlink()
        (login.home.path / "turn").unlink()
    assert seen[0] == seen[1]
    assert f"confirm: Add key {keys / 'ed'} (" in seen[1][0]
    assert bool(seen[1][1]) is (answer is not None and answer.lower() in ("", "yes"))


def test_addkeystoagent_asks_nobody_without_askpass(
    make_login: MakeLogin, agent: Agent, keys: Path
) -> None:
    login = make_login(keys=(keys / "ed.pub",))
    login.variables["SSH_AUTH_SOCK"] = agent.path
    login.both("-oAddKeysToAgent=ask", "-i", str(keys / "ed"), "server", "hi")
    assert agent.keys() == []


# Agents that refuse or make no sense


@pytest.mark.parametrize(
    "answer",
    [None, REFUSAL, framed(b""), framed(b"\x0c\0\0\xff\xff"), b"\xff\xff\xff\xff", framed(b"Hello"),
     framed(b"\x0c\0\0\0\x01\0\0\0\x04abcd\0\0\0\0")],
)  # fmt: skip
def test_a_bad_agent_is_passed_over(
    make_login: MakeLogin, keys: Path, short_directory: Path, answer: bytes | None
) -> None:
    login = make_login(keys=(keys / "other.pub",))
    with odd_agent(short_directory, lambda kind: answer) as odd:
        login.variables["SSH_AUTH_SOCK"] = odd.path
        done = login.both("-i", str(keys / "other"), "server", "hi")
    assert (done.status, done.stderr) == (7, "")


@pytest.mark.parametrize("signature", [REFUSAL, None, framed(b"\x0e\0\0\0\x09"), framed(b"junk")])
def test_an_agent_that_does_not_sign(
    make_login: MakeLogin, keys: Path, short_directory: Path, signature: bytes | None
) -> None:
    """The next key is tried, and the failure named in ssh's words."""
    login = make_login(keys=(keys / "ed.pub", keys / "other.pub"))
    data = base64.b64decode((keys / "ed.pub").read_text().split()[1])
    held = framed(b"\x0c\0\0\0\x01" + framed(data) + framed(b"my comment"))

    def answer(kind: int) -> bytes | None:
        return {11: held, 13: signature}.get(kind, REFUSAL)

    with odd_agent(short_directory, answer) as odd:
        login.variables["SSH_AUTH_SOCK"] = odd.path
        done = login.both("-i", str(keys / "other"), "server", "hi")
    assert done.status == 7
    assert 'sign_and_send_pubkey: signing failed for ED25519 "my comment" from agent: ' in (
        done.stderr
    )


def test_an_agent_that_signs_with_another_hash(
    make_login: MakeLogin, keys: Path, short_directory: Path
) -> None:
    login = make_login(keys=(keys / "rsa.pub", keys / "other.pub"))
    data = base64.b64decode((keys / "rsa.pub").read_text().split()[1])
    held = framed(b"\x0c\0\0\0\x01" + framed(data) + framed(b"old agent"))
    signed = framed(b"\x0e" + framed(framed(b"ssh-rsa") + framed(b"x")))

    def answer(kind: int) -> bytes:
        return {11: held, 13: signed}.get(kind, REFUSAL)

    with odd_agent(short_directory, answer) as odd:
        login.variables["SSH_AUTH_SOCK"] = odd.path
        done = login.both("-i", str(keys / "other"), "server", "hi")
    assert "agent key RSA SHA256:" in done.stderr
    assert "no mutual signature supported" in done.stderr


@pytest.mark.parametrize("wanted", ["rsa-sha2-256", "rsa-sha2-512", "rsa-sha2-256,rsa-sha2-512"])
def test_pubkeyacceptedalgorithms_decides_how_the_agent_signs(
    make_login: MakeLogin, agent: Agent, keys: Path, wanted: str
) -> None:
    login = make_login(keys=(keys / "rsa.pub",))
    login.variables["SSH_AUTH_SOCK"] = agent.path
    agent.add(keys / "rsa")
    assert login.both(f"-oPubkeyAcceptedAlgorithms={wanted}", "server", "hi").status == 7
