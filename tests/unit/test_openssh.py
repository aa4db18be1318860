"""Which ``ssh`` is asked for the configuration, where xssh may have its name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from xsshpy.openssh import find_openssh, openssh_environment


def make(path: Path, text: str = "\x7fELF") -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def search_path(*folders: Path) -> dict[str, str]:
    return {"PATH": os.pathsep.join(map(str, folders))}


def test_first_on_path(tmp_path: Path) -> None:
    (tmp_path / "c" / "ssh").mkdir(parents=True)
    make(tmp_path / "d" / "ssh")
    os.chmod(tmp_path / "d" / "ssh", 0o644)
    first = make(tmp_path / "a" / "ssh")
    make(tmp_path / "b" / "ssh")
    folders = [tmp_path / name for name in "cdab"]
    assert find_openssh(search_path(*folders)) == first
    assert find_openssh(search_path(tmp_path / "none", tmp_path / "c")) is None


def test_a_link_to_this_program_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make(tmp_path / "lib" / "xssh", "#!python")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ssh").symlink_to(own)
    other = make(tmp_path / "b" / "ssh")
    for name in (own, str(tmp_path / "a" / "ssh")):
        monkeypatch.setattr(sys, "argv", [name])
        assert find_openssh(search_path(tmp_path / "a", tmp_path / "b")) == other
        assert find_openssh(search_path(tmp_path / "a")) is None


def test_a_script_is_tried_once(tmp_path: Path) -> None:
    scripts = [make(tmp_path / name / "ssh", "#!/bin/sh\n") for name in "ab"]
    program = make(tmp_path / "c" / "ssh")
    environ = search_path(*(tmp_path / name for name in "abc"))
    asked = []
    while (path := find_openssh(environ)) is not None and len(asked) < 3:
        asked.append(path)
        environ = openssh_environment(path, environ)
    assert asked == [*scripts, program]
    # What machine code starts (Match exec) may have any ssh.
    assert environ == search_path(*(tmp_path / name for name in "abc"))
