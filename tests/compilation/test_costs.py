"""Costs read from compiled programs are those of the formula, loops multiplied out."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax.compilation import costs, products
from ilm_jax.compilation.roofline import (
    collective_seconds,
    first_group,
    kernel_flops,
    permute_seconds,
)
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.training.chips import CHIPS


def loop(x, weights):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]


def test_products_of_a_loop_count_as_often_as_it_runs():
    compiled = jax.jit(loop).lower(jnp.ones((64, 32)), jnp.ones((5, 32, 32))).compile()
    assert costs.analyse(compiled.as_text()).flops == 5 * 2 * 64 * 32 * 32


def test_collectives_of_a_loop_do_too():
    partitioner = Partitioner(MeshConfig(data=4, fsdp=2))
    rows = NamedSharding(partitioner.mesh, PartitionSpec(None, "fsdp", None))
    whole = NamedSharding(partitioner.mesh, PartitionSpec())
    step = jax.jit(loop, in_shardings=(whole, rows), out_shardings=whole)
    compiled = step.lower(jnp.ones((64, 32)), jnp.ones((5, 32, 32))).compile()
    found = costs.analyse(compiled.as_text()).collectives
    assert sum(one.times for one in found if one.opcode in ("all-gather", "all-reduce")) >= 5
    for one in found:
        assert one.bytes in (64 * 32 * 4, 32 * 32 * 4, 64 * 16 * 4)
        assert len(first_group(one.groups, 8)) == 2


TPU_LINES = """HloModule step, is_scheduled=true

