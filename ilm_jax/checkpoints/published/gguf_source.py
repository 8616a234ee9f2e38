"""The tensors of a GGUF file under the names, in the order and in the values of a published folder.

llama.cpp keeps three things otherwise, and all are undone here as rows are read: Llama's query and
key rows stand in pairs of a rotation's halves, Gemma's norms have 1 added, and names are its own.
"""

import os
import re
from typing import Any

import numpy as np

from ilm_jax.checkpoints.published.gguf_configs import FREQUENCIES, config_of
from ilm_jax.checkpoints.published.hugging_face import Index, resolve
from ilm_jax.pretrained.gguf_file import BLOCK_BYTES, open_gguf

_WHOLE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Of models with norms behind attention and MLP too.
_POST_NORMS = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
# model_types whose rows of queries and keys stand in pairs, whose norms have 1 added, and which
# have norms behind attention and MLP.
_PAIRED = ("llama", "mistral")
_ONE_ADDED = ("gemma", "gemma2", "gemma3_text")
_POST_NORMED = ("gemma2", "gemma3_text")


class GGUFSource:
    """A GGUF file as `Source`.

    Attributes:
      where: the file, for messages.
      config: what a config.json of this model says.
      notes: lines for a person.
      cheap_rows: parts of a tensor's first dimension are cheap to read.
    """

    cheap_rows = True

    def __init__(self, path: str | os.PathLike) -> None:
        """Reads the file's head.

        Raises:
          UserError: as `open_gguf` and `config_of`.
        """
        self._file = open_gguf(path)
        self.where = str(path)
        self.config: dict[str, Any] = config_of(self._file)
        kind = self.config["model_type"]
        self._paired, self._one_added = kind in _PAIRED, kind in _ONE_ADDED
        self._names = {
            published_name(name, kind in _POST_NORMED): name
            for name in self._file.tensors
            if name != FREQUENCIES
        }
        kinds = sorted({tensor.kind.name for tensor in self._file.tensors.values()})
        self.notes = [f"{path}: a GGUF file of {', '.join(kinds)}"]

    def names(self) -> list[str]:
        """Names of all tensors, as a published folder has them where it has such tensors."""
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._file.tensors[self._names[name]].shape

    def dtype(self, name: str) -> np.dtype:
        """Type of its numbers as they are read: float32 of quantised ones."""
        stored = self._file.tensors[self._names[name]].kind.dtype
        return np.dtype(np.float32) if self._adds_one(name) else stored

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """The part of a tensor that `index` names, decoded a block of rows at a time."""
        shape = self.shape(name)
        ranges = resolve(index, shape)
        out = np.empty([stop - start for start, stop in ranges], self.dtype(name))
        if not out.size:
            return out
        inner = tuple(slice(start, stop) for start, stop in ranges[1:])
        (first, last), row = ranges[0], int(np.prod(shape[1:])) * 4
        step = max(1, BLOCK_BYTES // row)
        for start in range(first, last, step):
            stop = min(start + step, last)
            out[start - first : stop - first] = self._rows(name, start, stop)[:, *inner]
        return out

    def _rows(self, name: str, first: int, last: int) -> np.ndarray:
        theirs = self._names[name]
        heads = self._heads(name)
        if heads:
            size = self.shape(name)[0] // heads
            # A pair's halves lie up to a head apart: whole heads are read.
            start, stop = first // size * size, -(-last // size) * size
            place = np.arange(first, last)
            within = place % size
            pairs = place - within + 2 * (within % (size // 2)) + within // (size // 2)
            return self._file.read_rows(theirs, start, stop)[pairs - start]
        rows = self._file.read_rows(theirs, first, last)
        return rows.astype(np.float32) - 1 if self._adds_one(name) else rows

    def _heads(self, name: str) -> int:
        """Of a tensor whose rows stand in pairs; 0 of others."""
        found = re.search(r"self_attn\.([qk])_proj\.", name) if self._paired else None
        if found is None:
            return 0
        which = "num_attention_heads" if found[1] == "q" else "num_key_value_heads"
        return int(self.config[which])

    def _adds_one(self, name: str) -> bool:
        return self._one_added and name.endswith("norm.weight")


def published_name(name: str, post_norms: bool) -> str:
    """A tensor's name in a published folder; its own where folders have no such tensor."""
    stem, _, end = name.rpartition(".")
    if stem in _WHOLE:
        return f"{_WHOLE[stem]}.{end}"
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    layer = _LAYER | (_POST_NORMS if post_norms else {})
    if found is None or found[2] not in layer:
        return name
    return f"model.layers.{found[1]}.{layer[found[2]]}.{end}"
