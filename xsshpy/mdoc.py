"""A manual page in mdoc(7) as plain text: as much of the language as docs/xssh.1 uses. Pure.

An unknown macro is an error, so that the page does not outgrow its reader in silence.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

_PROSE = 5
_BODY = 13
_WIDTH = 78
_CLOSING = frozenset({".", ",", ":", ";", ")", "]", "!", "?"})
_OPENING = frozenset({"(", "["})
_PLAIN = frozenset({"Ar", "Cm", "Ev", "Ic", "Li", "No", "Pa"})
_INLINE = _PLAIN | {"Fl", "Nm", "Ns", "Oc", "Oo", "Op", "Or", "Pq", "Ql", "Xr"}
_HEADER = frozenset({"Dd", "Dt", "Os"})


def render(source: str) -> str:
    """Return the page as lines of at most 78 characters. Raises ValueError."""
    return _Page().read(source.splitlines())


class _Line:
    """A line of inline macros on its way to text; space goes where mdoc puts it."""

    def __init__(self, name: str) -> None:
        self.text = ""
        self.name = name
        self._tight = True

    def add(self, piece: str, *, opens: bool = False, closes: bool = False) -> None:
        """Add a piece; one that opens wants no space after it, one that closes none before it."""
        self.text += piece if self._tight or closes else f" {piece}"
        self._tight = opens

    def read(self, words: Sequence[str]) -> None:
        """Add what a macro and its arguments say; they may hold more macros."""
        macro = "No"
        position = 0
        while position < len(words):
            word = words[position]
            position += 1
            if word in _INLINE:
                macro = word
                position = self._begin(macro, words, position)
                if macro in ("Op", "Pq"):
                    return
            elif macro == "Ql" and word not in _CLOSING:
                quoted = [word]
                while position < len(words) and words[position] not in _INLINE | _CLOSING:
                    quoted.append(words[position])
                    position += 1
                self.add(f"'{' '.join(quoted)}'")
            elif word in _CLOSING:
                self.add(word, closes=True)
            elif word in _OPENING:
                self.add(word, opens=True)
            else:
                self.add(f"-{word}" if macro == "Fl" and word != "|" else word)

    def _begin(self, macro: str, words: Sequence[str], position: int) -> int:
        if macro == "Nm" and (position == len(words) or words[position] in _INLINE | _CLOSING):
            self.add(self.name)
        elif macro == "Ns":
            self._tight = True
        elif macro == "Oo":
            self.add("[", opens=True)
        elif macro == "Oc":
            self.add("]", closes=True)
        elif macro in ("Op", "Pq"):
            self.add("[" if macro == "Op" else "(", opens=True)
            self.read(words[position:])
            self.add("]" if macro == "Op" else ")", closes=True)
        elif macro == "Xr":
            self.add(f"{words[position]}({words[position + 1]})")
            return position + 2
        return position


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []
        self._indent = _PROSE
        self._section = ""
        self._current = _Line("")

    def read(self, lines: Sequence[str]) -> str:
        """Return all lines as text."""
        for line in lines:
            if not line.startswith("."):
                self._current.add(_plain(line))
            elif not line.startswith('.\\"'):
                macro, *words = _words(line[1:])
                self._obey(macro, words)
        self._end_paragraph()
        return "\n".join(self._lines).strip("\n") + "\n"

    def _obey(self, macro: str, words: list[str]) -> None:
        if macro in _INLINE:
            self._obey_inline(macro, words)
        elif macro == "Nd":
            self._current.add(f"- {' '.join(words)}")
        elif macro not in _HEADER:
            self._end_paragraph()
            self._begin_block(macro, words)

    def _obey_inline(self, macro: str, words: list[str]) -> None:
        if macro == "Nm":
            self._current.name = self._current.name or words[0]
            if self._section == "SYNOPSIS":
                self._end_paragraph()
        self._current.read([macro, *words])

    def _begin_block(self, macro: str, words: list[str]) -> None:
        if macro == "Sh":
            self._section = " ".join(words)
            self._indent = _PROSE
            self._lines += ["", self._section]
        elif macro == "It":
            self._lines.append("")
            self._current.read(words)
            self._end_paragraph(_PROSE)
            self._indent = _BODY
        elif macro == "Dl":
            self._lines.append(" " * (_PROSE + 4) + " ".join(words))
        elif macro == "Pp":
            self._lines.append("")
        elif macro == "El":
            self._indent = _PROSE
        elif macro != "Bl":
            raise ValueError(f"no reader for .{macro}")

    def _end_paragraph(self, indent: int = 0) -> None:
        text, self._current = self._current.text, _Line(self._current.name)
        margin = " " * (indent or self._indent)
        self._lines += textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=margin,
            subsequent_indent=margin,
            break_on_hyphens=False,
            break_long_words=False,
        )


def _plain(text: str) -> str:
    """Resolve the escapes that stand for a character."""
    for escape, character in (("\\&", ""), ("\\-", "-"), ("\\(dq", '"'), ("\\e", "\\")):
        text = text.replace(escape, character)
    return text


def _words(text: str) -> list[str]:
    return list(_split(text))


def _split(text: str) -> Iterator[str]:
    """Generate a macro line's words; those in double quotes may hold blanks."""
    while text := text.lstrip(" \t"):
        if text.startswith('"'):
            word, _, text = text[1:].partition('"')
        else:
            word, _, text = text.partition(" ")
        yield _plain(word)
