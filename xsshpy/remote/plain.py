"""A conversation that knows nothing: for clients whose byte order the facts don't have, and those
that come before the facts.

Rules kept here: those of ``xextensions``. Sans-IO; Python 3.6 and later, standard library only.
"""

from typing import List

from .counters import Counters, Piece
from .looks import Look
from .records import Record
from .xextensions import ExtensionFilter
from .xwire import ClientReader


class PlainConversation:
    """One client that nothing is predicted for: the hidden extensions are all that is altered."""

    def __init__(self, reader: ClientReader) -> None:
        self.counters = Counters()
        self.learned: List[Record] = []
        self.notes: List[str] = []
        self._filter = ExtensionFilter(reader)
        self._for_server: List[Piece] = []
        self._for_client: List[bytes] = []
        self.may_read = True

    def brings_news(self) -> bool:
        """Tell whether the client may be waiting for something."""
        return True

    def close(self) -> None:
        """The client is gone."""

    def receive_from_client(self, data: bytes) -> None:
        """Take bytes from the client. Raises ProtocolError."""
        self.counters.bytes_from_client += len(data)
        self._for_server.extend(Piece(each, False) for each in self._filter.pass_to_server(data))

    def receive_from_server(self, data: bytes) -> None:
        """Take bytes from the server. Raises ProtocolError."""
        self.counters.bytes_from_server += len(data)
        self._for_client.extend(self._filter.pass_to_client(data))

    def take_for_server(self) -> List[Piece]:
        """Return what is to be sent to the server, in order."""
        pieces, self._for_server = self._for_server, []
        return pieces

    def take_looks(self) -> List[Look]:
        """Return what is to be looked at: nothing."""
        return []

    def take_for_client(self) -> bytes:
        """Return what is to be sent to the client."""
        pieces, self._for_client = self._for_client, []
        return b"".join(pieces)
