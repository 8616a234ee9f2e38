"""Tasks in a chat format: slots in the user's turn, the assistant's answer and its end learnt."""

import json
import shutil

import numpy as np
import pytest

from ilm_jax.checkpoints import record
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompts import ITEM_SLOT
from ilm_jax.data.examples.settings_json import settings_from, settings_json
from ilm_jax.data.examples.task_families import spec_named
from ilm_jax.data.examples.task_keys import task_key
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.tokenizers import chat_of, formatted, open_tokenizer_at, record_of, without_chat
from ilm_jax.errors import UserError
from tests.data.published_tokenizers import folder
from tests.data.small_catalogue import small_catalogue
from tests.data.test_chat import CLOSING, OPENING, shown
from tests.parity.chat_cases import CHATML
from tests.some import some
from tests.tasks.making import made_by

CATALOGUE = small_catalogue(items=30, users=12)
SETTINGS = TaskSettings(history=3)
SPLIT = make_splits(CATALOGUE, SETTINGS.split)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small instruct model's tokenizer."""
    found = tmp_path_factory.mktemp("instruct") / "qwen2"
    shutil.copytree(folder() / "qwen2", found)
    file = found / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": CHATML}))
    return found


def examples(task, tokenizer, split="test"):
    made = made_by([task], SPLIT, SETTINGS, tokenizer)[0]
    index = made.index(split)
    for values in zip(*(column.tolist() for column in index.values()), strict=True):
        integers = dict(zip(index, values, strict=True))
        yield made.render(split, **integers), made.build(split, **integers)


@pytest.mark.parametrize("task", ["long_description", "sequential_random", "knowledge/mlm"])
def test_prompts_are_the_users_and_answers_the_assistants(place, task):
    tokenizer = formatted(open_tokenizer_at(place))
    converter = PromptConverter(
        {"inputs": 900, "targets": 400}, tokenizer, max_entities=5, rows=lambda _, rows: rows
    )
    for rendered, example in some(list(examples(task, tokenizer))[:5]):
        said = rendered.prompt.text.strip().replace("\ue000", f"<{ITEM_SLOT}>")
        assert shown(tokenizer, example["inputs"]) == f"{OPENING}{said}{CLOSING}"
        assert shown(tokenizer, example["targets"]) == f"{rendered.target_text}<|im_end|>"
        assert not example["targets_content"][-1]
        arrays = {k: np.asarray(v) for k, v in example.items() if isinstance(v, list)}
        batch = converter([{**example, **arrays, "catalogue": "toy"}])
        learnt = batch["targets"][batch["loss_weights"] > 0].tolist()
        assert learnt == list(example["targets"])
        bounds = example["history_bounds"]
        if len(bounds):
            history = shown(tokenizer, example["inputs"][bounds[0] : bounds[-1]])
            assert history and history in said


def test_plain_texts_are_the_same_in_any_format(place):
    chat = formatted(open_tokenizer_at(place))
    for task in ("text", "item_text"):
        made = [
            list(made_by([task], SPLIT, SETTINGS, t)[0].build("train", **row) for row in rows)
            for t in (chat, without_chat(chat))
            for rows in [_rows(made_by([task], SPLIT, SETTINGS, t)[0])]
        ]
        assert made[0] == made[1] != []


def _rows(examples):
    index = examples.index("train")
    columns = [column.tolist()[:40] for column in index.values()]
    return [dict(zip(index, row, strict=True)) for row in zip(*columns, strict=True)]


def test_a_key_names_the_template_and_the_systems_words_where_there_are_prompts(place):
    plain = open_tokenizer_at(place)
    other = open_tokenizer_at(place)
    formats = {
        "plain": plain,
        "chat": formatted(plain),
        "system": formatted(other, system="Be brief."),
    }
    for task, keys in (("long_description", 3), ("text", 1), ("item_text", 1), ("item_item", 1)):
        found = {
            task_key(spec_named(task), SETTINGS, "c", t.fingerprint, chat_of(t))
            for t in formats.values()
        }
        assert len(found) == keys
        assert task_key(spec_named(task), SETTINGS, "c", plain.fingerprint) in found
    # What the format comes to is part of the key, not how it is asked for.
    asked = SETTINGS.replace(prompt_format="chat", system_text="x")
    assert task_key(spec_named("long_description"), asked, "c", "t") == task_key(
        spec_named("long_description"), SETTINGS, "c", "t"
    )
    assert settings_from(json.loads(settings_json(asked))) == asked


def test_a_run_is_not_gone_on_with_in_another_format(place):
    chat = formatted(open_tokenizer_at(place))
    system = formatted(open_tokenizer_at(place), system="Be brief.")
    plain, turns, said = ({"prompts": record_of(t)} for t in (without_chat(chat), chat, system))
    # A record without a word on it is one of plain text.
    for before in ({}, plain):
        assert record.check_use(before, plain, "RUN") == []
        with pytest.raises(UserError, match=r"prompts.format \(PROMPT_FORMAT.*plain, now chat"):
            record.check_use(before, turns, "RUN")
        with pytest.raises(UserError, match=r"prompts.format \(PROMPT_FORMAT"):
            record.check_resume(before, turns, "RUN")
    changed = {"prompts": {**turns["prompts"], "template": "f" * 64}}
    with pytest.raises(UserError, match=r"prompts.template"):
        record.check_use(turns, changed, "RUN")
    (line,) = record.check_use(turns, said, "RUN")
    assert "prompts.system" in line and "now Be brief." in line
    with pytest.raises(UserError, match=r"prompts.system"):
        record.check_resume(turns, said, "RUN")
