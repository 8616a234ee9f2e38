"""Where stage 1 pays: rows with stage 1 and without, over the number of texts that stage 2 reads.

Stage 1 reads the texts of all training items, stage 2 those of so many (`TEXTS`; 0: all), the first
by a hash of the items' ids. Rows are `ilm-rand` and `ilm`, each with the Q-Former trained and with
it frozen, where the adaptor alone trains. Every row of every number of texts has the learning rate
that is best on the validation items of seed 0, out of one grid, and of its run the checkpoint with
the lowest validation loss: so none is judged after it has overfitted. Test items are described, and
nll_content is compared text by text over all seeds; of the toy dataset each seed has a world of its
own.

A row that is measured leaves a receipt in studies/receipts/few_texts, and is not run again.
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import chosen_rates
import live
import receipts
from receipts import Receipt
from scheduling import run_steps
from steps import Step, recipe_bindings
from study import Study, plan, toy_world

from ilm_jax.data.catalogue.splits import TRAIN, make_splits
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.files import sha256_json
from ilm_jax.locks import one_writer
from ilm_jax.metrics.values import MetricValues
from ilm_jax.training import finished

TEXTS = (50, 200, 800, 0)
GRID = (1e-3, 3e-3, 1e-2)
STEPS, EVERY = 120, 20
TRAIN_ITEMS = "elm24.Elm24Settings.train_items"
FROZEN = "trainer.TrainerConfig.trainable"
# Row -> (row of the comparison, whether its Q-Former is frozen).
ROWS = {
    "ilm-rand": ("ilm-rand", False),
    "ilm": ("ilm", False),
    "ilm-rand-frozen": ("ilm-rand", True),
    "ilm-frozen": ("ilm", True),
}
# Of each pair the first is expected below the second, if stage 1 pays, and if a Q-Former does.
PAIRED = (("ilm", "ilm-rand"), ("ilm-frozen", "ilm-rand-frozen"), ("ilm-rand", "mlp"))
METRICS = ("nll_content", "worth_content")
# Flags of `ilm evaluate`: texts are scored, and nothing else.
MEASURED = ("--tasks=long_description", "--noranking", "--nogeneration")
# Steps and texts of a run that shows that everything works, and nothing else.
SMOKE_STEPS, SMOKE = 4, (8,)
FOLDER = receipts.FOLDER / "few_texts"
# Bindings that say where inputs lie: they are compared by what made them.
PLACES = finished.PLACES | finished.INPUTS


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row that reads so many texts (0: all)."""

    texts: int
    row: str

    def __str__(self) -> str:
        return f"{self.texts or 'all'}_{self.row}"


@dataclasses.dataclass(frozen=True)
class FewTexts(Study):
    """One dataset and seed; of the toy dataset each seed has a world of its own.

    Attributes:
      receipts: folder of what was measured.
      behind: folder of receipts that rows are drawn over as they go; None: the same.
      rows: name -> (row of the comparison, whether its Q-Former is frozen).
      grid: learning rates that a row is trained at, for the first seed.
      scored: flags of `ilm evaluate`.
      metrics: those that a receipt keeps.
    """

    receipts: pathlib.Path = FOLDER
    behind: pathlib.Path | None = None
    rows: ClassVar[Mapping[str, tuple[str, bool]]] = ROWS
    grid: ClassVar[Sequence[float]] = GRID
    scored: ClassVar[Sequence[str]] = MEASURED
    metrics: ClassVar[Sequence[str]] = METRICS

    @property
    def all_texts(self) -> int:
        """Training items, each with a text."""
        return len(make_splits(self.catalogue).items_in(TRAIN))

    def train_cell(self, cell: Cell, rate: float) -> list[str]:
        """The command that trains a row at a rate."""
        row, frozen = self.rows[cell.row]
        bindings = {**self.texts_alone(rate), **self.own(cell.row)}
        bindings[TRAIN_ITEMS] = cell.texts
        if frozen:
            bindings[FROZEN] = ("^adaptor/",)
        return self.train_row(row, place(cell, rate), **bindings)

    def texts_alone(self, rate: float) -> dict[str, object]:
        """Bindings of a stage 2 at a rate."""
        return stage_two(rate, min(EVERY, self.most_steps or EVERY))

    def further_metrics(self, run: pathlib.Path) -> dict[str, MetricValues]:
        """What is measured of a row beside its texts."""
        del run
        return {}

    @property
    def rates_name(self) -> str:
        """Of the rates that seed 0 chose."""
        dataset = toy_world(0) if self.family == "toy" else self.dataset
        return dataclasses.replace(self, seed=0, dataset=dataset).name("rates")

    def own(self, row: str) -> dict[str, object]:
        """Bindings of a row alone."""
        del row
        return {}

    def rated_as(self, row: str) -> str:
        """The row whose learning rate a row has."""
        return row

    def name(self, cell: Cell | str) -> str:
        """Of a row's receipt; data of one's own go by the name of their folder."""
        own = pathlib.Path(self.data_dir).resolve().name if self.data_dir else ""
        named = own if self.family == "custom" else self.dataset.replace("/", "_")
        return f"{named}_seed{self.seed}_{cell}"

    def made_from(self, cell: Cell, rate: float) -> dict[str, str]:
        """What a receipt of a row must say: data, and what recipes bind, places aside.

        Defaults of the code are no part of it, or each new setting would undo every receipt:
        whether the code of today gives the same figures is what a check asks.
        """
        digests = {
            name: sha256_json(recipe_bindings(command, PLACES))
            for name, command in self.commands(cell, rate).items()
        }
        return {"data": self.data, "learning rate": f"{rate:g}", **digests}

    def commands(self, cell: Cell, rate: float) -> dict[str, list[str]]:
        """What trains a row, and what it reads."""
        commands = {"row": self.train_cell(cell, rate), "stage 0": self.lm_steps()[0][1]}
        if self.rows[cell.row][0] == "ilm":
            commands["stage 1"] = self.train("stage1", self.stage1, CF_TABLE=str(self.table))
        return commands


