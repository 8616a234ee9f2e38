"""Rematerialisation: what a layer does not keep for its backward pass, and computes again there."""

import flax.linen as nn
import jax

from ilm_jax.errors import UserError

REMAT_POLICIES = {
    "full": None,
    # Products with weights are kept, products of activations (attention) are made again.
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def remat(
    module: type[nn.Module], mode: str, *, scanned: bool, static: tuple[int, ...] = ()
) -> type[nn.Module]:
    """Rematerialises a layer class in the backward pass: mode "none", "full" or "minimal".

    Args:
      module: the class.
      mode: "none" keeps all, "full" nothing, "minimal" the products with weights.
      scanned: the layer is the body of a scan.
      static: positions of __call__'s arguments that are Python values (self is 0).

    Raises:
      UserError: for another mode.
    """
    if mode == "none":
        return module
    if mode not in REMAT_POLICIES:
        raise UserError(f'remat="{mode}" is unknown: use "none", "full" or "minimal"')
    # A scan's body cannot be merged with its recomputation anyhow, so the barrier only costs.
    return nn.remat(
        module, policy=REMAT_POLICIES[mode], prevent_cse=not scanned, static_argnums=static
    )
