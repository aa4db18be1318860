"""From kept measurements to what people read: tables and charts of docs/benchmarks.md, README.

Nothing here measures. What stands between the markers of docs/benchmarks.md, and the rows of the
README's comparison that hold figures, are written by this alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.bench_results import METHOD, Results, Row, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found, unused-ignore]

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "benchmarks.json"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
IMAGES = ROOT / "docs" / "images"
BEGIN = "<!-- From here on written by scripts/bench render. -->"
END = "<!-- Up to here. -->"

FAR, FARTHER, NEAR = "100 ms, 20 Mbit/s", "150 ms, 5 Mbit/s", "loopback"
WORSE = 0.9
"""Below this many times as good it is said to be worse: closer, they are alike."""

_COLOURS = {
    "xssh": "#1f77b4",
    "xssh -C": "#6baed6",
    "xssh --share": "#6baed6",
    "ssh": "#444444",
    "cold ssh": "#999999",
    "ssh -C": "#999999",
    "ssh -X": "#444444",
    "ssh -XC": "#999999",
    "nxagent": "#d98032",
    "xpra": "#5a9a57",
    "local": "#cccccc",
}
_TITLES = {
    "TkAgg: window drawn": "TkAgg: `plt.subplots()` to window drawn",
    "TkAgg: window drawn, first connection": "the same, first connection to a host",
}


def render(results: Results) -> None:
    """Write the document's section, the charts and the README's figures."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{section(results)}\n{END}{after}")
    README.write_text(with_figures(README.read_text(), results))
    draw(results)


# --- Words -------------------------------------------------------------------------------------


def section(results: Results) -> str:
    """Return the generated section of the document."""
    parts = [
        _about(results),
        "### Starts\n\n![Starts and streams](images/bench-sessions.png)\n",
        _table(results, "start", lambda row: not row.name.startswith("stage")),
        "Where the time of a cold start goes:\n",
        _table(results, "start", lambda row: row.name.startswith("stage")),
        "Round trips from the connection to the first byte of output, counted:\n",
        _table(results, "trips"),
        "### Streams\n\nMore is better.\n",
        _table(results, "throughput"),
        "### X11\n\n![A plot over 100 ms](images/bench-plots.png)\n\n"
        "![Other programs over 100 ms](images/bench-programs.png)\n",
        _table(results, "x11"),
        "### What is worse than ssh\n",
        _worse(results),
    ]
    if results.left_out:
        parts.append("Left out:\n")
        parts.append(_counted(results.left_out))
    return "\n".join(parts)


def _counted(left_out: Sequence[str]) -> str:
    """Return one line for each cause, with how often it struck whom."""
    whom_by_cause: dict[tuple[str, str], Counter[str]] = {}
    for each in left_out:
        place, _, cause = each.rpartition(": ")
        where, _, whom = place.rpartition(": ")
        whom_by_cause.setdefault((where, cause), Counter())[whom] += 1
    return "".join(
        f"- {where}: {cause}: "
        + "; ".join(f"{whom}, {times} times" if times > 1 else whom for whom, times in who.items())
        + "\n"
        for (where, cause), who in whom_by_cause.items()
    )


def _about(results: Results) -> str:
    facts = {**results.machine, **results.versions}
    minutes = sum(results.finished.values()) / 60
    warning = (
        ""
        if results.is_final
        else "**A quick run on a busy machine: it shows what is measured; its figures are to be "
        "replaced.**\n\n"
    )
    return (
        f"{warning}Measured by `{results.command}` in {minutes:.0f} minutes; every sample is in "
        f"[benchmarks.json](benchmarks.json). {METHOD}\n\n"
        + "; ".join(f"{name} {value}" for name, value in facts.items())
        + ".\n"
    )


