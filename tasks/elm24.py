"""Description task after ELM's (Tennenholtz et al. 2024): an item's slot in, its text out.

The templates are ours. Items of the training fold train; those of the validation and test folds,
whose texts nothing else has seen, measure.
"""

import dataclasses
from typing import Any

import numpy as np

from ilm_jax.data import draws
from ilm_jax.data.prompts import DESCRIPTION_TEMPLATES, PromptRenderer
from ilm_jax.data.splits import FOLDS, Splits
from ilm_jax.data.task_settings import SPECS, TaskSettings
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks import common
from ilm_jax.tasks.prompted import ExampleTokenizer, Prompted, template_number

SPEC = SPECS["long_description"]


class LongDescription:
    """Examples of `elm24_<dataset>_long_description`."""

    spec = SPEC

    def __init__(
        self, splits: Splits, settings: TaskSettings, tokenizer: Tokenizer | None = None
    ) -> None:
        """Without a tokenizer only `index` and `render` work."""
        self.splits, self.settings = splits, settings
        self.renderer = PromptRenderer(splits, settings)
        self._tokens = ExampleTokenizer(tokenizer)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Item row and variant of every example of a split."""
        rows = self.splits.items_in(FOLDS[split])
        variants = self.settings.variants if split == "train" else 1
        return {
            "row": np.repeat(rows, variants),
            "variant": np.tile(np.arange(variants, dtype=np.int32), len(rows)),
        }

    def truncations(self, split: str) -> dict[str, int]:
        """Nothing is cut here."""
        return {}

    def render(self, split: str, row: int, variant: int) -> Prompted:
        """The example in words."""
        catalogue = self.splits.catalogue
        raw = catalogue.item_ids[row]
        template = template_number(
            draws.integer, len(DESCRIPTION_TEMPLATES), split, variant,
            self.settings.seed, SPEC.version, SPEC.task, raw,
        )  # fmt: skip
        return Prompted(
            key=f"{raw}#{variant}",
            user="",
            template=f"{SPEC.task}/{template}",
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

    def build(self, split: str, row: int, variant: int) -> dict[str, Any]:
        """The example's features."""
        return self._tokens.features(self.render(split, row, variant))


def register(
    dataset: str, settings: TaskSettings, splits: Splits, tokenizer: Tokenizer
) -> list[str]:
    """Registers the task with SeqIO and returns its name, in a list."""
    examples = [LongDescription(splits, settings, tokenizer)]
    return common.register(dataset, settings, examples, tokenizer)
