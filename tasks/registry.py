"""Every task by name: which module makes it."""

import importlib
from collections.abc import Sequence

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import DEFAULT_TASKS, TaskSpec, find_specs
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks import common
from ilm_jax.tasks.common import Examples

# Module of `ilm_jax.tasks` that makes the tasks of each family.
MODULES = {
    "align": "alignment", "elm24": "elm24", "openp5": "openp5", "knowledge": "knowledge",
    "regen": "regen", "corpus": "corpus",
}  # fmt: skip


def make_examples(
    specs: Sequence[TaskSpec],
    splits: Splits,
    settings: TaskSettings,
    tokenizer: Tokenizer | None = None,
) -> list[Examples]:
    """The examples of these tasks, in their order; without a tokenizer they only render."""
    return [
        importlib.import_module(f"ilm_jax.tasks.{MODULES[spec.family]}").make(
            spec, splits, settings, tokenizer
        )
        for spec in specs
    ]


def register(
    dataset: str,
    settings: TaskSettings,
    splits: Splits,
    tokenizer: Tokenizer,
    tasks: Sequence[str] = DEFAULT_TASKS,
) -> list[str]:
    """Registers tasks, named as in `find_specs`, with SeqIO; returns their registered names."""
    made = make_examples(find_specs(dataset, tasks), splits, settings, tokenizer)
    return common.register(dataset, settings, made, tokenizer)
