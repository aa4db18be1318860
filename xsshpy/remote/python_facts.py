"""What a Python on the other host has for plots: run there by the doctor, with ``python -c``.

Its arguments are a nonce and, where one is to be run, the path of a script. It prints one line,
``xssh-doctor NONCE`` and a JSON object:

- version, executable, platform
- matplotlib: its version, or null and matplotlib_error
- backend: what matplotlib would take (``auto``: it looks for one itself)
- backend_from: what decides about it
- tk: the version of Tk, or null and tk_error; tcl_error: why Tcl does not start
- libraries: files that LD_LIBRARY_PATH, or this Python's own folder, puts before the system's X and
  Tk
- qt: the names of the Qt packages that are there
- base: the folder that this Python lives in, behind a virtual environment; may_write: whether we
  may write there; conda: the conda program that keeps it, or null
- backend_error: why that backend can't be imported; qt_error: why Qt's X11 part can't be loaded
- forced: lines of the script, and of modules that it imports, which choose a backend themselves, as
  [number, text, whether under a condition, path]
- environment: variables that decide about any of this
- pace: seconds of the processor that a small task took, which is always the same

It must compile on Python 2.7, since an old interpreter is a finding too.
"""

import json
import os
import re
import sys
import time

LINES = 20000
MODULES = 40
VARIABLES = ("MPLBACKEND", "QT_QPA_PLATFORM", "LD_LIBRARY_PATH", "TCL_LIBRARY", "DISPLAY")
SHOWN = 6
SHADOWING = re.compile(r"lib(X\w+|xcb\S*|tcl8\S*|tk8\S*|tcl9\S*|fontconfig|freetype)\.so")
IMPORTS = re.compile(r"^(?:import|from)[ \t]+(\w+)")
FORCES = re.compile(
    r"""^[^#"']*\b(?:(?:matplotlib|mpl)\.use\s*\(|switch_backend\s*\(|rcParams\s*\[\s*["']backend["'])"""
)


def say_why(error):
    """Return an error in one line."""
    return ("%s: %s" % (type(error).__name__, error)).splitlines()[0][:300]


def look_at_matplotlib():
    """Return what concerns matplotlib."""
    facts = {"matplotlib": None, "matplotlib_error": "", "backend": "", "backend_from": ""}
    facts["backend_error"] = ""
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
    if facts["backend"] not in ("", "auto"):
        facts["backend_error"] = try_backend(facts["backend"])
    return facts


def try_backend(name):
    """Return why a backend can't be imported, or nothing."""
    module = "matplotlib.backends.backend_" + name.lower()
    if name.startswith("module://"):
        module = name[len("module://") :]
    try:
        __import__(module)
    except Exception as error:
        return say_why(error)
    return ""


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
        text = " ".join(str(error).replace("{}", "").split()).split(" This probably")[0]
        facts["tcl_error"] = ("%s: %s" % (type(error).__name__, text))[:300]
    return facts


