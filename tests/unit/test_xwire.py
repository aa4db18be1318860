"""Framing of X connections: whole, byte by byte, with more behind; both byte orders."""

from __future__ import annotations

import ast
import inspect
import struct
import tracemalloc

import pytest

from tests.support import xstreams as x
from xsshpy.remote import xextensions, xmessages, xwire
from xsshpy.remote.xmessages import (
    NEED_DATA,
    Authorization,
    ByteOrder,
    Message,
    ProtocolError,
    Raw,
    Request,
    SetupReply,
    SetupRequest,
    SetupStatus,
    build_setup_failed,
    widen_sequence,
)
from xsshpy.remote.xwire import AnswerTest, ClientReader, ServerReader

SIZES = (1, 3, 4, 7, 4096, 1 << 20)


@pytest.fixture(params=list(ByteOrder), ids=lambda order: order.name)
def order(request: pytest.FixtureRequest) -> ByteOrder:
    return request.param


def client(order: ByteOrder, **options: object) -> ClientReader:
    reader = ClientReader(**options)  # type: ignore[arg-type]
    reader.receive_data(x.setup(order))
    assert isinstance(reader.next_event(), SetupRequest)
    return reader


def server(order: ByteOrder, **options: object) -> ServerReader:
    reader = ServerReader(order, **options)  # type: ignore[arg-type]
    reader.receive_data(x.setup_success(order))
    assert isinstance(reader.next_event(), SetupReply)
    return reader


def any_reply(head: bytes, size: int) -> bool:
    return len(head) == 32


def longer_than(limit: int) -> AnswerTest:
    return lambda head, size: len(head) == 32 and size > limit


def bytes_of(events: list[object]) -> bytes:
    return b"".join(event.data for event in events)  # type: ignore[attr-defined]


# -- the client's setup --


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("trailing", [b"", b"\x7f", b"\x7f\0\1\0" * 5])
def test_setup_is_read_in_any_pieces(order, size, trailing):
    data = x.setup(order, Authorization(b"abcde", b"1234567"))
    if order is ByteOrder.BIG:
        trailing = trailing.replace(b"\0\1\0", b"\0\0\1")
    events, failure = x.read_all(ClientReader(()), x.pieces(data + trailing, size))
    assert failure is None
    found = events[0]
    assert isinstance(found, SetupRequest)
    assert (found.order, found.major, found.minor) == (order, 11, 0)
    assert found.authorization == Authorization(b"abcde", b"1234567")
    assert bytes_of(events[1:]) == (trailing if len(trailing) > 1 else b"")


def test_setup_without_authorization(order):
    events, _ = x.read_all(ClientReader(), [x.setup(order, Authorization(b"", b""))])
    assert events[0].authorization == Authorization(b"", b"")


@pytest.mark.parametrize("mark", [b"\0", b"L", b"b", b"\x16", b"G"])
def test_setup_without_byte_order_fails_at_its_first_byte(mark):
    reader = ClientReader()
    assert x.read_all(reader, [mark]) == ([], "connection setup begins with no byte order")
    assert reader.order is None


@pytest.mark.parametrize(("name", "data"), [(257, 0), (0, 257), (65535, 65535)])
def test_setup_with_long_authorization_fails_with_its_header(order, name, data):
    reader = ClientReader()
    head = struct.pack(order.value + "cxHHHHxx", order.mark, 11, 0, name, data)
    assert x.read_all(reader, [head])[1] == "authorization in the connection setup is too long"
    assert reader.order is order, "needed for an answer"


def test_setup_at_the_limit(order):
    longest = Authorization(b"n" * 256, b"d" * 256)
    events, failure = x.read_all(ClientReader(), x.pieces(x.setup(order, longest), 1))
    assert (events[0].authorization, failure) == (longest, None)


def test_a_failed_reader_stays_failed():
    reader = ClientReader()
    _, failure = x.read_all(reader, [b"?"])
    for call in (lambda: reader.receive_data(x.setup(ByteOrder.BIG)), reader.next_event):
        with pytest.raises(ProtocolError, match=str(failure)):
            call()


def test_secrets_are_not_shown():
    secret = Authorization(b"MIT-MAGIC-COOKIE-1", b"sesame")
    found = SetupRequest(ByteOrder.BIG, 11, 0, secret)
    assert "sesame" not in f"{secret!r} {found!r} {secret} {found}"


