"""docs/ssh-compatibility.md has every keyword of ssh_config(5), and what it says is so."""

from __future__ import annotations

import ast
import functools
import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.processes import run
from tests.support.tools import require_tool
from xsshpy.errors import SettingsError
from xsshpy.unsupported import find_unsupported

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ssh-compatibility.md"
SUPPORTED, NOT_APPLICABLE, NOT_SUPPORTED = "supported", "not applicable", "not supported"

# ``ssh -G`` prints these only where they are set.
PRINTED_WHEN_SET = {
    "BindAddress": "127.0.0.1", "BindInterface": "lo", "CertificateFile": "/x",
    "ControlPath": "/x", "DynamicForward": "1080", "HostKeyAlias": "x", "IdentityAgent": "/x",
    "IgnoreUnknown": "x", "KnownHostsCommand": "/x", "LocalCommand": "x",
    "LocalForward": "1 x:1", "PKCS11Provider": "/x", "PreferredAuthentications": "x",
    "ProxyCommand": "x", "RemoteCommand": "x", "RemoteForward": "1 x:1", "RevokedHostKeys": "/x",
    "SendEnv": "X", "SetEnv": "X=1",
}  # fmt: skip
# ssh_config(5) of OpenSSH 9.3 to 10.5 has these besides; and what no version prints.
NEWER = (
    "ChannelTimeout", "ObscureKeystrokeTiming", "RefuseConnection", "Tag", "VersionAddendum",
    "WarnWeakCrypto", "Host", "Match", "Include", "KbdInteractiveDevices", "ProxyJump",
)  # fmt: skip
# A value with which a keyword asks for something.
ASKING = {
    "channeltimeout": "session=5m",
    "gssapiclientidentity": "me",
    "gssapikeyexchange": "yes",
    "gssapiserveridentity": "host",
    "gssapitrustdns": "yes",
    "logverbose": "kex.c:*",
    "obscurekeystroketiming": "80",
    "verifyhostkeydns": "yes",
}
# Where a test has a keyword by its letter or in another word.
LETTERS = {
    "bindinterface": '"-B"', "ciphers": "-c", "dynamicforward": "-D", "escapechar": '"-e"',
    "localforward": "-L", "macs": "-m", "remoteforward": "-R",
    "checkhostip": "check_host_ip", "host": "block", "forwardx11trusted": '"-Y"',
    "hostname": "HostName",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    keyword: str
    verdict: str
    text: str


@functools.cache
def rows() -> dict[str, Row]:
    found: dict[str, Row] = {}
    section = PAGE.read_text().split("\n## Keywords\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        match = re.fullmatch(
            r"\| (\w+) \| (supported|not applicable|not supported) \| (.+) \|", line
        )
        if match:
            row = Row(*match.groups())
            assert row.keyword.lower() not in found, f"{row.keyword} is there twice"
            found[row.keyword.lower()] = row
    return found


def of(verdict: str) -> list[str]:
    return [row.keyword for row in rows().values() if row.verdict == verdict]


def printed_by_ssh(environment: dict[str, str]) -> Iterator[str]:
    ssh = require_tool("ssh")
    for options in ([], [f"-o{name}={value}" for name, value in PRINTED_WHEN_SET.items()]):
        done = run([ssh, "-G", "-F", "none", *options, "host"], env=environment)
        assert done.status == 0, done
        yield from (line.split()[0] for line in done.stdout.decode().splitlines())


def test_every_keyword_that_ssh_prints_is_there(client_environment: dict[str, str]) -> None:
    printed = {keyword.lower() for keyword in printed_by_ssh(client_environment)}
    assert len(printed) > 80
    assert printed <= set(rows())


def test_every_keyword_of_the_manual_is_there() -> None:
    pages = [*Path("/usr/share/man/man5").glob("ssh_config.5*")]
    if not pages:
        pytest.skip("no manual page of ssh_config(5) here")
    raw = pages[0].read_bytes()
    text = (gzip.decompress(raw) if pages[0].suffix == ".gz" else raw).decode()
    keywords = {name.lower() for name in re.findall(r"^\.It Cm ([A-Z]\w+)", text, re.MULTILINE)}
    assert len(keywords) > 80
    assert keywords <= set(rows())


def test_newer_and_unprinted_keywords_are_there() -> None:
    assert {name.lower() for name in NEWER} <= set(rows())


def test_rows_are_in_order() -> None:
    assert list(rows()) == sorted(rows())
    assert len(rows()) > 100


@functools.cache
def functions_of(path: Path) -> dict[str, str]:
    """Return the source of each test of a file, decorators included."""
    text = path.read_text()
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[start - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize("keyword", of(SUPPORTED))
def test_what_is_supported_has_a_test(keyword: str) -> None:
    """The named test is there, and its file speaks of the keyword or its option."""
    match = re.match(r"`(tests/[\w/]+\.py)::(test_\w+)`", rows()[keyword.lower()].text)
    assert match is not None, rows()[keyword.lower()]
    path, name = ROOT / match[1], match[2]
    assert path.is_file(), path
    assert name in functions_of(path), f"{name} is not in {path}"
    words = (keyword.lower(), LETTERS.get(keyword.lower(), keyword))
    source = functions_of(path)[name].lower()
    assert (
        any(word.lower() in source for word in words) or keyword.lower() in path.read_text().lower()
    )


@pytest.mark.parametrize("keyword", of(NOT_SUPPORTED))
def test_what_is_not_supported_is_dealt_with_as_the_table_says(keyword: str) -> None:
    text = rows()[keyword.lower()].text
    value = ASKING.get(keyword.lower(), "yes")
    try:
        lines = find_unsupported({keyword.lower(): (value,)})
    except SettingsError as error:
        assert text.startswith("stops")
        assert keyword.lower() in error.message.lower()
        return
    if "named" in text:
        assert len(lines) == 1 and keyword.lower() in lines[0].lower()
    else:
        assert text.startswith("silent")
        assert lines == ()


def test_nothing_else_is_named(client_environment: dict[str, str]) -> None:
    """Neither a default of OpenSSH's nor a keyword that has its effect."""
    done = run([require_tool("ssh"), "-G", "-F", "none", "host"], env=client_environment)
    keywords: dict[str, tuple[str, ...]] = {}
    for line in done.stdout.decode().splitlines():
        keyword, _, value = line.partition(" ")
        keywords[keyword] = (*keywords.get(keyword, ()), value)
    assert find_unsupported(keywords) == ()
    for keyword in (*of(SUPPORTED), *of(NOT_APPLICABLE)):
        if keyword != "SecurityKeyProvider":
            assert find_unsupported({keyword.lower(): ("yes",)}) == (), keyword


def ssh_knows(keyword: str, environment: dict[str, str]) -> bool:
    done = run([require_tool("ssh"), "-G", "-F", "none", f"-o{keyword}=x", "h"], env=environment)
    return "Bad configuration option" not in done.stderr


def test_openssh_itself_refuses_the_connection(client_home: ClientHome) -> None:
    """RefuseConnection stops ``ssh -G``, and with it the run."""
    from tests.support.processes import xssh_command

    environment = client_home.environment()
    expected = run(["ssh", "-oRefuseConnection=not today", "127.0.0.1"], env=environment)
    found = run([*xssh_command(), "-oRefuseConnection=not today", "127.0.0.1"], env=environment)
    assert found.status == expected.status == 255
    assert found.stderr.splitlines()[0] == expected.stderr.splitlines()[0]


def test_openssh_itself_reads_the_tag(client_home: ClientHome) -> None:
    """Tag and -P decide about Match tagged, within ``ssh -G``."""
    environment = client_home.environment()
    if not ssh_knows("Tag", environment):
        pytest.skip("this ssh is older than Tag")
    from tests.support.processes import xssh_command

    client_home.config.write_text("Match tagged blue\n  Port 1\nHost *\n  Port 2\n")
    for options, port in ((["-Pblue"], 1), (["-oTag=blue"], 1), ([], 2)):
        done = run([*xssh_command(), *options, "-x", "127.0.0.1", "true"], env=environment)
        assert f"port {port}: Connection refused" in done.stderr
