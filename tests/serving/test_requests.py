"""Prompts of a file: what is wrong is named with its line; those of one shape come together."""

import json

import pytest

from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.errors import UserError
from ilm_jax.serving import requests
from ilm_jax.serving.requests import PromptFile, Request, Writer, by_shape
from tests.decoding import small


def prompt_file(path, *lines, length=small.LENGTH):
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    renderer = PromptRenderer(small.splits(), small.SETTINGS)
    return PromptFile(str(path), Writer(renderer, small.tokenizer(), 3, length))


def test_ids_are_given_or_the_number_of_the_line(tmp_path):
    given = {"prompt": "a"}, "", {"id": "x", "prompt": "b {item:i3} {item:i5}"}, {"prompt": "c"}
    file = prompt_file(tmp_path / "in.jsonl", *given)
    found = list(file)
    assert [r.id for r in found] == [1, "x", 4] and [r.number for r in found] == [1, 3, 4]
    assert found[1].mentioned == (3, 5) and list(found[1].example["slots"]) == [3, 5]
    assert requests.count(file) == (3, 2)


def test_a_last_line_without_its_end_is_a_line(tmp_path):
    file = prompt_file(tmp_path / "in.jsonl", {"prompt": "a"})
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}')
    assert [r.prompt for r in file] == ["a"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"prompt": "a"', "not a JSON object"),
        ('["a"]', "no prompt"),
        ({"prompt": 3}, "no prompt"),
        ({"prompt": "a", "max": 3}, "key 'max'"),
        ({"prompt": "a", "id": 1.5}, "id 1.5 is neither"),
        ({"prompt": "a", "id": 1}, "id 1 is that of line 1 too"),
        ({"prompt": "{item:i999}"}, "no item 'i999' in toy"),
        ({"prompt": "{user:nobody}"}, "no user 'nobody' in toy"),
        ({"prompt": "word " * 80}, r"takes \d+ positions, 96 are read; .*--max_prompt_length"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, what):
    file = prompt_file(tmp_path / "in.jsonl", {"prompt": "fine"}, line)
    with pytest.raises(UserError, match=rf"in\.jsonl:2: .*{what}"):
        list(file)


def test_the_length_counts_every_position_of_a_slot(tmp_path):
    long = "x" * 10 + " {item:i3}"
    file = prompt_file(tmp_path / "in.jsonl", {"prompt": long})
    (found,) = file
    width = len(found.example["inputs"]) + 2
    assert list(prompt_file(tmp_path / "in.jsonl", {"prompt": long}, length=width))
    with pytest.raises(UserError, match=f"takes {width} positions, {width - 1} are read"):
        list(prompt_file(tmp_path / "in.jsonl", {"prompt": long}, length=width - 1))


def test_an_absent_file_is_named(tmp_path):
    renderer = PromptRenderer(small.splits(), small.SETTINGS)
    with pytest.raises(UserError, match=r"none\.jsonl: no such file"):
        list(PromptFile(str(tmp_path / "none.jsonl"), Writer(renderer, small.tokenizer(), 3, 9)))


def test_shapes_come_together_as_soon_as_a_batch_is_full():
    seen = []

    def stream():
        for number in range(7):
            seen.append(number)
            yield Request(number, number, "", {})

    batches = by_shape(stream(), lambda request: request.number % 2, 2)
    assert [r.number for r in next(batches)] == [0, 2] and seen == [0, 1, 2]
    assert [[r.number for r in batch] for batch in batches] == [[1, 3], [4, 6], [5]]


def test_prompts_written_in_a_notebook_are_those_of_a_file(tmp_path):
    answerer = small.answerer()
    prompts = ["Tell of {item:i3}.", "{user:u2} chose {item:i1}:"]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    writer = Writer(answerer.renderer, answerer.tokenizer, answerer.converter.num_queries, 48)
    for asked, read in zip(answerer.ask(prompts), PromptFile(str(path), writer), strict=True):
        assert asked.prompt == read.prompt and asked.mentioned == read.mentioned
        for name in ("inputs", "slots"):
            assert asked.example[name].tolist() == read.example[name].tolist()
    with pytest.raises(UserError, match="no item 'i99'"):
        answerer.ask(["{item:i99}"])
