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
