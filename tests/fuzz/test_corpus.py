"""What the fuzzer found worth keeping, once more: no parser raises what it should not."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_corpus_of_each_parser(name: str) -> None:
    inputs = (CORPUS / name).read_text().split()
    assert inputs
    for line in inputs:
        TARGETS[name](base64.b64decode(line))


def test_every_file_belongs_to_a_parser() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
