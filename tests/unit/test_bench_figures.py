"""The figures that people read are those that were measured and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.bench_render import (
    BEGIN,
    DOCUMENT,
    END,
    IMAGES,
    KEPT,
    README,
    readme_rows,
    section,
    with_figures,
)
from scripts.bench_results import Results, Row, load, show


@pytest.fixture(scope="module")
def kept() -> Results:
    return load(KEPT)


def test_the_readme_has_the_figures_that_were_kept(kept: Results) -> None:
    text = README.read_text()
    for row in readme_rows(kept).values():
        assert row in text.splitlines()
    assert with_figures(text, kept) == text


def test_the_document_has_the_tables_that_were_kept(kept: Results) -> None:
    text = DOCUMENT.read_text()
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == section(kept).strip()
    for name in ("plots", "programs", "sessions"):
        assert f"images/bench-{name}.png" in text
        assert (IMAGES / f"bench-{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (IMAGES / f"bench-{name}.svg").read_text()


def test_what_is_kept_is_whole(kept: Results) -> None:
    assert set(kept.finished) == {"start", "trips", "throughput", "x11"}
    assert {"cores", "date"} <= set(kept.machine)
    assert {"xssh", "OpenSSH", "asyncssh", "Python"} <= set(kept.versions)
    clients = {client for row in kept.rows for client in row.samples}
    assert {"ssh", "ssh -C", "ssh -X", "xssh", "xssh -C"} <= clients
    assert "ssh -XC" in clients or not kept.is_final
    for each in json.loads(KEPT.read_text())["rows"]:
        assert all(each["samples"].values()), each["name"]


def test_what_is_worse_is_said(tmp_path: Path) -> None:
    results = Results("scripts/bench")
    slow = Row("x11", "loopback", "x11perf -noop", "1/s", {"ssh -X": [2e6, 3e6], "xssh": [5e5]})
    quick = Row("start", "100 ms", "cold", "s", {"ssh": [1.0, 9.0, 2.0], "xssh": [1.0]})
    results.replace("x11", [slow], [])
    results.replace("start", [quick], ["something: it broke"] * 2 + ["another: it broke"])
    text = section(results)
    assert "- loopback, x11perf -noop: 500 k/s beside ssh -X's 2.5 M/s, 5 times worse" in text
    assert "| 100 ms | cold | 2 s | 1 s | 2 times better |" in text
    assert "- start: it broke: something, 2 times; another\n" in text
    assert "to be replaced" in text
    results.save(tmp_path / "kept.json")
    assert load(tmp_path / "kept.json") == results


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", ""),
        (0.7654, "s", "0.77 s"),
        (39.61, "s", "39.6 s"),
        (12345.0, "1/s", "12.3 k/s"),
        (25e6, "1/s", "25 M/s"),
        (24.0, "1/s", "24/s"),
        (6.0, "", "6"),
        (381.0, "", "381"),
        (1365.2, "kB", "1365 kB"),
    ],
)
def test_figures_are_short(value: float | None, unit: str, text: str) -> None:
    assert show(value, unit) == text


def test_middles_and_ratios() -> None:
    row = Row("trips", "counted", "command", "", {"ssh": [9, 8, 8], "xssh": [7, 9]}, "least")
    assert (row.figure("ssh"), row.figure("xssh"), row.figure("nobody")) == (8, 7, None)
    assert row.times_better("ssh") == pytest.approx(8 / 7)
    tiny = Row("start", "loopback", "stage", "s", {"ssh": [0.001], "xssh": [0.1]})
    assert tiny.times_better("ssh") is None
