"""A figure, its interval and its pairing; what may not be compared is refused by name."""

import numpy as np
import pytest
import scipy.stats

from ilm_jax.cli import main as cli
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import card, results
from ilm_jax.evaluation.reports.comparison import holm, pair, pair_all
from ilm_jax.metrics import texts
from ilm_jax.metrics.values import Evaluation, MetricValues

DRAW = np.random.Generator(np.random.Philox(5))
USERS, TEXTS = np.arange(120), np.arange(40)
HARD = DRAW.random(120)
HITS = (DRAW.random(120) < HARD).astype(float)
TOKENS = DRAW.integers(10, 30, 40).astype(float)
NATS = TOKENS * (2 + DRAW.random(40))
WORDS = "one two three four five six seven eight nine ten".split()
REFERENCES = [" ".join(DRAW.choice(WORDS, 9)) for _ in TEXTS]
WORSE = [" ".join(reversed(text.split())) if i % 3 else text for i, text in enumerate(REFERENCES)]
CARD = {
    **card.interactions_card({"dataset": "toy", "held_out_items": 0.1, "fingerprint": "ab"}),
    "ranking": card.ranking_card(
        task="t",
        split="test",
        users=120,
        users_total=120,
        items=50,
        beams=10,
        excludes_history=False,
        found={"valid_ids": 1.0},
    ),
}


def evaluation(
    folder, *, shift=0.0, wrote=REFERENCES, protocol=CARD, users=USERS, cost=0.0, **more
):
    metrics = [
        MetricValues("hr@10", "users", users, HITS[: len(users)] + shift),
        MetricValues("nll", "held-out texts", TEXTS, NATS + cost * TOKENS, TOKENS, False),
    ]
    counts = texts.bleu_counts(wrote, REFERENCES)
    if counts is not None:
        metrics.append(MetricValues("bleu", "generated texts", TEXTS, counts, total=texts.bleu_of))
    results.write(folder, Evaluation(metrics, {"coverage@10": 0.5}, protocol), step=3, **more)
    return str(folder)


def test_what_is_written_is_read_back(tmp_path):
    stored = results.read(evaluation(tmp_path))
    assert stored.record["figures"]["coverage@10"] == 0.5 and stored.record["step"] == 3
    nll = stored.metrics["nll"]
    assert nll.mean == pytest.approx(NATS.sum() / TOKENS.sum())
    assert stored.intervals["nll"] == nll.interval()
    assert stored.record["figures"]["hr@10"] == stored.metrics["hr@10"].mean == HITS.mean()
    evaluation(tmp_path / "run" / "evaluation")
    assert results.read(tmp_path / "run").record == stored.record
    with pytest.raises(UserError, match="holds no evaluation.json"):
        results.read(tmp_path / "absent")


def test_one_value_has_no_bounds_and_json_stays_strict(tmp_path):
    one = MetricValues("hr@1", "users", np.array([7]), np.ones(1))
    results.write(tmp_path, Evaluation([one]))
    assert "Infinity" not in (tmp_path / "evaluation.json").read_text()
    assert results.read(tmp_path).intervals["hr@1"].high == np.inf


def test_compare_prints_every_shared_figure_and_calls_a_tie_a_tie(tmp_path, capsys):
    pytest.importorskip("sacrebleu")
    noise = DRAW.normal(size=120) * 0.3
    first = evaluation(tmp_path / "a", wrote=WORSE, cost=0.5 + 0.1 * DRAW.normal(size=40))
    second = evaluation(tmp_path / "b", shift=noise - noise.mean() + 0.001)
    assert cli.main(["compare", first, second]) == 0
    lines = capsys.readouterr().out.splitlines()
    verdicts = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in lines[4:7]}
    expected = {"hr@10": "tie within noise", "nll": "B better", "bleu": "B better"}
    assert verdicts == expected
    assert lines[3].startswith("|---") and "3 metrics were compared" in lines[-1]
    hits = next(line for line in lines if line.startswith("| hr@10"))
    test = scipy.stats.ttest_rel(HITS, HITS + noise - noise.mean() + 0.001)
    assert f"| {test.pvalue:.2g} |" in hits and "120 users" in hits
    assert cli.main(["compare", first, second, "--metrics=nll"]) == 0
    assert "hr@10" not in capsys.readouterr().out


def test_runs_under_other_rules_are_refused_and_the_rule_is_named(tmp_path, capsys):
    changed = {**CARD, "ranking": {**CARD["ranking"], "beams": 20, "found": {"valid_ids": 0.5}}}
    first = evaluation(tmp_path / "a")
    second = evaluation(tmp_path / "b", protocol=changed)
    assert cli.main(["compare", first, second]) == 2
    message = capsys.readouterr().err
    assert "ranking.beams: 10 and 20" in message and "valid_ids" not in message
    third = evaluation(tmp_path / "c", users=USERS[:100])
    assert cli.main(["compare", first, third, "--metrics=hr@10"]) == 2
    assert "120 users" in capsys.readouterr().err
    for words, said in (
        ([first], "RUN_B is missing"),
        ([first, second, third], "unexpected argument"),
        ([first, first, "--figures=mrr"], "no metric 'mrr' in both; they share: hr@10, nll"),
        ([first, str(tmp_path)], "holds no evaluation.json"),
    ):
        assert cli.main(["compare", *words]) == 2
        assert said in capsys.readouterr().err


