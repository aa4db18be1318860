"""Is X11 wanted? xssh forwards it unless the user said otherwise.

-X, -Y and -x, and ssh_config(5)'s ForwardX11 and ForwardX11Trusted, as OpenSSH resolves them.
"""

from __future__ import annotations

import tempfile

from xsshpy.errors import SettingsError
from xsshpy.settings import Invocation, Settings, parse_keywords
from xsshpy.ssh_g import count_passes, files_with_defaults, run_ssh_g, ssh_g_arguments
from xsshpy.values import dataclass


@dataclass(frozen=True)
class X11Wish:
    """Whether X11 is to be forwarded, and whether the user said so or it is xssh's own default."""

    forward: bool
    explicit: bool
    trusted: bool


async def read_x11_wish(invocation: Invocation, settings: Settings) -> X11Wish:
    """Decide whether X11 is wanted. xssh forwards X11 unless the user said otherwise.

    ``ssh -G`` prints ``forwardx11 no`` both for a user's own ``ForwardX11 no`` and for OpenSSH's
    default. To tell them apart, OpenSSH reads the same files once more with ``ForwardX11 yes``
    after them: the first value obtained wins, so ``no`` is then the user's own word.
    """
    letter = invocation.last_of("XYx")
    if letter == "x":
        return X11Wish(forward=False, explicit=True, trusted=False)
    trusted = settings.forward_x11_trusted
    if settings.forward_x11:
        return X11Wish(forward=True, explicit=True, trusted=trusted)
    # Only where ssh -G prints the keyword is there a default of OpenSSH's that hides who said it.
    if "forwardx11" in settings.keywords and await _says_no_to_x11(invocation):
        return X11Wish(forward=False, explicit=True, trusted=False)
    return X11Wish(forward=True, explicit=False, trusted=trusted)


async def _says_no_to_x11(invocation: Invocation) -> bool:
    try:
        answer, passes = await _read_x11_again(invocation, "Match all")
        if passes > 1:
            # What counts in the last reading alone (Match final) has to have its chance.
            answer, _ = await _read_x11_again(invocation, "Match final all")
    except (OSError, SettingsError):  # TimeoutError is an OSError
        # Where the second reading fails, X11 stays off: never forward against the user's word.
        return True
    return answer == ("no",)


async def _read_x11_again(invocation: Invocation, match: str) -> tuple[tuple[str, ...], int]:
    """Return ForwardX11 where ``yes`` follows the user's files, and how often ssh read them."""
    text = files_with_defaults(invocation, match, "ForwardX11 yes")
    with tempfile.NamedTemporaryFile("w", prefix="xssh-config-", suffix=".tmp") as config:
        config.write(text)
        config.flush()
        again = invocation.with_options((("F", config.name), ("v", None)), without="Fq")
        status, out, err = await run_ssh_g(ssh_g_arguments(again))
    if status != 0:
        raise SettingsError(err)
    return parse_keywords(out).get("forwardx11", ()), count_passes(err)
