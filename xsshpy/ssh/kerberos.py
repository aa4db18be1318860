"""Kerberos: logging in with a ticket (``gssapi-with-mic``, RFC 4462 §3).

Needs the extra ``gssapi``. Without it, and without a ticket, the method is passed over in silence,
as ssh passes it over without a ticket; only who wants a ticket passed on (-K) is told what lacks.
"""

from __future__ import annotations

import functools

# Which module these come from depends on the platform.
from asyncssh.gss import (  # type: ignore[attr-defined]
    GSSBase,
    GSSClient,
    GSSError,
    gss_available,
)

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.threads import call_in_thread


async def prepare_kerberos(settings: Settings, console: Console) -> GSSBase | None:
    """Return what logs in with the user's ticket to the server; None where there is nothing.

    Credentials are looked for in a thread: where they are kept may be a daemon.
    """
    if not settings.login.gssapi:
        return None
    if not gss_available:
        wanted = settings.login.gssapi_delegate
        say = console.error if wanted else functools.partial(console.debug, 1)
        say("xssh: Kerberos needs the package gssapi; try: pip install 'xsshpy[gssapi]'")
        return None
    make = functools.partial(GSSClient, settings.hostname, None, settings.login.gssapi_delegate)
    try:
        return await call_in_thread(make, "Kerberos")
    except (GSSError, OSError, ValueError) as error:
        console.debug(1, str(error))
        return None
