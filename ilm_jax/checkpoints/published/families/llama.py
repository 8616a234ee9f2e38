"""Llama 2, 3, 3.1 to 3.3 (text), and models in their shape."""

from collections.abc import Mapping
from typing import Any

from ilm_jax.checkpoints.published.families import decoders
from ilm_jax.checkpoints.published.families.agreeing import flag
from ilm_jax.checkpoints.published.rules import Family
from ilm_jax.models.decoder import DecoderConfig


def config(found: Mapping[str, Any]) -> DecoderConfig:
    """Our configuration of a config.json.

    Raises:
      UserError: for an option that DecoderConfig does not have, by its name.
    """
    decoders.check_options(found, ["attention_bias"], {"mlp_bias": (False,)})
    biased = flag(found, "attention_bias", False)
    return DecoderConfig(
        **decoders.shared(found, tied=False), attention_bias=biased, out_bias=biased
    )


FAMILY = Family(("llama",), config, decoders.rules, **decoders.SHARED)
