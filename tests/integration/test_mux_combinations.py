"""Every request there is, by both programs to both programs' masters: the answers are ssh's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration._masters import Harbour, harbour
from tests.integration._targets import dial, echo, mirror, target
from tests.support.mux_differential import COMBINATIONS
from tests.support.processes import Completed
from tests.support.sshd import KeyRing, free_port
from tests.support.warmstart import WORKER_ACCOUNT

FORWARDS = [
    "-L @a:127.0.0.1:@target -L @folder/listen:@folder/target -D @b",
    "-L 127.0.0.1:@a:@folder/target -L @folder/listen:127.0.0.1:@target",
    "-R @a:127.0.0.1:@target -R @folder/listen:127.0.0.1:@target -R @b",
    "-R 127.0.0.1:@a:@folder/target -R 0:127.0.0.1:@target",
]
"""Each line is opened, opened again, tried, closed, closed again."""

REQUESTS = [
    "-O check server",
    "-O check -q server",
    "-O forward server",
    "-O forward -L /nowhere/at/all:127.0.0.1:1 server",
    "-O forward -R /nowhere/at/all:127.0.0.1:1 server",
    "-O forward -L @target:127.0.0.1:1 server",
    "-O forward -L @a:127.0.0.1:1 -R /nowhere/at/all:a:1 server",
    "-O cancel -L @a:127.0.0.1:1 server",
    "-O cancel -D @b -R @c:a:1 -L @folder/none:a:1 server",
    "-W 127.0.0.1:1 server",
    "-N server",
    "-T server",
    "server exit 7",
    "server kill -TERM $$",
    "-tt server exit 8",
    "-s server no-such-thing",
    "-O proxy server exit 9",
    "-O stop server",
    "-O check server",
    "-O stop server",
]
"""In this order; the master goes on without its socket after the first stop."""

REFUSED = [
    "server echo own",
    "-W 127.0.0.1:@target server",
    "-O forward -L @folder/listen:a:1 server",
    "-O forward -R @a:a:1 server",
    "-O forward -D @b server",
    "-O cancel -L @folder/listen:a:1 server",
    "-O stop server",
    "-O exit server",
    "-O check server",
]
"""To a master whose user says no to everything."""


class Run:
    """One program's requests to one program's master."""

    def __init__(self, place: Harbour, passenger: str, number: object) -> None:
        self.place = place
        self._passenger = passenger
        self._names = {
            "folder": str(place.folder),
            "target": str(number),
            **{name: str(free_port()) for name in "abc"},
        }

    def fill(self, text: str) -> str:
        """Put the names' values in."""
        return re.sub(r"@(\w+)", lambda found: self._names[found[1]], text)

    def ask(self, line: str) -> Completed:
        """Make a request; return what came, the same for all."""
        words = [word for word in self.fill(line).split(" ", 20) if word]
        options = [] if "own" in words else ["-oProxyCommand=false"]
        done = self.place.run(self._passenger, *options, *words)
        stderr = re.sub(r"  try: .*\n", "", done.stderr)
        for name, value in self._names.items():
            stderr = stderr.replace(value, f"@{name}")
        stderr = re.sub(r"pid=\d+", "pid=N", re.sub(r"\b\d{5}\b", "N", stderr))
        return done._replace(stdout=re.sub(rb"^\d{4,5}$", b"N", done.stdout), stderr=stderr)


@pytest.fixture
def places(
    key_ring: KeyRing, private_places: Path, session_directory: Path
) -> Iterator[dict[tuple[str, str], Harbour]]:
    """A harbour for each combination, without masters."""
    account = session_directory / WORKER_ACCOUNT
    opened = {}
    contexts = [(names, harbour(key_ring, account)) for names in COMBINATIONS]
    try:
        for names, context in contexts:
            opened[names] = context.__enter__()
        yield opened
    finally:
        for _, context in contexts[: len(opened)]:
            context.__exit__(None, None, None)


def _agree(outcomes: dict[tuple[str, str], list[tuple[str, object]]]) -> None:
    """AssertionError at the first answer that is not ssh's."""
    for names in COMBINATIONS[1:]:
        for found, expected in zip(outcomes[names], outcomes[COMBINATIONS[0]], strict=True):
            assert found == expected, names


def test_every_kind_of_forward(places: dict[tuple[str, str], Harbour]) -> None:
    outcomes: dict[tuple[str, str], list[tuple[str, object]]] = {}
    for names, place in places.items():
        place.open_master(program=names[0])
        outcomes[names] = seen = []
        with (
            target(echo) as server,
            target(echo, place.folder / "target"),
        ):
            for words in FORWARDS:
                run = Run(place, names[1], server.place)
                for order in ("forward", "forward", "try", "cancel", "cancel"):
                    if order == "try":
                        seen.append((words, _try(run, words)))
                    else:
                        seen.append((f"{order} {words}", run.ask(f"-O {order} {words} server")))
                (place.folder / "listen").unlink(missing_ok=True)
        (place.folder / "target").unlink(missing_ok=True)
    _agree(outcomes)
    done = [answer for line, answer in outcomes[COMBINATIONS[0]] if line.startswith("forward")]
    assert all(isinstance(each, Completed) and each.status == 0 for each in done)


def _try(run: Run, words: str) -> list[bytes]:
    """Send something through each but those that speak SOCKS, or whose port is not known."""
    answers = []
    for word in run.fill(words).split()[1::2]:
        listen, _, rest = word.removeprefix("127.0.0.1:").partition(":")
        if rest and listen != "0":
            with dial(int(listen) if listen.isdecimal() else Path(listen)) as caller:
                caller.sendall(b"through")
                answers.append(caller.recv(7))
    return answers


def test_every_request(places: dict[tuple[str, str], Harbour]) -> None:
    outcomes: dict[tuple[str, str], list[tuple[str, object]]] = {}
    for names, place in places.items():
        master = place.open_master(program=names[0])
        with target(mirror) as server:
            run = Run(place, names[1], server.place)
            seen: list[tuple[str, object]] = [(line, run.ask(line)) for line in REQUESTS]
        outcomes[names] = seen
        assert master.wait(10) in (0, 255)  # nobody was aboard any more
        master = place.open_master(program=names[0])
        seen += [(line, run.ask(line)) for line in ("-O exit server", "-O exit server")]
        master.wait(10)
        # ssh's master means to say that there is no such subsystem, and closes the channel first.
        number = REQUESTS.index("-s server no-such-thing")
        answer = seen[number][1]
        assert isinstance(answer, Completed)
        said = "" if names[0] == "ssh" else "subsystem request failed\n"
        assert answer.stderr == said
        seen[number] = (seen[number][0], answer._replace(stderr=""))
    _agree(outcomes)


def test_a_user_who_says_no(places: dict[tuple[str, str], Harbour]) -> None:
    outcomes: dict[tuple[str, str], list[tuple[str, object]]] = {}
    for names, place in places.items():
        askpass = place.folder / "askpass"
        askpass.write_text("#!/bin/sh\necho no\n")
        askpass.chmod(0o755)
        variables = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
        place.open_master("-M", program=names[0], **variables)
        with target(echo) as server:
            run = Run(place, names[1], server.place)
            outcomes[names] = [(line, run.ask(line)) for line in REFUSED]
    _agree(outcomes)
    said = [answer for _, answer in outcomes[COMBINATIONS[0]]]
    assert sum("Permission denied" in str(answer) for answer in said) == len(REFUSED) - 2
