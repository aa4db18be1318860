"""The decision about a host key: each way it can go, and what the oracle in integration cannot see.

CheckHostIP needs an address that is not loopback's: beside ssh it is shown where root may make a
network of its own (test_hostkey_address.py), and here everywhere.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest

from xsshpy.console import LogLevel
from xsshpy.ssh.hostkey_decisions import (
    Accept,
    AcceptUntrusted,
    Add,
    Addition,
    Answer,
    Ask,
    Decision,
    Refuse,
    Settled,
    parse_host_key_answer,
    settle_host_key,
)
from xsshpy.ssh.hostkey_policy import (
    Feature,
    HostKeyPolicy,
    HostNames,
    StrictChecking,
    parse_strict_checking,
)
from xsshpy.ssh.hostkey_texts import QUESTION, QUESTION_PLAIN, Line
from xsshpy.ssh.hostkeys import decide_host_key
from xsshpy.ssh.keyblob import HostCertificate, HostKey
from xsshpy.ssh.known_hosts import KnownHosts, parse_known_hosts

ASK, YES, NO = StrictChecking.ASK, StrictChecking.YES, StrictChecking.NO
ACCEPT_NEW = StrictChecking.ACCEPT_NEW
NAMES = HostNames("tower", 22, "192.0.2.7")


def ssh_string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def make_key(seed: str) -> HostKey:
    public = hashlib.sha256(seed.encode()).digest()
    return HostKey("ssh-ed25519", ssh_string(b"ssh-ed25519") + ssh_string(public))


KEY, OTHER, CA = make_key("key"), make_key("other"), make_key("ca")
CERTIFICATE = HostCertificate(
    algorithm="ssh-ed25519-cert-v01@openssh.com",
    key=KEY,
    ca=CA,
    kind=2,
    key_id="id",
    serial=0,
    principals=("tower",),
    valid_after=0,
    valid_before=2**64 - 1,
    has_critical_options=False,
    signature_algorithm="ssh-ed25519",
)


def known(*lines: str, user_files: tuple[str, ...] = ("/kh",)) -> KnownHosts:
    return KnownHosts(user_files, (), parse_known_hosts("\n".join(lines).encode(), "/kh"))


def on_record(names: str, key: HostKey = KEY, marker: str = "") -> str:
    return f"{marker} {names} {key.text()}".strip()


def decide(
    *lines: str,
    key: HostKey | HostCertificate = KEY,
    names: HostNames = NAMES,
    strict: StrictChecking = ASK,
    problem: str = "",
    **settings: object,
) -> Decision:
    policy = replace(HostKeyPolicy(strict=strict), **settings)  # type: ignore[arg-type]
    return decide_host_key(key, known(*lines), names, policy, problem)


def said(decision: Decision, level: LogLevel = LogLevel.INFO) -> list[str]:
    return [line.text for line in decision.lines if line.level <= level]


# Names


@pytest.mark.parametrize(
    ("names", "record", "address"),
    [
        (HostNames("Tower"), "tower", "<no hostip for proxy command>"),
        (HostNames("tower", 22, "::1"), "tower", "::1"),
        (HostNames("tower", 2222, "fe80::1%eth0"), "[tower]:2222", "[fe80::1%eth0]:2222"),
        (HostNames("tower", 2222, "192.0.2.7", "Alias"), "alias", "[192.0.2.7]:2222"),
        (HostNames("::1", 22), "::1", "<no hostip for proxy command>"),
    ],
)
def test_names(names: HostNames, record: str, address: str) -> None:
    assert names.record_name == record
    assert names.address_name == address


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("192.0.2.7", False),
     ("::1%lo", True), (None, False), ("nonsense", False)],
)  # fmt: skip
def test_local(address: str | None, local: bool) -> None:
    assert HostNames("h", 22, address).is_local is local


@pytest.mark.parametrize(
    ("value", "meaning"),
    [("yes", YES), ("true", YES), ("no", NO), ("off", NO), ("false", NO), ("ASK", ASK),
     ("accept-new", ACCEPT_NEW)],
)  # fmt: skip
def test_strict_checking_values(value: str, meaning: StrictChecking) -> None:
    assert parse_strict_checking(value) is meaning


def test_unknown_strict_checking_value() -> None:
    with pytest.raises(ValueError, match="maybe"):
        parse_strict_checking("maybe")


# Answers


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        ("yes", Answer.YES), ("YES\n", Answer.YES), (" \tyes ", Answer.YES),
        ("yes and no", Answer.YES), ("SHA256:AbC", Answer.YES), (" SHA256:AbC ", Answer.YES),
        ("no", Answer.NO), ("No", Answer.NO), ("", Answer.NO), (None, Answer.NO), ("\n", Answer.NO),
        ("  ", Answer.NO), ("y", Answer.AGAIN), ("sha256:abc", Answer.AGAIN),
        ("AbC", Answer.AGAIN), ("SHA256:AbCd", Answer.AGAIN), ("yes\r", Answer.AGAIN),
    ],
)  # fmt: skip
def test_answer(answer: str | None, meaning: Answer) -> None:
    assert parse_host_key_answer(answer, "SHA256:AbC") is meaning


def test_no_fingerprint_to_answer_with() -> None:
    assert parse_host_key_answer("SHA256:AbC", "") is Answer.AGAIN


# New keys


def test_question() -> None:
    decision = decide(names=HostNames("tower", 2222, "192.0.2.7"))
    assert isinstance(decision, Ask)
    fingerprint = KEY.fingerprint()
    assert decision.prompt == (
        "The authenticity of host '[tower]:2222 ([192.0.2.7]:2222)' can't be established.\n"
        f"ED25519 key fingerprint is {fingerprint}.\n"
        "This key is not known by any other names.\n" + QUESTION
    )
    assert decision.fingerprint == fingerprint
    assert isinstance(decision.yes, Add)
    assert decision.yes.addition.names == ("[tower]:2222",)
    assert decision.yes.then == Accept((), trusted=True)
    assert decision.no == Refuse((), "Host key verification failed.")


def test_other_names_in_the_question() -> None:
    lines = [on_record(f"h{number}") for number in range(11)]
    files = KnownHosts(
        ("/home/u/kh",), (), parse_known_hosts("\n".join(lines).encode(), "/home/u/kh")
    )
    policy = HostKeyPolicy(home="/home/u/")
    decision = decide_host_key(KEY, files, NAMES, policy)
    assert isinstance(decision, Ask)
    listed = decision.prompt.splitlines()[2:-1]
    assert listed[0] == "This host key is known by the following other names/addresses:"
    assert listed[1] == "    ~/kh:1: h0"
    assert listed[8:] == ["    ~/kh:8: h7", "    (3 additional names omitted)"]


def test_home_is_only_a_whole_directory() -> None:
    files = KnownHosts(("/home/user/kh",), (), parse_known_hosts(
        on_record("h").encode(), "/home/user/kh"))  # fmt: skip
    decision = decide_host_key(KEY, files, NAMES, HostKeyPolicy(home="/home/u"))
    assert isinstance(decision, Ask)
    assert "    /home/user/kh:1: h\n" in decision.prompt


def test_unreadable_file_is_said_before_the_question() -> None:
    files = KnownHosts(("/kh",), (), unreadable=(("/etc/x", "Permission denied"),))
    decision = decide_host_key(KEY, files, NAMES, HostKeyPolicy())
    assert said(decision) == [
        "hostkeys_find_by_key_hostfile: hostkeys_foreach failed for /etc/x: Permission denied"
    ]


def test_nothing_is_asked_in_batch_mode() -> None:
    assert decide(batch=True) == Refuse(())


@pytest.mark.parametrize("strict", [ACCEPT_NEW, NO])
def test_added_unasked(strict: StrictChecking) -> None:
    decision = decide(strict=strict, hash_known_hosts=True)
    assert isinstance(decision, Add)
    assert decision.addition.hashed
    assert decision.addition.path == "/kh"
    text = "Warning: Permanently added 'tower' (ED25519) to the list of known hosts."
    assert decision.addition.added == Line(LogLevel.INFO, text)
    assert decision.then == Accept((), trusted=False)


@pytest.mark.parametrize(("host", "files"), [("to*er", ("/kh",)), ("a[b", ("/kh",)), ("tower", ())])
def test_key_that_cannot_be_put_on_record(host: str, files: tuple[str, ...]) -> None:
    names = HostNames(host)
    for strict in StrictChecking:
        decision = decide_host_key(
            KEY, known(user_files=files), names, HostKeyPolicy(strict=strict)
        )
        assert isinstance(decision, Refuse)
        assert "cannot be put on record" in said(decision)[0]


def test_alias_makes_a_strange_host_recordable_no_more() -> None:
    """As in ssh, which looks at the host's name, whatever the alias."""
    assert isinstance(decide(names=HostNames("a*b", alias="fine")), Refuse)


