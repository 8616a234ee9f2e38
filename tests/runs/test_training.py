"""A run's record says what it was made from when it began."""

import pathlib
import types

from ilm_jax.runs import training
from ilm_jax.training import finished


def test_inputs_that_are_replaced_while_a_run_trains_are_not_in_its_record(tmp_path):
    table = tmp_path / "table"
    table.write_text("old")

    def fit():
        table.write_text("new")
        return {"loss": 1.0}

    trainer = types.SimpleNamespace(fit=fit, stopped=False, was_finished=False, step=2, best_step=2)
    run = types.SimpleNamespace(
        model_dir=str(tmp_path / "run"),
        processes=types.SimpleNamespace(start=lambda multiprocess: None),
        make_trainer=lambda recipe: trainer,
        inputs=lambda: {"table 0": table.read_text()},
    )
    pathlib.Path(run.model_dir).mkdir()
    training.train_run(run)
    record = finished.read(run.model_dir)
    assert record["inputs"] == {"table 0": "old"} and record["validation"] == {"loss": 1.0}
