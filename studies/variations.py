"""Rows that differ in one thing, on toy worlds, each with a seed of its own.

A row is a reader (what stage 2 does with the Q-Former) behind a variation (of the vectors, of stage
1, of stage 2). Stage 2 reads the texts of all training items, and of its run the checkpoint with
the lowest validation loss is measured on the texts of test items. A row that is measured leaves a
receipt, and is not run again.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import few_texts
import live
import receipts
import scheduling
from receipts import Receipt
from scipy import stats
from steps import Step, recipe_bindings
from study import Study, plan

from ilm_jax.evaluation.reports import results
from ilm_jax.files import sha256_json
from ilm_jax.locks import one_writer
from ilm_jax.training import finished

# Reader -> (row of the comparison, its own bindings).
_FROZEN = {few_texts.FROZEN: ("^adaptor/",)}
READERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "trained": ("ilm", {}),
    "frozen": ("ilm", _FROZEN),
    "fresh": ("ilm-rand", {}),  # without stage 1
    "fresh-frozen": ("ilm-rand", _FROZEN),
}
RATE = 3e-3  # of all these readers, with all texts: studies/receipts/few_texts
METRIC = "nll_content"


class Row(NamedTuple):
    """A reader behind a variation."""

    reader: str
    variation: str

    def __str__(self) -> str:
        return f"{self.reader}-{self.variation}"


@dataclasses.dataclass(frozen=True)
class Variation:
    """What a row has of its own.

    Attributes:
      stage_one, stage_two: bindings.
      vectors: flags of `ilm fit_cf`; the vectors of all rows if there are none.
    """

    stage_one: Mapping[str, object] = dataclasses.field(default_factory=dict)
    stage_two: Mapping[str, object] = dataclasses.field(default_factory=dict)
    vectors: Sequence[str] = ()


Found = dict[Row, list[Receipt]]


@dataclasses.dataclass(frozen=True)
class Varied(Study):
    """One toy world and seed.

    Attributes:
      receipts: folder of what was measured.
    """

    receipts: pathlib.Path = pathlib.Path()
    script: ClassVar[str]

    @property
    def variations(self) -> Mapping[str, Variation]:
        """By name."""
        raise NotImplementedError

    def table_of(self, variation: str) -> pathlib.Path:
        """The vectors that a variation reads."""
        own = self.variations[variation].vectors
        return self.folder / f"cf-{variation}.safetensors" if own else self.table

    def fit(self, variation: str) -> list[str]:
        """The command that fits a variation's own vectors."""
        words = [*self.variations[variation].vectors, *self.data_flags()]
        return ["fit_cf", *words, f"--output={self.table_of(variation)}", f"--seed={self.seed}"]

    def stage_one(self, variation: str) -> list[str]:
        """The command of a stage 1."""
        table = {"CF_TABLE": str(self.table_of(variation))}
        own = self.variations[variation].stage_one
        return self.train(f"stage1-{variation}", self.stage1, **table, **own)

    def stage_two(self, row: Row) -> list[str]:
        """The command of a row."""
        plain, bindings = READERS[row.reader]
        recipe = self.recipes[plain]
        assert recipe is not None
        sources = {"LM_FROM": str(self.lm), "CF_TABLE": str(self.table_of(row.variation))}
        if plain == "ilm":
            sources["QFORMER_FROM"] = str(self.folder / f"stage1-{row.variation}")
        every = min(few_texts.EVERY, self.most_steps or few_texts.EVERY)
        own = {**few_texts.stage_two(RATE, every), **bindings}
        own |= self.variations[row.variation].stage_two
        return self.train(str(row), recipe, **sources, **own)

    def name(self, row: Row) -> str:
        """Of a row's receipt."""
        return f"{self.dataset.replace('/', '_')}_seed{self.seed}_{row}"

    def made_from(self, row: Row) -> dict[str, str]:
        """What a receipt of a row must say: data, and what recipes bind, places aside."""
        commands = {"row": self.stage_two(row), "stage 0": self.lm_steps()[0][1]}
        if READERS[row.reader][0] == "ilm":
            commands["stage 1"] = self.stage_one(row.variation)
        made = {"data": self.data} | {
            name: sha256_json(recipe_bindings(command, few_texts.PLACES))
            for name, command in commands.items()
        }
        vectors = " ".join(self.variations[row.variation].vectors)
        return made | ({"vectors": vectors} if vectors else {})

    def steps_of(self, rows: Sequence[Row]) -> list[Step]:
        """Every step of some rows, in order."""
        found = plan(self, ["ilm-rand"], False, until="stage1")
        for name in dict.fromkeys(row.variation for row in rows):
            if self.variations[name].vectors:
                found.append((f"cf-{name}", self.fit(name), self.table_of(name)))
        for name in dict.fromkeys(r.variation for r in rows if READERS[r.reader][0] == "ilm"):
            run = self.folder / f"stage1-{name}"
            found.append((run.name, self.stage_one(name), run / finished.FILE))
        for row in rows:
            run = self.folder / str(row)
            found.append((str(row), self.stage_two(row), run / finished.FILE))
            output = run / "evaluation"
            measure = ["evaluate", f"--model_dir={run}", f"--output={output}", *few_texts.MEASURED]
            found.append((f"evaluate {row}", measure, output / results.SUMMARY))
        return found


