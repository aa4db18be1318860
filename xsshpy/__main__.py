"""The program's entry: ``xssh`` and ``python -m xsshpy``. Nothing slow is imported here."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run xssh and leave with its exit status; Ctrl-C at any moment ends without a traceback."""
    try:
        restore_locale()
        from xsshpy.cli import main as run_command_line

        status = run_command_line()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        status = 130
    sys.exit(status)


def restore_locale() -> None:
    """Take back the LC_CTYPE that Python put into the environment of a C locale (PEP 538).

    SendEnv would send it, and every program that is started here would inherit it. Only Linux
    shows what the environment was.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            first = file.read().split(b"\0")
    except OSError:
        return
    given = [line.partition(b"=")[2] for line in first if line.startswith(b"LC_CTYPE=")]
    if given:
        os.environb[b"LC_CTYPE"] = given[0]
    else:
        os.environ.pop("LC_CTYPE", None)


if __name__ == "__main__":
    main()
