"""Help, the completions and the manual say the same as the program and as ssh."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.processes import run
from tests.support.tools import find_tool, require_tool
from tests.unit.test_keyword_table import rows
from xsshpy.arguments import LONG_OPTIONS_WITH_VALUE, SSH_FLAGS, SSH_VALUES
from xsshpy.cli import command_line
from xsshpy.completion import completion_for
from xsshpy.completion.words import KEYWORDS, ORDERS, QUERIES
from xsshpy.long_options import LONG_OPTIONS, SHELLS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "xssh.1"
ONLY_IN_FILES = {"Host", "Match", "Include"}
NEWER_THAN_9_2 = {
    "ChannelTimeout", "GSSAPIClientIdentity", "GSSAPIKexAlgorithms", "GSSAPIKeyExchange",
    "GSSAPIRenewalForcesRekey", "GSSAPIServerIdentity", "GSSAPITrustDns",
    "ObscureKeystrokeTiming", "RefuseConnection", "Tag", "VersionAddendum", "WarnWeakCrypto",
}  # fmt: skip


def test_the_keywords_are_those_of_the_table() -> None:
    assert set(KEYWORDS) == {row.keyword for row in rows().values()} - ONLY_IN_FILES


def test_ssh_takes_every_word_that_is_offered(client_environment: dict[str, str]) -> None:
    ssh = require_tool("ssh")
    words = [(name, word) for name, found in KEYWORDS.items() for word in found]
    # One run for each word's position takes all keywords together.
    for position in range(max(len(found) for found in KEYWORDS.values())):
        options = [
            f"-o{name}={found[position]}"
            for name, found in KEYWORDS.items()
            if position < len(found) and name not in NEWER_THAN_9_2
        ]
        done = run([ssh, "-G", "-F", "none", *options, "host", "command"], env=client_environment)
        assert done.status == 0, done.stderr
    assert len(words) > 150


def test_ssh_answers_every_query(client_environment: dict[str, str]) -> None:
    ssh = require_tool("ssh")
    for query in set(QUERIES) - {"kex-gss"}:  # Debian's
        assert run([ssh, "-Q", query], env=client_environment).status == 0, query
    told = run([ssh, "-Q", "help"], env=client_environment).stdout.decode().split()
    assert set(told) <= set(QUERIES)


def test_long_options_are_one_table() -> None:
    parameters = {
        word[2:] for parameter in command_line.params for word in parameter.opts if "-" in word
    }
    assert parameters == set(LONG_OPTIONS)
    with_value = {f"--{name}" for name, (metavar, _) in LONG_OPTIONS.items() if metavar}
    assert with_value == set(LONG_OPTIONS_WITH_VALUE)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_has_everything(shell: str, tmp_path: Path) -> None:
    text = completion_for(shell)
    assert not re.search(r"@[A-Z_]+@", text)
    for name, (_, meaning) in LONG_OPTIONS.items():
        assert name in text
        assert re.escape(meaning[:12]).replace("\\", "") in text.replace("\\", "")
    assert text.isascii()
    program = find_tool(shell)
    if program is not None:
        file = tmp_path / "completion"
        file.write_text(text)
        done = run([program, "-n", str(file)])
        assert (done.status, done.stderr) == (0, "")


def options_of_the_manual() -> dict[str, str]:
    """Return each option that the page describes or lists, and what its value is called."""
    text = PAGE.read_text().split(".Sh DESCRIPTION")[1].split(".Sh SHARED")[0]
    found = {
        match[1]: match[2] or ""
        for match in re.finditer(r"^\.It Fl -([\w-]+)(?: Ar (\w+))?$", text, re.MULTILINE)
    }
    listed = text.split("that are supported")[1].split("Any other")[0]
    for line in re.findall(r"^\.Fl (.+)$", listed, re.MULTILINE):
        found.update({word: "" for word in line.split() if len(word) == 1 and word.isalnum()})
    return found


def test_the_manual_has_every_option_and_no_other() -> None:
    found = options_of_the_manual()
    assert set(found) == {*LONG_OPTIONS, *SSH_FLAGS, *SSH_VALUES}
    for name, (metavar, _) in LONG_OPTIONS.items():
        assert bool(found[name]) == bool(metavar), name


def test_help_has_every_option_and_no_other() -> None:
    import click

    text = command_line.get_help(click.Context(command_line))
    said = set(re.findall(r"^  (-\w|--[\w-]+)", text, re.MULTILINE))
    letters = {f"-{letter}" for letter in (*SSH_FLAGS, *SSH_VALUES)}
    assert said == letters | {f"--{name}" for name in LONG_OPTIONS}


def test_ssh_takes_every_order(client_environment: dict[str, str]) -> None:
    for order in (*ORDERS, "nonsense"):
        argv = [require_tool("ssh"), "-F", "none", "-S", "/nowhere", "-O", order, "host"]
        said = run(argv, env=client_environment).stderr
        assert ("Invalid multiplex command" in said) == (order == "nonsense"), order
