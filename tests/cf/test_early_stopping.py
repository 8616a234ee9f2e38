"""When fitting stops, and whose best is kept."""

import numpy as np
import pytest

from ilm_jax.cf.early_stopping import EarlyStopping


def test_a_second_fit_does_not_compete_with_the_first():
    figures = iter([5.0, 6.0, 1.0, 2.0, 1.5])
    stop = EarlyStopping(lambda user, item: next(figures), patience=1)
    vectors = [np.full((2, 3), number, np.float32) for number in range(6)]
    assert [stop(epoch, vectors[epoch], vectors[epoch]) for epoch in (1, 2)] == [False, False]
    assert stop.value == 6.0
    again = [stop(epoch, vectors[epoch + 2], vectors[epoch + 2]) for epoch in (1, 2, 3)]
    assert again == [False, False, True]
    assert (stop.epoch, stop.value) == (2, 2.0) and stop.user is not None
    np.testing.assert_array_equal(stop.user, vectors[4])
    assert stop.history == [(1, 1.0), (2, 2.0), (3, 1.5)]


def test_a_second_fit_forgets_the_first_though_its_first_epoch_is_not_measured():
    stop = EarlyStopping(lambda user, item: 5.0, patience=1, every=2)
    one = np.zeros((1, 1), np.float32)
    assert not stop(1, one, one) and not stop(2, one, one) and stop.epoch == 2
    assert not stop(1, one, one)
    assert stop.user is None and stop.history == []


@pytest.mark.parametrize("settings", [{"patience": 0}, {"patience": -1}, {"every": 0}])
def test_numbers_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match="give at least 1"):
        EarlyStopping(lambda user, item: 0.0, **settings)
