"""The program's entry: ``xssh`` and ``python -m xsshpy``. Nothing slow is imported here."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run xssh and leave with its exit status; Ctrl-C at any moment ends without a traceback."""
    try:
        from xsshpy.cli import main as run_command_line

        status = run_command_line()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