def of_seed(
    seed: int,
    folder: pathlib.Path,
    dataset: str = "toy",
    places: tuple[str | None, str | None] = (None, None),
    jobs: int = 1,
    *,
    smoke: bool = False,
    receipts: pathlib.Path = FOLDER,
) -> FewTexts:
    """The study of one seed; of the toy dataset in a world of its own.

    Args:
      seed: of everything that is trained.
      folder: of all seeds.
      dataset: see `Study`.
      places: data_dir and cache_dir.
      jobs: see `Study`.
      smoke: a few steps of every stage.
      receipts: folder of what was measured.
    """
    if dataset == "toy":
        dataset = toy_world(seed)
    own = folder / f"{dataset.replace('/', '_')}_seed{seed}"
    most = SMOKE_STEPS if smoke else 0
    return FewTexts(dataset, seed, own, *places, jobs, most_steps=most, receipts=receipts)


def stage_two(rate: float, every: int = EVERY) -> dict[str, object]:
    """Bindings of a stage 2 of texts alone, saved whenever it is validated."""
    return {
        "MIXTURE_OR_TASK_NAME": "long_description",
        "TRAIN_STEPS": STEPS,
        "LEARNING_RATE": rate,
        "trainer.TrainerConfig.eval_every": every,
        "checkpoints.CheckpointConfig.every": every,
        "checkpoints.CheckpointConfig.keep_last": 1,
    }


def place(cell: Cell, rate: float) -> str:
    """Where a run lies in its study's folder."""
    return f"few_texts/{cell}_{rate:g}"


def measure(
    studies: Sequence[FewTexts],
    texts: Sequence[int],
    grid: Sequence[float] = (),
    rows: Sequence[str] = (),
) -> dict[tuple[int, str], list[Receipt]]:
    """Receipts of every row, in the studies' order; what has none is run.

    Args:
      studies: of one kind, a seed each.
      texts: numbers of them; 0: all.
      grid: learning rates; none: the first study's.
      rows: those that are measured; none: all.

    Raises:
      UserError: if a step fails, or a receipt was made from something else than what would be run.
    """
    cells = [Cell(count, row) for count in texts for row in rows or studies[0].rows]
    rates = _rates(studies[0], cells, grid or studies[0].grid)
    found: dict[tuple[int, str], list[Receipt]] = {}
    for study in studies:
        missing = [cell for cell in cells if kept(study, cell, rates[str(cell)]) is None]
        if missing:
            run(study, missing, rates)
        for cell in cells:
            receipt = kept(study, cell, rates[str(cell)])
            assert receipt is not None
            found.setdefault((cell.texts, cell.row), []).append(receipt)
    return found


def kept(study: FewTexts, cell: Cell, rate: float) -> Receipt | None:
    """A row's receipt, if it has one.

    Raises:
      UserError: if it was made from something else.
    """
    return receipts.standing(study.receipts, study.name(cell), study.made_from(cell, rate))


