"""OpenP5's training: its update by hand-written arithmetic, on any mesh, resumed, re-drawn once."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import CheckpointConfig, InitFrom
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import UserError
from ilm_jax.models.number_rows import NumberRows
from ilm_jax.models.t5 import T5Config
from ilm_jax.objectives.heads import TextHead
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.runs.gin_config import build
from ilm_jax.runs.model_gin import model_gin
from ilm_jax.runs.run import Run
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, flat, initialise, make_state, nested
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.step import make_train_step
from ilm_jax.training.trainer import Trainer, TrainerConfig
from tests.checkpoints.published import T5, publish
from tests.data.published_tokenizers import published
from tests.training import models

ONE, EIGHT = (1, 1, 1), (2, 2, 2)
NUMBERS = NumberRows(ids=(7, 9, 33))
LM = T5Config(
    models.VOCAB,
    num_layers=2,
    embed_dim=32,
    num_heads=4,
    mlp_dim=64,
    activation="relu",
    gated=False,
    tie_embeddings=True,
)
OBJECTIVE = LanguageModelling(
    LM, heads=(TextHead(mean_by="examples"),), target_length=6, word_rows=24, redraws=NUMBERS
)
DROPPING = dataclasses.replace(OBJECTIVE, lm=dataclasses.replace(OBJECTIVE.lm, dropout=0.1))
TOTAL = 40
TABLE = np.zeros((1, 1), np.float32)


@functools.cache
def recipe():
    lengths = 'TASK_FEATURE_LENGTHS={"inputs": 8, "targets": 8}'
    return build(Run, ["runs/openp5.gin"], ["TRAIN_STEPS=40", lengths], unnamed="nowhere")


def batch(seed=0):
    """Rows whose answers have one to six tokens, and a word for every other token of the inputs."""
    found, rng = models.prompt_batch(seed, slots=False), np.random.default_rng(seed)
    at, read = np.arange(models.LENGTH), rng.integers(10, 18, (models.ROWS, 1))
    told = (at >= read - 1) & (at < read - 1 + rng.integers(1, 7, (models.ROWS, 1)))
    last = told * at
    found["loss_weights"] = found["content_weights"] = told.astype(np.float32)
    found["segment_ids"] = (at <= last.max(1, keepdims=True)).astype(np.int32)
    found["word_ids"] = np.where(at < read, at // 2, -1).astype(np.int32)
    return found


@functools.cache
def mesh(sizes):
    return Partitioner(MeshConfig(*sizes), devices=tuple(jax.devices()[: int(np.prod(sizes))]))


@functools.cache
def stepped(objective, sizes=ONE, steps=3, **options):
    """(parameters before, after, losses) of steps with the recipe's optimizer."""
    partitioner = mesh(sizes)
    variables = describe_variables(objective)
    params = initialise(objective, variables, list(variables), partitioner, jax.random.key(0))
    before = {path: np.array(x) for path, x in params.items()}
    optimizer = recipe().optimizer.build(TOTAL)
    state = make_state(params, {}, optimizer)
    step = make_train_step(
        objective, "prompt", optimizer, partitioner, state, models.ROWS, **options
    )
    put = functools.partial(jax.device_put, device=partitioner.replicated)
    table, key, losses = put(TABLE), put(jax.random.key(5)), []
    with partitioner.context():
        for seed in range(steps):
            rows = partitioner.global_batch(batch(seed), models.ROWS)
            state, report = step(state, rows, table, key)
            sums = report["sums"]["loss"]
            losses.append((float(sums.total), float(sums.weight)))
    return before, {path: np.array(x) for path, x in state.trainable.items()}, losses


def loss_by_hand(params, rows):
    """Mean over each row's tokens, then over the rows, from all logits."""
    logits, at = OBJECTIVE.target_logits(nested(params), rows, TABLE)
    labels = jnp.take_along_axis(rows["targets"], at, axis=1)
    weights = jnp.take_along_axis(rows["loss_weights"], at, axis=1)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
    return jnp.mean((nll * weights).sum(1) / weights.sum(1))


