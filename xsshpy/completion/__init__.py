"""What completes xssh's command lines in bash, zsh and fish: ``--completion SHELL`` prints it.

The shell's part is a file of this folder with gaps; the tables of the options fill them, so that a
shell offers what the program takes. Hosts are looked for by the shell itself (``hosts.sh``), as
ssh's own completions do: no Python is started at a press of a key. Rule: whatever was found in a
file of the user's is offered as data and never read by the shell.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping

from xsshpy.arguments import LONG_OPTIONS_WITH_VALUE, SSH_FLAGS, SSH_VALUES, WAYS
from xsshpy.completion.words import BACKENDS, KEYWORDS, ORDERS, QUERIES
from xsshpy.long_options import LONG_OPTIONS, SHELLS

_TEMPLATES = {"bash": "bash.sh", "zsh": "zsh.zsh", "fish": "fish.fish"}
_FILES = frozenset({"E", "F", "I", "i", "S", "script"})
_ONCE = frozenset("FG")
"""What zsh offers once: the file of -F is asked for by its one value."""

_WORDS: Mapping[str, tuple[str, ...]] = {
    "O": ORDERS,
    "Q": QUERIES,
    "e": ("none",),
    "w": ("any",),
    "backend": BACKENDS,
    "completion": SHELLS,
    "share": ("yes", "no", "10m", "1h"),
    "x11": WAYS,
}
"""Options whose value is one of these words."""


def completion_for(shell: str) -> str:
    """Return the text for a shell to read. ``shell`` is one of SHELLS."""
    text = _read(_TEMPLATES[shell])
    for gap, filling in _FILLINGS[shell]().items():
        text = text.replace(f"@{gap}@", filling)
    return text


def _read(name: str) -> str:
    """Return a file of this folder, from wherever the package was loaded."""
    assert __spec__ is not None
    folder = __file__[: -len("__init__.py")]
    return str(__spec__.loader.get_data(folder + name).decode())  # type: ignore[union-attr]


def _bash() -> dict[str, str]:
    options = "\n".join(f"{name}\t{text}" for name, _, text in sorted(_all_options()))
    values = "\n".join(
        f'        {name}) __xssh_offer "$typed" {_quoted(words)} ;;'
        for name, words in _WORDS.items()
    )
    return {
        "HOSTS": shlex.quote(_read("hosts.sh")),
        "KEYWORDS": " ".join(KEYWORDS),
        "KEYWORD_VALUES": "\n".join(
            f"            {'|'.join(names)}) values='{' '.join(words)}' ;;"
            for words, names in _keywords_by_values()
        ),
        "LETTER_CLASS": "".join(SSH_VALUES),
        "LETTERS": "".join(SSH_VALUES),
        "OPTIONS": shlex.quote(options),
        "VALUED": " | ".join(LONG_OPTIONS_WITH_VALUE),
        "VALUES": values,
    }


def _zsh() -> dict[str, str]:
    arguments = []
    for name, metavar, text in _all_options():
        spec = name if name.startswith("--") or name[1] in _ONCE else f"*{name}"
        if metavar:
            spec += "=" if name.startswith("--") else "+"
        spec += f"[{_escaped(text, '[]:')}]"
        if metavar:
            spec += f":{_escaped(metavar, ':')}:{_zsh_action(name.lstrip('-'))}"
        arguments.append(f"        {shlex.quote(spec)}")
    return {
        "ARGUMENTS": "\n".join(arguments),
        "HOSTS": shlex.quote(_read("hosts.sh")),
        "KEYWORDS": " ".join(KEYWORDS),
        "KEYWORD_VALUES": "\n".join(
            f"            {'|'.join(names)}) values=({_quoted(words)}) ;;"
            for words, names in _keywords_by_values()
        ),
    }


def _zsh_action(name: str) -> str:
    if name in _FILES:
        return "_files"
    if name in _WORDS:
        return f"({' '.join(_WORDS[name])})"
    return {
        "J": "__xssh_jumps",
        "W": "__xssh_hosts",
        "c": "{__xssh_algorithms cipher}",
        "l": "_users",
        "m": "{__xssh_algorithms mac}",
        "o": "__xssh_keywords",
    }.get(name, " ")


def _fish() -> dict[str, str]:
    lines = []
    for name, metavar, text in _all_options():
        bare = name.lstrip("-")
        line = "complete --command xssh --condition '__xssh_at host options'"
        line += f" --{'long' if name.startswith('--') else 'short'}-option {bare}"
        line += f" --description {_fish_quoted(text)}"
        if metavar:
            line += _fish_value(bare)
        lines.append(line)
    return {
        "COMPLETE": "\n".join(lines),
        "HOSTS": _fish_quoted(_read("hosts.sh")),
        "KEYWORDS": "=".join([*KEYWORDS, ""]).replace("=", "= ").rstrip(),
        "KEYWORD_VALUES": "\n".join(
            f"        case {' '.join(f'{name}=' for name in names)}\n"
            f"            set values {_quoted(words)}"
            for words, names in _keywords_by_values()
        ),
        "LETTER_CLASS": "".join(SSH_VALUES),
        "VALUED": " ".join(LONG_OPTIONS_WITH_VALUE),
    }


def _fish_value(name: str) -> str:
    if name in _FILES:
        return " --require-parameter --force-files"
    offered = " ".join(_WORDS.get(name, ())) or {
        "J": "(__xssh_jumps)",
        "W": "(__xssh_hosts)",
        "c": "(__xssh_algorithms cipher)",
        "l": "(__fish_complete_users)",
        "m": "(__xssh_algorithms mac)",
        "o": "(__xssh_keywords)",
    }.get(name, "")
    return " --exclusive" + (f" --arguments {_fish_quoted(offered)}" if offered else "")


_FILLINGS: Mapping[str, Callable[[], dict[str, str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def _all_options() -> list[tuple[str, str, str]]:
    """Return each option as typed, what its value is called ("" without one), what it is for."""
    flags = [(f"-{letter}", "", text) for letter, text in SSH_FLAGS.items()]
    values = [(f"-{letter}", name, text) for letter, (name, text) in SSH_VALUES.items()]
    long = [(f"--{name}", metavar, text) for name, (metavar, text) in LONG_OPTIONS.items()]
    return [*flags, *values, *long]


def _keywords_by_values() -> list[tuple[tuple[str, ...], list[str]]]:
    """Return keywords, in small letters, that take the same words, together with those words."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, words in KEYWORDS.items():
        if words:
            found.setdefault(words, []).append(name.lower())
    return list(found.items())


def _quoted(words: Iterable[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _escaped(text: str, special: str) -> str:
    return "".join(f"\\{letter}" if letter in special else letter for letter in text)


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
