"""News of the X server that wait to be told, and the frames in which they are.

Sans-IO. What happened to one thing last is what counts: however long news wait, there is one record
for each thing that changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from xsshpy.remote.frames import Frame, FrameKind
from xsshpy.remote.records import Record, Told, build_records
from xsshpy.remote.xrequests import FactClass

RECORD_BATCH = 1 << 16
"""How much of records goes into one frame: what exceeds it ends the frame (bytes)."""

_PROPERTY = (Told.PROPERTY, Told.ABSENT_PROPERTY, Told.UNKNOWN_PROPERTY)


class WaitingNews:
    """Records that replace what is known, and classes of facts that are stale: told before them."""

    def __init__(self) -> None:
        self._records: dict[tuple[Told, int, bytes], Record] = {}
        self._stale: set[FactClass] = set()

    def add(self, records: list[Record]) -> None:
        """Take records, each in the place of an earlier one about the same."""
        for record in records:
            subject = _subject(record)
            self._records.pop(subject, None)
            self._records[subject] = record

    def forget(self, kind: FactClass) -> None:
        """All facts of a class are stale, those that wait as well."""
        self._stale.add(kind)
        for subject, record in list(self._records.items()):
            if record.about is Told.REPLY and record.detail == kind.value:
                del self._records[subject]

    def take(self) -> tuple[list[FactClass], list[Record]]:
        """Return what waited, the stale classes first; then nothing waits."""
        stale, records = sorted(self._stale, key=lambda kind: kind.value), self._records
        self.clear()
        return stale, list(records.values())

    def clear(self) -> None:
        """Nothing of it matters any more."""
        self._stale = set()
        self._records = {}


def _subject(record: Record) -> tuple[Told, int, bytes]:
    """Return what a record is about."""
    if record.about in _PROPERTY:
        return Told.PROPERTY, 0, record.key[:8]  # root window and atom, whatever its type
    if record.about is Told.SEEN:
        return record.about, record.detail, record.key[:8]  # whichever look it was
    return record.about, record.detail, record.key


def build_record_frames(kind: FrameKind, records: list[Record]) -> Iterator[Frame]:
    """Return the frames that carry records; the last one may be without any."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.key) + len(record.value)
        if size > RECORD_BATCH:
            yield Frame(kind, 0, build_records(batch))
            batch, size = [], 0
    yield Frame(kind, 0, build_records(batch))
