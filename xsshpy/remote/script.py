"""Runs a Python file that arrives on stdin as if it lay in the current directory.

This source travels inside the command line and is carried out by ``python -c``. The file comes on
stdin, before everything that is the script's own input: a line with a length, then that many
characters of base64. Exactly that much is read, byte by exact byte, so the script finds its stdin
untouched. Nothing is written to the disk. Python 3.6 and later; an older one says so, therefore
this file must at least compile on Python 2.7.
"""

import os
import sys

OLDEST = (3, 6)


def read_exactly(size):
    """Return ``size`` bytes of stdin, unbuffered; fewer only at its end."""
    pieces = []
    while size:
        piece = os.read(0, min(size, 65536))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def receive():
    """Return the header (a dict) and the script's source (bytes)."""
    import base64
    import json
    import zlib

    digits = b""
    while not digits.endswith(b"\n") and len(digits) < 20:
        digit = os.read(0, 1)
        if not digit:
            sys.exit("xssh: the connection ended before the script arrived")
        digits += digit
    encoded = read_exactly(int(digits))
    payload = zlib.decompress(base64.b64decode(encoded))
    head, source = payload.split(b"\n", 1)
    return json.loads(head.decode("ascii")), source


def restore_terminal(flags):
    """Give the terminal the modes it was asked to have; it was raw while the script arrived."""
    import termios

    modes = termios.tcgetattr(0)
    for index, names in enumerate(flags):
        for name in names:
            modes[index] |= getattr(termios, name, 0)
    termios.tcsetattr(0, termios.TCSANOW, modes)


def run(header, source):
    """Run the script in ``__main__``; tracebacks show its name and its lines, not this loader."""
    # The script's namespace is this loader's own, and is emptied for it: what is needed
    # afterwards has to be local.
    import linecache
    import os
    import sys
    import traceback

    name = header["name"]
    os.environ.update(header["environment"])
    sys.argv[:] = [name] + header["arguments"]
    sys.path[0] = os.getcwd()
    namespace = sys.modules["__main__"].__dict__
    for own in [key for key in namespace if not key.startswith("__")]:
        del namespace[own]
    namespace.update(__file__=name, __doc__=None)
    text = source.decode("utf-8", "replace")
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    try:
        exec(compile(source, name, "exec", 0, True), namespace)
    except SystemExit:
        raise
    except BaseException:
        # Python itself shows it and ends as it always does, with a signal after Ctrl-C.
        hook = sys.excepthook

        def show(kind, value, trace):  # type: ignore[no-untyped-def]
            while trace is not None and trace.tb_frame.f_code.co_filename == "<string>":
                trace = trace.tb_next
            value = value.with_traceback(trace)
            if hook is sys.__excepthook__:  # it would look for the source on the disk
                traceback.print_exception(kind, value, trace)
            else:
                hook(kind, value, trace)

        sys.excepthook = show
        raise


def main():
    """Receive the script and run it."""
    if sys.version_info < OLDEST:
        sys.stderr.write(
            "xssh: --script needs Python 3.6 or later on the remote host, and %s is %s\n"
            "  try: --python with the name or path of a newer one\n"
            % (sys.executable, sys.version.split()[0])
        )
        sys.exit(255)
    header, source = receive()
    if header["terminal"]:
        restore_terminal(header["terminal"])
    run(header, source)


main()
