"""What the receipts of few_texts.py say: a table with intervals, paired tests, and a picture."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import few_texts
from receipts import Receipt, compare_rows, joined

from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import Comparison, Interval, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Found = Mapping[tuple[int, str], Sequence[Receipt]]
# Of stage 1, and without it; by whether the Q-Former trains (Okabe and Ito's colours).
COLOURS = {"ilm": "#0072B2", "ilm-rand": "#D55E00"}
TITLES = {False: "Q-Former trained", True: "Q-Former frozen"}
METRIC = "nll_content"


def tests(found: Found) -> Iterator[tuple[int, Comparison]]:
    """(number of texts, paired test over the texts of all seeds) of every two rows.

    Raises:
      UserError: if two rows of a seed were not measured on the same texts.
    """
    for texts in dict.fromkeys(texts for texts, _ in found):
        for a, b in _paired(found):
            rows = found[texts, a], found[texts, b]
            yield texts, compare_rows(a, rows[0], b, rows[1], METRIC)


def _paired(found: Found) -> list[tuple[str, str]]:
    """The rows that are compared, of those that were measured."""
    rows = {row for _, row in found}
    return [pair for pair in few_texts.PAIRED if rows.issuperset(pair)]


def pooled(cells: Sequence[Receipt]) -> Interval:
    """A row's nll_content over the texts of all seeds, with its interval."""
    return mean_interval(*joined(cells, METRIC))


def table(found: Found, all_texts: int) -> str:
    """Markdown: rows by number of texts, and the paired tests.

    Args:
      found: receipts of every row, a seed's each.
      all_texts: what 0 stands for.
    """
    counts = list(dict.fromkeys(texts for texts, _ in found))
    rows = list(dict.fromkeys(row for _, row in found))
    lines = ["| texts | " + " | ".join(f"`{row}`" for row in rows) + " |"]
    lines.append("|---" * (1 + len(rows)) + "|")
    for texts in counts:
        cells = (pooled(found[texts, row]) for row in rows)
        shown = (f"{c.mean:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in cells)
        lines.append(f"| {texts or all_texts} | " + " | ".join(shown) + " |")
    names = [f"`{a}` less `{b}`" for a, b in _paired(found)]
    lines += ["", "| texts | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    by_count: dict[int, list[str]] = {}
    for texts, tested in tests(found):
        d = tested.difference
        said = f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p = {tested.p_value:.1g}"
        by_count.setdefault(texts, []).append(said)
    lines += [f"| {n or all_texts} | {' | '.join(said)} |" for n, said in by_count.items()]
    return "\n".join(lines)


def draw(found: Found, output: pathlib.Path, all_texts: int) -> None:
    """A panel for trained and for frozen Q-Formers: nll of test items over the number of texts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    counts = list(dict.fromkeys(texts for texts, _ in found))
    for axes, frozen in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
        for name, (row, is_frozen) in few_texts.ROWS.items():
            if is_frozen == frozen:
                cells = [pooled(found[texts, name]) for texts in counts]
                _line(axes, [n or all_texts for n in counts], cells, row)
        _dress(axes, [n or all_texts for n in counts], TITLES[frozen])
    figure.axes[0].set_ylabel("nats per content token, test items")
    figure.axes[0].legend(frameon=False)
    with atomic_write(output, "wb") as stream:
        figure.savefig(stream, format="png")


def _line(axes: "Axes", counts: Sequence[int], cells: Sequence[Interval], row: str) -> None:
    means = [cell.mean for cell in cells]
    reach = [[c.mean - c.low for c in cells], [c.high - c.mean for c in cells]]
    label = "ilm: after stage 1" if row == "ilm" else "ilm-rand: without"
    axes.errorbar(
        counts,
        means,
        yerr=reach,
        capsize=3,
        elinewidth=1,
        label=label,
        color=COLOURS[row],
        marker="o",
        markersize=4,
        linewidth=1.8,
    )


def _dress(axes: "Axes", counts: Sequence[int], title: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("texts that stage 2 reads")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
