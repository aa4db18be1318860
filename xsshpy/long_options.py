"""xssh's own options, as `--help`, the completions and the manual name them: one table.

ssh's are in :mod:`arguments`, which every start reads; this one only those who ask need. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

SHELLS = ("bash", "zsh", "fish")
"""Those for which there are completions."""

LONG_OPTIONS: Mapping[str, tuple[str, str]] = {
    "script": ("FILE", "run a local Python file on the remote host; it stays here"),
    "python": ("CMD", "interpreter for --script (default: python3, then python)"),
    "backend": (
        "NAME",
        "matplotlib backend where a display is granted (default: TkAgg); none: leave it alone",
    ),
    "x11": (
        "WAY",
        "how X11 is carried: auto (default), agent (quick over a distance; needs python3 there), "
        "native (the server's own), off",
    ),
    "share": (
        "TIME",
        "share one connection among runs, until nobody has used it for so long; yes: 10 minutes; "
        "no: unless ssh_config says so (default: yes)",
    ),
    "stats": ("", "say at the end what each X client did"),
    "doctor": ("", "find out what is wrong: here, or with a host the whole way"),
    "setup": ("", "bring a server to what windows by --x11 native and plots need"),
    "yes": ("", "--setup: ask nothing"),
    "dry-run": ("", "--setup: only show what would be done"),
    "undo": ("", "--setup: take back what it did there"),
    "json": ("", "what --doctor finds, as JSON"),
    "completion": ("SHELL", "print what completes command lines in bash, zsh or fish, and exit"),
    "man": ("", "show the manual and exit"),
    "version": ("", "show the version and exit"),
    "help": ("", "show this text and exit"),
}
"""Name: what its value is called ("" where it takes none), and what it does."""
