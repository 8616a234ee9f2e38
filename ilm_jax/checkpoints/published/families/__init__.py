"""Published model families by the `model_type` of their config.json."""

import importlib

from ilm_jax.checkpoints.published.rules import Family
from ilm_jax.errors import UserError

# Modules that define FAMILY; imported when asked for.
MODULES: dict[str, str] = {
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
}


def find(model_type: str) -> Family:
    """The family of a config.json's `model_type`.

    Raises:
      UserError: for one that is not supported.
    """
    if model_type not in MODULES:
        raise UserError(
            f"model_type {model_type!r} is of no known family: {', '.join(sorted(MODULES))}"
        )
    return importlib.import_module(f"{__name__}.{MODULES[model_type]}").FAMILY
