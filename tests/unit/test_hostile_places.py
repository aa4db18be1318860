"""What another user of the machine may have put where we keep our things: a table with verdicts.

A row is something that lies there already. Nothing of it is used, followed, written through or
removed, unless it is ours alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xsshpy.mux.sharing import _prepare_folder
from xsshpy.remote import listener
from xsshpy.x11.questions import Question, cache_path, load_questions, save_questions
from xsshpy.x11.remembered import name_account, recall, remember

OTHER = 12345
"""A user that is not us."""

Lay = Callable[[Path], object]


def give_away(path: Path) -> None:
    if os.getuid():
        pytest.skip("only root can make what belongs to others")
    os.chown(path, OTHER, OTHER, follow_symlinks=False)


def lay_folder(path: Path, mode: int = 0o700) -> None:
    path.mkdir()
    path.chmod(mode)


def lay_link(path: Path) -> None:
    """A link to a folder of our own."""
    lay_folder(path.parent / "ours")
    path.symlink_to(path.parent / "ours")


def lay_foreign(path: Path) -> None:
    lay_folder(path)
    give_away(path)


FOLDERS: dict[str, tuple[Lay, str]] = {
    "nothing": (lambda path: None, ""),
    "our own": (lay_folder, ""),
    "another user's": (lay_foreign, "belongs to another user"),
    "open to all": (lambda path: lay_folder(path, 0o777), "open to others"),
    "open to the group": (lambda path: lay_folder(path, 0o710), "open to others"),
    "a link to ours": (lay_link, "is no folder"),
    "a link to nothing": (lambda path: path.symlink_to("/nonexistent/x"), "is no folder"),
    "a file": (lambda path: path.touch(), "is no folder"),
    "a FIFO": (lambda path: os.mkfifo(path), "is no folder"),
}


@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_the_folder_of_shared_connections(short_directory: Path, kind: str) -> None:
    path = short_directory / "xssh-0"
    lay, verdict = FOLDERS[kind]
    lay(path)
    before = path.lstat() if verdict else None
    said = _prepare_folder(str(path))
    assert (verdict in said) if verdict else not said, said
    if before is not None:
        assert path.lstat()[:6] == before[:6]


# The agent's directory


@pytest.fixture
def parent(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR that others can write to, as /tmp."""
    path = short_directory / "shared"
    path.mkdir()
    path.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    return path


def lay_old(path: Path) -> Path:
    """A directory as an agent leaves it that was killed: without a lock that is held."""
    lay_folder(path)
    (path / listener.AUTHORITY_NAME).touch()
    (path / listener.LOCK_NAME).touch()
    return path


def lay_link_to_old(path: Path) -> None:
    path.symlink_to(lay_old(path.parent / "elsewhere"))


def lay_foreign_old(path: Path) -> None:
    give_away(lay_old(path))


def lay_fifo_lock(path: Path) -> None:
    lay_folder(path)
    (path / listener.AUTHORITY_NAME).touch()
    os.mkfifo(path / listener.LOCK_NAME)


def lay_linked_lock(path: Path) -> None:
    lay_folder(path)
    (path.parent / "target").touch()
    (path / listener.LOCK_NAME).symlink_to(path.parent / "target")


LEFTOVERS: dict[str, tuple[Lay, bool]] = {
    "our own": (lay_old, False),
    "another user's": (lay_foreign_old, True),
    "open to all": (lambda path: lay_old(path).chmod(0o777), True),
    "a link to ours": (lay_link_to_old, True),
    "a lock that is a link": (lay_linked_lock, True),
    "a file": (lambda path: path.touch(), True),
    "a FIFO": (lambda path: os.mkfifo(path), True),
}


@pytest.mark.parametrize("kind", sorted(LEFTOVERS))
def test_what_looks_like_a_dead_agents_directory(parent: Path, kind: str) -> None:
    lay, stays = LEFTOVERS[kind]
    lay(parent / f"{listener.DIRECTORY_PREFIX}{listener.name_host()}-0123")
    before = {path: path.lstat()[:6] for path in parent.rglob("*")}
    made, lock = listener.make_directory()
    try:
        found = {path: path.lstat()[:6] for path in parent.rglob("*") if made not in str(path)}
        assert (found == before) is stays
        assert os.lstat(made).st_mode & 0o7777 == 0o700
        assert os.path.dirname(made) == str(parent)
    finally:
        listener.remove_directory(made)
        if lock is not None:
            os.close(lock)


def test_a_fifo_in_place_of_a_lock_keeps_nobody_waiting(parent: Path) -> None:
    lay_fifo_lock(parent / f"{listener.DIRECTORY_PREFIX}{listener.name_host()}-0123")
    made, lock = listener.make_directory()
    listener.remove_directory(made)
    if lock is not None:
        os.close(lock)


@pytest.mark.parametrize("kind", ["another user's", "open to all", "a FIFO", "a file"])
def test_a_runtime_folder_that_is_not_ours_alone_is_not_used(
    parent: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    FOLDERS[kind][0](parent.parent / "runtime")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(parent.parent / "runtime"))
    made, lock = listener.make_directory()
    assert os.path.dirname(made) == str(parent)
    listener.remove_directory(made)
    if lock is not None:
        os.close(lock)


# What is remembered

QUESTION = Question("font", b"a-font-that-no-list-has")
ACCOUNT = name_account("u", "h", 22)
FILES: dict[str, Lay] = {
    "another user's": lambda path: (path.write_text("{}"), give_away(path)),
    "open to all": lambda path: (path.write_text("{}"), path.chmod(0o666)),
    "a link": lambda path: path.symlink_to(path.parent / "target"),
    "a FIFO": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a million brackets": lambda path: path.write_text("[" * 1_000_000),
}


@pytest.mark.parametrize("kind", sorted(FILES))
@pytest.mark.parametrize("what", ["questions", "hosts"])
def test_files_that_are_kept(short_directory: Path, what: str, kind: str) -> None:
    environ = {"HOME": str(short_directory), "XDG_CACHE_HOME": str(short_directory / "cache")}
    if what == "questions":
        path = cache_path(environ)
    else:
        remember(ACCOUNT, True, environ)
        (path,) = (short_directory / "cache" / "xssh").iterdir()
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.parent / "target"
    target.write_text("not ours to write")
    FILES[kind](path)
    if what == "questions":
        assert QUESTION not in load_questions(environ)
        save_questions([QUESTION], environ)
        kept = QUESTION in load_questions(environ)
    else:
        assert recall(ACCOUNT, environ) is None
        remember(ACCOUNT, True, environ)
        kept = recall(ACCOUNT, environ) is True
    assert kept is (kind != "a folder")
    assert target.read_text() == "not ours to write"
    assert sorted(each.name for each in path.parent.iterdir()) == sorted({path.name, "target"})
