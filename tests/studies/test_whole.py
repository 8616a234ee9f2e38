"""The study as a whole: one command whose parts share nothing but the folder of receipts."""

import json
import re

import pytest

from ilm_jax.errors import UserError


@pytest.fixture
def whole(script):
    return script("whole")


def test_every_part_is_of_the_same_worlds_and_a_smoke_touches_no_receipt(whole, tmp_path):
    made = whole.of(tmp_path, [0, 1], (None, None), 1)
    assert [s.dataset for s in made.texts] == [s.dataset for s in made.worlds]
    assert made.kept == whole.receipts.FOLDER and made.output == whole.page.OUTPUT
    studies = (*made.texts, *made.worlds, *made.settings, *made.tasks)
    assert [(s.dataset, s.seed) for s in made.tasks] == [(s.dataset, s.seed) for s in made.texts]
    assert {study.receipts.parent for study in studies} == {made.kept}
    assert len({study.folder for study in studies}) == len(studies) == 8
    assert len(made.rows) == len(whole.losses.STAGE_ONE) and made.items is None
    assert not made.real and made.language is None
    smoke = whole.of(tmp_path, [0], (str(tmp_path / "own"), None), 1, smoke=True)
    studies = (*smoke.texts, *smoke.worlds, *smoke.settings)
    assert not smoke.tasks
    for path in (smoke.kept, smoke.output, *(s.receipts for s in studies)):
        assert path.is_relative_to(tmp_path)
    assert smoke.items.dataset == "custom" and len(smoke.rows) == 2
    words = [*smoke.texts[0].train("x", "tiny/stage1.gin"), *smoke.worlds[0].stage_one("text")]
    assert words.count("--gin.TRAIN_STEPS=4") == 2


def test_written_texts_have_studies_of_their_own(whole, tmp_path):
    written = {"texts_file": "texts.json", "source": "lm"}
    made = whole.of(tmp_path, [0, 2], (str(tmp_path / "own"), None), 1, written=written)
    assert [study.seed for study in made.real] == [0, 2] and made.language.seed == 0
    studies = (*made.real, made.language)
    assert {study.texts_file for study in studies} == {"texts.json"}
    assert {study.source for study in studies} == {"lm"} and made.language.passages
    assert len({study.folder for study in studies}) == 3
    assert not whole.of(tmp_path, [0], (None, None), 1, written=written).real


def test_what_has_receipts_is_not_planned(whole, tmp_path):
    told = whole.of(tmp_path, [0, 1, 2], (None, None), 1).budget()
    assert "3 seeds, 16 rows each: " in told and "losses:   0 of 3 worlds are left" in told
    more = whole.of(tmp_path, [0, 9], (None, None), 1, smoke=True).budget()
    assert "losses:   2 of 2 worlds are left, about 0.7 core hours" in more and "map:" not in more
    with pytest.raises(UserError, match="nowhere"):
        whole.of(tmp_path, [0], (str(tmp_path / "nowhere"), None), 1).budget()


def test_a_run_measures_every_part_and_writes_the_page(whole, tmp_path, monkeypatch):
    pytest.importorskip("markdown")
    asked, data = [], tmp_path / "own"
    monkeypatch.setattr(whole.retention, "measure", lambda *words: asked.append(words))
    monkeypatch.setattr(whole.few_texts, "measure", lambda *words: asked.append(words))
    monkeypatch.setattr(whole.variations, "measure", lambda *words: asked.append(words))
    monkeypatch.setattr(whole.item_map, "run", lambda *words: asked.append(words))
    monkeypatch.setattr(whole.Study, "data", "fingerprint")
    written = {"texts_file": "texts.json", "source": "lm"}
    made = whole.of(tmp_path, [0], (str(data), None), 1, smoke=True, written=written)
    told = made.budget()
    assert "map:    about" in told and "kept:   3 rows are left, about 1.0 core hours" in told
    assert "real:   1 seeds, 7 rows each: 0 have receipts, 12 runs are left (5 of them" in told
    made.run()
    assert asked == [
        (made.texts, whole.few_texts.SMOKE, whole.few_texts.GRID[:1]),
        (made.worlds, made.rows),
        (made.settings, made.setting_rows),
        (made.real, [0], whole.few_texts.GRID[:1]),
        (made.language, ["frozen", "lora", "text-full"]),
        (made.items, tmp_path / "receipts/item_map/own.json"),
    ]
    assert made.output.is_file() and made.items.most_steps == whole.few_texts.SMOKE_STEPS
    (tmp_path / "receipts/item_map").mkdir(parents=True)
    record = dict.fromkeys(("items", "views", "titles", "category", "held_out"), 0)
    (tmp_path / "receipts/item_map/own.json").write_text(json.dumps({**record, "data": "other"}))
    assert not made._is_drawn(made.items)
    record["data"] = "fingerprint"
    (tmp_path / "receipts/item_map/own.json").write_text(json.dumps(record))
    assert made._is_drawn(made.items) and "map:" not in made.budget()


def test_nothing_is_trained_without_what_the_page_needs(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(whole.page.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(whole.few_texts, "measure", lambda *words: pytest.fail("trained"))
    with pytest.raises(UserError, match="the page needs the package markdown"):
        whole.of(tmp_path, [0], (None, None), 1, smoke=True).run()


@pytest.mark.slow  # three minutes of two cores: everything is compiled
def test_a_smoke_goes_from_raw_data_to_the_page(whole, tmp_path):
    made = whole.of(tmp_path, [0], (None, None), 2, smoke=True)
    made.run()
    text = made.output.read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', text) == [
        "claims",
        "texts",
        "losses",
        "settings",
        "curves",
        "again",
    ]
