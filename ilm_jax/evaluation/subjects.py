"""Subjects of generated texts: words for a judge, and preferences from behaviour."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from ilm_jax.data.examples.example import Example
from ilm_jax.evaluation.trained import EvaluatedTask

Examples = Sequence[Example]


def subjects(task: EvaluatedTask, examples: Examples) -> tuple[list[str] | None, list[str] | None]:
    """(words about each text's item, titles that its user chose before); None if not all have
    one."""
    catalogue, splits = task.catalogue, task.splits
    targets = [int(example.get("target_item", -1)) for example in examples]
    items = [f"{catalogue.titles[row]}. {catalogue.texts[row]}" for row in targets]
    chosen = _users(task, examples)
    last = task.dataset.settings.history
    before = [
        "; ".join(catalogue.titles[row] for row in splits.train_sequence(user)[-last:])
        for user in chosen
    ]
    return items if min(targets) >= 0 else None, before if min(chosen) >= 0 else None


def preferences(
    task: EvaluatedTask, examples: Examples
) -> tuple[list[str], Float64[np.ndarray, "texts of"]]:
    """(words of every item that has a vector, products of each example's user with them).

    The run has vectors of users.
    """
    catalogue, tables = task.catalogue, task.tables
    assert tables is not None
    user_rows = tables.rows(f"{catalogue.name}/user", np.array(_users(task, examples)))
    item_rows = tables.rows(f"{catalogue.name}/item", np.arange(catalogue.num_items))
    warm = np.flatnonzero(~tables.cold[item_rows])
    products = tables.vectors[user_rows] @ tables.vectors[item_rows[warm]].T
    return [
        catalogue.texts[row] or catalogue.titles[row] for row in warm.tolist()
    ], products.astype(float)


def _users(task: EvaluatedTask, examples: Examples) -> list[int]:
    """The row of every example's user, -1 without one."""
    rows = task.catalogue.user_row
    return [rows.get(example["user"], -1) for example in examples]
