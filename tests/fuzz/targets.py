"""Every parser of bytes that others send, each as a function of bytes that raises nothing.

``scripts/fuzz`` lets atheris look for inputs that reach new code in them; what it found worth
keeping is in ``corpus``, a file for each parser, and is replayed by test_corpus.py.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import asyncssh

from tests.support import xstreams as x
from tests.support.pictures import put_image
from tests.support.xtalk import Talk, known_facts
from xsshpy.doctor.probes import read_object, read_program
from xsshpy.errors import DisplayError, SettingsError, UsageError
from xsshpy.mux.messages import FrameReader as MuxReader
from xsshpy.mux.messages import MuxProtocolError, decode_reply, decode_request
from xsshpy.remote import payloads
from xsshpy.remote.facts import parse_server_setup
from xsshpy.remote.frames import TO_AGENT, TO_LOCAL, Frame, FrameKind, FrameReader, LinkError
from xsshpy.remote.images import ImageDecoder, ImageEncoder
from xsshpy.remote.records import apply_record, parse_records
from xsshpy.remote.xextensions import ExtensionFilter, build_client_reader
from xsshpy.remote.xmessages import ByteOrder, ProtocolError
from xsshpy.remote.xwire import ClientReader, ServerReader
from xsshpy.settings import parse_keywords, parse_settings
from xsshpy.ssh.forward_command import parse_command
from xsshpy.ssh.forward_spec import parse_forward_options, parse_forwards, parse_stdio_forward
from xsshpy.ssh.hostkey_update import (
    AnnouncementError,
    HostSpec,
    parse_announcement,
    plan_update,
    rewrite_known_hosts,
)
from xsshpy.ssh.keyblob import HostCertificate, KeyBlobError, certificate_problem, parse_public_key
from xsshpy.ssh.keyfiles import import_key, parse_public_half
from xsshpy.ssh.known_hosts import KnownHosts, parse_known_hosts
from xsshpy.ssh.known_hosts_command import QuotesError, split_words
from xsshpy.ssh.krl import MAGIC, KrlError, parse_krl
from xsshpy.ssh.packet_log import PacketLog, Peer, Volume
from xsshpy.ssh.revoked_keys import RevokedKeysError, is_revoked
from xsshpy.ssh.socks import SocksError, SocksReader
from xsshpy.terminal.escapes import EscapeParser
from xsshpy.x11.agent_start import NoiseError, StageReader
from xsshpy.x11.authority import AuthorityError, parse_authority
from xsshpy.x11.display import parse_display
from xsshpy.x11.questions import ServerNames, build_request, parse_questions, recognise

MOST_BYTES = 4096
"""Longer inputs are not tried."""

_NAMES = ServerNames(1, 2, {"RENDER": 139, "RANDR": 140})


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split an input by itself: a length and a flag, so many bytes, and again."""
    while data:
        size, data = data[0] & 0x7F, data[1:]
        size = size * 4 if size > 64 else size
        yield data[0] & 1 if data else 0, data[:size]
        data = data[size:]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def authority(data: bytes) -> None:
    """An Xauthority file."""
    with contextlib.suppress(AuthorityError):
        parse_authority(data)


def display(data: bytes) -> None:
    """$DISPLAY."""
    with contextlib.suppress(DisplayError):
        parse_display(_text(data))


def escapes(data: bytes) -> None:
    """What is typed, in pieces."""
    parser = EscapeParser(0x7E)
    for _, piece in _pieces(data):
        list(parser.feed(piece))


def commands(data: bytes) -> None:
    """A line typed at the prompt of ``~C``."""
    parse_command(_text(data), {"A": "b"}, permits_local_command=True)


def forwards(data: bytes) -> None:
    """Forwards, as ``ssh -G`` prints them or as they are typed."""
    for keyword in ("localforward", "remoteforward", "dynamicforward"):
        with contextlib.suppress(SettingsError):
            parse_forwards({keyword: (_text(data),)})
    with contextlib.suppress(UsageError):
        parse_stdio_forward(_text(data), {"A": "b"})
    for keyword in ("permitremoteopen", "streamlocalbindmask"):
        with contextlib.suppress(SettingsError):
            parse_forward_options({keyword: (_text(data),)})


