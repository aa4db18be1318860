"""Facts about the X server as they travel, and how they are taken over.

Rules kept here: sans-IO; Python 3.6 and later, standard library only. What is malformed is a
ProtocolError, whoever sent it; what there is no room for is left out.

Follows the X Window System Protocol, version 11, §9 for the replies inside.
"""

import struct
from enum import Enum
from typing import List, NamedTuple

from .facts import ServerFacts
from .looks import FOCUS, Subject, Thing, parse_frames
from .roots import Property
from .xmessages import ProtocolError
from .xrequests import FactClass

PROPERTY_LIMIT = 65536
"""Longest root property that is kept (bytes)."""


class Told(Enum):
    """What one record of facts is about."""

    REPLY = 0
    FONT = 1
    ROOT_ATTRIBUTES = 2
    PROPERTY = 3
    ABSENT_PROPERTY = 4
    UNKNOWN_PROPERTY = 5
    FOCUS = 6
    MANAGED = 7
    SETUP = 8
    SEEN = 9


class Record(NamedTuple):
    """One fact: ``key`` says what of, ``value`` what."""

    about: Told
    detail: int
    key: bytes
    value: bytes


_RECORD = struct.Struct(">BBHI")
RECORD_LIMIT = 1 << 20
"""Longest value of one record (bytes)."""


def build_records(records: List[Record]) -> bytes:
    """Return records in the form in which they travel."""
    return b"".join(
        _RECORD.pack(record.about.value, record.detail, len(record.key), len(record.value))
        + record.key
        + record.value
        for record in records
    )


def parse_records(data: bytes) -> List[Record]:
    """Return the records in a payload. Raises ProtocolError where it is malformed."""
    records, position = [], 0
    while position < len(data):
        if position + _RECORD.size > len(data):
            raise ProtocolError("facts are cut short")
        about, detail, key_size, value_size = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        end = position + key_size + value_size
        if value_size > RECORD_LIMIT or end > len(data):
            raise ProtocolError("facts are cut short")
        try:
            told = Told(about)
        except ValueError:
            raise ProtocolError("facts of an unknown kind") from None
        key = bytes(data[position : position + key_size])
        records.append(Record(told, detail, key, bytes(data[position + key_size : end])))
        position = end
    return records


def apply_record(facts: ServerFacts, record: Record) -> None:
    """Take over one fact. Raises ProtocolError where it is malformed."""
    try:
        _TAKERS[record.about](facts, record)
    except (struct.error, IndexError, ValueError):
        raise ProtocolError("facts are malformed") from None


def _take_reply(facts: ServerFacts, record: Record) -> None:
    if len(record.value) < 32 or len(record.key) < 4:
        raise ValueError
    facts.learn(record.key, FactClass(record.detail), record.value)


def _take_font(facts: ServerFacts, record: Record) -> None:
    if len(record.value) < 60:
        raise ValueError
    facts.learn_font(record.key, record.value)


def _take_root_attributes(facts: ServerFacts, record: Record) -> None:
    if len(record.value) != 44:
        raise ValueError
    root = struct.unpack(">I", record.key)[0]
    if root in facts.screens:
        facts.roots.attributes[root] = record.value
        facts.installed[facts.screens[root].colormap] = record.value[25]


def _take_property(facts: ServerFacts, record: Record) -> None:
    root, atom, kind = struct.unpack(">III", record.key)
    if root not in facts.screens:
        raise ValueError
    if record.about is Told.ABSENT_PROPERTY:
        facts.roots.tell_absent(root, atom)
    elif record.about is Told.UNKNOWN_PROPERTY or len(record.value) > PROPERTY_LIMIT:
        facts.roots.tell(root, atom, None)
    elif record.detail in (8, 16, 32) and len(record.value) % (record.detail // 8) == 0:
        facts.add_atom(atom)
        facts.add_atom(kind)
        facts.roots.tell(root, atom, Property(kind, record.detail, record.value))
    else:
        raise ValueError


def _take_focus(facts: ServerFacts, record: Record) -> None:
    if len(record.value) != 32:
        raise ValueError
    facts.focus = record.value


def _take_seen(facts: ServerFacts, record: Record) -> None:
    window, detail, number = struct.unpack(">III", record.key)
    thing = Thing(Subject(record.detail), window, detail)
    if record.value and len(record.value) < 32:
        raise ValueError
    if thing.subject is Subject.FRAME:
        parse_frames(record.value)
    plain = record.value
    if thing.subject is not Subject.FRAME and plain:
        plain = plain[:2] + b"\0\0" + plain[4:]
    if facts.looks.tell(thing, number, plain) and thing == FOCUS and plain and facts.focus is None:
        facts.focus = plain


def _take_setup(facts: ServerFacts, record: Record) -> None:
    """The facts were made of it."""


def _take_managed(facts: ServerFacts, record: Record) -> None:
    # Where a window manager was once, windows are no more what their clients made them.
    facts.managed = bool(record.detail) or facts.managed is True


_TAKERS = {
    Told.REPLY: _take_reply,
    Told.FONT: _take_font,
    Told.ROOT_ATTRIBUTES: _take_root_attributes,
    Told.PROPERTY: _take_property,
    Told.ABSENT_PROPERTY: _take_property,
    Told.UNKNOWN_PROPERTY: _take_property,
    Told.FOCUS: _take_focus,
    Told.MANAGED: _take_managed,
    Told.SETUP: _take_setup,
    Told.SEEN: _take_seen,
}
