"""How many layers of a scan stand one behind the other in its body.

A scan keeps what its backward pass reads in arrays over all repetitions, and writes and reads a
part of them at each. On CPUs these copies cost a twentieth to a sixth of the steps that were
measured (docs/speed.md); a body that holds every layer has none, at the price of compiling each.
"""

import flax.linen as nn

from ilm_jax.models.platforms import platform

# More repetitions compile for long, and keep more memory at once.
FEW = 8


def unroll(module: nn.Module, repetitions: int, remat: str) -> int:
    """The `unroll` of a scan over layers: all of few on a CPU, else 1.

    Args:
      module: that scans; one that draws its parameters runs once, and has nothing to gain.
      repetitions: of the scan's body.
      remat: as in `remat`; what is made again stays in a loop, which keeps XLA from undoing it.
    """
    few = repetitions <= FEW and remat == "none" and not module.is_initializing()
    return repetitions if few and platform() == "cpu" else 1