def find_libraries():
    """Return the X and Tk libraries that are found before the system's."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    base = getattr(sys, "base_prefix", sys.prefix)
    if base not in ("/usr", "/usr/local"):
        folders.append(os.path.join(base, "lib"))
    found = []
    for folder in folders:
        try:
            names = sorted(os.listdir(folder)) if folder else []
        except OSError:
            continue
        found += [os.path.join(folder, name) for name in names if SHADOWING.match(name)]
    return found[:SHOWN]


def find_qt():
    """Return the Qt packages that could be imported."""
    found = []
    for name in ("PyQt6", "PySide6", "PyQt5", "PySide2"):
        for folder in sys.path:
            if folder and os.path.isdir(os.path.join(folder, name)):
                found.append(name)
                break
    return found


def try_qt_platform(packages):
    """Return why Qt's plugin for X11 can't be loaded, or nothing."""
    import ctypes

    for name in packages[:1]:
        for folder in sys.path:
            for inner in ("Qt6", "Qt5", "Qt"):
                path = os.path.join(folder, name, inner, "plugins", "platforms", "libqxcb.so")
                if folder and os.path.isfile(path):
                    try:
                        ctypes.CDLL(path)
                    except OSError as error:
                        return say_why(error)
                    return ""
    return ""


def find_home():
    """Return where this Python lives, and who keeps it."""
    base = getattr(sys, "base_prefix", sys.prefix)
    facts = {"base": base, "may_write": os.access(base, os.W_OK), "conda": None}
    if os.path.isdir(os.path.join(base, "conda-meta")):
        names = ("conda", "mamba", "micromamba")
        folders = [os.path.join(base, "bin"), os.path.join(base, "../../bin")]
        folders += [os.path.expanduser("~/.local/bin"), os.path.expanduser("~/bin")]
        places = [os.path.join(folder, name) for folder in folders for name in names]
        places[:0] = [os.environ.get("CONDA_EXE", ""), os.environ.get("MAMBA_EXE", "")]
        for place in places:
            if os.access(place, os.X_OK):
                facts["conda"] = os.path.normpath(place)
                break
        else:
            facts["conda"] = "conda"
    return facts


def look_at_script(path):
    """Return where a script would be, and why it can't be read, or nothing."""
    path = os.path.abspath(os.path.expanduser(path))
    try:
        with open(path, "rb") as file:
            file.read(1)
    except (IOError, OSError) as error:
        return {"path": path, "error": error.strerror or say_why(error)}
    return {"path": path, "error": ""}


def find_forced(path):
    """Return the lines of a script, and of what it imports, that choose a backend themselves."""
    path = os.path.expanduser(path)
    found, names = scan(path)
    folders = list(sys.path)
    folders.insert(0, os.path.dirname(path) or ".")
    for name in names[:MODULES]:
        if name in ("matplotlib", "mpl_toolkits", "pylab") or name in sys.builtin_module_names:
            continue
        for folder in folders:
            paths = [os.path.join(folder, name, "__init__.py"), os.path.join(folder, name + ".py")]
            paths = [each for each in paths if os.path.isfile(each)]
            if paths:
                lines, _ = scan(paths[0])
                found += [line for line in lines if not line[2]]  # what an import carries out
                break
    return found


def scan(path):
    """Return the lines of a file that choose a backend, and the names that it imports."""
    found, names = [], []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8", "replace")
                imported = IMPORTS.match(text)
                if imported:
                    names.append(str(imported.group(1)))
                if FORCES.match(text):
                    found.append([number, text.strip()[:200], text[:1] in " \t", path])
                if number >= LINES:
                    break
    except (IOError, OSError):
        pass
    return found, names


def measure_pace():
    """Return the least time of a task that is like a plot's: objects, dictionaries, short texts."""
    clock = getattr(time, "process_time", None) or time.clock
    least = 1e9
    for _ in range(3):
        started = clock()
        table, total = {}, 0
        for number in range(20000):
            table[number & 255] = total
            total += len(str(number))
        least = min(least, clock() - started)
    return least


def main():
    """Print the line."""
    facts = {
        "version": ".".join(str(number) for number in sys.version_info[:3]),
        "executable": sys.executable,
        "platform": sys.platform,
        "qt": find_qt(),
        "qt_error": "",
        "libraries": find_libraries(),
        "environment": dict((name, os.environ.get(name, "")[:500]) for name in VARIABLES),
        "pace": measure_pace(),
        "script": look_at_script(sys.argv[2]) if len(sys.argv) > 2 else {},
        "forced": find_forced(sys.argv[2]) if len(sys.argv) > 2 else [],
    }
    facts.update(find_home())
    facts.update(look_at_tk())
    facts.update(look_at_matplotlib())
    if facts["backend"].lower().startswith("qt"):
        facts["qt_error"] = try_qt_platform(facts["qt"])
    line = "\nxssh-doctor %s %s\n" % (sys.argv[1], json.dumps(facts))
    os.write(1, line.encode("ascii"))


if __name__ == "__main__":
    main()
