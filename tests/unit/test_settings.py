"""What ``ssh -G`` prints becomes settings; tokens and variables as OpenSSH replaces them."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clients import ClientHome
from tests.support.tools import require_tool
from xsshpy.errors import SettingsError
from xsshpy.settings import (
    TUNNEL_INTERFACE,
    Invocation,
    Settings,
    alias_of,
    check_invocation,
    expand_proxy_command,
    parse_keywords,
    parse_settings,
)
from xsshpy.tokens import expand_tokens, home_directory

NAMES = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=12)


def settle(*lines: str, environ: dict[str, str] | None = None, host: str = "alias") -> Settings:
    text = "\n".join(("user me", "hostname h.example", "port 2222", *lines))
    return parse_settings(text, host, environ or {})


def test_keywords_keep_every_value_in_order() -> None:
    text = "Host a\nidentityfile ~/x\nIdentityFile ~/y z\n\nempty\n"
    assert parse_keywords(text) == {
        "host": ("a",),
        "identityfile": ("~/x", "~/y z"),
        "empty": ("",),
    }


@given(st.text(max_size=300))
def test_any_text_becomes_keywords(text: str) -> None:
    for keyword, values in parse_keywords(text).items():
        assert keyword == keyword.lower() and values


@given(st.dictionaries(NAMES, st.text(max_size=40), max_size=6))
def test_odd_values_never_raise_but_settings_errors(values: dict[str, str]) -> None:
    known = ["port", "rekeylimit", "identityfile", "setenv", "proxyjump", "connecttimeout"]
    lines = [f"{name} {value}" for name, value in zip(known, values.values(), strict=False)]
    try:
        settle(*lines)
    except (SettingsError, ValueError) as error:
        assert isinstance(error, SettingsError) or "quotation" in str(error), error


def test_what_is_not_there_has_openssh_s_default() -> None:
    settings = parse_settings("hostname h", "h", {})
    assert (settings.port, settings.number_of_password_prompts) == (22, 3)
    assert settings.strict_host_key_checking == "ask"
    assert settings.connect_timeout is None
    assert settings.identity_agent == ""
    assert settings.address_family is socket.AF_UNSPEC


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("addressfamily inet6", "address_family", socket.AF_INET6),
        ("connecttimeout 5", "connect_timeout", 5),
        ("connecttimeout none", "connect_timeout", None),
        ("proxyjump a,b:3", "proxy_jump", ("a", "b:3")),
        ("proxyjump none", "proxy_jump", ()),
        ("proxycommand none", "proxy_command", ""),
        ("bindaddress none", "bind_address", ""),
        ("rekeylimit 1000 60", "rekey_bytes", 1000),
        ("rekeylimit 0 0", "rekey_seconds", 0),
        ("stricthostkeychecking true", "strict_host_key_checking", "true"),
        ("pubkeyauthentication host-bound", "pubkey_authentication", True),
        ("pubkeyauthentication false", "pubkey_authentication", False),
        ("userknownhostsfile /a /b", "user_known_hosts_files", ("/a", "/b")),
        ('userknownhostsfile "/a b" /c', "user_known_hosts_files", ("/a b", "/c")),
        (
            "userknownhostsfile /a b /c  d ~/e %d/f ${G}/h i",
            "user_known_hosts_files",
            ("/a b", "/c  d", f"{home_directory()}/e", "%d/f", "${G}/h i"),
        ),
        ("userknownhostsfile none", "user_known_hosts_files", ()),
        ("setenv A=b c", "set_env", (("A", "b c"),)),
        ("setenv nothing", "set_env", ()),
        ("sendenv LANG LC_*", "send_env", ("LANG", "LC_*")),
        ("loglevel SILENT", "log_level", "QUIET"),
        ("forwardagent no", "forward_agent", ""),
        ("identityfile none", "identity_files", ()),
        ("remotecommand none", "remote_command", ""),
    ],
)
def test_one_line_of_ssh_g(line: str, name: str, value: object) -> None:
    assert getattr(settle(line), name) == value


def test_a_local_command_needs_permission() -> None:
    assert settle("localcommand touch %h").local_command == ""
    permitted = settle("localcommand touch %h-%n", "permitlocalcommand yes")
    assert permitted.local_command == "touch h.example-alias"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("SSH_AUTH_SOCK", "/agent"),
        ("none", ""),
        ("$OTHER", "/other"),
        ("$UNSET", ""),
        ("/path/to", "/path/to"),
        ("~/sock", f"{home_directory()}/sock"),
    ],
)
def test_where_the_agent_is(value: str, expected: str) -> None:
    environ = {"SSH_AUTH_SOCK": "/agent", "OTHER": "/other"}
    assert settle(f"identityagent {value}", environ=environ).identity_agent == expected


def test_the_agent_to_forward() -> None:
    environ = {"SSH_AUTH_SOCK": "/agent", "OTHER": "/other"}
    for value, expected in (("yes", "/agent"), ("$OTHER", "/other"), ("/p", "/p")):
        assert settle(f"forwardagent {value}", environ=environ).forward_agent == expected


def test_tokens_are_replaced_once() -> None:
    assert expand_tokens("%h%%h%p", {"h": "%p", "p": "1", "%": "%"}, "X") == "%p%h1"
    for text in ("%z", "trailing %"):
        with pytest.raises(SettingsError, match="unknown key"):
            expand_tokens(text, {"h": "x"}, "ProxyCommand")


@given(st.text().filter(lambda text: "%" not in text))
def test_text_without_tokens_stays(text: str) -> None:
    assert expand_tokens(text, {}, "X") == text


def test_a_path_with_an_unset_variable_is_refused() -> None:
    with pytest.raises(SettingsError, match="which is not set") as caught:
        settle("identityfile ${NOWHERE}/id")
    assert "NOWHERE" in caught.value.remedy
    found = settle("identityfile ${PLACE}/id", environ={"PLACE": "/p"}).identity_files
    assert found == ("/p/id",)


def test_a_variable_s_value_is_taken_as_it_is() -> None:
    found = settle("identityfile ${PLACE}/%h", environ={"PLACE": "/50%h"}).identity_files
    assert found == ("/50%h/h.example",)


def test_the_proxy_command_s_tokens() -> None:
    settings = settle("proxycommand nc %h %p # %n %r 100%%")
    assert expand_proxy_command(settings) == "nc h.example 2222 # alias me 100%"


@pytest.mark.parametrize("token", [*"%CdhikLlnpru"])
def test_tokens_are_those_of_ssh(client_home: ClientHome, token: str) -> None:
    """ssh -G replaces them in UserKnownHostsFile itself, and leaves them in IdentityFile."""
    value = f"/x-%{token}-y"
    argv = [require_tool("ssh"), "-G", "-F", "none", "-p", "2222", "-l", "someone"]
    argv += ["-o", f"UserKnownHostsFile={value}", "-o", f"IdentityFile={value}"]
    text = subprocess.run(
        [*argv, "-o", "HostName=127.0.0.9", "typed"], capture_output=True, text=True, check=True
    ).stdout  # under this process's own account, like parse_settings
    settings = parse_settings(text, "typed", os.environ)
    if token == "d":
        assert settings.identity_files == (f"/x-{home_directory()}-y",)
    assert settings.identity_files == settings.user_known_hosts_files


@pytest.mark.parametrize(
    ("destination", "host"),
    [
        ("host", "host"),
        ("me@host", "host"),
        ("a@b@host", "host"),
        ("ssh://me@host:22", "host"),
        ("ssh://host", "host"),
        ("ssh://me@[::1]:22", "::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
    ],
)
def test_the_host_in_a_destination(destination: str, host: str) -> None:
    assert alias_of(destination) == host


def test_an_invocation_answers_about_its_options() -> None:
    invocation = Invocation("h", ssh_options=(("v", None), ("p", "1"), ("X", None), ("p", "2")))
    assert invocation.value_of("p") == "2"
    assert invocation.value_of("l") is None
    assert invocation.count("v") == 1
    assert invocation.last_of("XYx") == "X"
    assert invocation.last_of("t") == ""
    assert invocation.ssh_arguments() == ["-v", "-p", "1", "-X", "-p", "2", "--", "h"]
    late = replace(invocation, late_options=2)
    assert late.ssh_arguments() == ["-v", "-p", "1", "h", "-X", "-p", "2", "--"]
    fewer = late.with_options((("F", "f"),), without="p")
    assert fewer.ssh_arguments() == ["-F", "f", "-v", "h", "-X", "--"]


BAD_NAMES = ["-x", "-oProxyCommand=x", "a;b", "a$(b)", "a`b`", "a|b", "a&b", "a>b", "a<b"]
BAD_NAMES += ["a'b", 'a"b', "a(b", "a)b", "a{b", "a}b", "a\nb", "a\x07b", "a\x7fb"]


def is_refused_by_ssh(*words: str) -> bool:
    argv = [require_tool("ssh"), "-G", "-F", "none", *words]
    done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return done.returncode == 255 and b"contains invalid characters" in done.stderr


@pytest.mark.parametrize("name", [*BAD_NAMES, "a b", "a$b", "a\\b", "a\tb"])
def test_host_names_that_a_shell_would_read_are_refused(name: str) -> None:
    assert is_refused_by_ssh("--", name)
    for form in ("{}", "me@{}", "ssh://{}", "ssh://me@{}:22", "[{}]"):
        with pytest.raises(SettingsError, match=r"^hostname contains invalid characters$"):
            check_invocation(Invocation(form.format(name)))


@pytest.mark.parametrize("name", [*BAD_NAMES, "a -b", "a\t-b", "a\\"])
def test_user_names_that_a_shell_would_read_are_refused(name: str) -> None:
    # An older ssh lets control characters through.
    assert name.isprintable() is False or is_refused_by_ssh("--", f"{name}@h")
    said = "^remote username contains invalid characters$"
    with pytest.raises(SettingsError, match=said):
        check_invocation(Invocation(f"{name}@h"))
    with pytest.raises(SettingsError, match=said):
        check_invocation(Invocation(f"ssh://{name}@h:22"))
    with pytest.raises(SettingsError, match=f"{said}|more than one line"):
        check_invocation(Invocation("h", ssh_options=(("l", name),)))


@pytest.mark.parametrize(
    "name", ["a", "a.b", "a_b", "a-b", "a%b", "a@b", "::1", "fe80::1%eth0", "ü"]
)
def test_harmless_names_are_let_through(name: str) -> None:
    assert not is_refused_by_ssh("--", name)
    assert not is_refused_by_ssh("-l", name, "h")
    check_invocation(Invocation(name))
    check_invocation(Invocation("h", ssh_options=(("l", name),)))


@pytest.mark.parametrize("name", ["a b", "a$b", "a\\b", "DOMAIN\\user", "a@b", "a#b", "a!b"])
def test_user_names_may_have_more_than_host_names(name: str) -> None:
    # A newer ssh (10.6) refuses some of them itself, and -G says so.
    assert not is_refused_by_ssh("--", f"{name}@h") or set(name) & set("$\\")
    check_invocation(Invocation(f"{name}@h"))


@pytest.mark.parametrize("letter", ["o", "l", "i", "J", "p"])
@pytest.mark.parametrize("value", ["a\nb", "a\n", "\0"])
def test_a_value_is_one_line(letter: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"value of -{letter} has more than one line") as caught:
        check_invocation(Invocation("h", ssh_options=((letter, value),)))
    assert caught.value.remedy


@pytest.mark.parametrize("text", ['A="b c"', "A='b'", 'A=b "c', "A=b\\ c", "A=", "A=b=c", 'A="'])
def test_set_env_is_what_ssh_prints(text: str) -> None:
    """OpenSSH has read the quotes already: those that are left belong to the value."""
    name, _, value = text.partition("=")
    assert settle(f"setenv {text}").set_env == ((name, value),)


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        (["forwardagent yes"], "/env"),
        (["forwardagent yes", "identityagent SSH_AUTH_SOCK"], "/env"),
        (["forwardagent yes", "identityagent /named"], "/named"),
        (["forwardagent yes", "identityagent $OTHER"], "/other"),
        (["forwardagent yes", "identityagent none"], ""),
        (["forwardagent /own", "identityagent /named"], "/own"),
        (["forwardagent $OTHER", "identityagent none"], "/other"),
        (["forwardagent $UNSET"], ""),
        (["forwardagent no", "identityagent /named"], ""),
    ],
)
def test_which_agent_is_forwarded(lines: list[str], path: str) -> None:
    environ = {"SSH_AUTH_SOCK": "/env", "OTHER": "/other"}
    assert settle(*lines, environ=environ).forward_agent == path


def test_a_local_command_may_name_the_tunnel() -> None:
    settings = settle("permitlocalcommand yes", "localcommand echo %T %n")
    assert settings.local_command == f"echo {TUNNEL_INTERFACE} alias"


def test_a_quote_that_nobody_closes_is_part_of_a_name() -> None:
    settings = settle('globalknownhostsfile /a"b c /d')
    assert settings.global_known_hosts_files == ('/a"b c', "/d")