def socks(data: bytes) -> None:
    """A SOCKS client, in pieces."""
    reader = SocksReader()
    with contextlib.suppress(SocksError):
        for _, piece in _pieces(data):
            if reader.receive_data(piece) is not None:
                break
    reader.take_replies()
    reader.take_rest()


def settings(data: bytes) -> None:
    """What ``ssh -G`` prints."""
    text = _text(data).replace("\0", "")  # ssh prints none, as nothing that it reads can hold any
    parse_keywords(text)
    with contextlib.suppress(SettingsError):
        parse_settings(text, "host", {"A": "b", "HOME": "/h"})


def mux(data: bytes) -> None:
    """A control socket's client and its master."""
    for decode in (decode_request, decode_reply):
        with contextlib.suppress(MuxProtocolError):
            decode(data)
    reader = MuxReader()
    with contextlib.suppress(MuxProtocolError):
        for _, piece in _pieces(data):
            reader.receive_data(piece)
            while reader.next_frame() is not None:
                pass


_PARSERS: dict[FrameKind, Callable[[Frame], object]] = {
    FrameKind.OPEN: payloads.parse_open,
    FrameKind.POOL: payloads.parse_pool,
    FrameKind.CREDIT: payloads.parse_count,
    FrameKind.ACK: payloads.parse_count,
    FrameKind.NOTE: payloads.parse_text,
    FrameKind.CLOSE: payloads.parse_text,
    FrameKind.STATS: payloads.parse_stats,
}


def frames(data: bytes) -> None:
    """The agent's link, from either end."""
    for allowed in (TO_LOCAL, TO_AGENT):
        reader = FrameReader(allowed)
        with contextlib.suppress(LinkError):
            reader.receive_data(data)
            while isinstance(frame := reader.next_event(), Frame):
                parse = _PARSERS.get(frame.kind)
                if parse is not None:
                    parse(frame)
    for kind, parse in _PARSERS.items():
        with contextlib.suppress(LinkError):
            parse(Frame(kind, 1, data))


_PICTURE = put_image(ByteOrder.LITTLE, bytes(range(240)) * 5, 30, 10)


def images(data: bytes) -> None:
    """Compressed pictures, one after another."""
    encoder, decoder = ImageEncoder(ByteOrder.LITTLE), ImageDecoder()
    first = encoder.encode(_PICTURE)
    assert first is not None
    decoder.decode(first)
    for piece in (data, data[1:]):
        with contextlib.suppress(LinkError):
            decoder.decode(piece)


def records(data: bytes) -> None:
    """What the agent is told of the X server."""
    with contextlib.suppress(ProtocolError):
        facts = known_facts(ByteOrder.LITTLE)
        for record in parse_records(data):
            with contextlib.suppress(ProtocolError):
                recognise(record, _NAMES)
                apply_record(facts, record)


def setups(data: bytes) -> None:
    """An X server's answer to a client's setup."""
    for order in ByteOrder:
        with contextlib.suppress(ProtocolError):
            parse_server_setup(data, order)


def questions(data: bytes) -> None:
    """The file of questions that were asked before."""
    with contextlib.suppress(ValueError):
        for question in parse_questions(data.decode("utf-8")):
            build_request(question, _NAMES)


def xwire(data: bytes) -> None:
    """An X client and a server as the native relay sees them."""
    order = list(ByteOrder)[bool(data) and data[0] & 1]
    with contextlib.suppress(ProtocolError):
        x.read_all(ClientReader(), [data])
    with contextlib.suppress(ProtocolError):
        x.read_all(ServerReader(order), [data])
    reader = build_client_reader()
    x.read_all(reader, [x.setup(order)])
    found = ExtensionFilter(reader)
    list(found.pass_to_client(x.setup_success(order)))
    with contextlib.suppress(ProtocolError):
        for from_client, piece in _pieces(data[1:]):
            list((found.pass_to_server if from_client else found.pass_to_client)(piece))


