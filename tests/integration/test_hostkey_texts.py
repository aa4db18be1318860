"""What is said and done about a host key, held against the ssh of this machine, word for word.

ssh talks to ``sshd -i`` as its ProxyCommand, so no port is needed and the names can have any. The
known_hosts files are the same for both sides; what each adds is compared afterwards.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.beside import alike
from tests.support.sshd import quick_exchanges
from tests.support.tools import require_tool
from xsshpy.console import LogLevel
from xsshpy.ssh.hostkey_decisions import (
    Accept,
    AcceptUntrusted,
    Addition,
    Settled,
    settle_host_key,
)
from xsshpy.ssh.hostkey_policy import Feature, HostKeyPolicy, HostNames, StrictChecking
from xsshpy.ssh.hostkey_texts import Line
from xsshpy.ssh.hostkeys import decide_host_key
from xsshpy.ssh.keyblob import HostCertificate, certificate_problem, parse_public_key
from xsshpy.ssh.known_hosts import hash_host_name, order_host_key_algorithms
from xsshpy.ssh.known_hosts_file import add_host_key, load_known_hosts

ALGORITHM = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256", "rsa": "rsa-sha2-512"}
CERTIFICATE_ALGORITHM = "ssh-ed25519-cert-v01@openssh.com"
USED_BY_DEFAULT = frozenset({Feature.PASSWORD, Feature.KEYBOARD_INTERACTIVE})


@dataclass
class Host:
    """A server to be, its keys as files, and a directory for the client's files."""

    directory: Path
    keys: Path
    host_key: str = "ed25519"
    with_certificate: bool = False

    def public(self, name: str) -> str:
        words = (self.keys / f"{name}.pub").read_text().split()
        return f"{words[0]} {words[1]}"

    def blob(self) -> bytes:
        import base64

        suffix = "-cert.pub" if self.with_certificate else ".pub"
        return base64.b64decode((self.keys / f"{self.host_key}{suffix}").read_text().split()[1])

    def server_config(self) -> Path:
        path = self.directory / "sshd_config"
        lines = [
            f"HostKey {self.keys / self.host_key}",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "LogLevel QUIET",
            "PidFile none",
            f"KexAlgorithms {quick_exchanges()}",
        ]
        if self.with_certificate:
            lines.append(f"HostCertificate {self.keys / self.host_key}-cert.pub")
        path.write_text("\n".join(lines) + "\n")
        return path


@dataclass
class Case:
    """One connection: what is on record, how it is called, and what the user answers."""

    known: str = ""
    strict: str = "ask"
    host: str = "tower.example.net"
    port: int = 22
    alias: str | None = None
    answers: Sequence[str] = ()
    batch: bool = False
    hashed: bool = False
    fingerprint_hash: str = "sha256"
    user_file: str = "known_hosts"
    system: str = ""
    options: Sequence[str] = field(default_factory=tuple)
    level: LogLevel = LogLevel.INFO


@dataclass
class Outcome:
    """What one side said and asked, and the file it left."""

    text: str
    prompts: list[str]
    recorded: str
    accepted: bool


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keygen = require_tool("ssh-keygen")
    directory = tmp_path_factory.mktemp("hostkeys")
    for name, kind in [("ed25519", "ed25519"), ("other", "ed25519"), ("ca", "ed25519"),
                       ("ecdsa", "ecdsa"), ("rsa", "rsa")]:  # fmt: skip
        command = [keygen, "-q", "-t", kind, "-N", "", "-C", name, "-f", str(directory / name)]
        subprocess.run([*command, "-b", "2048"] if kind == "rsa" else command, check=True)
    return directory


@pytest.fixture
def host(keys: Path, tmp_path: Path) -> Host:
    require_tool("ssh")
    require_tool("sshd")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    return Host(tmp_path, keys)


def certify(host: Host, principals: str, *options: str) -> Host:
    """Give the host a certificate by the CA, in a directory of keys of its own."""
    own = host.directory / "certified"
    shutil.copytree(host.keys, own)
    command = ["ssh-keygen", "-q", "-s", str(own / "ca"), "-I", "id", "-h", "-n", principals]
    subprocess.run([*command, *options, str(own / "ed25519.pub")], check=True)
    return Host(host.directory, own, with_certificate=True)


