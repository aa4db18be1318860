"""What X clients ask that has the same answer for all: the list learned in earlier sessions.

A question is a request in canonical form without what differs from server to server: the opcode of
its extension, the ids of the root window and of its colormap. A good list comes with the package;
what clients asked beyond it is kept in the user's cache folder, so that the next session knows.

Rules kept here: questions that come from the other host or from the file are checked against the
tables of facts before anything is asked; whatever is wrong with the file costs speed, never the
session.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from xsshpy.remote.records import Record, Told
from xsshpy.remote.xrequests import (
    CORE_FACTS,
    EXTENSION_FACTS,
    FACT_LIMIT,
    FIRST_EXTENSION_OPCODE,
    MUST_BE_ZERO,
    ONLY_TOLD,
    canonicalise,
    canonicalise_core,
)
from xsshpy.values import dataclass
from xsshpy.x11.cache import cache_folder, read_own_file, write_own_file

QUESTION_LIMIT = 1500
"""Most questions that are asked at the beginning of a session."""

FILE_LIMIT = 1 << 20
FONT_NAME_LIMIT = 255
FORMAT = 1

CORE = "core"
FONT = "font"

LAST_PREDEFINED_ATOM = 68
GET_ATOM_NAME = 17

_ROOT_AT = {
    (CORE, 14): 4,
    (CORE, 97): 4,
    ("RENDER", 29): 4,
    ("RANDR", 6): 4,
    ("RANDR", 8): 4,
    ("RANDR", 25): 4,
    ("RANDR", 31): 4,
    ("RANDR", 42): 4,
}
"""Where a question names the root window; by owner, and opcode or minor opcode."""

_COLORMAP_AT = {(CORE, 85): 4, (CORE, 92): 4}
_OF_ONE_SERVER = {("RANDR", 9), ("RANDR", 15), ("RANDR", 20)}
"""Questions that name what only one server has; learned, they would be of no use."""


@dataclass(frozen=True)
class Question:
    """``owner`` is "core", "font" or an extension's name; ``body`` the request or the font's name.

    In the body an extension's opcode and the ids of root window and colormap are 0.
    """

    owner: str
    body: bytes


@dataclass(frozen=True)
class ServerNames:
    """What stands for the placeholders on one server."""

    root: int
    colormap: int
    opcodes: Mapping[str, int]

    def name_of(self, opcode: int) -> str | None:
        """Return the extension that has a major opcode."""
        return next((name for name, each in self.opcodes.items() if each == opcode), None)


def _places(owner: str, body: bytes) -> dict[int, str]:
    """Return what stands where in a question: "root" or "colormap" by position."""
    opcode = body[0] if owner == CORE else body[1]
    places = {}
    if (owner, opcode) in _ROOT_AT:
        places[_ROOT_AT[owner, opcode]] = "root"
    if (owner, opcode) in _COLORMAP_AT:
        places[_COLORMAP_AT[owner, opcode]] = "colormap"
    return places


def _read_short(data: bytes, position: int) -> int:
    value: int = struct.unpack_from("<H", data, position)[0]
    return value


def is_question(question: Question) -> bool:
    """Tell whether this may be asked of a server: it is in the tables, and well formed."""
    owner, body = question.owner, question.body
    if owner == FONT:
        return 0 < len(body) <= FONT_NAME_LIMIT and body.isascii()
    if not 4 <= len(body) <= FACT_LIMIT or len(body) != 4 * _read_short(body, 2):
        return False
    if any(len(body) < position + 4 for position in _places(owner, body)):
        return False
    if owner == CORE:
        if body[0] not in CORE_FACTS or canonicalise_core(body, _read_short) != body:
            return False
        if CORE_FACTS[body[0]][0] in ONLY_TOLD:
            return False
        if body[0] == GET_ATOM_NAME:
            atom = int.from_bytes(body[4:], "little")
            return len(body) == 8 and atom <= LAST_PREDEFINED_ATOM
        return True
    known = EXTENSION_FACTS.get((owner.encode("utf-8"), body[1]))
    if known is None or body[0] or (owner, body[1]) in _OF_ONE_SERVER:
        return False
    first, last = MUST_BE_ZERO.get((owner.encode("utf-8"), body[1]), (0, 0))
    if known[0] in ONLY_TOLD or any(body[first:last]):
        return False
    return canonicalise(body, known[1]) == body


def build_request(question: Question, names: ServerNames) -> bytes | None:
    """Return the request, a fact's key; None where this server lacks the extension."""
    body = bytearray(question.body)
    if question.owner != CORE:
        opcode = names.opcodes.get(question.owner)
        if opcode is None:
            return None
        body[0] = opcode
    for position, what in _places(question.owner, question.body).items():
        struct.pack_into("<I", body, position, getattr(names, what))
    return bytes(body)


