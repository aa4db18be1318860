"""Running a local Python file on the remote host (``--script``). Pure but for reading the file.

The remote command starts an interpreter with a loader in its arguments (remote/script.py); the
file itself and its arguments follow on stdin. So nothing has to be quoted, nothing is written to
the remote disk, and the script's own stdin begins right behind.
"""

from __future__ import annotations

import base64
import os
import termios
import zlib
from collections.abc import Mapping, Sequence

from xsshpy.errors import UsageError

SCRIPT_LIMIT = 64 << 20
"""Bytes of a script; larger files are data, not programs."""

_RAW_OPCODES = {36: 0, 38: 0, 50: 0, 51: 0, 53: 0, 54: 0, 55: 0, 56: 0, 59: 0}
"""ICRNL, IXON, ISIG, ICANON and the echoes, IEXTEN off (RFC 4254 §8): while the script arrives."""

_FLAGS_BY_OPCODE = {
    36: (0, "ICRNL"),
    38: (0, "IXON"),
    50: (3, "ISIG"),
    51: (3, "ICANON"),
    53: (3, "ECHO"),
    54: (3, "ECHOE"),
    55: (3, "ECHOK"),
    56: (3, "ECHONL"),
    59: (3, "IEXTEN"),
}


def read_script(path: str) -> bytes:
    """Read the local file. Raises UsageError with what is wrong with it."""
    try:
        with open(path, "rb") as file:
            source = file.read(SCRIPT_LIMIT + 1)
    except OSError as error:
        raise UsageError(
            f"xssh: --script {path}: {error.strerror}",
            remedy="give the path of a Python file on this machine",
        ) from None
    if len(source) > SCRIPT_LIMIT:
        raise UsageError(f"xssh: --script {path}: larger than {SCRIPT_LIMIT >> 20} MiB")
    return source


def loader_command(python: str | None) -> str:
    """Return the remote command line; it reads the same in every common shell."""
    from importlib import resources  # a plan is made at every start, seldom for a script

    source = resources.files("xsshpy.remote").joinpath("script.py").read_bytes()
    packed = base64.b64encode(zlib.compress(source, 9)).decode("ascii")
    loader = f'import base64,zlib;exec(zlib.decompress(base64.b64decode("{packed}")))'
    if python is not None:
        return f"{python} -c '{loader}'"
    search = (
        "for p in python3 python; do "
        'command -v $p >/dev/null 2>&1 && exec $p -c "$0"; done; '
        'echo "xssh: neither python3 nor python is on the remote PATH" >&2; '
        'echo "  try: --python with the path of the interpreter" >&2; exit 127'
    )
    return f"sh -c '{search}' '{loader}'"


def encode_script(
    path: str,
    source: bytes,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    modes: Mapping[int, int] | None,
) -> bytes:
    """Return what is sent before the script's own stdin.

    ``modes`` are the terminal modes that the script is to find, None without a pty.
    """
    terminal: list[list[str]] = [[], [], [], []]
    for opcode, (index, name) in _FLAGS_BY_OPCODE.items():
        if modes is not None and modes.get(opcode, 1) and hasattr(termios, name):
            terminal[index].append(name)
    header = {
        "name": os.path.basename(path),
        "arguments": list(arguments),
        "environment": dict(variables),
        "terminal": terminal if modes is not None else None,
    }
    import json

    payload = json.dumps(header).encode("ascii") + b"\n" + source
    encoded = base64.b64encode(zlib.compress(payload, 6))
    return b"%d\n" % len(encoded) + encoded


def raw_modes(modes: Mapping[int, int]) -> dict[int, int]:
    """Return terminal modes under which the script arrives unchanged and unseen."""
    return {**modes, **_RAW_OPCODES}
