"""What a configuration may ask for and xssh does not do: said, never passed over in silence. Pure.

A keyword whose absence costs a convenience is named in a line, and the run goes on; none is left
whose absence would weaken security or lose data. Everything else that ``ssh -G`` prints is
either carried out or has no meaning here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTICES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "channeltimeout": (("none",), "idle channels stay open"),
    "gssapiclientidentity": (("none",), "the default ticket is used"),
    "gssapikeyexchange": (("no",), "the server proves itself by its host key"),
    "gssapiserveridentity": (("none",), "the ticket is for the host's name"),
    "gssapitrustdns": (("no",), "the ticket is for the name as it was given"),
    "logverbose": (("none",), "its patterns name lines of OpenSSH's own source"),
    # 20 milliseconds are the default of the versions that have it.
    "obscurekeystroketiming": (("no", "yes", "0", "20"), "keys are sent as they are typed"),
    "verifyhostkeydns": (("no", "false"), "known_hosts alone decides about host keys"),
}


def _asked_for(keywords: Mapping[str, tuple[str, ...]], keyword: str, idle: tuple[str, ...]) -> str:
    values = [value for value in keywords.get(keyword, ()) if value.lower() not in idle]
    return values[0] if values else ""


def find_unsupported(keywords: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return one line for each convenience that is missing.

    ``keywords`` are those of ``ssh -G``.
    """
    lines = []
    for keyword, (idle, consequence) in _NOTICES.items():
        value = _asked_for(keywords, keyword, idle)
        if not value:
            continue
        lines.append(f"xssh: {keyword} {value} is not supported: {consequence}")
    return tuple(lines)
