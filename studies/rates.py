"""Learning rates: one grid for every row, each row's choice by nll_content of validation items.

The grid is that of gin/sweeps/rows.gin. What a whole search on the toy world found stands in
studies/rates.json, and the tiny recipes hold the chosen rates; a test compares the three. A study
on other data, or of changed recipes, may choose anew (`quickstart --choose_rates`): each row is
then trained at every rate, and its run at the best one is the row.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from scheduling import run_steps
from steps import Step, read_json
from study import RECIPES, Study, run_study

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write
from ilm_jax.locks import one_writer
from ilm_jax.runs import gin_config
from ilm_jax.runs.sweeps import Sweep
from ilm_jax.training import finished

COMMITTED = pathlib.Path(__file__).parent / "rates.json"
SWEEP = "sweeps/rows.gin"
METRIC = "nll_content"


def grid() -> list[float]:
    """The rates that every row tries, ascending."""
    sweep = gin_config.build(Sweep, [SWEEP], [], [])
    return sorted(map(float, sweep.grid["LEARNING_RATE"]))


def stage_of(row: str, rate: float) -> str:
    """Where a row's run at a rate lies in a study's folder."""
    return f"rates/{row}_{rate:g}"


def search(study: Study, rows: Sequence[str]) -> dict[str, Any]:
    """Trains each row at each rate; finished runs are skipped. Returns the record.

    `{"dataset", "seed", "metric", "grid": [rate, …], "rows": {row: {"rate", "values": {rate:
    value}}}}`; it is also written to FOLDER/rates.json.

    Raises:
      UserError: as `run_study`.
    """
    trained = [row for row in rows if RECIPES[row] is not None]
    before = [row for row in rows if row in ("text-zero", "ilm")]
    run_study(study, before, ranking=False, until="stage1")
    # Texts of validation items alone, as rows are compared on texts of test items.
    judged = gin_config.build(Sweep, [SWEEP], [], []).fixed
    earlier = [study.table, study.folder / "stage0", study.folder / "stage1"]
    steps: list[Step] = [
        *(
            (
                stage_of(row, rate),
                study.train_row(row, stage_of(row, rate), LEARNING_RATE=rate, **judged),
                study.folder / stage_of(row, rate) / finished.FILE,
            )
            for row in trained
            for rate in grid()
        ),
    ]
    with one_writer(study.folder, "studies/reproduce.py"):
        run_steps(study, steps, earlier)
        found: dict[str, Any] = {}
        for row in trained:
            ends = {f"{rate:g}": study.folder / stage_of(row, rate) for rate in grid()}
            values = {
                rate: read_json(folder / finished.FILE)["validation"][METRIC]
                for rate, folder in ends.items()
            }
            found[row] = {"rate": float(min(values, key=values.__getitem__)), "values": values}
        record = {
            "dataset": study.dataset,
            "seed": study.seed,
            "metric": METRIC,
            "grid": grid(),
            "rows": found,
        }
        write(study.folder / "rates.json", record)
    return record


def write(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Writes a record, atomically."""
    with atomic_write(path) as stream:
        json.dump(record, stream, indent=1)
        stream.write("\n")


def table(record: Mapping[str, Any]) -> str:
    """The search as aligned text; the chosen rates are starred, those at the grid's end named."""
    rates = [f"{rate:g}" for rate in record["grid"]]
    lines = [f"validation {record['metric']} at learning rate"]
    lines.append("model     " + "".join(f"{rate:>9}" for rate in rates))
    for row, found in record["rows"].items():
        cells = [
            f"{found['values'][rate]:8.4f}{'*' if float(rate) == found['rate'] else ' '}"
            if rate in found["values"]
            else f"{'-':>8} "
            for rate in rates
        ]
        at_end = found["rate"] in (record["grid"][0], record["grid"][-1])
        lines.append(
            f"{row:<10}{''.join(cells)}{' at the end of the grid' if at_end else ''}".rstrip()
        )
    return "\n".join(lines)


def committed() -> dict[str, Any]:
    """The record that the recipes' rates were taken from.

    Raises:
      UserError: if it is not there.
    """
    if not COMMITTED.is_file():
        raise UserError(f"{COMMITTED} is missing: `python studies/reproduce.py rates` writes it")
    return json.loads(COMMITTED.read_text(encoding="utf-8"))
