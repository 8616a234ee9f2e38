"""The examples of tasks, and their registration with SeqIO."""

from collections.abc import Sequence

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.task_families import DEFAULT_TASKS, find_specs
from ilm_jax.data.examples.task_keys import effective
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import Examples, TaskSpec
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks import common


def make_examples(
    specs: Sequence[TaskSpec],
    splits: Splits,
    settings: TaskSettings,
    tokenizer: Tokenizer | None = None,
) -> list[Examples]:
    """The examples of these tasks, in their order; without a tokenizer they only render."""
    return [spec.make(splits, effective(spec, settings), tokenizer, spec=spec) for spec in specs]


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
