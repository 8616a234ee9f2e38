"""Examples of tasks by name, as tests ask for them."""

from ilm_jax.data.examples.task_families import spec_named
from ilm_jax.tasks.registry import make_examples


def made_by(tasks, splits, settings, tokenizer=None):
    return make_examples([spec_named(task) for task in tasks], splits, settings, tokenizer)