%body (p: (s32[], bf16[8,128,64])) -> (s32[], bf16[8,128,64]) {
  %p = (s32[], bf16[8,128,64]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[8,128,64]{2,1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %s = f32[8,12,8,8]{3,2,1,0:T(8,128)S(1)} convolution(%q, %k), window={size=8x12 stride=7x11 lhs_dilate=8x12}, dim_labels=0b1f_0o1i->01bf
  %q = bf16[8,8,12,64]{3,2,1,0:T(8,128)(2,1)S(1)} bitcast(%x)
  %k = bf16[8,8,12,64]{3,2,1,0:T(8,128)(2,1)S(1)} bitcast(%x)
  %g = bf16[8,128,64]{2,1,0:T(8,128)(2,1)} all-gather(%x), channel_id=3, replica_groups=mesh['data'=2,'fsdp'=4] {'fsdp'}, dimensions={0}, metadata={op_name="jit(step)/layers/mul"}
  ROOT %t = (s32[], bf16[8,128,64]{2,1,0}) tuple(%i, %g)
}

%condition (c: (s32[], bf16[8,128,64])) -> pred[] {
  %c = (s32[], bf16[8,128,64]{2,1,0}) parameter(0)
  %n = s32[]{:T(128)} constant(21)
  %j = s32[] get-tuple-element(%c), index=0
  ROOT %lt = pred[] compare(%j, %n), direction=LT
}

ENTRY %main (a: bf16[8,128,64]) -> bf16[8,128,64] {
  %a = bf16[8,128,64]{2,1,0:T(8,128)(2,1)} parameter(0)
  %z = s32[] constant(0)
  %w = (s32[], bf16[8,128,64]{2,1,0}) tuple(%z, %a)
  %early = bf16[8,128,64]{2,1,0:T(8,128)(2,1)} all-gather(%a), channel_id=3, replica_groups=mesh['data'=2,'fsdp'=4] {'fsdp'}, dimensions={0}
  %splash_mha_dq_no_residuals.2 = bf16[2,16,1024,256]{3,2,1,0} custom-call(%a), custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,2,2]{2,1,0}, bf16[2,16,1024,256]{3,2,1,0}}
  %loop = (s32[], bf16[8,128,64]{2,1,0}) while(%w), condition=%condition, body=%body
  ROOT %r = bf16[8,128,64]{2,1,0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_what_the_tpu_compiler_writes_is_read():
    found = costs.analyse(TPU_LINES)
    # Batched products are convolutions whose windows meet one element each.
    assert found.flops == 21 * 2 * 8 * 12 * 8 * 8 * 64
    # A pipelined exchange stands in front of its loop too: one channel is one exchange.
    (gather,) = found.collectives
    assert (gather.times, gather.bytes) == (21, 8 * 128 * 64 * 2)
    (kernel,) = found.kernels
    # Of four blocks of 512 causality hides one; three products.
    assert kernel_flops(kernel) == 3 * 2 * 2 * 16 * 1024**2 * 256 * 3 / 4


def test_a_loop_that_counts_in_twos_runs_half_as_often():
    counted = TPU_LINES.replace(
        "  ROOT %t = (s32[], bf16[8,128,64]{2,1,0}) tuple(%i, %g)",
        "  %one = s32[] constant(1)\n  %j = s32[] add(%i, %one)\n  %l = s32[] add(%j, %one)\n"
        "  ROOT %t = (s32[], bf16[8,128,64]{2,1,0}) tuple(%l, %g)",
    )
    assert counted != TPU_LINES
    # Of 0, 2, … those under 21.
    assert costs.analyse(counted).flops == costs.analyse(TPU_LINES).flops * 11 / 21


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("{{0,2},{1,3}}", [0, 2]),
        ("[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("[2,4]<=[8]", [0, 1, 2, 3]),
        ("mesh['data'=2,'fsdp'=2,'tensor'=2] {'data','tensor'}", [0, 1, 4, 5]),
        ("", list(range(8))),
    ],
)
def test_groups_are_read_in_every_spelling(text, group):
    assert first_group(text, 8) == group


class Device:
    def __init__(self, *coords, slice_index=0):
        self.coords, self.slice_index = coords, slice_index


def test_an_exchange_takes_as_long_as_its_ring():
    chip = CHIPS["v5e"]
    ring = [Device(x, y, 0) for x in range(16) for y in range(16)]
    row = costs.Collective("all-gather", 16 * 2**20, 1, "[16,16]<=[256]", "", ())
    inside, outside = collective_seconds(row, chip, ring)
    assert inside == pytest.approx(15 * 2**20 / 90e9) and outside == 0
    line = [Device(x, 0, 0) for x in range(4)]
    four = costs.Collective("all-reduce", 4 * 2**20, 1, "", "", ())
    assert collective_seconds(four, chip, line)[0] == pytest.approx(2 * 3 * 2**20 / 45e9)
    slices = [Device(x, 0, 0, slice_index=s) for s in range(2) for x in range(4)]
    inside, outside = collective_seconds(four, chip, slices)
    assert outside == pytest.approx(2 * 2**20 / 2 / chip.dcn_bandwidth)


def test_neighbours_exchange_in_both_directions_at_once():
    chip = CHIPS["v5e"]

    def turn(pairs: list[tuple[int, int]], times: int = 1) -> costs.Collective:
        text = "{" + ",".join(f"{{{a},{b}}}" for a, b in pairs) + "}"
        return costs.Collective("collective-permute", 2**20, times, text, "", ())

    ring = [Device(x, 0, 0) for x in range(16)]
    on = [(i, (i + 1) % 16) for i in range(16)]
    back = [(b, a) for a, b in on]
    once = 2**20 / chip.link_bandwidth
    assert permute_seconds([turn(on, 7)], chip, ring)[0] == pytest.approx(7 * once)
    assert permute_seconds([turn(on, 7), turn(back, 7)], chip, ring)[0] == pytest.approx(7 * once)
    # A line of four does not close: its last sends over all of its links, against nobody.
    line = [Device(x, 0, 0) for x in range(4)]
    assert permute_seconds([turn([(0, 1), (1, 2), (2, 3), (3, 0)])], chip, line)[0] == (
        pytest.approx(once)
    )
    assert permute_seconds([turn([(0, 2), (1, 3)])], chip, line)[0] == pytest.approx(2 * once)
    slices = [Device(0, 0, 0, slice_index=s) for s in range(2)]
    assert permute_seconds([turn([(0, 1), (1, 0)])], chip, slices) == (
        0.0,
        pytest.approx(2**20 / chip.dcn_bandwidth),
    )


def test_places_that_meet_are_counted_as_one_by_one():
    for case in itertools.product(
        (1, 3, 8), (1, 4, 8), (1, 5), (1, 2, 7), (1, 2), (1, 4, 8), (0, 3)
    ):
        out, size, length, stride, dilate, spread, low = case
        ats = [o * stride + k * dilate - low for o in range(out) for k in range(size)]
        want = sum(at % spread == 0 and 0 <= at // spread < length for at in ats)
        assert products._hits(*case) == want, case
    assert products._hits(32768, 32768, 32768, 32767, 1, 32768, 0) == 32768  # at once


def test_text_that_is_no_program_is_refused():
    with pytest.raises(Exception, match="no ENTRY computation"):
        costs.analyse("HloModule nothing")
