"""What a passenger is to do: the command line, the settings, and where to say what happens."""

from __future__ import annotations

from xsshpy.console import inline
from xsshpy.errors import SessionError
from xsshpy.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from xsshpy.console import Console
    from xsshpy.mux.control import ControlSettings, MuxCommand
    from xsshpy.settings import Invocation, Settings

_SHOWN_PATH = 100
"""How much of a path ssh's messages show (characters)."""


@dataclass(frozen=True)
class MuxTask:
    """What is wanted of a master."""

    invocation: Invocation
    settings: Settings
    console: Console
    environ: Mapping[str, str]
    control: ControlSettings
    command: MuxCommand

    @property
    def shown_path(self) -> str:
        """The socket's path as ssh's messages show it."""
        return self.control.path[:_SHOWN_PATH]

    def complain(self, text: str) -> None:
        """Say why it is not done through the master: a user who asked for none need not know."""
        if self.control.is_automatic and not self.command.needs_master:
            self.console.debug(1, text)
        else:
            self.console.error(text)


def refuse(text: str) -> NoReturn:
    """End the run with these words."""
    raise SessionError(text) from None


def shown(reason: bytes) -> str:
    """Return what a master said, as part of a line."""
    return inline(reason.decode("utf-8", "surrogateescape"))
