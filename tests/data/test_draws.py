"""Draws depend on their keys alone, and their values are fixed for good."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilm_jax.data import draws

KEY = st.one_of(st.text(max_size=5), st.integers(), st.booleans())
KEYS = st.lists(KEY, min_size=1, max_size=4)


@given(KEYS, KEYS)
@settings(deadline=None, max_examples=50)
def test_the_same_keys_give_the_same_draw_and_others_another(one, other):
    assert draws.uniform(*one) == draws.uniform(*one)
    if [(type(key), key) for key in one] != [(type(key), key) for key in other]:
        assert draws.uniform(*one) != draws.uniform(*other)


@given(st.integers(1, 10**9), KEYS)
@settings(deadline=None, max_examples=50)
def test_integers_stay_in_range(n, keys):
    assert 0 <= draws.integer(n, *keys) < n


def test_key_boundaries_count_and_numpy_integers_are_integers():
    assert draws.uniform("a", "bc") != draws.uniform("ab", "c")
    assert draws.uniform("1") != draws.uniform(1)
    assert draws.uniform(np.int32(7)) == draws.uniform(7)


ANY_KEY = st.one_of(KEY, st.none(), st.floats(), st.integers(-(2**31), 2**31 - 1).map(np.int32))


@given(st.lists(ANY_KEY, min_size=1, max_size=4))
@settings(deadline=None, max_examples=200)
def test_keys_are_hashed_as_json_writes_them(keys):
    plain = [int(key) if isinstance(key, np.integer) else key for key in keys]
    digest = hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).digest()
    want = (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53
    assert draws.uniform(*keys) == want


def test_values_are_fixed():
    assert draws.uniform("seed", 0) == 0.289088388176605
    assert draws.integer(1000, "seed", 0) == 289
    assert draws.uniforms(2, "seed", 0).tolist() == [0.13382991553593648, 0.9515912518260643]


def test_distributions_are_what_they_say():
    values = draws.uniforms((100, 200), "shape")
    assert values.shape == (100, 200)
    assert 0.0 <= values.min() and values.max() < 1.0
    assert abs(values.mean() - 0.5) < 0.01
    normal = draws.normals(20_000, "normal")
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03
    counts = np.bincount([draws.integer(5, "die", i) for i in range(5000)], minlength=5)
    assert counts.min() > 900
    assert 0 <= draws.rng("generator").random() < 1


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="n >= 1"):
        draws.integer(0, "a")
    with pytest.raises(TypeError, match="at least one key"):
        draws.uniform()


def test_normals_are_box_mullers_of_the_uniforms():
    """Half the angle would have the same distribution, and give every hashed world other values."""
    first, second = draws.uniforms((2, 6), "key", 3)
    radius = np.sqrt(-2 * np.log(1 - first))
    got = draws.normals((2, 3), "key", 3)
    np.testing.assert_allclose(got.ravel(), radius * np.cos(2 * np.pi * second), rtol=1e-12)


@given(KEYS, st.lists(st.integers(), min_size=1, max_size=3))
@settings(deadline=None, max_examples=50)
def test_draws_behind_keys_are_those_of_all_keys(keys, integers):
    assert draws.uniform_behind(*keys)(*integers) == draws.uniform(*keys, *integers)
