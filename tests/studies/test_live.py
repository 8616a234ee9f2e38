"""The page of running rows: their curves over those of receipts, until nothing more comes."""

import json

import pytest


@pytest.fixture
def live(script):
    return script("live")


def log(run, *records):
    run.mkdir(parents=True, exist_ok=True)
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write("".join(json.dumps(record) + "\n" for record in records))


def test_a_row_is_drawn_over_the_curves_of_its_receipts(live, tmp_path):
    row = live.Row("50_ilm", tmp_path / "run", [("toy_seed0_50_ilm", [(20, 2.0), (40, 1.9)])])
    assert live.curves(row) == [] and "Not begun: 50_ilm." in live.text([row])
    log(row.run, {"step": 10, "loss": 2.5}, {"step": 20, "loss": float("nan")})
    log(row.run, {"step": 20, "validation/loss": 2.1}, {"step": 30, "loss": None})
    with (row.run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 30, "lo')  # as a log that is being written
    names = [(line.name, line.points) for line in live.curves(row)]
    assert names == [
        ("toy_seed0_50_ilm", [(20, 2.0), (40, 1.9)]),
        ("training", [(10.0, 2.5)]),
        ("validation", [(20.0, 2.1)]),
    ]
    text = live.text([row])
    assert 'http-equiv="refresh"' in text and "validation: 2.100" in text and "src=" not in text
    assert 'http-equiv="refresh"' not in live.text([row], ended=True)


def test_the_page_follows_a_run_and_ends_with_it(live, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.01)
    row = live.Row("a<b", tmp_path / "run")
    with live.drawn([row], tmp_path) as page:
        assert "Not begun: a&lt;b." in page.read_text()
        log(row.run, {"step": 1, "loss": 3.0})
        for _ in range(500):
            if "training: 3.000" in page.read_text():
                break
            live.threading.Event().wait(0.01)
        else:
            pytest.fail("the page did not follow")
    assert 'http-equiv="refresh"' not in page.read_text()
    assert str(page) in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt), live.drawn([row], tmp_path):
        raise KeyboardInterrupt
    assert not [thread for thread in live.threading.enumerate() if thread.name == "live"]


def test_a_page_that_cannot_be_written_stops_no_study(live, tmp_path, capsys):
    (tmp_path / "live.html").mkdir()  # a folder where the page would be
    with live.drawn([live.Row("row", tmp_path / "run")], tmp_path):
        pass
    assert "live.html was not written" in capsys.readouterr().err