def update_by_hand(params, moments, grads, step):
    """torch's clip, then the AdamW of transformers 4 and get_linear_schedule_with_warmup, as their
    published code has them, in float64; OpenP5's settings."""
    rate, b1, b2, eps, decay, warmup = 1e-3, 0.9, 0.999, 1e-6, 0.01, int(0.05 * TOTAL)
    left = step / warmup if step < warmup else (TOTAL - step) / (TOTAL - warmup)
    norm = np.sqrt(sum((np.float64(g) ** 2).sum() for g in grads.values()))
    shrink = min(1.0, 1.0 / (norm + 1e-6))
    found = {}
    for path, grad in grads.items():
        g = np.float64(grad) * shrink
        m, v = moments.get(path, (0.0, 0.0))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        moments[path] = m, v
        size = rate * left * np.sqrt(1 - b2 ** (step + 1)) / (1 - b1 ** (step + 1))
        p = np.float64(params[path]) - size * m / (np.sqrt(v) + eps)
        theirs = path.replace("positions/embedding", "relative_attention_bias.weight")
        theirs = theirs.replace("norm/scale", "layer_norm.weight")
        plain = any(name in theirs for name in ("bias", "LayerNorm.weight"))
        found[path] = p * (1 - rate * left * decay * (not plain))
    return found


@pytest.mark.slow
def test_updates_are_those_of_hand_written_arithmetic():
    """Parameters are stepped beside each other, each side from its own."""
    before, after, losses = stepped(OBJECTIVE)
    gradient = jax.jit(jax.value_and_grad(loss_by_hand))
    params, moments = before, {}
    for step, (total, weight) in enumerate(losses):
        here = {path: jnp.float32(x) for path, x in params.items()}
        loss, grads = gradient(here, batch(step))
        assert weight == pytest.approx(models.ROWS)
        np.testing.assert_allclose(total / weight, loss, rtol=2e-6)
        params = update_by_hand(params, moments, jax.tree.map(np.asarray, grads), step)
    assert losses[0][0] != losses[1][0]
    for path, want in params.items():
        # Steps are 5e-4 and 1e-3 an entry; the first stands still.
        np.testing.assert_allclose(after[path], want, atol=2e-6, rtol=2e-6, err_msg=path)
        assert path.endswith("scale") or np.abs(after[path] - before[path]).max() > 3e-4, path


@pytest.mark.slow
def test_the_loss_with_dropout_is_the_same_on_any_mesh():
    """The mean over examples, and masks that are keyed by the global row."""

    def loss(sizes, key):
        partitioner, variables = mesh(sizes), describe_variables(DROPPING)
        params = initialise(DROPPING, variables, list(variables), partitioner, jax.random.key(0))
        with partitioner.context():
            rows = partitioner.global_batch(batch(), models.ROWS)
            compute = jax.jit(lambda p, b, k: DROPPING.loss(nested(p), "prompt", b, TABLE, k))
            sums = compute(params, rows, key)["loss"]
        return float(sums.total / sums.weight)

    one, eight = (loss(sizes, jax.random.key(5)) for sizes in (ONE, EIGHT))
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    assert abs(one - loss(ONE, jax.random.key(6))) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("objective", [OBJECTIVE, DROPPING], ids=["as it is", "with dropout"])
def test_eight_devices_train_as_one_does(objective):
    _, one, losses = stepped(objective)
    _, eight, others = stepped(objective, EIGHT)
    np.testing.assert_allclose(others, losses, rtol=1e-5)
    for path, leaf in one.items():
        # Entries whose gradient is rounding move by up to a step's length.
        close = np.abs(eight[path] - leaf) < 2e-5
        assert close.mean() > 0.99, (path, close.mean())
    assert losses != stepped(OBJECTIVE)[2] or objective is OBJECTIVE


@pytest.mark.slow
def test_microbatches_have_the_same_mean():
    _, one, losses = stepped(OBJECTIVE)
    _, two, others = stepped(OBJECTIVE, microbatches=2)
    np.testing.assert_allclose(others, losses, rtol=1e-5)
    assert all((np.abs(two[p] - one[p]) < 2e-5).mean() > 0.99 for p in one)


