"""Much data at once: asyncssh's connection and channel with a short way for it.

asyncssh copies all that has arrived twice for each packet in it, sends an empty packet before each
packet, and makes a system call for each of them. Here packets that only carry data of a channel are
taken out of the buffer one after another, and what a channel sends is sealed without copies and
goes out together. Everything else, and whatever looks wrong, is left to asyncssh: nothing is
touched here before it is known to be data.

The short way in is for AES-GCM, whose packets show their length (RFC 5647 §7.2); for other ciphers
asyncssh gets the bytes in small portions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import asyncssh
from asyncssh.channel import SSHChannel
from asyncssh.constants import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_IGNORE,
    MSG_USERAUTH_REQUEST,
)
from asyncssh.crypto.cipher import GCMCipher
from asyncssh.encryption import GCMEncryption
from asyncssh.packet import SSHPacket, SSHPacketLogger, UInt32
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from xsshpy.ssh.window import ReceiveWindow

_LENGTH = 4
_TAG = 16
_DATA_HEAD = 10
"""Bytes before the data: padding length, packet type, channel, length of the data."""
_SMALLEST_BULK = 512
"""Bytes of a packet below which asyncssh's way is as good."""
_PORTION = 64 << 10


class _Sealing(GCMEncryption):
    """AES-GCM for what is sent, with the key set up once and not for each packet."""

    def __init__(self, cipher: GCMCipher) -> None:
        super().__init__(cipher)
        self._aead = AESGCM(cipher._key)

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        """Return the packet as it leaves; its tag is part of it."""
        cipher = self._cipher
        sealed = self._aead.encrypt(cipher._iv, packet, header)
        cipher._update_iv()
        return header + sealed, b""


class BulkConnection(asyncssh.SSHClientConnection):
    """An SSH connection that carries much data with little work."""

    _outgoing: list[bytes] | None = None
    _opener: tuple[GCMCipher, AESGCM] | None = None
    _requested = -math.inf
    round_trip = math.inf
    """Seconds that the quickest answer took: how far away the server is."""

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Take what arrived; a cipher of asyncssh's own way gets small portions to copy."""
        if len(data) <= _PORTION or isinstance(self._recv_encryption, GCMEncryption):
            super().data_received(data, datatype)
            return
        for start in range(0, len(data), _PORTION):
            super().data_received(data[start : start + _PORTION], datatype)

    def _recv_pkthdr(self) -> bool:
        """Take the data packets that have arrived, then begin with another one."""
        if isinstance(self._recv_encryption, GCMEncryption) and not self._decompressor:
            complete = self._take_bulk(self._recv_encryption._cipher)
            if not complete:
                return False
        return super()._recv_pkthdr()

    def _take_bulk(self, cipher: GCMCipher) -> bool:
        """Hand data packets on; tell whether the next packet is there and of another kind."""
        if self._opener is None or self._opener[0] is not cipher:
            self._opener = cipher, AESGCM(cipher._key)
        aead = self._opener[1]
        buffer = memoryview(self._inpbuf)
        start, complete = 0, True
        while True:
            size = int.from_bytes(buffer[start : start + _LENGTH], "big")
            end = start + _LENGTH + size + _TAG
            if end > len(buffer):
                # One that is too large is asyncssh's to refuse.
                complete = size > self._max_recv_pktlen
                break
            if size < _SMALLEST_BULK or not self._take_data(
                aead, cipher, buffer[start : start + _LENGTH], buffer[start + _LENGTH : end]
            ):
                break
            start = end
        if start:
            self._inpbuf = self._inpbuf[start:]
        return complete

    def _take_data(
        self, aead: AESGCM, cipher: GCMCipher, length: memoryview, sealed: memoryview
    ) -> bool:
        """Hand one packet to its channel, if it is data that the channel may be sent."""
        try:
            packet = aead.decrypt(cipher._iv, sealed, length)
        except InvalidTag:
            return False
        channel = self._channels.get(int.from_bytes(packet[2:6], "big"))
        data = packet[_DATA_HEAD : len(packet) - packet[0]]
        if (
            packet[1] != MSG_CHANNEL_DATA
            or channel is None
            or channel._recv_state != "open"
            or len(data) != int.from_bytes(packet[6:_DATA_HEAD], "big")
            or len(data) > channel._recv_window
        ):
            return False
        cipher._update_iv()
        self._auth_final = True
        self._recv_seq = (self._recv_seq + 1) & 0xFFFFFFFF
        channel._accept_data(data)
        return True

    def send_packet(
        self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None
    ) -> None:
        """Send a packet; without the empty one before it that only ciphers in CBC mode need."""
        if pkttype == MSG_USERAUTH_REQUEST:
            self._requested = self._loop.time()
        if type(self._send_encryption) is GCMEncryption:
            self._send_encryption = _Sealing(self._send_encryption._cipher)
        if pkttype != MSG_IGNORE or b"cbc" in self._enc_alg_cs:
            super().send_packet(pkttype, *args, handler=handler)

    def note_answer(self, asked: float) -> None:
        """Learn from the answer to a question, asked at ``asked`` by the loop's clock."""
        self.round_trip = min(self.round_trip, self._loop.time() - asked)

    def _process_userauth_failure(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        self.note_answer(self._requested)
        super()._process_userauth_failure(pkttype, pktid, packet)

    def _send(self, data: bytes) -> None:
        if self._outgoing is None:
            super()._send(data)
        else:
            self._outgoing.append(data)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let all packets that are sent meanwhile leave in one piece."""
        if self._outgoing is not None:
            yield
            return
        self._outgoing = []
        try:
            yield
        finally:
            data, self._outgoing = b"".join(self._outgoing), None
            if data:
                super()._send(data)


class BulkChannel(SSHChannel[bytes]):
    """Mixed into a channel of a BulkConnection: a window that grows with the distance."""

    _window: ReceiveWindow | None = None

    @property
    def _carrier(self) -> BulkConnection | None:
        assert self._conn is None or isinstance(self._conn, BulkConnection)
        return self._conn

    async def _open(self, chantype: bytes, *args: bytes) -> SSHPacket:
        """Open the channel, and learn how far away the server is. None of ours has more to say."""
        connection, asked = self._carrier, self._loop.time()
        packet = await super()._open(chantype, *args)
        if connection is not None and packet.get_remaining_payload():
            words = "Invalid open confirmation message"
            connection._force_close(asyncssh.ProtocolError(words))
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, words)
        if connection is not None:
            connection.note_answer(asked)
        return packet

    def _flush_send_buf(self) -> None:
        """Send what the server's window allows, in one piece."""
        with self._carrier.together() if self._carrier else contextlib.nullcontext():
            super()._flush_send_buf()

    def _deliver_data(self, data: bytes, datatype: int | None) -> None:
        """Pass data on, and let more come before asyncssh would: when half the window is used."""
        if self._window is None and self._carrier is not None:
            self._window = ReceiveWindow(self._carrier.round_trip, self._init_recv_window)
        if self._window is not None:
            self._window.take(len(data), self._loop.time())
            renewal = self._window.renewal(self._recv_window)
            if renewal:
                self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(renewal))
                self._recv_window += renewal
                self._init_recv_window = self._recv_window
        super()._deliver_data(data, datatype)
