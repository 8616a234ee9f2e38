"""A value that no reader expects ends in a line with file and number, or is read as what it is."""

import json

import pytest

from ilm_jax.data.sources import amazon, custom, regen, steam
from ilm_jax.errors import UserError

PAIRS = [(user, item) for user in range(6) for item in range(6)]
LONG = "1" + "0" * 400


def table(folder, rating):
    rows = [f"u{user},i{item},{item},{rating}\n" for user, item in PAIRS]
    (folder / "interactions.csv").write_text("".join(["user,item,timestamp,rating\n", *rows]))
    return custom.read(folder)


@pytest.mark.parametrize("rating", ["1e39", "-1e39", "1e400", LONG, "1_0", "1_0.5", "nan", "x"])
def test_a_rating_that_float32_lacks_or_that_is_no_number_is_refused(tmp_path, rating):
    with pytest.raises(UserError, match="interactions.csv:2: rating .* is not a number"):
        table(tmp_path, rating)


@pytest.mark.parametrize("rating", ["3.4e38", "+1e1", "-2.5"])
def test_any_other_number_is_a_rating(tmp_path, rating):
    assert table(tmp_path, rating).ratings[0] == pytest.approx(float(rating))


@pytest.mark.parametrize("time", ["1_000", "1_0.5"])
def test_a_time_in_a_spelling_of_python_is_refused(tmp_path, time):
    (tmp_path / "interactions.csv").write_text(f"user,item,timestamp\nu,a,1\nu,b,{time}\n")
    with pytest.raises(UserError, match=f"interactions.csv:3: timestamp '{time}'"):
        custom.read(tmp_path)


def users(folder, time="7", rating="4.0", asin="a3", keys="", category="A - B"):
    item = f'{{"asin": "{asin}", "title": "t", "category": "{category}"}}'
    review = f'{{"rating": {rating}, "unix_time": {time}}}'
    line = f'{{"reviewer_id": "u0", "purchase_history": [{{"item": {item}, "review": {review}}}]}}'
    (folder / "x.jsonl").write_text(line + "\n")
    (folder / "keys.gin").write_text(keys)
    return regen.read(folder, "regen/x")


@pytest.mark.parametrize(
    "odd",
    [
        {"time": "1" + "0" * 20},
        {"time": str(2**63)},
        {"time": "-1"},
        {"time": "true"},
        {"rating": LONG},
        {"rating": "1e39"},
        {"rating": "1e400"},
        {"rating": "true"},
        {"asin": "nan"},
        {"asin": "a\\u0007"},
        {"asin": "a b"},
        {"asin": ""},
    ],
    ids=str,
)
def test_a_purchase_that_no_array_holds_or_nobody_made_is_refused_by_its_line(tmp_path, odd):
    with pytest.raises(UserError, match="x.jsonl:1: ") as caught:
        users(tmp_path, **odd)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_an_empty_separator_takes_categories_whole(tmp_path):
    assert users(tmp_path).categories == [["A", "B"]]
    assert users(tmp_path, keys='Keys.separator = ""\n').categories == [["A - B"]]
    found = users(tmp_path, keys='Keys.separator = ""\n', category="A > B")
    assert found.categories == [["A > B"]] and not found.extras.get("notes")


def reviews(folder, meta="", **odd):
    rows = [
        {"reviewerID": f"u{u}", "asin": f"a{i}", "overall": 5, "unixReviewTime": i}
        for u, i in PAIRS
    ]
    rows[4] |= odd
    (folder / "X.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "meta_X.json").write_text(meta or '{"asin": "a1", "title": "T"}\n')
    return amazon.read(folder, "amazon/x", core=0)


@pytest.mark.parametrize("name", ["reviewerID", "asin"])
@pytest.mark.parametrize("value", ["nan", "None", "a\x07", "a b", "", 7, None])
def test_a_review_without_an_id_is_refused_by_its_line(tmp_path, name, value):
    with pytest.raises(UserError, match=f"X.json:5: {name} is"):
        reviews(tmp_path, **{name: value})


def test_a_price_of_any_length_is_no_price(tmp_path):
    found = reviews(tmp_path, f'{{"asin": "a1", "title": "T", "price": {LONG}}}\n')
    assert found.texts[found.item_row["a1"]] == "The item T."


LITERALS = ["{'a'}", "b'a'", "1j", "...", "0x" + "f" * 6000, "{('a', 'b'): 1}", "b'\\x41'"]


@pytest.mark.parametrize("value", LITERALS, ids=lambda value: value[:9])
def test_a_python_dictionary_holds_what_json_holds(tmp_path, value):
    line = f"{{'asin': 'a1', 'id': '1', 'title': 'T', 'x': {value}, 'y': '\\u0041'}}\n"
    said = "_X.json:1: neither JSON nor a Python dictionary"
    with pytest.raises(UserError, match=said):
        reviews(tmp_path, line)
    assert reviews(tmp_path, line.replace(value, "('a', None, 2.5)")).titles[1] == "T"
    games = tmp_path / "steam"
    games.mkdir()
    rows = [{"username": f"u{u}", "product_id": str(i), "date": "2018-01-01"} for u, i in PAIRS]
    (games / "steam_reviews.json").write_text("".join(f"{row}\n" for row in rows))
    (games / "steam_games.json").write_text(line)
    with pytest.raises(UserError, match="_games.json:1: neither JSON nor a Python dictionary"):
        steam.CORPUS.read(str(games), "steam")
    priced = f'{{"id": "1", "title": "T", "price": {LONG}}}\n'
    (games / "steam_games.json").write_text(priced)
    assert "T" in list(steam.CORPUS.read(str(games), "steam").titles)