# -- requests --


@pytest.mark.parametrize("size", SIZES)
def test_requests_come_as_asked_for(order, size):
    stream = [
        x.request(order, 1, bytes(range(60))),
        x.query(order, b"SHAPE"),
        x.request(order, 127),
        x.query(order, b"RENDER"),
        x.request(order, 72, b"i" * 5000),
    ]
    reader = client(order, inspected=(98,), whole=64)
    events, failure = x.read_all(reader, x.pieces(b"".join(stream), size))
    assert failure is None
    assert bytes_of(events) == b"".join(stream)
    requests = [event for event in events if isinstance(event, Request)]
    assert [(r.sequence, r.opcode, r.data) for r in requests] == [
        (2, 98, stream[1]),
        (4, 98, stream[3]),
    ]
    assert requests[0].body == x.query_body(order, b"SHAPE") + bytes(3)
    assert reader.sequence == 5


@pytest.mark.parametrize("size", SIZES)
def test_all_requests_can_be_asked_for(order, size):
    stream = [x.request(order, opcode, b"b" * (opcode * 3)) for opcode in range(1, 100)]
    reader = client(order, whole=128)
    events, failure = x.read_all(reader, x.pieces(b"".join(stream), size))
    assert failure is None
    assert bytes_of(events) == b"".join(stream)
    requests = [event for event in events if isinstance(event, Request)]
    assert [r.sequence for r in requests] == list(range(1, 100))
    assert [r.size for r in requests] == [len(data) for data in stream]
    for found, data in zip(requests, stream, strict=True):
        assert len(found.data) >= min(len(data), 128)
        assert data.startswith(found.data)


def test_inspect_takes_effect_for_the_next_request(order):
    reader = client(order, inspected=())
    reader.receive_data(x.request(order, 140) + x.request(order, 141))
    assert isinstance(reader.next_event(), Raw)
    reader.inspect(140)
    reader.receive_data(x.request(order, 140))
    assert isinstance(reader.next_event(), Request)
    assert reader.sequence == 3


def test_length_0_without_big_requests_fails_after_what_came_before(order):
    before = x.request(order, 127) * 3
    hostile = before + x.long_request(order, 98, x.query_body(order, b"MIT-SHM"))
    for size in SIZES:
        events, failure = x.read_all(client(order), x.pieces(hostile, size))
        assert failure == "request of length 0 without BIG-REQUESTS"
        assert bytes_of(events) == before


@pytest.mark.parametrize("size", SIZES)
def test_long_requests(order, size):
    image = x.long_request(order, 72, bytes(range(256)) * 200)
    stream = image + x.long_request(order, 98, x.query_body(order, b"DRI3")) + x.request(order, 99)
    reader = client(order, inspected=(98, 99))
    reader.enable_big_requests(4194303)
    events, failure = x.read_all(reader, x.pieces(stream, size))
    assert failure is None
    assert bytes_of(events) == stream
    requests = [event for event in events if isinstance(event, Request)]
    assert [(r.opcode, r.sequence, r.header_size) for r in requests] == [(98, 2, 8), (99, 3, 4)]
    assert requests[0].body == x.query_body(order, b"DRI3")


@pytest.mark.parametrize("units", [0, 1, 0x400001, 0x40000002, 0xFFFFFFFF])
def test_impossible_long_lengths(order, units):
    """A server that multiplies 0x40000002 by four in 32 bits would read a request of 8 bytes."""
    reader = client(order, inspected=())
    reader.enable_big_requests(0x400000)
    hostile = struct.pack(order.value + "BBHI", 127, 0, 0, units)
    events, failure = x.read_all(reader, [hostile + x.query(order, b"MIT-SHM")])
    assert (events, failure) == ([], "request with an impossible long length")


def test_a_stated_maximum_is_not_believed_beyond_reason(order):
    reader = client(order, inspected=())
    reader.enable_big_requests(0xFFFFFFFF)
    hostile = struct.pack(order.value + "BBHI", 127, 0, 0, 0x40000002)
    assert x.read_all(reader, [hostile])[1] == "request with an impossible long length"


def test_images_are_not_gathered(order):
    reader = client(order)
    reader.enable_big_requests(0x400000)
    chunk = bytes(1 << 18)
    reader.receive_data(struct.pack(order.value + "BBHI", 72, 2, 0, 0x400000) + chunk)
    tracemalloc.start()
    try:
        held = 0
        for _ in range(63):
            while reader.next_event() is not NEED_DATA:
                pass
            reader.receive_data(chunk)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 65536


