"""Hidden extensions: what changes on the way, and that nothing else does."""

from __future__ import annotations

import struct

import pytest

from tests.support import xstreams as x
from xsshpy.remote.xextensions import (
    HIDDEN_EXTENSIONS,
    ExtensionFilter,
    build_client_reader,
    hide_listed_extensions,
    parse_extension_list,
)
from xsshpy.remote.xmessages import ByteOrder, ProtocolError

BIG_REQUESTS_OPCODE = 133
NAMES = [b"GLX", b"MIT-SHM", b"RENDER", b"DRI3", b"XFree86-Bigfont", b"BIG-REQUESTS"]


@pytest.fixture(params=list(ByteOrder), ids=lambda order: order.name)
def order(request: pytest.FixtureRequest) -> ByteOrder:
    return request.param


def build_filter(order: ByteOrder, **options: object) -> ExtensionFilter:
    reader = build_client_reader()
    reader.receive_data(x.setup(order))
    reader.next_event()
    return ExtensionFilter(reader, **options)  # type: ignore[arg-type]


def started(order: ByteOrder, **options: object) -> ExtensionFilter:
    found = build_filter(order, **options)
    assert to_client(found, x.setup_success(order)) == x.setup_success(order)
    return found


def to_server(found: ExtensionFilter, data: bytes, size: int = 1 << 20) -> bytes:
    return b"".join(b"".join(found.pass_to_server(part)) for part in x.pieces(data, size))


def to_client(found: ExtensionFilter, data: bytes, size: int = 1 << 20) -> bytes:
    return b"".join(b"".join(found.pass_to_client(part)) for part in x.pieces(data, size))


def enable_big_requests(found: ExtensionFilter, order: ByteOrder, first: int = 1) -> None:
    asked = x.query(order, b"BIG-REQUESTS")
    assert to_server(found, asked) == asked
    answer = x.present(order, first, BIG_REQUESTS_OPCODE)
    assert to_client(found, answer) == answer
    asked = x.request(order, BIG_REQUESTS_OPCODE)
    assert to_server(found, asked) == asked
    answer = x.reply(order, first + 1, struct.pack(order.value + "I", 4194303))
    assert to_client(found, answer) == answer


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_hidden_queries_among_thousands(order, size):
    asked, answered, expected = [], [], []
    for number in range(1, 5001):
        if number % 3 == 0:
            asked.append(x.request(order, x.NO_OPERATION, b"noop" * (number % 5)))
        elif number % 7 == 0:
            name = NAMES[number % len(NAMES)]
            asked.append(x.query(order, name))
            answered.append(x.present(order, number))
            hidden = name in HIDDEN_EXTENSIONS
            expected.append(x.absent(order, number) if hidden else answered[-1])
        else:
            asked.append(x.request(order, 43))
            answered += [x.reply(order, number, b"focus"), x.event(order, 12, number)]
            expected += answered[-2:]
    found = started(order)
    assert to_server(found, b"".join(asked), size) == b"".join(asked)
    assert to_client(found, b"".join(answered), size) == b"".join(expected)
    assert expected != answered


def test_only_the_answer_itself_changes(order):
    found = started(order)
    to_server(found, x.query(order, b"MIT-SHM"))
    answer = bytearray(x.present(order, 1))
    answer[1] = 0xAA
    answer[12:] = b"\xbb" * 20
    expected = bytes(answer[:8]) + bytes(4) + bytes(answer[12:])
    assert to_client(found, bytes(answer)) == expected


@pytest.mark.parametrize("name", [b"MIT-SHM ", b"mit-shm", b"MIT-SH", b"MIT-SHM\0", b""])
def test_other_names_stay(order, name):
    found = started(order)
    to_server(found, x.query(order, name))
    assert to_client(found, x.present(order, 1)) == x.present(order, 1)


