"""The command line of ~C: lines that mean something, and what is refused in ssh's words.

tests/integration/test_escapes.py types the same into ssh.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsshpy.ssh.forward_command import (
    AddForward,
    CancelForward,
    Command,
    Nothing,
    Refused,
    RunLocally,
    ShowHelp,
    help_lines,
    parse_command,
)
from xsshpy.ssh.forward_spec import Forward, ForwardKind, TcpEndpoint, UnixEndpoint

LOCAL, REMOTE = ForwardKind.LOCAL, ForwardKind.REMOTE
ENVIRON = {"NAME": "db:5432"}

CASES: list[tuple[str, Command]] = [
    ("", Nothing()),
    (" \t-", Nothing()),
    ("-h", ShowHelp()),
    ("Hello", ShowHelp()),
    ("?", ShowHelp()),
    ("!ls -l", RunLocally("ls -l")),
    ("-!", RunLocally("")),
    ("x", Refused("Invalid command.")),
    ("--L1:a:1", Refused("Invalid command.")),
    ("-K", Refused("Invalid command.")),
    ("L1:a:2", AddForward(Forward(LOCAL, TcpEndpoint(None, 1), TcpEndpoint("a", 2)))),
    ("-L h:1:a:2", AddForward(Forward(LOCAL, TcpEndpoint("h", 1), TcpEndpoint("a", 2)))),
    (
        "-L [::1]:1:[::2]:2",
        AddForward(Forward(LOCAL, TcpEndpoint("::1", 1), TcpEndpoint("::2", 2))),
    ),
    ("-L :1:a:2", AddForward(Forward(LOCAL, TcpEndpoint("", 1), TcpEndpoint("a", 2)))),
    ("-L 1:/p", AddForward(Forward(LOCAL, TcpEndpoint(None, 1), UnixEndpoint("/p")))),
    ("-L h:1:/p", AddForward(Forward(LOCAL, TcpEndpoint("h", 1), UnixEndpoint("/p")))),
    ("-L /l:a:2", AddForward(Forward(LOCAL, UnixEndpoint("/l"), TcpEndpoint("a", 2)))),
    ("-L /l:/p", AddForward(Forward(LOCAL, UnixEndpoint("/l"), UnixEndpoint("/p")))),
    ("-L 1:${NAME}", AddForward(Forward(LOCAL, TcpEndpoint(None, 1), TcpEndpoint("db", 5432)))),
    ("-R 0:a:2", AddForward(Forward(REMOTE, TcpEndpoint(None, 0), TcpEndpoint("a", 2)))),
    ("-R 1", AddForward(Forward(ForwardKind.REMOTE_DYNAMIC, TcpEndpoint(None, 1), None))),
    ("-R /l", AddForward(Forward(ForwardKind.REMOTE_DYNAMIC, UnixEndpoint("/l"), None))),
    ("-D h:1", AddForward(Forward(ForwardKind.DYNAMIC, TcpEndpoint("h", 1), None))),
    ("-D /l", AddForward(Forward(ForwardKind.DYNAMIC, UnixEndpoint("/l"), None))),
    ("-KL 1", CancelForward(LOCAL, TcpEndpoint(None, 1))),
    ("KRh:1", CancelForward(REMOTE, TcpEndpoint("h", 1))),
    ("-KD /l", CancelForward(ForwardKind.DYNAMIC, UnixEndpoint("/l"))),
    ("-L 0:a:1", Refused("Bad local forwarding specification.")),
    ("-L 65536:a:1", Refused("Bad local forwarding specification.")),
    ("-L 1:a:0", Refused("Bad local forwarding specification.")),
    ("-L 1 :a:1", Refused("Bad local forwarding specification.")),
    ("-L 1:a", Refused("Bad local forwarding specification.")),
    ("-D 1:2:3", Refused("Bad local forwarding specification.")),
    (f"-L 1:/{'p' * 107}", Refused("Bad local forwarding specification.")),
    ("-R 1:a:nowhere", Refused("Bad remote forwarding specification.")),
    ("-KL 0", Refused("Bad forwarding close specification.")),
    ("-KL 1:a:1", Refused("Bad forwarding close specification.")),
    (
        "-L ${NO}1:a:1",
        Refused(
            "Bad local forwarding specification.",
            "vdollar_percent_expand: env var ${NO} has no value",
        ),
    ),
]


@pytest.mark.parametrize(("line", "command"), CASES, ids=[line for line, _ in CASES])
def test_lines(line: str, command: Command) -> None:
    assert parse_command(line, ENVIRON, permits_local_command=True) == command


def test_local_commands_need_leave() -> None:
    refused = parse_command("!ls", ENVIRON, permits_local_command=False)
    assert refused == Refused("Invalid command.")
    assert len(help_lines(permits_local_command=True)) == 8
    assert not any("!" in line for line in help_lines(permits_local_command=False))


@given(st.text(alphabet=st.sampled_from("-KLRDh!?[]:/\\\\*${}019ab \t\udcff"), max_size=30))
def test_any_line_means_something_or_is_refused(line: str) -> None:
    assert isinstance(parse_command(line, ENVIRON, permits_local_command=True), Command)
