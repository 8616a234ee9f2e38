"""The picture of a ladder: every row's NDCG@10 with its interval."""

import pathlib
from collections.abc import Mapping

from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import Interval

# Okabe and Ito's colours: of runs of language models, and of all else.
COLOURS = {True: "#D55E00", False: "#0072B2"}


def draw(rows: Mapping[str, tuple[Interval, bool]], title: str, output: pathlib.Path) -> None:
    """A point and an interval for each row, from the lowest up.

    Args:
      rows: by name: NDCG@10, and whether the lists are a language model's.
      title: what was measured on whom.
      output: PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = sorted(rows.items(), key=lambda row: row[1][0].mean)
    figure = Figure(figsize=(7.6, 1.1 + 0.36 * len(ordered)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, (_, (gain, ours)) in enumerate(ordered):
        reach = [[gain.mean - gain.low], [gain.high - gain.mean]]
        axes.errorbar(gain.mean, place, xerr=reach, fmt="o", capsize=3, color=COLOURS[ours])
        axes.annotate(
            f"{gain.mean:.3f}", (gain.high, place), (6, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes.set_xlim(0, 1.12 * max(gain.high for gain, _ in rows.values()))
    axes.set_xlabel("NDCG@10, 95 % over users")
    axes.set_title(title, fontsize=11)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(output, "wb") as stream:
        figure.savefig(stream, format="png")
