"""Why a server refused to forward X11, in its own words where it gave any. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Not sshd's list of a key's options, which names x11-forwarding too.
_ABOUT_X11 = re.compile(r"(?i)\bx11 forwarding\b|forward x11|\bxauth\b|\bx11 display\b")


def explain_refused_request(remote_messages: Sequence[str], host: str, more: str) -> str:
    """Return one line: ssh's words, the server's reason, and what to do.

    ``remote_messages`` are the debug messages that the server sent (RFC 4253 §11.3); sshd puts
    its reason there, but gives none for ``X11Forwarding no``. ``more`` says how to find out more.
    """
    reason = find_reason(remote_messages) or "the server does not allow it (X11Forwarding no?)"
    return (
        f"X11 forwarding request failed on channel 0: {reason}; "
        f"try: {_remedy(reason, host)}; {more}"
    )


def find_reason(remote_messages: Sequence[str]) -> str:
    """Return what the server said about X11 last, or an empty string."""
    said = [text for text in remote_messages if _ABOUT_X11.search(text)]
    return said[-1].strip() if said else ""


def _remedy(reason: str, host: str) -> str:
    if "xauth" in reason:
        return f"install xauth on {host} (apt install xauth, dnf install xorg-x11-xauth)"
    if "key options" in reason:
        return f"take no-X11-forwarding or restrict off this key in authorized_keys on {host}"
    return f"`X11Forwarding yes` in sshd_config on {host}, or -x if no window is needed"
