"""Description task after ELM's (Tennenholtz et al. 2024): an item's slot in, its text out.

The templates are ours. Items of the training fold train; those of the validation and test folds,
whose texts nothing else has seen, measure.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ilm_jax.data import templates
from ilm_jax.data.splits import FOLDS, Splits
from ilm_jax.data.task_settings import SPECS, TaskSettings
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks import common
from ilm_jax.tasks.prompted import Prompted, PromptTask


class LongDescription(PromptTask):
    """Examples of `elm24_<dataset>_long_description`."""

    spec = SPECS["long_description"]

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Item row and variant of every example of a split."""
        return self.with_variants(split, row=self.splits.items_in(FOLDS[split]))

    def render(self, split: str, row: int, variant: int) -> Prompted:
        """The example in words."""
        catalogue = self.splits.catalogue
        raw = catalogue.item_ids[row]
        template = self.template(len(templates.DESCRIPTION), split, variant, raw)
        return Prompted(
            key=f"{raw}#{variant}",
            user="",
            template=f"{self.spec.task}/{template}",
            prompt=self.renderer.description(row, template),
            target_text=catalogue.texts[row],
            target_item=row,
            content=catalogue.content[row],
        )

    def render_words(self, row: int, variant: int) -> Prompted:
        """A training example that names the item by its content words, for stage 0's corpus."""
        example = self.render("train", row, variant)
        template = int(example.template.rsplit("/", 1)[1])
        prompt = self.renderer.description_of_words(row, template, variant)
        return dataclasses.replace(example, prompt=prompt)


def examples(
    splits: Splits,
    settings: TaskSettings,
    tokenizer: Tokenizer | None = None,
    tasks: Sequence[str] | None = None,
) -> list[LongDescription]:
    """The family's tasks, or those that are named."""
    return [LongDescription(splits, settings, tokenizer)]


def register(
    dataset: str,
    settings: TaskSettings,
    splits: Splits,
    tokenizer: Tokenizer,
    tasks: Sequence[str] | None = None,
) -> list[str]:
    """Registers the family's tasks (or those named) with SeqIO and returns their names."""
    made = examples(splits, settings, tokenizer, tasks)
    return common.register(dataset, settings, made, tokenizer)