@pytest.mark.parametrize("size", [1, 33, 1 << 20])
def test_a_list_of_extensions(order, size):
    found = started(order)
    to_server(found, x.request(order, x.LIST_EXTENSIONS))
    shown = [name for name in NAMES if name not in HIDDEN_EXTENSIONS]
    following = x.event(order, 12, 1)
    answer = to_client(found, x.names_reply(order, 1, NAMES) + following, size)
    assert answer == x.names_reply(order, 1, shown) + following


def test_a_list_without_hidden_ones_is_unchanged(order):
    answer = bytearray(x.names_reply(order, 1, [b"GLX", b"X"]))
    answer[-1:] = b"\xee"  # what fills it up
    assert hide_listed_extensions(bytes(answer), order, HIDDEN_EXTENSIONS) == bytes(answer)


def test_the_longest_list(order):
    names = [b"%0255d" % number for number in range(254)] + [b"DRI3"]
    found = started(order)
    to_server(found, x.request(order, x.LIST_EXTENSIONS))
    answer = to_client(found, x.names_reply(order, 1, names))
    assert parse_extension_list(answer) == names[:-1]


@pytest.mark.parametrize("count", [30, 5, 1])
def test_what_is_not_a_list_stays_as_it_is(order, count):
    found = started(order)
    to_server(found, x.request(order, x.LIST_EXTENSIONS))
    broken = bytearray(x.names_reply(order, 1, NAMES))
    broken[1] = count
    assert to_client(found, bytes(broken)) == bytes(broken)


def test_an_error_answers_and_stays(order):
    found = started(order)
    to_server(found, x.query(order, b"DRI3") + x.query(order, b"GLX"))
    answers = x.error(order, 1, x.QUERY_EXTENSION, 16) + x.present(order, 2)
    assert to_client(found, answers) == answers


def test_lengths_that_contradict_each_other(order):
    """The server answers with BadLength; if one did not, the name would still be hidden."""
    found = started(order)
    to_server(found, x.request(order, 98, x.query_body(order, b"DRI3") + bytes(4000)))
    to_server(found, x.request(order, 98, struct.pack(order.value + "Hxx", 5000) + b"DRI3"))
    to_server(found, x.request(order, 98))
    answers = [x.present(order, 1), x.present(order, 2), x.present(order, 3)]
    assert to_client(found, b"".join(answers)) == b"".join([x.absent(order, 1), *answers[1:]])


def test_after_65536_requests(order):
    found = started(order)
    many = x.request(order, x.NO_OPERATION) * 70_000
    assert to_server(found, many) == many
    to_server(found, x.query(order, b"MIT-SHM") + x.query(order, b"GLX"))
    answers = x.present(order, 70_001) + x.present(order, 70_002)
    assert to_client(found, answers) == x.absent(order, 70_001) + x.present(order, 70_002)


def test_with_65536_replies_outstanding(order):
    """Numbers repeat; what is no answer to the query stays as it is, root window and all."""
    found = started(order)
    focus = x.request(order, 43)
    to_server(found, focus * 70_000 + x.query(order, b"MIT-SHM") + x.query(order, b"DRI3"))
    answers = b"".join(
        x.reply(order, n, struct.pack(order.value + "I", 0x50D)) for n in range(1, 70_001)
    )
    assert to_client(found, answers) == answers
    last = x.present(order, 70_001) + x.present(order, 70_002)
    assert to_client(found, last) == x.absent(order, 70_001) + x.absent(order, 70_002)


def test_an_absent_extension_does_not_confuse_the_next_query(order):
    found = started(order)
    to_server(found, x.request(order, x.NO_OPERATION) * 70_000)
    to_server(found, x.query(order, b"DRI3") + x.query(order, b"MIT-SHM"))
    answers = x.absent(order, 70_001) + x.present(order, 70_002)
    assert to_client(found, answers) == x.absent(order, 70_001) + x.absent(order, 70_002)


