"""Windows as a person sees them: found by title, looked at, closed by their close button.

It speaks to the X server with python-xlib, so no window tool has to be installed.
"""

from __future__ import annotations

import os
import re
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from Xlib import X
from Xlib.display import Display
from Xlib.error import XError
from Xlib.protocol.event import ClientMessage

from tests.support.xvfb import Xvfb

PLANE_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Picture:
    """Pixels of a window: ``rgb`` holds three bytes for each, rows from the top."""

    width: int
    height: int
    rgb: bytes

    def pixel(self, x: int, y: int) -> tuple[int, int, int]:
        """Return the colour at a place, counted from the upper left."""
        start = 3 * (y * self.width + x)
        red, green, blue = self.rgb[start : start + 3]
        return red, green, blue

    def count_colours(self) -> int:
        """Return how many different colours there are."""
        return len(set(zip(*(self.rgb[channel::3] for channel in range(3)), strict=True)))

    def count_differences(self, other: Picture, tolerance: int = 0) -> int:
        """Return how many pixels differ by more than ``tolerance`` in a channel.

        Pictures of different sizes differ in every pixel.
        """
        if (self.width, self.height) != (other.width, other.height):
            return max(self.width * self.height, other.width * other.height)
        stride = 3 * self.width
        differences = 0
        for start in range(0, len(self.rgb), stride):
            mine, theirs = (each.rgb[start : start + stride] for each in (self, other))
            if mine != theirs:
                pairs = enumerate(zip(mine, theirs, strict=True))
                differences += len({at // 3 for at, (a, b) in pairs if abs(a - b) > tolerance})
        return differences

    def save_png(self, path: str | os.PathLike[str]) -> None:
        """Write the picture as a PNG file."""
        stride = 3 * self.width
        rows = b"".join(
            b"\0" + self.rgb[start : start + stride] for start in range(0, len(self.rgb), stride)
        )
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        with open(path, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n")
            for kind, data in (
                (b"IHDR", header),
                (b"IDAT", zlib.compress(rows, 9)),
                (b"IEND", b""),
            ):
                file.write(struct.pack(">I", len(data)) + kind + data)
                file.write(struct.pack(">I", zlib.crc32(kind + data)))


class Screen:
    """A connection to an X server that watches its windows; ends with ``close()``.

    ``authority`` is an Xauthority file without FamilyWild entries (python-xlib refuses those).
    Windows are python-xlib's own objects.
    """

    def __init__(self, display: str, authority: str | None = None) -> None:
        with _variable("XAUTHORITY", authority):
            self._display: Any = Display(display)
        self._root: Any = self._display.screen().root

    @classmethod
    def of(cls, xvfb: Xvfb) -> Screen:
        """Watch a server of our own."""
        return cls(xvfb.display, xvfb.authority)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._display.close()

    def find_window(self, title: str, timeout: float = 20.0) -> Any:
        """Wait for a visible window whose whole title matches a regular expression.

        AssertionError names the titles that were there instead.
        """
        expression = re.compile(title)
        deadline = time.monotonic() + timeout
        while True:
            windows = list(self._windows(self._root))
            for window, name in windows:
                if expression.fullmatch(name) and self._is_visible(window):
                    return window
            if time.monotonic() > deadline:
                there = sorted({name for _, name in windows if name})
                raise AssertionError(f"no window {title!r} within {timeout:g} s; there are {there}")
            time.sleep(0.03)

    def titles(self) -> list[str]:
        """Return the titles of the visible windows."""
        windows = self._windows(self._root)
        return [name for window, name in windows if name and self._is_visible(window)]

    def _windows(self, parent: Any) -> Iterator[tuple[Any, str]]:
        try:
            children = parent.query_tree().children
        except XError:
            return  # it was closed while we looked
        for child in children:
            yield child, self._title(child)
            yield from self._windows(child)

    def _title(self, window: Any) -> str:
        for name in ("_NET_WM_NAME", "WM_NAME"):
            try:
                atom = self._display.intern_atom(name)
                found = window.get_full_property(atom, X.AnyPropertyType)
            except XError:
                return ""
            if found is not None and found.value:
                value = found.value
                return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return ""

    @staticmethod
    def _is_visible(window: Any) -> bool:
        try:
            return bool(window.get_attributes().map_state == X.IsViewable)
        except XError:
            return False

    @property
    def width(self) -> int:
        """The screen's width (pixels)."""
        return int(self._display.screen().width_in_pixels)

    @property
    def height(self) -> int:
        """The screen's height (pixels)."""
        return int(self._display.screen().height_in_pixels)

    def move(self, window: Any, x: int, y: int) -> None:
        """Put a window somewhere else, and above the others."""
        window.configure(x=x, y=y, stack_mode=X.Above)
        self._display.sync()

    def exists(self, window: Any) -> bool:
        """Tell whether a window is still there."""
        try:
            window.get_attributes()
        except XError:
            return False
        return True

    def wait_until_gone(self, window: Any, timeout: float = 10.0) -> None:
        """Wait until a window was destroyed."""
        deadline = time.monotonic() + timeout
        while self.exists(window):
            assert time.monotonic() < deadline, f"the window is still there after {timeout:g} s"
            time.sleep(0.03)

    def picture(self, window: Any) -> Picture:
        """Return what a window shows now."""
        geometry = window.get_geometry()
        width, height = geometry.width, geometry.height
        image = window.get_image(0, 0, width, height, X.ZPixmap, PLANE_MASK)
        data = image.data if isinstance(image.data, bytes) else image.data.encode("latin-1")
        pixel = len(data) // (width * height)
        if pixel != 4:
            raise AssertionError(f"a screen of depth {image.depth} cannot be read")
        rgb = bytearray(3 * width * height)
        rgb[0::3], rgb[1::3], rgb[2::3] = data[2::4], data[1::4], data[0::4]
        return Picture(width, height, bytes(rgb))

    def settled_picture(
        self,
        window: Any,
        timeout: float = 20.0,
        colours: int = 8,
        wanted: Picture | None = None,
    ) -> Picture:
        """Wait until a window is drawn (some colours) and no longer changes; return its picture.

        Where a picture is ``wanted``, it is waited for, and another one returned only after the
        time is over.
        """
        deadline = time.monotonic() + timeout
        last = self.picture(window)
        while True:
            if last == wanted:
                return last
            time.sleep(0.25)
            now = self.picture(window)
            late = wanted is None or time.monotonic() > deadline
            if late and now == last and now.count_colours() >= colours:
                return now
            assert time.monotonic() < deadline, (
                f"the window was not drawn within {timeout:g} s: {now.count_colours()} colours"
            )
            last = now

    def close_window(self, window: Any, timeout: float = 10.0) -> None:
        """Ask a window's program to close it, as its close button does (ICCCM 4.2.8.1).

        A window may be seen before its program says that it listens to this.
        """
        protocols = self._display.intern_atom("WM_PROTOCOLS")
        delete = self._display.intern_atom("WM_DELETE_WINDOW")
        deadline = time.monotonic() + timeout
        while delete not in (window.get_wm_protocols() or ()):
            assert time.monotonic() < deadline, "the program takes no wish to close its window"
            time.sleep(0.03)
        message = ClientMessage(
            window=window, client_type=protocols, data=(32, [delete, X.CurrentTime, 0, 0, 0])
        )
        window.send_event(message, event_mask=X.NoEventMask)
        self._display.sync()


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable for the moment that python-xlib reads it."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if value is not None:
            os.environ.pop(name, None)
            if before is not None:
                os.environ[name] = before