def recognise(record: Record, names: ServerNames) -> Question | None:
    """Return the question in what an agent learned; None where it is none that can be kept."""
    body = bytearray(record.key)
    if record.about is Told.FONT:
        question = Question(FONT, record.key)
        return question if is_question(question) else None
    if record.about is not Told.REPLY or len(body) < 4:
        return None
    owner: str | None = CORE
    if body[0] >= FIRST_EXTENSION_OPCODE:
        owner = names.name_of(body[0])
        body[0] = 0
    if owner is None:
        return None
    for position, what in _places(owner, bytes(body)).items():
        if len(body) < position + 4:
            return None
        if struct.unpack_from("<I", body, position)[0] != getattr(names, what):
            return None
        struct.pack_into("<I", body, position, 0)
    question = Question(owner, bytes(body))
    return question if is_question(question) else None


# --- the lists ----------------------------------------------------------------------------------


def parse_questions(text: str) -> list[Question]:
    """Return the questions in a list; those that may not be asked are left out.

    Raises ValueError where the text is no such list.
    """
    parsed = json.loads(text)
    if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
        raise ValueError("not a list of questions")
    listed = parsed.get("questions")
    if not isinstance(listed, dict):
        raise ValueError("not a list of questions")
    found = []
    for owner, bodies in listed.items():
        if not isinstance(bodies, list):
            raise ValueError("not a list of questions")
        for body in bodies:
            if not isinstance(body, str):
                continue
            with contextlib.suppress(ValueError, TypeError):
                data = body.encode("ascii") if owner == FONT else bytes.fromhex(body)
                question = Question(owner, data)
                if is_question(question):
                    found.append(question)
    return found


def format_questions(questions: Iterable[Question]) -> str:
    """Return a list as text."""
    listed: dict[str, list[str]] = {}
    for question in questions:
        body = question.body.decode("ascii") if question.owner == FONT else question.body.hex()
        listed.setdefault(question.owner, []).append(body)
    return json.dumps({"format": FORMAT, "questions": listed}, indent=1) + "\n"


def cache_path(environ: Mapping[str, str]) -> Path:
    """Return where the user's own list lies."""
    return cache_folder(environ) / "x11-questions.json"


def load_questions(environ: Mapping[str, str]) -> list[Question]:
    """Return what is to be asked: the list that comes with the package, then the user's own."""
    shipped = resources.files("xsshpy.x11").joinpath("questions.json").read_text("utf-8")
    questions = dict.fromkeys(parse_questions(shipped))
    questions.update(dict.fromkeys(_read_own(cache_path(environ))))
    return list(questions)[:QUESTION_LIMIT]


def _read_own(path: Path) -> list[Question]:
    try:
        return parse_questions(read_own_file(path, FILE_LIMIT).decode("utf-8"))
    except (ValueError, RecursionError):
        return []


def save_questions(learned: Iterable[Question], environ: Mapping[str, str]) -> None:
    """Add to the user's own list. Nothing happens where it cannot be written."""
    path = cache_path(environ)
    questions = dict.fromkeys(_read_own(path))
    count = len(questions)
    questions.update(dict.fromkeys(learned))
    if len(questions) > count:
        write_own_file(path, format_questions(list(questions)[-QUESTION_LIMIT:]))
