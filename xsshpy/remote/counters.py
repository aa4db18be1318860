"""What happened in one conversation, in numbers, and the pieces that it makes for the server.

Python 3.6 and later, standard library only.
"""

from typing import Dict, NamedTuple

from .facts import PredictionClass


class Piece(NamedTuple):
    """Bytes for the server; ``is_image`` where they are one whole PutImage."""

    data: bytes
    is_image: bool


class Counters:
    """What happened in one conversation. All are numbers of messages but those that say bytes."""

    __slots__ = (
        "answered_early",
        "bytes_from_client",
        "bytes_from_server",
        "errors",
        "images",
        "mispredictions",
        "replies",
        "requests",
        "stale",
        "trips",
        "waited_for",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.replies = 0
        self.answered_early = 0
        self.trips = 0
        """How often the client waited for the server: requests sent together count once."""
        self.stale = 0
        self.errors = 0
        self.images = 0
        self.bytes_from_client = 0
        self.bytes_from_server = 0
        self.mispredictions: Dict[PredictionClass, int] = {}
        self.waited_for: Dict[int, int] = {}
        """For each opcode, how many replies came from the server itself."""

    def describe(self) -> Dict[str, int]:
        """Return the counters by name; those of a kind have the kind in their names."""
        plain = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("mispredictions", "waited_for")
        }
        for kind, count in self.mispredictions.items():
            plain["mispredicted_" + kind.value.replace(" ", "_")] = count
        for opcode, count in self.waited_for.items():
            plain["waited_{}".format(opcode)] = count
        return plain
