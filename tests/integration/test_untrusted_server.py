"""A server that is not to be trusted: no secret and no agent within its reach, as with ssh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.support.agents import NO_KEYS, OddAgent, framed
from tests.support.asyncserver import AsyncServer, Policy, Round
from tests.support.beside import PROGRAMS, Beside, write_askpass
from tests.support.clients import ClientHome
from tests.support.oddserver import AGENT_QUESTION, OddServer, open_agent_channel
from tests.support.processes import Completed, run
from tests.support.sshd import KeyRing
from tests.support.terminals import Terminal

NOT_CHECKED = "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null"


def forget_host_key(home: ClientHome, server: AsyncServer, key_ring: KeyRing) -> None:
    """Let known_hosts hold another key for the server."""
    words = Path(f"{key_ring.client_key}.pub").read_text().split()
    home.known_hosts.write_text(f"[{server.host}]:{server.port} {words[0]} {words[1]}\n")


# Secrets

POLICIES = {
    "keyboard-interactive": Policy(
        steps=(("keyboard-interactive",),), rounds=(Round((("Code: ", False),), ("x",)),)
    ),
    "password": Policy(steps=(("password",),), password="x"),
    "either": Policy(
        steps=(("keyboard-interactive", "password"),),
        password="x",
        rounds=(Round((("Code: ", False),), ("x",)),),
    ),
}
DISABLED = "{} authentication is disabled to avoid man-in-the-middle attacks."


@pytest.fixture(params=sorted(POLICIES))
def asker(
    request: pytest.FixtureRequest,
    client_home: ClientHome,
    key_ring: KeyRing,
    spawn_in_pty: Callable[..., Terminal],
    short_directory: Path,
) -> Iterator[Beside]:
    """A server that wants a secret; an askpass program has the right one."""
    policy = POLICIES[request.param]
    server = AsyncServer(policy, key_ring.host_keys["ed25519"], key_ring.client_key)
    both = Beside(client_home, server, spawn_in_pty, extra="StrictHostKeyChecking no")
    both.forget_keys()
    askpass, _ = write_askpass(short_directory, ["x"] * 8)
    both.variables = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    yield both
    server.stop()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-oPasswordAuthentication=no"],
        ["-oKbdInteractiveAuthentication=no"],
    ],
)
def test_no_secret_goes_to_a_server_whose_key_has_changed(
    asker: Beside, key_ring: KeyRing, short_directory: Path, options: list[str]
) -> None:
    assert isinstance(asker.server, AsyncServer)
    forget_host_key(asker.home, asker.server, key_ring)
    done = asker.both(*options, "server", "hi")
    assert done.status == 255
    assert asker.server.passwords() == []
    assert not (short_directory / "asked").exists()
    said = [DISABLED.format(name) in done.stderr for name in ("Password", "Keyboard-interactive")]
    assert any(said), done.stderr


def test_the_same_secret_goes_to_a_server_that_is_known(asker: Beside) -> None:
    assert isinstance(asker.server, AsyncServer)
    done = asker.both("server", "hi")
    assert (done.status, done.stdout) == (7, b"hi\n")
    assert asker.server.passwords()


# The agent


def answer_without_keys(kind: int) -> bytes:
    return NO_KEYS if kind == 11 else framed(b"\5")


def questions(agent: OddAgent) -> int:
    """Return how many of the requests came from a server of ours."""
    return sum(request[0] == AGENT_QUESTION for request in agent.requests)


@pytest.fixture
def agent(short_directory: Path) -> Iterator[OddAgent]:
    agent = OddAgent(short_directory / "agent", answer_without_keys)
    yield agent
    agent.stop()


@pytest.fixture
def odd_server(key_ring: KeyRing, private_places: Path) -> Iterator[OddServer]:
    server = OddServer(key_ring.host_keys["ed25519"], key_ring.client_key)
    yield server
    server.stop()


def run_with_agent(program: str, home: ClientHome, agent: OddAgent, *words: str) -> Completed:
    argv = [*PROGRAMS[program], *home.arguments, "-x", *words]
    return run(argv, env=home.environment(SSH_AUTH_SOCK=agent.path))


@pytest.mark.parametrize("program", ["ssh", "xssh"])
@pytest.mark.parametrize(
    ("options", "changed", "opened"),
    [
        (["-A"], False, True),
        ([], False, False),
        (["-A", "-a"], False, False),
        (["-A", "-oIdentityAgent=none"], False, False),
        (["-A", "-oStrictHostKeyChecking=no"], True, False),
    ],
)
def test_the_agent_is_reached_only_where_it_was_offered(
    client_home: ClientHome,
    odd_server: OddServer,
    agent: OddAgent,
    key_ring: KeyRing,
    program: str,
    options: list[str],
    changed: bool,
    opened: bool,
) -> None:
    client_home.add(odd_server)  # type: ignore[arg-type]
    if changed:
        forget_host_key(client_home, odd_server, key_ring)
    odd_server.on_session = open_agent_channel
    done = run_with_agent(program, client_home, agent, *options, "server", "true")
    assert done.status == 0, done
    assert odd_server.log == [f"agent: {'opened' if opened else 'refused'}"]
    assert questions(agent) == opened
    warned = "Agent forwarding is disabled to avoid man-in-the-middle attacks." in done.stderr
    assert warned is changed


@pytest.mark.parametrize("program", ["ssh", "xssh"])
def test_the_agent_that_is_offered_is_the_one_of_the_configuration(
    client_home: ClientHome,
    odd_server: OddServer,
    agent: OddAgent,
    short_directory: Path,
    program: str,
) -> None:
    """IdentityAgent names it, and not the environment."""
    client_home.add(odd_server)  # type: ignore[arg-type]
    odd_server.on_session = open_agent_channel
    named = OddAgent(short_directory / "named", answer_without_keys)
    try:
        words = ["-A", f"-oIdentityAgent={named.path}", "server", "true"]
        done = run_with_agent(program, client_home, agent, *words)
        assert done.status == 0, done
        assert (questions(agent), questions(named)) == (0, 1)
    finally:
        named.stop()


def test_a_jump_host_never_reaches_the_agent(
    client_home: ClientHome, odd_server: OddServer, agent: OddAgent
) -> None:
    client_home.config.write_text("ForwardAgent yes\n")
    client_home.add(odd_server, "jump", extra=NOT_CHECKED)  # type: ignore[arg-type]
    client_home.add(  # type: ignore[arg-type]
        odd_server, extra=f"ProxyJump jump\n{NOT_CHECKED}"
    )
    odd_server.on_jump = open_agent_channel
    done = run_with_agent("xssh", client_home, agent, "-A", "server", "true")
    assert done.status == 0, done
    assert odd_server.log == ["agent: refused"]
    assert questions(agent) == 0


def test_the_agent_is_there_behind_a_jump_host(
    client_home: ClientHome, odd_server: OddServer, agent: OddAgent
) -> None:
    client_home.add(odd_server, "jump", extra=NOT_CHECKED)  # type: ignore[arg-type]
    client_home.add(  # type: ignore[arg-type]
        odd_server, extra=f"ProxyJump jump\n{NOT_CHECKED}"
    )
    odd_server.on_session = open_agent_channel
    done = run_with_agent("xssh", client_home, agent, "-A", "server", "true")
    assert done.status == 0, done
    assert odd_server.log == ["agent: opened"]
    assert questions(agent) == 1


# Its key


def test_another_host_key_at_a_renewal_ends_the_connection(
    client_home: ClientHome, odd_server: OddServer
) -> None:
    """Before the session's command has run: nothing more is said to whoever took over."""
    client_home.add(odd_server)  # type: ignore[arg-type]
    other = asyncssh.load_keypairs([asyncssh.generate_private_key("ssh-ed25519")])[0]

    async def renew(connection: asyncssh.SSHServerConnection, _log: list[str]) -> None:
        connection._server_host_keys = {other.algorithm: other}
        connection._send_kexinit()
        connection._kexinit_sent = True  # or it is sent once more, in answer to the client's
        await asyncio.wait_for(connection.wait_closed(), 10)

    odd_server.on_session = renew
    argv = [*PROGRAMS["xssh"], *client_home.arguments, "-x", "server", "true"]
    done = run(argv, env=client_home.environment())
    assert done.status == 255
    assert "xssh: the server showed another host key in the middle" in done.stderr
