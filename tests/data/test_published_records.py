"""Corpora in their published forms, oddities included, become the catalogues that they describe."""

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.sources import amazon2023, prepare, published_records
from ilm_jax.data.sources.registry import DATASETS, source_of
from ilm_jax.errors import UserError
from tests.data.published_corpora import (
    CORPORA,
    ITEMS,
    LENGTH,
    USERS,
    amazon_csv,
    chosen,
    write_corpus,
    write_lines,
)
from tests.data.small_catalogue import word, words_of
from tests.tasks.making import made_by


def read(folder, dataset):
    return source_of(dataset).read(str(folder), dataset)


def row(catalogue, number):
    """The row of the item whose words are of this number."""
    return next(
        k for k, title in enumerate(catalogue.titles) if title.startswith(word(10 * number))
    )


@pytest.mark.parametrize("dataset", CORPORA)
@pytest.mark.parametrize("packed", [False, True])
def test_every_user_chose_what_the_files_say_in_order(tmp_path, dataset, packed):
    found = read(write_corpus(tmp_path, dataset, packed=packed), dataset)
    assert (found.name, found.num_users, found.num_items) == (dataset, USERS, ITEMS)
    assert len(found.items) == USERS * LENGTH and found.extras["repeats"] == 0
    numbers = {item: n for n in range(ITEMS - 1) for item in [row(found, n)]}
    for user in range(USERS):
        told = [numbers.get(item, ITEMS - 1) for item in found.sequence(user).tolist()]
        assert told == [(told[0] + k) % ITEMS for k in range(LENGTH)]
        times = found.timestamps[found.offsets[user] : found.offsets[user + 1]]
        assert (np.diff(times) > 0).all() and 1.49e9 < times[0] < times[-1] < 1.51e9


def test_amazon_2023(tmp_path):
    dataset = "amazon2023/All_Beauty"
    found = read(write_corpus(tmp_path, "amazon2023/all_beauty"), dataset)
    assert found.extras["repeats_left_out"] == 2 and found.extras["items_without_metadata"] == 1
    zero, one, two, four = (row(found, k) for k in (0, 1, 2, 4))
    assert found.titles[zero] == f"{word(0)} & mug"
    assert found.texts[zero] == f"Holds {word(2)}. Is {word(1)}."
    assert found.texts[one] == f"Is {word(11)}."
    assert found.categories[zero] == ["All Beauty"]
    assert found.categories[one] == ["Home", "Kitchen & Dining"]
    assert "B029" in found.titles and found.texts[found.titles.index("B029")]
    assert found.ratings.min() == 0.0
    assert "meta_All_Beauty.jsonl: 1 records repeat" in found.extras["notes"][0]
    items = published_records.read_items(
        tmp_path / "meta_All_Beauty.jsonl", amazon2023.CORPUS.items, set(found.item_ids)
    )
    told = [dict(items[found.item_ids[k]].attributes) for k in (zero, one, two, four)]
    assert told == [
        {"brand": "Acme"},
        {"brand": "Acme"},
        {"brand": "Zig", "price": "9.99"},
        {"brand": "Packed", "price": "from 3.99"},
    ]
    assert int(found.timestamps.min()) == min(seconds for *_, seconds in chosen())


@pytest.mark.parametrize("history", [False, True])
def test_amazon_2023_by_ratings_alone_whole_and_in_splits(tmp_path, history):
    dataset = "amazon2023/all_beauty"
    header, *lines = amazon_csv(history)
    write_lines(tmp_path / "whole", "All_Beauty.csv", [header, *lines], packed=True)
    for number, name in enumerate(("train", "valid", "test")):
        part = [header, *lines[120 * number : 120 * (number + 1)]]
        write_lines(tmp_path / "parts", f"All_Beauty.{name}.csv", part)
    whole, parts = (read(tmp_path / name, dataset) for name in ("whole", "parts"))
    assert whole.fingerprint == parts.fingerprint and len(whole.items) == USERS * LENGTH
    assert whole.titles == whole.item_ids
    other = read(write_corpus(tmp_path / "full", dataset), dataset)
    by_id = [[c.item_ids[i] for i in c.items] for c in (whole, other)]
    assert by_id[0] == by_id[1] or sorted(by_id[0]) == sorted(by_id[1])
    assert sorted(whole.timestamps) == sorted(other.timestamps)
    (tmp_path / "parts/All_Beauty.valid.csv").unlink()
    with pytest.raises(
        UserError, match="All_Beauty.train.csv is there and all_beauty.valid.csv is"
    ):
        read(tmp_path / "parts", dataset)


