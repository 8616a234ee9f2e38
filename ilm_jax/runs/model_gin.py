"""A language model's configuration as gin bindings: the model.gin of `ilm convert`."""

from collections.abc import Mapping
from typing import Any

from ilm_jax.checkpoints.published.configs import RUNTIME

MODULES = {"DecoderConfig": "decoder", "T5Config": "t5"}


def model_gin(
    kind: str, fields: Mapping[str, Any], dtype: str, comment: str, tokenizer: str | None
) -> str:
    """The recipe file that goes after a stage-2 recipe.

    Args:
      kind: class of the configuration.
      fields: its fields.
      dtype: that the weights were converted to; the computation's too.
      comment: what the file is about.
      tokenizer: gin's value for the macro TOKENIZER; None leaves it alone.
    """
    module = MODULES[kind]
    imports = [f"from ilm_jax.models import {module}", "from ilm_jax.objectives import language"]
    lines = [f"language.LanguageModelling.lm = @{module}.{kind}()"]
    # Rows of words are weights of the model where there are any; a recipe's own are left alone.
    chosen = {
        name: value
        for name, value in fields.items()
        if name not in RUNTIME or (name == "word_rows" and value)
    }
    for name, value in {**chosen, "param_dtype": dtype, "dtype": dtype}.items():
        value = tuple(value) if isinstance(value, list) else value
        lines.append(f"{module}.{kind}.{name} = {value!r}")
    if tokenizer:
        lines.insert(0, f"TOKENIZER = {tokenizer}")
    head = [f"# {comment}", "from __gin__ import dynamic_registration", *imports, ""]
    return "\n".join([*head, *lines, ""])
