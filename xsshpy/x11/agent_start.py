"""How the remote agent is started: the command line with its modules, the stages back.

Sans-IO but for reading this package's own files. The command line reads the same in sh, bash, zsh,
fish, csh and tcsh: words in single quotes without a backslash, an exclamation mark or a quote
inside. It looks for a Python, and the loader in it says what it found; each stage is a line of its
own with the nonce of this start, so that what start files print before and between is passed over.

Rules kept here: what the other host prints is kept only in part (the last lines, for the message),
and a start that brings more than ``NOISE_LIMIT`` bytes of it has failed.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections import deque
from enum import Enum
from importlib import resources

from xsshpy.values import dataclass, field

NOISE_LIMIT = 1 << 18
"""Most bytes that the other host may print besides the stages."""

KEPT_LINES = 20
LINE_LIMIT = 4096

MODULES = (
    "xmessages",
    "xwire",
    "xextensions",
    "xrequests",
    "looks",
    "roots",
    "facts",
    "records",
    "resources",
    "surroundings",
    "properties",
    "judgement",
    "follow_windows",
    "follow_drawing",
    "follow_render",
    "follow",
    "conclusions",
    "follow_events",
    "own_windows",
    "fallible",
    "opinions",
    "fact_answers",
    "window_answers",
    "predict",
    "counters",
    "learning",
    "comparing",
    "conversation",
    "plain",
    "frames",
    "payloads",
    "images",
    "pace",
    "link",
    "listener",
    "clients",
    "server",
)
"""The agent's modules below ``xsshpy.remote``, each after those that it imports."""

CANDIDATES = (
    "python3",
    *(f"python3.{minor}" for minor in range(14, 5, -1)),
    "/usr/libexec/platform-python",
    "/usr/local/bin/python3",
    "/opt/homebrew/bin/python3",
    "/opt/conda/bin/python3",
    "python",
)
"""Interpreters that are tried, in this order."""

_SEARCH = (
    "for p in {candidates}; do "
    'command -v $p >/dev/null 2>&1 || continue; $p -E -s -S -c "$0" "$@"; '
    # Whatever it is that did not come as far as the loader's end: the next one may.
    "case $? in 0|12[89]|1[3-9]?|2??) exit;; esac; done; "
    "echo; echo xssh-agent $1 none"
)


WORD_LENGTH = 4000
"""Longest word of the command line with the modules (bytes); csh takes no word of 50,000."""

_DESCRIPTION = re.compile(r'^([ \t]*)"""[\s\S]*?"""[ \t]*$', re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)


def agent_command(nonce: str) -> str:
    """Return the remote command line. ``nonce`` is of letters and digits.

    The modules are in it, as words that the shell hands on: an SSH server lets nothing be written
    to a command before it runs, so on stdin they would arrive a round trip later. Nothing but this
    command is ever sent to a host that may run something else in its place.
    """
    modules = pack_modules()
    words = [modules[at : at + WORD_LENGTH] for at in range(0, len(modules), WORD_LENGTH)]
    return f"{_loader_command(nonce)} {' '.join(words)}"


def brief_command(nonce: str) -> tuple[str, bytes]:
    """Return a remote command line without the modules, and what its stdin gets once it said hello.

    A packet of more than 35,000 bytes is more than an SSH server need take (RFC 4253 §6.1), and
    some end the connection for it; a command of 9,000 is the most that dropbear runs.
    """
    modules = pack_modules().encode("ascii")
    return f"{_loader_command(nonce)} stdin={len(modules)}", modules


def _loader_command(nonce: str) -> str:
    source = resources.files("xsshpy.remote").joinpath("loader.py").read_bytes()
    packed = base64.b64encode(zlib.compress(source, 9)).decode("ascii")
    # What lies in the home directory must not stand in for a module of the standard library.
    loader = (
        "import sys;sys.path[:]=[p for p in sys.path if p];"
        f'import base64,zlib;exec(zlib.decompress(base64.b64decode("{packed}")))'
    )
    search = _SEARCH.format(candidates=" ".join(CANDIDATES))
    return f"sh -c '{search}' '{loader}' {nonce}"


def pack_modules() -> str:
    """Return what the loader unpacks: the modules without their texts, compressed, in base64."""
    package = resources.files("xsshpy.remote")
    parts = []
    for name in MODULES:
        source = strip_texts(package.joinpath(f"{name}.py").read_text("utf-8")).encode("utf-8")
        parts.append(f"{name} {len(source)}\n".encode("ascii") + source)
    return base64.b64encode(zlib.compress(b"".join(parts), 9)).decode("ascii")


def strip_texts(source: str) -> str:
    """Return Python source without comments and docstrings; its lines keep their numbers.

    In these modules a line that begins with three quotes begins a docstring, and nothing else.
    """
    plain = _DESCRIPTION.sub(lambda found: found[1] + "0" + "\n" * found[0].count("\n"), source)
    return _COMMENT.sub("", plain)


class Stage(Enum):
    """How far a start has come. OLD is a candidate's word, and others may follow it."""

    HELLO = "hello"
    OLD = "old"
    NONE = "none"
    FAILED = "failed"
    READY = "ready"


@dataclass(frozen=True)
class StageLine:
    """One stage, with what the loader or the agent says of it."""

    stage: Stage
    facts: dict[str, str] = field(default_factory=dict)


class NoiseError(Exception):
    """The other host prints too much that is no stage."""


class StageReader:
    """Finds the stage lines among what the other host prints: bytes in, stages out.

    After READY everything belongs to the link: ``rest`` is what came behind it already.
    """

    def __init__(self, nonce: str) -> None:
        self._prefix = f"xssh-agent {nonce} ".encode("ascii")
        self._line = bytearray()
        self._noise = 0
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)
        self.rest = b""
        self.is_ready = False

    def receive_data(self, data: bytes) -> list[StageLine]:
        """Take what came on stdout, return the stages in it. Raises NoiseError."""
        found: list[StageLine] = []
        while data and not self.is_ready:
            line, separator, data = data.partition(b"\n")
            self._line += line[: LINE_LIMIT + 1 - len(self._line)]
            self._noise += len(line) + len(separator)
            if not separator:
                break
            stage = self._read_line(bytes(self._line).rstrip(b"\r"))
            self._line.clear()
            if stage is not None:
                found.append(stage)
                self.is_ready = stage.stage is Stage.READY
        self.rest = data if self.is_ready else b""
        if self._noise > NOISE_LIMIT:
            raise NoiseError
        return found

    def receive_message(self, data: bytes) -> None:
        """Take what came on stderr: kept for the message, should the start fail."""
        self._keep(data)

    def _read_line(self, line: bytes) -> StageLine | None:
        if line.startswith(self._prefix):
            words = line[len(self._prefix) :].decode("ascii", "replace")
            word, *facts = words.split() or [""]
            try:
                stage = Stage(word)
            except ValueError:
                return None
            return StageLine(stage, dict(fact.split("=", 1) for fact in facts if "=" in fact))
        self._keep(line)
        return None

    def _keep(self, data: bytes) -> None:
        for line in data[-LINE_LIMIT:].splitlines():
            text = line.decode("utf-8", "replace").strip()
            if text:
                self._kept.append("".join(char if char.isprintable() else "?" for char in text))

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines that the other host printed, printable."""
        return tuple(self._kept)
