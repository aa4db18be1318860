"""Successive PutImages as differences: the same requests come out, and little goes between."""

from __future__ import annotations

import ast
import glob
import inspect
import itertools
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest

from tests.support.pictures import line_plot, noise, put_image, strips
from xsshpy.remote import images
from xsshpy.remote.frames import LinkError
from xsshpy.remote.images import (
    AGAIN,
    FIRST,
    LIKE,
    PLANES,
    ImageChoice,
    ImageDecoder,
    ImageEncoder,
    find_spans,
    find_unit,
    join_planes,
    split_planes,
)
from xsshpy.remote.xmessages import ByteOrder

LITTLE, BIG = ByteOrder.LITTLE, ByteOrder.BIG


class Ends:
    """Both ends, and what went between them."""

    def __init__(self, order: ByteOrder = LITTLE, budget: int = images.BUDGET) -> None:
        self.encoder = ImageEncoder(order, budget)
        self.decoder = ImageDecoder(budget)
        self.payloads: list[bytes] = []

    def passes(self, request: bytes) -> bytes:
        payload = self.encoder.encode(request)
        assert payload is not None
        self.payloads.append(payload)
        assert self.decoder.decode(payload) == request
        return payload

    @property
    def mode(self) -> int:
        return self.payloads[-1][0]


@pytest.fixture(params=list(ByteOrder), ids=lambda order: order.name)
def order(request: pytest.FixtureRequest) -> ByteOrder:
    return request.param


def changed(request: bytes, *places: int) -> bytes:
    data = bytearray(request)
    for place in places:
        data[place] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(
    ("form", "depth", "width", "size"),
    [(2, 24, 40, 40 * 4), (2, 16, 41, 84), (2, 8, 41, 44), (1, 1, 300, 40), (0, 1, 300, 40)],
)
def test_requests_come_out_as_they_went_in(order, long, form, depth, width, size):
    ends = Ends(order)
    for seed in range(4):
        picture = put_image(
            order,
            noise(size * 20, seed),
            width,
            20,
            depth=depth,
            form=form,
            long=long,
            unused=bytes((seed, 7)),
        )
        ends.passes(picture)
        assert ends.mode & ~PLANES == (FIRST if not seed else AGAIN)
        assert ends.payloads[-1][1] == {160: 4, 84: 2}.get(size, 1)


@pytest.mark.parametrize("place", [24, 27, 28, 1000, 2047, 2048, 2049, 4095, 4096, -1])
def test_one_byte_differs(order, place):
    first = put_image(order, noise(40 * 4 * 30), 40, 30)
    ends = Ends(order)
    ends.passes(first)
    assert len(ends.passes(changed(first, place))) < 60
    assert len(ends.passes(first)) < 60
    assert len(ends.passes(first)) < 20


def test_header_may_differ_where_the_rectangle_is_the_same():
    data = noise(3200)
    ends = Ends()
    ends.passes(put_image(LITTLE, data, 40, 20))
    ends.passes(put_image(LITTLE, data, 40, 20, context=0x300009, unused=b"xy"))
    assert ends.mode == AGAIN
    assert len(ends.payloads[-1]) < 50


def test_another_drawable_of_the_same_shape_serves_as_a_pattern():
    data = noise(3200)
    ends = Ends()
    for drawable in range(5):
        ends.passes(put_image(LITTLE, data, 40, 20, drawable=drawable))
        assert ends.mode == (LIKE if drawable else FIRST)
    ends.passes(put_image(LITTLE, data, 40, 20, drawable=0))
    assert ends.mode == AGAIN
    ends.passes(put_image(LITTLE, data, 40, 20, y=1))
    assert ends.mode == FIRST


@pytest.mark.parametrize(
    "request_",
    [
        put_image(LITTLE, bytes(400), 10, 10),
        bytes((73, 2, 250, 0)) + bytes(996),
        put_image(LITTLE, bytes(images.LARGEST), 2048, 1024, long=True),
        put_image(LITTLE, bytes(1000), 10, 25)[:-1],
    ],
    ids=["short", "another request", "too long", "odd"],
)
def test_what_is_not_worth_it_passes_by(request_):
    assert ImageEncoder(LITTLE).encode(request_) is None


