"""The schedule gives each kind its share, and positions count examples."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilm_jax.data.streams.schedule import Positions, Schedule
from ilm_jax.errors import UserError


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 7), min_size=1))
def test_each_kind_gets_its_share_and_is_never_a_whole_step_off(shares):
    if not sum(shares.values()):
        with pytest.raises(UserError):
            _ = Schedule(shares).cycle
        return
    cycle = Schedule(shares).cycle
    counts = collections.Counter(cycle)
    assert {kind: counts[kind] for kind in shares} == shares
    for kind, share in shares.items():
        for step in range(len(cycle)):
            expected = share * (step + 1) / len(cycle)
            assert abs(cycle[: step + 1].count(kind) - expected) < 1


def test_steps_go_round_the_cycle_from_its_first_kind():
    assert Schedule({"a": 2, "b": 1}).cycle == ("a", "b", "a")
    assert Schedule({"a": 1, "b": 1, "c": 3}).cycle == ("c", "a", "c", "b", "c")
    kinds = [Schedule({"a": 2, "b": 1}).kind_at(step) for step in range(7)]
    assert kinds == ["a", "b", "a", "a", "b", "a", "a"]


def test_positions_count_examples_so_that_the_batch_size_may_change():
    at = Positions({"a": 0, "b": 0}).advance("a", 64).advance("a", 32).advance("b", 8)
    assert at.next_example == {"a": 96, "b": 8}
