"""What is said about shared connections: ControlMaster, ControlPath, ControlPersist, -O. Pure.

``ssh -G`` prints the three keywords with -M, -S, ``~`` and all tokens carried out, and refuses what
makes no sense in ssh's words. Here its words become values.
"""

from __future__ import annotations

from xsshpy.errors import UsageError
from xsshpy.login_settings import parse_time
from xsshpy.values import Enum, dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SHARING_DEFAULT = "yes"
"""What is done where neither --share nor XSSH_SHARE says anything."""

SHARING_TIME = 600
"""Seconds that a connection stays after its last session, where no time was said."""

SHARE_VARIABLE = "XSSH_SHARE"
AUTOMATIC_KEYWORD = "xsshshare"
"""Ours, among those that ``ssh -G`` printed: the socket is of our own choice."""

_FORWARD_KEYWORDS = ("localforward", "dynamicforward", "remoteforward")
LEVEL_VARIABLE = "XSSH_LOGLEVEL"
"""By which a passenger tells a master that it did not ask for how much it wants to be told."""

_FALSE = ("", "0", "false")
_CHOICES = {"yes": SHARING_TIME, "true": SHARING_TIME, "no": 0, "false": 0}


class ControlMaster(Enum):
    """Whether this process may be a master, and whether it asks before it lets someone in."""

    NO = "no"
    YES = "yes"
    ASK = "ask"
    AUTO = "auto"
    AUTO_ASK = "autoask"

    @property
    def uses_existing(self) -> bool:
        """Whether a master that is there is used: who is to be one connects by himself."""
        return self not in (ControlMaster.YES, ControlMaster.ASK)

    @property
    def asks(self) -> bool:
        """Whether the user is asked for each passenger."""
        return self in (ControlMaster.ASK, ControlMaster.AUTO_ASK)


class MuxCommand(Enum):
    """What is wanted of a master: -O, or what the rest of the command line comes to."""

    OPEN = "open"
    STDIO_FORWARD = "stdio forward"
    CHECK = "check"
    FORWARD = "forward"
    EXIT = "exit"
    STOP = "stop"
    CANCEL = "cancel"
    PROXY = "proxy"

    @property
    def needs_master(self) -> bool:
        """Whether there is nothing to be done without a master."""
        return self not in (MuxCommand.OPEN, MuxCommand.STDIO_FORWARD)


@dataclass(frozen=True)
class ControlSettings:
    """The keywords as values. ``path`` is empty where nothing is to be shared.

    ``persist`` is how many seconds a master stays when nobody uses it; 0 is for ever, None not at
    all. ``is_automatic``: the user said nothing of it in ssh's words.
    """

    path: str = ""
    master: ControlMaster = ControlMaster.NO
    persist: int | None = None
    is_automatic: bool = False

    @property
    def makes_master(self) -> bool:
        """Whether a run that connects by itself lets others share the connection."""
        return bool(self.path) and self.master is not ControlMaster.NO

    @property
    def makes_lasting_master(self) -> bool:
        """Whether the connection stays when what it was made for is over."""
        return self.makes_master and self.persist is not None


_MASTERS = {
    **{master.value: master for master in ControlMaster},
    "false": ControlMaster.NO,
    "true": ControlMaster.YES,
}
_COMMANDS = {
    command.value: command
    for command in MuxCommand
    if command.needs_master  # the others are not said with -O
}
_COMMANDS_OF_SSH_ALONE = ("channels", "conninfo")
"""What a master of xssh's has no answer to."""


def has_forwards(keywords: Mapping[str, tuple[str, ...]]) -> bool:
    """Tell whether -L, -R, -D or the configuration name any forward."""
    return any(keywords.get(keyword) for keyword in _FORWARD_KEYWORDS)


def read_control(keywords: Mapping[str, tuple[str, ...]]) -> ControlSettings:
    """Return what ``ssh -G`` printed about shared connections."""
    path = _first(keywords, "controlpath")
    master = _MASTERS.get(_first(keywords, "controlmaster").lower(), ControlMaster.NO)
    return ControlSettings(
        "" if path.lower() == "none" else path,
        master,
        _persist(_first(keywords, "controlpersist")),
        AUTOMATIC_KEYWORD in keywords,
    )


def _persist(text: str) -> int | None:
    if text.lower() in ("yes", "true"):
        return 0
    return int(text) if text.isascii() and text.isdecimal() else None


def _first(keywords: Mapping[str, tuple[str, ...]], keyword: str) -> str:
    values = keywords.get(keyword)
    return values[0] if values else ""


def decide_command(command: str | None, stdio_forward: str | None) -> MuxCommand:
    """Return what is wanted, from the values of -O and -W. Raises UsageError, in ssh's words."""
    if command is None:
        return MuxCommand.OPEN if stdio_forward is None else MuxCommand.STDIO_FORWARD
    if command in _COMMANDS_OF_SSH_ALONE:
        raise UsageError(
            f"xssh: -O {command} is not supported",
            remedy=f"ssh -O {command} asks a master of ssh's, from OpenSSH 10.3 on",
        )
    if command not in _COMMANDS:
        raise UsageError("Invalid multiplex command.")
    return _COMMANDS[command]


def decide_sharing_time(option: str | None, environ: Mapping[str, str]) -> int:
    """Return how long a connection stays after its last session (seconds); 0: nothing is shared.

    ``option`` is --share's value. In continuous integration nothing should outlive its job, and
    nobody comes back: there it takes a word. Raises UsageError.
    """
    name, text = "--share", option
    if text is None:
        default = "no" if environ.get("CI", "false") not in _FALSE else SHARING_DEFAULT
        name, text = SHARE_VARIABLE, environ.get(SHARE_VARIABLE) or default
    seconds = _CHOICES.get(text.lower())
    seconds = parse_time(text) if seconds is None else seconds
    if seconds is None:
        raise UsageError(
            f"xssh: {name}: {text!r} is neither yes nor no nor a time",
            remedy="yes, no, or how long a connection stays, such as 10m",
        )
    return seconds
