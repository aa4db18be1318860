"""The ``~`` escapes: what a user types to talk to xssh itself in the middle of a session.

Sans-IO: typed bytes in, events out. ssh(1), section ESCAPE CHARACTERS, and OpenSSH's behaviour
where the manual is silent:

- an escape is known only at the very start and directly after a carriage return or a newline;
- after an escape that was carried out, another one may follow at once (``~?~.``), but for those
  that end the input (``~.``, ``~&``);
- the escape character typed twice is sent once, and one that means nothing is sent as typed;
- a command's letter wins over the escape character, where the two are the same.
"""

from __future__ import annotations

from collections.abc import Collection

from xsshpy.values import dataclass

_LINE_ENDS = b"\r\n"


@dataclass(frozen=True)
class Event:
    """What the typed bytes ask for."""


@dataclass(frozen=True)
class Data(Event):
    """Bytes for the remote side, never empty."""

    data: bytes


@dataclass(frozen=True)
class Disconnect(Event):
    """``~.``: end the connection now. Nothing comes after it."""


@dataclass(frozen=True)
class Suspend(Event):
    """``~^Z``: stop this program, as the shell's job control does."""


@dataclass(frozen=True)
class Background(Event):
    """``~&``: leave the terminal and wait for forwarded connections to end.

    Nothing comes after it: the remote side gets the end of its input.
    """


@dataclass(frozen=True)
class ListForwardings(Event):
    """``~#``: list the forwarded connections."""


@dataclass(frozen=True)
class Help(Event):
    """``~?``: list the escapes."""


@dataclass(frozen=True)
class SendBreak(Event):
    """``~B``: send a BREAK (RFC 4335)."""


@dataclass(frozen=True)
class Rekey(Event):
    """``~R``: negotiate new keys."""


@dataclass(frozen=True)
class CommandLine(Event):
    """``~C``: open a command line for forwardings."""


@dataclass(frozen=True)
class MoreVerbose(Event):
    """``~v``: raise the log level by one."""


@dataclass(frozen=True)
class LessVerbose(Event):
    """``~V``: lower the log level by one."""


_COMMANDS: dict[int, Event] = {
    ord("."): Disconnect(),
    ord("Z") & 31: Suspend(),
    ord("&"): Background(),
    ord("#"): ListForwardings(),
    ord("?"): Help(),
    ord("B"): SendBreak(),
    ord("R"): Rekey(),
    ord("C"): CommandLine(),
    ord("v"): MoreVerbose(),
    ord("V"): LessVerbose(),
}

_LETTERS: dict[type[Event], str] = {
    type(event): "^Z" if code < 32 else chr(code) for code, event in _COMMANDS.items()
}

_END_OF_CONNECTION = "terminate connection (and any multiplexed sessions)"
_END_OF_SESSION = "terminate session"
_HELP: tuple[tuple[str, str, frozenset[type[Event]]], ...] = (
    (".", _END_OF_CONNECTION, frozenset({Disconnect})),
    ("B", "send a BREAK to the remote system", frozenset({SendBreak})),
    ("C", "open a command line", frozenset({CommandLine})),
    ("R", "request rekey", frozenset({Rekey})),
    ("V/v", "decrease/increase verbosity (LogLevel)", frozenset({LessVerbose, MoreVerbose})),
    ("^Z", "suspend ssh", frozenset({Suspend})),
    ("#", "list forwarded connections", frozenset({ListForwardings})),
    (
        "&",
        "background ssh (when waiting for connections to terminate)",
        frozenset({Background}),
    ),
    ("?", "this message", frozenset({Help})),
)


UNAVAILABLE_TO_PASSENGERS: frozenset[type[Event]] = frozenset(
    {Suspend, Background, CommandLine, MoreVerbose, LessVerbose}
)
"""What can't be done for a session whose terminal belongs to another process."""


class EscapeParser:
    """Finds the escapes in what is typed, however it is cut into pieces.

    ``escape`` is the escape character's code, 0 to 255; with None every byte is data. In a
    ``shared`` connection's session ``~&`` does nothing, and so does not end the input.
    """

    def __init__(self, escape: int | None, *, shared: bool = False) -> None:
        if escape is not None and not 0 <= escape <= 255:
            raise ValueError(f"an escape character is one byte, not {escape}")
        self._escape = escape
        self._ending = (Disconnect,) if shared else (Disconnect, Background)
        self._after_newline = True
        self._pending = False
        self._ended = False

    def feed(self, data: bytes) -> list[Event]:
        """Return what ``data`` asks for, in order, with neighbouring data joined.

        What follows a Disconnect or a Background is dropped, in this call and in later ones. An
        escape character that waits for its letter is held back until the next call; at the end of
        the input it is dropped, as ssh drops it.
        """
        if self._ended or not data:
            return []
        if self._escape is None:
            return [Data(bytes(data))]
        if not self._pending and self._escape not in data:
            self._after_newline = data[-1] in _LINE_ENDS
            return [Data(bytes(data))]
        events: list[Event] = []
        plain = bytearray()
        for byte in data:
            event = self._take(byte, self._escape, plain)
            if event is None:
                continue
            if plain:
                events.append(Data(bytes(plain)))
                plain.clear()
            events.append(event)
            if isinstance(event, self._ending):
                self._ended = True
                return events
        if plain:
            events.append(Data(bytes(plain)))
        return events

    def _take(self, byte: int, escape: int, plain: bytearray) -> Event | None:
        if self._pending:
            self._pending = False
            event = _COMMANDS.get(byte)
            if event is not None:
                # Still "after a newline": nothing was sent since.
                return event
            if byte != escape:
                plain.append(escape)
        elif self._after_newline and byte == escape:
            self._pending = True
            return None
        self._after_newline = byte in _LINE_ENDS
        plain.append(byte)
        return None