def test_line_plot_takes_little(order):
    ends = Ends(order)
    deflate = zlib.compressobj(4, zlib.DEFLATED, -15)
    sizes = []
    for step in range(4):
        wire = 0
        for request in strips(line_plot(step), order):
            payload = ends.passes(request)
            wire += len(deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))
        sizes.append(wire)
    assert max(sizes[1:]) <= 12_000
    assert max(sizes[1:]) < sizes[0] * 0.8


def test_everything_differs(order):
    ends = Ends(order)
    for seed in range(3):
        payload = ends.passes(put_image(order, noise(400 * 400 * 4, seed), 400, 400, long=True))
        assert len(payload) < 400 * 400 * 4 * 1.01


def test_scattered_pixels_do_not_make_a_table_longer_than_the_picture():
    data = noise(400 * 400 * 4)
    other = bytearray(data)
    for place in range(0, len(other), 44):
        other[place] ^= 1
    ends = Ends()
    ends.passes(put_image(LITTLE, data, 400, 400, long=True))
    assert len(ends.passes(put_image(LITTLE, bytes(other), 400, 400, long=True))) < len(data) * 1.01


def test_long_gaps_and_long_spans():
    size = 70_000 * 4 * 4
    old, new = bytes(size), bytearray(size)
    new[66_000 * 4 : 136_000 * 4] = noise(70_000 * 4)
    new[-1] = 1
    ends = Ends()
    ends.passes(put_image(LITTLE, old, 700, 400, long=True))
    assert len(ends.passes(put_image(LITTLE, bytes(new), 700, 400, long=True))) < 70_000 * 4 + 64


