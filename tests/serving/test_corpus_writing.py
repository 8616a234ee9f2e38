"""Texts of a corpus: what a language model writes is read back by the tasks, with its source."""

import json

import pytest

from ilm_jax.data.examples.instructions import Instruction
from ilm_jax.data.formats.text_records import read_texts
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.decoding.config import Buckets, DecodingConfig
from ilm_jax.decoding.generator import Generator
from ilm_jax.errors import UserError
from ilm_jax.serving import corpus_writing
from ilm_jax.serving.answering import Answerer
from tests.decoding import small

TASKS = Instruction("summary", "Sum up."), Instruction("similarities", "What is shared?", 2)
DRAWN = DecodingConfig(max_new_tokens=6, sample=True, stop_ids=(1,))


pytestmark = pytest.mark.usefixtures("compile_quickly")


def writer():
    generator = Generator.for_lm(
        small.model().lm, small.params()["lm"], buckets=Buckets((512,), (4,))
    )
    converter = PromptConverter({"inputs": 500, "targets": 1}, small.tokenizer())
    return Answerer(generator, converter, small.tokenizer())


def requests(*tasks, limit=5):
    return list(corpus_writing.requests(tasks, small.splits(), small.tokenizer(), 500, limit=limit))


def test_prompts_hold_the_facts_of_their_items():
    found = requests(*TASKS)
    catalogue = small.splits().catalogue
    assert [len(r.mentioned) for r in found] == [1] * 5 + [2] * 5
    for request in found:
        texts = [" ".join(catalogue.texts[row].split()) for row in request.mentioned]
        assert all(text in request.prompt for text in texts)
        assert request.id == (
            ("summary", "similarities")[len(request.mentioned) - 1],
            *(catalogue.item_ids[row] for row in request.mentioned),
        )


def test_what_is_written_is_what_the_tasks_read(tmp_path):
    found = requests(*TASKS, limit=3)
    rows = []
    for batch in writer().batches(found, 4):
        rows += corpus_writing.write(writer(), batch, DRAWN, "small-lm")
    assert rows and all(set(row) == {"task", "item_ids", "target", "source"} for row in rows)
    assert len({row["target"] for row in rows}) > 1
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_texts(str(path), {"summary": (1, False), "similarities": (2, False)})
    assert {(task, *ids) for task, _, ids in read} == {corpus_writing.entry(row)[0] for row in rows}
    assert {text.source for text in read.values()} == {"small-lm"}


def test_a_text_depends_neither_on_other_tasks_nor_on_the_batch():
    alone = requests(TASKS[1])
    both = [r for r in requests(*TASKS) if r.id[0] == "similarities"]
    assert [r.number for r in alone] == [r.number for r in both]
    one = corpus_writing.write(writer(), alone[1:2], DRAWN, "s")
    assert one[0] in corpus_writing.write(writer(), both[:4], DRAWN, "s")


def test_a_prompt_that_is_too_long_names_its_item():
    with pytest.raises(UserError, match=r"summary of i0: the instruction takes \d+ tokens, 9 are"):
        list(corpus_writing.requests(TASKS, small.splits(), small.tokenizer(), 9))
