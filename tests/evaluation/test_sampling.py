"""Every model is measured on the same examples."""

from ilm_jax.evaluation.sampling import sample_examples


def test_the_sample_of_users_is_fixed():
    one, two = sample_examples(100, 10, seed=1), sample_examples(100, 10, seed=1)
    assert one.tolist() == two.tolist() == sorted(set(one.tolist())) and len(one) == 10
    assert sample_examples(100, 10, seed=2).tolist() != one.tolist()
    assert sample_examples(5, None).tolist() == sample_examples(5, 9).tolist() == [0, 1, 2, 3, 4]
