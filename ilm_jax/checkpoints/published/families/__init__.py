"""Published model families by the `model_type` of their config.json; open to others' modules."""

from typing import Any

from ilm_jax.checkpoints.published.rules import Family
from ilm_jax.errors import UserError
from ilm_jax.registry import Registry

FAMILIES = Registry[Family[Any]]("language-model family")

for _model_type, _module in {
    "bert": "bert",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "gemma3_text": "gemma",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen",
    "qwen3": "qwen",
    "t5": "t5",
}.items():
    FAMILIES.register(_model_type, f"{__name__}.{_module}:FAMILY")


def register_language_model_family(family: Family[Any]) -> None:
    """Adds a family of published models, under each of its `model_types`.

    Most are Llama with other options: `decoders.shared`, `decoders.rules` and `decoders.SHARED` of
    this package say what such a family says too.

    Raises:
      UserError: if there is one of that `model_type` already.
    """
    for model_type in family.model_types:
        FAMILIES.register(model_type, family)


def find(model_type: str) -> Family[Any]:
    """The family of a config.json's `model_type`.

    Raises:
      UserError: for one that is not known.
    """
    if model_type not in FAMILIES:
        raise UserError(
            f"model_type {model_type!r} is of no known family: {', '.join(sorted(FAMILIES))}; a "
            "module that registers it comes in by --import=MODULE, or by an import in the recipe"
        )
    return FAMILIES[model_type]
