"""Item-text matching by hand: the three pairs of a row, and which of them count."""

import jax.numpy as jnp
import numpy as np

from ilm_jax.objectives.matching import matching_loss, with_hard_negatives


def test_a_rows_pairs_are_its_own_a_wrong_item_and_a_wrong_text():
    vectors = jnp.arange(8.0).reshape(4, 2)
    text = jnp.arange(12).reshape(4, 3) + 100
    wrong_items, wrong_texts = jnp.array([2, 0, -1, 1]), jnp.array([3, -1, 0, 0])
    pairs = with_hard_negatives(vectors, text, wrong_items, wrong_texts)
    for row in range(4):
        np.testing.assert_array_equal(pairs.vectors[row, 0], vectors[row])
        np.testing.assert_array_equal(pairs.text[row, 0], text[row])
        np.testing.assert_array_equal(pairs.text[row, 1], text[row])
        np.testing.assert_array_equal(pairs.vectors[row, 2], vectors[row])
        if wrong_items[row] >= 0:
            np.testing.assert_array_equal(pairs.vectors[row, 1], vectors[wrong_items[row]])
        if wrong_texts[row] >= 0:
            np.testing.assert_array_equal(pairs.text[row, 2], text[wrong_texts[row]])
    assert pairs.labels.tolist() == [[1, 0, 0]] * 4
    # Row 0 of the batch is a wrong answer like any; -1 is none.
    assert pairs.weights.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 1, 1]]


def test_loss_and_accuracy_are_of_the_pairs_that_count():
    logits = jnp.array([[0.0, 2.0], [1.0, 0.0], [3.0, 4.0]])
    labels, weights = jnp.array([1, 0, 0]), jnp.array([1.0, 1.0, 0.0])
    found = matching_loss(logits, labels, weights)
    want = np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))
    np.testing.assert_allclose(found["itm"].total, want, rtol=1e-6)
    assert float(found["itm"].weight) == 2
    assert (float(found["itm_accuracy"].total), float(found["itm_accuracy"].weight)) == (2, 2)
    every = matching_loss(logits, labels, jnp.ones(3))
    assert (float(every["itm_accuracy"].total), float(every["itm_accuracy"].weight)) == (2, 3)
