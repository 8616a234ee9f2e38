"""One study: the steps from raw data to evaluated rows, each a verb that a person would type.

Finished steps are skipped and half-done ones resume, so an interrupted study goes on where it was
(steps.py).
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from scheduling import run_steps
from steps import Step

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.examples.settings_json import settings_from
from ilm_jax.data.examples.task_keys import tokenizer_path
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.evaluation.reports import results
from ilm_jax.files import default_cache_dir
from ilm_jax.locks import one_writer

# Row -> recipe; text-zero is the frozen language model of stage 0 as it stands.
RECIPES = {
    "text-zero": None,
    "prompt": "tiny/stage2_prompt.gin",
    "mlp": "tiny/stage2_mlp.gin",
    "ilm-rand": "tiny/stage2_ilm_rand.gin",
    "ilm": "tiny/stage2_ilm.gin",
    "text-full": "tiny/stage2_text_full.gin",
}
# Rows with soft tokens in the prompts, from the floor of them up.
READER_ROWS = ("prompt", "mlp", "ilm-rand", "ilm")
# Rows with an item head are trained in this order, the dearest first: no core waits at the end.
DEAREST = ("ilm", "ilm-rand", "mlp", "text-full", "prompt", "text-zero")
# Rows that know no item.
FLOORS = ("text-zero", "prompt")
# Named after a row's recipe: the row learns to recommend too, by an item head.
HEADS = "tiny/stage2_items_and_texts.gin"
FLOOR_STEPS = 150
# The row that names items by id strings, and what its ranking is called in the table.
NAMING_ROW, ID_STRINGS = "text-full", "id-strings"
# What tiny/data.gin sets, by which stage 0's tokenizer is found.
SETTINGS = '{"history": 5, "corpus": {"sequential_examples": 1500, "word_variants": 8}}'
# Stage 0 was trained without prompts, so evaluating it needs the lengths of stage 2.
PROMPT_LENGTHS = {"toy": {"inputs": 100, "targets": 36}}
# MovieLens texts are longer than the toy world's, for which the tiny recipes are cut.
PROMPT_LENGTHS["movielens"] = {"inputs": 136, "targets": 112}
LONGER: dict[str, dict[str, object]] = {
    "stage0": {"TASK_FEATURE_LENGTHS": {"inputs": 0, "targets": 208}},
    "stage1": {
        "TASK_FEATURE_LENGTHS": {"text": 112},
        "qformer.QFormerConfig.max_text_length": 112,
    },
    "stage2": {"TASK_FEATURE_LENGTHS": PROMPT_LENGTHS["movielens"]},
}


def toy_world(number: int) -> str:
    """The dataset of a toy world."""
    return f"toy/world{number}" if number else "toy"


@dataclasses.dataclass(frozen=True)
class Study:
    """One dataset, one seed, one folder; so many `jobs` at a time.

    Attributes:
      dataset, data_dir, cache_dir: see `load_catalogue`.
      seed: of everything that is trained.
      folder: of the study.
      jobs: steps that run side by side.
      heads: whether rows that read items learn to recommend by an item head beside the texts.
      most_steps: of everything that is trained; 0: as many as the recipes say.
      split: settings of the tokenizer that say how items are held out, where it is not as usual.
    """

    dataset: str
    seed: int
    folder: pathlib.Path
    data_dir: str | None = None
    cache_dir: str | None = None
    jobs: int = 1
    heads: bool = False
    most_steps: int = 0
    split: ClassVar[Mapping[str, Any]] = {}
    stage1: ClassVar[str] = "tiny/stage1.gin"
    head: ClassVar[str] = HEADS

    @property
    def table(self) -> pathlib.Path:
        """The CF vectors of this study."""
        return self.folder / "cf.safetensors"

    @property
    def files(self) -> Sequence[pathlib.Path]:
        """Files of a user's that commands name: with another content they make something else."""
        return ()

    @property
    def recipes(self) -> Mapping[str, str | None]:
        """Row -> recipe; None for the frozen language model as it stands."""
        return RECIPES

    @property
    def lm(self) -> pathlib.Path:
        """The frozen language model."""
        return self.folder / "stage0"

    def cf_flags(self) -> list[str]:
        """Of `ilm fit_cf`, the data's and the seed's aside."""
        return []

    def lm_steps(self) -> list[Step]:
        """What makes the frozen language model."""
        words = self.train("stage0", "tiny/stage0.gin")
        return [("stage0", words, self.folder / "stage0/last_run.json")]

    def measured(self) -> list[str]:
        """Flags of `ilm evaluate`: all users and all held-out items are measured."""
        return []

    def ranked(self, row: str) -> list[str]:
        """Flags of `ilm evaluate`: how a row's lists are made, without what users had before.

        What was not trained to recommend is not asked to, id strings are one row's alone, and what
        reads no item writes no descriptions: they could be of any.
        """
        if not self.heads:
            return []
        flags = ["--nogeneration"] if row in FLOORS else []
        if row in READER_ROWS:
            return [*flags, "--exclude_seen", "--noid_strings"]
        return [*flags, "--exclude_seen" if row == NAMING_ROW else "--noranking"]

    @functools.cached_property
    def tokenizer(self) -> pathlib.Path:
        """Stage 0's, by which prompts that it was not trained on are read too."""
        cache = pathlib.Path(self.cache_dir or default_cache_dir()).expanduser()
        settings = settings_from(json.loads(SETTINGS) | self.split)
        return tokenizer_path(self.dataset, settings, self.catalogue.fingerprint, cache)

    def baseline_steps(self) -> list[Step]:
        """The rows of collaborative filtering alone."""
        if not self.heads:
            return []
        words = [*self.data_flags(), f"--seed={self.seed}", f"--table={self.table}"]
        words += [f"--folder={self.folder / 'baselines'}"]
        return [("baselines", ["baselines.py", *words], self.folder / "baselines/baselines.json")]

    def closing(self, stored: Mapping[str, results.Stored]) -> list[str]:
        """Lines that stand under all others of a report, from the evaluations by row."""
        del stored
        return []

    def earlier(self, row: str) -> list[str]:
        """The steps whose training counts for a row, beside its own."""
        return ["stage0", "stage1"] if row == "ilm" else ["stage0"]

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """Items, users and interactions; the first call prepares them."""
        where = {"data_dir": self.data_dir, "cache_dir": self.cache_dir}
        return load_catalogue(self.dataset, **where)

    @property
    def data(self) -> str:
        """Fingerprint of the catalogue."""
        return self.catalogue.fingerprint

    def data_flags(self) -> list[str]:
        """Flags that name the dataset to every data verb."""
        flags = [f"--dataset={self.dataset}"]
        flags += [f"--data_dir={self.data_dir}"] if self.data_dir else []
        return flags + ([f"--cache_dir={self.cache_dir}"] if self.cache_dir else [])

    @property
    def family(self) -> str:
        """The dataset's name without its configuration."""
        return self.dataset.split("/")[0]

    def longer(self, stage: str) -> dict[str, object]:
        """Bindings that make room for a dataset's longer texts."""
        if self.family == "toy":
            return {}
        bindings = LONGER.get(stage, LONGER["stage2"])
        if self.family == "movielens":
            return bindings
        # Texts of any length: what does not fit is cut, and counted.
        return {**bindings, "dataset_config.DatasetConfig.truncate_targets": True}

    def train(self, stage: str, *recipes: str, **bindings: object) -> list[str]:
        """The command that trains one stage or row."""
        values = {
            "MODEL_DIR": str(self.folder / stage),
            "DATASET": self.dataset,
            "SEED": self.seed,
            **({"DATA_DIR": self.data_dir} if self.data_dir else {}),
            **({"CACHE_DIR": self.cache_dir} if self.cache_dir else {}),
            **self.longer(stage),
            **bindings,
            **({"TRAIN_STEPS": self.most_steps} if self.most_steps else {}),
        }
        words = [f"--gin.{name}={value!r}" for name, value in values.items()]
        return ["train", *(f"--gin_file={recipe}" for recipe in recipes), *words]

    def train_row(self, row: str, stage: str = "", **bindings: object) -> list[str]:
        """The command that trains a row of the comparison, in the folder `stage` or its own."""
        sources: dict[str, object] = {"LM_FROM": str(self.lm)}
        if row in READER_ROWS:
            sources["CF_TABLE"] = str(self.table)
        if row == "ilm":
            sources["QFORMER_FROM"] = str(self.folder / "stage1")
        if self.heads and row in READER_ROWS:
            sources["TOKENIZER"] = str(self.tokenizer)
            # What reads no item has learnt what it can by then.
            sources |= {"TRAIN_STEPS": FLOOR_STEPS} if row in FLOORS else {}
        return self.train(stage or row, *self.recipes_of(row), **sources, **bindings)

    def recipes_of(self, row: str) -> list[str]:
        """The recipes that train a row, in order."""
        recipe = self.recipes[row]
        assert recipe is not None, f"{row} is not trained"
        return [recipe, self.head] if self.heads and row in READER_ROWS else [recipe]


