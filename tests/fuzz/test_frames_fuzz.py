"""The link under any bytes and any cuts: only LinkError comes out, and both ends agree."""

from __future__ import annotations

import contextlib
import itertools
import struct
import zlib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.pictures import put_image
from xsshpy.remote import payloads
from xsshpy.remote.frames import (
    LONGEST,
    OF_CLIENT,
    OF_LINK,
    TO_LOCAL,
    Frame,
    FrameKind,
    FrameReader,
    FrameWriter,
    LinkError,
)
from xsshpy.remote.images import ImageDecoder, ImageEncoder
from xsshpy.remote.xmessages import ByteOrder

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))

cuts = st.lists(st.integers(0, 5000), max_size=20)
blobs = st.one_of(st.binary(max_size=400), st.integers(0, 60_000).map(bytes))


def in_pieces(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def read(pieces: list[bytes]) -> tuple[list[tuple[int, int, bytes]], bool]:
    """Return the frames, streams joined, and whether the reader failed."""
    reader = FrameReader(TO_LOCAL)
    found: list[tuple[int, int, bytes]] = []
    try:
        for piece in pieces:
            reader.receive_data(piece)
            while isinstance(frame := reader.next_event(), Frame):
                key = (int(frame.kind), frame.client)
                data = bytes(frame.payload)
                if found and frame.kind is FrameKind.DATA and found[-1][:2] == key:
                    found[-1] = (*key, found[-1][2] + data)
                else:
                    found.append((*key, data))
    except LinkError:
        return found, True
    return found, False


@st.composite
def good_frames(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(sorted(TO_LOCAL)))
    client = draw(st.integers(1, 3)) if kind not in OF_LINK else 0
    data = draw(blobs)[: LONGEST[kind]]
    return Frame(kind, client, data or (b"x" if kind is FrameKind.DATA else b""))


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Blocks with broken lengths, kinds, contents."""
    inside = b"".join(
        struct.pack(">BHI", kind, client, len(data) + wrong) + data
        for kind, client, data, wrong in draw(
            st.lists(
                st.tuples(
                    st.one_of(st.sampled_from(sorted(TO_LOCAL)), st.integers(0, 255)),
                    st.integers(0, 2),
                    st.binary(max_size=40),
                    st.sampled_from([0, 0, 0, 1, 1 << 20, 1 << 31]),
                ),
                max_size=4,
            )
        )
    )
    kind = draw(st.sampled_from([0, 0, 1, 1, 2]))
    if kind == 1 and draw(st.booleans()):
        deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
        inside = deflate.compress(inside) + deflate.flush(
            draw(st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH]))
        )
    length = len(inside) + draw(st.sampled_from([0, 0, 0, 1, -1, 1 << 21]))
    return struct.pack(">BI", kind, max(0, length)) + inside


@QUICK
@given(st.lists(good_frames(), max_size=6), cuts, st.sampled_from([1e5, 1e12, None]))
def test_frames_survive_any_cuts(sent, places, rate):
    writer = FrameWriter(lambda: 0.0)
    data = b"".join(piece for frame in sent for piece in writer.encode([frame], rate))
    expected: list[tuple[int, int, bytes]] = []
    for frame in sent:
        key = (int(frame.kind), frame.client)
        if expected and frame.kind is FrameKind.DATA and expected[-1][:2] == key:
            expected[-1] = (*key, expected[-1][2] + frame.payload)
        else:
            expected.append((*key, bytes(frame.payload)))
    assert read(in_pieces(data, places)) == (expected, False)


@QUICK
@given(st.one_of(st.binary(max_size=300), st.lists(blocks(), max_size=4).map(b"".join)), cuts)
def test_any_bytes_read_the_same_in_any_cuts(data, places):
    whole = read([data])
    assert_alike(read(in_pieces(data, places)), whole)
    assert_alike(read([data[place : place + 1] for place in range(len(data))]), whole)


def assert_alike(one, other):
    """What zlib cannot inflate it refuses with all that it was given, so a cut lets more through
    before the same failure."""
    (frames, failed), (others, failed_too) = one, other
    assert failed == failed_too
    if failed:
        frames, others = sorted((frames, others), key=flat_size)
        *before, last = frames or [(0, 0, b"")]
        assert before == others[: len(before)]
        if frames:
            then = others[len(before)]
            assert (last[:2], last[2]) == (then[:2], then[2][: len(last[2])])
    else:
        assert frames == others


def flat_size(frames):
    return sum(7 + len(payload) for _, _, payload in frames)


PARSERS = {
    FrameKind.OPEN: payloads.parse_open,
    FrameKind.POOL: payloads.parse_pool,
    FrameKind.CREDIT: payloads.parse_count,
    FrameKind.ACK: payloads.parse_count,
    FrameKind.NOTE: payloads.parse_text,
    FrameKind.CLOSE: payloads.parse_text,
    FrameKind.STATS: payloads.parse_stats,
}


@QUICK
@given(
    st.sampled_from(sorted(PARSERS)),
    st.one_of(
        st.binary(max_size=60),
        st.text('{}[]":,0123456789aEe-.ntf', max_size=30).map(str.encode),
        st.dictionaries(st.text(max_size=3), st.integers(), max_size=3).map(
            lambda value: str(value).replace("'", '"').encode()
        ),
    ),
)
def test_payloads_parse_or_fail_in_their_own_way(kind, data):
    with contextlib.suppress(LinkError):
        PARSERS[kind](Frame(kind, int(kind in OF_CLIENT), data))


edits = st.lists(
    st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=60)), min_size=0, max_size=8
)


@QUICK
@given(
    st.sampled_from(ByteOrder),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans(), edits), max_size=12),
    st.integers(3000, 20_000),
)
def test_images_come_out_as_they_went_in(order, turns, budget):
    encoder, decoder = ImageEncoder(order, budget), ImageDecoder(budget)
    shapes = ((30, 12, 24, 4), (31, 20, 16, 2), (50, 30, 8, 1))
    for drawable, shape, long, changes in turns:
        width, height, depth, pixel = shapes[shape]
        picture = bytearray((-(-width * pixel // 4) * 4) * height)
        for place, data in changes:
            start = place % len(picture)
            picture[start : start + len(data)] = data[: len(picture) - start]
        request = put_image(
            order, bytes(picture), width, height, drawable=drawable, depth=depth, long=long
        )
        payload = encoder.encode(request)
        if payload is not None:
            assert decoder.decode(payload) == request
    assert list(encoder._slots._requests.items()) == list(decoder._slots._requests.items())


BASE = put_image(ByteOrder.LITTLE, bytes(1200), 30, 10)


@QUICK
@given(
    st.one_of(
        st.binary(max_size=80),
        st.builds(
            lambda mode, unit, count, numbers, data: (
                struct.pack(">BBIII", mode, unit, 0, len(BASE), count) + numbers + data
            ),
            st.sampled_from([1, 2, 3, 0x81, 0x82, 0x83, 7]),
            st.sampled_from([1, 2, 4, 3]),
            st.one_of(st.integers(0, 5), st.just(0xFFFFFFFF)),
            st.one_of(st.binary(max_size=20), st.integers(0, 30).map(bytes)),
            st.binary(max_size=40),
        ),
    )
)
def test_decoder_takes_any_bytes(payload):
    encoder, decoder = ImageEncoder(ByteOrder.LITTLE), ImageDecoder()
    first = encoder.encode(BASE)
    assert first is not None
    decoder.decode(first)
    try:
        request = decoder.decode(payload)
    except LinkError:
        return
    assert request[0] == 72 and len(request) == len(BASE)
