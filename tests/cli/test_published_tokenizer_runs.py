"""`--gin.TOKENIZER=FOLDER`: every stage runs with somebody else's tokenizer."""

import functools
import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest

from ilm_jax.cli import main as cli
from ilm_jax.errors import UserError
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from tests.cli import small_world
from tests.cli.small_world import DECODER, SMALL
from tests.data.published_tokenizers import folder, published
from tests.parity.chat_cases import CHATML


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cache with a small catalogue in the toy world's place, and its table."""
    root = tmp_path_factory.mktemp("published")
    small_world.save_world(root)
    return root


def train(place, kind, recipe, name, *words):
    return small_world.train(place, recipe, name, f"--gin.TOKENIZER={folder() / kind}", *words)


def built(place, kind, recipe, *words):
    """The run of a recipe, opened but not trained; no compilation is needed."""
    bindings = [word.removeprefix("--gin.") for word in (*SMALL, *words)]
    bindings += [f"TOKENIZER={folder() / kind}", f"CACHE_DIR={place / 'cache'}", "MODEL_DIR=/none"]
    return gin_config.build(Run, [f"tiny/{recipe}.gin"], bindings)


def loss_of(run, kind):
    """Shapes through one batch, its loss, and the parameters."""
    objective, batch = run.sized_objective, run.feed(run.train[kind]).rows(np.arange(8))
    params = jax.eval_shape(lambda key: nn.unbox(objective.init(key)), jax.random.key(0))
    step = functools.partial(objective.loss, kind=kind)
    jax.eval_shape(lambda p, b: step(p, batch=b, table=run.vectors, key=None), params, batch)
    return params, batch


@pytest.mark.slow
def test_stages_0_and_2_and_evaluation(place, capsys):
    kind = "llama3"
    assert train(place, kind, "stage0", "0", *DECODER) == 0
    assert (
        train(
            place,
            kind,
            "stage2_mlp",
            "2",
            *DECODER,
            f"--gin.LM_FROM={place}/0",
            f"--gin.CF_TABLE={place}/cf.safetensors",
            '--gin.TASK_FEATURE_LENGTHS={"inputs": 150, "targets": 60}',
        )
        == 0
    )
    words = ["evaluate", f"--model_dir={place}/2", "--users=4", "--beams=2"]
    assert cli.main(words) == 0
    assert "nll_content" in capsys.readouterr().out
    assert f"TOKENIZER = '{folder() / kind}'" in (place / "2/config.gin").read_text()


@pytest.mark.parametrize(("kind", "given"), [("t5", 832), ("t5", 0), ("gemma", 0)])
def test_a_table_may_be_larger_than_its_tokenizer(place, kind, given):
    run = built(place, kind, "stage0", *DECODER, f"decoder.DecoderConfig.vocab_size={given}")
    params, batch = loss_of(run, "prompt")
    size = published(kind).vocab_size
    assert params["lm"]["embedding"]["embedding"].shape[0] == (given or size)
    assert batch["tokens"].max() < size


@pytest.mark.parametrize("kind", ["bert", "qwen2"])
def test_stage_1_has_rows_for_cls_and_dec(place, kind):
    words = (f"CF_TABLE={place}/cf.safetensors", 'TASK_FEATURE_LENGTHS={"text": 36}')
    run = built(place, kind, "stage1", *words)
    params, batch = loss_of(run, "item_text")
    tokenizer, qformer = published(kind), run.sized_objective.qformer
    assert (qformer.pad_id, qformer.dec_id) == (tokenizer.pad_id, tokenizer.dec_id)
    assert qformer.vocab_size == tokenizer.text_vocab_size > tokenizer.dec_id
    assert (batch["text"][:, 0] == tokenizer.cls_id).all()


@pytest.mark.slow
def test_a_recipe_lays_prompts_out_in_the_template_of_its_tokenizer(place, tmp_path):
    shutil.copytree(folder() / "qwen2", tmp_path / "instruct")
    file = tmp_path / "instruct/tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": CHATML}))
    asked = "MIXTURE_OR_TASK_NAME='long_description'"
    lengths = 'TASK_FEATURE_LENGTHS={"inputs": 150, "targets": 150}'
    words = (*DECODER, "LM_FROM=/none", f"CF_TABLE={place}/cf.safetensors", lengths, asked)
    formats = {"plain": ("PROMPT_FORMAT='plain'",), "chat": ("SYSTEM_TEXT='Be brief.'",)}
    for form, more in formats.items():
        run = built(place, f"{tmp_path}/instruct", "stage2_mlp", *words, *more)
        assert run.made_from()["prompts"]["format"] == form
        _, batch = loss_of(run, "prompt")
        first = batch["segment_ids"][0] == 1  # rows are packed: several examples share one
        row = batch["tokens"][0, first].tolist()
        said = run.tokenizer.decode(row)
        start = run.tokenizer.specials["<|im_start|>"].id
        assert row.count(start) == (3 if form == "chat" else 0)
        assert said.startswith("system\nBe brief.\nuser\n" if form == "chat" else "")
        assert set(batch["slot_entity"][0, first].tolist()) == {-1, 0}


def test_a_table_smaller_than_its_tokenizer_is_an_error(place):
    run = built(place, "llama3", "stage0", *DECODER, "decoder.DecoderConfig.vocab_size=901")
    with pytest.raises(UserError, match="vocab_size=901, but the tokenizer's ids need 902 rows"):
        print(run.sized_objective)
