"""A GGUF file's vocabulary gives the ids that the published files give which it was made from."""

import json

import gguf
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from ilm_jax.data.tokenizers import has_chat_template, holds_tokenizer, open_tokenizer_at
from ilm_jax.errors import UserError
from tests import gguf_files
from tests.data import published_tokenizers
from tests.data.odd_strings import odd_strings

STRINGS = odd_strings(300, seed=0)
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
PRE = {"llama3": "llama-bpe", "qwen2": "qwen2"}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


def write(path, metadata):
    """A GGUF file that holds a vocabulary and no tensors."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in metadata.items():
        gguf_files.add(writer, key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def of_json(kind):
    """Metadata of a byte-level tokenizer.json, as llama.cpp's converter writes them."""
    folder = published_tokenizers.folder() / kind
    spec = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    vocabulary = spec["model"]["vocab"] | {t["content"]: t["id"] for t in spec["added_tokens"]}
    special = {t["id"]: t["special"] for t in spec["added_tokens"]}
    kinds = {n: CONTROL if special[n] else USER_DEFINED for n in special}
    size = max(vocabulary.values()) + 1
    tokens = {number: token for token, number in vocabulary.items()}
    merges = [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]]
    said = {
        "model": "gpt2",
        "pre": PRE[kind],
        "tokens": [tokens[n] for n in range(size)] + ["[PAD]"],
        "token_type": [kinds.get(n, NORMAL) for n in range(size)] + [UNUSED],
        "merges": merges,
    }
    for role, name in (("bos", "bos"), ("eos", "eos"), ("padding", "pad"), ("unknown", "unk")):
        if token := config.get(f"{name}_token"):
            said[f"{role}_token_id"] = vocabulary[token]
    return {f"tokenizer.ggml.{key}": value for key, value in said.items()}


def of_pieces(kind):
    """Metadata of a SentencePiece model."""
    model = (published_tokenizers.folder() / kind / "tokenizer.model").read_bytes()
    proto = vars(sentencepiece_model_pb2)["ModelProto"].FromString(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    said = {
        "model": "llama",
        "tokens": [piece.piece for piece in proto.pieces],
        "scores": [float(piece.score) for piece in proto.pieces],
        "token_type": [int(piece.type) for piece in proto.pieces],
        "add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
    }
    for role, number in (
        ("bos", processor.bos_id()),
        ("eos", processor.eos_id()),
        ("unknown", processor.unk_id()),
        ("padding", processor.pad_id()),
    ):
        if number >= 0:
            said[f"{role}_token_id"] = number
    return {f"tokenizer.ggml.{key}": value for key, value in said.items()}


MADE = {"llama3": of_json, "qwen2": of_json, "llama2": of_pieces, "gemma": of_pieces}


@pytest.mark.parametrize("kind", MADE)
def test_ids_spans_and_special_tokens_are_those_of_the_published_files(tmp_path, kind):
    file = write(tmp_path / "a.gguf", MADE[kind](kind))
    here, there = open_tokenizer_at(file), published_tokenizers.published(kind)
    for text in STRINGS:
        for continues in (False, True):
            ids, spans = there.encode_with_spans(text, continues=continues)
            assert here.encode_with_spans(text, continues=continues) == (ids, spans), text
            assert here.decode(ids, continues=continues) == there.decode(ids, continues=continues)
    for role in ("eos_id", "bos_id", "pad_id", "vocab_size", "least_vocab_size"):
        assert getattr(here, role) == getattr(there, role), role
    assert holds_tokenizer(file) and not has_chat_template(file)


def test_a_saved_one_is_the_same(tmp_path):
    for kind in ("llama3", "gemma"):
        file = write(tmp_path / f"{kind}.gguf", MADE[kind](kind))
        there = open_tokenizer_at(file)
        there.save(tmp_path / kind)
        assert open_tokenizer_at(tmp_path / kind).fingerprint == there.fingerprint


def test_template_and_ends_of_turns_are_read(tmp_path):
    said = of_json("qwen2") | {"tokenizer.chat_template": TEMPLATE}
    file = write(tmp_path / "a.gguf", said)
    tokens = said["tokenizer.ggml.tokens"]
    ends = [tokens[number] for number in open_tokenizer_at(file).stop_ids]
    assert ends == ["<|im_end|>", "<|endoftext|>"] and has_chat_template(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.pre": "made-up"}, "'made-up'.* is not known here .*qwen2"),
        ({"tokenizer.ggml.model": "rwkv"}, "of the kind 'rwkv': built are gpt2"),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "eos_token_id is 1000000, which is no token"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "tokens and 2 kinds of them"),
        ({"tokenizer.ggml.merges": "none"}, "byte-level vocabulary without merges"),
    ],
)
def test_what_is_not_known_is_one_line(tmp_path, change, message):
    file = write(tmp_path / "a.gguf", of_json("llama3") | change)
    with pytest.raises(UserError, match=message):
        open_tokenizer_at(file)
