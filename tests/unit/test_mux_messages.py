"""The messages of shared connections, byte by byte: PROTOCOL.mux, and OpenSSH's source."""

from __future__ import annotations

import pytest

from xsshpy.mux.messages import (
    MAX_FRAME,
    MAX_VARIABLES,
    NO_ESCAPE,
    PATH_PORT,
    Alive,
    AliveCheck,
    CloseForward,
    ExitMessage,
    Failure,
    FrameReader,
    Hello,
    MuxForwardKind,
    MuxProtocolError,
    NewSession,
    NewStdioForward,
    Ok,
    OpenForward,
    PermissionDenied,
    ProxyStarted,
    RemotePort,
    Reply,
    Request,
    SessionOpened,
    StartProxy,
    StopListening,
    Terminate,
    TtyAllocationFailed,
    UnknownReply,
    UnknownRequest,
    count_descriptors,
    decode_reply,
    decode_request,
    encode,
)


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def text(value: bytes) -> bytes:
    return words(len(value)) + value


REQUESTS: list[tuple[Request, bytes]] = [
    (Hello(), words(1, 4)),
    (Hello(4, (b"name", b"a\0value")), words(1, 4) + text(b"name") + text(b"a\0value")),
    (
        NewSession(7, b"", True, False, True, False, ord("~"), b"xterm", b"ls", (b"LANG=C", b"A=")),
        words(0x10000002, 7, 0, 1, 0, 1, 0, 126)
        + text(b"xterm")
        + text(b"ls")
        + text(b"LANG=C")
        + text(b"A="),
    ),
    (
        NewSession(0, subsystem=True, want_x11=True, command=b"sftp"),
        words(0x10000002, 0, 0, 0, 1, 0, 1, NO_ESCAPE, 0) + text(b"sftp"),
    ),
    (AliveCheck(3), words(0x10000004, 3)),
    (Terminate(3), words(0x10000005, 3)),
    (
        OpenForward(1, MuxForwardKind.LOCAL, b"*", 8080, b"/run/x", PATH_PORT),
        words(0x10000006, 1, 1) + text(b"*") + words(8080) + text(b"/run/x") + words(0xFFFFFFFE),
    ),
    (
        CloseForward(1, MuxForwardKind.DYNAMIC, b"", 1080, b"", 0),
        words(0x10000007, 1, 3, 0, 1080, 0, 0),
    ),
    (
        NewStdioForward(9, host=b"::1", port=22),
        words(0x10000008, 9, 0) + text(b"::1") + words(22),
    ),
    (StopListening(5), words(0x10000009, 5)),
    (StartProxy(5), words(0x1000000F, 5)),
]

REPLIES: list[tuple[Reply, bytes]] = [
    (Hello(), words(1, 4)),
    (Ok(1), words(0x80000001, 1)),
    (PermissionDenied(1, b"no"), words(0x80000002, 1) + text(b"no")),
    (Failure(1, b"no"), words(0x80000003, 1) + text(b"no")),
    (ExitMessage(2, 255), words(0x80000004, 2, 255)),
    (Alive(1, 4711), words(0x80000005, 1, 4711)),
    (SessionOpened(1, 2), words(0x80000006, 1, 2)),
    (RemotePort(1, 40000), words(0x80000007, 1, 40000)),
    (TtyAllocationFailed(2), words(0x80000008, 2)),
    (ProxyStarted(1), words(0x8000000F, 1)),
]


@pytest.mark.parametrize(("message", "body"), REQUESTS)
def test_requests_have_these_bytes(message: Request, body: bytes) -> None:
    assert encode(message) == text(body)
    decoded = decode_request(body)
    assert decoded == message
    assert type(decoded) is type(message)


@pytest.mark.parametrize(("message", "body"), REPLIES)
def test_replies_have_these_bytes(message: Reply, body: bytes) -> None:
    assert encode(message) == text(body)
    decoded = decode_reply(body)
    assert decoded == message
    assert type(decoded) is type(message)


@pytest.mark.parametrize(("message", "body"), REQUESTS)
def test_requests_that_end_early_are_refused(message: Request, body: bytes) -> None:
    for end in range(len(body)):
        try:
            shorter = decode_request(body[:end])
        except MuxProtocolError:
            continue
        # Only a list may be cut, and only between its entries.
        assert isinstance(shorter, NewSession | Hello)
        *heads, kept = vars(shorter).values()
        *wanted, whole = vars(message).values()
        assert heads == wanted
        assert kept == whole[: len(kept)]


