"""Mistral 7B and models in its shape: Llama's with a window on all layers, or on none."""

from collections.abc import Mapping
from typing import Any

from ilm_jax.checkpoints.published.families import decoders
from ilm_jax.checkpoints.published.families.agreeing import integer
from ilm_jax.checkpoints.published.rules import Family
from ilm_jax.models.decoder import DecoderConfig


def config(found: Mapping[str, Any]) -> DecoderConfig:
    """Our configuration of a config.json.

    Raises:
      UserError: for an option that DecoderConfig does not have, by its name.
    """
    decoders.check_options(found, ["sliding_window"], {})
    window = integer({"sliding_window": 4096} | dict(found), "sliding_window")
    return DecoderConfig(
        **decoders.shared(dict(num_key_value_heads=8) | dict(found), tied=False),
        layer_pattern=("local",) if window else ("global",),
        sliding_window=window,
    )


FAMILY = Family(("mistral",), config, decoders.rules, **decoders.SHARED)
