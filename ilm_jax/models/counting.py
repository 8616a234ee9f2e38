"""Counts matrix products in a traced program, with scans multiplied out.

XLA's own cost analysis counts the body of a scan once. These counts are exact, need no
compilation, and so can prove what a program does not compute: training with frozen weights is
full training minus exactly their weight-gradient products.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import jax
from jax.extend import core

Jaxpr = core.Jaxpr | core.ClosedJaxpr


def count_dot_flops(jaxpr: Jaxpr) -> int:
    """Floating-point operations of all dot_generals: 2 * batch * rows * columns * contracted.

    Args:
      jaxpr: from `jax.make_jaxpr(f)(...)`. Bodies of scans count `length` times, those of
        shard_map once per shard; of the branches of a cond, the dearest counts.

    Raises:
      ValueError: for a while loop, whose length is unknown, if there are products in it, and for
        kernels and convolutions, which this does not count.
    """
    return _count(jaxpr, _dot_flops)


def count_dots(jaxpr: Jaxpr) -> int:
    """The number of dot_generals that are run; arguments and errors as in `count_dot_flops`."""
    return _count(jaxpr, lambda eqn: 1)


def _dot_flops(eqn: core.JaxprEqn) -> int:
    left, right = (var.aval.shape for var in eqn.invars[:2])  # type: ignore[attr-defined]
    (contract, contract_right), (batch, batch_right) = eqn.params["dimension_numbers"]
    contracted = math.prod(left[i] for i in contract)
    batches = math.prod(left[i] for i in batch)
    rows = math.prod(left) // (contracted * batches) if math.prod(left) else 0
    shared = {*contract_right, *batch_right}
    columns = math.prod(size for i, size in enumerate(right) if i not in shared)
    return 2 * batches * rows * columns * contracted


UNCOUNTED = ("pallas_call", "conv_general_dilated", "ragged_dot", "ragged_dot_general")


def _count(jaxpr: Jaxpr, cost: Callable[[core.JaxprEqn], int]) -> int:
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    total = 0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            total += cost(eqn)
            continue
        if name in UNCOUNTED:
            raise ValueError(f"{name} is not counted: trace the program without it")
        inner = [_count(sub, cost) for sub in _sub_jaxprs(eqn.params)]
        if not any(inner):
            continue
        if name == "while":
            raise ValueError("a while loop with matrix products has no known length: use a scan")
        times = 1
        if name == "scan":
            times = eqn.params["length"]
        elif name == "shard_map":
            mesh = eqn.params["mesh"]
            # Named `manual_axes` before jax 0.10.
            axes = eqn.params.get("newly_manual_axes") or eqn.params["manual_axes"]
            times = math.prod(mesh.shape[axis] for axis in axes)
        total += times * (max(inner) if name == "cond" else sum(inner))
    return total


def _sub_jaxprs(params: Mapping[str, object]) -> Iterator[Jaxpr]:
    """The programs that an equation calls (a custom_vjp's rules are functions, and not run)."""
    for value in params.values():
        for leaf in jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, Jaxpr)):
            if isinstance(leaf, Jaxpr):
                yield leaf
