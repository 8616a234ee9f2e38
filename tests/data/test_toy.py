"""The toy world is fixed by its hash, and what its texts reveal is what it says they reveal."""

import re

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import TRAIN, make_splits
from ilm_jax.data.sources import toy, toy_language

# Committed before any model was compared on this world. A change needs a new toy.VERSION.
WORLD_0 = "617ba4cfd27f87be3cf301295c18d95916a633ddb9d91a86cde663895c9fd3b0"


@pytest.fixture(scope="module")
def world():
    return toy.make_world(0)


@pytest.fixture(scope="module")
def truth():
    return toy.make_truth(0)


def test_world_zero_is_the_committed_one(world):
    assert (world.name, world.version) == ("toy", "1.0.0")
    assert world.fingerprint == WORLD_0


def test_other_worlds_differ_in_everything_drawn(world):
    other = toy.make_world(3)
    assert other.name == "toy/world3"
    assert not set(other.titles) & set(world.titles)
    assert other.extras["words"] != world.extras["words"]
    with pytest.raises(ValueError, match="from 0"):
        toy.make_world(-1)


def test_sequences_have_the_promised_shape(world):
    lengths = np.diff(world.offsets)
    assert (world.num_items, world.num_users) == (toy.ITEMS, toy.USERS)
    assert (lengths.min(), lengths.max()) == (toy.SHORTEST, toy.LONGEST)
    assert 17 < lengths.mean() < 20
    assert world.ties == 0
    for user in range(world.num_users):
        assert len(set(world.sequence(user))) == lengths[user]
        begin, end = world.offsets[user : user + 2]
        assert np.all(np.diff(world.timestamps[begin:end]) > 0)
    assert set(world.ratings) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_content_spans_mark_exactly_the_content_words(world):
    fields = list(toy_language.FIELDS)
    boilerplate = {re.sub(r"\{\w+\}", "{}", template) for template in toy_language.TEMPLATES}
    for item in range(world.num_items):
        text, spans = world.texts[item], world.content[item]
        numbers = zip(fields, world.extras["words"][item], strict=True)
        words = {f: toy_language.FIELDS[f][w] for f, w in numbers}
        assert sorted(text[s:e] for s, e in spans) == sorted(words.values())
        for start, end in reversed(spans):
            text = f"{text[:start]}{{}}{text[end:]}"
        assert text in boilerplate


def test_a_content_word_belongs_to_one_field_and_no_template():
    words = [word for values in toy_language.FIELDS.values() for word in values]
    assert len(set(words)) == len(words) == 48
    assert not set(words) & set(re.findall(r"\w+", " ".join(toy_language.TEMPLATES).lower()))
    assert not any(word[0] in "aeiou" for word in words)


def test_ceiling_is_the_exact_likelihood_of_the_words(world, truth):
    ceiling = world.extras["ceiling"]
    words = np.array(world.extras["words"])
    total = np.zeros(world.num_items)
    for number, (field, probabilities) in enumerate(truth.word_probabilities.items()):
        assert list(toy_language.FIELDS)[number] == field
        nats = -np.log(probabilities[np.arange(world.num_items), words[:, number]])
        np.testing.assert_allclose(ceiling["field_nats"][field], nats, atol=1e-6)
        entropy = -(probabilities * np.log(probabilities)).sum(1).mean()
        assert 0.8 < entropy < 1.2
        assert abs(nats.mean() - entropy) < 0.1  # the words follow the law that generated them
        total += nats
    np.testing.assert_allclose(ceiling["content_nats"], total, atol=1e-5)
    np.testing.assert_allclose(ceiling["template_nats"], np.log(5), atol=1e-6)


def fit_logistic(inputs, labels, classes, steps=300):
    weights = np.zeros((inputs.shape[1], classes))
    onehot = np.eye(classes)[labels]
    for _ in range(steps):
        logits = inputs @ weights
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        weights += 2.0 * (inputs.T @ (onehot - p) / len(inputs) - 1e-4 * weights)
    return weights


def held_out_nats(inputs, labels, classes, train):
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], 1)
    logits = inputs[~train] @ fit_logistic(inputs[train], labels[train], classes)
    logits -= logits.max(1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_p[np.arange(len(log_p)), labels[~train]].mean()


def test_factors_tell_at_least_six_tenths_of_a_nat_per_word_on_held_out_items(world, truth):
    train = make_splits(world).item_fold == TRAIN
    words = np.array(world.extras["words"])
    blind, seeing, hidden = [], [], []
    for number in range(words.shape[1]):
        labels = words[:, number]
        blind.append(held_out_nats(np.zeros((len(labels), 1)), labels, 8, train))
        seeing.append(held_out_nats(truth.item, labels, 8, train))
        hidden.append(held_out_nats(truth.item[:, 7:], labels, 8, train))
    print(f"nats per word: blind {np.mean(blind):.3f}, from factors {np.mean(seeing):.3f}")
    assert np.mean(blind) - np.mean(seeing) > 0.6
    assert abs(np.mean(blind) - np.mean(hidden)) < 0.1  # three dimensions stay unread


def test_titles_are_unique_pairs_of_invented_words(world):
    assert len(set(world.titles)) == world.num_items
    assert all(re.fullmatch(r"[A-Z][a-z]+ [A-Z][a-z]+", title) for title in world.titles)


def test_critiques_ask_for_what_the_next_item_has_and_the_last_lacks(world):
    words = np.array(world.extras["words"])
    assert len(world.extras["critiques"]) > 5000
    for user, position, field, word in world.extras["critiques"]:
        before, after = world.sequence(user)[position - 1 : position + 1]
        assert words[after, field] == word != words[before, field]
        assert world.categories[before][0] == world.categories[after][0]


def test_narratives_name_fields_that_the_users_items_over_represent(world):
    words = np.array(world.extras["words"])
    shares = []
    for user, narrative in enumerate(world.extras["narratives"]):
        assert len({field for field, _ in narrative}) == 3
        field, word = narrative[0]
        shares.append(np.mean(words[world.sequence(user), field] == word))
    assert np.mean(shares) > 2 / 8
