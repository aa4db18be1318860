"""The escape parser under any input: no byte is lost or invented, and cuts make no difference."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from xsshpy.terminal.escapes import Data, Disconnect, EscapeParser, Event, parse_escape_char

TYPED = st.text(alphabet="~.\r\nax?B&#\x1a\x00", max_size=60).map(str.encode) | st.binary(
    max_size=60
)
ESCAPES = st.none() | st.sampled_from([126, 46, 13, 10]) | st.integers(0, 255)


def events_of(pieces: list[bytes], escape: int | None) -> list[Event]:
    parser = EscapeParser(escape)
    joined: list[Event] = []
    for event in (event for piece in pieces for event in parser.feed(piece)):
        if isinstance(event, Data) and joined and isinstance(joined[-1], Data):
            joined[-1] = Data(joined[-1].data + event.data)
        else:
            joined.append(event)
    return joined


def ssh_model(typed: bytes, escape: int) -> tuple[bytes, int]:
    """Say what ssh would send, and how many escapes it would carry out."""
    sent, carried_out, pending, fresh = bytearray(), 0, False, True
    for byte in typed:
        if pending:
            pending = False
            if byte in b".&#?BRCvV\x1a":
                carried_out += 1
                if byte in b".&":
                    break  # as with ssh, what follows is nobody's
                continue
            if byte != escape:
                sent.append(escape)
        elif fresh and byte == escape:
            pending = True
            continue
        fresh = byte in b"\r\n"
        sent.append(byte)
    return bytes(sent), carried_out


@given(TYPED, ESCAPES, st.lists(st.integers(0, 60), max_size=6))
def test_cuts_make_no_difference(typed: bytes, escape: int | None, cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(typed)]
    pieces = [typed[a:b] for a, b in itertools.pairwise(bounds) if a < b]
    assert events_of(pieces, escape) == events_of([typed], escape)


@given(TYPED, st.sampled_from([126, 46, 13]) | st.integers(0, 255))
def test_sends_what_ssh_sends(typed: bytes, escape: int) -> None:
    events = events_of([typed], escape)
    data = b"".join(event.data for event in events if isinstance(event, Data))
    assert (data, sum(not isinstance(event, Data) for event in events)) == ssh_model(typed, escape)
    assert all(not isinstance(event, Disconnect) for event in events[:-1])


@given(TYPED)
def test_disabled_passes_everything(typed: bytes) -> None:
    assert b"".join(event.data for event in events_of([typed], None)) == typed


@given(st.text(max_size=6) | st.text(alphabet="\\^M-01247?~A", max_size=6))
def test_escape_char_is_a_byte_or_refused(text: str) -> None:
    try:
        code = parse_escape_char(text)
    except ValueError:
        return
    assert code is None or 0 <= code <= 255