# Keys on record


def test_known_key() -> None:
    decision = decide(on_record("tower"))
    assert isinstance(decision, Accept)
    assert decision.trusted
    assert said(decision) == []
    assert said(decision, LogLevel.DEBUG1) == [
        "Host 'tower' is known and matches the ED25519 host key.",
        "Found key in /kh:1",
    ]


def test_key_known_without_its_port_is_not_trusted_further() -> None:
    decision = decide(on_record("tower"), names=HostNames("tower", 2222, "192.0.2.7"))
    assert isinstance(decision, Accept)
    assert not decision.trusted


def test_alias_has_no_port_and_no_fallback() -> None:
    names = HostNames("tower", 2222, "192.0.2.7", "alias")
    assert isinstance(decide(on_record("alias"), names=names), Accept)
    assert isinstance(decide(on_record("tower"), names=names), Ask)


@pytest.mark.parametrize("strict", list(StrictChecking))
def test_changed_key(strict: StrictChecking) -> None:
    enabled = frozenset({Feature.PASSWORD, Feature.X11, Feature.UPDATE_HOST_KEYS})
    decision = decide(on_record("tower", OTHER), strict=strict, enabled=enabled)
    lines = said(decision)
    assert "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @" in lines
    assert "Offending ED25519 key in /kh:1" in lines
    if strict is NO:
        assert isinstance(decision, AcceptUntrusted)
        assert decision.disabled == enabled
        assert lines[-3:] == [
            "Password authentication is disabled to avoid man-in-the-middle attacks.",
            "X11 forwarding is disabled to avoid man-in-the-middle attacks.",
            "UpdateHostkeys is disabled because the host key is not trusted.",
        ]
    else:
        assert decision == Refuse(decision.lines, "Host key verification failed.")
        assert lines[-1].startswith("Host key for tower has changed and you have requested")


