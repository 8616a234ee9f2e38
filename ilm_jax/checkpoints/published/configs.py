"""Configurations of language models, from what checkpoints say of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ilm_jax.errors import UserError
from ilm_jax.models.decoder import DecoderConfig
from ilm_jax.models.t5 import T5Config

CONFIGS: dict[str, type[DecoderConfig] | type[T5Config]] = {
    "DecoderConfig": DecoderConfig,
    "T5Config": T5Config,
}
Differences = dict[str, tuple[object, object]]
# Fields of a configuration that say how a model runs, not which model it is; or what stands beside
# its weights, which their names tell.
RUNTIME = frozenset(
    "dtype param_dtype remat scan_layers lora_rank lora_alpha lora_targets quantized dropout "
    "attention_backend word_rows".split()
)


def rebuild(kind: str, fields: Mapping[str, Any], **changes: Any) -> DecoderConfig | T5Config:
    """The configuration that `sources.describe` described, with some fields changed.

    Raises:
      UserError: for a field that is no field's value.
    """
    known = {field.name for field in dataclasses.fields(CONFIGS[kind])}
    given = {name: value for name, value in fields.items() if name in known}
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
    try:
        return CONFIGS[kind](**{**given, **changes})
    except (TypeError, ValueError) as error:
        raise UserError(f"a checkpoint's {kind} cannot be built: {error}") from error


def differing(found: Mapping[str, Any], here: Mapping[str, Any]) -> Differences:
    """{field: (there, here)} of what makes two configurations different models.

    A width or number of heads that is left open is the one that it stands for.
    """
    there, ours = _filled(found), _filled(here)
    return {
        name: (found[name], here[name])
        for name in found
        if name in here
        and name not in RUNTIME
        and there[name] != ours[name]
        # Two that are left open differ only as what they follow from does.
        and (found[name], here[name]) != (None, None)
    }


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A decoder's fields with what None stands for."""
    filled = dict(fields)
    heads, width = fields.get("num_heads"), fields.get("embed_dim")
    if heads and width:
        usual = {"head_dim": width // heads, "num_kv_heads": heads}
        filled |= {n: v for n, v in usual.items() if n in fields and fields[n] is None}
    return filled
