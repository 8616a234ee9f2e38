"""What a damaged folder may be read as: read anew, slowly, and without any of the checks.

`outcome(kind, folder)` is "refused" or "read", or an AssertionError says what went wrong. A reader
that accepts a folder must have read what its files say: the numbers at the places that header,
index and metadata name, and the settings that config.json states.
"""

import json
import math
import pathlib
import shutil
from typing import Any

import ml_dtypes
import numpy as np
import tokenizers

from ilm_jax.checkpoints import converting
from ilm_jax.checkpoints.opening import open_language_model
from ilm_jax.checkpoints.published import families
from ilm_jax.checkpoints.published.rules import apply
from ilm_jax.data.tokenizers import open_tokenizer_at
from ilm_jax.errors import UserError
from tests.checkpoints import t5x_writer
from tests.checkpoints.published import LLAMA, T5, publish, weights
from tests.checkpoints.t5x_writer import from_transformers
from tests.data import published_tokenizers

SMALL = {**LLAMA, "num_hidden_layers": 1, "max_position_embeddings": 128, "bos_token_id": 1}
KINDS = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
# {option: (field of DecoderConfig, its value where the file does not say)}.
FIELDS = {
    "vocab_size": ("vocab_size", None),
    "num_hidden_layers": ("num_layers", None),
    "hidden_size": ("embed_dim", None),
    "intermediate_size": ("mlp_dim", None),
    "num_attention_heads": ("num_heads", None),
    "num_key_value_heads": ("num_kv_heads", None),
    "head_dim": ("head_dim", None),
    "rms_norm_eps": ("norm_eps", 1e-6),
    "rope_theta": ("rope_theta", 1e4),
    "tie_word_embeddings": ("tie_embeddings", False),
}
TEXTS = ("a red boat", "  two\nlines", "Ünïcode ☃", "numbers 1234567", "<|x|>")


def make(kind: str, folder: pathlib.Path) -> None:
    """A whole folder of the kind that `mutating.MUTATORS` damages."""
    if kind == "tokenizer":
        shutil.copytree(published_tokenizers.folder() / "llama3", folder)
        (folder / "generation_config.json").write_text('{"eos_token_id": [901, 5]}')
    elif kind == "t5x":
        small = {**T5, "num_layers": 1}
        t5x_writer.write(folder / "checkpoint_1", from_transformers(weights(small), tied=False))
    elif kind == "own":
        publish(folder.with_name(f"{folder.name}-hf"), SMALL)
        converting.to_frozen(f"{folder}-hf", str(folder), "float32")
    else:
        publish(folder, SMALL)


def outcome(kind: str, folder: pathlib.Path, whole: dict[str, np.ndarray] | None = None) -> str:
    """Reads a damaged folder.

    Args:
      kind: of `mutating.MUTATORS`.
      folder: damaged.
      whole: for "own" and "t5x", {entry: numbers} before.
    """
    try:
        if kind == "tokenizer":
            _judge_tokenizer(folder, open_tokenizer_at(folder))
            return "read"
        opened = open_language_model(str(folder))
        found = {name: entry.read() for name, entry in opened.entries.items()}
    except UserError as error:
        assert "\n" not in str(error), f"more than one line: {error}"
        return "refused"
    if kind in ("own", "t5x"):
        assert whole is not None
        expected = whole
    else:
        config = json.loads((folder / "config.json").read_text())
        for option, (field, default) in FIELDS.items():
            value = config.get(option)
            given = default if value is None else value
            assert opened.configs["lm"][1][field] == given, option
        rules = families.find("llama").rules(opened.config)
        expected = {f"lm/{n}": apply(rule, _reader(folder)) for n, rule in rules.items()}
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    return "read"


def _reader(folder: pathlib.Path) -> Any:
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    files = {f.name: f.read_bytes() for f in folder.glob("model-*.safetensors")}
    headers = {
        name: json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        for name, data in files.items()
    }

    def read(name: str) -> np.ndarray:
        holders = [file for file in set(places.values()) if name in headers[file]]
        file = places.get(name) or holders[0]
        entry, data = headers[file][name], files[file]
        start = 8 + int.from_bytes(data[:8], "little") + entry["data_offsets"][0]
        count = math.prod(entry["shape"])
        return np.frombuffer(data, KINDS[entry["dtype"]], count, start).reshape(entry["shape"])

    return read


def _judge_tokenizer(folder: pathlib.Path, ours: Any) -> None:
    text = (folder / "tokenizer.json").read_text()
    theirs = tokenizers.Tokenizer.from_str(text)
    for part in TEXTS:
        expected = theirs.encode(part, add_special_tokens=False)
        assert ours.encode(part) == expected.ids, part
    said = json.loads((folder / "tokenizer_config.json").read_text())
    generation = json.loads((folder / "generation_config.json").read_text())
    ends = generation.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if said.get("eos_token"):
        token = said["eos_token"]
        token = token["content"] if isinstance(token, dict) else token
        assert ours.eos_id == theirs.token_to_id(token)
    assert set(ours.stop_ids) == {ours.eos_id, *(int(n) for n in ends if int(n) >= 0)}
    assert all(0 <= n < ours.vocab_size for n in ours.stop_ids)