def test_a_body_passes_without_a_copy(order):
    reader = client(order)
    reader.enable_big_requests(0x400000)
    reader.receive_data(struct.pack(order.value + "BBHI", 72, 2, 0, 0x400000) + bytes(65536))
    assert isinstance(reader.next_event(), Request)
    chunk = bytes(1 << 18)
    reader.receive_data(chunk)
    found = reader.next_event()
    assert isinstance(found, Raw)
    assert found.data is chunk


# -- the server --


@pytest.mark.parametrize("size", SIZES)
def test_setup_success(order, size):
    data = x.setup_success(order, 20000)
    events, failure = x.read_all(ServerReader(order), x.pieces(data, size))
    assert failure is None
    assert [(e.status, e.data) for e in events] == [(SetupStatus.SUCCESS, data)]


@pytest.mark.parametrize("size", SIZES)
def test_setup_failed(order, size):
    data = build_setup_failed(order, b"xssh: no\n")
    events, failure = x.read_all(ServerReader(order), x.pieces(data, size))
    assert failure is None
    assert [(e.status, e.reason) for e in events] == [(SetupStatus.FAILED, b"xssh: no\n")]


def test_setup_failed_is_what_the_specification_says():
    assert build_setup_failed(ByteOrder.BIG, b"abcde") == b"\0\5\0\x0b\0\0\0\2abcde\0\0\0"
    assert build_setup_failed(ByteOrder.LITTLE, b"abcd") == b"\0\4\x0b\0\0\0\1\0abcd"
    assert len(build_setup_failed(ByteOrder.BIG, b"a" * 300)) == 8 + 256


def test_setup_authenticate_and_nothing_after_it(order):
    data = struct.pack(order.value + "B5xH", 2, 2) + b"why\0\0\0\0\0"
    events, failure = x.read_all(ServerReader(order), [data, b"more"])
    assert [(e.status, e.reason) for e in events] == [(SetupStatus.AUTHENTICATE, b"why")]
    assert failure == "the server goes on after it refused the connection"


def test_setup_with_unknown_status(order):
    assert x.read_all(ServerReader(order), [b"\3"])[1] is not None