@pytest.mark.parametrize(("message", "body"), REPLIES[1:])
def test_replies_that_end_early_are_refused(message: Reply, body: bytes) -> None:
    for end in range(len(body)):
        with pytest.raises(MuxProtocolError):
            decode_reply(body[:end])


def test_what_follows_the_last_field_is_passed_over() -> None:
    assert decode_request(words(0x10000004, 3) + b"later") == AliveCheck(3)
    assert decode_reply(words(0x80000001, 1) + b"later") == Ok(1)


def test_any_number_but_zero_is_a_true_flag() -> None:
    body = words(0x10000002, 0, 0, 2, 0xFFFFFFFF, 0, 0x100, NO_ESCAPE, 0, 0)
    assert decode_request(body) == NewSession(0, b"", True, True, False, True)


def test_a_string_may_end_in_a_nul_and_has_no_other() -> None:
    assert decode_reply(words(0x80000003, 1) + text(b"no\0")) == Failure(1, b"no")
    for bad in (b"n\0o", b"no\0\0"):
        with pytest.raises(MuxProtocolError, match="NUL"):
            decode_reply(words(0x80000003, 1) + text(bad))


def test_the_reserved_string_may_hold_anything() -> None:
    body = words(0x10000008, 1) + text(b"\0\0x") + text(b"host") + words(1)
    assert decode_request(body) == NewStdioForward(1, b"\0\0x", b"host", 1)


def test_only_so_many_variables_are_taken() -> None:
    many = (b"A=1",) * (MAX_VARIABLES + 5)
    frame = encode(NewSession(1, variables=many))[4:]
    decoded = decode_request(frame)
    assert isinstance(decoded, NewSession)
    assert len(decoded.variables) == MAX_VARIABLES


def test_unknown_kinds_are_told() -> None:
    assert decode_request(words(0x10000003, 8) + b"whatever") == UnknownRequest(8, 0x10000003)
    assert decode_reply(words(0x80001234)) == UnknownReply(0x80001234)
    assert decode_reply(words(0x10000004, 8)) == UnknownReply(0x10000004)
    with pytest.raises(MuxProtocolError):
        decode_request(words(0x10000003))


def test_descriptors_follow_two_requests() -> None:
    counts = {type(message).__name__: count_descriptors(message) for message, _ in REQUESTS}
    assert {name: n for name, n in counts.items() if n} == {"NewSession": 3, "NewStdioForward": 2}


def test_what_does_not_fit_is_not_sent() -> None:
    with pytest.raises(MuxProtocolError, match="too long"):
        encode(NewSession(1, command=bytes(b"x" * MAX_FRAME)))
    for number in (-1, 1 << 32):
        with pytest.raises(MuxProtocolError, match="out of range"):
            encode(AliveCheck(number))


def test_frames_come_out_however_they_are_cut() -> None:
    frames = [encode(message) for message, _ in REQUESTS]
    stream = b"".join(frames)
    for size in (1, 3, 7, len(stream)):
        reader, found = FrameReader(), []
        for start in range(0, len(stream), size):
            reader.receive_data(stream[start : start + size])
            while (frame := reader.next_frame()) is not None:
                found.append(frame)
        assert [decode_request(frame) for frame in found] == [message for message, _ in REQUESTS]
        assert reader.missing() == 4


def test_a_frame_that_is_too_long_is_refused_at_its_length() -> None:
    reader = FrameReader()
    reader.receive_data(words(MAX_FRAME + 1))
    for _ in range(2):
        with pytest.raises(MuxProtocolError, match="too long"):
            reader.next_frame()
        with pytest.raises(MuxProtocolError, match="too long"):
            reader.missing()
    reader = FrameReader()
    reader.receive_data(words(MAX_FRAME))
    assert reader.next_frame() is None


def test_who_reads_what_is_missing_reads_no_byte_too_many() -> None:
    stream, at, reader = encode(AliveCheck(1)) + b"\0\0\0", 0, FrameReader()
    while (frame := reader.next_frame()) is None:
        missing = reader.missing()
        assert missing > 0
        reader.receive_data(stream[at : at + missing])
        at += missing
    assert decode_request(frame) == AliveCheck(1)
    assert stream[at:] == b"\0\0\0"
