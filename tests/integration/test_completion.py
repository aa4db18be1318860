"""At the prompt of a real bash, zsh and fish: what Tab offers for an xssh line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.shells import PromptShell, complete_in_fish
from xsshpy.completion import completion_for

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """\
# a comment
Include conf.d/*  "~/.ssh/with space"
Host alpha beta *.wild !alphabet
\tHostName alphanumeric
host=gamma # alphorn
Host "quoted host" "delta"
UserKnownHostsFile ~/.ssh/known_elsewhere /dev/null
Match host alphamatch
"""
KNOWN_HOSTS = """\
|1|abcdefgh=|ijklmnop= ssh-ed25519 AAAA
kilo,10.0.0.1 ssh-ed25519 AAAA
[kiosk]:2222,[::1]:22 ssh-ed25519 AAAA
@cert-authority kiwi,*.kiwi ssh-ed25519 AAAA
@revoked kidnapped ssh-ed25519 AAAA
# kid

2001:db8::1 ssh-ed25519 AAAA
kill$(touch${IFS}spoilt)`touch${IFS}spoilt` ssh-ed25519 AAAA
kill;touch spoilt ssh-ed25519 AAAA
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home")
    client = ClientHome(path, path, path)
    client.config.write_text(CONFIG)
    client.known_hosts.write_text(KNOWN_HOSTS)
    (client.ssh / "conf.d").mkdir()
    (client.ssh / "conf.d" / "one").write_text("Host included")
    (client.ssh / "with space").write_text("Host spaced\nInclude config\n")
    (client.ssh / "known_elsewhere").write_text("elsewhere ssh-ed25519 AAAA\n")
    (path / "key file").touch()
    (path / "train.py").touch()
    return path


def environment(home: Path) -> dict[str, str]:
    return ClientHome(home, home, home).environment(
        PATH="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    )


@pytest.fixture(scope="module", params=["bash", "zsh"])
def shell(
    request: pytest.FixtureRequest, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PromptShell]:
    """A shell that is used for many lines, with the alias and without it for xssh."""
    name = request.param
    found = PromptShell(
        name,
        completion_for(name),
        tmp_path_factory.mktemp(name),
        environment(home),
        more="alias ssh=xssh" if name == "zsh" else "alias ssh=xssh; source $OUT/completion",
        cwd=home,
    )
    yield found
    found.close()


# What is typed, and what the line is after Tab; None: nothing is offered.
LINES = [
    ("xssh al", "xssh alpha "),
    ("ssh al", "ssh alpha "),
    ("xssh gam", "xssh gamma "),
    ("xssh inc", "xssh included "),
    ("xssh spa", "xssh spaced "),
    ("xssh del", "xssh delta "),
    ("xssh elsew", "xssh elsewhere "),
    ("xssh kios", "xssh kiosk "),
    ("xssh kiw", "xssh kiwi "),
    ("xssh 2001:d", "xssh 2001:db8::1 "),
    ("xssh quo", None),
    ("xssh kil", "xssh kilo "),
    ("xssh kid", None),
    ("xssh alph", "xssh alpha "),
    ("xssh me@al", "xssh me@alpha "),
    ("xssh ssh://me@gam", "xssh ssh://me@gamma "),
    ("xssh ssh://gam", "xssh ssh://gamma "),
    ("xssh -- al", "xssh -- alpha "),
    ("xssh -4tp 22 al", "xssh -4tp 22 alpha "),
    ("xssh -p22 al", "xssh -p22 alpha "),
    ("xssh --x11 native al", "xssh --x11 native alpha "),
    ("xssh --x11=native al", "xssh --x11=native alpha "),
    ("xssh -o stricth", "xssh -o StrictHostKeyChecking="),
    ("xssh -ostricth", "xssh -oStrictHostKeyChecking="),
    ("xssh -tto stricth", "xssh -tto StrictHostKeyChecking="),
    ("xssh -o StrictHostKeyChecking=acc", "xssh -o StrictHostKeyChecking=accept-new "),
    ("xssh -o requesttty=fo", "xssh -o requesttty=force "),
    ("xssh -o Port=", None),
    ("xssh -o Nonsense=", None),
    ("xssh --x11=na", "xssh --x11=native "),
    ("xssh --x11 na", "xssh --x11 native "),
    ("xssh --backend Qt", "xssh --backend QtAgg "),
    ("xssh -J al", "xssh -J alpha "),
    ("xssh -J alpha,me@bet", "xssh -J alpha,me@beta "),
    ("xssh alpha -O st", "xssh alpha -O stop "),
    ("xssh -Q protocol-", "xssh -Q protocol-version "),
    ("xssh -W gam", "xssh -W gamma "),
    ("xssh -c aes256-g", "xssh -c aes256-gcm@openssh.com "),
    ("xssh -m hmac-sha2-512,hmac-sha1-e", "xssh -m hmac-sha2-512,hmac-sha1-etm@openssh.com "),
    ("xssh -i key", r"xssh -i key\ file "),
    ("xssh --script tra", "xssh --script train.py "),
    ("xssh --script=tra", "xssh --script=train.py "),
    ("xssh -F ~/.ssh/conf.d/one inc", "xssh -F ~/.ssh/conf.d/one included "),
    ("xssh -F.ssh/conf.d/one inc", "xssh -F.ssh/conf.d/one included "),
    ("xssh -F ~/.ssh/conf.d/one gam", None),
    ("xssh alpha tra", None),
    ("xssh alpha ls -", None),
    ("xssh -- alpha -", None),
    ("xssh --script train.py alpha tra", None),
    ("xssh --script train.py alpha --x1", None),
    ("xssh -p al", None),
]


def test_lines_with_one_answer(shell: PromptShell) -> None:
    wrong = {}
    for typed, after in LINES:
        found = shell.press_tab(typed)
        if found.line != (typed if after is None else after) or (after is None and found.offers):
            wrong[typed] = found
    assert wrong == {}


def test_options_are_offered(shell: PromptShell) -> None:
    found = set(shell.press_tab("xssh -").offers)
    assert {"-4", "-X", "-o", "-w"} <= found and "-H" not in found
    assert {"--script", "--doctor", "--x11", "--man"} <= found or "--" in found
    assert {"--script", "--doctor", "--x11", "--man"} <= set(shell.press_tab("xssh --").offers)
    assert {"--share", "--stats"} <= set(shell.press_tab("xssh alpha --s").offers)


def test_all_hosts(shell: PromptShell, home: Path) -> None:
    hosts = {offer.lstrip("@") for offer in shell.press_tab("xssh me@").offers}
    assert hosts == {
        "10.0.0.1", "2001:db8::1", "::1", "alpha", "beta", "delta", "elsewhere", "gamma",
        "included", "kilo", "kiosk", "kiwi", "spaced",
    }  # fmt: skip
    assert not (home / "spoilt").exists()


def test_nothing_is_said(shell: PromptShell) -> None:
    """No message of the shell's functions gets among what is typed."""
    shell.press_tab("xssh -o ")
    text = shell.output
    assert "rror" not in text and "not found" not in text and "bad " not in text


def test_in_fish(home: Path, tmp_path: Path) -> None:
    completion = tmp_path / "xssh.fish"
    completion.write_text(completion_for("fish"))
    # It completes what is joined to a cluster, and what begins in another case, its own way.
    own = ("xssh -ostricth", "xssh -tto stricth")
    lines = [typed for typed, _ in LINES if typed not in own]
    found = complete_in_fish(completion, [*lines, "xssh -", "ssh --"], environment(home), home)
    wrong = {}
    for typed, after in LINES:
        if typed not in found:
            continue
        offered = [row.split("\t")[0] for row in found[typed]]
        word = after.split(" ", typed.count(" "))[-1].strip() if after else None
        if offered != ([word.replace("\\ ", " ")] if word else []):
            wrong[typed] = offered
    assert wrong == {}
    assert "-4\tuse IPv4 addresses only" in found["xssh -"]
    assert any(row.startswith("--doctor\tfind out") for row in found["ssh --"])
    assert not (home / "spoilt").exists()


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_without_the_alias_ssh_is_left_alone(name: str, home: Path, tmp_path: Path) -> None:
    bare = PromptShell(name, completion_for(name), tmp_path, environment(home), cwd=home)
    try:
        assert bare.press_tab("xssh al").line == "xssh alpha "
        assert "--doctor" not in bare.press_tab("ssh --do").line
    finally:
        bare.close()


@pytest.mark.parametrize("first", ["ssh al", "xssh --doc"])
@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_start_file_loads_it_at_the_first_tab(
    name: str, first: str, home: Path, tmp_path: Path
) -> None:
    program = tmp_path / "xssh"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/started\nexec {sys.executable} -m xsshpy "$@"\n'
    )
    program.chmod(0o755)
    env = {**environment(home), "PYTHONPATH": str(ROOT)}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    start_file = (ROOT / "scripts" / "shell" / f"xssh.{name}").read_text()
    shell = PromptShell(name, start_file, tmp_path, env, cwd=home)
    try:
        assert not (tmp_path / "started").exists()
        lines = {"ssh al": "ssh alpha ", "xssh --doc": "xssh --doctor "}
        for typed in (first, *lines):
            assert shell.press_tab(typed).line == lines[typed]
        assert (tmp_path / "started").read_text() == f"--completion {name}\n"
    finally:
        shell.close()


def test_bash_says_what_options_are_for(home: Path, tmp_path: Path) -> None:
    """The list of a second Tab has descriptions; the line gets none of them."""
    bash = PromptShell("bash", completion_for("bash"), tmp_path, environment(home), cwd=home)
    try:
        found = bash.press_tab("xssh --s\t")
        assert found.line == "xssh --s"
        assert any("run a local Python file" in offer for offer in found.offers)
    finally:
        bash.close()
