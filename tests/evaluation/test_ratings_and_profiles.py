"""Figures of ratings and user profiles against what follows from the values directly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.decoding.trie import build_trie
from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluators.ratings import rating_evaluation
from ilm_jax.evaluation.measures.generation import Generated
from ilm_jax.evaluation.measures.passes import ModelOnMesh, embed
from ilm_jax.evaluation.measures.ratings import Rated, RatingMeasure, rating_scale
from ilm_jax.evaluation.measures.semantic import behavioural_evaluation
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.data.small_catalogue import small_catalogue
from tests.evaluation import small
from tests.training import models


def rated(users, ratings, predicted):
    examples = [{"user": user} for user in users]
    return Rated(np.arange(len(users)), examples, np.array(ratings, float), np.array(predicted))


def test_ratings_have_the_figures_of_their_definitions():
    found = rating_evaluation(rated("aabb", [5, 1, 4, 2], [4.5, 2.0, 3.0, 3.5]), liked=4.0)
    by_name = {metric.name: metric.mean for metric in found.metrics}
    errors = np.array([0.5, 1.0, 1.0, 1.5])
    assert by_name["mae"] == pytest.approx(errors.mean())
    assert by_name["mse"] == pytest.approx((errors**2).mean())
    assert found.statistics["rmse"].mean == pytest.approx(np.sqrt((errors**2).mean()))
    assert by_name["uauc"] == 0.5, "a orders its two rightly, b does not"
    assert found.statistics["auc"].mean == 0.75
    assert not found.missing


def test_one_sided_ratings_have_no_auc_and_say_why():
    found = rating_evaluation(rated("ab", [5, 4], [4.5, 2.0]), liked=4.0)
    assert "one side of 4" in found.missing["auc"] and "uauc" in found.missing
    assert set(found.statistics) == {"rmse"}


def test_a_prediction_is_the_mean_of_the_scale_under_its_words():
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    model, feed = ModelOnMesh(models.ILM, one, models.table()), small.small_feed(5)
    scale = [1.0, 2, 5]
    for number, example in enumerate(feed.stream):
        example["target_text"] = str(scale[number % 3])
    words = [[6, 2], [7, 9, 2], [7, 11, 2]]
    params = small.parameters(one)
    found = RatingMeasure(model, feed, np.array(scale), build_trie(words))(params)
    assert found.ratings.tolist() == [1, 2, 5, 1, 2]
    batch = feed.converter.prompts([feed.stream[0]], np.arange(1))
    lm, soft = models.ILM.model.lm, model.entities(params, soft=True)
    prompt = embed(models.ILM, params, batch, soft)[:, : int(batch["lengths"][0])]
    scores = []
    for word in words:
        tokens = jnp.asarray([word])
        table = lm.apply({"params": params["lm"]}, tokens, method="embed")
        whole = jnp.concatenate([prompt, table], axis=1)
        places = jnp.arange(whole.shape[1])[None]
        hidden = lm.apply({"params": params["lm"]}, whole, places, jnp.ones_like(places))
        logits = lm.apply({"params": params["lm"]}, hidden, method="logits")
        log_p = jax.nn.log_softmax(logits[0, prompt.shape[1] - 1 : -1])
        scores.append(log_p[jnp.arange(len(word)), jnp.asarray(word)].sum())
    expected = jax.nn.softmax(jnp.stack(scores)) @ jnp.asarray(scale)
    assert found.predicted[0] == pytest.approx(float(expected), rel=1e-4)


def test_a_scale_is_what_training_rated():
    catalogue = small_catalogue()
    with pytest.raises(UserError, match="toy has 0 different ratings in training"):
        rating_scale(make_splits(catalogue))
    catalogue.ratings[:] = np.resize([1.0, 3.0, 4.5], len(catalogue.ratings))
    splits = make_splits(catalogue)
    catalogue.ratings[~splits.train_mask] = 2.0
    assert rating_scale(splits).tolist() == [1.0, 3.0, 4.5]
    catalogue.ratings[:] = np.arange(len(catalogue.ratings))
    with pytest.raises(UserError, match="2 to 64 make a scale"):
        rating_scale(splits)


def test_profiles_that_order_items_as_behaviour_does_have_consistency_1():
    vectors = {"likes x": [1, 0], "likes y": [0, 1], "x": [1, 0], "xy": [1, 1], "y": [0, 1]}

    def encoder(texts):
        return np.array([vectors[text] for text in texts], np.float32)

    found = Generated(np.arange(3), [], ["likes x", "likes x", "likes y"], [""] * 3, 1.0)
    preferences = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    (metric,) = behavioural_evaluation(found, encoder, ["x", "xy", "y"], preferences).metrics
    assert metric.values == pytest.approx([1, -1])
    assert metric.index.tolist() == [0, 1], "a user without preferences has no order"
