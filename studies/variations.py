"""Rows that differ in one thing, on toy worlds, each with a seed of its own.

A row is a reader (what stage 2 does with the Q-Former) behind a variation (of the vectors, of stage
1, of stage 2). Stage 2 reads the texts of all training items, and of its run the checkpoint with
the lowest validation loss is measured on the texts of test items. A row that is measured leaves a
receipt, and is not run again.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import few_texts
import live
import receipts
import scheduling
from exiting import exit_code
from receipts import Receipt
from scipy import stats
from steps import Step, fit_bindings, recipe_bindings
from study import Study, plan, toy_world

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.files import sha256_json
from ilm_jax.locks import one_writer
from ilm_jax.metrics.intervals import Comparison, mean_interval
from ilm_jax.training import finished

# Reader -> (row of the comparison, its own bindings).
_FROZEN = {few_texts.FROZEN: ("^adaptor/",)}
READERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "trained": ("ilm", {}),
    "frozen": ("ilm", _FROZEN),
    "fresh": ("ilm-rand", {}),  # without stage 1
    "fresh-frozen": ("ilm-rand", _FROZEN),
}
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
      script: that runs the study.
      readers: those that are asked for where none is named.
      rates: the learning rate of every reader.
    """

    receipts: pathlib.Path = pathlib.Path()
    script: ClassVar[str]
    readers: ClassVar[Sequence[str]]
    rates: ClassVar[Mapping[str, float]]

    @classmethod
    def of_world(
        cls, number: int, folder: pathlib.Path, cache_dir: str | None = None, **more: Any
    ) -> Self:
        """The study of one toy world, whose number is the seed, in a folder of its own there.

        Args:
          number: of the world.
          folder: of all worlds.
          cache_dir: of prepared data.
          **more: see the class.
        """
        own = folder / f"world{number}"
        return cls(toy_world(number), number, own, cache_dir=cache_dir, **more)

    @property
    def variations(self) -> Mapping[str, Variation]:
        """By name."""
        raise NotImplementedError

    def rows(self, readers: Iterable[str] = (), names: Iterable[str] = ()) -> list[Row]:
        """Rows of these readers and variations; none: of all."""
        return [
            Row(reader, name)
            for reader in readers or self.readers
            for name in names or self.variations
        ]

    def table_of(self, variation: str) -> pathlib.Path:
        """The vectors that a variation reads."""
        own = self.variations[variation].vectors
        return self.folder / f"cf-{variation}.safetensors" if own else self.table

    def fit(self, variation: str) -> list[str]:
        """The command that fits a variation's own vectors."""
        own = self.variations[variation].vectors
        recipe = any(word.startswith("--gin_file=") for word in own)
        seed = f"--gin.SEED={self.seed}" if recipe else f"--seed={self.seed}"
        return ["fit_cf", *own, *self.data_flags(), f"--output={self.table_of(variation)}", seed]

    def stage_one(self, variation: str) -> list[str]:
        """The command of a stage 1."""
        table = {"CF_TABLE": str(self.table_of(variation))}
        own = self.variations[variation].stage_one
        return self.train(self.stage_one_run(variation), self.stage1, **table, **own)

    def stage_one_run(self, variation: str) -> str:
        """Name of a stage 1's run: variations whose stage 1 is the same share it."""
        asked = self.variations[variation]
        alike = (
            name
            for name, other in self.variations.items()
            if (other.stage_one, other.vectors) == (asked.stage_one, asked.vectors)
        )
        return f"stage1-{next(alike)}"

    def stage_two(self, row: Row) -> list[str]:
        """The command of a row."""
        plain, bindings = READERS[row.reader]
        recipe = self.recipes[plain]
        assert recipe is not None
        sources = {"LM_FROM": str(self.lm), "CF_TABLE": str(self.table_of(row.variation))}
        if plain == "ilm":
            sources["QFORMER_FROM"] = str(self.folder / self.stage_one_run(row.variation))
        every = min(few_texts.EVERY, self.most_steps or few_texts.EVERY)
        own = {**few_texts.stage_two(self.rates[row.reader], every), **bindings}
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
        if own := self.variations[row.variation].vectors:
            recipe = fit_bindings(self.fit(row.variation))
            made["vectors"] = sha256_json([*own, recipe])
        return made

    def steps_of(self, rows: Sequence[Row]) -> list[Step]:
        """Every step of some rows, in order."""
        found = plan(self, ["ilm-rand"], False, until="stage1")
        for name in dict.fromkeys(row.variation for row in rows):
            if self.variations[name].vectors:
                found.append((f"cf-{name}", self.fit(name), self.table_of(name)))
        first: dict[str, str] = {}
        for row in rows:
            if READERS[row.reader][0] == "ilm":
                first.setdefault(self.stage_one_run(row.variation), row.variation)
        for name, variation in first.items():
            found.append((name, self.stage_one(variation), self.folder / name / finished.FILE))
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