def _rates(study: FewTexts, cells: Sequence[Cell], grid: Sequence[float]) -> dict[str, float]:
    """Each cell's learning rate: seed 0 chooses, other seeds take what it chose."""
    rated = {cell: Cell(cell.texts, study.rated_as(cell.row)) for cell in cells}
    named = {str(cell): cell for cell in rated.values()}

    def search(rows: Sequence[str]) -> dict[str, dict[float, float]]:
        missing = [named[row] for row in rows]
        runs = [(cell, rate) for cell in missing for rate in grid]
        shown = [_shown(study, *run) for run in runs]
        with one_writer(study.folder, "studies/reproduce.py"), live.drawn(shown, study.folder):
            run_steps(study, [*_before(study, missing), *(_trained(study, *run) for run in runs)])
        return {
            str(cell): {rate: lowest(study, cell, rate)[1] for rate in grid} for cell in missing
        }

    path = study.receipts / f"{study.rates_name}.json"
    rows = {row: _without_rate(study, cell) for row, cell in named.items()}
    found = chosen_rates.chosen(path, rows, grid, None if study.seed else search)
    return {str(cell): found[str(other)] for cell, other in rated.items()}


def _without_rate(study: FewTexts, cell: Cell) -> dict[str, str]:
    """What a rate is chosen for: a receipt's `made_from` at one rate that is the same for all."""
    made = study.made_from(cell, 1.0)
    del made["learning rate"]
    return made


def _shown(study: FewTexts, cell: Cell, rate: float) -> live.Row:
    """A row as it is drawn while it learns."""
    behind = curves_of(study.behind or study.receipts, cell)
    return live.Row(place(cell, rate), study.folder / place(cell, rate), behind)


def _before(study: FewTexts, cells: Sequence[Cell]) -> list[Step]:
    rows = {study.rows[cell.row][0] for cell in cells}
    return plan(study, sorted(rows), False, until="stage1")


def _trained(study: FewTexts, cell: Cell, rate: float) -> Step:
    folder = study.folder / place(cell, rate)
    return place(cell, rate), study.train_cell(cell, rate), folder / finished.FILE


def _evaluation(study: FewTexts, cell: Cell, rate: float) -> pathlib.Path:
    return study.folder / place(cell, rate) / "evaluation"


def run(study: FewTexts, cells: Sequence[Cell], rates: Mapping[str, float]) -> None:
    """Trains and evaluates rows, and writes their receipts."""
    steps, start = _before(study, cells), time.monotonic()
    for cell in cells:
        rate = rates[str(cell)]
        output = _evaluation(study, cell, rate)
        words = ["evaluate", f"--model_dir={output.parent}", f"--output={output}", *study.scored]
        steps.append(_trained(study, cell, rate))
        steps.append((f"evaluate {place(cell, rate)}", words, output / results.SUMMARY))
    shown = [_shown(study, cell, rates[str(cell)]) for cell in cells]
    with one_writer(study.folder, "studies/reproduce.py"), live.drawn(shown, study.folder):
        seconds = run_steps(study, steps)
    for cell in cells:
        rate = rates[str(cell)]
        took = seconds.get(place(cell, rate), 0.0)
        took += seconds.get(f"evaluate {place(cell, rate)}", 0.0)
        folder = study.folder / place(cell, rate)
        made_from, curve = study.made_from(cell, rate), validations(folder)
        stored = results.read(_evaluation(study, cell, rate))
        receipt = receipts.of_evaluation(
            study.name(cell), made_from, took, curve, stored, study.metrics
        )
        metrics = {**receipt.metrics, **study.further_metrics(folder)}
        receipt = dataclasses.replace(receipt, metrics=metrics)
        receipts.write(study.receipts, receipt)
    print(f"{study.dataset}, seed {study.seed}: {time.monotonic() - start:.0f} s", flush=True)


def curves_of(folder: pathlib.Path, row: object) -> list[tuple[str, Sequence[tuple[int, float]]]]:
    """(name, curve) of every receipt of a row, of whatever world and seed."""
    names = [path.stem for path in sorted(folder.glob(f"*_{row}.json"))]
    found = [receipts.read(folder, name) for name in names]
    return [(receipt.row, receipt.curve) for receipt in found if receipt]


def validations(run: pathlib.Path) -> list[tuple[int, float]]:
    """(step, nll) of every validation of a run."""
    return [(int(step), nll) for step, nll in live.logged(run, live.VALIDATION)]


def lowest(study: FewTexts, cell: Cell, rate: float) -> tuple[int, float]:
    """(step, nll) of the validation with the lowest nll.

    Raises:
      UserError: if the run was never validated.
    """
    curve = validations(study.folder / place(cell, rate))
    if not curve:
        raise UserError(f"{study.folder / place(cell, rate)} was never validated: delete it")
    return min(curve, key=lambda point: point[1])
