"""--man: the page as man, mandoc or this program itself show it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import run, xssh_command
from tests.support.terminals import Terminal
from tests.support.tools import require_tool
from xsshpy.manual import find_page
from xsshpy.mdoc import render


def words_of(text: str) -> list[str]:
    """Return the words, with quotes and dashes as in ASCII."""
    for fancy, plain in (("\u2018", "'"), ("\u2019", "'"), ("\u2013", "-"), ("\u2014", "-")):
        text = text.replace(fancy, plain)
    return text.split()


def test_it_reads_as_mandoc_shows_it() -> None:
    page = find_page()
    shown = run([require_tool("mandoc"), "-Tutf8", page]).stdout.decode()
    shown = re.sub(r".\x08", "", shown)  # bold and underlined
    expected = "\n".join(shown.splitlines()[1:-1])
    assert words_of(render(Path(page).read_text())) == words_of(expected)


def test_mandoc_finds_nothing_to_complain_of() -> None:
    done = run([require_tool("mandoc"), "-Tlint", "-Wstyle", find_page()])
    complaints = [line for line in done.stdout.decode().splitlines() if "mandoc.db" not in line]
    assert complaints == []


@pytest.mark.parametrize(
    ("page", "lines"),
    [
        (".Fl a , b Ar c", ["     -a, -b c"]),
        (".Op Fl -x | Fl -y", ["     [--x | --y]"]),
        (".Op Fl x Op Ar y", ["     [-x [y]]"]),
        (".Oo Ar u Ns @ Oc Ns Ar h .", ["     [u@]h."]),
        (".Pq see Xr ssh 1 ,\nand more", ["     (see ssh(1),) and more"]),
        (".Ql a b , c", ["     'a b', 'c'"]),
        (".Dl a \\(dqb\\(dq \\e", ['         a "b" \\']),
        (".Sh A\nb\n.Pp\nc", ["A", "     b", "", "     c"]),
    ],
)
def test_macros(page: str, lines: list[str]) -> None:
    assert render(page).splitlines() == lines


def test_an_unknown_macro_is_an_error() -> None:
    with pytest.raises(ValueError, match="Xx"):
        render(".Xx a")


def viewer(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_who_shows_it(tmp_path: Path, client_environment: dict[str, str]) -> None:
    """Man before mandoc before plain text; a container's stub is no man."""
    environment = {**client_environment, "PATH": str(tmp_path)}

    def shown() -> str:
        done = run([*xssh_command(), "--man"], env=environment)
        assert (done.status, done.stderr) == (0, "")
        return done.stdout.decode()

    assert shown() == render(Path(find_page()).read_text())
    viewer(tmp_path, "mandoc", 'echo mandoc "$@"')
    assert shown() == f"mandoc {find_page()}\n"
    viewer(tmp_path, "man", 'echo "This system has been minimized"')
    assert shown() == f"mandoc {find_page()}\n"
    viewer(tmp_path, "man", 'echo man "$@"')
    assert shown() == f"man {find_page()}\n"


def test_in_a_pipe_nobody_waits(client_environment: dict[str, str]) -> None:
    """A man that reads its stdin finds the end of it."""
    reading, writing = os.pipe()
    try:
        done = run(
            [*xssh_command(), "--man"], env={**client_environment, "PATH": "/x"}, stdin=reading
        )
        assert done.status == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_at_a_terminal(
    spawn_in_pty: Callable[..., Terminal], tmp_path: Path, client_environment: dict[str, str]
) -> None:
    viewer(tmp_path, "man", "read word; echo got $word")
    terminal = spawn_in_pty(
        [*xssh_command(), "--man"], env={**client_environment, "PATH": f"{tmp_path}:/bin"}
    )
    terminal.write("hello\n")
    terminal.read_until("got hello")
