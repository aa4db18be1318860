"""The command line becomes an Invocation as ssh's getopt(3) would read it."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsshpy.__main__ import parse_command_line
from xsshpy.arguments import (
    LONG_OPTIONS_WITH_VALUE,
    split_ssh_arguments,
)
from xsshpy.cli import ask_click, command_line
from xsshpy.errors import UsageError
from xsshpy.settings import Invocation


def parse(*words: str) -> Invocation:
    invocation = parse_command_line(words)
    assert invocation is not None
    return invocation


@pytest.mark.parametrize(
    ("words", "host", "command", "options"),
    [
        (["h"], "h", "", ()),
        (["h", "a", "b c"], "h", "a b c", ()),
        (["h", "a", "-x", "--version"], "h", "a -x --version", ()),
        (["-x", "h", "-tt", "a"], "h", "a", (("x", None), ("t", None), ("t", None))),
        (["-4CTxp22", "h"], "h", "", (*((f, None) for f in "4CTx"), ("p", "22"))),
        (["-p", "22", "h"], "h", "", (("p", "22"),)),
        (["h", "-p", "22"], "h", "", (("p", "22"),)),
        (["-o", "A=b", "-oC d", "h"], "h", "", (("o", "A=b"), ("o", "C d"))),
        (["-o", "-x", "h"], "h", "", (("o", "-x"),)),
        (["-l", "--", "h"], "h", "", (("l", "--"),)),
        (["--", "h"], "h", "", ()),
        (["--", "-h"], "-h", "", ()),
        (["--", "--version"], "--version", "", ()),
        (["--", "h", "-oProxyCommand=x"], "h", "-oProxyCommand=x", ()),
        (["--", "h", "--", "x"], "h", "-- x", ()),
        (["h", "--", "-oProxyCommand=x"], "h", "-oProxyCommand=x", ()),
        (["h", "--", "-x", "--"], "h", "-x --", ()),
        (["h", "--", "--script", "x"], "h", "--script x", ()),
        (["h", "--"], "h", "", ()),
        (["h", "-x", "--", "a"], "h", "a", (("x", None),)),
        (["h", "-"], "h", "-", ()),
        (["-", "a"], "-", "a", ()),
        (["h", "", "a"], "h", " a", ()),
    ],
)
def test_words(
    words: list[str], host: str, command: str, options: tuple[tuple[str, str | None], ...]
) -> None:
    found = parse(*words)
    assert (found.destination, found.command, found.ssh_options) == (host, command, options)
    assert found.script is None


@pytest.mark.parametrize(
    ("words", "script", "arguments", "options"),
    [
        (["--script", "f.py", "h"], "f.py", (), ()),
        (["--script=f.py", "h", "-x", "--", "a b"], "f.py", ("-x", "--", "a b"), ()),
        (["-x", "h", "--script", "f.py", "a", "-tt"], "f.py", ("a", "-tt"), (("x", None),)),
        (["--script", "f.py", "--", "h", "-x"], "f.py", ("-x",), ()),
        (["--script", "--", "h"], "--", (), ()),
        (["--script", "f.py", "-p", "1", "h", "-p", "2"], "f.py", ("-p", "2"), (("p", "1"),)),
    ],
)
def test_a_script_and_its_arguments(
    words: list[str],
    script: str,
    arguments: tuple[str, ...],
    options: tuple[tuple[str, str | None], ...],
) -> None:
    found = parse(*words)
    assert (found.script, found.script_arguments, found.destination) == (script, arguments, "h")
    assert (found.command, found.ssh_options) == ("", options)


def test_long_options_stand_on_both_sides_of_the_host() -> None:
    found = parse("--backend", "Agg", "h", "--script=f.py", "--python", "x")
    assert (found.backend, found.script, found.script_arguments) == (
        "Agg",
        "f.py",
        ("--python", "x"),
    )
    found = parse("--python=x", "h", "--script=f.py")
    assert found.python == "x"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "no host given"),
        (["--"], "no host given"),
        (["-x"], "no host given"),
        (["", "host"], "no host given"),
        (["--", "", "host"], "no host given"),
        (["-p"], "option requires an argument -- p"),
        (["h", "-p"], "option requires an argument -- p"),
        (["-4xp"], "option requires an argument -- p"),
        (["-Z", "h"], "unknown option -- Z"),
        (["-xZ", "h"], "unknown option -- Z"),
        (["--nope", "h"], "--nope"),
        (["--script"], "--script needs a value"),
        (["--script=", "h"], "--script needs the path"),
        (["--python", "x", "h"], "--python goes with --script"),
        (["--backend", "a b", "h"], "is not the name of a matplotlib backend"),
        (["--backend", "$(x)", "h"], "is not the name of a matplotlib backend"),
        (["--backend=a\n", "h"], "is not the name of a matplotlib backend"),
    ],
)
def test_usage_errors(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_command_line(words)
    assert complaint in caught.value.message
    assert caught.value.message.startswith("xssh: ")
    assert caught.value.remedy


@pytest.mark.parametrize("words", [["-S", "none", "h"], ["-NSnone", "h"], ["h", "-Snone", "c"]])
def test_no_sharing_may_be_asked_for(words: list[str]) -> None:
    assert parse(*words).value_of("S") == "none"


def test_shared_connections_have_a_path_and_commands() -> None:
    typed = parse("-S", "/run/%C", "-Ocheck", "h")
    assert (typed.value_of("S"), typed.value_of("O")) == ("/run/%C", "check")
    assert typed.ssh_arguments() == ["-S", "/run/%C", "-O", "check", "--", "h"]


def test_the_backend_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSSH_BACKEND", "QtAgg")
    assert parse("h").backend == "QtAgg"
    assert parse("--backend", "none", "h").backend == "none"
    monkeypatch.setenv("XSSH_BACKEND", "a;b")
    with pytest.raises(UsageError, match="not the name"):
        parse_command_line(["h"])


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_answers_at_once(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert parse_command_line([word]) is None
    assert "xssh" in capsys.readouterr().out


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_words_are_an_invocation_or_a_usage_error(words: list[str]) -> None:
    try:
        invocation = parse_command_line(["-x", "h", "--", *words])
    except UsageError:
        raise AssertionError("what follows the dashes is the command") from None
    assert invocation is not None and invocation.command == " ".join(words)


@given(st.lists(st.text(st.sampled_from("-abopvxZ= "), max_size=5), max_size=5))
def test_odd_options_never_raise_anything_else(words: list[str]) -> None:
    try:
        parse_command_line(words)
    except UsageError as error:
        assert error.render()


@pytest.mark.parametrize("backend", [None, "", "Agg", "no such"])
@pytest.mark.parametrize(
    "words",
    [
        ["h"],
        ["--stats", "h"],
        ["--x11=Agent", "h"],
        ["--x11", "off", "--backend", "none", "h", "a"],
        ["--x11", "sideways", "h"],
        ["--x11=", "h"],
        ["--x11=a", "--x11=off", "h"],
        ["--backend=a b", "h"],
        ["--backend=", "h"],
        ["--backend", "--stats", "h"],
        ["--script", "f", "--python=p", "h", "-x"],
        ["--script=", "h"],
        ["--python", "p", "h"],
        ["--stats=yes", "h"],
        ["--sta", "h"],
        ["--nothing", "h"],
        ["--script"],
        ["--stats"],
        ["--version", "h"],
        ["--doctor"],
        ["--doctor", "--json", "h"],
        ["--json", "h"],
    ],
)
def test_click_and_the_quick_way_read_the_same(
    words: list[str],
    backend: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if backend is not None:
        monkeypatch.setenv("XSSH_BACKEND", backend)

    def answer(read: Callable[[list[str]], Invocation | None]) -> object:
        try:
            return read(words), capsys.readouterr()
        except UsageError as error:
            return error.render()

    assert answer(parse_command_line) == answer(lambda w: ask_click(split_ssh_arguments(w)))


def test_the_quick_way_knows_clicks_options() -> None:
    named = {
        name
        for parameter in command_line.params
        if isinstance(parameter, click.Option) and not parameter.is_flag
        for name in parameter.opts
    }
    assert set(LONG_OPTIONS_WITH_VALUE) == named
