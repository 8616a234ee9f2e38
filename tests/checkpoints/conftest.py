"""A trained run that several tests convert."""

import json

import pytest

from ilm_jax.checkpoints import converting
from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.models.decoder import DecoderConfig
from ilm_jax.objectives.language import LanguageModelling
from tests.checkpoints.published import publish
from tests.training import models
from tests.training.test_stage_two_leaves_the_lm_alone import trainer


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of stage 2 with low-rank updates through a converted model; its parameters."""
    folder = tmp_path_factory.mktemp("run")
    publish(folder / "hf")
    converting.to_frozen(str(folder / "hf"), str(folder / "base"), "float32")
    config = open_source(str(folder / "hf")).config
    lm = DecoderConfig(**{**config.__dict__, "lora_rank": 2, "lora_targets": (".*",)})
    reader = ("^qformer/", "^adaptor/")
    second = trainer(
        folder / "run",
        LanguageModelling(lm, models.READER),
        total_steps=4,
        trainable=reader,
        adapters=("/lora_[ab]$",),
        init=(InitFrom(str(folder / "base")),),
        allow_fresh=reader,
    )
    second.fit()
    # What a run through the command line leaves beside.
    (folder / "run" / "config.gin").write_text("# the recipe\nBATCH_SIZE = 16\n")
    (folder / "run" / "evaluation").mkdir()
    (folder / "run" / "evaluation" / "evaluation.json").write_text(
        json.dumps({"figures": {"nll": 1.25}, "intervals": {"nll": {"low": 1.0, "high": 1.5}}})
    )
    return folder, lm
