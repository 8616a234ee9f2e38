"""The auto-rater finds planted errors, with a judge that was taught what they are.

A small decoder learns to answer the rater's own questions about a language of a few words; then it
judges texts that it has not seen, some of them spoilt.
"""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures import auto_rater
from ilm_jax.evaluation.measures.auto_rater import FLUENCY, HISTORY, ITEM, AutoRater, Criterion
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.models.decoder import DecoderConfig
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner

COLOURS = "red blue green grey gold pink".split()
OTHERS = "quiet loud warm cold old new".split()
# Short ones, for a judge of 32 dimensions.
CRITERIA = (
    Criterion("rater_fluency", "{text} fluent? "),
    Criterion("rater_item", "{item} : {text} true? "),
    Criterion("rater_history", "{history} < {text} fits? "),
)
PLANTED = {"rater_fluency": "words", "rater_item": "item", "rater_history": "history"}


class Words:
    """One id per word: all that questions and answers need of a tokenizer."""

    bos_id, eos_id, pad_id, space_leads, chat = 1, 2, 0, False, None

    def __init__(self):
        self.ids = {}

    def encode(self, text, *, continues=False):
        return [self.ids.setdefault(word, len(self.ids) + 3) for word in text.split()]

    def encode_with_spans(self, text, *, continues=False):
        return self.encode(text), [(0, len(text))] * len(text.split())


def described(draw, error=None):
    """(text, item, history): one colour names the item and is among the history; or an error."""
    colour, other, kind = draw.choice(COLOURS), draw.choice(COLOURS), draw.choice(OTHERS)
    item = colour
    if error == "item":
        item = draw.choice([c for c in COLOURS if c != colour])
    past = [colour, other]
    if error == "history":
        past = list(draw.choice([c for c in COLOURS if c != colour], 2))
    words = ["a", kind, colour, "thing"]
    if error == "words":
        words = [words[i] for i in draw.permutation([1, 3, 2, 0])]
        words = words if words != ["a", kind, colour, "thing"] else words[::-1]
    return " ".join(words), item, " ".join(draw.permutation(past))


def rater_of(model, params, words, **changes):
    return AutoRater(model, params, words, length=16, criteria=CRITERIA, **changes)


@pytest.fixture(scope="module")
def judge():
    """(model, parameters, tokenizer) of a decoder that learnt to answer."""
    objective = LanguageModelling(
        DecoderConfig(
            vocab_size=48, num_layers=2, embed_dim=32, num_heads=4, num_kv_heads=4, mlp_dim=64
        )
    )
    words = Words()
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    model = ModelOnMesh(objective, one, np.zeros((1, 1), np.float32))
    rater = rater_of(model, None, words)
    draw = np.random.Generator(np.random.Philox(1))
    converter = PromptConverter({"inputs": 16, "targets": 1}, words)
    examples = []
    for _ in range(2500):
        criterion = CRITERIA[draw.integers(3)]
        error = PLANTED[criterion.name] if draw.random() < 0.5 else None
        row = dict(zip(("text", "item", "history"), described(draw, error), strict=True))
        examples.append(rater.example(criterion, row, "no" if error else "yes"))
    batch = converter(examples)
    params = jax.tree.map(
        lambda x: getattr(x, "value", x),
        objective.init(jax.random.key(0)),
        is_leaf=lambda x: hasattr(x, "value"),
    )
    optimizer = optax.adam(4e-3)

    @jax.jit
    def learn(params, state, batch):
        def loss(params):
            sums = objective.loss(params, "prompt", batch, model.vectors, None)["loss"]
            return sums.total / sums.weight

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for step in range(400):
        rows = np.random.default_rng(step).integers(0, len(examples), 128)
        params, state = learn(params, state, {name: x[rows] for name, x in batch.items()})
    return model, params, words


@pytest.mark.slow
def test_planted_errors_are_rated_below_texts_without(judge):
    rater = rater_of(*judge)
    draw = np.random.Generator(np.random.Philox(2))
    good = rater(*zip(*[described(draw) for _ in range(64)], strict=True))
    for name, error in PLANTED.items():
        bad = rater(*zip(*[described(draw, error) for _ in range(64)], strict=True))[name]
        above = (good[name][:, None] > bad[None]).mean()  # AUC of good against spoilt
        assert above > 0.9, (name, above)
        assert ((0 <= bad) & (bad <= 1)).all()
    metrics = rater.evaluation(*zip(*[described(draw) for _ in range(40)], strict=True)).metrics
    assert [metric.name for metric in metrics] == list(PLANTED)
    interval = metrics[1].interval()
    assert 0 <= interval.low <= interval.mean <= interval.high <= 1


@pytest.mark.slow
def test_calibration_takes_off_what_the_judge_says_about_nothing(judge):
    text = [described(np.random.default_rng(0))[0]]
    raw = rater_of(*judge, calibrated=False)([*text, auto_rater.NOTHING])["rater_fluency"]
    calibrated = rater_of(*judge)(text)["rater_fluency"]
    odds = np.log(raw / (1 - raw))
    assert np.log(calibrated / (1 - calibrated)) == pytest.approx(odds[:1] - odds[1:], abs=1e-3)


def test_questions_are_filled_in_one_go_and_wrong_sides_are_refused():
    words = Words()
    rater = AutoRater(None, None, words)
    inputs = rater.example(ITEM, {"text": "{item}", "item": "x"}, "yes")["inputs"].tolist()
    names = {number: word for word, number in words.ids.items()}
    shown = [names[token] for token in inputs]
    assert shown[:4] == ["Item:", "x", "Text:", "{item}"]
    assert all(c.question.endswith(": ") for c in (FLUENCY, ITEM, HISTORY))
    with pytest.raises(UserError, match="2 for text, 1 for item"):
        rater(["a", "b"], ["x"])
    with pytest.raises(UserError, match="one of each"):
        rater([])
    with pytest.raises(UserError, match="give items or histories"):
        AutoRater(None, None, words, criteria=(ITEM,))(["a"])


def test_what_is_too_long_for_a_question_is_cut_in_its_middle_and_counted():
    words = Words()
    rater = AutoRater(None, None, words, length=24)
    rows = [
        {"text": "short", "item": "x"},
        {"text": "first " + "word " * 300 + "last", "item": "x"},
        {"text": "short", "item": "head " + "w " * 40 + "tail"},
    ]
    for row in rows:
        fitting = rater._fitting(ITEM, row)
        inputs = rater.example(ITEM, fitting, "yes")["inputs"].tolist()
        names = {number: word for word, number in words.ids.items()}
        shown = [names[token] for token in inputs]
        assert len(shown) <= 24 and shown[-3:] == ["yes", "or", "no:"]
        for side, text in row.items():
            ends = text.split()[0], text.split()[-1]
            assert (fitting[side].split()[0], fitting[side].split()[-1]) == ends
    assert rater._fitting(ITEM, rows[0]) is rows[0]
    with pytest.raises(UserError, match="length = 5: rater_item asks in more tokens"):
        dataclasses.replace(rater, length=5)._fitting(ITEM, rows[0])

    class Odds(AutoRater):
        def _log_odds(self, questions, watch):
            assert all(len(self._inputs(*question)) <= 24 for question in questions)
            return np.zeros(len(questions))

    judge = Odds(None, None, words, length=24, criteria=(FLUENCY, ITEM))
    texts, items = zip(*((row["text"], row["item"]) for row in rows), strict=True)
    assert judge.evaluation(texts, items).totals == {"rater_cut": pytest.approx(2 / 3)}
    assert judge.evaluation(texts[:1], items[:1]).totals == {}
