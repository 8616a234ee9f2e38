"""A GGUF file gives what the folder gives that it was made from: tensors, configuration, types."""

import dataclasses
import json
import tracemalloc

import gguf
import numpy as np
import pytest

from ilm_jax.checkpoints.opening import open_language_model
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.data.tokenizers import open_tokenizer_at
from ilm_jax.errors import UserError
from ilm_jax.pretrained.gguf_file import open_gguf
from tests import gguf_files
from tests.checkpoints.published import LLAMA, publish, weights

TYPES = gguf.GGMLQuantizationType
SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
GEMMA = {**SIZES, "tie_word_embeddings": True, "sliding_window": 8}
# {model: (config.json, what the file's metadata say beside it)}.
MODELS = {
    "llama": ({**SIZES, "model_type": "llama", "attention_bias": True}, {}),
    "mistral": ({**SIZES, "model_type": "mistral", "sliding_window": 8}, {}),
    "qwen2": ({**SIZES, "model_type": "qwen2"}, {}),
    "qwen3": ({**SIZES, "model_type": "qwen3", "tie_word_embeddings": True}, {}),
    "gemma": ({**SIZES, "model_type": "gemma"}, {}),
    "gemma2": (
        {**GEMMA, "model_type": "gemma2", "query_pre_attn_scalar": 16},
        {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": (
        {**GEMMA, "model_type": "gemma3_text", "query_pre_attn_scalar": 16, "rope_theta": 1e6},
        {},
    ),
}


def small(kind):
    """(config.json, metadata, tensors) of a model with random weights."""
    config, further = MODELS[kind]
    rng = np.random.default_rng(1)
    tensors = weights({**config, "num_key_value_heads": 2})
    width, wide = config["hidden_size"], config["head_dim"]
    rows = {"q": 4 * wide, "k": 2 * wide, "v": 2 * wide}
    shapes = {f"{name}_proj": (size, width) for name, size in rows.items()}
    shapes |= {"o_proj": (width, rows["q"]), "q_norm": (wide,), "k_norm": (wide,)}
    for name in tensors:
        stem, end = name.split(".")[-2:]
        if stem in shapes:
            shape = shapes[stem] if end == "weight" else (rows.get(stem[0], width),)
            tensors[name] = rng.normal(size=shape).astype(np.float32)
    return config, further, tensors


@pytest.mark.parametrize("kind", MODELS)
def test_tensors_and_configuration_are_those_of_the_folder(tmp_path, kind):
    config, further, tensors = small(kind)
    publish(tmp_path / "folder", config, tensors)
    file = gguf_files.write(tmp_path / "a.gguf", config, tensors, further=further)
    there, here = open_source(str(tmp_path / "folder")), open_source(str(file))
    assert here.config == there.config
    assert not here.left_over and not here.lacking and set(here.entries) == set(there.entries)
    for name, entry in there.entries.items():
        np.testing.assert_allclose(here.entries[name].read(), entry.read(), rtol=0, atol=1e-6)


def test_any_part_is_that_part_of_the_whole(tmp_path):
    config, _, tensors = small("llama")
    file = gguf_files.write(tmp_path / "a.gguf", config, tensors, choose=_mixed)
    entries = open_source(str(file)).entries
    for name in ("lm/layer_00/attention/query/kernel", "lm/layer_03/mlp/down/kernel"):
        whole = entries[name].read()
        rows, columns = whole.shape
        for index in [
            (slice(3, 9), slice(1, columns - 3)),
            (slice(rows - 1, rows), slice(0, 1)),
            (slice(2, 2), slice(0, 4)),
        ]:
            np.testing.assert_array_equal(entries[name].read(index), whole[index])


def _mixed(name, value):
    fits = value.ndim == 2 and value.shape[-1] % 32 == 0
    return TYPES.Q8_0 if fits else TYPES.F32


QUANTISED = ("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


@pytest.mark.parametrize("name", QUANTISED + K_QUANTS)
def test_every_type_is_read_as_its_library_reads_it(tmp_path, name):
    kind = TYPES[name]
    rng = np.random.default_rng(0)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows, width = 40, 512
    if name in K_QUANTS:  # the library cannot write them: any bytes with sane scales will do
        data = rng.integers(0, 256, (rows, width // block * size), np.uint8)
        scales = np.float16(rng.uniform(0.01, 1, (rows, width // block, size // 2)))
        at = {"Q2_K": (80, 84), "Q3_K": (108, 110), "Q6_K": (208, 210)}.get(name, (0, 4))
        blocks = data.reshape(rows, width // block, size)
        count = at[1] - at[0]
        blocks[..., slice(*at)] = scales[..., : count // 2].copy().view(np.uint8)
    else:
        data = gguf.quants.quantize(rng.normal(size=(rows, width)).astype(np.float32), kind)
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_tensor("token_embd.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = open_gguf(tmp_path / "a.gguf")
    assert file.tensors["token_embd.weight"].shape == (rows, width)
    wanted = gguf.quants.dequantize(data, kind)
    assert np.isfinite(wanted).all() and np.abs(wanted).max() > 0
    found = np.concatenate(
        [file.read_rows("token_embd.weight", 0, 7), file.read_rows("token_embd.weight", 7, rows)]
    )
    np.testing.assert_array_equal(found.astype(np.float32), wanted)


def test_llama_3s_scaling_is_known_by_its_effect(tmp_path):
    config, _, tensors = small("llama")
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = {**config, "rope_theta": 500_000.0}
    frequencies = 500_000.0 ** (-np.arange(8) / 8)
    turns = 8192 * frequencies / (2 * np.pi)
    share = np.clip((turns - 1) / 3, 0, 1)
    divisors = (1 / (share + (1 - share) / 8)).astype(np.float32)
    file = gguf_files.write(tmp_path / "a.gguf", config, {**tensors, "rope_freqs.weight": divisors})
    publish(tmp_path / "folder", {**config, "rope_scaling": scaling}, tensors)
    assert open_source(str(file)).config == open_source(str(tmp_path / "folder")).config
    file = gguf_files.write(
        tmp_path / "b.gguf", config, {**tensors, "rope_freqs.weight": divisors**2}
    )
    with pytest.raises(UserError, match="rope_freqs.weight scales frequencies in a way"):
        open_source(str(file))


def test_reading_takes_little_beside_what_it_gives(tmp_path):
    config = {**LLAMA, "vocab_size": 16_384, "hidden_size": 256, "tie_word_embeddings": True}
    tensors = {n: x for n, x in weights(config).items() if n != "lm_head.weight"}
    file = gguf_files.write(tmp_path / "a.gguf", config, tensors, choose=_mixed)
    entry = open_language_model(str(file)).entries["lm/embedding/embedding"]
    tracemalloc.start()
    value = entry.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * value.nbytes


WRONG = {
    "truncated tensors": (lambda data: data[:-100], "is truncated: .* ends at byte .* download"),
    "truncated head": (lambda data: data[:200], "is truncated: its head does not end"),
    "empty": (lambda data: b"", "is no GGUF file: it begins with b''"),
    "no file of it": (lambda data: b"PK\x03\x04" + data[4:], "is no GGUF file"),
    "old": (lambda data: data[:4] + b"\x01" + data[5:], "of version 1"),
    "big-endian": (lambda data: data[:4] + b"\0\0\0\x03" + data[8:], "of version 50331648"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_damaged_file_is_one_line(tmp_path, what):
    change, message = WRONG[what]
    config, _, tensors = small("llama")
    file = gguf_files.write(tmp_path / "a.gguf", config, tensors)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(UserError, match=message) as told:
        open_source(str(file))
    assert "\n" not in str(told.value)


def test_an_unknown_quantisation_is_named(tmp_path):
    config, _, tensors = small("llama")
    file = gguf_files.write(tmp_path / "a.gguf", config, tensors)
    data = bytearray(file.read_bytes())
    name = b"token_embd.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    data[at : at + 4] = (251).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"token_embd.weight is quantised .*type 251.*Q4_K"):
        open_source(str(file))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"expert_count": 8}, "llama.expert_count = 8 is not built"),
        ({"rope.scaling.type": "yarn"}, "rope.scaling.type 'yarn' is not built"),
        ({"attention.made_up": 1}, "llama.attention.made_up .* may change what"),
        ({"rope.dimension_count": 8}, "rope.dimension_count = 8 beside heads of 16"),
    ],
)
def test_what_is_not_built_is_named(tmp_path, metadata, message):
    config, _, tensors = small("llama")
    file = gguf_files.write(tmp_path / "a.gguf", config, tensors, further=metadata)
    with pytest.raises(UserError, match=message):
        open_source(str(file))


def test_another_architecture_is_named(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="architecture 'mamba' is not built: there are llama"):
        open_source(str(tmp_path / "a.gguf"))


def test_config_json_of_a_conversion_reads_the_same(tmp_path):
    from ilm_jax.checkpoints.converting import to_frozen, to_hugging_face

    config, _, tensors = small("gemma2")
    file = gguf_files.write(tmp_path / "a.gguf", config, tensors, further=MODELS["gemma2"][1])
    to_frozen(str(file), str(tmp_path / "frozen"), "float32")
    to_hugging_face(str(tmp_path / "frozen"), str(tmp_path / "back"))
    there, here = open_source(str(file)), open_source(str(tmp_path / "back"))
    assert dataclasses.asdict(here.config) == dataclasses.asdict(there.config)
    for name, entry in there.entries.items():
        np.testing.assert_array_equal(here.entries[name].read(), entry.read())
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["architectures"] == ["Gemma2ForCausalLM"]  # servers choose their code by it
    said = json.loads((tmp_path / "frozen" / "conversion.json").read_text())
    assert said["licence"] == "mit" and said["name"] == "a small model"
    assert list(said["sha256"]) == ["a.gguf"] and said["source"] == str(file)


def test_whatever_bytes_a_head_holds_it_is_read_or_refused(tmp_path):
    config, _, tensors = small("llama")
    words = ["<s>", "</s>", "<unk>", *(f"▁{n}" for n in range(45))]
    vocabulary = {
        "model": "llama",
        "tokens": words,
        "scores": [0.0] * 48,
        "token_type": [3, 3, 2] + [1] * 45,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    file = gguf_files.write(tmp_path / "a.gguf", config, tensors, vocabulary=vocabulary)
    whole = file.read_bytes()
    head = min(tensor.offset for tensor in open_gguf(file).tensors.values())
    rng = np.random.default_rng(3)
    outcomes = {"read": 0, "refused": 0}
    for number in range(150):
        data = bytearray(whole)
        for place in rng.integers(4, head, 1 + number % 3):
            data[place] = rng.integers(256)
        other = tmp_path / f"{number}.gguf"
        other.write_bytes(data)
        for opened in (open_language_model, open_tokenizer_at):
            try:
                opened(str(other))
                outcomes["read"] += 1
            except UserError as error:
                outcomes["refused"] += 1
                assert "\n" not in str(error)
        other.unlink()
    assert min(outcomes.values()) > 20, outcomes
