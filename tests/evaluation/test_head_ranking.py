"""Lists by an item head: what training's own scores say, without what was seen, on any mesh."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf.item_rows import ItemRows, check_vectors
from ilm_jax.cf.topk import ITEM_BLOCK
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.streams.item_targets import ItemTargets
from ilm_jax.decoding import item_ranking
from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluate import EVALUATORS
from ilm_jax.evaluation.evaluator import EvaluationConfig
from ilm_jax.evaluation.evaluators.items import ItemsEvaluator
from ilm_jax.evaluation.measures import passes
from ilm_jax.evaluation.measures.head_ranking import HeadMeasure
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.metrics.values import Evaluation
from ilm_jax.models.readers import MLPReader
from ilm_jax.models.t5 import T5Config
from ilm_jax.objectives.heads import TextHead
from ilm_jax.objectives.item_head import ItemHead
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, nested
from tests.evaluation import small
from tests.training import models

ITEMS = 37  # of 40 rows
COLD = 5
BLOCK = (ItemRows("toy", 0, models.ITEMS, np.ones(ITEMS, int)),)
LM = dataclasses.replace(models.LM, num_layers=1)
T5 = T5Config(
    vocab_size=models.VOCAB, num_layers=1, embed_dim=32, num_heads=4, head_dim=8, mlp_dim=64
)
HEADS = {"table": ItemHead(), "soft": ItemHead(vectors="soft", similarity="cosine")}


def vectors():
    found = models.table()
    found[[COLD, *range(ITEMS, models.ITEMS)]] = 0
    return found


def objective(head="table", lm=LM, heads=()):
    reader = MLPReader(models.QFORMER)
    made = LanguageModelling(lm, reader, heads=(*heads, HEADS[head]))
    return made.with_sizes(cf_dim=models.CF, target_length=3, items=BLOCK)


def mesh(*sizes):
    return Partitioner(MeshConfig(*sizes), devices=tuple(jax.devices()[: int(np.prod(sizes))]))


def parameters(made, partitioner):
    """Fresh ones, but for biases."""
    variables = describe_variables(made)
    drawn = initialise(made, variables, list(variables), partitioner, jax.random.key(0))
    path = "item_head/item_bias/bias"
    bias = np.random.default_rng(1).normal(size=drawn[path].shape).astype(np.float32)
    return nested({**drawn, path: jax.device_put(bias, drawn[path].sharding)})


def feed(count=small.EXAMPLES, **options):
    examples = [{**small.example(i), "task": "next"} for i in range(count)]
    for one in examples:
        one["target_item"] %= ITEMS
    converter = PromptConverter(
        {"inputs": 16, "targets": 3},
        small.TOKENIZER,
        num_queries=models.QFORMER.num_queries,
        max_entities=2,
        rows=lambda block, rows: np.asarray(rows, np.int64),
        items=ItemTargets(frozenset({"next"})),
        **options,
    )
    return Feed(small.Examples(examples), converter)


def measured(made, partitioner, count=small.EXAMPLES, length=ITEMS, seen=None):
    model = ModelOnMesh(made, partitioner, vectors())
    measure = HeadMeasure(model, feed(count), made.item_scorer, "toy", length, seen)
    return measure(parameters(made, partitioner))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(passes, "BATCH", 8)
    monkeypatch.setattr(item_ranking, "ITEM_BLOCK", 16)


@pytest.mark.parametrize(
    ("head", "lm"),
    [("soft", LM), pytest.param("table", T5, marks=pytest.mark.slow)],
    ids=["decoder", "encoder-decoder"],
)
def test_lists_are_in_the_order_of_the_scores_that_training_minimises(head, lm):
    """Each item's loss, as the target of every row, is the logarithm of the sum less its score."""
    assert ITEM_BLOCK > 16
    made, one = objective(head, lm), mesh(1)
    params = parameters(made, one)
    found = measured(made, one, 6)
    batch = {n: jnp.asarray(x) for n, x in feed().rows(np.arange(6)).items()}

    @jax.jit
    def losses(items):
        read = made.read(params, batch, jnp.asarray(vectors()))

        def of(row, item):
            targets = jnp.full((6, 1), -1).at[row, 0].set(item)
            asked = dataclasses.replace(read, batch={**batch, "item_targets": targets})
            return made.heads[0].sums(asked)["loss"].total

        every = jax.vmap(of, (0, None))
        return jax.lax.map(lambda item: every(jnp.arange(6), item), items)

    known = np.setdiff1d(np.arange(ITEMS), [COLD])
    want = np.asarray(losses(jnp.asarray(known))).T  # [rows, items]
    for row in range(6):
        listed = found.lists[row][found.lists[row] >= 0]
        assert sorted(listed) == known.tolist(), "an item without a vector is no candidate"
        place = np.searchsorted(known, listed)
        scores = found.scores[row, : len(listed)]
        assert (np.diff(scores) <= 0).all()
        differences = scores + want[row, place]  # the same number for every item
        np.testing.assert_allclose(differences, differences[0], atol=2e-4)
    assert (found.scores[:, -1] == -np.inf).all() and (found.lists[:, -1] == -1).all()


