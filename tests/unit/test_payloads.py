"""What is in the frames about sessions, and how frames and messages show themselves in logs."""

from __future__ import annotations

import pytest

from xsshpy.remote.frames import Frame, FrameKind, LinkError
from xsshpy.remote.payloads import (
    build_admit,
    build_admitted,
    build_dismiss,
    name_authority,
    parse_admitted,
    parse_session,
)
from xsshpy.remote.xmessages import (
    NEED_DATA,
    Authorization,
    Message,
    Raw,
    Request,
    SetupReply,
    SetupStatus,
)


@pytest.mark.parametrize("session", [0, 7, 0xFFFF])
def test_sessions_travel(session: int) -> None:
    assert parse_session(build_admit(session)) == session
    assert parse_session(build_dismiss(session)) == session
    for written in (True, False):
        assert parse_admitted(build_admitted(session, written)) == (session, written)


@pytest.mark.parametrize("size", [0, 1, 4])
def test_sessions_of_another_length(size: int) -> None:
    with pytest.raises(LinkError, match="DISMISS"):
        parse_session(Frame(FrameKind.DISMISS, 0, bytes(size)))
    with pytest.raises(LinkError, match="ADMITTED"):
        parse_admitted(Frame(FrameKind.ADMITTED, 0, bytes(size)))


def test_each_session_has_a_file_of_its_own() -> None:
    assert [name_authority("/d/X", session) for session in (0, 3)] == ["/d/X", "/d/X-3"]


def test_what_a_log_may_show() -> None:
    assert repr(NEED_DATA) == "NEED_DATA"
    assert repr(Raw(b"secret")) == "Raw(6 bytes)"
    assert repr(Request(98, 7, 8, 4, b"secret")) == "Request(opcode=98, sequence=7, size=8)"
    assert repr(Message(1, 7, 32, b"secret", None)) == "Message(code=1, sequence=7, size=32)"
    refused = SetupReply(SetupStatus.FAILED, b"why", b"whole")
    assert repr(refused) == "SetupReply(FAILED, 5 bytes)"
    assert repr(Frame(FrameKind.DATA, 3, b"secret")) == "Frame(DATA, client=3, 6 bytes)"


def test_authorizations_compare_by_name_and_data() -> None:
    same = Authorization(b"a", b"b"), Authorization(b"a", b"b")
    assert len(set(same)) == 1
    assert Authorization(b"a", b"b") not in ("a", Authorization(b"a", b"c"))
