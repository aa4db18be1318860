"""How to log in besides keys in files and passwords: agents, tokens, Kerberos. Pure.

Read from what ``ssh -G`` prints (ssh_config(5)).
"""

from __future__ import annotations

from xsshpy.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOST_SECONDS = (1 << 31) - 1
_MOST_DIGITS = 10
_ADDING = {"true": "yes", "yes": "yes", "ask": "ask", "confirm": "confirm"}


@dataclass(frozen=True)
class LoginSettings:
    """``add_keys_to_agent`` is ``no``, ``yes``, ``ask`` or ``confirm``; the lifetime is seconds, 0
    for ever. An empty provider means that there is none."""

    add_keys_to_agent: str = "no"
    add_keys_lifetime: int = 0
    security_key_provider: str = "internal"
    pkcs11_provider: str = ""
    host_bound_signatures: bool = True
    gssapi: bool = False
    gssapi_delegate: bool = False
    interactive_devices: str = ""
    hostbased: bool = False
    hostbased_algorithms: tuple[str, ...] = ()


def read_login_settings(
    keywords: Mapping[str, tuple[str, ...]], environ: Mapping[str, str]
) -> LoginSettings:
    """Return what the keywords say. One that ``ssh -G`` leaves out is ``none``."""

    def word(keyword: str, default: str = "") -> str:
        value = (keywords.get(keyword) or (default,))[0]
        return "" if value.lower() == "none" else value

    def flag(keyword: str) -> bool:
        return word(keyword).lower() in ("yes", "true")

    mode, lifetime = parse_adding(word("addkeystoagent", "no"))
    return LoginSettings(
        add_keys_to_agent=mode,
        add_keys_lifetime=lifetime,
        security_key_provider=_expand_provider(word("securitykeyprovider"), environ),
        pkcs11_provider=word("pkcs11provider"),
        host_bound_signatures=word("pubkeyauthentication") != "unbound",
        gssapi=flag("gssapiauthentication"),
        gssapi_delegate=flag("gssapidelegatecredentials"),
        interactive_devices=word("kbdinteractivedevices"),
        hostbased=flag("hostbasedauthentication"),
        hostbased_algorithms=tuple(filter(None, word("hostbasedacceptedalgorithms").split(","))),
    )


def parse_adding(value: str) -> tuple[str, int]:
    """Return AddKeysToAgent's mode, and the lifetime in seconds; what makes no sense is ``no``."""
    first, _, second = value.lower().partition(" ")
    seconds = parse_time(first)
    if seconds is not None:
        return "yes", seconds
    return _ADDING.get(first, "no"), parse_time(second) or 0


def parse_time(text: str) -> int | None:
    """Return the seconds that a time such as ``1h30m`` stands for (sshd_config(5)), or None."""
    if not text.isascii():
        return None
    seconds, digits = 0, ""
    for character in [*text.lower(), ""]:
        if character.isdecimal():
            digits += character
        elif (
            character not in _UNITS
            or (character and not digits)
            or len(digits.lstrip("0")) > _MOST_DIGITS
        ):
            return None
        elif digits:
            seconds += int(digits.lstrip("0") or "0") * _UNITS[character]
            digits = ""
    return seconds if text and seconds <= _MOST_SECONDS else None


def _expand_provider(value: str, environ: Mapping[str, str]) -> str:
    """A provider may be a variable's name, ``$NAME``; an unset one is none."""
    if value.startswith("$") and len(value) > 1:
        return environ.get(value[1:], "")
    return value