def measure(studies: Sequence[Varied], rows: Sequence[Row]) -> Found:
    """Receipts of every row, in the studies' order; what has none is run.

    Raises:
      UserError: if a step fails, or a receipt was made from something else than what would be run.
    """
    found: Found = {row: [] for row in rows}
    for study in studies:
        if missing := [row for row in rows if _kept(study, row) is None]:
            shown = [
                live.Row(
                    str(row), study.folder / str(row), few_texts.curves_of(study.receipts, row)
                )
                for row in missing
            ]
            writer = one_writer(study.folder, f"studies/{study.script}")
            with writer, live.drawn(shown, study.folder):
                seconds = scheduling.run_steps(study, study.steps_of(missing))
            for row in missing:
                receipts.write(study.receipts, _receipt(study, row, seconds))
        for row in rows:
            receipt = _kept(study, row)
            assert receipt is not None
            found[row].append(receipt)
    return found


def _kept(study: Varied, row: Row) -> Receipt | None:
    return receipts.standing(study.receipts, study.name(row), study.made_from(row))


def _receipt(study: Varied, row: Row, seconds: Mapping[str, float]) -> Receipt:
    took = seconds.get(str(row), 0.0) + seconds.get(f"evaluate {row}", 0.0)
    run = study.folder / str(row)
    stored, curve = results.read(run / "evaluation"), few_texts.validations(run)
    made = study.made_from(row)
    return receipts.of_evaluation(study.name(row), made, took, curve, stored, few_texts.METRICS)


def difference(first: str, ours: Sequence[Receipt], second: str, theirs: Sequence[Receipt]) -> str:
    """A paired test over items, and over worlds where there are several, in a line.

    Raises:
      UserError: if the two were not measured on the same items of a world.
    """
    said = f"  {receipts.compare_rows(first, ours, second, theirs, METRIC)}"
    if len(ours) > 1:
        said += f"; over {len(ours)} worlds p = {over_worlds(ours, theirs):.2g}"
    return said


def over_worlds(ours: Sequence[Receipt], theirs: Sequence[Receipt]) -> float:
    """p of a paired t test whose units are worlds."""
    means = [[receipt.mean(METRIC) for receipt in rows] for rows in (ours, theirs)]
    return float(stats.ttest_rel(*means).pvalue)


def of_world(number: int, folder: pathlib.Path) -> tuple[str, int, pathlib.Path]:
    """(dataset, seed, folder of its own) of a toy world, whose number is the seed."""
    return f"toy/world{number}" if number else "toy", number, folder / f"world{number}"


def parser_of(script: str, text: str | None, readers: Iterable[str]) -> argparse.ArgumentParser:
    """A parser with the words of every such study."""
    parser = argparse.ArgumentParser(
        prog=script, description=text, formatter_class=argparse.RawTextHelpFormatter
    )
    every = list(readers)
    folder = f"runs/{script.removesuffix('.py')}"
    parser.add_argument("--worlds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--readers", nargs="+", choices=every, default=every)
    parser.add_argument("--model_dir", default=folder, help="where everything is written")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--jobs", type=int, default=scheduling.default_jobs())
    return parser
