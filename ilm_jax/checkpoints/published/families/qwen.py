"""Qwen 2, 2.5 (biases on query, key and value) and Qwen 3 (norms over query and key heads)."""

from collections.abc import Mapping
from typing import Any

from ilm_jax.checkpoints.published.families import decoders
from ilm_jax.checkpoints.published.families.agreeing import flag, integer
from ilm_jax.checkpoints.published.rules import Family
from ilm_jax.errors import UserError
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
    biased = flag(found, "attention_bias", False) if third else True
    return DecoderConfig(
        **decoders.shared(found, tied=False),
        **_windows(found),
        attention_bias=biased,
        out_bias=third and biased,
        qk_norm=third,
    )


def _windows(found: Mapping[str, Any]) -> dict[str, Any]:
    """Kinds of layers: with windows switched on, those from `max_window_layers` on have one."""
    used = flag(found, "use_sliding_window", False)
    window = integer({"sliding_window": 4096} | dict(found), "sliding_window") if used else None
    stated = found.get("layer_types")
    if not window:
        if isinstance(stated, list) and "sliding_attention" in stated:
            raise UserError(
                "config.json says layers of sliding_attention and no window (use_sliding_window, "
                "sliding_window): correct one of them"
            )
        return {}
    first, count = found.get("max_window_layers"), integer(found, "num_hidden_layers") or 0
    border = 28 if first is None else first
    if type(border) is not int:
        raise UserError(f"config.json says max_window_layers={first!r}: it is a whole number")
    counted = [
        "sliding_attention" if i >= border else "full_attention"
        for i in range(min(count, decoders.DEEPEST))
    ]
    # As in Gemma's files, the number is what the default of layer_types was counted with.
    kinds = stated or counted
    return {"layer_pattern": decoders.pattern(kinds), "sliding_window": window}


FAMILY = Family(("qwen2", "qwen3"), config, decoders.rules, **decoders.SHARED)