def test_exit_on_forward_failure() -> None:
    enabled = frozenset({Feature.UPDATE_HOST_KEYS})
    wanted = dict(strict=NO, exit_on_forward_failure=True)
    decision = decide(on_record("tower", OTHER), enabled=enabled, **wanted)  # type: ignore[arg-type]
    assert isinstance(decision, AcceptUntrusted)
    decision = decide(
        on_record("tower", OTHER),
        enabled=enabled | {Feature.PORTS},
        **wanted,  # type: ignore[arg-type]
    )
    assert isinstance(decision, Refuse)
    assert decision.reason == "Error: forwarding disabled due to host key check failure"


def test_command_that_removes_a_key_is_safe_to_paste() -> None:
    files = KnownHosts(("/k h",), (), parse_known_hosts(
        on_record("tower", OTHER).encode(), "/$(k) h"))  # fmt: skip
    decision = decide_host_key(KEY, files, NAMES, HostKeyPolicy())
    assert "  ssh-keygen -f '/$(k) h' -R 'tower'" in said(decision)


@pytest.mark.parametrize("marked", [KEY, CA])
def test_revoked(marked: HostKey) -> None:
    lines = [on_record("tower"), on_record("*", CA, "@cert-authority")]
    lines.append(on_record("*", marked, "@revoked"))
    for strict in StrictChecking:
        decision = decide(*lines, key=CERTIFICATE, strict=strict)
        assert "The ED25519-CERT host key for tower is marked as revoked." in said(decision)
        assert isinstance(decision, AcceptUntrusted if strict is NO else Refuse)
    expected = Refuse if marked is KEY else Accept
    assert isinstance(decide(*lines), expected)