def _table(results: Results, part: str, wanted: Callable[[Row], bool] = lambda _: True) -> str:
    rows = [row for row in results.rows if row.part == part and wanted(row)]
    order = [name for name in _COLOURS if any(name in row.samples for row in rows)]
    others = [name for name in order if not name.startswith("xssh") and name != "local"]
    clients = [name for name in order if name not in others]
    clients = [*[name for name in clients if name == "local"], *others, *clients]
    clients = list(dict.fromkeys([*clients, *order]))
    rival = next((name for name in ("ssh -X", "ssh") if name in others), "ssh")
    lines = [
        "| link | measure | " + " | ".join(clients) + f" | xssh beside {rival} |",
        "| --- | --- |" + " --- |" * (len(clients) + 1),
    ]
    link = ""
    for row in sorted(rows, key=lambda row: [each.link for each in rows].index(row.link)):
        cells = [show(row.figure(client), row.unit) for client in clients]
        name = _TITLES.get(row.name, row.name)
        cells.append(_times(row.times_better(rival)))
        lines.append(f"| {row.link if row.link != link else ''} | {name} | {' | '.join(cells)} |")
        link = row.link
    return "\n".join(lines) + "\n"


def _times(value: float | None) -> str:
    if value is None:
        return ""
    if WORSE <= value <= 1 / WORSE:
        return "alike"
    return f"{_ratio(value)} times better" if value > 1 else f"{_ratio(1 / value)} times worse"


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _worse(results: Results) -> str:
    lines = []
    for row in results.rows:
        for rival in ("ssh", "ssh -X", "ssh -C"):
            value = row.times_better(rival)
            if value is not None and value < WORSE and not row.name.startswith("stage"):
                ours, theirs = (
                    show(row.figure(name), row.unit) for name in (row.counterpart(rival), rival)
                )
                lines.append(
                    f"- {row.link}, {row.name}: {ours} beside {rival}'s {theirs}, "
                    f"{_ratio(1 / value)} times worse"
                )
    for name in ("TkAgg: redraws", "TkAgg: window drawn", "TkAgg: key to redraw, animated"):
        found = results.find("x11", FAR, name)
        for rival in ("nxagent", "xpra"):
            value = found.times_better(rival) if found else None
            if found and value is not None and value < WORSE:
                ours, theirs = (show(found.figure(each), found.unit) for each in ("xssh", rival))
                lines.append(
                    f"- {found.link}, {found.name}: {ours} beside {rival}'s {theirs}, "
                    f"{_ratio(1 / value)} times worse"
                )
    return "\n".join(lines or ["- nothing that was measured"]) + "\n"


# --- README ------------------------------------------------------------------------------------


def readme_rows(results: Results) -> dict[str, str]:
    """Return the rows of the README's comparison that hold figures, by their first cell."""

    def cells(name: str, unit: str, row: Row | None, *, kitten: str) -> str:
        clients = ("xssh", "ssh -X", "", "xpra", "nxagent")
        figures = [row.figure(client) if row and client else None for client in clients]
        known = [figure for figure in figures if figure is not None]
        best = (max if unit.endswith("/s") else min)(known, default=None)
        words = []
        for figure in figures:
            word = "?" if figure is None else show(figure, "" if unit == "1/s" else unit)
            words.append(f"**{word}**" if figure is not None and figure == best else word)
        return f"| {name} | {' | '.join(words)} | – | {kitten} |"  # noqa: RUF001

    drawn, redraws = "TkAgg: window drawn", "TkAgg: redraws"
    near, far = (results.find("start", link, "cold") for link in (NEAR, "100 ms"))
    ratios = [
        "?" if row is None or not (better := row.times_better("ssh")) else _ratio(1 / better)
        for row in (near, far)
    ]
    names = (
        "first plot over 100 ms",
        "plots redrawn a second, there",
        "redrawn a second on loopback",
        "start of a session, near and far",
    )
    as_ssh = "as `ssh -X`"
    return {
        names[0]: cells(names[0], "s", results.find("x11", FAR, drawn), kitten=as_ssh),
        names[1]: cells(names[1], "1/s", results.find("x11", FAR, redraws), kitten=as_ssh),
        names[2]: cells(names[2], "1/s", results.find("x11", NEAR, redraws), kitten=as_ssh),
        names[3]: f"| {names[3]} | {', '.join(ratios)} times ssh's | 1, 1 | ? | ? | ? | ? | ? |",
    }


def with_figures(readme: str, results: Results) -> str:
    """Return the README with these rows in place of those that it has."""
    rows = readme_rows(results)
    lines = readme.splitlines(keepends=True)
    for name, row in rows.items():
        places = [at for at, line in enumerate(lines) if line.startswith(f"| {name} |")]
        if len(places) != 1:
            raise ValueError(f"the README has {len(places)} rows called {name!r}")
        lines[places[0]] = row + "\n"
    return "".join(lines)


