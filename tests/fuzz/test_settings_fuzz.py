"""What `ssh -G` prints and what is typed: only the errors meant for the user come out."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from xsshpy.arguments import SSH_FLAGS, SSH_VALUES, split_ssh_arguments
from xsshpy.errors import SettingsError, UsageError
from xsshpy.settings import Settings, parse_keywords, parse_settings

KEYWORDS = st.sampled_from(
    """
    addressfamily batchmode bindaddress certificatefile ciphers connecttimeout escapechar
    forwardagent forwardx11timeout globalknownhostsfile hostkeyalias hostname identityagent
    identityfile localcommand loglevel permitlocalcommand port proxycommand proxyjump
    rekeylimit remotecommand requesttty requiredrsasize sendenv serveralivecountmax setenv
    stricthostkeychecking user userknownhostsfile
    """.split()  # noqa: SIM905
)
VALUES = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="%$~{}\"'\\ /=,:ahHnpr0123٣²-", max_size=40),
    st.sampled_from(["none", "yes", "NONE", "any", "1G 3600", "$A", "${A}", "${B}/x", "%q", "~x"]),
)
PATHS = st.tuples(st.sampled_from(["identityfile", "certificatefile", "identityagent"]), VALUES)
LINES = (st.tuples(KEYWORDS, VALUES) | PATHS).map(" ".join) | st.text(max_size=40)
TEXTS = st.lists(LINES, max_size=12).map("\n".join)


@given(TEXTS)
def test_keywords_are_found_whatever_is_printed(text: str) -> None:
    found = parse_keywords(text)
    for keyword, values in found.items():
        assert keyword == keyword.lower().strip()
        assert values
        assert all(value == value.strip() for value in values)


@given(TEXTS, st.text(max_size=10), st.dictionaries(st.sampled_from(["A", "HOME"]), st.text()))
def test_settings_or_their_error(text: str, host: str, environ: dict[str, str]) -> None:
    with contextlib.suppress(SettingsError):
        settings = parse_settings(text, host, environ)
        assert isinstance(settings, Settings)
        assert settings.host == host


LETTERS = "".join([*SSH_FLAGS, *SSH_VALUES, "Zé0"])
WORDS = st.one_of(
    st.sampled_from(["--", "-", "host", "u@h", "--script", "--script=x", "--backend", "--python"]),
    st.text(alphabet=LETTERS, min_size=1, max_size=5).map("-{}".format),
    st.text(max_size=8),
)


@given(st.lists(WORDS, max_size=8))
def test_arguments_are_split_without_loss(arguments: list[str]) -> None:
    try:
        words = split_ssh_arguments(arguments)
    except UsageError as error:
        assert "\n" not in error.message or any("\n" in word for word in arguments)
        return
    assert all(
        (letter in SSH_FLAGS and value is None) or (letter in SSH_VALUES and value is not None)
        for letter, value in words.options
    )
    rest = words.rest
    assert 0 <= words.late <= len(words.options)
    assert rest == arguments[len(arguments) - len(rest) :]
    assert set(words.long_options) | {words.destination, *rest} <= {*arguments, None}
    taken = len("".join(words.long_options)) + len(words.destination or "") + len("".join(rest))
    taken += sum(1 + len(value or "") for _, value in words.options)
    assert taken <= len("".join(arguments))
