"""PutImage requests of programs that animate, as bytes."""

from __future__ import annotations

import functools
import math
import random
import struct

from xsshpy.remote.xmessages import ByteOrder

WHITE = b"\xff\xff\xff\0"


def put_image(
    order: ByteOrder,
    data: bytes,
    width: int,
    height: int,
    *,
    drawable: int = 0x200001,
    context: int = 0x200002,
    y: int = 0,
    depth: int = 24,
    form: int = 2,
    long: bool = False,
    unused: bytes = b"\0\0",
) -> bytes:
    """Return a PutImage request; ``data`` is padded with bytes that are not 0."""
    data += b"\xa5" * (-len(data) % 4)
    units = 6 + len(data) // 4
    mark = order.value
    if long:
        head = struct.pack(mark + "BBHI", 72, form, 0, units + 1)
    else:
        head = struct.pack(mark + "BBH", 72, form, units)
    body = struct.pack(mark + "IIHHhhBB", drawable, context, width, height, 0, y, 0, depth)
    return head + body + unused + data


@functools.cache
def line_plot(step: int, width: int = 640, height: int = 480) -> bytes:
    """Return a sine curve with soft edges on white, in a frame, as pixels of 4 bytes."""
    picture = bytearray(WHITE * (width * height))

    def point(x: int, y: int, pixel: bytes) -> None:
        picture[(y * width + x) * 4 : (y * width + x) * 4 + 4] = pixel

    for x in range(40, width - 40):
        for y in (40, height - 40):
            point(x, y, bytes(4))
    for x10 in range(400, (width - 40) * 10):
        column = x10 / 10
        angle = (column - 40) * 10 / (width - 80) + step / 10
        middle = height / 2 + (height / 2 - 60) * math.sin(angle)
        for y in range(int(middle) - 2, int(middle) + 4):
            cover = max(0.0, min(1.0, 1.6 - abs(y - middle)))
            old = picture[(y * width + int(column)) * 4]
            blue = 255 - int(75 * cover)
            if blue < old:
                shade = bytes((blue, 255 - int(136 * cover), 255 - int(224 * cover), 0))
                point(int(column), y, shade)
    return bytes(picture)


def strips(picture: bytes, order: ByteOrder, width: int = 640) -> list[bytes]:
    """Return the requests that Tk makes of a picture: what fits into one, and single rows."""
    stride, requests, y = width * 4, [], 0
    rows = len(picture) // stride
    while y < rows:
        for most in (102, 1):
            count = min(most, rows - y)
            if count:
                data = picture[y * stride : (y + count) * stride]
                requests.append(put_image(order, data, width, count, y=y))
                y += count
    return requests


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)