def test_seen_items_are_left_out_and_a_target_never():
    made, one = objective(), mesh(1)
    targets = [small.example(i)["target_item"] % ITEMS for i in range(5)]
    draw = np.random.default_rng(2)
    seen = [np.zeros(0, int), np.array([3, targets[1], 36])]
    seen += [draw.choice(ITEMS, size, replace=False) for size in (7, 1, 12)]
    every, without = measured(made, one, 5), measured(made, one, 5, seen=seen)
    for row in range(5):
        gone = set(seen[row].tolist()) - {targets[row]}
        want = [item for item in every.lists[row].tolist() if item not in gone and item >= 0]
        assert without.lists[row][without.lists[row] >= 0].tolist() == want
    assert (without.ranks <= every.ranks).all() and (without.ranks < every.ranks).any()


def test_eight_devices_list_what_one_lists():
    made = objective("soft")
    one, eight = (measured(made, mesh(*sizes), 11, 10) for sizes in ((1,), (2, 2, 2)))
    np.testing.assert_array_equal(eight.lists, one.lists)
    np.testing.assert_allclose(eight.scores, one.scores, rtol=1e-4, atol=1e-5)


def test_a_run_says_what_it_has():
    both, alone = objective(heads=(TextHead(),)), objective()
    assert both.predicts_text and not alone.predicts_text and models.ILM.predicts_text
    assert both.item_scorer == alone.item_scorer == alone.heads[0]
    assert models.ILM.item_scorer is None and not models.ILM.scores_items
    layouts = {made.layout("prompt") for made in (both, alone, models.ILM)}
    assert {(x.items, x.answers) for x in layouts} == {(True, True), (True, False), (False, True)}


def test_a_head_that_asks_for_histories_reads_hidden_states_before_the_answers():
    """At any place of the row, whose losses of text are read at the answers alone."""
    head = dataclasses.replace(HEADS["table"], history_weight=0.5)
    made = dataclasses.replace(objective(), heads=(head,)).with_sizes(
        cf_dim=models.CF, target_length=3, items=BLOCK
    )
    assert made.layout("prompt").history_weight == 0.5
    assert not objective().layout("prompt").history_weight
    params = parameters(made, mesh(1))
    batch = {n: jnp.asarray(x) for n, x in feed().rows(np.arange(4)).items()}
    places = jnp.array([[0, 3], [1, -1], [2, 5], [4, 0]])
    batch |= {"item_positions": places, "item_targets": jnp.where(places >= 0, 7, -1)}
    narrow = made.read(params, batch, jnp.asarray(vectors()))
    wide = dataclasses.replace(made, target_length=None)
    whole = wide.read(params, batch, jnp.asarray(vectors()))
    assert narrow.hidden.shape[1] == 3 and whole.hidden.shape[1] == batch["tokens"].shape[1]
    np.testing.assert_allclose(narrow.hidden_at(places), whole.hidden_at(places), rtol=1e-6)
    of_narrow, of_whole = (made.heads[0].sums(read)["item_loss"] for read in (narrow, whole))
    assert of_narrow.weight == 7
    assert of_narrow.total == pytest.approx(of_whole.total)
    with pytest.raises(
        UserError, match=r"T5Config reads a history whole .* ItemHead.history_weight"
    ):
        LanguageModelling(T5, MLPReader(models.QFORMER), heads=(head,))


def test_id_strings_are_measured_unless_told_otherwise(monkeypatch):
    made = objective(heads=(TextHead(),))
    ways = []

    def evaluated(self, measure, params, folder=""):
        ways.append(folder)
        return Evaluation([]), []

    monkeypatch.setattr(ItemsEvaluator, "_evaluate", evaluated)
    monkeypatch.setattr(ItemsEvaluator, "_by_head", "head")
    monkeypatch.setattr(ItemsEvaluator, "_by_names", "names")
    task = types.SimpleNamespace(
        model=types.SimpleNamespace(objective=made),
        catalogue=types.SimpleNamespace(num_items=ITEMS),
        spec=types.SimpleNamespace(answer="items"),
    )
    for id_strings in (True, False):
        ItemsEvaluator(task, EvaluationConfig(id_strings=id_strings)).evaluate({}, 1)
    assert ways == ["", "id_strings", ""]


def test_lists_that_cannot_be_are_refused():
    made, one = objective(), mesh(1)
    with pytest.raises(UserError, match=f"a list of 38 items: toy has {ITEMS}"):
        measured(made, one, 3, ITEMS + 1)
    model = ModelOnMesh(made, one, vectors())
    with pytest.raises(UserError, match="knows no items of shop"):
        HeadMeasure(model, feed(3), made.item_scorer, "shop")


def test_an_item_to_be_predicted_without_a_vector_is_named():
    class Tables:
        cold = np.array([False, True, True, False])
        rows = staticmethod(lambda block, local: np.asarray(local) + 1)

    check_vectors(Tables, "toy", np.array([0, 0, 5]), ["a", "b", "c"])
    with pytest.raises(
        UserError, match=r"item 'b' of toy is to be predicted and has no vector.*1 it"
    ):
        check_vectors(Tables, "toy", np.array([0, 2, 5]), ["a", "b", "c"])


@pytest.mark.parametrize("answer", ["text", "rating"])
def test_what_was_not_learnt_is_not_measured(answer):
    task = types.SimpleNamespace(model=types.SimpleNamespace(objective=objective()))
    evaluator = EVALUATORS[answer]
    ready = evaluator.__new__(evaluator)
    ready.task, ready.config = task, EvaluationConfig()
    found, writers = ready.evaluate({}, 1)
    assert not found.metrics and not writers
    assert "ranks items alone" in next(iter(found.missing.values()))
