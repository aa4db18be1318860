"""What the tests of the documentation read: pages, their links, headings and tables."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import xsshpy

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(xsshpy.__file__).parent

_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")
_TEST_OF_FILE = re.compile(r"`(tests/[\w/]+\.py)` `(test_\w+)`")


@functools.cache
def pages() -> tuple[Path, ...]:
    """Return every page in Markdown that is part of the project."""
    found = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    names = found.stdout.decode().split("\0")[:-1]
    if not names:  # an unpacked sdist
        names = [str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")]
        names += [path.name for path in ROOT.glob("*.md")]
    return tuple(ROOT / name for name in sorted(names) if (ROOT / name).is_file())


def without_fences(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", text)


def headings(text: str) -> list[str]:
    """Return the words of each heading."""
    return re.findall(r"^#{1,6} +(.+?) *$", without_fences(text), re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return what a link into this page may name, as GitHub makes it."""
    found: set[str] = set(re.findall(r'<a id="([^"]+)">', text))
    seen: dict[str, int] = {}
    for heading in headings(text):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found


def links(text: str) -> Iterator[str]:
    """Yield the targets of a page's links and pictures."""
    plain = _CODE.sub("", without_fences(text))
    yield from re.findall(r"\]\(<?([^)>\s]+)>?\)", plain)
    yield from re.findall(r'(?:src|href)="([^"]+)"', plain)


def section(page: str, heading: str) -> str:
    """Return what stands below a heading of a page in docs/, up to the next one of its level."""
    text = (ROOT / "docs" / page).read_text()
    match = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^\1 |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert match is not None, f"{page} has no section {heading!r}"
    return match[2]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables' lines, without heads and rulers."""
    found: list[list[str]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("|") or re.fullmatch(r"[|\-: ]+", line):
            continue
        if number + 1 < len(lines) and re.fullmatch(r"\|[|\-: ]+\|", lines[number + 1]):
            continue
        found.append(
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        )
    return found


def spans(text: str) -> list[str]:
    """Return what stands in backquotes; a file of tests and a test of it behind it are one."""
    text = _TEST_OF_FILE.sub(r"`\1::\2`", text)  # apart, so that narrow tables can break there
    return [span[1:-1] for span in _CODE.findall(text)]


@functools.cache
def functions_of(path: Path) -> dict[str, str]:
    """Return the source of each function of a file, decorators included."""
    text = path.read_text()
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[start - 1 : node.end_lineno])
    return found


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """Return the package's modules, parsed."""
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def constants() -> tuple[str, ...]:
    """Return every piece of text in the package's modules."""
    found = [
        node.value
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return tuple(dict.fromkeys(found))
