"""asyncssh's client connection, watched: what passes is counted and told, and keys are renewed.

asyncssh exchanges keys anew after so many bytes sent. RFC 4253 §9 and ssh's RekeyLimit count both
ways, and its time limit is kept by a connection that nothing is sent over, too.

What a server can make this side keep has limits here that asyncssh lacks: what a packet unfolds to
when it is decompressed, and what waits to be sent to a server that asks and does not read.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable

import asyncssh
from asyncssh.compression import Decompressor
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from asyncssh.logging import SSHLogger
from asyncssh.packet import SSHPacketLogger

from xsshpy.ssh.bulk import BulkConnection
from xsshpy.ssh.packet_log import PacketLog, Volume, block_size, most_blocks

MOST_UNSENT = 64 << 20
"""Bytes that may wait to be sent. Whoever feeds a connection pauses long before."""

_MOST_UNFOLDED = 1 << 20
"""Bytes of a packet when it is decompressed; RFC 4253 §6.1 allows 32,768, ssh sends up to 2^18."""

_PACKET_COST = 200
"""Bytes that a packet costs that waits for the end of a key exchange, besides its own."""

_GROUP_SIZES = range(2048, 8192 + 1)
"""Bits of a group that a server may choose (RFC 4419), as in ssh."""

_DATA = (MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA)
_PACKAGE_LOGGER = logging.getLogger("asyncssh")
# Python prints warnings of loggers that nobody configured: stderr is for xssh's own messages.
_PACKAGE_LOGGER.addHandler(logging.NullHandler())

Watcher = Callable[[bool, int, bytes], None]
"""Gets (whether it was sent, its number, its payload) of each packet."""


class _BoundedDecompressor(Decompressor):
    """zlib, but a packet that unfolds to far more than packets may hold is damaged."""

    def __init__(self) -> None:
        self._inflating = zlib.decompressobj()

    def decompress(self, data: bytes) -> bytes | None:
        """Return the packet, None for one that is none."""
        try:
            unfolded = self._inflating.decompress(data, _MOST_UNFOLDED)
        except zlib.error:
            return None
        return unfolded if len(unfolded) < _MOST_UNFOLDED else None


class _PacketTap(SSHLogger):
    """The logger that asyncssh shows every packet to, decrypted: here it goes to a watcher."""

    def __init__(self, parent: logging.Logger, context: str, watcher: Watcher) -> None:
        super().__init__(parent, "", context)
        self._watcher = watcher

    def get_child(self, child: str = "", context: str = "") -> SSHLogger:
        """Return the logger of a part of the connection, with the same watcher."""
        return _PacketTap(self.logger, self._extend_context(context), self._watcher)

    def log(self, level: int, msg: object, *args: object, **options: object) -> None:
        """Log where anybody listens: the arguments are costly to show."""
        if self.logger.isEnabledFor(level):
            super().log(level, msg, *args, **options)

    def packet(
        self, pktid: int | None, packet: bytes, msg: str, *args: object, **options: object
    ) -> None:
        """Pass a packet on; ``args`` begins with the word for its direction."""
        if packet and packet[0] not in _DATA:
            self._watcher(args[0] == "Sent", pktid or 0, packet)


class ObservedConnection(BulkConnection):
    """A connection that tells its packets, counts its bytes and renews its keys."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHClientConnectionOptions
    ) -> None:
        super().__init__(loop, options, wait="auth")
        self._tap = _PacketTap(_PACKAGE_LOGGER, "", self._watch)
        self._packet_log: PacketLog | None = None
        self._loss: Exception | None = None
        self._bytes_sent = 0
        self._bytes_received = 0
        self._is_full = False
        self._unsent = 0  # at most; counted anew where it would be too much
        self._keyed_at = 0
        self._receive_limit = 0
        self._rekey_limit = 0
        self._rekey_after = 0.0
        self._rekey_timer: asyncio.TimerHandle | None = None

    def tell(self, packet_log: PacketLog) -> None:
        """Tell what happens from now on."""
        self._packet_log = packet_log

    def limit_keys(self, received: int, seconds: float) -> None:
        """Exchange keys anew after ``received`` bytes and ``seconds`` (0: no such limit).

        What is sent is counted by asyncssh itself.
        """
        self._rekey_limit = received
        self._rekey_after = seconds

    @property
    def volume(self) -> Volume:
        """How many bytes have passed, encrypted."""
        return Volume(self._bytes_sent, self._bytes_received)

    @property
    def packet_length(self) -> int:
        """What the packet that is being read says its length is, in bytes."""
        return self._pktlen

    @property
    def logger(self) -> SSHLogger:
        """The logger of everything that belongs to this connection."""
        return self._tap

    def _watch(self, sent: bool, number: int, payload: bytes) -> None:
        if self._packet_log is not None:
            (self._packet_log.sent if sent else self._packet_log.received)(number, payload)

    def set_extra_info(self, **facts: object) -> None:
        """Note a fact; both sides' first lines are told."""
        super().set_extra_info(**facts)
        if self._packet_log is not None:
            if "client_version" in facts:
                self._packet_log.note_own_version(str(facts["client_version"]))
            if "server_version" in facts:
                self._packet_log.note_version(str(facts["server_version"]))

    def _begin_method(self, name: str) -> None:
        if self._packet_log is not None:
            self._packet_log.begin_method(name)

    async def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        """Find the next key to offer."""
        self._begin_method("publickey")
        return await super().public_key_auth_requested()

    async def password_auth_requested(self) -> str | None:
        """Find the password."""
        self._begin_method("password")
        return await super().password_auth_requested()

    async def kbdint_auth_requested(self) -> str | None:
        """Find whether to begin with keyboard-interactive."""
        self._begin_method("keyboard-interactive")
        return await super().kbdint_auth_requested()

    def _send(self, data: bytes) -> None:
        self._bytes_sent += len(data)
        super()._send(data)
        if self._is_full:
            self._keep(len(data))

    def send_packet(
        self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None
    ) -> None:
        """Send a packet, or keep it for the end of a key exchange."""
        kept = len(self._deferred_packets)
        super().send_packet(pkttype, *args, handler=handler)
        if len(self._deferred_packets) > kept:
            self._keep(_PACKET_COST + sum(map(len, args)))

    def _keep(self, size: int) -> None:
        """Count what can't be sent; too much of it is what the server asked for and won't read."""
        self._unsent += size
        if self._unsent > MOST_UNSENT and self._transport is not None:
            kept = self._deferred_packets
            self._unsent = self._transport.get_write_buffer_size() + sum(
                _PACKET_COST + sum(map(len, args)) for _, args in kept
            )
            if self._unsent > MOST_UNSENT:
                self._force_close(asyncssh.ProtocolError("too much waits to be sent"))

    def pause_writing(self) -> None:
        """The transport is full."""
        super().pause_writing()
        self._is_full = True

    def resume_writing(self) -> None:
        """The transport takes data again."""
        super().resume_writing()
        self._is_full, self._unsent = False, 0

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Take what the server sends."""
        self._bytes_received += len(data)
        super().data_received(data, datatype)
        if self._receive_limit and self._bytes_received - self._keyed_at > self._receive_limit:
            self.rekey()

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """Take new keys into use; their limits begin now.

        Raises ProtocolError for those that came of a group which is too small or too large.
        """
        size = getattr(self._kex, "_p", 0).bit_length()
        if size not in _GROUP_SIZES and b"-group-exchange-" in getattr(self._kex, "algorithm", b""):
            raise asyncssh.ProtocolError("DH GEX group out of range")
        super().send_newkeys(k, h)
        if self._next_decompressor is not None:
            self._next_decompressor = _BoundedDecompressor()
        cipher = self._enc_alg_sc.decode("ascii", "replace")
        self._receive_limit = most_blocks(cipher, self._rekey_limit) * block_size(cipher)
        self._keyed_at = self._bytes_received
        if self._rekey_after:
            self._stop_timer()
            self._rekey_timer = self._loop.call_later(self._rekey_after, self.rekey)

    def rekey(self) -> None:
        """Exchange keys anew, unless that is going on or nobody is logged in yet."""
        if self._auth_complete and self._kex_complete and self._transport is not None:
            self._send_kexinit()
            self._kexinit_sent = True

    def _stop_timer(self) -> None:
        if self._rekey_timer is not None:
            self._rekey_timer.cancel()

    @property
    def loss(self) -> Exception | None:
        """Why the connection ended, None if either side meant it to."""
        return self._loss

    def _force_close(self, exc: Exception | None) -> None:
        if self._transport is not None and self._loss is None:
            self._loss = exc  # the first cause: what follows is only the socket's end
        super()._force_close(exc)

    def connection_lost(self, exc: Exception | None = None) -> None:
        """The connection is over."""
        self._stop_timer()
        super().connection_lost(exc)