def messages(order: ByteOrder) -> list[bytes]:
    return [
        x.event(order, 12, 1),
        x.reply(order, 2, b"body", b"e" * 400),
        x.keymap_notify(),
        x.error(order, 3, 2),
        x.generic_event(order, 4, b"g" * 40),
        x.generic_event(order, 4, b"s" * 8, sent=True),
        x.event(order, 0x80 | 33, 4),
        x.reply(order, 5),
        x.reply(order, 6, b"", b"i" * 100000),
        x.keymap_notify(b"\1"),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_all_messages_can_be_asked_for(order, size):
    stream = messages(order)
    reader = server(order, inspect_all=True, whole=1024)
    events, failure = x.read_all(reader, x.pieces(b"".join(stream), size))
    assert failure is None
    assert bytes_of(events) == b"".join(stream)
    found = [event for event in events if isinstance(event, Message)]
    assert [(m.code, m.sequence, m.size) for m in found] == [
        (12, 1, 32),
        (1, 2, 432),
        (11, 2, 32),
        (0, 3, 32),
        (35, 4, 72),
        (0x80 | 35, 4, 40),
        (0x80 | 33, 4, 32),
        (1, 5, 32),
        (1, 6, 100032),
        (11, 6, 32),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_only_awaited_answers_come_by_themselves(order, size):
    stream = messages(order)
    reader = server(order)
    reader.expect(2, longer_than(32), "long")
    reader.expect(3, any_reply, "an error is none")
    reader.expect(5, any_reply, "short")
    events, failure = x.read_all(reader, x.pieces(b"".join(stream), size))
    assert failure is None
    assert bytes_of(events) == b"".join(stream)
    found = [event for event in events if isinstance(event, Message)]
    assert [(m.sequence, m.data, m.purpose) for m in found] == [
        (2, stream[1], "long"),
        (5, stream[7], "short"),
    ]


def test_an_event_with_the_awaited_number_is_no_answer(order):
    reader = server(order)
    reader.expect(7, any_reply, "mine")
    stream = x.event(order, 12, 7) + x.generic_event(order, 7, b"abcd") + x.present(order, 7)
    events, _ = x.read_all(reader, [stream])
    assert [type(event) for event in events] == [Raw, Message]
    assert events[1].data == x.present(order, 7)


def test_an_answer_that_never_came_is_forgotten(order):
    reader = server(order)
    reader.expect(1, any_reply, "lost")
    reader.expect(3, any_reply, "found")
    events, _ = x.read_all(reader, [x.reply(order, 2) + x.reply(order, 3)])
    assert [event.purpose for event in events if isinstance(event, Message)] == ["found"]


@pytest.mark.parametrize("gap", [65535, 65536, 65537, 1 << 17, 300_000])
def test_an_answer_is_found_after_a_long_silence(order, gap):
    """Requests without replies tell nothing, so the server's 16 bits may have wrapped often."""
    reader = server(order)
    x.read_all(reader, [x.event(order, 12, 5)])
    reader.expect(5 + gap, any_reply, "mine")
    events, _ = x.read_all(reader, [x.present(order, 5 + gap) + x.event(order, 12, 6 + gap)])
    assert [type(event) for event in events] == [Message, Raw]
    assert events[0].sequence == 5 + gap
    assert reader.sequence == 6 + gap


def test_sequence_numbers_do_not_wrap(order):
    reader = server(order, inspect_all=True)
    wanted = list(range(0, 400_000, 30_011))
    events, _ = x.read_all(reader, [x.reply(order, number) for number in wanted])
    assert [event.sequence for event in events] == wanted


def test_the_reply_to_a_request_65536_earlier(order):
    reader = server(order)
    reader.expect(70_000, longer_than(32), "mine")
    reader.expect(70_001, longer_than(32), "too")
    reader.expect(70_000 + 65_536, longer_than(32), "same number")
    earlier = x.reply(order, 70_000 - 65_536) + x.error(order, 70_000 - 65_536, 98)
    answers = [x.reply(order, n, b"", b"long") for n in (70_000, 70_001, 70_000 + 65_536)]
    events, _ = x.read_all(reader, [earlier + b"".join(answers)])
    assert [event.data for event in events] == [earlier, *answers]
    assert [event.purpose for event in events[1:]] == ["mine", "too", "same number"]


def test_too_many_awaited_answers(order):
    reader = server(order)
    for number in range(xwire.MAX_AWAITED):
        reader.expect(number + 1, any_reply, None)
    with pytest.raises(ProtocolError):
        reader.expect(xwire.MAX_AWAITED + 1, any_reply, None)


@pytest.mark.parametrize(
    ("last", "low", "wide"),
    [
        (0, 0, 0),
        (0, 5, 5),
        (5, 5, 5),
        (65_535, 0, 65_536),
        (6, 5, 65_541),
        (200_000, 3_391, 200_000 - 1 + 65_536),
    ],
)
def test_widen_sequence(last, low, wide):
    assert widen_sequence(last, low) == wide


def test_limits_are_checked():
    for whole in (7, 4194305):
        with pytest.raises(ValueError):
            ClientReader(whole=whole)
    for whole in (31, 262145):
        with pytest.raises(ValueError):
            ServerReader(ByteOrder.BIG, whole=whole)


@pytest.mark.parametrize("module", [xmessages, xwire, xextensions])
def test_the_other_host_may_have_python_3_6(module):
    source = inspect.getsource(module)
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {
        (node.module or "").partition(".")[0] if isinstance(node, ast.ImportFrom) else name.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
        if not getattr(node, "level", 0)
    }
    assert imported <= {"struct", "enum", "typing", "collections"}


def test_a_failed_reader_of_the_server_stays_failed(order):
    reader = ServerReader(order)
    with pytest.raises(ProtocolError):
        reader.receive_data(b"\x09" + bytes(7))
        reader.next_event()
    with pytest.raises(ProtocolError):
        reader.next_event()
    with pytest.raises(ProtocolError):
        reader.receive_data(b"")


def test_what_arrives_before_the_rest_was_read_is_not_lost(order):
    reader = ServerReader(order)
    whole = x.setup_success(order)
    for part in x.pieces(whole, 3):
        reader.receive_data(part)
    setup = reader.next_event()
    assert isinstance(setup, SetupReply)
    assert setup.data == whole