def compared(
    first: object, ours: Sequence[Receipt], second: object, theirs: Sequence[Receipt]
) -> tuple[Comparison, str]:
    """A paired test over items, and what one over worlds (or seeds) says, where there are several.

    Raises:
      UserError: if the two were not measured on the same items of a world.
    """
    test = receipts.compare_rows(str(first), ours, str(second), theirs, METRIC)
    if len(ours) < 2:
        return test, ""
    unit = "seeds" if len({receipt.made_from.get("data") for receipt in ours}) == 1 else "worlds"
    return test, f"; over {len(ours)} {unit} p = {over_worlds(ours, theirs):.2g}"


def over_worlds(ours: Sequence[Receipt], theirs: Sequence[Receipt]) -> float:
    """`paired_p` of two rows' means."""
    return paired_p(*([receipt.mean(METRIC) for receipt in rows] for rows in (ours, theirs)))


def paired_p(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """p of a paired t test whose units are worlds, or seeds."""
    return float(stats.ttest_rel(ours, theirs).pvalue)


def report(found: Found, pairs: Callable[[Sequence[str]], Iterable[tuple[str, str]]]) -> str:
    """The text to print: each row's nll_content by world, and pairs of a reader's variations.

    Args:
      found: receipts of rows.
      pairs: of the variations of a reader, those that are compared.

    Raises:
      UserError: if two rows of a world were not measured on the same items.
    """
    lines = []
    for reader in dict.fromkeys(row.reader for row in found):
        rows = {row.variation: cells for row, cells in found.items() if row.reader == reader}
        lines += ["", f"{reader}; {METRIC} of test items by world, then pooled"]
        for name, cells in rows.items():
            each = "  ".join(f"{cell.mean(METRIC):.4f}" for cell in cells)
            pooled = mean_interval(*receipts.joined(cells, METRIC)).mean
            lines.append(f"  {name:14} {each}   {pooled:.4f}")
        for first, second in pairs(list(rows)):
            lines.append(line_of(*compared(first, rows[first], second, rows[second])))
    return "\n".join(lines).strip()


def line_of(test: Comparison, more: str) -> str:
    """What `compared` found."""
    return f"  {test}{more}"


def run_script(
    kind: type[Varied],
    text: str | None,
    told: Callable[[Found], str],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the words of such a study and runs it; returns the exit code.

    Args:
      kind: the study.
      text: what it is.
      told: makes what is printed.
      argv: words; None: the command line's.
    """
    parser = argparse.ArgumentParser(
        prog=kind.script, description=text, formatter_class=argparse.RawTextHelpFormatter
    )
    folder = f"runs/{kind.script.removesuffix('.py')}"
    parser.add_argument("--worlds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--readers", nargs="+", choices=kind.readers, default=kind.readers)
    parser.add_argument("--variations", nargs="+", metavar="NAME", default=(), help="default: all")
    parser.add_argument("--model_dir", default=folder, help="where everything is written")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--jobs", type=scheduling.jobs, default=scheduling.default_jobs())
    flags = parser.parse_args(argv)

    def run() -> None:
        places = pathlib.Path(flags.model_dir), flags.cache_dir
        worlds = [kind.of_world(world, *places, jobs=flags.jobs) for world in flags.worlds]
        if unknown := set(flags.variations) - set(worlds[0].variations):
            known = ", ".join(worlds[0].variations)
            raise UserError(f"--variations {unknown.pop()}: there are {known}")
        rows = worlds[0].rows(flags.readers, flags.variations)
        print("\n" + told(measure(worlds, rows)))

    return exit_code(run, kind.script)