def parse_escape_char(text: str) -> int | None:
    r"""Return the code of an EscapeChar value, or None for ``none``.

    Takes what the user may write (one byte, or ``^`` and one of ``@`` to ``DEL``) and what
    ``ssh -G`` prints for it, which is in the notation of vis(3): ``\^A``, ``\^?``, ``\040``,
    ``\\``, ``\M-i``, ``\M^A``. Bytes that are not UTF-8 come as lone surrogates.

    Raises ValueError.
    """
    if text == "none":
        return None
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _bad_escape(text) from None
    if len(raw) == 1:
        return raw[0]
    if len(raw) == 2 and raw[:1] == b"^" and 64 <= raw[1] < 128:
        return raw[1] & 31
    return _parse_vis(raw, text)


def _parse_vis(raw: bytes, text: str) -> int:
    if raw == b"\\\\":
        return ord("\\")
    if len(raw) == 4 and raw[:1] == b"\\" and all(48 <= digit < 56 for digit in raw[1:]):
        code = int(raw[1:], 8)
        if code < 256:
            return code
    body, high = (raw[2:], 128) if raw[:2] == b"\\M" else (raw[1:], 0)
    if raw[:1] == b"\\" and len(body) == 2:
        if body == b"^?":
            return high | 127
        if body[:1] == b"^" and 64 <= body[1] < 96:
            return high | body[1] & 31
        if high and body[:1] == b"-" and 32 <= body[1] < 127:
            return high | body[1]
    raise _bad_escape(text)


def _bad_escape(text: str) -> ValueError:
    return ValueError(f"Bad escape character {text!r}")


def help_text(escape: int, hidden: Collection[type[Event]] = (), *, shared: bool = False) -> str:
    r"""Return OpenSSH's answer to ``~?``, without the escapes in ``hidden``.

    ``shared``: in a session of a connection that another process holds. Lines end in ``\r\n``: the
    terminal is in raw mode.
    """
    if shared:
        hidden = {*hidden, *UNAVAILABLE_TO_PASSENGERS}
    lines = [f"{_shown(escape)}?", "Supported escape sequences:"]
    for letter, text, kinds in _HELP:
        if kinds.isdisjoint(hidden):
            shown = _END_OF_SESSION if shared and Disconnect in kinds else text
            lines.append(f" {_shown(escape)}{letter:<3} - {shown}")
    twice = _shown(escape) * 2
    lines.append(f" {twice}   - send the escape character by typing it twice")
    lines.append("(Note that escapes are only recognized immediately after newline.)")
    return "".join(f"{line}\r\n" for line in lines)


def echo_text(event: Event, escape: int) -> str:
    r"""Return what OpenSSH shows when an escape is carried out, with its line end.

    Help has :func:`help_text` and a change of verbosity :func:`log_level_text`; Rekey and
    CommandLine show nothing.
    """
    remarks: dict[type[Event], str] = {
        Disconnect: ".\r\n",
        Suspend: "^Z [suspend ssh]\r\n",
        SendBreak: "B\r\n",
        ListForwardings: "#\r\n",
        # The terminal has left raw mode by then.
        Background: "& [backgrounded]\n",
    }
    remark = remarks.get(type(event))
    return "" if remark is None else _shown(escape) + remark


def log_level_text(event: MoreVerbose | LessVerbose, escape: int, level: str) -> str:
    """Return what OpenSSH shows after ``~v`` and ``~V``; ``level`` is the new level's name."""
    return f"{_shown(escape)}{_LETTERS[type(event)]} [LogLevel {level}]\r\n"


def syslog_text(event: MoreVerbose | LessVerbose, escape: int) -> str:
    """Return what OpenSSH shows after ``~v`` and ``~V`` where messages go elsewhere than here."""
    return f"{_shown(escape)}{_LETTERS[type(event)]} [Logging to syslog]\r\n"


def unavailable_text(event: Event, escape: int) -> str:
    """Return what OpenSSH shows after an escape that a shared connection's session has not."""
    letter = _LETTERS[type(event)]
    return f"{_shown(escape)}{letter} escape not available to multiplexed sessions\r\n"


COMMAND_LINE_DISABLED = "commandline disabled\r\n"
"""What OpenSSH shows after ``~C`` unless EnableEscapeCommandline allows it."""


def _shown(escape: int) -> str:
    return bytes([escape]).decode("utf-8", "surrogateescape")