def test_ca_is_for_certificates_only() -> None:
    authority = on_record("*", CA, "@cert-authority")
    assert isinstance(decide(authority, key=CERTIFICATE), Accept)
    assert isinstance(decide(authority, key=CA), Ask)
    assert isinstance(decide(on_record("*", CA), key=CERTIFICATE, strict=YES), Refuse)


def test_certificate_that_does_not_hold_leaves_the_key() -> None:
    authority = on_record("*", CA, "@cert-authority")
    decision = decide(authority, on_record("tower"), key=CERTIFICATE, problem="Broken.")
    assert isinstance(decision, Accept)
    assert said(decision) == ["Broken."]
    decision = decide(authority, key=CERTIFICATE, problem="Broken.")
    assert isinstance(decision, Ask)
    assert said(decision) == ["Broken."]


def test_key_that_the_algorithms_forbid() -> None:
    algorithms = (CERTIFICATE.algorithm, "rsa-sha2-512")
    decision = decide(on_record("tower"), host_key_algorithms=algorithms)
    assert isinstance(decision, Refuse)
    assert said(decision) == ["host key ssh-ed25519 not permitted by HostkeyAlgorithms"]
    authority = on_record("*", CA, "@cert-authority")
    decision = decide(authority, key=CERTIFICATE, host_key_algorithms=algorithms)
    assert isinstance(decision, Accept)


def test_short_rsa_key() -> None:
    modulus = b"\0" + (1 << 1535 | 1).to_bytes(192, "big")
    blob = b"".join(map(ssh_string, [b"ssh-rsa", b"\1\0\1", modulus]))
    short = HostKey("ssh-rsa", blob)
    line = on_record("tower", short)
    decision = decide(line, key=short, required_rsa_size=2048)
    assert decision == Refuse((), "Bad server host key: Invalid key length")
    assert isinstance(decide(line, key=short), Accept)


def test_localhost_is_trusted_on_request() -> None:
    local = HostNames("localhost", 22, "127.0.0.1")
    changed = on_record("localhost", OTHER)
    assert isinstance(decide(changed, names=local, trust_localhost=True), Accept)
    assert isinstance(decide(changed, names=local), Refuse)
    named = replace(local, alias="localhost")
    assert isinstance(decide(changed, names=named, trust_localhost=True), Refuse)
    assert isinstance(decide(on_record("tower", OTHER), trust_localhost=True), Refuse)


# CheckHostIP


def test_address_is_recorded_with_a_new_host() -> None:
    decision = decide(strict=ACCEPT_NEW, check_host_ip=True)
    assert isinstance(decision, Add)
    assert decision.addition.names == ("tower", "192.0.2.7")
    assert "'tower,192.0.2.7' (ED25519)" in decision.addition.added.text
    for address in ("127.0.0.1", None, "tower"):
        names = replace(NAMES, address=address)
        decision = decide(names=names, strict=ACCEPT_NEW, check_host_ip=True)
        assert isinstance(decision, Add)
        assert decision.addition.names == ("tower",)


def test_address_is_added_to_a_known_host() -> None:
    decision = decide(on_record("tower"), strict=YES, check_host_ip=True)
    assert isinstance(decision, Add)
    assert decision.addition.names == ("192.0.2.7",)
    assert decision.addition.added.text == (
        "Warning: Permanently added the ED25519 host key for IP address '192.0.2.7' "
        "to the list of known hosts."
    )
    assert decision.addition.failed.text == (
        "Failed to add the ED25519 host key for IP address '192.0.2.7' "
        "to the list of known hosts (/kh)."
    )
    assert decision.then == Accept((), trusted=True)


def test_address_is_not_added_for_a_certificate() -> None:
    authority = on_record("*", CA, "@cert-authority")
    assert isinstance(decide(authority, key=CERTIFICATE, check_host_ip=True), Accept)


WARNING = (
    "Warning: the ED25519 host key for 'tower' differs from the key for the IP address "
    "'192.0.2.7'\nOffending key for IP in /kh:2\nMatching host key in /kh:1"
)