def test_steam(tmp_path):
    found = read(write_corpus(tmp_path, "steam"), "steam")
    assert found.extras["repeats_left_out"] == USERS * LENGTH
    assert np.isnan(found.ratings).all()
    assert all(user.startswith("player%20") and "100%25%20★" in user for user in found.user_ids)
    zero, one, two, three = (row(found, k) for k in range(4))
    assert found.titles[zero] == f"{word(0)} game" and found.titles[one] == f"{word(10)} app"
    assert found.categories[zero] == ["Action", "Indie"] and found.categories[two] == ["Strategy"]
    assert found.texts[zero].endswith(
        f"its developer is {word(1)}, publisher Kotoshiro, price Free To Play."
    )
    assert found.texts[three].endswith("its publisher is Kotoshiro, price 4.99.")
    said = " ".join(found.extras["notes"])
    assert "1 of 721 interactions have an empty username" in said
    assert "1 records have no id" in said and "1 records repeat the id" in said


def test_goodreads(tmp_path):
    found = read(write_corpus(tmp_path, "goodreads/poetry"), "goodreads/poetry")
    assert int(np.isnan(found.ratings).sum()) == 1 and found.extras["repeats_left_out"] == 1
    zero, one, two = (row(found, k) for k in range(3))
    assert found.categories[zero] == [] and found.categories[one] == ["poetry", "classics"]
    assert found.texts[zero] == f"Sings of {word(1)}."
    assert found.texts[one].endswith("; its publisher is Press, year 2016.")
    assert found.texts[two] == f"Sings of {word(21)}."
    first = min(seconds for *_, seconds in chosen())
    assert int(found.timestamps.min()) == first  # of a zone that is not UTC
    name, lines = CORPORA["goodreads/poetry"][0]
    write_lines(tmp_path, name.replace("interactions", "reviews"), lines[:3])
    again = read(tmp_path, "goodreads/poetry")
    others = name.replace("interactions", "reviews")
    assert again.extras["notes"] == [f"interactions are read from {name}, not from {others}"]
    with pytest.raises(
        UserError, match="goodreads/comics is goodreads_interactions_comics.json or"
    ):
        read(tmp_path, "goodreads/comics")


def test_yelp(tmp_path):
    found = read(write_corpus(tmp_path, "yelp"), "yelp")
    zero, one, two = (row(found, k) for k in range(3))
    assert found.categories[zero] == []
    assert found.categories[one] == ["Gastropubs", "Food", "Books, Mags, Music & Video", "Cafés"]
    assert found.categories[two] == ["Doctors", "Wills, Trusts, & Probates"]
    assert found.titles[zero] == f"{word(0)} Café"
    assert found.texts[zero].endswith(f"its city is {word(1)}, state AZ.")
    assert found.extras["repeats_left_out"] == 1


WRONG = [
    (
        "amazon2023/all_beauty",
        0,
        '"rating": 2.0',
        '"rating": 7',
        "rating '7' is no number from 0 to",
    ),
    ("amazon2023/all_beauty", 0, '"rating": 2.0', '"rating": NaN', "rating 'nan' is no number"),
    ("amazon2023/all_beauty", 0, '"timestamp": 150', '"timestamp": 1', "is no time, milliseconds"),
    ("amazon2023/all_beauty", 0, '"user_id": "AU', '"user_id": "A U', "user_id is 'A U"),
    ("amazon2023/all_beauty", 0, '"parent_asin"', '"parent"', "parent_asin is 'None'; keys"),
    ("amazon2023/all_beauty", 1, '"title": "', '"title": {"a": "', "not a JSON object"),
    ("amazon2023/all_beauty", 1, '"title": "q', '"title": true, "x": "q', "title holds 'True'"),
    ("amazon2023/all_beauty", 1, '"title": "q', '"title": "\\ud83d', "holds half a character"),
    ("steam", 0, "u'date': u'2", "u'date': u'", "date '017-.*' is no time, such as 2018-07-07"),
    ("steam", 0, "u'date': u'2017-0", "u'date': u'2017-2", "is no time"),
    ("steam", 0, "'hours': 0.1", "'hours': open('x')", "neither JSON nor a Python dictionary"),
    ("steam", 0, "u'username': u'", "u'user': u'", "username is 'None'"),
    (
        "goodreads/poetry",
        0,
        '"date_added": "',
        '"date_added": "x',
        "is no time, such as Tue Nov 17",
    ),
    ("goodreads/poetry", 1, '"popular_shelves": [', '"popular_shelves": ["a", ', "where an object"),
    ("yelp", 0, '"stars": ', '"stars": null, "x": ', "stars 'None' is no number from 0 to 5"),
    ("yelp", 0, '"date": "2017-0', '"date": "1917-0', "is no time"),
]


