"""The pages say what is so: links, modules, options, frames, tests, commands."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.support.documents import (
    PACKAGE,
    ROOT,
    anchors,
    constants,
    functions_of,
    links,
    pages,
    rows,
    section,
    spans,
    without_fences,
)
from xsshpy.arguments import (
    LONG_OPTIONS_WITH_VALUE,
    SSH_FLAGS,
    SSH_VALUES,
    split_ssh_arguments,
)
from xsshpy.cli import ask_click
from xsshpy.long_options import LONG_OPTIONS
from xsshpy.mux.control import LEVEL_VARIABLE
from xsshpy.mux.messages import Kind
from xsshpy.remote.facts import PredictionClass
from xsshpy.remote.frames import LONGEST, OF_CLIENT, OF_LINK, TO_AGENT, TO_LOCAL, FrameKind

DOCS = ROOT / "docs"
WIDTH = 180
"""Longest line of prose (characters). Pages are wrapped at 130: this finds what is not wrapped."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", pages(), ids=name_of)


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(there.read_text()), f"{target}: no such heading"


@every_page
def test_prose_is_wrapped(page: Path) -> None:
    if page.name == "benchmarks.md":
        return  # scripts/bench writes it
    for line in without_fences(page.read_text()).splitlines():
        is_prose = not line.startswith(("|", "    ", "#", "[", "!"))
        assert not is_prose or len(line) <= WIDTH, line


def test_every_page_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert f"(docs/{page.name})" in readme, page.name


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in PACKAGE.rglob("*.py")}), ids=lambda path: path.name
)
def test_the_map_is_the_tree(folder: Path) -> None:
    """Each module is in the table of its folder once, and no other."""
    text = section("how-it-works.md", "Modules")
    heading = str(folder.relative_to(PACKAGE.parent)).removeprefix("xsshpy/")
    match = re.search(rf"^### `{heading}/`[^\n]*\n(.*?)(?=^### |\Z)", text, re.M | re.S)
    assert match is not None, f"how-it-works.md has no table for {heading}"
    on_the_map = [name for cells in rows(match[1]) for name in spans(cells[0])]
    in_the_tree = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert sorted(on_the_map) == sorted(in_the_tree)


def test_who_may_import_whom_is_the_contract() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    contract = re.search(r"^layers = \[\n(.*?)^\]", project, re.M | re.S)
    assert contract is not None
    layers = [line.replace("xsshpy.", "") for line in re.findall(r'"([^"]+)"', contract[1])]
    fence = re.search(r"```\n(.*?)```", section("how-it-works.md", "Who may import whom"), re.S)
    assert fence is not None
    assert fence[1].splitlines() == layers


def test_dependencies_are_those_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    match = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.M | re.S)
    assert match is not None
    needed = set(re.findall(r'"([\w-]+)', match[1]))
    named = {cells[0] for cells in rows(section("how-it-works.md", "Dependencies, and why"))}
    assert needed <= named


def size_of(text: str) -> int:
    """Return the bytes of ``4 KiB``, ``16 MiB + 2``, ``7``."""
    units = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
    total = 0
    for part in text.split(" + "):
        number, _, unit = part.replace(",", "").partition(" ")
        total += int(number) * units[unit]
    return total


def test_the_frames_are_those_of_the_code() -> None:
    """Number, name, direction, client and longest payload of each kind."""
    found = {}
    for number, name, direction, client, longest, _ in rows(section("x11-agent.md", "Frames")):
        kind = FrameKind[name.strip("`")]
        assert kind == int(number)
        ways = {"to xssh": {TO_LOCAL}, "to the agent": {TO_AGENT}, "both": {TO_LOCAL, TO_AGENT}}
        assert {way for way in (TO_LOCAL, TO_AGENT) if kind in way} == ways[direction], name
        expected = "named" if kind in OF_CLIENT else "0" if kind in OF_LINK else "any"
        assert client == expected, name
        found[kind] = size_of(longest)
    assert found == LONGEST


# Other programs' long options, and words that only look like one.
FOREIGN_OPTIONS = {
    "--allow-remove-essential", "--update", "--verbose", "--server", "--cask", "--remove",
    "--cleanenv", "--containall", "--force", "--preserve-env", "--system", "--lite", "--debug",
    "--peers",
}  # fmt: skip
OF_SCRIPTS = re.compile(r'"(--[a-z-]+)"|(--[a-z-]+)\b')


def options_of_scripts() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "scripts").iterdir():
        if path.is_file() and path.suffix != ".md":
            found.update(a or b for a, b in OF_SCRIPTS.findall(path.read_text()))
    return found


@every_page
def test_options_that_are_named_exist(page: Path) -> None:
    """Each option behind the word xssh, and each long one that stands alone."""
    known = {f"--{name}" for name in LONG_OPTIONS}
    text = page.read_text()
    pieces = spans(without_fences(text)) + [
        line.strip() for line in text.splitlines() if line.startswith("    ")
    ]
    for piece in pieces:
        for command in re.findall(r"(?:^|[;&|$(] ?)xssh ([^|;&]*)", piece):
            words = re.sub(r"#.*", "", command).split()
            for word in words:
                if not word.startswith("-"):
                    if words.index(word) and not words[words.index(word) - 1].startswith("-"):
                        break
                    continue
                if word.startswith("--"):
                    assert word.partition("=")[0] in known, piece
                elif word != "-" and not word.startswith("-…"):
                    assert word[1] in SSH_FLAGS or word[1] in SSH_VALUES, piece
        if re.fullmatch(r"--[a-z][\w-]*( [\w.…]+)?", piece):
            name = piece.split()[0]
            assert name in known | FOREIGN_OPTIONS | options_of_scripts(), piece


