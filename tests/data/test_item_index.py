"""Ids of items are all different and know nothing of held-out interactions."""

import os
import pathlib

import numpy as np
import pytest

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.data.examples import item_index
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.errors import UserError
from tests.data.small_catalogue import small_catalogue

KINDS = [
    TaskSettings(item_index="random"),
    *(
        TaskSettings(item_index="sequential", index_order=o)
        for o in ("original", "short2long", "long2short")
    ),
    TaskSettings(item_index="collaborative", cluster_tokens=8, cluster_split=3),
]
NAMES = [f"{s.item_index}-{s.index_order}" for s in KINDS]


def with_sequences(sequences, items=60):
    """The small catalogue with other interactions."""
    base = small_catalogue(items=items)
    total = sum(map(len, sequences))
    return Catalogue(
        name=base.name,
        version="0",
        item_ids=base.item_ids,
        titles=base.titles,
        texts=base.texts,
        content=base.content,
        categories=base.categories,
        user_ids=[f"u{user}" for user in range(len(sequences))],
        offsets=np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64),
        items=np.concatenate(sequences).astype(np.int32),
        ratings=np.full(total, np.nan, np.float32),
        timestamps=np.full(total, -1, np.int64),
        ties=0,
        extras={},
    )


def sequences_of(catalogue):
    return [catalogue.sequence(user).tolist() for user in range(catalogue.num_users)]


@pytest.mark.parametrize("settings", KINDS, ids=NAMES)
def test_every_item_has_an_id_of_its_own(settings):
    names = item_index.item_names(make_splits(small_catalogue()), settings)
    assert len(set(names)) == len(names) == 60
    assert all(name.startswith("item_") and "_" not in name[5:] for name in names)


@pytest.mark.parametrize("settings", KINDS, ids=NAMES)
def test_ids_do_not_change_with_what_users_choose_last(settings):
    catalogue = small_catalogue()
    draw = np.random.default_rng(1)
    other = [
        s[:-2] + draw.permutation(sorted({*range(60)} - {*s[:-2]}))[:2].tolist()
        if len(s) >= 3
        else s
        for s in sequences_of(catalogue)
    ]
    assert other != sequences_of(catalogue)
    found = item_index.item_names(make_splits(catalogue), settings)
    assert found == item_index.item_names(make_splits(with_sequences(other)), settings)


@pytest.mark.parametrize("settings", KINDS[1:], ids=NAMES[1:])
def test_ids_do_change_with_training_interactions(settings):
    """The positive control of the test above."""
    catalogue = small_catalogue()
    other = [s[::-1] for s in sequences_of(catalogue)]
    found = item_index.item_names(make_splits(catalogue), settings)
    assert found != item_index.item_names(make_splits(with_sequences(other)), settings)


def test_random_ids_know_nothing_of_interactions():
    names = item_index.item_names(make_splits(small_catalogue()), KINDS[0])
    assert sorted(names) == [f"item_{n}" for n in range(1001, 1061)] != names
    assert names == item_index.item_names(make_splits(small_catalogue(seed=9)), KINDS[0])
    again = item_index.item_names(make_splits(small_catalogue()), KINDS[0].replace(seed=1))
    assert names != again


def test_sequential_ids_follow_the_walk():
    splits = make_splits(with_sequences([[7, 3, 9, 1, 2], [3, 5, 8, 4], [9]]))
    numbers = {
        order: item_index.sequential_numbers(splits, order, 0)
        for order in ("original", "short2long", "long2short")
    }
    assert numbers["original"][[7, 3, 9, 5]].tolist() == [1001, 1002, 1003, 1004]
    assert numbers["short2long"][[9, 3, 5, 7]].tolist() == [1001, 1002, 1003, 1004]
    assert numbers["long2short"][[7, 3, 9, 5]].tolist() == [1001, 1002, 1003, 1004]
    assert all(sorted(n.tolist()) == list(range(1001, 1061)) for n in numbers.values())
    # The items of targets alone stand in no order of their users.
    rest = numbers["original"][[1, 2, 8, 4]]
    assert rest.tolist() != sorted(rest.tolist())


def test_clusters_bring_together_what_users_choose_together():
    groups = [range(0, 20), range(20, 40), range(40, 60)]
    draw = np.random.default_rng(0)
    sequences = [draw.permutation(groups[user % 3])[:10].tolist() for user in range(90)]
    tokens = item_index.collaborative(make_splits(with_sequences(sequences)), 20, 3, 0)
    first = [{tokens[row][0] for row in group} for group in groups]
    assert all(len(found) == 1 for found in first) and len(set.union(*first)) == 3
    assert {len(token) for token in tokens} == {2}


def test_parts_must_fit_the_tokens():
    with pytest.raises(UserError, match="cluster_split=30, cluster_tokens=20"):
        TaskSettings(cluster_split=30, cluster_tokens=20)


ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("ILM_TEST_DATA", ROOT.parent / "shared/data"))
REAL = DATA / "amazon-beauty-2014"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no Beauty at {REAL} (set ILM_TEST_DATA)")
def test_real_beauty_has_short_unique_ids():
    from ilm_jax.data.sources import user_sequences

    catalogue = user_sequences.read(REAL, "openp5/beauty")
    splits = make_splits(catalogue, SplitConfig(held_out_items=0.0))
    tokens = item_index.collaborative(splits, 100, 20, 0)
    assert len(set(tokens)) == catalogue.num_items == 12_101
    assert {number for token in tokens for number in token} == set(range(100))
    assert {len(token) for token in tokens} == {1, 2, 3, 4, 5}
