"""What a Python that is started runs first: stand-ins for hardware, packages that are missing."""

from __future__ import annotations

import os
from pathlib import Path


def hide_module(name: str, directory: Path, variables: dict[str, str]) -> None:
    """Let the programs that are started find no module of this name."""
    text = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {name!r}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    add_start_file(directory, variables, text)


def add_start_file(directory: Path, variables: dict[str, str], text: str) -> None:
    """Have Python run this at its start."""
    (directory / "sitecustomize.py").write_text(text)
    paths = [str(directory), os.getcwd(), os.environ.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