def test_the_manual_has_every_option() -> None:
    text = (DOCS / "xssh.1").read_text()
    described = set(re.findall(r"^\.It Fl -([\w-]+)", text, re.MULTILINE))
    assert described == set(LONG_OPTIONS)
    match = re.search(r"^\.Xr ssh 1\nthat are supported(.*?)\nAny other", text, re.M | re.S)
    assert match is not None
    letters = set(re.findall(r"(?<=[ \n])(\w)(?=[ \n])", match[1].replace(".Fl", "")))
    assert letters == set(SSH_FLAGS) | set(SSH_VALUES)


def test_the_page_on_compatibility_has_every_letter() -> None:
    table = rows(section("ssh-compatibility.md", "Options"))
    letters = [letter for cells in table for letter in re.findall(r"-(\w)\b", cells[0])]
    assert sorted(letters) == sorted([*SSH_FLAGS, *SSH_VALUES])


def test_the_readme_has_every_option_of_xsshs_own() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in LONG_OPTIONS:
        assert f"`--{name}" in readme, name
    for option in LONG_OPTIONS_WITH_VALUE:
        assert f"`{option} " in readme, option


def read_variables() -> set[str]:
    """Return the variables that a user may set."""
    found = {text for text in constants() if re.fullmatch(r"XSSH_[A-Z0-9_]+", text)}
    return found - {LEVEL_VARIABLE, "XSSH_TRIED_SSH"}  # between processes of xssh


def test_variables_are_in_the_manual() -> None:
    text = (DOCS / "xssh.1").read_text()
    for variable in read_variables():
        assert f".It Ev {variable}\n" in text, variable


@every_page
def test_tests_that_are_named_exist(page: Path) -> None:
    for span in spans(page.read_text()):
        match = re.fullmatch(r"(?:tests/(\w+)/)?(test_\w+\.py)(?:::(test_\w+))?", span)
        if match is None:
            continue
        folder, name, function = match.groups()
        paths = (
            [ROOT / "tests" / folder / name] if folder else [*(ROOT / "tests").glob(f"*/{name}")]
        )
        assert any(path.is_file() for path in paths), span
        assert function is None or function in functions_of(paths[0]), span


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths of this repository, where they stand in backquotes."""
    for span in spans(page.read_text()):
        if re.fullmatch(r"(?:docs|scripts|tests|examples|\.ci)/[\w./-]*", span):
            assert (ROOT / span).exists(), span
        elif re.fullmatch(r"xsshpy/[\w./-]*", span):
            assert (PACKAGE.parent / span).exists(), span
        elif re.fullmatch(
            r"(?:ssh|x11|mux|remote|doctor|setup|terminal|completion)/\w+\.\w+", span
        ):
            assert (PACKAGE / span).is_file(), span


def test_scripts_are_in_their_readme() -> None:
    text = (ROOT / "scripts" / "README.md").read_text()
    named = set(spans(text))
    for path in (ROOT / "scripts").iterdir():
        if os.access(path, os.X_OK) and path.is_file():
            assert path.name in named, path.name
            assert shlex.quote(path.name) == path.name


def test_this_page_speaks_of_xssh_alone() -> None:
    """No path of whoever wrote it, and nothing that only that machine has."""
    for page in pages():
        for word in ("/work/", "/tmp/w", "shared/"):
            text = page.read_text().replace("--share", "")
            assert not re.search(rf"(?<![\w-]){re.escape(word)}", text), (page.name, word)


def test_the_classes_of_early_answers_are_those_of_the_code() -> None:
    classes = [cells[0] for cells in rows(section("x11-agent.md", "What is answered early"))]
    assert sorted(classes) == sorted(kind.value for kind in PredictionClass)


def test_every_defence_has_its_test() -> None:
    """Each row of the threat model names a test; that it exists is looked at above."""
    attacks = rows(section("security.md", "Attack, defence, test"))
    assert len(attacks) > 30
    for attack, _, tests in attacks:
        assert spans(tests), attack
        assert all(span.startswith("tests/") for span in spans(tests)), attack


def commands(text: str) -> list[list[str]]:
    """Return the command lines of xssh in a page's blocks, as a shell takes them apart."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r" {4}(?:\$ )?(xssh .*)", line)
        if match and "[" not in line:
            found.append(shlex.split(match[1], comments=True)[1:])
    return found


@every_page
def test_commands_can_be_typed(page: Path) -> None:
    for words in commands(page.read_text()):
        taken = split_ssh_arguments(words)
        invocation = ask_click(taken)
        assert invocation is not None, words


def test_the_scripts_of_the_readme_run() -> None:
    readme = (ROOT / "README.md").read_text()
    scripts = re.findall(r"^ {4}(scripts/\w+)", readme, re.MULTILINE)
    assert len(scripts) == 2
    for name in scripts:
        assert os.access(ROOT / name, os.X_OK), name


def test_what_is_overridden_of_asyncssh_is_where_it_is_said_to_be() -> None:
    """A row of the table is about names that its module has, and goes with them."""
    for what, where, _ in rows(section("development.md", "asyncssh's inner parts")):
        text = (PACKAGE / spans(where)[0]).read_text()
        for name in spans(what):
            word = name.rpartition(".")[2]
            if re.fullmatch(r"_?[a-z_]+|_?[A-Z]\w+", word):
                assert word in text, (where, name)


def test_the_messages_of_shared_connections_are_those_of_the_code() -> None:
    table = rows(section("multiplexing.md", "The protocol"))
    found = {name.strip("`"): int(number.strip("`"), 16) for number, name, _, _ in table}
    assert found == {kind.name: int(kind) for kind in Kind}
    for number, _, to, _ in table:
        says = {"0": "both", "1": "master", "8": "passenger"}
        assert to == says[number.strip("`")[2]]
