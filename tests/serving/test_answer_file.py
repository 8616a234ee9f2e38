"""Files of answers go on after an interruption, and never mix two ways of answering."""

import json

import pytest

from ilm_jax.errors import UserError
from ilm_jax.serving.answer_file import AnswerFile

SETTINGS = {"model": "m", "beams": 4}


def entry(row):
    return row["id"], row["prompt"]


def test_a_half_written_line_is_dropped_and_the_rest_kept(tmp_path):
    path = tmp_path / "deep" / "out.jsonl"
    with AnswerFile(path, entry, SETTINGS) as file:
        assert file.done == {}
        file.write([{"id": 1, "prompt": "é"}, {"id": "x", "prompt": "b" * 70000}])
    with open(path, "ab") as stream:
        stream.write(b'{"id": 3, "prompt": "' + b"c" * 70000)
    with AnswerFile(path, entry, SETTINGS) as file:
        assert file.done == {1: "é", "x": "b" * 70000}
        file.write([{"id": 3, "prompt": "c"}])
    assert [json.loads(x)["id"] for x in path.read_text("utf-8").splitlines()] == [1, "x", 3]


def test_a_file_of_nothing_but_half_a_line_starts_anew(tmp_path):
    path = tmp_path / "out.jsonl"
    with AnswerFile(path, entry, SETTINGS):
        pass
    path.write_text('{"id": 1, "pro')
    with AnswerFile(path, entry, SETTINGS) as file:
        assert file.done == {}
    assert path.read_text() == ""


def test_rows_are_there_while_the_file_is_open(tmp_path):
    with AnswerFile(tmp_path / "out.jsonl", entry, SETTINGS) as file:
        file.write([{"id": 1, "prompt": "a"}])
        assert (tmp_path / "out.jsonl").read_text().endswith("}\n")


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    with AnswerFile(path, entry, SETTINGS) as file:
        file.write([{"id": 1, "prompt": "a"}])
    with pytest.raises(UserError, match="begun with beams=4, and now it is 5"):
        AnswerFile(path, entry, {**SETTINGS, "beams": 5})
    with AnswerFile(path, entry, SETTINGS) as file:
        assert file.done == {1: "a"}


@pytest.mark.parametrize("line", ["no json", "[]", '{"id": 1}'])
def test_a_file_of_something_else_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "out.jsonl"
    with AnswerFile(path, entry, SETTINGS) as file:
        file.write([{"id": 1, "prompt": "a"}])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"out\.jsonl:2: no answer of ours"):
        AnswerFile(path, entry, SETTINGS)


def test_somebody_elses_file_is_left_alone(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        AnswerFile(path, entry, SETTINGS)
    assert path.read_text() == "precious"
