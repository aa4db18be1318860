"""The agent's protocol: what is said, and what an agent that makes no sense can do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.agents import framed, odd_agent
from xsshpy.login_settings import parse_adding, parse_time, read_login_settings
from xsshpy.settings import Invocation
from xsshpy.ssh import agent as agent_module
from xsshpy.ssh.agent import (
    REPLY_LIMIT,
    AgentConnection,
    AgentError,
    KeyConstraints,
    SessionBinding,
    encode_binding,
    open_bound_agent,
)
from xsshpy.ssh.agent_forward import open_forwarded_agent
from xsshpy.ssh.config import read_settings_without_ssh

T = TypeVar("T")
BINDING = SessionBinding(b"key", b"id", b"signature")
REFUSAL = framed(b"\x05")
EMPTY = framed(b"\x0c\0\0\0\0")
Answer = Callable[[int], "bytes | tuple[()] | None"]


def ask(
    directory: Path, answer: Answer, question: Callable[[AgentConnection], Coroutine[None, None, T]]
) -> T:
    async def go(path: str) -> T:
        agent = await AgentConnection.open(path)
        try:
            return await question(agent)
        finally:
            agent.close()

    with odd_agent(directory, answer) as odd:
        return asyncio.run(go(odd.path))


def list_keys(directory: Path, answer: bytes | None) -> list[str]:
    keys = ask(directory, lambda kind: answer, AgentConnection.list_keys)
    return [key.comment for key in keys]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "communication with agent failed"),
        (framed(b""), "invalid format"),
        (b"\xff\xff\xff\xff", "invalid format"),
        ((REPLY_LIMIT + 1).to_bytes(4, "big"), "invalid format"),
        (framed(b"\x06"), "invalid format"),
        (framed(b"\x63garbage"), "invalid format"),
        (REFUSAL, "agent refused operation"),
        (framed(b"\x66"), "agent refused operation"),
        (framed(b"\x0c\0\0"), "incomplete message"),
        (framed(b"\x0c\0\0\x08\x01"), "invalid format"),
        (framed(b"\x0c\0\0\0\x02\0\0\0\x01x\0\0\0\x01y"), "incomplete message"),
        (framed(b"\x0c\0\0\0\x01\xff\xff\xff\xff"), "incomplete message"),
    ],
)
def test_an_agent_that_makes_no_sense_lists_no_keys(
    short_directory: Path, answer: bytes | None, words: str
) -> None:
    with pytest.raises(AgentError, match=words):
        list_keys(short_directory, answer)


def test_an_agent_that_stops_half_way_is_given_up(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "ANSWER_DEADLINE", 0.2)
    with pytest.raises(AgentError, match="communication"):
        list_keys(short_directory, b"\0\0")


@pytest.mark.parametrize("kind", [11, 17, 27])
def test_an_agent_that_stalls_is_given_up(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    monkeypatch.setattr(agent_module, "ANSWER_DEADLINE", 0.2)
    questions = {
        11: AgentConnection.list_keys,
        17: lambda agent: agent.add(b"", b"", KeyConstraints()),
        27: lambda agent: agent.bind(BINDING, forwarding=False),
    }
    with pytest.raises(AgentError, match="communication"):
        ask(short_directory, lambda kind: (), questions[kind])


def test_a_key_of_an_unknown_kind_is_left_out(short_directory: Path) -> None:
    assert list_keys(short_directory, framed(b"\x0c\0\0\0\x01\0\0\0\x01x\0\0\0\x01y")) == []


@given(data=st.binary(max_size=200))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_only_its_own_error_comes_out_of_what_an_agent_says(
    short_directory: Path, data: bytes
) -> None:
    async def go() -> None:
        for kind in (b"\x0c", b"\x0e", b""):
            for question in (AgentConnection.list_keys, sign, bind):
                reader = asyncio.StreamReader()
                reader.feed_data(framed(kind + data))
                reader.feed_eof()
                with contextlib.suppress(AgentError):
                    await question(AgentConnection(reader, _Nowhere()))  # type: ignore[arg-type]

    async def sign(agent: AgentConnection) -> None:
        await agent.sign(b"", b"", b"ssh-ed25519")

    async def bind(agent: AgentConnection) -> None:
        await agent.bind(BINDING, forwarding=True)

    asyncio.run(go())


class _Nowhere:
    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("refusal", [REFUSAL, framed(b"\x1c"), framed(b"\x06"), None, b"\0\0\0\0"])
def test_an_agent_without_binding_is_used_all_the_same(
    short_directory: Path, refusal: bytes | None
) -> None:
    async def go(path: str) -> tuple[int, bool]:
        agent, unbound = await open_bound_agent(path, BINDING, forwarding=False)
        try:
            return len(await agent.list_keys()), not unbound
        finally:
            agent.close()

    with odd_agent(short_directory, lambda kind: refusal if kind == 27 else EMPTY) as odd:
        assert asyncio.run(go(odd.path)) == (0, refusal == framed(b"\x06"))
        assert odd.requests[0] == encode_binding(BINDING, forwarding=False)


@pytest.mark.parametrize("answer", [REFUSAL, framed(b"\x06"), None, b"\xff\xff\xff\xff"])
def test_a_forwarded_agent_is_bound_first(short_directory: Path, answer: bytes | None) -> None:
    async def go(path: str) -> None:
        forwarder = await open_forwarded_agent(path, BINDING)
        forwarder.close()

    with odd_agent(short_directory, lambda kind: answer) as odd:
        asyncio.run(go(odd.path))
        assert odd.requests == [encode_binding(BINDING, forwarding=True)]
        assert odd.requests[0][-1] == 1


def test_constraints_are_encoded() -> None:
    assert KeyConstraints().encode() == b""
    assert KeyConstraints(lifetime=3600).encode() == b"\x01\0\0\x0e\x10"
    assert KeyConstraints(lifetime=1, confirm=True).encode() == b"\x01\0\0\0\x01\x02"
    assert KeyConstraints(security_key_provider="p").encode().endswith(b"\0\0\0\x01p")


# What the configuration says


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", ("yes", 0)), ("yes", ("yes", 0)), ("false", ("no", 0)), ("no", ("no", 0)),
        ("ask", ("ask", 0)), ("confirm", ("confirm", 0)), ("confirm 3600", ("confirm", 3600)),
        ("confirm 1h30m", ("confirm", 5400)), ("3600", ("yes", 3600)), ("2d", ("yes", 172800)),
        ("", ("no", 0)), ("sometimes", ("no", 0)),
    ],
)  # fmt: skip
def test_addkeystoagent_has_a_mode_and_a_lifetime(value: str, expected: tuple[str, int]) -> None:
    assert parse_adding(value) == expected


@pytest.mark.parametrize("text", ["", "h", "1y", "-1", "1 h", "1h1", "9" * 11, "9999999999w", "½"])
def test_what_is_no_time(text: str) -> None:
    assert parse_time(text) == (3601 if text == "1h1" else None)


def test_providers_may_be_variables() -> None:
    keywords = {"securitykeyprovider": ("$SK",), "pkcs11provider": ("/lib.so",)}
    found = read_login_settings(keywords, {"SK": "/sk.so"})
    assert (found.security_key_provider, found.pkcs11_provider) == ("/sk.so", "/lib.so")
    assert read_login_settings(keywords, {}).security_key_provider == ""
    assert read_login_settings({}, {}).security_key_provider == ""
    assert not read_login_settings({"pubkeyauthentication": ("unbound",)}, {}).host_bound_signatures


@pytest.mark.parametrize(
    ("options", "lines", "expected"),
    [
        ((), "", {}),
        ((("K", None),), "", {"gssapi": True, "gssapi_delegate": True}),
        ((("K", None), ("k", None)), "", {"gssapi": True, "gssapi_delegate": False}),
        ((("I", "/lib.so"),), "", {"pkcs11_provider": "/lib.so"}),
        ((), "AddKeysToAgent confirm 1h", {"add_keys_to_agent": "confirm",
                                           "add_keys_lifetime": 3600}),
        ((("o", "AddKeysToAgent=yes"),), "AddKeysToAgent no", {"add_keys_to_agent": "yes"}),
        ((), "SecurityKeyProvider none", {"security_key_provider": ""}),
        ((), "GSSAPIAuthentication yes\nHostbasedAuthentication yes",
         {"gssapi": True, "hostbased": True}),
        ((), "KbdInteractiveDevices pam", {"interactive_devices": "pam"}),
    ],
)  # fmt: skip
def test_where_no_ssh_is_installed_they_are_read_as_well(
    tmp_path: Path,
    options: tuple[tuple[str, str | None], ...],
    lines: str,
    expected: dict[str, object],
) -> None:
    file = tmp_path / "config"
    file.write_text(lines + "\n")
    invocation = Invocation("host", "", (("F", str(file)), *options))
    found = read_settings_without_ssh(invocation, {}).login
    plain = {"security_key_provider": "internal", "add_keys_to_agent": "no", "gssapi": False}
    for name, value in {**plain, **expected}.items():
        assert getattr(found, name) == value
    assert "ssh-ed25519" in found.hostbased_algorithms
