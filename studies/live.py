"""A page of the rows that are running, each over the curves of its receipts, drawn anew as they go.

FOLDER/live.html needs nothing but itself and reloads by itself: open it once, beside the terminal.
"""

import contextlib
import dataclasses
import html
import math
import pathlib
import sys
import threading
from collections.abc import Iterator, Sequence

import charts
from charts import Line, Point
from page_parts import document, figure

from ilm_jax.files import atomic_write
from ilm_jax.training.writers import read_metrics

FILE = "live.html"
EVERY_SECONDS = 5.0
VALIDATION = "validation/loss"
# Colours of the page's style: training, validation, receipts.
TRAINED, VALIDATED, KEPT = 5, 1, 7


@dataclasses.dataclass(frozen=True)
class Row:
    """One row that is trained.

    Attributes:
      name: of the row.
      run: its folder.
      behind: (name, curve of validation) of receipts that it is drawn over.
    """

    name: str
    run: pathlib.Path
    behind: Sequence[tuple[str, Sequence[Point]]] = ()


@contextlib.contextmanager
def drawn(rows: Sequence[Row], folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Keeps FOLDER/live.html up to date inside the `with`, and once more at its end."""
    page, over = folder / FILE, threading.Event()
    watcher = threading.Thread(target=_watch, name="live", args=(rows, page, over), daemon=True)
    _write(page, rows)
    print(f"curves as they go: {page}", flush=True)
    watcher.start()
    try:
        yield page
    finally:
        over.set()
        watcher.join()
        _write(page, rows, ended=True)


def _watch(rows: Sequence[Row], page: pathlib.Path, over: threading.Event) -> None:
    before = None
    while not over.wait(EVERY_SECONDS):
        now = [_stamp(row) for row in rows]
        if now != before:
            _write(page, rows)
        before = now


def _stamp(row: Row) -> float:
    file = row.run / "metrics.jsonl"
    return file.stat().st_mtime if file.exists() else 0.0


def _write(page: pathlib.Path, rows: Sequence[Row], *, ended: bool = False) -> None:
    """Writes what there is; a page that cannot be written stops no study."""
    try:
        with atomic_write(page) as stream:
            stream.write(text(rows, ended=ended))
    except (OSError, ValueError) as error:
        print(f"{page} was not written: {error}", file=sys.stderr, flush=True)


def text(rows: Sequence[Row], *, ended: bool = False) -> str:
    """The page.

    Args:
      rows: those that have begun are drawn.
      ended: nothing more will come: the page reloads no more.
    """
    charted = [(row, curves(row)) for row in rows]
    parts = [
        figure(
            row.name,
            charts.lines(found, height=230, across="step", up="loss, nats", label=row.name),
        )
        for row, found in charted
        if found
    ]
    waiting = [html.escape(row.name) for row, found in charted if not found]
    if waiting:
        parts.append(f"<p>Not begun: {', '.join(waiting)}.</p>")
    again = "" if ended else f'<meta http-equiv="refresh" content="{EVERY_SECONDS:g}">'
    body = "\n".join(
        [
            "<h1>Rows as they learn</h1>",
            "<p>Loss of training and of validation; in grey, what receipts of the same row have of "
            "validation.</p>",
            *parts,
        ]
    )
    return document("Rows as they learn", body, again)


def curves(row: Row) -> list[Line]:
    """Lines of a row, those of receipts first; none before its first log."""
    found = [
        Line(name, colour, points)
        for name, metric, colour in (
            ("training", "loss", TRAINED),
            ("validation", VALIDATION, VALIDATED),
        )
        if (points := logged(row.run, metric))
    ]
    behind = [Line(name, KEPT, curve, dashed=True) for name, curve in row.behind if curve]
    return [*behind, *found] if found else []


def logged(run: pathlib.Path, metric: str) -> list[Point]:
    """(step, value) of every finite value that a run has logged of a metric."""
    file = run / "metrics.jsonl"
    records = read_metrics(file) if file.exists() else []
    found = [(float(record["step"]), record[metric]) for record in records if metric in record]
    return [(step, value) for step, value in found if value is not None and math.isfinite(value)]
