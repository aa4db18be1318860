"""The ~ escapes: a table of what ssh does, in every cut of the input, and ssh itself as oracle."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from dataclasses import FrozenInstanceError

import pytest

from xsshpy.terminal.escapes import (
    Background,
    CommandLine,
    Data,
    Disconnect,
    EscapeParser,
    Event,
    Help,
    LessVerbose,
    ListForwardings,
    MoreVerbose,
    Rekey,
    SendBreak,
    Suspend,
    echo_text,
    help_text,
    log_level_text,
    parse_escape_char,
    syslog_text,
    unavailable_text,
)

TILDE = ord("~")

CASES: list[tuple[bytes, list[Event]]] = [
    (b"", []),
    (b"ls\r", [Data(b"ls\r")]),
    (b"~.", [Disconnect()]),
    (b"~.more", [Disconnect()]),
    (b"a\r~.b", [Data(b"a\r"), Disconnect()]),
    (b"a\n~.", [Data(b"a\n"), Disconnect()]),
    (b"a~.", [Data(b"a~.")]),
    (b"~~", [Data(b"~")]),
    (b"~~.", [Data(b"~.")]),
    (b"~~\r~.", [Data(b"~\r"), Disconnect()]),
    (b"~x", [Data(b"~x")]),
    (b"~x~.", [Data(b"~x~.")]),
    (b"~\r~.", [Data(b"~\r"), Disconnect()]),
    (b"~\x00\xff", [Data(b"~\x00\xff")]),
    (b"~", []),
    (b"cd ~/x\r", [Data(b"cd ~/x\r")]),
    (b"~?~.", [Help(), Disconnect()]),
    (b"~?x~.", [Help(), Data(b"x~.")]),
    (b"\r~\x1a", [Data(b"\r"), Suspend()]),
    (b"~&x", [Background()]),
    (b"y\r~&~.", [Data(b"y\r"), Background()]),
    (
        b"~#~B~R~C~v~V",
        [ListForwardings(), SendBreak(), Rekey(), CommandLine(), MoreVerbose(), LessVerbose()],
    ),
    (b"~b~r~c", [Data(b"~b~r~c")]),
]


def normalised(events: list[Event]) -> list[Event]:
    joined: list[Event] = []
    for event in events:
        if isinstance(event, Data) and joined and isinstance(joined[-1], Data):
            joined[-1] = Data(joined[-1].data + event.data)
        else:
            joined.append(event)
    return joined


def fed(pieces: list[bytes], escape: int | None = TILDE) -> list[Event]:
    parser = EscapeParser(escape)
    return normalised([event for piece in pieces for event in parser.feed(piece)])


@pytest.mark.parametrize(("typed", "events"), CASES)
def test_whole(typed: bytes, events: list[Event]) -> None:
    assert EscapeParser(TILDE).feed(typed) == events


@pytest.mark.parametrize(("typed", "events"), CASES)
def test_byte_by_byte_and_in_every_cut(typed: bytes, events: list[Event]) -> None:
    assert fed([bytes([byte]) for byte in typed]) == events
    for first, second in itertools.combinations_with_replacement(range(len(typed) + 1), 2):
        assert fed([typed[:first], typed[first:second], typed[second:]]) == events


def test_without_escape_character_everything_is_data() -> None:
    assert fed([b"\r~.~~", b"~?"], None) == [Data(b"\r~.~~~?")]


def test_nothing_after_disconnect_not_even_later() -> None:
    parser = EscapeParser(TILDE)
    assert parser.feed(b"~.x") == [Disconnect()]
    assert parser.feed(b"more") == []


@pytest.mark.parametrize("code", [0, 1, 29, 36, 127, 233, 255])
def test_any_byte_can_be_the_escape_character(code: int) -> None:
    mark = bytes([code])
    assert fed([mark, b".x"], code) == [Disconnect()]
    assert fed([mark + mark], code) == [Data(mark)]
    assert fed([b"\r~." + mark], code) == [Data(b"\r~." + mark)]


def test_command_letter_wins_over_the_escape_character() -> None:
    assert fed([b".."], ord(".")) == [Disconnect()]


@pytest.mark.parametrize("code", [-1, 256])
def test_escape_character_is_one_byte(code: int) -> None:
    with pytest.raises(ValueError, match="one byte"):
        EscapeParser(code)


def test_events_are_values() -> None:
    with pytest.raises(FrozenInstanceError):
        Data(b"x").data = b"y"  # type: ignore[misc]
    assert len({Data(b"x"), Data(b"x"), Help()}) == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("~", 126),
        ("none", None),
        ("^A", 1),
        ("^a", 1),
        ("^[", 27),
        ("^]", 29),
        ("^@", 0),
        ("^", 94),
        (" ", 32),
        ("\\", 92),
        ("\x01", 1),
        ("\udce9", 233),
        ("\\^A", 1),
        ("\\^@", 0),
        ("\\^?", 127),
        ("\\040", 32),
        ("\\240", 160),
        ("\\\\", 92),
        ("\\M-i", 233),
        ("\\M^A", 129),
        ("\\M^?", 255),
    ],
)
def test_parse_escape_char(text: str, code: int | None) -> None:
    assert parse_escape_char(text) == code


@pytest.mark.parametrize(
    "text",
    ["", "~~", "None", "^?", "^ ", "^AB", "é", "\ud800", "\\x", "\\^a", "\\400", "\\08", "\\M",
     "\\M-", "\\M-é", "\\M-ab", "\\999", "\\-a", "no ne"],
)  # fmt: skip
def test_parse_escape_char_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="Bad escape character"):
        parse_escape_char(text)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh to compare with")
@pytest.mark.parametrize(
    "written",
    [b"~", b"none", b"^A", b"^a", b"^~", b"^@", b" ", b"\\", b"#", b"\x7f", b"\xe9", b"\x81",
     b"\xa0", b"\xff", b"^?", b"ab", b"\xc3\xa9"]
)  # fmt: skip
def test_reads_what_ssh_prints(written: bytes, tmp_path) -> None:
    answer = subprocess.run(
        [b"ssh", b"-F", b"/dev/null", b"-G", b"-e", written, b"host"],
        capture_output=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/local/bin"},
    )
    text = written.decode("utf-8", "surrogateescape")
    if answer.returncode != 0:
        with pytest.raises(ValueError, match="Bad escape"):
            parse_escape_char(text)
        return
    lines = answer.stdout.split(b"\n")
    printed = next(line[11:] for line in lines if line.startswith(b"escapechar "))
    expected = parse_escape_char(text)
    assert parse_escape_char(printed.decode("utf-8", "surrogateescape")) == expected


# What ssh 9.2 shows after ~? with -o EnableEscapeCommandline=yes.
SSH_HELP = (
    "~?\r\n"
    "Supported escape sequences:\r\n"
    " ~.   - terminate connection (and any multiplexed sessions)\r\n"
    " ~B   - send a BREAK to the remote system\r\n"
    " ~C   - open a command line\r\n"
    " ~R   - request rekey\r\n"
    " ~V/v - decrease/increase verbosity (LogLevel)\r\n"
    " ~^Z  - suspend ssh\r\n"
    " ~#   - list forwarded connections\r\n"
    " ~&   - background ssh (when waiting for connections to terminate)\r\n"
    " ~?   - this message\r\n"
    " ~~   - send the escape character by typing it twice\r\n"
    "(Note that escapes are only recognized immediately after newline.)\r\n"
)


def test_help_is_that_of_ssh() -> None:
    assert help_text(TILDE) == SSH_HELP


def test_help_leaves_out_what_is_hidden() -> None:
    lines = SSH_HELP.replace("~", "%").splitlines(keepends=True)
    shown = help_text(ord("%"), {CommandLine, LessVerbose})
    assert shown == "".join(line for line in lines if line[2:3] not in ("C", "V"))


def test_answers() -> None:
    assert echo_text(Disconnect(), TILDE) == "~.\r\n"
    assert echo_text(Suspend(), TILDE) == "~^Z [suspend ssh]\r\n"
    assert echo_text(Rekey(), TILDE) == ""
    assert log_level_text(LessVerbose(), TILDE, "QUIET") == "~V [LogLevel QUIET]\r\n"
    assert syslog_text(MoreVerbose(), TILDE) == "~v [Logging to syslog]\r\n"


def test_a_shared_session_has_fewer_escapes() -> None:
    shown = help_text(TILDE, shared=True)
    ending = "terminate connection (and any multiplexed sessions)"
    lines = SSH_HELP.replace(ending, "terminate session").splitlines(keepends=True)
    assert shown == "".join(line for line in lines if line[2:3] not in ("C", "V", "^", "&"))
    told = unavailable_text(CommandLine(), TILDE)
    assert told == "~C escape not available to multiplexed sessions\r\n"
