"""A rate of 0 leaves a task out of a mixture, as if it had not been named."""

import types

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


def test_a_task_alone_is_of_the_first_dataset_or_of_the_one_whose_registered_name_it_bears():
    both = DatasetConfig("openp5_random", LENGTHS, also={"toy/world1": "raw"}, cache_dir="cache")
    first = both.alone("sequential_random")
    assert (first.dataset, first.rates) == ("toy", {"openp5_toy_sequential_random": None})
    assert first.settings == both.settings and not first.also
    toy = types.SimpleNamespace(fingerprint="0123456789ab")
    name = "openp5_toy_world1_sequential_random"
    second = both.alone(name, toy)
    assert (second.dataset, second.data_dir) == ("toy/world1", "raw") and list(second.rates) == [
        name
    ]
    assert "/toy-" in second.settings.tokenizer, "words are cut as the first dataset's are"
    with pytest.raises(UserError, match="no task 'openp5_toy_world2_sequential_random'"):
        both.alone("openp5_toy_world2_sequential_random").specs()
