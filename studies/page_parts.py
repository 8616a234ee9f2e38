"""What sections of the page are put together from: figures, tables of tests, rows by world."""

import html
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import receipts
from receipts import Receipt

from ilm_jax.metrics.intervals import Comparison

STYLE = pathlib.Path(__file__).with_name("page.css")
ROUNDED = 0.09
ROUNDING = (
    "<p>Intervals and p are over items of these runs. What rounding alone does to a run is not in "
    "them: on the toy world up to .06 nats with all texts, .09 with fifty, between two versions of "
    "the code that are the same in exact arithmetic. A smaller difference is not decided by them, "
    "but by worlds or seeds.</p>"
)
# A toy world with a seed of its own, as receipts are called: the first has no number.
WORLD = re.compile(r"toy(?:_world(\d+))?_seed(\d+)_(.+)")
# By number of a world: its receipts by row.
Worlds = Mapping[int, Mapping[str, Receipt]]


def worlds_of(folder: pathlib.Path) -> Worlds:
    """Receipts of a study over toy worlds, in the worlds' order.

    Raises:
      UserError: for a file that is no receipt.
    """
    found: dict[int, dict[str, Receipt]] = {}
    for path in sorted(folder.glob("*.json")):
        named = WORLD.fullmatch(path.stem)
        if not named or named[3] == "rates" or (named[1] or "0") != named[2]:
            continue
        receipt = receipts.read(folder, path.stem)
        assert receipt is not None
        found.setdefault(int(named[2]), {})[named[3]] = receipt
    return dict(sorted(found.items()))


def with_all(worlds: Worlds, rows: Iterable[str]) -> Worlds:
    """The worlds that have all of these rows, and no other row."""
    wanted = list(rows)
    return {
        world: {row: cells[row] for row in wanted}
        for world, cells in worlds.items()
        if all(row in cells for row in wanted)
    }


def column(worlds: Worlds, row: str) -> list[Receipt]:
    """A row's receipts, world by world."""
    return [cells[row] for cells in worlds.values()]


def within_rounding(test: Comparison) -> str:
    """What stands beside a verdict that rounding could have made."""
    small = abs(test.difference.mean) < ROUNDED
    return ", within what rounding does" if small and test.verdict != "undecided" else ""


def tests_table(what: str, tested: Sequence[tuple[str, Comparison, str]], of: str = "nats") -> str:
    """Paired tests: (name, test, what is to be said beside its verdict) each."""
    rows = "\n".join(
        f"<tr><td>{html.escape(name)}</td>"
        f'<td class="figure">{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]</td>'
        f'<td class="figure">{test.p_value:.1g}</td>'
        f"<td>{html.escape(test.verdict + also)}</td></tr>"
        for name, test, also in tested
        for d in [test.difference]
    )
    head = f"<tr><th>{what}</th><th>difference, {of}</th><th>p</th><th>verdict</th></tr>"
    return scrolling(f"<table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table>")


def scrolling(made: str) -> str:
    """Tables that are wider than a phone move by themselves."""
    made = made.replace("<table>", '<div class="wide"><table>')
    return made.replace("</table>", "</table></div>")


def figure(title: str, chart: str) -> str:
    """A chart under its title."""
    return f"<figure><figcaption>{html.escape(title)}</figcaption>\n{chart}</figure>"


def document(title: str, body: str, head: str = "") -> str:
    """A whole page in the pages' style, which loads nothing.

    Args:
      title: of the window.
      body: what is shown.
      head: further elements of its head.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{head}
<title>{html.escape(title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
{body}
</body>
</html>
"""
