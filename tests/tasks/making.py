"""Examples of tasks by name, as tests ask for them."""

from ilm_jax.data.examples.task_settings import SPECS
from ilm_jax.tasks.registry import make_examples


def made_by(tasks, splits, settings, tokenizer=None):
    return make_examples([SPECS[task] for task in tasks], splits, settings, tokenizer)
