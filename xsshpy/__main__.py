"""The program's entry: ``xssh`` and ``python -m xsshpy``. Nothing slow is imported here."""

from __future__ import annotations

import os
import sys

from xsshpy import __version__
from xsshpy.loading import QuickEnd, pause_collection, resume_collection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from xsshpy.settings import Invocation


def main() -> None:
    """Run xssh and leave with its exit status; Ctrl-C at any moment ends without a traceback."""
    end = QuickEnd()
    pause_collection()
    try:
        restore_locale()
        status = run_command_line()
    except KeyboardInterrupt:
        import signal  # it takes 5 ms

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        status = 130
    end.status = status
    sys.exit(status)


def run_command_line() -> int:
    """Do what the process's own arguments say and return the exit status."""
    from xsshpy.errors import EXIT_FAILURE, XsshError

    try:
        invocation = parse_command_line(sys.argv[1:])
        if invocation is None:
            return 0
        if invocation.doctor:
            from xsshpy.doctor.visit import visit

            resume_collection()
            return visit(invocation, os.environ)
        if invocation.setup:
            from xsshpy.setup.visit import visit as set_up

            resume_collection()
            return set_up(invocation, os.environ)
        return run(invocation)
    except XsshError as error:
        sys.stderr.write(error.render() + "\n")
        return error.status
    except Exception as error:
        # What is raised within the run is told there; this is the event loop's own failure.
        sys.stderr.write(f"xssh: internal error: {type(error).__name__}: {error}\n")
    return EXIT_FAILURE


def run(invocation: Invocation) -> int:
    """Do what the invocation says and return the exit status. Raises LogFileError.

    ``ssh -G`` reads the configuration while the modules are loaded that need it.
    """
    from xsshpy.configuration import Reading
    from xsshpy.streams import sanitise_standard_descriptors

    sanitise_standard_descriptors()
    log = None
    if invocation.value_of("E") is not None:
        from xsshpy.preliminaries import open_log  # without it, ssh does not read anything

        log = open_log(invocation)
    reading = Reading(invocation, os.environ)
    try:
        from xsshpy.start import start

        return start(invocation, os.environ, reading, log)
    finally:
        reading.close()


def parse_command_line(arguments: Sequence[str]) -> Invocation | None:
    """Return what the user asked for, or None where the answer has been printed.

    Raises UsageError with the whole text to show.
    """
    from xsshpy.arguments import (
        BACKEND_VARIABLE,
        read_invocation,
        read_long_options,
        split_ssh_arguments,
    )

    words = split_ssh_arguments(arguments)
    options = read_long_options(words.long_options, os.environ)
    if options is not None:
        return read_invocation(words, options)
    if words.long_options == ["--version"] and not os.environ.get(BACKEND_VARIABLE):
        sys.stdout.write(f"xssh {__version__}\n")
        return None
    if words.long_options and words.long_options[0].startswith(("--completion", "--man")):
        from xsshpy.answers import answer

        if answer(words.long_options, os.environ):
            return None
    from xsshpy.cli import ask_click  # it takes 30 ms to import

    return ask_click(words)


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