# --- Charts ------------------------------------------------------------------------------------


def draw(results: Results) -> None:
    """Write the charts, as PNG and SVG."""
    import matplotlib as mpl  # type: ignore[import-not-found, unused-ignore]

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "xssh", "font.size": 9, "axes.titlesize": 10})
    _draw_plots(results)
    _draw_programs(results)
    _draw_sessions(results)


def _save(figure: object, name: str) -> None:
    from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]

    assert isinstance(figure, Figure)
    figure.savefig(IMAGES / f"{name}.png", dpi=110, metadata={"Software": None})
    figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None, "Creator": None})


def _draw_bars(axes: Axes, row: Row | None, title: str, unit: str, *, log: bool) -> None:
    """Draw a bar for each client, with its figure beside it."""
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    if row is None:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        return
    clients = [name for name in _COLOURS if name in row.samples][::-1]
    values = [row.figure(name) or 0.0 for name in clients]
    bars = axes.barh(clients, values, color=[_COLOURS[name] for name in clients], height=0.7)
    axes.bar_label(bars, [show(value, row.unit) for value in values], padding=3)
    better = "more" if row.unit.endswith("/s") else "less"
    axes.set_xlabel(f"{unit}{', logarithmic' if log else ''}; {better} is better")
    if log:
        axes.set_xlim(min(values) / 3, max(values) * 6)
        _scale(axes)
    else:
        axes.set_xlim(0, max(values) * 1.35)


def _scale(axes: Axes) -> None:
    """Have a logarithmic axis with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")


def _draw_plots(results: Results) -> None:
    from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]

    figure = Figure(figsize=(10, 2.9), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, name, title, unit in zip(
        panels,
        ("TkAgg: window drawn", "TkAgg: redraws", "TkAgg: key to redraw, animated"),
        (
            "First plot",
            "Redraws",
            "Key press to redraw, animated",
        ),
        ("seconds", "redraws a second", "seconds"),
        strict=True,
    ):
        _draw_bars(axes, results.find("x11", FAR, name), title, unit, log=True)
    figure.suptitle("A matplotlib window (TkAgg) over 100 ms there and back, 20 Mbit/s")
    _save(figure, "bench-plots")


def _draw_programs(results: Results) -> None:
    from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]

    suffix = ": start to drawn"
    rows = [
        row
        for row in results.rows
        if row.part == "x11" and row.link == FAR and row.name.endswith(suffix)
    ]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    clients = [name for name in _COLOURS if any(name in row.samples for row in rows)]
    height = 0.8 / max(1, len(clients))
    for number, client in enumerate(clients):
        drawn = [(at, row.figure(client)) for at, row in enumerate(rows)]
        known = [(at, value) for at, value in drawn if value is not None]
        bars = axes.barh(
            [at + (number - (len(clients) - 1) / 2) * height for at, _ in known],
            [value for _, value in known],
            height=height * 0.92,
            color=_COLOURS[client],
            label=client,
        )
        axes.bar_label(bars, [show(value, "s") for _, value in known], padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), [row.name.removesuffix(suffix) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0.5, 120)
    _scale(axes)
    axes.set_xlabel("seconds, logarithmic; less is better")
    axes.set_title("From the command to the window, 100 ms, 20 Mbit/s", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, "bench-programs")


def _draw_sessions(results: Results) -> None:
    from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]

    figure = Figure(figsize=(10, 5.2), layout="constrained")
    panels: Sequence[Axes] = list(figure.subplots(2, 3).flat)
    down = "random bytes from the server"
    cases = (
        ("start", NEAR, "cold", "Cold start, loopback"),
        ("start", "100 ms", "cold", "Cold start, 100 ms"),
        ("start", NEAR, "through a master", "Through a live connection"),
        ("throughput", NEAR, down, "Stream from the server, loopback"),
        ("throughput", "100 ms", down, "Stream from the server, 100 ms"),
        ("throughput", FAR, "text from the server", "Text, 100 ms, 20 Mbit/s"),
    )
    for axes, (part, link, name, title) in zip(panels, cases, strict=True):
        unit = "seconds" if part == "start" else "MB/s"
        _draw_bars(axes, results.find(part, link, name), title, unit, log=False)
    _save(figure, "bench-sessions")
