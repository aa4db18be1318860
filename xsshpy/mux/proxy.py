"""Proxy mode: a peer speaks SSH's connection protocol through the control socket.

No descriptors are passed, so the peer may be at the other end of yet another forward
(PROTOCOL.mux §9). ``xsshpy.ssh.proxied`` has the channels.
"""

from __future__ import annotations

import asyncio

from xsshpy.mux.context import MasterContext
from xsshpy.mux.link import Link
from xsshpy.mux.messages import MuxProtocolError
from xsshpy.ssh.proxied import ChannelProxy, ProxyError

MOST_WAITING = 64 << 20
"""Bytes that may wait for a peer: more than the windows of the channels that one has."""


async def carry_proxy(context: MasterContext, link: Link) -> None:
    """Carry packets until the peer is gone, or the connection. Raises MuxProtocolError."""
    connection = context.session.connection
    takes_more = asyncio.Event()
    takes_more.set()

    def hold(full: bool) -> None:
        if full:
            takes_more.clear()
        else:
            takes_more.set()

    connection.watch_writing(hold)
    link.most_waiting, link.patience = MOST_WAITING, None
    proxy = ChannelProxy(connection, context.forwarder, link.post_bytes, link.break_off)
    try:
        while (packet := await link.read_frame()) is not None:
            proxy.receive(packet)
            await takes_more.wait()
    except ProxyError as error:
        raise MuxProtocolError(f"proxy: {error}") from None
    finally:
        connection.unwatch_writing(hold)
        proxy.close()
