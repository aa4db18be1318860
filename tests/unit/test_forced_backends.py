"""Scripts that choose a backend themselves: the lines that are found, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from xsshpy.doctor.findings import Verdict
from xsshpy.doctor.forced import judge_forced
from xsshpy.remote.python_facts import find_forced

ROWS = [
    ("matplotlib.use('Agg')", Verdict.BROKEN, "line 2: matplotlib.use('Agg')"),
    ("mpl.use('pdf', force=True)", Verdict.BROKEN, "line 2: mpl.use('pdf'"),
    ("plt.switch_backend('QtAgg')", Verdict.WARNING, "line 2: plt.switch_backend"),
    ("plt.switch_backend('agg')", Verdict.BROKEN, "line 2: plt.switch_backend"),
    ("    matplotlib.use('Agg')", Verdict.WARNING, "may choose"),
    ("plt.rcParams['backend'] = 'Agg'", Verdict.BROKEN, "line 2: plt.rcParams"),
    ("matplotlib.use('TkAgg')", None, ""),
    ("# matplotlib.use('Agg')", None, ""),
    ("print('matplotlib.use(Agg)')", None, ""),
]


@pytest.mark.parametrize(("line", "verdict", "words"), ROWS)
def test_a_line_that_chooses(
    tmp_path: Path, line: str, verdict: Verdict | None, words: str
) -> None:
    script = tmp_path / "train.py"
    script.write_text(f"import sys\n{line}\n")
    opinion = judge_forced(find_forced(str(script)), "TkAgg")
    assert (opinion.verdict if opinion else None) == verdict
    assert words in ("\n".join(opinion.evidence) if opinion else "")


@pytest.mark.parametrize("facts", [None, 3, [3], [[1]]])
def test_facts_that_are_none(facts: object) -> None:
    assert judge_forced(facts, "TkAgg") is None
