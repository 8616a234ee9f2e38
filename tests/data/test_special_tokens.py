"""What a model's files say of its special tokens: all end tokens count, contradictions do not."""

import json
import pickle
import re
import shutil

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from ilm_jax.data.tokenizers import (
    conflicting_specials,
    has_chat_template,
    open_tokenizer_at,
    stop_ids,
)
from ilm_jax.errors import UserError
from tests.data.published_tokenizers import KINDS, folder, published

KIND_OF_SYMBOL = vars(sentencepiece_model_pb2)["ModelProto"]


@pytest.fixture
def at(tmp_path):
    """Copies a kind's folder and writes further files, JSON of keyword arguments by file."""

    def make(kind="llama3", **files):
        target = tmp_path / kind
        if not target.is_dir():
            shutil.copytree(folder() / kind, target)
        for name, content in files.items():
            file = target / f"{name}.json"
            old = json.loads(file.read_text()) if file.is_file() else {}
            file.write_text(json.dumps(old | content))
        return target

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_all_end_tokens_of_generation_config_end_a_text(at, kind):
    plain = published(kind)
    assert plain.stop_ids == (plain.eos_id,)
    place = at(kind, generation_config={"eos_token_id": [plain.eos_id, 7, 9]})
    found = open_tokenizer_at(place)
    assert found.stop_ids == (plain.eos_id, 7, 9)
    # What texts encode to is the same, and so is what says so.
    assert found.fingerprint == plain.fingerprint
    found.save(place.parent / "saved")
    for again in (open_tokenizer_at(place.parent / "saved"), pickle.loads(pickle.dumps(found))):
        assert again.stop_ids == found.stop_ids and again.fingerprint == found.fingerprint


def test_config_json_says_them_where_generation_config_does_not(at):
    end = published("llama3").eos_id
    place = at(config={"eos_token_id": [5, 6], "bos_token_id": 3})
    assert open_tokenizer_at(place).stop_ids == (end, 5, 6)
    place = at(generation_config={"eos_token_id": 8})
    tokenizer = open_tokenizer_at(place)
    assert tokenizer.stop_ids == (end, 8)
    lines = conflicting_specials(tokenizer, place)
    assert [re.sub(".*/", "", line) for line in lines] == [
        f"generation_config.json says eos_token_id 8, its tokenizer {end}: a text ends with any of "
        "them",
        f"config.json says bos_token_id 3, its tokenizer {tokenizer.bos_id}: {tokenizer.bos_id} "
        "is taken",
    ]
    assert not conflicting_specials(published("llama3"), folder() / "llama3")


def test_a_models_folder_says_them_for_a_tokenizer_from_elsewhere(tmp_path):
    tokenizer = published("llama3")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert stop_ids(tokenizer, [str(tmp_path)]) == (tokenizer.eos_id, 5, 6)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 904]}')
    with pytest.raises(UserError, match="ends texts with id 904, and the tokenizer has 903 ids"):
        stop_ids(tokenizer, [tmp_path])


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        ("llama3", {"generation_config": {"eos_token_id": [1, 904]}}, "id 904, and the tokenizer"),
        ("llama3", {"config": {"eos_token_id": 1e3}}, "config.json: eos_token_id is 1000.0, which"),
        ("llama3", {"config": {"eos_token_id": [True]}}, "eos_token_id is True, which is no id"),
        ("llama3", {"config": {"pad_token_id": 904}}, "name pad id 904, and the tokenizer has 903"),
        (
            "llama3",
            {"special_tokens_map": {"eos_token": "a"}},
            "tokenizer_config.json names eos_token '<|end_of_text|>', special_tokens_map.json 'a'",
        ),
        ("llama3", {"added_tokens": {"<|end_of_text|>": 5}}, "'<|end_of_text|>' the id 5, and the"),
        ("llama3", {"added_tokens": {"x": 950, "y": 950}}, "id 950 is 'x' and 'y'"),
        (
            "llama3",
            {
                "added_tokens": {"x": 950},
                "tokenizer_config": {"added_tokens_decoder": {"951": {"content": "x"}}},
            },
            "give 'x' the ids 950 and 951",
        ),
        ("llama3", {"tokenizer_config": {"eos_token": 5}}, "says eos_token 5, which is none"),
        ("llama3", {"tokenizer_config": {"eos_token": {"text": "x"}}}, "says eos_token {'text': "),
        ("gemma", {"added_tokens": {"<eos>": 5}}, "gives '<eos>' the id 5, and the model 1"),
        ("t5", {"tokenizer_config": {"extra_ids": "many"}}, "extra_ids='many', which is no count"),
    ],
)
def test_files_that_contradict_each_other_are_refused(at, kind, files, message):
    with pytest.raises(UserError, match=re.escape(message)):
        open_tokenizer_at(at(kind, **files))


def test_special_tokens_that_agree_load(at):
    said = {"eos_token": {"content": "<|end_of_text|>"}, "bos_token": "<|begin_of_text|>"}
    place = at(special_tokens_map=said, config={"eos_token_id": 901, "pad_token_id": -1})
    assert open_tokenizer_at(place).stop_ids == published("llama3").stop_ids


def test_an_added_token_of_tokenizer_json_has_the_vocabularys_id(at):
    place = at() / "tokenizer.json"
    spec = json.loads(place.read_text())
    spec["added_tokens"][0]["id"] += 1
    place.write_text(json.dumps(spec))
    with pytest.raises(UserError, match="tokenizer.json"):
        open_tokenizer_at(place.parent)


@pytest.mark.parametrize(
    ("kind", "mark"),
    [("llama3", "<|end_of_text|>"), ("qwen2", "<|im_start|>"), ("qwen2", "<|im_end|>")],
)
def test_turn_marks_in_a_users_text_are_plain_words(kind, mark):
    tokenizer = published(kind)
    ids = tokenizer.encode(f"a boat {mark} and")
    assert len(tokenizer.encode(mark)) > 3 and not set(ids) & set(tokenizer.stop_ids)
    assert tokenizer.decode(ids) == f"a boat {mark} and"


def test_gemmas_turn_marks_are_plain_words_where_its_config_calls_them_special(at):
    model = KIND_OF_SYMBOL.FromString((folder() / "gemma" / "tokenizer.model").read_bytes())
    number = next(i for i, p in enumerate(model.pieces) if p.piece == "<start_of_turn>")
    assert published("gemma").encode("<start_of_turn>") == [number]
    mark = {"content": "<start_of_turn>", "special": True}
    place = at("gemma", tokenizer_config={"added_tokens_decoder": {str(number): mark}})
    tokenizer = open_tokenizer_at(place)
    text = "a boat <start_of_turn>model and"
    ids = tokenizer.encode(text)
    assert number not in ids and tokenizer.decode(ids) == text
    assert tokenizer.fingerprint != published("gemma").fingerprint
    assert pickle.loads(pickle.dumps(tokenizer)).encode(text) == ids
    library = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    assert tokenizer.encode("a boat and") == library.encode("a boat and")


def test_a_chat_template_is_seen_in_each_of_its_places(at):
    assert not has_chat_template(at())
    for name, content in (
        ("chat_template.jinja", "{{ messages }}"),
        ("chat_template.json", '{"chat_template": "{{ messages }}"}'),
    ):
        file = at() / name
        file.write_text(content)
        assert has_chat_template(at()) and has_chat_template(at() / "tokenizer.json")
        file.unlink()
    assert has_chat_template(at(tokenizer_config={"chat_template": "{{ messages }}"}))
    assert not has_chat_template("nowhere")
