"""Window managers for X servers of tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import wait_until
from tests.support.sessions import started
from tests.support.tools import require_tool
from tests.support.windows import Screen
from tests.support.xvfb import Xvfb


@contextmanager
def window_manager(name: str, xvfb: Xvfb, home: Path) -> Iterator[None]:
    """Run a window manager on the X server; none for an empty name."""
    if not name:
        yield
        return
    environment = {**xvfb.environment(), "HOME": str(home), "PATH": os.environ["PATH"]}
    with started([require_tool(name)], environment, home), Screen.of(xvfb) as screen:
        display = screen._display
        ready = display.intern_atom("_NET_SUPPORTING_WM_CHECK")
        root = display.screen().root
        wait_until(lambda: root.get_full_property(ready, 0) is not None, what=name)
        yield
