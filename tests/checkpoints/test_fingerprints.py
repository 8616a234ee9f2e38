"""Checksums of bits: equal on the host and on devices, of parts as of the whole, and sensitive."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ilm_jax.checkpoints import fingerprints
from ilm_jax.checkpoints.fingerprints import checksum, fingerprint

TYPES = ["float32", "bfloat16", "int8", "int32", "uint16"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, max_side=5)


def array(shape, dtype, seed=0):
    """Any bits."""
    dtype = jnp.dtype(dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    bits = np.random.default_rng(seed).integers(0, 256, count, np.uint8)
    return np.frombuffer(bits.tobytes(), dtype).reshape(shape)


@settings(deadline=None)  # a shape's first call compiles
@given(shape=SHAPES, dtype=st.sampled_from(TYPES), seed=st.integers(0, 9))
def test_host_and_device_agree(shape, dtype, seed):
    value = array(shape, dtype, seed)
    with np.errstate(all="raise"):
        assert fingerprints._on_host(value) == int(fingerprints._on_device(value))


@pytest.mark.parametrize("dtype", TYPES)
def test_a_large_array_has_the_checksum_of_its_bits_too(monkeypatch, dtype):
    value = array((7, 3, 2), dtype)
    whole = checksum(value)
    monkeypatch.setattr(fingerprints, "SMALL_BYTES", 0)
    monkeypatch.setattr(fingerprints, "BLOCK_BYTES", 2 * value[0].nbytes)  # two rows at a time
    assert checksum(value) == whole


@pytest.mark.parametrize("path", ["lm/layers/sub_0/kernel", "lm/kernel"], ids=["stacked", "plain"])
def test_a_fingerprint_is_the_same_wherever_it_is_computed(monkeypatch, path):
    params = {path: jnp.asarray(array((3, 4, 2), "float32")), "lm/bias": jnp.float32(3)}
    host = fingerprint(params)
    monkeypatch.setattr(fingerprints, "SMALL_BYTES", 0)
    assert fingerprint(params) == host


def test_every_bit_and_every_place_counts():
    value = array((4, 3), "float32", 1)
    swapped, flipped = value[::-1], value.copy()
    flipped.view(np.uint32)[2, 1] ^= 1
    assert len({checksum(value), checksum(swapped), checksum(flipped), checksum(value.T)}) == 4


def test_the_checksum_of_what_earlier_versions_stored_stands():
    """What is written here is in every checkpoint."""
    assert checksum(np.arange(6, dtype=np.float32).reshape(2, 3)) == 2_302_316_468