def write_files(host: Host, case: Case) -> tuple[str, str]:
    path = host.directory / case.user_file
    if path.parent.is_dir() and not path.is_char_device():
        path.write_text(case.known)
    system = host.directory / "ssh_known_hosts"
    system.write_text(case.system)
    return str(path), str(system)


def run_ssh(host: Host, case: Case) -> Outcome:
    user, system = write_files(host, case)
    asked = host.directory / "asked"
    shutil.rmtree(asked, ignore_errors=True)
    asked.mkdir()
    answers = host.directory / "answers"
    answers.write_text("".join(f"{answer}\n" for answer in case.answers))
    stub = host.directory / "askpass"
    stub.write_text(
        "#!/bin/sh\n"
        f'cd "{asked}" || exit 1\n'
        'set -- "$1" $(ls | wc -l)\n'
        'printf %s "$1" > "$2"\n'
        f'sed -n "$(($2 + 1))p" "{answers}"\n'
    )
    stub.chmod(0o700)
    algorithms = ALGORITHM[host.host_key]
    if host.with_certificate:
        algorithms = f"{CERTIFICATE_ALGORITHM},{algorithms}"
    options = [
        f"UserKnownHostsFile={user}",
        f"GlobalKnownHostsFile={system}",
        f"StrictHostKeyChecking={case.strict}",
        f"HashKnownHosts={'yes' if case.hashed else 'no'}",
        f"FingerprintHash={case.fingerprint_hash}",
        f"BatchMode={'yes' if case.batch else 'no'}",
        f"HostKeyAlgorithms={algorithms}",
        f"ProxyCommand={require_tool('sshd')} -i -f {host.server_config()}",
        "IdentityAgent=none",
        "IdentityFile=none",
        "UpdateHostKeys=no",
        f"LogLevel={case.level.name}",
        *case.options,
    ]
    if case.alias is not None:
        options.append(f"HostKeyAlias={case.alias}")
    command = ["ssh", "-F", "none", "-T", "-p", str(case.port), "-l", "nobody"]
    for option in options:
        command += ["-o", option]
    environment = {"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]}
    if case.answers:
        environment.update(SSH_ASKPASS=str(stub), SSH_ASKPASS_REQUIRE="force")
    done = subprocess.run(
        [*command, case.host, "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment,
        start_new_session=True,
        timeout=30,
    )
    text = done.stderr.decode().replace("\r\n", "\n")
    end = re.search(r"^\S+: Permission denied \(publickey\)\.\n", text, re.MULTILINE)
    if end:
        text = text[: end.start()]
    prompts = [(asked / name).read_text() for name in sorted(os.listdir(asked), key=int)]
    return Outcome(text, prompts, read_back(user), end is not None)


def run_ours(host: Host, case: Case) -> tuple[Outcome, Settled]:
    user, system = write_files(host, case)
    presented = parse_public_key(host.blob())
    names = HostNames(case.host, case.port, None, case.alias)
    algorithms: tuple[str, ...] = (ALGORITHM[host.host_key],)
    problem = ""
    if isinstance(presented, HostCertificate):
        algorithms = (CERTIFICATE_ALGORITHM, *algorithms)
        problem = certificate_problem(presented, names.certificate_name, time.time())
    policy = HostKeyPolicy(
        strict=StrictChecking(case.strict),
        batch=case.batch,
        hash_known_hosts=case.hashed,
        fingerprint_hash=case.fingerprint_hash,
        host_key_algorithms=algorithms,
        enabled=enabled_features(case),
        exit_on_forward_failure="ExitOnForwardFailure=yes" in case.options,
        home=os.environ["HOME"],
    )
    said: list[Line] = []
    prompts: list[str] = []
    answers = list(case.answers)

    async def ask(prompt: str) -> str | None:
        if not case.answers:
            return None
        prompts.append(prompt)
        return answers.pop(0) if answers else ""

    async def record(addition: Addition) -> str | None:
        return add_host_key(addition.path, addition.names, addition.key, hashed=addition.hashed)

    known = load_known_hosts([user], [system])
    decision = decide_host_key(presented, known, names, policy, problem)
    settled = asyncio.run(settle_host_key(decision, say=said.append, ask=ask, record=record))
    text = "".join(f"{line.text}\n" for line in said if line.level <= case.level)
    accepted = isinstance(settled, Accept | AcceptUntrusted)
    if not isinstance(settled, Accept | AcceptUntrusted):
        text += settled.reason + "\n"
    return Outcome(text, prompts, read_back(user), accepted), settled


def enabled_features(case: Case) -> frozenset[Feature]:
    enabled = set(USED_BY_DEFAULT)
    for option, feature in [
        ("ForwardAgent=yes", Feature.AGENT),
        ("ForwardX11=yes", Feature.X11),
        ("LocalForward=", Feature.PORTS),
        ("UpdateHostKeys=yes", Feature.UPDATE_HOST_KEYS),
    ]:
        if any(given.startswith(option) for given in case.options):
            enabled.add(feature)
    return frozenset(enabled)


def read_back(path: str) -> str:
    return Path(path).read_text() if os.path.isfile(path) else ""


def normal(text: str) -> str:
    """Take away what differs between releases of ssh and between upstream and Debian."""
    text = re.sub(r"^  remove with:\n  ssh-keygen .*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"fingerprint is: (\S+)$", r"fingerprint is \1.", text, flags=re.MULTILINE)


def compare(host: Host, case: Case) -> Settled:
    theirs = run_ssh(host, case)
    ours, settled = run_ours(host, case)
    assert normal(ours.text) == normal(theirs.text)
    assert [normal(prompt) for prompt in ours.prompts] == [
        normal(prompt) for prompt in theirs.prompts
    ]
    assert ours.accepted == theirs.accepted
    if not case.hashed:
        assert ours.recorded == theirs.recorded
    return settled


def fingerprint(host: Host, name: str) -> str:
    command = ["ssh-keygen", "-l", "-f", str(host.keys / f"{name}.pub")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]


@pytest.mark.parametrize("port", [22, 2222])
@pytest.mark.parametrize("strict", ["yes", "accept-new", "no", "ask"])
def test_unknown_host(host: Host, strict: str, port: int) -> None:
    compare(host, Case(strict=strict, port=port, answers=["yes"] if strict == "ask" else ()))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("fingerprint_hash", ["sha256", "md5"])
def test_question_for_every_key_type(host: Host, kind: str, fingerprint_hash: str) -> None:
    host.host_key = kind
    case = Case(answers=["no"], fingerprint_hash=fingerprint_hash)
    compare(host, case)


@pytest.mark.parametrize("case", [Case(batch=True), Case(), Case(batch=True, strict="no")])
def test_unknown_host_with_nobody_to_ask(host: Host, case: Case) -> None:
    compare(host, case)


@pytest.mark.parametrize(
    "answers",
    [
        ["yes"], ["YES"], ["no"], ["No"], [""], ["maybe", "YeS"], ["y", "n", "no"],
        ["  yes"], ["yes please"], ["\tyes\tplease"], ["SHA256:wrong", "no"],
    ],
)  # fmt: skip
def test_answers(host: Host, answers: list[str]) -> None:
    compare(host, Case(answers=answers))


def test_fingerprint_as_answer(host: Host) -> None:
    right = fingerprint(host, "ed25519")
    assert isinstance(compare(host, Case(answers=[right])), Accept)
    compare(host, Case(answers=[right.lower(), right + "x", f" {right} "]))
    compare(host, Case(answers=[right.removeprefix("SHA256:"), "no"]))


def test_other_names(host: Host) -> None:
    key = host.public("ed25519")
    many = "".join(f"name{number},192.0.2.{number} {key} comment\n" for number in range(12))
    for known in (
        f"# first\nelsewhere {key}\n",
        f"@revoked x {key}\n@cert-authority y {key}\nz {host.public('other')}\n[a]:22 {key}\n",
        many,
    ):
        compare(host, Case(known=known, answers=["no"]))
    shutil.copy(host.keys / "ed25519.pub", host.directory / "ed25519.pub")
    hashed = host.directory / "to_hash"
    hashed.write_text(f"hidden {key}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hashed)], check=True, capture_output=True)
    compare(host, Case(known=hashed.read_text(), answers=["yes"]))


def test_other_names_below_home(host: Host) -> None:
    home = Path(os.environ["HOME"])
    key = host.public("ed25519")
    case = Case(known=f"elsewhere {key}\n", user_file=str(home / "kh"), answers=["no"])
    compare(host, case)
    assert "    ~/kh:1: elsewhere\n" in run_ours(host, case)[0].prompts[0]


@pytest.mark.parametrize("strict", ["yes", "accept-new", "ask", "no"])
@pytest.mark.parametrize("port", [22, 2222])
def test_changed_key(host: Host, strict: str, port: int) -> None:
    name = "tower.example.net" if port == 22 else f"[tower.example.net]:{port}"
    known = f"# one\n\n{name} {host.public('other')}\n{name} {host.public('rsa')}\n"
    settled = compare(host, Case(known=known, strict=strict, port=port))
    if strict == "no":
        assert isinstance(settled, AcceptUntrusted)
        assert settled.disabled == USED_BY_DEFAULT


def test_changed_key_says_how_to_remove_it(host: Host) -> None:
    """Debian's two lines, which upstream's ssh does not print."""
    case = Case(known=f"[tower.example.net]:2200 {host.public('other')}\n", port=2200, strict="yes")
    theirs, (ours, _settled) = run_ssh(host, case), run_ours(host, case)
    path = host.directory / "known_hosts"
    assert f"\n  ssh-keygen -f '{path}' -R '[tower.example.net]:2200'\n" in ours.text
    if "remove with" in theirs.text:
        assert ours.text == alike(theirs.text)
    command = ours.text.partition("remove with:\n  ")[2].partition("\n")[0]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert path.read_text() == ""


@pytest.mark.parametrize("strict", ["yes", "accept-new", "ask", "no"])
def test_other_type_on_record_is_a_changed_key(host: Host, strict: str) -> None:
    compare(host, Case(known=f"tower.example.net {host.public('rsa')}\n", strict=strict))


def test_changed_key_takes_away_what_an_impostor_could_use(host: Host) -> None:
    known = f"tower.example.net {host.public('other')}\n"
    options = ["ForwardAgent=yes", "ForwardX11=yes", "LocalForward=1 localhost:2"]
    settled = compare(host, Case(known=known, strict="no", options=options))
    assert isinstance(settled, AcceptUntrusted)
    assert Feature.X11 in settled.disabled
    compare(host, Case(known=known, strict="no", options=[*options, "ExitOnForwardFailure=yes"]))


@pytest.mark.parametrize("strict", ["yes", "accept-new", "ask", "no"])
def test_revoked_key(host: Host, strict: str) -> None:
    key = host.public("ed25519")
    known = f"tower.example.net {key}\n@revoked * {key}\n"
    settled = compare(host, Case(known=known, strict=strict))
    assert isinstance(settled, AcceptUntrusted) == (strict == "no")


@pytest.mark.parametrize("strict", ["yes", "ask", "no"])
def test_revoked_without_port(host: Host, strict: str) -> None:
    """A name with a port is looked up without it too, and a revoked key is found there."""
    known = f"@revoked tower.example.net {host.public('ed25519')}\n"
    compare(host, Case(known=known, strict=strict, port=2222, answers=["no"]))


@pytest.mark.parametrize(
    "name",
    ["tower.example.net", "TOWER.Example.net", "*.example.net", "t?wer.*", "a,tower.example.net,b",
     "*,!tower.example.net", "!tower.example.net,*", "*,!*.org", "tower.example.net,", "x",
     "[tower.example.net]:22"],
)  # fmt: skip
@pytest.mark.parametrize("port", [22, 2222])
def test_names_on_record(host: Host, name: str, port: int) -> None:
    compare(host, Case(known=f"{name} {host.public('ed25519')}\n", strict="yes", port=port))


@pytest.mark.parametrize(
    "name", ["[tower.example.net]:2222", "[tower.example.net]:*", "[*]:2222", "[*", "*:2222"]
)
def test_names_with_a_port(host: Host, name: str) -> None:
    compare(host, Case(known=f"{name} {host.public('ed25519')}\n", strict="yes", port=2222))
    compare(host, Case(known=f"{name} {host.public('other')}\n", strict="yes", port=2222))


def test_key_known_without_port_but_another_with_it(host: Host) -> None:
    known = (
        f"[tower.example.net]:2222 {host.public('other')}\n"
        f"tower.example.net {host.public('ed25519')}\n"
    )
    compare(host, Case(known=known, strict="yes", port=2222))
    swapped = (
        f"[tower.example.net]:2222 {host.public('ed25519')}\n"
        f"tower.example.net {host.public('other')}\n"
    )
    compare(host, Case(known=swapped, strict="yes", port=2222))
    compare(host, Case(known=f"tower.example.net {host.public('other')}\n", port=2222,
                       answers=["yes"]))  # fmt: skip


@pytest.mark.parametrize("strict", ["yes", "ask", "accept-new"])
def test_host_key_alias(host: Host, strict: str) -> None:
    key = host.public("ed25519")
    for known in (
        "",
        f"cluster {key}\n",
        f"cluster {host.public('other')}\n",
        f"[cluster]:99 {key}\n",
    ):
        answers = ["yes"] if strict == "ask" else ()
        case = Case(known=known, strict=strict, alias="CLUSTER", port=99, answers=answers)
        compare(host, case)


def test_upper_case_host_is_recorded_in_lower_case(host: Host) -> None:
    compare(host, Case(strict="accept-new", host="Tower.EXAMPLE.net"))


@pytest.mark.parametrize("port", [22, 2222])
def test_hashed_names(host: Host, port: int) -> None:
    case = Case(strict="accept-new", hashed=True, port=port)
    compare(host, case)
    recorded = (host.directory / "known_hosts").read_text()
    assert recorded.startswith("|1|")
    assert "tower" not in recorded
    found = find_lines(host, "tower.example.net" if port == 22 else "[tower.example.net]:2222")
    assert found == [1]
    compare(host, Case(known=recorded, strict="yes", port=port))
    compare(host, Case(known=recorded, strict="yes", host="mast.example.net", port=port))


def find_lines(host: Host, name: str, file: str = "known_hosts") -> list[int]:
    command = ["ssh-keygen", "-l", "-F", name, "-f", str(host.directory / file)]
    found = subprocess.run(command, capture_output=True, check=False).stdout
    return [int(number) for number in re.findall(rb"(?m)^# Host .* found: line (\d+)", found)]


def test_broken_lines(host: Host) -> None:
    key = host.public("ed25519")
    kind, text = key.split()
    for broken in (
        "tower.example.net", "tower.example.net ", "tower.example.net # x", f"@ {key}",
        f"@other tower.example.net {key}", f"@revoked @revoked tower.example.net {key}",
        f"tower.example.net {kind}", f"tower.example.net {kind} {text[:-4]}",
        f"tower.example.net ssh-rsa {text}", f"tower.example.net {kind} {text}====",
        f"tower.example.net {kind} !{text}", f"tower.example.net unknown-kind {text}",
        f"|1|x|y {key}", f"|2|x {key}", f"|1| {key}", f"@revoked\ttower.example.net {key}",
        f"tower.example.net 1024 35 {'9' * 300}", f"#tower.example.net {key}",
    ):  # fmt: skip
        compare(host, Case(known=broken + "\n", strict="yes"))
    for working in (
        f"  tower.example.net {key}", f"\ttower.example.net\t{kind}\t{text}\tcomment",
        f"tower.example.net {key}\r", f"tower.example.net {key} # x", f"a\n\n#\n* {key}",
    ):  # fmt: skip
        settled = compare(host, Case(known=working + "\n", strict="yes"))
        assert isinstance(settled, Accept), working


def test_added_after_a_line_without_newline(host: Host) -> None:
    """Newer releases of ssh see to that; older ones spoil both lines."""
    case = Case(known=f"# note\nother {host.public('other')}", strict="accept-new")
    run_ours(host, case)
    assert find_lines(host, "tower.example.net") == [3]
    assert find_lines(host, "other") == [2]


def test_dev_null(host: Host) -> None:
    compare(host, Case(user_file="/dev/null", strict="accept-new"))
    compare(host, Case(user_file="/dev/null", strict="no"))
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


def test_file_that_cannot_be_written(host: Host) -> None:
    case = Case(user_file="absent/known_hosts", strict="accept-new")
    theirs, (ours, settled) = run_ssh(host, case), run_ours(host, case)
    path = host.directory / "absent" / "known_hosts"
    assert theirs.text == f"Failed to add the host to the list of known hosts ({path}).\n"
    assert ours.text == theirs.text + f"xssh: {path}: No such file or directory\n"
    assert isinstance(settled, Accept)


def test_certificate_of_a_known_ca(host: Host) -> None:
    certified = certify(host, "tower.example.net")
    ca = host.public("ca")
    for pattern in ("*", "tower.example.net", "*.example.net", "elsewhere"):
        known = f"@cert-authority {pattern} {ca}\n"
        for port in (22, 2222):
            compare(certified, Case(known=known, strict="yes", port=port))
    plain = f"tower.example.net {ca}\n"  # a CA's key without the marker is a host's key
    compare(certified, Case(known=plain, strict="yes"))
    compare(host, Case(known=f"@cert-authority * {host.public('ed25519')}\n", strict="yes"))


def test_certificate_that_does_not_hold(host: Host) -> None:
    known = f"@cert-authority * {host.public('ca')}\n"
    wrong_name = certify(host, "mast.example.net")
    for strict in ("yes", "ask", "accept-new", "no"):
        answers = ["yes"] if strict == "ask" else ()
        compare(wrong_name, Case(known=known, strict=strict, answers=answers))
    shutil.rmtree(wrong_name.keys)
    expired = certify(host, "tower.example.net", "-V", "20200101:20200102")
    compare(expired, Case(known=known, strict="yes"))
    shutil.rmtree(expired.keys)
    early = certify(host, "tower.example.net", "-V", "20990101:21000101")
    compare(early, Case(known=known, strict="yes"))
    compare(early, Case(known=known + f"tower.example.net {host.public('ed25519')}\n",
                        strict="yes"))  # fmt: skip


@pytest.mark.parametrize("strict", ["yes", "ask", "no"])
@pytest.mark.parametrize("revoked", ["ca", "ed25519"])
def test_certificate_revoked(host: Host, strict: str, revoked: str) -> None:
    certified = certify(host, "tower.example.net")
    known = f"@revoked * {host.public(revoked)}\n@cert-authority * {host.public('ca')}\n"
    compare(certified, Case(known=known, strict=strict))


def test_certificate_of_another_ca_falls_back_to_the_key(host: Host) -> None:
    certified = certify(host, "tower.example.net")
    other = f"@cert-authority * {host.public('other')}\n"
    key = host.public("ed25519")
    compare(certified, Case(known=other + f"tower.example.net {key}\n", strict="yes"))
    compare(certified, Case(known=other, answers=["yes"]))
    compare(certified, Case(known="", strict="accept-new"))
    two = (
        f"@cert-authority [tower.example.net]:2222 {host.public('other')}\n"
        f"@cert-authority tower.example.net {host.public('ca')}\n"
    )
    compare(certified, Case(known=two, strict="yes", port=2222))


def test_system_file(host: Host) -> None:
    key = host.public("ed25519")
    compare(host, Case(system=f"*.example.net {key}\n", strict="yes"))
    compare(host, Case(system=f"*.example.net {host.public('other')}\n", strict="yes"))
    compare(host, Case(known=f"tower.example.net {host.public('other')}\n",
                       system=f"*.example.net {key}\n", strict="yes"))  # fmt: skip
    compare(host, Case(system=f"elsewhere {key}\n", answers=["no"]))


@pytest.mark.parametrize("level", [LogLevel.QUIET, LogLevel.FATAL, LogLevel.ERROR])
def test_log_levels(host: Host, level: LogLevel) -> None:
    theirs = run_ssh(host, Case(strict="accept-new", level=level))
    ours, _settled = run_ours(host, Case(strict="accept-new", level=level))
    assert ours.text == theirs.text == ""
    changed = Case(known=f"tower.example.net {host.public('other')}\n", strict="yes", level=level)
    if level is not LogLevel.QUIET:  # the reason is said by whoever ends the run
        compare(host, changed)


@pytest.mark.parametrize("known", ["*", "[tower.example.net]:2222", "@cert-authority *", ""])
def test_debug_lines(host: Host, known: str) -> None:
    certified = certify(host, "tower.example.net")
    key = host.public("ca" if known.startswith("@cert") else "ed25519")
    case = Case(known=f"{known} {key}\n" if known else "", port=2222, strict="yes")
    case.level = LogLevel.DEBUG1
    theirs, (ours, _settled) = run_ssh(certified, case), run_ours(certified, case)
    for line in ours.text.splitlines():
        assert line in theirs.text.replace("debug1: ", "").splitlines()
    assert "checking without port identifier" in ours.text or "known and matches" in ours.text


@pytest.mark.parametrize(
    "known",
    ["", "ed25519", "rsa", "ecdsa", "rsa ecdsa", "@ca", "@ca rsa", "@revoked-rsa rsa", "other"],
)
@pytest.mark.parametrize("port", [22, 2222])
def test_order_of_algorithms(host: Host, known: str, port: int) -> None:
    lines = []
    name = "tower.example.net" if port == 22 else f"[tower.example.net]:{port}"
    for word in known.split():
        marker = {"@ca": "@cert-authority ", "@revoked-rsa": "@revoked "}.get(word, "")
        key = {"@ca": "ca", "@revoked-rsa": "rsa"}.get(word, word)
        lines.append(f"{marker}{name} {host.public(key)}\n")
    path = host.directory / "known_hosts"
    path.write_text("".join(lines))
    command = [
        "ssh", "-F", "none", "-vv", "-p", str(port), "-o", f"UserKnownHostsFile={path}",
        "-o", "GlobalKnownHostsFile=/dev/null", "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=yes",
        "-o", f"ProxyCommand={require_tool('sshd')} -i -f {host.server_config()}",
        "tower.example.net", "true",
    ]  # fmt: skip
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    proposal = re.search(rb"local client KEXINIT proposal.*?host key algorithms: (\S+)",
                         done.stderr, re.DOTALL)  # fmt: skip
    assert proposal is not None, done.stderr.decode()
    listed = subprocess.run(
        ["ssh", "-G", "-F", "none", "x"], capture_output=True, text=True, check=True
    ).stdout
    configured = re.search(r"(?m)^hostkeyalgorithms (\S+)$", listed)
    assert configured is not None
    ordered = order_host_key_algorithms(
        configured.group(1).split(","), load_known_hosts([str(path)], []).lookup(name)
    )
    assert ",".join(ordered) == proposal.group(1).decode()


def test_lines_we_write_are_removed_by_ssh_keygen(host: Host) -> None:
    for hashed in (False, True):
        run_ours(host, Case(strict="accept-new", hashed=hashed, known="# kept\n", port=2222))
        path = host.directory / "known_hosts"
        command = ["ssh-keygen", "-R", "[tower.example.net]:2222", "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        assert path.read_text() == "# kept\n"


PATTERN_PARTS = ["a", "b", "*", "?", "A", ".", "[a]:2", ":2", "!", ",", "a.b"]


def random_line(chance: random.Random, host: Host, hashed: dict[str, str]) -> str:
    key = host.public(chance.choice(["ed25519", "rsa", "ecdsa", "other"]))
    hosts = "".join(chance.choice(PATTERN_PARTS) for _ in range(chance.randint(1, 7)))
    if chance.random() < 0.2:
        hosts = chance.choice([*hashed.values(), "|1|", "|1|AAAA|", "|2|x"])
    marker = chance.choice(["", "", "", "", "@revoked ", "@cert-authority ", "@x ", "@revoked\t"])
    separator = chance.choice([" ", " ", "\t", "  ", ""])
    ending = chance.choice(["", " comment", "\r", " ", "x", "=", "#"])
    line = f"{marker}{hosts}{separator}{key}{ending}"
    return chance.choice([line] * 8 + [line[: chance.randint(0, len(line))], "# " + line])


@pytest.mark.parametrize("seed", range(6))
def test_random_files_match_as_in_ssh_keygen(host: Host, seed: int) -> None:
    chance = random.Random(seed)
    names = ["a", "b", "a.b", "aa", "[a]:2", "[a.b]:2", "ba"]
    hashed = {name: hash_host_name(name, chance.randbytes(20)) for name in names}
    lines = [random_line(chance, host, hashed) for _ in range(400)]
    path = host.directory / "random"
    path.write_text("\n".join(lines) + "\n")
    known = load_known_hosts([str(path)], [])
    matched = 0
    for name in names:
        ours = [entry.line for entry in known.lookup(name)]
        assert ours == find_lines(host, name, "random")
        matched += len(ours)
    assert matched > 30
