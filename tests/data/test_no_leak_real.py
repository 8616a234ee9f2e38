"""On real ratings: every task's training prompts know no later choice and no held-out title."""

import dataclasses
import os
import pathlib
import re

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompts import ITEM_SLOT
from ilm_jax.data.examples.task_families import task_specs
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.sources import movielens
from ilm_jax.tasks.registry import make_examples
from tests.data.small_codes import small_codes

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("ILM_TEST_DATA", ROOT.parent / "shared/data"))
REAL = DATA / "ml-latest-small"
USERS, EXAMPLES = 60, 120
ID = r"item_(?:(?:<CI\d+>)+|\d+)|(?:<[a-z]_\d+>)+"
SETTINGS = TaskSettings(cluster_tokens=100, cluster_split=20, mention_history="title+id")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason=f"no data at {REAL} (set ILM_TEST_DATA)"),
]


@pytest.fixture(scope="module")
def splits():
    """The first users of the real catalogue, with all of its items."""
    whole = movielens.read("latest_small", REAL)
    count = int(whole.offsets[USERS])
    return make_splits(
        dataclasses.replace(
            whole,
            user_ids=whole.user_ids[:USERS],
            offsets=whole.offsets[: USERS + 1],
            items=whole.items[:count],
            ratings=whole.ratings[:count],
            timestamps=whole.timestamps[:count],
        )
    )


@pytest.mark.parametrize(
    "task", [n for n, s in task_specs().items() if s.family not in ("align", "corpus")]
)
def test_training_prompts_of_every_task_and_index(splits, task, tmp_path):
    catalogue = splits.catalogue
    small_codes(splits).save(tmp_path / "codes")
    settings = SETTINGS.replace(item_codes=str(tmp_path / "codes"))
    (examples,) = make_examples([task_specs()[task]], splits, settings)
    index = examples.index("train")
    count = len(next(iter(index.values())))
    assert bool(count) != task.endswith("_unseen")
    chosen = np.unique(np.linspace(0, max(count - 1, 0), min(count, EXAMPLES)).astype(int))
    rows = {raw: row for row, raw in enumerate(catalogue.user_ids)}
    known = {examples.renderer.item_id(r): r for r in range(catalogue.num_items)}
    training_titles = {catalogue.titles[row] for row in splits.items_in(0)}
    hidden = {catalogue.titles[row] for row in np.flatnonzero(splits.item_fold)} - training_titles
    for number in chosen.tolist():
        integers = {name: int(column[number]) for name, column in index.items()}
        example = examples.render("train", **integers)
        text = example.prompt.text + example.target_text
        # Titles end in a year: the longest title that ends there is the one that is named.
        for found in re.finditer(r"\(\d{4}\)", text):
            part = text[: found.end()]
            suffixes = (part[k:] for k in range(max(0, len(part) - 200), len(part)))
            title = next((end for end in suffixes if end in hidden or end in training_titles), "")
            assert title not in hidden, text
        if example.user:
            later = set(catalogue.sequence(rows[example.user])[-2:].tolist())
            items = {known[n] for n in re.findall(ID, text)}
            items |= {s.row for s in example.prompt.segments if s.kind == ITEM_SLOT}
            items |= {example.target_item} - {-1}
            assert not items & later, text
