"""What a file holds twice is compared before it is dropped: equal, used, or refused by name."""

import json
import re
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ilm_jax.checkpoints import converting
from ilm_jax.checkpoints.opening import open_language_model
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.cli import main as cli
from ilm_jax.errors import UserError
from tests.checkpoints.published import LLAMA, T5, publish, weights
from tests.checkpoints.test_convert import load, logits
from tests.checkpoints.test_qformer_from_published import BERT
from tests.checkpoints.test_qformer_from_published import load as load_qformer

TIED = {**LLAMA, "tie_word_embeddings": True}
TIED_T5 = {**T5, "tie_word_embeddings": True}
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"


def tied(**changes):
    tensors = weights(LLAMA)
    return {n: v for n, v in {**tensors, **changes}.items() if v is not None}


def head(opened):
    return opened.entries["lm/head/embedding"].read()


def test_a_dropped_head_that_differs_is_used(tmp_path, capfd):
    theirs = publish(tmp_path / "hf", TIED, tied())
    assert cli.main(["convert", f"--source={tmp_path}/hf", f"--model_dir={tmp_path}/out"]) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if "untied" in line]
    assert len(said) == 1 and "differ in 64 of 64 rows" in said[0]
    assert "tie_embeddings = False" in (tmp_path / "out" / "model.gin").read_text()
    np.testing.assert_array_equal(head(open_source(f"{tmp_path}/hf")), theirs[HEAD])
    # Its logits are those of the same numbers under a config.json that says untied.
    publish(tmp_path / "untied", LLAMA, theirs)
    config = open_source(f"{tmp_path}/hf").config
    assert config == open_source(f"{tmp_path}/untied").config and not config.tie_embeddings
    ours = logits(config, load(tmp_path / "hf", config))
    np.testing.assert_array_equal(ours, logits(config, load(tmp_path / "untied", config)))


def test_a_model_that_was_untied_goes_out_untied(tmp_path):
    theirs = publish(tmp_path / "hf", TIED, tied())
    converting.to_frozen(f"{tmp_path}/hf", f"{tmp_path}/base", "float32")
    converting.to_hugging_face(f"{tmp_path}/base", f"{tmp_path}/out")
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    )
    np.testing.assert_array_equal(open_source(f"{tmp_path}/out").source.read(HEAD), theirs[HEAD])


@pytest.mark.parametrize(
    "kind", ["same", "nan", "bfloat16", "one_row", "other_shape", "fewer_bits"]
)
def test_a_head_is_a_copy_where_its_numbers_are(tmp_path, kind):
    table = weights(LLAMA)[TABLE]
    copy = table.copy()
    if kind == "nan":
        table[3, 4] = copy[3, 4] = np.nan
    if kind == "bfloat16":
        table, copy = (x.astype(ml_dtypes.bfloat16) for x in (table, copy))
    if kind == "one_row":
        copy[63, 31] += 1e-6
    if kind == "fewer_bits":  # of which the table is the original
        copy = copy.astype(ml_dtypes.bfloat16)
    if kind == "other_shape":
        copy = copy[:, :16]
    publish(tmp_path, TIED, tied(**{TABLE: table, HEAD: copy}))
    opened = open_source(str(tmp_path))
    differs = kind in ("one_row", "other_shape")
    assert opened.config.tie_embeddings is not differs and not opened.left_over
    assert ("lm/head/embedding" in opened.entries) is differs
    if kind == "one_row":
        assert "differ in 1 of 64 rows" in opened.notes[0]
    if kind == "other_shape":
        with pytest.raises(UserError, match="other shapes 1 .*lm/head/embedding"):
            open_language_model(str(tmp_path))


def test_a_tied_table_may_be_stored_under_the_heads_name(tmp_path):
    table = weights(LLAMA)[TABLE]
    publish(tmp_path, TIED, tied(**{TABLE: None, HEAD: table}))
    opened = open_language_model(str(tmp_path))
    assert opened.config.tie_embeddings and "is read as it" in opened.notes[0]
    np.testing.assert_array_equal(opened.entries["lm/embedding/embedding"].read(), table)


def test_an_untied_model_without_its_head_is_refused(tmp_path):
    publish(tmp_path, LLAMA, tied(**{HEAD: None}))
    with pytest.raises(UserError, match="lm_head.weight.*tie_word_embeddings=true there if"):
        open_language_model(str(tmp_path))


def t5(**changes):
    tensors = weights(T5)
    return {n: v for n, v in {**tensors, **changes}.items() if v is not None}


ENCODER, DECODER, SHARED = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "shared.weight",
)


