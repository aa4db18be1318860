"""Tunnel devices (-w, Tunnel, TunnelDevice): packets between a network device here and one there.

Rules kept here:

- A packet goes whole or not at all, as on any network: one for which the channel has no room is
  dropped, and so is one that the device does not take (an interface that is down takes none).
- While the SSH connection itself takes no more, the device is not read; the kernel drops then.

Devices are opened on Linux, by root or on one that was made for the user beforehand. Addresses and
routes are the user's business, as with ssh; LocalCommand has the device's name in its ``%T``.

Follows OpenSSH's PROTOCOL §2.3 (tun@openssh.com).
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Mapping

import asyncssh
from asyncssh.channel import SSHTunTapChannel

from xsshpy.console import Console
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.failures import describe_open_failure
from xsshpy.ssh.forward_table import ForwardTable
from xsshpy.ssh.session import PACKET_SIZE
from xsshpy.ssh.window import FIRST_WINDOW
from xsshpy.values import dataclass

POINT_TO_POINT, ETHERNET = 1, 2
_MODES = {"yes": POINT_TO_POINT, "point-to-point": POINT_TO_POINT, "ethernet": ETHERNET}
_CONTROL_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_NO_PACKET_INFORMATION = 0x1000
_KERNEL_MODES = {POINT_TO_POINT: 1, ETHERNET: 2}
_NAMES = {POINT_TO_POINT: "tun", ETHERNET: "tap"}
_LONGEST_PACKET = 1 << 16
_PACKETS_AT_A_TIME = 64
_FAMILY_SIZE = 4
_ANY_UNIT = 0x7FFFFFFF


@dataclass(frozen=True)
class TunnelRequest:
    """What is asked for; a unit is the number in a device's name, None for any that is free."""

    mode: int
    local: int | None
    remote: int | None


def parse_tunnel(keywords: Mapping[str, tuple[str, ...]]) -> TunnelRequest | None:
    """Return what ``ssh -G`` says about tunnels; None where there is to be none."""
    mode = _MODES.get((keywords.get("tunnel") or ("no",))[0].lower())
    if mode is None:
        return None
    local, _, remote = (keywords.get("tunneldevice") or ("any:any",))[0].partition(":")
    return TunnelRequest(mode, _unit(local), _unit(remote or "any"))


def _unit(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None


def open_device(mode: int, unit: int | None) -> tuple[int, str]:
    """Return the descriptor of a device that did not exist before, or was idle, and its name.

    Raises OSError where there are none, or we may not.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(f"there are no tunnel devices on {sys.platform} that xssh could open")
    import fcntl

    name = b"" if unit is None else f"{_NAMES[mode]}{unit}".encode()
    descriptor = os.open(_CONTROL_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # struct ifreq, of which the kernel reads 40 bytes.
        request = struct.pack("16sH22x", name, _KERNEL_MODES[mode] | _NO_PACKET_INFORMATION)
        answer = fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, answer[:16].split(b"\0")[0].decode()


class _TunnelChannel(SSHTunTapChannel):
    """A channel on which each message is one packet."""

    def __init__(self, connection: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(connection, loop, None, "strict", FIRST_WINDOW, PACKET_SIZE)

    @property
    def remote_number(self) -> int | None:
        """The number that the other side gave to this channel."""
        return self._send_chan

    def takes(self, size: int) -> bool:
        """Whether a packet of that size could go now, and whole."""
        room = min(self._send_window, self._send_pktsize)
        return not self.is_closing() and not self._send_buf and size + _FAMILY_SIZE <= room


class Tunnel(asyncssh.SSHTunTapSession):
    """One tunnel: the device here, and the channel to the device there."""

    def __init__(
        self,
        connection: ClientConnection,
        table: ForwardTable,
        request: TunnelRequest,
        console: Console,
    ) -> None:
        self._connection = connection
        self._table = table
        self._request = request
        self._console = console
        self._channel: _TunnelChannel | None = None
        self._device = -1
        self._number = -1
        self._reads = False
        self._full = False
        self.interface = ""

    def open_device(self) -> bool:
        """Open the device here; return whether it is there. What failed has been said."""
        unit, console = self._request.local, self._console
        shown = _ANY_UNIT if unit is None else unit
        console.debug(1, f"Requesting tun unit {shown} in mode {self._request.mode}")
        try:
            self._device, self.interface = open_device(self._request.mode, unit)
        except OSError as error:
            reason = error.strerror or str(error)
            console.debug(1, f"sys_tun_open: {reason}")
            console.error(
                "Tunnel device open failed.\n"
                f"  try: as root, or on a device that is yours and idle ({reason})"
            )
            return False
        console.debug(1, f"Tunnel forwarding using interface {self.interface}")
        self._number = self._table.reserve()
        self._connection.watch_writing(self._hold)
        return True

    async def connect(self) -> bool:
        """Ask the server for its device; return whether it has one. What failed has been said."""
        try:
            channel = _TunnelChannel(self._connection)
            await channel.open(lambda: self, self._request.mode, self._request.remote)
        except asyncssh.ChannelOpenError as error:
            if self._connection._transport is not None:
                self._console.notice(
                    f"channel {self._number}: open failed: {describe_open_failure(error)}"
                )
                self._console.error("Tunnel forwarding failed")
            self.close()
            return False
        return True

    @property
    def is_open(self) -> bool:
        """Whether there is a device here."""
        return self._device >= 0

    def describe(self) -> dict[int, str]:
        """Return the line of ``~#``, under its number; nothing where there is no tunnel."""
        if not self.is_open:
            return {}
        channel = self._channel
        state, known = ("4", f"r{channel.remote_number}") if channel is not None else ("3", "nr0")
        descriptor = self._device
        return {
            self._number: f"  #{self._number} tun (t{state} [tun] {known} i0/0 o0/0 e[closed]/0 "
            f"fd {descriptor}/{descriptor}/-1 sock -1 cc -1 io 0x01/0x00)\r\n"
        }

    def close(self) -> None:
        """Close the device and the channel."""
        if not self.is_open:
            return
        self._read(False)
        os.close(self._device)
        self._device = -1
        self._table.release(self._number)
        if self._channel is not None:
            self._channel.close()
        self._table.tell_change()

    # -- what asyncssh calls --

    def connection_made(self, chan: SSHTunTapChannel) -> None:
        """Begin to carry packets."""
        assert isinstance(chan, _TunnelChannel)
        self._channel = chan
        if self.is_open:
            self._read(not self._full)
        else:
            chan.close()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take a packet from there."""
        if self.is_open and data:
            try:
                os.write(self._device, data)
            except OSError as error:
                self._console.debug(3, f"{self.interface}: {error.strerror}")

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed, or the whole connection with it."""
        self._channel = None
        self.close()

    # -- the device --

    def _hold(self, full: bool) -> None:
        self._full = full
        if self.is_open and self._channel is not None:
            self._read(not full)

    def _read(self, wanted: bool) -> None:
        loop = asyncio.get_running_loop()
        if wanted and not self._reads:
            loop.add_reader(self._device, self._carry)
        elif not wanted and self._reads:
            loop.remove_reader(self._device)
        self._reads = wanted

    def _carry(self) -> None:
        """Send packets off, a few at a time: there is other work."""
        for _ in range(_PACKETS_AT_A_TIME):
            try:
                packet = os.read(self._device, _LONGEST_PACKET)
            except BlockingIOError:
                return
            except OSError as error:  # the interface was taken away
                self._console.error(f"{self.interface}: {error.strerror}")
                self.close()
                return
            if packet and self._channel is not None and self._channel.takes(len(packet)):
                self._channel.write(packet)