@pytest.mark.parametrize(("dataset", "which", "old", "new", "message"), WRONG)
def test_what_does_not_fit_is_refused_with_file_and_line(
    tmp_path, dataset, which, old, new, message
):
    write_corpus(tmp_path, dataset)
    name, lines = CORPORA[dataset][which]
    number = next(k for k, line in enumerate(lines) if old in line and k > 3)
    changed = lines[number].replace(old, new, 1)
    assert changed != lines[number]
    write_lines(tmp_path, name, [*lines[:number], changed, *lines[number + 1 :]])
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, dataset)
    assert f"{name}:{number + 1}: " in str(error.value) and "\n" not in str(error.value)


def test_a_folder_of_something_else_is_explained(tmp_path):
    write_corpus(tmp_path, "steam")
    with pytest.raises(UserError, match=r"found steam_games.json, .*yelp is yelp_academic_dataset"):
        read(tmp_path, "yelp")
    with pytest.raises(
        UserError, match="no such folder; amazon2023/toys is toys.jsonl or toys.csv"
    ):
        read(tmp_path / "none", "amazon2023/toys")
    (tmp_path / "steam_reviews.json").rename(tmp_path / "steam_reviews.json.gz")
    with pytest.raises(UserError, match="steam_reviews.json.gz:1: not a whole gzip file"):
        read(tmp_path, "steam")
    write_lines(tmp_path / "csv", "toys.csv", amazon_csv()[1:])
    with pytest.raises(
        UserError, match="toys.csv:1: header 'AU.*put it there if the file has none"
    ):
        read(tmp_path / "csv", "amazon2023/toys")


@pytest.mark.parametrize("dataset", CORPORA)
def test_a_file_that_is_there_twice_is_refused(tmp_path, dataset):
    """Packed and unpacked, or in two spellings: either may be the older one, or a part."""
    write_corpus(tmp_path, dataset)
    wanted = read(tmp_path, dataset).fingerprint
    for file in sorted(tmp_path.iterdir()):
        for twin in (file.with_name(f"{file.name}.gz"), file.with_name(file.name.upper())):
            twin.write_bytes(file.read_bytes())
            with pytest.raises(UserError, match="are there for one file; leave one of them") as at:
                read(tmp_path, dataset)
            assert file.name in str(at.value) and twin.name in str(at.value)
            twin.unlink()
    assert read(tmp_path, dataset).fingerprint == wanted


@pytest.mark.parametrize("dataset", CORPORA)
@pytest.mark.parametrize("task", ["sequential_title", "retrieval", "common_with_nn", "joint"])
def test_no_training_prompt_knows_a_later_choice_or_a_held_out_item(tmp_path, dataset, task):
    settings = TaskSettings()
    found = read(write_corpus(tmp_path, dataset), dataset)
    splits = make_splits(found, settings.split)
    hidden = {name for k in np.flatnonzero(splits.item_fold) for name in words_of(found, k)}
    hidden -= {name for k in splits.items_in(0) for name in words_of(found, k)}
    assert hidden
    (examples,) = made_by([task], splits, settings.replace(text_only=True))
    index = examples.index("train")
    count = len(next(iter(index.values())))
    assert count
    for number in np.unique(np.linspace(0, count - 1, 40).astype(int)).tolist():
        example = examples.render("train", **{n: int(c[number]) for n, c in index.items()})
        text = example.prompt.text + example.target_text
        assert not [name for name in hidden if len(name) > 5 and name in text], text
        if example.user:
            user = found.user_ids.index(example.user)
            later = [name for k in found.sequence(user)[-2:] for name in words_of(found, k)[:1]]
            assert not [name for name in later if len(name) > 5 and name in text], text


@pytest.mark.slow
@pytest.mark.parametrize("dataset", CORPORA)
def test_a_prepared_catalogue_is_the_one_that_was_read(tmp_path, dataset):
    folder = write_corpus(tmp_path / "raw", dataset)
    found = prepare.load_catalogue(dataset, data_dir=folder, cache_dir=tmp_path / "cache")
    assert found.fingerprint == read(folder, dataset).fingerprint
    assert dataset.partition("/")[0] in DATASETS
