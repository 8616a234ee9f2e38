"""Slips in metrics, intervals, comparisons and what is ranked."""

from tests.planted import Fault

_METRICS = "tests/metrics/test_ranking.py"
_INTERVALS = "tests/metrics/test_intervals.py"
_PAIRS = "tests/evaluation/test_comparison.py"
_SCORES = "tests/metrics/test_scores.py"

FAULTS = (
    Fault(
        "a hit at the cut-off is none",
        "ilm_jax/metrics/ranking.py",
        "(_checked(ranks) <= k).any(axis=1)",
        "(_checked(ranks) < k).any(axis=1)",
        _METRICS,
    ),
    Fault(
        "the ideal list always has k hits",
        "ilm_jax/metrics/ranking.py",
        "ideal[np.minimum(_known(ranks), k) - 1]",
        "ideal[k - 1]",
        _METRICS,
    ),
    Fault(
        "gains fall from rank 0",
        "ilm_jax/metrics/ranking.py",
        "1.0 / np.log2(1.0 + ranks), 0.0)",
        "1.0 / np.log2(2.0 + ranks), 0.0)",
        _METRICS,
    ),
    Fault(
        "recall is over k",
        "ilm_jax/metrics/ranking.py",
        "(ranks <= k).sum(axis=1) / _known(ranks)",
        "(ranks <= k).sum(axis=1) / k",
        _METRICS,
    ),
    Fault(
        "a target ties for nothing",
        "ilm_jax/metrics/ranking.py",
        "np.sum(scores[open_] >= scores[target])",
        "np.sum(scores[open_] > scores[target])",
        _METRICS,
    ),
    Fault(
        "MRR has no cut-off",
        "ilm_jax/metrics/ranking.py",
        "best <= (MISSED if k is None else k)",
        "best <= MISSED",
        _METRICS,
    ),
    Fault(
        "the interval leaves out both tails twice",
        "ilm_jax/metrics/intervals.py",
        "np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])",
        "np.quantile(ratios, [1 - level, level])",
        _INTERVALS,
    ),
    Fault(
        "Student's t has a degree of freedom too many",
        "ilm_jax/metrics/intervals.py",
        "scipy.stats.t.ppf((1 + level) / 2, units - 1)",
        "scipy.stats.t.ppf((1 + level) / 2, units)",
        _INTERVALS,
    ),
    Fault(
        "the deviation is that of a population",
        "ilm_jax/metrics/intervals.py",
        "np.std(residuals, ddof=1)",
        "np.std(residuals)",
        _INTERVALS,
    ),
    Fault(
        "the p-value is one-sided",
        "ilm_jax/metrics/intervals.py",
        "float(2 * scipy.stats.t.sf(",
        "float(scipy.stats.t.sf(",
        _PAIRS,
    ),
    Fault(
        "samples are means of ratios",
        "ilm_jax/metrics/intervals.py",
        "ratio = values[drawn].sum(axis=1) / totals",
        "ratio = (values / np.maximum(weights, 1e-9))[drawn].mean(axis=1)",
        _INTERVALS,
    ),
    Fault(
        "rows are resampled, not users",
        "ilm_jax/metrics/intervals.py",
        "np.unique(users, return_inverse=True, return_counts=True)",
        "np.unique(np.arange(len(users)), return_inverse=True, return_counts=True)",
        _INTERVALS,
    ),
    Fault(
        "weights do not resample with their values",
        "ilm_jax/metrics/intervals.py",
        "totals = weights[drawn].sum(axis=1)",
        "totals = np.full(len(drawn), weights.sum())",
        _INTERVALS,
    ),
    Fault(
        "Holm without its steps",
        "ilm_jax/evaluation/reports/comparison.py",
        "np.arange(len(order), 0, -1)",
        "len(order)",
        _PAIRS,
    ),
    Fault(
        "an adjusted p falls below a smaller one's",
        "ilm_jax/evaluation/reports/comparison.py",
        "np.minimum(np.maximum.accumulate(scaled), 1.0)",
        "np.minimum(scaled, 1.0)",
        _PAIRS,
    ),
    Fault(
        "adjusted p-values go to the wrong figures",
        "ilm_jax/evaluation/reports/comparison.py",
        "adjusted[order] = np.minimum",
        "adjusted[:] = np.minimum",
        _PAIRS,
    ),
    Fault(
        "a lower loss is the worse",
        "ilm_jax/evaluation/reports/comparison.py",
        'if self.higher_is_better else f"{lower} better"',
        'if True else f"{lower} better"',
        _PAIRS,
    ),
    Fault(
        "ties share their highest rank",
        "ilm_jax/metrics/scores.py",
        "(last - (counts - 1) / 2.0)[inverse]",
        "last.astype(float)[inverse]",
        _SCORES,
    ),
    Fault(
        "AUC without its correction",
        "ilm_jax/metrics/scores.py",
        "- ones * (ones + 1) / 2.0",
        "- ones * (ones - 1) / 2.0",
        _SCORES,
    ),
    Fault(
        "users of one kind of rows have an AUC of zero",
        "ilm_jax/metrics/scores.py",
        "kept = ~np.isnan(found)",
        "found = np.nan_to_num(found)\n    kept = found >= 0",
        _SCORES,
    ),
    Fault(
        "a repeated item wins twice",
        "ilm_jax/metrics/lists.py",
        "np.isin(ranked[row], items) & ~again[row]",
        "np.isin(ranked[row], items)",
        "tests/metrics/test_lists.py",
    ),
    Fault(
        "a seen target is no candidate",
        "ilm_jax/evaluation/measures/ranking.py",
        'np.setdiff1d(items, [feed.stream[number]["target_item"]])',
        "np.asarray(items)",
        "tests/evaluation/test_exclude_seen.py",
    ),
    Fault(
        "the wish to leave out the seen is lost",
        "ilm_jax/evaluation/evaluators/items.py",
        "if self.config.exclude_seen:",
        "if False:",
        "tests/cli/test_trained_run_answers.py -k earlier_choices",
    ),
    Fault(
        "validation leaves out the history of the test",
        "ilm_jax/evaluation/measures/ranking.py",
        'splits.test_target if split == "test" else splits.valid_target',
        "splits.test_target",
        "tests/evaluation/test_exclude_seen.py",
    ),
)
