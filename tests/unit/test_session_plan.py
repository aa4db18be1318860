"""Which request starts the remote program, and with which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xsshpy.ssh.environment import login_shell_command, wrap_command
from xsshpy.ssh.session_plan import (
    Grants,
    SessionPlan,
    X11Request,
    decide_program,
    depends_on_grants,
)

GRANTED = Grants(x11=True, backend_accepted=False)
SHOWN = SessionPlan(command="plot it", backend="TkAgg")


@pytest.mark.parametrize(
    ("plan", "grants"),
    [
        (SHOWN, Grants(x11=False, backend_accepted=False)),
        (SHOWN, Grants(x11=False, backend_accepted=True)),
        (SHOWN, Grants(x11=True, backend_accepted=True)),
        (replace(SHOWN, backend=None), GRANTED),
        (replace(SHOWN, settles_environment=True), GRANTED),
        (replace(SHOWN, is_forced=lambda: True), GRANTED),
        (replace(SHOWN, command="rsync --server ."), GRANTED),
        (replace(SHOWN, command="  odd 'words'\n\\"), Grants(x11=False, backend_accepted=False)),
    ],
)
def test_nothing_is_put_before_the_command(plan: SessionPlan, grants: Grants) -> None:
    assert decide_program(plan, grants) == (b"exec", plan.command)
    if "rsync" not in plan.command:
        assert decide_program(replace(plan, command=""), grants) == (b"shell", "")


@pytest.mark.parametrize("command", ["plot it", " ", "-x", "a\nb", "x" * 200_000])
def test_the_variable_is_put_before_the_command_as_typed(command: str) -> None:
    request, words = decide_program(replace(SHOWN, command=command), GRANTED)
    assert (request, words) == (b"exec", wrap_command(command, {"MPLBACKEND": "TkAgg"}))
    assert words.endswith(command)


def test_a_login_shell_with_a_display_is_a_command() -> None:
    plan = replace(SHOWN, command="")
    assert decide_program(plan, GRANTED) == (b"exec", login_shell_command({"MPLBACKEND": "TkAgg"}))


@pytest.mark.parametrize("grants", [GRANTED, Grants(x11=False, backend_accepted=False)])
def test_a_subsystem_is_named_alone(grants: Grants) -> None:
    plan = replace(SHOWN, command="sftp", subsystem=True)
    assert decide_program(plan, grants) == (b"subsystem", "sftp")


def test_a_display_of_the_agents_is_set_with_the_backend() -> None:
    display = {"DISPLAY": "localhost:10.0", "XAUTHORITY": "/home/u/.x"}
    grants = Grants(x11=False, backend_accepted=False, display=display)
    words = wrap_command("plot it", {**display, "MPLBACKEND": "TkAgg"})
    assert decide_program(SHOWN, grants) == (b"exec", words)


ASKING = replace(SHOWN, x11=X11Request(b"MIT-MAGIC-COOKIE-1", b"c" * 16))


@pytest.mark.parametrize(
    ("plan", "waits"),
    [
        (ASKING, True),
        (replace(ASKING, command=""), True),
        (SHOWN, False),
        (replace(ASKING, backend=None), False),
        (replace(ASKING, subsystem=True), False),
        (replace(ASKING, settles_environment=True), False),
        (replace(ASKING, is_forced=lambda: True), False),
        (replace(ASKING, command="git-upload-pack r"), False),
    ],
)
def test_only_a_command_whose_words_depend_on_the_answers_waits_for_them(
    plan: SessionPlan, waits: bool
) -> None:
    assert depends_on_grants(plan) is waits
