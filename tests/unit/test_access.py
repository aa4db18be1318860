"""Trusted or untrusted: the whole table of the decision."""

from __future__ import annotations

import pytest

from xsshpy.x11.access import Access, Refusal, decide_access
from xsshpy.x11.authority import COOKIE_PROTOCOL, AuthorityEntry, Family
from xsshpy.x11.display import parse_display
from xsshpy.x11.verify import ServerFacts, UntrustedCookie, Verdict

OWN = AuthorityEntry(Family.WILD, b"", b"0", COOKIE_PROTOCOL, b"own-cookie-bytes")
MADE = UntrustedCookie(b"untrusted-bytes!", 7)


def verdict(
    *, security: bool = True, made: UntrustedCookie | None = MADE, why: str = ""
) -> Verdict:
    extensions = ("SHAPE", "SECURITY") if security else ("SHAPE",)
    facts = ServerFacts("X", 1, (11, 0), 1, 0, 24, 640, 480, extensions)
    return Verdict(True, parse_display(":0"), facts=facts, untrusted=made, untrusted_reason=why)


NONE = verdict(security=False, made=None, why="the X server has no SECURITY extension")


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("seen", [verdict(), NONE, verdict(made=None)])
def test_trusted_is_the_own_cookie_for_ever(explicit: bool, seen: Verdict) -> None:
    decided = decide_access(seen, OWN, forward_x11_trusted=True, explicit=explicit, timeout=1200)
    assert decided == Access(True, OWN.data)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(("timeout", "expires"), [(1200, 1200), (1, 1), (0, None)])
def test_untrusted_is_the_made_cookie_for_a_time(
    explicit: bool, timeout: int, expires: int | None
) -> None:
    decided = decide_access(
        verdict(), OWN, forward_x11_trusted=False, explicit=explicit, timeout=timeout
    )
    assert decided == Access(False, MADE.data, expires)


def test_no_security_and_an_explicit_wish_is_refused_and_names_y() -> None:
    decided = decide_access(NONE, OWN, forward_x11_trusted=False, explicit=True, timeout=1200)
    assert isinstance(decided, Refusal)
    assert "no SECURITY extension" in decided.error.message
    assert decided.error.remedy.startswith("-Y ")
    assert len(decided.lines) == 1


def test_no_security_and_no_wish_goes_on_as_trusted_and_says_so_once() -> None:
    decided = decide_access(NONE, OWN, forward_x11_trusted=False, explicit=False, timeout=1200)
    assert isinstance(decided, Access)
    assert decided.trusted
    assert decided.cookie == OWN.data
    assert decided.expires_after is None
    (line,) = decided.lines
    assert line.startswith("xssh: X11: ")
    assert "no SECURITY extension" in line


def test_a_server_that_would_not_make_a_cookie_is_no_better() -> None:
    seen = verdict(made=None, why="the X server refuses to make an untrusted cookie: x")
    refused = decide_access(seen, OWN, forward_x11_trusted=False, explicit=True, timeout=0)
    assert isinstance(refused, Refusal)
    assert "refuses to make" in refused.error.message
    seen = verdict(made=None)
    refused = decide_access(seen, OWN, forward_x11_trusted=False, explicit=True, timeout=0)
    assert isinstance(refused, Refusal)
    assert "no untrusted cookie was made" in refused.error.message


def test_a_server_without_access_control_needs_no_cookie() -> None:
    decided = decide_access(NONE, None, forward_x11_trusted=True, explicit=True, timeout=0)
    assert decided == Access(True, None)


def test_a_dead_display_is_refused_with_its_own_reason() -> None:
    dead = Verdict(False, parse_display(":9"), reason="no X server", remedy="start one")
    for trusted in (True, False):
        decided = decide_access(dead, OWN, forward_x11_trusted=trusted, explicit=False, timeout=0)
        assert isinstance(decided, Refusal)
        line = "xssh: X11: cannot open display :9: no X server; try: start one"
        assert decided.lines == (line,)


def test_secrets_do_not_show() -> None:
    decided = decide_access(verdict(), OWN, forward_x11_trusted=False, explicit=True, timeout=5)
    assert "untrusted-bytes" not in repr(decided) + repr(verdict())
    assert "own-cookie" not in repr(OWN)
