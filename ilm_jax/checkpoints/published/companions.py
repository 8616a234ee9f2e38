"""Files beside a published model's weights: config.json, the tokenizer's, its origin."""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ilm_jax.checkpoints.published.shards import CONFIG
from ilm_jax.data.tokenizers import tokenizer_files
from ilm_jax.files import sha256_file
from ilm_jax.pretrained import is_named, resolve
from ilm_jax.pretrained.gguf_file import is_gguf, open_gguf
from ilm_jax.pretrained.packages import KNOWN
from ilm_jax.strict_json import parse_object

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
# What `ilm convert` says of its result, beside the checkpoint.
CONVERSION = "conversion.json"
_WEIGHTS = ("*.safetensors", "checkpoint")


def tokenizer_beside(source: str | os.PathLike) -> dict[str, bytes]:
    """{name: bytes} of a model's tokenizer files, in a folder or in a GGUF file."""
    return tokenizer_files(source, TOKENIZER_FILES)


def config_of(source: str | os.PathLike) -> dict[str, Any] | None:
    """config.json of a published model, or what a GGUF file says in its place; None without."""
    place = pathlib.Path(resolve(source))
    if is_gguf(place):
        # Imported here: it reads JAX's arrays, and folders do without.
        from ilm_jax.checkpoints.published import gguf_configs

        return gguf_configs.config_of(open_gguf(place))
    file = place / CONFIG
    return parse_object(file.read_bytes(), str(file)) if file.is_file() else None


def config_beside(source: str | os.PathLike) -> dict[str, bytes]:
    """{config.json: bytes}, as it is in a folder; {} where there is none."""
    file = pathlib.Path(resolve(source)) / CONFIG
    if file.is_file():
        return {CONFIG: file.read_bytes()}
    config = config_of(source)
    return {} if config is None else {CONFIG: (json.dumps(config, indent=1) + "\n").encode()}


def base_name(source: str | os.PathLike) -> str:
    """Name of a published model: by its package, its files, else its folder."""
    text = os.fspath(source)
    if text.startswith("pkg:") and (known := KNOWN.get(text.rpartition("/")[2])):
        return known.name
    if text.startswith("hf:"):
        return text.removeprefix("hf:").strip("/").partition("@")[0]
    named = (config_of(source) or {}).get("_name_or_path")
    return named or pathlib.Path(resolve(source)).name


def provenance(source: str | os.PathLike) -> dict[str, Any]:
    """Origin of a model's weights, for a model card.

    Returns:
      "name", "source" as it was named, "licence" (SPDX where its files say so, else None) and
      "sha256", {file of weights: hex digest}. What `ilm convert` wrote down goes before.
    """
    place = pathlib.Path(resolve(source))
    if (place / CONVERSION).is_file():
        stated = parse_object((place / CONVERSION).read_bytes(), str(place / CONVERSION))
        return {key: stated.get(key) for key in ("name", "source", "licence", "sha256")}
    files = [place] if place.is_file() else sorted(f for p in _WEIGHTS for f in place.glob(p))
    return {
        "name": base_name(source),
        "source": os.fspath(source),
        "licence": licence(source),
        "sha256": {file.name: sha256_file(file) for file in files if file.is_file()},
    }


def licence(source: str | os.PathLike) -> str | None:
    """A model's licence as its package, GGUF metadata or model card (README.md) names it."""
    text = os.fspath(source)
    if is_named(text) and text.startswith("pkg:"):
        known = KNOWN.get(text.rpartition("/")[2])
        if known is not None:
            return known.licence
    place = pathlib.Path(resolve(source))
    if is_gguf(place):
        said = open_gguf(place).metadata
        found = said.get("general.license.name") or said.get("general.license")
        return found if isinstance(found, str) else None
    card = place / "README.md"
    if not card.is_file():
        return None
    head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S)
    named = _header(head[1]) if head else {}
    found = named.get("license_name") if named.get("license") == "other" else None
    return found or named.get("license")


def _header(text: str) -> Mapping[str, str]:
    """The plain settings of a card's YAML header."""
    lines = re.findall(r"^(\w+):[ \t]*(\S.*?)[ \t]*$", text, re.M)
    return {name: value.strip("'\"") for name, value in lines}
