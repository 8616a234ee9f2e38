"""Settings of a config.json: of the right type, and one value where a file gives it twice."""

from collections.abc import Mapping
from typing import Any

from ilm_jax.errors import UserError

# Nothing that is published is larger, and a table of that many rows would not end.
LARGEST = 2**31 - 1
# Classes of transformers begin with these; `model_type` says the same in its own spelling.
_CLASSES = {
    "Llama": ("llama",),
    "Mistral": ("mistral",),
    "Qwen2": ("qwen2",),
    "Qwen3": ("qwen3",),
    "Gemma": ("gemma",),
    "Gemma2": ("gemma2",),
    "Gemma3": ("gemma3", "gemma3_text"),
    "T5": ("t5",),
    "Bert": ("bert",),
    "Blip2": ("blip-2", "blip_2_qformer"),
}
_ENDS = ("For", "Model", "LMHead", "Encoder", "QFormer", "Text")


def agree(stated: Mapping[str, Any]) -> Any:
    """The value of one setting under its several names; None where none says it.

    Raises:
      UserError: if two of them differ.
    """
    said = {name: value for name, value in stated.items() if value is not None}
    for name, value in said.items():
        first, other = next(iter(said.items()))
        if value != other or isinstance(value, bool) != isinstance(other, bool):
            raise UserError(
                f"config.json says {first}={other!r} and {name}={value!r}, which are one setting: "
                "delete the wrong one"
            )
    return next(iter(said.values()), None)


def integer(found: Mapping[str, Any], name: str) -> int | None:
    """A whole number above 0; None where it is not stated.

    Raises:
      UserError: for anything else.
    """
    value = found.get(name)
    if value is not None and (type(value) is not int or not 0 < value <= LARGEST):
        raise UserError(f"config.json says {name}={value!r}: it is a whole number above 0")
    return value


def number(found: Mapping[str, Any], name: str, default: float) -> float:
    """A number above 0; errors as `integer`."""
    value = found.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise UserError(f"config.json says {name}={value!r}: it is a number above 0")
    return value


def flag(found: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or false; errors as `integer`."""
    value = found.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UserError(f"config.json says {name}={value!r}: it is true or false")
    return value


def check_names(found: Mapping[str, Any]) -> None:
    """Checks what every config.json may say twice: its numbers' type, and which model it is.

    Raises:
      UserError: if it says two things.
    """
    types = {
        name: str(found[name]).removeprefix("torch.")
        for name in ("torch_dtype", "dtype")
        if found.get(name) is not None
    }
    agree(types)
    kind = found.get("model_type")
    for name in found.get("architectures") or ():
        stem = next((c for c in _CLASSES if str(name).startswith(tuple(c + e for e in _ENDS))), "")
        kinds = _CLASSES.get(stem, (kind,))
        if kind not in kinds:
            raise UserError(
                f"config.json says model_type={kind!r} and architectures {name!r}, which are two "
                "models: correct the wrong one"
            )
