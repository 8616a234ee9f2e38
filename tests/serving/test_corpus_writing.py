"""Texts of a corpus: what a language model writes is read back by the tasks, with its source."""

import json
import types

import pytest

from ilm_jax.cli import generate
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


class Says:
    """A writer whose greedy texts have faults, and whose draws mend one of them at a time."""

    def __init__(self):
        self.seeds = []

    def batches(self, requests, size):
        yield list(requests)

    def texts(self, batch, config):
        self.seeds.append(config.seed if config.sample else None)
        faulty = [("round and " * 9, "end"), ("", "end"), ("and then", "length"), ("Good.", "end")]
        found = {r.id[1]: faulty[k] for r, k in zip(batch, range(4), strict=False)}
        if config.sample:
            found[batch[0].id[1]] = ("Drawn.", "end")
        return [dict(zip(("text", "stop"), found[r.id[1]], strict=True)) for r in batch]


def test_texts_with_a_fault_are_drawn_anew_and_left_out_at_last():
    found, kept, done = requests(TASKS[0], limit=4), [], []
    says, none = Says(), types.SimpleNamespace(tries=2, batch_size=4)
    given = (DecodingConfig(seed=5), "lm", none, kept.extend, done.append)
    written, faults = generate._write(says, found, *given)
    # Asked are four, three of them again, and two of these; the last one has its fault for good.
    assert says.seeds == [None, 6, 7] and written == 3 == len(kept)
    assert [row["target"] for row in kept] == ["Good.", "Drawn.", "Drawn."]
    assert faults == {"empty": 1} and sum(done) == 4
    texts = list(corpus_writing.texts(says, found, DecodingConfig(), "lm"))
    assert [text.fault for text in texts] == ["loops", "empty", "has no end", ""]
    takes_all = types.SimpleNamespace(tries=0, batch_size=4)
    written, faults = generate._write(
        Says(), found, DecodingConfig(), "lm", takes_all, len, done.append
    )
    assert written == 3 and faults == {"empty": 1}