def conversation(data: bytes) -> None:
    """An X client that the agent answers, and a server that answers as it likes."""
    talk = Talk(list(ByteOrder)[bool(data) and data[0] & 1]).talk
    with contextlib.suppress(ProtocolError):
        for from_client, piece in _pieces(data[1:]):
            (talk.receive_from_client if from_client else talk.receive_from_server)(piece[1:])
            talk.take_for_server()
            talk.take_for_client()


def requests(data: bytes) -> None:
    """An X client's requests, whole ones: the first byte of each four says how long it is."""
    talk = Talk(ByteOrder.LITTLE).talk
    with contextlib.suppress(ProtocolError):
        while len(data) >= 4:
            length = 1 + data[2] % 24
            body = data[4 : 4 * length].ljust(4 * length - 4, b"\0")
            talk.receive_from_client(data[:2] + length.to_bytes(2, "little") + body)
            data = data[4 * length :]
            talk.take_for_server()
            talk.take_for_client()


def stages(data: bytes) -> None:
    """What the other host prints while the agent starts."""
    reader = StageReader("n")
    with contextlib.suppress(NoiseError):
        reader.receive_message(data)
        for piece in (data + b"\n", *(b"xssh-agent n " + part for part in data.split(b"|"))):
            if not reader.is_ready:
                reader.receive_data(piece)
    assert all(line.isprintable() for line in reader.last_words)


def probes(data: bytes) -> None:
    """What the other host answers the doctor."""
    read_object(b"xssh-doctor n " + data, "n")
    read_object(data, "n")
    read_program(_text(data))


def host_keys(data: bytes) -> None:
    """A server's host key, and a certificate."""
    with contextlib.suppress(KeyBlobError):
        key = parse_public_key(data)
        key.plain.fingerprint("sha256")
        if isinstance(key, HostCertificate):
            certificate_problem(key, "h", 1.0, ["ssh-ed25519"])


def announcements(data: bytes) -> None:
    """The host keys that a server says it has."""
    with contextlib.suppress(AnnouncementError):
        parse_announcement(data, ())


def known_hosts(data: bytes) -> None:
    """A known_hosts file, read and rewritten."""
    lines = parse_known_hosts(data, "/kh")
    KnownHosts(lines=lines).lookup("h")
    plan_update((), lines, HostSpec("h", "1"))
    rewrite_known_hosts(data, "/kh", HostSpec("h", "1"), (), make_salt=None)


def revocations(data: bytes) -> None:
    """A list of revoked keys, of either format."""
    for start in (b"", MAGIC):
        with contextlib.suppress(KrlError):
            parse_krl(start + data)
    with contextlib.suppress(RevokedKeysError):
        is_revoked(_ed25519(), data)


@functools.cache
def _ed25519() -> Any:
    name, public = b"ssh-ed25519", bytes(range(32))
    return parse_public_key(
        b"".join(len(part).to_bytes(4, "big") + part for part in (name, public))
    )


def key_files(data: bytes) -> None:
    """A file that may hold a key."""
    parse_public_half(data)
    with contextlib.suppress(asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        import_key(asyncssh.import_private_key, data)


def words(data: bytes) -> None:
    """The words of KnownHostsCommand."""
    with contextlib.suppress(QuotesError):
        split_words(_text(data))


def packets(data: bytes) -> None:
    """Packets of a server, told to who asked for -vvv."""
    said: list[str] = []
    log = PacketLog(lambda _, text: said.append(text), Peer("h", 22, "u"), lambda: Volume(0, 0))
    for number, (sent, piece) in enumerate(itertools.islice(_pieces(data), 100)):
        if piece:
            (log.sent if sent else log.received)(number, piece)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        authority, display, escapes, commands, forwards, socks, settings, mux, frames, images,
        records, setups, questions, xwire, conversation, requests, stages, probes, host_keys,
        announcements, known_hosts, revocations, key_files, words, packets,
    )
}  # fmt: skip