def test_examples_that_share_a_row_count_as_examples_apart():
    apart = batch()
    apart["segment_ids"][8:] = 0
    apart["loss_weights"][8:] = 0
    together = {name: np.zeros_like(array) for name, array in apart.items()}
    wide = {n: np.pad(a, ((0, 0), (0, models.LENGTH))) for n, a in together.items() if a.ndim == 2}
    wide |= {"entities": together["entities"], "word_ids": wide["word_ids"] - 1}
    for row in range(8):  # two to a row
        where = slice(models.LENGTH * (row % 2), models.LENGTH * (row % 2 + 1))
        for name, array in wide.items():
            if name != "entities":
                array[row // 2, where] = apart[name][row]
        wide["segment_ids"][row // 2, where] *= 1 + row % 2
    objective = dataclasses.replace(OBJECTIVE, target_length=12)
    variables = describe_variables(objective)
    drawn = initialise(objective, variables, list(variables), mesh(ONE), jax.random.key(0))
    loss = jax.jit(lambda rows: objective.loss(nested(drawn), "prompt", rows, TABLE, None)["loss"])
    one, both = loss(apart), loss(wide)
    np.testing.assert_allclose([one.weight, both.weight], 8, rtol=1e-6)
    np.testing.assert_allclose(one.total, both.total, rtol=2e-5)


def test_positions_alone_do_not_decay_and_the_recipe_is_the_papers():
    run, lm = recipe(), recipe().objective.lm
    variables = describe_variables(run.objective)
    leaves = {path: jax.ShapeDtypeStruct(v.shape, v.dtype) for path, v in variables.items()}
    still = {path for path, does in run.optimizer.decays(leaves).items() if not does}
    assert still == {f"lm/{stack}/positions/embedding" for stack in ("encoder", "decoder")}
    assert (lm.vocab_size, lm.num_layers, lm.embed_dim, lm.mlp_dim) == (32128, 6, 512, 2048)
    assert (lm.dropout, lm.word_rows, lm.tie_embeddings, lm.gated) == (0.1, 512, True, False)
    train, settings = run.train["prompt"], run.train["prompt"].settings
    assert (train.block, train.redraw, settings.variants, settings.history) == (64, 3, 10, 20)
    assert run.train_eval["prompt"].redraw == 0 and settings.text_only
    assert run.objective.layout("prompt").word_rows == 512
    rate = run.optimizer.learning_rate_at(200)
    np.testing.assert_allclose(
        [rate(s) for s in (0, 5, 10, 105, 200)], [0, 5e-4, 1e-3, 5e-4, 0], atol=1e-9
    )


def test_a_decoder_in_the_place_of_t5_is_refused_in_one_line(tmp_path):
    """By the model.gin that `ilm convert` writes beside a decoder."""
    said = model_gin("DecoderConfig", dataclasses.asdict(models.LM), "float32", "a decoder", None)
    (tmp_path / "model.gin").write_text(said)
    files = ["runs/openp5.gin", str(tmp_path / "model.gin")]
    with pytest.raises(UserError, match="a DecoderConfig has none") as error:
        build(Run, files, ["TRAIN_STEPS=4"], unnamed="nowhere")
    assert str(error.value).startswith("LanguageModelling.word_rows = 512: whole-word embeddings")


def test_a_warm_up_is_given_once():
    assert float(OptimizerConfig(warmup_share=0.1).learning_rate_at(55)(5)) == pytest.approx(1e-3)
    with pytest.raises(UserError, match="give one of the two"):
        OptimizerConfig(warmup_share=0.1, warmup_steps=4)


class Wordless:
    def encode(self, text):
        return [4]

    def decode(self, ids):
        return "?"


def test_number_rows_are_those_of_the_pieces_of_numbers():
    tokenizer = published("t5")
    rows = NumberRows(below=300).of(tokenizer)
    pieces = {token for number in range(300) for token in tokenizer.encode(f"{number}")}
    space = tokenizer._processor.piece_to_id("\u2581")
    assert set(rows.ids) == pieces - {space} and space in pieces
    assert rows.of(published("llama2")) is rows, "ids that are given stay"
    with pytest.raises(UserError, match="no piece of the tokenizer holds a digit"):
        NumberRows(below=1).of(Wordless())


def trainer(folder="", sizes=ONE, objective=DROPPING, steps=4, **config):
    class Rows:
        def rows(self, indices):
            made = {i // models.ROWS: batch(int(i // models.ROWS)) for i in indices}
            rows = [
                {k: v[i % models.ROWS] for k, v in made[i // models.ROWS].items()} for i in indices
            ]
            return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    return Trainer(
        model_dir=str(folder),
        objective=objective,
        sources={"prompt": Rows()},
        schedule=Schedule({"prompt": 1}),
        config=TrainerConfig(steps, models.ROWS, **config),
        optimizer=dataclasses.replace(recipe().optimizer, decay_steps=TOTAL),
        checkpoint=CheckpointConfig(every=2),
        partitioner=mesh(sizes),
    )


def begun(one):
    state, report = one.initial_state(one.optimizer.build(4))
    return {path: np.array(x) for path, x in state.trainable.items()}, report


def test_number_rows_alone_are_drawn_anew_on_any_mesh():
    plain = dataclasses.replace(DROPPING, redraws=None)
    before, _ = begun(trainer(objective=plain))
    after, report = begun(trainer())
    assert "drawn anew, in part or whole: lm/embedding/embedding" in report
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {"lm/embedding/embedding"}
    (table,) = ((before[p], after[p]) for p in changed)
    assert set(np.flatnonzero((table[0] != table[1]).any(1))) == set(NUMBERS.ids)
    eight, _ = begun(trainer(sizes=EIGHT))
    np.testing.assert_allclose(eight["lm/embedding/embedding"], table[1], rtol=1e-6, atol=1e-7)
    large = NumberRows(ids=tuple(range(400))).drawn(jnp.zeros((500, 64)), jax.random.key(1))
    assert (np.abs(large[400:]).max(), round(float(large[:400].std()), 1)) == (0, 1.0)
    assert abs(float(large[:400].mean())) < 0.02


def trained(folder, **options):
    one = trainer(folder, **options)
    one.fit()
    return {path: np.array(x) for path, x in flat(one.params()).items()}


@pytest.mark.slow
def test_a_run_that_stopped_ends_with_the_bits_of_one_that_did_not(tmp_path):
    """Dropout, schedule and batches go on; what was drawn anew is not drawn again."""
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "halves", steps=2)
    halves = trained(tmp_path / "halves")
    for path, leaf in whole.items():
        np.testing.assert_array_equal(halves[path], leaf, err_msg=path)


@pytest.mark.slow
def test_a_run_that_starts_from_another_draws_its_numbers_anew(tmp_path):
    table = trained(tmp_path)["lm/embedding/embedding"]
    taken, report = begun(trainer(init=(InitFrom(str(tmp_path), step="last"),), seed=3))
    rows = np.flatnonzero((taken["lm/embedding/embedding"] != table).any(1))
    assert set(rows) == set(NUMBERS.ids) and re.search("restored .* from", report)


def test_a_published_t5_starts_it_words_and_numbers_apart(tmp_path):
    sizes = {"d_ff": LM.mlp_dim, "vocab_size": models.VOCAB, "feed_forward_proj": "relu"}
    said = {**T5, **sizes, "tie_word_embeddings": True, "dropout_rate": 0.1}
    rows = publish(tmp_path, said)["shared.weight"]
    one = trainer(
        init=(InitFrom(str(tmp_path), ("^lm/",)),),
        allow_fresh=recipe().trainer.allow_fresh,
        objective=dataclasses.replace(DROPPING, lm=dataclasses.replace(DROPPING.lm, head_dim=8)),
    )
    found, report = begun(one)
    assert "fresh 1 [lm/word_embedding/embedding]" in report
    changed = np.flatnonzero((found["lm/embedding/embedding"] != rows).any(1))
    assert set(changed) == set(NUMBERS.ids)
