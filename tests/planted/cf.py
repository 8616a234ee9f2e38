"""Slips in collaborative filtering: iALS, ranks, negatives and sampled metrics."""

from tests.planted import Fault

_IALS = "tests/cf/test_ials.py -k 'numpy or starts or rises or zero or fold_in'"
_RANKS = "tests/cf/test_ranks.py"
_SAMPLED = "tests/cf/test_sampled_metrics.py -k 'never_met or stand_above'"
_EVALUATION = "tests/cf/test_cf_evaluation.py"
_SEQUENCES = "tests/cf/test_sequences.py"
_NEXT = "tests/objectives/test_next_item.py"
_WISHES = "tests/runs/test_critiques.py -k 'wish or critique'"

FAULTS = (
    Fault(
        "a fit sees the validation target",
        "ilm_jax/cf/interactions.py",
        "np.where(lengths >= 3, lengths - 2, lengths)",
        "np.where(lengths >= 3, lengths - 1, lengths)",
        "tests/cf/test_at_size.py -k turned_around",
    ),
    Fault(
        "the ridge forgets the unobserved",
        "ilm_jax/cf/ials_solve.py",
        "(counts + alpha * side.others) ** nu",
        "counts**nu",
        _IALS,
    ),
    Fault(
        "nu scales alpha's part alone",
        "ilm_jax/cf/ials_solve.py",
        "(counts + alpha * side.others) ** nu",
        "(counts + (alpha * side.others) ** nu)",
        _IALS,
    ),
    Fault(
        "unobserved pairs weigh one",
        "ilm_jax/cf/ials_solve.py",
        "gram = alpha * _gramian",
        "gram = _gramian",
        _IALS,
    ),
    Fault(
        "the first vectors are not scaled by the width",
        "ilm_jax/cf/ials.py",
        "config.init_stddev / np.sqrt(config.dim)",
        "config.init_stddev",
        _IALS,
    ),
    Fault(
        "items are solved from last epoch's users",
        "ilm_jax/cf/ials.py",
        "user = config.solve(line, user_side, item, user)\n"
        "        item = config.solve(line, item_side, user, item)",
        "before = user + 0\n        user = config.solve(line, user_side, item, user)\n"
        "        item = config.solve(line, item_side, before, item)",
        _IALS,
    ),
    Fault(
        "cold items keep their first draw",
        "ilm_jax/cf/ials.py",
        "    first[turned.lengths == 0] = 0.0\n",
        "",
        _IALS,
    ),
    Fault(
        "a corrected rank starts from 0",
        "ilm_jax/cf/ranks.py",
        "return 1.0 + jnp.asarray(violators, jnp.float32) * scale",
        "return jnp.asarray(violators, jnp.float32) * scale",
        _RANKS,
    ),
    Fault(
        "the second moment counts pairs with themselves",
        "ilm_jax/cf/ranks.py",
        "v * (v - 1) / jnp.maximum(m * (m - 1), 1)",
        "v * v / jnp.maximum(m * m, 1)",
        f"{_RANKS} -k 'shrunk or prior'",
    ),
    Fault(
        "the prior's two sides change places",
        "ilm_jax/cf/ranks.py",
        "return mean * strength, (1 - mean) * strength",
        "return (1 - mean) * strength, mean * strength",
        f"{_RANKS} -k 'shrunk or prior'",
    ),
    Fault(
        "a harmonic number too far",
        "ilm_jax/cf/rank_weights.py",
        "return digamma(violators + 1.0) + np.euler_gamma",
        "return digamma(violators + 2.0) + np.euler_gamma",
        f"{_RANKS} -k weights",
    ),
    Fault(
        "the cut-off's own rank does not count",
        "ilm_jax/cf/rank_weights.py",
        "rank <= cutoff * (1 + 1e-6)",
        "rank < cutoff * (1 - 1e-6)",
        f"{_RANKS} -k 'weights or cutoff'",
    ),
    Fault(
        "popularity is not tempered",
        "ilm_jax/cf/negatives.py",
        '(config.power if config.kind == "popularity" else 1)',
        "1",
        "tests/cf/test_negatives.py -k 'power'",
    ),
    Fault(
        "expected counts forget how many are drawn",
        "ilm_jax/cf/negatives.py",
        "chance * len(chosen), 1e-30",
        "chance, 1e-30",
        "tests/cf/test_negatives.py -k 'candidates_are_drawn'",
    ),
    Fault(
        "draws by popularity are one item late",
        "ilm_jax/cf/cells.py",
        "halve, begin)[0]",
        "halve, begin)[0] + 1",
        "tests/cf/test_negatives.py -k 'candidates_are_drawn'",
    ),
    Fault(
        "a history's bit is looked for from the other end",
        "ilm_jax/cf/negatives.py",
        ">> (items % 32).astype",
        ">> (31 - items % 32).astype",
        "tests/cf/test_negatives.py -k bitmap",
    ),
    Fault(
        "the target may be drawn as a negative",
        "ilm_jax/cf/sampled_metrics.py",
        "np.unique(np.append(seen.of(user), target))",
        "np.unique(seen.of(user))",
        _SAMPLED,
    ),
    Fault(
        "met items slip in among the negatives",
        "ilm_jax/cf/sampled_metrics.py",
        'rank, side="right")',
        'rank, side="left")',
        _SAMPLED,
    ),
    Fault(
        "a candidate that ties is below",
        "ilm_jax/cf/sampled_metrics.py",
        "(sampled >= target).sum(1)",
        "(sampled > target).sum(1)",
        _SAMPLED,
    ),
    Fault(
        "ties count for the target",
        "ilm_jax/cf/evaluation.py",
        "open_ & (scores >= best)",
        "open_ & (scores > best)",
        _EVALUATION,
    ),
    Fault(
        "tests are judged with their target known",
        "ilm_jax/cf/evaluation.py",
        "np.where(judged, lengths - before, lengths)",
        "np.where(judged, lengths, lengths)",
        _EVALUATION,
    ),
    Fault(
        "validation and test targets change places",
        "ilm_jax/cf/evaluation.py",
        "before = 1 if fold == TEST else 2",
        "before = 2 if fold == TEST else 1",
        _EVALUATION,
    ),
    Fault(
        "a history holds its target",
        "ilm_jax/cf/sequences.py",
        "(1 if fold == TEST else 2)",
        "(1 if fold else 2)",
        _SEQUENCES + " -k ends_before",
    ),
    Fault(
        "a target is the item itself",
        "ilm_jax/cf/sequences.py",
        "self._train.items[item + 1]",
        "self._train.items[item + 0]",
        _SEQUENCES + " -k every_step",
    ),
    Fault(
        "sequences of a row are one",
        "ilm_jax/cf/sequences.py",
        "place - place[:, :1] + 1",
        "0 * place + 1",
        _SEQUENCES + " -k pieces",
    ),
    Fault(
        "rows that fill a table up are items",
        "ilm_jax/objectives/next_item.py",
        "< self.num_items, 0.0, NOTHING)",
        "< self.num_items, 0.0, 0.0)",
        _NEXT + " -k softmax_is",
    ),
    Fault(
        "a place's own target is among its candidates",
        "ilm_jax/objectives/next_item.py",
        "candidates[None, :] != targets[:, None]",
        "candidates[None, :] != targets[:, None] - 99",
        _NEXT + " -k expectation",
    ),
    Fault(
        "padding is a target",
        "ilm_jax/objectives/next_item.py",
        '(batch["segment_ids"] > 0)',
        '(batch["segment_ids"] > -1)',
        _NEXT + " -k padding",
    ),
    Fault(
        "negatives weigh one, however many",
        "ilm_jax/objectives/ranking.py",
        "positive + negatives * _mean",
        "positive + _mean",
        _NEXT + " -k binary",
    ),
    Fault(
        "a wish is read behind the item that it led to",
        "ilm_jax/cf/sequences.py",
        'found["wishes"] = self._shown(epoch)[item + 1]',
        'found["wishes"] = self._shown(epoch)[item]',
        _WISHES,
    ),
    Fault(
        "a critique is read behind every item",
        "ilm_jax/objectives/next_item.py",
        "(place == last[:, None])[..., None]",
        "(place <= last[:, None])[..., None]",
        _WISHES,
    ),
    Fault(
        "critiques of held-out items are trained on",
        "ilm_jax/cf/critiques.py",
        "open_ = text is not None and splits.item_fold[item] == TRAIN",
        "open_ = text is not None",
        _WISHES,
    ),
)