@pytest.mark.parametrize("names", [(ENCODER,), (DECODER,), (ENCODER, DECODER), (SHARED, DECODER)])
def test_t5s_table_loads_under_any_of_its_names(tmp_path, names):
    table = weights(T5)[SHARED]
    publish(tmp_path, T5, t5(**{SHARED: None, **dict.fromkeys(names, table)}))
    opened = open_language_model(str(tmp_path))
    np.testing.assert_array_equal(opened.entries["lm/embedding/embedding"].read(), table)
    assert not opened.config.tie_embeddings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({ENCODER: 0, DECODER: 1}, f"{DECODER} and {SHARED} are one table .* 64 of 64 rows"),
        ({SHARED: None, ENCODER: 0, DECODER: 1}, f"{DECODER} and {SHARED} are one table"),
        ({ENCODER: 1}, f"{ENCODER} and {SHARED} are one table"),
    ],
)
def test_t5s_tables_that_differ_are_refused(tmp_path, changes, message):
    table = weights(T5)[SHARED]
    made = {n: None if plus is None else table + plus for n, plus in changes.items()}
    publish(tmp_path, T5, t5(**made))
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


def test_a_tied_t5_with_another_head_is_refused_with_both_remedies(tmp_path):
    publish(tmp_path / "other", TIED_T5, t5())
    with pytest.raises(UserError, match="one table.*tie_word_embeddings=false.*or delete"):
        open_source(f"{tmp_path}/other")
    table = weights(T5)[SHARED]
    publish(tmp_path / "same", TIED_T5, t5(**{"lm_head.weight": table}))
    publish(tmp_path / "alone", TIED_T5, t5(**{"lm_head.weight": table, SHARED: None}))
    for name in ("same", "alone"):
        opened = open_language_model(f"{tmp_path}/{name}")
        assert opened.config.tie_embeddings
        np.testing.assert_array_equal(opened.entries["lm/embedding/embedding"].read(), table)


@pytest.mark.parametrize("rows", [60, 70])
def test_a_t5_table_is_neither_cut_nor_filled_up(tmp_path, rows):
    table = np.resize(weights(T5)[SHARED], (rows, 32))
    publish(tmp_path, T5, t5(**{SHARED: table, "lm_head.weight": table}))
    with pytest.raises(UserError, match="other shapes 2"):
        open_language_model(str(tmp_path))


INV = "model.layers.{}.self_attn.rotary_emb.inv_freq"
PLAIN = 5000.0 ** (-np.arange(4, dtype=np.float32) / 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_rotary_buffers_are_compared_with_config_json(tmp_path, dtype):
    buffers = {INV.format(i): PLAIN.astype(dtype) for i in range(3)}
    publish(tmp_path / "right", LLAMA, weights(LLAMA) | buffers)
    assert not open_language_model(f"{tmp_path}/right").left_over
    buffers[INV.format(1)] = (10_000.0 ** (-np.arange(4, dtype=np.float32) / 4)).astype(dtype)
    publish(tmp_path / "wrong", LLAMA, weights(LLAMA) | buffers)
    with pytest.raises(UserError, match="layers.1.*inv_freq holds other numbers"):
        open_source(f"{tmp_path}/wrong")


def test_stretched_rotary_buffers_are_those_of_the_stretching(tmp_path):
    scaling = {"type": "linear", "factor": 2.0}
    config = {**LLAMA, "rope_scaling": scaling}
    for name, values in (("divided", PLAIN / 2), ("plain", PLAIN)):
        publish(tmp_path / name, config, weights(LLAMA) | {INV.format(0): values})
        open_source(f"{tmp_path}/{name}")
    publish(tmp_path / "wrong", config, weights(LLAMA) | {INV.format(0): PLAIN / 3})
    with pytest.raises(UserError, match="holds other numbers"):
        open_source(f"{tmp_path}/wrong")


def test_one_tensor_under_two_spellings_is_one_only_if_equal(tmp_path):
    tensors = weights(LLAMA)
    publish(tmp_path / "same", LLAMA, tensors | {"norm.weight": tensors["model.norm.weight"]})
    open_language_model(f"{tmp_path}/same")
    publish(tmp_path / "other", LLAMA, tensors | {"norm.weight": tensors["model.norm.weight"] + 1})
    with pytest.raises(UserError, match=r"model.norm.weight and norm.weight.*differ"):
        open_source(f"{tmp_path}/other")


def bert(folder, **changes):
    shutil.copytree(BERT, folder)
    tensors = load_file(BERT / "model.safetensors")
    save_file(tensors | changes, folder / "model.safetensors")
    return folder


def test_berts_copies_and_buffers_are_judged_by_their_values(tmp_path):
    words = load_file(BERT / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    positions = np.arange(8)[None]
    decoder, ids = "cls.predictions.decoder.weight", "bert.embeddings.position_ids"
    load_qformer(bert(tmp_path / "right", **{decoder: words, ids: positions}))
    with pytest.raises(UserError, match=re.escape(f"{decoder} and embeddings.word_embeddings")):
        load_qformer(bert(tmp_path / "head", **{decoder: words + 1}))
    with pytest.raises(UserError, match="position_ids holds other numbers"):
        load_qformer(bert(tmp_path / "ids", **{ids: positions + 1}))


def test_parts_that_are_not_read_are_listed(tmp_path):
    pooler = {"bert.pooler.dense.bias": np.ones(16, np.float32)}
    report = load_qformer(bert(tmp_path / "pooler", **pooler))[1]
    assert "parts that are not read here: bert.pooler.dense.bias" in report
