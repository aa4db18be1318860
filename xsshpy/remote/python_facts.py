"""What a Python on the other host has for plots: run there by the doctor, with ``python -c``.

Its arguments are a nonce and, where one is to be run, the path of a script. It prints one line,
``xssh-doctor NONCE`` and a JSON object:

- version, executable, platform
- matplotlib: its version, or null and matplotlib_error
- backend: what matplotlib would take (``auto``: it looks for one itself)
- backend_from: what decides about it
- tk: the version of Tk, or null and tk_error; tcl_error: why Tcl does not start
- qt: the names of the Qt packages that are there
- forced: lines of the script that choose a backend themselves, as [number, text]

It must compile on Python 2.7, since an old interpreter is a finding too.
"""

import json
import os
import re
import sys

LINES = 20000
FORCES = re.compile(
    r"""^[^#]*\b(?:(?:matplotlib|mpl)\.use\s*\(|switch_backend\s*\(|rcParams\s*\[\s*["']backend["'])"""
)


def say_why(error):
    """Return an error in one line."""
    return ("%s: %s" % (type(error).__name__, error)).splitlines()[0][:300]


def look_at_matplotlib():
    """Return what concerns matplotlib."""
    facts = {"matplotlib": None, "matplotlib_error": "", "backend": "", "backend_from": ""}
    try:
        import matplotlib
    except Exception as error:
        facts["matplotlib_error"] = say_why(error)
        return facts
    facts["matplotlib"] = str(matplotlib.__version__)
    try:
        chosen = dict.__getitem__(matplotlib.rcParams, "backend")
        facts["backend"] = str(chosen) if isinstance(chosen, str) else "auto"
        facts["backend_from"] = find_decider(matplotlib.matplotlib_fname())
    except Exception as error:
        facts["matplotlib_error"] = say_why(error)
    return facts


def find_decider(path):
    """Return what decides about the backend: the environment, a matplotlibrc, or nobody."""
    if os.environ.get("MPLBACKEND"):
        return "MPLBACKEND"
    with open(path) as file:
        for line in file:
            if re.match(r"\s*backend\s*:\s*\S", line):
                return path
    return "matplotlib itself"


def look_at_tk():
    """Return what concerns Tk: the module, and whether its interpreter starts."""
    facts = {"tk": None, "tk_error": "", "tcl_error": ""}
    try:
        import _tkinter

        facts["tk"] = str(_tkinter.TK_VERSION)
    except Exception as error:
        facts["tk_error"] = say_why(error)
        return facts
    try:
        if sys.version_info[0] > 2:
            import tkinter
        else:
            import Tkinter as tkinter
        tkinter.Tcl().eval("info library")
    except Exception as error:
        facts["tcl_error"] = say_why(error)
    return facts


def find_qt():
    """Return the Qt packages that could be imported."""
    found = []
    for name in ("PyQt6", "PySide6", "PyQt5", "PySide2"):
        for folder in sys.path:
            if folder and os.path.isdir(os.path.join(folder, name)):
                found.append(name)
                break
    return found


def find_forced(path):
    """Return the lines of a script that choose a backend themselves."""
    found = []
    try:
        with open(os.path.expanduser(path), "rb") as file:
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8", "replace")
                if FORCES.match(text):
                    found.append([number, text.strip()[:200]])
                if number >= LINES:
                    break
    except (IOError, OSError):
        pass
    return found


def main():
    """Print the line."""
    facts = {
        "version": ".".join(str(number) for number in sys.version_info[:3]),
        "executable": sys.executable,
        "platform": sys.platform,
        "qt": find_qt(),
        "forced": find_forced(sys.argv[2]) if len(sys.argv) > 2 else [],
    }
    facts.update(look_at_tk())
    facts.update(look_at_matplotlib())
    line = "\nxssh-doctor %s %s\n" % (sys.argv[1], json.dumps(facts))
    os.write(1, line.encode("ascii"))


main()