def test_a_long_request_hides_nothing(order):
    found = started(order)
    enable_big_requests(found, order)
    image = x.long_request(order, 72, b"\x62" * 300_000)
    asked = image + x.long_request(order, 98, x.query_body(order, b"MIT-SHM"))
    assert to_server(found, asked, 4096) == asked
    assert to_client(found, x.present(order, 4)) == x.absent(order, 4)


def test_big_requests_count_only_once_the_server_agreed(order):
    hostile = x.long_request(order, 127, x.query(order, b"MIT-SHM"))
    found = started(order)
    to_server(found, x.query(order, b"BIG-REQUESTS"))
    to_client(found, x.present(order, 1, BIG_REQUESTS_OPCODE))
    to_server(found, x.request(order, BIG_REQUESTS_OPCODE, b"junk"))  # BadLength: not enabled
    to_client(found, x.error(order, 2, BIG_REQUESTS_OPCODE, 16))
    with pytest.raises(ProtocolError):
        to_server(found, hostile)
    found = started(order)
    to_server(found, x.query(order, b"BIG-REQUESTS"))
    to_client(found, x.absent(order, 1))
    to_server(found, x.request(order, BIG_REQUESTS_OPCODE))
    to_client(found, x.reply(order, 2, b"\xff" * 24))
    with pytest.raises(ProtocolError):
        to_server(found, hostile)


def test_other_minor_opcodes_of_big_requests_enable_nothing(order):
    found = started(order)
    to_server(found, x.query(order, b"BIG-REQUESTS"))
    to_client(found, x.present(order, 1, BIG_REQUESTS_OPCODE))
    to_server(found, x.request(order, BIG_REQUESTS_OPCODE, minor=1))
    to_client(found, x.reply(order, 2, b"\0\0\1\0" * 6))
    with pytest.raises(ProtocolError):
        to_server(found, x.long_request(order, 127))


def test_a_malformed_confirmation_enables_nothing(order):
    found = started(order)
    to_server(found, x.query(order, b"BIG-REQUESTS"))
    to_client(found, x.present(order, 1, BIG_REQUESTS_OPCODE))
    to_server(found, x.request(order, BIG_REQUESTS_OPCODE, b"junk"))
    to_client(found, x.reply(order, 2, b"\0\0\1\0" * 6))
    with pytest.raises(ProtocolError):
        to_server(found, x.long_request(order, 127))


def test_a_list_with_65536_replies_outstanding(order):
    found = started(order)
    asked = x.request(order, 20) * 65_536 + x.request(order, x.LIST_EXTENSIONS)
    to_server(found, asked)
    earlier = x.reply(order, 1, b"", b"the value of a property.", one=32)
    assert to_client(found, earlier) == earlier
    answer = to_client(found, x.names_reply(order, 65_537, NAMES))
    assert not HIDDEN_EXTENSIONS & set(parse_extension_list(answer))


def test_a_client_may_ask_as_often_as_it_likes_if_it_waits(order):
    found = started(order)
    for number in range(1, 20_001):
        to_server(found, x.query(order, b"DRI3"))
        answer = x.present if number % 2 else x.absent
        assert to_client(found, answer(order, number)) == x.absent(order, number)


def test_a_client_may_not_ask_without_end(order):
    found = started(order)
    with pytest.raises(ProtocolError):
        to_server(found, x.query(order, b"DRI3") * 100_000)


def test_what_is_hidden_can_be_chosen(order):
    found = started(order, hidden=frozenset((b"GLX",)))
    to_server(found, x.query(order, b"GLX") + x.query(order, b"DRI3"))
    answers = x.present(order, 1) + x.present(order, 2)
    assert to_client(found, answers) == x.absent(order, 1) + x.present(order, 2)
    with pytest.raises(ValueError):
        build_filter(order, hidden=frozenset((b"x" * 501,)))


def test_a_setup_must_have_been_read():
    with pytest.raises(ValueError):
        ExtensionFilter(build_client_reader())
