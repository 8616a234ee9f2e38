"""What a module gives, of its parameters alone."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, PyTree


def applied(module: nn.Module, params: PyTree[Array], *inputs: Any, **settings: Any) -> Any:
    """What `module.apply` gives where no collection changes, so that none comes with it.

    Flax leaves the type of a method's result open; callers say it.
    """
    return module.apply({"params": params}, *inputs, **settings)
