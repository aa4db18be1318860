"""docs/troubleshooting.md: what it quotes of ours is said by the code, and what the code says to do
something about is there."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import xsshpy.errors
from tests.support.documents import PACKAGE, ROOT, constants, headings, rows, section, trees
from xsshpy.errors import XsshError

PAGE = ROOT / "docs" / "troubleshooting.md"

# Other programs' words: what a heading quotes is ours unless it begins like one of these.
OF_OTHERS = (
    "_tkinter.TclError: ", "Error: Can't open display:", "cannot open display: ", "qt.qpa.",
    "Invalid MIT-MAGIC-COOKIE-1 key", "Authorization required, ", "Maximum number of clients",
    "/usr/bin/xauth: ", "Warning: untrusted X11 forwarding setup", "Warning: No xauth data; ",
    "UserWarning: ", "ImportError: ", "ModuleNotFoundError: ", "plt.show()",
    "This application failed to start", "Unable to init server: ", "Gtk-WARNING ", "libGL error: ",
    "Could not initialize GLX", "Xlib: extension ", "X Error of failed request: ",
    "python: can't open file ",
    "X connection to ", "XIO:  fatal IO error", "ssh -X", "authorized_keys", "xssh …", ":0",
    "Bad configuration option: ", "…: line …: …",
    "X11 forwarding request failed on channel 0: No xauth program; ",
    "X11 forwarding request failed on channel 0: X11 forwarding disabled by key options.",
    "Received disconnect from …: Too many authentication failures",
)  # fmt: skip

# Where the message says all there is to say.
NEEDS_NO_WORDS = {
    "UsageError": "the command line: the message is about what was just typed",
    "NoRootError": "told within setup's report",
}
SITES_WITHOUT_WORDS = {
    ("conclusion.py", "'\\n'.join(lines)"): "wraps an error that is raised elsewhere",
    ("verify.py", "text"): "the verdict's, from _explain: found by its words below",
    ("session.py", "PTY_REQUEST"): "PTY allocation request failed",
    ("authority.py", "'xssh: X11: it is not a regular file'"): "goes on as: cannot use …",
    ("verifier.py", "settled.reason"): "Host key verification failed.",
    ("failures.py", "words"): "ssh's words by the table _BANNER_WORDS, and Unable to negotiate",
    ("failures.py", "message"): "likewise",
    ("failures.py", "'\\n'.join(lines)"): "how the server broke the protocol, in ssh's words",
    ("access.py", "message"): "an error that is raised elsewhere",
}


# Put together from pieces that are words of their own.
COMPOSED = {
    "PTY allocation request failed on channel 0": (
        "PTY allocation",
        " request failed on channel 0",
    ),
    "mux_client_request_session: session request failed: …": (
        "mux_client_request_session",
        "session request",
    ),
    "Warning: remote port forwarding failed for listen port …": (
        "Warning: ",
        "remote port forwarding failed for listen ",
    ),
}


@functools.cache
def quoted() -> tuple[str, ...]:
    """Return what headings and the last table quote, whole."""
    text = PAGE.read_text()
    cells = [cells[0] for cells in rows(section("troubleshooting.md", "All other messages"))]
    found: list[str] = []
    for words in [*headings(text), *cells]:
        found += [a or b for a, b in re.findall(r"``\s?(.+?)\s?``(?!`)|`([^`]+)`", words)]
    return tuple(found)


@functools.cache
def said() -> tuple[str, ...]:
    """Return every piece of text in the package."""
    scripts = [path.read_text() for path in sorted(PACKAGE.rglob("*.sh"))]
    return (*constants(), *scripts)


def fragments(quote: str) -> list[str]:
    """Return what a quotation has between its gaps."""
    if quote in COMPOSED:
        return list(COMPOSED[quote])
    pieces = [piece.strip(" \"':;,{}()`.") for piece in re.split("…", quote)]
    return [piece for piece in pieces if len(piece) > 3]


@pytest.mark.parametrize("quote", [q for q in quoted() if not q.startswith(OF_OTHERS)])
def test_what_is_quoted_is_said(quote: str) -> None:
    if not fragments(quote):
        pytest.fail(f"nothing in {quote!r} could be looked for")
    for fragment in fragments(quote):
        # What one function begins, another one ends: each side of a colon may stand by itself.
        whole = any(fragment in text for text in said())
        parts = [part.strip(" \"'") for part in re.split(r": ", fragment)]
        assert whole or all(any(part in text for text in said()) for part in parts), fragment


def literals(node: ast.expr, names: dict[str, list[str]]) -> list[str]:
    """Return the fixed parts of an expression, those of the names in it included."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.Name):
        return names.get(node.id, [])
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in literals(value, names)]
    return []


def names_in(tree: ast.AST) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, []).extend(literals(node.value, {}))
    return found


def families() -> set[str]:
    """Return the names of the errors that a user is told."""
    found: list[type[XsshError]] = [XsshError]
    for kind in found:
        found += kind.__subclasses__()
    names = {kind.__name__ for kind in found}
    for tree in trees().values():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                names.update(node.name for base in node.bases if ast.unparse(base) in names)
    return names


@functools.cache
def advice() -> tuple[tuple[Path, str, list[str]], ...]:
    return tuple(find_advice())


def find_advice() -> Iterator[tuple[Path, str, list[str]]]:
    """Yield where the code says to try something: the file, the expression, its fixed parts."""
    kinds = families() - set(NEEDS_NO_WORDS)
    for path, tree in trees().items():
        if path.parent.name in ("doctor", "completion"):
            continue  # findings carry their own remedies; see docs/doctor.md
        names = names_in(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                has_remedy = any(word.arg == "remedy" for word in node.keywords)
                if node.func.id in kinds and has_remedy and node.args:
                    yield path, ast.unparse(node.args[0]), literals(node.args[0], names)
            if isinstance(node, ast.JoinedStr):
                parts = literals(node, {})
                if any("; try: " in part for part in parts) and parts[0][:5] in ("xssh:", "X11 f"):
                    yield path, ast.unparse(node), parts


def test_what_can_be_mended_is_on_the_page() -> None:
    """One test for all: who only collects tests does not wait until the package is parsed."""
    page = " ".join(quoted())
    shown = [fragment for quote in quoted() for fragment in fragments(quote) if len(fragment) > 12]
    missing = []
    for path, source, parts in advice():
        if (path.name, source) in SITES_WITHOUT_WORDS:
            continue
        words = [part.strip(" \"':;,{}()`.\n") for text in parts for part in text.split("\n")]
        words = [word for word in words if len(word) > 5]
        assert words, f"{path.name}: {source} has no fixed words: name it in SITES_WITHOUT_WORDS"
        if not any(word in page for word in words) and not any(
            fragment in word for fragment in shown for word in words
        ):
            missing.append(f"{path.name}: {source}")
    assert not missing, "\n".join(missing)


def test_each_family_is_met() -> None:
    """No kind of error is left out but those that are named here."""
    seen = {name for _, source, _ in advice() for name in [source]}
    assert len(seen) > 40
    for name in NEEDS_NO_WORDS:
        assert name in families(), name
    assert hasattr(xsshpy.errors, "UsageError")


def test_each_section_ends_with_something_to_do() -> None:
    """A heading is followed by more than words, or by another heading."""
    text = PAGE.read_text()
    for block in re.split(r"^(?=#{2,3} )", text, flags=re.M)[1:]:
        heading, _, body = block.partition("\n")
        if heading.startswith("### ") and body.strip():
            assert len(body.split()) > 5, heading
