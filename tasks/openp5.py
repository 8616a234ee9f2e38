"""Sequential recommendation after OpenP5 (Xu et al. 2023), random ids: history in, next item out.

Every position from the second of a user's training interactions is an example; validation and
test are leave-one-out. The templates are ours.
"""

from typing import Any

import numpy as np

from ilm_jax.data import draws
from ilm_jax.data.prompts import SEQUENTIAL_TEMPLATES, PromptRenderer
from ilm_jax.data.splits import Splits
from ilm_jax.data.task_settings import SPECS, TaskSettings
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks import common
from ilm_jax.tasks.prompted import ExampleTokenizer, Prompted, template_number

SPEC = SPECS["sequential_random"]


class SequentialRandom:
    """Examples of `openp5_<dataset>_sequential_random`."""

    spec = SPEC

    def __init__(
        self, splits: Splits, settings: TaskSettings, tokenizer: Tokenizer | None = None
    ) -> None:
        """Without a tokenizer only `index` and `render` work."""
        self.splits, self.settings = splits, settings
        self.renderer = PromptRenderer(splits, settings)
        self._tokens = ExampleTokenizer(tokenizer)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User row, position of the target in the user's sequence, and variant."""
        users, positions = target_positions(self.splits, split)
        variants = self.settings.variants if split == "train" else 1
        return {
            "user": np.repeat(users, variants),
            "position": np.repeat(positions, variants),
            "variant": np.tile(np.arange(variants, dtype=np.int32), len(users)),
        }

    def truncations(self, split: str) -> dict[str, int]:
        """How many examples have more history than the setting keeps."""
        position = self.index(split)["position"]
        return {"history": int(np.sum(position > self.settings.history))}

    def render(self, split: str, user: int, position: int, variant: int) -> Prompted:
        """The example in words."""
        catalogue = self.splits.catalogue
        sequence = catalogue.sequence(user)
        history = sequence[max(0, position - self.settings.history) : position]
        raw, target = catalogue.user_ids[user], int(sequence[position])
        template = template_number(
            draws.integer, len(SEQUENTIAL_TEMPLATES), split, variant,
            self.settings.seed, SPEC.version, SPEC.task, raw, position,
        )  # fmt: skip
        return Prompted(
            key=f"{raw}@{position}#{variant}",
            user=raw,
            template=f"{SPEC.task}/{template}",
            prompt=self.renderer.sequential(user, history.tolist(), template),
            target_text=self.renderer.target(target),
            target_item=target,
        )

    def build(self, split: str, user: int, position: int, variant: int) -> dict[str, Any]:
        """The example's features."""
        return self._tokens.features(self.render(split, user, position, variant))


def target_positions(splits: Splits, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(user rows, positions of the targets) of a split, by user and in time order.

    Users with fewer than three interactions train with all of them and have no other target.
    """
    lengths = np.diff(splits.catalogue.offsets)
    if split != "train":
        users = np.flatnonzero(lengths >= 3)
        positions = lengths[users] - (2 if split == "validation" else 1)
        return users.astype(np.int32), positions.astype(np.int32)
    count = np.maximum(np.where(lengths >= 3, lengths - 2, lengths) - 1, 0)
    users = np.repeat(np.arange(len(lengths)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    return users.astype(np.int32), (np.arange(len(users)) - first + 1).astype(np.int32)


def register(
    dataset: str, settings: TaskSettings, splits: Splits, tokenizer: Tokenizer
) -> list[str]:
    """Registers the task with SeqIO and returns its name, in a list."""
    examples = [SequentialRandom(splits, settings, tokenizer)]
    return common.register(dataset, settings, examples, tokenizer)
