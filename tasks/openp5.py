"""OpenP5 (Xu et al. 2023): the next item from the history (sequential) or the user alone.

Every position from the second of a user's training interactions is an example of both tasks;
validation and test are leave-one-out. A task's name says how items are named, see
`ilm_jax.data.examples.item_index`; those that end in "_unseen" have one template that no training
example shows, and no training examples. The templates are ours, or a file's in OpenP5's format.
"""

import numpy as np

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.prompts import Rendered
from ilm_jax.data.examples.task_settings import SPECS, TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks.prompted import Prompted, PromptTask


class NextItem(PromptTask):
    """Examples of one of OpenP5's tasks; the name says which."""

    @property
    def kind(self) -> str:
        """ "sequential" or "straightforward"."""
        return self.spec.task.split("_")[0]

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User row, position of the target in the user's sequence, and variant."""
        users, positions = target_positions(self.splits, split)
        if split == "train" and self.settings.prompts == "unseen":
            users, positions = users[:0], positions[:0]
        return self.with_variants(split, user=users, position=positions)

    def truncations(self, split: str) -> dict[str, int]:
        """How many examples have more history than the setting keeps."""
        if self.kind == "straightforward":
            return {}
        position = self.index(split)["position"]
        return {"history": int(np.sum(position > self.settings.history))}

    def render(self, split: str, user: int, position: int, variant: int) -> Prompted:
        """The example in words."""
        catalogue = self.splits.catalogue
        raw, target = catalogue.user_ids[user], int(catalogue.sequence(user)[position])
        count = len(self.renderer.templates(self.kind))
        template = self.template(count, split, variant, raw, position)
        return Prompted(
            key=f"{raw}@{position}#{variant}",
            user=raw,
            template=f"{self.spec.task}/{template}",
            prompt=self._prompt(user, position, template),
            target_text=self.renderer.target(target),
            target_item=target,
        )

    def _prompt(self, user: int, position: int, template: int) -> Rendered:
        if self.kind == "straightforward":
            return self.renderer.straightforward(user, template)
        sequence = self.splits.catalogue.sequence(user)
        history = sequence[max(0, position - self.settings.history) : position]
        return self.renderer.sequential(user, history.tolist(), template)


class SequentialRandom(NextItem):
    """Examples of `openp5_<dataset>_sequential_random`."""

    spec = SPECS["sequential_random"]


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


def make(
    spec: TaskSpec, splits: Splits, settings: TaskSettings, tokenizer: Tokenizer | None
) -> NextItem:
    """The task of this spec; without a tokenizer it only renders."""
    return NextItem(splits, settings, tokenizer, spec)