def plan(
    study: Study,
    rows: Sequence[str],
    ranking: bool,
    *,
    until: str = "",
    trained: Mapping[str, str] | None = None,
) -> list[Step]:
    """Every step, in order.

    Args:
      study, rows, ranking: see `run_study`.
      until: "stage1" leaves out the rows themselves, with their evaluation.
      trained: folders in the study's that hold rows which need no more training.
    """
    folder = study.folder
    fit = ["fit_cf", *study.cf_flags(), *study.data_flags(), f"--output={study.table}"]
    steps: list[Step] = [("cf", [*fit, f"--seed={study.seed}"], study.table), *study.lm_steps()]
    if "ilm" in rows:
        steps.append(
            (
                "stage1",
                study.train("stage1", study.stage1, CF_TABLE=str(study.table)),
                folder / "stage1/last_run.json",
            )
        )
    if until == "stage1":
        return steps
    for row in sorted(rows, key=DEAREST.index) if study.heads else rows:
        recipe, place = study.recipes[row], (trained or {}).get(row)
        if recipe is not None and place is None:
            steps.append((row, study.train_row(row), folder / row / "last_run.json"))
        run = folder / (place or row) if recipe else study.lm
        output = folder / row / "evaluation"
        command = ["evaluate", f"--model_dir={run}", f"--output={output}", *study.measured()]
        command += study.ranked(row) if ranking else ["--noranking", "--nogeneration"]
        if recipe is None:
            lengths = PROMPT_LENGTHS.get(study.family, PROMPT_LENGTHS["movielens"])
            command.append(f"--gin.TASK_FEATURE_LENGTHS={lengths}")
        steps.append((f"evaluate {row}", command, output / "evaluation.json"))
    return [*steps, *(study.baseline_steps() if ranking else [])]


def run_study(
    study: Study, rows: Sequence[str], *, ranking: bool = True, **plans: Any
) -> dict[str, float]:
    """Runs every missing step. Returns seconds by step, kept in the folder.

    Args:
      study: whose.
      rows: of the comparison.
      ranking: whether lists and texts are measured beside nll.
      **plans: see `plan`.

    Raises:
      UserError: if a step fails, was stopped, or was made by another command or from other inputs.
    """
    with one_writer(study.folder, "studies/reproduce.py"):
        return run_steps(study, plan(study, rows, ranking, **plans))
