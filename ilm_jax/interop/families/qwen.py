"""Qwen 2, 2.5 (biases on query, key and value) and Qwen 3 (norms over query and key heads)."""

from collections.abc import Mapping
from typing import Any

from ilm_jax.interop.families import decoders
from ilm_jax.interop.rules import Family
from ilm_jax.models.decoder import DecoderConfig

_WINDOWS = ["use_sliding_window", "sliding_window", "max_window_layers", "layer_types"]


def config(found: Mapping[str, Any]) -> DecoderConfig:
    """Our configuration of a config.json.

    Raises:
      UserError: for an option that DecoderConfig does not have, by its name.
    """
    third = found["model_type"] == "qwen3"
    decoders.check_options(found, _WINDOWS + ["attention_bias"] * third, {})
    if third:
        found = {"head_dim": 128} | dict(found)
    biased = found.get("attention_bias", False) if third else True
    return DecoderConfig(
        **decoders.shared(found, tied=False),
        **_windows(found),
        attention_bias=biased,
        out_bias=third and biased,
        qk_norm=third,
    )


def _windows(found: Mapping[str, Any]) -> dict[str, Any]:
    """Kinds of layers: with windows switched on, those from `max_window_layers` on have one."""
    window = found.get("sliding_window", 4096) if found.get("use_sliding_window") else None
    if not window:
        return {}
    first, count = found.get("max_window_layers", 28), found.get("num_hidden_layers", 0)
    kinds = found.get("layer_types") or [
        "sliding_attention" if i >= first else "full_attention" for i in range(count)
    ]
    return {"layer_pattern": decoders.pattern(kinds), "sliding_window": window}


FAMILY = Family(("qwen2", "qwen3"), config, decoders.rules, decoders.UNUSED, decoders.rename)
