"""X11 framing under any bytes and any cuts: only ProtocolError comes out, and no byte is lost."""

from __future__ import annotations

from functools import partial
from itertools import chain

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import xstreams as x
from xsshpy.remote.xextensions import HIDDEN_EXTENSIONS, ExtensionFilter, build_client_reader
from xsshpy.remote.xmessages import ByteOrder, ProtocolError, Raw, SetupReply, SetupRequest
from xsshpy.remote.xwire import ClientReader, ServerReader

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))

orders = st.sampled_from(ByteOrder)
cuts = st.lists(st.integers(0, 100_000), max_size=30)
names = st.sampled_from(
    [b"MIT-SHM", b"DRI3", b"XFree86-Bigfont", b"GLX", b"RENDER", b"MIT-SHMX", b""]
)


def joined(events: list[object]) -> bytes:
    return b"".join(e.data for e in events if not isinstance(e, SetupRequest))  # type: ignore[attr-defined]


def told(events: list[object]) -> list[str]:
    return [repr(event) for event in events if not isinstance(event, Raw)]


@st.composite
def client_streams(draw: st.DrawFn, order: ByteOrder) -> bytes:
    """Requests, some broken in their length."""
    one = st.one_of(
        st.builds(lambda name: x.query(order, name), names),
        st.builds(lambda name: x.long_request(order, 98, x.query_body(order, name)), names),
        st.just(x.request(order, x.LIST_EXTENSIONS)),
        st.builds(
            lambda opcode, size: x.request(order, opcode, b"r" * size),
            st.integers(0, 255),
            st.integers(0, 2000),
        ),
        st.builds(
            lambda opcode, size: x.long_request(order, opcode, b"l" * size),
            st.integers(0, 255),
            st.integers(0, 2000),
        ),
        st.binary(max_size=16),
    )
    return b"".join(draw(st.lists(one, max_size=12)))


@st.composite
def server_streams(draw: st.DrawFn, order: ByteOrder) -> bytes:
    """Messages, some broken in their length, with numbers that may go any way."""
    number = st.integers(0, 70_000)
    one = st.one_of(
        st.builds(lambda n: x.present(order, n), number),
        st.builds(lambda n: x.error(order, n, 98), number),
        st.builds(lambda n: x.event(order, 12, n), number),
        st.builds(
            lambda n, size: x.reply(order, n, b"", b"r" * (4 * size)), number, st.integers(0, 400)
        ),
        st.builds(
            lambda n, size: x.generic_event(order, n, b"g" * (4 * size)), number, st.integers(0, 9)
        ),
        st.just(x.keymap_notify()),
        st.binary(max_size=40),
    )
    return b"".join(draw(st.lists(one, max_size=12)))


@QUICK
@given(st.data(), orders, cuts, st.sets(st.integers(0, 255)), st.integers(8, 600), st.booleans())
def test_requests_are_the_same_in_any_pieces(data, order, places, inspected, whole, big):
    stream = data.draw(client_streams(order))

    def run(parts: list[bytes]) -> tuple[list[object], str | None, int]:
        reader = ClientReader(inspected, whole)
        x.read_all(reader, [x.setup(order)])
        if big:
            reader.enable_big_requests(1000)
        return (*x.read_all(reader, parts), reader.sequence)

    events, failure, sequence = run([stream])
    cut_events, cut_failure, cut_sequence = run(x.cut(stream, places))
    assert (cut_failure, cut_sequence) == (failure, sequence)
    assert joined(cut_events) == joined(events)
    assert stream.startswith(joined(events))
    assert told(cut_events) == told(events)


@QUICK
@given(st.data(), orders, cuts, st.booleans(), st.integers(32, 600))
def test_messages_are_the_same_in_any_pieces(data, order, places, inspect_all, whole):
    stream = x.setup_success(order) + data.draw(server_streams(order))
    awaited = sorted(data.draw(st.sets(st.integers(0, 70_000), max_size=5)))

    def run(parts: list[bytes]) -> tuple[list[object], str | None, int]:
        reader = ServerReader(order, inspect_all, whole)
        for number in awaited:
            reader.expect(number, lambda _, size: size == 32, number)
        return (*x.read_all(reader, parts), reader.sequence)

    events, failure, _ = run([stream])
    cut_events, cut_failure, _ = run(x.cut(stream, places))
    assert failure is cut_failure is None, "any bytes are messages, once the setup is over"
    assert joined(cut_events) == joined(events)
    assert stream.startswith(joined(events))
    assert told(cut_events) == told(events)


@QUICK
@given(st.binary(max_size=600), cuts)
def test_any_bytes_as_a_setup(data, places):
    makers = [ClientReader, *(partial(ServerReader, order) for order in ByteOrder)]
    for start in (b"", b"B", b"l"):
        for make in makers:
            events, failure = x.read_all(make(), [start + data])
            cut_events, cut_failure = x.read_all(make(), x.cut(start + data, places))
            assert cut_failure == failure
            assert told(cut_events) == told(events)
            assert not events or isinstance(events[0], (SetupRequest, SetupReply))


@QUICK
@given(st.data(), orders, st.lists(st.tuples(st.booleans(), st.binary(max_size=80)), max_size=20))
def test_the_filter_raises_nothing_else(data, order, noise):
    reader = build_client_reader()
    x.read_all(reader, [x.setup(order)])
    found = ExtensionFilter(reader)
    list(found.pass_to_client(x.setup_success(order)))
    noise.append((True, data.draw(client_streams(order))))
    noise.append((False, data.draw(server_streams(order))))
    try:
        for from_client, part in noise:
            list(found.pass_to_server(part) if from_client else found.pass_to_client(part))
    except ProtocolError:
        pass


@QUICK
@given(
    orders,
    st.lists(st.tuples(st.sampled_from(["query", "void", "reply", "list"]), names), max_size=60),
    st.integers(0, 1 << 18),
    cuts,
    cuts,
)
def test_only_hidden_answers_change(order, asked, silence, client_cuts, server_cuts):
    """A model of a server answers in order; the filter's output is what the model would hide."""
    requests, answers, expected = [], [], []
    for number, (kind, name) in enumerate(asked, silence + 1):
        if kind == "query":
            requests.append(x.query(order, name))
            answers.append(x.present(order, number))
            hidden = name in HIDDEN_EXTENSIONS
            expected.append(x.absent(order, number) if hidden else answers[-1])
        elif kind == "list":
            requests.append(x.request(order, x.LIST_EXTENSIONS))
            answers.append(x.names_reply(order, number, [b"GLX", name, b"DRI3"]))
            shown = [each for each in (b"GLX", name) if each not in HIDDEN_EXTENSIONS]
            expected.append(x.names_reply(order, number, shown))
        elif kind == "reply":
            requests.append(x.request(order, 43))
            answers.append(x.reply(order, number, b"focus", name.ljust(16, b"\1")))
            expected.append(answers[-1])
        else:
            requests.append(x.request(order, 127, name))
            answers.append(x.event(order, 12, number))
            expected.append(answers[-1])
    stream = x.request(order, 127) * silence + b"".join(requests)
    reader = build_client_reader()
    x.read_all(reader, [x.setup(order)])
    found = ExtensionFilter(reader)
    list(found.pass_to_client(x.setup_success(order)))
    parts = chain.from_iterable(found.pass_to_server(part) for part in x.cut(stream, client_cuts))
    assert b"".join(parts) == stream
    answered = x.cut(b"".join(answers), server_cuts)
    parts = chain.from_iterable(found.pass_to_client(part) for part in answered)
    assert b"".join(parts) == b"".join(expected)
