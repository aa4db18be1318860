"""Control sockets under any bytes and any cuts: only MuxProtocolError comes out."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from xsshpy.mux.messages import (
    MAX_FRAME,
    CloseForward,
    FrameReader,
    Kind,
    MuxProtocolError,
    NewSession,
    NewStdioForward,
    OpenForward,
    decode_reply,
    decode_request,
    encode,
)

QUICK = settings(max_examples=100, deadline=None)

numbers = st.integers(0, 0xFFFFFFFF)
strings = st.binary(max_size=40).map(lambda text: text.replace(b"\0", b"_"))
sessions = st.builds(
    NewSession,
    request_id=numbers,
    reserved=st.binary(max_size=10),
    want_tty=st.booleans(),
    want_x11=st.booleans(),
    want_agent=st.booleans(),
    subsystem=st.booleans(),
    escape=numbers,
    term=strings,
    command=strings,
    variables=st.lists(strings, max_size=10).map(tuple),
)
forwards = st.builds(OpenForward, numbers, numbers, strings, numbers, strings, numbers)
closings = st.builds(CloseForward, numbers, numbers, strings, numbers, strings, numbers)
stdio_forwards = st.builds(NewStdioForward, numbers, st.binary(max_size=9), strings, numbers)
requests = sessions | forwards | closings | stdio_forwards

kinds = st.sampled_from([kind.to_bytes(4, "big") for kind in Kind]) | st.binary(
    min_size=4, max_size=4
)
likely = st.tuples(kinds, st.lists(st.sampled_from([b"\0\0\0\0", b"\0\0\0\1", b"\xff" * 4, b"x"])))
bodies = st.binary(max_size=80) | likely.map(lambda pair: pair[0] + b"".join(pair[1]))


@QUICK
@given(requests)
def test_what_is_written_is_read(message: NewSession | OpenForward) -> None:
    frame = encode(message)
    reader = FrameReader()
    reader.receive_data(frame)
    body = reader.next_frame()
    assert body is not None
    decoded = decode_request(body)
    assert decoded == message
    assert type(decoded) is type(message)


@QUICK
@given(bodies)
def test_any_frame_is_a_message_or_the_protocols_error(body: bytes) -> None:
    for decode in (decode_request, decode_reply):
        try:
            message = decode(body)
        except MuxProtocolError as error:
            assert len(str(error)) < 80
        else:
            assert vars(message)


@QUICK
@given(st.lists(bodies, max_size=5), st.binary(max_size=12), st.lists(st.integers(0, 600)))
def test_frames_do_not_depend_on_the_cuts(
    whole: list[bytes], tail: bytes, places: list[int]
) -> None:
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in whole) + tail
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    assert read([stream]) == read([stream[start:end] for start, end in itertools.pairwise(edges)])


def read(pieces: list[bytes]) -> tuple[list[bytes], int]:
    reader, found = FrameReader(), []
    for piece in pieces:
        reader.receive_data(piece)
        try:
            while (frame := reader.next_frame()) is not None:
                assert len(frame) <= MAX_FRAME
                found.append(frame)
        except MuxProtocolError:
            return found, -1
    return found, reader.missing()
