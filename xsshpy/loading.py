"""How a start is kept short: what is imported is garbage to nobody, TLS is not needed, and a
process that ends has no need to take itself apart.

Measured on the way to a connection: the collector, which looks through all that was imported again
and again, 50 ms; the ssl module, which asyncio takes where there is one, 10 ms; and taking 300
modules apart at the end, 20 ms.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys


def pause_collection() -> None:
    """Look for no garbage while modules are imported."""
    gc.disable()


def resume_collection() -> None:
    """Look for garbage again, but not among what was imported."""
    gc.freeze()
    gc.enable()


def import_asyncio() -> None:
    """Import asyncio as where Python has no ssl module; SSH brings its own cryptography.

    Who imports ssl itself, before or after, gets it.
    """
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]  # the import system's sign for it
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]


class QuickEnd:
    """The end of the process, after everything that runs at exit, and with all output written.

    Made before anybody else registers something for the exit. Where somebody did (a tool that
    measures coverage), the process ends as any other.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        """The exit status; None: an exception that nobody expected, which Python shows."""
        count = getattr(atexit, "_ncallbacks", None)
        if count is not None and count() == 0:
            atexit.register(self._end)

    def _end(self) -> None:
        if self.status is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):
            return  # Python has its own way to say so
        os._exit(self.status & 0xFF)
