"""The fuzzer behind ``scripts/fuzz``: atheris on the targets of tests/fuzz/targets.py.

Each parser gets a process of its own, as libFuzzer ends the one that it runs in. Inputs begin with
the corpus; of what was found, the smallest inputs that together reach every line and jump are kept.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
MOST_KEPT = 48
"""Inputs that are kept for each parser."""
LONGEST_KEPT = 1500
"""Bytes of the longest input that is kept."""

Target = Callable[[bytes], None]


def read_corpus(name: str) -> list[bytes]:
    """Return the kept inputs of a parser: a line each, in base64."""
    path = CORPUS / name
    return [base64.b64decode(line) for line in path.read_text().split()] if path.exists() else []


def write_corpus(name: str, inputs: Iterable[bytes]) -> None:
    """Keep these inputs of a parser."""
    CORPUS.mkdir(exist_ok=True)
    lines = [base64.b64encode(data).decode("ascii") for data in inputs if data]
    (CORPUS / name).write_text("".join(f"{line}\n" for line in lines))


def trace(target: Target, data: bytes) -> set[tuple[str, int, int]]:
    """Return the jumps between lines of ours that an input makes."""
    package = str(ROOT / "xsshpy")
    reached: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, event: str, argument: object) -> object:
        name = frame.f_code.co_filename
        if not name.startswith(package):
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: object) -> object:
            nonlocal last
            reached.add((name, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    sys.settrace(enter)  # type: ignore[arg-type]
    try:
        target(data)
    finally:
        sys.settrace(None)
    return reached


def choose(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """Return few and small inputs that reach what all of them reach."""
    kept: list[bytes] = []
    reached: set[tuple[str, int, int]] = set()
    for data in sorted(set(inputs), key=lambda each: (len(each), each)):
        if len(data) > LONGEST_KEPT or len(kept) == MOST_KEPT:
            break
        jumps = trace(target, data)
        if not jumps <= reached:
            reached |= jumps
            kept.append(data)
    return kept


def fuzz_here(name: str, seconds: int, folder: Path) -> None:
    """Let atheris try inputs in this process, which it ends."""
    atheris = importlib.import_module("atheris")  # needed nowhere else, and not by the tests
    with atheris.instrument_imports(include=["xsshpy"]):
        from tests.fuzz.targets import MOST_BYTES, TARGETS
    arguments = [
        sys.argv[0], str(folder), f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}",
        "-timeout=10", "-rss_limit_mb=1500", "-print_final_stats=1",
        f"-artifact_prefix={folder.parent}/",
    ]  # fmt: skip
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()


def fuzz(name: str, seconds: int, keep: bool) -> bool:
    """Fuzz one parser; say what came of it, and tell whether nothing was found."""
    from tests.fuzz.targets import TARGETS

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "inputs"
        folder.mkdir()
        for number, data in enumerate(read_corpus(name)):
            (folder / f"{number}").write_bytes(data)
        argv = [sys.executable, __file__, "--here", str(folder), "--time", str(seconds), name]
        started = time.monotonic()
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        runs = [
            line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed" in line
        ]
        spent = time.monotonic() - started
        found = [path for path in Path(place).iterdir() if path != folder]
        print(f"{name}: {runs[0] if runs else '?'} inputs in {spent:.0f} s, {len(found)} findings")
        for path in found:
            print(f"  {path.name.split('-')[0]}: {path.read_bytes()!r}")
        if done.returncode:
            print(f"  status {done.returncode}", done.stdout[-2000:], done.stderr[-500:], sep="\n")
        elif keep:
            write_corpus(
                name, choose(TARGETS[name], (path.read_bytes() for path in folder.iterdir()))
            )
    return done.returncode == 0


def main() -> int:
    """Run the fuzzer as the command line says."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("parser", nargs="*", help="which parsers (all)")
    parser.add_argument("--time", type=int, default=60, help="seconds for each")
    parser.add_argument("--keep", action="store_true", help="keep what reaches new code")
    parser.add_argument("--list", action="store_true", help="name the parsers")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    if options.here:
        fuzz_here(options.parser[0], options.time, Path(options.here))
        return 0
    from tests.fuzz.targets import TARGETS

    if options.list:
        print("\n".join(TARGETS))
        return 0
    unknown = sorted({*options.parser} - {*TARGETS})
    if unknown:
        parser.error(f"no such parser: {', '.join(unknown)} (--list names them)")
    chosen = options.parser or list(TARGETS)
    return 0 if all([fuzz(name, options.time, options.keep) for name in chosen]) else 1


if __name__ == "__main__":
    sys.exit(main())
