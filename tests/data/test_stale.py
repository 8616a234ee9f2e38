"""What is made again says what differs from what is there."""

import dataclasses
import json

import pytest

from ilm_jax.data.sources import custom, stale
from ilm_jax.data.sources.prepare import catalogue_dir, load_catalogue
from ilm_jax.data.sources.registry import DATASETS


def test_a_catalogue_of_changed_files_is_prepared_again_and_says_which(
    tmp_path, capsys, monkeypatch
):
    lines = [f"u{u} {u} {u + 1} {u + 2}\n" for u in range(9)]
    (tmp_path / "user_sequence.txt").write_text("".join(lines))

    def said():
        load_catalogue("custom", data_dir=tmp_path, cache_dir=tmp_path / "cache")
        return capsys.readouterr().err

    assert said().startswith("preparing custom into ")
    assert said() == ""
    (tmp_path / "user_sequence.txt").write_text("".join(lines[:-1]))
    (tmp_path / "columns.gin").write_text("Columns.core = 1\n")
    assert "custom again (user_sequence.txt has changed, columns.gin is new) into" in said()
    assert said() == ""
    newer = dataclasses.replace(DATASETS["custom"], version="99.0.0")
    monkeypatch.setitem(DATASETS._entries, "custom", newer)
    assert f"its builder was {custom.VERSION}, now 99.0.0" in said()
    header = catalogue_dir("custom", tmp_path / "cache") / "catalogue.json"
    header.write_text(header.read_text().replace("ilm_jax.catalogue/", "ilm_jax.catalogue/0"))
    assert said().count("\n") == 1 and said() == ""


def test_a_catalogue_of_files_that_were_taken_away_is_prepared_again_and_says_which(
    tmp_path, capsys
):
    rows = [f"u{u},i{(u + k) % 6},{9 - k}\n" for u in range(4) for k in range(4)]
    (tmp_path / "interactions.csv").write_text("".join(["user,item,timestamp\n", *rows]))
    (tmp_path / "items.csv").write_text("id,title\n" + "".join(f"i{k},Lamp\n" for k in range(6)))
    (tmp_path / "columns.gin").write_text('Columns.timestamp = "none"\n')

    def loaded(folder=tmp_path):
        return load_catalogue("custom", data_dir=folder, cache_dir=tmp_path / "cache")

    first = loaded()
    assert first.titles[0] == "Lamp" and first.extras["untimed"]
    (tmp_path / "items.csv").unlink()
    (tmp_path / "columns.gin").unlink()
    assert loaded(None).fingerprint == first.fingerprint  # without a folder, what there is
    assert capsys.readouterr().err.count("\n") == 1
    found = loaded()
    assert "again (items.csv is gone, columns.gin is gone) into" in capsys.readouterr().err
    assert found.titles[0] == "i0" and not found.extras["untimed"]
    assert loaded().fingerprint == found.fingerprint and capsys.readouterr().err == ""


def test_metadata_that_were_taken_away_leave_no_titles(tmp_path):
    rows = [(u, k) for u in range(6) for k in range(6)]
    line = '{"reviewerID": "u%d", "asin": "a%d", "overall": 5, "unixReviewTime": 7}\n'
    (tmp_path / "X.json").write_text("".join(line % row for row in rows))
    (tmp_path / "meta_X.json").write_text('{"asin": "a0", "title": "Lamp"}\n')
    where = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    assert load_catalogue("amazon/x", **where).titles[0] == "Lamp"
    (tmp_path / "meta_X.json").unlink()
    assert load_catalogue("amazon/x", **where).titles[0] == "a0"


INFO = {
    "version": "2",
    "settings": {"history": 10, "seed": 0},
    "sources": {"catalogue": "c"},
    "tokenizer": {"fingerprint": "t"},
}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"settings": {"history": 5, "seed": 0}}, "history 5, now 10"),
        ({"settings": {"seed": 0}}, "history null, now 10"),
        ({"version": "1"}, "version 1, now 2"),
        ({"sources": {"catalogue": "d"}}, "other interactions or items"),
        ({"tokenizer": {"fingerprint": "u"}}, "another tokenizer"),
        ({}, "another format"),
    ],
)
def test_a_task_names_what_its_nearest_cache_has_otherwise(tmp_path, change, wanted):
    folder = tmp_path / "a_task-12ab"
    assert stale.nearest_cache(folder, INFO) == ""
    others = {
        "a_task-far0": {**INFO, "version": "0", "sources": {"catalogue": "e"}},
        "a_task-near": {**INFO, **change},
        "a_task_longer-0000": INFO,
        "a_task-text": {**INFO, "settings": {**INFO["settings"], "text_only": True}},
        "a_task-12ab": INFO,
    }
    for name, info in others.items():
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train/info.json").write_text(json.dumps(info))
    (tmp_path / "a_task-null/train").mkdir(parents=True)
    (tmp_path / "a_task-null/train/info.json").write_text("[1]")
    assert stale.nearest_cache(folder, INFO) == wanted
