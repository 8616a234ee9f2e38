"""Answers are those of the generator, one by one, however they are batched or interrupted."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.errors import UserError
from ilm_jax.serving.answer_writing import write_answers
from ilm_jax.serving.requests import PromptFile, Writer
from tests.decoding import small
from tests.some import some

GREEDY = DecodingConfig(max_new_tokens=5)
DRAWN = DecodingConfig(max_new_tokens=5, sample=True, seed=3)
PROMPTS = [f"after {{item:i{n}}}" + " and {item:i2}" * (n % 3) + ", what" for n in range(11)]


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"p{n}", "prompt": p}) + "\n" for n, p in enumerate(PROMPTS))
    )
    renderer = PromptRenderer(small.splits(), small.SETTINGS)
    return PromptFile(str(path), Writer(renderer, small.tokenizer(), 3, small.LENGTH))


def test_texts_end_where_the_model_ends_them_or_the_length_does(asked):
    answerer, requests = small.answerer(), list(asked)[:4]
    rows = answerer.texts(requests, GREEDY)
    for row in some(rows):
        assert row["stop"] == "length" and len(row["tokens"]) == 5
        assert row["text"] == small.tokenizer().decode(row["tokens"], continues=True).strip()
    third = rows[0]["tokens"][2]
    stopped = answerer.texts(requests, DecodingConfig(max_new_tokens=5, stop_ids=(third,)))[0]
    end = rows[0]["tokens"].index(third) + 1
    assert stopped["stop"] == "end" and stopped["tokens"] == rows[0]["tokens"][:end]
    before = stopped["tokens"][:-1]
    assert stopped["text"] == small.tokenizer().decode(before, continues=True).strip()
    assert stopped["score"] > rows[0]["score"]


def test_beams_come_best_first(asked):
    config = DecodingConfig(max_new_tokens=4, beams=3)
    (row,) = small.answerer().texts(list(asked)[:1], config)
    scores = [beam["score"] for beam in row["beams"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert row["text"] == row["beams"][0]["text"] and row["score"] == scores[0]


def test_items_are_ranked_and_excluded(asked):
    answerer, requests = small.answerer(), list(asked)[:4]
    every = answerer.items(requests, small.ITEMS)
    exact = answerer.generator.score(answerer._prompts(requests), answerer.trie)
    for row, scores in zip(every, exact, strict=True):
        assert [x["id"] for x in row["items"]] == [f"i{n}" for n in np.argsort(-scores)]
        np.testing.assert_allclose([x["score"] for x in row["items"]], -np.sort(-scores), atol=1e-4)
        best = answerer.renderer.catalogue.item_row[row["items"][0]["id"]]
        assert row["text"] == answerer.renderer.target(best)
        assert small.tokenizer().decode(row["tokens"]) == row["text"]
    gone = [[int(x["id"][1:]) for x in row["items"][:2]] for row in every]
    left = answerer.items(requests, small.ITEMS, gone)
    for all_of_them, kept in zip(every, left, strict=True):
        assert [x["id"] for x in kept["items"]] == [x["id"] for x in all_of_them["items"][2:]]
    nothing = answerer.items(requests[:1], 3, [range(small.ITEMS)])
    assert nothing == [{"items": [], "text": "", "tokens": [], "stop": "no candidate"}]


def test_a_model_without_numbers_is_refused_instead_of_answering(asked):
    answerer, requests = small.answerer(), list(asked)[:2]
    params = jax.tree.map(lambda leaf: leaf * np.nan, answerer.generator.params)
    generator = dataclasses.replace(answerer.generator, params=params)
    broken = dataclasses.replace(answerer, generator=generator)
    for ask in (
        lambda: broken.texts(requests, GREEDY),
        lambda: broken.texts(requests, DecodingConfig(max_new_tokens=4, beams=3)),
        lambda: broken.items(requests, 3),
    ):
        with pytest.raises(UserError, match="prompt 'p0' are not numbers"):
            ask()


def write(asked, output, size, stop_after=None):
    """`ilm infer` without its flags; fails after so many batches."""
    answerer, batches = small.answerer(), 0

    def answer(batch):
        nonlocal batches
        batches += 1
        if stop_after is not None and batches > stop_after:
            raise KeyboardInterrupt
        return answerer.texts(batch, DRAWN)

    return write_answers(answerer, asked, answer, output, {"seed": 3}, size, len(PROMPTS))


def test_interrupted_and_gone_on_is_left_alone(asked, tmp_path):
    assert write(asked, tmp_path / "whole.jsonl", 4) == (11, 0)
    with pytest.raises(KeyboardInterrupt):
        write(asked, tmp_path / "parts.jsonl", 3, stop_after=2)
    with open(tmp_path / "parts.jsonl", "a") as stream:
        stream.write('{"id": "p3", "pro')
    assert write(asked, tmp_path / "parts.jsonl", 4) == (5, 6)
    assert write(asked, tmp_path / "parts.jsonl", 4) == (0, 11)

    def read(name):
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert len(rows) == len({row["id"] for row in rows}) == 11
        scores = {row["id"]: row.pop("score") for row in rows}
        return {row["id"]: row for row in rows}, [scores[f"p{n}"] for n in range(11)]

    (whole, scores), (parts, again) = read("whole.jsonl"), read("parts.jsonl")
    assert parts == whole
    np.testing.assert_allclose(again, scores, atol=1e-4)
    assert {row["prompt"] for row in whole.values()} == set(PROMPTS)


def test_an_id_for_another_prompt_is_refused(asked, tmp_path):
    write(asked, tmp_path / "out.jsonl", 4)
    file = tmp_path / "in.jsonl"
    file.write_text(file.read_text().replace("after {item:i0}", "before {item:i0}"))
    with pytest.raises(UserError, match="answers another prompt under the id 'p0'"):
        write(asked, tmp_path / "out.jsonl", 4)


def test_a_model_without_a_catalogue_ranks_nothing():
    answerer = small.answerer()
    bare = type(answerer)(answerer.generator, answerer.converter, answerer.tokenizer)
    with pytest.raises(UserError, match="knows no catalogue"):
        bare.items([], 3)
