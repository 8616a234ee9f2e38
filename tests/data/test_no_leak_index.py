"""On real data: ids of items know nothing of held-out choices, and a published index does.

Under sequential ids the number behind a user's last one is the next choice ten times as often as
a popular item would be (ML-1M: 0.52 % of validation and test items, 0.06 % with these dealt to
other users): items that users met one after the other stand side by side, which is what ids are
for. A leak is another thing: that the held-out items themselves made the ids. What sets them apart:

1. Exact: with other held-out items in the place of a user's, every id is the same to the letter.
2. The rule "last id + 1" is right for the same users if their held-out items are kept from the ids.
3. Where the hits come from: ids made by other users alone (ten folds) give nearly as many. Nearly,
   because a user's training row is in the walk too, beside that of the next user in the file.

OpenP5's own sequential ids, numbered over whole sequences, fail all three.
"""

import dataclasses
import os
import pathlib

import numpy as np
import pytest
import scipy.stats

from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.data.examples import item_index
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.sources import user_sequences

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("ILM_TEST_DATA", ROOT.parent / "shared/data"))
REAL = {"openp5/ml1m": DATA / "ml-1m", "openp5/beauty": DATA / "amazon-beauty-2014"}
UNMET = -(10**6)
FOLDS = 10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA} (set ILM_TEST_DATA)"),
]


@pytest.fixture(scope="module", params=REAL)
def splits(request):
    catalogue = user_sequences.read(REAL[request.param], request.param)
    assert catalogue.extras["as_published"]
    return make_splits(catalogue, SplitConfig(held_out_items=0.0))


def walked(sequences, count):
    """The number of every item in the order of a walk over these sequences."""
    items = np.concatenate(sequences)
    found, first = np.unique(items, return_index=True)
    numbers = np.full(count, UNMET)
    numbers[found[np.argsort(first)]] = np.arange(len(found))
    return numbers


def with_other_targets(splits, targets):
    """The same training interactions with other items at every user's last two places."""
    catalogue = splits.catalogue
    ends = catalogue.offsets[1:]
    items = catalogue.items.copy()
    items[ends - 2], items[ends - 1] = targets
    return make_splits(dataclasses.replace(catalogue, items=items), splits.config)


def targets_of(splits):
    ends = splits.catalogue.offsets[1:]
    return splits.catalogue.items[ends - 2], splits.catalogue.items[ends - 1]


def others(splits):
    """Held-out items dealt to other users; and none but one item, as if they had been removed."""
    draw = np.random.default_rng(0)
    yield [draw.permutation(items) for items in targets_of(splits)]
    yield [np.zeros_like(items) for items in targets_of(splits)]


SETTINGS = [
    TaskSettings(item_index="random"),
    *(
        TaskSettings(item_index="sequential", index_order=order)
        for order in ("original", "short2long", "long2short")
    ),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.item_index}-{s.index_order}")
def test_ids_are_the_same_whatever_is_held_out(splits, settings):
    names = item_index.item_names(splits, settings)
    for targets in others(splits):
        changed = with_other_targets(splits, targets)
        assert changed.catalogue.fingerprint != splits.catalogue.fingerprint
        assert item_index.item_names(changed, settings) == names


def test_clusters_are_the_same_whatever_is_held_out(splits):
    if splits.catalogue.name == "openp5/beauty":
        pytest.skip("minutes; ML-1M walks the same path")
    names = item_index.collaborative(splits, 100, 20, 0)
    targets = next(others(splits))
    assert item_index.collaborative(with_other_targets(splits, targets), 100, 20, 0) == names


def test_ids_of_whole_sequences_are_others_where_others_are_held_out(splits):
    """The positive control of both tests above."""
    count = splits.catalogue.num_items
    before = walked([splits.catalogue.items], count)
    for targets in others(splits):
        after = walked([with_other_targets(splits, targets).catalogue.items], count)
        assert np.mean(before != after) > 0.5


def right(splits, numbers):
    """[2, users]: whether "last id + 1" is the validation item, and the test item."""
    items, ends = splits.catalogue.items, splits.catalogue.offsets[1:]
    hits = [
        (numbers[items[ends - k]] == numbers[items[ends - k - 1]] + 1)
        & (numbers[items[ends - k]] > UNMET)
        for k in (2, 1)
    ]
    return np.stack(hits)


def by_folds(splits, numbers_of):
    """[2, users]: `right`, each fold of users by numbers that `numbers_of` makes for that fold."""
    users = np.arange(splits.catalogue.num_users)
    hits = np.zeros((2, len(users)), bool)
    for fold in range(FOLDS):
        its = users % FOLDS == fold
        hits[:, its] = right(splits, numbers_of(its))[:, its]
    return hits


def walk_order(splits, order):
    """The users as an order walks them."""
    lengths = np.diff(splits.catalogue.offsets)
    signed = {"original": 0 * lengths, "short2long": lengths, "long2short": -lengths}[order]
    return np.argsort(signed, kind="stable")


def of_others(splits, order):
    """[2, users]: `right` by numbers of the other nine folds of users alone."""

    def numbers_of(its):
        rows = [splits.train_sequence(u) for u in walk_order(splits, order) if not its[u]]
        return walked(rows, splits.catalogue.num_items)

    return by_folds(splits, numbers_of)


@pytest.mark.parametrize("order", ["original", "short2long", "long2short"])
def test_last_id_plus_one_is_right_no_more_often_than_without_the_users_held_out_items(
    splits, order
):
    found = right(splits, item_index.sequential_numbers(splits, order, 0))
    targets, dealt = targets_of(splits), next(others(splits))

    def numbers_of(its):
        hidden = [np.where(its, b, a) for a, b in zip(targets, dealt, strict=True)]
        return item_index.sequential_numbers(with_other_targets(splits, hidden), order, 0)

    assert (by_folds(splits, numbers_of) == found).all()
    assert found.mean() < 1.2 * of_others(splits, order).mean()


def test_the_rule_finds_the_leak_of_ids_made_of_whole_sequences(splits):
    """The positive control of the test above: OpenP5's published indexing."""
    catalogue = splits.catalogue
    found = right(splits, walked([catalogue.items], catalogue.num_items))

    def numbers_of(its):  # these users' rows without their held-out items
        users = range(catalogue.num_users)
        rows = [splits.train_sequence(u) if its[u] else catalogue.sequence(u) for u in users]
        return walked(rows, catalogue.num_items)

    null = by_folds(splits, numbers_of)
    more, fewer = int(np.sum(found & ~null)), int(np.sum(~found & null))
    assert scipy.stats.binomtest(more, more + fewer, alternative="greater").pvalue < 1e-4
    assert found.mean() > 1.2 * of_others(splits, "original").mean()
