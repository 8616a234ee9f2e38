"""Every model is measured on the same examples, which ids choose and nothing else."""

import random

import numpy as np
import pytest

from ilm_jax.evaluation.measures.sampling import (
    candidates_fingerprint,
    fingerprint,
    sample_examples,
    text_mark,
    user_mark,
)

USERS = [f"user {number}" for number in range(60)]
ITEMS = [f"i{row}" for row in range(60)]


def described(rows):
    return [{"key": f"{ITEMS[row]}#0", "user": "", "target_item": row} for row in rows]


def chosen(users, size):
    """The users of a sample of a task with two examples of each, in this order."""
    examples = [{"key": f"{user}@{k}", "user": user} for k in (3, 4) for user in users]
    sample = sample_examples([user_mark(example) for example in examples], size)
    assert len(sample.numbers) == 2 * sample.measured == 2 * min(size, len(users))
    assert sample.numbers.tolist() == sorted(sample.numbers.tolist())
    return {examples[number]["user"] for number in sample.numbers}


def test_the_same_users_are_chosen_whatever_their_order():
    shuffled = random.Random(0).sample(USERS, len(USERS))
    assert chosen(USERS, 8) == chosen(shuffled, 8)


def test_a_larger_sample_holds_the_smaller():
    assert chosen(USERS, 8) < chosen(USERS, 16) < chosen(USERS, 59) < chosen(USERS, 99)


def test_others_take_the_place_of_few():
    """Twice as many users: who stays is who was there, and no one else of the old comes in."""
    before, after = chosen(USERS, 8), chosen([*USERS, *(f"new {k}" for k in range(60))], 8)
    assert after & set(USERS) <= before


def test_a_task_of_texts_and_one_of_lists_choose_the_same_users():
    profiles = [{"key": f"{user}#0", "user": user, "target_item": -1} for user in USERS[::-1]]
    sample = sample_examples([text_mark(example, ITEMS) for example in profiles], 8)
    assert {profiles[number]["user"] for number in sample.numbers} == chosen(USERS, 8)


def test_texts_are_chosen_by_the_ids_of_their_items_and_counted_one_by_one():
    once = sample_examples([text_mark(e, ITEMS) for e in described(range(60))], 8)
    again = sample_examples([text_mark(e, ITEMS) for e in described([*range(60)][::-1])], 8)
    assert {int(n) for n in once.numbers} == {59 - int(n) for n in again.numbers}
    two = [{**e, "key": f"{e['key']}{k}"} for e in described(range(60)) for k in "ab"]
    twice = sample_examples([text_mark(e, ITEMS) for e in two], 8)
    assert {int(n) // 2 for n in twice.numbers} < {int(n) for n in once.numbers}
    assert len(twice.numbers) == 8, "a sample of 8 texts is 8 texts"


def test_a_sample_says_its_share():
    marks = [user_mark({"key": "", "user": user}) for user in USERS]
    assert str(sample_examples(marks, 6)) == "6, a fixed sample of 60 (10 %) by a hash of ids"
    for size in (None, 60, 1000):
        sample = sample_examples(marks, size)
        assert str(sample) == "60" and sample.numbers.tolist() == list(range(60))
    for size in (0, -1):
        with pytest.raises(ValueError, match="give at least 1"):
            sample_examples(marks, size)


def test_a_fingerprint_is_of_users_order_and_answers():
    rows = [{"key": f"{u}@1", "user": u, "target_text": "x", "target_item": 1} for u in USERS]
    first = fingerprint(rows)
    assert first == fingerprint(iter(rows)) != fingerprint(rows[::-1])
    renamed = [{**row, "target_text": "other"} for row in rows]
    assert fingerprint(renamed) != first
    assert fingerprint(renamed, ITEMS) == fingerprint(rows, ITEMS), "items count by id"
    moved = [{**row, "target_item": np.int32(2)} for row in rows]
    assert fingerprint(moved, ITEMS) != fingerprint(rows, ITEMS)


def test_lists_of_candidates_are_told_apart_by_what_they_hold_and_not_by_its_order():
    def of(*lists, items=ITEMS):
        examples = [{"key": f"u{n}", "candidates": rows} for n, rows in enumerate(lists)]
        return candidates_fingerprint(examples, items)

    assert of([1, 2, 3], [4, 5]) == of([3, 1, 2], [5, 4])
    assert len({of([1, 2, 3], [4, 5]), of([1, 2, 4], [4, 5]), of([4, 5], [1, 2, 3])}) == 3
    # Rows of another order of the catalogue's file are the same items.
    assert of([0, 1]) == of([59, 58], items=ITEMS[::-1])
