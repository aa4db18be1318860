"""The list of questions: what may be asked of an X server, and what is kept of it on the disk."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from xsshpy.remote.records import Record, Told
from xsshpy.x11.cache import cache_folder
from xsshpy.x11.questions import (
    Question,
    ServerNames,
    build_request,
    cache_path,
    format_questions,
    is_question,
    load_questions,
    parse_questions,
    recognise,
    save_questions,
)
from xsshpy.x11.statistics import describe_clients

NAMES = ServerNames(0x100, 0x20, {"RENDER": 139, "RANDR": 140})
ATOM = b"\x10\x00\x05\x00\x09\x00\x00\x00WM_CLIENT\0\0\0"
COLOUR = b"\x55\x00\x04\x00" + struct.pack("<IHHH2x", 0, 4, 0, 0)[:12]
VERSION = b"\x00\x00\x03\x00" + struct.pack("<II", 0, 11)


def test_names_of_the_server_stand_for_placeholders() -> None:
    named = b"\x5c\x00\x04\x00" + struct.pack("<IHxx", 0, 4) + b"blue"
    request = build_request(Question("core", named), NAMES)
    assert request is not None
    assert struct.unpack_from("<I", request, 4)[0] == NAMES.colormap
    found = recognise(Record(Told.REPLY, 0, request, b""), NAMES)
    assert found == Question("core", named)
    other = ServerNames(0x100, 0x21, {})
    assert recognise(Record(Told.REPLY, 0, request, b""), other) is None


def test_an_extension_that_is_not_there_is_not_asked() -> None:
    question = Question("RENDER", VERSION)
    request = build_request(question, NAMES)
    assert request == bytes((139,)) + VERSION[1:]
    assert recognise(Record(Told.REPLY, 0, request, b""), NAMES) == question
    assert build_request(question, ServerNames(1, 2, {})) is None
    assert recognise(Record(Told.REPLY, 0, request, b""), ServerNames(1, 2, {})) is None


@pytest.mark.parametrize(
    "record",
    [
        Record(Told.REPLY, 0, b"", b""),
        Record(Told.FOCUS, 0, ATOM, b""),
        Record(Told.FONT, 0, b"", b""),
        Record(Told.FONT, 0, b"\xff", b""),
        Record(Told.REPLY, 0, b"\x5c\x00\x01\x00", b""),
        Record(Told.REPLY, 0, b"\x2b\x00\x01\x00", b""),
    ],
)
def test_what_cannot_be_kept(record: Record) -> None:
    assert recognise(record, NAMES) is None


def test_a_font_is_a_question() -> None:
    assert recognise(Record(Told.FONT, 0, b"fixed", b""), NAMES) == Question("font", b"fixed")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        ATOM[:-4],
        ATOM + bytes(4),
        b"\x19" + ATOM[1:],  # SendEvent
        ATOM[:6] + b"\x01" + ATOM[7:],  # not canonical
        b"\x11\x00\x02\x00" + struct.pack("<I", 999),  # an atom of one server
    ],
)
def test_what_may_not_be_asked(body: bytes) -> None:
    assert not is_question(Question("core", body))
    assert is_question(Question("core", ATOM))


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"format": 1}', '{"format": 1, "questions": {"core": 3}}', "{", '{"format": 9}'],
)
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError):
        parse_questions(text)


def test_lists_are_read_as_they_are_written() -> None:
    questions = [Question("core", ATOM), Question("font", b"fixed"), Question("RENDER", VERSION)]
    text = format_questions(questions)
    assert parse_questions(text) == questions
    spoilt = json.loads(text)
    spoilt["questions"]["core"] += ["zz", 7, "10"]
    assert parse_questions(json.dumps(spoilt)) == questions


def test_all_that_is_shipped_may_be_asked() -> None:
    shipped = load_questions({"HOME": "/nonexistent"})
    assert len(shipped) > 100
    assert all(map(is_question, shipped))


def test_what_was_learned_is_asked_in_the_next_session(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    path = cache_path(environment)
    assert path == tmp_path / ".cache" / "xssh" / "x11-questions.json"
    before = len(load_questions(environment))
    save_questions([Question("core", ATOM)], environment)
    assert load_questions(environment)[-1] == Question("core", ATOM)
    assert path.stat().st_mode & 0o077 == 0
    written = path.stat().st_mtime_ns, path.stat().st_ino
    save_questions([Question("core", ATOM)], environment)  # nothing new
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written
    assert len(load_questions(environment)) == before + 1


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/xssh"),
        ({"XDG_CACHE_HOME": "c", "HOME": "/h"}, "/h/.cache/xssh"),
        ({"XDG_CACHE_HOME": "", "HOME": ""}, "/.cache/xssh"),
        ({"HOME": "h"}, "/.cache/xssh"),
        ({}, "/.cache/xssh"),
    ],
)
def test_nothing_is_kept_in_the_folder_where_the_run_began(
    environment: dict[str, str], folder: str
) -> None:
    assert cache_folder(environment) == Path(folder)


@pytest.mark.parametrize("how", ["mode", "pipe", "directory", "garbage", "missing"])
def test_a_list_that_is_not_ours_alone_is_not_read(how: str, tmp_path: Path) -> None:
    environment = {"HOME": "/nonexistent", "XDG_CACHE_HOME": str(tmp_path)}
    path = cache_path(environment)
    path.parent.mkdir(parents=True)
    if how == "pipe":
        os.mkfifo(path)
    elif how == "directory":
        path.mkdir()
    elif how != "missing":
        path.write_text("\0" if how == "garbage" else format_questions([Question("core", ATOM)]))
        path.chmod(0o666 if how == "mode" else 0o600)
    assert Question("core", ATOM) not in load_questions(environment)


def test_where_nothing_can_be_written_nothing_happens(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    save_questions([Question("core", ATOM)], {"XDG_CACHE_HOME": str(tmp_path / "file")})


def test_clients_by_number() -> None:
    counters = {
        "requests": 1234,
        "mispredicted_facts": 2,
        "mispredicted_sync": 1,
        "bytes_from_server": 0,
    }
    counters["bytes_from_client"] = 5_000_000_000
    shown = describe_clients([(7, counters)], (999, 1500)).splitlines()
    assert shown[0] == "xssh: X11 by the agent"
    assert shown[2].split()[0] == "7"
    assert "1234" in shown[2]
    assert "5 GB" in shown[2]
    assert shown[2].split()[-1] == "3"
    assert shown[-1] == "on the link in all: 1.5 kB from the remote host, 999 B to it"
