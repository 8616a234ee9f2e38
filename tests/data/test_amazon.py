"""Amazon's reviews and metadata in the forms of 2014 and 2018."""

import gzip
import json

import pytest

from ilm_jax.data.sources import amazon
from ilm_jax.errors import UserError

META = [
    {
        "asin": "A1",
        "title": "Soap &amp; <b>Water</b>",
        "description": "Cleans. ",
        "brand": "Acme",
        "categories": [["Beauty"], ["Beauty", "Bath"]],
        "price": 4.5,
    },
    {"asin": "A2", "title": "Brush", "categories": [["Beauty", "Hair"]]},
    {"asin": "A9", "title": "Never reviewed"},
]


def reviews(users=6):
    return [
        {
            "reviewerID": f"U{u}",
            "asin": f"A{i}",
            "overall": float(1 + (u + i) % 5),
            "unixReviewTime": 1000 + 10 * (5 - i) + u,
        }
        for u in range(users)
        for i in range(1, 6)
    ]


def write(folder, rows, meta, *, year=2018, packed=True):
    meta_lines = [repr(row) if year == 2014 else json.dumps(row) for row in meta]
    for name, lines in (
        ("reviews_X", [json.dumps(row) for row in rows]),
        ("meta_X", meta_lines),
    ):
        content = "".join(line + "\n" for line in lines).encode()
        if packed:
            (folder / f"{name}.json.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{name}.json").write_bytes(content)
    return folder


@pytest.mark.parametrize("year", [2014, 2018])
@pytest.mark.parametrize("packed", [False, True])
def test_both_years_become_the_same_catalogue(tmp_path, year, packed):
    found = amazon.read(write(tmp_path, reviews(), META, year=year, packed=packed), "amazon/x")
    assert (found.num_users, found.num_items, len(found.items)) == (6, 5, 30)
    first = found.item_ids.index("A1")
    assert found.titles[first] == "Soap & Water" and found.texts[first] == "Cleans."
    assert found.categories[first] == ["Beauty", "Bath"]
    second = found.texts[found.item_ids.index("A2")]
    assert second == "The item Brush belongs to Beauty, Hair."
    assert found.titles[found.item_ids.index("A3")] == "A3"
    assert found.extras["items_without_metadata"] == 3
    # Oldest first: times fall with the item's number.
    assert [found.item_ids[row] for row in found.sequence(0)] == ["A5", "A4", "A3", "A2", "A1"]
    assert found.ratings[0] == 1.0 + 5 % 5


def test_a_second_review_of_an_item_is_left_out_and_counted(tmp_path):
    rows = reviews() + [{**reviews()[0], "unixReviewTime": 1}]
    found = amazon.read(write(tmp_path, rows, META), "amazon/x")
    assert len(found.items) == 30 and found.extras["reviews_left_out_as_repeats"] == 1


def test_the_core_leaves_out_who_reviews_little(tmp_path):
    rows = [*reviews(), {**reviews()[0], "reviewerID": "rare"}]
    found = amazon.read(write(tmp_path, rows, META), "amazon/x")
    assert "rare" not in found.user_ids and found.extras["left_out"]["users"] == 1


def test_code_in_the_metadata_is_not_run(tmp_path):
    write(tmp_path, reviews(), META, year=2014, packed=False)
    bomb = "{'asin': __import__('os').system('touch " + str(tmp_path / "ran") + "')}\n"
    (tmp_path / "meta_X.json").write_text(bomb)
    with pytest.raises(UserError, match="meta_X.json:1: neither JSON nor a Python dictionary"):
        amazon.read(tmp_path, "amazon/x")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overall": "five"}, "overall 'five'"),
        ({"overall": float("nan")}, "overall 'nan'"),
        ({"overall": 6}, "overall '6'"),
        ({"unixReviewTime": "now"}, "unixReviewTime 'now'"),
        ({"reviewerID": None}, "reviewerID is 'None'; keys"),
        ({"asin": "a b"}, "asin is 'a b'"),
    ],
)
def test_a_wrong_review_is_refused_with_file_and_line(tmp_path, change, message):
    rows = reviews()
    rows[3] |= change
    with pytest.raises(UserError, match=message) as error:
        amazon.read(write(tmp_path, rows, META), "amazon/x")
    assert "reviews_X.json.gz:4: " in str(error.value)


def test_a_file_cut_off_and_a_folder_of_something_else_are_refused(tmp_path):
    write(tmp_path, reviews(), META)
    path = tmp_path / "reviews_X.json.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a whole gzip file"):
        amazon.read(tmp_path, "amazon/x")
    path.unlink()
    with pytest.raises(UserError, match="found meta_X.json.gz; the folder holds reviews"):
        amazon.read(tmp_path, "amazon/x")


def test_long_descriptions_end_at_a_sentence(tmp_path):
    meta = [{**META[0], "description": ["One thing. " * 30, "Another thing. " * 60]}]
    found = amazon.read(write(tmp_path, reviews(), meta), "amazon/x")
    text = found.texts[found.item_ids.index("A1")]
    assert len(text) <= amazon.LONGEST_DESCRIPTION and text.endswith("thing.")
