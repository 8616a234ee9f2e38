"""Every task by name: which module makes it."""

import importlib
from collections.abc import Sequence

from ilm_jax.data.splits import Splits
from ilm_jax.data.task_settings import TaskSettings
from ilm_jax.data.task_specs import TaskSpec
from ilm_jax.data.tokenizers import Tokenizer
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
    made: dict[str, Examples] = {}
    for family in dict.fromkeys(spec.family for spec in specs):
        module = importlib.import_module(f"ilm_jax.tasks.{MODULES[family]}")
        names = [spec.task for spec in specs if spec.family == family]
        made |= {e.spec.task: e for e in module.examples(splits, settings, tokenizer, names)}
    return [made[spec.task] for spec in specs]
