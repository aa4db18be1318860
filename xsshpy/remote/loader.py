"""Unpacks the agent's modules and starts them: the first to run on the other host.

This source travels inside the command line and is carried out by ``python -c``; its arguments are a
nonce and the modules, compressed, in base64, in pieces; or ``stdin=`` and their size, where they
come on stdin behind the hello. It says on stdout, in one line, what it found. Nothing is written to
the disk, and what else comes on stdin is left alone. An interpreter that is too old says
so and leaves the field to the next candidate, therefore this file must compile on Python 2.7. The
status is 0 however it ends, once it has said hello: any other means that this
interpreter did not get so far, and the next one is tried.
"""

import os
import sys

OLDEST = (3, 6)
TOO_OLD = 65


def say(stage, **facts):
    """Write one stage line; values never hold spaces or line ends."""
    words = ["xssh-agent", sys.argv[1], stage]
    for name in sorted(facts):
        value = "".join(letter if " " < letter < "\x7f" else "?" for letter in str(facts[name]))
        words.append(name + "=" + value)
    # A line of its own, whatever a start file wrote before without ending its line.
    os.write(1, ("\n" + " ".join(words) + "\n").encode("ascii"))


def receive():
    """Return the modules as pairs of name and source, in the order in which they are to be run."""
    import base64
    import zlib

    packed = "".join(sys.argv[2:])
    if packed.startswith("stdin="):
        packed = read_stdin(int(packed[6:]))
    text = zlib.decompress(base64.b64decode(packed))
    modules = []
    while text:
        head, text = text.split(b"\n", 1)
        name, length = head.split()
        modules.append((name.decode("ascii"), text[: int(length)]))
        text = text[int(length) :]
    return modules


def read_stdin(left):
    """Return as many bytes of stdin, and not one more."""
    pieces = []
    while left:
        piece = os.read(0, left)
        if not piece:
            raise EOFError("stdin ends before the modules do")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def load(modules):
    """Make a package of the modules, in memory alone."""
    package = type(sys)("xssh_agent")
    package.__path__ = []
    sys.modules["xssh_agent"] = package
    for name, source in modules:
        full = "xssh_agent." + name
        module = type(sys)(full)
        module.__package__ = "xssh_agent"
        sys.modules[full] = module
        setattr(package, name, module)
        exec(compile(source, full, "exec", 0, True), module.__dict__)


def main():
    """Say what is here, unpack the modules, and run the last of them."""
    version = ".".join(str(number) for number in sys.version_info[:3])
    if sys.version_info < OLDEST:
        say("old", python=version)
        sys.exit(TOO_OLD)
    say("hello", python=version, executable=sys.executable)
    try:
        modules = receive()
        load(modules)
        serve = sys.modules["xssh_agent." + modules[-1][0]].serve
    except Exception as error:
        say("failed", reason=type(error).__name__)
        sys.stderr.write("%s: %s\n" % (type(error).__name__, error))
        return
    try:
        serve(say)
    except Exception:
        import traceback

        traceback.print_exc()


main()
