"""Shells at whose prompt somebody presses Tab: what is offered, and what the line becomes."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import wait_until
from tests.support.terminals import Terminal
from tests.support.tools import require_tool

_BASH = """\
PS1='> ' OUT={out}
source {completion}
{more}
tell_offers() {{ _xssh "$@"; printf '%s\\n' "${{COMPREPLY[@]}}" >"$OUT/offers"; }}
for name in $(complete -p | sed -n 's/^complete -F _xssh //p'); do
    complete -F tell_offers $name
done
tell_line() {{ printf %s "$READLINE_LINE" >"$OUT/line.new"; mv "$OUT/line.new" "$OUT/line"; }}
bind -x '"\\C-x\\C-p": tell_line'
bind 'set bell-style none' 'set page-completions off' 'set completion-query-items 9999'
"""
# Whatever is offered goes through compadd; what only stores its matches in an array offers none.
_ZSH = """\
PS1='> ' OUT={out} LISTMAX=9999
zstyle ':completion:*' verbose no
autoload -Uz compinit && compinit -u -D
{more}
source {completion}
setopt extended_glob no_beep no_auto_menu
compadd() {{
    if [[ " ${{@[1,(i)(-|--)]}} " != *\\ -([[:alpha:]]#[OAD])\\ * ]]; then
        local -a found
        builtin compadd -A found "$@"
        print -rl -- $found >>$OUT/offers
    fi
    builtin compadd "$@"
}}
tell-line() {{ print -rn -- "$BUFFER" >$OUT/line.new; command mv $OUT/line.new $OUT/line }}
zle -N tell-line
bindkey '^X^P' tell-line
"""
_FISH = """\
set -g OUT {out}
function fish_prompt; printf '> '; end
function fish_greeting; end
function tell_line
    printf %s (commandline) >$OUT/line.new
    command mv $OUT/line.new $OUT/line
end
bind \\cx\\cp tell_line
{more}
source {completion}
"""


@dataclass(frozen=True)
class Completed:
    """What a press of Tab did."""

    offers: tuple[str, ...]
    line: str


class PromptShell:
    """An interactive bash, zsh or fish in a terminal. ``more`` is read like its start file.

    What fish offers is not told here, only what the line becomes.
    """

    def __init__(
        self,
        name: str,
        completion: str,
        folder: Path,
        env: Mapping[str, str],
        *,
        more: str = "",
        cwd: Path | None = None,
    ) -> None:
        program = require_tool(name)
        self._folder = folder
        source = folder / "completion"
        source.write_text(completion)
        text = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[name]
        start = folder / {"bash": ".bashrc", "zsh": ".zshrc", "fish": "fish/config.fish"}[name]
        start.parent.mkdir(exist_ok=True)
        start.write_text(text.format(out=folder, completion=source, more=more))
        argv = {
            "bash": [program, "--noprofile", "--rcfile", str(start), "-i"],
            "zsh": [program, "-d", "-i"],
            "fish": [program, "-i"],
        }[name]
        environment = {**env, "TERM": "dumb", "ZDOTDIR": str(folder)}
        if name == "fish":
            environment["XDG_CONFIG_HOME"] = str(folder)
        self._terminal = Terminal(argv, env=environment, cols=300, cwd=cwd)
        self._terminal.read_until("> ", timeout=30)

    def press_tab(self, typed: str) -> Completed:
        """Type a line and Tab."""
        offers, line = self._folder / "offers", self._folder / "line"
        for path in (offers, line):
            path.unlink(missing_ok=True)
        self._terminal.write(f"\x15{typed}\t\x18\x10")

        def is_told() -> bool:
            self._terminal.read_for(0.01)
            return line.exists()

        wait_until(is_told, timeout=20)
        found = offers.read_text().splitlines() if offers.exists() else []
        return Completed(tuple(dict.fromkeys(filter(None, found))), line.read_text())

    @property
    def output(self) -> str:
        """All that the terminal showed."""
        return self._terminal.output.decode(errors="replace")

    def close(self) -> None:
        """End the shell."""
        with contextlib.suppress(AssertionError):
            self._terminal.write("\x15exit\n")
        self._terminal.close()


def complete_in_fish(
    completion: Path, lines: list[str], env: Mapping[str, str], cwd: Path
) -> dict[str, list[str]]:
    """Return what fish offers for each line: word, tab, description."""
    program = require_tool("fish")
    script = (
        f"source {completion}; alias ssh=xssh\n"
        "for line in $argv; printf '\\x1d%s\\n' $line; complete -C $line; end"
    )
    done = subprocess.run(
        [program, "--no-config", "--command", script, *lines],
        env={**env, "TERM": "dumb"},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    parts = done.stdout.decode().split("\x1d")[1:]
    return {part.split("\n")[0]: part.split("\n")[1:-1] for part in parts}