def test_address_with_another_key() -> None:
    lines = [on_record("tower"), on_record("192.0.2.7", OTHER)]
    decision = decide(*lines, check_host_ip=True)
    assert isinstance(decision, Ask)
    assert decision.prompt == f"{WARNING}\n{QUESTION_PLAIN}"
    assert decision.again == "Please type 'yes' or 'no': "
    assert decision.yes == Accept((), trusted=True)
    decision = decide(*lines, check_host_ip=True, strict=NO)
    assert isinstance(decision, Accept)
    assert said(decision) == [WARNING]
    for strict in (YES, ACCEPT_NEW):
        decision = decide(*lines, check_host_ip=True, strict=strict)
        assert isinstance(decision, Refuse)
        assert said(decision) == [WARNING, "Exiting, you have requested strict checking."]
    assert isinstance(decide(*lines, check_host_ip=True, batch=True), Refuse)
    assert isinstance(decide(*lines), Accept)


@pytest.mark.parametrize(
    ("address_key", "what"),
    [(None, "is unknown"), (KEY, "is unchanged"), (make_key("third"), "has a different value")],
)
def test_spoofing(address_key: HostKey | None, what: str) -> None:
    lines = [on_record("tower", OTHER)]
    if address_key is not None:
        lines.append(on_record("192.0.2.7", address_key))
    shown = said(decide(*lines, check_host_ip=True))
    assert shown[1] == "@       WARNING: POSSIBLE DNS SPOOFING DETECTED!          @"
    assert f"{what}. This could either mean that" in shown
    assert ("Offending key for IP in /kh:2" in shown) == (address_key is not None)


def test_no_spoofing_where_both_changed_alike() -> None:
    shown = said(decide(on_record("tower,192.0.2.7", OTHER), check_host_ip=True))
    assert not any("SPOOFING" in line for line in shown)


# Carrying it through


def settle(
    decision: Decision, answers: list[str | None], reason: str | None = None
) -> tuple[Settled, list[str], list[str], list[Addition]]:
    lines: list[Line] = []
    prompts: list[str] = []
    additions: list[Addition] = []

    async def ask(prompt: str) -> str | None:
        prompts.append(prompt)
        return answers.pop(0)

    async def record(addition: Addition) -> str | None:
        additions.append(addition)
        return reason

    settled = asyncio.run(settle_host_key(decision, say=lines.append, ask=ask, record=record))
    return settled, [line.text for line in lines], prompts, additions


def test_settled_with_a_yes() -> None:
    settled, lines, prompts, additions = settle(decide(), ["what", "yes"])
    assert settled == Accept((), trusted=True)
    assert lines == ["Warning: Permanently added 'tower' (ED25519) to the list of known hosts."]
    assert prompts[1] == "Please type 'yes', 'no' or the fingerprint: "
    assert len(additions) == 1


@pytest.mark.parametrize("answer", ["no", "", None])
def test_settled_with_a_no(answer: str | None) -> None:
    settled, lines, _prompts, additions = settle(decide(), [answer])
    assert settled == Refuse((), "Host key verification failed.")
    assert (lines, additions) == ([], [])


def test_key_that_could_not_be_written_is_accepted_all_the_same() -> None:
    settled, lines, _prompts, _additions = settle(decide(), ["yes"], "No space left on device")
    assert isinstance(settled, Accept)
    assert lines == [
        "Failed to add the host to the list of known hosts (/kh).",
        "xssh: /kh: No space left on device",
    ]


def test_endless_nonsense_is_a_no() -> None:
    settled, _lines, prompts, _additions = settle(decide(), ["what"] * 1000)
    assert isinstance(settled, Refuse)
    assert len(prompts) == 100


def test_two_questions_in_a_row() -> None:
    lines = [on_record("192.0.2.7", OTHER)]
    settled, _lines, prompts, additions = settle(
        decide(*lines, check_host_ip=True), ["yes", "maybe", "no"]
    )
    assert isinstance(settled, Refuse)
    assert len(prompts) == 3
    assert [addition.names for addition in additions] == [("tower",)]


@pytest.mark.parametrize(("alias", "name"), [(None, "host"), ("Alias", "alias")])
def test_the_name_that_a_certificate_has_to_list(alias: str | None, name: str) -> None:
    assert HostNames("Host", 2222, alias=alias).certificate_name == name
