"""Writes checkpoints as T5X does: a msgpack file and Zarr arrays compressed by gzip beside it."""

import pathlib
import re
from typing import Any

import numpy as np
import tensorstore
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict

Tensors = dict[str, np.ndarray]
NORMS = {
    "encoder": ("pre_attention_layer_norm", "pre_mlp_layer_norm"),
    "decoder": (
        "pre_self_attention_layer_norm",
        "pre_cross_attention_layer_norm",
        "pre_mlp_layer_norm",
    ),
}
ATTENTIONS = {
    "encoder": {"SelfAttention": "attention"},
    "decoder": {"SelfAttention": "self_attention", "EncDecAttention": "encoder_decoder_attention"},
}


def from_transformers(weights: Tensors, *, tied: bool) -> Tensors:
    """The tensors of a transformers T5 under T5X's names and in its layouts."""
    found = {}
    for name, leaf in weights.items():
        parts = name.split(".")
        stack = parts[0]
        if name == "shared.weight":
            found["token_embedder/embedding"] = leaf
        elif name == "lm_head.weight":
            if not tied:
                found["decoder/logits_dense/kernel"] = leaf.T
        elif parts[1] == "final_layer_norm":
            found[f"{stack}/{stack}_norm/scale"] = leaf
        elif "relative_attention_bias" in parts:
            found[f"{stack}/relpos_bias/rel_embedding"] = leaf.T
        else:
            scope, sublayer = f"{stack}/layers_{parts[2]}", int(parts[4])
            if parts[5] == "layer_norm":
                found[f"{scope}/{NORMS[stack][sublayer]}/scale"] = leaf
            elif parts[5] == "DenseReluDense":
                found[f"{scope}/mlp/{parts[6]}/kernel"] = leaf.T
            else:
                long = {"q": "query", "k": "key", "v": "value", "o": "out"}[parts[6]]
                found[f"{scope}/{ATTENTIONS[stack][parts[5]]}/{long}/kernel"] = leaf.T
    return {name: np.ascontiguousarray(leaf) for name, leaf in found.items()}


def scanned(tensors: Tensors, axis: int = 1) -> Tensors:
    """The layers of each stack stacked, as scalable T5 holds them."""
    rows: dict[str, dict[int, np.ndarray]] = {}
    found = {}
    for name, leaf in tensors.items():
        match = re.match(r"(encoder|decoder)/layers_(\d+)/(.*)", name)
        if match:
            stack, layer, rest = match.groups()
            rows.setdefault(f"{stack}/{stack}/{rest}", {})[int(layer)] = leaf
        else:
            found[name] = leaf
    stacks = {k: np.stack([v[i] for i in range(len(v))], axis) for k, v in rows.items()}
    return found | stacks


def heads_apart(tensors: Tensors, heads: int) -> Tensors:
    """Attention kernels as [embed, heads, kv] and [heads, kv, embed]."""
    found = dict(tensors)
    for name, leaf in tensors.items():
        if re.search("attention/(query|key|value)/kernel", name):
            found[name] = leaf.reshape(leaf.shape[0], heads, -1)
        elif name.endswith("attention/out/kernel"):
            found[name] = leaf.reshape(heads, -1, leaf.shape[1])
    return found


def write(folder: pathlib.Path, tensors: Tensors, form: str = "t5x", step: int = 1) -> None:
    """Writes a checkpoint.

    Args:
      folder: of this checkpoint.
      tensors: its parameters. Norms stay in the msgpack file, if the form allows.
      form: "t5x", "gcs" (as a file on Cloud Storage says it, the path outside), "orbax" or "ocdbt".
      step: in the state.
    """
    folder.mkdir(parents=True)
    leaves: dict[str, Any] = {}
    for name, leaf in tensors.items():
        plain = f"target.{name.replace('/', '.')}"
        inline = form in ("t5x", "gcs") and leaf.ndim == 1
        leaves[name] = leaf if inline else _write_array(folder, plain, leaf, form)
    target = unflatten_dict(leaves, sep="/")
    if form in ("t5x", "gcs"):
        state = {"step": np.int32(step), "param_states": {}}
        tree: dict[str, Any] = {"version": 3, "optimizer": {"state": state, "target": target}}
    else:
        tree = {"state": {"step": "PLACEHOLDER://state.step"}, "target": target}
    (folder / "checkpoint").write_bytes(msgpack_serialize(tree))


def _write_array(folder: pathlib.Path, name: str, leaf: np.ndarray, form: str) -> Any:
    """Writes one array in chunks of half its first dimension; returns what refers to it."""
    chunks = [max(1, leaf.shape[0] // 2) if leaf.shape[0] % 2 == 0 else leaf.shape[0]]
    metadata = {
        "compressor": {"id": "gzip", "level": 1},
        "shape": list(leaf.shape),
        "chunks": [*chunks, *leaf.shape[1:]],
    }
    store = {"driver": "file", "path": f"{folder}/{name}/"}
    if form == "ocdbt":
        base = {"driver": "file", "path": f"{folder}/"}
        store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    spec = {
        "driver": "zarr",
        "dtype": leaf.dtype.name,
        "kvstore": store,
        "metadata": metadata,
    }
    tensorstore.open(spec, create=True, open=True).result().write(leaf).result()
    if form in ("orbax", "ocdbt"):
        return f"PLACEHOLDER://{name}"
    if form == "gcs":
        bucket = {"driver": "gcs", "bucket": "t5x-dummy-bucket"}
        return spec | {"kvstore": bucket, "path": name}
    return spec | {"kvstore": {"driver": "file", "path": f"{name}/"}}
