"""The doctor's visits: what it says of a server or of this machine, as its JSON has it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.processes import run, xssh_command
from tests.support.sshd import SshServer
from tests.support.tools import skip_or_fail
from tests.support.xvfb import Xvfb

NO_MATPLOTLIB = importlib.util.find_spec("matplotlib") is None
PYTHON = sys.executable


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor said: the finding of each check by name."""

    status: int
    cause: str | None
    findings: Mapping[str, Mapping[str, object]]
    messages: str

    def verdict(self, name: str) -> object:
        return self.findings[name]["verdict"]

    def text(self, name: str) -> str:
        found = self.findings[name]
        evidence = found["evidence"]
        assert isinstance(evidence, list)
        return " ".join([*evidence, f"try: {found['remedy']}"])

    @property
    def not_well(self) -> dict[str, object]:
        """Everything but what is well or skipped."""
        verdicts = {name: found["verdict"] for name, found in self.findings.items()}
        return {name: word for name, word in verdicts.items() if word not in ("ok", "skipped")}


@dataclass
class Doctor:
    """Calls the doctor for a server, ``server``, from a HOME of its own.

    ``before``: Python that is run first; ``inside``: words that stand before the command.
    """

    home: ClientHome
    xvfb: Xvfb
    before: str = ""
    inside: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def bare(self) -> str:
        """A Python without other packages: matplotlib takes most of a visit's time."""
        stub = self.home.path.parent / "bare" / "python3"
        if not stub.exists():
            stub.parent.mkdir()
            stub.write_text(f'#!/bin/sh\nexec {PYTHON} -S "$@"\n')
            stub.chmod(0o755)
        return str(stub)

    def visit(self, *words: str) -> Diagnosis:
        argv = [
            *self.inside,
            *xssh_command(self.before),
            *self.home.arguments,
            "--doctor",
            "--json",
            *words,
        ]
        done = run(argv, env=self.home.environment(self.xvfb, **self.variables), timeout=90)
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        assert found["schema"] == 1
        by_name = {each["name"]: each for each in found["findings"]}
        return Diagnosis(done.status, found["cause"], by_name, done.stderr)


@pytest.fixture
def doctor(client_home: ClientHome, xvfb: Xvfb) -> Doctor:
    return Doctor(client_home, xvfb)


@pytest.fixture
def visit(make_sshd: Callable[..., SshServer], doctor: Doctor) -> Callable[..., Diagnosis]:
    """Return what the doctor says of a server with these options, for these words and a Python."""

    def visit(
        *words: str,
        python: str = "",
        files: Mapping[str, str] | None = None,
        ssh: str = "",
        **options: object,
    ) -> Diagnosis:
        server = make_sshd(**options)
        for name, text in (files or {}).items():
            path = server.home / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_text(text)
        doctor.home.add(server, extra=ssh)
        return doctor.visit("server", *words, python or doctor.bare)

    return visit


def without_python(found: dict[str, object]) -> dict[str, object]:
    """Leave out that the Python has no matplotlib."""
    if found.get("python.matplotlib") == "warning":
        del found["python.matplotlib"]
    return found


@contextmanager
def small_file_system(path: Path, size: str) -> Iterator[None]:
    """A file system of a few kilobytes; needs root."""
    path.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)]
    if os.getuid() or subprocess.run(argv, capture_output=True).returncode:
        skip_or_fail("needs root and mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def in_namespace(*options: str, before: str = "true") -> tuple[str, ...]:
    """Return the words that start a server in namespaces of its own; needs root."""
    words = ("unshare", *options, "sh", "-c", f'{before} && exec "$@"', "sh")
    if os.getuid() or subprocess.run([*words, "true"], capture_output=True).returncode:
        skip_or_fail("needs root and namespaces")
    return words