def test_models_that_were_asked_in_other_formats_are_compared_and_it_is_said(tmp_path, capsys):
    plain = {"format": "plain", "tokenizer": "a" * 64}
    chat = {"format": "chat", "template": "f" * 64, "system": "", "tokenizer": "a" * 64}
    subjects = {
        "plain": {"prompts": plain},
        "chat": {"prompts": chat},
        "brief": {"prompts": {**chat, "system": "Be brief."}},
        "other": {"prompts": {**plain, "tokenizer": "b" * 64}},
        "early": {},
    }
    folders = {name: evaluation(tmp_path / name, **more) for name, more in subjects.items()}

    def said(first, second):
        assert cli.main(["compare", folders[first], folders[second], "--metrics=hr@10"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [line.partition("): ")[2] for line in lines if "were asked differently" in line]

    assert said("plain", "chat") == [f"format: plain and chat; template: absent and {'f' * 12}"]
    assert said("chat", "brief") == ["system: absent and Be brief."]
    assert said("plain", "other") == [f"tokenizer: {'a' * 12} and {'b' * 12}"]
    assert said("plain", "plain") == said("early", "chat") == []


def test_a_metric_that_cannot_be_paired_is_named_beside_those_that_are(tmp_path, capsys):
    first, fewer = evaluation(tmp_path / "a"), evaluation(tmp_path / "b", users=USERS[:100])
    assert cli.main(["compare", first, fewer]) == 0
    table, _, rest = capsys.readouterr().out.partition("Not compared:")
    assert "| nll |" in table and "| hr@10 |" not in table
    assert "- hr@10: hr@10 was measured on 120 users of the one run" in rest
    alone = [{"hr@10": results.read(folder).metrics["hr@10"]} for folder in (first, fewer)]
    with pytest.raises(UserError, match="120 users"):  # nothing is left
        pair_all(*alone, unpaired={})


def test_lists_by_other_scores_are_compared_and_it_is_said(tmp_path, capsys):
    def scored(name, penalty):
        ranking = {**CARD["ranking"], "score": card.by_names(penalty)}
        return evaluation(tmp_path / name, protocol={**CARD, "ranking": ranking})

    plain, same, shorter = scored("a", 0.0), scored("b", 0.0), scored("c", 1.0)
    assert cli.main(["compare", plain, shorter]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "ordered differently" in x]
    assert "ranking.score" in line and "to the power 1" in line
    assert cli.main(["compare", plain, same]) == 0
    assert "ordered differently" not in capsys.readouterr().out


def test_equal_models_tie_about_as_often_as_the_level_says():
    draw = np.random.Generator(np.random.Philox(6))
    ties = 0
    for _ in range(200):
        a, b = (
            MetricValues("hr@10", "users", USERS, HARD + draw.normal(size=120)) for _ in range(2)
        )
        ties += pair(a, b, samples=300).verdict("A", "B") == "tie within noise"
    low, high = scipy.stats.binom.interval(0.9999, 200, 0.94)
    assert low <= ties <= high


def test_weights_that_differ_cannot_be_paired():
    a = MetricValues("nll", "held-out texts", TEXTS, NATS, TOKENS)
    b = MetricValues("nll", "held-out texts", TEXTS, NATS, TOKENS + 1)
    with pytest.raises(UserError, match="one tokenizer"):
        pair(a, b)
    with pytest.raises(UserError, match="share no metric"):
        pair_all({"nll": a}, {})


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_pairs_carry_the_p_values_that_holm_adjusts_by_hand():
    """The smallest of m is multiplied by m, the next by m - 1, …, and none falls below another."""
    draw = np.random.Generator(np.random.Philox(9))
    shifts = {"hr@10": 0.3, "ndcg@10": 0.0, "mrr@10": 0.15, "hr@1": 0.2}
    first = {
        name: MetricValues(name, "users", USERS, HARD + shift + draw.normal(size=120))
        for name, shift in shifts.items()
    }
    second = {name: MetricValues(name, "users", USERS, HARD) for name in shifts}
    found = {one.name: one for one in pair_all(first, second, samples=100)}
    assert set(found) == set(shifts)
    for name, one in found.items():
        test = scipy.stats.ttest_rel(first[name].values, second[name].values)
        assert one.p_value == pytest.approx(test.pvalue)
    ordered = sorted(found.values(), key=lambda one: one.p_value)
    assert len({one.p_value for one in ordered}) == 4
    largest = 0.0
    for times, one in zip((4, 3, 2, 1), ordered, strict=True):
        largest = max(largest, min(1.0, times * one.p_value))
        assert one.adjusted == pytest.approx(largest), one.name
    (alone,) = pair_all({"hr@10": first["hr@10"]}, second)
    assert alone.adjusted == alone.p_value
