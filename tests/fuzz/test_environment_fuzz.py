"""Variables and command lines of any kind: nothing of the user's changes, nothing odd gets in."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsshpy.ssh.environment import (
    BACKEND_VARIABLE,
    DEFAULT_BACKEND,
    choose_variables,
    decide_backend,
    is_protocol_command,
    set_in_shell,
    wrap_command,
)

NAMES = st.sampled_from(["LANG", "LC_ALL", "A", BACKEND_VARIABLE]) | st.text(max_size=8)
VALUES = st.sampled_from(["TkAgg", "module://x.y", "a b", "$(id)", "x\n", ""]) | st.text(
    max_size=12
)
PATTERNS = st.sampled_from(["*", "LC_*", "[", "[!", "A?", "-LANG"]) | st.text(
    "*?[]!-\\LAC_", max_size=6
)
COMMANDS = st.text(max_size=60) | st.text("rsync -ev.|;git'\"/upload-pack\n", max_size=60)


@given(
    st.lists(PATTERNS, max_size=4),
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
    st.dictionaries(NAMES, VALUES, max_size=4),
)
def test_chosen_variables_are_those_of_the_user(
    send: list[str], given_pairs: list[tuple[str, str]], environ: dict[str, str]
) -> None:
    chosen = choose_variables(send, given_pairs, environ)
    for name, value in chosen.items():
        pairs = [text for known, text in given_pairs if known == name]
        assert value == (pairs[0] if pairs else environ[name])
    assert {name for name, _ in given_pairs} <= set(chosen)
    if "*" in send:
        assert set(environ) <= set(chosen)


@given(st.dictionaries(NAMES, VALUES, max_size=3), st.none() | st.sampled_from(["none", "Qt", ""]))
def test_backend_is_plain_or_left_alone(chosen: dict[str, str], option: str | None) -> None:
    backend = decide_backend(chosen, option)
    if backend is None:
        assert BACKEND_VARIABLE in chosen or option == "none"
        return
    assert backend in (chosen.get(BACKEND_VARIABLE), option, DEFAULT_BACKEND)
    assert wrap_command("x", {"MPLBACKEND": backend}).endswith("; x")


@given(VALUES)
def test_only_what_is_plain_gets_into_the_command_line(value: str) -> None:
    if re.fullmatch(r"[\w./:+-]+", value, re.ASCII):
        assert set_in_shell("NAME", value).count(value) >= 2
    else:
        with pytest.raises(ValueError, match="must be plain"):
            set_in_shell("NAME", value)


@given(COMMANDS)
def test_any_command_is_judged_and_kept(command: str) -> None:
    assert isinstance(is_protocol_command(command), bool)
    assert wrap_command(command, {"MPLBACKEND": "TkAgg"}).endswith(f"; {command}")
