"""Sequential models that read critiques: each behind its item, none of a held-out one."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf import text_vectors
from ilm_jax.cf.critiques import CritiqueConfig, Critiques
from ilm_jax.cf.sequences import Sequences, Windows
from ilm_jax.cf.text_vectors import TextConfig
from ilm_jax.data.catalogue.splits import TEST, TRAIN, make_splits
from ilm_jax.data.examples.purchases import PurchasePrompts
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.errors import UserError
from ilm_jax.metrics import lists
from ilm_jax.metrics.ranking import ndcg
from ilm_jax.models.sasrec import SASRecConfig
from ilm_jax.runs.sequential import SequentialConfig
from ilm_jax.serving.hybrid import Hybrid
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.training.optimizers import OptimizerConfig
from tests.data import telling_texts
from tests.data.small_catalogue import small_catalogue, word
from tests.decoding import small
from tests.serving import test_answering_by_head as by_head

KINDS = 8
ONE = Partitioner(devices=(jax.devices()[0],))


def kind(row):
    return word(9000 + row % KINDS)


@pytest.fixture(scope="module")
def splits():
    """Items of eight kinds, which their texts name; what comes next is any item."""
    catalogue = small_catalogue(items=80, users=200)
    texts = [f"{text} Of {kind(row)}." for row, text in enumerate(catalogue.texts)]
    return make_splits(dataclasses.replace(catalogue, texts=texts))


@pytest.fixture(scope="module")
def wishes(splits, tmp_path_factory):
    """A file of critiques: the kind of the item that each led to, for two purchases of three."""
    path = tmp_path_factory.mktemp("wishes") / "wishes.jsonl"
    catalogue = splits.catalogue
    with path.open("w") as stream:
        for user, raw in enumerate(catalogue.user_ids):
            for place, item in enumerate(catalogue.sequence(user).tolist()):
                if place and (user + place) % 3:
                    row = {"task": "critique", "user_id": raw, "source": "a-model"}
                    row |= {"item_ids": [catalogue.item_ids[item]]}
                    row["target"] = f"I want {kind(item)}."
                    stream.write(json.dumps(row) + "\n")
    return CritiqueConfig(dim=6, texts_file=str(path))


def config(wishes, **changes):
    return SequentialConfig(
        SASRecConfig(8, 1, 16, dropout=0.0),
        optimizer=OptimizerConfig(learning_rate=0.02, schedule="constant", weight_decay=0.0),
        batch_size=16,
        critiques=wishes,
        **changes,
    )


def test_training_has_every_critique_at_its_place_and_none_of_a_held_out_item(splits, wishes):
    told, catalogue = Critiques.make(splits, wishes), splits.catalogue
    rows, at, held_out = dict(enumerate(told.vectors)), 0, 0
    for user in range(catalogue.num_users):
        for place, item in enumerate(splits.train_sequence(user).tolist()):
            said = place and (user + place) % 3
            held_out += bool(said and splits.item_fold[item] != TRAIN)
            if said and splits.item_fold[item] == TRAIN:
                want = told.encode([f"I want {kind(item)}."])[0]
                np.testing.assert_array_equal(rows[told.of[at]], want)
            else:
                assert told.of[at] == 0
            at += 1
    assert at == len(told.of) and held_out and not told.vectors[0].any()
    np.testing.assert_allclose(np.square(told.vectors[1:]).mean(), 1, rtol=1e-5)
    for place in (-1, -2):
        before = told.before(splits, place)
        for user, words in enumerate(before):
            length = len(catalogue.sequence(user))
            said = length + place > 0 and (user + length + place) % 3
            item = catalogue.sequence(user)[place] if said else None
            assert words == (f"I want {kind(item)}." if said else "")


def test_critiques_that_name_what_is_held_out_do_not_train_and_are_counted(tmp_path, capsys):
    splits = make_splits(small_catalogue())
    file = telling_texts.file_of(tmp_path / "t.jsonl", splits)
    told = Critiques.make(splits, CritiqueConfig(dim=6, texts_file=file))
    lengths = [len(splits.train_sequence(u)) for u in range(splits.catalogue.num_users)]
    starts = np.cumsum([0, *lengths])
    critiques = [row for row in telling_texts.about_purchases(splits) if row[0] == "critique"]
    trains = {"So tell": [], "So fine": []}
    for _, user, place, text in critiques:
        if place:
            trains[text[:7]].append(told.of[starts[user] + place] > 0)
    assert all(trains["So fine"]) and not any(trains["So tell"])
    left_out = len(trains["So tell"])
    total = left_out + len(trains["So fine"])
    assert f"note: {left_out} of {total} critiques do not train" in capsys.readouterr().err


def test_texts_are_encoded_as_those_of_the_items(splits):
    space = text_vectors.space(splits, TextConfig(6))
    rows = splits.items_in(TRAIN)[:20]
    found = space.encode([splits.catalogue.texts[row] for row in rows])
    np.testing.assert_allclose(found, space.item[rows], atol=1e-5)
    assert not space.encode(["nothing known", ""]).any()
    np.testing.assert_array_equal(space.item, text_vectors.fit(splits, TextConfig(6)).item)


def test_a_rows_wish_is_the_one_before_its_target(splits):
    train = Sequences.before(splits, TRAIN)
    wishes = np.arange(len(train.items), dtype=np.int32)  # each interaction's number
    windows = Windows(train, 8, 16, 0, wishes=wishes)
    batch = windows.rows(np.arange(windows.steps * windows.batch_size))
    real = batch["segment_ids"] > 0
    np.testing.assert_array_equal(train.items[batch["wishes"][real]], batch["targets"][real])
    plain = Windows(train, 8, 16, 0).rows(np.arange(16))
    for name, values in plain.items():
        np.testing.assert_array_equal(values, batch[name][:16])
    # Half of them, and others in another epoch.
    some = Windows(train, 8, 16, 0, wishes=wishes + 1, hidden=0.5)
    count = some.steps * some.batch_size
    for epoch in range(2):
        shown = some.rows(np.arange(count) + epoch * count)["wishes"][real]
        assert 0.4 < (shown == 0).mean() < 0.6
    kept = [set(some.rows(np.arange(count) + e * count)["wishes"].ravel()) for e in (0, 1)]
    assert kept[0] != kept[1]


def test_a_critique_is_read_behind_the_last_item_alone(splits, wishes):
    fit = config(wishes, epochs=1).fit_of(splits, partitioner=ONE)
    objective = fit.objective
    drawn = nn.unbox(objective.init(jax.random.key(0)))
    items = jnp.array([[3, 5, 7, 0]])
    real = jnp.array([[1, 1, 1, 0]])
    said = jnp.asarray(fit.critiques.encode([f"I want {kind(2)}."]))
    wished = jnp.zeros((1, 4, 6)).at[0, 2].set(said[0])
    place = jnp.arange(4)[None]
    model, own = objective.model, {"params": drawn["next_item"]}
    want = model.apply(own, items, place, real, jnp.zeros((1, 1)), wishes=wished)[0, 2]
    found = objective.states(drawn, items, real, fit.table, said)[0]
    np.testing.assert_allclose(found, want, rtol=1e-6)
    without = objective.states(drawn, items, real, fit.table)[0]
    none = objective.states(drawn, items, real, fit.table, jnp.zeros_like(said))[0]
    np.testing.assert_array_equal(without, none)
    assert np.abs(found - without).max() > 1e-3


def test_critiques_that_cannot_be_read_are_told(splits, wishes):
    fit = config(wishes, epochs=1).fit_of(splits, partitioner=ONE)
    with pytest.raises(UserError, match="no item before 'redder': give its history an item"):
        fit._wishes(Sequences.of([[1], []], 80), ["bluer", "redder"])
    with pytest.raises(UserError, match="2 critiques of 1 histories: one each"):
        fit._wishes(Sequences.of([[1]], 80), ["bluer", "redder"])
    deaf = config(None, epochs=1).fit_of(splits, partitioner=ONE)
    with pytest.raises(UserError, match="reads no critiques: train it with runs/sasrec_critiques"):
        deaf._wishes(Sequences.of([[1]], 80), ["redder"])
    assert deaf._wishes(Sequences.of([[1]], 80), [""]) is None
    with pytest.raises(UserError, match="has no critique of a training purchase"):
        Critiques.make(splits, CritiqueConfig(dim=6))
    with pytest.raises(UserError, match="give both the same"):
        config(wishes, text=TextConfig(5))


@pytest.mark.slow
@pytest.mark.parametrize("text", [None, TextConfig(6)])
def test_what_is_wished_is_ranked_higher(splits, wishes, text):
    fit = config(wishes, epochs=30, text=text).fit_of(splits, partitioner=ONE)
    fit.fit()
    before, catalogue = Sequences.before(splits, TEST), splits.catalogue
    said = fit.critiques.before(splits, -1)
    users = [u for u, words in enumerate(said) if words and splits.test_target(u)]
    histories = [splits.test_target(u)[0] for u in users]
    targets = [np.array([splits.test_target(u)[1]]) for u in users]
    found = {}
    for name, words in (("with", [said[u] for u in users]), ("without", ())):
        ranked = fit.recommend(histories, 10, critiques=words)
        found[name] = ndcg(lists.ranks_of(ranked, targets)[:, 0], 10).mean()
    assert before.num_users == catalogue.num_users and len(users) > 80
    assert found["with"] > 2 * found["without"], found


def test_the_hybrid_speaks_of_what_was_picked():
    given = by_head.answerer()
    narrator = dataclasses.replace(given, purchases=PurchasePrompts(given.renderer))
    picks = np.array([[4, 1], [9, -1]])

    class Picker:
        class train:  # noqa: N801
            num_items = small.ITEMS

        def recommend(self, histories, count, *, exclude_seen, critiques):
            assert (len(histories), count, exclude_seen) == (2, 2, True)
            assert critiques == ["redder.", ""]
            return picks

    decoding = DecodingConfig(max_new_tokens=4)
    found = Hybrid(Picker(), narrator).recommend([[1, 2], [3]], ["redder.", ""], 2, decoding)
    names = small.splits().catalogue.item_ids
    assert [[item["id"] for item in row["items"]] for row in found] == [
        [names[4], names[1]],
        [names[9]],
    ]
    assert all(row["tokens"] for row in found)
    with pytest.raises(UserError, match="did not learn to speak behind an item"):
        Hybrid(Picker(), given)
    Picker.train.num_items = 3
    with pytest.raises(UserError, match=f"the picker knows 3 items and the narrator {small.ITEMS}"):
        Hybrid(Picker(), narrator)
