"""Lists of candidates are fixed by a file, which is of one catalogue and one split."""

import dataclasses
import json
import re

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.data.examples.candidates import (
    draw_all,
    draw_candidates,
    read_candidates,
    targets_of,
    write_candidates,
)
from ilm_jax.errors import UserError
from tests.data.small_catalogue import small_catalogue

SPLITS = make_splits(small_catalogue())
TARGETS = targets_of(SPLITS)
DRAWN = {"candidates": 7, "drawn": "uniform", "seed": 0}


def saved(path, splits=SPLITS, **changes):
    drawn = draw_all(splits, 7, seed=0, by="uniform")
    write_candidates(path, splits, drawn, {**DRAWN, **changes})
    return drawn


def test_what_is_written_is_read_back_and_written_the_same_again(tmp_path):
    drawn = saved(tmp_path / "one")
    saved(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_candidates(tmp_path / "one", SPLITS, TARGETS) == drawn
    assert drawn.keys() == TARGETS.keys() and len(drawn) == 2 * len({u for _, u in drawn})
    places = []
    for (split, user), rows in drawn.items():
        target = TARGETS[split, user]
        assert len(set(rows)) == 7 and target in rows
        assert not set(rows) - {target} & set(SPLITS.catalogue.sequence(user).tolist())
        places.append(rows.index(target))
    assert len(set(places)) > 3, "the right one stands anywhere"


def test_a_users_list_is_the_same_whoever_else_there_is():
    catalogue = SPLITS.catalogue
    kept = int(catalogue.offsets[20])
    fewer = dataclasses.replace(
        catalogue,
        user_ids=catalogue.user_ids[:20],
        offsets=catalogue.offsets[:21],
        items=catalogue.items[:kept],
        ratings=catalogue.ratings[:kept],
        timestamps=catalogue.timestamps[:kept],
    )
    some = draw_all(make_splits(fewer), 7, seed=0, by="uniform")
    every = draw_all(SPLITS, 7, seed=0, by="uniform")
    assert len(some) < len(every) and some.items() <= every.items()


def test_popular_items_are_drawn_as_often_as_they_were_chosen():
    """Efraimidis and Spirakis' first draw takes item i with probability w_i / sum(w)."""
    weights = SPLITS.train_counts().astype(float)
    user, target = 0, int(np.argmin(weights))
    weights[SPLITS.catalogue.sequence(user)] = 0
    times = np.zeros(len(weights))
    for number in range(3000):
        pair = draw_candidates(SPLITS, user, target, 2, "test", number, by="popularity")
        times[[row for row in pair if row != target]] += 1
    expected = 3000 * weights / weights.sum()
    assert not times[weights == 0].any()
    error = (times - expected)[weights > 0] / np.sqrt(expected[weights > 0])
    assert np.mean(error**2) < 1.6, "chi-squared per item, about 1"


def test_too_few_others_are_told():
    for by in ("uniform", "popularity"):
        with pytest.raises(UserError, match="lower candidates"):
            draw_all(SPLITS, 61, seed=0, by=by)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (make_splits(small_catalogue(name="toy/world1")), "is of toy, not of toy/world1"),
        (make_splits(small_catalogue(seed=1)), "made on another split"),
        (make_splits(small_catalogue(), SplitConfig(0.2)), "made on another split"),
    ],
)
def test_a_file_of_another_catalogue_or_split_is_refused(tmp_path, splits, message):
    saved(tmp_path / "lists.jsonl")
    wanted = re.escape(str(tmp_path / "lists.jsonl")) + f".*{message}.*ilm candidates"
    with pytest.raises(UserError, match=wanted):
        read_candidates(tmp_path / "lists.jsonl", splits, targets_of(splits))


def test_a_file_of_another_format_and_a_user_without_candidates_are_refused(tmp_path):
    path = tmp_path / "lists.jsonl"
    saved(path)
    head, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(head + "".join(lines[:-1]))
    missing = json.loads(lines[-1])["user"]
    with pytest.raises(UserError, match=f"no candidates for user '{missing}' of split 'test'"):
        read_candidates(path, SPLITS, TARGETS)
    path.write_text(head.replace("candidates/1", "candidates/2") + "".join(lines))
    with pytest.raises(UserError, match=r":1: format 'ilm_jax.candidates/2' instead of"):
        read_candidates(path, SPLITS, TARGETS)


def test_somebody_elses_lists_need_no_first_line(tmp_path):
    path = tmp_path / "lists.jsonl"
    drawn = saved(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert read_candidates(path, SPLITS, TARGETS) == drawn
