"""``--completion`` and ``--man``: what is answered with a text, and without click."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from xsshpy.long_options import SHELLS


def answer(long_options: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Answer a command line that asks for one of them and nothing else; say whether it did."""
    name, joined, value = long_options[0].partition("=")
    if name == "--man" and not joined and len(long_options) == 1:
        show_manual(environ)
        return True
    values = [value] * bool(joined) + list(long_options[1:])
    if name == "--completion" and len(values) == 1 and values[0] in SHELLS:
        print_completion(values[0])
        return True
    return False


def print_completion(shell: str) -> None:
    """Print what completes command lines in one of SHELLS."""
    from xsshpy.completion import completion_for

    sys.stdout.write(completion_for(shell))


def show_manual(environ: Mapping[str, str]) -> None:
    """Become the program that shows the manual, or print it. Raises UsageError without one."""
    from xsshpy.manual import show

    sys.stdout.flush()
    show(environ)