def test_photographs_go_as_planes():
    shades = noise(128 * 120)
    photo = b"".join(
        bytes((60 + value % 8, 120 + value // 8 % 8, 200 + value // 64, 0)) for value in shades
    )
    ends = Ends()
    ends.passes(put_image(LITTLE, photo, 128, 120))
    assert ends.mode == FIRST | PLANES
    ends.passes(put_image(LITTLE, photo[4:] + photo[:4], 128, 120))
    assert ends.mode == AGAIN | PLANES


def test_both_ends_forget_the_same():
    budget = 40_000
    ends = Ends(budget=budget)
    for turn in range(3):
        for drawable in range(30):
            for height in (10, 11, 12):
                data = noise(160 * height, drawable + turn)
                ends.passes(put_image(LITTLE, data, 40, height, drawable=drawable))
    for side in (ends.encoder, ends.decoder):
        assert side._slots._used <= budget
    assert list(ends.encoder._slots._requests) == list(ends.decoder._slots._requests)
    assert len(ends.encoder._known) == len(ends.encoder._slots._requests)
    assert len(ends.encoder._by_key) == len(ends.encoder._known)
    assert len(ends.encoder._by_shape) <= len(ends.encoder._known)


def test_what_was_used_last_is_kept():
    ends = Ends(budget=4 * (3224 + images.OVERHEAD))
    favourite = put_image(LITTLE, noise(3200), 40, 20)
    ends.passes(favourite)
    for number in range(1, 20):
        ends.passes(put_image(LITTLE, noise(3200, number), 40, 20, y=number))
        ends.passes(favourite)
        assert ends.mode == AGAIN


def test_memory_is_bounded():
    ends = Ends(budget=2 << 20)
    tracemalloc.start()
    try:
        for number in range(60):
            data = noise(400_000, number)
            payload = ends.encoder.encode(put_image(LITTLE, data, 1000, 100, y=number, long=True))
            assert payload is not None
            ends.decoder.decode(payload)
            del data, payload
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used < 2 * (2 << 20) + 1_000_000


def head(mode: int, unit: int = 4, slot: int = 0, size: int = 1024) -> bytes:
    return struct.pack(">BBII", mode, unit, slot, size)


def table(gaps: list[int], lengths: list[int]) -> bytes:
    count = len(gaps)
    return struct.pack(">I", count) + b"".join(
        split_planes(struct.pack(f">{count}H", *numbers), 2) for numbers in (gaps, lengths)
    )


PICTURE = put_image(LITTLE, bytes(1000), 10, 25)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "too short"),
        (head(FIRST)[:-1], "too short"),
        (head(0) + PICTURE, "unknown mode"),
        (head(4) + PICTURE, "unknown mode"),
        (head(FIRST, unit=3) + PICTURE, "unknown mode"),
        (head(FIRST, size=508) + PICTURE[:508], "impossible size"),
        (head(FIRST, size=1023) + PICTURE[:-1], "impossible size"),
        (head(FIRST, size=images.LARGEST + 4) + PICTURE, "impossible size"),
        (head(FIRST) + PICTURE[:-4], "not as long as it says"),
        (head(FIRST) + b"\x49" + PICTURE[1:], "no PutImage"),
        (head(AGAIN, slot=1) + table([], []), "is not there"),
        (head(LIKE, slot=0xFFFFFFFF) + table([], []), "is not there"),
        (head(AGAIN, size=1020) + table([], []), "is not there"),
        (head(AGAIN) + b"\0\0\0", "too short"),
        (head(AGAIN) + struct.pack(">I", 1) + b"\0\0\0", "number of spans"),
        (head(AGAIN) + struct.pack(">I", 0xFFFFFFFF), "number of spans"),
        (head(AGAIN) + table([0] * 40, [0] * 40), "number of spans"),
        (head(AGAIN) + table([0], [1]) + b"abc", "as long as its spans"),
        (head(AGAIN) + table([0], [1]) + b"abcde", "as long as its spans"),
        (head(AGAIN) + table([256], [1]) + b"abcd", "beyond its end"),
        (head(AGAIN) + table([250, 6], [0, 1]) + b"abcd", "beyond its end"),
        (head(AGAIN) + table([0], [257]) + bytes(1028), "beyond its end"),
        (head(AGAIN) + table([0], [1]) + b"abcd", "no PutImage"),
    ],
)
def test_decoder_refuses(payload, words):
    decoder = ImageDecoder()
    assert decoder.decode(head(FIRST) + PICTURE) == PICTURE
    with pytest.raises(LinkError, match=words):
        decoder.decode(payload)
    with pytest.raises(LinkError, match=words):
        decoder.decode(head(AGAIN) + table([], []))


def test_spans_are_whole_pixels_and_hold_every_difference():
    old = noise(10_000)
    new = changed(old, 3, 50, 51, 2046, 2048, 6001, 9999)
    for unit in (1, 2, 4):
        spans = find_spans(old, new, unit)
        assert all(begin % unit == end % unit == 0 for begin, end in spans)
        assert all(one[1] < two[0] for one, two in itertools.pairwise(spans))
        patched = bytearray(old)
        for begin, end in spans:
            patched[begin:end] = new[begin:end]
        assert bytes(patched) == new
        assert sum(end - begin for begin, end in spans) <= 60


@pytest.mark.parametrize("unit", [1, 2, 4])
def test_planes_are_joined_again(unit):
    values = noise(4000)
    assert join_planes(split_planes(values, unit), unit) == values


def pythons() -> list[str]:
    """Return the interpreters of this machine."""
    found = glob.glob("/root/.pyenv/versions/3*/bin/python") + glob.glob("/opt/python/*/bin/python")
    return sorted(path for path in found if os.access(path, os.X_OK)) or [sys.executable]


FAR_END = """
import struct, sys, time
from xsshpy.remote.frames import Frame, FrameKind, FrameReader, FrameWriter, TO_AGENT
from xsshpy.remote.images import ImageEncoder
from xsshpy.remote.pace import Pace
from xsshpy.remote import payloads
from xsshpy.remote.xmessages import ByteOrder, NEED_DATA

reader, writer = FrameReader(TO_AGENT), FrameWriter(time.process_time)
encoder, pace = ImageEncoder(ByteOrder.LITTLE), Pace(time.time)
reader.receive_data(sys.stdin.buffer.read())
while True:
    frame = reader.next_event()
    if frame is NEED_DATA:
        break
    image = Frame(FrameKind.IMAGE, 1, encoder.encode(frame.payload))
    for pieces in writer.encode([image]):
        pace.sent(len(pieces))
        pace.confirmed(len(pieces))
        sys.stdout.buffer.write(pieces)
"""


