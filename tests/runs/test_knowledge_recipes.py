"""One override leaves the auxiliary tasks out; what trains is a choice."""

import pytest

from ilm_jax.errors import UserError
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.sharding.freezing import matches

BOUND = (
    *("LM_FROM='lm'", "MODEL_DIR='run'", "TRAIN_STEPS=1", "BATCH_SIZE=8", "LEARNING_RATE=1e-3"),
    "TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}",
)
SIZES = {
    "models/flan_t5_base.gin": "runs/stage2_lora_t5.gin",
    "models/smollm2_135m.gin": "runs/stage2_lora.gin",
}
TINY = ("tiny/knowledge.gin", "tiny/knowledge_decoder.gin")


def tasks(run):
    return {name.removeprefix("knowledge_toy_"): r for name, r in run.dataset.rates.items()}


def of_tiny(recipe, *bindings):
    return gin_config.build(Run, [recipe], ["MODEL_DIR='run'", *bindings])


@pytest.mark.parametrize("recipe", TINY)
def test_one_override_leaves_the_auxiliary_tasks_out_and_nothing_else_changes(recipe):
    run = of_tiny(recipe)
    both = tasks(run)
    assert set(both) == {"mim", "mlm_item", "bpr", "retrieval", "ranking", "rating"}
    without = of_tiny(recipe, "AUXILIARY=0")
    auxiliary = ("mim", "mlm_item", "bpr")
    assert tasks(without) == {t: rate for t, rate in both.items() if t not in auxiliary}
    assert without.train_eval == run.train_eval, "checkpoints are chosen by the same thing"
    assert [s.task for s in run.train_eval["prompt"].specs()] == ["retrieval"]
    assert without.trainer == run.trainer and without.objective == run.objective


def test_an_unknown_task_in_the_mixture_is_refused_with_the_nearest():
    rates = "'mim': %AUXILIARY, 'ranking': %RANKING, 'rating': %RATING"
    run = of_tiny(TINY[0], f"MIXTURE_OR_TASK_NAME={{'retreival': %RETRIEVAL, {rates}}}")
    with pytest.raises(UserError, match="no task 'retreival'.*retrieval"):
        tasks(run)


@pytest.mark.parametrize("size", SIZES)
def test_a_published_model_trains_whole_or_by_low_rank_updates(size):
    recipes = ["runs/knowledge.gin", size]
    whole = gin_config.build(Run, recipes, BOUND)
    assert matches("lm/embedding/embedding", whole.trainer.trains)
    assert not whole.objective.lm.lora_rank
    lora = gin_config.build(Run, [*recipes, SIZES[size]], [*BOUND, "TRAINABLE=()"])
    assert not matches("lm/embedding/embedding", lora.trainer.trains)
    assert matches("lm/layers/attention/query/lora_a", lora.trainer.trains)
    assert lora.objective.lm.lora_rank == 8
    assert tasks(lora) == tasks(whole)
