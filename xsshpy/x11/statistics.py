"""What the X clients of a session did, in a table for --stats. Pure.

The counters are those of ``remote.conversation.Counters``; a trip is one wait of the client for the
X server, however many of its requests were answered by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COLUMNS = (
    ("client", None),
    ("requests", "requests"),
    ("replies", "replies"),
    ("at once", "answered_early"),
    ("trips", "trips"),
    ("images", "images"),
    ("to server", "bytes_from_client"),
    ("on the link", "wire_from_client"),
    ("from server", "bytes_from_server"),
    ("stale", "stale"),
    ("wrong", None),
)
_MISPREDICTED = "mispredicted_"


def count_mispredictions(counters: Mapping[str, int]) -> int:
    """Return how many early answers of a client were wrong."""
    return sum(count for name, count in counters.items() if name.startswith(_MISPREDICTED))


def keep_counters(counters: Mapping[str, int]) -> Mapping[str, int]:
    """Return what is shown of a client's counters: many clients' are kept, for as long as a master
    lives, and no name in them is the other host's choice.
    """
    kept = {name: counters[name] for _, name in COLUMNS if name and counters.get(name)}
    wrong = count_mispredictions(counters)
    return {**kept, _MISPREDICTED: wrong} if wrong else kept


def describe_clients(counts: Sequence[tuple[int, Mapping[str, int]]], wire: tuple[int, int]) -> str:
    """Return the table: a line for each client, and what the whole link took.

    ``counts`` are the counters of each client that is gone, by the client's number; ``wire`` the
    bytes on the link, to the remote host and from there.
    """
    rows = [[title for title, _ in COLUMNS]]
    for client, counters in counts:
        row = [str(client)]
        row += [_shorten(name, counters.get(name, 0)) for _, name in COLUMNS[1:-1] if name]
        rows.append([*row, str(count_mispredictions(counters))])
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    total = f"on the link in all: {_bytes(wire[1])} from the remote host, {_bytes(wire[0])} to it"
    return "\n".join(["xssh: X11 by the agent", *lines, total])


def _shorten(name: str, value: int) -> str:
    return _bytes(value) if "bytes" in name or "wire" in name else str(value)


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.3g} GB"
