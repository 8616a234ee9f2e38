"""Instructions are rendered around facts, for items or pairs, ours or from a file."""

import json

import pytest

from ilm_jax.data.catalogue.splits import TRAIN, make_splits
from ilm_jax.data.examples import elm_templates, instructions
from ilm_jax.data.examples.instructions import Instruction
from ilm_jax.errors import UserError
from tests.data.small_catalogue import small_catalogue

SPLITS = make_splits(small_catalogue(items=40, users=30))


def test_ours_are_those_of_elms_tasks():
    ours = instructions.ours()
    assert set(ours) == set(elm_templates.TASKS) and ours["similarities"].items == 2
    asked = ours["long_description"].prompt(["Some title. Some text."])
    assert asked == elm_templates.instruction("long_description", ["Some title. Some text."])


def test_facts_are_title_and_text_on_one_line():
    catalogue = SPLITS.catalogue
    assert instructions.facts(catalogue, 5) == f"{catalogue.titles[5]}. {catalogue.texts[5]}"


def test_every_item_is_a_subject_once_and_partners_are_training_items():
    single = list(instructions.subjects(Instruction("a", "?"), SPLITS))
    assert single == [(row,) for row in range(40)]
    for pair in (Instruction("b", "?", 2), Instruction("c", "?", 2, neighbour=True)):
        found = list(instructions.subjects(pair, SPLITS))
        assert 30 < len(found) <= 40 and len({a for a, _ in found}) == len(found)
        assert all(a != b and SPLITS.item_fold[b] == TRAIN for a, b in found)
    drawn = [
        list(instructions.subjects(Instruction("b", "?", 2), SPLITS, seed=s)) for s in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_file_gives_others(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(
        json.dumps(
            {
                "short": {"instruction": "One word."},
                "near": {"instruction": "Why?", "items": 2, "neighbour": True},
            }
        )
    )
    assert instructions.read(str(path)) == {
        "short": Instruction("short", "One word."),
        "near": Instruction("near", "Why?", 2, True),
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "no JSON to be read"),
        ("[]", "give an object"),
        ('{"a": {}}', 'a has no "instruction"'),
        ('{"a": {"instruction": "x", "item": 1}}', "a has 'item'; there are instruction, items"),
        ('{"a": {"instruction": "x", "items": 3}}', "a: items is 1 or 2"),
        ('{"a": {"instruction": "x", "items": true}}', "a: items is 1 or 2"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, what):
    (tmp_path / "own.json").write_text(text)
    with pytest.raises(UserError, match=rf"own\.json: {what}"):
        instructions.read(str(tmp_path / "own.json"))