@pytest.mark.parametrize("python", pythons())
def test_other_end_may_have_any_python(python: str) -> None:
    from xsshpy.remote.frames import TO_LOCAL, Frame, FrameKind, FrameReader, FrameWriter

    requests = [strips(line_plot(step, 320, 96), LITTLE, 320)[0] for step in range(3)]
    frames = [Frame(FrameKind.PRIME, 0, request) for request in requests]
    writer = FrameWriter(lambda: 0.0)
    sent = b"".join(b"".join(writer.encode([frame])) for frame in frames)
    root = str(Path(images.__file__).parents[2])
    done = subprocess.run(
        [python, "-B", "-c", FAR_END],
        input=sent,
        capture_output=True,
        timeout=60,
        cwd=root,
        env={"PYTHONPATH": root, "PATH": os.defpath},
        check=False,
    )
    assert done.stderr == b""
    reader, decoder, found = FrameReader(TO_LOCAL), ImageDecoder(), []
    reader.receive_data(done.stdout)
    while isinstance(event := reader.next_event(), Frame):
        found.append(decoder.decode(event.payload))
    assert found == requests


def test_the_other_host_may_have_python_3_6():
    tree = ast.parse(inspect.getsource(images), feature_version=(3, 6))
    imported = {
        name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    assert imported <= {"re", "struct", "zlib"}


MEGABYTE = 1_000_000
FAST = 1 / 300e6


def passed_of(choice: ImageChoice, megabytes: int, rate: float | None, byte_time: float) -> int:
    """Return how many of so many images of a megabyte pass as they are; none is learned from."""
    return sum(not choice.decide(MEGABYTE, rate, byte_time) for _ in range(megabytes))


def test_a_slow_link_always_gets_differences():
    choice = ImageChoice()
    choice.learn(MEGABYTE, bytes((AGAIN,)) * MEGABYTE, 1.0)
    for rate in (None, 1e4, 19e6):
        assert passed_of(choice, 500, rate, FAST) == 0


def test_a_fast_link_gets_what_is_quicker():
    plots = ImageChoice()
    for _ in range(50):
        plots.learn(MEGABYTE, bytes((AGAIN,)) * 20_000, MEGABYTE * 2e-9)
    assert passed_of(plots, 500, 100e6, 1 / 100e6) == 0
    noise = ImageChoice()
    for _ in range(50):
        noise.learn(MEGABYTE, bytes((AGAIN | PLANES,)) * MEGABYTE, MEGABYTE * 20e-9)
    passed = passed_of(noise, 2000, 100e6, 1 / 100e6)
    assert 1800 < passed < 2000  # some are compared, to see whether it is still so
    for _ in range(50):
        noise.learn(MEGABYTE, bytes((LIKE,)) * 20_000, MEGABYTE * 2e-9)
    assert passed_of(noise, 500, 100e6, 1 / 100e6) == 0


def test_images_seen_for_the_first_time_tell_nothing_of_differences():
    choice = ImageChoice()
    cost, ratio = choice.cost, choice.ratio
    choice.learn(MEGABYTE, bytes((FIRST | PLANES,)) * MEGABYTE, 1.0)
    assert (choice.cost, choice.ratio) == (cost, ratio)


@pytest.mark.parametrize("size", [(0, 1), (1, 0)])
def test_an_image_of_no_size_has_no_pixels(size: tuple[int, int]) -> None:
    head = struct.pack("<BBHIIHHhhBBH", 72, 2, 6, 1, 2, *size, 0, 0, 0, 24, 0)
    assert find_unit(head, 4, ByteOrder.LITTLE) == 1
