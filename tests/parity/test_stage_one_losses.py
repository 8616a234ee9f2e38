"""Values of ITC, ITM, ITG, item-item and user-item equal their formulas, written out in NumPy.

The network's outputs (unit features, logits) are ours, which other tests here compare with the
reference; all that is done with them is written again below from the formulas in BLIP-2 (Li et al.
2023, arXiv 2301.12597, section 3.1) and in the docstrings of ilm_jax/objectives, in float64 and
row by row.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models.qformer import QFormer
from ilm_jax.objectives.alignment import Alignment
from ilm_jax.objectives.contrastive import contrast
from tests.marks import slow_but_for
from tests.models.small import init, qformer_config

ROWS, ITEMS, PAD = 8, 12, 0
WEIGHTS = {"itc": 0.5, "itm": 2.0, "itg": 0.7}
TEMPERATURES = {"item_text": 0.05, "item_item": 0.11, "user_item": 0.3}
CONFIG = qformer_config(num_layers=2, num_item_tokens=2, dropout=0.0)
OBJECTIVE = Alignment(CONFIG, itc_weight=0.5, itm_weight=2.0, itg_weight=0.7)
TABLE = np.random.default_rng(3).normal(size=(ITEMS, 6)).astype(np.float32)
# Items 4 and 7 stand there twice: their rows share targets.
ENTITIES = np.array([4, 1, 7, 4, 0, 7, 9, 11], np.int32)
OTHERS = np.array([2, 2, 5, 8, 3, 10, 6, 1], np.int32)


def some_text():
    rng = np.random.default_rng(4)
    text = rng.integers(6, 40, (ROWS, 7)).astype(np.int32)
    text[:, 0] = 4
    for row in range(ROWS):
        text[row, 3 + row % 5 :] = PAD
    return text


TEXT = some_text()


@pytest.fixture(scope="module")
def params():
    found = init(QFormer(CONFIG), jnp.zeros((1, 6)), jnp.ones((1, 3), jnp.int32), method="init_all")
    logs = {kind: jnp.log(value) for kind, value in TEMPERATURES.items()}
    assert set(logs) == set(OBJECTIVE.kinds)
    return found | {"log_temperature": logs}


@functools.partial(jax.jit, static_argnames=("kind", "objective"))
def ours(params, kind, batch, key, objective=OBJECTIVE):
    sums = objective.loss({"qformer": params}, kind, batch, TABLE, key)
    return {name: value.total / value.weight for name, value in sums.items()}


@functools.partial(jax.jit, static_argnames="method")
def network(params, method, *args):
    return QFormer(CONFIG).apply({"params": params}, *args, method=method)


def call(params, method, *args):
    return np.asarray(network(params, method, *args), np.float64)


def log_softmax(row):
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def contrastive(left, right, temperature, positive, smoothing=0.1):
    """Symmetric cross-entropy against 0.9 shared by the positives and 0.1 spread over all."""
    count = len(left)
    similarity = np.array([[(a @ b.T).max() for b in right] for a in left]) / temperature
    total = 0.0
    for table, good in ((similarity, positive), (similarity.T, positive.T)):
        for i in range(count):
            target = (1 - smoothing) * good[i] / good[i].sum() + smoothing / count
            total -= (target * log_softmax(table[i])).sum() / count / 2
    return total


def matching(params, vectors, negatives):
    """Cross-entropy of (no match, match) over true pairs and the drawn wrong ones."""
    wrong_items, wrong_texts = negatives
    losses = []
    for i in range(ROWS):
        pairs = [(i, i, 1)]
        pairs += [(wrong_items[i], i, 0)] if wrong_items[i] >= 0 else []
        pairs += [(i, wrong_texts[i], 0)] if wrong_texts[i] >= 0 else []
        for item, text, label in pairs:
            losses.append((item, text, label))
    items, texts, labels = np.array(losses).T
    logits = call(params, "match_logits", vectors[items], TEXT[texts])
    return -np.mean([log_softmax(row)[label] for row, label in zip(logits, labels, strict=True)])


def captions(params, vectors, smoothing=0.1):
    """Position t predicts token t + 1; padding is no target; 0.1 spread over the vocabulary."""
    logits = call(params, "caption_logits", vectors, TEXT)
    losses = []
    for row in range(ROWS):
        for t in range(TEXT.shape[1] - 1):
            label = TEXT[row, t + 1]
            if label != PAD:
                target = np.full(CONFIG.vocab_size, smoothing / CONFIG.vocab_size)
                target[label] += 1 - smoothing
                losses.append(-(target * log_softmax(logits[row, t])).sum())
    return np.mean(losses)


def drawn(params, entities, key):
    """The hard negatives that training draws: an input of the formula, and never right answers."""
    result = contrast(
        network(params, "entity_features", TABLE[entities]),
        network(params, "text_features", TEXT)[:, None],
        TEMPERATURES["item_text"],
        jnp.asarray(entities),
        jnp.asarray(entities),
        key=jax.random.key(0) if key is None else jax.random.fold_in(key, 1),
    )
    both = np.asarray(result.negative_left), np.asarray(result.negative_right)
    for negatives in both:
        real = negatives >= 0
        assert (entities[negatives[real]] != entities[real]).all()
    return both


def same(ids):
    return (ids[:, None] == ids[None, :]).astype(np.float64)


@pytest.mark.parametrize("key", [None, jax.random.key(11)], ids=["evaluation", "training"])
def test_item_text_losses_equal_their_formulas(params, key):
    vectors = TABLE[ENTITIES]
    got = ours(params, "item_text", {"entities": ENTITIES, "text": TEXT}, key)
    entity = call(params, "entity_features", vectors)
    text = call(params, "text_features", TEXT)[:, None]
    want = {
        "itc": contrastive(entity, text, TEMPERATURES["item_text"], same(ENTITIES)),
        "itm": matching(params, vectors, drawn(params, ENTITIES, key)),
        "itg": captions(params, vectors),
    }
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-5, err_msg=name)
    total = sum(WEIGHTS[name] * value for name, value in want.items())
    np.testing.assert_allclose(got["loss"], total, rtol=2e-5)


def test_a_batch_without_wrong_answers_matches_true_pairs_alone(params):
    one_item = np.full(ROWS, 3, np.int32)
    got = ours(params, "item_text", {"entities": one_item, "text": TEXT}, None)
    negatives = drawn(params, one_item, None)
    assert all((side == -1).all() for side in negatives)
    want = matching(params, TABLE[one_item], negatives)
    np.testing.assert_allclose(got["itm"], want, rtol=2e-5)


@pytest.mark.parametrize("kind", ["item_item", "user_item"])
def test_pair_losses_equal_their_formula(params, kind):
    got = ours(params, kind, {"entities": ENTITIES, "others": OTHERS}, None)
    left = call(params, "entity_features", TABLE[ENTITIES])
    right = call(params, "entity_features", TABLE[OTHERS])
    positive = np.maximum(same(ENTITIES), same(OTHERS))
    assert positive.sum() > ROWS + 4
    want = contrastive(left, right, TEMPERATURES[kind], positive)
    np.testing.assert_allclose(got[kind], want, rtol=2e-5)
    np.testing.assert_allclose(got["loss"], want, rtol=2e-5)


@pytest.mark.parametrize("smoothing", slow_but_for([0.0, 0.35], 0.35))
def test_label_smoothing_is_that_of_the_contrastive_and_the_caption_losses(params, smoothing):
    objective = dataclasses.replace(OBJECTIVE, label_smoothing=smoothing)
    assert OBJECTIVE.label_smoothing == 0.1
    vectors, good = TABLE[ENTITIES], same(ENTITIES)
    entity = call(params, "entity_features", vectors)
    text = call(params, "text_features", TEXT)[:, None]
    got = ours(params, "item_text", {"entities": ENTITIES, "text": TEXT}, None, objective)
    itc = contrastive(entity, text, TEMPERATURES["item_text"], good, smoothing)
    np.testing.assert_allclose(got["itc"], itc, rtol=2e-5)
    np.testing.assert_allclose(got["itg"], captions(params, vectors, smoothing), rtol=2e-5)
    # Matching has two classes and no smoothing.
    itm = matching(params, vectors, drawn(params, ENTITIES, None))
    np.testing.assert_allclose(got["itm"], itm, rtol=2e-5)
    got = ours(params, "item_item", {"entities": ENTITIES, "others": OTHERS}, None, objective)
    right = call(params, "entity_features", TABLE[OTHERS])
    want = contrastive(
        entity, right, TEMPERATURES["item_item"], np.maximum(good, same(OTHERS)), smoothing
    )
    np.testing.assert_allclose(got["loss"], want, rtol=2e-5)
