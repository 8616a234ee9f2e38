"""A rate of 0 leaves a task out of a mixture, as if it had not been named."""

import pytest

from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.errors import UserError

LENGTHS = {"inputs": 8, "targets": 8}


def test_a_task_of_rate_0_is_left_out_of_rates_specs_and_record():
    named = DatasetConfig({"retrieval": 2.0, "rating": 1.0}, LENGTHS)
    more = DatasetConfig({"mim": 0, "retrieval": 2.0, "bpr": 0.0, "rating": 1.0}, LENGTHS)
    assert more.rates == named.rates == {"knowledge_toy_retrieval": 2, "knowledge_toy_rating": 1}
    assert more.own_tasks == named.own_tasks and more.record() == named.record()
    assert [spec.task for spec in more.specs()] == ["retrieval", "rating"]


def test_all_rates_0_a_negative_one_and_an_unknown_name_are_refused():
    with pytest.raises(UserError, match="all rates are 0"):
        DatasetConfig({"mim": 0, "bpr": 0}, LENGTHS).specs()
    with pytest.raises(UserError, match="at least 0"):
        DatasetConfig({"mim": -1.0}, LENGTHS)
    with pytest.raises(UserError, match="no task 'retreival'.*retrieval"):
        DatasetConfig({"retreival": 0, "mim": 1.0}, LENGTHS).specs()
